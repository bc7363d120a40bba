"""Killed and resumed for minutes, every run ends as the unbroken one; `make soak` shows the figures."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_no_kill_loses_anything(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    options = ["--minutes", str(pytestconfig.getoption("--minutes", 2.0))]
    if (seed := pytestconfig.getoption("--soak-seed", None)) is not None:
        options += ["--seed", str(seed)]
    # In a process of its own, which forks: nothing of pytest's must be in it.
    command = [sys.executable, str(Path(__file__).with_name("soak.py")), str(tmp_path), *options]
    assert subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}).returncode == 0
