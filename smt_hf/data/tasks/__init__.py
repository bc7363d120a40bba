"""Synthetic tasks: endless generated rows whose answers are known, each with a length to grow."""

from .base import SyntheticTask
from .copying import CopyTask, ReverseCopyTask
from .marked import MarkedTask
from .modular import ModularTask
from .parity import ParityTask
from .recall import RecallTask
from .retrieval import RetrievalTask
from .serial_recall import PrimacyTask, RecencyTask
from .stack import StackTask

_TASKS: list[type[SyntheticTask]] = [
    RetrievalTask,
    MarkedTask,
    CopyTask,
    ReverseCopyTask,
    StackTask,
    RecallTask,
    ModularTask,
    ParityTask,
    RecencyTask,
    PrimacyTask,
]
TASKS = {task.task: task for task in _TASKS}

__all__ = ["TASKS", "RetrievalTask", "SyntheticTask", "is_task", "make_task"]


def is_task(name: str) -> bool:
    """Whether `name` is a task of `TASKS`, with or without sizes of its own ("recall:num_keys=16")."""
    return name.partition(":")[0] in TASKS


def make_task(name: str, sequence_length: int, split: str = "train", seed: int = 0) -> SyntheticTask:
    """The task "NAME" or "NAME:size=number,size=number", the inverse of `SyntheticTask.name`.

    Raises ValueError for a size that the task does not have or that is no whole number.
    """
    task, _, options = name.partition(":")
    known = TASKS[task].size_names()
    sizes: dict[str, int] = {}
    for option in options.split(",") if options else []:
        size, _, number = option.partition("=")
        if size not in known:
            has = f"it has {', '.join(known)}" if known else "it has none"
            raise ValueError(f"the task {task!r} has no size {size!r}; {has}, given as {task}:size=number.")
        if size in sizes:
            raise ValueError(f"the size {size} of {task!r} is given twice; give it once.")
        try:
            sizes[size] = int(number)
        except ValueError:
            raise ValueError(f"the size {size} of {task!r} must be a whole number, not {number!r}.") from None
    return TASKS[task](sequence_length, split=split, seed=seed, **sizes)
