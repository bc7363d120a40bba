"""Retrieval: remember one value, seen early, through a long stretch of noise."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.utils.data import Dataset

from ..batching import Batch, row_numbers
from ..tokenizer import symbol_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_DEFINITION_VERSION = 2  # raise it whenever the same arguments would give other rows
_STREAMS = {"train": np.uint64(0), "validation": np.uint64(1 << 63)}
_DEFAULT_ROWS = {"train": 2**31, "validation": 1024}
_SHORTEST = 4  # marker, value, and as many positions again, the last of them the query


def _splitmix64(counter: np.ndarray) -> np.ndarray:
    """A bijection of uint64 that turns counters into random-looking bits, elementwise.

    Source: Steele, Lea & Flood 2014, "Fast splittable pseudorandom number generators", fig. 17.
    """
    x = counter + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


class RetrievalTask(Dataset[Batch]):
    """Sequences of T symbols with one marked value in the first half and a query at the end.

    With V = `num_values`, ids 0 … V-1 are the values, V the marker, V+1 the query, V+2 … 2V+1 noise:

    - the marker stands at a uniform position p in 0 … T//2 - 2 and a uniform value at p+1, so that
      both lie in the first half;
    - the query stands at the last position;
    - every other position holds uniform noise, which is of no use to anybody.

    `shift_labels` is -100 everywhere but at the last position, where it is the value: the answer is
    due once the query has been read. Chance accuracy is 1/V. The noise has symbols of its own because
    the task is about remembering for long, not about finding out what is to be remembered.

    Worked example, T = 8, V = 8, p = 1, value 5 (marker 8, query 9, noise 10 … 17):

        input_ids     13   8    5    10   17   17   12   9
        shift_labels  -100 -100 -100 -100 -100 -100 -100 5

    A row is a pure function of (seed, split, index, T, V): a counter-based hash, so there is no
    generator state to save, and any batch, order or number of workers gives the same rows. Training
    and validation take their counters from disjoint halves of the 64-bit range and the hash is
    one-to-one, so no row of one ever has the random stream of a row of the other.

    The ids in use are 0 … 2V+1; `vocab_size` is 2V+3, since the tokenizer's `<|pad|>` comes last.

    Raises ValueError for T < 4, V < 2, a split other than "train" and "validation", or no rows.
    Source: Kumar & Isola 2026, the synthetic probes; the exact definition is ours.
    """

    name = "retrieval"
    metric = "accuracy"
    bytes_per_token: float | None = None

    def __init__(
        self,
        sequence_length: int,
        num_values: int = 8,
        split: str = "train",
        seed: int = 0,
        num_examples: int | None = None,
    ) -> None:
        if sequence_length < _SHORTEST:
            raise ValueError(
                f"retrieval needs sequence_length of at least {_SHORTEST} for marker, value and "
                f"query, but it is {sequence_length}."
            )
        if num_values < 2:
            raise ValueError(f"retrieval needs num_values of at least 2, but it is {num_values}.")
        if split not in _STREAMS:
            raise ValueError(f"split must be 'train' or 'validation', but it is {split!r}.")
        if num_examples is None:
            num_examples = _DEFAULT_ROWS[split]
        if num_examples < 1:
            raise ValueError(f"num_examples must be at least 1, but it is {num_examples}.")
        self.sequence_length = sequence_length
        self.num_values = num_values
        self.split = split
        self.seed = seed
        self.num_examples = num_examples
        self.vocab_size = 2 * num_values + 3

    @property
    def fingerprint(self) -> str:
        """Sixteen hex digits naming the definition with all its arguments."""
        arguments = [self.sequence_length, self.num_values, self.split, self.seed, len(self)]
        described = json.dumps([self.name, _DEFINITION_VERSION, *arguments])
        return hashlib.sha256(described.encode()).hexdigest()[:16]

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Ids as symbols: "0" … "V-1", "<|marker|>", "<|query|>", "n0" … , "<|pad|>"."""
        values = [str(value) for value in range(self.num_values)]
        noise = [f"n{value}" for value in range(self.num_values)]
        return symbol_tokenizer([*values, "<|marker|>", "<|query|>", *noise])

    def at_length(self, sequence_length: int) -> RetrievalTask:
        """The same task and split at another length; its rows are other rows."""
        return RetrievalTask(sequence_length, self.num_values, self.split, self.seed, self.num_examples)

    def _draws(self, rows: np.ndarray) -> np.ndarray:
        """Random integers in 0 … 2^32-1, uint64 (B, T+1): one per position, one for the marker."""
        T = self.sequence_length
        seed = np.array([self.seed & 0xFFFFFFFFFFFFFFFF], dtype=np.uint64)
        key = _splitmix64(_splitmix64(seed) ^ np.uint64(T))
        row_keys = _splitmix64(_splitmix64(rows.astype(np.uint64) | _STREAMS[self.split]) ^ key)
        columns = _splitmix64(np.arange(T + 1, dtype=np.uint64))
        # The high half of the bits: a remainder of them is uniform to within V / 2^32.
        return _splitmix64(row_keys[:, None] ^ columns) >> np.uint64(32)

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """`input_ids` and `shift_labels`, both int64 (B, T), of the rows `indices` (B,)."""
        rows = row_numbers(indices, len(self))
        draws = self._draws(rows)
        everyone = np.arange(len(rows))
        marker = (draws[:, -1] % np.uint64(self.sequence_length // 2 - 1)).astype(np.int64)

        symbols = (draws[:, :-1] % np.uint64(self.num_values)).astype(np.int64)
        value = symbols[everyone, marker + 1]
        input_ids = symbols + self.num_values + 2
        input_ids[everyone, marker] = self.num_values
        input_ids[everyone, marker + 1] = value
        input_ids[:, -1] = self.num_values + 1
        shift_labels = np.full_like(input_ids, -100)
        shift_labels[:, -1] = value
        return {
            "input_ids": torch.from_numpy(input_ids),
            "shift_labels": torch.from_numpy(shift_labels),
        }

    def __getitem__(self, index: int) -> Batch:
        """One row: `input_ids` and `shift_labels`, both int64 (T,)."""
        return {name: tensor[0] for name, tensor in self.__getitems__([index]).items()}

    def __len__(self) -> int:
        return self.num_examples
