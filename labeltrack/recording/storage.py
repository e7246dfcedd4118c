"""Where the files of a recorded run are read from: a folder of this machine, or any path that fsspec knows.

A folder is not to be trusted: links are not followed, pipes are not opened, no file is believed to be as large as it
says before it was looked at.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol

from labeltrack.recording.content import Content, FileContent, open_file

if TYPE_CHECKING:
    from collections.abc import Iterator

HEAD = 1 << 16  # bytes; a schema takes less than a thousand
MOST_ENTRIES = 1_000_000  # of a folder
DEPTH = 4  # folders of mode, dataset and epoch, and the file
REMOTE_BLOCK = 2**26  # bytes


class Storage(Protocol):
    """Files by their names, relative to the run, with slashes."""

    root: str

    def names(self) -> tuple[list[str], list[str]]:
        """Return the names of all files, sorted; and what is neither file nor folder, in words."""

    def open(self, name: str) -> IO[bytes]:
        """Open a file to read.

        Raises:
            FileNotFoundError: There is none.
            OSError: It is no regular file, or cannot be read.
        """

    def size(self, name: str) -> int:
        """Return the bytes of a file."""

    def content(self, name: str) -> Content:
        """Return the bytes of a file."""

    def head(self, name: str) -> tuple[Content, bool]:
        """Return the first bytes of a file, and whether these are all: where they cost no memory, or it is short."""


def storage_of(path: str | os.PathLike[str]) -> Storage:
    """Return where a path leads: to a folder, or with ``protocol://`` to what fsspec makes of it.

    Raises:
        ImportError: fsspec is not installed, or not what it takes for that protocol.
        ValueError: fsspec does not know that protocol.
    """
    text = os.fspath(path)
    if "://" in text:
        return RemoteFolder(text)
    return LocalFolder(Path(text))


class LocalFolder:
    """A folder of this machine.

    Args:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.root = str(path)

    def names(self) -> tuple[list[str], list[str]]:
        """Return the names of all files, sorted; and what is neither file nor folder, in words.

        Raises:
            ValueError: A folder has more than a million entries.
            OSError: A folder cannot be read.
        """
        found: list[str] = []
        strange: list[str] = []
        self._walk(self.path, "", found, strange, DEPTH)
        return sorted(found), sorted(strange)

    def _walk(self, folder: Path, prefix: str, found: list[str], strange: list[str], depth: int) -> None:
        for entry in _entries(folder):
            name = prefix + entry.name
            if entry.is_file(follow_symlinks=False):
                found.append(name)
            elif entry.is_dir(follow_symlinks=False):
                if depth > 1 and (prefix or entry.name.startswith("mode=")):
                    self._walk(Path(entry.path), f"{name}/", found, strange, depth - 1)
                elif prefix:
                    strange.append(f"{name} is a folder where none belongs")
            else:
                kind = "a link" if entry.is_symlink() else "neither file nor folder"
                strange.append(f"{name} is {kind}; it is not followed")

    def open(self, name: str) -> IO[bytes]:
        """Open a file to read.

        Raises:
            FileNotFoundError: There is none.
            OSError: It is no regular file, or cannot be read.
        """
        return os.fdopen(open_file(self.path / name), "rb")

    def size(self, name: str) -> int:
        """Return the bytes of a file."""
        return (self.path / name).lstat().st_size

    def content(self, name: str) -> Content:
        """Return the bytes of a file, which stays open as long as they are in use."""
        return FileContent(self.path / name)

    def head(self, name: str) -> tuple[Content, bool]:
        """Return the bytes of a file, and that these are all. They stay there if the file gets another name now."""
        return self.content(name), True


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        for n, entry in enumerate(entries):
            if n >= MOST_ENTRIES:
                msg = f"{folder} has more than {MOST_ENTRIES:,} entries; that is no recorded run"
                raise ValueError(msg)
            yield entry


class RemoteFolder:
    """A path that fsspec knows, such as ``s3://bucket/run``.

    Args:
        url: Protocol and path.
    """

    def __init__(self, url: str) -> None:
        try:
            from fsspec.core import url_to_fs  # noqa: PLC0415 (an extra)
        except ImportError as error:
            msg = f'{url} is read by fsspec: pip install "labeltrack[dask]" ({error})'
            raise ImportError(msg, name="fsspec") from error
        self.root = url
        fs, path = url_to_fs(url)
        self._fs: Any = fs
        self._path = path.rstrip("/")
        self._sizes: dict[str, int] = {}

    def names(self) -> tuple[list[str], list[str]]:
        """Return the names of all files, sorted."""
        self._fs.invalidate_cache()
        found = self._fs.find(self._path, detail=True)
        self._sizes = {name[len(self._path) :].lstrip("/"): int(info["size"] or 0) for name, info in found.items()}
        return sorted(self._sizes), []

    def open(self, name: str) -> IO[bytes]:
        """Open a file to read.

        Raises:
            FileNotFoundError: There is none.
            OSError: It cannot be read.
        """
        file: IO[bytes] = io.BufferedReader(self._fs.open(f"{self._path}/{name}", "rb"))
        return file

    def size(self, name: str) -> int:
        """Return the bytes of a file."""
        size = self._sizes.get(name)
        return int(self._fs.size(f"{self._path}/{name}")) if size is None else size

    def content(self, name: str) -> Content:
        """Return the bytes of a file, all of it read into memory."""
        return memoryview(self._fs.cat_file(f"{self._path}/{name}"))

    def head(self, name: str) -> tuple[Content, bool]:
        """Return the first bytes of a file, and whether these are all."""
        data = memoryview(self._fs.cat_file(f"{self._path}/{name}", start=0, end=HEAD))
        return data, len(data) < HEAD
