"""Files that are whole or absent, and JSON that a reader can compare line by line."""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

FULL = (errno.ENOSPC, errno.EDQUOT)


def part_of(path: Path) -> Path:
    """Where something is written until it is whole: hidden, and known by its name."""
    return path.with_name(f".{path.name}.part")


def write_atomic(path: Path, text: str) -> None:
    """Write a text file so that readers see the old content or the new, never a part."""
    temporary = part_of(path)
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def fingerprint(path: Path) -> str:
    """Changes with the content of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


@contextmanager
def files_for(folder: Path) -> Iterator[Path]:
    """A hidden folder to write files into; at the end they are moved into `folder`, each whole.

    Raises OSError, which names `folder`, for a disk that is full.
    """
    part = part_of(folder / "files")
    discard(part)
    part.mkdir(parents=True)
    with writing(f"the model in {folder}", part):
        yield part
        fsync_all(part)
        for path in sorted(part.rglob("*")):
            target = folder / path.relative_to(part)
            if path.is_dir():
                target.mkdir(exist_ok=True)
            else:
                os.replace(path, target)
    discard(part)


@contextmanager
def writing(what: str, part: Path) -> Iterator[None]:
    """Turn what libraries raise of a disk into one OSError, and leave nothing half-written in `part`."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        text = str(error)
        torchs = isinstance(error, RuntimeError) and "inline_container" in text  # how torch reports a full disk
        if isinstance(error, RuntimeError) and not torchs:
            raise
        discard(part)
        number = error.errno if isinstance(error, OSError) else None
        full = torchs or number in FULL or any(f"os error {one}" in text for one in FULL)
        advice = "free some disk space, and resume" if full else "put that right, and resume"
        raise OSError(f"{what} could not be written ({text}); {advice} from the last checkpoint.") from error


def fsync_all(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            with open(path, "rb") as file:
                os.fsync(file.fileno())


def discard(folder: Path) -> None:
    """Remove a folder. It is hidden first, so that a removal cut short leaves nothing that looks whole."""
    if not folder.is_dir():
        return
    if not folder.name.startswith("."):
        hidden = part_of(folder)
        shutil.rmtree(hidden, ignore_errors=True)
        folder = folder.rename(hidden)
    shutil.rmtree(folder, ignore_errors=True)


def one_entry_a_line(record: dict[str, Any]) -> str:
    """A JSON object with one line for each key; a list or dict of objects has one line for each of them."""

    def shown(value: Any) -> str:
        dump = json.dumps
        if isinstance(value, list) and value and all(isinstance(entry, dict) for entry in value):
            return "[\n  " + ",\n  ".join(dump(entry, ensure_ascii=False) for entry in value) + "\n ]"
        if isinstance(value, dict) and value and all(isinstance(entry, dict) for entry in value.values()):
            entries = (f"{dump(key)}: {dump(entry, ensure_ascii=False)}" for key, entry in value.items())
            return "{\n  " + ",\n  ".join(entries) + "\n }"
        return dump(value, ensure_ascii=False)

    return "{\n " + ",\n ".join(f"{json.dumps(key)}: {shown(value)}" for key, value in record.items()) + "\n}\n"
