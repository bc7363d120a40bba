"""Associative recall: pairs of a key and a value are shown; then keys are asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..dataset import IGNORE
from .base import SyntheticTask, below


@dataclass(eq=False)
class RecallTask(SyntheticTask):
    """n = T // 3 pairs of a key and its value, then T - 2n queries: keys, whose values are due.

    With C = `num_keys` and V = `num_values`, ids 0 … C-1 are keys and C … C+V-1 values. The n keys of a
    row are distinct, in random order, and drawn anew for every row; values are uniform. Each query is a
    uniform one of the n keys, and its value is the target at once; nothing else is predicted. A key that
    was seen before is always a query, so no separator is needed. T is three times the number of
    associations to hold (and up to two queries more, where it is not divisible).

    Worked example, T = 9, C = 8, V = 4 (values 8 … 11): 5 → 9, 0 → 11, 3 → 8:

        input_ids     5    9    0    11   3    8    0  5  0
        shift_labels  -100 -100 -100 -100 -100 -100 11 9  11

    Chance accuracy is 1/V. Raises ValueError for T < 6, V < 2, or a T that shows more than C keys.
    Source: Kumar & Isola 2026, associative recall, with single-token keys and several queries.
    """

    num_keys: int = 32
    num_values: int = 8

    task: ClassVar[str] = "recall"
    shortest: ClassVar[int] = 6
    shortest_for: ClassVar[str] = "two pairs and their queries"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_pairs > self.num_keys:
            raise ValueError(
                f"recall at sequence_length {self.sequence_length} shows {self.num_pairs} different keys but "
                f"num_keys is {self.num_keys}; make the length at most {3 * self.num_keys + 2}, or num_keys "
                f"at least {self.num_pairs}."
            )

    @property
    def num_pairs(self) -> int:
        return self.sequence_length // 3

    @property
    def symbols(self) -> list[str]:
        return [*(f"k{key}" for key in range(self.num_keys)), *(str(value) for value in range(self.num_values))]

    @property
    def chance(self) -> float:
        return 1 / self.num_values

    @property
    def num_draws(self) -> int:
        return self.num_keys + self.sequence_length - self.num_pairs

    def rows_from(self, draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        n, T = self.num_pairs, self.sequence_length
        for_keys, for_values, for_queries = np.split(draws, [self.num_keys, self.num_keys + n], axis=1)
        keys = np.argsort(for_keys, axis=1, kind="stable")[:, :n]  # n distinct ones, in uniform order
        values = self.num_keys + below(for_values, self.num_values)
        asked = below(for_queries, n)
        input_ids = np.empty((len(draws), T), np.int64)
        input_ids[:, 0 : 2 * n : 2] = keys
        input_ids[:, 1 : 2 * n : 2] = values
        input_ids[:, 2 * n :] = np.take_along_axis(keys, asked, axis=1)
        shift_labels = np.full_like(input_ids, IGNORE)
        shift_labels[:, 2 * n :] = np.take_along_axis(values, asked, axis=1)
        return input_ids, shift_labels
