"""Which samples are the first of their id in an epoch and dataset, in the order in which they were recorded."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from labeltrack._core.arrays import read_only
from labeltrack._core.hash_index import Hash
from labeltrack.recording.keys import Keys

if TYPE_CHECKING:
    from labeltrack.recording.reader import Column

Integers = npt.NDArray[np.int64]


class Distinct:
    """Finds the first sample of each id among batches that come one after the other."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[Keys, Hash]] = {}  # by kind of ids

    def first(self, ids: Integers, column: Column) -> npt.NDArray[np.bool_] | None:
        """Return which of ``(N,)`` ids did not occur before; None if all of them."""
        keys, seen = self._seen.setdefault(column.kind, (Keys("ids"), Hash(np.empty(0, dtype=np.int64))))
        before, found = seen.size, np.empty(ids.shape[0], dtype=np.int32)
        seen.encode(read_only(keys.of(column, ids)), 0, ids.shape[0], found, frozen=False)
        if seen.size - before == ids.shape[0]:
            return None
        # Codes ascend in order of appearance: an id is new where its code is above all before.
        highest = np.maximum.accumulate(np.append(np.int32(before - 1), found))
        return np.asarray(found > highest[:-1])
