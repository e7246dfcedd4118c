"""Write columns to CSV, Parquet or JSON, chosen by file extension; files are replaced atomically."""

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
from labeltrack.errors import need

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
    """Yield a temporary path whose file replaces `path` if the block succeeds.

    On failure the existing file stays and nothing else is left. Devices and pipes are written to directly; for a
    symbolic link, its target is replaced.

    Raises:
        OSError: The file cannot be written completely.
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
    """Flush a file to disk: otherwise its new name may become durable before its content."""
    fd = os.open(path, os.O_RDWR)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def plain(value: Any) -> Any:
    """Return a value for JSON: non-finite numbers become None, bytes become text."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value


def rows_of(columns: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return columns as a list of rows for JSON."""
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
    with whole_file(path) as half:
        need("pyarrow.parquet", "Parquet files", "arrow").write_table(table, half)


def write_json(columns: Mapping[str, Any], path: Path) -> None:
    """Write columns as a JSON list of rows; arguments and errors are those of `write_columns`."""
    with whole_file(path) as half:
        half.write_text(json.dumps(rows_of(columns), indent=1) + "\n", encoding="utf-8")


_WRITERS = {".csv": write_csv, ".parquet": write_parquet, ".json": write_json}


def write_columns(columns: Mapping[str, Any], path: Path) -> None:
    """Write columns to a file.

    Args:
        columns: ``(N,)`` arrays by name.
        path: Ends in .csv, .parquet or .json; an existing file is replaced on success.

    Raises:
        ValueError: Another ending.
        ImportError: pyarrow is not installed, for Parquet (extra ``arrow``).
        OSError: The file cannot be written; an existing one stays.
    """
    _WRITERS[check_ending(path, tuple(_WRITERS))](columns, path)
