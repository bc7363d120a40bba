"""The arithmetic of docs/scaling.md is that of the models."""

from pathlib import Path
from typing import Any

import torch

from smt_hf import SMTConfig, SMTForCausalLM
from smt_hf.pretraining.assembly import SIZES
from smt_hf.pretraining.configuration_teacher import SMTTeacherConfig
from smt_hf.pretraining.teacher import SMTTeacher
from smt_hf.runs.spec import load_preset

PAGE = Path(__file__).parents[1] / "docs" / "scaling.md"


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_the_arithmetic_of_scaling_is_that_of_the_models():
    large: dict[str, Any] = dict(
        hidden_size=2048, num_memory_tokens=16, num_readout_layers=4, num_attention_heads=16,
        num_hidden_layers=16, vocab_size=50257,
    )  # fmt: skip
    _, paper = load_preset("paper", "transformer")
    sizes = []
    for fields in ({name: paper[name] for name in (*SIZES, "num_hidden_layers")}, large):
        with torch.device("meta"):
            model = SMTForCausalLM(SMTConfig(cell="transformer", **fields))
            teacher = SMTTeacher(SMTTeacherConfig(**fields))
        cell, embedding = (count(part) for part in (model.model.cell, model.model.embed_tokens))
        trained = cell + embedding + count(teacher)
        rest = count(model) - cell - embedding
        counts = count(model), cell, count(teacher), trained
        sizes.append([*counts, 16 * trained + 4 * rest, 2 * 7 / 8 * 4 * trained])
    small, big = sizes
    lines = [line.split("|")[-3:] for line in PAGE.read_text(encoding="utf-8").splitlines()]
    figures = [(a.strip(), b.strip()) for a, b, *_ in (line for line in lines if len(line) == 3)]
    for one, other in zip(small[:4], big[:4], strict=True):
        assert (f"{one / 1e6:.1f} M", f"{other / 1e6:,.0f} M") in figures
    assert (f"{small[4] / 1e9:.2f} GB", f"{big[4] / 1e9:.0f} GB") in figures
    assert (f"{small[5] / 1e9:.2f} GB", f"{big[5] / 1e9:.1f} GB") in figures
