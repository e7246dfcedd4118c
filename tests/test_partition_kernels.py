"""Sorting by buckets of labels against numpy's stable sort."""

from __future__ import annotations

import numpy as np
import pytest

from labeltrack import _partition_kernels as kernels


@pytest.mark.parametrize("labels_dtype", [np.uint8, np.int32, np.int64])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shift", [0, 3, 8])
def test_samples_go_to_their_buckets_in_order(labels_dtype, dtype, shift):
    rng = np.random.default_rng(1)
    low = 40 if labels_dtype == np.uint8 else -(2**20)
    labels = (low + rng.integers(0, 200, 3000)).astype(labels_dtype)
    samples = rng.random(3000).astype(dtype)
    start, stop = 7, 2900
    buckets = labels[start:stop].astype(np.int64) - low >> shift
    counts = np.zeros((199 >> shift) + 1, dtype=np.int64)
    kernels.count_buckets(labels, start, stop, low, shift, counts)
    np.testing.assert_array_equal(counts, np.bincount(buckets, minlength=counts.size))
    places = 10 + np.cumsum(counts) - counts
    slots, sorted_samples = np.full(3000, -1, dtype=np.int32), np.full(3000, -1, dtype=dtype)
    kernels.sort_buckets(labels, samples, start, stop, low, shift, places, slots, sorted_samples)
    np.testing.assert_array_equal(places, 10 + np.cumsum(counts))
    order = np.argsort(buckets, kind="stable")
    here = slice(10, 10 + stop - start)
    np.testing.assert_array_equal(slots[here], labels[start:stop].astype(np.int64)[order] - low)
    np.testing.assert_array_equal(sorted_samples[here], samples[start:stop][order])
    assert (np.delete(slots, np.r_[here]) == -1).all()
    assert (np.delete(sorted_samples, np.r_[here]) == -1).all()


@pytest.mark.parametrize("part", [0.0, 0.02, 0.6, 1.0])
def test_marks_are_the_slots_that_occur(part):
    rng = np.random.default_rng(2)
    slots = np.flatnonzero(rng.random(64 * 20) < part)
    marks = np.zeros(25, dtype=np.uint64)
    some = rng.permutation(np.repeat(slots, 3)).astype(np.int32)
    padded = np.concatenate([[-1, -1], some, [-1]]).astype(np.int32)
    kernels.mark_slots(padded, 2, 2 + some.size, 0, marks)
    assert kernels.count_marks(marks, 0, 25) == slots.size
    here = slots[(slots >= 64 * 3) & (slots < 64 * 17)]
    assert kernels.count_marks(marks, 3, 17) == here.size
    out = np.empty(here.size + 1, dtype=np.int64)
    kernels.marked_slots(marks, 3, 17, -(2**40), out)
    np.testing.assert_array_equal(out[:-1], here - 2**40)
