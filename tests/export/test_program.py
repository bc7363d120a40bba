"""The step program and what stands beside it, without any other runtime."""

import base64
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import normalizers

from smt_hf import SMTConfig, SMTForCausalLM
from smt_hf.cli import main
from smt_hf.data import byte_tokenizer, load_tokenizer, symbol_tokenizer
from smt_hf.export.export import export
from smt_hf.export.page import check_runtime, check_size, page_tokenizer, write_page
from smt_hf.export.program import NOTHING, StepProgram, check, compare, described
from smt_hf.models.state_cache import memory_layer


def tiny_model(cell: str = "gru", **changes: Any) -> SMTForCausalLM:
    torch.manual_seed(0)
    sizes: dict[str, Any] = dict(
        vocab_size=258, hidden_size=16, num_memory_tokens=4, num_hidden_layers=2, num_readout_layers=1,
        num_attention_heads=2, bos_token_id=256, eos_token_id=256, pad_token_id=257,
    )  # fmt: skip
    return SMTForCausalLM(SMTConfig(cell=cell, **{**sizes, **changes})).eval()


def run_of(program: StepProgram, error: float = 0.0) -> Any:
    def run(token: np.ndarray, memory: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        logits, after = program(torch.from_numpy(token), torch.from_numpy(memory))
        return logits.numpy() + error, after.numpy()

    return run


@pytest.mark.parametrize("cell", ["transformer", "mlp", "gru", "lstm", "elman"])
@torch.no_grad()
def test_one_step_after_another_computes_what_the_model_does(cell):
    model = tiny_model(cell)
    program = StepProgram(model)
    ids = torch.randint(258, (1, 9))
    memory = torch.from_numpy(program.start())
    for at, token in enumerate(ids[0]):
        logits, memory = program(token[None], memory)
        out = model(ids[:, : at + 1], use_cache=True)
        torch.testing.assert_close(logits, out.logits[:, -1], rtol=0, atol=1e-5)
        torch.testing.assert_close(memory, memory_layer(out.cache).memory, rtol=0, atol=1e-5)
    silent, unmoved = program(torch.tensor([NOTHING]), memory)
    assert torch.equal(unmoved, memory) and torch.equal(silent, logits)


def test_the_program_is_in_float32_and_the_model_stays_as_it_is():
    model = tiny_model().bfloat16()
    program = StepProgram(model)
    assert {weight.dtype for weight in program.parameters()} == {torch.float32}
    assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}


def test_a_program_that_computes_something_else_is_refused():
    program = StepProgram(tiny_model())
    check(compare(run_of(program), program, 8), "it")
    for error in (2e-4, float("nan")):
        with pytest.raises(ValueError, match="it computes logits that differ from PyTorch's by"):
            check(compare(run_of(program, error), program, 8), "it")


def test_a_program_whose_memory_moves_where_nothing_is_read_is_refused():
    program = StepProgram(tiny_model())

    def run(token, memory):
        return run_of(program)(np.maximum(token, 0), memory)

    with pytest.raises(ValueError, match="inf"):
        check(compare(run, program, 8), "it")


def test_the_memory_to_begin_with_stands_in_the_description():
    program = StepProgram(tiny_model())
    about = described(program)
    start = np.frombuffer(base64.b64decode(about["initial_memory"]), "<f4").reshape(1, *about["memory"])
    assert (start == program.start()).all()
    assert (about["bos"], about["eos"], about["vocab_size"], about["layers"]) == (256, 256, 258, 3)


def test_the_tokenizers_of_the_package_are_those_that_a_page_can_run():
    bytewise, example = page_tokenizer(byte_tokenizer()), page_tokenizer(load_tokenizer("example"))
    assert len(bytewise["pieces"]) == 258 and not bytewise["merges"] and not bytewise["words"]
    assert (
        bytewise["special"] == {"<|endoftext|>": 256, "<|pad|>": 257} and bytewise["pieces"][256:] == [None] * 2
    )
    assert len(example["pieces"]) == 2048 and len(example["merges"]) == 1790 and example["words"]
    assert bytewise["prefix"] == example["prefix"] == []


