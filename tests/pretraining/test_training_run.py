# Keyword dictionaries of mixed values, and the unions that transformers annotates.
# mypy: disable-error-code="arg-type, misc, union-attr"
"""The loop: it learns, each phase moves what it should, budgets end, and what is broken is not saved."""

import dataclasses
import math
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator, FullyShardedDataParallelPlugin
from tiny_training import (
    PeriodicStream,
    Stream,
    assert_same_weights,
    losses,
    metrics,
    snapshot,
    tiny_arguments,
    tiny_student,
    tiny_teacher,
    tiny_trainer,
    untimed,
    weights_of,
)

import smt_hf.pretraining.objectives as objectives
import smt_hf.pretraining.trainer as trainer_module
from smt_hf.pretraining.phases import PHASES
from smt_hf.pretraining.stops import NonFiniteLossError
from smt_hf.pretraining.trainer import SMTPretrainer


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """A trainer that has learned the periodic stream by SMT and DMT, and its record."""
    torch.manual_seed(0)
    trainer = tiny_trainer(
        tmp_path_factory.mktemp("learned") / "run",
        PeriodicStream(16),
        PeriodicStream(48),
        max_steps=300,
        learning_rate=5e-3,
        dmt_learning_rate=3e-3,
        batch_size=8,
        logging_steps=10,
        eval_sequences=6,
        num_evaluations=3,
    )
    return trainer, trainer.train()


def test_smt_then_dmt_learns_what_only_a_memory_can_know(learned):
    _, record = learned
    assert pytest.approx(0.6365, abs=1e-3) == PeriodicStream.UNIGRAM
    assert record.final["loss"] < 0.5 * PeriodicStream.BIGRAM < 0.5 * PeriodicStream.UNIGRAM
    # Three times as far as it was trained, too.
    assert [part["end"] for part in record.final["by_horizon"]] == [32, 48]
    assert record.final["by_horizon"][1]["loss"] < 0.5 * PeriodicStream.BIGRAM


def test_the_run_goes_through_both_phases_with_their_own_parts(learned):
    trainer, _ = learned
    lines = losses(trainer.folder.path)
    assert [line["step"] for line in lines] == list(range(10, 301, 10))
    assert [line["phase"] for line in lines] == ["smt"] * 15 + ["dmt"] * 15
    smt = {"prediction_loss", "dynamics_loss", "uniformity_loss", "readout_loss", "trunk_loss"}
    assert smt <= lines[0].keys() and {"dynamics_loss", "readout_loss", "drift"} <= lines[-1].keys()
    assert lines[14]["prediction_loss"] < 0.7 * lines[0]["prediction_loss"]


def test_evaluations_are_spread_over_the_run_and_report_loss_by_horizon_and_drift(learned):
    trainer, record = learned
    lines = [line for line in metrics(trainer.folder.path) if "evaluation" in line]
    assert [line["step"] for line in lines] == [100, 200, 300]
    for line in lines:
        assert {"loss", "accuracy", "targets", "by_horizon", "drift"} <= line["evaluation"].keys()
        assert [point["horizon"] for point in line["evaluation"]["drift"]] == [1, 2, 4, 8]
    assert lines[-1]["evaluation"] == record.final


def test_the_record_counts_tokens_and_sequential_steps(learned):
    _, record = learned
    assert record.status == "finished" and record.steps == 300
    assert record.tokens == 300 * 8 * 16
    assert record.sequential_steps == 150 * 1 + 150 * 4  # one for a step of SMT, R for one of DMT
    assert record.seconds > 0


def test_the_model_is_left_able_to_go_on(learned):
    """Every parameter can be fine-tuned again, and the model is on its own: no teacher is asked."""
    trainer, _ = learned
    model = trainer.model
    model(torch.tensor([[4, 4, 7]]), labels=torch.tensor([[4, 4, 7]])).loss.backward()
    without = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    model.zero_grad()
    assert without == []


@pytest.mark.parametrize("phase", ["trunk", "smt", "dmt", "bptt", "bptt after smt"])
def test_each_phase_moves_every_parameter_it_trains_and_no_other(tmp_path, monkeypatch, phase):
    # It hands over by copying; here only training counts.
    without = dataclasses.replace(PHASES["smt"], at_end=None, before_evaluation=None)
    monkeypatch.setitem(PHASES, "smt", without)
    method = "bptt" if phase == "bptt" else "smt"
    trunk, dmt = float(phase == "trunk"), float(phase == "dmt")
    # Without weight decay, which would move what has no gradient.
    after = 1.0 if phase == "bptt after smt" else 0.0
    trainer = tiny_trainer(
        tmp_path, method=method, trunk_fraction=trunk, dmt_fraction=dmt, bptt_fraction=after, max_steps=4,
        weight_decay=0.0,
    )  # fmt: skip
    watched = {"model": trainer.model, "teacher": trainer.teacher or tiny_teacher()}
    before = {
        f"{prefix}.{name}": value.clone()
        for prefix, m in watched.items()
        for name, value in m.named_parameters()
    }
    trainer.train()
    moved = {
        f"{prefix}.{name}"
        for prefix, m in watched.items()
        for name, value in m.named_parameters()
        if not torch.equal(value, before[f"{prefix}.{name}"])
    }
    assert moved == {name for name in before if name.startswith(PHASES[phase.split()[0]].trains)}


