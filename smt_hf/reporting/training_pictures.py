"""Pictures of how well and how fast each method learned: by length, while training, and how far it reaches."""

import math
import statistics
from collections.abc import Callable
from typing import Any

from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullLocator

from .drawing import (
    Picture,
    canvas,
    draw_score_axis,
    finish,
    line_look,
    means_and_spans,
    name_of,
    plain_powers,
    powers_of_two,
    styled,
)
from .findings import best_runs, cells_of, gradient_reach, handover, mean_drift, parts, teacher_values
from .formats import AXES, cell_name
from .groups import Key, best_groups, groups_of, values_by_length
from .looks import INK, look
from .study import Evaluation, Run, Study

SMALLEST = 1e-9  # gradients below it are shown as none


def panels(study: Study, measure: Callable[[list[Run]], Any]) -> dict[int, dict[Key, Any]]:
    """Training length → best group of the recipe as it is → what `measure` finds in its runs, if anything."""
    found = {
        length: {key: one for key, runs in best_runs(study, part).items() if (one := measure(runs))}
        for length, part in parts(study).items()
    }
    return {length: groups for length, groups in found.items() if groups}


@styled
def score_by_length(study: Study) -> Picture | None:
    """The value at each length tested, one panel for each training length; bars span the seeds."""
    found = parts(study)
    if not found:
        return None
    cells, told = cells_of(study), []
    figure, axes = canvas(1, len(found), sharey=True)
    for axis, (length, part) in zip(axes[0], found.items(), strict=True):
        groups = groups_of(part)
        for key in best_groups(part):
            values = values_by_length(groups[key])
            means, spans = means_and_spans(values.values())
            axis.errorbar(
                list(values), means, yerr=spans, capsize=3, label=name_of(key), **line_look(key, cells)
            )
            shown = ", ".join(f"{mean:.3f} at {n}" for n, mean in zip(values, means, strict=True))
            told.append(f"trained at {length}, {name_of(key)}: {shown}")
        teachers = teacher_values(study, part)
        for cell, teacher in teachers.items():
            color = look(cell, cells)["color"]
            axis.axhline(statistics.fmean(teacher[0]), color=color, linewidth=1.2, linestyle="-.")
        if teachers:  # one entry in the legend, whatever the number of cells
            axis.plot([], [], color=INK, linewidth=1.2, linestyle="-.", label="teacher")
        tested = sorted({row["length_tested"] for row in part})
        powers_of_two(axis, tested)
        draw_score_axis(axis, study)
        axis.set_xlabel("tokens read")
        axis.set_title(f"trained at {length}", fontsize=11)
    axes[0, 0].set_ylabel(study.metric)
    finish(figure, axes)
    caption = (
        f"Free-running {study.metric} from a cold start by the number of tokens read; "
        "lines are means over seeds, bars their range, BPTT at its best learning rate."
    )
    return Picture("score", caption, f"{study.metric} by length. " + "; ".join(told) + ".", figure)


@styled
def learning_curves(study: Study) -> Picture | None:
    """Evaluations while training against tokens, seconds and sequential steps; one row per training length."""

    def curves_of(runs: list[Run]) -> list[list[Evaluation]]:
        return [run.evaluations for run in runs if run.evaluations]

    rows = panels(study, curves_of)
    if not rows:
        return None
    figure, axes = canvas(len(rows), len(AXES), width=3.9, height=3.0, sharey=True)
    for row, (length, curves) in zip(axes, rows.items(), strict=True):
        for axis, (quantity, label) in zip(row, AXES.items(), strict=True):
            for key, found in curves.items():
                for number, curve in enumerate(found):
                    draw_curve(axis, quantity, key, curve, cells_of(study), first=number == 0)
            draw_score_axis(axis, study)
            axis.set_xlabel(label)
            if quantity == "sequential_steps":  # a hundredth of the other method's, and to be seen
                axis.set_xscale("log")
                axis.xaxis.set_major_locator(LogLocator(subs=(1, 3), numticks=8))
                axis.xaxis.set_minor_locator(NullLocator())
            else:
                axis.xaxis.set_major_locator(MaxNLocator(5))
            axis.xaxis.set_major_formatter(EngFormatter(sep=""))
        row[0].set_ylabel(f"{study.metric}, trained at {length}")
    finish(figure, axes)
    caption = (
        "While training: the same evaluations against tokens seen, seconds, and sequential steps, that is cell "
        "applications that had to wait for one another; one line for each seed, with a bar where DMT begins."
    )
    names = dict.fromkeys(name_of(key) for curves in rows.values() for key in curves)
    alt = f"Learning curves of {', '.join(names)}."
    return Picture("curves", caption, alt, figure)


