"""After `hand_over` the model reads, predicts and starts cold as the teacher does; before, it does not."""

import pytest
import torch
from tiny_training import TOKENS, WIDTH, random_ids, tiny_student, tiny_teacher

from smt_hf.pretraining.teacher import hand_over
from smt_hf.runs.arguments import ENCODER_TYPES


def readings(teacher, model) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of the same labels by teacher and by model, (6, V) each."""
    labels = teacher.encode(random_ids(3, 6), [-1, 5]).flatten(0, 1)
    return teacher.decode(labels)[:, 0], model.lm_head(model.model.read_out(labels))


@torch.no_grad()
@pytest.mark.parametrize("encoder_type", ENCODER_TYPES)
def test_the_model_reads_labels_as_the_teacher_after_it_and_not_before(encoder_type):
    teacher, model = tiny_teacher(encoder_type), tiny_student()
    theirs, ours = readings(teacher, model)
    assert (theirs - ours).abs().max() > 0.1
    hand_over(teacher, model)
    theirs, ours = readings(teacher, model)
    torch.testing.assert_close(ours, theirs)


@torch.no_grad()
@pytest.mark.parametrize("encoder_type", ENCODER_TYPES)
def test_the_model_starts_from_the_label_of_the_empty_context(encoder_type):
    teacher, model = tiny_teacher(encoder_type), tiny_student()
    empty = teacher.encode(random_ids(3, 6), [-1])[:, 0]
    assert (model.model.start_memory(3) - empty).abs().max() > 0.1
    hand_over(teacher, model)
    start = model.model.start_memory(3)
    assert start.shape == (3, TOKENS, WIDTH)
    torch.testing.assert_close(start, empty, rtol=1e-5, atol=1e-5)


def test_decoder_weights_become_the_readouts_and_nothing_else_changes():
    teacher, model = tiny_teacher(), tiny_student()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    teachers = {name: value.clone() for name, value in teacher.state_dict().items()}
    hand_over(teacher, model)
    after = model.state_dict()
    given = [name for name in after if name.startswith(("model.readout.", "lm_head."))]
    assert len(given) > 5
    for name in given:
        assert torch.equal(after[name], teacher.state_dict()[name.removeprefix("model.")]), name
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert changed == {*given, "model.initial_memory"}
    assert all(torch.equal(value, teachers[name]) for name, value in teacher.state_dict().items())
    # A copy, not a shared tensor: DMT trains the readout while the teacher stays as it is.
    assert model.lm_head.weight.data_ptr() != teacher.lm_head.weight.data_ptr()


def test_handing_over_twice_changes_nothing_more():
    teacher, model = tiny_teacher(), tiny_student()
    hand_over(teacher, model)
    once = {name: value.clone() for name, value in model.state_dict().items()}
    hand_over(teacher, model)
    assert all(torch.equal(value, once[name]) for name, value in model.state_dict().items())
