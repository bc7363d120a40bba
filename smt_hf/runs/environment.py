"""Where a run was made: versions, commit, machine."""

import os
import platform
import subprocess
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("smt-hf", "torch", "transformers", "accelerate", "datasets")


def environment() -> dict[str, Any]:
    """Versions, git commit of the source (None outside a checkout), machine and command line."""
    if torch.cuda.is_available():
        machine = f"{torch.cuda.device_count()} × {torch.cuda.get_device_name()}"
    else:
        machine = f"{os.cpu_count()} CPU cores ({platform.machine()})"
    return {
        "versions": dict(versions()),
        "git_commit": git_commit(),
        "machine": machine,
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
    }


def default_device() -> torch.device:
    """Where Accelerate and the servers put a model."""
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return found or torch.device("cpu")


@cache  # of what was imported, whatever is installed later
def versions() -> dict[str, str | None]:
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


@cache
def git_commit() -> str | None:
    """The commit of the checkout this code runs from; installed packages have none."""
    folder = Path(__file__).resolve().parents[2]
    if not (folder / ".git").exists():
        return None
    try:
        result = subprocess.run(
            ["git", "-C", str(folder), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() or None
