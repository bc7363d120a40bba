"""Documents of a text corpus, and their split into training and validation.

A corpus is named by "python-docs" (Python's own manual and docstrings: it is on every machine), by
a path, or by any `datasets` name. A document is one `str`.
"""

from __future__ import annotations

import ast
import hashlib
import os
import platform
import re
import sysconfig
import warnings
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from .tasks import TASKS

PYTHON_DOCS = "python-docs"
TEXT_SUFFIXES = frozenset({".txt", ".text", ".md", ".rst", ".tex", ".py"})
TABLE_BUILDERS = {".parquet": "parquet", ".jsonl": "json", ".json": "json", ".csv": "csv"}
"""Files that hold a table of documents, and the `datasets` builder that reads each."""

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

    name: resolved in this order. "python-docs"; an existing path (a text file is one document, a
        folder gives every text file below it in sorted order, and tables – Parquet, JSON, CSV –
        are read with `datasets`); else a name for `datasets.load_dataset`, where "name:config"
        picks a configuration.
    text_column, split, streaming: which column and split of a table, and whether `datasets` streams
        it instead of downloading it first.
    max_bytes: stop after this many UTF-8 bytes; the last document is cut at a whole character.

    Raises ValueError, in one sentence: an unknown name, a file that is not UTF-8, a missing column,
    a corpus with no text. No code of a dataset is ever run.
    """
    if max_bytes is not None and max_bytes < 1:
        raise ValueError(f"max_bytes must be at least 1 or None, but it is {max_bytes}.")
    path = Path(name).expanduser()
    if name == PYTHON_DOCS:
        documents = _python_docs(_library_root())
    elif path.is_file() and path.suffix.lower() not in TABLE_BUILDERS:
        documents = iter([_read_text(path)])
    elif path.is_dir() and not _holds_tables(path):
        documents = map(_read_text, _files_below(path, TEXT_SUFFIXES))
    else:
        table = load_table(name, path, text_column, split, streaming, "text_column")
        documents = _column(name, table, text_column)
    return _not_empty(name, _up_to(documents, max_bytes))


def corpus_identity(name: str) -> dict[str, Any]:
    """What must stay the same for `name` to hold the same documents, found without reading them.

    For files: path, modification time and size. A name on the Hub stands for itself: delete the
    cache folder to take up a newer revision of it.
    """
    path = Path(name).expanduser()
    if name == PYTHON_DOCS:
        return {"python": platform.python_version(), "library": str(_library_root())}
    if not path.exists():
        return {"dataset": name}
    files = [path] if path.is_file() else _files_below(path, TEXT_SUFFIXES | TABLE_BUILDERS.keys())
    stats = [(str(file.resolve()), file.stat()) for file in files]
    return {"files": [[file, stat.st_mtime_ns, stat.st_size] for file, stat in stats]}


def split_documents(documents: Iterable[str], validation_fraction: float = 0.05) -> Iterator[tuple[str, str]]:
    """(split, document) pairs, split being "train" or "validation"; repeated documents are dropped.

    The split never leaks. With many documents each one goes where the hash of its *content* says,
    after exact de-duplication: the same text cannot land on both sides, and adding documents moves
    none of the others. (Of the first 20 the one with the lowest hash is always validation, so that
    it is never empty.) With fewer than 20 documents a hash would give lopsided splits, or none: the
    last `validation_fraction` of all characters is validation instead, one document being cut
    there. A random choice of windows would not do: neighbours overlap.

    Raises ValueError for a fraction outside (0, 1).
    """
    if not 0 < validation_fraction < 1:
        raise ValueError(f"validation_fraction must be between 0 and 1, but it is {validation_fraction}.")
    return _split(_distinct(documents), validation_fraction)


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


def _distinct(documents: Iterable[str]) -> Iterator[tuple[float, str]]:
    """(hash in [0, 1), document) of each document the first time its exact text is seen."""
    seen = set()
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
            f"in {', '.join(sorted(TEXT_SUFFIXES | TABLE_BUILDERS.keys()))}."
        )


def _files_below(folder: Path, suffixes: Iterable[str]) -> list[Path]:
    """Files with these suffixes, sorted by path, hidden files and folders left out."""
    found = []
    for root, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(root, name) for name in files if not name.startswith(".")]
    return sorted(path for path in found if path.suffix.lower() in suffixes)


def _holds_tables(folder: Path) -> bool:
    """Whether `datasets` should read it: tables lie at the top, or in `data/`, as on the Hub."""
    return any(
        path.suffix.lower() in TABLE_BUILDERS
        for place in (folder, folder / "data")
        if place.is_dir()
        for path in place.iterdir()
    )


def _read_text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"the file {str(path)!r} is not UTF-8 at byte {error.start}; convert it to UTF-8, or "
            f"leave it out of the corpus."
        ) from error


def load_table(name: str, path: Path, column: str, split: str, streaming: bool, argument: str) -> Any:
    """The one column of a table on disk or on the Hub, as `datasets` gives it.

    Raises ValueError for a name that cannot be read, or one without the column, which `argument` chooses.
    """
    import datasets

    where: tuple[str, ...] = (str(path),)
    options: dict[str, Any] = {"split": split, "streaming": streaming}
    if path.is_file():
        where = (TABLE_BUILDERS[path.suffix.lower()],)
        options["data_files"] = str(path)
    elif not path.is_dir():
        where = tuple(part for part in name.split(":", 1) if part)
    try:
        table = datasets.load_dataset(*where, **options)
    except Exception as error:  # each builder raises its own kinds
        reason = str(error).strip().split("\n")[0].rstrip(".")
        raise ValueError(
            f"{name!r} could not be read ({reason}); give a task ({', '.join(TASKS)}), "
            f"{PYTHON_DOCS!r}, 'digits', an existing file or folder, or a datasets name, as 'name' or "
            f"'name:config', with a split that it has."
        ) from error
    columns = table.column_names or list(next(iter(table), {}))  # a stream may not know them yet
    if column not in columns:
        images = [key for key, kind in (table.features or {}).items() if isinstance(kind, datasets.Image)]
        choices = ", ".join(map(repr, columns))
        if images and argument == "text_column":
            choices += f", or image_column for {', '.join(map(repr, images))}"
        raise ValueError(f"{name!r} has no column {column!r}; choose {argument} among {choices}.")
    return table.select_columns([column])


def _column(name: str, rows: Iterable[dict[str, Any]], text_column: str) -> Iterator[str]:
    for row in rows:
        value = row[text_column]
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
    for path in _files_below(library, {".py"}):
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
