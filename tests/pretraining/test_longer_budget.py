"""A run may be resumed for longer: all that follows is as its step and the new budget have it."""

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from test_resume import Killed, kill, train_until
from tiny_training import Stream, assert_same_weights, losses, metrics, snapshot, tiny_trainer, untimed

from smt_hf.pretraining import schedule
from smt_hf.runs.record import RunRecord

SHORT: dict[str, Any] = {"max_steps": 8, "checkpoint_every": 1, "num_evaluations": 0}


def lengthened(folder: Path, **changes: Any) -> RunRecord:
    return tiny_trainer(folder, Stream(), Stream(), **{**SHORT, "max_steps": 16, **changes}).train(resume=True)


def ending(folder: Path) -> tuple[Any, ...]:
    weights = {name: load_file(folder / name) for name in ("model.safetensors", "teacher/model.safetensors")}
    record = RunRecord.of_finished(folder)
    return weights, untimed(metrics(folder)), record.final, record.steps, record.tokens


def assert_same_ending(a: Path, b: Path) -> None:
    one, two = ending(a), ending(b)
    for name, weights in one[0].items():
        assert_same_weights(weights, two[0][name])
    assert one[1:] == two[1:]


@pytest.mark.parametrize("steps_done", [3, 8])
def test_phases_rates_lengths_and_draws_are_those_of_the_longer_budget_from_there_on(tmp_path, steps_done):
    """Stopped in SMT, or finished: half of 16 steps is DMT's, so that after 8 it may just go on."""
    options = {**SHORT, "curriculum_start_length": 8}
    if steps_done == 8:
        tiny_trainer(tmp_path / "run", Stream(), Stream(), **options).train()
    else:
        train_until(tmp_path / "run", 16 + 8 * 2 + 3, **options)  # rows are half as long at first
    done = metrics(tmp_path / "run")[-1]["step"]
    record = lengthened(tmp_path / "run", curriculum_start_length=8)
    assert record.finished and record.steps == 16 == record.spec["max_steps"]
    assert [phase["end"] for phase in record.phases] == [0.5, 1.0]

    trainer = tiny_trainer(tmp_path / "whole", Stream(), Stream(), **{**options, "max_steps": 16})
    trainer.train()
    after, whole = (
        [line for line in losses(tmp_path / name) if line["step"] > done] for name in ("run", "whole")
    )
    assert [line["step"] for line in after] == list(range(done + 1, 17))
    for ours, theirs in zip(after, whole, strict=True):
        for name in ("step", "phase", "progress", "sequence_length", "learning_rate"):
            assert ours[name] == theirs[name], (ours["step"], name)
        phase = next(one for one in trainer.phases if one.name == ours["phase"])
        assert ours["learning_rate"] == schedule.learning_rate(phase, (ours["step"] - 1) / 16, trainer.args)
    before = [line for line in losses(tmp_path / "run") if line["step"] <= done]
    assert [line["progress"] for line in before] == [(step - 1) / 8 for step in range(1, done + 1)]


@pytest.mark.parametrize("rows", [8 * 5 + 3, 8 * 9 + 3])
def test_killed_while_it_goes_on_for_longer_it_ends_as_if_it_had_not_been(tmp_path, rows):
    for name in ("unbroken", "broken"):
        train_until(tmp_path / name, 8 * 3 + 3, **SHORT)
    lengthened(tmp_path / "unbroken")
    train_until(tmp_path / "broken", rows, kill, resume=True, **{**SHORT, "max_steps": 16})
    lengthened(tmp_path / "broken")
    assert_same_ending(tmp_path / "broken", tmp_path / "unbroken")


def test_killed_as_it_begins_to_go_on_a_finished_run_can_still_go_on(tmp_path, monkeypatch):
    for name in ("unbroken", "broken"):
        tiny_trainer(tmp_path / name, Stream(), Stream(), **SHORT).train()
    lengthened(tmp_path / "unbroken")
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr("smt_hf.pretraining.trainer.SMTPretrainer._run_phases", lambda *_: kill())
        lengthened(tmp_path / "broken")
    lengthened(tmp_path / "broken")
    assert_same_ending(tmp_path / "broken", tmp_path / "unbroken")


def test_a_budget_in_minutes_may_grow_too(tmp_path):
    options: dict[str, Any] = {"checkpoint_every": 1, "num_evaluations": 0}
    train_until(tmp_path, 8 * 3 + 3, max_minutes=10.0, **options)
    trainer = tiny_trainer(tmp_path, Stream(), Stream(), max_minutes=20.0, **options)
    trainer._begin(resume=True)
    trainer.folder.release()
    assert trainer._progress() == trainer.agreed_seconds / 1200 > 0
    assert RunRecord.read(tmp_path).spec["max_minutes"] == 20.0  # type: ignore[union-attr]


REFUSED: dict[str, tuple[int, dict[str, Any], str]] = {
    "shorter": (3, {"max_steps": 7}, r"max_steps 8 \(now 7\)"),
    "another unit": (
        3,
        {"max_steps": None, "max_minutes": 100.0},
        r"max_steps 8 \(now None\), max_minutes None",
    ),
    "longer, and more": (3, {"batch_size": 4}, r"has batch_size 8 \(now 4\); "),
    "longer than the phase that it is in allows": (
        6,
        {"max_steps": 16},
        r"max_steps is 16, of which dmt gets .* from 50% on, but the run is in dmt at 38% of it; .* most 12\.",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_other_budgets_are_refused_by_name_and_nothing_is_touched(tmp_path, case):
    step, changes, said = REFUSED[case]
    train_until(tmp_path, 8 * step + 3, **SHORT)
    before = snapshot(tmp_path)
    with pytest.raises(ValueError, match=said):
        lengthened(tmp_path, **changes)
    assert snapshot(tmp_path) == before


def test_the_longest_budget_that_the_refusal_names_is_taken(tmp_path):
    train_until(tmp_path, 8 * 6 + 3, **SHORT)
    assert lengthened(tmp_path, max_steps=12).steps == 12


def test_a_finished_run_that_kept_no_checkpoint_cannot_go_on(tmp_path):
    tiny_trainer(tmp_path, Stream(), Stream(), **{**SHORT, "checkpoint_every": 0}).train()
    with pytest.raises(ValueError, match="is finished and has kept no checkpoint"):
        lengthened(tmp_path, checkpoint_every=0)
    with pytest.raises(ValueError, match="nothing to resume, unless for a longer budget"):
        lengthened(tmp_path, checkpoint_every=0, max_steps=8)


def test_a_card_that_was_edited_is_not_written_anew(tmp_path):
    tiny_trainer(tmp_path / "run", Stream(), Stream(), **SHORT).train()
    card = tmp_path / "run" / "README.md"
    written = card.read_bytes()
    card.write_bytes(written + b"A note of my own.")
    before = snapshot(tmp_path / "run")
    with pytest.raises(ValueError, match=r"README.md was edited since the run wrote it.*; move it away first"):
        lengthened(tmp_path / "run")
    assert snapshot(tmp_path / "run") == before
    card.rename(tmp_path / "mine.md")
    lengthened(tmp_path / "run")
    assert card.is_file() and card.read_bytes() != written
