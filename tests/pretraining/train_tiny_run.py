"""Started by test_two_processes, twice: `train_tiny_run.py FOLDER` trains one tiny run."""

import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from tiny_training import Stream, tiny_trainer

# The uniformity loss sees all processes' labels, the batch is shared out in two parts of two rows each.
OPTIONS: dict[str, Any] = {"max_steps": 6, "gradient_accumulation_steps": 2, "checkpoint_every": 2}


def train(folder: Path) -> None:
    tiny_trainer(folder, Stream(), Stream(), **OPTIONS).train()


if __name__ == "__main__":
    torch.set_num_threads(1)
    warnings.simplefilter("error", FutureWarning)  # what torch is about to take away
    train(Path(sys.argv[1]))
