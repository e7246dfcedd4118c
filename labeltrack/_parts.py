"""One file of recorded samples: an Arrow IPC file that grows by a record batch a flush, each with its own checksum.

Written with pyarrow, read back without it (see `_ipc`). While it is open, it is called ``….arrow.open``; closing writes
the footer, syncs and renames. Reading trusts neither name nor footer: it walks the batches from the first byte on and
takes those whose checksums agree.
"""

from __future__ import annotations

import json
import mmap
import os
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from labeltrack import _ipc

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

Array = npt.NDArray[Any]

HASH = "xxh3_64"
OPEN = ".open"
COLUMNS = ("label", "value")
ALIGNMENT = 64


def digest(seq: int, labels: Any, values: Any) -> str:
    """Return the checksum of the columns of a batch: xxh3 of both, one after the other, seeded with its number."""
    xxhash = _need("xxhash")
    sums = xxhash.xxh3_64(seed=seq)
    for column in (labels, values):
        sums.update(np.ascontiguousarray(column).data.cast("B") if column.size else b"")
    text: str = sums.hexdigest()
    return text


def about(seq: int, dtypes: Mapping[str, Any], metadata: Mapping[str, str], batch: Mapping[str, str]) -> str:
    """Return the checksum of what a batch says apart from its columns, and of what its file says."""
    plain = [[[name, np.dtype(d).str] for name, d in dtypes.items()], sorted(metadata.items())]
    rest = sorted((key, text) for key, text in batch.items() if key not in ("about", "pad"))
    text: str = _need("xxhash").xxh3_64_hexdigest(json.dumps([plain, rest]).encode(), seed=seq)
    return text


def _need(module: str) -> Any:
    """Import what recording takes.

    Raises:
        ImportError: It is not installed, or pyarrow does not work with this numpy.
    """
    import importlib  # noqa: PLC0415

    try:
        return importlib.import_module(module)
    except ImportError as error:
        if module == "pyarrow" and "numpy" in str(error).lower():
            msg = (
                f"this pyarrow does not import with numpy {np.__version__}: pip install 'pyarrow<26', or a newer numpy "
                f"({error})"
            )
        else:
            msg = f'recorded runs need {module}: pip install "labeltrack[record]" ({error})'
        raise ImportError(msg, name=module) from error


