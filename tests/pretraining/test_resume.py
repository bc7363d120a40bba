# Keyword dictionaries of mixed values, and the unions that transformers annotates.
# mypy: disable-error-code="arg-type, misc, union-attr"
"""Killed at any moment, a run goes on from its last whole checkpoint and ends as if nothing had happened."""

import ast
import json
import os
import pickle
import shutil
import signal
from pathlib import Path

import pytest
import torch
import transformers.modeling_utils as library
from safetensors import SafetensorError
from tiny_training import (
    Stream,
    assert_same_weights,
    metrics,
    snapshot,
    tiny_trainer,
    untimed,
    weights_of,
)

import smt_hf
from smt_hf.pretraining.checks import index_of
from smt_hf.pretraining.schedule import Phase
from smt_hf.pretraining.trainer import Interrupted, SMTPretrainer
from smt_hf.runs import checkpoints


class Killed(BaseException):
    """Nothing in the package catches this one."""


class Fused(Stream):
    """Runs `action` when a given number of further rows has been read."""

    def __init__(self, length: int = 16, rows: int = 96, fuse: list | None = None):
        super().__init__(length, rows)
        self.fuse: list = fuse or [10**9, None]  # shared by all lengths: rows left, and what then

    def tokens(self, index):
        self.fuse[0] -= 1
        if self.fuse[0] == 0:
            self.fuse[1]()
        return super().tokens(index)

    def at_length(self, length):
        return Fused(length, self.rows, self.fuse)


def kill():
    raise Killed


def train_until(folder: Path, rows: int, action=kill, resume: bool = False, **options) -> SMTPretrainer:
    """Train until so many rows have been read (8 a step), and then `action`; the error is not raised."""
    stream = Fused()
    trainer = tiny_trainer(folder, stream, Stream(), **options)
    stream.fuse[:] = [rows, action]
    with pytest.raises((Killed, Interrupted)):
        trainer.train(resume=resume)
    return trainer


def final_state(folder: Path, resume: bool = False, **options):
    """What is left of a finished run: weights, metrics and counts, without times."""
    trainer = tiny_trainer(folder, Stream(), Stream(), **options)
    record = trainer.train(resume=resume)
    counts = {name: getattr(record, name) for name in ("steps", "tokens", "sequential_steps", "final")}
    return weights_of(trainer), untimed(metrics(folder)), counts


def assert_same_ending(a, b) -> None:
    assert_same_weights(a[0], b[0])
    assert a[1] == b[1]
    assert a[2] == b[2]


CASES = {
    # name: (options, rows read when it is killed, the step it should resume from)
    "in smt": ({"checkpoint_every": 3}, 8 * 4 + 3, 3),
    "between the phases": ({"checkpoint_every": 4}, 8 * 6 + 3, 4),
    "in dmt": ({"checkpoint_every": 3}, 8 * 7 + 3, 6),
    "in dmt, by sweeps": ({"checkpoint_every": 3, "num_sweeps": 2}, 8 * 7 + 3, 6),
    "in dmt, every second label": ({"checkpoint_every": 3, "dmt_label_every": 2}, 8 * 7 + 3, 6),
    "in dmt, two steps in a row": ({"checkpoint_every": 3, "dmt_gradient_steps": 2}, 8 * 7 + 3, 6),
    "in bptt": ({"checkpoint_every": 3, "method": "bptt"}, 8 * 7 + 3, 6),
    # Steps 0–2 are SMT, 3 and 4 DMT, 5–7 BPTT.
    "in bptt after dmt": ({"checkpoint_every": 3, "dmt_fraction": 0.25, "bptt_fraction": 0.375}, 8 * 7 + 3, 6),
    "from dmt into bptt": ({"checkpoint_every": 4, "dmt_fraction": 0.25, "bptt_fraction": 0.375}, 8 * 6 + 3, 4),
    "in parts": ({"checkpoint_every": 3, "gradient_accumulation_steps": 2}, 8 * 4 + 3, 3),
    "in a curriculum": ({"checkpoint_every": 2, "curriculum_start_length": 4}, 32 + 21 + 5, 2),
    "at once": ({"checkpoint_every": 1}, 8 * 1 + 1, 1),
}


@pytest.mark.parametrize("case", CASES)
def test_a_resumed_run_equals_the_unbroken_one_bit_for_bit(tmp_path, capsys, case):
    options, rows, step = CASES[case]
    unbroken = final_state(tmp_path / "unbroken", **options)
    train_until(tmp_path / "broken", rows, **options)
    assert metrics(tmp_path / "broken")[-1]["step"] >= step
    torch.manual_seed(99)  # a new process has another random state
    resumed = final_state(tmp_path / "broken", resume=True, **options)
    assert f"resuming from {tmp_path / 'broken' / 'checkpoints'}/step_{step:07d}" in capsys.readouterr().out
    assert_same_ending(resumed, unbroken)


