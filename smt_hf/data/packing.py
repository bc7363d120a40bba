"""Windows of a packed corpus: what a language model is trained and judged on."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from . import corpora
from .dataset import Batch, StackedRows, row_numbers
from .packed_file import FORMAT_VERSION, SPLITS, is_packed, open_split, pack
from .tokenizer import tokenizer_fingerprint

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


logger = logging.getLogger(__name__)


class TokenWindows(StackedRows):
    """Every window of L tokens of one split of a packed corpus, in order of where it starts.

    Window i: `input_ids = tokens[i : i+L]` and `shift_labels = tokens[i+1 : i+L+1]`, so N tokens
    make N - L windows, which overlap: draw them at random for training and use `blocks` to see each
    token once.

    Attributes: `num_tokens` N; `vocab_size`; `bytes_per_token`, the raw UTF-8 bytes of this split's
    text over N, exact (the end-of-text tokens between documents count as tokens of no bytes), so
    bits per byte = nats per token / ln 2 / bytes_per_token; `fingerprint` of the tokens.

    Copies sent to worker processes reopen the file and share its pages.

    Raises ValueError where the split is too short for one window.
    """

    kind = "text"

    def __init__(self, path: str | Path, split: str, sequence_length: int, name: str) -> None:
        if sequence_length < 1:
            raise ValueError(f"sequence_length must be at least 1, but it is {sequence_length}.")
        self.path = Path(path)
        self.split = split
        self.sequence_length = sequence_length
        self.name = name
        self._tokens, about = open_split(self.path, split)
        self.num_tokens: int = len(self._tokens)
        self._require(sequence_length)
        self.vocab_size: int = about["vocab_size"]
        self.bytes_per_token: float = about["num_bytes"][split] / self.num_tokens
        self.fingerprint: str = about["fingerprint"][split]

    def _require(self, length: int) -> None:
        if self.num_tokens <= length:
            raise ValueError(
                f"the {self.split} split of {self.name!r} has {self.num_tokens} tokens, but one "
                f"window of sequence_length {length} takes {length + 1}; give a longer corpus or a "
                f"shorter length."
            )

    def __len__(self) -> int:
        return self.num_tokens - self.sequence_length

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """`input_ids` and `shift_labels`, both int64 (B, L), of the windows `indices` (B,)."""
        starts = row_numbers(indices, len(self))
        windows = self._tokens[starts[:, None] + np.arange(self.sequence_length + 1)]
        return {
            "input_ids": torch.from_numpy(windows[:, :-1].astype(np.int64)),
            "shift_labels": torch.from_numpy(windows[:, 1:].astype(np.int64)),
        }

    def at_length(self, sequence_length: int) -> TokenWindows:
        """The same tokens in windows of another length."""
        return TokenWindows(self.path, self.split, sequence_length, self.name)

    def blocks(self, length: int, max_blocks: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Consecutive windows that do not overlap: (input_ids, shift_labels), int64 (n, length).

        Every target is judged once; the last tokens, too few for a block, are left out. Both are
        views of one copy of the stream. `max_blocks` keeps only the first so many.
        """
        self._require(length)
        n = (self.num_tokens - 1) // length
        if max_blocks is not None:
            n = min(n, max_blocks)
        stream = torch.from_numpy(self._tokens[: n * length + 1].astype(np.int64))
        return stream[:-1].view(n, length), stream[1:].view(n, length)

    def evaluation_rows(self, count: int, horizon: int) -> tuple[torch.Tensor, torch.Tensor]:
        """At most `count` blocks of `horizon` tokens, spread evenly over the text."""
        x, y = self.blocks(horizon)
        spread = slice(None, None, max(1, len(x) // count))
        return x[spread][:count], y[spread][:count]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_tokens"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._tokens, _ = open_split(self.path, self.split)


def load_windows(
    name: str,
    tokenizer: PreTrainedTokenizerBase,
    *,
    sequence_length: int,
    text_column: str = "text",
    split: str = "train",
    streaming: bool = False,
    max_corpus_bytes: int | None = None,
    validation_fraction: float = 0.05,
    validation_split: str | None = None,
    cache_dir: str | Path | None = None,
) -> tuple[TokenWindows, TokenWindows]:
    """(training, validation) windows of a corpus; it is read and tokenized only the first time.

    See `load_data` for the arguments.
    """

    def pairs() -> tuple[Iterable[tuple[str, str]], dict[str, Any]]:
        own = corpora.own_validation_split(name, split, validation_split, streaming)
        left, held_out = max_corpus_bytes, None
        if own is not None:
            share = max_corpus_bytes and max(1, round(max_corpus_bytes * validation_fraction))
            left = max_corpus_bytes and max(1, max_corpus_bytes - (share or 0))
            held_out = read(own, share)
        return corpora.split_documents(read(split, left), validation_fraction, held_out), {"validation": own}

    def read(one: str, max_bytes: int | None) -> Iterator[str]:
        return corpora.read_documents(
            name, text_column=text_column, split=one, streaming=streaming, max_bytes=max_bytes
        )

    decides = [text_column, split, max_corpus_bytes, validation_fraction, validation_split]
    path, about = packed(name, tokenizer, decides, pairs, cache_dir)
    train, validation = (TokenWindows(path, side, sequence_length, name) for side in SPLITS)
    corpora.say_what_is_read(name, corpora.files_of(name))
    if about.get("validation") is not None:
        logger.info(f"{name}: validation is its own split {about['validation']!r}")
    return train, validation


def load_all_windows(
    name: str,
    tokenizer: PreTrainedTokenizerBase,
    *,
    sequence_length: int,
    text_column: str = "text",
    split: str | None = None,
    streaming: bool = False,
    max_corpus_bytes: int | None = None,
    cache_dir: str | Path | None = None,
) -> TokenWindows:
    """Windows of all of a corpus, to judge a model on: nothing is split off, and repetitions count.

    split: of a table; by default its "validation", "test" or "train", the first that it has.
    """

    def pairs() -> tuple[Iterable[tuple[str, str]], dict[str, Any]]:
        one = corpora.split_to_judge(name, split, streaming)
        documents = corpora.read_documents(
            name, text_column=text_column, split=one, streaming=streaming, max_bytes=max_corpus_bytes
        )
        return (("validation", text) for text in documents), {"split": one}

    decides = [text_column, split, max_corpus_bytes, "all of it"]
    path, about = packed(name, tokenizer, decides, pairs, cache_dir)
    windows = TokenWindows(path, "validation", sequence_length, name)
    corpora.say_what_is_read(name, corpora.files_of(name))
    if about["split"] != "train":
        logger.info(f"{name}: judging its split {about['split']!r}")
    return windows


def packed(
    name: str,
    tokenizer: PreTrainedTokenizerBase,
    decides: list[Any],
    pairs: Callable[[], tuple[Iterable[tuple[str, str]], dict[str, Any]]],
    cache_dir: str | Path | None,
) -> tuple[Path, dict[str, Any]]:
    """The packed file of a corpus, written now if it is not there, and what is known about it.

    Its name holds a hash of everything that decides its content: the corpus, the tokenizer, how the
    corpus is split (`decides`), and the format. `pairs` gives (split, document), and what to note beside.
    """
    content = {
        "format": FORMAT_VERSION,
        "corpus": [name, corpora.corpus_identity(name), *decides],
        "tokenizer": tokenizer_fingerprint(tokenizer),
    }
    key = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
    folder = Path(cache_dir or os.environ.get("SMT_HF_CACHE") or "~/.cache/smt_hf").expanduser()
    readable_name = re.sub(r"\W+", "-", name).strip("-")[-40:]
    path = folder / f"{readable_name}-{key}.arrow"
    if not is_packed(path):
        documents, notes = pairs()
        pack(documents, tokenizer, path, notes)
    return path, open_split(path, SPLITS[0])[1]
