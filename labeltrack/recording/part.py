"""One file of recorded samples: an Arrow IPC file that grows by a record batch a flush, each with its own checksum.

Written with pyarrow, read back without it (see `_ipc`). While it is open, it is called ``….arrow.open``; closing writes
the footer, syncs and renames. Reading trusts neither name nor footer: it walks the batches from the first byte on and
takes those whose checksums agree.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

import numpy as np
import numpy.typing as npt

from labeltrack.errors import DamagedRunError, TruncatedRunError, need
from labeltrack.recording import arrow_ipc as _ipc
from labeltrack.recording.storage import ALIGNMENT, FileContent

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from labeltrack.recording.storage import Content

Array = npt.NDArray[Any]

HASH = "xxh3_64"
OPEN = ".open"
PERCENT = "percent"  # key of metadata: which other texts are percent-encoded
COLUMNS = ("label", "value")
VARYING = ("seq", "xxh3", "about")  # of the metadata of batches; the rest mostly stays as it is
BLOCK = 1 << 24  # bytes of a file that are read at a time for its checksum
_SURROGATE = re.compile("[\ud800-\udfff]")
_SPLIT_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")
_PLAIN = {"seq", "rows", "xxh3", "about", "pad"}


def digest(seq: int, labels: Any, values: Any) -> str:
    """Return the checksum of the columns of a batch: xxh3 of both, one after the other, seeded with its number."""
    xxhash = need("xxhash")
    sums = xxhash.xxh3_64(seed=seq)
    for column in (labels, values):
        sums.update(np.ascontiguousarray(column).data.cast("B") if column.size else b"")
    text: str = sums.hexdigest()
    return text


def as_json(value: Any, **options: Any) -> bytes:
    """Return a value as JSON that `json.loads` gives back as it is, halves of surrogate pairs included.

    It is ASCII, unless there are two such halves in a row: escaped, they would come back as one character.
    """
    text = json.dumps(value, **options)
    if "\\ud" in text:
        plain = json.dumps(value, **options, ensure_ascii=False)
        if _SPLIT_PAIR.search(plain):
            return plain.encode("utf-8", "surrogatepass")
    return text.encode()


def _as_utf8(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return pairs with texts that are not UTF-8, such as names of files that were decoded so, percent-encoded."""
    odd = [key for key, text in metadata.items() if _SURROGATE.search(text)]
    if not odd:
        return dict(metadata)
    return {
        **metadata,
        **{key: quote(metadata[key], "", errors="surrogatepass") for key in odd},
        PERCENT: ",".join(odd),
    }


