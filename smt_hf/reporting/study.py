"""A study: what one experiment found, and how it is read from the folder that `smt-hf experiment` leaves.

The folder has results.csv, and for each run a folder with run.json, metrics.jsonl and probes.json. Any of the
three may be missing: what needs it is left out. `packed.py` reads the same from a form for repositories.
"""

import json
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any

from smt_hf.data.kinds import METRICS, bits_per_byte
from smt_hf.runs.record import RunRecord
from smt_hf.runs.results import FILE, Row, read_results

PROBES_FORMAT = 1
PROBES = "probes.json"
# What is kept of a record under its own name: of its model, of a finished run, of its settings.
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

    Raises ValueError for probes of another version, for a file that is not JSON, and for one that lacks a name
    or holds another kind of value.
    """
    try:
        return read_files(folder, metric)
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        raise ValueError(f"the files of the run in {folder} hold what no run writes ({error}).") from error


def read_files(folder: Path, metric: str | None) -> Run:
    lines, probes = folder / "metrics.jsonl", folder / PROBES
    record = RunRecord.read(folder)
    known = None if record is None else of_record(record)
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


def of_record(record: RunRecord) -> Record:
    """What this room needs of a record."""
    names = {f.name for f in fields(Record)}
    kept: dict[str, Any] = {name: getattr(record, name) for name in names if hasattr(record, name)}
    kept |= {name: record.model[name] for name in SIZES}
    kept |= {name: record.spec.get(name) for name in (*BUDGETS, "learning_rate", "batch_size")}
    if not record.finished:
        kept |= dict.fromkeys(COSTS)
    kept["data_fingerprint"] = record.data_fingerprint or ""
    phases = (f"{p['name']}:{p['start']:g}-{p['end']:g}:{p['learning_rate']:g}" for p in record.phases)
    versions = (f"{name} {record.versions[name]}" for name in LIBRARIES if name in record.versions)
    return Record(
        **kept
        | {
            "phases": " ".join(phases),
            "num_encoder_layers": (record.teacher or {}).get("num_hidden_layers"),
            "versions": ", ".join(versions),
            "command": shlex.join(record.command),
            "commit": record.git_commit or "",
            "final": final_figures(
                record.final, record.data_kind, record.sequence_length, record.bytes_per_token
            ),
        }
    )


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


def read_record(folder: Path, name: str) -> dict[str, Any]:
    """A stored benchmark or trial, NAME.json."""
    path = folder / f"{name}.json"
    return parse(path, path.read_text(encoding="utf-8"))


def tables_of_records(
    folder: Path, makers: dict[str, tuple[str, Callable[[Any], list[str]]]]
) -> dict[str, Callable[[], list[str]]]:
    """Name → what makes the table, of makers whose file is there: a file, and what takes its rows."""

    def made(file: str, make: Callable[[Any], list[str]]) -> list[str]:
        record = read_record(folder, file)
        return make(record["rows"] if "rows" in record else record["runs"])

    there = {name: one for name, one in makers.items() if (folder / f"{one[0]}.json").is_file()}
    return {name: partial(made, *one) for name, one in there.items()}
