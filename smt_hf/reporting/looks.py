"""Colours, markers and line styles: the same cell and the same method look the same in every picture."""

from collections.abc import Iterable
from typing import Any

# All of these have a contrast of at least 3 on white and on the near-black of dark pages, where the
# picture stands with a transparent background. The first four are Okabe & Ito's; markers differ as well.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#C2689A", "#8A6FD1")
MARKERS = ("o", "s", "^", "D", "v")
INK = "#767676"  # axes and text: as far from white as from black
# The same colour for a cell in every picture; cells of a user's own take those that are left.
CELLS = ("gru", "transformer", "lstm", "mlp", "elman")
STYLES = {"smt": "-", "bptt": "--"}


def look(cell: str, cells: Iterable[str]) -> dict[str, Any]:
    """Colour and marker of a cell among all cells of a picture."""
    cells = set(cells)
    unknown = sorted(cells - set(CELLS))
    free = [i for i, known in enumerate(CELLS) if known not in cells] or [0]
    number = CELLS.index(cell) if cell in CELLS else free[unknown.index(cell) % len(free)]
    return {"color": COLORS[number], "marker": MARKERS[number]}