def draw_curve(
    axis: Any, quantity: str, key: Key, curve: list[Evaluation], cells: list[str], first: bool
) -> None:
    """One run. The first seed of a group carries its label and markers; the others are thinner lines."""
    shown = line_look(key, cells)
    if not first:
        shown |= {"marker": "none", "linewidth": 1}
    axis.plot(
        [getattr(one, quantity) for one in curve], [one.value for one in curve],
        label=name_of(key) if first else None, markersize=4, **shown,
    )  # fmt: skip
    if (last := handover(curve)) is not None:
        axis.plot(
            getattr(last, quantity), last.value, marker="|", color=shown["color"], markersize=16,
            markeredgewidth=2, linestyle="none", label="DMT begins" if first else None,
        )  # fmt: skip


@styled
def reach(study: Study) -> Picture | None:
    """The gradient of a loss by the distance of the token it teaches to remember."""
    rows = panels(study, gradient_reach)
    if not rows:
        return None
    told = []
    figure, axes = canvas(1, len(rows), sharey=True)
    for axis, (length, found) in zip(axes[0], rows.items(), strict=True):
        for key, norms in found.items():
            shown = [norm if norm >= SMALLEST else math.nan for norm in norms]
            every = max(1, len(norms) // 8)
            axis.plot(
                shown, label=name_of(key), markevery=every, markersize=5, **line_look(key, cells_of(study))
            )
            told.append(f"trained at {length}, {name_of(key)}: {norms[-1]:.1e} at distance {len(norms) - 1}")
        axis.set_yscale("log")
        plain_powers(axis.yaxis)
        axis.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axis.set_xlabel("tokens back")
        axis.set_title(f"trained at {length}", fontsize=11)
    axes[0, 0].set_ylabel("gradient, relative to the last token")
    finish(figure, axes)
    caption = (
        "How much of the gradient arrives at a token so far back: SMT's goes through the teacher, "
        "BPTT's through the unrolled cell; medians over seeds."
    )
    return Picture("gradient", caption, "Gradient norm by distance. " + "; ".join(told) + ".", figure)


@styled
def drift_by_horizon(study: Study) -> Picture | None:
    """Distance of the free-running memory from the teacher's, before and after DMT."""

    def before_and_after(runs: list[Run]) -> list[dict[int, float]]:
        both = [mean_drift(runs, "smt"), mean_drift(runs, "dmt")]
        return both if any(both) else []

    rows = panels(study, before_and_after)
    if not rows:
        return None
    told = []
    figure, axes = canvas(1, len(rows), sharey=True)
    for axis, (length, found) in zip(axes[0], rows.items(), strict=True):
        for key, both in found.items():
            for values, when, style in zip(both, ("before DMT", "after DMT"), ("--", "-"), strict=True):
                if not values:
                    continue
                hollow = {"markerfacecolor": "none"} if style == "--" else {}
                axis.plot(
                    list(values), list(values.values()), linestyle=style, linewidth=2,
                    label=f"{cell_name(key.cell)}, {when}", **hollow, **look(key.cell, cells_of(study)),
                )  # fmt: skip
                horizon = max(values)
                told.append(
                    f"trained at {length}, {cell_name(key.cell)}, {when}: {values[horizon]:.3f} at {horizon}"
                )
        powers_of_two(axis, sorted({h for both in found.values() for values in both for h in values}))
        axis.set_xlabel("tokens since the start")
        axis.set_title(f"trained at {length}", fontsize=11)
    axes[0, 0].set_ylim(bottom=0)  # once all is drawn: it ends the scaling of every panel
    axes[0, 0].set_ylabel("drift")
    finish(figure, axes)
    caption = (
        "Drift, the mean squared distance between the free-running memory and the teacher's label, "
        "before and after DMT; means over seeds, and 2 would be two unrelated memories."
    )
    return Picture("drift", caption, "Drift by horizon. " + "; ".join(told) + ".", figure)


# Each draws its picture of a study, or gives None where there is nothing to show; in the order of the page.
DRAW = (score_by_length, learning_curves, reach, drift_by_horizon)
