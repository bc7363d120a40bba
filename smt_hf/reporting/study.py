"""A study: what one experiment found, and how it is read from the folder that `smt-hf experiment` leaves.

The folder has results.csv, and for each run a folder with run.json, metrics.jsonl and probes.json. Any of the
three may be missing: what needs it is left out. `packed.py` reads the same from a form for repositories.
"""

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from smt_hf.runs.metrics import METRICS, bits_per_byte
from smt_hf.runs.results import FILE, Row, read_results

PROBES_FORMAT = 1
PROBES = "probes.json"
# What is kept of run.json under its own name: of the run, of its model, of a finished run, of its arguments.
ALWAYS = (
    "dataset", "data_kind", "data_fingerprint", "sequence_length", "cell", "method", "seed", "parameters",
    "state_bytes", "bytes_per_token", "machine", "status",
)  # fmt: skip
SIZES = ("hidden_size", "num_memory_tokens", "num_hidden_layers", "num_readout_layers")
COSTS = ("steps", "seconds", "tokens", "sequential_steps")
BUDGETS = ("max_minutes", "max_steps")
LIBRARIES = ("smt-hf", "torch", "transformers", "python")


@dataclass(frozen=True)
class Record:
    """What is needed of run.json. None, or an empty text: the run has no such thing, or is not finished.

    phases: NAME:START-END:LEARNING_RATE of each, in shares of the budget. final: the last evaluation: of a
    task accuracy by length, of text and images bits by the end of each horizon; {} in the packed form.
    """

    dataset: str
    data_kind: str
    data_fingerprint: str
    sequence_length: int
    cell: str
    method: str
    seed: int
    phases: str
    max_minutes: float | None
    max_steps: int | None
    learning_rate: float
    batch_size: int
    hidden_size: int
    num_memory_tokens: int
    num_hidden_layers: int
    num_encoder_layers: int | None
    num_readout_layers: int
    parameters: int
    state_bytes: int
    bytes_per_token: float | None
    steps: int | None
    seconds: float | None
    tokens: int | None
    sequential_steps: int | None
    machine: str
    versions: str
    command: str
    commit: str
    status: str = "finished"
    final: dict[int, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Evaluation:
    """Free-running on validation rows while training. value: accuracy or bits. drift: by horizon."""

    step: int
    seconds: float
    tokens: int
    sequential_steps: int
    phase: str
    progress: float | None
    value: float
    drift: Mapping[int, float]


@dataclass(frozen=True)
class Run:
    """What a run left; `probes` as `smt_hf/experiments/probes.py` describes them."""

    name: str
    record: Record | None = None
    evaluations: list[Evaluation] = field(default_factory=list)
    probes: dict[str, Any] | None = None


@dataclass(frozen=True)
class Study:
    folder: Path
    rows: list[Row]
    runs: dict[str, Run]

    @property
    def name(self) -> str:
        return self.rows[0]["experiment"]

    @property
    def metric(self) -> str:
        """In words: accuracy, bits per byte or bits per dimension."""
        return self.rows[0]["metric"].replace("_", " ")

    @property
    def chance(self) -> float | None:
        return self.rows[0]["chance"]


def read_live(folder: Path) -> Study | None:
    """The study that an experiment left in a folder; None if its table has no rows.

    Raises ValueError for a table or probes of another version, and for a file that is not JSON.
    """
    rows = read_results(folder / FILE)
    metrics = {row["run"]: row["metric"] for row in rows}
    runs = {name: read_run(folder / name, metric.replace("_", " ")) for name, metric in metrics.items()}
    return Study(folder, rows, runs) if rows else None


def read_run(folder: Path, metric: str | None = None) -> Run:
    """The files of a run. metric: that of its evaluations, in words; None: what run.json says.

    Raises ValueError for probes of another version, for a file that is not JSON, and for one that lacks a name.
    """
    record, lines, probes = folder / "run.json", folder / "metrics.jsonl", folder / PROBES
    known = read_record(record) if record.is_file() else None
    if metric is None and known is not None:
        metric = METRICS[known.data_kind].replace("_", " ")
    bytes_per_token = known.bytes_per_token if known is not None else None
    evaluations = []
    for text in lines.read_text(encoding="utf-8").splitlines() if lines.is_file() else ():
        line = parse(lines, text)
        if "evaluation" not in line or metric is None:
            continue
        found = line["evaluation"]
        value = in_metric(found, metric, bytes_per_token)
        if value is not None:
            drift = {part["horizon"]: part["drift"] for part in found.get("drift") or []}
            costs = {name: line[name] for name in ("step", "seconds", "tokens", "sequential_steps")}
            phase, progress = line.get("phase", ""), line.get("progress")
            evaluations.append(Evaluation(**costs, phase=phase, progress=progress, value=value, drift=drift))
    return Run(folder.name, known, evaluations, read_probes(probes) if probes.is_file() else None)


def read_record(path: Path) -> Record:
    """The one reader of run.json in this room. Raises ValueError for a file that is no record of a run."""
    found = parse(path, path.read_text(encoding="utf-8"))
    try:
        arguments, model, versions = found["arguments"], found["model"], found["versions"]
        kept: dict[str, Any] = {name: found[name] for name in ALWAYS} | {name: model[name] for name in SIZES}
        kept |= {name: found.get(name) for name in COSTS}
        kept |= {name: arguments.get(name) for name in BUDGETS}
        phases = (f"{p['name']}:{p['start']:g}-{p['end']:g}:{p['learning_rate']:g}" for p in found["phases"])
        told = (f"{name} {versions[name]}" for name in LIBRARIES if name in versions)
        return Record(
            **kept,
            phases=" ".join(phases),
            learning_rate=arguments["learning_rate"],
            batch_size=arguments["batch_size"],
            num_encoder_layers=(found.get("teacher") or {}).get("num_hidden_layers"),
            versions=", ".join(told),
            command=shlex.join(found["command"]),
            commit=found["git_commit"] or "",
            final=final_figures(
                found.get("final"), kept["data_kind"], kept["sequence_length"], kept["bytes_per_token"]
            ),
        )
    except KeyError as error:
        raise ValueError(
            f"{path} has no {error}; it is no record of smt-hf pretrain, or one of another version."
        ) from error


def final_figures(
    final: dict[str, Any] | None, kind: str, length: int, bytes_per_token: float | None
) -> dict[int, float]:
    if not final:
        return {}
    if kind == "task" or bytes_per_token is None:
        return {length: final["accuracy"]}
    return {part["end"]: bits_per_byte(part["loss"], bytes_per_token) for part in final["by_horizon"]}


def in_metric(metrics: dict[str, Any], metric: str, bytes_per_token: float | None) -> float | None:
    """loss (nats per token) or accuracy as the results table has it; None where the bytes are not known."""
    if metric == "accuracy":
        return metrics["accuracy"]
    if metric == "bits per dimension":
        return bits_per_byte(metrics["loss"], 1.0)
    return None if bytes_per_token is None else bits_per_byte(metrics["loss"], bytes_per_token)


def read_probes(path: Path) -> dict[str, Any]:
    found = parse(path, path.read_text(encoding="utf-8"))
    if found.get("format") != PROBES_FORMAT:
        raise ValueError(
            f"{path} has format {found.get('format')} (this version reads format {PROBES_FORMAT}); "
            "read it with the version that wrote it, or delete it."
        )
    return found


def parse(path: Path, text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}); delete it, or make it again.") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds {type(found).__name__} where an object belongs; delete it.")
    return found
