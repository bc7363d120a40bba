"""SequenceDataset: what training and evaluation ask of data, and how a dataset of one's own comes to offer it.

B rows, T = `sequence_length` tokens. Rows are made a batch at a time, already stacked.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch.utils.data import Dataset

from .kinds import METRICS, Kind

Batch = dict[str, torch.Tensor]
COLUMNS = ("input_ids", "shift_labels")
IGNORE = -100
# Rows of a user's dataset that are looked at to learn its vocabulary.
LOOKED_AT = 8


@runtime_checkable
class SequenceDataset(Protocol):
    """Sequences to train or to judge a model on.

    name: as a user gave it, or what else it is known by.
    kind: text, image or task. metric: the figure by which it is judged; see `kinds`.
    vocab_size: every id is below it. sequence_length: T.
    fingerprint: changes with the rows; None where it is not known.
    bytes_per_token: UTF-8 bytes over tokens for text, 1 for images, None for a task.
    """

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> Kind: ...
    @property
    def metric(self) -> str: ...
    @property
    def vocab_size(self) -> int: ...
    @property
    def fingerprint(self) -> str | None: ...
    @property
    def bytes_per_token(self) -> float | None: ...
    @property
    def sequence_length(self) -> int: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Batch:
        """One row: `input_ids` and `shift_labels` (-100: nothing to predict), both int64 (T,)."""

    def __getitems__(self, indices: Sequence[int], /) -> Batch:
        """The rows `indices` (B,), stacked: both int64 (B, T)."""

    def at_length(self, sequence_length: int, /) -> SequenceDataset:
        """The same data in rows of another length. Raises ValueError for an impossible length."""

    def evaluation_rows(self, count: int, horizon: int) -> tuple[torch.Tensor, torch.Tensor]:
        """(input_ids, shift_labels) of the same rows every time, at most `count`.

        Text gives blocks of `horizon` tokens from all over it; the others give their first rows.
        """


class StackedRows(Dataset[Batch]):
    """The base of this room's datasets: they make whole batches, and this class derives the rest."""

    kind: Kind

    @property
    def metric(self) -> str:
        return METRICS[self.kind]

    def __len__(self) -> int:
        raise NotImplementedError

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        raise NotImplementedError

    def __getitem__(self, index: int) -> Batch:
        """One row: `input_ids` and `shift_labels`, both int64 (T,)."""
        return {name: tensor[0] for name, tensor in self.__getitems__([index]).items()}

    def evaluation_rows(self, count: int, horizon: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The first `count` rows, or all there are: (input_ids, shift_labels), int64 (n, T)."""
        rows = self.__getitems__(range(min(len(self), count)))
        return rows["input_ids"], rows["shift_labels"]


class OwnRows(StackedRows):
    """A user's map-style dataset of rows {"input_ids" (T,), "shift_labels" (T,)}; other columns are not read.

    Attributes of `SequenceDataset` that it has are used. Missing ones are filled in: the class for a name, no
    fingerprint, and the ids of the first rows for a vocabulary. Without `bytes_per_token` it is judged by
    accuracy, as a task is.

    most_ids: ids that there may be at most, if the rows do not say so themselves.
    """

    def __init__(self, rows: Any, most_ids: int | None = None) -> None:
        self.rows = rows
        self.declared: int | None = getattr(rows, "vocab_size", None)
        self.most_ids = most_ids if self.declared is None else self.declared
        self.name = str(getattr(rows, "name", None) or type(rows).__name__)
        self.fingerprint: str | None = getattr(rows, "fingerprint", None)
        self.bytes_per_token: float | None = getattr(rows, "bytes_per_token", None)
        self.kind = own_kind(rows, self.bytes_per_token)
        self.sequence_length = len(self._first_row()["input_ids"])

    @cached_property
    def vocab_size(self) -> int:
        if self.declared is not None:
            return self.declared
        looked_at = self._stacked(range(min(LOOKED_AT, len(self))))
        return 1 + max(int(looked_at[name].max()) for name in COLUMNS)

    def _first_row(self) -> Batch:
        try:
            size = len(self.rows)
        except TypeError as error:
            raise ValueError(
                f"the dataset {self.name!r} has no length; it must be map-style, with len() and rows by index."
            ) from error
        if size == 0:
            raise ValueError(f"the dataset {self.name!r} has no rows; it needs at least one.")
        row = self.rows[0]
        columns = list(row) if hasattr(row, "keys") else []
        missing = [name for name in COLUMNS if name not in columns]
        if missing:
            found = f"columns {', '.join(map(str, columns))}" if columns else type(row).__name__
            raise ValueError(
                f"a row of the dataset {self.name!r} lacks {' and '.join(missing)} (it has {found}); a row is "
                f"a dictionary of {' and '.join(COLUMNS)}."
            )
        lengths = [len(row[name]) for name in COLUMNS]
        if len(set(lengths)) > 1 or not lengths[0]:
            raise ValueError(
                f"a row of the dataset {self.name!r} has {lengths[0]} input_ids and {lengths[1]} shift_labels; "
                f"they must be equally many, and at least one."
            )
        return row

    def __len__(self) -> int:
        return len(self.rows)

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """`input_ids` and `shift_labels`, both int64 (B, T), of the rows `indices` (B,).

        Raises ValueError for rows of different lengths, which cannot be stacked, and for ids that cannot be.
        """
        batch = self._stacked(indices)
        for name, column in batch.items():
            least, most = int(column.min()), int(column.max())
            if name == "shift_labels":
                least = min(0, int(column[column != IGNORE].min())) if (column != IGNORE).any() else 0
            if least < 0 or (self.most_ids is not None and most >= self.most_ids):
                highest = "" if self.most_ids is None else f" to {self.most_ids - 1}"
                also = " or -100" if name == "shift_labels" else ""
                raise ValueError(
                    f"a row of the dataset {self.name!r} has {name} of {least if least < 0 else most}; they "
                    f"must be 0{highest}{also}."
                )
        return batch

    def _stacked(self, indices: Sequence[int]) -> Batch:
        indices = [int(index) for index in indices]
        if hasattr(self.rows, "__getitems__"):
            rows = self.rows.__getitems__(indices)
        else:
            rows = [self.rows[index] for index in indices]
        if isinstance(rows, dict):
            return {name: torch.as_tensor(rows[name]).long() for name in COLUMNS}
        batch = {}
        for name in COLUMNS:
            column = [torch.as_tensor(row[name]) for row in rows]
            if len({len(tensor) for tensor in column}) > 1:
                raise ValueError(
                    f"rows of the dataset {self.name!r} have {min(map(len, column))} to "
                    f"{max(map(len, column))} {name}; make all rows equally long, or pack them."
                )
            batch[name] = torch.stack(column).long()
        return batch

    def at_length(self, sequence_length: int) -> SequenceDataset:
        if sequence_length == self.sequence_length:
            return self
        if not hasattr(self.rows, "at_length"):
            raise ValueError(
                f"rows of {sequence_length} tokens, which a length curriculum (curriculum_start_length) asks "
                f"for, need a dataset with at_length(n), and {self.name!r} has rows of {self.sequence_length} "
                f"tokens only."
            )
        return as_sequence_dataset(self.rows.at_length(sequence_length), self.most_ids)


def own_kind(rows: Any, bytes_per_token: float | None) -> Kind:
    """The kind that `kind` or `metric` of a dataset says; otherwise text if it has bytes, else a task."""
    kinds: dict[str, Kind] = {"bits_per_byte": "text", "bits_per_dimension": "image", "accuracy": "task"}
    said = getattr(rows, "kind", None) or kinds.get(str(getattr(rows, "metric", None)))
    kind = said or ("task" if bytes_per_token is None else "text")
    if kind not in METRICS:
        raise ValueError(f"the kind of a dataset must be one of {', '.join(METRICS)}, but it is {kind!r}.")
    if kind != "task" and bytes_per_token is None:
        raise ValueError(f"a dataset of kind {kind!r} needs bytes_per_token, which its metric divides by.")
    return kind


def as_sequence_dataset(dataset: Any, most_ids: int | None = None) -> SequenceDataset:
    """`dataset` itself if it offers all of `SequenceDataset`, else wrapped once so that it does.

    most_ids: the ids that the model knows, to refuse rows with others where the dataset does not say its own.
    Raises ValueError, in one sentence, for what is not map-style or whose rows are not as they should be.
    """
    # Asked in this order: looking for all of the contract may compute a vocabulary.
    return dataset if isinstance(dataset, OwnRows | SequenceDataset) else OwnRows(dataset, most_ids)


def prompt_length(dataset: SequenceDataset) -> int:
    """Tokens of the dataset's first row before its first target: 0 in text, the string in copying."""
    asked = dataset[0]["shift_labels"] != IGNORE
    return int(asked.nonzero()[0]) if asked.any() else 0


def row_numbers(indices: Sequence[int] | np.ndarray | torch.Tensor, length: int) -> np.ndarray:
    """`indices` as int64 (B,) in 0 … length-1; negative ones count from the end, as in a list.

    Raises IndexError outside the dataset, which is also what ends `for row in dataset`.
    """
    rows = np.asarray(indices, dtype=np.int64).reshape(-1)
    wrapped = np.where(rows < 0, rows + length, rows)
    outside = (wrapped < 0) | (wrapped >= length)
    if outside.any():
        raise IndexError(f"row {rows[outside][0]} is outside a dataset of {length} rows.")
    return wrapped


def keep_batch(batch: Any) -> Any:
    """The `collate_fn` for a `DataLoader` over these datasets.

    `__getitems__` returns one dictionary of stacked tensors instead of a list of rows, so nothing is
    left to collate. A function of its own, since a lambda cannot be sent to worker processes.
    """
    return batch
