"""A model that is incomplete, damaged or foreign is refused in one sentence that names tensors or file."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from handmade_record import a_record
from safetensors.torch import load_file, save_file
from tiny_commands import one_line, write_corpus

from smt_hf import SMTConfig, SMTForCausalLM
from smt_hf.cli import main
from smt_hf.data import byte_tokenizer
from smt_hf.pretraining.configuration_teacher import SMTTeacherConfig
from smt_hf.pretraining.teacher import SMTTeacher
from smt_hf.runs.weights import load_whole

SIZES: dict[str, Any] = {
    "hidden_size": 16, "num_attention_heads": 2, "num_memory_tokens": 2, "num_readout_layers": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "whole"
    torch.manual_seed(0)
    SMTForCausalLM(SMTConfig(vocab_size=258, **SIZES)).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def model(whole: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return shutil.copytree(whole, tmp_path / "model")


Weights = dict[str, torch.Tensor]


def change_weights(change: Callable[[Weights], Weights]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        path = folder / "model.safetensors"
        save_file(change(load_file(path)), path, {"format": "pt"})

    return damage


def write(name: str, text: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (folder / name).write_text(text)

    return damage


def change_config(**values: Any) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, **values}))

    return damage


def cut(name: str, keep: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (folder / name).write_bytes(keep((folder / name).read_bytes()))

    return damage


def index_of(*names: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        weight_map = {f"tensor.{i}": name for i, name in enumerate(names)}
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))

    return damage


HEAD = "lm_head.weight"
DAMAGE: dict[str, tuple[Callable[[Path], None], list[str]]] = {
    "a tensor less": (change_weights(lambda w: {k: v for k, v in w.items() if k != HEAD}), [HEAD]),
    "no tensor": (change_weights(lambda w: {}), ["model.cell", "more"]),
    "a tensor more": (change_weights(lambda w: {**w, "extra.weight": torch.ones(2)}), ["extra.weight"]),
    "another shape": (change_weights(lambda w: {**w, HEAD: torch.ones(3, 16)}), [HEAD, "shape"]),
    "int8": (change_weights(lambda w: {**w, HEAD: w[HEAD].to(torch.int8)}), [HEAD, "I8"]),
    "nan": (change_weights(lambda w: {**w, HEAD: w[HEAD] * torch.nan}), [HEAD, "finite"]),
    "infinite": (change_weights(lambda w: {**w, HEAD: w[HEAD] / 0}), [HEAD, "finite"]),
    "a readout layer more": (change_config(num_readout_layers=2), ["model.readout.blocks.1"]),
    "another width": (change_config(hidden_size=32), ["shape", HEAD]),
    "another model": (change_config(model_type="gpt2"), ["'gpt2'", "'smt'"]),
    "a word for a width": (change_config(hidden_size="wide"), ["hidden_size"]),
    "absurd sizes": (change_config(hidden_size=2**40), ["memory"]),
    "cut weights": (cut("model.safetensors", lambda b: b[: len(b) // 2]), ["model.safetensors"]),
    "empty weights": (cut("model.safetensors", lambda b: b""), ["model.safetensors"]),
    "garbage weights": (cut("model.safetensors", lambda b: b"x" * 99), ["model.safetensors"]),
    "a part that is missing": (index_of("model-1-of-1.safetensors"), ["model-1-of-1.safetensors"]),
    "a part elsewhere": (index_of("../elsewhere.safetensors"), ["elsewhere.safetensors"]),
    "an index without a map": (index_of(), ["model.safetensors.index.json"]),
    "config.json cut": (write("config.json", '{"model_type": "smt"'), ["config.json"]),
    "config.json a list": (write("config.json", "[]"), ["config.json"]),
    "generation_config.json cut": (write("generation_config.json", "{"), ["generation_config.json"]),
    "generation_config.json odd": (
        write("generation_config.json", '{"max_new_tokens": -3}'),
        ["max_new_tokens"],
    ),
    "an id that is a word": (write("generation_config.json", '{"pad_token_id": "x"}'), ["pad_token_id"]),
    "no beams": (write("generation_config.json", '{"num_beams": -1}'), ["num_beams"]),
    "a dtype of no name": (change_config(dtype="x"), ["dtype"]),
    "tokenizer.json cut": (write("tokenizer.json", "{"), ["tokenizer"]),
    "tokenizer.json odd": (write("tokenizer.json", '{"a": 1}'), ["tokenizer"]),
    "tokenizer_config.json a list": (write("tokenizer_config.json", "[]"), ["tokenizer"]),
}


def refused(capfd: pytest.CaptureFixture[str], *words: object) -> str:
    capfd.readouterr()
    assert main([str(word) for word in words]) == 2
    return one_line(capfd.readouterr().err)


@pytest.mark.parametrize("case", DAMAGE)
def test_generate_refuses_what_is_not_whole(case, model, capfd):
    damage, named = DAMAGE[case]
    damage(model)
    line = refused(capfd, "generate", model, "--prompt", "a", "--max-new-tokens", 2)
    assert str(model) in line
    assert [text for text in named if text not in line] == [], line


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_file_is_no_model(name, model, capfd):
    """Nor the name of a repository, which would be asked for."""
    line = refused(capfd, "generate", model / name, "--prompt", "a")
    assert f"{model / name} is a file; give the folder of a finished run" in line


def test_a_file_is_no_folder_of_a_run(model, capfd):
    path = model / "config.json"
    line = refused(
        capfd, "pretrain", "--preset", "tiny", "--dataset", "copy", "--max-steps", 1, "--output-dir", path
    )
    assert f"output folder {path} is a file; choose another folder" in line


def test_evaluate_and_push_refuse_them_too(model, tmp_path, capfd):
    DAMAGE["a tensor less"][0](model)
    corpus = write_corpus(tmp_path / "lines.txt")
    assert HEAD in refused(capfd, "evaluate", model, "--dataset", corpus)
    (model / "README.md").write_text("")
    a_record(status="finished", cell="gru").write(model)
    assert HEAD in refused(capfd, "push", model, "--repo-id", "me/x", "--dry-run")


def test_a_push_checks_the_numbers_of_a_cell_whose_class_is_not_there(model, capfd):
    DAMAGE["nan"][0](model)
    (model / "README.md").write_text("")
    a_record(status="finished", cell="elsewhere:Cell").write(model)
    assert HEAD in refused(capfd, "push", model, "--repo-id", "me/x", "--dry-run")


def test_a_teacher_is_checked_as_a_model_is(tmp_path):
    torch.manual_seed(0)
    config = SMTTeacherConfig(vocab_size=20, context_length=8, future_length=4, num_hidden_layers=1, **SIZES)
    SMTTeacher(config).save_pretrained(tmp_path)
    assert not load_whole(SMTTeacher, tmp_path, "smt_teacher").training
    weights = load_file(tmp_path / "model.safetensors")
    name = min(weights)
    del weights[name]
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=name):
        load_whole(SMTTeacher, tmp_path, "smt_teacher")


def test_weights_of_half_the_width_are_weights(model, capfd):
    change_weights(lambda w: {name: one.bfloat16() for name, one in w.items()})(model)
    assert main(["generate", str(model), "--prompt", "a", "--max-new-tokens", "2"]) == 0


FOREIGN = """
from pathlib import Path
from transformers import PreTrainedTokenizerFast

