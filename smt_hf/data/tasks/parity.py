"""Parity: whether an even or an odd number of ones has been read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from .base import SyntheticTask, below


@dataclass(eq=False)
class ParityTask(SyntheticTask):
    """T uniform bits; after each one, the sum of all bits so far modulo 2 is due.

    Ids 0 and 1 are the bits. Every position has a target, because a parity that is asked for only at the end
    gives no gradient towards its parts. T is the number of bits. One bit of memory is enough for any T, so
    accuracy at longer T shows whether that bit was found.

    Worked example, T = 6:

        input_ids     1  0  1  1  1  0
        shift_labels  1  1  0  1  0  0

    Chance accuracy is 1/2. Raises ValueError for T < 2. Source: Kumar & Isola 2026, the parity probe.
    """

    task: ClassVar[str] = "parity"
    shortest: ClassVar[int] = 2
    shortest_for: ClassVar[str] = "a sum of two bits"

    @property
    def symbols(self) -> list[str]:
        return ["0", "1"]

    @property
    def chance(self) -> float:
        return 0.5

    @property
    def num_draws(self) -> int:
        return self.sequence_length

    def rows_from(self, draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        bits = below(draws, 2)
        return bits, bits.cumsum(axis=1) % 2
