# Keyword dictionaries of mixed values, and the unions that transformers annotates.
# mypy: disable-error-code="arg-type, misc, union-attr"
"""The losses against slow loops, and where their gradients stop."""

import copy
import itertools
import math
import random
from pathlib import Path

import pytest
import torch
from tiny_training import (
    CONTEXT,
    FUTURE,
    TOKENS,
    VOCAB,
    random_batch,
    tiny_arguments,
    tiny_student,
    tiny_teacher,
)

from smt_hf.pretraining import objectives, schedule
from smt_hf.pretraining.objectives import (
    bptt_loss,
    cross_entropy,
    dmt_loss,
    dynamics_loss,
    imitation_loss,
    smt_loss,
    trunk_loss,
    uniformity_loss,
)
from smt_hf.pretraining.phases import PHASES, Moment, Objective, draws
from smt_hf.runs.arguments import ENCODER_TYPES


def surprise(logits: torch.Tensor, target: int) -> torch.Tensor:
    """−log softmax(logits)[target] in nats, written out."""
    return torch.log(torch.exp(logits - logits.max()).sum()) + logits.max() - logits[target]


def mean(values: list[torch.Tensor]) -> torch.Tensor:
    return torch.stack(values).mean() if values else torch.zeros(())


# ---------------------------------------------------------------- the small ones


def test_cross_entropy_is_the_mean_surprise_of_the_targets_there_are():
    logits = torch.randn(2, 3, VOCAB)
    targets = torch.tensor([[4, -100, 0], [-100, -100, 10]])
    expected = mean([surprise(logits[0, 0], 4), surprise(logits[0, 2], 0), surprise(logits[1, 2], 10)])
    torch.testing.assert_close(cross_entropy(logits, targets), expected)


def test_cross_entropy_of_a_uniform_guess_is_the_log_of_the_vocabulary():
    loss = cross_entropy(torch.zeros(2, 3, VOCAB), torch.zeros(2, 3, dtype=torch.long))
    assert loss.item() == pytest.approx(math.log(VOCAB))


def test_cross_entropy_without_targets_is_zero_with_zero_gradient():
    logits = torch.randn(2, 3, VOCAB, requires_grad=True)
    loss = cross_entropy(logits, torch.full((2, 3), -100))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None and not logits.grad.any()


def test_dynamics_loss_is_the_mean_square_over_all_entries():
    a = torch.tensor([[[1.0, 2.0], [0.0, 0.0]]])
    b = torch.tensor([[[0.0, 4.0], [0.0, 1.0]]])
    assert dynamics_loss(a, b).item() == pytest.approx((1 + 4 + 0 + 1) / 4)
    assert dynamics_loss(a, a).item() == 0


def test_dynamics_loss_of_unrelated_memories_is_two():
    a, b = (torch.nn.functional.normalize(torch.randn(200, 4, 64), dim=-1) * 8 for _ in range(2))
    assert dynamics_loss(a, b).item() == pytest.approx(2, abs=0.05)


def slow_uniformity(tokens: list[torch.Tensor]) -> float:
    """log of the mean of exp(−2‖u_a − u_b‖²) over ordered pairs a ≠ b."""
    units = [token / token.norm() for token in tokens]
    values = [
        math.exp(-2 * (units[a] - units[b]).pow(2).sum().item())
        for a in range(len(units))
        for b in range(len(units))
        if a != b
    ]
    return math.log(sum(values) / len(values))


def test_uniformity_loss_equals_a_double_loop_over_pairs():
    memory = torch.randn(5, 3, 8)
    expected = slow_uniformity(list(memory.flatten(0, 1)))
    assert uniformity_loss(memory).item() == pytest.approx(expected, abs=1e-5)
    assert uniformity_loss(7 * memory).item() == pytest.approx(expected, abs=1e-5)


def test_uniformity_loss_is_zero_for_collapsed_and_minus_eight_for_opposite_tokens():
    token = torch.randn(8)
    assert uniformity_loss(token.expand(4, 2, 8)).item() == pytest.approx(0, abs=1e-5)
    assert uniformity_loss(torch.stack([token, -token])[:, None]).item() == pytest.approx(-8, abs=1e-5)


