"""Text files that are whole or absent, and JSON that a reader can compare line by line."""

import json
import os
from pathlib import Path
from typing import Any


def write_atomic(path: Path, text: str) -> None:
    """Write a text file so that readers see the old content or the new, never a part."""
    temporary = path.with_name(f".{path.name}.part")
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


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
