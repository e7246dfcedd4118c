"""Many labels: samples are first sorted by buckets of labels, whose rows fit the caches; each thread adds a range."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from labeltrack._core import kernels
from labeltrack._core.accumulator import Accumulator
from labeltrack._core.arrays import Array, Codes, Integers, aligned_words, read_only
from labeltrack._core.kernels import ROW
from labeltrack._core.threads import Share, all_at_once, shares_of

Chunk = tuple[Array, Array]

_BUCKET = 14  # binary logarithm of the fewest labels per bucket: rows of half a megabyte
_BUCKETS = 8  # binary logarithm of the most buckets
_ROUND = 1 << 23  # samples sorted at a time; more if there are more labels
_HEAD = 1 << 12  # samples that are looked at to decide how to proceed


class Sorted(NamedTuple):
    """``(N,)`` samples sorted by buckets of ``2**shift`` slots."""

    slots: Codes
    samples: Array
    starts: Integers  # ``(B + 1,)``: where each bucket begins, and the end


class Ranges:
    """Statistics of ranges of labels in one block of memory, one per thread, by their first buckets and the end."""

    def __init__(self, edges: Sequence[int], shift: int, low: int, size: int) -> None:
        self._edges, self._shift, self._low, self._size = edges, shift, low, size
        self._memory = aligned_words(size * ROW)
        slots = pairwise(min(edge << shift, size) for edge in edges)
        self._parts = [Accumulator(stop - start, self._memory[start * ROW : stop * ROW]) for start, stop in slots]

    def suggest(self, samples: Array, total: int) -> None:
        """Choose fixed-point units by some of the `total` samples to come; see `Accumulator.suggest`."""
        for part in self._parts:
            part.suggest(samples, total * part.size // self._size)

    def add(self, samples: Sorted) -> None:
        """Add sorted samples, those of each range in a thread of their own."""

        def add(part: Accumulator, first: int, last: int) -> None:
            starts = samples.starts[first : last + 1]
            start, stop, low = int(starts[0]), int(starts[-1]), first << self._shift
            part.add(samples.slots, samples.samples, start, stop, low=low, most=int(np.diff(starts).max()))

        all_at_once(add, self._parts, self._edges[:-1], self._edges[1:])

    def result(self) -> tuple[Integers, Accumulator]:
        """Return the labels that have samples, ascending, and their statistics; the ranges must not be used again."""

        def finish(part: Accumulator, first: int) -> Integers:
            part.release()
            used = part.compact()
            used += self._low + (first << self._shift)
            return used

        found = all_at_once(finish, self._parts, self._edges[:-1])
        keys = found[0] if len(found) == 1 else np.concatenate(found)
        return keys, Accumulator.joined(self._parts, self._memory)


def reduce_by_range(
    chunks: Sequence[Chunk], some: Array, low: int, size: int, threads: int
) -> tuple[Integers, Accumulator]:
    """Return the ``(K,)`` keys that occurred, ascending, and their statistics; each thread reduces a range of keys."""
    # With a million labels in random order each sample waits 14 ns for its row. Sorting by buckets takes 2 ns per
    # sample, adding sorted ones 3 to 4; and there is one table for all threads, with nothing to merge.
    shift = max(_BUCKET, (size >> _BUCKETS).bit_length())
    buckets = (size - 1 >> shift) + 1
    kinds = sorted({samples.dtype for _, samples in chunks}, key=lambda dtype: dtype.itemsize)
    groups = [[chunk for chunk in chunks if chunk[1].dtype == dtype] for dtype in kinds]
    ranges = Ranges(_edges(some, low, shift, buckets, threads), shift, low, size)
    for group in groups:
        total = sum(keys.shape[0] for keys, _ in group)
        ranges.suggest(np.concatenate([samples[:: max(1, total // _HEAD)] for _, samples in group]), total)
        for sorted_samples in rounds(group, low, shift, buckets, threads):
            ranges.add(sorted_samples)
            del sorted_samples  # a fifth of all memory, before the rows are finished
    return ranges.result()


def _edges(some: Array, low: int, shift: int, buckets: int, threads: int) -> list[int]:
    """Divide the buckets into ranges with about equal numbers of samples; return their first buckets, and the end."""
    found = np.clip((some.astype(np.int64) - low) >> shift, 0, buckets - 1)  # another thread may write to the labels
    counts = np.cumsum(np.bincount(found, minlength=buckets))
    inner = np.searchsorted(counts, [counts[-1] * t // threads for t in range(1, threads)]).tolist()
    return sorted({0, *inner, buckets})


def rounds(chunks: Sequence[Chunk], low: int, shift: int, buckets: int, threads: int) -> Iterator[Sorted]:
    """Sort the samples of chunks of one dtype, a round at a time; each round overwrites the one before."""
    sizes = [keys.shape[0] for keys, _ in chunks]
    total, dtype = sum(sizes), chunks[0][1].dtype
    rounds = -(-total // max(_ROUND, 2 * (buckets << shift)))
    shares = shares_of(sizes, threads * rounds)
    room = -(-total // rounds)
    slots, samples = np.empty(room, dtype=np.int32), np.empty(room, dtype=dtype)
    module = kernels.partition  # loads numba once, not in every thread

    def sort(share: Share, places: Integers) -> None:
        for i, start, stop in share:
            keys, unsorted = (read_only(column) for column in chunks[i])
            module.sort_buckets(keys, unsorted, start, stop, low, shift, places, slots, samples)

    for turn in range(0, len(shares), threads):
        mine = shares[turn : turn + threads]
        places, starts = places_of([keys for keys, _ in chunks], mine, low, shift, buckets)
        all_at_once(sort, mine, places)
        stop = int(starts[-1])
        yield Sorted(slots[:stop], samples[:stop], starts)


def places_of(
    keys: Sequence[Array], shares: Sequence[Share], low: int, shift: int, buckets: int
) -> tuple[list[Integers], Integers]:
    """Return where the samples of each share go in each bucket, shares in order, and where buckets begin and end."""
    # Each bucket holds the samples of all threads, so the rows are visited once.
    module = kernels.partition

    def count(share: Share) -> Integers:
        counts = np.zeros(buckets, dtype=np.int64)
        for i, start, stop in share:
            module.count_buckets(read_only(keys[i]), start, stop, low, shift, counts)
        return counts

    counts = np.array(all_at_once(count, shares))
    ends = np.cumsum(counts.T.ravel()).reshape(buckets, len(shares)).T
    return list(ends - counts), np.concatenate([[0], ends[-1]])
