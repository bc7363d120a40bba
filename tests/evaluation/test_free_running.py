# Keyword dictionaries of mixed values, and the unions that transformers annotates.
# mypy: disable-error-code="arg-type, func-returns-value, misc, union-attr"
"""Free-running metrics against a loop that reads one token of one row at a time."""

import math

import pytest
import torch

from smt_hf import SMTConfig, SMTForCausalLM
from smt_hf.data.tasks import make_task
from smt_hf.evaluation import free_running
from smt_hf.evaluation.free_running import (
    doubling_timesteps,
    drift,
    evaluate_lengths,
    evaluate_rows,
    horizon_edges,
)
from smt_hf.pretraining.configuration_teacher import SMTTeacherConfig
from smt_hf.pretraining.teacher import SMTTeacher, hand_over
from smt_hf.runs.arguments import ENCODER_TYPES

SHARED = dict(
    vocab_size=11, hidden_size=16, num_memory_tokens=2, num_readout_layers=1, num_attention_heads=2
)  # fmt: skip


def tiny_model(cell: str = "gru") -> SMTForCausalLM:
    torch.manual_seed(1)
    return SMTForCausalLM(SMTConfig(**{**SHARED, "cell": cell})).eval()


def rows(count: int, length: int, answers: float = 0.7) -> tuple[torch.Tensor, torch.Tensor]:
    """Random tokens and targets, of which the share `answers` is there."""
    generator = torch.Generator().manual_seed(2)
    x, y = (torch.randint(0, 11, (count, length), generator=generator) for _ in range(2))
    return x, y.masked_fill(torch.rand(count, length, generator=generator) > answers, -100)


@torch.no_grad()
def slow_judgements(model: SMTForCausalLM, x: torch.Tensor, y: torch.Tensor) -> list[tuple[int, float, bool]]:
    """(position, loss in nats, right or wrong) of every target."""
    core, found = model.model, []
    for row, targets in zip(x, y, strict=True):
        memory = core.start_memory(1)
        for position, (token, target) in enumerate(zip(row, targets, strict=True)):
            memory = core.cell(memory, core.cell.project_inputs(core.embed_tokens(token[None])))
            if target == -100:
                continue
            scores = [score.item() for score in model.lm_head(core.read_out(memory))[0]]
            loss = math.log(sum(math.exp(score) for score in scores)) - scores[target]
            found.append((position, loss, max(range(11), key=scores.__getitem__) == target))
    return found


def assert_summary(summary: dict, judgements: list[tuple[int, float, bool]]) -> None:
    assert summary["loss"] == pytest.approx(sum(loss for _, loss, _ in judgements) / len(judgements), abs=1e-5)
    assert summary["accuracy"] == pytest.approx(sum(hit for *_, hit in judgements) / len(judgements))


@pytest.mark.parametrize("cell", ["gru", "transformer"])
@pytest.mark.parametrize("batch_size", [2, 32])
def test_metrics_equal_a_loop_over_rows_and_tokens(monkeypatch, cell, batch_size):
    monkeypatch.setattr(free_running, "CHUNK", 7)  # no divisor of the length
    model, (x, y) = tiny_model(cell), rows(5, 40)
    metrics = evaluate_rows(model, x, y, batch_size=batch_size)
    judgements = slow_judgements(model, x, y)
    assert metrics["targets"] == len(judgements)
    assert_summary(metrics, judgements)
    assert [(part["start"], part["end"]) for part in metrics["by_horizon"]] == [(0, 32), (32, 40)]
    for part in metrics["by_horizon"]:
        inside = [j for j in judgements if part["start"] <= j[0] < part["end"]]
        assert_summary(part, inside)


def test_the_chunks_it_reads_do_not_change_the_figures(monkeypatch):
    model, (x, y) = tiny_model(), rows(3, 50)
    figures = []
    for chunk in (1, 16, 50, 256):
        monkeypatch.setattr(free_running, "CHUNK", chunk)
        figures.append(evaluate_rows(model, x, y)["loss"])
    assert figures == pytest.approx([figures[0]] * 4, abs=1e-6)


@pytest.mark.parametrize(
    ("length", "edges"),
    [
        (1, [0, 1]),
        (32, [0, 32]),
        (33, [0, 32, 33]),
        (100, [0, 32, 64, 100]),
        (256, [0, 32, 64, 128, 256]),
        (1000, [0, 32, 64, 128, 256, 512, 1000]),
    ],
)
def test_horizon_buckets_double(length, edges):
    assert horizon_edges(length) == edges


def test_a_bucket_without_a_target_is_left_out():
    """As in retrieval, which asks for one answer at the end."""
    x, y = rows(6, 80)
    y[:, :-1] = -100
    y[:, -1] = torch.arange(6)
    metrics = evaluate_rows(tiny_model(), x, y)
    assert [(part["start"], part["end"]) for part in metrics["by_horizon"]] == [(64, 80)]
    assert metrics["targets"] == 6
    assert metrics["by_horizon"][0]["loss"] == metrics["loss"]


def test_a_perfect_model_has_accuracy_one():
    model, (x, _) = tiny_model(), rows(4, 12)
    with torch.no_grad():
        best = model(x).logits.argmax(-1)
    assert evaluate_rows(model, x, best)["accuracy"] == 1
    assert evaluate_rows(model, x, (best + 1) % 11)["accuracy"] == 0


def test_rows_without_any_target_are_not_a_number_rather_than_an_error():
    metrics = evaluate_rows(tiny_model(), *rows(2, 8, answers=0.0))
    assert math.isnan(metrics["loss"]) and metrics["targets"] == 0 and metrics["by_horizon"] == []


