"""Kill runs at random moments, resume them, and compare what they end as with the unbroken run.

`training.py FOLDER MINUTES SEED` prints each failure, and how many kills of which kind there
were. A run is begun, killed some times, resumed each time, and carried to its end: by one process or two, with
or without workers, with its corpus packed or still to be packed. A third of the kills come at a moment in time,
the others at an operation on a file of a chosen kind, so that the same seed kills at the same operations again:
packing and checkpointing take so little of a run that moments in time would hardly ever meet them.

Every process is forked from this one, which has imported all there is to import and computed nothing.
"""

import gc
import importlib
import json
import os
import random
import shutil
import signal
import socket
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from smt_hf.cli import main
from smt_hf.data.packed_file import is_packed
from smt_hf.runs.checkpoints import list_checkpoints, load_tensors, read_state
from smt_hf.runs.record import FILE, RunRecord

STEPS = 30
# A rank whose other one is dead ends by itself, or is ended after this: what torchrun does.
PATIENCE = 30.0
AIMED = ("checkpointing", "checkpointing", "finishing", "record", "training")
MOST_KILLS = 9  # of one run, which then goes on to its end
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
OPERATIONS = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "shutil.rmtree")
WEIGHTS = ("model.safetensors", "teacher/model.safetensors")


@dataclass
class Case:
    processes: int
    workers: int

    def __str__(self) -> str:
        return f"{self.processes} processes, {self.workers} workers"


@dataclass
class Kill:
    """number: of the signal. to: "group" (with the workers of all ranks), or a rank. Either `seconds` after the
    start, or at the n-th `operation` of the main process on a file of this `kind`."""

    number: int
    to: int | str
    seconds: float | None = None
    operation: int | None = None
    kind: str = ""


def kind_of(path: str, run: Path, cache: Path) -> str:
    """What a process does that changes this file; empty for none of ours."""
    if path.startswith(str(cache)):
        return "packing"
    if not path.startswith(str(run)):
        return ""
    below = Path(path).relative_to(run).parts
    if "checkpoints" in below:
        return "checkpointing"
    if not below or below[0].strip(".").startswith("metrics"):
        return "training"
    return "record" if below[0].strip(".").startswith("run.") else "finishing"


@dataclass
class Soak:
    folder: Path
    rng: random.Random
    kills: Counter = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    runs: int = 0

    def fail(self, what: str) -> None:
        self.failures.append(what)
        print(f"FAILED: {what}", flush=True)


def words(folder: Path, corpus: Path, case: Case) -> list[str]:
    flags: dict[str, Any] = {
        "--preset": "tiny", "--dataset": corpus, "--output-dir": folder, "--max-steps": STEPS,
        "--checkpoint-every": 5, "--save-total-limit": 2, "--logging-steps": 1, "--num-evaluations": 3,
        "--hidden-size": 16, "--batch-size": 4, "--eval-sequences": 4, "--eval-horizon": 16,
        "--dataloader-num-workers": case.workers,
    }  # fmt: skip
    resume = ["--resume"] if (folder / FILE).exists() else []
    return ["pretrain", "--disable-tqdm", *(str(word) for pair in flags.items() for word in pair), *resume]


def fork(work: Callable[[], int], log: Path) -> int:
    """A process in a group of its own; what it prints is added to `log`."""
    sys.stdout.flush()
    if pid := os.fork():
        return pid
    code = 70
    try:
        os.setsid()
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, 1)
        os.dup2(file, 2)
        torch.set_num_threads(1)
        code = work()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def free_port() -> str:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return str(found.getsockname()[1])


def start(soak: Soak, run: Path, cache: Path, case: Case, kill: Kill | None, count: Path | None) -> list[int]:
    """Ids of the processes of a run, the main one first."""
    address = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": free_port(),
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
    }
    others: list[int] = []

    def rank(number: int) -> int:
        os.environ["SMT_HF_CACHE"] = str(cache)
        if case.processes > 1:
            os.environ.update(address, RANK=str(number), LOCAL_RANK=str(number))
        counted: Counter = Counter()

        def operated(event: str, args: tuple) -> None:
            if event not in OPERATIONS or (event == "open" and reads(args)):
                return
            if not (kind := kind_of(str(args[0]), run, cache)):
                return
            counted[kind] += 1
            if kill is not None and kind == kill.kind and counted[kind] == kill.operation:
                send(kill, [os.getpid(), *others])

        if number == 0:
            sys.addaudithook(operated)
        code = main(words(run, soak.folder / "lines.txt", case))
        if count is not None and number == 0:
            count.write_text(json.dumps([counted, [name for name in sys.modules if "__main__" not in name]]))
        return code

    # The main process last: it knows the others.
    for number in reversed(range(1, case.processes)):
        others.append(fork(partial(rank, number), soak.folder / "log.txt"))
    return [fork(partial(rank, 0), soak.folder / "log.txt"), *others]


