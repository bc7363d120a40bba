"""studies/teachers.py describes runs that can be, and judges a teacher by the loss of each byte."""

import math
from types import SimpleNamespace

import pytest
import torch
from test_long_run import load

from smt_hf.runs.spec import make_spec

teachers = load("teachers")


@pytest.mark.parametrize("name", teachers.VARIANTS)
def test_each_variant_is_a_run_and_asks_a_teacher_where_its_name_says_so(name):
    spec = make_spec({**teachers.values_of(name, "llama"), "max_minutes": 7, "output_dir": "runs/one"})
    assert spec.tokenizer == "llama" and (spec.teacher_top is not None) == (
        name in ("stored", "started", "mixture")
    )
    assert spec.teacher == (None if name == "bptt" else "llama")
    assert spec.teacher_embeddings == (name in ("started", "embeddings"))
    assert (spec.teacher_weight == 0) == (name == "embeddings")


def test_bits_are_those_of_the_labels_over_the_bytes_of_a_token(monkeypatch):
    """A model that gives every right answer a probability of one half, where a token is two bytes."""
    labels = torch.tensor([[1, 0, 1]])
    logits = torch.zeros(1, 3, 2)
    validation = SimpleNamespace(
        evaluation_rows=lambda count, horizon: (torch.zeros_like(labels), labels), bytes_per_token=2
    )
    found = teachers.bits(lambda ids: SimpleNamespace(logits=logits), validation)
    assert found == pytest.approx(0.5)
    logits[0, 0, 1] = math.log(3)  # the first is right with three quarters
    found = teachers.bits(lambda ids: SimpleNamespace(logits=logits), validation)
    assert found == pytest.approx((2 + math.log2(4 / 3)) / 3 / 2)
