"""Recorded samples as Arrow tables that map the files, and as Parquet and CSV files."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from labeltrack._labels.codes import BOOL, BYTES, STRING
from labeltrack._tables import check_ending, portable, whole_file
from labeltrack.errors import listing, need
from labeltrack.recording.description import ABOUT, ID
from labeltrack.recording.reader import PartReader, PartResult, batches_of, open_parts
from labeltrack.recording.storage import LocalFolder

if TYPE_CHECKING:
    from pathlib import Path

    from labeltrack.recording.description import Columns
    from labeltrack.recording.epochs import PartEntry
    from labeltrack.recording.keys import Column, Words
    from labeltrack.recording.storage import Storage

pa: Any = need("pyarrow")
_TEXT = pa.dictionary(pa.int32(), pa.string())


def _chosen(
    readers: Sequence[PartReader], columns: Columns, chosen: Iterable[str] | None, front: Sequence[str]
) -> list[str]:
    """Return the names of the columns of a table: those given, or by default some, and all that samples have."""
    ids = any(reader.ids is not None for reader in readers)
    own = columns._replace(ids=ids or columns.ids).names
    if chosen is None:
        return [*front, *columns._replace(ids=ids).names]
    names = list(chosen)
    unknown = [name for name in names if name not in (*own, *ABOUT)]
    if unknown or not names:
        msg = f"columns: unknown {listing(unknown)}; allowed are {listing((*own, *ABOUT), 20)}"
        raise ValueError(msg)
    return names


def table(
    storage: Storage, parts: Sequence[PartEntry], columns: Columns, chosen: Iterable[str] | None, *, mapped: bool
) -> tuple[Any, list[PartResult]]:
    """Return samples as a pyarrow Table, and what was read from each part; see `Run.samples`."""
    readers = open_parts(storage, parts, columns)
    names = _chosen(readers, columns, chosen, ())
    texts = {STRING: _TEXT, BYTES: pa.dictionary(pa.int32(), pa.binary())}
    schema, alike = _schema(readers, columns, names, texts)
    alike = alike and mapped  # casting would read the maps
    may = [alike and bool(one.labels) and all(of.kind != BOOL for of in one.labels) for one in readers]
    files = {one.entry.name: _map(storage, one.entry.name) for one, each in zip(readers, may, strict=True) if each}
    batches = list(_record_batches(readers, columns, schema, files))
    return pa.Table.from_batches(batches, schema), [reader.finish() for reader in readers]


def write(
    storage: Storage,
    parts: Sequence[PartEntry],
    columns: Columns,
    chosen: Iterable[str] | None,
    path: Path,
    on_rows: Callable[[int], object],
) -> tuple[int, list[PartResult]]:
    """Write samples to a file; return their number, and what was read from each part; see `Run.export`."""
    text = check_ending(path, (".parquet", ".csv")) == ".csv"
    readers = open_parts(storage, parts, columns)
    names = _chosen(readers, columns, chosen, ("mode", "ds_id", "step"))
    schema, _ = _schema(readers, columns, names, {STRING: pa.string(), BYTES: pa.string() if text else pa.binary()})
    rows = 0
    with whole_file(path) as half:
        if text:
            writer = need("pyarrow.csv").CSVWriter(str(half), schema)
        else:
            writer = need("pyarrow.parquet").ParquetWriter(half, schema)
        with writer:
            for batch in _record_batches(readers, columns, schema, {}, text=text):
                writer.write_batch(batch)
                rows += batch.num_rows
                on_rows(batch.num_rows)
    return rows, [reader.finish() for reader in readers]


def _record_batches(
    readers: Sequence[PartReader], columns: Columns, schema: Any, files: Mapping[str, Any], *, text: bool = False
) -> Iterator[Any]:
    """Yield samples as record batches; columns are views of the maps of files, if any; with `text`, bytes are text."""
    dictionary = functools.cache(functools.partial(_dictionary, text=text))
    for reader, batch in batches_of(readers):
        rows, file = reader.rows(batch), files.get(reader.entry.name)
        if rows is None or not batch.rows:
            continue
        kinds = [*reader.labels, *[None] * len(columns.values), *([reader.ids] if reader.ids else [])]
        arrays = [*rows.labels, *rows.values, *([] if rows.ids is None else [rows.ids])]
        if file is not None and batch.end <= file.size and all(one.dtype == one.stored for one in reader.labels):
            pieces = [file.slice(at, x.nbytes) for at, x in zip(batch.columns, arrays, strict=True)]
            arrays = [np.frombuffer(piece, x.dtype) for piece, x in zip(pieces, arrays, strict=True)]
        own = dict(zip(reader.part.columns.names, zip(kinds, arrays, strict=True), strict=True))
        about = dict(zip(ABOUT, reader.entry.about, strict=True)) | {ID: None}  # of samples without ids
        row = [
            _arrow(*own[name], dictionary) if name in own else _constant(about[name], batch.rows)
            for name in schema.names
        ]
        cast = [one if one.type == of else one.cast(of) for one, of in zip(row, schema.types, strict=True)]
        yield pa.record_batch(cast, schema=schema)


def _schema(
    readers: Sequence[PartReader], columns: Columns, names: Sequence[str], texts: Mapping[str, Any]
) -> tuple[Any, bool]:
    """Return the schema that fits all parts, and whether each has it already."""
    types: dict[str, list[Any]] = {name: [] for name in columns._replace(ids=True).names}
    for reader in readers:
        if reader.labels:
            for name, of in zip(columns.labels, reader.labels, strict=True):
                plain = pa.bool_() if of.kind == BOOL else pa.from_numpy_dtype(of.dtype)
                types[name].append(texts.get(of.kind, plain))
            for name, dtype in zip(columns.values, reader.value_dtypes, strict=True):
                types[name].append(pa.from_numpy_dtype(dtype))
            if reader.ids is not None:
                own = texts.get(reader.ids.kind, pa.int64())
                wide = pa.types.is_dictionary(own)  # codes of ids have 64 bits
                types[ID].append(pa.dictionary(pa.int64(), own.value_type) if wide else own)
    none = dict.fromkeys(columns.labels, pa.int64()) | dict.fromkeys(columns.values, pa.float32()) | {ID: pa.int64()}
    about = dict.fromkeys(ABOUT, pa.int32()) | dict.fromkeys(("mode", "ds_id"), texts[STRING]) | {"step": pa.int64()}
    fields = [(name, _common(types[name] or [none[name]], name) if name in types else about[name]) for name in names]
    return pa.schema(fields), all(len(set(types.get(name, ()))) <= 1 for name in names)


def _map(storage: Storage, name: str) -> Any:
    """Return a memory map of a file, which needs no descriptor; None if it cannot be mapped."""
    if isinstance(storage, LocalFolder):
        with contextlib.suppress(OSError), pa.memory_map(os.fsencode(storage.path / name)) as file:
            return file.read_buffer()
    return None


def _arrow(of: Column | None, array: Any, dictionary: Callable[[Words], Any]) -> Any:
    """Return labels, values or ids as an Arrow array that shares their memory."""
    plain = pa.Array.from_buffers(pa.from_numpy_dtype(array.dtype), array.shape[0], [None, pa.py_buffer(array)])
    if of is not None and of.words is not None:
        return pa.DictionaryArray.from_arrays(plain, dictionary(of.words))
    return plain.cast(pa.bool_()) if of is not None and of.kind == BOOL else plain  # one bit each in Arrow


def _dictionary(words: Words, *, text: bool) -> Any:
    """Return a vocabulary as an Arrow array; with `text`, bytes are text."""
    plain = words.array.tolist()
    if words.kind == BYTES and not text:
        return pa.array(plain, pa.binary())
    return pa.array([_as_text(word) for word in plain] if words.kind == BYTES else portable(plain), pa.string())


def _as_text(word: bytes) -> str:
    """Return bytes as text, different bytes as different text: what is not UTF-8 is escaped as in Python."""
    with contextlib.suppress(UnicodeDecodeError):
        if b"\\x" not in word:
            return word.decode()
    return word.replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace")


def _constant(value: Any, rows: int) -> Any:
    if value is None:
        return pa.nulls(rows)
    if isinstance(value, str):
        return pa.DictionaryArray.from_arrays(np.zeros(rows, np.int32), pa.array(portable([value])))
    return pa.array(np.full(rows, value))


def _common(types: list[Any], name: str) -> Any:
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
