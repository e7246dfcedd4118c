"""Recorded samples as Arrow tables, sharing the memory of the files."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from labeltrack._labels.codes import BOOL, BYTES, STRING
from labeltrack._tables.files import check_ending, whole_file
from labeltrack._tables.render import portable
from labeltrack.errors import listing, need
from labeltrack.recording.reader import Found, Opened
from labeltrack.recording.storage import LocalFolder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from labeltrack.recording.arrow_ipc import Batch
    from labeltrack.recording.index import Attempt
    from labeltrack.recording.reader import Source
    from labeltrack.recording.storage import Storage

SAMPLE = ("label", "value")
ABOUT = ("mode", "ds_id", "epoch", "session", "rank", "attempt")

Choice = tuple["Attempt", str, "Source"]


def check_columns(columns: tuple[str, ...]) -> None:
    """See that columns exist.

    Raises:
        ValueError: There is one that does not, or none at all.
    """
    unknown = [name for name in columns if name not in (*SAMPLE, *ABOUT)]
    if unknown or not columns:
        msg = f"columns: unknown {listing(unknown)}; there are {listing((*SAMPLE, *ABOUT))}"
        raise ValueError(msg)


def table(storage: Storage, chosen: Sequence[Choice], columns: tuple[str, ...]) -> tuple[Any, list[Found]]:
    """Return samples as a table, with a chunk for each batch.

    Args:
        storage: Where they are.
        chosen: Parts, each with its attempt and dataset.
        columns: Which columns.

    Returns:
        A pyarrow Table, and what was found in each part.

    Raises:
        ImportError: pyarrow is not installed.
        ValueError: No such column, or labels of kinds that do not go together.
    """
    pa = need("pyarrow")
    check_columns(columns)
    found: list[Found] = []
    batches = list(record_batches(storage, chosen, columns, found, mapped=True))
    if len({tuple(batch.schema.types) for batch in batches}) > 1:  # what is cast is read here
        found.clear()
        batches = list(record_batches(storage, chosen, columns, found))
    if not batches:
        types = {"label": pa.int64(), "value": pa.float32()}
        return pa.table({name: pa.array([], types.get(name, _type_of(name, pa))) for name in columns}), found
    arrays = {}
    for name in columns:
        chunks = [batch.column(name) for batch in batches]
        of = _common([chunk.type for chunk in chunks], name, pa)
        arrays[name] = pa.chunked_array([chunk if chunk.type == of else chunk.cast(of) for chunk in chunks], of)
    return pa.table(arrays), found


def record_batches(
    storage: Storage,
    chosen: Sequence[Choice],
    columns: tuple[str, ...],
    found: list[Found],
    *,
    mapped: bool = False,
    text: bool = False,
) -> Iterator[Any]:
    """Yield samples as record batches, one by one.

    Args:
        storage: Where they are.
        chosen: Parts, each with its attempt and dataset.
        columns: Which columns.
        found: Gets what was found in each part.
        mapped: Whether batches may be maps of the files, which nothing here reads, instead of copies in memory.
        text: Whether labels of bytes become text.
    """
    pa = need("pyarrow")
    for attempt, ds_id, source in chosen:
        opened = Opened(storage, source)
        about = {
            "mode": attempt.mode,
            "ds_id": ds_id,
            "epoch": attempt.step,
            "session": attempt.session,
            "rank": attempt.rank,
            "attempt": attempt.number,
        }
        vocabulary = opened.space().vocabulary
        words = None if vocabulary is None else _words(vocabulary.tolist(), opened.kind, pa, text=text)
        file = _map(storage, source, pa) if mapped and opened.kind not in ("", BOOL) else None
        for batch in opened.batches():
            arrays = opened.columns(batch)
            if arrays is not None and batch.rows:
                if file is not None and batch.end <= file.size and arrays[0].dtype == opened.stored_dtype:
                    first, second = (file.slice(at, x.nbytes) for at, x in zip(batch.columns, arrays, strict=True))
                    arrays = np.frombuffer(first, arrays[0].dtype), np.frombuffer(second, arrays[1].dtype)
                sample = dict(zip(SAMPLE, _arrow(opened.kind, words, batch, arrays, pa), strict=True))
                row = [
                    sample[name] if name in sample else _constant(about[name], batch.rows, _type_of(name, pa), pa)
                    for name in columns
                ]
                yield pa.record_batch(row, names=list(columns))
        found.append(opened.finish())


def write(
    storage: Storage,
    chosen: Sequence[Choice],
    columns: tuple[str, ...],
    path: Path,
    on_rows: Callable[[int], object],
) -> tuple[int, list[Found]]:
    """Write samples to a file, batch by batch.

    Args:
        storage: Where they are.
        chosen: Parts, each with its attempt and dataset.
        columns: Which columns.
        path: Ends in .parquet or .csv.
        on_rows: Is told how many more rows were written.

    Returns:
        How many samples were written, and what was found in each part.
    """
    pa = need("pyarrow")
    check_columns(columns)
    ending = check_ending(path, (".parquet", ".csv"))
    text = ending == ".csv"
    schema = _schema(storage, chosen, columns, pa, text=text)
    found: list[Found] = []
    rows = 0
    with whole_file(path) as half:
        if ending == ".parquet":
            writer = need("pyarrow.parquet").ParquetWriter(half, schema)
        else:
            writer = need("pyarrow.csv").CSVWriter(str(half), schema)
        with writer:
            for batch in record_batches(storage, chosen, columns, found, text=text):
                plain = [batch.column(one.name).cast(one.type) for one in schema]
                writer.write_batch(pa.record_batch(plain, schema=schema))
                rows += batch.num_rows
                on_rows(batch.num_rows)
    return rows, found


def _schema(storage: Storage, chosen: Sequence[Choice], columns: tuple[str, ...], pa: Any, *, text: bool) -> Any:
    """Return the schema that holds all the parts, strings as they are."""
    types: dict[str, list[Any]] = {name: [] for name in SAMPLE}
    for _, _, source in chosen:
        opened = Opened(storage, source)
        schema = opened.part.schema
        if opened.kind and schema is not None:
            bytes_are = pa.string() if text else pa.binary()
            special = {STRING: pa.string(), BYTES: bytes_are, BOOL: pa.bool_()}.get(opened.kind)
            types["label"].append(special or pa.from_numpy_dtype(schema.dtypes["label"]))
            types["value"].append(pa.from_numpy_dtype(schema.dtypes["value"]))
    defaults = {"label": pa.int64(), "value": pa.float32(), "mode": pa.string(), "ds_id": pa.string()}
    return pa.schema(
        [
            (name, _common(types[name], name, pa) if types.get(name) else defaults.get(name, _type_of(name, pa)))
            for name in columns
        ]
    )


def _map(storage: Storage, source: Source, pa: Any) -> Any:
    """Return a map of a file, which no descriptor is held for; None if there can be none."""
    if isinstance(storage, LocalFolder):
        with contextlib.suppress(OSError), pa.memory_map(os.fsencode(storage.path / source.name)) as file:
            return file.read_buffer()
    return None


def _arrow(kind: str, words: Any, batch: Batch, arrays: tuple[Any, Any], pa: Any) -> tuple[Any, Any]:
    """Return labels and values as Arrow arrays of the same memory."""
    labels, values = (
        pa.Array.from_buffers(pa.from_numpy_dtype(array.dtype), batch.rows, [None, pa.py_buffer(array)])
        for array in arrays
    )
    if kind in (STRING, BYTES):
        labels = pa.DictionaryArray.from_arrays(labels, words)
    elif kind == BOOL:
        labels = labels.cast(pa.bool_())  # a bit each, in Arrow
    return labels, values


def _words(words: list[Any], kind: str, pa: Any, *, text: bool) -> Any:
    """Return words as an Arrow array, which holds texts as UTF-8 has them."""
    if kind == BYTES and not text:
        return pa.array(words, pa.binary())
    return pa.array([_as_text(word) for word in words] if kind == BYTES else portable(words), pa.string())


def _as_text(word: bytes) -> str:
    """Return bytes as a text that no others become: what is not UTF-8 is written as Python writes it."""
    with contextlib.suppress(UnicodeDecodeError):
        if b"\\x" not in word:
            return word.decode()
    return word.replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace")


def _type_of(name: str, pa: Any) -> Any:
    if name in ("mode", "ds_id"):
        return pa.dictionary(pa.int32(), pa.string())
    return pa.int64() if name == "epoch" else pa.int32()


def _constant(value: Any, rows: int, of: Any, pa: Any) -> Any:
    if isinstance(value, str):
        return pa.DictionaryArray.from_arrays(np.zeros(rows, np.int32), pa.array(portable([value])))
    return pa.array(np.full(rows, value, of.to_pandas_dtype()))


def _common(types: list[Any], name: str, pa: Any) -> Any:
    """Return the type that holds columns of several."""
    distinct = list(dict.fromkeys(types))
    if len(distinct) == 1:
        return distinct[0]
    if all(pa.types.is_integer(of) or pa.types.is_boolean(of) for of in distinct):
        unsigned = any(of == pa.uint64() for of in distinct)
        return pa.uint64() if unsigned else pa.int64() if pa.int64() in distinct else pa.int32()
    if all(pa.types.is_floating(of) for of in distinct):
        return pa.float64()
    msg = f"{name}s of several kinds ({', '.join(map(str, distinct))}) do not fit one column; choose epochs of one kind"
    raise ValueError(msg)
