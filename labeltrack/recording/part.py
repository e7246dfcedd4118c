"""A part: an Arrow IPC file of samples that grows by one record batch per flush, each with its own checksum.

It is written with pyarrow and read without (see `arrow_ipc`). Until it is closed, its name ends in ``.open``. Reading
trusts neither name nor footer: it walks the batches from the first byte on and takes those whose checksums agree.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

import numpy as np

from labeltrack._core.arrays import Array
from labeltrack.errors import DamagedRunError, TruncatedRunError, need
from labeltrack.recording import arrow_ipc as _ipc
from labeltrack.recording.description import Columns, read_columns
from labeltrack.recording.storage import ALIGNMENT, FileContent

if TYPE_CHECKING:
    from pathlib import Path

    from labeltrack.recording.storage import Content

HASH = "xxh3_64"
OPEN = ".open"
PERCENT = "percent"  # key in the metadata: which other texts are percent-encoded
BLOCK = 1 << 24  # bytes of a file that are read at a time for its checksum
SMALLEST = 1024  # bytes; the beginning of a part is shorter
_SURROGATE = re.compile("[\ud800-\udfff]")


def _as_utf8(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return metadata with those texts percent-encoded that UTF-8 cannot represent."""
    odd = [key for key, text in metadata.items() if _SURROGATE.search(text)]
    encoded = {key: quote(metadata[key], "", errors="surrogatepass") for key in odd}
    return {**metadata, **encoded, PERCENT: ",".join(odd)} if odd else dict(metadata)


