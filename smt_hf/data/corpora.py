"""Documents of a text corpus, and their split into training and validation.

A corpus is named by "python-docs" (Python's own manual and docstrings: it is on every machine), by
a path, or by any `datasets` name. A document is one `str`.
"""

from __future__ import annotations

import ast
import hashlib
import logging
import platform
import re
import sysconfig
import warnings
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

from .files import COMPRESSIONS, TABLE_BUILDERS, TEXT_SUFFIXES, Found, files_below, find, read_text
from .tables import PYTHON_DOCS, VALIDATION, load_table, own_split, splits_of, table_rows

FEW_DOCUMENTS = 20
_SKIPPED_FOLDERS = frozenset({"test", "tests", "idlelib", "lib2to3", "site-packages"})
_SHORTEST_DOCSTRING = 20  # characters; shorter ones are labels, not prose
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")  # shown by a few docstrings; not writable as UTF-8


def read_documents(
    name: str,
    *,
    text_column: str = "text",
    split: str = "train",
    streaming: bool = False,
    max_bytes: int | None = None,
) -> Iterator[str]:
    """The non-empty documents of corpus `name`, in an order that is the same every time.

    name: resolved in this order. "python-docs"; an existing path or a pattern ("texts/**/*.md"): a text
        file is one document, a folder gives every text file below it in sorted order, and tables –
        Parquet, Arrow, JSON, CSV – are read with `datasets`; all of them may be compressed (.gz, .bz2,
        .xz, .zst); else a name for `datasets.load_dataset`, where "name:config" picks a configuration.
    text_column, split, streaming: which column and split of a table, and whether `datasets` streams
        it instead of downloading it first.
    max_bytes: stop after this many UTF-8 bytes; the last document is cut at a whole character.

    Raises ValueError, in one sentence: an unknown name, a file that is not UTF-8, a folder of text and
    tables, a split of what has none, a missing column, a corpus with no text.
    """
    if max_bytes is not None and max_bytes < 1:
        raise ValueError(f"max_bytes must be at least 1 or None, but it is {max_bytes}.")
    found = files_of(name)
    if is_plain(name, found):
        if split != "train":
            raise ValueError(f"{name!r} has no split {split!r}; only tables and `datasets` names have splits.")
        if text_column != "text":
            raise ValueError(f"{name!r} has no column {text_column!r}; only tables have columns.")
        documents = map(read_text, found.files) if found is not None else _python_docs(_library_root())
    else:
        table = load_table(name, text_column, split, streaming, "text_column")
        documents = _texts(name, table, text_column)
    return _not_empty(name, _up_to(documents, max_bytes))


def files_of(name: str) -> Found | None:
    """The files that a corpus consists of; None where its name is no path."""
    return None if name == PYTHON_DOCS else find(name)


def is_plain(name: str, found: Found | None) -> bool:
    """Whether a corpus has neither splits nor columns, and is read here rather than by `datasets`."""
    return name == PYTHON_DOCS or (found is not None and found.kind == "text")


def say_what_is_read(name: str, found: Found | None) -> None:
    """One line that says which files count, for a folder or a pattern."""
    if found is not None and (found.left_out or found.files != [Path(name).expanduser()]):
        level = logging.WARNING if found.left_out else logging.INFO
        logging.getLogger(__name__).log(level, found.said(name))


def own_validation_split(name: str, split: str, asked: str | None, streaming: bool) -> str | None:
    """As `own_split`, of a corpus."""
    return own_split(
        name, split, asked, [] if name == PYTHON_DOCS or asked == split else splits_of(name, streaming)
    )


def split_to_judge(name: str, split: str | None, streaming: bool) -> str:
    """The split that a model is judged on, all of it: `split`, or "validation", "test", "train", if there."""
    if split is not None:
        return split
    splits = [] if name == PYTHON_DOCS else splits_of(name, streaming)
    return next((one for one in (VALIDATION, "test") if one in splits), "train")


def corpus_identity(name: str) -> dict[str, Any]:
    """What must stay the same for `name` to hold the same documents, found without reading them.

    For files: path, modification time and size. A name on the Hub stands for itself: delete the
    cache folder to take up a newer revision of it.
    """
    if name == PYTHON_DOCS:
        return {"python": platform.python_version(), "library": str(_library_root())}
    found = find(name)
    if found is None:
        return {"dataset": name}
    stats = [(str(file.resolve()), file.stat()) for file in found.files]
    return {"files": [[file, stat.st_mtime_ns, stat.st_size] for file, stat in stats]}


