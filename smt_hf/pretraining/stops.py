"""How a run ends early."""

from pathlib import Path


class NonFiniteLossError(RuntimeError):
    """The loss became NaN or infinite; nothing after the last checkpoint is worth keeping."""


class Interrupted(Exception):
    """The run was asked to stop (SIGTERM or Ctrl-C) and has saved a checkpoint to resume from.

    exit_code: what a shell expects of a process that the signal ended, so that `pretrain && push` stops.
    """

    def __init__(self, checkpoint: Path | None, number: int):
        super().__init__(str(checkpoint))
        self.exit_code = 128 + number
