"""Which samples are the first of their id in an epoch and dataset, in the order in which they were recorded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from labeltrack._core.arrays import read_only
from labeltrack._core.hash_index import Hash

if TYPE_CHECKING:
    from labeltrack.recording.reader import Column
    from labeltrack.recording.words import Words

Integers = npt.NDArray[np.int64]


class Distinct:
    """Finds the first sample of each id among batches that come one after the other."""

    def __init__(self) -> None:
        self._seen: dict[bool, Hash] = {}  # of ids that are text, and of those that are integers
        self._words: dict[int, tuple[Words, Integers | None]] = {}  # vocabularies, and what their codes are here
        self._codes: dict[Any, int] = {}  # of words, once there are several vocabularies

    def first(self, ids: Integers, column: Column) -> npt.NDArray[np.bool_] | None:
        """Return which of ``(N,)`` ids did not occur before; None if all of them."""
        if column.words is not None:
            codes = self._translated(column.words)
            ids = ids if codes is None else codes[ids]
        seen = self._seen.setdefault(column.words is not None, Hash(np.empty(0, dtype=np.int64)))
        before, found = seen.size, np.empty(ids.shape[0], dtype=np.int32)
        seen.encode(read_only(ids), 0, ids.shape[0], found, frozen=False)
        if seen.size - before == ids.shape[0]:
            return None
        # Codes ascend in order of appearance: an id is new where its code is above all before.
        highest = np.maximum.accumulate(np.append(np.int32(before - 1), found))
        return np.asarray(found > highest[:-1])

    def _translated(self, words: Words) -> Integers | None:
        """Return what the codes of a vocabulary are among those of all; None if they are the same."""
        if id(words) not in self._words:
            if self._words and not self._codes:
                (first, _) = next(iter(self._words.values()))
                self._codes = {word: code for code, word in enumerate(first.array.tolist())}
            codes = [self._codes.setdefault(word, len(self._codes)) for word in words.array.tolist() if self._words]
            self._words[id(words)] = words, np.array(codes, dtype=np.int64) if self._words else None
        return self._words[id(words)][1]