def test_uniformity_loss_of_a_large_batch_looks_at_512_evenly_spaced_tokens_at_most():
    memory = torch.randn(60, 10, 4)  # 600 tokens: every second one
    units = torch.nn.functional.normalize(memory.flatten(0, 1)[::2], dim=-1)
    squared = torch.cdist(units, units).pow(2)
    others = squared[~torch.eye(len(units), dtype=torch.bool)]
    assert uniformity_loss(memory).item() == pytest.approx(torch.exp(-2 * others).mean().log().item(), abs=1e-4)


# ---------------------------------------------------------------- SMT


@torch.no_grad()
@pytest.mark.parametrize("length", [7, CONTEXT, 16])  # shorter than the context, as long, longer
def test_trunk_loss_is_that_of_a_causal_transformer_over_the_context(length):
    teacher, batch = tiny_teacher("projected"), random_batch(3, length)
    x, y = batch["input_ids"], batch["shift_labels"]
    loss, parts = trunk_loss(teacher, batch)
    expected = []
    for row, t in itertools.product(range(3), range(min(length, CONTEXT))):
        if y[row, t] != -100:
            _, trunk = teacher.encode_with_trunk(x[row : row + 1, : t + 1], [t])
            assert trunk is not None
            expected.append(surprise(teacher.lm_head(teacher.readout.norm(trunk[0, t])), y[row, t]))
    torch.testing.assert_close(loss, mean(expected), rtol=1e-4, atol=1e-5)
    assert parts == {"trunk_loss": loss}


def slow_smt(model, teacher, batch, timestep: int, window: list[int]) -> dict[str, torch.Tensor]:
    """Every term row by row and label by label; `window`: the timesteps that get a label, but for `timestep`
    itself, from which the future is predicted, where it lies elsewhere."""
    x, y = batch["input_ids"], batch["shift_labels"]
    with_trunk = teacher.config.encoder_type in ("causal", "projected")
    terms: dict[str, list[torch.Tensor]] = {n: [] for n in ("prediction", "read", "dynamics", "cell", "trunk")}
    last_labels: list[torch.Tensor] = []
    for row in range(len(x)):
        labels = {t: teacher.encode(x[row : row + 1], [t])[0, 0] for t in {*window, timestep}}
        for future in range(FUTURE):
            t = timestep + future
            if 0 <= t < x.shape[1] and y[row, t] != -100:
                read = x[row : row + 1, timestep + 1 : t + 1]
                logits = teacher.decode(labels[timestep][None], read if future else None)[0, -1]
                terms["prediction"].append(surprise(logits, y[row, t]))
        for t in window:
            if t >= 0 and y[row, t] != -100:
                terms["read"].append(surprise(teacher.decode(labels[t][None])[0, 0], y[row, t]))
        for t in window[:-1]:
            token = model.model.embed_tokens(x[row, t + 1])
            pred = model.model.cell(labels[t][None], model.model.cell.project_inputs(token[None]))[0]
            terms["dynamics"].append((pred - labels[t + 1]).pow(2).mean())
            if y[row, t + 1] != -100:
                terms["cell"].append(surprise(teacher.decode(pred[None])[0, 0], y[row, t + 1]))
        if with_trunk:
            last = max(window[-1], timestep)
            last = last if teacher.config.encoder_type == "causal" else min(CONTEXT, x.shape[1]) - 1
            _, trunk = teacher.encode_with_trunk(x[row : row + 1], [last])
            for t in range(last + 1):
                if y[row, t] != -100:
                    hidden = teacher.readout.norm(trunk[0, t])
                    terms["trunk"].append(surprise(teacher.lm_head(hidden), y[row, t]))
        last_labels.extend(labels[window[-1]])
    means = {name: mean(values) for name, values in terms.items()}
    uniformity = slow_uniformity(last_labels)
    total = means["prediction"] + 0.1 * means["dynamics"] + 0.001 * uniformity + means["read"] + means["trunk"]
    parts = {
        "prediction_loss": means["prediction"],
        "dynamics_loss": means["dynamics"],
        "uniformity_loss": torch.tensor(uniformity),
        "readout_loss": means["read"],
        "cell_readout_loss": means["cell"],
    }
    return {"loss": total, **parts, **({"trunk_loss": means["trunk"]} if with_trunk else {})}


