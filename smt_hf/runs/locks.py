"""A lock on a folder or a table: the kernel releases it when its holder dies, in whatever way."""

import errno
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# What a file system without locks answers.
UNSUPPORTED = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)

logger = logging.getLogger(__name__)
_descriptors: set[int] = set()  # of the locks that this process holds


class Lock:
    """A lock file, which is there while somebody holds it. Not taken when it is made."""

    def __init__(self, path: Path):
        self.path, self.taken = path, False
        self._descriptor: int | None = None

    def take(self, wait: bool = False) -> bool:
        """Take the lock; False if somebody else has it, whom `wait` waits for.

        Where the file system or the machine has no locks, say so and go on without.
        """
        while not self.taken:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                self.taken = flock(descriptor, wait)
                if self.taken and not self._is_there(descriptor):  # its last holder has removed the file
                    self.taken = False
                    continue
                if not self.taken:
                    return False
                self._descriptor, descriptor = descriptor, -1
                _descriptors.add(self._descriptor)
            except OSError as error:
                if error.errno not in UNSUPPORTED:
                    raise
                without_locks(self.path, error)
                self.taken = True
            finally:
                if descriptor >= 0:
                    os.close(descriptor)
        return True

    def release(self) -> None:
        """Remove the file and let go of the lock, if it was taken."""
        if not self.taken:
            return
        self.taken = False
        try:
            self.path.unlink(missing_ok=True)
        finally:
            if self._descriptor in _descriptors:
                _descriptors.discard(self._descriptor)
                os.close(self._descriptor)
            self._descriptor = None

    def _is_there(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), os.stat(self.path))
        except FileNotFoundError:
            return False


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Wait for a lock, and hold it."""
    lock = Lock(path)
    lock.take(wait=True)
    try:
        yield
    finally:
        lock.release()


def flock(descriptor: int, wait: bool) -> bool:
    """Whether the lock was taken. Raises OSError, one of `UNSUPPORTED`, where there are no locks."""
    try:
        import fcntl
    except ImportError as error:  # Windows
        raise OSError(errno.ENOTSUP, "this system has no flock") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def without_locks(path: Path, error: OSError) -> None:
    logger.warning(
        "%s cannot be locked (%s): nothing will stop a second process from writing there.", path.parent,
        error.strerror,
    )  # fmt: skip


def _let_go() -> None:
    """In a process just forked: a worker that outlives a killed run must not hold its lock."""
    for descriptor in _descriptors:
        os.close(descriptor)
    _descriptors.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)
