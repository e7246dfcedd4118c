"""From keys to slots: statistics in a dense table or a hashed one, codes that last, how many keys are different."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from labeltrack._core import kernels
from labeltrack._core.accumulator import Accumulator
from labeltrack._core.arrays import Array, Codes, Integers, read_only
from labeltrack._core.kernels import ROW

State = tuple[Integers, Integers, Integers]
"""Key of each code, places, and the number of codes: replaced in one assignment."""

_NONE: Integers = np.empty(0, dtype=np.int64)
_SMALL = 1 << 16  # keys that are always close enough together for slots by their difference
_SMALL_SPAN = 1 << 16  # a table of 4 MiB is always affordable
LARGEST_SPAN = 1 << 24  # a table of 1 GiB
_ERRORS = 4  # standard errors of the estimated number of labels for which room is made
_HEAD = 1 << 12  # keys that a table is first laid out by
NO_MARGIN = 128  # labels
_BLOCK = 1 << 17  # samples encoded at a time: codes are read from the cache, 4 % faster than with 1 << 15
# Places per code that there is room for, up to a number of codes. A second look is a branch that mispredicts: with a
# thousand labels 2.2 ns per sample, and 3.0 with half as many places; with a hundred thousand 4.3 and 6.0.
_PLACES = ((1 << 12, 8), (1 << 18, 4), (1 << 62, 2))


class Hash:
    """Open-addressing table from int64 keys to codes, in order of appearance; the first `keys` get the codes from 0 on.

    An interrupt changes no code that was given out. While a call adds keys, others may read, a signal handler add some.
    """

    def __init__(self, keys: Integers = _NONE, room: int = 0) -> None:
        self._state = _state_of(keys, max(1024, 2 * keys.shape[0], room))

    @property
    def size(self) -> int:
        return int(self._state[2][0])

    @property
    def keys(self) -> Integers:
        found, _, size = self._state
        return found[: size[0]]

    @property
    def room(self) -> int:
        return int(self._state[0].shape[0])

    def codes_of(self, keys: Array) -> Codes:
        """Return the ``(N,)`` codes of keys; new ones get the next codes."""
        codes = np.empty(keys.shape[0], dtype=np.int32)
        self.encode(read_only(np.ascontiguousarray(keys)), 0, keys.shape[0], codes, frozen=False)
        return codes

    def encode(self, keys: Array, start: int, stop: int, codes: Array, *, frozen: bool) -> None:
        """Write the codes of ``keys[start:stop]`` to the front of `codes`; new keys get a new code unless `frozen`."""
        position, encode = start, kernels.hashing.encode_int64
        while position < stop:
            state = self._state
            found, table, size = state
            position = encode(keys, position, stop, table, found, size, frozen, codes[position - start :])
            if self._state is not state:
                position = start  # a signal handler has replaced the table
            elif position < stop:
                wider = _state_of(found[: size[0]], 4 * found.shape[0])
                # In one line, within which no signal handler runs.
                self._state = wider if self._state is state and size[0] == wider[2][0] else self._state


class Slots:
    """The slot of each id: its distance from the smallest while ids are close together, else by hashing."""

    def __init__(self, always: int = _SMALL, per_id: int = 2) -> None:
        self.size = 0
        self._always, self._per_id = always, per_id  # slots that there may be in any case, and for each id that came
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
        if self._hash is not None:
            slots = [self._hash.codes_of(ids) for ids in columns]
            self.size = self._hash.size
            return slots
        slots = [np.empty(ids.shape[0], dtype=np.int32) for ids in columns]
        for ids, out in zip(columns, slots, strict=True):
            np.subtract(ids, self._low, out=out, dtype=np.int64, casting="unsafe")
        return slots

    @property
    def hashed(self) -> bool:
        """Whether slots are given to ids as these come; before, they are distances."""
        return self._hash is not None

    def ids(self) -> Integers:
        """Return the id of each slot; some that are only between others may never have occurred."""
        if self._hash is None:
            return np.arange(self._low, self._low + self.size, dtype=np.int64)
        return self._hash.keys


def _state_of(keys: Integers, capacity: int) -> State:
    """Return a table with room for so many keys."""
    capacity = 1 << (capacity - 1).bit_length()
    found, size = np.empty(capacity, dtype=np.int64), np.zeros(1, dtype=np.int64)
    places = next(capacity * each for most, each in _PLACES if capacity <= most)
    table = np.full(2 * places, -1, dtype=np.int64)  # pairs of a key and its code
    if keys.size:
        scratch, keys = np.empty(keys.shape[0], dtype=np.int32), read_only(np.ascontiguousarray(keys))
        kernels.hashing.encode_int64(keys, 0, keys.shape[0], table, found, size, False, scratch)
    return found, table, size


class KeyTable:
    """Statistics by int64 key: in a dense table while keys are close together for `expected` samples, else hashed."""

    def __init__(self, expected: int, wanted: Integers | None = None, codes: int = 0, columns: int = 1) -> None:
        self._expected = expected
        self._frozen = wanted is not None
        self._low = 0
        self._hash = None if wanted is None else Hash(wanted)
        if self._hash is not None:
            codes = self._hash.size + 1  # the last slot takes all others
        elif codes > min(2 * expected, LARGEST_SPAN):
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
                most = min(total, LARGEST_SPAN)
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
            margin = (highest - lowest) * 64 // max(1024, keys.shape[0]) if highest - lowest > NO_MARGIN else 0
            lowest, highest = max(lowest - margin, -(2**63)), min(highest + margin, 2**63 - 1)
        else:
            lowest, highest = min(lowest, self._low), max(highest, self._low + size - 1)
        span = highest - lowest + 1
        if span <= _SMALL_SPAN or (span <= min(2 * self._expected, LARGEST_SPAN) and is_dense(self._of[0], keys, span)):
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


def is_dense(old: Accumulator, keys: Array, span: int) -> bool:
    """Return whether the keys of a table and further ones fill a span: one stray key must not cost gigabytes."""
    some = keys[:: max(1, keys.shape[0] // _HEAD)]
    used = old.occupied()
    seen = some.shape[0] + int(old.counts[used * ROW].sum())
    return bool(used.shape[0] + number_distinct(some) >= min(seen, span) // 16)


def number_distinct(keys: Array) -> int:
    ordered = np.sort(keys)  # by vector instructions: 10 us for 4096 keys, where a stable sort takes 160
    return int(np.count_nonzero(ordered[1:] != ordered[:-1]) + min(1, ordered.shape[0]))


def estimated_labels(keys: Array) -> tuple[int, int]:
    """Return an estimate of the number of labels, by the repeats among some keys, and its standard error or more."""
    # Of ``d`` equally likely labels, ``n`` samples have about ``d * (1 - exp(-n / d))``.
    n, distinct = int(keys.shape[0]), number_distinct(keys)
    low, high = distinct, max(64 * n, distinct)
    while low < high:
        labels = (low + high) // 2
        if -labels * math.expm1(-n / labels) < distinct:
            low = labels + 1
        else:
            high = labels
    return low, int(low / math.sqrt(max(1, n - distinct)))