def reads(args: tuple) -> bool:
    """Whether an `open` (path, mode, flags) changes nothing."""
    return not args[2] & (os.O_WRONLY | os.O_RDWR)


def import_all(names: list[str]) -> None:
    """What a run imports, so that the next processes have it from the start."""
    for name in names:
        try:
            importlib.import_module(name)
        except Exception:  # made by another module, as it was needed
            continue
    gc.freeze()  # or every process would look through all of it again


def send(kill: Kill, pids: list[int]) -> None:
    if kill.to == "group":
        for pid in reversed(pids):
            end = os.kill if kill.number == signal.SIGKILL else os.killpg
            end(pid, kill.number)
    else:
        os.kill(pids[int(kill.to)], kill.number)


def wait(pids: list[int], kill: Kill | None) -> list[int]:
    """Their exit codes, −n for a signal n."""
    began, codes = time.monotonic(), dict.fromkeys(pids)
    sent, ended = kill is None or kill.seconds is None, None
    while None in codes.values():
        for pid, code in codes.items():
            if code is None:
                found, status = os.waitpid(pid, os.WNOHANG)
                if found:
                    codes[pid] = os.waitstatus_to_exitcode(status)
        if (
            not sent
            and kill is not None
            and kill.seconds is not None
            and time.monotonic() - began > kill.seconds
        ):
            sent = True
            living = [pid for pid, code in codes.items() if code is None]
            if len(living) == len(pids):
                send(kill, pids)
        some = [code for code in codes.values() if code is not None]
        if any(some) and ended is None:
            ended = time.monotonic()
        if ended is not None and time.monotonic() - ended > PATIENCE:
            for pid, code in codes.items():
                if code is None:
                    os.kill(pid, signal.SIGKILL)
            ended = None
        time.sleep(0.005)
    return [code for code in codes.values() if code is not None]


def where(run: Path) -> str:
    """What a process was doing, by what it left."""
    record = RunRecord.read(run)
    if record is None:
        return "packing"
    found = list_checkpoints(run / "checkpoints")
    if list((run / "checkpoints").glob(".*")):
        return "checkpointing"
    return "finishing" if found and found[-1].name.endswith(f"{STEPS}") else "training"


def check_whole(run: Path, cache: Path) -> None:
    """Raise for anything that is there under its own name and is not whole."""
    RunRecord.read(run)
    for checkpoint in list_checkpoints(run / "checkpoints"):
        read_state(checkpoint)
        load_tensors(checkpoint)
        for path in checkpoint.glob("*.safetensors"):
            load_file(path)
    for path in run.rglob("*.json"):
        if not any(part.startswith(".") for part in path.relative_to(run).parts):
            json.loads(path.read_text())
    for name in WEIGHTS:
        if (run / name).exists():
            load_file(run / name)
    for path in cache.rglob("*.arrow"):
        if not any(part.startswith("tmp-") for part in path.parts):
            assert is_packed(path), path


def last_step(run: Path) -> int:
    steps = [0]
    path = run / "metrics.jsonl"
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            steps.append(json.loads(line)["step"])
        except ValueError:
            continue
    return max(steps)


def outcome(run: Path) -> tuple[dict[str, torch.Tensor], list[dict], Any]:
    weights: dict[str, torch.Tensor] = {}
    for name in WEIGHTS:
        weights |= {f"{name} {key}": value for key, value in load_file(run / name).items()}
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        del line["seconds"]
    return weights, lines, RunRecord.of_finished(run).final


def differences(run: Path, unbroken: Any) -> list[str]:
    weights, lines, final = outcome(run)
    found = [name for name in unbroken[0] if not torch.equal(weights[name], unbroken[0][name])]
    if lines != unbroken[1]:
        found.append(f"metrics of steps {[line['step'] for line in lines]}")
    if final != unbroken[2]:
        found.append("the last evaluation")
    left = [path.name for path in run.rglob(".*")]
    return found + ([f"left behind: {left}"] if left else [])


def draw_kill(rng: random.Random, case: Case, seconds: float, operations: dict[str, int], packs: bool) -> Kill:
    """packs: whether the corpus is still to be packed."""
    number = rng.choice(SIGNALS)
    to: int | str = rng.choice(["group", *range(case.processes)])
    if rng.random() < 0.33:
        return Kill(number, to, seconds=rng.uniform(0, seconds))
    kind = "packing" if packs and rng.random() < 0.7 else rng.choice(AIMED)
    # Rather early: who is resumed has fewer before it, and whom no kill meets is finished.
    return Kill(number, to, operation=1 + int(operations[kind] * rng.random() ** 2), kind=kind)


