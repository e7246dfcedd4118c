"""Reading the Arrow IPC messages of recorded samples: columns of numbers, nothing nested or compressed.

Arrow libraries read damaged files wrongly or crash on them, and allocate as much as a file tells them to. Here every
offset is checked before it is used, nothing is allocated, and anything that labeltrack does not write raises
`DamagedRunError`. The layout is that of the Arrow columnar format, version 1.5, and of FlatBuffers.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from labeltrack.errors import DamagedRunError

if TYPE_CHECKING:
    from labeltrack.recording.storage import Content

MAGIC = b"ARROW1\0\0"
CONTINUATION = 0xFFFFFFFF
SCHEMA, RECORD_BATCH = 1, 3
MOST_METADATA = 1 << 20  # bytes of a message without its body; ours have some hundred
MOST_ENTRIES = 64  # of a vector: two buffers for each of 32 columns

_INTEGER, _FLOAT = 2, 3
_DTYPES = {
    (_INTEGER, 8, False): "u1",
    (_INTEGER, 32, True): "i4",
    (_INTEGER, 64, True): "i8",
    (_INTEGER, 64, False): "u8",
    (_FLOAT, 1, False): "f4",
    (_FLOAT, 2, False): "f8",
}
_UNPACK = {form: struct.Struct(form).unpack_from for form in ("<B", "<H", "<h", "<I", "<i", "<q", "<qq", "<qqqq")}


class Schema(NamedTuple):
    """The first message of a part."""

    dtypes: dict[str, np.dtype[np.generic]]  # of the columns, by name
    metadata: dict[str, str]


class Batch(NamedTuple):
    """A record batch: where its columns lie in the file."""

    rows: int
    metadata: dict[str, str]
    columns: tuple[int, ...]  # byte offset of each column in the file
    end: int  # byte offset behind the message
    data: Content  # the file


def check(good: bool, otherwise: str) -> None:
    """Raise a DamagedRunError unless something is as labeltrack writes it."""
    if not good:
        raise DamagedRunError(otherwise)


def _numbers(form: str, data: bytes, position: int) -> tuple[int, ...]:
    if position >= 0:
        try:  # comparing sizes first takes a sixth of the time of small batches
            return _UNPACK[form](data, position)
        except struct.error:
            pass
    msg = f"an offset {'before' if position < 0 else 'behind'} the message"
    raise DamagedRunError(msg)


class _Table:
    """A FlatBuffers table within the metadata of a message."""

    def __init__(self, data: bytes, position: int) -> None:
        self.data = data
        self.position = position
        self._vtable = position - _numbers("<i", data, position)[0]
        self._size = _numbers("<H", data, self._vtable)[0]

    def place(self, field: int) -> int:
        """Return where a field lies, 0 if it is not there."""
        at = 4 + 2 * field
        offset = _numbers("<H", self.data, self._vtable + at)[0] if at < self._size else 0
        return self.position + offset if offset else 0

    def number(self, field: int, form: str) -> int:
        place = self.place(field)
        return _numbers(form, self.data, place)[0] if place else 0

    def _target(self, field: int) -> int:
        place = self.place(field)
        return place + _numbers("<I", self.data, place)[0] if place else 0

    def table(self, field: int) -> _Table:
        target = self._target(field)
        check(target != 0, f"field {field} of a table is missing")
        return _Table(self.data, target)

    def text(self, field: int) -> str:
        """Return a string; empty if it is missing."""
        target = self._target(field)
        if not target:
            return ""
        end = target + 4 + _numbers("<I", self.data, target)[0]
        check(end <= len(self.data), "a string ends behind its message")
        try:
            return self.data[target + 4 : end].decode()
        except UnicodeDecodeError:
            msg = "a string is not UTF-8"
            raise DamagedRunError(msg) from None

    def vector(self, field: int) -> tuple[int, int]:
        """Return where the entries of a vector begin, and how many there are."""
        target = self._target(field)
        if not target:
            return 0, 0
        n = _numbers("<I", self.data, target)[0]
        check(n <= MOST_ENTRIES, f"a vector of {n} entries")
        return target + 4, n

    def tables(self, field: int) -> list[_Table]:
        start, n = self.vector(field)
        places = range(start, start + 4 * n, 4)
        return [_Table(self.data, place + _numbers("<I", self.data, place)[0]) for place in places]

    def pairs(self, field: int) -> dict[str, str]:
        """Return the values of a vector of key-value pairs."""
        return {entry.text(0): entry.text(1) for entry in self.tables(field)}


def _message(data: Content, position: int) -> tuple[_Table, int] | None:
    """Return the metadata of a message and where its body begins; None for the end mark."""
    head = bytes(data[position : position + 8])
    check(len(head) == 8, "the file ends within the head of a message")
    check(_numbers("<I", head, 0)[0] == CONTINUATION, "no message begins here")
    size = _numbers("<i", head, 4)[0]
    if size == 0:
        return None
    check(0 < size <= MOST_METADATA and size % 8 == 0, f"metadata of {size} bytes")
    raw = bytes(data[position + 8 : position + 8 + size])
    check(len(raw) == size, "the file ends within a message")
    return _Table(raw, _numbers("<I", raw, 0)[0]), position + 8 + size


def read_schema(data: Content) -> tuple[Schema, int]:
    """Return the schema of a file, and the byte offset of the next message; DamagedRunError if it is no part."""
    check(bytes(data[:8]) == MAGIC, "not an Arrow file")
    found = _message(data, 8)
    if found is None or found[0].number(1, "<B") != SCHEMA or found[0].number(3, "<q"):
        msg = "the first message is no schema"
        raise DamagedRunError(msg)
    schema, end = found[0].table(2), found[1]
    check(schema.number(0, "<h") == 0, "columns of the other byte order")
    dtypes: dict[str, np.dtype[np.generic]] = {}
    for entry in schema.tables(1):
        name, kind = entry.text(0), entry.number(2, "<B")
        plain = not entry.place(4) and not entry.vector(5)[1] and kind in (_INTEGER, _FLOAT) and name not in dtypes
        check(plain, f"column {name!r} is not one of plain numbers")
        of, integer = entry.table(3), kind == _INTEGER
        key = kind, of.number(0, "<i" if integer else "<h"), integer and bool(of.number(1, "<B"))
        check(key in _DTYPES, f"column {name!r} has a type that labeltrack does not write")
        dtypes[name] = np.dtype(_DTYPES[key])
    return Schema(dtypes, schema.pairs(2)), end


def read_batch(data: Content, position: int, schema: Schema) -> Batch | None:
    """Return the record batch that begins at a position; None for the end mark; DamagedRunError if it is not whole."""
    found = _message(data, position)
    if found is None:
        return None
    message, body = found
    length = message.number(3, "<q")
    check(message.number(1, "<B") == RECORD_BATCH and length >= 0 and length % 8 == 0, "no record batch")
    check(body + length <= len(data), "the file ends within a batch")
    batch = message.table(2)
    rows = batch.number(0, "<q")
    check(not batch.place(3) and rows >= 0, "a compressed batch, or one of less than no rows")
    (nodes, n), (buffers, m) = batch.vector(1), batch.vector(2)
    check(n == len(schema.dtypes) and m == 2 * n, f"a batch of {n} columns and {m} buffers")
    columns = []
    for i, dtype in enumerate(schema.dtypes.values()):
        of_column = _numbers("<qq", message.data, nodes + 16 * i)
        check(of_column == (rows, 0), "a column of another length, or with nulls")
        _, bitmap, start, size = _numbers("<qqqq", message.data, buffers + 32 * i)
        check(bitmap == 0, "a column with a bitmap of nulls")
        inside = start >= 0 and start % 8 == 0 and rows * dtype.itemsize <= size <= length - start
        check(inside, "a column that lies outside its batch")
        columns.append(body + start)
    return Batch(rows, message.pairs(4), tuple(columns), body + length, data)
