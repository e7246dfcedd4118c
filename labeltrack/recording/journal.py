"""The journal of a recording: one line per event, appended and never changed.

A line consists of a checksum, a space, a JSON object with a number (`seq`, from 0 on) and an `event`, and a line feed.
Each was true when it was written; a crash can only cut off the last one.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any

from labeltrack.errors import need

if TYPE_CHECKING:
    from pathlib import Path

LARGEST_LINE = 16 * 2**20  # bytes; ours have some hundred, those with words up to a megabyte
MOST_DAMAGE = 100  # damaged lines after which the rest is ignored
_SPLIT_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")


def as_json(value: Any, **options: Any) -> bytes:
    """Return a value as JSON that `json.loads` reads back unchanged, halves of surrogate pairs included."""
    text = json.dumps(value, **options)
    # ASCII, except where two such halves follow each other: escaped, they would become one character.
    if "\\ud" in text:
        plain = json.dumps(value, **options, ensure_ascii=False)
        if _SPLIT_PAIR.search(plain):
            return plain.encode("utf-8", "surrogatepass")
    return text.encode()


def checksum(text: bytes) -> str:
    """Return the XXH3 of a text in 16 hexadecimal digits."""
    return str(need("xxhash").xxh3_64_hexdigest(text))


class Journal:
    """A journal that is written; FileExistsError if there is one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seq = self._size = 0
        self._fd = _create(path)
        self._folder = path.parent.stat()

    def append(self, event: str, *, sync: bool, **fields: Any) -> None:
        """Append a line, and wait until it is on disk if `sync`; after an OSError, it is not there."""
        if not os.fstat(self._fd).st_nlink:
            self.ensure_present()
        text = as_json({"seq": self._seq, "event": event, **fields})
        line = rest = memoryview(f"{checksum(text)} ".encode() + text + b"\n")
        try:
            while rest:
                rest = rest[os.write(self._fd, rest) :]
            if sync:
                os.fsync(self._fd)
        except OSError:
            os.ftruncate(self._fd, self._size)  # what follows must not continue half a line
            os.lseek(self._fd, self._size, os.SEEK_SET)
            raise
        self._size += len(line)
        self._seq += 1

    def ensure_present(self) -> bool:
        """If the file alone was deleted, restore it and return True; FileNotFoundError if more than that happened."""
        mine = os.fstat(self._fd)
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            if os.path.samestat(self.path.stat(), mine):
                return False
        with contextlib.suppress(OSError):
            if not mine.st_nlink and os.path.samestat(self.path.parent.stat(), self._folder):
                self._restore()
                return True
        msg = f"{self.path} was deleted, moved or replaced, or the folder that it is in was"
        raise FileNotFoundError(msg)

    def _restore(self) -> None:
        """Restore the deleted file: its content exists as long as it is open."""
        fd = _create(self.path)
        try:
            copied = 0
            while copied < self._size:
                copied += os.write(fd, os.pread(self._fd, min(2**24, self._size - copied), copied))
            os.fsync(fd)
        except BaseException:
            os.close(fd)
            self.path.unlink()
            raise
        os.close(self._fd)
        self._fd = fd

    def close(self, *, sync: bool) -> None:
        """Close the file; may be called again."""
        if self._fd >= 0:
            if sync:
                os.fsync(self._fd)
            os.close(self._fd)
            self._fd = -1


def _create(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)


@dataclass
class Lines:
    """The intact lines of a journal."""

    lines: list[dict[str, Any]] = field(default_factory=list)
    torn: bool = False  # the file ends within a line
    damage: list[str] = field(default_factory=list)  # messages about anything else


def read_journal(file: IO[bytes]) -> Lines:
    """Return every line of a journal whose checksum agrees, and what was lost."""
    found = Lines()
    expected = 0
    while raw := file.readline(LARGEST_LINE):
        if not raw.endswith(b"\n"):
            if len(raw) < LARGEST_LINE:
                found.torn = True
            else:
                found.damage.append(f"a line of more than {LARGEST_LINE} bytes after {expected} lines")
            break
        line = _line(raw)
        if line is None:
            found.damage.append(f"the checksum of a line after {expected} lines does not agree")
        elif line["seq"] < expected:
            found.damage.append(f"line {line['seq']} is there a second time")
        else:
            if line["seq"] > expected and not found.damage:
                found.damage.append(f"lines {expected} to {line['seq'] - 1} are missing")
            expected = line["seq"] + 1
            found.lines.append(line)
        if len(found.damage) >= MOST_DAMAGE:
            found.damage.append("and so on")
            break
    return found


def _line(raw: bytes) -> dict[str, Any] | None:
    """Return a line, decoded; None if its checksum does not agree."""
    text = raw[17:-1]
    if raw[:17] == f"{checksum(text)} ".encode():
        with contextlib.suppress(ValueError, RecursionError):
            line = json.loads(text)
            if isinstance(line, dict) and isinstance(line.get("seq"), int) and isinstance(line.get("event"), str):
                return line
    return None
