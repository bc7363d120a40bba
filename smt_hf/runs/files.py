"""Writing files so that nobody ever reads half of one."""

import os
from pathlib import Path


def write_atomic(path: Path, text: str) -> None:
    """Write a text file so that readers see the old content or the new, never a part."""
    temporary = path.with_name(f".{path.name}.part")
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