def _as_given(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return what `_as_utf8` was given."""
    odd = metadata.get(PERCENT, "").split(",")
    plain = {key: text for key, text in metadata.items() if key != PERCENT}
    try:
        return {key: unquote(text, errors="surrogatepass") if key in odd else text for key, text in plain.items()}
    except UnicodeDecodeError:
        msg = "a percent-encoded text that stands for none"
        raise DamagedRunError(msg) from None


def _about_file(dtypes: Mapping[str, Any], metadata: Mapping[str, str]) -> str:
    """Return what a file says about itself, as text for `_about`."""
    return json.dumps([[[name, np.dtype(d).str] for name, d in dtypes.items()], sorted(metadata.items())])


def _about(seq: int, file: str, batch: Mapping[str, str]) -> str:
    """Return the checksum of everything that a batch and its file say apart from the columns."""
    rest = json.dumps(sorted(pair for pair in batch.items() if pair[0] not in ("about", "pad")))
    text: str = need("xxhash").xxh3_64_hexdigest(f"[{file}, {rest}]".encode(), seed=seq)
    return text


class PartWriter:
    """Writes a part, to a file that must not exist."""

    # Everything large happens in few calls of compiled code that releases the GIL: after each, this thread has to ask
    # for it again, and one that trains in Python gives it away only every 5 ms.

    def __init__(self, path: Path, dtypes: Mapping[str, Any], metadata: Mapping[str, str]) -> None:
        self._pa = need("pyarrow")
        self.path = path
        self.rows = 0
        self.seq = 0
        self.dtypes = {name: np.dtype(dtype) for name, dtype in dtypes.items()}
        self.metadata = {**_as_utf8(metadata), "hash": HASH}
        types = {name: self._pa.from_numpy_dtype(dtype) for name, dtype in self.dtypes.items()}
        fields = [self._pa.field(name, of, nullable=False) for name, of in types.items()]
        self._about_file = _about_file(self.dtypes, self.metadata)
        self._schema = self._pa.schema(fields, metadata=self.metadata)
        self._one_row = self._batch([np.zeros(1, dtype) for dtype in self.dtypes.values()])
        self._heads: dict[tuple[int, ...], tuple[int, int]] = {}
        self.checksum = ""
        self.open_path = path.with_name(path.name + OPEN)
        self._fd = os.open(self.open_path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)  # a second one, to sync with
        try:
            self._file = self._pa.OSFile(os.fsencode(self.open_path), "wb")
        except OSError:
            os.close(self._fd)
            self.open_path.unlink()
            raise
        self._writer = self._pa.ipc.new_file(self._file, self._schema)

    def write(self, columns: Sequence[Array], more: Mapping[str, str] | None = None) -> None:
        """Write ``(N,)`` columns, and more metadata, as a record batch; after an OSError, the part ends before it."""
        sums, rows = need("xxhash").xxh3_64(seed=self.seq), columns[0].shape[0]
        for column in columns:
            sums.update(np.ascontiguousarray(column))
        batch = {"seq": str(self.seq), "rows": str(rows), "xxh3": sums.hexdigest(), **(more or {})}
        batch["about"] = _about(self.seq, self._about_file, batch)
        batch["pad"] = self._padding(batch)
        self._writer.write_batch(self._batch(columns), custom_metadata=batch)
        self.seq += 1
        self.rows += rows

    def end(self, more: Mapping[str, str]) -> None:
        """Write metadata with a batch of no rows."""
        self.write([np.empty(0, dtype) for dtype in self.dtypes.values()], more)

    def _batch(self, columns: Sequence[Array]) -> Any:
        """Return ``(N,)`` numbers as a record batch that views them."""
        # Not by `pyarrow.array`: it imports pandas, which takes half a second and fails once the process is ending.
        views = [np.ascontiguousarray(column) for column in columns]
        arrays = [
            self._pa.Array.from_buffers(field.type, view.shape[0], [None, self._pa.py_buffer(view)])
            for field, view in zip(self._schema, views, strict=True)
        ]
        return self._pa.record_batch(arrays, schema=self._schema)

    def _padding(self, batch: Mapping[str, str]) -> str:
        """Return a text that makes the columns of the next batch begin at a multiple of 64 bytes, where Arrow has 8."""
        least, lengths = " " * 8, tuple(len(text.encode()) for pair in batch.items() for text in pair)
        if lengths not in self._heads:  # sizes depend on nothing else
            count = self._pa.MockOutputStream()
            with self._pa.ipc.new_file(count, self._schema) as writer:
                sizes = []
                for _ in "ab":  # the schema is written with the first
                    writer.write_batch(self._one_row, custom_metadata={**batch, "pad": least})
                    sizes.append(int(count.size()))
            message = sizes[1] - sizes[0]
            self._heads[lengths] = sizes[0] - message, message - 8 * len(self.dtypes)
        before, head = self._heads[lengths]
        position = self._file.tell() if self.seq else before
        return least + " " * (-(position + head) % ALIGNMENT)

    @property
    def nbytes(self) -> int:
        """Bytes of the rows so far."""
        return self.rows * sum(int(dtype.itemsize) for dtype in self.dtypes.values())

    def sync(self) -> None:
        """Wait until everything written so far is on disk."""
        os.fdatasync(self._fd) if hasattr(os, "fdatasync") else os.fsync(self._fd)

    def close(self, *, sync: bool) -> None:
        """Write the footer and set `checksum`; the file keeps its name. `sync` waits until it is on disk."""
        self._writer.close()
        self._file.close()
        if sync:
            os.fsync(self._fd)
        if not os.path.samestat(self.open_path.stat(), os.fstat(self._fd)):
            msg = f"{self.open_path} was replaced"
            raise FileNotFoundError(msg)
        content, self._fd = FileContent(self.open_path, self._fd), -1
        self.checksum = file_checksum(content)

    def abandon(self) -> None:
        """Leave the file as it is."""
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                self._file.close()
            os.close(self._fd)
            self._fd = -1


def file_checksum(data: Content) -> str:
    """Return the xxh3 of all the bytes of a file; empty if it became shorter meanwhile."""
    sums = need("xxhash").xxh3_64()
    try:
        for start in range(0, len(data), BLOCK):
            sums.update(data[start : start + BLOCK])
    except TruncatedRunError:
        return ""
    text: str = sums.hexdigest()
    return text


class Part:
    """What is intact of a part that is read."""

    def __init__(self, data: Content) -> None:
        self.data = data  # the bytes of the file, until they are released
        self.schema: _ipc.Schema | None = None  # as written; None if the beginning is damaged
        self.metadata: dict[str, str] = {}  # of the file
        self.columns = Columns()
        self.batches: list[_ipc.Batch] = []  # the intact ones, from `examine`
        self.closed = False  # whether the end mark follows the last batch and nothing before it is damaged
        self.torn = False  # whether the file merely ends too early
        self.damage = ""  # what is wrong
        self.lost_rows = 0  # of damaged batches
        try:
            schema, self._first = _ipc.read_schema(data)
            kind = schema.metadata.get("hash")
            _ipc.check(kind == HASH, f"checksums of an unknown kind, {kind!r}")
            self.metadata = _as_given(schema.metadata)
            self.columns = read_columns(schema.dtypes, self.metadata)
        except DamagedRunError as damage:
            self.damage = str(damage)
            self.torn = len(data) < SMALLEST
            return
        self.schema = schema

    @property
    def rows(self) -> int:
        """Rows of the batches."""
        return sum(batch.rows for batch in self.batches)

    def walk(self, *, check: bool) -> Iterator[_ipc.Batch]:
        """Yield the batches; past a damaged one, those whose place is certain; with `check`, intact ones alone."""
        if self.schema is None:
            return
        intact, expected, position = True, 0, self._first
        file = _about_file(self.schema.dtypes, self.schema.metadata)
        while True:
            try:
                batch = _ipc.read_batch(self.data, position, self.schema)
            except DamagedRunError as damage:
                self.damage = self.damage or str(damage)
                self.torn = intact and not isinstance(damage, TruncatedRunError)
                return
            if batch is None:
                self.closed = intact
                return
            said = batch.metadata
            whole = said.get("seq") == str(expected) and said.get("rows") == str(batch.rows) and "xxh3" in said
            whole = whole and said.get("about") == _about(expected, file, said)
            if whole and (not check or self.read(batch)[1]):
                yield batch
            else:
                intact = False
                self.damage = self.damage or f"the checksum of batch {expected} does not agree"
                self.lost_rows += batch.rows
            expected += 1
            position = batch.end

    def read(self, batch: _ipc.Batch) -> tuple[list[Array], bool]:
        """Return the ``(N,)`` columns of a batch and whether their checksum agrees; or TruncatedRunError."""
        types = [] if self.schema is None else list(self.schema.dtypes.values())
        columns, first = list(zip(batch.columns, types, strict=True)), min(batch.columns)
        body = batch.data[first : max(at + batch.rows * of.itemsize for at, of in columns)]
        arrays: list[Array] = [np.ndarray(batch.rows, of, body, at - first) for at, of in columns]
        sums = need("xxhash").xxh3_64(seed=int(batch.metadata["seq"]))
        for array in arrays:
            sums.update(array)
        return arrays, bool(batch.metadata["xxh3"] == sums.hexdigest())


def examine(data: Content, *, check: bool = True) -> Part:
    """Return a part with all its batches; see `Part.walk`."""
    part = Part(data)
    part.batches.extend(part.walk(check=check))
    return part
