"""studies/gpu.sh writes a file for each step, and says which failed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "studies" / "gpu.sh"
STEPS = [
    "tests", "serve", "pretrain", "pretrain-compiled",
    *(
        f"{name}-{dtype}" for dtype in ("float32", "bfloat16")
        for name in ("decode", "decode-batch", "train", "train-paper-2", "dmt-paper-2")
    ),
]  # fmt: skip


def run(*words: str, python: str = sys.executable) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHON": python, "OMP_NUM_THREADS": "1"}
    return subprocess.run([str(SCRIPT), *words], env=environment, capture_output=True, text=True)


def test_a_folder_that_is_not_empty_is_refused(tmp_path):
    (tmp_path / "mine.txt").touch()
    done = run(str(tmp_path), "--tiny")
    assert done.returncode == 2
    assert done.stderr == f"{tmp_path} exists and is not an empty folder; name a new one.\n"


def test_every_step_that_fails_is_named_with_its_log_and_none_stops_another(tmp_path):
    python = tmp_path / "python"  # says that there is no GPU, and cannot do more
    python.write_text('#!/bin/sh\nif [ "$1" = -c ]; then echo cpu; else echo broken >&2; exit 1; fi\n')
    python.chmod(0o755)
    out = tmp_path / "out"
    done = run(str(out), "--tiny", python=str(python))
    assert done.returncode == 1
    for step in STEPS:
        assert f"{step} failed: {out}/{step}.log" in done.stdout
        assert "broken" in (out / f"{step}.log").read_text()
    done = run(str(tmp_path / "other"), python=str(python))
    assert done.returncode == 2 and "torch sees no GPU" in done.stderr


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_tiny_steps_all_pass_and_each_writes_its_file(tmp_path):
    out = tmp_path / "out"
    done = run(str(out), "--tiny")
    assert done.returncode == 0, done.stdout
    assert {path.stem for path in out.glob("*.json")} == set(STEPS)
    for step in STEPS:
        found = json.loads((out / f"{step}.json").read_text())
        assert "tests" in found or "status" in found or found["rows"], step
