"""Which samples are the first of their id in an epoch and dataset, in the order in which they were recorded."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from labeltrack._core.hash_index import Hash
from labeltrack.recording.keys import Keys

if TYPE_CHECKING:
    from labeltrack.recording.reader import Column

Integers = npt.NDArray[np.int64]


_DENSE = 8  # places of a table per id, at most: looking ids up there takes a tenth of the time of hashing them
_SMALL = 1 << 20  # places that a table always may have
_NEW, _SEEN = -1, -2


class Distinct:
    """Finds the first sample of each id among batches that come one after the other."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[Keys, _Seen]] = {}  # by kind of ids

    def first(self, ids: Integers, column: Column) -> npt.NDArray[np.bool_] | None:
        """Return which of ``(N,)`` ids did not occur before; None if all of them."""
        keys, seen = self._seen.setdefault(column.kind, (Keys("ids"), _Seen()))
        return seen.first(keys.of(column, ids))


class _Seen:
    """Integers that occurred: in a table while they are small, else hashed."""

    def __init__(self) -> None:
        self._rows = 0
        self._table = np.full(0, _NEW, dtype=np.int32)
        self._hash: Hash | None = None

    def first(self, ids: Integers) -> npt.NDArray[np.bool_] | None:
        """Return which of ``(N,)`` integers did not occur before; None if all of them."""
        self._rows += ids.shape[0]
        if not ids.size:
            return None
        if self._hash is None:
            highest = int(ids.max())
            if int(ids.min()) >= 0 and highest < max(_SMALL, _DENSE * self._rows):
                return self._looked_up(ids, highest)
            self._hash = Hash(np.flatnonzero(self._table == _SEEN))
            self._table = self._table[:0]
        return _hashed(self._hash, ids)

    def _looked_up(self, ids: Integers, highest: int) -> npt.NDArray[np.bool_] | None:
        if highest >= self._table.shape[0]:
            more = max(highest + 1, 2 * self._table.shape[0]) - self._table.shape[0]
            self._table = np.append(self._table, np.full(more, _NEW, dtype=np.int32))
        new = self._table[ids] == _NEW
        places = np.flatnonzero(new)
        fresh = ids[places]
        self._table[fresh[::-1]] = places[::-1]  # of equal ones, the last to be written is the first
        new[places] = self._table[fresh] == places
        self._table[fresh] = _SEEN
        return None if new.all() else new


def _hashed(seen: Hash, ids: Integers) -> npt.NDArray[np.bool_] | None:
    before, found = seen.size, seen.codes_of(ids)
    if seen.size - before == ids.shape[0]:
        return None
    # Codes ascend in order of appearance: an id is new where its code is above all before.
    highest = np.maximum.accumulate(np.append(np.int32(before - 1), found))
    return np.asarray(found > highest[:-1])