def test_bptt_after_dmt_goes_on_from_the_memory_handed_over_and_learns_it(tmp_path):
    """As BPTT alone: no teacher is asked any more, and m_∅ is a weight like any other."""
    options = {"dmt_fraction": 0.25, "max_steps": 8, "weight_decay": 0.0, "eval_dataset": Stream()}
    starts, records = [], []
    for name, fraction, rate in (("still", 0.375, 1e-12), ("moved", 0.375, 1e-3)):
        trainer = tiny_trainer(tmp_path / name, bptt_fraction=fraction, bptt_learning_rate=rate, **options)
        records.append(trainer.train())
        nothing = torch.zeros(1, 0, dtype=torch.long)
        gap = trainer.model.model.start_memory(1) - trainer.teacher.encode(nothing, [-1])[0]
        starts.append(gap.abs().max().item())
    assert starts[0] < 1e-5 < 1e-4 < starts[1]
    assert [line["phase"] for line in losses(tmp_path / "moved")] == ["smt"] * 3 + ["dmt"] * 2 + ["bptt"] * 3
    assert records[1].sequential_steps == 3 * 1 + 2 * 4 + 3 * 16
    assert "drift" in records[1].final  # of the phase, too: BPTT may go where the teacher is not


def test_the_weights_of_the_losses_reach_the_training(tmp_path):
    """Without the dynamics loss nothing trains the cell in SMT."""
    for weight in (0.1, 0.0):
        options = {"dmt_fraction": 0.0, "weight_decay": 0.0, "dynamics_weight": weight}
        trainer = tiny_trainer(tmp_path / str(weight), **options)
        before = [p.clone() for p in trainer.model.model.cell.parameters()]
        trainer.train()
        same = [torch.equal(p, b) for p, b in zip(trainer.model.model.cell.parameters(), before, strict=True)]
        assert all(same) if weight == 0 else not any(same)


@pytest.mark.parametrize("method", ["smt", "bptt"])
def test_the_same_seed_gives_the_same_weights_bit_for_bit(tmp_path, method):
    runs = []
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        trainer = tiny_trainer(tmp_path / name, eval_dataset=Stream(), method=method, seed=seed)
        trainer.train()
        runs.append((weights_of(trainer), untimed(metrics(tmp_path / name))))
    assert_same_weights(runs[0][0], runs[1][0])
    assert runs[0][1] == runs[1][1]
    assert runs[0][1] != runs[2][1]


def test_evaluating_while_training_does_not_change_the_training(tmp_path):
    weights = []
    for evaluations in (0, 4):
        trainer = tiny_trainer(tmp_path / str(evaluations), eval_dataset=Stream(), num_evaluations=evaluations)
        trainer.train()
        weights.append(weights_of(trainer))
    assert_same_weights(*weights)


