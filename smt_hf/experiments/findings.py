"""The numbers behind each picture, read from the stored files of an experiment and of its runs.

A run that is listed in the results table may lack its folder, or any file in it: what needs the file is left
out.
"""

import json
import shlex
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise, zip_longest
from pathlib import Path
from typing import Any, NamedTuple

from smt_hf.evaluation.metrics import bits_per_byte
from smt_hf.runs.spec import load_preset

from .report import Key, best_groups, by_training_length, groups_of, scores
from .results import Row, read_results

PROBES_FORMAT = 1
# A variant that changes nothing but these is another size of memory.
SIZES = {"hidden-size", "num-memory-tokens"}


class RunFiles(NamedTuple):
    """What a run left. record: run.json. lines: metrics.jsonl. probes: probes.json."""

    record: dict[str, Any] | None
    lines: list[dict[str, Any]]
    probes: dict[str, Any] | None


@dataclass(frozen=True)
class Experiment:
    folder: Path
    rows: list[Row]
    runs: dict[str, RunFiles]

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

    def parts(self, variants: bool = False) -> dict[int, list[Row]]:
        """Training length → its rows: of the recipe as it is, or with those of variants too."""
        return by_training_length([row for row in self.rows if variants or not row["variant"]])

    def best_runs(self, part: list[Row]) -> dict[Key, list[RunFiles]]:
        """Of each variant, cell and method: the files of the runs with the best learning rate, by seed."""
        groups, found = groups_of(part), {}
        for key in best_groups(part):
            names = {row["seed"]: row["run"] for row in groups[key]}
            found[key] = [self.runs[names[seed]] for seed in sorted(names)]
        return found


def read_experiment(table: Path) -> Experiment | None:
    """An experiment from its results table and the run folders beside it; None if the table has no rows.

    Raises ValueError for a table or probes of another version, and for a file that is not JSON.
    """
    rows = read_results(table)
    names = dict.fromkeys(row["run"] for row in rows)
    return (
        Experiment(table.parent, rows, {name: read_run(table.parent / name) for name in names})
        if rows
        else None
    )


def read_run(folder: Path) -> RunFiles:
    """The files of a run. Raises ValueError for probes of another version, and for a file that is not JSON."""
    record, probes = folder / "run.json", folder / "probes.json"
    metrics = folder / "metrics.jsonl"
    lines = metrics.read_text(encoding="utf-8").splitlines() if metrics.is_file() else []
    files = RunFiles(
        parse(record, record.read_text(encoding="utf-8")) if record.is_file() else None,
        [parse(metrics, line) for line in lines],
        parse(probes, probes.read_text(encoding="utf-8")) if probes.is_file() else None,
    )
    if files.probes is not None and files.probes.get("format") != PROBES_FORMAT:
        raise ValueError(
            f"{probes} has format {files.probes.get('format')} (this version reads format {PROBES_FORMAT}); "
            "read it with the version that wrote it, or delete it."
        )
    return files


def parse(path: Path, text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}); delete it, or make it again.") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds {type(found).__name__} where an object belongs; delete it.")
    return found


def in_metric(metrics: dict[str, Any], metric: str, run: RunFiles) -> float | None:
    """loss (nats per token) or accuracy as the results table has it; None if run.json is missing and needed."""
    if metric == "accuracy":
        return metrics["accuracy"]
    if metric == "bits per dimension":
        return bits_per_byte(metrics["loss"], 1.0)
    if run.record is None:
        return None
    return bits_per_byte(metrics["loss"], run.record["bytes_per_token"])


def learning_curve(run: RunFiles, metric: str) -> list[dict[str, Any]]:
    """The evaluations of a run, each with its `value`."""
    curve = [
        {**line, "value": in_metric(line["evaluation"], metric, run)}
        for line in run.lines
        if "evaluation" in line
    ]
    return [line for line in curve if line["value"] is not None]


