"""SIGTERM and Ctrl-C cost nothing, whenever and to whomever they come: one checkpoint, one message, one end."""

import os
import re
import shlex
import signal
import sys
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import warm
from safetensors.torch import load_file
from tiny_training import Stream, assert_same_weights, metrics, tiny_trainer, untimed

from smt_hf.cli.pretrain import command_to_resume
from smt_hf.pretraining import finishing
from smt_hf.pretraining.batching import batches_at_length
from smt_hf.pretraining.phases import Objective
from smt_hf.pretraining.stops import Interrupted
from smt_hf.pretraining.trainer import SMTPretrainer
from smt_hf.runs.checkpoints import list_checkpoints
from smt_hf.runs.record import RunRecord

# Interpreters import torch: on a busy machine that alone takes minutes.
pytestmark = pytest.mark.timeout(900)

OPTIONS: dict[str, Any] = {"max_steps": 6, "num_evaluations": 2}


def outcome(folder: Path) -> tuple[Any, ...]:
    record = RunRecord.of_finished(folder)
    return load_file(folder / "model.safetensors"), untimed(metrics(folder)), record.final, record.steps


def assert_same_outcome(a: Path, b: Path) -> None:
    one, two = outcome(a), outcome(b)
    assert_same_weights(one[0], two[0])
    assert one[1:] == two[1:]


# ---------------------------------------------------------------- after the last step


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("part", finishing.PARTS)
def test_a_signal_after_the_last_step_loses_nothing(tmp_path, monkeypatch, part, number):
    """Not even with checkpoint_every 0; what was done by then is not done again."""
    tiny_trainer(tmp_path / "unbroken", Stream(), Stream(), **OPTIONS).train()
    folder, done = tmp_path / "broken", []
    parts = dict(finishing.PARTS)

    def noting(name: str):
        def work(trainer: SMTPretrainer) -> None:
            parts[name](trainer)
            done.append(name)
            if name == part and done.count(name) == 1:
                os.kill(os.getpid(), number)

        return work

    for name in parts:
        monkeypatch.setitem(finishing.PARTS, name, noting(name))
    with pytest.raises(Interrupted) as stop:
        tiny_trainer(folder, Stream(), Stream(), **OPTIONS).train()
    assert stop.value.exit_code == 128 + number
    (checkpoint,) = list_checkpoints(folder / "checkpoints")
    assert str(stop.value) == str(checkpoint) and checkpoint.name == "step_0000006"
    tiny_trainer(folder, Stream(), Stream(), **OPTIONS).train(resume=True)
    assert done == list(parts)  # each part once
    assert_same_outcome(folder, tmp_path / "unbroken")
    assert not (folder / "checkpoints").exists()
    with pytest.raises(ValueError, match="is finished"):
        tiny_trainer(folder, Stream(), Stream(), **OPTIONS).train(resume=True)


class Killed(BaseException):
    """Nothing in the package catches this one."""


def stop() -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    pytest.fail("the upload went on")


def fail(error: BaseException) -> None:
    raise error


FAILED = (
    r"run is finished, but its upload failed: .* 503; .* --resume, or give smt-hf push .* --repo-id me/tiny\.$"
)
UPLOADS: dict[str, tuple[Any, str, Any]] = {
    "stopped": (Interrupted, "run", stop),
    "killed": (Killed, "^$", lambda: fail(Killed())),
    "refused by the Hub": (
        OSError,
        FAILED,
        lambda: fail(ConnectionError("the Hub answered 503; send it again.")),
    ),
    "refused for its content": (
        OSError,
        "upload failed: run.json holds your token",
        lambda: fail(ValueError("run.json holds your token.")),
    ),
}


