"""Exact quantiles of few labels, of many samples each: what lies far from every quantile is counted and not moved."""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from labeltrack._compiled import quantile_kernels
from labeltrack._threads import all_at_once

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from labeltrack._threads import Share

Array = npt.NDArray[Any]
Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

_MOST_LABELS = 32  # with 100, sorting all takes as long
_CELLS = 16  # binary logarithm of the counters of all labels: 256 KiB, which stay in the second-level cache
_DIGIT = 11  # binary logarithm of those of one label, at most
_ENOUGH = 8  # samples a counter; with fewer, clearing and searching the counters takes longest
_MOST_SEGMENTS = (1 << 16) - 1


class _Cells(NamedTuple):
    """How samples become digits: the integer of a sample, less that of the smallest, shifted.

    Attributes:
        bases: ``(K,)`` integer of the smallest sample of each slot.
        shifts: ``(K,)`` uint64.
        digit: Binary logarithm of the digits of a slot.
    """

    bases: Integers
    shifts: npt.NDArray[np.uint64]
    digit: int


class Neighbours(NamedTuple):
    """The order statistics that quantiles are made of.

    Attributes:
        below: ``(Q, K)`` int64 ranks of those below the quantiles.
        above: ``(Q, K)`` int64 ranks of those above.
        weight: ``(Q, K)`` weights of those above.
    """

    below: Integers
    above: Integers
    weight: Floats


def is_few(counts: Integers, fractions: Sequence[float]) -> bool:
    """Return whether slots are few and have many samples each.

    Args:
        counts: ``(K,)`` samples of each slot.
        fractions: ``(Q,)``.
    """
    size = counts.shape[0]
    return (
        0 < size <= _MOST_LABELS
        and int(counts.sum()) >= _ENOUGH * size << _digit(size)
        and int(counts.max()) < 1 << 32
        and 2 * len(fractions) * size <= _MOST_SEGMENTS
    )


def _digit(size: int) -> int:
    return min(_DIGIT, _CELLS - (size - 1).bit_length())


def few_quantiles(
    pieces: Callable[[Share], Iterator[tuple[Any, ...]]],
    shares: Sequence[Share],
    counts: Integers,
    extremes: tuple[Floats, Floats],
    dtype: np.dtype[Any],
    fractions: Floats,
) -> Floats:
    """Return quantiles of the samples of few slots, all of them finite.

    Samples are counted by their slot and their leading digits, which says for every order statistic in which cell it
    is. A second pass copies the samples of those cells, a per cent of all or so, of which it is selected.

    Args:
        pieces: Gives what kernels take of a share: keys, bits, start, stop, the key of the first slot, and slots.
        shares: What each thread reads.
        counts: ``(K,)`` how many samples each slot has.
        extremes: ``(K,)`` smallest and largest sample of each slot.
        dtype: float32 or float64, of the samples.
        fractions: ``(Q,)`` from 0 to 1, ascending.

    Returns:
        ``(Q, K)`` as `labeltrack._quantile.reduce_quantiles` does.
    """
    module = quantile_kernels()
    size, whole = counts.shape[0], np.dtype(f"i{dtype.itemsize}")
    rest = int(np.iinfo(whole).max)
    cells = _cells(extremes, counts, dtype, rest)

    def count(share: Share) -> npt.NDArray[np.uint32]:
        found = np.zeros(size << cells.digit, dtype=np.uint32)
        for piece in pieces(share):
            module.count_digits(*piece, rest, *cells, found)
        return found

    of_threads = np.array(all_at_once(count, shares))
    totals = of_threads.sum(axis=0, dtype=np.int64).reshape(size, -1)
    neighbours = _neighbours(counts, fractions)
    ranks = np.concatenate([neighbours.below, neighbours.above])
    up_to = np.cumsum(totals, axis=1)
    # Should somebody change samples meanwhile, none may be found where it was counted.
    last = np.maximum(up_to[:, -1] - 1, 0)
    digits = np.array([np.searchsorted(up_to[k], np.minimum(ranks[:, k], last[k]), "right") for k in range(size)])
    places = digits + (np.arange(size)[:, None] << cells.digit)
    found_cells, segment = np.unique(places, return_inverse=True)
    segment = segment.reshape(places.shape)

    # Where the samples of each cell go: those of each thread side by side.
    amounts = of_threads[:, found_cells].astype(np.int64)
    stops = np.cumsum(amounts.T.ravel()).reshape(found_cells.shape[0], len(shares)).T
    wanted = np.zeros(size << cells.digit, dtype=np.uint16)
    wanted[found_cells] = np.arange(1, found_cells.shape[0] + 1)
    kept = np.empty(int(stops[-1, -1]), dtype=whole)

    def keep(share: Share, begin: Integers, end: Integers) -> None:
        begin = begin.copy()
        for piece in pieces(share):
            module.keep_digits(*piece, rest, *cells, wanted, begin, end, kept)

    all_at_once(keep, shares, list(stops - amounts), list(stops))
    before = (up_to - totals).ravel()[found_cells]
    statistics = _selected(kept, np.concatenate([[0], stops[-1]]), segment.T, ranks - before[segment].T, len(shares))
    below, above = np.split(_floats(statistics, rest, dtype).astype(np.float64), 2)
    step = above - below
    weight = neighbours.weight
    found: Floats = np.where(weight >= 0.5, above - step * (1.0 - weight), below + step * weight)
    found[:, counts == 0] = np.nan
    return found


