"""Compiled: sorting samples by buckets of labels, so that samples of neighbouring rows follow one another."""

from __future__ import annotations

import numpy as np

from labeltrack._core.kernels.intrinsics import _STREAM, _jit, _prefetch, _prefetch_read

_AHEAD = np.uint64(32)  # samples of a bucket between fetching the line they go to and writing them


@_jit
def count_buckets(labels, start, stop, low, shift, counts):
    """Add the numbers of labels in each bucket of ``2**shift`` labels to ``(B,)`` int64 counts."""
    bits, buckets = np.uint64(shift), np.uint64(counts.shape[0])
    for i in range(np.uint64(start), np.uint64(stop)):
        _prefetch_read(labels, i + _STREAM)
        bucket = np.uint64(np.int64(labels[i]) - low) >> bits
        if bucket < buckets:  # always, unless another thread writes to the labels; likewise below
            counts[bucket] += 1


@_jit
def sort_buckets(labels, samples, start, stop, low, shift, places, slots, sorted_samples):
    """Write slots (int32) and samples to ``(B,)`` places of buckets, which are advanced."""
    # 1.5 to 3 ns per sample up to some 300 buckets, three times as much with 600. Without the prefetch, processors that
    # follow no more than 32 streams take 6; filling a cache line per bucket first took twice as long.
    bits, buckets, room = np.uint64(shift), np.uint64(places.shape[0]), np.uint64(slots.shape[0])
    for i in range(np.uint64(start), np.uint64(stop)):
        _prefetch_read(labels, i + _STREAM)
        _prefetch_read(samples, i + _STREAM)
        slot = np.int64(labels[i]) - low
        bucket = np.uint64(slot) >> bits
        if bucket < buckets:
            place = np.uint64(places[bucket])
            _prefetch(slots, place + _AHEAD)
            _prefetch(sorted_samples, place + _AHEAD)
            places[bucket] += 1
            if place < room:
                slots[place] = slot
                sorted_samples[place] = samples[i]