@pytest.mark.parametrize("case", UPLOADS)
def test_an_upload_that_did_not_end_is_all_that_is_left_to_do(tmp_path, monkeypatch, case):
    folder, pushed = tmp_path / "run", []
    raised, said, end = UPLOADS[case]

    def push(path: Path, name: str, private: bool) -> None:
        assert RunRecord.of_finished(path).finished  # as the command asks for it
        pushed.append(name)
        if len(pushed) == 1:
            end()

    monkeypatch.setattr("smt_hf.pretraining.checks.check_access", lambda *_: None)
    monkeypatch.setattr(finishing, "push", push)
    options = {**OPTIONS, "push_to_hub": True, "hub_model_id": "me/tiny"}
    with pytest.raises(raised, match=said):
        tiny_trainer(folder, Stream(), Stream(), **options).train()
    weights, lines = load_file(folder / "model.safetensors"), metrics(folder)

    with monkeypatch.context() as patch:
        patch.setattr(SMTPretrainer, "_run_phases", lambda *_: pytest.fail("trained again"))
        record = tiny_trainer(folder, Stream(), Stream(), **options).train(resume=True)
    assert pushed == ["me/tiny", "me/tiny"] and record.finished and record.steps == 6
    assert_same_weights(load_file(folder / "model.safetensors"), weights)
    assert metrics(folder) == lines
    with pytest.raises(ValueError, match="is finished"):
        tiny_trainer(folder, Stream(), Stream(), **options).train(resume=True)


# ---------------------------------------------------------------- workers


def test_workers_outlive_a_signal_and_end_with_their_batches(tmp_path):
    from multiprocessing import active_children

    trainer = tiny_trainer(tmp_path, Stream(), dataloader_num_workers=2)
    batches = batches_at_length(trainer.train_dataset, 16, 16, trainer.args, 0, 0, 1)
    expected = batches_at_length(trainer.train_dataset, 16, 16, tiny_trainer(tmp_path).args, 0, 0, 1)
    for step in range(8):
        assert torch.equal(next(batches)["input_ids"], next(expected)["input_ids"]), step
        for worker in active_children():
            os.kill(worker.pid or 0, (signal.SIGTERM, signal.SIGINT)[step % 2])
    assert len(active_children()) == 2
    batches.close()
    assert not active_children()


# ---------------------------------------------------------------- processes

TRAIN = """
import os, sys, torch
torch.set_num_threads(1)
from smt_hf.runs.folder import RunFolder
log = RunFolder.log
def log_and_say(self, line):
    log(self, line)
    print("logged", line["step"], "by", os.getpid(), flush=True)
RunFolder.log = log_and_say
from smt_hf.cli import main
sys.argv[0] = "/bin/smt-hf"
sys.exit(main(sys.argv[1:]))
"""
FLAGS = {
    "--preset": "tiny", "--checkpoint-every": "0", "--logging-steps": "1", "--num-evaluations": "0",
    "--hidden-size": "16", "--context-length": "12", "--future-length": "4", "--rollout-length": "4",
    "--batch-size": "4", "--eval-sequences": "2", "--eval-horizon": "8",
}  # fmt: skip


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "lines.txt"
    path.write_text("".join(f"Line {i} says that {i} and {i + 1} are {2 * i + 1}.\n" for i in range(400)))
    return path


def words(folder: Path, corpus: Path, **changes: str) -> list[str]:
    changed = {"--" + name.replace("_", "-"): value for name, value in changes.items()}
    flags = {**FLAGS, "--dataset": str(corpus), "--output-dir": str(folder), "--max-minutes": "10", **changed}
    return ["pretrain", "--disable-tqdm", *(word for pair in flags.items() for word in pair)]


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", **more}


@contextmanager
def at_an_end(processes: list[warm.Process]) -> Iterator[list[warm.Process]]:
    """Processes in groups of their own, of which nothing is left at the end."""
    try:
        yield processes
    finally:
        for process in processes:
            if process.lives():
                os.killpg(process.pid, signal.SIGKILL)
            if not process.stdout.closed:
                process.communicate()


def wait_for(process: warm.Process, text: str) -> str:
    """The first line that it prints with this text in it."""
    said = []
    for line in process.stdout:
        said.append(line)
        if text in line:
            return line
    pytest.fail("".join(said) + process.stderr())


def test_sigterm_to_the_group_stops_a_run_with_workers_cleanly(tmp_path, corpus):
    folder = tmp_path / "run"
    run = warm.start(
        TRAIN, *words(folder, corpus, dataloader_num_workers="2"), env=environment(), new_session=True
    )
    with at_an_end([run]) as (process,):
        wait_for(process, "logged 3")
        os.killpg(process.pid, signal.SIGTERM)
        out, err = process.communicate()
    assert process.returncode == 128 + signal.SIGTERM, out + err
    assert "Traceback" not in err and "worker" not in err
    (checkpoint,) = list_checkpoints(folder / "checkpoints")
    assert f"saved {checkpoint}" in out


