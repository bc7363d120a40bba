"""How figures and names are written, in tables, pictures and on the page."""

from collections.abc import Sequence
from typing import Any

from rich import box

Table = list[str]  # lines of Markdown
Rows = list[dict[str, Any]]
# Tables have to fit 80 columns.
COMPACT: dict[str, Any] = {"box": box.SIMPLE_HEAD, "pad_edge": False, "padding": (0, 1, 0, 0)}
AXES = {
    "tokens": "tokens",
    "seconds": "seconds of training",
    "sequential_steps": "sequential steps",
}


def spread(figures: list[float]) -> str:
    """Mean, and half the range if there are several."""
    mean = f"{sum(figures) / len(figures):.3f}"
    return mean if len(figures) == 1 else f"{mean}±{(max(figures) - min(figures)) / 2:.3f}"


def short(number: float) -> str:
    """12345678 → 12.3M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= 0.9995 * size:  # where three digits round up to the next letter
            return f"{number / size:.3g}{letter}"
    return str(number)


def cell_name(cell: str) -> str:
    """What people are shown: of a cell given as module:Class, the class."""
    return cell.rpartition(":")[2]


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    return lines + [f"| {' | '.join(row)} |" for row in rows]