def test_a_tokenizer_that_a_page_cannot_run_is_refused_in_a_sentence():
    normalizing = byte_tokenizer()
    normalizing.backend_tokenizer.normalizer = normalizers.NFC()
    adding = byte_tokenizer()
    adding.add_tokens(["word"])
    others = {"WordLevel": symbol_tokenizer("ab"), "changes text": normalizing, "added tokens": adding}
    for reason, tokenizer in others.items():
        with pytest.raises(ValueError, match=f"the page cannot run this tokenizer .*{reason}"):
            page_tokenizer(tokenizer)


def test_what_a_page_cannot_do_is_refused_in_a_sentence(tmp_path):
    with pytest.raises(ValueError, match="too large for a page"):
        check_size(100_000_001)
    with pytest.raises(ValueError, match=r"holds no ort\.wasm\.min\.mjs; give the folder dist"):
        check_runtime(tmp_path)
    program = StepProgram(tiny_model())
    with pytest.raises(ValueError, match="the tokenizer has 2048 tokens, the model 258"):
        write_page(tmp_path, program, page_tokenizer(load_tokenizer("example")), "a", None)


def test_an_unknown_target_and_a_runtime_without_a_page_are_refused_before_any_work(tmp_path):
    with pytest.raises(
        ValueError, match=r"no export to 'tflite'; it must be one of onnx, openvino, executorch, web"
    ):
        export(tiny_model(), byte_tokenizer(), "tflite", tmp_path / "out", "a")
    with pytest.raises(ValueError, match="runtime is for web, and not for onnx"):
        export(tiny_model(), byte_tokenizer(), "onnx", tmp_path / "out", "a", runtime=tmp_path)
    assert not (tmp_path / "out").exists()


def test_a_page_names_every_file_that_it_loads_and_no_markup_of_a_title(tmp_path):
    program = StepProgram(tiny_model())
    write_page(tmp_path, program, page_tokenizer(byte_tokenizer()), "<b>my: model</b>", None)
    page = (tmp_path / "index.html").read_text("utf-8")
    assert "<title>bmy modelb</title>" in page and "{{" not in page
    assert (tmp_path / "README.md").read_text("utf-8").startswith("---\ntitle: bmy modelb\nsdk: static\n")
    for name in (
        "style.css",
        "page.js",
        "text.js",
        "worker.js",
        "bpe.js",
        "random.js",
        "state.js",
        "model.json",
    ):
        assert (tmp_path / name).is_file()
    for source in tmp_path.glob("*.js"):
        assert len(source.read_text("utf-8").splitlines()) <= 300


def test_a_page_checks_every_file_that_it_loads_from_a_cdn(tmp_path):
    write_page(tmp_path, StepProgram(tiny_model()), page_tokenizer(byte_tokenizer()), "a", None)
    about = json.loads((tmp_path / "model.json").read_text("utf-8"))
    loaded = re.search(r"RUNTIME = (\[.*\]);", (tmp_path / "worker.js").read_text("utf-8"))
    assert loaded is not None and json.loads(loaded[1]) == list(about["integrity"])
    assert about["runtime"].startswith("https://")


def test_the_command_says_what_is_missing_or_wrong(tmp_path, capsys, monkeypatch):
    def said(*words: str) -> str:
        assert main(["export", *words]) == 2
        return capsys.readouterr().err

    out = ("--output-dir", str(tmp_path / "out"))
    assert "--runtime is for --to web" in said("--to", "onnx", "--runtime", ".", *out)
    monkeypatch.setattr("smt_hf.cli.export.find_spec", lambda name: None)
    assert "--to openvino needs onnx, onnxruntime, onnxscript, openvino; pip install" in said(
        "--to", "openvino", *out
    )
    monkeypatch.setattr("smt_hf.cli.export.find_spec", lambda name: name)
    assert "int8 is for onnx and web, and not for openvino" in said("--to", "openvino", "--int8", *out)
    assert f"--output-dir {tmp_path} exists" in said("--to", "web", "--output-dir", str(tmp_path))
    assert not Path(out[1]).exists()
