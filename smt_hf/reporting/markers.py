"""Tables between two lines of a Markdown page: `<!-- table: NAME -->` and `<!-- end -->`."""

import re
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path

from smt_hf.runs.files import write_atomic

START, END = re.compile(r"<!-- table: (.*?) -->\s*"), re.compile(r"<!-- end -->\s*")


def updated(path: Path, tables: Mapping[str, Callable[[], list[str]]]) -> str:
    """The text of a page with every table that it asks for made anew.

    Raises ValueError for a table that is not among `tables`, and for a marker without the other of its pair.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is no file; name the pages that have tables.")
    lines, inside = [], ""
    for line in path.read_text(encoding="utf-8").splitlines():
        if start := START.fullmatch(line):
            if inside:
                raise ValueError(
                    f"{path}: the table {inside!r} has no line <!-- end --> before {line.strip()}."
                )
            inside = start[1]
            if inside not in tables:
                near = get_close_matches(inside, tables, n=5, cutoff=0.3) or list(tables)[:5]
                raise ValueError(
                    f"{path} asks for the table {inside!r}, which these results do not give; "
                    f"they give {len(tables)}, among them {', '.join(near)}."
                )
            lines += [line, *tables[inside]()]
        elif END.fullmatch(line):
            if not inside:
                raise ValueError(f"{path} has a line <!-- end --> without a table before it.")
            inside = ""
            lines.append(line)
        elif not inside:
            lines.append(line)
    if inside:
        raise ValueError(f"{path}: the table {inside!r} has no line <!-- end --> after it.")
    return "".join(f"{line}\n" for line in lines)


def update(paths: Iterable[Path], tables: Mapping[str, Callable[[], list[str]]]) -> list[Path]:
    """Write the pages that differ, once all of them could be made; returns these."""
    made = {path: updated(path, tables) for path in paths}
    changed = [path for path, text in made.items() if text != path.read_text(encoding="utf-8")]
    for path in changed:
        write_atomic(path, made[path])
    return changed
