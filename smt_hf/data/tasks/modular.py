"""In-context modular arithmetic: find a hidden line from examples, and go on with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..dataset import IGNORE
from .base import SyntheticTask, below


@dataclass(eq=False)
class ModularTask(SyntheticTask):
    """Pairs x, y with y = a·x + b modulo the prime V; a and b are hidden, and new for every row.

    With V = `num_values`, ids 0 … V-1 are the numbers, for x and y alike; a, b and x are uniform, except
    that the second x differs from the first. Two different x determine a and b because V is prime, so
    y is the target at every x from the third on, and a perfect reader reaches accuracy 1. T tokens are
    T/2 pairs; an odd T ends with an x. Larger V is harder; longer T is not, once the line is found.

    Worked example, T = 8, V = 5, a = 2, b = 3:

        input_ids     1    0    4    1    3  4    0  3
        shift_labels  -100 -100 -100 -100 4  -100 3  -100

    Chance accuracy is 1/V. Repeating the y of an earlier x gets more right as T grows.
    Raises ValueError for T < 5 or a V that is not prime.
    Source: Kumar & Isola 2026, in-context learning; there a, b < V/5, and every y is predicted.
    """

    num_values: int = 7

    task: ClassVar[str] = "modular"
    shortest: ClassVar[int] = 5
    shortest_for: ClassVar[str] = "two pairs and one x"

    def __post_init__(self) -> None:
        super().__post_init__()
        if any(self.num_values % factor == 0 for factor in range(2, self.num_values)):
            raise ValueError(
                f"modular needs a prime num_values, so that two pairs tell a and b, not {self.num_values}."
            )

    @property
    def symbols(self) -> list[str]:
        return [str(value) for value in range(self.num_values)]

    @property
    def chance(self) -> float:
        return 1 / self.num_values

    @property
    def num_draws(self) -> int:
        return 2 + (self.sequence_length + 1) // 2

    def rows_from(self, draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        V, T = self.num_values, self.sequence_length
        a, b = below(draws[:, :1], V), below(draws[:, 1:2], V)
        x = below(draws[:, 2:], V)
        x[:, 1] = (x[:, 0] + 1 + below(draws[:, 3], V - 1)) % V
        y = (a * x + b) % V
        input_ids = np.stack([x, y], axis=2).reshape(len(draws), -1)[:, :T]
        shift_labels = np.full_like(input_ids, IGNORE)
        shift_labels[:, 4::2] = y[:, 2:]
        return np.ascontiguousarray(input_ids), shift_labels
