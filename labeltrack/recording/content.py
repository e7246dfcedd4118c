"""The bytes of files that nobody should trust, read when they are asked for.

They are not mapped: where another process makes a file shorter, touching a map of it ends this one, and every map holds
a descriptor, of which a process may have as few as 256.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
import weakref
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from labeltrack.errors import TruncatedRunError

resource: Any
try:
    import resource
except ImportError:  # pragma: no cover (Windows)
    resource = None

if TYPE_CHECKING:
    from pathlib import Path

READ = os.O_RDONLY | sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY"))
"""How files are opened that nobody should trust: links are not followed, pipes not waited for."""
EXHAUSTED = {errno.EMFILE, errno.ENFILE}
"""Errors of opening a file that say nothing of the file."""
ALIGNMENT = 64
MOST_OPEN = 32
_LARGE = 1 << 14  # bytes; columns are aligned in memory as they are in the file, heads of messages need not be
_SEEKING = threading.Lock()


def most_open() -> int:
    """Return how many parts may be written at a time: with two descriptors each, an eighth of what there may be."""
    soft = -1 if resource is None else resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return MOST_OPEN if soft < 0 else max(1, min(MOST_OPEN, soft // 16))


class Content(Protocol):
    """Bytes of a file: a memoryview, or what reads them."""

    def __len__(self) -> int:
        """Return how many there are."""

    def __getitem__(self, part: slice, /) -> Any:
        """Return some of them."""


def open_file(path: Path) -> int:
    """Open a file to read; return its descriptor.

    Raises:
        OSError: It cannot be opened, or is no regular file.
    """
    try:
        fd = os.open(path, READ)
    except OSError as error:
        if error.errno in EXHAUSTED:
            msg = f"{error.strerror}: nothing is wrong with it; let this process open more files (ulimit -n)"
            raise OSError(error.errno, msg, error.filename) from error
        raise
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        msg = f"{path} is not a regular file"
        raise OSError(msg)
    return fd


class FileContent:
    """The bytes of a file of this machine; links and pipes are refused.

    Args:
        path: The file.
        fd: Its descriptor, if it is open; it is closed with this.

    Raises:
        OSError: It cannot be opened, or is no regular file.
    """

    def __init__(self, path: Path, fd: int = -1) -> None:
        self._fd = open_file(path) if fd < 0 else fd
        self._size = os.fstat(self._fd).st_size
        weakref.finalize(self, os.close, self._fd)  # batches keep it open until they are read

    def __len__(self) -> int:
        """Return how many bytes there were when it was opened."""
        return self._size

    def __getitem__(self, part: slice) -> memoryview:
        """Read some bytes.

        Raises:
            TruncatedRunError: They are not there any more.
        """
        start, stop, _ = part.indices(self._size)
        size = max(0, stop - start)
        view = memoryview(bytearray(size)) if size < _LARGE else _aligned(size)
        done = 0
        while done < size:
            try:
                read = _read_into(self._fd, view[done:], start + done)
            except OSError as error:
                msg = f"it cannot be read: {error}"
                raise TruncatedRunError(msg) from error
            if not read:
                msg = f"the file was cut to {start + done} bytes or less while it was read"
                raise TruncatedRunError(msg)
            done += read
        return view


def _aligned(size: int) -> memoryview:
    room: Any = np.empty(size + ALIGNMENT - 1, np.uint8)
    first = -room.__array_interface__["data"][0] % ALIGNMENT
    return memoryview(room)[first : first + size]


def _read_into(fd: int, view: memoryview, position: int) -> int:
    """Read bytes of a file into memory; return how many there were."""
    if hasattr(os, "preadv"):
        return os.preadv(fd, [view], position)
    with _SEEKING:  # pragma: no cover (not on Linux; the position is one for all threads)
        os.lseek(fd, position, os.SEEK_SET)
        some = os.read(fd, len(view))
    view[: len(some)] = some
    return len(some)
