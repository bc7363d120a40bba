"""How a run ends early: what may stop it, and how it hears of a signal."""

import signal
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from smt_hf.runs.checkpoints import list_checkpoints

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class NonFiniteLossError(RuntimeError):
    """The loss became NaN or infinite; nothing after the last checkpoint is worth keeping."""


class Interrupted(Exception):
    """The run was asked to stop (SIGTERM or Ctrl-C) and has saved a checkpoint to resume from.

    exit_code: what a shell expects of a process that the signal ended, so that `pretrain && push` stops.
    """

    def __init__(self, saved: Path, number: int):
        super().__init__(str(saved))
        self.exit_code = 128 + number


def check_finite(bad_step: torch.Tensor, phase: str, folder: Path) -> None:
    """Raise NonFiniteLossError if there was a bad step. folder: with the checkpoints, one of which is good."""
    if (step := int(bad_step.item())) < 0:
        return
    found = list_checkpoints(folder)
    last = found[-1] if found else "none was written"
    raise NonFiniteLossError(
        f"the loss is not finite at step {step} of phase {phase!r}; last good checkpoint: {last}. "
        f"Resume from it with a lower learning rate."
    )


class StopSignals:
    """While it is entered, SIGTERM and Ctrl-C are remembered as `number` (0: none), and end nothing."""

    def __init__(self) -> None:
        self.number = 0
        self._saved: Path | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopSignals":
        self.number = 0
        self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, *_: Any) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def at_once(self, saved: Path) -> Iterator[None]:
        """Meanwhile a signal raises Interrupted where it finds the process: for work that may take long."""
        self._saved = saved
        try:
            yield
        finally:
            self._saved = None

    def _note(self, number: int, frame: Any) -> None:
        self.number = number
        if self._saved is not None:
            raise Interrupted(self._saved, number)


def agree(accelerator: Accelerator, seconds: float, number: int) -> tuple[float, int]:
    """The seconds of the main process, and the number of a signal that reached any process, on all of them."""
    if accelerator.num_processes == 1:
        return seconds, number
    mine = torch.tensor([[seconds, number]], dtype=torch.float64, device=accelerator.device)
    every = accelerator.gather(mine).cpu()
    return float(every[0, 0]), int(every[:, 1].max())


def leave(accelerator: Accelerator, stop: Interrupted) -> None:
    """End the group of processes of a run that was stopped, once nothing of DDP is left.

    The frames of the exception hold it. Its reducer, if it is the last to let the group go, joins the group's
    threads while it holds the interpreter's lock, which they wait for: the process would never end.
    """
    traceback.clear_frames(stop.__traceback__)
    accelerator.free_memory()
    accelerator.end_training()


@contextmanager
def signals_held_back() -> Iterator[None]:
    """Meanwhile no signal reaches this thread, nor a process that it starts until that lets it."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def leave_signals_to_the_parent(worker: int = 0) -> None:
    """In a worker of a data loader: a signal to the whole group must leave it to the trainer to end it."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
