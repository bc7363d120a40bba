"""Killed for minutes, runs and servers end and answer as the unbroken ones; `make soak` shows the figures."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.parametrize("script", ["training.py", "serving.py"])
def test_no_kill_loses_anything(script: str, tmp_path: Path, pytestconfig: pytest.Config) -> None:
    if script == "serving.py":
        pytest.importorskip("uvicorn", reason="needs uvicorn, of the extra serve")
    minutes, seed = pytestconfig.getoption("--minutes", 2.0), pytestconfig.getoption("--soak-seed", None)
    seed = random.SystemRandom().randrange(10**6) if seed is None else seed
    print(f"\n{script}, {minutes:g} minutes; repeat it with --soak-seed {seed}", flush=True)
    # In a process of its own, which forks: nothing of pytest's must be in it.
    command = [sys.executable, str(Path(__file__).with_name(script)), str(tmp_path), str(minutes), str(seed)]
    assert subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}).returncode == 0