@pytest.mark.parametrize("training", [True, False])
def test_the_training_mode_is_put_back_and_no_graph_is_left(training):
    model = tiny_model().train(training)
    evaluate_rows(model, *rows(2, 8))
    assert model.training is training
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize(
    ("length", "timesteps"),
    [(0, []), (1, [0]), (2, [0, 1]), (7, [0, 1, 3]), (8, [0, 1, 3, 7]), (12, [0, 1, 3, 7])],
)
def test_drift_is_looked_at_after_a_doubling_number_of_tokens(length, timesteps):
    assert doubling_timesteps(length) == timesteps


def tiny_teacher(encoder_type: str, future_length: int = 4) -> SMTTeacher:
    torch.manual_seed(0)
    sizes = dict(num_hidden_layers=2, context_length=16, future_length=future_length, encoder_type=encoder_type)
    return SMTTeacher(SMTTeacherConfig(**{**SHARED, **sizes})).eval()


@torch.no_grad()
@pytest.mark.parametrize("encoder_type", [name for name in ENCODER_TYPES if name != "given"])
def test_drift_equals_a_loop_over_rows_and_timesteps(encoder_type, monkeypatch):
    """And it projects no more inputs at a time than a chunk of them."""
    monkeypatch.setattr(free_running, "CHUNK", 3)
    model, teacher = tiny_model(), tiny_teacher(encoder_type)
    hand_over(teacher, model)
    x, _ = rows(3, 16)
    core = model.model
    with monkeypatch.context() as patch:
        right, projected = core.cell.project_inputs, []
        patch.setattr(core.cell, "project_inputs", lambda x: projected.append(x.shape[1]) or right(x))
        drift(model, teacher, x, [0, 7])
    assert projected == [3, 3, 2]
    for point, t in zip(drift(model, teacher, x, [0, 1, 3, 7]), [0, 1, 3, 7], strict=True):
        assert point["horizon"] == t + 1
        squares = []
        for row in x:
            memory = core.start_memory(1)
            for token in row[: t + 1]:
                memory = core.cell(memory, core.cell.project_inputs(core.embed_tokens(token[None])))
            squares.append((memory - teacher.encode(row[None, : t + 1], [t])[:, 0]).pow(2).mean().item())
        assert point["drift"] == pytest.approx(sum(squares) / 3, rel=1e-4)


def test_drift_of_a_model_that_has_nothing_to_do_with_the_teacher_is_about_two():
    x, _ = rows(16, 16)
    assert drift(tiny_model(), tiny_teacher("causal"), x, [7])[0]["drift"] == pytest.approx(2, abs=0.5)


@torch.no_grad()
def test_drift_is_zero_where_the_cell_gives_the_teachers_labels(monkeypatch):
    model, teacher = tiny_model(), tiny_teacher("causal")
    x, _ = rows(3, 8)
    labels = iter(teacher.encode(x, range(8)).unbind(1))
    monkeypatch.setattr(model.model.cell, "forward", lambda memory, inputs: next(labels))
    assert [point["drift"] for point in drift(model, teacher, x, [0, 3, 7])] == pytest.approx(
        [0, 0, 0], abs=1e-10
    )


def test_a_task_is_judged_at_each_length_on_as_many_whole_rows_as_the_answers_allow():
    model, task = tiny_model(), make_task("copy", 10, "validation")
    metrics = evaluate_lengths(model, task, [10, 33], max_targets=100)
    assert list(metrics) == [10, 33]
    for length, answers in ((10, 5), (33, 16)):
        assert metrics[length]["targets"] == 100 // answers * answers
        rows = make_task("copy", length, "validation").__getitems__(range(100 // answers))
        assert_summary(metrics[length], slow_judgements(model, rows["input_ids"], rows["shift_labels"]))


def test_rows_of_a_task_are_made_a_batch_at_a_time_as_far_as_they_are_wanted(monkeypatch):
    monkeypatch.setattr(free_running, "BATCH", 4)
    model, task = tiny_model(), make_task("copy", 10, "validation")  # 5 answers a row
    made: list[list[int]] = []
    right = type(task).__getitems__
    monkeypatch.setattr(type(task), "__getitems__", lambda self, at: made.append(list(at)) or right(self, at))
    for most, batches, judged in ((47, [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]], 9), (3, [[0, 1, 2]], 1)):
        made.clear()
        metrics = evaluate_lengths(model, task, [10], max_targets=most)[10]
        assert made == batches and metrics["targets"] == 5 * judged
        whole = right(task, range(judged))
        assert_summary(metrics, slow_judgements(model, whole["input_ids"], whole["shift_labels"]))


def test_only_positions_that_some_row_asks_for_are_read_out(monkeypatch):
    """Two rows ask at 3 and 9, one at 25; a chunk without any is read out once, as a forward has to."""
    monkeypatch.setattr(free_running, "CHUNK", 10)
    model, (x, y) = tiny_model(), rows(3, 40)
    answers = torch.full_like(y, -100)
    for row, position in ((0, 3), (1, 9), (2, 25)):
        answers[row, position] = position % 11
    read: list[int] = []
    model.model.readout.register_forward_hook(lambda _module, args, _out: read.append(len(args[0])))
    metrics = evaluate_rows(model, x, answers)
    assert read == [3 * 2, 3, 3, 3]
    assert metrics["targets"] == 3
    assert_summary(metrics, slow_judgements(model, x, answers))


def test_a_length_that_cannot_be_is_refused_before_any_is_measured(monkeypatch):
    monkeypatch.setattr(free_running, "evaluate_batches", lambda *_: pytest.fail("work was done"))
    with pytest.raises(ValueError, match="at least 2"):
        evaluate_lengths(tiny_model(), make_task("copy", 10, "validation"), [10, 1])
