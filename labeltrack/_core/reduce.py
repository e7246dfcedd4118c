"""From keys and samples to exact statistics a label: choice of table, slices over threads, merging."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from labeltrack._core import kernels
from labeltrack._core.accumulator import Accumulator
from labeltrack._core.arrays import read_only, sorted_unique
from labeltrack._core.kernels import ROW
from labeltrack._core.partition import reduce_by_range
from labeltrack._core.threads import Turns, all_at_once, default_threads, shares_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence


Array = npt.NDArray[Any]
Integers = npt.NDArray[np.int64]
Chunk = tuple[Array, Array]
Item = TypeVar("Item")


class Decoder(Protocol):
    """Turns integer keys back into labels."""

    @property
    def orderly(self) -> bool:
        """Whether labels are in the order of their keys."""
        ...

    def decode(self, keys: Integers) -> Array:
        """Return the labels of keys."""
        ...


_SMALL_SPAN = 1 << 16  # a table of 4 MiB is always affordable
_LARGEST_SPAN = 1 << 24  # a table of 1.5 GiB
# Labels looked at beforehand. With a quarter of them, tables of threads are less often alike, and hashed ones grow.
_SAMPLE = 1 << 14
_MANY = 1 << 15  # labels from which one dense table is laid out for all of them beforehand
_SHARED = 3 << 17  # labels beyond which threads share them out, not the samples
# Places of a hash table for each code that there is room for, as long as there are no more codes than that. Looking
# twice is a branch that nobody foresees: with a thousand labels 2.2 ns a sample, where half as many places took 3.0;
# with a hundred thousand 4.3 and 6.0.
_PLACES = ((1 << 12, 8), (1 << 18, 4), (1 << 62, 2))
_ERRORS = 4  # of the estimated number of labels, for which there is room
_HEAD = 1 << 12  # samples that a table is first laid out by
_UNIT = 1 << 10  # samples that are looked for a unit in; each of them is a line of the cache that is waited for
_NEIGHBOURS, _SOME_NEIGHBOURS = 16, 4  # labels, and samples, that are looked at in each place
_LEAST_PLACES = 64  # where there would be fewer, there are no neighbours
_NO_MARGIN = 128  # labels
_LAID_OUT = 1 << 18  # samples from which it pays to look at labels from all over them
_TURNS = 16  # pieces a thread that samples are cut into
_PIECE = 1 << 17  # samples of a piece, at least
_BLOCK = 1 << 17  # samples encoded at a time: the codes stay in the cache until they are read; 4 % faster than 1 << 15


class KeyTable:
    """Statistics by int64 key, in a dense table while the keys lie close together, hashed when they do not.

    Args:
        expected: How many samples are to come; a dense table may have twice as many slots.
        wanted: ``(W,)`` keys to keep, all others being passed over; None keeps every key.
    """

    def __init__(self, expected: int, wanted: Integers | None = None) -> None:
        self._expected = expected
        self._frozen = wanted is not None
        self._low = 0
        self._accumulator = Accumulator(0)
        self._hash: Hash | None = None
        if wanted is not None:
            self._hash = Hash(wanted)
            self._accumulator = Accumulator(self._hash.size + 1)  # the last slot takes what nobody wants

    def begin(self, keys: Array, samples: Array, total: int) -> None:
        """Lay the table out beforehand.

        Args:
            keys: Some keys of all that are to come.
            samples: Some samples likewise.
            total: How many are to come.
        """
        if not self._frozen:
            self._widen(keys)
            if self._hash is not None:
                # Room for all labels at once, and for some more, as that is an estimate: growing takes a merge each
                # time, 40 ms for a hundred thousand labels in a thread to which all memory is new.
                labels, error = estimated_labels(keys)
                most = min(total, _LARGEST_SPAN)
                room = min(labels + min(_ERRORS * error, labels), most)
                self._hash, self._accumulator = Hash(self._hash.keys[:0], min(labels, most)), Accumulator(room)
        self._accumulator.suggest(samples, total)

    def alike(self) -> KeyTable:
        """Return another table, which is laid out in the same way, so that the two can quickly be added."""
        table = KeyTable(self._expected)
        table._frozen, table._low = self._frozen, self._low
        if self._hash is not None:
            table._hash = Hash(self._hash.keys[: self._hash.size], self._hash.keys.shape[0])
        table._accumulator = self._accumulator.alike()
        return table

    def add(self, keys: Array, samples: Array) -> None:
        """Add samples: ``(N,)`` keys (uint8, int32 or int64) and ``(N,)`` float32 or float64, contiguous."""
        position, end = 0, keys.shape[0]
        if not self._accumulator.size and end and not self._frozen:
            self._widen(keys[:_HEAD])
        while self._hash is None and position < end:
            # No pass looks for the range of the keys: the kernel's own bounds check finds the first one that
            # does not fit. A guess from the first few thousand keys is nearly always right.
            position = self._accumulator.add(keys, samples, position, low=self._low)
            if position < end:
                self._widen(keys[position:])
        if self._hash is not None and position < end:
            self._add_hashed(self._hash, keys, samples, position)

    def _widen(self, keys: Array) -> None:
        """Make the table hold these keys too, or go over to hashing."""
        old = self._accumulator
        lowest, highest = int(keys.min()), int(keys.max())
        if not old.size:
            # A guess from the first keys: the ends of a long range are rarely among them, and moving a table costs more
            # than a few rows that stay empty. Where labels are few, empty rows would cost the quickest loop.
            margin = (highest - lowest) * 64 // max(1024, keys.shape[0]) if highest - lowest > _NO_MARGIN else 0
            lowest, highest = max(lowest - margin, -(2**63)), min(highest + margin, 2**63 - 1)
        if old.size:
            lowest, highest = min(lowest, self._low), max(highest, self._low + old.size - 1)
        span = highest - lowest + 1
        if span <= _SMALL_SPAN or (span <= min(2 * self._expected, _LARGEST_SPAN) and _dense(old, keys, span)):
            self._accumulator = Accumulator(span)
            if old.size:
                self._accumulator.merge(old, np.arange(old.size, dtype=np.int64) + (self._low - lowest))
            self._low = lowest
        else:
            used = old.occupied()
            self._hash = Hash(used + self._low)
            self._accumulator = old.take(used)

    def _add_hashed(self, hashed: Hash, keys: Array, samples: Array, position: int) -> None:
        codes = np.empty(_BLOCK, dtype=np.int32)
        while position < keys.shape[0]:
            stop = min(position + _BLOCK, keys.shape[0])
            hashed.encode(keys, position, stop, codes, frozen=self._frozen)
            self._make_room(hashed.size)
            n = stop - position
            self._accumulator.add(codes[:n], samples[position:stop])
            position = stop

    def _make_room(self, codes: int) -> None:
        """Make the accumulator hold so many codes."""
        if codes > self._accumulator.size:
            old = self._accumulator
            self._accumulator = Accumulator(max(2 * old.size, codes, 1024))
            self._accumulator.merge(old, np.arange(old.size, dtype=np.int64))

    def absorb(self, other: KeyTable) -> bool:
        """Add another table if both are hashed or have the same slots; return whether that is so.

        The other one is not to be used any more then.
        """
        if self._hash is not None and other._hash is not None and not self._frozen:
            codes = np.empty(other._hash.size, dtype=np.int32)
            keys = read_only(other._hash.keys[: codes.shape[0]])
            self._hash.encode(keys, 0, codes.shape[0], codes, frozen=False)
            self._make_room(self._hash.size)
            self._accumulator.merge(other._accumulator, codes.astype(np.int64))
            return True
        alike = self._low == other._low and self._accumulator.size == other._accumulator.size
        if not alike or ((self._hash or other._hash) is not None and not self._frozen):
            return False
        self._accumulator.absorb(other._accumulator)
        return True

    @property
    def dense(self) -> bool:
        """Whether the keys that occurred ascend in `result`."""
        return self._hash is None

    def result(self) -> tuple[Integers, Accumulator]:
        """Return the keys that occurred, in no particular order unless the table is dense, and their statistics."""
        used = self._accumulator.occupied()
        if self._hash is not None and self._frozen:
            used = used[used < self._hash.size]
        keys = used + self._low if self._hash is None else self._hash.keys[used]
        self._accumulator.keep(used)
        self._accumulator.release()
        return keys, self._accumulator


def _dense(old: Accumulator, keys: Array, span: int) -> bool:
    """Return whether the keys of a table, and a sample of further ones, fill a span well enough for a dense table.

    One stray key far from all others must not cost a table of gigabytes.
    """
    some = keys[:: max(1, keys.shape[0] // _HEAD)]
    used = old.occupied()
    seen = some.shape[0] + int(old.counts[used * ROW].sum())
    return bool(used.shape[0] + _distinct(some) >= min(seen, span) // 16)


def _distinct(keys: Array) -> int:
    """Return how many different ones there are among ``(N,)`` keys, in whatever order.

    Sorted by vector instructions, where `sorted_unique` looks for runs: 10 instead of 160 us for 4096 keys.
    """
    ordered = np.sort(keys)
    return int(np.count_nonzero(ordered[1:] != ordered[:-1]) + min(1, ordered.shape[0]))


def estimated_labels(keys: Array) -> tuple[int, int]:
    """Return how many labels there may be by some keys: how many make so few repeats, if all are as likely.

    Of ``d`` labels, ``n`` samples have about ``d * (1 - exp(-n / d))``. Where some are more likely than others there
    are more than that.

    Returns:
        How many, and by how many that may be off: its standard deviation where repeats are rare, and more where they
        are not.
    """
    n, distinct = int(keys.shape[0]), _distinct(keys)
    low, high = distinct, max(64 * n, distinct)
    while low < high:
        labels = (low + high) // 2
        if -labels * math.expm1(-n / labels) < distinct:
            low = labels + 1
        else:
            high = labels
    return low, int(low / math.sqrt(max(1, n - distinct)))


class Hash:
    """Open-addressing table from int64 keys to codes.

    Args:
        keys: ``(K,)`` the first keys, which get the codes from 0 on.
        room: For how many keys there is to be room at once.
    """

    def __init__(self, keys: Integers, room: int = 0) -> None:
        self.size = 0
        self.keys = np.empty(0, dtype=np.int64)
        self._table = np.empty(0, dtype=np.int64)
        self._rebuild(keys, max(1024, 2 * keys.shape[0], room))

    def _rebuild(self, keys: Integers, capacity: int) -> None:
        capacity = 1 << (capacity - 1).bit_length()
        self.keys = np.empty(capacity, dtype=np.int64)
        places = next(capacity * each for most, each in _PLACES if capacity <= most)
        self._table = np.full(2 * places, -1, dtype=np.int64)  # pairs of a label and its code
        scratch = np.empty(keys.shape[0], dtype=np.int32)
        _, self.size = kernels.hashing.encode_int64(
            read_only(np.ascontiguousarray(keys)), 0, keys.shape[0], self._table, self.keys, 0, False, scratch
        )

    def encode(self, keys: Array, start: int, stop: int, codes: Array, *, frozen: bool) -> None:
        """Write the codes of ``keys[start:stop]`` to the front of `codes`; new keys get their number if `frozen`."""
        position = start
        while True:
            position, self.size = kernels.hashing.encode_int64(
                keys, position, stop, self._table, self.keys, self.size, frozen, codes[position - start :]
            )
            if position == stop:
                return
            self._rebuild(self.keys[: self.size], 4 * self.keys.shape[0])


def _share(chunks: Sequence[Chunk], threads: int) -> list[list[Chunk]]:
    """Cut chunks into one list a thread, with equal numbers of samples."""
    shares = shares_of([keys.shape[0] for keys, _ in chunks], threads)
    return [[(chunks[i][0][a:b], chunks[i][1][a:b]) for i, a, b in share] for share in shares]


def reduce_chunks(
    chunks: Sequence[Chunk], space: Decoder, *, wanted: Integers | None = None, threads: int | None = None
) -> tuple[Array, Accumulator]:
    """Reduce chunks of keys and samples to statistics a label.

    Args:
        chunks: Pairs of ``(N,)`` keys (uint8, int32, int64) and ``(N,)`` samples (float32, float64), all
            C-contiguous. Dtypes may differ from chunk to chunk.
        space: What the keys stand for.
        wanted: Keys to keep; None keeps every one.
        threads: How many threads share the samples; None chooses by their number.

    Returns:
        The ``(K,)`` sorted labels that occurred and their statistics. Bit for bit the same for any cut into
        chunks and any number of threads.
    """
    total = sum(chunk[0].shape[0] for chunk in chunks)
    threads = (default_threads(total) if threads is None else threads) if total else 1
    some, spread = _some(chunks, total, threads) if threads > 1 or total >= _SAMPLE // 4 else (None, 0)
    if some is not None and wanted is None and _SHARED < spread < _LARGEST_SPAN:
        low, size = _extent(chunks, threads)
        if size <= min(2 * total, _LARGEST_SPAN) and _dense(Accumulator(0), some, size):
            return _sorted(*reduce_by_range(chunks, low, size, threads), space)
    layout = None
    if some is not None and (threads > 1 or spread > _MANY or total >= _LAID_OUT):
        layout = some, np.concatenate([_spread_out(samples, total // _UNIT, _SOME_NEIGHBOURS) for _, samples in chunks])
    pieces = [chunks] if threads == 1 else _share(chunks, max(threads, min(_TURNS * threads, total // _PIECE)))

    def load(piece: Sequence[Chunk]) -> Sequence[Chunk]:
        return piece

    return _in_turns(_tables(threads, total, wanted, layout), iter(pieces), load, space)


def _in_turns(
    tables: Sequence[KeyTable], items: Iterator[Item], load: Callable[[Item], Iterable[Chunk]], space: Decoder
) -> tuple[Array, Accumulator]:
    """Add the chunks of items to tables, each in a thread that takes the next item when it is done with one.

    With a hundred thousand labels, halves of the samples took 14 and 18 ms.
    """
    _ = kernels.rows  # load numba once, not in every thread

    def one(table: KeyTable, turns: Iterable[Item]) -> None:
        for item in turns:
            for keys, samples in load(item):
                table.add(read_only(keys), read_only(samples))

    first, *others = tables
    if not others:
        one(first, items)
        return _sorted(*first.result(), space, ascending=first.dense)
    all_at_once(one, tables, [Turns(items)] * len(tables))
    others = [table for table in others if not first.absorb(table)]
    return _combine([table.result() for table in (first, *others)], space)


def _tables(threads: int, total: int, wanted: Integers | None, layout: Chunk | None) -> list[KeyTable]:
    """Return an empty table for each thread, all of one layout if some keys and samples to come are given."""
    first = KeyTable(total // threads, wanted)
    if layout is None:
        return [first, *(KeyTable(total // threads, wanted) for _ in range(threads - 1))]
    first.begin(*layout, total // threads)
    return [first, *(first.alike() for _ in range(threads - 1))]


def _extent(chunks: Sequence[Chunk], threads: int) -> tuple[int, int]:
    """Return the smallest key, and the number of slots from there to the largest."""

    def extent(share: Sequence[Chunk]) -> tuple[int, int]:
        return min(int(keys.min()) for keys, _ in share), max(int(keys.max()) for keys, _ in share)

    ends = all_at_once(extent, [share for share in _share(chunks, threads) if share])
    lowest = min(low for low, _ in ends)
    return lowest, max(high for _, high in ends) - lowest + 1


def _some(chunks: Sequence[Chunk], total: int, threads: int) -> tuple[Array, int]:
    """Return some thousand keys from all over the chunks, and how far the largest lies from the smallest.

    A quarter of them does for one thread if they lie close together: 15 instead of 40 us, of 1.7 ms for a million
    samples. Tables of several threads must not differ because a key at the end of their range is rare.
    """

    def looked_at(wanted: int, neighbours: int) -> tuple[Array, int]:
        places = [_spread_out(keys, total // wanted, neighbours) for keys, _ in chunks]
        some = np.concatenate([chunks[0][0][:1], *places])  # runs end with the last, but need not begin with the first
        return some, int(np.maximum.reduce(some)) - int(np.minimum.reduce(some))

    if threads == 1:
        some, spread = looked_at(_SAMPLE // 4, _NEIGHBOURS)
        if spread <= _HEAD:
            return some, spread
    return looked_at(_SAMPLE, 1)


def _spread_out(array: Array, step: int, neighbours: int) -> Array:
    """Return about one in `step` elements from all over ``(N,)`` of them, some neighbours at a time.

    Each place is a line of the cache, and mostly a page of memory, to wait for: of a million samples, 4096 labels one
    by one took 23 us and 1024 samples 16; in places of 16 and 4 they take 14 and 8.
    """
    places = array.shape[0] // (neighbours * max(1, step))
    if neighbours == 1 or step <= 1 or places < _LEAST_PLACES:
        return array[:: max(1, step)]
    apart = array.shape[0] // places
    return array[array.shape[0] - places * apart :].reshape(places, apart)[:, -neighbours:].ravel()


def reduce_stream(
    items: Iterator[Item],
    load: Callable[[Item], Chunk | None],
    samples: int,
    space: Decoder,
    *,
    wanted: Integers | None = None,
    threads: int | None = None,
    layout: Chunk | None = None,
) -> tuple[Array, Accumulator]:
    """Reduce chunks that are loaded when their turn comes.

    Args:
        items: What there is to load. Threads take turns in asking for the next.
        load: Gives the chunk of an item, as `reduce_chunks` takes it, or None for nothing; is called in any thread.
        samples: About how many samples there are.
        space: What the keys stand for.
        wanted: Keys to keep; None keeps every one.
        threads: How many threads share the items; None chooses by the number of samples.
        layout: Some keys and samples by which the tables of all threads are laid out alike.

    Returns:
        What `reduce_chunks` returns.
    """
    threads = default_threads(samples) if threads is None else threads

    def loaded(item: Item) -> Iterable[Chunk]:
        chunk = load(item)
        return [] if chunk is None else [chunk]

    return _in_turns(_tables(threads, samples, wanted, layout), items, loaded, space)


def _combine(results: list[tuple[Integers, Accumulator]], space: Decoder) -> tuple[Array, Accumulator]:
    """Merge the tables of the threads and sort by label."""
    if len(results) == 1:
        keys, accumulator = results[0]
    else:
        keys = sorted_unique(np.concatenate([part for part, _ in results]))
        accumulator = Accumulator(keys.shape[0])
        for part, partial in results:
            accumulator.merge(partial, np.searchsorted(keys, part))
        accumulator.release()
    return _sorted(keys, accumulator, space)


def _sorted(
    keys: Integers, accumulator: Accumulator, space: Decoder, *, ascending: bool = False
) -> tuple[Array, Accumulator]:
    """Return labels in their order, and the accumulator likewise; keys may be known to ascend."""
    labels = space.decode(keys)
    if space.orderly and labels.shape[0] and (ascending or bool((keys[1:] > keys[:-1]).all())):
        return labels, accumulator
    order = np.argsort(labels, kind="stable")
    if np.array_equal(order, np.arange(order.size)):
        return labels, accumulator
    return labels[order], accumulator.take(order)
