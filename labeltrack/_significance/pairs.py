"""The recorded samples of two sides: by position of their label, and in pairs where the same samples are on both."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from labeltrack._core.arrays import Array, Floats, Integers, Mask
from labeltrack._core.reduce import reduce_stream
from labeltrack._labels.codes import INTEGER, LabelDecoder
from labeltrack._significance.p_values import BLOCK, Side
from labeltrack.errors import need
from labeltrack.stats import LabelStats

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


class Pairs(NamedTuple):
    """Samples that are on both sides."""

    codes: Integers  # position of their label
    before: Floats
    after: Floats
    most: Integers  # (K,) how many there could be, at most: different samples of each label, on the side that has more


class Samples(NamedTuple):
    """The samples before and after, and those of them that are pairs."""

    codes: tuple[Integers, Integers]  # positions of labels
    values: tuple[Floats, Floats]
    pairs: Pairs | None
    spacing: int = 1  # these are one in so many; `load` returns all of them
    load: Callable[[], Samples] | None = None
    differences: LabelStats | None = None  # of all pairs
    parts: Callable[[], Iterator[Side]] | None = None  # reads these differences again

    def every(self) -> Samples:
        """Return all of them."""
        return self if self.load is None else self.load()


class Columns(NamedTuple):
    """The samples of one side as Arrow columns."""

    labels: Sequence[Any]  # a column for each label
    values: Any
    ids: Sequence[Any]  # of which a sample is identified by all; none if samples have no ids

    def at(self, rows: Integers) -> Columns:
        """Return some of the samples."""
        labels, ids = ([column.take(rows) for column in columns] for columns in (self.labels, self.ids))
        return Columns(labels, self.values.take(rows), ids)


def distinct(columns: Columns) -> Columns:
    """Return the first sample of each id, and all that have none."""
    if not columns.ids:
        return columns
    (keys,), number = _keys([columns.ids])
    first = _first(keys, number)
    first = np.sort(first[first >= 0])
    return columns if first.size == keys.size else columns.at(first)


def both(before: Columns, after: Columns, labels: Array) -> Samples:
    """Return samples of ``(K,)`` sorted labels: pairs of the same id and label, or all if labels are in equal order."""
    codes = tuple(_positions(side.labels, labels) for side in (before, after))
    values = tuple(_plain(side.values) for side in (before, after))
    pairs = None
    if before.ids and after.ids:
        keys, number = _keys([before.ids, after.ids])
        places = [_first(of, number) for of in keys]
        one, other = (of[(places[0] >= 0) & (places[1] >= 0)] for of in places)
        same = (codes[0][one] == codes[1][other]) & (codes[0][one] >= 0)
        one, other = np.sort(one[same]), other[same][np.argsort(one[same])]
        there = [of[place[place >= 0]] for of, place in zip(codes, places, strict=True)]
        most = np.maximum(*(np.bincount(of[of >= 0], minlength=len(labels)) for of in there))
        pairs = Pairs(codes[0][one], values[0][one], values[1][other], most)
    if min(of.min(initial=0) for of in codes) < 0:
        kept = [of >= 0 for of in codes]
        codes = tuple(of[chosen] for of, chosen in zip(codes, kept, strict=True))
        values = tuple(of[chosen] for of, chosen in zip(values, kept, strict=True))
    if pairs is None and np.array_equal(codes[0], codes[1]):
        pairs = Pairs(codes[0], values[0], values[1], np.full(len(labels), codes[0].size))
    return Samples((codes[0], codes[1]), (values[0], values[1]), pairs)


class _OutOfOrderError(OSError):
    """Sides that were read do not have equal labels in equal order."""


def in_order(
    sides: Sequence[Callable[[], Iterator[Side]]], labels: Array, rows: int, spacing: int, load: Callable[[], Samples]
) -> Samples | None:
    """Return a few of so many samples, read in parts instead of by `load`; None unless labels are in equal order."""
    few: list[list[Array]] = []

    def differences(*, keep: bool = False) -> Iterator[Side]:
        count = 0
        for codes, before, others, after in _side_by_side(*(read() for read in sides)):
            if not np.array_equal(codes, others):
                break
            if keep:
                few.append([column[-count % spacing :: spacing].copy() for column in (codes, before, after)])
            count += codes.shape[0]
            yield difference(codes, before, after)
        else:
            if 0 < count == rows:
                return
        msg = "the samples changed while they were read; try again"
        raise _OutOfOrderError(msg)

    try:
        # Reading takes turns: a second thread took more time, not less.
        found = reduced(differences(keep=True), rows, threads=1)
    except _OutOfOrderError:
        return None
    codes, before, after = (np.concatenate(column) for column in zip(*few, strict=True))
    pairs = Pairs(codes, before, after, np.full(len(labels), rows))
    return Samples((codes, codes), (before, after), pairs, spacing, load, found, differences)


def _side_by_side(one: Iterator[Side], other: Iterator[Side]) -> Iterator[tuple[Integers, Floats, Integers, Floats]]:
    """Yield parts of two sides that are as long as each other, up to the end of the shorter one."""
    np.empty(1 << 24, np.uint8)  # once freed, malloc keeps smaller blocks for the next part: a sixth of the time
    rest: Any = [None, None]
    while True:
        rest = [next(side, None) if of is None else of for side, of in zip((one, other), rest, strict=True)]
        if rest[0] is None or rest[1] is None:
            return
        size = min(*(codes.shape[0] for codes, _ in rest), BLOCK)
        yield tuple(column[:size] for of in rest for column in of)
        rest = [(codes[size:], values[size:]) if size < codes.shape[0] else None for codes, values in rest]


def reduced(parts: Iterator[Side], size: int, threads: int | None = None) -> LabelStats:
    """Return the statistics of about so many samples, by position of their label."""
    return LabelStats(*reduce_stream(parts, lambda part: [part], size, LabelDecoder(INTEGER), threads=threads))


def difference(codes: Integers, before: Floats, after: Floats, wanted: Mask | None = None) -> Side:
    """Return the differences between pairs that are numbers, of wanted labels, with their labels' positions."""
    with np.errstate(invalid="ignore"):  # infinite samples, whose labels are not tested
        differences: Floats = after.astype(np.float64) - before.astype(np.float64)  # faster than with dtype=
    if wanted is None and not np.isnan(differences.min(initial=0.0)):
        return codes, differences
    kept = ~np.isnan(differences) if wanted is None else ~np.isnan(differences) & wanted[codes]
    return codes[kept], differences[kept]


