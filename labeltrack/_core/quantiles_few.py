"""Exact quantiles of few labels, of many samples each: what lies far from every quantile is counted and not moved."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from labeltrack._core import kernels
from labeltrack._core.threads import Turns, all_at_once

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from labeltrack._core.threads import Share

Array = npt.NDArray[Any]
Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

_MOST_LABELS = 64  # with 100, sorting all float32 takes less: 36 instead of 48 ms for ten million
_CELLS = 16  # binary logarithm of the counters of all labels: 256 KiB, which stay in the second-level cache
_DIGIT = 11  # binary logarithm of those of one label, at most
_ENOUGH = 8  # samples a counter; with fewer, clearing and searching the counters takes longest
_MOST_SEGMENTS = (1 << 16) - 1
_LEAST_SPREAD = 8  # at most one in so many samples is copied
_RUNS, _RUN = 32, 128  # samples by which it is decided: how many runs of neighbours, and how many in each


class _Cells(NamedTuple):
    """How samples become digits, by their value or by their bits.

    By value, they are differences from the smallest sample, scaled. By bits, which suits samples of many magnitudes,
    they are the integer of a sample, less that of the smallest, shifted.

    Attributes:
        linear: Whether it is by value.
        lows: ``(K,)`` smallest sample of each slot.
        scales: ``(K,)`` float64.
        bases: ``(K,)`` integer of the smallest sample of each slot.
        shifts: ``(K,)`` uint64.
        digit: Binary logarithm of the digits of a slot.
    """

    linear: bool
    lows: Floats
    scales: Floats
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
    return min(_DIGIT, _CELLS - size.bit_length())  # so that the last cell is of no slot


def few_quantiles(
    pieces: Callable[[Share], Iterator[tuple[Any, ...]]],
    samples: Callable[[Share], Iterator[tuple[Any, ...]]],
    shares: Sequence[Share],
    counts: Integers,
    extremes: tuple[Floats, Floats],
    dtype: np.dtype[Any],
    fractions: Floats,
) -> Floats | None:
    """Return quantiles of the samples of few slots, all of them finite.

    Samples are counted by their slot and their leading digit, which says for every order statistic in which cell it
    is. The cell of each sample is noted, two bytes each, which a second pass looks through: it takes a third to a
    seventh of the time that it takes to compute them again. It copies the samples of the cells that are wanted, a per
    cent of all or so, of which it is selected.

    Args:
        pieces: Gives what kernels take of a share: keys, samples, their bits, start, stop, the key of the first slot,
            and slots.
        samples: Gives what is read again of a share, in the same order: bits of samples, start, stop.
        shares: What each thread reads.
        counts: ``(K,)`` how many samples each slot has.
        extremes: ``(K,)`` smallest and largest sample of each slot.
        dtype: float32 or float64, of the samples.
        fractions: ``(Q,)`` from 0 to 1, ascending.

    Returns:
        ``(Q, K)`` as `labeltrack._core.quantiles.reduce_quantiles` does; None if too many samples lie close together.
    """
    module = kernels.grouping
    size, whole = counts.shape[0], np.dtype(f"i{dtype.itemsize}")
    rest = int(np.iinfo(whole).max)
    cells, share = _cells(extremes, counts, dtype, rest, *_some(pieces, shares))
    if _LEAST_SPREAD * share * len(fractions) > 1.0:
        return None

    def count(share: Share) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint16]]:
        found = np.zeros(size << cells.digit, dtype=np.uint32)
        noted = np.empty(sum(stop - start for _, start, stop in share), dtype=np.uint16)
        reached = 0
        for piece in pieces(share):
            module.count_digits(*piece, rest, *cells, found, noted, reached)
            reached += piece[4] - piece[3]
        return found, noted

    counted = all_at_once(count, shares)
    of_threads = np.array([found for found, _ in counted])
    totals = of_threads.sum(axis=0, dtype=np.int64).reshape(size, -1)
    neighbours = _neighbours(counts, fractions)
    ranks = np.concatenate([neighbours.below, neighbours.above])
    up_to = np.cumsum(totals, axis=1)
    # Should somebody change samples meanwhile, none may be found where it was counted.
    last = np.maximum(up_to[:, -1] - 1, 0)
    digits = np.array([np.searchsorted(up_to[k], np.minimum(ranks[:, k], last[k]), "right") for k in range(size)])
    digits = np.minimum(digits, up_to.shape[1] - 1)  # of a slot without samples
    places = digits + (np.arange(size)[:, None] << cells.digit)
    found_cells, segment = np.unique(places, return_inverse=True)
    segment = segment.reshape(places.shape)

    # Where the samples of each cell go: those of each thread side by side.
    amounts = of_threads[:, found_cells].astype(np.int64)
    if int(amounts.sum()) * _LEAST_SPREAD > int(counts.sum()):
        return None
    stops = np.ascontiguousarray(np.cumsum(amounts.T.ravel()).reshape(found_cells.shape[0], len(shares)).T)
    wanted = np.zeros(module.NOWHERE + 1, dtype=np.uint16)
    wanted[found_cells] = np.arange(1, found_cells.shape[0] + 1)
    kept = np.empty(int(stops[-1, -1]), dtype=whole)

    def keep(share: Share, noted: npt.NDArray[np.uint16], begin: Integers) -> None:
        places, reached = begin.copy(), 0
        for bits, start, stop in samples(share):
            module.keep_digits(bits, start, stop, rest, noted, reached, wanted, places, kept)
            reached += stop - start

    all_at_once(keep, shares, [noted for _, noted in counted], list(stops - amounts))
    before = (up_to - totals).ravel()[found_cells]
    statistics = _selected(kept, np.concatenate([[0], stops[-1]]), segment.T, ranks - before[segment].T, len(shares))
    below, above = np.split(_floats(statistics, rest, dtype).astype(np.float64), 2)
    weight = neighbours.weight
    with np.errstate(over="ignore"):  # silent, as compiled code is; samples are halved where their difference overflows
        scale = np.where(np.isinf(above - below), 0.5, 1.0)
    below, above = below * scale, above * scale
    step = above - below
    found: Floats = np.where(weight >= 0.5, above - step * (1.0 - weight), below + step * weight) / scale
    found[:, counts == 0] = np.nan
    return found


def _some(
    pieces: Callable[[Share], Iterator[tuple[Any, ...]]], shares: Sequence[Share]
) -> tuple[Integers, Floats, Integers]:
    """Return the slots of some samples from all over them, the samples, and their bits.

    They are a few runs of neighbours, as each piece that is looked at takes some forty microseconds.
    """
    total = sum(stop - start for share in shares for _, start, stop in share)
    step = max(1, total // _RUNS)
    columns: tuple[list[Array], ...] = [], [], []
    reached = following = 0
    for i, start, stop in (piece for share in shares for piece in share):
        while following < reached + stop - start:
            begin = start + following - reached
            for keys, samples, bits, first, last, low, slots in pieces(
                [(i, begin, min(stop, begin + min(step, _RUN)))]
            ):
                places = keys[first:last].astype(np.int64) - low
                inside = (places >= 0) & (places < (slots.shape[0] or np.iinfo(np.int64).max))
                places = places[inside]
                places = slots[places].astype(np.int64) if slots.shape[0] else places
                kept = places >= 0
                columns[0].append(places[kept])
                columns[1].append(samples[first:last][inside][kept].astype(np.float64))
                columns[2].append(bits[first:last][inside][kept].astype(np.int64))
            following += step
        reached += stop - start
    found, samples, bits = (np.concatenate(column) for column in columns)
    return found, samples, bits


def _cells(
    extremes: tuple[Floats, Floats],
    counts: Integers,
    dtype: np.dtype[Any],
    rest: int,
    slots: Integers,
    samples: Floats,
    bits: Integers,
) -> tuple[_Cells, float]:
    """Return cells that samples spread over, and which part of a slot shares the cell of a sample, by some of them."""
    size = counts.shape[0]
    known = slots < size
    slots, samples, bits = slots[known], samples[known], bits[known]
    low, high = (np.where(counts > 0, column, 0.0) for column in extremes)
    low = np.where(low == 0.0, -0.0, low)  # the smallest zero; extremes do not tell them apart
    ends = (column.astype(dtype).view(f"i{dtype.itemsize}").astype(np.int64) for column in (low, high))
    bases, tops = (_ordered(end, rest) for end in ends)
    spans = tops.view(np.uint64) - bases.view(np.uint64)
    digit = _digit(size)
    shifts = np.array([max(0, int(span).bit_length() - digit) for span in spans.tolist()], dtype=np.uint64)
    with np.errstate(over="ignore", divide="ignore"):
        widths = high - low
        scales = ((1 << digit) - 1) / widths
    scales[widths == 0.0] = 0.0
    linear = bool(np.isfinite(scales).all() and np.isfinite(widths).all())
    ways = [_Cells(False, low, scales, bases, shifts, digit)]
    if linear:
        ways.append(_Cells(True, low, scales, bases, shifts, digit))
    shares = []
    for way in ways:
        if way.linear:
            leading = ((samples - low[slots]) * scales[slots]).astype(np.int64)
        else:
            from_base = _ordered(bits, rest).view(np.uint64) - bases[slots].view(np.uint64)
            leading = (from_base >> shifts[slots]).astype(np.int64)
        # How many samples share the cell of one of them, in the mean.
        _, alike = np.unique(slots << digit | leading, return_counts=True)
        shares.append(int((alike * (alike - 1)).sum()) / max(1, int((np.bincount(slots) ** 2).sum())))
    best = _best(shares)
    return ways[best], shares[best]


def _best(shares: Sequence[float]) -> int:
    """Return which way spreads samples best."""
    return min(range(len(shares)), key=shares.__getitem__)


def _ordered(bits: Integers, rest: int) -> Integers:
    """Return the bits of floats as integers of the same order."""
    return bits ^ (bits >> 63 & rest)


def _floats(integers: Integers, rest: int, dtype: np.dtype[Any]) -> Array:
    """Return the floats of integers of the same order."""
    floats: Array = _ordered(integers, rest).astype(f"i{dtype.itemsize}").view(dtype)
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
    turns = Turns(range(starts.shape[0] - 1))

    def some(_: int) -> None:
        for segment in turns:
            samples = kept[starts[segment] : starts[segment + 1]]
            here = segments == segment
            wanted = np.clip(ranks[here], 0, max(0, samples.shape[0] - 1))
            if samples.shape[0]:
                samples.partition(np.unique(wanted))
                found[here] = samples[wanted]

    all_at_once(some, range(threads))
    return found
