"""Columns to files, by the ending of their name: CSV, Parquet or JSON; a file is there whole or not at all."""

from __future__ import annotations

import contextlib
import csv
import json
import math
import os
import secrets
import stat
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labeltrack._tables import render as _tables

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


def check_ending(path: Path, allowed: tuple[str, ...]) -> str:
    """Return the ending of a name, in lower case.

    Raises:
        ValueError: It is none of those allowed.
    """
    ending = path.suffix.lower()
    if ending not in allowed:
        msg = f"cannot tell the format of {path.name!r} by its name; it must end in {', '.join(allowed)}"
        raise ValueError(msg)
    return ending


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a path to write to, whose file takes the place of `path` when the block has ended well.

    Whatever fails, what was there stays, and nothing else is left. Devices and pipes are written to as they are; of a
    symbolic link, the file that it stands for is replaced.

    Raises:
        OSError: The file cannot be made, or not completely.
    """
    path = Path(path)
    target = Path(os.path.realpath(path)) if path.is_symlink() else path
    try:
        mode = target.stat().st_mode
    except OSError:
        mode = None  # there is none, or writing says what is wrong
    beside = mode is None or stat.S_ISREG(mode)
    half = target.with_name(f".{target.name[:40]}-{secrets.token_hex(8)}") if beside else target
    try:
        yield half
        if beside:
            if mode is not None:
                half.chmod(stat.S_IMODE(mode))
            _sync(half)
            half.replace(target)
    except OSError as error:
        msg = f"cannot write {path}: {error.strerror or error}"
        wrapped = OSError(msg) if error.errno is None else type(OSError(error.errno, msg))(msg)
        wrapped.errno = error.errno
        raise wrapped from error
    finally:
        if beside:
            with contextlib.suppress(OSError):
                half.unlink()


def _sync(path: Path) -> None:
    """Have a file written to disk: else its new name may get there before what is in it."""
    fd = os.open(path, os.O_RDWR)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def plain(value: Any) -> Any:
    """Return a value as JSON has it: numbers that are not finite become None, bytes text."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value


def rows_of(columns: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return columns as a list of rows, as JSON has it."""
    lists = [[plain(value) for value in column] for column in _lists(columns)]
    return [dict(zip(columns, row, strict=True)) for row in zip(*lists, strict=True)]


def _lists(columns: Mapping[str, Any]) -> list[list[Any]]:
    return [_tables.portable(column.tolist()) for column in columns.values()]


def write_csv(columns: Mapping[str, Any], path: Path) -> None:
    """Write columns as CSV; arguments and errors are those of `write_columns`."""
    with whole_file(path) as half, half.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*_lists(columns), strict=True))


def write_parquet(columns: Mapping[str, Any], path: Path) -> None:
    """Write columns as Parquet; arguments and errors are those of `write_columns`."""
    table = _tables.arrow_table(columns)
    import pyarrow.parquet as pq  # noqa: PLC0415 (an extra)

    with whole_file(path) as half:
        pq.write_table(table, half)


def write_json(columns: Mapping[str, Any], path: Path) -> None:
    """Write columns as a JSON list of rows; arguments and errors are those of `write_columns`."""
    with whole_file(path) as half:
        half.write_text(json.dumps(rows_of(columns), indent=1) + "\n", encoding="utf-8")


_WRITERS = {".csv": write_csv, ".parquet": write_parquet, ".json": write_json}


def write_columns(columns: Mapping[str, Any], path: Path) -> None:
    """Write columns to a file.

    Args:
        columns: ``(N,)`` arrays by name.
        path: Ends in .csv, .parquet or .json; a file that is there is replaced, if all goes well.

    Raises:
        ValueError: Another ending.
        ImportError: pyarrow is not installed, for Parquet (extra ``arrow``).
        OSError: The file cannot be written; what was there stays.
    """
    _WRITERS[check_ending(path, tuple(_WRITERS))](columns, path)
