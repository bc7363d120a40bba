"""Everything that depends on progress or on (seed, step): phases, rates, lengths, draws and batches."""

import math
from collections import Counter
from itertools import islice
from pathlib import Path
from random import Random

import pytest
import torch
from tiny_training import Stream, tiny_arguments

from smt_hf.data import RetrievalTask
from smt_hf.data.dataset import as_sequence_dataset, prompt_length
from smt_hf.data.tasks import ReverseCopyTask
from smt_hf.pretraining import phases, schedule
from smt_hf.pretraining.batching import StepSampler, batches_at_length
from smt_hf.pretraining.phases import PHASES, Moment, phases_of
from smt_hf.pretraining.schedule import Phase
from smt_hf.runs.arguments import SMTPretrainingArguments

HERE = Path("unused")


def draws(phase: Phase, step: int, length: int, context: int, args: SMTPretrainingArguments, full: int = 0):
    """`phases.draws` at the full length, unless another one is given."""
    return phases.draws(phase, Moment(step, length, full or length, context), args)


SMT, DMT = Phase("smt", 0.0, 0.6, 1e-3), Phase("dmt", 0.6, 1.0, 2e-4, grows=False)


@pytest.mark.parametrize(
    ("phase", "progress", "expected"),
    [
        (SMT, 0.0, 1e-4),  # a tenth, not 0: the first step must do something
        (SMT, 0.03, 5e-4),  # half of the warm-up
        (SMT, 0.06, 1e-3),
        (SMT, 0.3, 1e-3),
        (SMT, 0.36, 1e-3),  # the decay begins
        (SMT, 0.48, 5e-4),
        (SMT, 0.6, 0.0),
        (DMT, 0.62, 1e-4),
        (DMT, 0.8, 2e-4),
        (DMT, 0.92, 1e-4),
        (DMT, 0.98, 2.5e-5),
    ],
)
def test_learning_rate_warms_up_and_decays_within_its_phase(phase, progress, expected):
    args = tiny_arguments(HERE, warmup_ratio=0.1, decay_ratio=0.4)
    assert schedule.learning_rate(phase, progress, args) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("progress", [0.0, 0.3, 1.0])
def test_without_warm_up_and_decay_the_rate_is_constant(progress):
    args = tiny_arguments(HERE, method="bptt", learning_rate=3e-3, warmup_ratio=0.0, decay_ratio=0.0)
    (phase,) = phases_of(args)
    assert schedule.learning_rate(phase, progress, args) == 3e-3


def test_warm_up_and_decay_that_overlap_take_the_smaller():
    args = tiny_arguments(HERE, warmup_ratio=0.8, decay_ratio=0.8)
    phase = Phase("bptt", 0.0, 1.0, 1.0)
    rates = [schedule.learning_rate(phase, i / 100, args) for i in range(101)]
    assert max(rates) == pytest.approx(0.5 / 0.8) and rates[-1] == pytest.approx(0)


def test_phases_share_the_budget():
    assert phases_of(tiny_arguments(HERE, method="bptt", learning_rate=2e-3)) == [Phase("bptt", 0.0, 1.0, 2e-3)]
    smt, dmt = phases_of(tiny_arguments(HERE, dmt_fraction=0.25, learning_rate=2e-3, dmt_learning_rate=1e-4))
    assert smt == Phase("smt", 0.0, 0.75, 2e-3) and dmt == Phase("dmt", 0.75, 1.0, 1e-4, grows=False)
    assert [phase.name for phase in phases_of(tiny_arguments(HERE, dmt_fraction=0.0))] == ["smt"]
    assert [phase.name for phase in phases_of(tiny_arguments(HERE, dmt_fraction=1.0))] == ["dmt"]


def test_bptt_gets_its_share_after_smt_and_dmt():
    args = tiny_arguments(HERE, dmt_fraction=0.25, bptt_fraction=0.125, bptt_learning_rate=5e-4)
    assert [(phase.name, phase.start, phase.end) for phase in phases_of(args)] == [
        ("smt", 0.0, 0.625),
        ("dmt", 0.625, 0.875),
        ("bptt", 0.875, 1.0),
    ]
    assert phases_of(args)[-1].learning_rate == 5e-4


