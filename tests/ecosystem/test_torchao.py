"""int8 weights through `TorchAoConfig`: a quarter of the bytes, and the logits of the rounded weights."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_checkpoints import CELLS, byte_ids, needs, save_checkpoint, tiny_model
from torch import nn
from transformers import AutoModelForCausalLM, TorchAoConfig

from smt_hf import SMTForCausalLM
from smt_hf.cli import main
from smt_hf.data import byte_tokenizer

pytestmark = needs("torchao")

TEXT = "A line of text that goes on for a while, as lines do."
SIZES = {"hidden_size": 64, "intermediate_size": 128}


def int8_model(folder: Path) -> Any:
    from torchao.quantization import Int8WeightOnlyConfig

    config = TorchAoConfig(Int8WeightOnlyConfig())
    return AutoModelForCausalLM.from_pretrained(folder, quantization_config=config).eval()


@torch.no_grad()
def rounded(model: SMTForCausalLM, quantized: Any) -> SMTForCausalLM:
    """`model` with each linear layer's weight on its int8 grid: 256 levels a row, max|w| / 127.5 apart.

    The levels are those of `quantized`, checked to be the nearest; where two are as near either will do.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and name != "lm_head":
            level = module.weight.abs().amax(1, keepdim=True) / 127.5
            values = quantized.get_submodule(name).weight.dequantize()
            assert ((values - module.weight).abs() / level).max() < 0.501
            assert ((values / level) - (values / level).round()).abs().max() < 1e-3
            module.weight.copy_(values)
    return model


def tensor_bytes(folder: Path) -> int:
    """Of model.safetensors without its header, whose length is in the first eight bytes."""
    data = (folder / "model.safetensors").read_bytes()
    return len(data) - 8 - int.from_bytes(data[:8], "little")


@pytest.mark.parametrize("cell", CELLS)
@torch.no_grad()
def test_int8_weights_compute_and_generate_what_rounded_weights_do(cell, tmp_path):
    model: Any = tiny_model(cell, **SIZES)
    folder, ids = save_checkpoint(tmp_path, model), byte_ids(TEXT)
    quantized = int8_model(folder)
    original, expected = model(ids).logits.log_softmax(-1), rounded(model, quantized)(ids).logits
    torch.testing.assert_close(quantized(ids).logits, expected, rtol=1e-4, atol=1e-4)
    greedy = {"max_new_tokens": 8, "do_sample": False}
    assert torch.equal(quantized.generate(ids, **greedy), model.generate(ids, **greedy))
    divergence = (original.exp() * (original - quantized(ids).logits.log_softmax(-1))).sum(-1).mean()
    assert 0 < divergence < 0.1  # nats per token, of 5.55


@pytest.mark.parametrize("cell", CELLS)
@torch.no_grad()
def test_a_saved_int8_model_is_smaller_and_the_same(cell, tmp_path):
    model = tiny_model(cell, **SIZES)
    quantized = int8_model(save_checkpoint(tmp_path / "float32", model))
    quantized.save_pretrained(tmp_path / "int8")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "int8")
    assert torch.equal(again(byte_ids(TEXT)).logits, quantized(byte_ids(TEXT)).logits)
    linear = [m for n, m in model.named_modules() if isinstance(m, nn.Linear) and n != "lm_head"]
    # Four bytes become one; a row has a scale of four and a zero point of one.
    saved = sum(3 * m.weight.numel() - 5 * m.out_features for m in linear)
    assert tensor_bytes(tmp_path / "float32") - tensor_bytes(tmp_path / "int8") == saved


def test_the_commands_load_a_saved_int8_model(tmp_path, capsys):
    int8_model(save_checkpoint(tmp_path / "float32", tiny_model("gru", **SIZES))).save_pretrained(
        tmp_path / "int8"
    )
    byte_tokenizer().save_pretrained(tmp_path / "int8")
    assert main(["generate", str(tmp_path / "int8"), "--prompt", "a", "--max-new-tokens", "3"]) == 0
    assert capsys.readouterr().out.startswith("a")
