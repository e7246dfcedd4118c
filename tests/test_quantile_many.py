"""Quantiles of many labels: equal to numpy's bit for bit, whichever buckets samples are sorted by."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import COMPILED
from exact import quantiles
from hypothesis import given
from hypothesis import strategies as st

import labeltrack as lt
from labeltrack import _quantile, _quantile_many
from labeltrack._quantile import Samples, reduce_quantiles

N = 20_000 if COMPILED else 2_000
FRACTIONS = (0.0, 0.05, 0.25, 1 / 3, 0.5, 0.75, 0.95, 1.0)


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    """Take this way with few labels and samples already."""
    monkeypatch.setattr(_quantile, "is_few", lambda *_: False)
    monkeypatch.setattr(_quantile_many, "_LEAST", 1)
    monkeypatch.setattr(_quantile_many, "_SAMPLES", 100)
    monkeypatch.setattr(_quantile, "_BLOCK", 700)  # several of those that are cast or hashed first


@pytest.fixture
def taken(monkeypatch):
    """Return whether this way was taken, once for each call."""
    calls = []

    def many(*arguments):
        calls.append(_quantile_many.many_quantiles(*arguments))
        return calls[-1]

    monkeypatch.setattr(_quantile, "many_quantiles", many)
    return calls


def ours(labels, values, fractions=FRACTIONS, **options):
    stats = lt.label_stats(labels, values, quantiles=fractions, nan_policy="omit", **options)
    return np.array([stats.quantile(fraction) for fraction in fractions])


RNG = np.random.default_rng(1)
LABELS = {
    "uniform": RNG.integers(0, 900, N).astype(np.int32),
    "one": np.zeros(N, dtype=np.uint8),
    "bytes": RNG.integers(0, 200, N).astype(np.uint8),
    "gaps": RNG.integers(-300, 300, N) * 7,
    "sparse": RNG.integers(-(2**62), 2**62, 300)[RNG.integers(0, 300, N)],
    "one of them has most": np.where(RNG.random(N) < 0.8, 5, RNG.integers(0, 400, N)),
    "zipf": RNG.zipf(1.3, N) % 1000,
    "a sample each": RNG.permutation(N),
    "strings": RNG.integers(0, 300, N).astype(str),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("labels", LABELS)
def test_any_labels_and_threads(labels, threads, dtype, taken):
    rng = np.random.default_rng(6)
    values = (rng.normal(size=N) * 10.0 ** rng.integers(-3, 4, N)).astype(dtype)
    values[rng.integers(0, N, 50)] = rng.choice([np.nan, np.inf, -np.inf, 0.0, -0.0], 50)
    found = ours(LABELS[labels], values, threads=threads)
    np.testing.assert_array_equal(found, quantiles(LABELS[labels], values, FRACTIONS))
    uneven = labels == "one of them has most" or (labels == "zipf" and threads > 1)
    assert taken == ([] if labels == "one" else [not uneven])


@pytest.mark.parametrize("which", ["uniform", "gaps", "sparse", "a sample each", "strings"])
def test_samples_in_the_order_of_their_labels_are_not_sorted_twice(which, taken):
    values = np.random.default_rng(2).normal(size=N)
    labels = np.sort(LABELS[which])
    np.testing.assert_array_equal(ours(labels, values), quantiles(labels, values, FRACTIONS))
    assert not taken


@pytest.mark.skipif(not COMPILED, reason="it takes 65 536 labels")
@pytest.mark.parametrize("beyond", [0, 1])
def test_buckets_have_no_more_slots_than_two_bytes_tell_apart(beyond, monkeypatch, taken):
    monkeypatch.setattr(_quantile_many, "_BUCKETS", 4)
    labels = np.random.default_rng(3).permutation(np.repeat(np.arange(4 * 65_536 + beyond), 2))
    values = np.random.default_rng(3).normal(size=labels.size)
    found = ours(labels, values, (0.5,), threads=1)
    pairs = values[np.argsort(labels, kind="stable")].reshape(-1, 2)
    np.testing.assert_array_equal(found[0], np.quantile(pairs, 0.5, axis=1))
    assert taken == [not beyond]


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("share", [0.05, 0.4, 0.9])
def test_a_label_that_would_be_held_twice_is_left_to_the_other_way(share, threads, taken):
    rng = np.random.default_rng(8)
    labels = np.where(rng.random(N) < share, 5, rng.integers(0, 400, N))
    values = rng.normal(size=N)
    np.testing.assert_array_equal(ours(labels, values, threads=threads), quantiles(labels, values, FRACTIONS))
    most = np.count_nonzero(labels == 5)
    if share < 0.9:  # beyond, neighbours are mostly alike
        assert taken == [2 * most * threads <= N]


@pytest.mark.skipif(not COMPILED, reason="it takes a hundred thousand labels")
@pytest.mark.parametrize("threads", [1, 3])
def test_a_bucket_may_go_over_a_multiple_of_65536_slots(threads, monkeypatch, taken):
    monkeypatch.setattr(_quantile_many, "_SAMPLES", 1 << 16)
    rng = np.random.default_rng(4)
    labels = rng.permutation(np.repeat(np.arange(100_000, dtype=np.int32), 6))
    values = rng.normal(size=labels.size).astype(np.float32)
    found = ours(labels, values, (0.5,), threads=threads)
    groups = values[np.argsort(labels, kind="stable")].reshape(-1, 6)
    np.testing.assert_array_equal(found[0], np.median(groups.astype(np.float64), axis=1))
    assert taken == [True]


@given(
    st.lists(st.tuples(st.integers(0, 30), st.floats(allow_nan=False)), min_size=1, max_size=300),
    st.integers(1, 4),
    st.integers(1, 40),
)
def test_a_few_samples_in_buckets_of_any_size(pairs, threads, samples):
    labels, values = np.array([label for label, _ in pairs]), np.array([value for _, value in pairs])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_quantile_many, "_SAMPLES", samples)
        patch.setattr(_quantile, "_in_order", lambda _: False)
        found = ours(labels, values, threads=threads)
    np.testing.assert_array_equal(found, quantiles(labels, values, FRACTIONS))


def test_slots_without_samples_and_keys_that_do_not_count(taken):
    keys, values = RNG.integers(0, 50, N), np.random.default_rng(5).normal(size=N)
    counted = np.arange(10, 40, 3)
    part = Samples([(keys, values)], counted, np.arange(counted.size) * 2)
    counts = np.zeros(2 * counted.size + 1, dtype=np.int64)
    counts[: 2 * counted.size : 2] = [np.count_nonzero(keys == key) for key in counted]
    found = reduce_quantiles([part], counts, (0.25, 0.75), threads=2)
    wanted = np.full((2, counts.size), np.nan)
    for i, key in enumerate(counted):
        wanted[:, 2 * i] = np.quantile(values[keys == key], (0.25, 0.75))
    np.testing.assert_array_equal(found, wanted)
    assert taken == [True]


@pytest.mark.parametrize("counted", [12, 48])
def test_samples_that_change_meanwhile_do_not_end_the_process(counted, taken, monkeypatch):
    monkeypatch.setattr(_quantile_many, "_SAMPLES", 20)
    # More or fewer samples of a slot than were counted: what comes out is worthless.
    keys, values = RNG.permutation(np.repeat(np.arange(20), 30)), np.arange(600.0)
    part = Samples([(keys, values)], np.arange(20), np.arange(20))
    assert reduce_quantiles([part], np.full(20, counted), (0.5,), threads=2).shape == (1, 20)
    assert taken == [True]
