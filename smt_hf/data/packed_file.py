"""The packed file: a corpus as two long streams of tokens, memory-mapped.

An Arrow IPC file with one column, `tokens`, and two record batches: training, then validation. Each
batch is one contiguous buffer, so a memory map of it is the whole stream as a NumPy array, without
copying. Counts and fingerprints lie in the schema's metadata.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from .tokenizer import is_byte_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FORMAT_VERSION = 2  # raise it whenever the same corpus would give another file
SPLITS = ("train", "validation")
TEMPORARY, LOCK = "tmp-", "lock"
OLD = 3600.0  # seconds
_BATCH_CHARACTERS = 1 << 20  # given to a tokenizer at a time


def pack(
    documents: Iterable[tuple[str, str]],
    tokenizer: PreTrainedTokenizerBase,
    path: Path,
    notes: dict[str, Any] | None = None,
) -> None:
    """Tokenize (split, document) pairs and write them to `path`, whole or not at all.

    Documents are separated by one end-of-text token. Memory use does not grow with the corpus:
    tokens go to temporary files beside `path`, which are then copied into one Arrow file; that is
    renamed to `path` once it is on disk, so no reader ever sees a part of it. Remains of a packing that was
    killed are removed first. notes: kept beside the counts.

    Raises ValueError for a tokenizer without an end-of-text token, ids outside its vocabulary, or text
    that it cannot encode; OSError, with the path in it, for a disk that is full.
    """
    if tokenizer.eos_token_id is None:
        raise ValueError(
            f"the tokenizer {tokenizer.name_or_path!r} has no eos_token, which separates documents;"
            f" set tokenizer.eos_token first."
        )
    vocab_size = max(tokenizer.get_vocab().values(), default=-1) + 1
    dtype = np.dtype("<u2" if vocab_size <= 1 << 16 else "<u4")
    separator = np.array([tokenizer.eos_token_id], dtype).tobytes()
    num_bytes = dict.fromkeys(SPLITS, 0)
    digests = {split: hashlib.sha256() for split in SPLITS}

    path.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        stack.enter_context(naming(path))
        folder = stack.enter_context(temporary_folder(path.parent))
        files = {s: stack.enter_context(open(Path(folder, s), "w+b")) for s in SPLITS}
        for split, size, ids in _encode(documents, tokenizer):
            if len(ids) and not 0 <= ids.min() <= ids.max() < vocab_size:
                raise ValueError(
                    f"the tokenizer gave ids from {ids.min()} to {ids.max()}, outside its "
                    f"vocabulary of {vocab_size}; its files do not belong together."
                )
            file = files[split]
            data = ids.astype(dtype).tobytes()
            for part in (separator, data) if file.tell() else (data,):
                file.write(part)
                digests[split].update(part)
            num_bytes[split] += size
        about = {
            **(notes or {}),
            "vocab_size": vocab_size,
            "num_bytes": num_bytes,
            "fingerprint": {split: digests[split].hexdigest()[:16] for split in SPLITS},
        }
        for file in files.values():
            file.flush()
        complete = Path(folder, "complete.arrow")
        _write_arrow([Path(folder, split) for split in SPLITS], dtype, about, complete)
        os.replace(complete, path)


def is_packed(path: Path) -> bool:
    """Whether a readable packed file is there; a damaged one is to be written anew."""
    import pyarrow as pa

    try:
        open_split(path, SPLITS[-1])
    except (FileNotFoundError, pa.ArrowException, ValueError, LookupError, TypeError):
        return False
    return True


def open_split(path: Path, split: str) -> tuple[np.ndarray, dict[str, Any]]:
    """The tokens of one split, an unsigned array (N,) mapped from the file, and the metadata."""
    import pyarrow as pa

    reader = pa.ipc.open_file(pa.memory_map(str(path)))
    tokens = reader.get_batch(SPLITS.index(split)).column(0).to_numpy(zero_copy_only=True)
    return tokens, json.loads(reader.schema.metadata[b"smt_hf"])


def _encode(
    documents: Iterable[tuple[str, str]], tokenizer: PreTrainedTokenizerBase
) -> Iterator[tuple[str, int, np.ndarray]]:
    """(split, UTF-8 bytes, ids) of each document; ids is a one-dimensional integer array.

    A document's text is only text: the letters "<|endoftext|>" in it do not become that token.
    """
    if is_byte_tokenizer(tokenizer):  # hundreds of times as fast as asking it
        for split, text in documents:
            data = _utf8(text)
            yield split, len(data), np.frombuffer(data, np.uint8)
        return
    for batch in _batches(documents):
        sizes = [len(_utf8(text)) for _, text in batch]
        try:
            encoded = tokenizer(
                [text for _, text in batch],
                add_special_tokens=False,
                split_special_tokens=True,
                return_attention_mask=False,
                verbose=False,  # documents longer than the tokenizer's model_max_length are fine
            )["input_ids"]
        except Exception as error:  # `tokenizers` raises nothing more special
            raise ValueError(
                f"the tokenizer {tokenizer.name_or_path!r} cannot encode the corpus ({error}); choose one that "
                f"knows all of its characters, such as 'byte'."
            ) from error
        for (split, _), size, ids in zip(batch, sizes, encoded, strict=True):
            yield split, size, np.asarray(ids, np.int64)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Errors of the disk name `path`: a write to an open file that fails does not say which."""
    try:
        yield
    except OSError as error:
        if error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error


