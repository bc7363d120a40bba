"""Pictures of what was trained: sizes of memory, what each part is good for, memories, and drawn images."""

import statistics
from typing import Any

import numpy as np
from matplotlib.colors import to_rgba

from .drawing import (
    Picture,
    canvas,
    draw_score_axis,
    finish,
    line_look,
    means_and_spans,
    name_of,
    powers_of_two,
    styled,
)
from .findings import ablations, cells_of, compression, parts, shown_runs
from .formats import spread
from .groups import Key
from .looks import COLORS, INK
from .study import Study

COLUMNS = 8  # images in a row


@styled
def score_by_state_bytes(study: Study) -> Picture | None:
    """The score where it was trained by the bytes of the whole state."""
    sizes_of = {
        length: found
        for length, part in parts(study, variants=True).items()
        if (found := compression(study, part))
    }
    if not sizes_of:
        return None
    told = []
    figure, axes = canvas(1, len(sizes_of), sharey=True)
    for axis, (length, found) in zip(axes[0], sizes_of.items(), strict=True):
        for (cell, method), sizes in found.items():
            means, spans = means_and_spans(sizes.values())
            key = Key("", cell, method, 0.0)
            label, shown = name_of(key), line_look(key, cells_of(study))
            axis.errorbar(list(sizes), means, yerr=spans, capsize=3, label=label, **shown)
            told.append(
                f"{label}: "
                + ", ".join(f"{m:.3f} of {size} bytes" for size, m in zip(sizes, means, strict=True))
            )
        every = sorted({size for sizes in found.values() for size in sizes})
        powers_of_two(axis, every, [f"{n}" if n < 1024 else f"{n / 1024:g} k" for n in every])
        draw_score_axis(axis, study)
        axis.set_xlabel("bytes of state of a sequence")
        axis.set_title(f"trained at {length}", fontsize=11)
    axes[0, 0].set_ylabel(study.metric)
    finish(figure, axes)
    caption = f"What a smaller memory costs: {study.metric} by the bytes of the whole state, 4·K·D in float32."
    return Picture("compression", caption, f"{study.metric} by state. " + "; ".join(told) + ".", figure)


@styled
def variants(study: Study) -> Picture | None:
    """Bars for the variants of the recipe, with the recipe as it is as a line."""
    panels = [
        (length, series, found)
        for length, part in parts(study, variants=True).items()
        for series, found in ablations(part).items()
    ]
    if not panels:
        return None
    told = []
    names = sorted({name for *_, found in panels for name in found}, reverse=True)  # "" ends on top
    figure, axes = canvas(1, len(panels), width=3.6, height=0.7 + 0.42 * len(names), sharey=True)
    for axis, (length, (cell, method), found) in zip(axes[0], panels, strict=True):
        key = Key("", cell, method, 0.0)
        color = line_look(key, cells_of(study))["color"]
        for place, name in enumerate(names):
            values = found.get(name)
            if not values:
                continue
            (mean,), ends = means_and_spans([values])
            axis.barh(
                place, mean, xerr=ends if len(values) > 1 else None, height=0.62, edgecolor=color,
                facecolor=color if name == "" else to_rgba(color, 0.45), ecolor=INK, capsize=3,
            )  # fmt: skip
            beside = axis.get_yaxis_transform()  # x as a part of the panel: a column of figures at its right
            axis.text(1.03, place, spread(values), transform=beside, va="center", fontsize=9)
            told.append(f"{cell}, {method}, {name or 'the recipe as it is'}: {spread(values)}")
        if "" in found:
            axis.axvline(statistics.fmean(found[""]), color=color, linewidth=1.2, linestyle="--")
        if study.chance is not None:
            axis.axvline(study.chance, color=INK, linewidth=1, linestyle=":")
            axis.annotate(
                "chance", (study.chance, -0.62), xytext=(2, 0), textcoords="offset points", fontsize=8
            )
        axis.set_ylim(-0.75, len(names) - 0.4)
        if study.metric == "accuracy":
            axis.set_xlim(0, 1.04)
        axis.set_yticks(
            range(len(names)), [name.replace(",", ",\n") or "the recipe as it is" for name in names]
        )
        axis.set_xlabel(study.metric)
        axis.set_title(f"{name_of(key)}, trained at {length}", fontsize=11)
    finish(figure, axes)
    for axis in axes.flat:
        axis.grid(visible=False, axis="y")
    caption = f"One change of the recipe at a time: {study.metric}; dashed, the recipe as it is."
    return Picture("variants", caption, "Bars. " + "; ".join(told) + ".", figure)


def shown_probes(study: Study, probe: str) -> list[tuple[int, Key, dict[str, Any]]]:
    """`shown_runs`, with the probe of each in place of its run."""
    return [(length, key, run.probes[probe]) for length, key, run in shown_runs(study, probe) if run.probes]


