"""docs/extending.md works: its blocks are applied to a copy of the package, and its commands run there."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import warm
from test_architecture import violations

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "extending.md"
# Files that each addition may touch, its test not counted.
BARS = {
    "A cell of your own": 1,
    "A built-in cell": 2,
    "A task": 2,
    "A loss term": 2,
    "A phase": 1,
    "A command": 2,
}
# Runs all that the page runs, in one process: torch is imported once.
DRIVER = """
import json, shlex, sys
from smt_hf.cli import main

sys.path.insert(0, "")
for kind, text in json.load(open("steps.json", encoding="utf-8")):
    print("##", text.splitlines()[0])
    if kind == "python":
        exec(compile(text, "docs/extending.md", "exec"), {})
    else:
        for line in text.replace(chr(92) + chr(10), "").splitlines():
            if code := main(shlex.split(line)[1:]):
                sys.exit(f"{line} exited with {code}")
"""


class Block(NamedTuple):
    section: str
    kind: str  # python, diff or sh
    path: str  # "" for what is run
    text: str


def blocks() -> Iterator[Block]:
    for part in PAGE.read_text(encoding="utf-8").split("\n## ")[1:]:
        for kind, path, text in re.findall(r"^```(\w+) ?(\S*)\n(.*?)^```$", part, re.MULTILINE | re.DOTALL):
            yield Block(part.splitlines()[0], kind, path, text)


def patched(source: str, block: Block) -> str:
    """The text with the lines of a diff: ' ' and '-' lines must stand in it once, ' ' and '+' replace them."""
    lines = block.text.splitlines()
    before = "".join(f"{line[1:]}\n" for line in lines if line[:1] in " -")
    after = "".join(f"{line[1:]}\n" for line in lines if line[:1] in " +")
    assert source.count(before) == 1, f"{block.path} does not have these lines once:\n{before}"
    return source.replace(before, after)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package as it is after everything on the page."""
    root = tmp_path_factory.mktemp("extended")
    shutil.copytree(ROOT / "smt_hf", root / "smt_hf", ignore=shutil.ignore_patterns("__pycache__"))
    for block in blocks():
        if block.path:
            path = root / block.path
            if block.kind == "diff":
                path.write_text(patched(path.read_text(encoding="utf-8"), block), encoding="utf-8")
            else:
                assert not path.exists(), f"{block.path} is there already"
                path.write_text(block.text, encoding="utf-8")
    return root


@pytest.fixture(scope="module")
def output(copy: Path) -> str:
    steps = [(block.kind, block.text) for block in blocks() if not block.path]
    (copy / "steps.json").write_text(json.dumps(steps), encoding="utf-8")
    done = warm.run(DRIVER, cwd=copy, env={**os.environ, "PYTHONPATH": str(copy)})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_each_addition_touches_no_more_files_than_it_may() -> None:
    touched: dict[str, set[str]] = {section: set() for section in BARS}
    for block in blocks():
        touched[block.section] |= {block.path} - {""}
    assert {section: len(paths) for section, paths in touched.items()} == BARS


def test_the_additions_keep_the_rules_of_the_rooms_and_of_style(copy: Path) -> None:
    assert violations(copy / "smt_hf") == []
    paths = sorted({block.path for block in blocks() if block.path})
    shutil.copy(ROOT / "pyproject.toml", copy)
    # Imports are sorted first: where a line belongs changes with every name that somebody adds.
    for words in (["check", "--select", "I", "--fix"], ["check"], ["format", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *words, "--no-cache", *paths],
            cwd=copy,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_cells_are_trained_and_load_again(copy: Path, output: str) -> None:
    assert "own cell: LeakyCell" in output
    for run, cell in (("own", "my_cells:LeakyCell"), ("leaky", "leaky")):
        assert json.loads((copy / "runs" / run / "config.json").read_text(encoding="utf-8"))["cell"] == cell
    assert (copy / "runs" / "leaky" / "cell_leaky.py").is_file(), "a built-in cell travels with its checkpoint"


def test_the_task_is_read_by_its_name_and_a_run_learns_from_it(copy: Path, output: str) -> None:
    assert "task: echo:delay=3 True" in output
    assert (
        json.loads((copy / "runs" / "echo" / "run.json").read_text(encoding="utf-8"))["dataset"]
        == "echo:delay=3"
    )


def test_the_loss_term_is_a_flag_and_is_logged(copy: Path, output: str) -> None:
    lines = (copy / "runs" / "centred" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(lines[0])["centring_loss"] > 0
    record = json.loads((copy / "runs" / "centred" / "run.json").read_text(encoding="utf-8"))
    assert record["spec"]["centring_weight"] == 0.1


def test_the_phase_runs_where_its_row_stands(copy: Path, output: str) -> None:
    assert "phases: ['smt', 'dmt', 'polish']" in output
    record = json.loads((copy / "runs" / "polished" / "run.json").read_text(encoding="utf-8"))
    assert [phase["end"] for phase in record["phases"]] == pytest.approx([0.5, 0.9, 1.0])
    assert record["steps"] == 20


def test_the_command_reads_a_run(copy: Path, output: str) -> None:
    record = json.loads((copy / "runs" / "leaky" / "run.json").read_text(encoding="utf-8"))
    assert f"{record['parameters']:,} parameters, {record['state_bytes']:,} bytes of state" in output
