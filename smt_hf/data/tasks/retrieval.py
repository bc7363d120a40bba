"""Retrieval: remember one value, seen early, through a long stretch of noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..dataset import IGNORE
from .base import SyntheticTask, below


def symbols_with_noise(num_values: int) -> list[str]:
    """The values, the marker, the query, and as many symbols of noise."""
    values = [str(value) for value in range(num_values)]
    return [*values, "<|marker|>", "<|query|>", *(f"n{value}" for value in values)]


@dataclass(eq=False)
class RetrievalTask(SyntheticTask):
    """Sequences of T symbols with one marked value in the first half and a query at the end.

    With V = `num_values`, ids 0 … V-1 are the values, V the marker, V+1 the query, V+2 … 2V+1 noise:

    - the marker stands at a uniform position p in 0 … T//2 - 2 and a uniform value at p+1, so that
      both lie in the first half;
    - the query stands at the last position;
    - every other position holds uniform noise, which is of no use to anybody.

    `shift_labels` is -100 everywhere but at the last position, where it is the value: the answer is
    due once the query has been read. T is how long to remember. The noise has symbols of its own because
    the task is about remembering for long, not about finding out what is to be remembered.

    Worked example, T = 8, V = 8, p = 1, value 5 (marker 8, query 9, noise 10 … 17):

        input_ids     13   8    5    10   17   17   12   9
        shift_labels  -100 -100 -100 -100 -100 -100 -100 5

    Chance accuracy is 1/V. Raises ValueError for T < 4 or V < 2.
    Source: Kumar & Isola 2026, the synthetic probes; the exact definition is ours.
    """

    num_values: int = 8

    task: ClassVar[str] = "retrieval"
    shortest: ClassVar[int] = 4
    shortest_for: ClassVar[str] = "marker, value and query"
    definition_version: ClassVar[int] = 2

    @property
    def symbols(self) -> list[str]:
        return symbols_with_noise(self.num_values)

    @property
    def chance(self) -> float:
        return 1 / self.num_values

    @property
    def num_draws(self) -> int:
        return self.sequence_length + 1

    def rows_from(self, draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        everyone = np.arange(len(draws))
        marker = below(draws[:, -1], self.sequence_length // 2 - 1)
        symbols = below(draws[:, :-1], self.num_values)
        value = symbols[everyone, marker + 1]
        input_ids = symbols + self.num_values + 2
        input_ids[everyone, marker] = self.num_values
        input_ids[everyone, marker + 1] = value
        input_ids[:, -1] = self.num_values + 1
        shift_labels = np.full_like(input_ids, IGNORE)
        shift_labels[:, -1] = value
        return input_ids, shift_labels
