"""Recorded samples as Arrow tables that map the files, and as Parquet and CSV files."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from labeltrack._labels.codes import BOOL, BYTES, STRING
from labeltrack._tables import check_ending, portable, whole_file
from labeltrack.errors import listing, need
from labeltrack.recording.reader import PartReader, PartResult, open_parts
from labeltrack.recording.storage import LocalFolder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from labeltrack.recording.arrow_ipc import Batch
    from labeltrack.recording.epochs import Attempt, PartEntry
    from labeltrack.recording.storage import Storage

    Parts = Sequence[tuple[Attempt, PartEntry]]

SAMPLE = ("label", "value")
ABOUT = ("mode", "ds_id", "step", "session", "rank", "attempt")


def _check_columns(columns: tuple[str, ...]) -> None:
    unknown = [name for name in columns if name not in (*SAMPLE, *ABOUT)]
    if unknown or not columns:
        msg = f"columns: unknown {listing(unknown)}; allowed are {listing((*SAMPLE, *ABOUT))}"
        raise ValueError(msg)


def table(storage: Storage, parts: Parts, columns: tuple[str, ...]) -> tuple[Any, list[PartResult]]:
    """Return samples as a pyarrow Table, and what was read from each part; see `Run.samples`."""
    pa = need("pyarrow")
    _check_columns(columns)
    readers = open_parts(storage, [part for _, part in parts])
    texts = {STRING: pa.dictionary(pa.int32(), pa.string()), BYTES: pa.dictionary(pa.int32(), pa.binary())}
    schema, alike = _schema(readers, columns, texts, pa)
    # Casting would read the maps.
    files = [_map(storage, one.entry.name, pa) if alike and one.kind not in ("", BOOL) else None for one in readers]
    batches = [
        pa.record_batch([_cast(batch.column(one.name), one.type) for one in schema], schema=schema)
        for batch in _record_batches(readers, parts, columns, files)
    ]
    return pa.Table.from_batches(batches, schema), [reader.finish() for reader in readers]


def write(
    storage: Storage, parts: Parts, columns: tuple[str, ...], path: Path, on_rows: Callable[[int], object]
) -> tuple[int, list[PartResult]]:
    """Write samples to a file; return their number, and what was read from each part; see `Run.export`."""
    pa = need("pyarrow")
    _check_columns(columns)
    text = check_ending(path, (".parquet", ".csv")) == ".csv"
    readers = open_parts(storage, [part for _, part in parts])
    schema, _ = _schema(readers, columns, {STRING: pa.string(), BYTES: pa.string() if text else pa.binary()}, pa)
    schema = pa.schema([(one.name, pa.string() if one.name in ("mode", "ds_id") else one.type) for one in schema])
    rows = 0
    with whole_file(path) as half:
        if text:
            writer = need("pyarrow.csv").CSVWriter(str(half), schema)
        else:
            writer = need("pyarrow.parquet").ParquetWriter(half, schema)
        with writer:
            for batch in _record_batches(readers, parts, columns, [None] * len(parts), text=text):
                cast = [batch.column(one.name).cast(one.type) for one in schema]
                writer.write_batch(pa.record_batch(cast, schema=schema))
                rows += batch.num_rows
                on_rows(batch.num_rows)
    return rows, [reader.finish() for reader in readers]


def _record_batches(
    readers: Sequence[PartReader], parts: Parts, columns: tuple[str, ...], files: Sequence[Any], *, text: bool = False
) -> Iterator[Any]:
    """Yield samples as record batches; columns are views of the maps of files, if any; with `text`, bytes are text."""
    pa = need("pyarrow")
    for reader, (attempt, part), file in zip(readers, parts, files, strict=True):
        values = (attempt.mode, part.ds_id, attempt.step, attempt.session, attempt.rank, attempt.number)
        about = dict(zip(ABOUT, values, strict=True))
        vocabulary = reader.space().vocabulary
        words = None if vocabulary is None else _words(vocabulary.tolist(), reader.kind, pa, text=text)
        for batch in reader.batches():
            arrays = reader.columns(batch)
            if arrays is None or not batch.rows:
                continue
            if file is not None and batch.end <= file.size and arrays[0].dtype == reader.stored_dtype:
                first, second = (file.slice(at, x.nbytes) for at, x in zip(batch.columns, arrays, strict=True))
                arrays = np.frombuffer(first, arrays[0].dtype), np.frombuffer(second, arrays[1].dtype)
            sample = dict(zip(SAMPLE, _arrow(reader.kind, words, batch, arrays, pa), strict=True))
            row = [
                sample[name] if name in sample else _constant(about[name], batch.rows, _type_of(name, pa), pa)
                for name in columns
            ]
            yield pa.record_batch(row, names=list(columns))
        reader.release()


def _schema(
    readers: Sequence[PartReader], columns: tuple[str, ...], texts: Mapping[str, Any], pa: Any
) -> tuple[Any, bool]:
    """Return the schema that fits all parts, and whether each has it already."""
    types: dict[str, list[Any]] = {"label": [], "value": []}
    for reader in readers:
        schema = reader.part.schema
        if reader.kind and schema is not None:
            plain = pa.bool_() if reader.kind == BOOL else pa.from_numpy_dtype(reader.label_dtype)
            types["label"].append(texts.get(reader.kind, plain))
            types["value"].append(pa.from_numpy_dtype(schema.dtypes["value"]))
    none = {"label": [pa.int64()], "value": [pa.float32()]}
    fields = [(name, _common(types.get(name) or none.get(name) or [_type_of(name, pa)], name, pa)) for name in columns]
    return pa.schema(fields), all(len(set(types[name])) <= 1 for name in SAMPLE if name in columns)


def _cast(column: Any, wanted: Any) -> Any:
    return column if column.type == wanted else column.cast(wanted)


def _map(storage: Storage, name: str, pa: Any) -> Any:
    """Return a memory map of a file, which needs no descriptor; None if it cannot be mapped."""
    if isinstance(storage, LocalFolder):
        with contextlib.suppress(OSError), pa.memory_map(os.fsencode(storage.path / name)) as file:
            return file.read_buffer()
    return None


def _arrow(kind: str, words: Any, batch: Batch, arrays: tuple[Any, Any], pa: Any) -> tuple[Any, Any]:
    """Return labels and values as Arrow arrays that share their memory."""
    labels, values = (
        pa.Array.from_buffers(pa.from_numpy_dtype(array.dtype), batch.rows, [None, pa.py_buffer(array)])
        for array in arrays
    )
    if kind in (STRING, BYTES):
        labels = pa.DictionaryArray.from_arrays(labels, words)
    elif kind == BOOL:
        labels = labels.cast(pa.bool_())  # one bit each in Arrow
    return labels, values


def _words(words: list[Any], kind: str, pa: Any, *, text: bool) -> Any:
    if kind == BYTES and not text:
        return pa.array(words, pa.binary())
    return pa.array([_as_text(word) for word in words] if kind == BYTES else portable(words), pa.string())


def _as_text(word: bytes) -> str:
    """Return bytes as text, different bytes as different text: what is not UTF-8 is escaped as in Python."""
    with contextlib.suppress(UnicodeDecodeError):
        if b"\\x" not in word:
            return word.decode()
    return word.replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace")


def _type_of(name: str, pa: Any) -> Any:
    if name in ("mode", "ds_id"):
        return pa.dictionary(pa.int32(), pa.string())
    return pa.int64() if name == "step" else pa.int32()


def _constant(value: Any, rows: int, of: Any, pa: Any) -> Any:
    if isinstance(value, str):
        return pa.DictionaryArray.from_arrays(np.zeros(rows, np.int32), pa.array(portable([value])))
    return pa.array(np.full(rows, value, of.to_pandas_dtype()))


def _common(types: list[Any], name: str, pa: Any) -> Any:
    """Return a type that fits columns of several types."""
    distinct = list(dict.fromkeys(types))
    if len(distinct) == 1:
        return distinct[0]
    if all(pa.types.is_integer(one) or pa.types.is_boolean(one) for one in distinct):
        return next((one for one in (pa.uint64(), pa.int64()) if one in distinct), pa.int32())
    if all(pa.types.is_floating(one) for one in distinct):
        return pa.float64()
    kinds = ", ".join(map(str, distinct))
    msg = f"{name}s have types that do not fit one column ({kinds}); select steps with labels of one type"
    raise ValueError(msg)