Path("ran").touch()

class Own(PreTrainedTokenizerFast):
    pass
"""


@pytest.mark.parametrize("command", ["generate", "evaluate", "pretrain"])
def test_code_of_a_tokenizer_is_neither_run_nor_asked_about(command, model, tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("somebody was asked"))
    settings = json.loads((model / "tokenizer_config.json").read_text())
    settings |= {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": [None, "own.Own"]}}
    (model / "tokenizer_config.json").write_text(json.dumps(settings))
    (model / "own.py").write_text(FOREIGN)
    corpus = write_corpus(tmp_path / "lines.txt")
    words: dict[str, list[Any]] = {
        "generate": [model, "--prompt", "a", "--max-new-tokens", 2],
        "evaluate": [model, "--dataset", corpus, "--max-tokens", 256],
        "pretrain": ["--tokenizer", model, "--dataset", corpus, "--max-steps", 1, "--output-dir", "run"],
    }
    line = refused(capfd, command, *words[command])
    assert "--trust-remote-code" in line and str(model) in line
    assert not (tmp_path / "ran").exists() and not (tmp_path / "run").exists()


def test_code_of_a_tokenizer_runs_where_it_is_trusted(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = json.loads((model / "tokenizer_config.json").read_text())
    settings |= {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": [None, "own.Own"]}}
    (model / "tokenizer_config.json").write_text(json.dumps(settings))
    (model / "own.py").write_text(FOREIGN)
    words = ["generate", str(model), "--prompt", "a", "--max-new-tokens", "2", "--trust-remote-code"]
    assert main(words) == 0
    assert (tmp_path / "ran").exists()


def test_code_beside_the_weights_is_not_run_whatever_the_config_says(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    change_config(auto_map={"AutoModelForCausalLM": "own.Own", "AutoConfig": "own.Own"})(model)
    (model / "own.py").write_text(FOREIGN)
    words = ["generate", str(model), "--prompt", "a", "--max-new-tokens", "2", "--trust-remote-code"]
    assert main(words) == 0
    assert not (tmp_path / "ran").exists()