def test_the_trunk_learns_first_and_the_curriculum_waits_for_smt():
    args = tiny_arguments(HERE, trunk_fraction=0.25, dmt_fraction=0.5, curriculum_start_length=4)
    assert [(phase.name, phase.start, phase.end, phase.grows) for phase in phases_of(args)] == [
        ("trunk", 0.0, 0.25, False),
        ("smt", 0.25, 0.5, True),
        ("dmt", 0.5, 1.0, False),
    ]
    assert phases_of(args)[0].learning_rate == args.learning_rate


@pytest.mark.parametrize(
    ("shares", "steps"),
    [((0.2, 0.3, 0.1), [2, 4, 3, 1]), ((0.3, 0.2, 0.2), [3, 3, 2, 2]), ((0, 0.3, 0.4), [3, 3, 4])],
)
def test_phases_of_round_shares_get_the_steps_that_they_say(shares, steps):
    trunk, dmt, bptt = shares
    phases = phases_of(tiny_arguments(HERE, trunk_fraction=trunk, dmt_fraction=dmt, bptt_fraction=bptt))
    found = [sum(phase.start <= step / 10 < phase.end for step in range(10)) for phase in phases]
    assert found == steps and sum(found) == 10


@pytest.mark.parametrize("dmt", [i / 20 for i in range(21)])
def test_fractions_of_the_whole_budget_leave_no_crumb_of_a_phase(dmt):
    names = [p.name for p in phases_of(tiny_arguments(HERE, dmt_fraction=dmt, bptt_fraction=1 - dmt))]
    assert names == ["dmt"] * (dmt > 0) + ["bptt"] * (dmt < 1)


def curriculum(**changes) -> SMTPretrainingArguments:
    return tiny_arguments(HERE, curriculum_start_length=16, curriculum_fraction=0.5, **changes)


def test_sequences_grow_geometrically_from_the_start_length_to_the_full_one():
    lengths = [schedule.sequence_length(SMT, 0.6 * i / 200, 256, curriculum()) for i in range(201)]
    assert lengths[0] == 16
    assert all(length == 256 for length in lengths[100:])  # at half of the phase and after it
    assert lengths == sorted(lengths)
    for i in range(100):  # never more than one step of the staircase away from the curve
        assert lengths[i] / (16 * 16 ** (i / 100)) == pytest.approx(1, rel=0.13)
    assert len(set(lengths)) <= 25


def test_only_a_phase_that_grows_has_a_curriculum():
    assert schedule.sequence_length(Phase("dmt", 0.0, 1.0, 1.0, grows=False), 0.0, 256, curriculum()) == 256
    assert schedule.sequence_length(Phase("bptt", 0.0, 1.0, 1.0), 0.0, 256, curriculum()) == 16
    assert schedule.sequence_length(SMT, 0.0, 256, tiny_arguments(HERE)) == 256
    assert schedule.sequence_length(SMT, 0.0, 12, curriculum()) == 12  # shorter than where it would start


def test_the_first_phase_that_may_grow_does_and_no_later_one(monkeypatch):
    args = tiny_arguments(HERE, dmt_fraction=0.25, bptt_fraction=0.25)
    assert [phase.grows for phase in phases_of(args)] == [True, False, False]
    before = PHASES["dmt"]
    monkeypatch.setattr("smt_hf.pretraining.phases.PHASES", {"before": before, **PHASES})
    assert [phase.grows for phase in phases_of(args)] == [False, True, False, False]


@pytest.mark.parametrize("name", list(PHASES))
def test_draws_are_a_function_of_seed_and_step(name):
    phase = Phase(name, 0.0, 1.0, 1e-3)

    def series(seed: int) -> list:
        args = tiny_arguments(HERE, seed=seed, method="bptt" if name == "bptt" else "smt")
        return [draws(phase, step, 64, 48, args) for step in range(40)]

    assert series(3) == series(3)
    if name in ("smt", "dmt"):
        assert series(3) != series(4)
        assert len({str(draw) for draw in series(3)}) > 10


