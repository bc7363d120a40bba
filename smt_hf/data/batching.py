"""What every dataset of this room shares: rows are made a batch at a time, already stacked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

Batch = dict[str, torch.Tensor]


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

    `__getitems__` returns one dictionary of stacked tensors and not a list of rows, so nothing is
    left to collate. A function of its own, since a lambda cannot be sent to worker processes.
    """
    return batch