def test_a_stopped_run_lets_go_of_what_it_trained_before_the_group_of_processes_ends(tmp_path, monkeypatch):
    """DDP as the last owner of the group would join its threads under the interpreter's lock, for ever."""
    trained: list[Any] = []
    alive: list[Any] = []

    class Watched(Objective):
        def __init__(self, *given):
            super().__init__(*given)
            trained.append(weakref.ref(self))

        def forward(self, *given, **draws):
            os.kill(os.getpid(), signal.SIGTERM)
            return super().forward(*given, **draws)

    monkeypatch.setattr("smt_hf.pretraining.trainer.Objective", Watched)
    trainer = tiny_trainer(tmp_path, Stream(), Stream(), **OPTIONS)
    monkeypatch.setattr(trainer.accelerator, "end_training", lambda: alive.extend(ref() for ref in trained))
    with pytest.raises(Interrupted):
        trainer.train()
    assert trained and alive == [None] * len(trained)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_signal_that_reaches_one_of_two_ranks_stops_both_after_the_same_step(tmp_path, corpus, rank):
    folder = tmp_path / "run"
    two = warm.ranks(TRAIN, *words(folder, corpus), env=environment(), new_session=True)
    with at_an_end(two) as ranks:
        wait_for(ranks[0], "logged 3")
        ranks[rank].send_signal(signal.SIGTERM)
        said = [process.communicate() for process in ranks]
    assert [process.returncode for process in ranks] == [143, 143], said
    (checkpoint,) = list_checkpoints(folder / "checkpoints")
    assert f"saved {checkpoint}" in said[0][0] and "saved" not in said[1][0] and "None" not in said[0][0]
    assert metrics(folder)[-1]["step"] == int(checkpoint.name[5:])


# By its module, which is what the command starts; its own processes import the libraries anew.
TORCHRUN = 'import runpy; runpy.run_module("torch.distributed.run", run_name="__main__", alter_sys=True)'


@pytest.mark.parametrize("whom", ["torchrun", pytest.param("rank", marks=pytest.mark.slow)])
def test_under_torchrun_it_says_how_to_go_on_and_goes_on(tmp_path, corpus, whom):
    """A budget in minutes, so that the time the ranks agree on is in the checkpoint too."""
    folder = tmp_path / "run"
    script = tmp_path / "smt-hf"
    script.write_text(TRAIN.replace('sys.argv[0] = "/bin/smt-hf"\n', ""))
    own = words(folder, corpus, max_minutes="0.05", logging_steps="1000", num_evaluations="4")
    start = ["--nproc_per_node", "2", "--standalone", str(script), *own]
    run = warm.start(TORCHRUN, *start, env=environment(), new_session=True)
    with at_an_end([run]) as (process,):
        rank = int(wait_for(process, "logged").split()[-1])
        os.kill(process.pid if whom == "torchrun" else rank, signal.SIGTERM)
        out, err = process.communicate()
    (checkpoint,) = list_checkpoints(folder / "checkpoints")
    said = [line.strip() for line in out.splitlines()]
    assert f"stopped; saved {checkpoint}. Go on with:" in said, out + err
    printed = shlex.split(said[said.index(f"stopped; saved {checkpoint}. Go on with:") + 1])
    assert printed == ["torchrun", "--nproc_per_node", "2", str(script), *own, "--resume"]
    codes = re.findall(r"exitcode *: (-?\d+)", err)  # which torchrun lists if it has not been stopped itself
    assert set(codes) == ({"143"} if whom == "rank" else set()), err

    with at_an_end(warm.ranks(script, *printed[4:], env=environment(), new_session=True)) as two:
        ended = [rank.communicate() for rank in two]
    assert [rank.returncode for rank in two] == [0, 0], ended
    evaluations = [line["progress"] for line in metrics(folder) if "evaluation" in line]
    assert evaluations == sorted(evaluations) and evaluations[-1] == 1
    assert RunRecord.of_finished(folder).seconds < 60


def test_the_command_that_goes_on_names_torchrun_only_under_it(monkeypatch):
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    assert command_to_resume(["pretrain", "--resume", "--seed", "1"]) == [
        "smt-hf", "pretrain", "--seed", "1", "--resume",
    ]  # fmt: skip
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    monkeypatch.setattr(sys, "argv", ["/somewhere/smt-hf"])
    start = ["torchrun", "--nproc_per_node", "4", "/somewhere/smt-hf"]
    assert command_to_resume(["pretrain"]) == [*start, "pretrain", "--resume"]