END = CONTEXT - 1
WINDOWS = [
    # timestep, num_labels, length of the sequence, where labels are expected
    (-1, 3, 16, [-1, 0, 1]),
    (0, 3, 16, [0, 1, 2]),
    (5, 2, 16, [5, 6]),
    (END - 2, 3, 16, [END - 2, END - 1, END]),
    (END - 1, 3, 16, [END - 2, END - 1, END]),
    (END, 3, 16, [END - 2, END - 1, END]),
    (END, 2, CONTEXT, [END - 1, END]),  # the future ends with the sequence
    (7, 3, 8, [5, 6, 7]),  # a sequence shorter than the context
    (4, 99, 9, list(range(-1, 9))),  # more labels than there are timesteps
]


@torch.no_grad()
@pytest.mark.parametrize("encoder_type", ENCODER_TYPES)
@pytest.mark.parametrize(("timestep", "num_labels", "length", "window"), WINDOWS)
def test_smt_loss_equals_loops_over_rows_labels_and_future(encoder_type, timestep, num_labels, length, window):
    model, teacher = tiny_student(), tiny_teacher(encoder_type)
    batch = random_batch(3, length)
    loss, parts = smt_loss(model, teacher, batch, timestep, num_labels)
    expected = slow_smt(model, teacher, batch, timestep, window)
    del expected["cell_readout_loss"]
    torch.testing.assert_close(loss, expected.pop("loss"), rtol=1e-4, atol=1e-5)
    assert parts.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(parts[name], value, rtol=1e-4, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


@torch.no_grad()
@pytest.mark.parametrize("encoder_type", ENCODER_TYPES)
@pytest.mark.parametrize("predict_from", [-1, 3, 5, 6, END])  # 5 and 6 are among the labels
def test_smt_can_predict_from_another_label_and_read_out_what_the_cell_makes_of_labels(
    encoder_type, predict_from
):
    model, teacher, batch = tiny_student(), tiny_teacher(encoder_type), random_batch(3, CONTEXT)
    batch["shift_labels"][:, 6] = -100  # an answer that nobody reads
    loss, parts = smt_loss(model, teacher, batch, 5, 3, predict_from=predict_from, cell_readout_weight=2.0)
    expected = slow_smt(model, teacher, batch, predict_from, [5, 6, 7])
    torch.testing.assert_close(
        loss, expected.pop("loss") + 2 * expected["cell_readout_loss"], rtol=1e-4, atol=1e-5
    )
    assert parts.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(parts[name], value, rtol=1e-4, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


def test_a_compiled_smt_loss_is_the_plain_one_at_whatever_timestep_is_drawn():
    model, teacher, batch = tiny_student(), tiny_teacher(), random_batch(2, 16)
    compiled = torch.compile(smt_loss, backend="eager")
    for timestep in (3, 5, 9):  # from the second on, dynamo takes it for a number that changes
        expected, _ = smt_loss(model, teacher, batch, timestep, 3)
        torch.testing.assert_close(compiled(model, teacher, batch, timestep, 3)[0], expected)


def test_reading_out_the_cells_memories_trains_encoder_cell_and_decoder():
    model, teacher = tiny_student(), tiny_teacher()
    only = dict.fromkeys(
        ("prediction_weight", "dynamics_weight", "uniformity_weight", "readout_weight", "trunk_weight"), 0.0
    )
    loss, _ = smt_loss(model, teacher, random_batch(4, 16), 5, 3, **only, cell_readout_weight=1.0)
    expected = names(model, teacher, "teacher.", "model.model.cell.", "model.model.embed_tokens.")
    assert gradients(loss, model, teacher) == expected


@torch.no_grad()
def test_smt_weights_are_the_papers():
    model, teacher = tiny_student(), tiny_teacher()
    batch = random_batch(3, 16)
    loss, parts = smt_loss(model, teacher, batch, 4, 2)
    weights = {"dynamics_loss": 0.1, "uniformity_loss": 0.001}
    total = sum(weights.get(name, 1.0) * value for name, value in parts.items())
    torch.testing.assert_close(loss, total)


@torch.no_grad()
@pytest.mark.parametrize("encoder_type", ENCODER_TYPES)
def test_each_weight_of_smt_counts_its_own_part_and_the_parts_stay_unweighted(encoder_type):
    model, teacher, batch = tiny_student(), tiny_teacher(encoder_type), random_batch(4, 16)
    _, plain = smt_loss(model, teacher, batch, 4, 3, cell_readout_weight=1.0)
    weights = {f"{name.removesuffix('_loss')}_weight": 2.0 + i for i, name in enumerate(plain)}
    loss, parts = smt_loss(model, teacher, batch, 4, 3, **weights)
    assert len(parts) == 5 + (encoder_type in ("causal", "projected"))
    assert all(torch.equal(parts[name], plain[name]) for name in plain)
    expected = sum((2.0 + i) * value.item() for i, value in enumerate(parts.values()))
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_detached_labels_teach_the_cell_the_same_and_the_encoder_nothing():
    model, teacher, batch = tiny_student(), tiny_teacher(), random_batch(4, 16)
    others = dict(prediction_weight=0.0, uniformity_weight=0.0, readout_weight=0.0, trunk_weight=0.0)
    found = []
    for detach in (False, True):
        model.zero_grad()
        teacher.zero_grad()
        smt_loss(model, teacher, batch, 4, 3, **others, detach_labels=detach)[0].backward()
        of_cell = {name: p.grad.clone() for name, p in model.model.cell.named_parameters()}
        found.append((of_cell, any(p.grad is not None and p.grad.any() for p in teacher.parameters())))
    assert [reached for _, reached in found] == [True, False]
    for name, gradient in found[0][0].items():
        assert gradient.any() and torch.equal(gradient, found[1][0][name])


def test_smt_with_one_answer_at_the_end_is_finite_wherever_the_labels_are():
    """As in retrieval: most timesteps have no target at all."""
    model, teacher = tiny_student(), tiny_teacher()
    batch = random_batch(2, CONTEXT)
    batch["shift_labels"][:, :-1] = -100
    batch["shift_labels"][:, -1] = 3
    for timestep in range(-1, CONTEXT):
        loss, _ = smt_loss(model, teacher, batch, timestep, 3)
        loss.backward()
        assert loss.isfinite()
    assert all(p.grad is None or p.grad.isfinite().all() for p in teacher.parameters())


def gradients(loss: torch.Tensor, *modules: torch.nn.Module) -> set[str]:
    """Names of the parameters that the loss reaches, prefixed with model. or teacher. ."""
    loss.backward()
    reached = set()
    for prefix, module in zip(("model", "teacher"), modules, strict=True):
        for name, parameter in module.named_parameters():
            if parameter.grad is not None and parameter.grad.any():
                reached.add(f"{prefix}.{name}")
    return reached


def names(model, teacher, *prefixes: str) -> set[str]:
    both = [f"model.{n}" for n, _ in model.named_parameters()]
    both += [f"teacher.{n}" for n, _ in teacher.named_parameters()]
    return {name for name in both if name.startswith(prefixes)}


@pytest.mark.parametrize("encoder_type", ENCODER_TYPES)
@pytest.mark.parametrize("cell", ["gru", "transformer"])
def test_smt_reaches_the_teacher_and_the_cell_and_nothing_of_the_readout(cell, encoder_type):
    model, teacher = tiny_student(cell), tiny_teacher(encoder_type)
    loss, _ = smt_loss(model, teacher, random_batch(4, 16), 5, 3)
    expected = names(model, teacher, "teacher.", "model.model.cell.", "model.model.embed_tokens.")
    assert gradients(loss, model, teacher) == expected


def test_the_dynamics_loss_trains_the_encoder_too():
    """Joint training is what makes the memory Markovian."""
    model, teacher = tiny_student(), tiny_teacher()
    batch = random_batch(4, 16)
    batch["shift_labels"][:] = -100  # leaves nothing but dynamics
    loss, _ = smt_loss(model, teacher, batch, 5, 2, uniformity_weight=0.0)
    reached = gradients(loss, model, teacher)
    assert names(model, teacher, "teacher.encoder.", "teacher.registers") <= reached


# ---------------------------------------------------------------- DMT

START, R = 1, 4


def distinct_batch() -> dict[str, torch.Tensor]:
    """One row without repeated tokens, so that the gradient of an embedding is that of one timestep."""
    ids = torch.tensor([[3, 9, 0, 7, 5, 2, 10, 4]])
    return {"input_ids": ids, "shift_labels": torch.tensor([[9, 0, 7, -100, 2, 10, 4, 1]])}


def slow_dmt(
    model, teacher, batch, start: int, sweeps: int | None, taught=range(R), in_a_row: int = 1
) -> torch.Tensor:
    """Timestep by timestep. The state before each stretch is computed anew, from `sweeps` steps earlier."""
    x, y = batch["input_ids"], batch["shift_labels"]
    core = model.model
    dynamics, readout = [], []
    for row in range(len(x)):
        labels = [teacher.encode(x[row : row + 1], [t])[0, 0].detach() for t in range(start, start + R + 1)]
        tokens = x[row, start + 1 : start + 1 + R]

        def stepped(memory, step, tokens=tokens):
            return core.cell(memory[None], core.cell.project_inputs(core.embed_tokens(tokens[step, None])))[0]

        for first in taught:
            begin = 0 if sweeps is None else max(0, first - sweeps)
            memory = labels[begin]
            with torch.no_grad():
                for i in range(begin, first):
                    memory = stepped(memory, i)
            for step in range(first, first + in_a_row):
                memory = stepped(memory, step)
                error = (memory - labels[step + 1]).pow(2).mean()
                dynamics.append(error / (1 + error / 0.3))
                target = y[row, start + 1 + step]
                if target != -100:
                    readout.append(surprise(model.lm_head(core.read_out(memory[None]))[0], target))
    return 10 * mean(dynamics) + mean(readout)


def assert_same_gradients(model: torch.nn.Module, twin: torch.nn.Module) -> None:
    for (name, ours), theirs in zip(model.named_parameters(), twin.parameters(), strict=True):
        if theirs.grad is None:
            assert ours.grad is None, name
            continue
        torch.testing.assert_close(
            ours.grad, theirs.grad, rtol=1e-3, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("cell", ["gru", "transformer"])
@pytest.mark.parametrize(
    ("start", "num_sweeps"), [(START, 0), (-1, 0), (START, 1), (START, 2), (-1, 3), (1, 9)]
)
def test_dmt_loss_and_its_gradients_equal_a_loop_over_timesteps(cell, start, num_sweeps):
    """Equal gradients too: each timestep gets its own and nothing comes back through time."""
    model, teacher = tiny_student(cell), tiny_teacher()
    twin = copy.deepcopy(model)
    batch = random_batch(3, 8)
    loss, _ = dmt_loss(model, teacher, batch, start, R, num_sweeps)
    expected = slow_dmt(twin, teacher, batch, start, num_sweeps or None)
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-5)
    loss.backward()
    expected.backward()
    assert_same_gradients(model, twin)


@pytest.mark.parametrize("num_sweeps", [0, 1, 2, 9])
@pytest.mark.parametrize(("label_every", "offset", "taught"), [(2, 1, [1, 3]), (3, 0, [0, 3]), (4, 2, [2])])
def test_every_nth_step_of_a_rollout_is_taught_as_if_there_were_no_others(
    label_every, offset, taught, num_sweeps
):
    model, teacher = tiny_student(), tiny_teacher()
    twin = copy.deepcopy(model)
    batch = random_batch(3, 8)
    loss, parts = dmt_loss(model, teacher, batch, START, R, num_sweeps, label_every, offset=offset)
    expected = slow_dmt(twin, teacher, batch, START, num_sweeps or None, taught)
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-5)
    assert (parts["drift"] == parts["dynamics_loss"]) == (len(taught) == 1)
    assert gradients(loss, model, teacher) == gradients(expected, twin, teacher)


@pytest.mark.parametrize("cell", ["gru", "transformer"])
@pytest.mark.parametrize("num_sweeps", [0, 1, 9])
@pytest.mark.parametrize(
    ("label_every", "in_a_row", "offset", "first"),
    [(1, 2, 0, [0, 2]), (1, 3, 0, [0]), (1, R, 0, [0]), (3, 2, 0, [0]), (3, 2, 1, [1])],
)
def test_the_gradient_goes_back_through_a_stretch_and_no_further(
    cell, label_every, in_a_row, offset, first, num_sweeps
):
    model, teacher = tiny_student(cell), tiny_teacher()
    twin = copy.deepcopy(model)
    batch = random_batch(3, 8)
    loss, _ = dmt_loss(model, teacher, batch, START, R, num_sweeps, label_every, in_a_row, offset)
    expected = slow_dmt(twin, teacher, batch, START, num_sweeps or None, first, in_a_row)
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-5)
    loss.backward()
    expected.backward()
    assert_same_gradients(model, twin)