def test_a_run_resumed_twice_equals_the_unbroken_one(tmp_path):
    unbroken = final_state(tmp_path / "unbroken", checkpoint_every=2)
    train_until(tmp_path / "broken", 8 * 3 + 1, checkpoint_every=2)
    train_until(tmp_path / "broken", 8 * 4 + 1, resume=True, checkpoint_every=2)  # four steps on, at step 6
    assert_same_ending(final_state(tmp_path / "broken", resume=True, checkpoint_every=2), unbroken)


def test_a_run_killed_before_its_first_checkpoint_begins_anew(tmp_path, capsys):
    unbroken = final_state(tmp_path / "unbroken")
    train_until(tmp_path / "broken", 8 * 3 + 1)
    resumed = final_state(tmp_path / "broken", resume=True)
    assert "no checkpoint yet; starting anew" in capsys.readouterr().out
    assert_same_ending(resumed, unbroken)


def test_a_line_of_metrics_cut_by_a_crash_is_dropped(tmp_path):
    unbroken = final_state(tmp_path / "unbroken", checkpoint_every=3)
    train_until(tmp_path / "broken", 8 * 4 + 3, checkpoint_every=3)
    path = tmp_path / "broken" / "metrics.jsonl"
    path.write_text(path.read_text() + '{"step": 4, "seco')
    assert_same_ending(final_state(tmp_path / "broken", resume=True, checkpoint_every=3), unbroken)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_after_the_step_it_met_and_the_run_can_go_on(tmp_path, number):
    unbroken = final_state(tmp_path / "unbroken")
    handler = signal.getsignal(number)
    trainer = train_until(tmp_path / "broken", 8 * 2 + 5, lambda: os.kill(os.getpid(), number))
    assert signal.getsignal(number) is handler  # put back
    saved = [path.name for path in (tmp_path / "broken" / "checkpoints").iterdir()]
    assert saved == [f"step_{trainer.step:07d}"] == ["step_0000003"]
    assert not (tmp_path / "broken" / "model.safetensors").exists()
    assert_same_ending(final_state(tmp_path / "broken", resume=True), unbroken)


# ---------------------------------------------------------------- whole or absent


def test_only_the_newest_checkpoints_are_kept(tmp_path):
    tiny_trainer(tmp_path, checkpoint_every=1, save_total_limit=2).train()
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == [
        "step_0000007",
        "step_0000008",
    ]


def test_a_checkpoint_holds_safetensors_counters_and_the_optimizer(tmp_path):
    tiny_trainer(tmp_path, checkpoint_every=8).train()
    folder = tmp_path / "checkpoints" / "step_0000008"
    assert {path.name for path in folder.iterdir()} == {
        "model.safetensors",
        "teacher.safetensors",
        "optimizer.pt",
        "state.json",
    }
    state = json.loads((folder / "state.json").read_text())
    assert state["format"] == checkpoints.FORMAT and state["step"] == 8


def test_a_checkpoint_knows_its_phase_by_name_and_older_ones_by_number(tmp_path):
    smt, dmt = (Phase(name, start, 1.0, 1e-3) for name, start in (("smt", 0.0), ("dmt", 0.5)))
    assert index_of({"phase": "dmt"}, [smt, dmt], tmp_path) == 1
    assert index_of({"phase": "dmt"}, [smt, smt._replace(name="new"), dmt], tmp_path) == 2
    assert index_of({"phase_index": 1}, [smt, dmt], tmp_path) == 1
    with pytest.raises(ValueError, match=r"is in phase 'gone', and this run has smt, dmt; go on with"):
        index_of({"phase": "gone"}, [smt, dmt], tmp_path)


def test_half_a_checkpoint_is_never_picked_up(tmp_path, capsys):
    unbroken = final_state(tmp_path / "unbroken", checkpoint_every=2)
    broken = tmp_path / "broken"
    train_until(broken, 8 * 5 + 1, checkpoint_every=2)
    whole = broken / "checkpoints" / "step_0000004"
    shutil.copytree(whole, broken / "checkpoints" / ".step_0000006.part")
    shutil.copytree(whole, broken / "checkpoints" / "step_0000005")
    (broken / "checkpoints" / "step_0000005" / "state.json").unlink()
    (broken / "checkpoints" / "step_0000007").mkdir()
    (broken / "checkpoints" / "step_latest").mkdir()
    assert checkpoints.list_checkpoints(broken / "checkpoints")[-1] == whole
    resumed = final_state(broken, resume=True, checkpoint_every=2)
    assert "step_0000004" in capsys.readouterr().out
    assert_same_ending(resumed, unbroken)


