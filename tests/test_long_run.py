"""docs/long_run.py counts what it reads, and its losses are those of one pass over the whole text."""

import importlib.util
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from smt_hf import SMTConfig, SMTForCausalLM


def load(name: str):
    path = Path(__file__).parents[1] / "docs" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_stretches_have_the_losses_of_one_pass_and_the_state_keeps_its_size(monkeypatch):
    long_run = load("long_run")
    monkeypatch.setattr(long_run, "MARKS", {3})
    now = iter([0.0, 2.0, 10.0, 13.0, 20.0])  # two seconds for the first stretch, three for the second
    monkeypatch.setattr(long_run.time, "perf_counter", lambda: next(now))
    torch.manual_seed(0)
    model = SMTForCausalLM(SMTConfig(vocab_size=9, hidden_size=16, num_memory_tokens=2, num_attention_heads=2))
    ids, labels = torch.randint(0, 9, (2, 7))
    found = long_run.read_on(model.eval(), ids, labels, tokens=23, stretch=10)
    with torch.no_grad():
        logits = model(ids.repeat(4)[None]).logits[0]
    losses = F.cross_entropy(logits, labels.repeat(4), reduction="none") / math.log(2)
    bits = [stretch.pop("bits_per_byte") for stretch in found["stretches"]]
    assert bits == pytest.approx([losses[:10].mean().item(), losses[10:20].mean().item()], rel=1e-5)
    assert found["stretches"] == [
        {"seconds": 2.0, "over_the_first": 1.0},
        {"seconds": 3.0, "over_the_first": 1.5},
    ]
    assert list(found["after_tokens"]) == list(found["memory_rms"]) == [3, 10, 20, 23]
    assert {entry["state_bytes"] for entry in found["after_tokens"].values()} == {4 * 2 * 16}
