"""Files that sinks write: a disk that fills up costs what does not fit, and nothing that was written before."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def replace_file(path: Path, text: str) -> None:
    """Write a file, whose folder is made; on failure, an existing one stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(".half")
    try:
        half.write_text(text, encoding="utf-8")
        half.replace(path)
    finally:
        half.unlink(missing_ok=True)


def append_line(path: Path, line: str) -> None:
    """Append a line to a file, whose folder is made: all of it, or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    left = f"{line}\n".encode()
    with path.open("ab", buffering=0) as file:
        end = file.tell()
        try:
            while left:
                left = left[file.write(left) :]
        except OSError:
            file.truncate(end)
            raise
