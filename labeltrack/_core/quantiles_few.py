"""Exact quantiles of few labels with many samples each: most samples are only counted, not moved."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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
_ENOUGH = 8  # samples per counter; with fewer, clearing and searching the counters dominates
_MOST_SEGMENTS = (1 << 16) - 1
_LEAST_SPREAD = 8  # at most one in so many samples is copied
_RUNS, _RUN = 32, 128  # runs of neighbours that are sampled, and how many samples in each


def is_few(counts: Integers, fractions: Sequence[float]) -> bool:
    """Return whether slots with ``(K,)`` so many samples are few and have many each."""
    size = counts.shape[0]
    return (
        0 < size <= _MOST_LABELS
        and int(counts.sum()) >= _ENOUGH * size << _digit(size)
        and int(counts.max()) < 1 << 32
        and 2 * len(fractions) * size <= _MOST_SEGMENTS
    )


def _digit(size: int) -> int:
    return min(_DIGIT, _CELLS - size.bit_length())  # so that no slot has the last cell


def few_quantiles(
    pieces: Callable[[Share], Iterator[Any]],
    bits: Callable[[Share], Iterator[tuple[Array, int, int]]],
    shares: Sequence[Share],
    counts: Integers,
    extremes: tuple[Floats, Floats],
    dtype: np.dtype[Any],
    fractions: Floats,
) -> Floats | None:
    """Return quantiles of the samples of few slots, all of them finite.

    Samples are counted by their slot and their leading digit, which gives the cell of every order statistic. The cell
    of each sample is noted, two bytes each: a second pass reads these, three to seven times faster than computing them
    again, and copies the samples of wanted cells, about a per cent, in which the order statistics are selected.

    Args:
        pieces: Gives the `Piece`s of a share.
        bits: Gives the same samples again, in the same order: their bits, start, stop.
        shares: What each thread reads.
        counts: ``(K,)`` how many samples each slot has.
        extremes: ``(K,)`` smallest and largest sample of each slot.
        dtype: float32 or float64, of the samples.
        fractions: ``(Q,)`` from 0 to 1, ascending.

    Returns:
        ``(Q, K)`` as `labeltrack._core.quantiles.reduce_quantiles` does; None if too many samples lie close together.
    """
    module, selection = kernels.grouping, kernels.selection
    size, whole = counts.shape[0], np.dtype(f"i{dtype.itemsize}")
    rest = int(np.iinfo(whole).max)
    cells, share = _cells(extremes, counts, dtype, *_some(pieces, shares, dtype))
    if _LEAST_SPREAD * share * len(fractions) > 1.0:
        return None

    def count(share: Share) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint16]]:
        found = np.zeros(size << cells.digit, dtype=np.uint32)
        noted = np.empty(sum(stop - start for _, start, stop in share), dtype=np.uint16)
        reached = 0
        for piece in pieces(share):
            module.count_digits(piece, piece.bits.view(dtype), cells, found, noted, reached)
            reached += piece.stop - piece.start
        return found, noted

    counted = all_at_once(count, shares)
    of_threads = np.array([found for found, _ in counted])
    totals = of_threads.sum(axis=0, dtype=np.int64).reshape(size, -1)
    ranks, weights = np.empty((2, len(fractions), size), dtype=np.int64), np.empty((len(fractions), size))
    selection.neighbours(counts, fractions, ranks, weights)
    up_to = np.cumsum(totals, axis=1)
    # Another thread may change samples meanwhile, so that none are found where some were counted.
    last = np.maximum(up_to[:, -1] - 1, 0)
    ends = np.minimum(ranks, last)
    digits = np.stack([np.searchsorted(up_to[k], ends[..., k], "right") for k in range(size)], axis=-1)
    digits = np.minimum(digits, up_to.shape[1] - 1)  # of a slot without samples
    found_cells, segments = np.unique(digits + (np.arange(size) << cells.digit), return_inverse=True)
    segments = segments.reshape(ranks.shape)

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
        for some, start, stop in bits(share):
            module.keep_digits(some, start, stop, rest, noted, reached, wanted, places, kept)
            reached += stop - start

    all_at_once(keep, shares, [noted for _, noted in counted], list(stops - amounts))
    ranks -= (up_to - totals).ravel()[found_cells][segments]
    starts = np.concatenate([[0], stops[-1]])
    statistics = np.zeros(ranks.shape, dtype=whole)
    turns = Turns(range(found_cells.shape[0]))

    def select(_: int) -> None:
        for segment in turns:
            samples, here = kept[starts[segment] : starts[segment + 1]], segments == segment
            if samples.shape[0]:
                places = np.clip(ranks[here], 0, samples.shape[0] - 1)
                samples.partition(np.unique(places))
                statistics[here] = samples[places]

    all_at_once(select, range(len(shares)))
    out = np.empty(weights.shape)
    selection.between(_ordered(statistics).view(dtype), weights, out)
    out[:, counts == 0] = np.nan
    return out


def _some(
    pieces: Callable[[Share], Iterator[Any]], shares: Sequence[Share], dtype: np.dtype[Any]
) -> tuple[Integers, Array]:
    """Return the slots of some samples from all over them, and the samples.

    They are a few runs of neighbours, as each piece that is looked at takes some forty microseconds.
    """
    total = sum(stop - start for share in shares for _, start, stop in share)
    step = max(1, total // _RUNS)
    found: list[Integers] = []
    samples: list[Array] = []
    reached = following = 0
    for i, start, stop in (piece for share in shares for piece in share):
        while following < reached + stop - start:
            begin = start + following - reached
            for piece in pieces([(i, begin, min(stop, begin + min(step, _RUN)))]):
                places = piece.keys[piece.start : piece.stop].astype(np.int64) - piece.low
                inside = (places >= 0) & (places < (piece.slots.shape[0] or np.iinfo(np.int64).max))
                places = places[inside]
                places = piece.slots[places].astype(np.int64) if piece.slots.shape[0] else places
                found.append(places[places >= 0])
                samples.append(piece.bits.view(dtype)[piece.start : piece.stop][inside][places >= 0])
            following += step
        reached += stop - start
    return np.concatenate(found), np.concatenate(samples)


def _cells(
    extremes: tuple[Floats, Floats], counts: Integers, dtype: np.dtype[Any], slots: Integers, samples: Array
) -> tuple[Any, float]:
    """Return cells that samples spread over, and which part of a slot shares the cell of a sample, by some of them."""
    size, whole = counts.shape[0], f"i{dtype.itemsize}"
    slots, samples = slots[slots < size], samples[slots < size]
    low, high = (np.where(counts > 0, column, 0.0) for column in extremes)
    low = np.where(low == 0.0, -0.0, low)  # the smallest zero; extremes do not distinguish them
    bases, tops, ordered = (_ordered(some.astype(dtype).view(whole)).astype(np.int64) for some in (low, high, samples))
    spans = tops.view(np.uint64) - bases.view(np.uint64)
    digit = _digit(size)
    shifts = np.array([max(0, int(span).bit_length() - digit) for span in spans.tolist()], dtype=np.uint64)
    with np.errstate(over="ignore", divide="ignore"):
        widths = high - low
        scales = ((1 << digit) - 1) / widths
    scales[widths == 0.0] = 0.0
    digits = [((ordered.view(np.uint64) - bases[slots].view(np.uint64)) >> shifts[slots]).astype(np.int64)]
    if np.isfinite(scales).all() and np.isfinite(widths).all():
        digits.append(((samples.astype(np.float64) - low[slots]) * scales[slots]).astype(np.int64))
    shares = []
    for leading in digits:
        # How many samples share the cell of one of them, on average.
        _, alike = np.unique(slots << digit | leading, return_counts=True)
        shares.append(int((alike * (alike - 1)).sum()) / max(1, int((np.bincount(slots) ** 2).sum())))
    best = _best(shares)
    return kernels.grouping.Cells(best == 1, low, scales, bases, shifts, digit), shares[best]


def _best(shares: Sequence[float]) -> int:
    """Return which way spreads samples best."""
    return min(range(len(shares)), key=shares.__getitem__)


def _ordered(bits: Array) -> Array:
    """Return the bits of floats as integers of the same order, or these as the bits."""
    return np.where(bits < 0, bits ^ np.iinfo(bits.dtype).max, bits)
