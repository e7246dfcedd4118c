"""The course of each sample over the steps: exact statistics by id, first and last value, forgetting events.

Ids get slots, which never move. What is kept of an id does not depend on the order in which the ids of a step come.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from labeltrack._core import kernels
from labeltrack._core.accumulator import Accumulator
from labeltrack._core.arrays import aligned_words, read_only
from labeltrack._core.hash_index import Hash
from labeltrack._core.masks import selected
from labeltrack._core.partition import Sorted, rounds
from labeltrack._core.threads import Turns, all_at_once, default_threads, edges_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Array = npt.NDArray[Any]
Integers = npt.NDArray[np.int64]

_BLOCK = 19  # binary logarithm of the slots of an accumulator: 32 MiB of rows
_BUCKET = 14  # binary logarithm of the fewest slots of a bucket, see `labeltrack._core.partition`
_BUCKETS = 8
_SMALL = 1 << 16  # ids that are always close enough together for slots by their difference
_TURN = 1 << 14  # values
_NEGATIVE = -1e-3  # values further below zero are no cross-entropies; what rounding leaves is


class Chunk(NamedTuple):
    """Rows of one step.

    Attributes:
        ids: ``(N,)`` integers.
        labels: ``(N,)`` integers, for each label of a sample.
        values: ``(N,)`` float32 or float64.
        hits: ``(N,)`` uint8, 1 where the sample is right, 0 where it is wrong; None if that is not known.
    """

    ids: Array
    labels: tuple[Array, ...]
    values: Array
    hits: Array | None = None


class Found(NamedTuple):
    """What was found in a step.

    Attributes:
        again: Rows of an id that had occurred in the step before.
        example: Such an id, if there is any.
        relabelled: Rows whose label is not the one that the id had when it first occurred.
    """

    again: int
    example: int
    relabelled: int


Statistics = Iterator[tuple[slice, Accumulator]]
"""Of K ids: which of them come next, and their statistics."""


class Course(NamedTuple):
    """What is known of K ids.

    Attributes:
        ids: ``(K,)`` int64, in order of slots.
        labels: ``(K,)`` int64 each.
        values: Statistics of the values, to be read once.
        ends: ``(K,)`` float64 each: first and last value; NaN if there is none.
        probability: Statistics of ``exp(-value)``, to be read once; None if they were not kept.
        hits: ``(K,)`` int64 each: how often a sample was right and then wrong, and how often it was right; None if
            that is not known.
    """

    ids: Integers
    labels: tuple[Integers, ...]
    values: Statistics
    ends: tuple[Array, ...]
    probability: Statistics | None
    hits: tuple[Integers, Integers] | None


class Slots:
    """The slot of each id: its distance from the smallest while ids are close together, else by hashing.

    Args:
        always: How many slots there may be in any case.
        per_id: How many there may be for each id that came.
    """

    def __init__(self, always: int = _SMALL, per_id: int = 2) -> None:
        self.size = 0
        self._always, self._per_id = always, per_id
        self._came = 0
        self._low = 0
        self._hash: Hash | None = None

    def of(self, columns: Sequence[Array]) -> list[Array]:
        """Return ``(N,)`` int32 slots of ids, column by column; new ids get a slot."""
        full = [ids for ids in columns if ids.size]
        if full and self._hash is None:
            low = min(int(ids.min()) for ids in full)
            high = max(int(ids.max()) for ids in full)
            low, high = (min(low, self._low), max(high, self._low + self.size - 1)) if self.size else (low, high)
            self._came += sum(ids.size for ids in full)
            most = min(max(self._always, self._per_id * self._came), 2**31 - 1)  # slots are int32
            low = 0 if not self.size and 0 <= low <= high < most else low  # smaller ones may follow
            if high - low < most and (not self.size or low == self._low):
                self._low, self.size = low, high - low + 1
            else:
                self._hash = Hash(np.arange(self._low, self._low + self.size, dtype=np.int64))
        if self._hash is None:
            return [self._near(ids) for ids in columns]
        return [self._hashed(self._hash, ids) for ids in columns]

    def _near(self, ids: Array) -> Array:
        slots = np.empty(ids.shape[0], dtype=np.int32)
        return np.subtract(ids, self._low, out=slots, dtype=np.int64, casting="unsafe")

    def _hashed(self, table: Hash, ids: Array) -> Array:
        codes = table.codes_of(ids)
        self.size = table.size
        return codes

    @property
    def hashed(self) -> bool:
        """Whether slots are given to ids as these come; before, they are distances."""
        return self._hash is not None

    def ids(self) -> Integers:
        """Return the id of each slot; some that are only between others may never have occurred."""
        if self._hash is None:
            return np.arange(self._low, self._low + self.size, dtype=np.int64)
        return self._hash.keys


class Blocks:
    """Exact statistics of slots, any number of which can be added; in blocks, which threads share."""

    def __init__(self) -> None:
        self._parts: list[Accumulator] = []

    def grow(self, size: int) -> None:
        """Make room for so many slots."""
        for number in range(((size - 1) >> _BLOCK) + 1):
            wanted = min(size - (number << _BLOCK), 1 << _BLOCK)
            if number == len(self._parts):
                self._parts.append(Accumulator(wanted))
            elif wanted > self._parts[number].size:
                old = self._parts[number]
                self._parts[number] = Accumulator(min(max(wanted, 2 * old.size), 1 << _BLOCK))
                self._parts[number].merge(old, np.arange(old.size, dtype=np.int64))

    def add(self, sorted_samples: Sorted, shift: int, threads: int, most: int) -> None:
        """Add samples that are sorted by buckets; no slot has more than `most`."""
        buckets, each = sorted_samples.starts.shape[0] - 1, 1 << (_BLOCK - shift)
        slots, samples = sorted_samples.slots, sorted_samples.samples

        def add(turns: Iterable[int]) -> None:
            for block in turns:
                first = block * each
                start, stop = sorted_samples.starts[[first, min(first + each, buckets)]].tolist()
                if stop > start:
                    self._parts[block].add(slots, samples, start, stop, low=block << _BLOCK, most=most)

        all_at_once(add, [Turns(range(-(-buckets // each)))] * threads)

    def merge(self, other: Blocks, slots: Integers) -> None:
        """Add slot ``i`` of another to slot ``slots[i]`` of this one; -1 for slots without samples."""
        for number, theirs in enumerate(other._parts):
            mine = slots[number << _BLOCK : (number << _BLOCK) + theirs.size]
            for block in np.unique(mine[mine >= 0] >> _BLOCK).tolist():
                rows = np.flatnonzero(mine >> _BLOCK == block)
                self._parts[block].merge(theirs.take(rows), mine[rows] - (block << _BLOCK))

    def statistics(self, used: Integers) -> Statistics:
        """Yield the statistics of some slots, ascending; blocks are freed one by one, and this object is used up."""
        blocks, self._parts = self._parts, []
        edges = np.searchsorted(used, np.arange(len(blocks) + 1) << _BLOCK).tolist()
        for number, (start, stop) in enumerate(pairwise(edges)):
            block, blocks[number] = blocks[number], Accumulator(0)
            block.release()
            all_used = stop - start == block.size
            yield slice(start, stop), block if all_used else block.take(used[start:stop] - (number << _BLOCK))


class ByID:
    """The course of each sample, step by step.

    Args:
        labels: How many labels a sample has.
        probability: Whether to keep statistics of ``exp(-value)``, as long as no value is negative.
        drop: Whether an id counts once per step, the first time.
        skip_nan: Whether values that are NaN are ignored; else they count as not finite.
        threads: Number of threads; None chooses by the number of rows.
    """

    def __init__(
        self,
        *,
        labels: int = 1,
        probability: bool = True,
        drop: bool = True,
        skip_nan: bool = False,
        threads: int | None = None,
    ) -> None:
        self._drop, self._skip_nan, self._threads = drop, skip_nan, threads
        self._slots = Slots()
        self._steps = self._room = 0
        self._words: Integers = aligned_words(0)
        self._labels: list[Integers] = [np.empty(0, np.int64) for _ in range(labels)]
        self._values = Blocks()
        self._probability = Blocks() if probability else None
        self._hits: bool | None = None  # None: nothing has come yet

    def add_step(self, chunks: Sequence[Chunk]) -> Found:
        """Add all rows of the next step, in order of arrival.

        Raises:
            ValueError: Whether samples are right is known in some chunks only.
        """
        chunks = [chunk for chunk in chunks if chunk.ids.size]
        self._steps += 1
        again = relabelled = example = 0
        kept: list[tuple[Array, ...]] = []
        columns = self._slots.of([chunk.ids for chunk in chunks])
        self._grow()
        for chunk, column in zip(chunks, columns, strict=True):
            self._hits = self._hits is not False and chunk.hits is not None
            slots, values = read_only(column), read_only(np.ascontiguousarray(chunk.values))
            rows, repeated = self._note(chunk, slots, values)
            for labels, known in zip(chunk.labels, self._labels, strict=True):
                keys = read_only(labels.astype(np.int64, copy=False))
                relabelled += kernels.by_id.note_labels(slots, keys, rows, known)
            if repeated and self._drop:
                example = int(chunk.ids[np.argmax(rows == kernels.by_id.AGAIN)])
                kept.append(tuple(selected(rows != kernels.by_id.AGAIN, slots, values, threads=1)))
            else:
                kept.append((slots, values))
            again += repeated
        for dtype in (np.float32, np.float64):
            self._reduce([chunk for chunk in kept if chunk[1].dtype == dtype], 1 if self._drop else again + 1)
        return Found(again, example, relabelled)

    def _grow(self) -> None:
        size = self._slots.size
        if size > self._room:
            self._room, words = max(size, self._room * 3 // 2), kernels.by_id.WORDS
            self._words = _longer(self._words, words * self._room)
            self._labels = [_longer(known, self._room) for known in self._labels]
        self._values.grow(size)
        if self._probability is not None:
            self._probability.grow(size)

    def _note(self, chunk: Chunk, slots: Array, values: Array) -> tuple[Array, int]:
        hits = read_only(np.empty(0, np.uint8) if chunk.hits is None else chunk.hits)
        rows = np.empty(slots.shape[0], dtype=np.uint8)
        state = self._words.view(np.float64), self._words
        options = self._steps, self._drop, self._skip_nan
        return rows, int(kernels.by_id.note_rows(slots, values, hits, *state, *options, rows))

    def _reduce(self, chunks: Sequence[tuple[Array, ...]], most: int) -> None:
        total = sum(slots.shape[0] for slots, _ in chunks)
        if not total:
            return
        threads = default_threads(total) if self._threads is None else self._threads
        size = self._slots.size
        shift = min(max(_BUCKET, (size >> _BUCKETS).bit_length()), _BLOCK)
        for part in rounds([(slots, values) for slots, values in chunks], 0, shift, (size - 1 >> shift) + 1, threads):
            self._values.add(part, shift, threads, most)
            if self._probability is not None and not np.fmin.reduce(part.samples) < _NEGATIVE:
                self._probability.add(part._replace(samples=_probability(part.samples, threads)), shift, threads, most)
            else:
                self._probability = None

    def merge(self, later: ByID, ids: Integers | None = None, labels: Sequence[Integers | None] = (None,)) -> int:
        """Add the steps of another, which come after those of this one; return how many ids have another label.

        Args:
            later: Only read.
            ids: What its ids are called here, by id; None if they are called the same.
            labels: Likewise, its labels, for each label of a sample.
        """
        module = kernels.by_id
        there = later._used()
        (slots,) = self._slots.of([_renamed(later._slots.ids()[there], ids)])
        self._grow()
        mine, theirs = self._words.reshape(-1, module.WORDS), later._words.reshape(-1, module.WORDS)[there]
        old, relabelled = mine[slots], 0
        known = old[:, 3] != 0
        for mine_labels, theirs_labels, names in zip(self._labels, later._labels, labels, strict=True):
            now = _renamed(theirs_labels[there], names)
            mine_labels[slots[~known]] = now[~known]
            relabelled += int(np.count_nonzero(mine_labels[slots] != now))
        mine[slots] = _joined(old, theirs, self._steps)
        places = np.full(later._slots.size, -1, dtype=np.int64)
        places[there] = slots
        self._values.merge(later._values, places)
        if self._probability is not None and later._probability is not None:
            self._probability.merge(later._probability, places)
        else:
            self._probability = None
        self._hits = later._hits if self._hits is None else self._hits and later._hits is not False
        self._steps += later._steps
        return relabelled

    def _used(self) -> Integers:
        """Return the slots whose ids have occurred."""
        used: Integers = np.flatnonzero(self._words[3 :: kernels.by_id.WORDS][: self._slots.size])
        return used

    def result(self) -> Course:
        """Return what is known; this object must not be used afterwards."""
        module, used = kernels.by_id, self._used()
        ids, place = self._slots.ids(), slice(None) if used.size == self._slots.size else used
        words = self._words.reshape(-1, module.WORDS)[: ids.size]
        ends = [words[:, column].view(np.float64)[place] for column in range(2)]
        empty = words[:, 3][place] & module.HAS_VALUE == 0
        if empty.any():
            ends = [np.where(empty, np.nan, column) for column in ends]
        hits = None
        if self._hits:
            both = words[:, 2][place]
            hits = both & 0xFFFFFFFF, both >> 32
        labels = tuple(known[: ids.size][place] for known in self._labels)
        kept = None if self._probability is None else self._probability.statistics(used)
        return Course(ids[place], labels, self._values.statistics(used), (*ends,), kept, hits)


def _renamed(keys: Integers, names: Integers | None) -> Integers:
    return keys if names is None else names[keys]


def _joined(old: Integers, new: Integers, steps: int) -> Integers:
    """Return the ``(K, WORDS)`` states of ids over two sequences of steps, the first of which has so many."""
    module = kernels.by_id
    joined = new.copy()
    had, has = old[:, 3], new[:, 3]
    keep = had & module.HAS_VALUE != 0
    joined[keep, 0] = old[keep, 0]
    keep &= has & module.HAS_VALUE == 0
    joined[keep, 1] = old[keep, 1]
    joined[:, 2] += old[:, 2]
    hit = has & module.HAS_HIT != 0
    joined[:, 2] += hit & (had & module.LAST_HIT != 0) & (has & module.FIRST_HIT == 0)
    flags = (had | has) & (module.HAS_VALUE | module.HAS_HIT)
    flags |= np.where(had & module.HAS_HIT != 0, had, has) & module.FIRST_HIT
    flags |= np.where(hit, has, had) & module.LAST_HIT
    joined[:, 3] = ((has >> 32) + steps) << 32 | flags
    return joined


def _longer(array: Integers, size: int) -> Integers:
    longer = aligned_words(size)
    longer[: array.shape[0]] = array
    return longer


def _probability(values: Array, threads: int) -> Array:
    """Return ``exp(-value)`` in the precision of the values; those a little below zero count as zero.

    In single precision, exp and exact sums take 5 ns per row; in double precision 20 to 50.
    """
    found = np.empty_like(values)

    def compute(start: int, stop: int) -> None:
        for low in range(start, stop, _TURN):  # small, so that they stay in the cache
            part = found[low : min(low + _TURN, stop)]
            with np.errstate(under="ignore", invalid="ignore"):
                np.maximum(values[low : low + part.shape[0]], 0.0, out=part)
                np.exp(np.negative(part, out=part), out=part)

    edges = edges_of(values.shape[0], threads)
    all_at_once(compute, edges[:-1], edges[1:])
    return found
