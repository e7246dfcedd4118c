"""Many labels: samples are first sorted roughly by label, so that few rows are in use at a time and stay in caches."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from labeltrack._accumulate import ROW, Accumulator
from labeltrack._compiled import kernels, partition_kernels, read_only
from labeltrack._fixed import aligned_words
from labeltrack._threads import all_at_once, shares_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from labeltrack._threads import Share

Array = npt.NDArray[Any]
Integers = npt.NDArray[np.int64]
Chunk = tuple[Array, Array]

_BUCKET = 14  # binary logarithm of the labels a bucket, at least: rows of half a megabyte
_BUCKETS = 8  # binary logarithm of the number of buckets, at most
_ROUND = 1 << 23  # samples sorted at a time, and more where there are more labels
_HEAD = 1 << 12  # samples by which it is decided


def reduce_by_range(chunks: Sequence[Chunk], low: int, size: int, threads: int) -> tuple[Integers, Accumulator]:
    """Reduce samples of many labels, each thread those of a range of labels.

    Where rows are reached in random order, each sample takes as long as memory to answer: 14 ns for a million labels.
    Sorting samples by buckets of labels takes 2 ns, and adding them then 3 to 4. Tables of their own for all threads
    would be as many times as large, and have to be merged.

    Besides the rows it takes memory for the labels and the samples of a round: 8 or 12 bytes a sample, for eight
    million samples or twice as many as there are labels.

    Args:
        chunks: As `labeltrack._reduce.reduce_chunks` takes them.
        low: The smallest label.
        size: The largest label less the smallest, and one more.
        threads: How many threads share the work.

    Returns:
        ``(K,)`` labels that occurred, ascending, and their statistics.
    """
    shift = max(_BUCKET, (size >> _BUCKETS).bit_length())
    edges = _edges(chunks, low, shift, (size - 1 >> shift) + 1, threads)
    memory = aligned_words(size * ROW)
    parts = []
    for first, last in pairwise(edges):
        start, stop = first << shift, min(last << shift, size)
        parts.append(Accumulator(stop - start, memory[start * ROW : stop * ROW]))
    for dtype in sorted({samples.dtype for _, samples in chunks}, key=lambda dtype: dtype.itemsize):
        some = [chunk for chunk in chunks if chunk[1].dtype == dtype]
        if threads == 1 and _close(some, shift):
            for keys, samples in some:
                parts[0].add(keys, samples, low=low)
        else:
            _add_rounds(parts, edges, some, low, shift, threads)
    starts = [first << shift for first in edges[:-1]]

    def finish(part: Accumulator, start: int) -> Integers:
        used = part.occupied()
        part.release()
        part.keep(used)
        return used + (low + start)

    found = all_at_once(finish, parts, starts)
    return np.concatenate(found), Accumulator.joined(parts, memory)


def _some(chunks: Sequence[Chunk], column: int) -> Array:
    """Return some thousand labels or samples from all over the chunks."""
    step = max(1, sum(chunk[0].shape[0] for chunk in chunks) // _HEAD)
    return np.concatenate([chunk[column][::step] for chunk in chunks])


def _edges(chunks: Sequence[Chunk], low: int, shift: int, buckets: int, threads: int) -> list[int]:
    """Cut the buckets into ranges with about as many samples each; return where they begin, and the end."""
    some = (_some(chunks, 0).astype(np.int64) - low) >> shift
    counts = np.cumsum(np.bincount(some, minlength=buckets))
    inner = np.searchsorted(counts, [counts[-1] * t // threads for t in range(1, threads)]).tolist()
    return sorted({0, *inner, buckets})


def _close(chunks: Sequence[Chunk], shift: int) -> bool:
    """Return whether labels that follow one another mostly lie in one bucket anyway, such as sorted ones."""
    apart = seen = 0
    for keys, _ in chunks:
        step = max(1, keys.shape[0] * len(chunks) // _HEAD)
        here, following = keys[:-1:step].astype(np.int64), keys[1::step].astype(np.int64)
        apart += int(np.count_nonzero(here >> shift != following >> shift))
        seen += here.shape[0]
    return 4 * apart <= seen


def _add_rounds(
    parts: Sequence[Accumulator], edges: Sequence[int], chunks: Sequence[Chunk], low: int, shift: int, threads: int
) -> None:
    """Sort the samples of one dtype, a round at a time, and add them to the parts."""
    sizes = [keys.shape[0] for keys, _ in chunks]
    total, buckets = sum(sizes), edges[-1]
    some = _some(chunks, 1)
    for part in parts:
        part.suggest(some, total * part.size // (buckets << shift))
    shares = shares_of(sizes, threads * -(-total // max(_ROUND, 2 * buckets << shift)))
    room = max(_samples(shares[i : i + threads]) for i in range(0, len(shares), threads))
    slots, samples = np.empty(room, dtype=np.int32), np.empty(room, dtype=chunks[0][1].dtype)
    module = partition_kernels()
    kernels()  # import once, not in every thread

    def count(share: Share) -> Integers:
        counts = np.zeros(buckets, dtype=np.int64)
        for i, start, stop in share:
            module.count_buckets(read_only(chunks[i][0]), start, stop, low, shift, counts)
        return counts

    def sort(share: Share, places: Integers) -> None:
        for i, start, stop in share:
            keys, unsorted = (read_only(column) for column in chunks[i])
            module.sort_buckets(keys, unsorted, start, stop, low, shift, places, slots, samples)

    for turn in range(0, len(shares), threads):
        mine = shares[turn : turn + threads]
        counts = np.array(all_at_once(count, mine))
        # Each bucket holds the samples of all threads: the rows are gone through once.
        ends = np.cumsum(counts.T.ravel()).reshape(buckets, len(mine)).T
        all_at_once(sort, mine, list(ends - counts))
        starts = np.concatenate([[0], ends[-1]])

        def add(part: Accumulator, first: int, last: int, starts: Integers = starts) -> None:
            most = int(np.diff(starts[first : last + 1]).max())
            part.add(slots, samples, int(starts[first]), int(starts[last]), low=first << shift, most=most)

        all_at_once(add, parts, edges[:-1], edges[1:])


def _samples(shares: Sequence[Share]) -> int:
    """Return how many samples shares are."""
    return sum(stop - start for share in shares for _, start, stop in share)