def _as_given(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return what `_as_utf8` was given."""
    odd = metadata.get(PERCENT, "").split(",")
    plain = {key: text for key, text in metadata.items() if key != PERCENT}
    try:
        return {key: unquote(text, errors="surrogatepass") if key in odd else text for key, text in plain.items()}
    except UnicodeDecodeError:
        msg = "a percent-encoded text that stands for none"
        raise DamagedRunError(msg) from None


def about_file(dtypes: Mapping[str, Any], metadata: Mapping[str, str]) -> str:
    """Return what a file says of itself, as text for `about`."""
    return json.dumps([[[name, np.dtype(d).str] for name, d in dtypes.items()], sorted(metadata.items())])


def about(seq: int, file: str, batch: Mapping[str, str]) -> str:
    """Return the checksum of what a batch says apart from its columns, and of what its file says."""
    xxh3 = batch["xxh3"]
    if batch.keys() <= _PLAIN and batch["rows"].isdigit() and xxh3.isalnum() and xxh3.isascii():
        # What the other branch gives, in a tenth of the time.
        rest = f'[["rows", "{batch["rows"]}"], ["seq", "{seq}"], ["xxh3", "{xxh3}"]]'
    else:
        rest = json.dumps(sorted((key, text) for key, text in batch.items() if key not in ("about", "pad")))
    text: str = _xxhash().xxh3_64_hexdigest(f"[{file}, {rest}]".encode(), seed=seq)
    return text


@functools.cache
def _xxhash() -> Any:
    return need("xxhash")


class PartWriter:
    """Writes one part.

    Everything large happens in compiled code that lets other threads run, in as few calls as possible: a thread that
    trains in Python gives way to one that asks for its turn only every 5 ms, and this one has to ask after each call.

    Args:
        path: Of the part when it is closed; must not exist.
        label_dtype: Dtype of the labels.
        value_dtype: Dtype of the values.
        metadata: Key-value pairs for the file.

    Raises:
        OSError: The file cannot be made.
    """

    def __init__(self, path: Path, label_dtype: Any, value_dtype: Any, metadata: Mapping[str, str]) -> None:
        self._pa = need("pyarrow")
        need("xxhash")
        self.path = path
        self.rows = 0
        self.seq = 0
        self.dtypes = dict(zip(COLUMNS, (np.dtype(label_dtype), np.dtype(value_dtype)), strict=True))
        self.metadata = {**_as_utf8(metadata), "hash": HASH}
        fields = [
            self._pa.field(name, self._pa.from_numpy_dtype(dtype), nullable=False)
            for name, dtype in self.dtypes.items()
        ]
        self._about_file = about_file(self.dtypes, self.metadata)
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

    def write(self, labels: Array, values: Array, more: Mapping[str, str] | None = None) -> None:
        """Write ``(N,)`` rows as a record batch.

        Args:
            labels: Of the dtype of the part.
            values: Likewise.
            more: Key-value pairs for the batch.

        Raises:
            OSError: The disk is full, or the folder is gone. The part ends with the batch before.
        """
        batch = {"seq": str(self.seq), "rows": str(labels.shape[0]), "xxh3": digest(self.seq, labels, values)}
        batch |= more or {}
        batch["about"] = about(self.seq, self._about_file, batch)
        batch["pad"] = self._padding(batch)
        self._writer.write_batch(self._batch([labels, values]), custom_metadata=batch)
        self.seq += 1
        self.rows += labels.shape[0]

    def _batch(self, columns: list[Array]) -> Any:
        """Return ``(N,)`` numbers as a record batch that views them.

        Not by `pyarrow.array`, which imports pandas, if there is one, to see whether its argument is a Series: half a
        second, and where the process already ends when the first rows are written, an error.
        """
        views = [np.ascontiguousarray(column) for column in columns]
        arrays = [
            self._pa.Array.from_buffers(field.type, view.shape[0], [None, self._pa.py_buffer(view)])
            for field, view in zip(self._schema, views, strict=True)
        ]
        return self._pa.record_batch(arrays, schema=self._schema)

    def _padding(self, batch: Mapping[str, str]) -> str:
        """Return what makes the columns of the next batch begin at a multiple of 64 bytes.

        The padding that Arrow's writers do is to 8 bytes; vector instructions and direct I/O like more.
        """
        least = " " * 8
        lengths = tuple(len(text.encode()) for pair in batch.items() for text in pair)
        if lengths not in self._heads:  # sizes depend on nothing else
            count = self._pa.MockOutputStream()
            with self._pa.ipc.new_file(count, self._schema) as writer:
                sizes = []
                for _ in "ab":  # the schema is written with the first
                    writer.write_batch(self._one_row, custom_metadata={**batch, "pad": least})
                    sizes.append(int(count.size()))
            message = sizes[1] - sizes[0]
            self._heads[lengths] = sizes[0] - message, message - 8 * len(COLUMNS)
        before, head = self._heads[lengths]
        position = self._file.tell() if self.seq else before
        return least + " " * (-(position + head) % ALIGNMENT)

    @property
    def nbytes(self) -> int:
        """Bytes of the rows so far."""
        return self.rows * sum(int(dtype.itemsize) for dtype in self.dtypes.values())

    def sync(self) -> None:
        """Have the operating system write what it holds of the file."""
        os.fdatasync(self._fd) if hasattr(os, "fdatasync") else os.fsync(self._fd)

    def close(self, *, sync: bool) -> None:
        """Write the footer; the file keeps its name. `checksum` then is the xxh3 of all its bytes.

        Args:
            sync: Whether to wait until it is on disk.
        """
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
    """Return the xxh3 of all the bytes of a file; nothing if it became shorter meanwhile."""
    sums = need("xxhash").xxh3_64()
    try:
        for start in range(0, len(data), BLOCK):
            sums.update(data[start : start + BLOCK])
    except TruncatedRunError:
        return ""
    text: str = sums.hexdigest()
    return text


@dataclass
class Part:
    """What is intact of a part.

    Attributes:
        name: Of the file.
        metadata: Key-value pairs of the file; empty if its beginning is damaged.
        batches: The batches; once `check` was called for each, the intact ones.
        schema: Dtypes and metadata; None if the beginning is damaged.
        closed: Whether the mark of the end follows the last batch, and nothing before it is damaged.
        size: Bytes of the file.
        good: Bytes up to the end of the last batch of the intact beginning.
        damage: What is wrong, in words; empty if nothing is.
        torn: Whether the file merely ends too early.
        lost_rows: Rows of batches whose checksums do not agree.
        data: The bytes of the file, until they are let go of.
    """

    name: str
    metadata: dict[str, str] = field(default_factory=dict)
    batches: list[_ipc.Batch] = field(default_factory=list)
    schema: _ipc.Schema | None = None
    closed: bool = False
    size: int = 0
    good: int = 0
    damage: str = ""
    torn: bool = False
    lost_rows: int = 0
    data: Content = field(default=b"", repr=False)

    @property
    def rows(self) -> int:
        """Rows of the batches."""
        return sum(batch.rows for batch in self.batches)

    def columns(self) -> Iterator[tuple[Array, Array]]:
        """Yield the ``(N,)`` labels and values of each batch."""
        for batch in self.batches:
            if batch.rows:
                labels, values, _ = self.read(batch)
                yield labels, values

    def read(self, batch: _ipc.Batch) -> tuple[Array, Array, bool]:
        """Return the ``(N,)`` labels and values of a batch, and whether their checksum agrees.

        Raises:
            TruncatedRunError: They cannot be read any more.
        """
        if self.schema is None:
            msg = "a part without a beginning has no batches"
            raise ValueError(msg)
        types = self.schema.dtypes.values()
        spans = [(at, at + batch.rows * of.itemsize) for at, of in zip(batch.columns, types, strict=True)]
        first, end = min(start for start, _ in spans), max(stop for _, stop in spans)
        body = batch.data[first:end]
        columns = [body[start - first : stop - first] for start, stop in spans]
        seed = int(batch.metadata["seq"])
        if spans[0][1] == spans[1][0]:
            found = _xxhash().xxh3_64_hexdigest(body, seed)
        else:
            sums = _xxhash().xxh3_64(columns[0], seed)
            sums.update(columns[1])
            found = sums.hexdigest()
        labels, values = (
            np.frombuffer(some, of) if batch.rows else np.empty(0, of) for some, of in zip(columns, types, strict=True)
        )
        return labels, values, bool(batch.metadata["xxh3"] == found)


def read_part(path: Path) -> Part:
    """Find out what of a part is intact.

    Args:
        path: The file, open or closed.

    Returns:
        What was found; the file stays open as long as its batches are in use.

    Raises:
        OSError: It cannot be opened, or is no regular file.
    """
    return examine(path.name, FileContent(path))


def examine(name: str, data: Content, *, check: bool = True) -> Part:
    """Find out what of a part is intact.

    Args:
        name: Of the file.
        data: ``(B,)`` its bytes.
        check: Whether to compare the checksums of the columns. If not, `Part.read` says of each batch whether it
            agrees; all else is compared.

    Returns:
        What was found.
    """
    part = begin(name, data)
    part.batches.extend(walk(part, check=check))
    return part


def begin(name: str, data: Content) -> Part:
    """Read the beginning of a part; its batches are left to `walk`."""
    part = Part(name, size=len(data), data=data)
    try:
        schema, position = _ipc.read_schema(data)
        _check_schema(schema)
        part.metadata = _as_given(schema.metadata)
    except DamagedRunError as damage:
        part.damage = str(damage)
        part.torn = part.size < SMALLEST
        return part
    part.schema, part.good = schema, position
    return part


SMALLEST = 1024  # bytes; the beginning of a part is shorter


def _check_schema(schema: _ipc.Schema) -> None:
    if tuple(schema.dtypes) != COLUMNS or schema.dtypes["value"].kind != "f":
        msg = f"columns {', '.join(schema.dtypes)}"
        raise DamagedRunError(msg)
    if schema.metadata.get("hash") != HASH:
        msg = f"checksums of an unknown kind, {schema.metadata.get('hash')!r}"
        raise DamagedRunError(msg)


def walk(part: Part, *, check: bool) -> Iterator[_ipc.Batch]:
    """Yield the batches one after the other; past a damaged one, only those whose place is certain.

    Args:
        part: From `begin`; what is found out is noted in it.
        check: See `examine`.
    """
    if part.schema is None:
        return
    intact = True
    expected = 0
    position = part.good
    before: _ipc.Batch | None = None
    file = about_file(part.schema.dtypes, part.schema.metadata)
    while True:
        try:
            batch = None if before is None else _ipc.read_alike(part.data, position, before, VARYING)
            if batch is None:
                batch = before = _ipc.read_batch(part.data, position, part.schema)
        except DamagedRunError as damage:
            part.damage = part.damage or str(damage)
            part.torn = intact and not isinstance(damage, TruncatedRunError)
            return
        if batch is None:
            part.closed = intact
            return
        if _says_right(file, batch, expected) and (not check or part.read(batch)[2]):
            if intact:
                part.good = batch.end
            yield batch
        else:
            intact = False
            part.damage = part.damage or f"the checksum of batch {expected} does not agree"
            part.lost_rows += batch.rows
        expected += 1
        position = batch.end


def _says_right(file: str, batch: _ipc.Batch, seq: int) -> bool:
    """Return whether what a batch says of itself is right, but for the checksum of its columns."""
    said = batch.metadata
    if said.get("seq") != str(seq) or said.get("rows") != str(batch.rows) or "xxh3" not in said:
        return False
    return said.get("about") == about(seq, file, said)
