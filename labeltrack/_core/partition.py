"""Many labels: samples are first sorted roughly by label, so that few rows are in use at a time and stay in caches.

The samples of a range of labels are the work of one thread.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from labeltrack._core import kernels
from labeltrack._core.accumulator import Accumulator
from labeltrack._core.arrays import aligned_words, read_only
from labeltrack._core.kernels import ROW
from labeltrack._core.threads import all_at_once, shares_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from labeltrack._core.threads import Share

Array = npt.NDArray[Any]
Integers = npt.NDArray[np.int64]
Chunk = tuple[Array, Array]

_BUCKET = 14  # binary logarithm of the labels a bucket, at least: rows of half a megabyte
_BUCKETS = 8  # binary logarithm of the number of buckets, at most
_ROUND = 1 << 23  # samples sorted at a time, and more where there are more labels
_HEAD = 1 << 12  # samples by which it is decided


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
        self._memory = aligned_words(size * ROW)
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


def reduce_by_range(chunks: Sequence[Chunk], low: int, size: int, threads: int) -> tuple[Integers, Accumulator]:
    """Reduce samples of many labels, each thread those of a range of labels.

    Where rows are reached in random order, each sample takes as long as memory to answer: 14 ns for a million labels.
    Sorting samples by buckets of labels takes 2 ns, and adding them then 3 to 4. Tables of their own for all threads
    would be as many times as large, and have to be merged.

    Besides the rows it takes memory for the labels and the samples of a round: 8 or 12 bytes a sample, for eight
    million samples or twice as many as there are labels.

    Args:
        chunks: As `labeltrack._core.reduce.reduce_chunks` takes them.
        low: The smallest label.
        size: The largest label less the smallest, and one more.
        threads: How many threads share the work.

    Returns:
        ``(K,)`` labels that occurred, ascending, and their statistics.
    """
    shift = max(_BUCKET, (size >> _BUCKETS).bit_length())
    buckets = (size - 1 >> shift) + 1
    kinds = sorted({samples.dtype for _, samples in chunks}, key=lambda dtype: dtype.itemsize)
    some = [[chunk for chunk in chunks if chunk[1].dtype == dtype] for dtype in kinds]
    close = [threads == 1 and _close(alike, shift) for alike in some]
    ranges = Ranges(_edges(chunks, low, shift, buckets, threads), shift, size)
    for alike, near in zip(some, close, strict=True):
        if near:
            for keys, samples in alike:
                ranges.parts[0].add(keys, samples, low=low)
            continue
        ranges.suggest(_some(alike, 1), sum(keys.shape[0] for keys, _ in alike))
        for sorted_ones in _rounds(alike, low, shift, buckets, threads):
            ranges.add(sorted_ones)
            del sorted_ones  # a fifth of all the memory, which is not wanted any more when rows are finished
    slots, accumulator = ranges.result()
    return slots + low, accumulator


def _some(chunks: Sequence[Chunk], column: int) -> Array:
    """Return some thousand labels or samples from all over the chunks."""
    step = max(1, sum(chunk[0].shape[0] for chunk in chunks) // _HEAD)
    return np.concatenate([chunk[column][::step] for chunk in chunks])


def _edges(chunks: Sequence[Chunk], low: int, shift: int, buckets: int, threads: int) -> list[int]:
    """Cut the buckets into ranges with about as many samples each; return where they begin, and the end."""
    some = np.clip((_some(chunks, 0).astype(np.int64) - low) >> shift, 0, buckets - 1)  # labels may change meanwhile
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


def _round(slots: int) -> int:
    """Return how many samples are sorted at a time."""
    return max(_ROUND, 2 * slots)


def _rounds(chunks: Sequence[Chunk], low: int, shift: int, buckets: int, threads: int) -> Iterator[Sorted]:
    """Sort the samples of chunks of one dtype, a round at a time; each round overwrites the one before."""
    sizes = [keys.shape[0] for keys, _ in chunks]
    shares = shares_of(sizes, threads * -(-sum(sizes) // _round(buckets << shift)))
    room = max(_samples(shares[i : i + threads]) for i in range(0, len(shares), threads))
    slots, samples = np.empty(room, dtype=np.int32), np.empty(room, dtype=chunks[0][1].dtype)
    module = kernels.partition
    _ = kernels.rows  # load numba once, not in every thread

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
        stop = int(ends[-1, -1])
        yield Sorted(slots[:stop], samples[:stop], np.concatenate([[0], ends[-1]]), shift)


def _samples(shares: Sequence[Share]) -> int:
    """Return how many samples shares are."""
    return sum(stop - start for share in shares for _, start, stop in share)