def _cells(extremes: tuple[Floats, Floats], counts: Integers, dtype: np.dtype[Any], rest: int) -> _Cells:
    """Return cells that the samples of each slot spread over."""
    low, high = (np.where(counts > 0, column, 0.0) for column in extremes)
    low = np.where(low == 0.0, -0.0, low)  # the smallest zero; extremes do not tell them apart
    bases, tops = (
        (bits ^ (bits >> 63 & rest))
        for bits in (column.astype(dtype).view(f"i{dtype.itemsize}").astype(np.int64) for column in (low, high))
    )
    spans = tops.view(np.uint64) - bases.view(np.uint64)
    digit = _digit(counts.shape[0])
    shifts = [max(0, int(span).bit_length() - digit) for span in spans.tolist()]
    return _Cells(bases, np.array(shifts, dtype=np.uint64), digit)


def _floats(integers: Integers, rest: int, dtype: np.dtype[Any]) -> Array:
    """Return the floats of integers of the same order."""
    bits = integers ^ (integers >> 63 & rest)
    floats: Array = bits.astype(f"i{dtype.itemsize}").view(dtype)
    return floats


def _neighbours(counts: Integers, fractions: Floats) -> Neighbours:
    """Return the ranks beside each quantile, in the steps of numpy; see `select_quantiles`."""
    last = np.maximum(counts - 1, 0)
    virtual = last.astype(np.float64) * fractions[:, None]
    top = virtual >= last
    below = np.where(top, last, np.floor(virtual).astype(np.int64))
    # As numpy has it at the top, which takes rank -1.
    return Neighbours(below, np.where(top, last, below + 1), np.where(top, virtual + 1.0, virtual - below))


def _selected(kept: Array, starts: Integers, segments: Integers, ranks: Integers, threads: int) -> Integers:
    """Return order statistics of segments.

    Args:
        kept: Samples as integers, segment by segment.
        starts: ``(S + 1,)`` where each segment starts, and the last ends.
        segments: ``(M, K)`` the segment that each is of.
        ranks: ``(M, K)`` which it is there.
        threads: How many share the work.
    """
    found = np.zeros(segments.shape, dtype=np.int64)
    turns = iter(range(starts.shape[0] - 1))
    turn = Lock()

    def some(_: int) -> None:
        while True:
            with turn:
                segment = next(turns, None)
            if segment is None:
                break
            samples = kept[starts[segment] : starts[segment + 1]]
            here = segments == segment
            wanted = np.clip(ranks[here], 0, max(0, samples.shape[0] - 1))
            if samples.shape[0]:
                samples.partition(np.unique(wanted))
                found[here] = samples[wanted]

    all_at_once(some, range(threads))
    return found
