"""An open-addressing table from int64 keys to codes, and codes that last."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from labeltrack._core import kernels
from labeltrack._core.arrays import read_only

Array = npt.NDArray[Any]
Integers = npt.NDArray[np.int64]

# Places per code that there is room for, up to a number of codes. A second look is a branch that mispredicts: with a
# thousand labels 2.2 ns per sample, and 3.0 with half as many places; with a hundred thousand 4.3 and 6.0.
_PLACES = ((1 << 12, 8), (1 << 18, 4), (1 << 62, 2))


class Hash:
    """Open-addressing table from int64 keys to codes.

    Args:
        keys: ``(K,)`` the first keys, which get the codes from 0 on.
        room: Number of keys to make room for at once.
    """

    def __init__(self, keys: Integers, room: int = 0) -> None:
        self.size = 0
        self.keys = np.empty(0, dtype=np.int64)
        self._table = np.empty(0, dtype=np.int64)
        self._rebuild(keys, max(1024, 2 * keys.shape[0], room))

    def _rebuild(self, keys: Integers, capacity: int) -> None:
        capacity = 1 << (capacity - 1).bit_length()
        found = np.empty(capacity, dtype=np.int64)
        places = next(capacity * each for most, each in _PLACES if capacity <= most)
        table = np.full(2 * places, -1, dtype=np.int64)  # pairs of a key and its code
        scratch = np.empty(keys.shape[0], dtype=np.int32)
        _, size = kernels.hashing.encode_int64(
            read_only(np.ascontiguousarray(keys)), 0, keys.shape[0], table, found, 0, False, scratch
        )
        self.keys, self._table, self.size = found, table, size

    def encode(self, keys: Array, start: int, stop: int, codes: Array, *, frozen: bool) -> None:
        """Write the codes of ``keys[start:stop]`` to the front of `codes`; new keys get a new code unless `frozen`."""
        position = start
        while True:
            position, self.size = kernels.hashing.encode_int64(
                keys, position, stop, self._table, self.keys, self.size, frozen, codes[position - start :]
            )
            if position == stop:
                return
            self._rebuild(self.keys[: self.size], 4 * self.keys.shape[0])


class Codes:
    """Int64 keys seen so far, each with an int32 code in order of appearance.

    An exception at any point, such as an interrupt, changes no code that was given out. Other threads may read while
    one encodes.

    Example:
        >>> codes = Codes()
        >>> codes.encode(np.array([7, -1, 7])), codes.keys
        (array([0, 1, 0], dtype=int32), array([ 7, -1]))
    """

    def __init__(self) -> None:
        self._hash = Hash(np.empty(0, dtype=np.int64))
        self._intact = True

    @property
    def keys(self) -> Integers:
        """``(K,)`` key of each code."""
        table = self._hash
        size = table.size  # first: what is there of larger arrays stays the same
        return table.keys[:size]

    def encode(self, keys: Integers) -> npt.NDArray[np.int32]:
        """Return the ``(N,)`` codes of keys; new ones get the next codes."""
        if not self._intact:
            self._hash = Hash(self.keys)
        codes = np.empty(keys.shape[0], dtype=np.int32)
        self._intact = False
        self._hash.encode(read_only(np.ascontiguousarray(keys)), 0, keys.shape[0], codes, frozen=False)
        self._intact = True
        return codes
