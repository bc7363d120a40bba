"""Stack: elements are pushed and popped at random; name each element that is popped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..dataset import IGNORE
from .base import SyntheticTask, below


@dataclass(eq=False)
class StackTask(SyntheticTask):
    """T operations on a stack that starts empty; the popped element is due at every pop.

    With V = `num_values`, ids 0 … V-1 push that element, uniform, and V pops. An empty stack is pushed
    to, a stack of `max_depth` elements is popped from, and else either happens with probability 1/2.
    `shift_labels` is the popped element at each pop, -100 at each push. T is the number of operations;
    what has to be held is at most `max_depth` elements.

    Worked example, V = 4 (pop 4):

        input_ids     2    0    4    3    4    4
        shift_labels  -100 -100 0    -100 3    2

    Chance accuracy is 1/V; more than half of all pops follow a push at once, so naming the last element
    that was pushed is right much more often than that. Raises ValueError for T < 2, V < 2 or max_depth < 1.
    Source: Kumar & Isola 2026, the stack probe.
    """

    num_values: int = 4
    max_depth: int = 10

    task: ClassVar[str] = "stack"
    shortest: ClassVar[int] = 2
    shortest_for: ClassVar[str] = "one push and one pop"

    def least(self, name: str) -> int:
        return 1 if name == "max_depth" else 2

    @property
    def symbols(self) -> list[str]:
        return [*(str(value) for value in range(self.num_values)), "<|pop|>"]

    @property
    def chance(self) -> float:
        return 1 / self.num_values

    @property
    def num_draws(self) -> int:
        return 2 * self.sequence_length

    def rows_from(self, draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        T = self.sequence_length
        coin = below(draws[:, :T], 2) == 1
        # Time first: the walk is sequential, and each of its steps takes all rows at once.
        input_ids = np.ascontiguousarray(below(draws[:, T:], self.num_values).T)
        shift_labels = np.full_like(input_ids, IGNORE)
        everyone = np.arange(len(draws))
        stack = np.zeros((len(draws), self.max_depth), np.int64)
        depth = np.zeros(len(draws), np.int64)
        for t, toss in enumerate(coin.T):
            push = (depth == 0) | (toss & (depth < self.max_depth))
            pop = ~push
            stack[everyone[push], depth[push]] = input_ids[t, push]
            shift_labels[t, pop] = stack[everyone[pop], depth[pop] - 1]
            input_ids[t, pop] = self.num_values
            depth += np.where(push, 1, -1)
        return np.ascontiguousarray(input_ids.T), np.ascontiguousarray(shift_labels.T)
