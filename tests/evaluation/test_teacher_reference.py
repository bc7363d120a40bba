"""The teacher's reference against a loop over rows and timesteps."""

import pytest
import torch
from test_free_running import assert_summary, rows, tiny_teacher

from smt_hf.evaluation import teacher_reference
from smt_hf.evaluation.teacher_reference import evaluate_teacher


@torch.no_grad()
@pytest.mark.parametrize("encoder_type", ["causal", "bidirectional"])
def test_it_is_what_each_label_alone_says_of_its_target_within_the_context(encoder_type, monkeypatch):
    monkeypatch.setattr(teacher_reference, "LABELS", 5)  # no divisor of the targets
    teacher, (x, y) = tiny_teacher(encoder_type), rows(3, 40)
    y[:, 2] = -100  # a timestep that no row asks for
    judgements = []
    for row, targets in zip(x, y, strict=True):
        for t in range(16):  # the teacher's context
            if targets[t] != -100:
                logits = teacher.decode(teacher.encode(row[None, : t + 1], [t])[:, 0])[0, 0]
                loss = (logits.exp().sum().log() - logits[targets[t]]).item()
                judgements.append((t, loss, bool(logits.argmax() == targets[t])))
    metrics = evaluate_teacher(teacher, x, y)
    assert metrics["targets"] == len(judgements)
    assert_summary(metrics, judgements)
    assert [(part["start"], part["end"]) for part in metrics["by_horizon"]] == [(0, 16)]


def test_only_timesteps_that_are_asked_for_are_encoded(monkeypatch):
    teacher, (x, y) = tiny_teacher("causal"), rows(3, 16)
    y[:, :-1], y[:, -1] = -100, 4
    encode = teacher.encode
    encoded: list[list[int]] = []

    def encode_and_note(input_ids, timesteps):
        encoded.append(timesteps)
        return encode(input_ids, timesteps)

    monkeypatch.setattr(teacher, "encode", encode_and_note)
    evaluate_teacher(teacher, x, y)
    assert encoded == [[15]]
