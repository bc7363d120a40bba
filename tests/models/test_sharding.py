"""FSDP2 cuts a model into shards and learns the same."""

import os
from pathlib import Path

import warm


def test_two_processes_with_a_shard_each_find_the_gradients_of_the_whole_model():
    script = Path(__file__).with_name("shard_tiny_model.py")
    two = warm.ranks(script, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""})
    ended = [process.communicate() for process in two]
    assert [process.returncode for process in two] == [0, 0], ended
