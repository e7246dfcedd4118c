"""Columns to files, by the ending of their name: CSV, Parquet or JSON; a file is there whole or not at all."""

from __future__ import annotations

import contextlib
import csv
import json
import math
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from labeltrack import _tables

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path


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

    Raises:
        OSError: The file cannot be made.
    """
    half = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        yield half
        half.replace(path)
    except OSError as error:
        msg = f"cannot write {path}: {error.strerror or error}"
        raise OSError(msg) from error
    finally:
        with contextlib.suppress(OSError):
            half.unlink()


def plain(value: Any) -> Any:
    """Return a value as JSON has it: numbers that are not finite become None, bytes text."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value


def rows_of(columns: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return columns as a list of rows, as JSON has it."""
    lists = [[plain(value) for value in column.tolist()] for column in columns.values()]
    return [dict(zip(columns, row, strict=True)) for row in zip(*lists, strict=True)]


def write_columns(columns: Mapping[str, Any], path: Path) -> None:
    """Write columns to a file.

    Args:
        columns: ``(N,)`` arrays by name.
        path: Ends in .csv, .parquet or .json; a file that is there is replaced.

    Raises:
        ValueError: Another ending.
        ImportError: pyarrow is not installed, for Parquet (extra ``arrow``).
        OSError: The file cannot be written.
    """
    ending = check_ending(path, (".csv", ".parquet", ".json"))
    with whole_file(path) as half:
        if ending == ".csv":
            with half.open("w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file)
                writer.writerow(columns)
                writer.writerows(zip(*(column.tolist() for column in columns.values()), strict=True))
        elif ending == ".parquet":
            table = _tables.arrow_table(columns)
            import pyarrow.parquet as pq  # noqa: PLC0415 (an extra)

            pq.write_table(table, half)
        else:
            half.write_text(json.dumps(rows_of(columns), indent=1) + "\n", encoding="utf-8")