def _first(keys: Integers, number: int) -> Integers:
    """Return where each key is first; -1 for those that are nowhere."""
    found = np.full(number, -1, dtype=np.int64)
    found[keys[::-1]] = np.arange(keys.size - 1, -1, -1)
    return found


def _keys(sides: Sequence[Sequence[Any]]) -> tuple[list[Integers], int]:
    """Return keys of samples, the same where all columns are equal, a new one for each null; and how many there are."""
    pa, keys = need("pyarrow"), np.zeros(1, dtype=np.int64)
    for columns in zip(*sides, strict=True):
        chunks = [chunk for column in columns for chunk in column.chunks]
        if len({chunk.type for chunk in chunks}) > 1:  # text may be equal to numbers
            chunks = [pa.array(list(map(str, chunk.to_pylist())), pa.string()) for chunk in chunks]
        words, codes = _coded(pa.chunked_array(chunks, chunks[0].type if chunks else columns[0].type))
        keys = np.unique(keys * len(words) + codes, return_inverse=True)[1].reshape(-1)
    gone = np.flatnonzero(np.concatenate([_plain(columns[0].is_null()) for columns in sides]))
    number = int(keys.max(initial=-1)) + 1
    keys[gone] = number + np.arange(gone.size)
    return np.split(keys, np.cumsum([len(columns[0]) for columns in sides])[:-1]), number + gone.size


def _coded(column: Any) -> tuple[Any, Integers]:
    """Return the different values of a column and the ``(N,)`` place of each sample's among them, any for a null."""
    column = column.unify_dictionaries().combine_chunks()
    column = column if hasattr(column, "dictionary") else column.dictionary_encode()
    return column.dictionary, _plain(column.indices.fill_null(0)).astype(np.int64)


def _plain(column: Any) -> Array:
    """Return a column of numbers as an array. Arrow's own way imports pandas, which takes a quarter of a second."""
    kind = np.dtype(column.type.to_pandas_dtype())
    if kind.kind == "b":
        return _plain(column.cast("uint8")).view(kind)
    parts = [np.from_dlpack(part) for part in getattr(column, "chunks", [column]) if len(part)]
    return parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, kind), *parts])


def _positions(columns: Sequence[Any], labels: Array) -> Integers:
    """Return the ``(N,)`` position of each sample's label or labels among sorted labels; -1 if it is none of them."""
    if labels.dtype.names is not None:
        parts = [_coded(column) for column in columns]
        keys, codes = np.unique(np.stack([codes for _, codes in parts]), axis=1, return_inverse=True)
        words = [words.to_pylist() for words, _ in parts]
        rows = [tuple(of[code] for of, code in zip(words, row, strict=True)) for row in keys.T.tolist()]
    elif hasattr(columns[0].type, "value_type"):  # codes of words
        words, codes = _coded(columns[0])
        rows = words.to_pylist()
    else:
        return places_of(_plain(columns[0]), labels)
    known = {label: k for k, label in enumerate(labels.tolist())}
    return np.array([*(known.get(row, -1) for row in rows), -1], dtype=np.int64)[codes.reshape(-1)]


def places_of(keys: Array, labels: Array) -> Integers:
    """Return the ``(N,)`` position of each number among sorted labels; -1 if it is none of them."""
    if len(labels) and keys.size and labels.dtype.kind == keys.dtype.kind == "i":
        low, span = int(labels[0]), int(labels[-1]) - int(labels[0]) + 1
        bytes_each = keys.dtype.itemsize
        if low == 0 and span == len(labels) and bytes_each >= 4 and keys.view(f"u{bytes_each}").max() < span:
            return keys  # none is negative, which would be a large one
        if span <= keys.size and int(keys.min()) >= low and int(keys.max()) < low + span:  # 10 times as fast
            table: Integers = np.full(span, -1, dtype=np.int64)
            table[labels - low] = np.arange(len(labels))
            above: Integers = keys.astype(np.int64) - low
            return table[above]
    if not len(labels) or not len(keys):
        return np.full(len(keys), -1)
    cast = keys.astype(labels.dtype)  # numpy would compare int64 and uint64 as doubles
    places = np.minimum(np.searchsorted(labels, cast), len(labels) - 1)
    return np.where((labels[places] == cast) & ((cast < 0) == (keys < 0)), places, -1)
