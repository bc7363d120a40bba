"""The teacher's reference against a loop over rows and timesteps."""

import pytest
import torch
from test_free_running import assert_summary, rows, tiny_model, tiny_teacher

from smt_hf.evaluation import teacher_reference
from smt_hf.evaluation.teacher_reference import evaluate_prompt, evaluate_teacher
from smt_hf.runs.arguments import ENCODER_TYPES


@torch.no_grad()
@pytest.mark.parametrize("encoder_type", [name for name in ENCODER_TYPES if name != "given"])
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


@torch.no_grad()
@pytest.mark.parametrize("future_length", [3, 8])
def test_the_label_at_the_end_of_the_prompt_is_judged_by_what_decoder_and_cell_make_of_it(future_length):
    """Row by row: the decoder on all of the future, and a cell that is fed its own memories one by one."""
    teacher, model = tiny_teacher("causal", future_length=future_length), tiny_model()
    core = model.model
    x, y = rows(40, 12, answers=1)
    y[:, :5], y[1, 8] = -100, -100
    held, went_on = [], []
    for row, targets in zip(x, y, strict=True):
        label = teacher.encode(row[None, :5], [4])[:, 0]
        end = min(12, 4 + future_length)
        logits = teacher.decode(label, row[None, 5:end])[0]
        memory = label
        for t in range(4, end):
            if t > 4:
                memory = core.cell(memory, core.cell.project_inputs(core.embed_tokens(row[None, t])))
            if targets[t] != -100:
                held.append(bool(logits[t - 4].argmax() == targets[t]))
                said = model.lm_head(core.read_out(memory[None]))[0, 0]
                went_on.append(bool(said.argmax() == targets[t]))
    found = evaluate_prompt(model, teacher, x, y)
    assert found == {
        "prompt_length": 5,
        "label_holds": pytest.approx(sum(held) / len(held)),
        "from_label": pytest.approx(sum(went_on) / len(went_on)),
    }
    assert len(held) == 40 * (end - 5) - (end > 8) and found["label_holds"] != found["from_label"]


def test_there_is_no_prompt_where_rows_differ_or_begin_with_a_target_or_have_none_or_it_is_too_long():
    teacher, model = tiny_teacher("causal"), tiny_model()
    x, whole = rows(3, 40, answers=1)
    differ, late, nothing = whole.clone(), whole.clone(), torch.full_like(whole, -100)
    differ[:, :4], differ[1, 4] = -100, -100
    late[:, :17] = -100  # the teacher's context is 16
    for y in (whole, differ, late, nothing):
        assert evaluate_prompt(model, teacher, x, y) is None
    late[:, 16] = 1  # after a prompt of 16 tokens
    assert evaluate_prompt(model, teacher, x, late) is not None
    assert evaluate_prompt(model, tiny_teacher("causal", future_length=1), x, late) is None
