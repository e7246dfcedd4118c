"""Samples kept instead of sums: whatever is asked for, and in whatever order, against rational arithmetic."""

from __future__ import annotations

import copy
import pickle
from fractions import Fraction

import numpy as np
import pytest
from conftest import COMPILED
from exact import rounded, stdev

from labeltrack._accumulate import Accumulator
from labeltrack._deferred import Deferred, defer
from labeltrack._ranges import Sorted

SHIFT = 7
BUCKETS = 9


def made(dtype=np.float32, n=1500, threads=2, change=None):
    """Return deferred statistics, and the samples of each label by plain Python; the sixth bucket is empty."""
    rng = np.random.default_rng(11)
    slots = rng.integers(0, (BUCKETS << SHIFT) - 50, n)
    slots = np.sort(slots[slots >> SHIFT != 5])
    samples = rng.exponential(size=slots.size).astype(dtype)
    samples[::31] *= dtype(1e-9)
    if change is not None:
        change(samples)
    # Within a bucket in no order.
    order = np.argsort((slots >> SHIFT) * 2.0 + rng.random(slots.size))
    slots, samples = slots[order].astype(np.int32), samples[order]
    starts = np.searchsorted(slots >> SHIFT, np.arange(BUCKETS + 1))
    labels, accumulator = defer(Sorted(slots, samples, starts, SHIFT), 1000, threads)
    groups = {}
    for slot, sample in zip(slots.tolist(), samples.tolist(), strict=True):
        groups.setdefault(1000 + slot, []).append(sample)
    assert labels.tolist() == sorted(groups)
    assert isinstance(accumulator, Deferred)
    return accumulator, [groups[label] for label in labels.tolist()]


def check_totals(accumulator, groups):
    totals = accumulator.totals()
    exact = [[Fraction(x) for x in group] for group in groups]
    assert totals.count.tolist() == [len(group) for group in groups]
    assert totals.sum.tolist() == [rounded(sum(group)) for group in exact]
    assert totals.mean.tolist() == [float(sum(group) / len(group)) for group in exact]
    assert totals.std.tolist() == [stdev(group) for group in groups]
    assert totals.min.tolist() == [min(group) for group in groups]
    assert totals.max.tolist() == [max(group) for group in groups]


def check_sums(accumulator, groups):
    assert accumulator.size == len(groups)
    for slot, group in enumerate(groups):
        numbers = [Fraction(x) for x in group]
        assert accumulator.exact(slot) == (len(numbers), sum(numbers), sum(x * x for x in numbers))


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_statistics_are_exact_before_and_after_sums_are_made(dtype, threads):
    accumulator, groups = made(dtype, threads=threads)
    check_totals(accumulator, groups)
    assert accumulator._samples is not None  # rounded statistics alone need no sums
    assert accumulator.all_finite()
    assert not accumulator.nonfinite.any()
    assert accumulator._samples is not None
    check_sums(accumulator, groups)
    assert accumulator._samples is None
    check_totals(accumulator, groups)


def test_sums_may_be_asked_for_first():
    accumulator, groups = made()
    check_sums(accumulator, groups)
    check_totals(accumulator, groups)


def test_samples_of_the_hard_kind_are_exact():
    def change(samples):
        samples[::3] = 1e200
        samples[1::3] = 1e-200
        samples[2::9] = -0.0

    accumulator, groups = made(np.float64, n=9000 if COMPILED else 3000, change=change)
    check_totals(accumulator, groups)
    check_sums(accumulator, groups)


@pytest.mark.parametrize("first", ["totals", "all_finite", "nonfinite"])
def test_samples_that_are_not_finite_are_counted(first):
    def change(samples):
        samples[[3, 500, 501]] = np.nan, np.inf, -np.inf

    accumulator, groups = made(change=change)
    read = getattr(accumulator, first)
    _ = read() if callable(read) else read
    assert accumulator.nonfinite.tolist() == [
        [sum(x != x for x in group), group.count(float("inf")), group.count(float("-inf"))] for group in groups
    ]
    assert not accumulator.all_finite()
    finite = [[x for x in group if np.isfinite(x)] for group in groups]
    totals = accumulator.totals()
    assert totals.count.tolist() == [len(group) for group in finite]
    assert totals.sum.tolist() == [float(sum(map(Fraction, group))) for group in finite]


@pytest.mark.parametrize("read", [True, False])
def test_merging_taking_and_copying_go_on_with_the_samples(read):
    for way in ("merged", "taken", "copied", "pickled", "deep copy", "occupied"):
        accumulator, groups = made()
        if read:
            accumulator.totals()
        everywhere = np.arange(len(groups))
        if way == "merged":
            other = Accumulator(len(groups))
            other.merge(accumulator, everywhere)
        elif way == "taken":
            other, groups = accumulator.take(everywhere[::-2]), groups[::-2]
        elif way == "copied":
            other = accumulator.copy()
        elif way == "pickled":
            other = pickle.loads(pickle.dumps(accumulator))
        elif way == "deep copy":
            other = copy.deepcopy(accumulator)
        else:
            other = accumulator
            assert other.occupied().tolist() == everywhere.tolist()
        check_sums(other, groups)
        check_totals(other, groups)