def test_draws_leave_the_global_generators_alone():
    state = torch.get_rng_state()
    draws(SMT, 5, 64, 48, tiny_arguments(HERE))
    assert torch.equal(torch.get_rng_state(), state)


def test_smt_timesteps_cover_the_context_and_reach_both_ends_often():
    args = tiny_arguments(HERE)
    drawn = Counter(draws(SMT, step, 64, 20, args)[0]["timestep"] for step in range(4000))
    assert set(drawn) == set(range(-1, 20))
    assert 0.08 < drawn[-1] / 4000 < 0.12  # a tenth
    assert 0.11 < drawn[19] / 4000 < 0.17  # a tenth, and its share of the rest
    assert all(0.025 < drawn[t] / 4000 < 0.058 for t in range(19))


@pytest.mark.parametrize("fraction", [0.0, 0.25, 1.0])
def test_the_future_is_predicted_from_the_end_of_the_prompt_about_as_often_as_asked(fraction):
    args, plain = tiny_arguments(HERE, prompt_fraction=fraction), tiny_arguments(HERE)
    found = []
    for step in range(2000):
        drawn = phases.draws(SMT, Moment(step, 64, 64, 20, 7), args)[0]
        found.append(drawn.pop("predict_from", None))
        assert drawn == phases.draws(SMT, Moment(step, 64, 64, 20), plain)[0]  # the labels are those of before
    assert set(found) <= {None, 6}
    assert found.count(6) / 2000 == pytest.approx(fraction, abs=0.03)


def test_a_prompt_ends_before_the_first_target_and_within_the_context():
    args = tiny_arguments(HERE, prompt_fraction=1.0)
    copying, text = ReverseCopyTask(32), as_sequence_dataset([{"input_ids": [1, 2], "shift_labels": [2, 3]}])
    assert prompt_length(copying) == 16 and prompt_length(copying.at_length(8)) == 4
    assert prompt_length(text) == 0
    assert prompt_length(as_sequence_dataset([{"input_ids": [1], "shift_labels": [-100]}])) == 0
    for prompt, expected in ((0, -1), (16, 15), (50, 19)):
        assert phases.draws(SMT, Moment(3, 64, 64, 20, prompt), args)[0]["predict_from"] == expected


def test_smt_timesteps_stay_inside_a_sequence_shorter_than_the_context():
    args = tiny_arguments(HERE)
    drawn = {draws(SMT, step, 9, 20, args)[0]["timestep"] for step in range(500)}
    assert drawn == set(range(-1, 9))


@pytest.mark.parametrize(("length", "labels"), [(64, 8), (32, 4), (24, 3), (16, 2), (4, 2)])
def test_a_step_has_as_many_labels_under_a_curriculum_too(length, labels):
    """Shorter rows come in larger batches, so each has fewer labels; a transition needs two."""
    args = tiny_arguments(HERE, num_labels=8)
    assert draws(SMT, 0, length, 48, args, full=64)[0]["num_labels"] == labels


@pytest.mark.parametrize("fraction", [0.0, 0.3, 1.0])
def test_cold_starts_of_dmt_occur_about_as_often_as_asked(fraction):
    args = tiny_arguments(HERE, cold_start_fraction=fraction, rollout_length=4)
    starts = [draws(DMT, step, 600, 500, args)[0]["start"] for step in range(3000)]
    assert sum(start == -1 for start in starts) / 3000 == pytest.approx(fraction, abs=0.03)
    # The labels s … s + R have to fit into the context.
    assert min(starts) >= -1 and max(starts) <= 500 - 1 - 4
    if fraction < 1:
        assert max(starts) == 495


def test_the_longest_rollout_that_fits_has_two_starts_and_no_more():
    args = tiny_arguments(HERE, rollout_length=19)
    assert {schedule.draw_start(Random(i), 20, args) for i in range(300)} == {-1, 0}


