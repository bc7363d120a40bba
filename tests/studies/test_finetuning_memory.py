"""Fine-tuning on long rows fits where it is said to fit; measured in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "studies" / "finetuning_memory.py"


@pytest.mark.slow
def test_a_batch_of_8_rows_of_4096_tokens_fits_in_4_gib_with_checkpointing():
    words = [sys.executable, str(SCRIPT), "gru", "--bptt-truncation", "256", "--checkpointing"]
    run = subprocess.run(words, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert run.returncode == 0, run.stderr
    peak = int(run.stdout.split("peak ")[1].split(" MiB")[0])
    assert 300 < peak < 4096  # below the first, nothing can have been measured
