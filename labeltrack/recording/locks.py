"""Locks between processes: files that one process holds as long as it lives."""

from __future__ import annotations

import errno
import os
import sys
import weakref
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}  # errors of file systems without locks
_LOCKS: weakref.WeakSet[Lock] = weakref.WeakSet()


class Lock:
    """A lock on a file, which the system releases when the process ends, however it ends.

    `works` tells whether the file system has locks, as far as is known.
    """

    def __init__(self, path: Path) -> None:
        self.works = True
        self._path = path
        self._fd = -1
        _LOCKS.add(self)

    def acquire(self, *, wait: bool) -> bool:
        """Take the lock, making the file if there is none; on a file system without locks, everybody gets it.

        Raises:
            OSError: The file cannot be made.
        """
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            taken = _take(fd, wait=wait)
        except BaseException:
            os.close(fd)
            raise
        self.works = taken is not None
        if taken is False:
            os.close(fd)
            return False
        self._fd = fd
        return True

    def release(self) -> None:
        """Release it; may be called again."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def is_held(path: Path) -> bool:
    """Return whether any process holds the lock on a file."""
    lock = Lock(path)
    if not path.exists() or lock.acquire(wait=False):
        lock.release()
        return False
    return True


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock within the block, waiting for it first."""
    lock = Lock(path)
    lock.acquire(wait=True)
    try:
        yield
    finally:
        lock.release()


def _take(fd: int, *, wait: bool) -> bool | None:
    """Lock an open file and return whether that worked; None if there are no locks."""
    if sys.platform == "win32":  # pragma: no cover
        import msvcrt  # noqa: PLC0415

        try:
            msvcrt.locking(fd, msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
    import fcntl  # noqa: PLC0415

    try:
        fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        return None
    return True


def _let_go() -> None:  # pragma: no cover (in a forked process, where nothing is measured)
    """Close the locks of the parent in a forked process, where they would outlive it."""
    for lock in _LOCKS:
        lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)
