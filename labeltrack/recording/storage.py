"""The files of a recorded run, in a folder of this machine or in any path that fsspec supports.

Nothing about them is trusted: links are not followed, pipes are not opened, and sizes are checked. Files are not mapped
into memory: where another process makes one shorter, touching its map ends this process, and each map takes a
descriptor, of which a process may have as few as 256.
"""

from __future__ import annotations

import errno
import io
import os
import stat
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from labeltrack._core.arrays import from_page
from labeltrack.errors import TruncatedRunError, need

HEAD = 1 << 16  # bytes; a schema takes less than a thousand
MOST_ENTRIES = 1_000_000  # of a folder
DEPTH = 4  # folders of mode, dataset and epoch, and the file
ALIGNMENT = 64
EXHAUSTED = {errno.EMFILE, errno.ENFILE}
"""Errors of opening a file that say nothing about the file."""
_READ = os.O_RDONLY | sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY"))
_LARGE = 1 << 14  # bytes; columns are aligned in memory as they are in the file, heads of messages need not be
_SEEKING = threading.Lock()


class LocalFolder:
    """A folder of this machine; files are named relative to the run, with slashes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.root = str(path)

    def names(self) -> tuple[list[str], list[str]]:
        """Return the sorted names of all files, and messages about what is neither file nor folder."""
        found = sorted(_walk(self.root, "", DEPTH))
        return [name for name, odd in found if not odd], [f"{name} {odd}" for name, odd in found if odd]

    def open(self, name: str) -> IO[bytes]:
        """Open a file to read; OSError if it is not a regular file."""
        return os.fdopen(_open(self.path / name), "rb")

    def size(self, name: str) -> int:
        """Return the number of bytes of a file."""
        return (self.path / name).lstat().st_size

    def content(self, name: str) -> Content:
        """Return the bytes of a file, which stays open as long as they are in use, even if it is renamed."""
        return FileContent(self.path / name)

    def head(self, name: str) -> tuple[Content, bool]:
        """Return the first bytes of a file, and whether these are all of them."""
        return self.content(name), True


def _walk(folder: str, prefix: str, depth: int) -> Iterator[tuple[str, str]]:
    """Yield the names of files and, where none belongs, of anything else, with what is odd about it."""
    try:
        found = os.scandir(folder)
    except FileNotFoundError:
        if not prefix:
            raise
        return  # a process that records removed it, as it was empty
    with found as entries:
        for n, entry in enumerate(entries):
            if n >= MOST_ENTRIES:
                msg = f"{folder} has more than {MOST_ENTRIES:,} entries; that is no recorded run"
                raise ValueError(msg)
            name = prefix + entry.name
            if entry.is_file(follow_symlinks=False):
                yield name, ""
            elif not entry.is_dir(follow_symlinks=False):
                yield name, f"is {'a link' if entry.is_symlink() else 'neither file nor folder'}; it is not followed"
            elif depth > 1 and (prefix or entry.name.startswith("mode=")):
                yield from _walk(entry.path, f"{name}/", depth - 1)
            elif prefix:
                yield name, "is a folder where none belongs"


class RemoteFolder:
    """A path that fsspec supports, such as ``s3://bucket/run``."""

    def __init__(self, url: str) -> None:
        self.root = url
        fs, path = need("fsspec.core", url, "dask").url_to_fs(url)
        self._fs: Any = fs
        self._path = path.rstrip("/")
        self._sizes: dict[str, int] = {}

    def names(self) -> tuple[list[str], list[str]]:
        """See `LocalFolder`."""
        self._fs.invalidate_cache()
        found = self._fs.find(self._path, detail=True)
        self._sizes = {name[len(self._path) :].lstrip("/"): int(info["size"] or 0) for name, info in found.items()}
        return sorted(self._sizes), []

    def open(self, name: str) -> IO[bytes]:
        """See `LocalFolder`."""
        file: IO[bytes] = io.BufferedReader(self._fs.open(f"{self._path}/{name}", "rb"))
        return file

    def size(self, name: str) -> int:
        """See `LocalFolder`."""
        size = self._sizes.get(name)
        return int(self._fs.size(f"{self._path}/{name}")) if size is None else size

    def content(self, name: str) -> Content:
        """Return the bytes of a file, all read into memory."""
        return memoryview(self._fs.cat_file(f"{self._path}/{name}"))

    def head(self, name: str) -> tuple[Content, bool]:
        """See `LocalFolder`."""
        data = memoryview(self._fs.cat_file(f"{self._path}/{name}", start=0, end=HEAD))
        return data, len(data) < HEAD


Storage = LocalFolder | RemoteFolder


def storage_of(path: str | os.PathLike[str]) -> Storage:
    """Return the storage that a path leads to: a folder, or with ``protocol://`` what fsspec opens."""
    text = os.fspath(path)
    return RemoteFolder(text) if "://" in text else LocalFolder(Path(text))


class FileContent:
    """The bytes of a regular file of this machine; a descriptor that it is given is closed when it is gone."""

    def __init__(self, path: Path, fd: int = -1) -> None:
        self._fd = _open(path) if fd < 0 else fd
        self._size = os.fstat(self._fd).st_size
        weakref.finalize(self, os.close, self._fd)  # batches keep it open until they are read

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, part: slice) -> memoryview:
        """Read some bytes; TruncatedRunError if they are no longer there."""
        start, stop, _ = part.indices(self._size)
        size = max(0, stop - start)
        memory: Any = bytearray(size) if size < _LARGE else from_page(size, np.dtype(np.uint8))
        view, done = memoryview(memory), 0
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


Content = bytes | memoryview | FileContent
"""Bytes of a file, of which slices are taken."""


def _open(path: Path) -> int:
    try:
        fd = os.open(path, _READ)
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


def _read_into(fd: int, view: memoryview, position: int) -> int:
    """Read bytes of a file into memory and return their number."""
    if hasattr(os, "preadv"):
        return os.preadv(fd, [view], position)
    with _SEEKING:  # pragma: no cover (not on Linux; the position is shared by all threads)
        os.lseek(fd, position, os.SEEK_SET)
        some = os.read(fd, len(view))
    view[: len(some)] = some
    return len(some)


def rename(path: Path, target: Path) -> None:
    """Rename a file; FileExistsError if there is one of the new name."""
    try:
        os.link(path, target)
    except FileExistsError:
        raise
    except (OSError, NotImplementedError):  # a file system without hard links
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target)) from None
        path.rename(target)
    else:
        path.unlink()


def sync_folder(folder: Path) -> None:
    """Wait until the names of its files are on disk."""
    if os.name != "posix":
        return
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