def handover(curve: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The last evaluation before DMT began; None of a run without both phases."""
    phases = [line["phase"] for line in curve]
    if "smt" not in phases or "dmt" not in phases:
        return None
    return [line for line in curve if line["phase"] == "smt"][-1]


def drift(run: RunFiles, phase: str) -> dict[int, float]:
    """Horizon → drift at the last evaluation of a phase: "smt" is before DMT, "dmt" after it."""
    found = [
        line["evaluation"].get("drift")
        for line in run.lines
        if line.get("phase") == phase and "evaluation" in line
    ]
    return {part["horizon"]: part["drift"] for part in (found[-1] or [])} if found else {}


def mean_drift(runs: Iterable[RunFiles], phase: str) -> dict[int, float]:
    """The same, as the mean over runs."""
    values: dict[int, list[float]] = {}
    for run in runs:
        for horizon, value in drift(run, phase).items():
            values.setdefault(horizon, []).append(value)
    return {horizon: statistics.fmean(values[horizon]) for horizon in sorted(values)}


def gradient_reach(runs: Iterable[RunFiles]) -> list[float]:
    """Entry d: the median over runs of the relative gradient norm d tokens back; [] without probes."""
    reaches = [run.probes["gradient_reach"] for run in runs if run.probes and run.probes.get("gradient_reach")]
    return [statistics.median(x for x in found if x is not None) for found in zip_longest(*reaches)]


def teacher_values(experiment: Experiment, part: list[Row]) -> dict[str, dict[int, list[float]]]:
    """Cell → length tested → what the teacher's own labels and readout score, for each seed.

    A task: at the training length. Text and images: at the end of each horizon, and over all as length 0.
    """
    found: dict[str, dict[int, list[float]]] = {}
    for key, runs in experiment.best_runs(part).items():
        for run in runs if key.method == "smt" and not key.variant else []:
            teacher = (run.probes or {}).get("teacher")
            whole = teacher and in_metric(teacher, experiment.metric, run)
            if teacher is None or whole is None:
                continue
            values = found.setdefault(key.cell, {})
            values.setdefault(0, []).append(whole)
            if experiment.metric == "accuracy":
                values.setdefault(part[0]["length_trained"], []).append(whole)
            for horizon in teacher.get("by_horizon") or [] if experiment.metric != "accuracy" else []:
                value = in_metric(horizon, experiment.metric, run)
                assert value is not None  # as the whole was not
                values.setdefault(horizon["end"], []).append(value)
    return found


def variant_names(variant: str) -> set[str]:
    return {change.split("=")[0] for change in variant.split(",")} if variant else set()


def state_bytes(row: Row, run: RunFiles) -> int:
    """Bytes of the memory of one sequence, 4·K·D: of the record, or as the run's command has it."""
    if run.record is not None:
        return run.record["state_bytes"]
    words = shlex.split(row["command"])
    options = dict(pairwise(words))
    _, model = load_preset(options.get("--preset", "small"), "")
    width = int(options.get("--hidden-size", model["hidden_size"]))
    return 4 * width * int(options.get("--num-memory-tokens", model["num_memory_tokens"]))


Series = tuple[str, str]  # cell, method


def compression(experiment: Experiment, part: list[Row]) -> dict[Series, dict[int, list[float]]]:
    """Cell and method → bytes of state → the scores of all seeds; {} unless there is more than one size."""
    found: dict[Series, dict[int, list[float]]] = {}
    groups = groups_of(part)
    for key in best_groups(part):
        if variant_names(key.variant) <= SIZES:
            row = groups[key][0]
            size = state_bytes(row, experiment.runs[row["run"]])
            found.setdefault((key.cell, key.method), {}).setdefault(size, []).extend(scores(groups[key]))
    several = {series: dict(sorted(sizes.items())) for series, sizes in found.items() if len(sizes) > 1}
    return several


def ablations(part: list[Row]) -> dict[Series, dict[str, list[float]]]:
    """Cell and method → variant → the scores of all seeds; "" is the recipe as it is; without sizes."""
    found: dict[Series, dict[str, list[float]]] = {}
    groups = groups_of(part)
    for key in best_groups(part):
        if not variant_names(key.variant) or not variant_names(key.variant) <= SIZES:
            found.setdefault((key.cell, key.method), {})[key.variant] = scores(groups[key])
    return {series: variants for series, variants in found.items() if set(variants) - {""}}


class Summary(NamedTuple):
    """A line of the table on top: the scores of all seeds where they were trained; [] where there is none."""

    length: int
    cell: str
    smt: list[float]
    bptt: list[float]
    bptt_learning_rate: float | None
    teacher: list[float]


def summary(experiment: Experiment) -> list[Summary]:
    """One line for each training length and cell of the recipe as it is."""
    lines = []
    for length, part in experiment.parts().items():
        groups, teachers = groups_of(part), teacher_values(experiment, part)
        best = {(key.cell, key.method): key for key in best_groups(part)}
        for cell in sorted({row["cell"] for row in part}):
            smt, bptt = best.get((cell, "smt")), best.get((cell, "bptt"))
            lines.append(
                Summary(
                    length, cell,
                    scores(groups[smt]) if smt else [],
                    scores(groups[bptt]) if bptt else [],
                    bptt.learning_rate if bptt else None,
                    teachers.get(cell, {}).get(0, []),
                )
            )  # fmt: skip
    return lines
