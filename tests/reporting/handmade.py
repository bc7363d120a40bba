# mypy: disable-error-code="arg-type"
"""Results made by hand: rows of a table, and a folder with the files of its runs."""

import json
from pathlib import Path
from typing import Any

from smt_hf.experiments.findings import Experiment, read_experiment
from smt_hf.experiments.results import FORMAT, write_results


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
    "state_bytes": 1024, "bytes_per_token": 1.0, "machine": "1 CPU core",
    "versions": {"smt-hf": "0.1.0", "torch": "2.9", "transformers": "5.23"},
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


def experiment(folder: Path, table: list[dict], **files: Any) -> Experiment:
    """An experiment of a table, every run of which has the same files."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in {row["run"] for row in table} if files else ():
        write_run(folder / name, **files)
    write_results(folder / "results.csv", table)
    found = read_experiment(folder / "results.csv")
    assert found is not None
    return found