def test_the_weights_of_dmt_are_those_of_the_run(tmp_path):
    model, teacher = tiny_student(), tiny_teacher()
    batch = random_batch(3, 8)

    def loss(weight: float) -> torch.Tensor:
        args = tiny_arguments(tmp_path, dmt_imitation_weight=weight)
        return Objective(model, teacher, args)("dmt", batch, start=START, rollout_length=R)[0]

    torch.testing.assert_close(loss(3) - loss(0), 0.3 * (loss(10) - loss(0)))
    torch.testing.assert_close(loss(10), dmt_loss(model, teacher, batch, START, R)[0])


def test_over_many_steps_every_step_of_a_rollout_is_taught_as_often(tmp_path):
    args = tiny_arguments(tmp_path, rollout_length=6, dmt_label_every=3)
    part = schedule.Phase("dmt", 0.0, 1.0, 1e-3)
    drawn = [draws(part, Moment(step, 16, 16, CONTEXT), args)[0]["offset"] for step in range(600)]
    assert all(150 < drawn.count(offset) < 250 for offset in range(3)) and len(set(drawn)) == 3


@pytest.mark.parametrize(
    ("steps", "every", "num_sweeps", "offsets", "depth"),
    [(1, 3, 0, {0, 1, 2}, 6), (2, 1, 0, {0}, 6), (2, 3, 0, {0, 1}, 6), (3, 3, 2, {0}, 5), (6, 1, 4, {0}, 6)],
)
def test_stretches_begin_wherever_a_whole_one_fits_and_their_steps_wait_for_one_another(
    tmp_path, steps, every, num_sweeps, offsets, depth
):
    args = tiny_arguments(
        tmp_path, rollout_length=6, dmt_gradient_steps=steps, dmt_label_every=every, num_sweeps=num_sweeps
    )
    part = schedule.Phase("dmt", 0.0, 1.0, 1e-3)
    drawn = [draws(part, Moment(step, 16, 16, CONTEXT), args) for step in range(60)]
    assert {choices["offset"] for choices, _ in drawn} == offsets and {found for _, found in drawn} == {depth}


