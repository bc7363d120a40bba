"""Rollouts: sequential is a loop, and every sweep puts one more step on the cell's own path."""

import pytest
import torch
from tiny_training import TOKENS, WIDTH, random_ids, tiny_student, tiny_teacher

from smt_hf.pretraining.rollout import sequential_rollout, sweep_rollout

ROWS, LENGTH = 3, 7  # R


@pytest.fixture(params=["gru", "transformer", "mlp"])
def parts(request):
    """A cell, the teacher's m_s … m_{s+R−1} (B, R, K, D) and the projected x_{s+1} … x_{s+R}."""
    model, teacher = tiny_student(request.param), tiny_teacher()
    ids = random_ids(ROWS, LENGTH + 2)
    with torch.no_grad():
        labels = teacher.encode(ids, range(1, LENGTH + 1))
        inputs = model.model.cell.project_inputs(model.model.embed_tokens(ids[:, 2:]))
    return model.model.cell, labels, inputs


@torch.no_grad()
def loop(cell, memory: torch.Tensor, inputs: list[torch.Tensor]) -> torch.Tensor:
    for x in inputs:
        memory = cell(memory, x)
    return memory


def sweep(cell, labels: torch.Tensor, inputs: torch.Tensor, num_sweeps: int, chosen=range(LENGTH)):
    starts = labels[:, [max(0, step - num_sweeps) for step in chosen]]
    return sweep_rollout(cell, starts, inputs, torch.tensor(chosen), num_sweeps)


def test_sequential_rollout_equals_a_loop_from_the_first_label(parts):
    cell, labels, inputs = parts
    memories = sequential_rollout(cell, labels[:, 0], inputs)
    assert memories.shape == (ROWS, LENGTH, TOKENS, WIDTH) and memories.dtype == torch.float32
    for t in range(LENGTH):
        expected = loop(cell, labels[:, 0], [inputs[:, i] for i in range(t)])
        torch.testing.assert_close(memories[:, t], expected)


@pytest.mark.parametrize("num_sweeps", [1, 2, 3, LENGTH - 1])
def test_after_p_sweeps_a_state_is_min_p_t_steps_away_from_the_teachers_label(parts, num_sweeps):
    cell, labels, inputs = parts
    memories = sweep(cell, labels, inputs, num_sweeps)
    assert memories.shape == labels.shape
    for t in range(LENGTH):
        steps = min(num_sweeps, t)
        expected = loop(cell, labels[:, t - steps], [inputs[:, i] for i in range(t - steps, t)])
        torch.testing.assert_close(memories[:, t], expected, rtol=1e-4, atol=1e-5)


def test_after_p_sweeps_the_first_p_plus_one_states_are_on_policy_and_later_ones_are_not(parts):
    cell, labels, inputs = parts
    sequential = sequential_rollout(cell, labels[:, 0], inputs)
    swept = sweep(cell, labels, inputs, 3)
    difference = (swept - sequential).abs().amax((0, 2, 3))
    assert (difference[:4] < 1e-5).all() and (difference[4:] > 1e-4).all()


@pytest.mark.parametrize("num_sweeps", [LENGTH - 1, LENGTH + 20])
def test_r_minus_one_sweeps_or_more_equal_the_sequential_rollout(parts, num_sweeps):
    cell, labels, inputs = parts
    swept = sweep(cell, labels, inputs, num_sweeps)
    torch.testing.assert_close(swept, sequential_rollout(cell, labels[:, 0], inputs), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("num_sweeps", [1, 3])
def test_chosen_steps_are_those_of_all_for_a_part_of_the_work(parts, num_sweeps):
    cell, labels, inputs = parts
    rows: list[int] = []
    handle = cell.register_forward_hook(lambda _module, args, _out: rows.append(len(args[0])))
    some = sweep(cell, labels, inputs, num_sweeps, [1, 4])
    handle.remove()
    assert rows == [2 * ROWS] * num_sweeps
    torch.testing.assert_close(some, sweep(cell, labels, inputs, num_sweeps)[:, [1, 4]], rtol=1e-4, atol=1e-5)


def test_the_labels_given_are_not_written_to(parts):
    cell, labels, inputs = parts
    before = labels.clone()
    sweep_rollout(cell, labels, inputs, torch.arange(LENGTH), 2)
    sequential_rollout(cell, labels[:, 0], inputs)
    assert torch.equal(labels, before)


def test_no_graph_comes_out(parts):
    cell, labels, inputs = parts
    labels, inputs = labels.requires_grad_(), inputs.requires_grad_()
    for memories in (sequential_rollout(cell, labels[:, 0], inputs), sweep(cell, labels, inputs, 2)):
        assert not memories.requires_grad and memories.grad_fn is None


def test_a_window_of_one_token_is_the_label_itself(parts):
    cell, labels, inputs = parts
    one, first = inputs[:, :1], labels[:, :1]
    assert torch.equal(sequential_rollout(cell, labels[:, 0], one), first)
    assert torch.equal(sweep(cell, first, one, 4, [0]), first)
