"""SyntheticTask: what all tasks share, so that a task is no more than its definition.

B rows, T = `sequence_length` tokens.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch

from ..dataset import Batch, StackedRows, row_numbers
from ..tokenizer import symbol_tokenizer

if TYPE_CHECKING:
    from typing import Self

    from transformers import PreTrainedTokenizerBase

_STREAMS = {"train": np.uint64(0), "validation": np.uint64(1 << 63)}
_MOST_ROWS = 2**62
LONGEST = 2**24
"""Most tokens in a row: a batch of a few of these fills a machine."""
LARGEST = 2**16
"""What a size may be at most: a symbol each, or a number for each row that is drawn."""
_DEFAULT_ROWS = {"train": 2**31, "validation": 1024}


def _splitmix64(counter: np.ndarray) -> np.ndarray:
    """A bijection of uint64 that turns counters into random-looking bits, elementwise.

    Source: Steele, Lea & Flood 2014, "Fast splittable pseudorandom number generators", fig. 17.
    """
    x = counter + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def below(draws: np.ndarray, limit: int) -> np.ndarray:
    """Uniform integers 0 … limit-1, int64, from draws of 32 bits; uniform to within limit / 2^32."""
    return (draws % np.uint64(limit)).astype(np.int64)


# Dataclasses compare by value, but a dataset is looked up by identity.
@dataclass(eq=False)
class SyntheticTask(StackedRows, ABC):
    """Endless generated rows with known answers: `input_ids` and aligned `shift_labels`, -100 elsewhere.

    sequence_length: T, tokens in a row. Each task says what grows with it. The vocabulary never does, so a
        model trained at one length can be tested at any other.
    split, seed: a row is a pure function of (seed, split, index, T) and the task's own sizes: a
        counter-based hash, so there is no generator state to save, and any batch, order or number of
        workers gives the same rows. Training and validation take their counters from disjoint halves
        of the 64-bit range and the hash is one-to-one, so no row of one ever has the random stream of
        a row of the other.
    num_examples: rows; by default 2^31 for training and 1024 for validation.

    The last id, `vocab_size` - 1, is the tokenizer's `<|pad|>`, which no row holds.
    Raises ValueError, in one sentence, for an impossible length or size.
    """

    sequence_length: int
    split: str = field(default="train", kw_only=True)
    seed: int = field(default=0, kw_only=True)
    num_examples: int | None = field(default=None, kw_only=True)

    kind = "task"
    bytes_per_token: ClassVar[float | None] = None

    task: ClassVar[str]  # its name in TASKS
    shortest: ClassVar[int]  # least T, and what it has to hold
    shortest_for: ClassVar[str]
    definition_version: ClassVar[int] = 1  # raise it whenever the same arguments would give other rows

    def __post_init__(self) -> None:
        if self.sequence_length < self.shortest:
            raise ValueError(
                f"{self.task} needs sequence_length of at least {self.shortest} for {self.shortest_for}, "
                f"but it is {self.sequence_length}."
            )
        if self.sequence_length > LONGEST:
            raise ValueError(
                f"sequence_length of {self.task} is {self.sequence_length}; it must be at most {LONGEST}."
            )
        if self.split not in _STREAMS:
            raise ValueError(f"split must be 'train' or 'validation', but it is {self.split!r}.")
        if self.num_examples is not None and not 1 <= self.num_examples <= _MOST_ROWS:
            raise ValueError(f"num_examples must be 1 to {_MOST_ROWS}, but it is {self.num_examples}.")
        for name, value in self.sizes.items():
            if value < self.least(name):
                raise ValueError(f"{self.task} needs {name} of at least {self.least(name)}, but it is {value}.")
            if value > LARGEST:
                raise ValueError(f"{self.task} needs {name} of at most {LARGEST}, but it is {value}.")

    @property
    @abstractmethod
    def symbols(self) -> list[str]:
        """What ids 0, 1, … stand for, without `<|pad|>`."""

    @property
    @abstractmethod
    def chance(self) -> float:
        """Accuracy of the best answer that ignores what was read."""

    @property
    @abstractmethod
    def num_draws(self) -> int:
        """Random integers that a row is made of."""

    @abstractmethod
    def rows_from(self, draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """uint64 draws in 0 … 2^32-1, (B, num_draws) → input_ids and shift_labels, int64 (B, T)."""

    def least(self, name: str) -> int:
        """The smallest value that the size `name` may have."""
        return 2

    @classmethod
    def size_names(cls) -> list[str]:
        """The task's own arguments: what it has beyond length, split, seed and number of rows."""
        shared = {f.name for f in fields(SyntheticTask)}
        return [f.name for f in fields(cls) if f.name not in shared]

    @property
    def sizes(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in self.size_names()}

    @property
    def name(self) -> str:
        """As given to `--dataset`: "recall", or "recall:num_keys=16" where sizes are not the defaults."""
        default = {f.name: f.default for f in fields(self)}
        own = [f"{name}={value}" for name, value in self.sizes.items() if value != default[name]]
        return f"{self.task}:{','.join(own)}" if own else self.task

    @property
    def vocab_size(self) -> int:
        return len(self.symbols) + 1

    @property
    def fingerprint(self) -> str:
        """Sixteen hex digits naming the definition with all its arguments."""
        arguments = [self.sequence_length, *self.sizes.values(), self.split, self.seed, len(self)]
        described = json.dumps([self.task, self.definition_version, *arguments])
        return hashlib.sha256(described.encode()).hexdigest()[:16]

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Ids as the task's symbols, and `<|pad|>`."""
        return symbol_tokenizer(self.symbols)

    def at_length(self, sequence_length: int) -> Self:
        """The same task and split at another length; its rows are other rows."""
        return replace(self, sequence_length=sequence_length)

    def _draws(self, rows: np.ndarray) -> np.ndarray:
        seed = np.array([self.seed & 0xFFFFFFFFFFFFFFFF], dtype=np.uint64)
        key = _splitmix64(_splitmix64(seed) ^ np.uint64(self.sequence_length))
        row_keys = _splitmix64(_splitmix64(rows.astype(np.uint64) | _STREAMS[self.split]) ^ key)
        columns = _splitmix64(np.arange(self.num_draws, dtype=np.uint64))
        return _splitmix64(row_keys[:, None] ^ columns) >> np.uint64(32)  # the high half of the bits

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """`input_ids` and `shift_labels`, both int64 (B, T), of the rows `indices` (B,)."""
        input_ids, shift_labels = self.rows_from(self._draws(row_numbers(indices, len(self))))
        return {"input_ids": torch.from_numpy(input_ids), "shift_labels": torch.from_numpy(shift_labels)}

    def __len__(self) -> int:
        return _DEFAULT_ROWS[self.split] if self.num_examples is None else self.num_examples
