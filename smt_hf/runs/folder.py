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
from typing import Any, NamedTuple

from .arguments import SMTPretrainingArguments
from .checkpoints import clean, list_checkpoints
from .files import discard, fingerprint, part_of, write_atomic
from .locks import Lock
from .record import FILE, RunRecord

# What must not change when a run is resumed, beside the settings that are not `free`.
FIXED = ("method", "model", "teacher", "data_fingerprint", "teacher_fingerprint")
# What a path leads to, where its fingerprint is known, counts instead of the path: data and teachers move.
SAME_BY = {"dataset": "data_fingerprint", "teacher": "teacher_fingerprint"}
# Settings that say how a run is watched or kept, not what it computes.
FREE = {f.name for f in dataclasses.fields(SMTPretrainingArguments) if f.metadata.get("free")}
BUDGETS = ("max_steps", "max_minutes")
METRICS, LOCK = "metrics.jsonl", ".run.lock"
# Text files that a killed process may have left unfinished.
TEXTS = (FILE, METRICS, "README.md")


class Claim(NamedTuple):
    """What is in a folder that now is ours: nothing, or a run and perhaps a checkpoint of it."""

    record: RunRecord | None = None
    checkpoint: Path | None = None


class RunFolder:
    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.checkpoints = self.path / "checkpoints"
        self.lock = Lock(self.path / LOCK)

    def claim(self, record: RunRecord, resume: bool) -> Claim:
        """Take the folder for this process alone, until `release`; never mixes two runs in one folder.

        What killed processes have left half-written is removed.

        Raises ValueError for a folder that is not empty (without `resume`), and with it for a folder
        without a run, a run that was started with another architecture, data or schedule, or one that another
        process is training.
        """
        if resume:
            self.tidy()
        self.look(record, resume)
        self.path.mkdir(parents=True, exist_ok=True)
        if not self.lock.take():
            raise ValueError(
                f"another process is training the run in {self.path}; wait for its end, or stop it first."
            )
        try:
            found = self.look(record, resume)  # again: it may have been finished since
            if found.record is None or not found.record.finished:
                self.clean()
        except BaseException:
            self.release()
            raise
        return found

    def release(self) -> None:
        self.lock.release()

    def clean(self) -> None:
        """Remove what a killed process has left half-written."""
        for name in TEXTS:
            part_of(self.path / name).unlink(missing_ok=True)
        discard(part_of(self.path / "files"))
        clean(self.checkpoints)

    def tidy(self) -> None:
        """Remove what a run left that was killed after it was called finished: its lock, its checkpoints."""
        record = RunRecord.read(self.path)
        if record is None or not record.finished or not self.lock.take():
            return
        try:
            self.drop_checkpoints(record)
        finally:
            self.release()

    def drop_checkpoints(self, record: RunRecord) -> None:
        """All but the newest; of a run that keeps none, those that its end, or a signal, made."""
        keep = record.spec.get("save_total_limit", 0) if record.spec.get("checkpoint_every") else 0
        found = list_checkpoints(self.checkpoints)
        for path in found[: max(0, len(found) - keep)]:
            discard(path)
        clean(self.checkpoints)
        if self.checkpoints.is_dir() and not any(self.checkpoints.iterdir()):
            self.checkpoints.rmdir()

    def look(self, record: RunRecord, resume: bool) -> Claim:
        """What `claim` finds and refuses, nothing touched."""
        if not resume:
            # Who was killed before there was a record has left no more than this.
            ours = {LOCK, part_of(self.path / FILE).name}
            if self.path.exists() and not self.path.is_dir():
                raise ValueError(f"output folder {self.path} is a file; choose another folder.")
            if self.path.exists() and {path.name for path in self.path.iterdir()} - ours:
                raise ValueError(
                    f"output folder {self.path} is not empty; resume the run in it with --resume (in Python "
                    f"train(resume=True)), or choose another folder."
                )
            return Claim()
        old = RunRecord.read(self.path)
        if old is None:
            raise ValueError(
                f"there is no run to resume in {self.path} (no {FILE}); begin it without --resume."
            )
        if other := self.difference(old, record):
            raise ValueError(
                f"--resume with other settings: the run in {self.path} has {other}; resume with those that it "
                f"was started with."
            )
        found = list_checkpoints(self.checkpoints)
        if longer(old.spec, record.spec):
            if old.finished and not found:
                raise ValueError(
                    f"the run in {self.path} is finished and has kept no checkpoint (checkpoint_every 0) from "
                    f"which it could go on for longer; begin another run."
                )
            card = self.path / "README.md"
            if old.finished and old.card and card.is_file() and fingerprint(card) != old.card:
                raise ValueError(
                    f"{card} was edited since the run wrote it, and a longer run writes it anew; move it away "
                    f"first."
                )
            old = dataclasses.replace(old, status="running", finishing=[])
        elif old.finished and not (
            record.spec["push_to_hub"] and old.finishing and "push" not in old.finishing
        ):
            raise ValueError(
                f"the run in {self.path} is finished; there is nothing to resume, unless for a longer budget."
            )
        return Claim(old, found[-1] if found else None)

    @staticmethod
    def difference(old: RunRecord, new: RunRecord) -> str:
        """What makes one run another than the other, in words; empty if nothing does."""
        spec = as_read_back(new.spec)
        free = FREE | set(BUDGETS) if longer(old.spec, spec) else FREE
        moved = {name for name, by in SAME_BY.items() if getattr(old, by) == getattr(new, by) is not None}
        free = free | moved
        # Of what describes a model: who wrote it, and where its given model was, if that is the same by now.
        beside = {"transformers_version", *(["base_model_name_or_path"] if "teacher" in moved else [])}
        pairs = [(name, old.spec[name], spec[name]) for name in spec if name in old.spec and name not in free]
        for name in FIXED:
            mine, now = getattr(old, name), as_read_back(getattr(new, name))
            if isinstance(mine, dict) and isinstance(now, dict):
                keys = [key for key in {**mine, **now} if key not in beside]
                pairs += [(f"{name}'s {key}", mine.get(key), now.get(key)) for key in keys]
            elif name == "teacher_fingerprint" and mine is None:
                continue  # an earlier version wrote none
            elif name not in spec:
                pairs.append((name, mine, now))
        return ", ".join(f"{name} {mine!r} (now {now!r})" for name, mine, now in pairs if mine != now)

    def log(self, line: dict[str, Any]) -> None:
        with open(self.path / METRICS, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def forget_after(self, step: int, last_evaluation: bool = True) -> None:
        """Drop the metrics of what a resumed run will do again, and a line cut by a crash.

        last_evaluation: whether to keep the evaluation at `step` itself.
        """
        path = self.path / METRICS
        kept = []
        for raw in path.read_bytes().split(b"\n") if path.is_file() else []:
            line = whole(raw)
            if line is None or line["step"] > step:
                continue
            if last_evaluation or line["step"] < step or "evaluation" not in line:
                kept.append(raw.decode("utf-8") + "\n")
        write_atomic(path, "".join(kept))


def longer(old: dict[str, Any], new: dict[str, Any]) -> bool:
    """Whether a run is to last longer than it was to, by the same unit: the one change that there may be."""
    pairs = [(old.get(name), new.get(name)) for name in BUDGETS]
    units = [(before is None) == (now is None) for before, now in pairs]
    return all(units) and any(before is not None and now > before for before, now in pairs)


def whole(raw: bytes) -> dict[str, Any] | None:
    """A line of metrics.jsonl that was written to its end; None for one that a crash has cut, wherever."""
    try:
        line = json.loads(raw)
    except ValueError:  # also of bytes that are no UTF-8
        return None
    return line if isinstance(line, dict) and isinstance(line.get("step"), int) else None


def as_read_back(value: Any) -> Any:
    """As JSON has it: tuples are lists."""
    return json.loads(json.dumps(value))
