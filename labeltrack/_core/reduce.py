"""From keys and samples to exact statistics per label: choice of table, division of work among threads, merging."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Protocol, TypeVar

import numpy as np

from labeltrack._core import kernels
from labeltrack._core.accumulator import Accumulator
from labeltrack._core.arrays import Array, Integers, read_only, sorted_unique
from labeltrack._core.hash_index import Hash, estimated_labels, number_distinct
from labeltrack._core.kernels import ROW
from labeltrack._core.partition import reduce_by_range
from labeltrack._core.threads import Turns, all_at_once, default_threads, shares_of

Chunk = tuple[Array, ...]  # ``(N,)`` keys, and columns of as many samples
Item = TypeVar("Item")


class Decoder(Protocol):
    """Turns integer keys back into labels."""

    orderly: bool  # whether labels are in the order of their keys

    def decode(self, keys: Integers) -> Array: ...


# Between other work, as at the end of an epoch, a sleeping core and new memory cost a second thread 4 ms: six million
# samples of 13, 777 and 50,021 labels took one thread 5.3, 7.1 and 13 ms, two threads 6.4, 8.1 and 15.
_PER_THREAD = 1 << 22
_SMALL_SPAN = 1 << 16  # a table of 4 MiB is always affordable
_LARGEST_SPAN = 1 << 24  # a table of 1 GiB
# Keys sampled to lay out tables. With a quarter of them, tables of threads differ more often, and hashed ones grow.
_SAMPLE = 1 << 14
_MANY = 1 << 15  # labels from which a dense table is laid out for all of them at once
_SHARED = 3 << 17  # labels beyond which threads divide the labels, not the samples
_ERRORS = 4  # standard errors of the estimated number of labels for which room is made
_HEAD = 1 << 12  # keys that a table is first laid out by
_UNIT = 1 << 10  # samples by which a fixed-point unit is chosen; each is a cache miss
_NO_MARGIN = 128  # labels
_LAID_OUT = 1 << 18  # samples from which it pays to sample labels from all over them
_PER_SLOT = 12  # samples per slot and thread: with five, two tables of 100,000 labels take 1.3 times as long as one
_TURNS = 16  # pieces per thread
_PIECE = 1 << 17  # fewest samples of a piece
_BLOCK = 1 << 17  # samples encoded at a time: codes are read from the cache, 4 % faster than with 1 << 15


class KeyTable:
    """Statistics by int64 key: in a dense table while keys are close together for `expected` samples, else hashed."""

    def __init__(self, expected: int, wanted: Integers | None = None, codes: int = 0, columns: int = 1) -> None:
        self._expected = expected
        self._frozen = wanted is not None
        self._low = 0
        self._hash = None if wanted is None else Hash(wanted)
        if self._hash is not None:
            codes = self._hash.size + 1  # the last slot takes all others
        elif codes > min(2 * expected, _LARGEST_SPAN):
            codes = 0
        self._of = [Accumulator(codes) for _ in range(columns)]

    @property
    def size(self) -> int:
        return self._of[0].size

    def begin(self, keys: Array, *columns: Array, total: int) -> None:
        """Lay the table out by some of the keys and samples to come, `total` in all."""
        if not self._frozen and not self.size:
            self._widen(keys)
            if self._hash is not None:
                # Growing later takes a merge: 40 ms for a hundred thousand labels in new memory.
                labels, error = estimated_labels(keys)
                most = min(total, _LARGEST_SPAN)
                room = min(labels + min(_ERRORS * error, labels), most)
                self._hash = Hash(self._hash.keys[:0], min(labels, most))
                self._of = [Accumulator(room) for _ in columns]
        for accumulator, samples in zip(self._of, columns, strict=True):
            accumulator.suggest(samples, total)

    def alike(self) -> KeyTable:
        """Return an empty table with the same layout, so that `absorb` is fast."""
        table = KeyTable(self._expected)
        table._frozen, table._low = self._frozen, self._low
        if self._hash is not None:
            table._hash = Hash(self._hash.keys, self._hash.room)
        table._of = [accumulator.alike() for accumulator in self._of]
        return table

    def add(self, keys: Array, *columns: Array) -> None:
        """Add samples: ``(N,)`` keys (uint8, int32 or int64) and columns of float32 or float64, contiguous."""
        position, end = 0, keys.shape[0]
        if end and not self._frozen and not self.size:
            self._widen(keys[:_HEAD])
        while self._hash is None and position < end:
            # No pass finds the range of the keys: the kernel's bounds check stops at the first that does not fit.
            start, position = position, self._of[0].add(keys, columns[0], position, low=self._low)
            for place in range(1, len(columns)):
                self._of[place].add(keys, columns[place], start, position, low=self._low)
            if position < end:
                self._widen(keys[position:])
        if self._hash is not None and position < end:
            self._add_hashed(self._hash, keys, columns, position)

    def _widen(self, keys: Array) -> None:
        """Make room for these keys too, or switch to hashing."""
        size = self.size
        lowest, highest = int(np.minimum.reduce(keys)), int(np.maximum.reduce(keys))
        if not size:
            # The ends of a long range are rarely among the first keys, and moving a table costs more than empty rows.
            # Few labels get no margin, to stay within the fastest loop.
            margin = (highest - lowest) * 64 // max(1024, keys.shape[0]) if highest - lowest > _NO_MARGIN else 0
            lowest, highest = max(lowest - margin, -(2**63)), min(highest + margin, 2**63 - 1)
        else:
            lowest, highest = min(lowest, self._low), max(highest, self._low + size - 1)
        span = highest - lowest + 1
        if span <= _SMALL_SPAN or (span <= min(2 * self._expected, _LARGEST_SPAN) and _dense(self._of[0], keys, span)):
            self._move(span, self._low - lowest)
            self._low = lowest
        else:
            used = self._of[0].occupied()
            self._hash = Hash(used + self._low)
            self._of = [accumulator.take(used) for accumulator in self._of]

    def _move(self, size: int, by: int = 0) -> None:
        for place, old in enumerate(self._of):
            self._of[place] = Accumulator(size)
            if old.size:
                self._of[place].merge(old, np.arange(by, by + old.size, dtype=np.int64))

    def _add_hashed(self, hashed: Hash, keys: Array, columns: Sequence[Array], position: int) -> None:
        codes, keys = np.empty(_BLOCK, dtype=np.int32), read_only(keys)
        while position < keys.shape[0]:
            stop = min(position + _BLOCK, keys.shape[0])
            hashed.encode(keys, position, stop, codes, frozen=self._frozen)
            self._make_room(hashed.size)
            for accumulator, samples in zip(self._of, columns, strict=True):
                accumulator.add(codes[: stop - position], samples[position:stop])
            position = stop

    def _make_room(self, codes: int) -> None:
        if codes > self.size:
            self._move(max(2 * self.size, codes, 1024))

    def absorb(self, other: KeyTable) -> bool:
        """Add another table and return True if both are hashed or have the same slots; the other is used up then."""
        if self._hash is not None and other._hash is not None and not self._frozen:
            codes = self._hash.codes_of(other._hash.keys).astype(np.int64)
            self._make_room(self._hash.size)
            for accumulator, theirs in zip(self._of, other._of, strict=True):
                accumulator.merge(theirs, codes)
            return True
        alike = self._low == other._low and self.size == other.size
        if not alike or ((self._hash or other._hash) is not None and not self._frozen):
            return False
        for accumulator, theirs in zip(self._of, other._of, strict=True):
            accumulator.absorb(theirs)
        return True

    @property
    def dense(self) -> bool:
        """Whether the keys that occurred ascend in `result`."""
        return self._hash is None

    def result(self) -> tuple[Integers, list[Accumulator]]:
        """Return the keys that occurred, ascending if the table is dense, and the statistics of each column."""
        for place, accumulator in enumerate(self._of):
            accumulator.release()
            if self._hash is not None and self._frozen:
                used = accumulator.occupied()
                used = used[used < self._hash.size]
                self._of[place] = accumulator.take(used)
            else:
                used = accumulator.compact()
        return used + self._low if self._hash is None else self._hash.keys[used], self._of


def _dense(old: Accumulator, keys: Array, span: int) -> bool:
    """Return whether the keys of a table and further ones fill a span: one stray key must not cost gigabytes."""
    some = keys[:: max(1, keys.shape[0] // _HEAD)]
    used = old.occupied()
    seen = some.shape[0] + int(old.counts[used * ROW].sum())
    return bool(used.shape[0] + number_distinct(some) >= min(seen, span) // 16)


def reduce_columns(
    chunks: Sequence[Chunk],
    decoder: Decoder,
    *,
    columns: int = 1,
    wanted: Integers | None = None,
    threads: int | None = None,
    codes: int = 0,
) -> tuple[Array, list[Accumulator]]:
    """Return sorted labels and the statistics of each column, of `wanted` keys alone if given; in any chunks.

    Keys are uint8, int32 or int64, samples float32 or float64, all C-contiguous; dtypes may differ between chunks.
    `codes` says how many keys there are, if they are codes from 0 on, so that a table does not grow.
    """
    total = sum(chunk[0].shape[0] for chunk in chunks)
    threads = (default_threads(total, _PER_THREAD) if threads is None else threads) if total else 1
    some, spread = _some(chunks, total) if threads > 1 or total >= _SAMPLE // 4 else (None, 0)
    if some is not None and wanted is None and _SHARED < spread < _LARGEST_SPAN:
        low, size = _extent(chunks, threads)
        if size <= min(2 * total, _LARGEST_SPAN) and _dense(Accumulator(0), some, size):
            each = [[(keys, more[place]) for keys, *more in chunks] for place in range(columns)]
            found = [reduce_by_range(pairs, some, low, size, threads) for pairs in each]
            return _in_order(found[0][0], [accumulator for _, accumulator in found], decoder, ascending=True)
    if some is not None and wanted is None:
        threads = _paying(threads, total, some, spread)
    layout: Chunk | None = None
    if some is not None and (threads > 1 or spread > _MANY or total >= _LAID_OUT):
        layout = some, *_heads(chunks, total)
    pieces = [chunks] if threads == 1 else _share(chunks, max(threads, min(_TURNS * threads, total // _PIECE)))
    tables = _tables(threads, total, wanted, layout, codes, columns)
    return _reduce_items(iter(pieces), lambda piece: piece, tables, decoder)


def reduce_stream(
    items: Iterator[Item],
    load: Callable[[Item], Iterable[Chunk]],
    samples: int,
    decoder: Decoder,
    *,
    wanted: Integers | None = None,
    threads: int | None = None,
    layout: Chunk | None = None,
) -> tuple[Array, Accumulator]:
    """Do as `reduce_columns` for about so many samples, in chunks that `load`, called in any thread, gets of items."""
    threads = default_threads(samples) if threads is None else threads
    if threads > 1 and layout is None:
        # Tables that are laid out by the same samples are added slot by slot in the end, others label by label.
        for first in items:
            chunks = list(load(first))
            if total := sum(keys.shape[0] for keys, _ in chunks):
                some, spread = _some(chunks, total)
                threads = _paying(threads, samples, some, spread) if wanted is None else threads
                layout = some, *_heads(chunks, total)
                load, items = _once_loaded(first, chunks, load), chain([first], items)
                break
    tables = _tables(threads, samples, wanted, layout)
    labels, (accumulator,) = _reduce_items(items, load, tables, decoder)
    return labels, accumulator


def _once_loaded(
    first: Item, chunks: Sequence[Chunk], load: Callable[[Item], Iterable[Chunk]]
) -> Callable[[Item], Iterable[Chunk]]:
    """Return what does as `load`, and has loaded the first item already."""
    return lambda item: chunks if item is first else load(item)


def _reduce_items(
    items: Iterator[Item], load: Callable[[Item], Iterable[Chunk]], tables: Sequence[KeyTable], decoder: Decoder
) -> tuple[Array, list[Accumulator]]:
    """Add the chunks of items to tables, one thread per table."""
    _ = kernels.rows  # load numba once, not in every thread

    def add(table: KeyTable, turns: Iterable[Item]) -> None:
        for item in turns:
            for chunk in load(item):
                table.add(*chunk)

    if len(tables) == 1:
        add(tables[0], items)
    else:  # small pieces in turns: with a hundred thousand labels, halves of the samples took 14 and 18 ms
        all_at_once(add, tables, [Turns(items)] * len(tables))
    first, *others = tables
    others = [table for table in others if not first.absorb(table)]
    if not others:
        return _in_order(*first.result(), decoder, ascending=first.dense)
    results = [table.result() for table in (first, *others)]
    keys = sorted_unique(np.concatenate([part for part, _ in results]))
    accumulators = [Accumulator(keys.shape[0]) for _ in results[0][1]]
    for part, partial in results:
        places = np.searchsorted(keys, part)
        for accumulator, theirs in zip(accumulators, partial, strict=True):
            accumulator.merge(theirs, places)
    for accumulator in accumulators:
        accumulator.release()
    return _in_order(keys, accumulators, decoder, ascending=True)


def _tables(
    threads: int, total: int, wanted: Integers | None, layout: Chunk | None, codes: int = 0, columns: int = 1
) -> list[KeyTable]:
    """Return an empty table per thread, all alike, laid out by some keys and samples to come if given."""
    first = KeyTable(total // threads, wanted, codes, columns)
    if layout is not None:
        first.begin(*layout, total=total // threads)
    return [first, *(first.alike() for _ in range(threads - 1))]


def _share(chunks: Sequence[Chunk], shares: int) -> list[list[Chunk]]:
    slices = shares_of([chunk[0].shape[0] for chunk in chunks], shares)
    return [[tuple([column[a:b] for column in chunks[i]]) for i, a, b in share] for share in slices]


def _extent(chunks: Sequence[Chunk], threads: int) -> tuple[int, int]:
    """Return the smallest key, and the number of slots from there to the largest."""

    def extent(share: Sequence[Chunk]) -> tuple[int, int]:
        return min(int(chunk[0].min()) for chunk in share), max(int(chunk[0].max()) for chunk in share)

    ends = all_at_once(extent, [share for share in _share(chunks, threads) if share])
    lowest = min(low for low, _ in ends)
    return lowest, max(high for _, high in ends) - lowest + 1


def _some(chunks: Sequence[Chunk], total: int) -> tuple[Array, int]:
    """Return some of the keys, from all over the chunks, and the difference between the largest and the smallest."""
    # In cold memory 16,384 of a million keys take 0.24 ms, 1,024 take 0.13: enough for few labels.
    for number in (_UNIT, min(_SAMPLE, total >> 6))[: 1 + (total >> 6 > _UNIT)]:
        if len(chunks) == 1 and total <= number:
            some = chunks[0][0]  # without a copy
        else:  # with the first key and the last, as they may be sorted
            some = np.concatenate([chunks[0][0][:1], *(chunk[0][:: -max(1, total // number)] for chunk in chunks)])
        spread = int(np.maximum.reduce(some)) - int(np.minimum.reduce(some))
        if spread <= _NO_MARGIN:
            break
    return some, spread


def _heads(chunks: Sequence[Chunk], total: int) -> list[Array]:
    """Return some samples of each column, from all over the chunks."""
    step = max(1, total // _UNIT)
    return [
        np.concatenate([column[::step] for column in of_chunks]) for of_chunks in list(zip(*chunks, strict=True))[1:]
    ]


def _paying(threads: int, total: int, some: Array, spread: int) -> int:
    """Return how many of the threads get samples enough for their tables to pay."""
    if threads == 1 or spread <= _MANY:
        return threads
    close = spread < min(2 * total, _LARGEST_SPAN) and _dense(Accumulator(0), some, spread + 1)
    slots = spread + 1 if close else estimated_labels(some)[0]
    return min(threads, max(1, total // (_PER_SLOT * slots)))


def _in_order(
    keys: Integers, accumulators: list[Accumulator], decoder: Decoder, *, ascending: bool
) -> tuple[Array, list[Accumulator]]:
    """Return sorted labels and their statistics; `ascending` says that the keys are known to be sorted."""
    labels = decoder.decode(keys)
    if ascending and decoder.orderly:
        return labels, accumulators
    order = np.argsort(keys if decoder.orderly else labels, kind="stable")
    if (order[1:] > order[:-1]).all():
        return labels, accumulators
    return labels[order], [accumulator.take(order) for accumulator in accumulators]
