# Keyword dictionaries of mixed values, and the unions that transformers annotates.
# mypy: disable-error-code="arg-type, misc, union-attr"
"""Two processes, as torchrun starts them, learn what one process learns from the same global batch."""

import os
from pathlib import Path

import pytest
import torch
import warm
from safetensors.torch import load_file
from tiny_training import metrics
from train_tiny_run import train


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Folders of the same run by one process and by two."""
    folder = tmp_path_factory.mktemp("processes")
    script = Path(__file__).with_name("train_tiny_run.py")
    two = warm.ranks(script, folder / "two", env={**os.environ, "CUDA_VISIBLE_DEVICES": ""})
    ended = [process.communicate() for process in two]
    assert [process.returncode for process in two] == [0, 0], ended
    train(folder / "one")
    return folder / "one", folder / "two"


@pytest.mark.parametrize(
    ("phase", "path"),
    [
        ("smt", "checkpoints/step_0000002/model.safetensors"),
        ("smt", "checkpoints/step_0000002/teacher.safetensors"),
        ("dmt", "model.safetensors"),
        ("dmt", "teacher/model.safetensors"),
    ],
)
def test_weights_of_two_processes_equal_those_of_one(runs, phase, path):
    one, two = (load_file(folder / path) for folder in runs)
    assert one.keys() == two.keys()
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-4, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


def test_two_processes_write_one_log_and_count_the_tokens_of_both(runs):
    one, two = (metrics(folder) for folder in runs)
    for key in ("step", "phase", "tokens", "sequential_steps", "sequence_length", "learning_rate"):
        assert [line.get(key) for line in two] == [line.get(key) for line in one]
    for key in ("prediction_loss", "dynamics_loss", "readout_loss"):
        curves = [[line[key] for line in lines if key in line] for lines in (one, two)]
        assert curves[0] and curves[1] == pytest.approx(curves[0], abs=1e-4), key
    losses = [[line["evaluation"]["loss"] for line in lines if "evaluation" in line] for lines in (one, two)]
    assert losses[1] == pytest.approx(losses[0], abs=1e-4)
