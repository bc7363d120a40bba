"""Copy and reverse-copy: say back a whole string, from its first symbol or from its last."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..dataset import IGNORE
from .base import SyntheticTask, below


@dataclass(eq=False)
class CopyTask(SyntheticTask):
    """A string of n = T // 2 symbols, a separator, and the same string again.

    With V = `num_values`, ids 0 … V-1 are the symbols, uniform, and V is the separator. The row is
    (s_0 … s_{n-1}, separator, s_0 … s_{n-1}), cut at T tokens. `shift_labels` holds s_0 at the
    separator, s_1 at the second s_0, and so on: n targets, each due before it is shown. T is twice the
    number of symbols to hold.

    Worked example, T = 6, V = 8 (separator 8):

        input_ids     3    1    7    8    3    1
        shift_labels  -100 -100 -100 3    1    7

    An odd T ends with the last symbol, where nothing is left to predict. Chance accuracy is 1/V.
    Raises ValueError for T < 2 or V < 2.
    Source: Kumar & Isola 2026, string copying, without its noise.
    """

    num_values: int = 8

    task: ClassVar[str] = "copy"
    shortest: ClassVar[int] = 2
    shortest_for: ClassVar[str] = "one symbol and the separator"
    reverse: ClassVar[bool] = False

    @property
    def symbols(self) -> list[str]:
        return [*(str(value) for value in range(self.num_values)), "<|separator|>"]

    @property
    def chance(self) -> float:
        return 1 / self.num_values

    @property
    def num_draws(self) -> int:
        return self.sequence_length // 2

    def rows_from(self, draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        n = self.num_draws
        string = below(draws, self.num_values)
        again = string[:, ::-1] if self.reverse else string
        separator = np.full((len(draws), 1), self.num_values)
        input_ids = np.concatenate([string, separator, again], axis=1)[:, : self.sequence_length]
        shift_labels = np.full_like(input_ids, IGNORE)
        shift_labels[:, n : 2 * n] = again
        return np.ascontiguousarray(input_ids), shift_labels


@dataclass(eq=False)
class ReverseCopyTask(CopyTask):
    """As `CopyTask`, with the string said back from its last symbol to its first.

    Worked example, T = 6, V = 8 (separator 8):

        input_ids     3    1    7    8    7    1
        shift_labels  -100 -100 -100 7    1    3

    So the first symbol is held for T - 2 tokens, and the last one is due at once.
    """

    task: ClassVar[str] = "reverse-copy"
    reverse: ClassVar[bool] = True
