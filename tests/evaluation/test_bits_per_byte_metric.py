"""The metric of `evaluate` loads from its path and computes bits per byte, whatever the tokenizer."""

import math
from collections.abc import Iterator
from pathlib import Path

import evaluate
import pytest
import torch

from smt_hf import SMTConfig, SMTForCausalLM
from smt_hf.data import byte_tokenizer
from smt_hf.evaluation import bits_per_byte
from smt_hf.evaluation.free_running import evaluate_rows


@pytest.fixture
def metric(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[evaluate.Metric]:
    """Loaded by path, as a user does; what `evaluate` copies and caches stays in the test's folder."""
    monkeypatch.setattr("evaluate.config.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr("evaluate.loading.HF_MODULES_CACHE", str(tmp_path / "modules"), raising=False)
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    yield evaluate.load(bits_per_byte.__file__, cache_dir=str(tmp_path / "cache"))


def test_a_coin_for_every_byte_is_one_bit(metric):
    """Bytes, not characters: é has two, 漢 three."""
    result = metric.compute(predictions=[3 * math.log(2), 5 * math.log(2)], references=["abc", "é漢"])
    assert result == {"bits_per_byte": pytest.approx(1.0)}
    assert type(result["bits_per_byte"]) is float


def test_texts_weigh_by_their_bytes_and_batches_add_up(metric):
    metric.add_batch(predictions=[8 * math.log(2)], references=["a"])
    metric.add_batch(predictions=[0.0, 0.0], references=["bc", ""])
    assert metric.compute()["bits_per_byte"] == pytest.approx(8 / 3)


def test_no_text_is_refused_in_one_sentence(metric):
    with pytest.raises(ValueError, match=r"^the references hold no byte of text;.*\.$"):
        metric.compute(predictions=[1.0], references=[""])


def test_it_agrees_with_the_evaluation_of_this_package(metric):
    torch.manual_seed(0)
    model = SMTForCausalLM(SMTConfig(hidden_size=16, num_attention_heads=2, eos_token_id=256)).eval()
    text = "The memory holds a few kilobytes, naïvely said."
    ids = torch.tensor([[256, *byte_tokenizer()(text).input_ids]])
    with torch.no_grad():
        loss = model(ids, labels=ids).loss.item()
    ours = evaluate_rows(model, ids[:, :-1], ids[:, 1:])["loss"] / math.log(2)
    num_targets = ids.shape[1] - 1
    theirs = metric.compute(predictions=[loss * num_targets], references=[text])["bits_per_byte"]
    assert theirs == pytest.approx(ours, rel=1e-5)
