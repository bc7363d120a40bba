"""Checkpoints that are whole or absent: weights as safetensors, the optimizer's tensors, and the counters.

A checkpoint is written into a hidden folder and renamed when it is complete, so that a run killed in the
middle of writing leaves nothing that could be mistaken for a checkpoint.
"""

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from .files import discard, fsync_all, part_of, write_atomic, writing

FORMAT = 1
NAME, LEFT = re.compile(r"step_(\d{7,})"), re.compile(r"\.step_(\d{7,})\.part")
MARK = "state.json"


def name_of(step: int) -> str:
    return f"step_{step:07d}"


def list_checkpoints(folder: Path) -> list[Path]:
    """Whole checkpoints, oldest first."""
    found = [path for path in folder.glob("step_*") if NAME.fullmatch(path.name) and (path / MARK).is_file()]
    return sorted(found, key=lambda path: int(path.name[5:]))


def save_checkpoint(
    folder: Path,
    modules: dict[str, torch.nn.Module],
    tensors: dict[str, Any],
    state: dict[str, Any],
    limit: int,
) -> Path:
    """Write `folder/step_…` (named by state["step"]) and delete the oldest beyond `limit`.

    modules: saved as NAME.safetensors. tensors: state dicts of tensors and numbers, as optimizer.pt.
    Raises OSError, with nothing half-written left, when the disk is full.
    """
    folder.mkdir(parents=True, exist_ok=True)
    final = folder / name_of(state["step"])
    part = part_of(final)
    discard(part)
    with writing(f"checkpoint {final}", part):
        part.mkdir()
        for name, module in modules.items():
            weights = {key: value.detach().cpu().contiguous() for key, value in module.state_dict().items()}
            save_file(weights, part / f"{name}.safetensors", metadata={"format": "pt"})
        torch.save(tensors, part / "optimizer.pt")
        # Last, and the mark of a whole checkpoint.
        write_atomic(part / MARK, json.dumps({"format": FORMAT, **state}, indent=1))
        fsync_all(part)
        if final.exists():  # half of one: whole ones are older than the step
            shutil.rmtree(final)
        os.replace(part, final)
    for old in list_checkpoints(folder)[:-limit]:
        discard(old)
    return final


def clean(folder: Path) -> None:
    """Remove what killed processes have left of checkpoints: parts, and folders without the mark."""
    for path in folder.glob("*step_*"):
        left = LEFT.fullmatch(path.name) or (NAME.fullmatch(path.name) and not (path / MARK).is_file())
        if left and path.is_dir():
            shutil.rmtree(path, ignore_errors=True)


def read_state(checkpoint: Path) -> dict[str, Any]:
    """The counters of a checkpoint. Raises ValueError for one that a newer version wrote."""
    state = json.loads((checkpoint / MARK).read_text(encoding="utf-8"))
    if state["format"] > FORMAT:
        raise ValueError(
            f"checkpoint {checkpoint} has format {state['format']}, this version reads up to {FORMAT}; "
            f"update smt-hf."
        )
    return state


def load_weights(checkpoint: Path, modules: dict[str, torch.nn.Module]) -> None:
    for name, module in modules.items():
        module.load_state_dict(load_file(checkpoint / f"{name}.safetensors"))


def load_tensors(checkpoint: Path) -> dict[str, Any]:
    """Optimizer and random state; `weights_only`, so nothing but tensors and numbers is ever unpickled."""
    return torch.load(checkpoint / "optimizer.pt", map_location="cpu", weights_only=True)
