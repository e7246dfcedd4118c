"""Reading the Arrow IPC messages of recorded samples: two columns of numbers, nothing nested or compressed.

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
MOST_ENTRIES = 64  # of a vector; ours have less than ten

_INTEGER, _FLOAT = 2, 3
_DTYPES = {
    (_INTEGER, 8, False): "u1",
    (_INTEGER, 32, True): "i4",
    (_INTEGER, 64, True): "i8",
    (_INTEGER, 64, False): "u8",
    (_FLOAT, 1, False): "f4",
    (_FLOAT, 2, False): "f8",
}
_UNPACK = {form: struct.Struct(form).unpack_from for form in ("<B", "<H", "<h", "<I", "<i", "<q")}
_HEAD = struct.Struct("<Ii")


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


class _Table:
    """A FlatBuffers table within the metadata of a message."""

    def __init__(self, data: bytes, position: int) -> None:
        self.data = data
        self.position = position
        self._vtable = position - _number("<i", data, position)
        self._size = _number("<H", data, self._vtable)

    def _place(self, field: int) -> int:
        """Return where a field lies, 0 if it is not there."""
        at = 4 + 2 * field
        offset = _number("<H", self.data, self._vtable + at) if at < self._size else 0
        return self.position + offset if offset else 0

    def number(self, field: int, form: str) -> int:
        place = self._place(field)
        return _number(form, self.data, place) if place else 0

    def has(self, field: int) -> bool:
        return bool(self._place(field))

    def _target(self, field: int) -> int:
        place = self._place(field)
        return place + _number("<I", self.data, place) if place else 0

    def table(self, field: int) -> _Table:
        target = self._target(field)
        if not target:
            msg = f"field {field} of a table is missing"
            raise DamagedRunError(msg)
        return _Table(self.data, target)

    def text(self, field: int) -> str:
        """Return a string; empty if it is missing."""
        target = self._target(field)
        if not target:
            return ""
        end = target + 4 + _number("<I", self.data, target)
        if end > len(self.data):
            msg = "a string ends behind its message"
            raise DamagedRunError(msg)
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
        n = _number("<I", self.data, target)
        if n > MOST_ENTRIES:
            msg = f"a vector of {n} entries"
            raise DamagedRunError(msg)
        return target + 4, n

    def tables(self, field: int) -> list[_Table]:
        start, n = self.vector(field)
        places = [start + 4 * i for i in range(n)]
        return [_Table(self.data, place + _number("<I", self.data, place)) for place in places]

    def pairs(self, field: int) -> dict[str, str]:
        """Return the values of a vector of key-value pairs."""
        return {entry.text(0): entry.text(1) for entry in self.tables(field)}


def _number(form: str, data: bytes, position: int) -> int:
    if position < 0:
        msg = "an offset before the message"
        raise DamagedRunError(msg)
    try:
        value: int = _UNPACK[form](data, position)[0]
    except struct.error:
        msg = "an offset behind the message"
        raise DamagedRunError(msg) from None
    return value


def _message(data: Content, position: int) -> tuple[_Table, int] | None:
    """Return the metadata of a message and where its body begins; None for the end mark."""
    head = bytes(data[position : position + 8])
    if len(head) < 8:
        msg = "the file ends within the head of a message"
        raise DamagedRunError(msg)
    mark, size = _HEAD.unpack(head)
    if mark != CONTINUATION:
        msg = "no message begins here"
        raise DamagedRunError(msg)
    if size == 0:
        return None
    if not 0 < size <= MOST_METADATA or size % 8:
        msg = f"metadata of {size} bytes"
        raise DamagedRunError(msg)
    raw = bytes(data[position + 8 : position + 8 + size])
    if len(raw) < size:
        msg = "the file ends within a message"
        raise DamagedRunError(msg)
    return _Table(raw, _number("<I", raw, 0)), position + 8 + size


def read_schema(data: Content) -> tuple[Schema, int]:
    """Return the schema of a file, and the byte offset of the next message.

    Raises:
        DamagedRunError: It is not the beginning of a part.
    """
    if bytes(data[:8]) != MAGIC:
        msg = "not an Arrow file"
        raise DamagedRunError(msg)
    found = _message(data, 8)
    if found is None or found[0].number(1, "<B") != SCHEMA or found[0].number(3, "<q"):
        msg = "the first message is no schema"
        raise DamagedRunError(msg)
    schema, end = found[0].table(2), found[1]
    if schema.number(0, "<h"):
        msg = "columns of the other byte order"
        raise DamagedRunError(msg)
    dtypes = {}
    for entry in schema.tables(1):
        name = entry.text(0)
        kind = entry.number(2, "<B")
        if entry.has(4) or entry.vector(5)[1] or kind not in (_INTEGER, _FLOAT) or name in dtypes:
            msg = f"column {name!r} is not one of plain numbers"
            raise DamagedRunError(msg)
        of = entry.table(3)
        width = of.number(0, "<i") if kind == _INTEGER else of.number(0, "<h")
        code = _DTYPES.get((kind, width, kind == _INTEGER and bool(of.number(1, "<B"))))
        if code is None:
            msg = f"column {name!r} has a type that labeltrack does not write"
            raise DamagedRunError(msg)
        dtypes[name] = np.dtype(code)
    return Schema(dtypes, schema.pairs(2)), end


def read_batch(data: Content, position: int, schema: Schema) -> Batch | None:
    """Return the record batch whose message begins at a position; None for the end mark.

    Raises:
        DamagedRunError: There is no complete batch of that schema.
    """
    found = _message(data, position)
    if found is None:
        return None
    message, body = found
    length = message.number(3, "<q")
    if message.number(1, "<B") != RECORD_BATCH or length < 0 or length % 8:
        msg = "no record batch"
        raise DamagedRunError(msg)
    if body + length > len(data):
        msg = "the file ends within a batch"
        raise DamagedRunError(msg)
    batch = message.table(2)
    rows = batch.number(0, "<q")
    raw = message.data
    if batch.has(3) or rows < 0:
        msg = "a compressed batch, or one of less than no rows"
        raise DamagedRunError(msg)
    nodes, n = batch.vector(1)
    buffers, m = batch.vector(2)
    if n != len(schema.dtypes) or m != 2 * n:
        msg = f"a batch of {n} columns and {m} buffers"
        raise DamagedRunError(msg)
    columns = []
    for i, dtype in enumerate(schema.dtypes.values()):
        if (_number("<q", raw, nodes + 16 * i), _number("<q", raw, nodes + 16 * i + 8)) != (rows, 0):
            msg = "a column of another length, or with nulls"
            raise DamagedRunError(msg)
        if _number("<q", raw, buffers + 32 * i + 8):
            msg = "a column with a bitmap of nulls"
            raise DamagedRunError(msg)
        start = _number("<q", raw, buffers + 32 * i + 16)
        size = _number("<q", raw, buffers + 32 * i + 24)
        if start < 0 or start % 8 or size < rows * dtype.itemsize or start + size > length:
            msg = "a column that lies outside its batch"
            raise DamagedRunError(msg)
        columns.append(body + start)
    return Batch(rows, message.pairs(4), tuple(columns), body + length, data)
