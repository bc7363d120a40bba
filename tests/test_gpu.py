# Keyword dictionaries of mixed values, and the unions that transformers annotates.
# mypy: disable-error-code="arg-type, misc, union-attr"
"""What only a GPU can show; skipped where there is none."""

import json

import pytest
import torch
from torch import nn
from transformers import CompileConfig, GenerationConfig

from smt_hf import SMTConfig, SMTForCausalLM
from smt_hf.benchmark.measure import peak_memory
from smt_hf.cli import main
from smt_hf.serving.engine import Engine

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")


def small_model() -> SMTForCausalLM:
    torch.manual_seed(0)
    config = SMTConfig(vocab_size=31, hidden_size=32, num_memory_tokens=2, num_attention_heads=2)
    return SMTForCausalLM(config).eval()


@pytest.mark.parametrize("cell", ["gru", "transformer"])
def test_a_run_in_bf16_on_a_gpu_reads_the_same_on_a_cpu(cell, tmp_path):
    folder = tmp_path / "run"
    words = ["--preset", "tiny", "--cell", cell, "--max-steps", "60", "--num-sweeps", "4", "--disable-tqdm"]
    command = ["pretrain", *words, "--mixed-precision", "bf16", "--dataset", "python-docs"]
    assert main([*command, "--output-dir", str(folder)]) == 0
    assert json.loads((folder / "run.json").read_text())["final"]["loss"] < 5.0  # of 5.55, all bytes alike
    ids = torch.randint(0, 256, (2, 40), generator=torch.Generator().manual_seed(0))
    model = SMTForCausalLM.from_pretrained(folder).eval()
    with torch.no_grad():
        expected = model(ids).logits
        found = model.to("cuda")(ids.cuda())
    torch.testing.assert_close(found.logits.cpu(), expected, rtol=1e-3, atol=1e-3)
    assert found.cache.layers[0].memory.is_cuda


def test_greedy_generation_is_the_same_on_both():
    model = small_model()
    ids = torch.tensor([[3, 1, 4, 1, 5]])
    options = dict(max_new_tokens=30, do_sample=False, eos_token_id=None)
    expected = model.generate(ids, **options)
    assert torch.equal(model.to("cuda").generate(ids.cuda(), **options).cpu(), expected)


def test_a_compiled_program_on_a_static_state_makes_the_same_tokens():
    model = small_model().to("cuda")
    ids = torch.tensor([[3, 1, 4, 1, 5]], device="cuda")
    options: dict = dict(max_new_tokens=30, do_sample=False, eos_token_id=None)
    expected = model.generate(ids, **options)
    for _ in range(2):  # the second time from the graphs that the first has recorded
        found = model.generate(ids, cache_implementation="static", compile_config=CompileConfig(), **options)
        assert torch.equal(found, expected)


def test_the_engine_s_graphs_give_each_text_the_tokens_that_it_has_alone():
    model = small_model().to("cuda")
    config = GenerationConfig(max_new_tokens=20, do_sample=False)
    prompts = [[1, 2, 3], [5], [7, 8, 9, 10, 11]]
    alone = [
        model.generate(torch.tensor([one], device="cuda"), generation_config=config)[0, len(one) :].tolist()
        for one in prompts
    ]
    with Engine(model, max_batch=3) as engine:
        assert engine.generate(prompts, config) == alone


def test_the_peak_is_that_of_the_device():
    def run() -> None:
        first = torch.zeros(1 << 20, device="cuda")
        second = first + 1
        del first
        third = second + 1
        del second, third

    model = nn.Linear(16, 8, bias=False).to("cuda")
    held = 4 * 16 * 8 + 4 * 128
    assert peak_memory(model, [torch.zeros(128, device="cuda")], run) == held + 2 * 4 * (1 << 20)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_all_models_are_measured_and_ours_compiled_too(dtype, capsys):
    models = ["smt-gru", "smt-transformer", "gpt2", "mamba", "torch-gru"]
    words = ["--device", "cuda", "--dtype", dtype, "--models", *models, "--parameters", "3e5", "--compile"]
    words += ["--context", "4", "--tokens", "4", "--repeats", "1", "--batch", "1", "3", "--json"]
    assert main(["benchmark", "decode", *words]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["machine"]["device"] == torch.cuda.get_device_name()
    assert len(result["rows"]) == 2 * (len(models) + 2)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("what", ["train", "dmt"])
def test_training_steps_run_on_the_device_and_the_record_says_so(what, dtype, capsys):
    words = ["--preset", "tiny", "--context", "16", "--tokens", "32", "--repeats", "1", "--dtype", dtype]
    assert main(["benchmark", what, *words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["machine"]["device"] == torch.cuda.get_device_name()
