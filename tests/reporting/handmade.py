# mypy: disable-error-code="arg-type"
"""Results made by hand: rows of a table, and a folder with the files of its runs."""

import json
from pathlib import Path
from typing import Any

from smt_hf.reporting.packed import read_study
from smt_hf.reporting.study import Study
from smt_hf.runs.results import FORMAT, write_results


def rows(cell: str, method: str, rate: float, values: dict[int, float], seed: int = 0, **changes) -> list[dict]:
    what = changes.get("variant", ""), changes.get("length_trained", 64)
    shared = {
        "format": FORMAT,
        "experiment": "stack",
        "run": f"{cell}-{method}-{rate}-{what[0]}-{what[1]}-{seed}",
        "task": "stack",
        "cell": cell,
        "method": method,
        "variant": "",
        "seed": seed,
        "learning_rate": rate,
        "length_trained": 64,
        "metric": "accuracy",
        "chance": 0.25,
        "seconds": 360.0,
        "tokens": 10_000,
        "sequential_steps": 12_345,
        "command": "smt-hf pretrain",
        "commit": "abc",
        **changes,
    }
    return [{**shared, "length_tested": length, "value": value} for length, value in values.items()]


STACK = [
    *rows("gru", "smt", 2e-3, {64: 0.99, 128: 0.9, 256: 0.8}, seed=0),
    *rows("gru", "smt", 2e-3, {64: 0.97, 128: 0.8, 256: 0.5}, seed=1),
    # The best where it was trained, and the worst elsewhere: chosen all the same.
    *rows("gru", "bptt", 1e-3, {64: 0.9, 128: 0.3, 256: 0.3}, seed=0),
    *rows("gru", "bptt", 1e-3, {64: 0.7, 128: 0.3, 256: 0.3}, seed=1),
    # Better than the one above with one seed, worse with the other, and in the mean.
    *rows("gru", "bptt", 3e-3, {64: 0.95, 128: 0.9, 256: 0.9}, seed=0),
    *rows("gru", "bptt", 3e-3, {64: 0.2, 128: 0.9, 256: 0.9}, seed=1),
    *rows("transformer", "smt", 2e-3, {64: 0.5, 128: 0.5, 256: 0.5}),
    *rows("transformer", "bptt", 3e-4, {64: 0.25, 128: 0.25, 256: 0.25}),
]
BITS: dict[str, Any] = {"experiment": "text", "task": "a.txt", "metric": "bits_per_byte", "chance": None}


def evaluation(phase: str, at: int, accuracy: float, drift: dict[int, float] | None = None) -> dict[str, Any]:
    found: dict[str, Any] = {"loss": 1.0, "accuracy": accuracy, "by_horizon": []}
    if drift:
        found["drift"] = [{"horizon": horizon, "drift": value} for horizon, value in drift.items()]
    shared = {"step": at, "seconds": at / 10, "tokens": at * 100, "sequential_steps": at * 2, "phase": phase}
    shared["progress"] = at / 40
    return {**shared, "evaluation": found}


SMT_LINES = [
    {"step": 1, "phase": "smt", "prediction_loss": 3.0},
    evaluation("smt", 10, 0.3, {1: 0.5, 2: 0.9}),
    evaluation("smt", 20, 0.4, {1: 0.4, 2: 0.8}),
    evaluation("dmt", 30, 0.8, {1: 0.2, 2: 0.3}),
    evaluation("dmt", 40, 0.9, {1: 0.1, 2: 0.2}),
]
MAP: dict[str, Any] = {
    "points": [[0.0, 1.0], [0.5, 1.5], [2.0, 0.0], [2.5, 0.5]], "groups": ["3", "3", "5", "5"],
    "group_by": "value to be held", "explained": 0.61,
}  # fmt: skip
IMAGES: dict[str, Any] = {
    "height": 2, "width": 2, "levels": 4, "generated": [[0, 1, 2, 3]], "given": 2,
    "originals": [[3, 2, 1, 0]], "completed": [[3, 2, 2, 2]],
}  # fmt: skip
PROBES: dict[str, Any] = {
    "format": 1, "teacher": {"loss": 0.1, "accuracy": 0.95, "by_horizon": []},
    "gradient_reach": [1.0, 0.5, 0.25], "memory_map": MAP, "images": IMAGES,
}  # fmt: skip
RECORD: dict[str, Any] = {
    "status": "finished", "method": "smt", "cell": "gru", "seed": 0, "dataset": "stack", "data_kind": "task",
    "data_fingerprint": "of the data", "sequence_length": 64, "bytes_per_token": 1.0, "parameters": 821_376,
    "state_bytes": 1024, "machine": "1 CPU core", "git_commit": "abc", "command": ["smt-hf", "pretrain"],
    "versions": {"smt-hf": "0.1.0", "torch": "2.9", "transformers": "5.23"},
    "phases": [{"name": "smt", "start": 0.0, "end": 0.5, "learning_rate": 2e-3},
               {"name": "dmt", "start": 0.5, "end": 1.0, "learning_rate": 1.5e-3}],
    "arguments": {"learning_rate": 2e-3, "batch_size": 32, "max_minutes": 2.0, "max_steps": None},
    "output_dir": "runs/one",
    "model": {"hidden_size": 64, "num_memory_tokens": 4, "num_hidden_layers": 1, "num_readout_layers": 1},
    "teacher": {"num_hidden_layers": 2}, "steps": 40, "seconds": 360.0, "tokens": 10_000,
    "sequential_steps": 12_345, "final": {"loss": 0.1, "accuracy": 0.9, "by_horizon": []},
}  # fmt: skip


def write_run(folder: Path, record: Any = None, lines: Any = None, probes: Any = None) -> None:
    """The files of a run; what is None is not written."""
    folder.mkdir(parents=True, exist_ok=True)
    if record is not None:
        (folder / "run.json").write_text(json.dumps(record))
    if lines is not None:
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if probes is not None:
        (folder / "probes.json").write_text(json.dumps(probes))


def experiment(folder: Path, table: list[dict], **files: Any) -> Study:
    """A live study of a table. All runs have the same files, but for cell, method and seed in their records."""
    folder.mkdir(parents=True, exist_ok=True)
    for row in {row["run"]: row for row in table}.values() if files else ():
        mine = dict(files)
        if mine.get("record") is not None:
            own = {name: row[name] for name in ("cell", "method", "seed")}
            mine["record"] = {**mine["record"], **own}
        write_run(folder / row["run"], **mine)
    write_results(folder / "results.csv", table)
    found = read_study(folder)
    assert found is not None
    return found