def one_run(
    soak: Soak, case: Case, cache: Path, unbroken: Any, seconds: float, operations: dict[str, int], until: float
) -> None:
    """Kill and resume until it is finished."""
    rng, groups, log = soak.rng, [], soak.folder / "log.txt"
    soak.runs += 1
    run = soak.folder / f"run{soak.runs}"
    new_cache = rng.random() < 0.5
    if new_cache:
        cache = soak.folder / f"cache{soak.runs}"
    for attempt in range(MOST_KILLS + 2):
        wanted = attempt < MOST_KILLS and time.monotonic() < until
        packs = not list(cache.rglob("*.arrow"))
        kill = draw_kill(rng, case, seconds, operations, packs) if wanted else None
        said = log.stat().st_size if log.exists() else 0
        pids = start(soak, run, cache, case, kill, None)
        groups += pids
        codes = wait(pids, kill)
        what = f"run {soak.runs} ({case}), {kill}, exit codes {codes}"
        place = (kill.kind if kill else "") or where(run)
        try:
            check_whole(run, cache)
        except Exception as error:
            soak.fail(f"{what}: half-written, {error!r}")
        record = RunRecord.read(run)
        finished = record is not None and record.finished
        if finished and set(codes) == {2}:
            break  # killed after it was called finished, it had no more to do than to tidy up
        if not any(codes):
            if not finished:
                soak.fail(f"{what}: exit code 0, but not finished")
                continue
            break
        if kill is None:
            soak.fail(f"{what}: ended by itself, see {soak.folder / 'log.txt'}")
            break
        name = signal.Signals(kill.number).name
        soak.kills[name, place, str(case)] += 1
        if b"stopped; saved" in log.read_bytes()[said:]:
            check_stop(soak, run, kill, codes, what)
    else:
        soak.fail(f"run {soak.runs} ({case}) was not finished")
    for pid in groups:  # workers of killed processes, should they live
        try:
            os.killpg(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    if RunRecord.read(run) is not None and (found := differences(run, unbroken)):
        soak.fail(f"run {soak.runs} ({case}): {'; '.join(found)}")


def check_stop(soak: Soak, run: Path, kill: Kill, codes: list[int], what: str) -> None:
    """Who is asked to stop stops with one code everywhere, and with a checkpoint of the last step it logged."""
    if set(codes) - {128 + kill.number}:
        soak.fail(f"{what}: not the same exit code everywhere")
    found = list_checkpoints(run / "checkpoints")
    if not found or int(found[-1].name[5:]) != last_step(run):
        soak.fail(f"{what}: stopped at step {last_step(run)} with checkpoints {[path.name for path in found]}")


def soak_for(minutes: float, seed: int, folder: Path) -> Soak:
    soak = Soak(folder, random.Random(seed))
    (folder / "lines.txt").write_text(
        "".join(f"Line {i}: {i} and {i + 1} are {2 * i + 1}.\n" for i in range(400))
    )
    cases = [Case(processes, workers) for processes in (1, 2) for workers in (0, 2)]
    unbroken: dict[int, Any] = {}
    about: dict[str, tuple[float, dict[str, int]]] = {}
    packing = 0
    for case in [cases[0], *cases]:  # the first is slow: it imports
        shutil.rmtree(folder / f"unbroken{case.processes}{case.workers}", ignore_errors=True)
        run, count, began = (
            folder / f"unbroken{case.processes}{case.workers}",
            folder / "count",
            time.monotonic(),
        )
        codes = wait(start(soak, run, folder / "cache", case, None, count), None)
        if any(codes):
            sys.exit(f"the unbroken run of {case} ended with {codes}, see {folder / 'log.txt'}")
        operations, modules = json.loads(count.read_text())
        packing = max(packing, operations.get("packing", 0))  # the first packs for all
        about[str(case)] = (time.monotonic() - began, {**operations, "packing": packing})
        import_all(modules)
        expected = unbroken.setdefault(case.processes, outcome(run))
        if found := differences(run, expected):
            soak.fail(f"workers change the run of {case}: {'; '.join(found)}")
    until = time.monotonic() + 60 * minutes
    order: list[Case] = []
    while time.monotonic() < until:
        order = order or soak.rng.sample(cases, len(cases))
        case = order.pop()
        one_run(soak, case, folder / "cache", unbroken[case.processes], *about[str(case)], until)
    return soak


def report(soak: Soak) -> None:
    for title, place in (("signal", 0), ("moment", 1), ("case", 2)):
        counts: Counter = Counter()
        for kind, count in soak.kills.items():
            counts[kind[place]] += count
        print(f"by {title}: " + "; ".join(f"{name} {count}" for name, count in sorted(counts.items())))
    print(f"{sum(soak.kills.values())} kills of {soak.runs} runs, {len(soak.failures)} failures")


if __name__ == "__main__":
    folder, minutes, seed = Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
    done = soak_for(minutes, seed, folder)
    report(done)
    sys.exit(1 if done.failures else 0)
