"""Many labels by range against rational arithmetic: chunks, rounds, dtypes, orders, counts near the limit."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from conftest import COMPILED

from labeltrack._core import partition as _partition
from labeltrack._core.fixed_point import Fixed32
from labeltrack._core.partition import Ranges, Sorted, reduce_by_range

N = 6_000 if COMPILED else 3_000


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    """Have several buckets and rounds already with few samples."""
    monkeypatch.setattr(_partition, "_BUCKET", 6)
    monkeypatch.setattr(_partition, "_ROUND", 1 << 10)


def check(chunks, low, size, threads):
    every = np.concatenate([labels.astype(np.int64) for labels, _ in chunks])
    keys, accumulator = reduce_by_range(chunks, every[::10], low, size, threads)
    samples = np.concatenate([samples.astype(np.float64) for _, samples in chunks])
    assert keys.tolist() == np.unique(every).tolist()
    order = np.argsort(every, kind="stable")
    groups = np.split(samples[order], np.flatnonzero(np.diff(every[order])) + 1)
    for slot, group in enumerate(groups):
        numbers = [Fraction(x) for x in group.tolist()]
        assert accumulator.exact(slot) == (len(numbers), sum(numbers), sum(x * x for x in numbers))
    totals = accumulator.totals()
    assert totals.min.tolist() == [min(group) for group in groups]
    assert totals.max.tolist() == [max(group) for group in groups]


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("order", ["random", "sorted", "one hot", "one"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_statistics_by_range_are_exact(threads, order, dtype):
    rng = np.random.default_rng(4)
    size = 300
    labels = rng.integers(0, size, N)
    if order == "sorted":
        labels.sort()
    elif order == "one hot":
        labels = np.where(rng.random(N) < 0.9, 17, labels)
    elif order == "one":
        labels[:] = 299
    samples = rng.exponential(size=N).astype(dtype)
    samples[::77] *= dtype(1e-9)
    check([(labels.astype(np.int32) - 100, samples)], -100, size, threads)


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("order", ["random", "sorted", "one"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_statistics_of_few_samples_a_label_are_exact(threads, order, dtype, monkeypatch):
    monkeypatch.setattr(_partition, "_ROUND", N)
    rng = np.random.default_rng(9)
    labels = rng.integers(0, N, N)
    if order == "sorted":
        labels.sort()
    elif order == "one":
        labels[:] = N - 1
    samples = rng.exponential(size=N).astype(dtype)
    samples[::77] *= dtype(1e-9)
    half = N // 3
    check([(labels.astype(np.int32) - 100, samples)], -100, N, threads)
    labels = labels - 2**40
    check([(labels[:half], samples[:half]), (labels[half:], samples[half:])], -(2**40), N, threads)


@pytest.mark.parametrize("threads", [1, 3])
def test_chunks_may_differ_in_size_and_dtypes(threads):
    rng = np.random.default_rng(5)
    kinds = [(np.int32, np.float32), (np.int64, np.float64), (np.uint8, np.float32), (np.int64, np.float32)]
    chunks = []
    for length, (key, value) in zip([N // 2, 1, 500, N // 4], kinds, strict=True):
        highest = 200 if key == np.uint8 else 300
        chunks.append((rng.integers(0, highest, length).astype(key), rng.normal(size=length).astype(value)))
    check(chunks, 0, 300, threads)


def test_samples_that_are_not_finite_are_counted_where_they_belong():
    rng = np.random.default_rng(6)
    labels, samples = rng.integers(0, 300, N).astype(np.int32), rng.random(N, dtype=np.float32)
    samples[[3, 50, 700]] = np.nan, np.inf, -np.inf
    keys, accumulator = reduce_by_range([(labels, samples)], labels[::10], 0, 300, 2)
    for place, column in ((3, 0), (50, 1), (700, 2)):
        assert accumulator.nonfinite[np.searchsorted(keys, labels[place]), column] == 1
    assert accumulator.nonfinite.sum() == 3


@pytest.mark.parametrize("threads", [1, 2])
def test_no_label_gets_more_samples_than_a_count_holds(threads, monkeypatch):
    # The number of samples in a bucket bounds that of a label: it takes far fewer looks at the counts.
    monkeypatch.setattr(Fixed32, "capacity", 300)
    rng = np.random.default_rng(7)
    labels = np.where(rng.random(N) < 0.5, 5, rng.integers(0, 300, N)).astype(np.int32)
    check([(labels, rng.random(N, dtype=np.float32))], 0, 300, threads)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_range_of_a_few_labels_with_most_of_the_samples_stays_in_its_memory(dtype):
    # A table of a few labels has four copies, which take more than there is for the rows of that range.
    rng = np.random.default_rng(8)
    size = 4 * 64 + 1
    n = 40_000 if COMPILED else 20_000
    labels = np.where(rng.random(n) < 0.8, size - 1, rng.integers(0, size, n)).astype(np.int32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_partition, "_ROUND", n)
        check([(labels, rng.random(n).astype(dtype))], 0, size, 2)


@pytest.mark.parametrize("edges", [[0, 4], [0, 1, 4], [0, 1, 2, 3, 4]])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rounds_of_sorted_samples_add_up(edges, dtype):
    rng = np.random.default_rng(3)
    shift, size = 4, 60
    ranges = Ranges(edges, shift, 0, size)
    groups: dict[int, list[float]] = {}
    for _ in range(3):
        slots = np.sort(rng.integers(0, size, 900)).astype(np.int32)
        slots = slots[slots != 7]
        samples = rng.normal(size=slots.size).astype(dtype)
        ranges.suggest(samples[::10], 3 * slots.size)
        ranges.add(Sorted(slots, samples, np.searchsorted(slots >> shift, np.arange(5))))
        for slot, sample in zip(slots.tolist(), samples.tolist(), strict=True):
            groups.setdefault(slot, []).append(sample)
    slots, accumulator = ranges.result()
    assert slots.tolist() == sorted(groups)
    for place, slot in enumerate(slots.tolist()):
        numbers = [Fraction(x) for x in groups[slot]]
        assert accumulator.exact(place) == (len(numbers), sum(numbers), sum(x * x for x in numbers))
