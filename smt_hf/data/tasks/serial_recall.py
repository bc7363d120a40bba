"""Recency and primacy: from a list that was read, say the last symbols, or the first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..dataset import IGNORE
from .base import SyntheticTask, below


@dataclass(eq=False)
class RecencyTask(SyntheticTask):
    """A list of n = T - k symbols, a cue, and the last k = `num_recalled` of them, in the order shown.

    With V = `num_values`, ids 0 … V-1 are the symbols, uniform, and V is the cue. The first of the k is
    the target at the cue, and each next one where the one before it is shown; the last of the k is never
    shown. T is the length of the list, plus k: nothing to remember grows with it, but the memory has to
    let go of everything older than k at every step.

    Worked example, T = 8, k = 3, V = 8 (cue 8):

        input_ids     5    0    6    2    7    8    6    2
        shift_labels  -100 -100 -100 -100 -100 6    2    7

    Chance accuracy is 1/V. Raises ValueError for V < 2, k < 1, or a list of fewer than k symbols (T < 2k).
    Source: after the recency and primacy probes of Kumar & Isola 2026, where at every step one earlier
    symbol is drawn with geometric weights; here the answer is certain, so that accuracy 1 can be reached.
    """

    num_values: int = 8
    num_recalled: int = 4

    task: ClassVar[str] = "recency"
    shortest: ClassVar[int] = 2
    shortest_for: ClassVar[str] = "one symbol and the cue"
    first: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sequence_length < 2 * self.num_recalled:
            raise ValueError(
                f"{self.task} of {self.num_recalled} symbols needs sequence_length of at least "
                f"{2 * self.num_recalled}, but it is {self.sequence_length}; make it longer, or num_recalled "
                f"smaller."
            )

    def least(self, name: str) -> int:
        return 1 if name == "num_recalled" else 2

    @property
    def symbols(self) -> list[str]:
        return [*(str(value) for value in range(self.num_values)), "<|recall|>"]

    @property
    def chance(self) -> float:
        return 1 / self.num_values

    @property
    def num_draws(self) -> int:
        return self.sequence_length - self.num_recalled

    def rows_from(self, draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        k = self.num_recalled
        shown = below(draws, self.num_values)
        answer = shown[:, :k] if self.first else shown[:, -k:]
        cue = np.full((len(draws), 1), self.num_values)
        input_ids = np.concatenate([shown, cue, answer[:, :-1]], axis=1)
        shift_labels = np.full_like(input_ids, IGNORE)
        shift_labels[:, -k:] = answer
        return input_ids, shift_labels


@dataclass(eq=False)
class PrimacyTask(RecencyTask):
    """As `RecencyTask`, with the first k symbols of the list. T is how long they are held.

    Worked example, T = 8, k = 3, V = 8 (cue 8):

        input_ids     5    0    6    2    7    8    5    0
        shift_labels  -100 -100 -100 -100 -100 5    0    6
    """

    task: ClassVar[str] = "primacy"
    first: ClassVar[bool] = True
