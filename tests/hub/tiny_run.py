"""A finished run to share, as small as they come."""

import re
from pathlib import Path

from smt_hf.cli import main

TINY = ["pretrain", "--preset", "tiny", "--disable-tqdm", "--max-steps", "2", "--checkpoint-every", "1"]


def python_of(card: str) -> list[str]:
    """The Python snippets of a card, in order, cut down to what a test has time for."""
    snippets = re.findall(r"```python\n(.*?)\n```", card, re.DOTALL)
    assert len(snippets) == 5
    for long, short in {
        "max_steps=100": "max_steps=2",
        "=100,": "=5,",
        "max_new_tokens=40": "max_new_tokens=5",
    }.items():
        assert any(long in snippet for snippet in snippets), long
        snippets = [snippet.replace(long, short) for snippet in snippets]
    return snippets


def make_run(folder: Path) -> Path:
    """A finished run in `folder`, with beside its own files such as must not be published."""
    corpus = folder.parent / "lines.txt"
    corpus.write_text("".join(f"Line {i} says that {i} and {i + 1} are {2 * i + 1}.\n" for i in range(400)))
    assert main([*TINY, "--dataset", str(corpus), "--output-dir", str(folder)]) == 0
    assert list((folder / "checkpoints").iterdir())
    for name in (".env", "notes.txt", ".README.md.part", "optimizer.pt", "teacher/.cache.json"):
        (folder / name).write_text("private")
    return folder
