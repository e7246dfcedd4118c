"""Quantiles of many labels: samples are first sorted by buckets of labels, then bucket by bucket in the cache."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from labeltrack._compiled import quantile_kernels
from labeltrack._quantile_groups import Bits, Selector, count_samples, places_of, starts_of
from labeltrack._threads import Turns, all_at_once

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from labeltrack._threads import Share

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

_LEAST = 1 << 15  # slots
_BUCKETS = 1 << 7  # at most: the number of a bucket is a byte, and 256 take a seventh longer with 100 000 labels
_SAMPLES = 1 << 15  # of a bucket, at least
_LARGEST = 1 << 16  # slots of a bucket, which two bytes tell apart


def are_many(counts: Integers) -> bool:
    """Return whether there are so many slots that samples may be better sorted in two steps."""
    return bool(counts.shape[0] >= _LEAST)


def many_quantiles(
    pieces: Callable[[Share], Iterator[tuple[Any, ...]]],
    shares: Sequence[Share],
    counts: Integers,
    dtype: np.dtype[Any],
    fractions: Floats,
    out: Floats,
) -> bool:
    """Compute quantiles by sorting in two steps, unless slots or samples are too unevenly spread; return whether so.

    It takes memory for the samples and two bytes each, and once more in all threads together at most: labels with a
    good part of the samples, which would be held twice, are not for this way.

    Args:
        pieces: Gives what kernels take of some samples: keys, bits, start, stop, the key of the first slot, slots.
        shares: The samples of each thread.
        counts: ``(K,)`` how many samples each slot has, without NaN.
        dtype: float32 or float64.
        fractions: ``(Q,)``, ascending.
        out: ``(Q, K)``, written to.
    """
    bits, module = Bits(dtype), quantile_kernels()
    starts = starts_of(counts)
    total = int(starts[-1])
    edges = _edges(starts)
    room = int(np.diff(starts[edges]).max() + counts.max())
    if int(np.diff(edges).max()) > _LARGEST or room * len(shares) > total:
        return False
    buckets = np.repeat(np.arange(edges.shape[0] - 1, dtype=np.uint8), np.diff(edges))
    slots, samples = np.empty(total, dtype=np.uint16), np.empty(total, dtype=bits.whole)

    def count(share: Share) -> Integers:
        return np.add.reduceat(count_samples(pieces(share), bits, counts.shape[0]), edges[:-1])

    def sort(share: Share, place: Integers, step: int) -> None:
        for piece in pieces(share):
            module.sort_groups(*piece, bits.infinity, bits.rest, buckets, place, step, slots, samples)

    all_at_once(sort, shares, *places_of(starts[edges], shares, count))
    turns = Turns(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True))

    def select(_: Share) -> None:
        selector = Selector(bits, fractions, out)
        groups = np.empty(room, dtype=bits.whole)
        for first, last in turns:
            start, stop = int(starts[first]), int(starts[last])
            module.fill_bucket(slots, samples, start, stop, first, starts[first:last] - start, groups)
            selector.select(groups, starts, first, last, start, stop - start)

    all_at_once(select, shares)
    return True


def _edges(starts: Integers) -> Integers:
    """Return where buckets with about as many samples each begin, and the end."""
    total, size = int(starts[-1]), starts.shape[0] - 1
    buckets = min(_BUCKETS, max(1, total // _SAMPLES))
    edges: Integers = np.unique([0, *np.searchsorted(starts, [total * b // buckets for b in range(1, buckets)]), size])
    return edges
