"""studies/long_run.py counts what it reads, and its losses are those of one pass over the whole text."""

import importlib.util
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from smt_hf import SMTConfig, SMTForCausalLM


def load(name: str):
    path = Path(__file__).parents[2] / "studies" / f"{name}.py"
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


def test_generation_is_one_call_watched_by_stretches(monkeypatch):
    long_run = load("long_run")
    # Starts at the prompt, a stretch of 2 s, the next one's start a second later, and a stretch of 3 s.
    now = iter([0.0, 2.0, 3.0, 6.0, 7.0])
    monkeypatch.setattr(long_run.time, "perf_counter", lambda: next(now))
    monkeypatch.setattr(long_run, "resident_bytes", lambda: 5)
    config = SMTConfig(vocab_size=9, hidden_size=16, num_memory_tokens=2, num_attention_heads=2, eos_token_id=3)
    model = SMTForCausalLM(config).eval()
    found = long_run.generate_on(model, torch.tensor([[1, 2]]), tokens=23, stretch=10)
    assert (found["tokens"], found["state_bytes"]) == (23, 4 * 2 * 16)
    assert found["stretches"] == [
        {"seconds": 2.0, "over_the_first": 1.0, "process_bytes": 5},
        {"seconds": 3.0, "over_the_first": 1.5, "process_bytes": 5},
    ]