@contextmanager
def temporary_folder(parent: Path) -> Iterator[Path]:
    """A new folder in `parent`, removed at the end, and those that dead processes have left removed now.

    A process that holds the lock in it is alive: the kernel releases the lock when the process dies.
    """
    for folder in parent.glob(f"{TEMPORARY}*"):
        if _abandoned(folder):
            shutil.rmtree(folder, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(dir=parent, prefix=TEMPORARY))
    try:
        with open(folder / "new-lock", "wb") as lock:
            _lock(lock)
            os.replace(folder / "new-lock", folder / LOCK)  # never there without being locked
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _abandoned(folder: Path) -> bool:
    """Whether a folder holds what a packing leaves, and nothing else, and its process is dead."""
    try:
        names = {path.name for path in folder.iterdir()}
        if not names <= {*SPLITS, "complete.arrow", "new-lock", LOCK}:
            return False  # not ours
        if LOCK not in names:  # made this moment, or by a version before 0.2
            return time.time() - folder.stat().st_mtime > OLD
        with open(folder / LOCK, "rb") as lock:
            return _lock(lock)
    except OSError:  # removed by somebody else, or not a folder of ours
        return False


def _lock(file: IO[bytes]) -> bool:
    """Take a file's lock if nobody has it; False where locks do not work, too."""
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (ImportError, OSError):
        return False
    return True


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"a document of the corpus has a lone surrogate at character {error.start}, which no "
            f"UTF-8 text can hold; remove it from the document that begins {text[:40]!a}."
        ) from error


def _batches(documents: Iterable[tuple[str, str]]) -> Iterator[list[tuple[str, str]]]:
    batch: list[tuple[str, str]] = []
    characters = 0
    for split, text in documents:
        batch.append((split, text))
        characters += len(text)
        if characters >= _BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _write_arrow(streams: Sequence[Path], dtype: np.dtype[Any], about: dict[str, Any], path: Path) -> None:
    """One record batch for each file of raw tokens; on disk when this returns."""
    import pyarrow as pa

    kind = pa.from_numpy_dtype(dtype)
    schema = pa.schema([pa.field("tokens", kind)], metadata={"smt_hf": json.dumps(about)})
    options = pa.ipc.IpcWriteOptions(allow_64bit=True)  # more than 2^31 tokens
    with open(path, "wb") as file:
        with pa.ipc.new_file(file, schema, options=options) as writer:
            for stream in streams:
                size = stream.stat().st_size
                buffer = pa.memory_map(str(stream)).read_buffer() if size else pa.py_buffer(b"")
                tokens = pa.Array.from_buffers(kind, size // dtype.itemsize, [None, buffer])
                writer.write_batch(pa.record_batch([tokens], schema=schema))
        file.flush()
        os.fsync(file.fileno())