@pytest.mark.parametrize("num_sweeps", [0, 2])
def test_the_first_token_of_a_window_is_taught_by_its_own_step_alone(num_sweeps):
    model, teacher = tiny_student(), tiny_teacher()
    batch = distinct_batch()
    dmt_loss(model, teacher, batch, START, R, num_sweeps)[0].backward()
    first = batch["input_ids"][0, START + 1]
    labels = teacher.encode(batch["input_ids"], [START, START + 1]).detach()
    core = copy.deepcopy(model).model
    core.zero_grad()
    pred = core.cell(labels[:, 0], core.cell.project_inputs(core.embed_tokens(first[None])))
    logits = model.lm_head(core.read_out(pred))[0]
    targets = batch["shift_labels"][0, START + 1 : START + 1 + R]
    error = (pred - labels[:, 1]).pow(2).mean()
    loss = 10 * error / (1 + error / 0.3) / R
    (loss + surprise(logits, int(targets[0])) / (targets != -100).sum()).backward()
    grads = [m.embed_tokens.weight.grad for m in (model.model, core)]
    torch.testing.assert_close(grads[0][first], grads[1][first], rtol=1e-4, atol=1e-6)
    assert grads[1][first].abs().max() > 1e-3


def test_imitation_levels_off_for_each_memory_by_itself():
    """Squared errors of 0.01, 0.3 and 2.7: nearly itself, half of the scale, nine tenths of it."""
    errors = torch.tensor([0.01, 0.3, 2.7]).view(3, 1, 1)
    target = torch.randn(3, 2, 4)
    pred = (target + errors.sqrt()).requires_grad_()
    loss = imitation_loss((pred - target).pow(2).mean((1, 2)))
    torch.testing.assert_close(loss, torch.tensor((0.01 / (1 + 0.01 / 0.3) + 0.15 + 0.27) / 3))
    loss.backward()
    assert pred.grad is not None
    near, middle, far = pred.grad.flatten(1).norm(dim=1)
    # The gradient of e is 2 √e, and 1 / (1 + e/s)² of it is left.
    assert middle / near == pytest.approx((0.3 / 0.01) ** 0.5 / 4 * (1 + 0.01 / 0.3) ** 2, rel=1e-3)
    assert far < middle