def split_documents(
    documents: Iterable[str], validation_fraction: float = 0.05, held_out: Iterable[str] | None = None
) -> Iterator[tuple[str, str]]:
    """Pairs (split, document), where split is "train" or "validation"; repeated documents are dropped.

    The split never leaks. With many documents each one goes where the hash of its *content* says,
    after exact de-duplication: the same text cannot land on both sides, and adding documents moves
    none of the others. (Of the first 20 the one with the lowest hash is always validation, so that
    it is never empty.) With fewer than 20 documents a hash would give lopsided splits, or none. Then the last
    `validation_fraction` of all characters is validation, and one document is cut there. Windows chosen at
    random would leak, since neighbours overlap.

    held_out: documents of a separate validation split. All of them are validation, and training drops them.

    Raises ValueError for a fraction outside (0, 1).
    """
    if not 0 < validation_fraction < 1:
        raise ValueError(f"validation_fraction must be between 0 and 1, but it is {validation_fraction}.")
    seen: set[bytes] = set()
    if held_out is not None:
        # In this order: what was held out is known before the first document of training.
        judged = (("validation", text) for _, text in _distinct(held_out, seen))
        return chain(judged, (("train", text) for _, text in _distinct(documents, seen)))
    return _split(_distinct(documents, seen), validation_fraction)


def _split(pairs: Iterator[tuple[float, str]], fraction: float) -> Iterator[tuple[str, str]]:
    first = list(islice(pairs, FEW_DOCUMENTS))
    if len(first) < FEW_DOCUMENTS:
        total = sum(len(text) for _, text in first)
        left = total - round(total * fraction)  # characters that still go to training
        for _, text in first:
            for split, part in (("train", text[:left]), ("validation", text[left:])):
                if part:
                    yield split, part
            left = max(0, left - len(text))
        return
    lowest = min(hashed for hashed, _ in first)
    for hashed, text in first:
        yield ("validation" if hashed < fraction or hashed == lowest else "train"), text
    for hashed, text in pairs:
        yield ("validation" if hashed < fraction else "train"), text


def _distinct(documents: Iterable[str], seen: set[bytes]) -> Iterator[tuple[float, str]]:
    """(hash in [0, 1), document) of each document the first time its exact text is seen."""
    for text in documents:
        digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        if digest not in seen:
            seen.add(digest)
            yield int.from_bytes(digest[:8], "big") / 2**64, text


def _up_to(documents: Iterable[str], max_bytes: int | None) -> Iterator[str]:
    if max_bytes is None:
        yield from documents
        return
    left = max_bytes
    for text in documents:
        data = text.encode("utf-8", "surrogatepass")
        if len(data) >= left:
            yield data[:left].decode("utf-8", "ignore")
            return
        left -= len(data)
        yield text


def _not_empty(name: str, documents: Iterable[str]) -> Iterator[str]:
    found = False
    for text in documents:
        if text:
            found = True
            yield text
    if not found:
        raise ValueError(
            f"the corpus {name!r} holds no text; a folder needs at least one non-empty file ending "
            f"in {', '.join(sorted(TEXT_SUFFIXES | TABLE_BUILDERS.keys()))}, or one of these and "
            f"{', '.join(sorted(COMPRESSIONS))}."
        )


def _texts(name: str, table: Any, text_column: str) -> Iterator[str]:
    for value in table_rows(name, table, text_column):
        if value is not None and not isinstance(value, str):
            raise ValueError(
                f"the column {text_column!r} of {name!r} holds {type(value).__name__}, not text; "
                f"choose another text_column."
            )
        yield value or ""


def _library_root() -> Path:
    return Path(sysconfig.get_paths()["stdlib"])


def _python_docs(library: Path) -> Iterator[str]:
    """Python's language reference (`pydoc_data.topics`), then the docstrings below `library`.

    About 2 MB of English, which differs between Python versions. Tests, IDLE, lib2to3 and installed
    packages are left out, as are docstrings below 20 characters and exact repetitions.
    """
    from pydoc_data.topics import topics

    texts = [topics[topic] for topic in sorted(topics)]
    for path in files_below(library, {".py"}):
        if not _SKIPPED_FOLDERS.isdisjoint(path.relative_to(library).parts[:-1]):
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the library's own invalid escapes
                tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):  # templates and deliberately broken files
            continue
        documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        nodes = (node for node in ast.walk(tree) if isinstance(node, documented))
        texts += [ast.get_docstring(node) or "" for node in nodes]
    long_enough = (text for text in dict.fromkeys(texts) if len(text) >= _SHORTEST_DOCSTRING)
    yield from (text for text in long_enough if not _LONE_SURROGATE.search(text))
