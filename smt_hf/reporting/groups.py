"""Groups of runs that differ only in their seed, from the results table of an experiment alone."""

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from smt_hf.runs.results import Row


class Key(NamedTuple):
    """Runs that differ only in their seed. variant: "" is the recipe as it is."""

    variant: str
    cell: str
    method: str
    learning_rate: float


class Line(NamedTuple):
    """One line of a results table. values: length tested → one for each seed; seconds, steps: means."""

    key: Key
    chosen: bool  # the best of several learning rates
    rival: bool  # another of them
    seeds: int
    values: dict[int, list[float]]
    seconds: float
    sequential_steps: float


def place(rows: list[Row], order: Sequence[str]) -> tuple[int, int]:
    """Sorts results tables: as `order` lists experiments, those of none last, and of one the shortest first."""
    name = rows[0]["experiment"]
    return order.index(name) if name in order else len(order), min(row["length_trained"] for row in rows)


def group_key(row: Row) -> Key:
    return Key(row["variant"] or "", row["cell"], row["method"], row["learning_rate"])


def values_by_length(rows: Iterable[Row]) -> dict[int, list[float]]:
    """Length tested → the values of all seeds, lengths in order."""
    values: dict[int, list[float]] = {}
    for row in sorted(rows, key=lambda row: row["length_tested"]):
        values.setdefault(row["length_tested"], []).append(row["value"])
    return values


def scores(rows: list[Row]) -> list[float]:
    """The one figure of each run among the rows: where it was trained.

    A task: the accuracy at the training length. Text and images: bits over all horizons, each weighed by the
    tokens in it. A run that was not tested at its training length has none.
    """
    figures = []
    for run in dict.fromkeys(row["run"] for row in rows):
        mine = sorted((row for row in rows if row["run"] == run), key=lambda row: row["length_tested"])
        if mine[0]["metric"] == "accuracy":
            figures += [row["value"] for row in mine if row["length_tested"] == row["length_trained"]]
        else:
            ends = [row["length_tested"] for row in mine]
            widths = [end - start for start, end in zip([0, *ends], ends, strict=False)]
            weighed = (row["value"] * width for row, width in zip(mine, widths, strict=True))
            figures.append(sum(weighed) / sum(widths))
    return figures


def groups_of(rows: list[Row]) -> dict[Key, list[Row]]:
    """The rows of one training length by variant, cell, method and learning rate, SMT first."""

    def order(row: Row) -> tuple[Any, ...]:
        key = group_key(row)
        return key.variant, key.cell, key.method != "smt", key.learning_rate

    return {key: list(group) for key, group in groupby(sorted(rows, key=order), key=group_key)}


def best_groups(rows: list[Row]) -> list[Key]:
    """Of each variant, cell and method the learning rate with the best `scores`, by the mean over seeds.

    Of several that are as good, the one that is best over all lengths tested.
    """
    chosen = []
    groups = groups_of(rows)
    for _, keys in groupby(groups, key=lambda key: key[:3]):
        means = {}
        for key in keys:
            figures = scores(groups[key])
            sign = 1 if groups[key][0]["metric"] == "accuracy" else -1
            overall = [row["value"] for row in groups[key]]
            means[key] = (
                sign * sum(figures) / len(figures) if figures else float("-inf"),
                sign * sum(overall) / len(overall),
            )
        chosen.append(max(means, key=means.__getitem__))
    return chosen


def by_training_length(rows: list[Row]) -> dict[int, list[Row]]:
    lengths = sorted({row["length_trained"] for row in rows})
    return {length: [row for row in rows if row["length_trained"] == length] for length in lengths}


def result_lines(rows: list[Row]) -> list[Line]:
    """The lines of the table of one training length."""
    best, groups = best_groups(rows), groups_of(rows)
    lines = []
    for key, group in groups.items():
        runs = {row["run"]: row for row in group}.values()
        several = sum(other[:3] == key[:3] for other in groups) > 1
        lines.append(
            Line(
                key,
                chosen=several and key in best,
                rival=several and key not in best,
                seeds=len({row["seed"] for row in group}),
                values=values_by_length(group),
                seconds=sum(row["seconds"] for row in runs) / len(runs),
                sequential_steps=sum(row["sequential_steps"] for row in runs) / len(runs),
            )
        )
    return lines
