"""RunFolder: everything a run leaves behind, and the way back into it.

config.json model.safetensors generation_config.json tokenizer files     → from_pretrained(folder)
README.md       the model card
run.json        the record, see `RunRecord`
metrics.jsonl   one JSON object per logging step or evaluation
teacher/        the teacher, beside the model and never inside it
checkpoints/    step_0000500/ …: resumable, whole or absent
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

from .arguments import SMTPretrainingArguments
from .checkpoints import list_checkpoints
from .files import write_atomic
from .record import FILE, RunRecord

# What must not change when a run is resumed, beside the settings that are not `free`.
FIXED = ("method", "model", "teacher", "data_fingerprint")
# Settings that say how a run is watched or kept, not what it computes.
FREE = {f.name for f in dataclasses.fields(SMTPretrainingArguments) if f.metadata.get("free")}


class RunFolder:
    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.checkpoints = self.path / "checkpoints"

    def claim(self, record: RunRecord, resume: bool) -> Path | None:
        """The checkpoint to resume from, or None to begin; never mixes two runs in one folder.

        Raises ValueError for a folder that is not empty (without `resume`), and with it for a folder
        without a run, or a run that was started with another architecture, data or schedule.
        """
        if not resume:
            if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
                raise ValueError(
                    f"output folder {self.path} is not empty; resume the run in it with --resume, or "
                    f"choose another folder."
                )
            return None
        old = RunRecord.read(self.path)
        if old is None:
            raise ValueError(f"there is no run to resume in {self.path} (no {FILE}).")
        if other := self.difference(old, record):
            raise ValueError(
                f"--resume with other settings: the run in {self.path} has {other}; resume with those that it "
                f"was started with."
            )
        if old.finished:
            raise ValueError(f"the run in {self.path} is finished; there is nothing to resume.")
        whole = list_checkpoints(self.checkpoints)
        return whole[-1] if whole else None

    @staticmethod
    def difference(old: RunRecord, new: RunRecord) -> str:
        """What makes one run another than the other, in words; empty if nothing does."""
        spec = as_read_back(new.spec)
        pairs = [(name, old.spec[name], spec[name]) for name in spec if name in old.spec and name not in FREE]
        for name in FIXED:
            mine, now = getattr(old, name), as_read_back(getattr(new, name))
            if isinstance(mine, dict) and isinstance(now, dict):
                pairs += [(f"{name}'s {key}", mine.get(key), now.get(key)) for key in {**mine, **now}]
            elif name not in spec:
                pairs.append((name, mine, now))
        return ", ".join(f"{name} {mine!r} (now {now!r})" for name, mine, now in pairs if mine != now)

    def log(self, line: dict[str, Any]) -> None:
        with open(self.path / "metrics.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def forget_after(self, step: int) -> None:
        """Drop the metrics of steps that a resumed run will do again, and a line cut by a crash."""
        path = self.path / "metrics.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        kept = [line for line in lines if whole(line) and json.loads(line)["step"] <= step]
        write_atomic(path, "".join(line + "\n" for line in kept))


def whole(line: str) -> bool:
    """Whether a line of metrics.jsonl was written to its end; a cut may fall behind an inner brace."""
    try:
        return "step" in json.loads(line)
    except ValueError:
        return False


def as_read_back(value: Any) -> Any:
    """As JSON has it: tuples are lists."""
    return json.loads(json.dumps(value))