@pytest.mark.parametrize(
    ("name", "changes", "depth"),
    [
        ("smt", {}, 1),
        ("dmt", {"rollout_length": 32}, 32),  # 31 to roll out, one with the gradient
        ("dmt", {"rollout_length": 32, "num_sweeps": 8}, 9),
        ("dmt", {"rollout_length": 4, "num_sweeps": 8}, 4),
        ("bptt", {}, 64),
    ],
)
def test_sequential_depth_of_a_step(name, changes, depth):
    args = tiny_arguments(HERE, **changes)
    assert draws(Phase(name, 0.0, 1.0, 1e-3), 0, 64, 48, args)[1] == depth


# ---------------------------------------------------------------- batches


def sampler(
    parts: int = 1, rank: int = 0, world_size: int = 1, first_step: int = 0, seed: int = 5
) -> StepSampler:
    return StepSampler(1000, 12, parts, seed, first_step, rank, world_size)


@pytest.mark.parametrize(("parts", "world_size"), [(1, 2), (2, 1), (3, 2), (2, 3)])
def test_the_parts_of_all_processes_make_up_the_batch_of_one_process(parts, world_size):
    whole = list(islice(sampler(), 4))
    of_rank = [list(islice(sampler(parts, rank, world_size), 4 * parts)) for rank in range(world_size)]
    for step, batch in enumerate(whole):
        pieces = [of_rank[rank][step * parts + part] for part in range(parts) for rank in range(world_size)]
        assert all(len(piece) == 12 // (parts * world_size) for piece in pieces)
        assert [index for piece in pieces for index in piece] == batch


def test_a_resumed_sampler_goes_on_as_the_unbroken_one():
    unbroken = list(islice(sampler(parts=2), 20))
    assert list(islice(sampler(parts=2, first_step=7), 6)) == unbroken[14:]


def test_batches_differ_between_steps_and_seeds_and_cover_the_data():
    batches = list(islice(sampler(), 600))
    assert batches[0] != batches[1] and batches[0] != next(iter(sampler(seed=6)))
    counts = Counter(index for batch in batches for index in batch)
    assert set(counts) <= set(range(1000)) and len(counts) > 990
    assert max(counts.values()) < 30  # 7.2 on average


def test_rows_arrive_as_the_sampler_says_from_any_dataset():
    args = tiny_arguments(HERE, seed=5, batch_size=4)
    batches = batches_at_length(as_sequence_dataset(Stream(6)), 6, 6, args, 3, 0, 1)
    indices = next(iter(StepSampler(96, 4, 1, 5, 3, 0, 1)))
    batch = next(batches)
    assert torch.equal(batch["input_ids"], torch.stack([Stream(6)[i]["input_ids"] for i in indices]))
    assert torch.equal(batch["shift_labels"], torch.stack([Stream(6)[i]["shift_labels"] for i in indices]))

    task = RetrievalTask(16)
    batch = next(batches_at_length(task, 16, 16, args, 3, 0, 1))
    indices = next(iter(StepSampler(len(task), 4, 1, 5, 3, 0, 1)))
    assert torch.equal(batch["input_ids"], task.__getitems__(indices)["input_ids"])


@pytest.mark.parametrize(("length", "rows"), [(64, 8), (32, 16), (16, 32), (23, 22)])
def test_shorter_sequences_come_in_larger_batches_of_as_many_tokens(length, rows):
    args = tiny_arguments(HERE, batch_size=8)
    batch = next(batches_at_length(as_sequence_dataset(Stream(64)), length, 64, args, 0, 0, 1))
    assert batch["input_ids"].shape == batch["shift_labels"].shape == (rows, length)
    assert math.isclose(rows * length, 8 * 64, rel_tol=0.05)


def test_a_larger_batch_still_divides_over_parts_and_processes():
    args = tiny_arguments(HERE, batch_size=8, gradient_accumulation_steps=2)
    shapes = set()
    for rank in range(2):
        batches = batches_at_length(as_sequence_dataset(Stream(64)), 23, 64, args, 0, rank, 2)
        shapes |= {next(batches)["input_ids"].shape for _ in range(4)}
    assert shapes == {(6, 23)}  # 4 · 6 = 24, the multiple of 4 next to 22.3