@pytest.mark.parametrize("moment", ["model", "teacher", "optimizer", "state"])
def test_killed_while_writing_a_checkpoint_the_last_whole_one_is_resumed(tmp_path, monkeypatch, moment):
    """The process dies just before the named file of the second checkpoint is there."""
    unbroken = final_state(tmp_path / "unbroken", checkpoint_every=3)
    broken = tmp_path / "broken"

    def dying(right):
        def write(content, path, *args, **kwargs):
            where = Path(content if isinstance(content, Path) else path)
            if where.stem.strip(".") == moment and "step_0000006" in str(where):
                raise Killed
            return right(content, path, *args, **kwargs)

        return write

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "save_file", dying(checkpoints.save_file))
        patch.setattr(torch, "save", dying(torch.save))
        patch.setattr(checkpoints, "write_atomic", dying(checkpoints.write_atomic))
        trainer = tiny_trainer(broken, Stream(), Stream(), checkpoint_every=3)
        with pytest.raises(Killed):
            trainer.train()
    assert [path.name for path in checkpoints.list_checkpoints(broken / "checkpoints")] == ["step_0000003"]
    assert_same_ending(final_state(broken, resume=True, checkpoint_every=3), unbroken)
    assert not list((broken / "checkpoints").glob(".*"))


@pytest.mark.parametrize("function", ["save_file", "torch.save", "write_atomic"])
def test_a_full_disk_names_the_checkpoint_and_leaves_no_half_of_it(tmp_path, monkeypatch, function):
    def full(content, path, *args, **kwargs):
        where = content if isinstance(content, Path) else path
        if "step_0000006" in str(where):
            if function == "torch.save":  # as torch reports it
                raise RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos")
            raise OSError(28, "No space left on device", str(where))
        return right(content, path, *args, **kwargs)

    holder, name = (torch, "save") if function == "torch.save" else (checkpoints, function)
    right = getattr(holder, name)
    with monkeypatch.context() as patch:
        patch.setattr(holder, name, full)
        with pytest.raises(OSError) as error:
            tiny_trainer(tmp_path, Stream(), Stream(), checkpoint_every=3).train()
    folder = tmp_path / "checkpoints"
    message = str(error.value)
    assert str(folder / "step_0000006") in message and "disk space" in message and "\n" not in message
    assert [path.name for path in folder.iterdir()] == ["step_0000003"]
    final_state(tmp_path, resume=True, checkpoint_every=3)


# ---------------------------------------------------------------- what must not be resumed


def test_a_checkpoint_of_a_newer_format_is_refused(tmp_path):
    train_until(tmp_path, 8 * 4 + 3, checkpoint_every=3)
    path = tmp_path / "checkpoints" / "step_0000003" / "state.json"
    state = json.loads(path.read_text())
    path.write_text(json.dumps({**state, "format": 7}))
    before = snapshot(tmp_path)
    with pytest.raises(ValueError, match=r"step_0000003 has format 7, this version reads up to 1; update"):
        tiny_trainer(tmp_path, checkpoint_every=3).train(resume=True)
    assert snapshot(tmp_path) == before


def test_a_checkpoint_of_0_1_without_the_agreed_time_goes_on_from_the_main_process_s(tmp_path):
    """So does one that has it, from the first line on, and its rates and phases with it."""
    for name, has in (("new", True), ("old", False)):
        folder = tmp_path / name
        train_until(folder, 8 * 4 + 3, checkpoint_every=3, max_minutes=1.0)
        path = folder / "checkpoints" / "step_0000003" / "state.json"
        state = json.loads(path.read_text())
        state |= {"seconds": 30.0, "agreed_seconds": 36.0}  # on other processes their own clock may be behind
        if not has:
            del state["agreed_seconds"]
        path.write_text(json.dumps(state))
        trainer = tiny_trainer(folder, checkpoint_every=3, max_minutes=1.0)
        trainer._begin(resume=True)
        trainer.folder.release()
        assert trainer._progress() == (0.6 if has else 0.5)


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (OSError(28, "No space left on device"), True),
        (OSError(122, "Disk quota exceeded"), True),
        (SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"), True),
        (OSError(13, "Permission denied"), False),
        (SafetensorError("Error while serializing: I/O error: Input/output error (os error 5)"), False),
    ],
)
@pytest.mark.parametrize("where", ["checkpoint", "model"])
def test_only_a_full_disk_is_called_full(tmp_path, monkeypatch, error, full, where):
    def fail(*_, **__):
        raise error

    with monkeypatch.context() as patch:
        if where == "checkpoint":
            patch.setattr(checkpoints, "save_file", fail)
        else:
            patch.setattr(library, "safe_save_file", fail)
        with pytest.raises(OSError) as raised:
            tiny_trainer(tmp_path, Stream(), Stream()).train()
    assert ("free some disk space" in str(raised.value)) == full and str(tmp_path) in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.rglob(".*"))
    final_state(tmp_path, resume=True)


