"""The samples of each slot, side by side, and their order statistics."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from labeltrack._compiled import quantile_kernels, selection_kernels
from labeltrack._threads import Turns, all_at_once

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from labeltrack._threads import Share

Array = npt.NDArray[Any]
Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

_RANGES_A_THREAD = 4  # so that threads end at about the same time, however the samples lie


class Bits:
    """How kernels have samples: as signed integers of the same order.

    Args:
        dtype: float32 or float64.

    Attributes:
        dtype: See there.
        whole: Dtype of the integers.
        infinity: Bits of positive infinity.
        rest: All bits but the sign.
    """

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self.dtype = dtype
        self.whole = np.dtype(f"i{dtype.itemsize}")
        self.infinity = int(np.array(np.inf, dtype).view(self.whole))
        self.rest = int(np.iinfo(self.whole).max)


def starts_of(counts: Integers) -> Integers:
    """Return where groups of so many samples start, and where the last one ends."""
    starts = np.zeros(counts.shape[0] + 1, dtype=np.int64)
    np.cumsum(counts, out=starts[1:])
    return starts


def places_of(
    starts: Integers, shares: Sequence[Share], count: Callable[[Share], Integers]
) -> tuple[list[Integers], list[int]]:
    """Return where each thread is to write its first sample of each group, and in which direction it goes on.

    Args:
        starts: From `starts_of`.
        shares: The samples of each thread.
        count: Counts how many of a share are of each group.
    """
    places, steps = [starts[:-1].copy() for _ in shares], [1] * len(shares)
    if len(shares) == 2:
        # Two threads need not know how many samples of a group the other has: one begins at its end.
        places[1], steps[1] = starts[1:] - 1, -1
    elif len(shares) > 2:
        for before, number, place in zip(places, all_at_once(count, shares), places[1:], strict=False):
            place[:] = before + number
    return places, steps


def count_samples(pieces: Iterator[tuple[Any, ...]], bits: Bits, size: int) -> Integers:
    """Return how many of some samples each of so many slots has."""
    counts = np.zeros(size, dtype=np.int64)
    for piece in pieces:
        quantile_kernels().count_groups(*piece, bits.infinity, bits.rest, counts)
    return counts


class Selector:
    """Selects order statistics, with scratch memory of its own: one for each thread.

    Args:
        bits: How samples are given.
        fractions: ``(Q,)``, ascending.
        out: ``(Q, K)``, written to.
    """

    def __init__(self, bits: Bits, fractions: Floats, out: Floats) -> None:
        self._module = module = selection_kernels()
        q = fractions.shape[0]
        line = np.empty(module.SMALL, dtype=bits.whole)
        self._rest = (
            fractions,
            bits.rest,
            np.empty(1 << module.DIGIT, dtype=np.int64),
            np.empty(1 << module.DIGIT, dtype=np.uint8),
            line,
            np.empty(module.SMALL, dtype=np.uint32),
            line.view(bits.dtype),
            *np.empty((2, module.SMALL), dtype=np.uint16),
            np.empty(module.SMALL + 1, dtype=np.uint8),
            np.empty((2 * q, 6), dtype=np.int64),
            *np.empty((2, 2 * q), dtype=np.int64),
            out,
        )

    def select(self, groups: Array, starts: Integers, first: int, last: int, base: int, room: int) -> None:
        """Write the quantiles of the slots from `first` to before `last`.

        Args:
            groups: Samples of slots, side by side, which are moved about; and room.
            starts: ``(K + 1,)`` where the samples of each slot start.
            first: First slot.
            last: One past the last.
            base: Which of these is the first one of `groups`.
            room: Where in `groups` there is room for as many as the largest of these slots has.
        """
        self._module.select_quantiles(groups, starts, first, last, base, room, *self._rest)


class Groups:
    """The samples of each slot, side by side.

    Args:
        counts: ``(K,)`` how many each has.
        dtype: float32 or float64.
        threads: How many threads will select.
    """

    def __init__(self, counts: Integers, dtype: np.dtype[Any], threads: int) -> None:
        self._bits = Bits(dtype)
        self._starts = starts_of(counts)
        total = int(self._starts[-1])
        ranges = _RANGES_A_THREAD * threads if threads > 1 else 1
        edges = np.searchsorted(self._starts, [total * r // ranges for r in range(1, ranges)]).tolist()
        self._edges = sorted({0, *edges, counts.shape[0]})
        # Room for the largest group of each range, of which little is written to and takes memory.
        largest = [int(counts[a:b].max()) for a, b in pairwise(self._edges)]
        self._rooms = (total + np.cumsum([0, *largest[:-1]])).tolist()
        self._groups = np.empty(total + sum(largest), dtype=self._bits.whole)

    def fill(self, pieces: Callable[[Share], Iterator[tuple[Any, ...]]], shares: Sequence[Share]) -> None:
        """Sort the samples into their groups.

        Args:
            pieces: Gives what kernels take of some samples: keys, bits, start, stop, the key of the first slot, slots.
            shares: The samples of each thread.
        """
        bits, size = self._bits, self._starts.shape[0] - 1
        places, steps = places_of(self._starts, shares, lambda share: count_samples(pieces(share), bits, size))

        def fill(share: Share, place: Integers, step: int) -> None:
            for piece in pieces(share):
                quantile_kernels().fill_groups(*piece, bits.infinity, bits.rest, place, step, self._groups)

        all_at_once(fill, shares, places, steps)

    def select(self, fractions: Floats, out: Floats, threads: int) -> None:
        """Compute the quantiles of the groups."""
        turns = Turns(zip(self._edges[:-1], self._edges[1:], self._rooms, strict=True))

        def some(_: int) -> None:
            selector = Selector(self._bits, fractions, out)
            for first, last, room in turns:
                selector.select(self._groups, self._starts, first, last, 0, room)

        all_at_once(some, range(threads))
