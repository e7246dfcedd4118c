"""Groups: both ways of filling, and what must not be touched."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from conftest import COMPILED

from labeltrack import _quantile_kernels as kernels

WHOLE = {np.float32: np.int32, np.float64: np.int64}
N = 5000 if COMPILED else 1200


def ordered(values):
    """Return floats as integers of the same order, as the kernels have them."""
    bits = values.view(WHOLE[values.dtype.type])
    return np.where(bits < 0, bits ^ np.iinfo(bits.dtype).max, bits).astype(bits.dtype)


def limits(dtype):
    whole = WHOLE[dtype]
    return int(np.array(np.inf, dtype).view(whole)), int(np.iinfo(whole).max)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_groups_are_filled_from_both_ends_and_nan_and_other_keys_are_left_out(dtype):
    rng = np.random.default_rng(2)
    keys = rng.integers(-2, 8, N).astype(np.int32)
    values = rng.normal(size=N).astype(dtype)
    values[::7] = np.nan
    slots = np.array([2, -1, 0, 1], dtype=np.int32)  # of the keys 1, 2, 3 and 4
    bits = values.view(WHOLE[dtype])
    infinity, rest = limits(dtype)
    wanted = [np.sort(ordered(values[(keys == key) & ~np.isnan(values)])) for key in (3, 4, 1)]
    counts = np.zeros(3, dtype=np.int64)
    kernels.count_groups(keys, bits, 0, N, 1, slots, infinity, rest, counts)
    assert counts.tolist() == [group.size for group in wanted]
    starts = np.concatenate([[0], np.cumsum(counts)])
    groups = np.zeros(int(starts[-1]), WHOLE[dtype])
    half = N // 3
    front, back = starts[:-1].copy(), starts[1:] - 1
    kernels.fill_groups(keys, bits, 0, half, 1, slots, infinity, rest, front, 1, groups)
    kernels.fill_groups(keys, bits, half, N, 1, slots, infinity, rest, back, -1, groups)
    assert (front == back + 1).all()
    for k, group in enumerate(wanted):
        assert np.sort(groups[starts[k] : starts[k + 1]]).tolist() == group.tolist()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_samples_are_sorted_into_buckets_from_both_ends_and_then_into_groups(dtype):
    rng = np.random.default_rng(5)
    first, size, edges = 65_530, 12, [0, 5, 6, 12]  # slots on both sides of 65536
    keys = rng.integers(-2, size + 2, N).astype(np.int32)
    values = rng.normal(size=N).astype(dtype)
    values[::7] = np.nan
    bits, none = values.view(WHOLE[dtype]), np.empty(0, dtype=np.int32)
    infinity, rest = limits(dtype)
    wanted = [np.sort(ordered(values[(keys == key) & ~np.isnan(values)])) for key in range(size)]
    counts = np.zeros(first + size, dtype=np.int64)
    counts[first:] = [group.size for group in wanted]
    starts = np.concatenate([[0], np.cumsum(counts)])
    buckets = np.zeros(first + size, dtype=np.uint8)
    buckets[first:] = np.repeat([0, 1, 2], np.diff(edges))
    begin = starts[first + np.array(edges)]
    slots, samples = np.zeros(int(starts[-1]), np.uint16), np.zeros(int(starts[-1]), WHOLE[dtype])
    front, back, half = begin[:-1].copy(), begin[1:] - 1, N // 3
    low = -first  # key 0 has slot `first`; keys below have slots without samples
    inside = np.where((keys < 0) | (keys >= size), size, keys).astype(np.int32)
    kernels.sort_groups(inside, bits, 0, half, low, none, infinity, rest, buckets, front, 1, slots, samples)
    kernels.sort_groups(inside, bits, half, N, low, none, infinity, rest, buckets, back, -1, slots, samples)
    assert (front == back + 1).all()
    for bucket, (a, b) in enumerate(itertools.pairwise(edges)):
        start, stop = begin[bucket : bucket + 2].tolist()
        groups = np.zeros(stop - start, WHOLE[dtype])
        places = starts[first + a : first + b] - start
        kernels.fill_bucket(slots, samples, start, stop, first + a, places, groups)
        assert places.tolist() == (starts[first + a + 1 : first + b + 1] - start).tolist()
        for k in range(a, b):
            group = groups[starts[first + k] - start : starts[first + k + 1] - start]
            assert np.sort(group).tolist() == wanted[k].tolist()


def test_buckets_and_groups_that_are_full_are_not_written_beyond():
    keys, values, none = np.zeros(50, dtype=np.int32), np.arange(50.0), np.empty(0, dtype=np.int32)
    slots, samples = np.zeros(10, np.uint16), np.zeros(10, np.int64)
    infinity, rest = limits(np.float64)
    for place, step in ((5, 1), (5, -1)):
        places = np.array([place])
        kernels.sort_groups(
            keys,
            values.view(np.int64),
            0,
            50,
            0,
            none,
            infinity,
            rest,
            np.zeros(1, np.uint8),
            places,
            step,
            slots,
            samples,
        )
        assert places.tolist() == [10 if step == 1 else -1]
    places = np.array([7])
    kernels.fill_bucket(slots, samples, 0, 10, 0, places, np.zeros(9, np.int64))
    assert places.tolist() == [9]
    kernels.fill_bucket(slots, samples, 0, 10, 1, places, np.zeros(20, np.int64))  # slots before the first
    assert places.tolist() == [9]
