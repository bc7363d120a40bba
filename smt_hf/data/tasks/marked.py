"""Marked: remember several values, seen early among noise, through a long stretch of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..dataset import IGNORE
from .base import SyntheticTask, below
from .retrieval import symbols_with_noise


@dataclass(eq=False)
class MarkedTask(SyntheticTask):
    """`RetrievalTask` with M = `num_marked` values, which are said in the order in which they stood.

    With V = `num_values`, ids 0 … V-1 are the values, V the marker, V+1 the query, V+2 … 2V+1 noise. The first
    half of a row is cut into pairs of positions. M of them, uniform and distinct, hold a marker and a uniform
    value. The query stands at T - M, where the first value is due, and each next one is due where the one
    before it is shown. All else is noise. T is how long to remember.

    Worked example, T = 8, V = 8, M = 2 (marker 8, query 9, noise 10 … 17):

        input_ids     8    5    8    2    13   10   9    5
        shift_labels  -100 -100 -100 -100 -100 -100 5    2

    Chance accuracy is 1/V. Raises ValueError for V < 2, M < 1, or fewer than M pairs (T < 4M).
    """

    num_values: int = 8
    num_marked: int = 2

    task: ClassVar[str] = "marked"
    shortest: ClassVar[int] = 4
    shortest_for: ClassVar[str] = "marker, value and query"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sequence_length < 4 * self.num_marked:
            raise ValueError(
                f"marked with {self.num_marked} values needs sequence_length of at least "
                f"{4 * self.num_marked}, but it is {self.sequence_length}; make it longer, or num_marked "
                f"smaller."
            )

    def least(self, name: str) -> int:
        return 1 if name == "num_marked" else 2

    @property
    def symbols(self) -> list[str]:
        return symbols_with_noise(self.num_values)

    @property
    def chance(self) -> float:
        return 1 / self.num_values

    @property
    def num_draws(self) -> int:
        return self.sequence_length + self.sequence_length // 4

    def rows_from(self, draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        everyone, m = np.arange(len(draws))[:, None], self.num_marked
        symbols, order = np.split(draws, [self.sequence_length], axis=1)
        symbols = below(symbols, self.num_values)
        # The pairs that drew the smallest numbers, from left to right.
        marker = 2 * np.sort(np.argsort(order, axis=1)[:, :m], axis=1)
        values = symbols[everyone, marker + 1]
        input_ids = symbols + self.num_values + 2
        input_ids[everyone, marker] = self.num_values
        input_ids[everyone, marker + 1] = values
        input_ids[:, -m] = self.num_values + 1
        input_ids[:, len(input_ids[0]) - m + 1 :] = values[:, :-1]
        shift_labels = np.full_like(input_ids, IGNORE)
        shift_labels[:, -m:] = values
        return input_ids, shift_labels
