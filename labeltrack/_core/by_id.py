"""The course of each sample over the steps: exact statistics by id, first and last value, forgetting events."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, pairwise
from typing import Any, NamedTuple

import numpy as np

from labeltrack._core import kernels
from labeltrack._core.accumulator import Accumulator
from labeltrack._core.arrays import Array, Integers, aligned_words, read_only
from labeltrack._core.key_tables import Slots
from labeltrack._core.partition import places_of
from labeltrack._core.threads import Share, Turns, all_at_once, default_threads, shares_of

_BLOCK = 19  # binary logarithm of the slots of an accumulator: 32 MiB of rows
_BUCKET = 14  # binary logarithm of the fewest slots of a bucket, see `labeltrack._core.partition`
_BUCKETS = 8
_ROUND = 1 << 22  # rows that wait, unless there are many ids; with 2**21 or 2**23, a million ids take 3 % longer
_PER_THREAD = 1 << 18  # rows that are worth a thread to sort
_NEGATIVE = -1e-3  # values further below zero are no cross-entropies; what rounding leaves is


class Chunk(NamedTuple):
    """``(N,)`` rows of one step."""

    ids: Array  # integers, likewise `labels`
    labels: tuple[Array, ...]
    values: Array  # float32 or float64
    hits: Array | None = None  # uint8, 1 where the sample is right, 0 where it is wrong; None if that is not known


class Found(NamedTuple):
    again: int  # rows of an id that had occurred in the same step before
    example: tuple[int, int] | None  # such an id and the number of the step, from 1 on
    relabelled: int  # rows whose label is not the one that the id had when it first occurred


Statistics = Iterator[tuple[slice, Accumulator]]  # of K ids: which of them come next, and their statistics


class Course(NamedTuple):
    """What is known of K ids; statistics are to be read once. Arrays are ``(K,)``."""

    ids: Integers  # in order of slots
    labels: tuple[Integers, ...]
    values: Statistics
    ends: tuple[Array, ...]  # first and last value; NaN if there is none
    probability: Statistics | None  # of ``exp(-value)``; None if they were not kept
    hits: tuple[Integers, Integers] | None  # how often right and then wrong, and how often right; None if not known


class Blocks:
    """Exact statistics of slots, any number of which can be added; in blocks, which threads share."""

    def __init__(self) -> None:
        self._parts: list[Accumulator] = []

    def grow(self, size: int) -> None:
        for number in range(((size - 1) >> _BLOCK) + 1):
            wanted = min(size - (number << _BLOCK), 1 << _BLOCK)
            if number == len(self._parts):
                self._parts.append(Accumulator(wanted))
            elif wanted > self._parts[number].size:
                old = self._parts[number]
                self._parts[number] = Accumulator(min(max(wanted, 2 * old.size), 1 << _BLOCK))
                self._parts[number].merge(old, np.arange(old.size, dtype=np.int64))

    def add(self, number: int, slots: Array, samples: Array, total: int, most: int) -> None:
        """Add samples to slots of a block, `most` to one at most; a unit is chosen for `total`, later ones included."""
        part = self._parts[number]
        part.suggest(samples, total)
        part.add(slots, samples, low=number << _BLOCK, most=most)

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
    """The course of each sample, step by step, in any order within a step; ids get slots, which never move."""

    def __init__(
        self,
        *,
        labels: int = 1,
        probability: bool = True,  # whether to keep statistics of ``exp(-value)``, while no value is negative
        drop: bool = True,  # whether an id counts once per step, the first time
        skip_nan: bool = False,
    ) -> None:
        self._drop, self._skip_nan = drop, skip_nan
        self._slots = Slots()
        self._steps = self._room = 0
        # Rows that wait: how many, as records sorted by buckets in each piece of a step; where the buckets begin there;
        # their dtype, whether hits are known, and the binary logarithm of the slots per bucket.
        self._rows = self._first = 0
        self._records: Integers = aligned_words(0)
        self._pieces: list[Integers] = []
        self._kind: tuple[Any, ...] = ()
        self._words: Integers = aligned_words(0)
        self._labels: Integers = aligned_words(0).reshape(0, labels)
        self._values = Blocks()
        self._probability = Blocks() if probability else None
        self._hits: bool | None = None  # None: nothing has come yet
        self._again = self._relabelled = 0
        self._example: tuple[int, int] | None = None

    def add_step(self, chunks: Sequence[Chunk]) -> None:
        """Add all rows of the next step, in order of arrival."""
        chunks = [chunk for chunk in chunks if chunk.ids.size]
        self._steps += 1
        columns = self._slots.of([chunk.ids for chunk in chunks])
        pairs = zip(columns, chunks, strict=True)
        for kind, alike in groupby(pairs, lambda pair: (pair[1].values.dtype, pair[1].hits is not None)):
            piece: list[tuple[Array, Chunk]] = []
            rows = 0
            for pair in alike:
                rows += pair[0].shape[0]
                if piece and rows > self._most():
                    self._sort(piece, *kind)
                    piece, rows = [], pair[0].shape[0]
                piece.append(pair)
            self._sort(piece, *kind)

    def _most(self) -> int:
        """Return how many rows may wait: with four steps at a time, the state of ids is visited a fourth as often."""
        return max(_ROUND, 4 * self._slots.size)

    def _sort(self, piece: Sequence[tuple[Array, Chunk]], dtype: Any, hits: bool) -> None:
        """Write the rows of chunks as records, sorted by buckets, which wait until there are enough."""
        module, width = kernels.by_id, kernels.by_id.RECORD + self._labels.shape[1]
        slots = [read_only(column) for column, _ in piece]
        rows, size = sum(column.shape[0] for column in slots), self._slots.size
        shift = min(max(_BUCKET, (size >> _BUCKETS).bit_length()), _BLOCK)
        hits = hits and self._hits is not False
        if self._kind != (dtype, hits, shift) or self._rows + rows > self._records.shape[0] // width:
            self._catch_up()
            self._kind, self._hits, self._first = (dtype, hits, shift), hits, self._steps
            if (room := max(self._most(), rows) * width) > self._records.shape[0]:
                self._records = aligned_words(room)
        records = self._records, self._records.view(np.float64)
        shares = shares_of([column.shape[0] for column in slots], default_threads(rows, _PER_THREAD))
        places, starts = places_of(slots, shares, 0, shift, (size - 1 >> shift) + 1)

        def sort(share: Share, mine: Integers) -> None:
            mine += self._rows
            for i, start, stop in share:
                part, chunk = slice(start, stop), piece[i][1]
                keys = np.stack([column[part] for column in chunk.labels], axis=1, dtype=np.int64)
                right = np.empty(0, np.uint8) if chunk.hits is None else chunk.hits[part]
                columns = slots[i][part], np.ascontiguousarray(chunk.values[part]), keys, right
                module.sort_rows(*map(read_only, columns), self._steps, shift, mine, *records)

        all_at_once(sort, shares, places)
        self._pieces.append(starts + self._rows)
        self._rows += rows

    def found(self) -> Found:
        self._catch_up()
        return Found(self._again, self._example, self._relabelled)

    def _grow(self) -> None:
        size = self._slots.size
        if size > self._room:
            self._room, words = max(size, self._room * 3 // 2), kernels.by_id.WORDS
            self._words = _longer(self._words, words * self._room)
            labels = self._labels.shape[1]
            self._labels = _longer(self._labels.reshape(-1), labels * self._room).reshape(-1, labels)
        self._values.grow(size)
        if self._probability is not None:
            self._probability.grow(size)

    def _catch_up(self) -> None:
        """Add the rows that wait; threads share blocks of slots."""
        rows, self._rows = self._rows, 0
        if not rows:
            return
        self._grow()
        dtype, _, shift = self._kind
        pieces, self._pieces = self._pieces, []
        buckets, each = pieces[-1].shape[0] - 1, 1 << (_BLOCK - shift)
        starts = np.array([np.pad(one, (0, buckets + 1 - one.shape[0]), "edge") for one in pieces])
        room = int(np.diff(starts).sum(axis=0).max())

        def add(turns: Iterable[int]) -> list[tuple[int, int, int]]:
            scratch = np.empty(room, dtype=np.int32), np.empty(room, dtype=dtype)
            blocks = ((block, starts[:, block * each : (block + 1) * each + 1]) for block in turns)
            return [found for block, mine in blocks for found in self._add(block, mine, *scratch)]

        turns = Turns(range(-(-buckets // each)))
        each_thread = all_at_once(add, [turns] * default_threads(rows, 2 * _PER_THREAD))
        again, examples, relabelled = np.array([one for some in each_thread for one in some]).T
        self._again += int(again.sum())
        self._relabelled += int(relabelled.sum())
        if self._example is None and examples.max() >= 0:
            slot, step = divmod(int(examples[examples >= 0].min()), 1 << 32)
            self._example = int(self._slots.ids()[slot]), step >> 1

    def _add(self, block: int, starts: Integers, slots: Array, values: Array) -> Iterator[tuple[int, int, int]]:
        """Add the records of a block, bucket by bucket; yield what `note_rows` found in each."""
        module, steps = kernels.by_id, self._steps - self._first + 1
        records = self._records, self._records.view(np.float64)
        state = self._words.view(np.float64), self._words, self._labels.reshape(-1), self._labels.shape[1]
        options = self._drop, self._skip_nan, bool(self._hits)
        total = int((starts[:, -1] - starts[:, 0]).sum())
        for bucket in range(starts.shape[1] - 1):
            kept = again = 0
            for start, stop in starts[:, bucket : bucket + 2].tolist():
                if start < stop:
                    kept, *found = module.note_rows(*records, start, stop, *state, *options, slots, values, kept)
                    again += found[0]
                    yield found[0], found[1], found[2]
            if not kept:
                continue
            most = steps if self._drop else steps + again
            self._values.add(block, slots[:kept], values[:kept], total, most)
            if (probability := self._probability) is not None:
                if np.fmin.reduce(values[:kept]) < _NEGATIVE:
                    self._probability = None
                else:
                    probability.add(block, slots[:kept], _probability(values[:kept]), total, most)

    def result(self) -> Course:
        """Return what is known; this object must not be used afterwards."""
        self._catch_up()
        self._records = aligned_words(0)
        ids, module = self._slots.ids(), kernels.by_id
        words = self._words.reshape(-1, module.WORDS)[: ids.size]
        used = np.flatnonzero(words[:, 3])  # other slots have ids that never occurred
        place = slice(None) if used.size == ids.size else used
        ends = [words[:, column].view(np.float64)[place] for column in range(2)]
        empty = words[:, 3][place] & module.HAS_VALUE == 0
        if empty.any():
            ends = [np.where(empty, np.nan, column) for column in ends]
        hits = None
        if self._hits:
            both = words[:, 2][place]
            hits = both & 0xFFFFFFFF, both >> 32
        labels = tuple(known[: ids.size][place] for known in self._labels.T)
        kept = None if self._probability is None else self._probability.statistics(used)
        return Course(ids[place], labels, self._values.statistics(used), (*ends,), kept, hits)


def _longer(array: Integers, size: int) -> Integers:
    longer = aligned_words(size)
    longer[: array.shape[0]] = array
    return longer


def _probability(values: Array) -> Array:
    """Return ``exp(-value)``; values a little below zero count as zero."""
    # In single precision where values are: exp and exact sums take 5 ns per row; in double precision 20 to 50.
    with np.errstate(under="ignore", invalid="ignore"):
        found: Array = np.maximum(values, values.dtype.type(0))
        return np.exp(np.negative(found, out=found), out=found)