@pytest.mark.parametrize("parts", [2, 4])
def test_accumulated_parts_equal_the_whole_batch(tmp_path, parts):
    weights, lines = [], []
    for name, steps in (("whole", 1), ("parts", parts)):
        trainer = tiny_trainer(
            tmp_path / name, method="bptt", max_steps=3, gradient_accumulation_steps=steps, max_grad_norm=0.1
        )
        record = trainer.train()
        weights.append(weights_of(trainer))
        lines.append((record.steps, record.tokens))
    assert lines[0] == lines[1] == (3, 3 * 8 * 16)
    for name, value in weights[0].items():
        torch.testing.assert_close(
            weights[1][name], value, rtol=1e-4, atol=2e-5, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_a_run_without_evaluation_data_or_teacher_finishes(tmp_path):
    trainer = SMTPretrainer(tiny_student(), None, tiny_arguments(tmp_path, method="bptt"), Stream())
    record = trainer.train()
    assert record.final == {} and record.teacher is None
    assert (tmp_path / "model.safetensors").is_file() and not (tmp_path / "teacher").exists()
    assert "no validation data" in (tmp_path / "README.md").read_text()


@pytest.mark.parametrize("cell", ["transformer", "mlp", "lstm", "elman"])
def test_every_cell_trains(tmp_path, cell):
    record = tiny_trainer(tmp_path, cell=cell, eval_dataset=Stream(), num_sweeps=2, max_steps=4).train()
    assert record.cell == cell and math.isfinite(record.final["loss"])


def test_the_papers_encoder_trains(tmp_path):
    record = tiny_trainer(tmp_path, encoder_type="bidirectional", eval_dataset=Stream(), max_steps=4).train()
    assert (record.teacher or {})["encoder_type"] == "bidirectional" and math.isfinite(record.final["loss"])


# ---------------------------------------------------------------- budgets and schedules


def test_a_budget_in_minutes_ends_in_time_and_shares_the_phases_by_time(tmp_path, monkeypatch):
    """Under a clock on which every step takes half a second."""
    ticks = iter(range(10_000))
    monkeypatch.setattr(trainer_module, "time", SimpleNamespace(perf_counter=lambda: next(ticks) / 2))
    record = tiny_trainer(tmp_path, max_minutes=0.1, dmt_fraction=0.25).train()  # 6 s
    assert record.steps == 12 and record.seconds == 6.0
    lines = losses(tmp_path)
    assert [line["phase"] for line in lines] == ["smt"] * 9 + ["dmt"] * 3
    assert [line["progress"] for line in lines] == pytest.approx([i / 12 for i in range(12)])


def test_a_budget_in_real_minutes_is_kept(tmp_path):
    record = tiny_trainer(tmp_path, max_minutes=0.005).train()  # 0.3 s
    lines = losses(tmp_path)
    progress = [line["progress"] for line in lines]
    assert all(earlier < later for earlier, later in pairwise(progress)) and progress[-1] < 1
    assert record.seconds >= 0.3
    assert lines[-2]["seconds"] <= 0.3  # logged in ms; it ends with the first step that goes past


def test_learning_rates_and_lengths_follow_the_schedule(tmp_path):
    trainer = tiny_trainer(
        tmp_path, method="bptt", max_steps=10, warmup_ratio=0.2, decay_ratio=0.5, learning_rate=1e-3,
        curriculum_start_length=4, curriculum_fraction=0.4,
    )  # fmt: skip
    record = trainer.train()
    lines = losses(tmp_path)
    expected = [5e-5, 5e-4, 1e-3, 1e-3, 1e-3, 1e-3, 8e-4, 6e-4, 4e-4, 2e-4]
    assert [line["learning_rate"] for line in lines] == pytest.approx(expected)
    lengths = [line["sequence_length"] for line in lines]
    assert lengths[0] == 4 and lengths[2] == 8 and lengths[4:] == [16] * 6 and lengths == sorted(lengths)
    assert record.sequential_steps == sum(lengths)
    assert record.tokens == pytest.approx(10 * 8 * 16, rel=0.05)


# ---------------------------------------------------------------- when the loss is not finite


def break_bptt(monkeypatch, at_call: int, how) -> None:
    """Let the `at_call`-th loss (from 1) be what `how(model, loss)` makes of it."""
    calls = iter(range(1, 10_000))
    right = objectives.bptt_loss

    def bptt_loss(model, batch, *args):
        loss, parts = right(model, batch)
        if next(calls) == at_call:
            loss = how(model, loss)
        return loss, parts

    monkeypatch.setattr(objectives, "bptt_loss", bptt_loss)


def assert_nothing_poisoned(folder) -> None:
    """No finished model, and every checkpoint that there is holds finite numbers."""
    from safetensors.torch import load_file

    assert not (folder / "model.safetensors").exists()
    for path in (folder / "checkpoints").glob("step_*/model.safetensors"):
        assert all(value.isfinite().all() for value in load_file(path).values()), path


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("logging_steps", [1, 1000])
def test_a_loss_that_is_not_finite_stops_the_run_by_step_phase_and_checkpoint(
    tmp_path, monkeypatch, value, logging_steps
):
    break_bptt(monkeypatch, 5, lambda model, loss: loss * value)
    trainer = tiny_trainer(tmp_path, method="bptt", checkpoint_every=2, logging_steps=logging_steps)
    with pytest.raises(NonFiniteLossError) as error:
        trainer.train()
    checkpoint = tmp_path / "checkpoints" / "step_0000004"
    for text in ("step 5", "'bptt'", str(checkpoint)):
        assert text in str(error.value)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == [
        "step_0000002",
        "step_0000004",
    ]
    assert_nothing_poisoned(tmp_path)


def test_a_loss_that_is_not_finite_at_the_last_step_stops_the_run_too(tmp_path, monkeypatch):
    break_bptt(monkeypatch, 8, lambda model, loss: loss * math.nan)
    with pytest.raises(NonFiniteLossError, match="step 8 of phase 'bptt'; last good checkpoint: none"):
        tiny_trainer(tmp_path, method="bptt", logging_steps=1000).train()
    assert_nothing_poisoned(tmp_path)


def test_a_loss_that_is_not_finite_in_an_early_part_of_a_batch_is_noticed(tmp_path, monkeypatch):
    break_bptt(monkeypatch, 3, lambda model, loss: loss * math.nan)  # step 2, first of its two parts
    with pytest.raises(NonFiniteLossError, match="step 2 "):
        tiny_trainer(tmp_path, method="bptt", gradient_accumulation_steps=2, checkpoint_every=2).train()
    assert_nothing_poisoned(tmp_path)


def test_a_gradient_that_is_not_finite_never_reaches_a_saved_model(tmp_path, monkeypatch):
    """A finite loss with an infinite slope, at the last step, after which no loss would tell."""
    break_bptt(monkeypatch, 8, lambda model, loss: loss + (model.lm_head.weight.sum() * 0).sqrt())
    with pytest.raises(NonFiniteLossError, match="step 8 "):
        tiny_trainer(tmp_path, method="bptt").train()
    assert_nothing_poisoned(tmp_path)


def test_too_high_a_learning_rate_ends_in_the_error_and_not_in_a_model(tmp_path):
    with pytest.raises(NonFiniteLossError, match="lower learning rate"):
        tiny_trainer(tmp_path, learning_rate=1e30, warmup_ratio=0.0, eval_dataset=Stream()).train()
    assert_nothing_poisoned(tmp_path)


# ---------------------------------------------------------------- the output folder


def test_a_folder_that_is_not_empty_is_refused_and_left_as_it_is(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    before = snapshot(tmp_path)
    with pytest.raises(ValueError, match=f"output folder {tmp_path} is not empty"):
        tiny_trainer(tmp_path).train()
    assert snapshot(tmp_path) == before


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path):
    path = tmp_path / "run"
    path.write_text("mine")
    with pytest.raises(ValueError, match=str(path)):
        tiny_trainer(path).train()
    assert path.read_text() == "mine"


def test_a_finished_run_is_neither_overwritten_nor_resumed(tmp_path):
    tiny_trainer(tmp_path, max_steps=2).train()
    before = snapshot(tmp_path)
    for resume, message in ((False, "is not empty"), (True, "is finished")):
        with pytest.raises(ValueError, match=message):
            tiny_trainer(tmp_path, max_steps=2).train(resume=resume)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("kind", ["FSDP", "DEEPSPEED", "MEGATRON_LM", "PARALLELISM_CONFIG"])
def test_a_sharded_launch_is_refused_before_any_work(tmp_path, monkeypatch, kind):
    """As `accelerate launch` asks for it. Accelerate alone would train unsharded on a CPU, and not say so."""
    monkeypatch.setenv(f"ACCELERATE_USE_{kind}", "true")
    with pytest.raises(ValueError, match=rf"ACCELERATE_USE_{kind} is true.*torchrun alone"):
        tiny_trainer(tmp_path / "run", Stream(), Stream())
    assert not (tmp_path / "run").exists()


def test_a_plugin_that_shards_is_refused_as_its_launch_is(tmp_path, monkeypatch):
    """A script of one's own may give it to an `Accelerator`, whose state ours would share."""
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "false")
    Accelerator(cpu=True, fsdp_plugin=FullyShardedDataParallelPlugin(fsdp_version=2))
    with pytest.raises(ValueError, match=r"ACCELERATE_USE_FSDP is true"):
        tiny_trainer(tmp_path / "run", Stream(), Stream())


class HalfAsked(Stream):
    """The second half of each row is asked for, as a string is that was shown in the first."""

    def __getitem__(self, index):
        row = super().__getitem__(index)
        row["shift_labels"] = row["shift_labels"].clone()
        row["shift_labels"][: self.length // 2] = -100
        return row


def test_the_end_of_the_prompt_grows_with_the_rows_of_a_curriculum(tmp_path, monkeypatch):
    seen, smt_loss = [], objectives.smt_loss

    def note(model, teacher, batch, *args, predict_from=None, **options):
        seen.append((batch["input_ids"].shape[1], predict_from))
        return smt_loss(model, teacher, batch, *args, predict_from=predict_from, **options)

    monkeypatch.setattr(objectives, "smt_loss", note)
    changes = {"curriculum_start_length": 4, "prompt_fraction": 1.0, "num_evaluations": 0}
    tiny_trainer(tmp_path / "run", HalfAsked(16), **changes).train()
    assert {length for length, _ in seen} >= {4, 16}
    assert all(predict_from == length // 2 - 1 for length, predict_from in seen)
