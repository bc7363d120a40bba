"""One writer at a time: on a run's folder, whose lock dies with its holder, and on the results table."""

import errno
import logging
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import warm
from handmade_record import a_record

from smt_hf.runs import locks
from smt_hf.runs.folder import LOCK, RunFolder
from smt_hf.runs.locks import Lock, locked
from smt_hf.runs.results import read_results, replace_rows, rows_of_run

RECORD = a_record(status="running", spec={"push_to_hub": False}, model={}, data_kind="task", seconds=1.0)


def test_a_lock_is_had_by_one_and_its_file_goes_with_it(tmp_path):
    one, other = Lock(tmp_path / "lock"), Lock(tmp_path / "lock")
    assert one.take() and one.take() and not other.take()
    other.release()  # not its own
    assert not Lock(tmp_path / "lock").take()
    one.release()
    assert os.listdir(tmp_path) == []
    assert other.take()


def test_a_file_left_by_a_dead_holder_is_no_lock(tmp_path):
    (tmp_path / "lock").touch()
    with locked(tmp_path / "lock"):
        assert not Lock(tmp_path / "lock").take()
    assert os.listdir(tmp_path) == []


HOLD = """
import sys, time
from smt_hf.runs.locks import Lock
import multiprocessing
lock = Lock(__import__("pathlib").Path(sys.argv[1]))
assert lock.take()
worker = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,))
worker.start()
print(worker.pid, flush=True)
time.sleep(600)
"""


def test_the_lock_dies_with_its_holder_even_if_a_worker_lives_on(tmp_path):
    path = tmp_path / "lock"
    process = warm.start(HOLD, path)
    worker = int(process.stdout.readline())
    try:
        assert not Lock(path).take()
        process.kill()
        process.wait()
        os.kill(worker, 0)  # lives
        lock = Lock(path)
        assert lock.take()
        lock.release()
    finally:
        os.kill(worker, signal.SIGKILL)
        process.communicate()


def test_where_there_are_no_locks_it_says_so_and_goes_on(tmp_path, monkeypatch, caplog):
    def without(*_: Any) -> bool:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locks, "flock", without)
    lock = Lock(tmp_path / "lock")
    with caplog.at_level(logging.WARNING, "smt_hf"):
        assert lock.take()
    assert len(caplog.records) == 1 and str(tmp_path) in caplog.text and "No locks available" in caplog.text
    lock.release()
    assert os.listdir(tmp_path) == []


def test_other_errors_are_raised(tmp_path, monkeypatch):
    def broken(*_: Any) -> bool:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(locks, "flock", broken)
    with pytest.raises(OSError, match="Input/output"):
        Lock(tmp_path / "lock").take()


def test_a_second_writer_of_a_run_is_refused_in_one_sentence(tmp_path):
    first, second = RunFolder(tmp_path / "run"), RunFolder(tmp_path / "run")
    first.claim(RECORD, resume=False)
    with pytest.raises(ValueError, match="another process is training the run in") as error:
        second.claim(RECORD, resume=False)  # between the folder and its record
    assert "\n" not in str(error.value)
    RECORD.write(first.path)
    with pytest.raises(ValueError, match="another process is training the run in"):
        second.claim(RECORD, resume=True)
    second.release()
    first.release()
    assert second.claim(RECORD, resume=True).record == RECORD
    second.release()
    assert os.listdir(tmp_path / "run") == ["run.json"]


def test_a_folder_with_no_more_than_a_claim_may_be_begun_again(tmp_path):
    for name in (LOCK, ".run.json.part"):
        (tmp_path / name).write_text('{"half')
    folder = RunFolder(tmp_path)
    with pytest.raises(ValueError, match="without --resume"):
        folder.claim(RECORD, resume=True)
    assert folder.claim(RECORD, resume=False).record is None
    folder.release()
    assert os.listdir(tmp_path) == []
    (tmp_path / "mine.txt").touch()
    with pytest.raises(ValueError, match="is not empty"):
        folder.claim(RECORD, resume=False)
    assert os.listdir(tmp_path) == ["mine.txt"]


def test_what_a_killed_process_left_is_removed_at_the_next_start_and_nothing_else(tmp_path):
    RECORD.write(tmp_path)
    checkpoints = tmp_path / "checkpoints"
    for name in ("step_0000002", "step_0000004", ".step_0000006.part", ".step_latest.part", "step_latest"):
        (checkpoints / name).mkdir(parents=True)
    (checkpoints / "step_0000002" / "state.json").touch()
    (tmp_path / ".files.part" / "teacher").mkdir(parents=True)
    for name in (".run.json.part", ".metrics.jsonl.part", ".README.md.part", ".mine.part", "model.safetensors"):
        (tmp_path / name).touch()
    folder = RunFolder(tmp_path)
    assert folder.claim(RECORD, resume=True).checkpoint == checkpoints / "step_0000002"
    folder.release()
    assert {path.name for path in tmp_path.iterdir()} == {
        "run.json", "checkpoints", ".mine.part", "model.safetensors",
    }  # fmt: skip
    assert {path.name for path in checkpoints.iterdir()} == {
        "step_0000002", ".step_latest.part", "step_latest",
    }  # fmt: skip


# ---------------------------------------------------------------- the results table

WRITERS, RUNS = 4, 20


def rows_of(run: str, value: float) -> list[dict[str, Any]]:
    metrics = {24: {"accuracy": value}, 48: {"accuracy": value}}
    return rows_of_run("recall", run, 24, RECORD, metrics, None)


WRITE_RUNS = """
import sys, time
from pathlib import Path
from test_locks import write_runs
print("ready", flush=True)
while not Path(sys.argv[3]).exists():
    time.sleep(0.001)
write_runs(Path(sys.argv[1]), sys.argv[2])
"""


def write_runs(path: Path, writer: str) -> None:
    for number in range(RUNS):
        replace_rows(path, f"{writer}-{number}", rows_of(f"{writer}-{number}", 0.0))
        replace_rows(path, f"{writer}-{number}", rows_of(f"{writer}-{number}", 1.0))


def test_processes_that_write_at_once_lose_no_row_of_the_table(tmp_path_factory):
    folder, start = tmp_path_factory.mktemp("table"), tmp_path_factory.mktemp("start") / "now"
    path = folder / "results.csv"
    writers = [warm.start(WRITE_RUNS, path, i, start) for i in range(WRITERS)]
    assert [process.stdout.readline() for process in writers] == ["ready\n"] * WRITERS
    start.touch()
    ended = [process.communicate() for process in writers]
    assert [process.returncode for process in writers] == [0] * WRITERS, ended
    rows = read_results(path)
    expected = {f"{writer}-{number}" for writer in range(WRITERS) for number in range(RUNS)}
    assert {row["run"] for row in rows} == expected
    assert len(rows) == 2 * WRITERS * RUNS and {row["value"] for row in rows} == {1.0}
    assert os.listdir(folder) == ["results.csv"]
