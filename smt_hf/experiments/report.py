"""What an experiment found, from its results table alone: a table of 80 columns, and one picture."""

from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from typing import Any

from rich.table import Table

from smt_hf.evaluation.comparison import COMPACT, STYLES, short, spread

from .results import Row

# All of these have a contrast of at least 3 on white and on the near-black of dark pages, where the
# picture stands with a transparent background. The first four are Okabe & Ito's; markers differ as well.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#C2689A", "#8A6FD1")
MARKERS = ("o", "s", "^", "D", "v")
INK = "#767676"  # axes and text: as far from white as from black
INKED = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")


def group_key(row: Row) -> tuple[Any, ...]:
    """Runs that differ only in their seed."""
    return row["cell"], row["variant"], row["method"], row["learning_rate"]


def values_by_length(rows: Iterable[Row]) -> dict[int, list[float]]:
    """Length tested → the values of all seeds, lengths in order."""
    values: dict[int, list[float]] = {}
    for row in sorted(rows, key=lambda row: row["length_tested"]):
        values.setdefault(row["length_tested"], []).append(row["value"])
    return values


def groups_of(rows: list[Row]) -> dict[tuple[Any, ...], list[Row]]:
    """The rows of one training length by cell, variant, method and learning rate, SMT first."""
    ordered = sorted(
        rows, key=lambda row: (row["cell"], row["variant"], row["method"] != "smt", row["learning_rate"])
    )
    return {key: list(group) for key, group in groupby(ordered, key=group_key)}


def best_groups(rows: list[Row]) -> list[tuple[Any, ...]]:
    """Of each cell, variant and method the learning rate that did best where it was trained, by its mean.

    A task is judged at its training length, text and images over all their horizons.
    """
    chosen = []
    groups = groups_of(rows)
    for _, keys in groupby(groups, key=lambda key: key[:3]):
        scores = {}
        for key in keys:
            task = groups[key][0]["metric"] == "accuracy"
            at_home = [
                row["value"] for row in groups[key] if not task or row["length_tested"] == row["length_trained"]
            ]
            scores[key] = (1 if task else -1) * sum(at_home) / len(at_home)
        chosen.append(max(scores, key=scores.__getitem__))
    return chosen


def by_training_length(rows: list[Row]) -> dict[int, list[Row]]:
    lengths = sorted({row["length_trained"] for row in rows})
    return {length: [row for row in rows if row["length_trained"] == length] for length in lengths}


def results_tables(rows: list[Row]) -> list[Table]:
    """One table of at most 80 columns for each training length: the value at each length tested, free-running.

    Several seeds: mean ± half the range. s: seconds of training. seq.: sequential steps.
    """
    tables = []
    for length, part in by_training_length(rows).items():
        tested = sorted({row["length_tested"] for row in part})
        metric = part[0]["metric"].replace("_", " ")
        chance = "" if part[0]["chance"] is None else f", chance {part[0]['chance']:.3f}"
        varied = any(row["variant"] for row in part)
        # The names of variants are long: a cell that all of them share is named once, above.
        names = ["variant"] * varied + ["cell"] * (not varied or len({row["cell"] for row in part}) > 1)
        of_cell = "" if "cell" in names else f", {part[0]['cell']} cell"
        title = f"{part[0]['experiment']} trained at {length}: {metric}{chance}{of_cell}"
        table = Table(title=title, title_justify="left", **COMPACT)
        for name in names:
            table.add_column(name, overflow="fold")
        for name in ("method", "seeds", *map(str, tested), "s", "seq."):
            table.add_column(name, justify="left" if name == "method" else "right", no_wrap=True)
        best, groups = best_groups(part), groups_of(part)
        for key, group in groups.items():
            *_, method, rate = key
            choice = sum(other[:3] == key[:3] for other in groups) > 1
            star = "*" if choice and key in best else ""
            values = values_by_length(group)
            runs = {row["run"]: row for row in group}.values()
            table.add_row(
                *(group[0][name] for name in names),
                method if method == "smt" else f"{method} {rate:g}{star}",
                str(len({row["seed"] for row in group})),
                *(spread(values[n]) if n in values else "" for n in tested),
                f"{sum(row['seconds'] for row in runs) / len(runs):.0f}",
                short(round(sum(row["sequential_steps"] for row in runs) / len(runs))),
            )
        if any("*" in str(cell) for column in table.columns for cell in column.cells):
            table.caption, table.caption_justify = "* the best learning rate at the trained length", "left"
        tables.append(table)
    return tables


def plot_by_length(rows: list[Row], path: Path) -> None:
    """The picture: the value at each length tested, one panel for each training length.

    A line for each cell, variant and method (BPTT: its best learning rate); bars span the seeds.
    Transparent, and drawn in colours that are readable on a light and on a dark page.
    Raises ValueError if matplotlib is missing.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise ValueError(
            "the picture needs matplotlib; install it with pip install 'smt-hf[report]'."
        ) from error
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    panels = by_training_length(rows)
    series = sorted({(row["cell"], row["variant"]) for row in rows})
    style: Any = dict.fromkeys(INKED, INK) | {"font.size": 11}
    with plt.rc_context(style):
        figure, axes = plt.subplots(
            1, len(panels), figsize=(1.2 + 4.2 * len(panels), 4.2), sharey=True, squeeze=False,
            layout="constrained",
        )  # fmt: skip
        for axis, (length, part) in zip(axes[0], panels.items(), strict=True):
            draw_panel(axis, length, part, series)
        first = rows[0]
        axes[0, 0].set_ylabel(f"{first['metric'].replace('_', ' ')}, free-running")
        figure.suptitle(first["task"])
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150, transparent=True)
        plt.close(figure)


def draw_panel(axis: Any, length: int, rows: list[Row], series: list[tuple[str, str]]) -> None:
    groups = groups_of(rows)
    for key in best_groups(rows):
        cell, variant, method, rate = key
        values = values_by_length(groups[key])
        means = [sum(seeds) / len(seeds) for seeds in values.values()]
        spans = [
            [mean - min(seeds) for mean, seeds in zip(means, values.values(), strict=True)],
            [max(seeds) - mean for mean, seeds in zip(means, values.values(), strict=True)],
        ]
        number = series.index((cell, variant))
        axis.errorbar(
            list(values),
            means,
            yerr=spans,
            capsize=3,
            linewidth=2,
            linestyle=STYLES[method],
            color=COLORS[number % len(COLORS)],
            marker=MARKERS[number % len(MARKERS)],
            markerfacecolor="none" if method == "bptt" else None,
            label=", ".join(filter(None, (cell, variant)))
            + ", "
            + ("SMT → DMT" if method == "smt" else f"BPTT ({rate:g})"),
        )
    tested = sorted({row["length_tested"] for row in rows})
    axis.set_xscale("log", base=2)
    axis.set_xticks(tested, [str(n) for n in tested])
    axis.minorticks_off()
    axis.set_xlabel("tokens read")
    axis.grid(alpha=0.3, color=INK)
    axis.set_title(f"trained at {length}")
    if rows[0]["metric"] == "accuracy":
        axis.set_ylim(0, 1.03)
        axis.axvline(length, color=INK, linewidth=1, linestyle=":")
        if rows[0]["chance"] is not None:
            axis.axhline(rows[0]["chance"], color=INK, linewidth=1, linestyle=":")
            axis.annotate("chance", (tested[-1], rows[0]["chance"]), ha="right", va="top", fontsize=9)
