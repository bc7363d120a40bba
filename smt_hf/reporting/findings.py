"""The numbers behind each picture and each table, from what a study has.

A run that is listed in the results table may lack its record, its evaluations or its probes: what needs them is
left out.
"""

import statistics
from collections.abc import Iterable
from itertools import zip_longest
from typing import NamedTuple

from smt_hf.runs.results import Row

from .groups import Key, best_groups, by_training_length, groups_of, scores
from .study import Evaluation, Run, Study, in_metric

# A variant that changes nothing but these is another size of memory.
SIZES = {"hidden-size", "num-memory-tokens"}
# Variants of a recipe that are a preset of their own, so that users may have them by its name.
PRESETS = {"projected": "text"}


def parts(study: Study, variants: bool = False) -> dict[int, list[Row]]:
    """Training length → its rows: of the recipe as it is, or with those of variants too."""
    return by_training_length([row for row in study.rows if variants or not row["variant"]])


def cells_of(study: Study) -> list[str]:
    return sorted({row["cell"] for row in study.rows})


def best_runs(study: Study, part: list[Row]) -> dict[Key, list[Run]]:
    """Of each variant, cell and method: the runs with the best learning rate, by seed."""
    groups, found = groups_of(part), {}
    for key in best_groups(part):
        names = {row["seed"]: row["run"] for row in groups[key]}
        found[key] = [study.runs[names[seed]] for seed in sorted(names)]
    return found


def shown_runs(study: Study, probe: str) -> list[tuple[int, Key, Run]]:
    """Of each best group of the recipe as it is the first run with the probe: training length, group, run.

    Of several training lengths the longest that has any.
    """
    for length, part in reversed(parts(study).items()):
        found = []
        for key, runs in best_runs(study, part).items():
            probed = [run for run in runs if run.probes and run.probes.get(probe)]
            found += [(length, key, probed[0])] if probed else []
        if found:
            return found
    return []


def handover(curve: list[Evaluation]) -> Evaluation | None:
    """The last evaluation before DMT began; None of a run without both phases."""
    phases = [one.phase for one in curve]
    if "smt" not in phases or "dmt" not in phases:
        return None
    return [one for one in curve if one.phase == "smt"][-1]


def drift(run: Run, phase: str) -> dict[int, float]:
    """Horizon → drift at the last evaluation of a phase: "smt" is before DMT, "dmt" after it."""
    found = [one.drift for one in run.evaluations if one.phase == phase]
    return dict(found[-1]) if found else {}


def mean_drift(runs: Iterable[Run], phase: str) -> dict[int, float]:
    """The same, as the mean over runs."""
    values: dict[int, list[float]] = {}
    for run in runs:
        for horizon, value in drift(run, phase).items():
            values.setdefault(horizon, []).append(value)
    return {horizon: statistics.fmean(values[horizon]) for horizon in sorted(values)}


def gradient_reach(runs: Iterable[Run]) -> list[float]:
    """Entry d: the median over runs of the relative gradient norm d tokens back; [] without probes."""
    reaches = [run.probes["gradient_reach"] for run in runs if run.probes and run.probes.get("gradient_reach")]
    return [statistics.median(x for x in found if x is not None) for found in zip_longest(*reaches)]


def teacher_values(study: Study, part: list[Row], variant: str = "") -> dict[str, dict[int, list[float]]]:
    """Cell → length tested → what the teacher's own labels and readout score, for each seed of a variant.

    A task: at the training length. Text and images: at the end of each horizon, and over all as length 0.
    """
    found: dict[str, dict[int, list[float]]] = {}
    for key, runs in best_runs(study, part).items():
        for run in runs if key.method == "smt" and key.variant == variant else []:
            teacher = (run.probes or {}).get("teacher")
            bytes_per_token = run.record.bytes_per_token if run.record else None
            whole = in_metric(teacher, study.metric, bytes_per_token) if teacher else None
            if teacher is None or whole is None:
                continue
            values = found.setdefault(key.cell, {})
            values.setdefault(0, []).append(whole)
            if study.metric == "accuracy":
                values.setdefault(part[0]["length_trained"], []).append(whole)
            for horizon in teacher.get("by_horizon") or [] if study.metric != "accuracy" else []:
                value = in_metric(horizon, study.metric, bytes_per_token)
                assert value is not None  # as the whole was not
                values.setdefault(horizon["end"], []).append(value)
    return found


def variant_names(variant: str) -> set[str]:
    return {change.split("=")[0] for change in variant.split(",")} if variant else set()


Series = tuple[str, str]  # cell, method


def compression(study: Study, part: list[Row]) -> dict[Series, dict[int, list[float]]]:
    """Cell and method → bytes of state → the scores of all seeds; {} unless there is more than one size."""
    found: dict[Series, dict[int, list[float]]] = {}
    groups = groups_of(part)
    for key in best_groups(part):
        if variant_names(key.variant) <= SIZES:
            record = study.runs[groups[key][0]["run"]].record
            if record is not None:
                sizes = found.setdefault((key.cell, key.method), {})
                sizes.setdefault(record.state_bytes, []).extend(scores(groups[key]))
    return {series: dict(sorted(sizes.items())) for series, sizes in found.items() if len(sizes) > 1}


def ablations(part: list[Row]) -> dict[Series, dict[str, list[float]]]:
    """Cell and method → variant → the scores of all seeds; "" is the recipe as it is; without sizes."""
    found: dict[Series, dict[str, list[float]]] = {}
    groups = groups_of(part)
    for key in best_groups(part):
        if not variant_names(key.variant) or not variant_names(key.variant) <= SIZES:
            found.setdefault((key.cell, key.method), {})[key.variant] = scores(groups[key])
    return {series: variants for series, variants in found.items() if set(variants) - {""}}


class Summary(NamedTuple):
    """A line of the table on top: the scores of all seeds where they were trained; [] where there is none.

    variant: of SMT, empty for the recipe as it is; BPTT is that of the recipe.
    """

    length: int
    cell: str
    smt: list[float]
    bptt: list[float]
    bptt_learning_rate: float | None
    teacher: list[float]
    variant: str = ""

    @property
    def preset(self) -> str:
        """What follows the name of what the line is of."""
        return f", preset {PRESETS[self.variant]}" if self.variant else ""


def summary(study: Study) -> list[Summary]:
    """One line for each training length and cell of the recipe as it is, and one for a preset's variant."""
    lines = []
    for length, part in parts(study, variants=True).items():
        groups = groups_of(part)
        teachers = {variant: teacher_values(study, part, variant) for variant in ("", *PRESETS)}
        best = {(key.cell, key.variant, key.method): key for key in best_groups(part)}
        for cell in sorted({row["cell"] for row in part}):
            bptt = best.get((cell, "", "bptt"))
            for variant, values in teachers.items():
                smt = best.get((cell, variant, "smt"))
                if smt is None and (variant or bptt is None):
                    continue
                lines.append(
                    Summary(
                        length, cell,
                        scores(groups[smt]) if smt else [],
                        scores(groups[bptt]) if bptt else [],
                        bptt.learning_rate if bptt else None,
                        values.get(cell, {}).get(0, []),
                        variant,
                    )
                )  # fmt: skip
    return lines
