"""From keys and samples to exact statistics per label: division of work among threads, merging."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Protocol, TypeVar

import numpy as np

from labeltrack._core import kernels
from labeltrack._core.accumulator import Accumulator
from labeltrack._core.arrays import Array, Integers, sorted_unique
from labeltrack._core.key_tables import LARGEST_SPAN, NO_MARGIN, KeyTable, estimated_labels, is_dense
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
# Keys sampled to lay out tables. With a quarter of them, tables of threads differ more often, and hashed ones grow.
_SAMPLE = 1 << 14
_MANY = 1 << 15  # labels from which a dense table is laid out for all of them at once
_SHARED = 3 << 17  # labels beyond which threads divide the labels, not the samples
_UNIT = 1 << 10  # samples by which a fixed-point unit is chosen; each is a cache miss
_LAID_OUT = 1 << 18  # samples from which it pays to sample labels from all over them
_PER_SLOT = 12  # samples per slot and thread: with five, two tables of 100,000 labels take 1.3 times as long as one
_TURNS = 16  # pieces per thread
_PIECE = 1 << 17  # fewest samples of a piece


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
    if some is not None and wanted is None and _SHARED < spread < LARGEST_SPAN:
        low, size = _extent(chunks, threads)
        if size <= min(2 * total, LARGEST_SPAN) and is_dense(Accumulator(0), some, size):
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
    found: Iterator[Item | _Loaded] = items
    if threads > 1 and layout is None:
        # Tables that are laid out by the same samples are added slot by slot in the end, others label by label.
        first = next((chunks for chunks in map(list, map(load, items)) if any(keys.size for keys, *_ in chunks)), [])
        total = sum(keys.shape[0] for keys, *_ in first)
        if total:
            some, spread = _some(first, total)
            threads = _paying(threads, samples, some, spread) if wanted is None else threads
            layout = some, *_heads(first, total)
            found = chain([_Loaded(first)], items)
            del first, some
    tables = _tables(threads, samples, wanted, layout)
    del layout  # it may be a part of what was loaded, and hold a file
    labels, (accumulator,) = _reduce_items(
        found, lambda item: item.pop() if isinstance(item, _Loaded) else load(item), tables, decoder
    )
    return labels, accumulator


class _Loaded:
    """Chunks that were loaded ahead, given out once, as they may hold a file."""

    def __init__(self, chunks: list[Chunk]) -> None:
        self._chunks = chunks

    def pop(self) -> list[Chunk]:
        chunks, self._chunks = self._chunks, []
        return chunks


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
        if spread <= NO_MARGIN:
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
    close = spread < min(2 * total, LARGEST_SPAN) and is_dense(Accumulator(0), some, spread + 1)
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
