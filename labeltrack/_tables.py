"""Tables from columns or rows: text, HTML and Arrow; CSV, Parquet and JSON files, which are replaced atomically."""

from __future__ import annotations

import contextlib
import csv
import html as _html
import json
import math
import os
import re
import secrets
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from labeltrack.errors import need

_HEAD, _TAIL = 8, 4
_LONGEST = 80  # characters of a cell


def shown_places(n: int) -> list[int]:
    """Return which of n rows a short table shows: all, or the first eight and the last four."""
    if n <= _HEAD + _TAIL:
        return list(range(n))
    return [*range(_HEAD), *range(n - _TAIL, n)]


def _cell(value: Any) -> str:
    shown = f"{value:.6g}" if isinstance(value, float) else _visible(portable([str(value)])[0])
    return shown if len(shown) <= _LONGEST else f"{shown[: _LONGEST - 1]}…"


# Lone surrogates and text that looks like an escaped one, each with the backslashes before it.
_HALVES = re.compile(r"(?<!\\)(\\*)([\ud800-\udfff])|(?<!\\)(\\+)(ud[89a-f][0-9a-f]{2})")


def portable(values: list[Any]) -> list[Any]:
    r"""Return values of one kind with their texts made valid UTF-8, reversibly.

    Lone surrogates, which `os.fsdecode` makes of invalid UTF-8, become Python escapes; backslashes before them, or
    before text that looks like such an escape, are doubled.
    """
    if not values or not isinstance(values[0], str) or _HALVES.search("\n".join(values)) is None:
        return values
    return [_HALVES.sub(_escaped, value) for value in values]


def _escaped(found: re.Match[str]) -> str:
    before, half, more, text = found.groups()
    return 2 * (before or more or "") + (f"\\u{ord(half):04x}" if half else text)


def printable(text: str) -> str:
    """Return a text with control characters escaped, so that it neither breaks the line nor controls the terminal."""
    return _visible(text) or "''"


def _visible(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _cells(rows: Sequence[Sequence[Any]], total: int) -> list[list[str]]:
    cells = [[_cell(value) for value in row] for row in rows]
    if total > len(rows) - 1:
        cells.insert(1 + _HEAD, ["…"] * len(rows[0]))
    return cells


def text(title: str, rows: Sequence[Sequence[Any]], total: int) -> str:
    """Return an aligned table of a header and those of the `total` rows that `shown_places` picks."""
    cells = _cells(rows, total)
    widths = [max(len(row[j]) for row in cells) for j in range(len(rows[0]))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in cells]
    return "\n".join([title, *lines]) if len(rows) > 1 else title


def html(title: str, rows: Sequence[Sequence[Any]], total: int) -> str:
    """Return an HTML table; arguments are those of `text`."""
    cells = [[_html.escape(cell) for cell in row] for row in _cells(rows, total)]
    head = "".join(f"<th>{cell}</th>" for cell in cells[0])
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in cells[1:])
    return f"<table><caption>{_html.escape(title)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def arrow_table(columns: Mapping[str, Any]) -> Any:
    """Return columns as a pyarrow table, or raise an ImportError that says how to install that."""
    pa = need("pyarrow", "Arrow tables", "arrow")
    types = {"U": pa.string(), "S": pa.binary(), "O": None}  # objects are str or bytes, which pyarrow sees

    def array(column: Any) -> Any:
        kind = column.dtype.kind  # read-only fixed-width strings are not taken by pyarrow as they are
        return pa.array(portable(column.tolist()), types[kind]) if kind in types else pa.array(column)

    return pa.table({name: array(column) for name, column in columns.items()})


class Table:
    """A table: shown as text and HTML, taken by Arrow libraries, and written to files."""

    def columns(self) -> dict[str, Any]:
        """Return all columns as a dict of equally long arrays."""
        raise NotImplementedError

    def _shown(self) -> tuple[str, Sequence[Sequence[Any]], int]:
        """Return the arguments of `text`."""
        raise NotImplementedError

    def __repr__(self) -> str:
        """Return the table as text: every row, or the first and last few."""
        return text(*self._shown())

    def _repr_html_(self) -> str:
        return html(*self._shown())

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """Offer the columns to polars, pandas, duckdb and pyarrow (Arrow PyCapsule interface).

        Raises:
            ImportError: pyarrow is not installed (extra ``arrow``).
        """
        capsule: object = arrow_table(self.columns()).__arrow_c_stream__(requested_schema)
        return capsule

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        r"""Write the columns as CSV; numbers read back as the same doubles.

        Text is UTF-8. In CSV, Parquet and Arrow tables, lone surrogates, which `os.fsdecode` makes of invalid UTF-8,
        become Python escapes such as ``\udce9``; backslashes before them, or before text that looks like such an
        escape, are doubled, so that different texts stay different.

        Args:
            path: File to write; an existing one is replaced once everything is written.

        Raises:
            OSError: It cannot be written.
        """
        write_csv(self.columns(), Path(path))

    def to_parquet(self, path: str | os.PathLike[str]) -> None:
        """Write the columns as Parquet; see `to_csv`.

        Args:
            path: File to write; an existing one is replaced once everything is written.

        Raises:
            ImportError: pyarrow is not installed (extra ``arrow``).
            OSError: It cannot be written.
        """
        write_parquet(self.columns(), Path(path))


# -- files ------------------------------------------------------------------------------------------------


def check_ending(path: Path, allowed: tuple[str, ...]) -> str:
    """Return the ending of a name, in lower case, or raise a ValueError if it is none of those allowed."""
    ending = path.suffix.lower()
    if ending not in allowed:
        msg = f"cannot tell the format of {path.name!r} by its name; it must end in {', '.join(allowed)}"
        raise ValueError(msg)
    return ending


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path whose file replaces `path`, or the target of a link, if the block succeeds."""
    # Devices and pipes are written to directly.
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
            with half.open("r+b") as file:  # otherwise its new name may become durable before its content
                os.fsync(file)
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


def plain(value: Any) -> Any:
    """Return a value for JSON: non-finite numbers become None, bytes become text."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value


def rows_of(columns: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return columns as a list of rows for JSON."""
    rows = zip(*_lists(columns), strict=True)
    return [dict(zip(columns, map(plain, row), strict=True)) for row in rows]


def _lists(columns: Mapping[str, Any]) -> list[list[Any]]:
    return [portable(column.tolist()) for column in columns.values()]


def write_csv(columns: Mapping[str, Any], path: Path) -> None:
    """Write columns as CSV."""
    with whole_file(path) as half, half.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*_lists(columns), strict=True))


def write_parquet(columns: Mapping[str, Any], path: Path) -> None:
    """Write columns as Parquet."""
    table = arrow_table(columns)
    with whole_file(path) as half:
        need("pyarrow.parquet", "Parquet files", "arrow").write_table(table, half)


def write_json(columns: Mapping[str, Any], path: Path) -> None:
    """Write columns as a JSON list of rows."""
    with whole_file(path) as half:
        half.write_text(json.dumps(rows_of(columns), indent=1) + "\n", encoding="utf-8")


_WRITERS = {".csv": write_csv, ".parquet": write_parquet, ".json": write_json}


def write_columns(columns: Mapping[str, Any], path: Path) -> None:
    """Write ``(N,)`` columns to a file that ends in .csv, .parquet or .json; an existing one is replaced on success."""
    _WRITERS[check_ending(path, tuple(_WRITERS))](columns, path)
