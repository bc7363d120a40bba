"""Data: text corpora as packed windows, images as pixels, and synthetic tasks, behind one `load_data`.

Every dataset here is a `SequenceDataset`: map-style, gives `input_ids` and aligned `shift_labels` (-100:
nothing to predict), and stacks whole batches itself in `__getitems__` (use `collate_fn=keep_batch`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from .corpora import files_of, is_plain, read_documents, split_documents
from .dataset import SequenceDataset, as_sequence_dataset, keep_batch
from .kinds import METRICS, Kind
from .packing import TokenWindows, load_all_windows, load_windows
from .pixels import DIGITS, PixelSequences, load_all_pixels, load_pixels
from .tasks import TASKS, RetrievalTask, SyntheticTask, is_task, make_task
from .tokenizer import byte_tokenizer, load_tokenizer, symbol_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = [
    "METRICS",
    "TASKS",
    "DataSplits",
    "EvaluationData",
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
    "load_evaluation_data",
    "load_pixels",
    "load_tokenizer",
    "load_windows",
    "only_of_tables",
    "read_documents",
    "split_documents",
    "symbol_tokenizer",
]


AnyData = TokenWindows | PixelSequences | SyntheticTask


@dataclass(frozen=True)
class EvaluationData:
    """What a model is judged on. `fingerprint` names the exact tokens, and `part` says which rows they are."""

    name: str
    kind: Kind
    part: Literal["validation", "all"]
    validation: AnyData
    tokenizer: PreTrainedTokenizerBase
    fingerprint: str


@dataclass(frozen=True)
class DataSplits(EvaluationData):
    """What a run learns from and is judged on. `fingerprint` names the exact tokens of both."""

    train: AnyData


def data_kind(name: str, image_column: str | None = None) -> Kind:
    """What `load_data` takes `name` for; a table holds text unless an `image_column` is given."""
    if is_task(name):
        return "task"
    return "image" if name == DIGITS or image_column is not None else "text"


def only_of_tables(name: str, given: Mapping[str, Any]) -> list[str]:
    """Which of the given `streaming` and `image_column` change nothing: `datasets` does not read `name`."""
    if name == DIGITS:
        return [key for key in ("streaming", "image_column") if given.get(key)]
    if given.get("streaming") and data_kind(name, given.get("image_column")) == "text":
        return ["streaming"] if is_plain(name, files_of(name)) else []
    return []


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
    validation_split: str | None = None,
    cache_dir: str | Path | None = None,
) -> DataSplits:
    """Training and validation data by name: a task of `TASKS`, images, or a text corpus.

    name: a task ("retrieval", "recall:num_keys=16"), "python-docs", a path, or a `datasets` name; see
        `read_documents`.
    tokenizer: a tokenizer or the name of one, "byte" by default. Tasks and images bring their own; a
        tokenizer that is given, not named, is left alone, so that a model's own may always be given.
    sequence_length: tokens in a row; `train.at_length(n)` gives the same data at another length. None takes
        all pixels of an image, and only images may have it.
    seed: draws a task's rows. The split of a text corpus depends on its content alone.
    image_column: read the images in this column, as pixels; "digits" are images without it.
    grey_levels: of images, by default all that there are; see `load_pixels`.
    split, text_column, streaming, max_corpus_bytes: for text and images.
    validation_split: validate on all of this split. By default data with a split "validation" are validated
        on it if `split` is "train". Otherwise, and where both names are equal, a part of `split` is
        validation (`validation_fraction`). Nothing is ever on both sides.
    cache_dir: where packed tokens are kept; by default $SMT_HF_CACHE, else ~/.cache/smt_hf.

    Raises ValueError, in one sentence, for an unknown name, data too short for the length, or an argument
    that this kind of data has no use for.
    """
    train: AnyData
    validation: AnyData
    source = _Source(name, text_column, image_column, grey_levels, split, streaming, max_corpus_bytes)
    source.refuse_what_does_not_apply(tokenizer, validation_split, validation_fraction)
    held_out: dict[str, Any] = {
        "validation_fraction": validation_fraction,
        "validation_split": validation_split,
    }
    if source.kind == "image":
        train, validation = load_pixels(**source.of_pixels(sequence_length), split=split, **held_out)
        tokenizer = train.tokenizer()
    elif source.kind == "task":
        train, validation = (source.task(sequence_length, side, seed) for side in ("train", "validation"))
        tokenizer = train.tokenizer()
    else:
        tokenizer = _text_tokenizer(tokenizer)
        train, validation = load_windows(
            **source.of_windows(sequence_length, cache_dir), tokenizer=tokenizer, split=split, **held_out
        )
    both = train.fingerprint + validation.fingerprint
    fingerprint = hashlib.sha256(both.encode()).hexdigest()[:16]
    return DataSplits(name, source.kind, "validation", validation, tokenizer, fingerprint, train)


def load_evaluation_data(
    name: str,
    tokenizer: PreTrainedTokenizerBase | str | None = None,
    *,
    sequence_length: int | None,
    seed: int = 0,
    text_column: str = "text",
    image_column: str | None = None,
    grey_levels: int | None = None,
    split: str | None = None,
    streaming: bool = False,
    max_corpus_bytes: int | None = None,
    cache_dir: str | Path | None = None,
) -> EvaluationData:
    """Data that no run was trained on, to judge a model on all of them; arguments are as of `load_data`.

    split: by default the first of "validation", "test" and "train" that the data have. A task gives its
        validation rows, on which training is judged too.
    """
    validation: AnyData
    source = _Source(
        name, text_column, image_column, grey_levels, split or "train", streaming, max_corpus_bytes
    )
    source.refuse_what_does_not_apply(tokenizer)
    if source.kind == "image":
        validation = load_all_pixels(**source.of_pixels(sequence_length), split=split)
        tokenizer = validation.tokenizer()
    elif source.kind == "task":
        validation = source.task(sequence_length, "validation", seed)
        tokenizer = validation.tokenizer()
    else:
        tokenizer = _text_tokenizer(tokenizer)
        validation = load_all_windows(
            **source.of_windows(sequence_length, cache_dir), tokenizer=tokenizer, split=split
        )
    part: Literal["validation", "all"] = "validation" if source.kind == "task" else "all"
    return EvaluationData(name, source.kind, part, validation, tokenizer, validation.fingerprint)


def _text_tokenizer(tokenizer: PreTrainedTokenizerBase | str | None) -> PreTrainedTokenizerBase:
    if tokenizer is None or isinstance(tokenizer, str):
        return load_tokenizer(tokenizer or "byte")
    return tokenizer


@dataclass(frozen=True)
class _Source:
    """What names the data, as `load_data` takes it."""

    name: str
    text_column: str
    image_column: str | None
    grey_levels: int | None
    split: str
    streaming: bool
    max_corpus_bytes: int | None

    @property
    def kind(self) -> Kind:
        return data_kind(self.name, self.image_column)

    def of_pixels(self, sequence_length: int | None) -> dict[str, Any]:
        """What the loaders of images want of it."""
        names = ("name", "image_column", "grey_levels", "streaming")
        options = {name: getattr(self, name) for name in names}
        return {**options, "sequence_length": sequence_length, "max_bytes": self.max_corpus_bytes}

    def of_windows(self, sequence_length: int | None, cache_dir: str | Path | None) -> dict[str, Any]:
        """What the loaders of text want of it."""
        names = ("name", "text_column", "streaming", "max_corpus_bytes")
        options = {name: getattr(self, name) for name in names}
        return {**options, "sequence_length": self.length(sequence_length), "cache_dir": cache_dir}

    def task(self, sequence_length: int | None, side: str, seed: int) -> SyntheticTask:
        return make_task(self.name, self.length(sequence_length), side, seed)

    def length(self, asked: int | None) -> int:
        if asked is None:
            raise ValueError(f"{self.name!r} needs a sequence_length; only images have one of their own.")
        return asked

    def refuse_what_does_not_apply(
        self,
        tokenizer: PreTrainedTokenizerBase | str | None,
        validation_split: str | None = None,
        validation_fraction: float = 0.05,
    ) -> None:
        """Refuse arguments that would change nothing: they are a mistake about what `name` is."""
        useless: dict[str, Any] = {}
        what = {"task": "is a task", "image": "is read as images", "text": "is read as text"}[self.kind]
        if self.kind != "text" and isinstance(tokenizer, str):
            useless["tokenizer"] = tokenizer
        if self.kind != "text" and self.text_column != "text":
            useless["text_column"] = self.text_column
        if self.kind != "image" and self.grey_levels is not None:
            useless["grey_levels"] = self.grey_levels
        if self.kind == "task":
            given = {
                "image_column": (self.image_column, None),
                "split": (self.split, "train"),
                "streaming": (self.streaming, False),
                "max_corpus_bytes": (self.max_corpus_bytes, None),
                "validation_split": (validation_split, None),
                "validation_fraction": (validation_fraction, 0.05),
            }
            useless |= {key: value for key, (value, default) in given.items() if value != default}
        of_tables = {"streaming": self.streaming, "image_column": self.image_column}
        if not useless and (names := only_of_tables(self.name, of_tables)):
            useless, what = {names[0]: of_tables[names[0]]}, "is no table"
        if useless:
            key, value = next(iter(useless.items()))
            raise ValueError(
                f"{key} is {value!r}, but {self.name!r} {what} and has no use for it; leave it out."
            )
