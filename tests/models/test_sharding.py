"""FSDP2 cuts a model into shards and learns the same."""

import os
import subprocess
import sys
from pathlib import Path


def test_two_processes_with_a_shard_each_find_the_gradients_of_the_whole_model():
    script = Path(__file__).with_name("shard_tiny_model.py")
    result = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(script)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True, text=True, timeout=170,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-3000:]