@torch.no_grad()
def test_the_drift_of_a_window_is_that_of_its_last_state():
    model, teacher = tiny_student(), tiny_teacher()
    batch = random_batch(3, 8)
    core = model.model
    memory = teacher.encode(batch["input_ids"], [START])[:, 0]
    for t in range(START + 1, START + R + 1):
        memory = core.cell(memory, core.cell.project_inputs(core.embed_tokens(batch["input_ids"][:, t])))
    expected = (memory - teacher.encode(batch["input_ids"], [START + R])[:, 0]).pow(2).mean()
    torch.testing.assert_close(dmt_loss(model, teacher, batch, START, R)[1]["drift"], expected)


@pytest.mark.parametrize("num_sweeps", [0, 2])
@pytest.mark.parametrize("cell", ["gru", "transformer"])
def test_dmt_reaches_cell_and_readout_and_nothing_of_the_teacher(cell, num_sweeps):
    model, teacher = tiny_student(cell), tiny_teacher()
    loss, _ = dmt_loss(model, teacher, random_batch(4, 16), 2, R, num_sweeps)
    reached = gradients(loss, model, teacher)
    assert reached == names(model, teacher, "model.") - {"model.model.initial_memory"}
    assert all(parameter.grad is None for parameter in teacher.parameters())


