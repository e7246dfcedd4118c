"""An open-addressing table from int64 keys to codes, which last; slots of close keys; how many keys are different."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from labeltrack._core import kernels
from labeltrack._core.arrays import Array, Codes, Integers, read_only

State = tuple[Integers, Integers, Integers]
"""Key of each code, places, and the number of codes: replaced in one assignment."""

_NONE: Integers = np.empty(0, dtype=np.int64)
_SMALL = 1 << 16  # keys that are always close enough together for slots by their difference
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
