"""Sorting by buckets of labels against numpy's stable sort."""

from __future__ import annotations

import numpy as np
import pytest

from labeltrack._core.kernels import partition as kernels


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


def test_labels_that_another_thread_changes_meanwhile_are_dropped_and_nothing_is_written_out_of_bounds():
    counts, places = np.zeros(2, dtype=np.int64), np.array([0, 2])
    labels, samples = np.array([0, 99, -1, 5, 5, 1]), np.arange(6.0)
    kernels.count_buckets(labels, 0, 6, 0, 2, counts)
    assert counts.tolist() == [2, 2]
    slots, sorted_samples = np.full(3, -1, dtype=np.int32), np.zeros(3)
    kernels.sort_buckets(labels, samples, 0, 6, 0, 2, places, slots, sorted_samples)
    assert (slots.tolist(), sorted_samples.tolist()) == ([0, 1, 5], [0.0, 5.0, 3.0])
