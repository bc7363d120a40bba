"""RunFolder: everything a run leaves behind, and the way back into it.

config.json model.safetensors generation_config.json tokenizer files     → from_pretrained(folder)
README.md       the model card
run.json        the record: arguments, seed, versions, commit, data fingerprint, costs, final metrics
metrics.jsonl   one JSON object per logging step or evaluation
teacher/        the teacher, beside the model and never inside it
checkpoints/    step_0000500/ …: resumable, whole or absent
"""

import json
import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from .checkpointing import list_checkpoints, write_atomic

PACKAGES = ("smt-hf", "torch", "transformers", "accelerate", "datasets")
# What must not change when a run is resumed.
FIXED = ("method", "model", "teacher", "seed", "data_fingerprint")


class RunFolder:
    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.checkpoints = self.path / "checkpoints"

    def claim(self, record: dict[str, Any], resume: bool) -> Path | None:
        """The checkpoint to resume from, or None to begin; never mixes two runs in one folder.

        Raises ValueError for a folder that is not empty (without `resume`), and with it for a folder
        without a run, or a run that was started with another architecture, method, seed or data.
        """
        if not resume:
            if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
                raise ValueError(
                    f"output folder {self.path} is not empty; resume the run in it with --resume, or "
                    f"choose another folder."
                )
            return None
        old = read_record(self.path)
        if old is None:
            raise ValueError(f"there is no run to resume in {self.path} (no run.json).")
        for name in FIXED:
            mine = json.loads(json.dumps(record[name]))  # as it would read back
            if old[name] != mine:
                raise ValueError(
                    f"--resume with another {name}: the run in {self.path} has "
                    f"{difference(old[name], mine)}; resume with the arguments it was started with."
                )
        if old["status"] == "finished":
            raise ValueError(f"the run in {self.path} is finished; there is nothing to resume.")
        whole = list_checkpoints(self.checkpoints)
        return whole[-1] if whole else None

    def write_record(self, record: dict[str, Any]) -> None:
        write_atomic(self.path / "run.json", json.dumps(record, indent=2, ensure_ascii=False) + "\n")

    def log(self, line: dict[str, Any]) -> None:
        with open(self.path / "metrics.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def forget_after(self, step: int) -> None:
        """Drop the metrics of steps that a resumed run will do again, and a line cut by a crash."""
        path = self.path / "metrics.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= step]
        write_atomic(path, "".join(line + "\n" for line in kept))


def read_record(folder: Path) -> dict[str, Any] | None:
    """run.json of a folder, None if there is none."""
    path = folder / "run.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def new_record(model, teacher, args, phases, train_dataset) -> dict[str, Any]:
    """What is known of a run before it starts; its costs and results are added when it has finished."""
    return {
        "status": "running",
        "method": args.method,
        "phases": [phase._asdict() for phase in phases],
        "arguments": args.to_dict(),
        "output_dir": str(args.output_dir),
        "seed": args.seed,
        "cell": model.config.cell,
        "model": model.config.to_diff_dict(),
        "teacher": teacher.config.to_diff_dict() if teacher is not None else None,
        "parameters": sum(p.numel() for p in model.parameters()),
        "state_bytes": 4 * model.config.num_memory_tokens * model.config.hidden_size,
        "dataset": train_dataset.name,
        "data_kind": train_dataset.kind,
        "data_fingerprint": train_dataset.fingerprint,
        "sequence_length": train_dataset.sequence_length,
        "bytes_per_token": train_dataset.bytes_per_token,
        **environment(),
    }


def environment() -> dict[str, Any]:
    """Versions, git commit of the source (None outside a checkout), machine and command line."""
    versions: dict[str, str | None] = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    if torch.cuda.is_available():
        machine = f"{torch.cuda.device_count()} × {torch.cuda.get_device_name()}"
    else:
        machine = f"{os.cpu_count()} CPU cores ({platform.machine()})"
    return {
        "versions": {"python": platform.python_version(), **versions},
        "git_commit": git_commit(),
        "machine": machine,
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
    }


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


def difference(old: Any, new: Any) -> str:
    """Name what differs between two records, for an error message."""
    if isinstance(old, dict) and isinstance(new, dict):
        names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
        return ", ".join(f"{name} {old.get(name)!r} (now {new.get(name)!r})" for name in names)
    return f"{old!r} (now {new!r})"
