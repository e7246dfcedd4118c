"""Tables for people and programs: text, HTML and Arrow, from columns or rows."""

from __future__ import annotations

import html as _html
import re
from typing import TYPE_CHECKING, Any

from labeltrack.errors import need

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_HEAD, _TAIL = 8, 4
_LONGEST = 80  # characters of a cell


def shown_places(n: int) -> list[int]:
    """Return which of n rows a short table shows: all, or the first eight and the last four.

    Example:
        >>> shown_places(2), len(shown_places(100))
        ([0, 1], 12)
    """
    if n <= _HEAD + _TAIL:
        return list(range(n))
    return [*range(_HEAD), *range(n - _TAIL, n)]


def _cell(value: Any) -> str:
    shown = f"{value:.6g}" if isinstance(value, float) else portable([str(value)])[0]
    return shown if len(shown) <= _LONGEST else f"{shown[: _LONGEST - 1]}…"


# Lone surrogates and text that looks like an escaped one, each with the backslashes before it.
_HALVES = re.compile(r"(?<!\\)(\\*)([\ud800-\udfff])|(?<!\\)(\\+)(ud[89a-f][0-9a-f]{2})")


def portable(values: list[Any]) -> list[Any]:
    r"""Return values of one kind with their texts made valid UTF-8, reversibly.

    Lone surrogates, which `os.fsdecode` makes of invalid UTF-8, become Python escapes; backslashes before them, or
    before text that looks like such an escape, are doubled.

    Example:
        >>> portable(["caf\udce9", r"caf\udce9", r"a\b", "é"])
        ['caf\\udce9', 'caf\\\\udce9', 'a\\b', 'é']
    """
    if not values or not isinstance(values[0], str) or _HALVES.search("\n".join(values)) is None:
        return values
    return [_HALVES.sub(_escaped, value) for value in values]


def _escaped(found: re.Match[str]) -> str:
    before, half, more, text = found.groups()
    return 2 * (before or more or "") + (f"\\u{ord(half):04x}" if half else text)


def text(title: str, rows: Sequence[Sequence[Any]], total: int) -> str:
    """Return an aligned table.

    Args:
        title: First line.
        rows: Header, then those of the `total` rows that `shown_places` picks.
        total: How many rows there are.
    """
    cells = [[_cell(value) for value in row] for row in rows]
    if total > len(rows) - 1:
        cells.insert(1 + _HEAD, ["…"] * len(rows[0]))
    widths = [max(len(row[j]) for row in cells) for j in range(len(rows[0]))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in cells]
    return "\n".join([title, *lines]) if len(rows) > 1 else title


def html(title: str, rows: Sequence[Sequence[Any]], total: int) -> str:
    """Return an HTML table; arguments are those of `text`."""
    cells = [[_html.escape(_cell(value)) for value in row] for row in rows]
    if total > len(rows) - 1:
        cells.insert(1 + _HEAD, ["…"] * len(rows[0]))
    head = "".join(f"<th>{cell}</th>" for cell in cells[0])
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in cells[1:])
    return f"<table><caption>{_html.escape(title)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def arrow_table(columns: Mapping[str, Any]) -> Any:
    """Return columns as a pyarrow table.

    Raises:
        ImportError: pyarrow is not installed; the message says how to install it.
    """
    pa = need("pyarrow", "Arrow tables", "arrow")
    types = {"U": pa.string(), "S": pa.binary(), "O": None}  # objects are str or bytes, which pyarrow sees
    arrays = {
        # Read-only fixed-width strings are not taken by pyarrow as they are; as objects they are.
        name: pa.array(portable(column.tolist()), types[kind])
        if (kind := column.dtype.kind) in types
        else pa.array(column)
        for name, column in columns.items()
    }
    return pa.table(arrays)


def arrow_stream(columns: Mapping[str, Any], requested_schema: object | None) -> object:
    """Return columns as an ``arrow_array_stream`` capsule.

    Raises:
        ImportError: pyarrow is missing.
    """
    capsule: object = arrow_table(columns).__arrow_c_stream__(requested_schema)
    return capsule