@pytest.mark.parametrize("num_sweeps", [0, 2])
def test_the_readout_cross_entropy_of_dmt_goes_back_through_one_step_and_no_further(num_sweeps):
    model, teacher = tiny_student(), tiny_teacher()
    batch = distinct_batch()
    batch["shift_labels"][:, : START + R] = -100  # only the last timestep of the window has a target
    loss, _ = dmt_loss(model, teacher, batch, START, R, num_sweeps, imitation_weight=0.0)
    loss.backward()
    moved = model.model.embed_tokens.weight.grad.abs().sum(-1).nonzero().flatten().tolist()
    assert moved == [batch["input_ids"][0, START + R]]
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_the_dynamics_of_dmt_send_nothing_into_the_readout():
    model, teacher = tiny_student(), tiny_teacher()
    batch = random_batch(4, 16)
    batch["shift_labels"][:] = -100
    loss, _ = dmt_loss(model, teacher, batch, 2, R)
    assert gradients(loss, model, teacher) == names(
        model, teacher, "model.model.cell.", "model.model.embed_tokens."
    )


# ---------------------------------------------------------------- all of them


@torch.no_grad()
def test_bptt_loss_equals_stepping_token_by_token():
    model = tiny_student()
    batch = random_batch(3, 6)
    core, values = model.model, []
    for row in range(3):
        memory = core.start_memory(1)
        for token, target in zip(batch["input_ids"][row], batch["shift_labels"][row], strict=True):
            memory = core.cell(memory, core.cell.project_inputs(core.embed_tokens(token[None])))
            if target != -100:
                values.append(surprise(model.lm_head(core.read_out(memory))[0], int(target)))
    torch.testing.assert_close(bptt_loss(model, batch)[0], mean(values))


@pytest.mark.parametrize(
    ("phase", "changes", "applications"),
    [
        ("smt", {"num_labels": 2}, 1),
        ("smt", {"num_labels": 5}, 1),
        ("dmt", {}, 4),
        ("dmt", {"num_sweeps": 2}, 3),
        ("dmt", {"num_sweeps": 99}, 4),
        ("bptt", {}, 16),
    ],
)
def test_a_step_waits_for_as_many_cell_applications_as_its_recorded_depth(
    tmp_path, phase, changes, applications
):
    """In SMT exactly one, whatever the sequence: the cell is never unrolled."""
    args = tiny_arguments(tmp_path, method="bptt" if phase == "bptt" else "smt", **changes)
    part = schedule.Phase(phase, 0.0, 1.0, 1e-3)
    choices, depth = draws(part, Moment(3, 16, 16, CONTEXT), args)
    objective = Objective(tiny_student(), tiny_teacher(), args)
    calls: list[int] = []
    objective.model.model.cell.register_forward_hook(lambda *_: calls.append(1))
    objective(phase, random_batch(2, 16), **choices)
    assert len(calls) == depth == applications