class PartWriter:
    """Writes one part.

    Args:
        path: Of the part when it is closed; must not exist.
        label_dtype: Dtype of the labels.
        value_dtype: Dtype of the values.
        metadata: Key-value pairs for the file.

    Raises:
        OSError: The file cannot be made.
    """

    def __init__(self, path: Path, label_dtype: Any, value_dtype: Any, metadata: Mapping[str, str]) -> None:
        self._pa = _need("pyarrow")
        _need("xxhash")
        self.path = path
        self.rows = 0
        self.seq = 0
        self.dtypes = dict(zip(COLUMNS, (np.dtype(label_dtype), np.dtype(value_dtype)), strict=True))
        self.metadata = {**metadata, "hash": HASH}
        fields = [
            self._pa.field(name, self._pa.from_numpy_dtype(dtype), nullable=False)
            for name, dtype in self.dtypes.items()
        ]
        self._schema = self._pa.schema(fields, metadata=self.metadata)
        self.open_path = path.with_name(path.name + OPEN)
        self._fd = os.open(self.open_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        self._raw = _Raw(self._fd)
        self._writer = self._pa.ipc.new_file(self._pa.PythonFile(self._raw, "w"), self._schema)
        one = [self._pa.array([0], field.type) for field in fields]
        self._one_row = self._pa.record_batch(one, schema=self._schema)

    def write(self, labels: Array, values: Array, **more: str) -> None:
        """Write ``(N,)`` rows as a record batch.

        Args:
            labels: Of the dtype of the part.
            values: Likewise.
            **more: Key-value pairs for the batch.

        Raises:
            OSError: The disk is full, or the folder is gone. The part ends with the batch before.
        """
        batch = {"seq": str(self.seq), "rows": str(labels.shape[0]), "xxh3": digest(self.seq, labels, values), **more}
        batch["about"] = about(self.seq, self.dtypes, self.metadata, batch)
        batch["pad"] = self._padding(batch)
        arrays = [self._pa.array(column) for column in (labels, values)]
        self._writer.write_batch(self._pa.record_batch(arrays, schema=self._schema), custom_metadata=batch)
        self.seq += 1
        self.rows += labels.shape[0]

    def _padding(self, batch: Mapping[str, str]) -> str:
        """Return what makes the columns of the next batch begin at a multiple of 64 bytes.

        The padding that Arrow's writers do is to 8 bytes; vector instructions and direct I/O like more.
        """
        least = " " * 8
        count = self._pa.MockOutputStream()
        with self._pa.ipc.new_file(count, self._schema) as writer:
            sizes = []
            for _ in "ab":  # the schema is written with the first
                writer.write_batch(self._one_row, custom_metadata={**batch, "pad": least})
                sizes.append(int(count.size()))
        message = sizes[1] - sizes[0]
        head = message - 8 * len(COLUMNS)
        position = self._raw.tell() if self.seq else sizes[0] - message
        return least + " " * (-(position + head) % ALIGNMENT)

    def sync(self) -> None:
        """Have the operating system write what it holds of the file."""
        os.fdatasync(self._fd) if hasattr(os, "fdatasync") else os.fsync(self._fd)

    def close(self, *, sync: bool) -> None:
        """Write the footer; the file keeps its name.

        Args:
            sync: Whether to wait until it is on disk.
        """
        self._writer.close()
        if sync:
            os.fsync(self._fd)
        os.close(self._fd)
        self._fd = -1

    def abandon(self) -> None:
        """Leave the file as it is."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class _Raw:
    """A file descriptor as pyarrow wants it; every write is one of the operating system, complete or an error."""

    closed = False

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._at = 0

    def write(self, data: Any) -> int:
        """Write all the bytes."""
        view = memoryview(data).cast("B")
        while view:
            done = os.write(self._fd, view)
            self._at += done
            view = view[done:]
        return len(data)

    def tell(self) -> int:
        """Return how many bytes were written."""
        return self._at

    def flush(self) -> None:
        """Nothing is held back."""

    def seekable(self) -> bool:
        """Return False."""
        return False


@dataclass
class Part:
    """What is intact of a part.

    Attributes:
        path: The file.
        metadata: Key-value pairs of the file; empty if its beginning is damaged.
        batches: The intact batches.
        schema: Dtypes and metadata; None if the beginning is damaged.
        closed: Whether the mark of the end follows the last batch, and nothing before it is damaged.
        size: Bytes of the file.
        good: Bytes up to the end of the last batch of the intact beginning.
        damage: What is wrong, in words; empty if nothing is.
        torn: Whether the file merely ends too early.
        lost_rows: Rows of batches whose checksums do not agree.
        data: The bytes of the file.
    """

    path: Path
    metadata: dict[str, str] = field(default_factory=dict)
    batches: list[_ipc.Batch] = field(default_factory=list)
    schema: _ipc.Schema | None = None
    closed: bool = False
    size: int = 0
    good: int = 0
    damage: str = ""
    torn: bool = False
    lost_rows: int = 0
    data: memoryview = field(default=memoryview(b""), repr=False)

    @property
    def rows(self) -> int:
        """Intact rows."""
        return sum(batch.rows for batch in self.batches)

    def columns(self) -> Iterator[tuple[Array, Array]]:
        """Yield the ``(N,)`` labels and values of each intact batch, sharing the memory of the file."""
        if self.schema is not None:
            for batch in self.batches:
                if batch.rows:
                    yield tuple(_ipc.column(self.data, batch, self.schema, i) for i in (0, 1))  # type: ignore[misc]


def read_part(path: Path) -> Part:
    """Find out what of a part is intact.

    Args:
        path: The file, open or closed.

    Returns:
        What was found; the file stays mapped as long as its columns are in use.

    Raises:
        OSError: It cannot be opened, or is no regular file.
    """
    part = Part(path)
    fd = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            msg = "not a regular file"
            raise OSError(msg)
        part.size = status.st_size
        if part.size:
            part.data = memoryview(mmap.mmap(fd, part.size, access=mmap.ACCESS_READ))
    finally:
        os.close(fd)
    try:
        schema, position = _ipc.read_schema(part.data)
        _check_schema(schema)
    except _ipc.Damaged as damage:
        part.damage = str(damage)
        part.torn = part.size < SMALLEST
        return part
    part.schema, part.metadata, part.good = schema, schema.metadata, position
    _walk(part, schema, position)
    return part


SMALLEST = 1024  # bytes; the beginning of a part is shorter


def _check_schema(schema: _ipc.Schema) -> None:
    if tuple(schema.dtypes) != COLUMNS or schema.dtypes["value"].kind != "f":
        msg = f"columns {', '.join(schema.dtypes)}"
        raise _ipc.Damaged(msg)
    if schema.metadata.get("hash") != HASH:
        msg = f"checksums of an unknown kind, {schema.metadata.get('hash')!r}"
        raise _ipc.Damaged(msg)


def _walk(part: Part, schema: _ipc.Schema, position: int) -> None:
    """Take the batches one after the other; past a damaged one, only those whose place is certain."""
    intact = True
    expected = 0
    while True:
        try:
            batch = _ipc.read_batch(part.data, position, schema)
        except _ipc.Damaged as damage:
            part.damage = part.damage or str(damage)
            part.torn = intact
            return
        if batch is None:
            part.closed = intact
            return
        if _agrees(part, schema, batch, expected):
            part.batches.append(batch)
            if intact:
                part.good = batch.end
        else:
            intact = False
            part.damage = part.damage or f"the checksum of batch {expected} does not agree"
            part.lost_rows += batch.rows
        expected += 1
        position = batch.end


def _agrees(part: Part, schema: _ipc.Schema, batch: _ipc.Batch, seq: int) -> bool:
    said = batch.metadata
    if said.get("seq") != str(seq) or said.get("rows") != str(batch.rows):
        return False
    if said.get("about") != about(seq, schema.dtypes, schema.metadata, said):
        return False
    labels, values = (_ipc.column(part.data, batch, schema, i) for i in (0, 1))
    return said.get("xxh3") == digest(seq, labels, values)
