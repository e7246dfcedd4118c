"""Compiled: samples sorted roughly by label, so that those of rows near one another come one after the other."""

from __future__ import annotations

from typing import Any

import numpy as np

from labeltrack._core.kernels.intrinsics import _STREAM, _jit, _prefetch, _prefetch_read

_AHEAD = np.uint64(32)  # samples of a bucket between fetching where they go and writing them


@_jit
def count_buckets(labels: Any, start: int, stop: int, low: int, shift: int, counts: Any) -> None:
    """Count how many labels fall in each bucket of ``2**shift`` of them.

    Args:
        labels: ``(N,)`` uint8, int32 or int64, none below `low` and none beyond the last bucket.
        start: First label to read.
        stop: One past the last.
        low: The smallest label.
        shift: Binary logarithm of the labels a bucket.
        counts: ``(B,)`` int64, which are added to.
    """
    bits, buckets = np.uint64(shift), np.uint64(counts.shape[0])
    for i in range(np.uint64(start), np.uint64(stop)):
        _prefetch_read(labels, i + _STREAM)
        bucket = np.uint64(np.int64(labels[i]) - low) >> bits
        if bucket < buckets:  # always, unless somebody changes the labels meanwhile, like what follows
            counts[bucket] += 1


@_jit
def sort_buckets(
    labels: Any, samples: Any, start: int, stop: int, low: int, shift: int, places: Any, slots: Any, sorted_samples: Any
) -> None:
    """Write slots and samples bucket by bucket.

    It writes to as many places in turn as there are buckets: 1.5 to 3 ns a sample up to some 300 of them, thrice as
    much for 600. Processors that follow no more than 32 places by themselves take 6 where lines are not fetched.
    Collecting a cache line of each bucket before it is written took twice as long.

    Args:
        labels: See `count_buckets`.
        samples: ``(N,)`` float32 or float64.
        start: First sample to read.
        stop: One past the last.
        low: The label of slot 0.
        shift: See `count_buckets`.
        places: ``(B,)`` int64, where the next sample of each bucket goes; moved on.
        slots: ``(M,)`` int32, written to.
        sorted_samples: ``(M,)`` of the dtype of `samples`, written to.
    """
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