@pytest.mark.parametrize("phase", list(PHASES))
def test_the_loss_of_each_phase_reaches_exactly_what_the_phase_trains(phase, tmp_path):
    args = tiny_arguments(tmp_path)
    objective = Objective(tiny_student(), None if phase == "bptt" else tiny_teacher(), args)
    choices = {"smt": {"timestep": 3, "num_labels": 3}, "dmt": {"start": 1, "rollout_length": R}}.get(phase, {})
    loss, parts = objective(phase, random_batch(4, 16), **choices)
    assert all(not value.requires_grad and value.ndim == 0 for value in parts.values())
    loss.backward()
    reached = {n for n, p in objective.named_parameters() if p.grad is not None and p.grad.any()}
    assert reached == {n for n, _ in objective.named_parameters() if n.startswith(PHASES[phase].trains)}


@torch.no_grad()
def test_losses_ignore_what_stands_where_there_is_no_target():
    """Ignored positions can hold any token in the input too late to matter, and −100 never indexes."""
    model, teacher = tiny_student(), tiny_teacher()
    batch = random_batch(3, 16)
    batch["shift_labels"][1:] = -100
    only_first = {name: value[:1] for name, value in batch.items()}
    for loss in (
        lambda b: smt_loss(model, teacher, b, 4, 3, dynamics_weight=0.0, uniformity_weight=0.0),
        lambda b: dmt_loss(model, teacher, b, 2, R, imitation_weight=0.0),
        lambda b: bptt_loss(model, b),
    ):
        torch.testing.assert_close(loss(batch)[0], loss(only_first)[0])


@pytest.mark.parametrize("asked", [[], [5], [5, 6]])
@pytest.mark.parametrize("phase", ["smt", "dmt", "bptt"])
def test_only_timesteps_that_some_row_is_asked_at_are_read_out(phase, asked, monkeypatch):
    """With the loss and the gradients of reading everything out."""
    model, teacher = tiny_student(), tiny_teacher()
    batch = random_batch(3, 8)
    targets = torch.full_like(batch["shift_labels"], -100)
    targets[0, asked] = batch["input_ids"][0, asked]  # of one row, so that of a column one target is enough
    batch["shift_labels"] = targets
    choices = {
        "smt": {"timestep": 5, "num_labels": 4, "prediction_weight": 0.0},
        "dmt": {"start": 2, "rollout_length": R},
    }.get(phase, {})
    objective = Objective(model, teacher, tiny_arguments(Path("unused")))
    read: list[int] = []
    for readout in (model.model.readout, teacher.readout):
        readout.register_forward_hook(lambda *called: read.append(len(called[1][0])))
    loss, _ = objective(phase, batch, **choices)
    loss.backward()
    assert read[-1] == 3 * max(1, len(asked))
    gradients_of_some = [p.grad for p in objective.parameters()]
    objective.zero_grad()
    monkeypatch.setattr(objectives, "timesteps_asked", lambda targets: torch.arange(targets.shape[1]))
    everything, _ = objective(phase, batch, **choices)
    everything.backward()
    assert read[-1] == 3 * {"smt": 4, "dmt": R, "bptt": 8}[phase]
    torch.testing.assert_close(loss, everything)
    for some, parameter in zip(gradients_of_some, objective.parameters(), strict=True):
        torch.testing.assert_close(some, parameter.grad, rtol=1e-4, atol=1e-6)


def test_uniformity_needs_no_generator():
    """Losses draw nothing at random: the random state stays, so a resumed run repeats the unbroken one."""
    state, python_state = torch.get_rng_state(), random.getstate()
    model, teacher = tiny_student().train(), tiny_teacher().train()
    torch.set_rng_state(state)
    smt_loss(model, teacher, random_batch(300, 16), 4, 3)
    dmt_loss(model, teacher, random_batch(3, 16), 2, R)
    assert torch.equal(torch.get_rng_state(), state) and random.getstate() == python_state
    assert objectives.UNIFORMITY_SAMPLE < 300 * TOKENS
