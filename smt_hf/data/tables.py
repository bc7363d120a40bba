"""Tables and images as `datasets` reads them, from disk or from the Hub; no code of a dataset is ever run."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .files import IMAGE_SUFFIXES, Found, card_decides, find, is_pattern
from .tasks import TASKS

PYTHON_DOCS = "python-docs"
VALIDATION = "validation"
"""What `datasets` calls the split that a model is judged on while it trains."""
# Words in a file's path that say its split, as `datasets` takes them; others are training.
_SPLIT_WORDS = dict.fromkeys(("test", "testing", "eval", "evaluation"), "test")
_SPLIT_WORDS |= dict.fromkeys((VALIDATION, "valid", "val", "dev"), VALIDATION)


def table_rows(name: str, table: Any, column: str) -> Iterator[Any]:
    """The values of a column, one row after another.

    Raises ValueError that names the data for whatever the reader stumbles over on its way.
    """
    number, rows = 0, iter(table)
    while True:
        try:
            row = next(rows)
        except StopIteration:
            return
        except Exception as error:  # each builder raises its own kinds
            raise ValueError(f"row {number} of {name!r} cannot be read ({reason(error)}).") from error
        yield row[column]
        number += 1


def load_table(name: str, column: str, split: str, streaming: bool, argument: str, images: bool = False) -> Any:
    """The one column of a table on disk or on the Hub, as `datasets` gives it.

    images: whether a folder is read for its images. An undecoded image has its path beside its bytes.
    Raises ValueError for a name that cannot be read, or one without the column, which `argument` chooses.
    """
    import datasets

    found = find(name, images)
    if found is not None and (found.kind == "text" or not found.files):
        endings = ", ".join(sorted(IMAGE_SUFFIXES))
        raise ValueError(f"{name!r} holds no images; give files ending in {endings}, or a table of images.")
    try:
        table = _load(name, found, split=split, streaming=streaming)
        # A stream may not know its columns yet.
        columns = table.column_names or list(next(iter(table), {}))
    except Exception as error:  # each builder raises its own kinds
        raise ValueError(_unreadable(name, found, reason(error))) from error
    if column not in columns:
        kinds = table.features or {}
        with_images = [key for key, kind in kinds.items() if isinstance(kind, datasets.Image)]
        choices = ", ".join(map(repr, columns))
        if with_images and argument == "text_column":
            choices += f", or image_column for {', '.join(map(repr, with_images))}"
        raise ValueError(f"{name!r} has no column {column!r}; choose {argument} among {choices}.")
    table = table.select_columns([column])
    if images and isinstance((table.features or {}).get(column), datasets.Image):
        table = table.cast_column(column, datasets.Image(decode=False))
    return table


def splits_of(name: str, streaming: bool, images: bool = False) -> list[str]:
    """The splits of a table; [] for data without splits: text files, "python-docs", "digits".

    Raises ValueError for a name that cannot be read.
    """
    found = find(name, images)
    if found is not None and not card_decides(name):
        return [] if found.kind == "text" else list(by_split(name, found.files))
    try:
        table = _load(name, found, streaming=streaming)
    except Exception as error:
        raise ValueError(_unreadable(name, found, reason(error))) from error
    return list(table) if isinstance(table, dict) else []


def own_split(name: str, split: str, asked: str | None, splits: list[str]) -> str | None:
    """Which of `splits` data are judged on; None where they are judged on a part of `split`.

    asked: the split that a user chose; `split` itself stands for a part of it. Without a choice, training
    on "train" is judged on the data's own "validation", where there is one.
    Raises ValueError for a choice that the data do not have.
    """
    if asked == split:
        return None
    if asked is not None and asked.split("[")[0] not in splits:
        has = f"it has {', '.join(splits)}" if splits else "it has none"
        raise ValueError(f"validation_split {asked!r} is no split of {name!r}; {has}.")
    return VALIDATION if asked is None and split == "train" and VALIDATION in splits else asked


def by_split(name: str, files: list[Path]) -> dict[str, list[str]]:
    """Files by split. A word in the path below `name` says it: "data/test-0001.parquet" belongs to the test.

    Other files are training. So is a file that was named by itself, and so are all files that a pattern
    matches if they belong to one split.
    """
    root = Path(name).expanduser()
    splits: dict[str, list[str]] = {}
    for file in files:
        below = file.relative_to(root) if file.is_relative_to(root) else Path(file.name)
        words = [] if file == root else re.split(r"[^a-z]+", str(below).lower())
        split = next((_SPLIT_WORDS[word] for word in words if word in _SPLIT_WORDS), "train")
        splits.setdefault(split, []).append(str(file))
    return {"train": [str(file) for file in files]} if len(splits) == 1 and is_pattern(name) else splits


def _load(name: str, found: Found | None, **options: Any) -> Any:
    """What `datasets` makes of a name or of files; it would log an error that is raised, and said, anyway."""
    import datasets

    if found is None:
        where = tuple(part for part in name.split(":", 1) if part)
    elif card_decides(name):
        where = (str(Path(name).expanduser()),)
    else:
        builder, how = found.builder
        where = (builder,)
        options |= {"data_files": by_split(name, found.files), **how}
    verbosity = datasets.logging.get_verbosity()
    datasets.logging.set_verbosity(logging.CRITICAL)
    try:
        return datasets.load_dataset(*where, **options)
    finally:
        datasets.logging.set_verbosity(verbosity)


def reason(error: BaseException) -> str:
    """The first line of what went wrong; `datasets` hides it behind the sentence that something did."""
    while type(error).__name__.startswith("DatasetGeneration") and error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, StopIteration):
        return "it holds no rows"
    return (str(error).strip().split("\n")[0] or type(error).__name__).rstrip(".")


def _unreadable(name: str, found: Found | None, why: str) -> str:
    if "zst" in why and found is not None:
        return f"{name!r} holds tables compressed by zstd; install the package zstandard, or decompress them."
    if found is not None:
        kind = found.builder[0] if found.files else "data"
        return f"{name!r} could not be read as {kind} ({why}); mend it, or read it with a split that it has."
    return (
        f"{name!r} could not be read ({why}); give a task ({', '.join(TASKS)}), "
        f"{PYTHON_DOCS!r}, 'digits', an existing file or folder, or a datasets name, as 'name' or "
        f"'name:config', with a split that it has."
    )
