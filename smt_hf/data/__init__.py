"""Data: text corpora as packed windows, images as pixels, and synthetic tasks, behind one `load_data`.

Every dataset here is a `SequenceDataset`: map-style, gives `input_ids` and aligned `shift_labels` (-100:
nothing to predict), and stacks whole batches itself in `__getitems__` (use `collate_fn=keep_batch`).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .corpora import read_documents, split_documents
from .dataset import SequenceDataset, as_sequence_dataset, keep_batch
from .kinds import METRICS, Kind
from .packing import TokenWindows, load_windows
from .pixels import DIGITS, PixelSequences, load_pixels
from .tasks import TASKS, RetrievalTask, SyntheticTask, is_task, make_task
from .tokenizer import byte_tokenizer, load_tokenizer, symbol_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = [
    "METRICS",
    "TASKS",
    "DataSplits",
    "PixelSequences",
    "RetrievalTask",
    "SequenceDataset",
    "SyntheticTask",
    "TokenWindows",
    "as_sequence_dataset",
    "byte_tokenizer",
    "data_kind",
    "keep_batch",
    "load_data",
    "load_pixels",
    "load_tokenizer",
    "load_windows",
    "read_documents",
    "split_documents",
    "symbol_tokenizer",
]


@dataclass(frozen=True)
class DataSplits:
    """What a run learns from and is judged on. `fingerprint` names the exact tokens of both."""

    name: str
    kind: Kind
    train: TokenWindows | PixelSequences | SyntheticTask
    validation: TokenWindows | PixelSequences | SyntheticTask
    tokenizer: PreTrainedTokenizerBase
    fingerprint: str


def data_kind(name: str, image_column: str | None = None) -> Kind:
    """What `load_data` takes `name` for; a table holds text unless an `image_column` is given."""
    if is_task(name):
        return "task"
    return "image" if name == DIGITS or image_column is not None else "text"


def load_data(
    name: str,
    tokenizer: PreTrainedTokenizerBase | str | None = None,
    *,
    sequence_length: int | None,
    seed: int = 0,
    text_column: str = "text",
    image_column: str | None = None,
    grey_levels: int | None = None,
    split: str = "train",
    streaming: bool = False,
    max_corpus_bytes: int | None = None,
    validation_fraction: float = 0.05,
    cache_dir: str | Path | None = None,
) -> DataSplits:
    """Training and validation data by name: a task of `TASKS`, images, or a text corpus.

    name: a task ("retrieval", "recall:num_keys=16"), "python-docs", a path, or a `datasets` name; see
        `read_documents`.
    tokenizer: a tokenizer or the name of one, "byte" by default. A task brings its own.
    sequence_length: tokens in a row; `train.at_length(n)` gives the same data at another length. None,
        which only images may have: all their pixels.
    seed: of a task's rows. The split of a text corpus depends on its content alone.
    image_column: read the images in this column, as pixels; "digits" are images without it.
    grey_levels: of images, all there are by default; see `load_pixels`.
    split, text_column, streaming, max_corpus_bytes, validation_fraction: text and images; validation is
        taken from this split of the corpus, and never overlaps with training.
    cache_dir: where packed tokens are kept; by default $SMT_HF_CACHE, else ~/.cache/smt_hf.

    Raises ValueError, in one sentence, for an unknown name or data too short for the length.
    """
    train: TokenWindows | PixelSequences | SyntheticTask
    validation: TokenWindows | PixelSequences | SyntheticTask
    kind = data_kind(name, image_column)
    if kind == "image":
        train, validation = load_pixels(
            name,
            sequence_length=sequence_length,
            image_column=image_column,
            grey_levels=grey_levels,
            split=split,
            streaming=streaming,
            max_bytes=max_corpus_bytes,
            validation_fraction=validation_fraction,
        )
        tokenizer = train.tokenizer()
    elif sequence_length is None:
        raise ValueError(f"{name!r} needs a sequence_length; only images have one of their own.")
    elif kind == "task":
        train = make_task(name, sequence_length, "train", seed)
        validation = make_task(name, sequence_length, "validation", seed)
        tokenizer = train.tokenizer()
    else:
        if tokenizer is None or isinstance(tokenizer, str):
            tokenizer = load_tokenizer(tokenizer or "byte")
        train, validation = load_windows(
            name,
            tokenizer,
            sequence_length=sequence_length,
            text_column=text_column,
            split=split,
            streaming=streaming,
            max_corpus_bytes=max_corpus_bytes,
            validation_fraction=validation_fraction,
            cache_dir=cache_dir,
        )
    both = train.fingerprint + validation.fingerprint
    fingerprint = hashlib.sha256(both.encode()).hexdigest()[:16]
    return DataSplits(name, kind, train, validation, tokenizer, fingerprint)
