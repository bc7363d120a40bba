# Keyword dictionaries of mixed values, and the unions that transformers annotates.
# mypy: disable-error-code="arg-type, misc, union-attr"
"""What only a GPU can show; skipped where there is none."""

import json

import pytest
import torch

from smt_hf import SMTConfig, SMTForCausalLM
from smt_hf.cli import main

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")


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
    torch.manual_seed(0)
    model = SMTForCausalLM(SMTConfig(vocab_size=31, hidden_size=32, num_memory_tokens=2, num_attention_heads=2))
    ids = torch.tensor([[3, 1, 4, 1, 5]])
    options = dict(max_new_tokens=30, do_sample=False, eos_token_id=None)
    expected = model.generate(ids, **options)
    assert torch.equal(model.to("cuda").generate(ids.cuda(), **options).cpu(), expected)
