"""How every picture is drawn: colours for light and dark pages, a legend below, PNG files and inline SVG."""

import html
import io
import math
import re
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from .formats import cell_name
from .groups import Key
from .looks import COLORS, INK, STYLES, look
from .study import Study

INKED = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
STYLE: dict[Any, Any] = dict.fromkeys(INKED, INK) | {
    "font.size": 11,
    "text.parse_math": False,  # a name may have dollar signs
    "legend.handlelength": 2.8,  # room for a dash and its marker
    "svg.fonttype": "none",  # text stays text: it can be found, and takes the page's font
    "svg.image_inline": True,
}
BESIDE = 2.6  # inches of a legend's entry
REFERENCES = ("chance", "teacher", "DMT begins")  # ends of labels that stand last in a legend
# In a page, colours are those of its style, which has lighter ones for dark pages.
PAGE_COLORS = {color: f"var(--color-{number})" for number, color in enumerate(COLORS)}
PAGE_COLORS |= {INK: "currentColor", "#FFFFFF": "var(--page)"}


@dataclass(frozen=True)
class Picture:
    """name: ends its file's name. caption: one sentence. alt: what it shows, for those who do not see it."""

    name: str
    caption: str
    alt: str
    figure: Figure

    @property
    def wide(self) -> bool:
        return self.figure.get_figwidth() > 7


def styled(draw: Any) -> Any:
    """matplotlib reads colours and sizes when things are made, so that drawing happens inside the style."""
    return rc_context(STYLE)(draw)


def canvas(
    rows: int, columns: int, width: float = 4.2, height: float = 3.3, **shared: Any
) -> tuple[Figure, Any]:
    """A figure and its panels (rows, columns); width, height: inches of one."""
    figure = Figure(figsize=(1.2 + width * columns, 0.9 + height * rows), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **shared)


def means_and_spans(values: Iterable[list[float]]) -> tuple[list[float], list[list[float]]]:
    """The mean over seeds at each point, and how far the least lies below it and the most above it."""
    means, below, above = [], [], []
    for seeds in values:
        mean = statistics.fmean(seeds)
        means.append(mean)
        below.append(max(0.0, mean - min(seeds)))  # a mean may be rounded past its only value
        above.append(max(0.0, max(seeds) - mean))
    return means, [below, above]


def line_look(key: Key, cells: Iterable[str]) -> dict[str, Any]:
    """How a line of a cell and method is drawn: the cell by colour and marker, BPTT dashed and hollow."""
    hollow = {"markerfacecolor": "none"} if key.method == "bptt" else {}
    return {**look(key.cell, cells), **hollow, "linestyle": STYLES[key.method], "linewidth": 2}


def name_of(key: Key) -> str:
    return f"{cell_name(key.cell)}, " + ("SMT → DMT" if key.method == "smt" else "BPTT")


def finish(figure: Figure, axes: Any, columns: int | None = None) -> None:
    """A grid for each panel, and below them one legend with each label once."""
    entries: dict[str, Any] = {}
    for axis in axes.flat:
        axis.grid(alpha=0.3, color=INK, linewidth=0.6)
        axis.set_axisbelow(True)
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
        handles, labels = axis.get_legend_handles_labels()
        entries = dict(zip(labels, handles, strict=True)) | entries
    if entries:
        entries = {label: entries[label] for label in sorted(entries, key=lambda one: one.endswith(REFERENCES))}
        most = columns or max(1, int(figure.get_figwidth() / BESIDE))
        ncols = math.ceil(len(entries) / math.ceil(len(entries) / most))  # rows of equal length
        figure.legend(
            list(entries.values()), list(entries), loc="outside lower center", frameon=False, ncols=ncols
        )


def powers_of_two(axis: Any, ticks: Iterable[float], labels: Iterable[str] | None = None) -> None:
    """A logarithmic x axis with a label at each of the ticks, and at no other place."""
    ticks = list(ticks)
    axis.set_xscale("log", base=2)
    axis.set_xticks(ticks, list(labels) if labels else [f"{tick:g}" for tick in ticks])
    axis.minorticks_off()


def plain_powers(axis: Any) -> None:
    """Labels of a logarithmic axis (matplotlib's own are formulas)."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def draw_score_axis(axis: Any, study: Study) -> None:
    """Limits of the y axis of scores, and where chance is."""
    if study.metric == "accuracy":
        axis.set_ylim(0, 1.04)
    if study.chance is not None:
        axis.axhline(study.chance, color=INK, linewidth=1, linestyle=":", label="chance")


def pictures_of(study: Study, draw: Iterable[Callable[[Study], Picture | None]]) -> list[Picture]:
    """Every picture that the study allows, in order."""
    return [picture for one in draw if (picture := one(study)) is not None]


def save_png(picture: Picture, path: Path) -> None:
    """Transparent, so that one file stands on light and on dark pages."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")  # whole or absent
    with rc_context(STYLE):
        picture.figure.savefig(part, format="png", dpi=150, transparent=True)
    part.replace(path)


def is_ours(path: Path) -> bool:
    """Whether a PNG is one that matplotlib drew, as all of ours are, and no other file of that name."""
    with open(path, "rb") as file:
        head = file.read(256)
    return head.startswith(b"\x89PNG") and b"Matplotlib" in head


def inline_svg(picture: Picture, salt: str) -> str:
    """An <svg> element for a page: its ink is the page's, and no id of it is that of another salt."""
    file = io.StringIO()
    with rc_context({**STYLE, "svg.hashsalt": salt}):
        picture.figure.savefig(file, format="svg", dpi=150, transparent=True, metadata={"Date": None})
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r' id="[\w.]+_\d+"', "", text)  # of groups, the same in every picture
    text = re.sub(r' (?:d|x|y|transform)="[^"]*"', lambda found: shorter(found[0]), text)
    text = re.sub(r"\n\s*", "\n", text)
    for color, name in PAGE_COLORS.items():
        text = text.replace(f": {color.lower()}", f": {name}")
    head, rest = text.split(">", 1)
    head = re.sub(r' (height|version|xmlns\S*?)="[^"]*"', "", head)
    return f'{head} role="img" aria-label="{html.escape(picture.alt)}">{rest}'.strip()


def shorter(attribute: str) -> str:
    """Coordinates to a hundredth of a point."""
    return re.sub(r"\d+\.\d{3,}", lambda number: f"{float(number[0]):.2f}", attribute)
