"""Samples sorted by buckets of labels, and the statistics of ranges of buckets, each the work of one thread."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from labeltrack._accumulate import ROW, Accumulator
from labeltrack._memory import spared_words
from labeltrack._threads import all_at_once

if TYPE_CHECKING:
    from collections.abc import Sequence

Array = npt.NDArray[Any]
Integers = npt.NDArray[np.int64]


class Sorted(NamedTuple):
    """Samples sorted by buckets of ``2**shift`` slots.

    Attributes:
        slots: ``(N,)`` int32.
        samples: ``(N,)`` float32 or float64.
        starts: ``(B + 1,)`` int64: where each bucket begins, and the end.
        shift: Binary logarithm of the slots a bucket.
    """

    slots: npt.NDArray[np.int32]
    samples: Array
    starts: Integers
    shift: int


class Ranges:
    """Statistics of ranges of slots, in one table, of which each thread has a part.

    Args:
        edges: The bucket that each range begins with, and the number of buckets.
        shift: Binary logarithm of the slots a bucket.
        size: Number of slots.

    Attributes:
        parts: The statistics of each range.
    """

    def __init__(self, edges: Sequence[int], shift: int, size: int) -> None:
        self._edges, self._shift, self._size = edges, shift, size
        self._memory = spared_words(size * ROW)
        self.parts = []
        for first, last in pairwise(edges):
            start, stop = first << shift, min(last << shift, size)
            self.parts.append(Accumulator(stop - start, self._memory[start * ROW : stop * ROW]))

    def suggest(self, samples: Array, total: int) -> None:
        """Choose units by some of `total` samples that are to come; see `Accumulator.suggest`."""
        for part in self.parts:
            part.suggest(samples, total * part.size // self._size)

    def add(self, samples: Sorted) -> None:
        """Add samples, each thread those of its range."""

        def add(part: Accumulator, first: int, last: int) -> None:
            starts = samples.starts[first : last + 1]
            start, stop, low = int(starts[0]), int(starts[-1]), first << self._shift
            part.add(samples.slots, samples.samples, start, stop, low=low, most=int(np.diff(starts).max()))

        all_at_once(add, self.parts, self._edges[:-1], self._edges[1:])

    def result(self) -> tuple[Integers, Accumulator]:
        """Return the slots that have samples, ascending, and their statistics. The ranges are used up."""

        def finish(part: Accumulator, first: int) -> Integers:
            used = part.occupied()
            part.release()
            part.keep(used)
            return used + (first << self._shift)

        found = all_at_once(finish, self.parts, self._edges[:-1])
        return np.concatenate(found), Accumulator.joined(self.parts, self._memory)