class OtherStream(Stream):
    fingerprint = "of another stream"


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"cell": "elman"}, ["model", "cell", "'gru'", "now 'elman'"]),
        ({"encoder_type": "bidirectional"}, ["teacher", "encoder_type", "now 'bidirectional'"]),
        ({"method": "bptt"}, ["method", "'smt'", "now 'bptt'"]),
        ({"seed": 5}, ["seed", "0 (now 5)"]),
        # What shapes the schedule or the steps: a phase would run at another rate, or not at all.
        ({"max_steps": 7}, ["max_steps 8 (now 7)"]),
        ({"max_steps": 2}, ["max_steps 8 (now 2)"]),  # fewer than are done
        ({"dmt_fraction": 0.0}, ["dmt_fraction 0.5 (now 0.0)"]),
        ({"batch_size": 4}, ["batch_size 8 (now 4)"]),
        ({"learning_rate": 1e-4}, ["learning_rate", "(now 0.0001)"]),
        ({"dynamics_weight": 3.0}, ["dynamics_weight", "(now 3.0)"]),
        ({"max_minutes": 1.0}, ["max_steps 8 (now None)", "max_minutes None (now 1.0)"]),
        ({"train_dataset": OtherStream()}, ["data_fingerprint", "of the stream", "of another stream"]),
    ],
)
def test_resuming_with_something_else_is_refused_by_name(tmp_path, changes, named):
    train_until(tmp_path, 8 * 4 + 3, checkpoint_every=3)
    before = snapshot(tmp_path)
    with pytest.raises(ValueError) as error:
        tiny_trainer(tmp_path, **{"checkpoint_every": 3, **changes}).train(resume=True)
    assert all(text in str(error.value) for text in named) and "\n" not in str(error.value)
    assert snapshot(tmp_path) == before


def test_resuming_where_there_is_no_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match=f"no run to resume in {tmp_path / 'nowhere'}"):
        tiny_trainer(tmp_path / "nowhere").train(resume=True)
    assert not (tmp_path / "nowhere").exists()


# ---------------------------------------------------------------- nothing is unpickled


class Payload:
    """What somebody might hide in a checkpoint: it would make a file when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_code_hidden_in_a_checkpoint_is_not_run(tmp_path):
    train_until(tmp_path, 8 * 4 + 3, checkpoint_every=3)
    sign = tmp_path / "was-run"
    path = tmp_path / "checkpoints" / "step_0000003" / "optimizer.pt"
    torch.save({"optimizer": Payload(sign), "scaler": {}, "torch_rng": torch.get_rng_state()}, path)
    with pytest.raises(pickle.UnpicklingError):
        tiny_trainer(tmp_path, checkpoint_every=3).train(resume=True)
    assert not sign.exists()


def test_torch_load_is_only_ever_called_with_weights_only_and_pickle_never():
    found = 0
    for path in Path(smt_hf.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                modules = [getattr(node, "module", None) or "", *(alias.name for alias in node.names)]
                assert not {"pickle", "dill", "cloudpickle", "joblib"} & set(modules), path
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            # That of a model reads safetensors; that of Accelerate unpickles.
            pickled = called.endswith(("load_state", "unpickle")) and not called.endswith("model.load_state")
            assert not pickled, f"{path}:{node.lineno}"
            if called == "torch.load":
                found += 1
                options = {word.arg: ast.unparse(word.value) for word in node.keywords}
                assert options.get("weights_only") == "True", f"{path}:{node.lineno}"
            if called.endswith("numpy.load") or called == "np.load":
                raise AssertionError(f"{path}:{node.lineno} may unpickle")
    assert found == 1


def test_teachers_are_never_needed_to_load_the_model(tmp_path):
    """The model's folder is whole without `teacher/`."""
    from transformers import AutoModelForCausalLM

    tiny_trainer(tmp_path, max_steps=2).train()
    shutil.rmtree(tmp_path / "teacher")
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert not [name for name, _ in model.named_parameters() if "teacher" in name or "encoder" in name]
