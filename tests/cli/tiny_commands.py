"""Running `smt-hf` inside the test's own process, on data of a few kilobytes."""

import re
from pathlib import Path

TINY = ("--preset", "tiny", "--disable-tqdm", "--logging-steps", "1", "--num-evaluations", "2")


def write_corpus(path: Path, lines: int = 400) -> Path:
    """About 10 kB of English that differs from line to line."""
    path.write_text("".join(f"Line {i} says that {i} and {i + 1} are {2 * i + 1}.\n" for i in range(lines)))
    return path


def one_line(error: str) -> str:
    """What a command wrote on stderr, which must be a single line of plain words."""
    lines = error.splitlines()
    assert len(lines) == 1, error
    assert lines[0].startswith("smt-hf ") and ": error: " in lines[0]
    assert "Traceback" not in lines[0] and not re.search(r"\w+Error:", lines[0]), error
    return lines[0]
