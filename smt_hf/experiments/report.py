"""What an experiment found, from its results table alone: its groups of runs, and a table of 80 columns."""

from collections.abc import Iterable
from itertools import groupby
from typing import Any, NamedTuple

from rich.table import Table

from smt_hf.evaluation.comparison import COMPACT, short, spread

from .recipes import EXPERIMENTS
from .results import Row


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


def place(rows: list[Row]) -> tuple[int, int]:
    """Sorts results tables: as recipes are listed, those of none last, and of one the shortest rows first."""
    names = list(EXPERIMENTS)
    name = rows[0]["experiment"]
    return names.index(name) if name in names else len(names), min(row["length_trained"] for row in rows)


def cell_name(cell: str) -> str:
    """What people are shown: of a cell given as module:Class, the class."""
    return cell.rpartition(":")[2]


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


def results_tables(rows: list[Row]) -> list[Table]:
    """One table of at most 80 columns for each training length: the value at each length tested, free-running.

    Several seeds: mean, and ± half the range below it. s: seconds of training. seq.: sequential steps.
    """
    tables = []
    for length, part in by_training_length(rows).items():
        tested = sorted({row["length_tested"] for row in part})
        metric = part[0]["metric"].replace("_", " ")
        chance = "" if part[0]["chance"] is None else f", chance {part[0]['chance']:.3f}"
        varied = any(row["variant"] for row in part)
        # The names of variants are long: a cell that all of them share is named once, above.
        names = ["variant"] * varied + ["cell"] * (not varied or len({row["cell"] for row in part}) > 1)
        of_cell = "" if "cell" in names else f", {cell_name(part[0]['cell'])} cell"
        title = f"{part[0]['experiment']} trained at {length}: {metric}{chance}{of_cell}"
        table = Table(title=title, title_justify="left", **COMPACT)
        for name in names:
            table.add_column(name, overflow="fold")
        for name in ("method", "seeds", *map(str, tested), "s", "seq."):
            table.add_column(name, justify="left" if name == "method" else "right", no_wrap=True)
        lines = result_lines(part)
        for line in lines:
            key, star = line.key, "*" if line.chosen else ""
            table.add_row(
                *(cell_name(key.cell) if name == "cell" else key.variant for name in names),
                key.method if key.method == "smt" else f"{key.method} {key.learning_rate:g}{star}",
                str(line.seeds),
                # The spread below its mean: beside it, four lengths would need 94 columns.
                *(spread(line.values[n]).replace("±", "\n±") if n in line.values else "" for n in tested),
                f"{line.seconds:.0f}",
                short(round(line.sequential_steps)),
            )
        if any(line.chosen for line in lines):
            table.caption, table.caption_justify = "* the best learning rate at the trained length", "left"
        tables.append(table)
    return tables