def draw_points(axis: Any, points: np.ndarray, color: str) -> None:
    """Points (N, 2) as one line of round dots: in a page, a part of what as many markers take."""
    dot = np.array([[0.0, 0.0], [1e-4, 0.0], [np.nan, np.nan]])  # a start, an end beside it, and a gap
    xs, ys = (points[:, None] + dot).reshape(-1, 2).T
    (line,) = axis.plot(xs, ys, color=color, linewidth=4, alpha=0.55, solid_capstyle="round")
    line.get_path().should_simplify = False
    line.set_snap(False)  # moved to the centre of a pixel, both ends would be one, and nothing drawn


@styled
def memory_maps(study: Study) -> Picture | None:
    """Free-running memories in two dimensions, by what they should hold."""
    panels = shown_probes(study, "memory_map")
    if not panels:
        return None
    columns = min(2, len(panels))
    figure, axes = canvas(-(-len(panels) // columns), columns, width=3.7, height=3.5)
    for axis, (_, key, memory) in zip(axes.flat, panels, strict=False):
        points, groups = np.array(memory["points"]), np.array(memory["groups"])
        order = sorted(set(memory["groups"]), key=lambda group: (not group.isdigit(), len(group), group))
        for number, group in enumerate(order):
            draw_points(axis, points[groups == group], COLORS[number % len(COLORS)])
        for number, group in enumerate(order):  # above all points
            box = {"boxstyle": "round,pad=0.2", "facecolor": COLORS[number % len(COLORS)], "edgecolor": "none"}
            middle = np.median(points[groups == group], axis=0)
            axis.annotate(group, middle, ha="center", va="center", fontsize=9, color="white", bbox=box)
        axis.set_title(f"{name_of(key)} ({memory['explained']:.0%} of the variance)", fontsize=10)
        axis.set_xticks([])
        axis.set_yticks([])
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    finish(figure, axes)
    length, _, first = panels[0]
    by = first["group_by"]
    caption = (
        f"Free-running memories, trained at {length}, in their first two principal components; "
        f"coloured and labelled by {by}."
    )
    names = ", ".join(name_of(key) for _, key, _ in panels)
    return Picture("memory", caption, f"Scatter plots of memories by {by}: {names}.", figure)


def tile(images: list[list[int]], height: int, width: int, given: int | None = None) -> np.ndarray:
    """Up to 8 images side by side (height, 8·width + 7), with a gap between two; NaN where there is nothing.

    given: the number of pixels that are shown of each; None for all.
    """
    strip = np.full((height, COLUMNS * (width + 1) - 1), np.nan)
    for number, image in enumerate(images[:COLUMNS]):
        pixels = np.array(image, dtype=float)
        pixels[given if given is not None else len(pixels) :] = np.nan
        strip[:, number * (width + 1) : number * (width + 1) + width] = pixels.reshape(height, width)
    return strip


@styled
def image_samples(study: Study) -> Picture | None:
    """Images, what was given of them, how the model goes on, and what it draws from nothing."""
    panels = shown_probes(study, "images")
    if not panels:
        return None
    columns = min(2, len(panels))
    figure, axes = canvas(-(-len(panels) // columns), columns, width=4.6, height=1.6)
    for axis, (length, key, images) in zip(axes.flat, panels, strict=False):
        height, width, gap = images["height"], images["width"], max(1, images["height"] // 8)
        strips = {
            "original": tile(images["originals"], height, width),
            "given": tile(images["originals"], height, width, images["given"])[: -(-images["given"] // width)],
            "completed": tile(images["completed"], height, width),
            "generated": tile(images["generated"], height, width),
        }
        space = np.full((gap, COLUMNS * (width + 1) - 1), np.nan)
        rows = [row for strip in strips.values() for row in (strip, space)][:-1]
        starts = np.cumsum([0, *(len(strip) + gap for strip in strips.values())])
        middles = [start + (len(strip) - 1) / 2 for start, strip in zip(starts, strips.values(), strict=False)]
        axis.imshow(
            np.concatenate(rows), cmap="gray", vmin=0, vmax=images["levels"] - 1, interpolation="nearest"
        )
        axis.set_yticks(middles, list(strips))
        axis.set_xticks([])
        axis.tick_params(length=0)
        axis.set_title(f"{name_of(key)}, trained at {length}", fontsize=11)
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    finish(figure, axes)
    for axis in axes.flat:
        axis.grid(visible=False)
        axis.spines[:].set_visible(False)
    caption = (
        "Validation images, the part of them that was given, how the model went on, and images from nothing."
    )
    return Picture(
        "images", caption, f"Grids of images by {', '.join(name_of(key) for _, key, _ in panels)}.", figure
    )


# Each draws its picture of a study, or gives None where there is nothing to show; in the order of the page.
DRAW = (score_by_state_bytes, variants, memory_maps, image_samples)
