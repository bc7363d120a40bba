"""Data: text corpora as packed windows of tokens, and synthetic tasks, behind one `load_data`.

Every dataset here is map-style, gives `input_ids` and aligned `shift_labels` (-100: nothing to
predict), stacks whole batches itself in `__getitems__` (use `collate_fn=keep_batch`), and has
`name`, `metric`, `vocab_size`, `sequence_length`, `bytes_per_token`, `fingerprint`, `at_length`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from .batching import keep_batch
from .corpora import read_documents, split_documents
from .packing import TokenWindows, load_windows
from .tasks import TASKS, RetrievalTask, SyntheticTask, is_task, make_task
from .tokenizer import byte_tokenizer, load_tokenizer, symbol_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = [
    "TASKS",
    "DataSplits",
    "RetrievalTask",
    "SyntheticTask",
    "TokenWindows",
    "byte_tokenizer",
    "is_task",
    "keep_batch",
    "load_data",
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
    kind: Literal["text", "task"]
    train: TokenWindows | SyntheticTask
    validation: TokenWindows | SyntheticTask
    tokenizer: PreTrainedTokenizerBase
    fingerprint: str


def load_data(
    name: str,
    tokenizer: PreTrainedTokenizerBase | str | None = None,
    *,
    sequence_length: int,
    seed: int = 0,
    text_column: str = "text",
    split: str = "train",
    streaming: bool = False,
    max_corpus_bytes: int | None = None,
    validation_fraction: float = 0.05,
    cache_dir: str | Path | None = None,
) -> DataSplits:
    """Training and validation data by name: a task of `TASKS`, or a text corpus.

    name: a task ("retrieval", "recall:num_keys=16"), "python-docs", a path, or a `datasets` name; see
        `read_documents`.
    tokenizer: a tokenizer or the name of one, "byte" by default. A task brings its own.
    sequence_length: tokens in a row; `train.at_length(n)` gives the same data at another length.
    seed: of a task's rows. The split of a text corpus depends on its content alone.
    split, text_column, streaming, max_corpus_bytes, validation_fraction: text only; validation is
        taken from this split of the corpus, and never overlaps with training.
    cache_dir: where packed tokens are kept; by default $SMT_HF_CACHE, else ~/.cache/smt_hf.

    Raises ValueError, in one sentence, for an unknown name or data too short for the length.
    """
    train: TokenWindows | SyntheticTask
    validation: TokenWindows | SyntheticTask
    if is_task(name):
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
    kind: Literal["text", "task"] = "task" if is_task(name) else "text"
    return DataSplits(name, kind, train, validation, tokenizer, fingerprint)
