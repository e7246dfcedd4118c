"""Quantiles a label: equal to numpy's bit for bit, for any samples, labels, cut and number of threads."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from conftest import COMPILED
from exact import hard_cases, quantiles
from hypothesis import given
from hypothesis import strategies as st

import labeltrack as lt
from labeltrack._core.quantiles import Samples, check_fractions, grouped, reduce_quantiles

N = 20_000 if COMPILED else 3_000
FRACTIONS = (0.0, 0.05, 0.25, 1 / 3, 0.5, 0.75, 0.95, 1.0)


def ours(labels, values, fractions, **options):
    stats = lt.label_stats(labels, values, quantiles=fractions, **options)
    return np.array([stats.quantile(fraction) for fraction in fractions])


def same(found, wanted):
    """Return whether all bits agree; but for the sign of zero, which numpy leaves to chance, and that of NaN."""
    found, wanted = found + 0.0, wanted + 0.0
    return np.array_equal(found, wanted, equal_nan=True) and not (np.signbit(found[found == 0])).any()


@pytest.mark.parametrize("name", hard_cases())
def test_hard_cases_are_as_numpy_has_them(name):
    values = hard_cases()[name]
    labels = np.random.default_rng(0).integers(0, 7, values.shape[0])
    assert same(ours(labels, values, FRACTIONS), quantiles(labels, values, FRACTIONS))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize(
    "labels",
    [
        np.zeros(N, dtype=np.uint8),
        np.random.default_rng(1).integers(-5, 5, N).astype(np.int32),
        np.random.default_rng(1).integers(0, 300, N) * 3,
        np.random.default_rng(2).integers(0, 2**62, 100)[np.random.default_rng(3).integers(0, 100, N)],
        np.array([2**63 - 1, -(2**63), 0])[np.random.default_rng(3).integers(0, 3, N)],
        np.random.default_rng(4).zipf(1.5, N) % 1000,
        np.arange(N),
        np.random.default_rng(5).choice(["cat", "dog", "eel"], N),
        np.random.default_rng(5).choice([0.5, -1.5], N),
        np.random.default_rng(5).choice([2**63 + 5, 3], N).astype(np.uint64),
        np.random.default_rng(5).choice([True, False], N),
    ],
    ids=["one", "few", "gaps", "sparse", "ends", "zipf", "own", "strings", "floats", "unsigned", "bools"],
)
def test_any_labels_and_threads(labels, threads, dtype):
    rng = np.random.default_rng(6)
    values = (rng.normal(size=N) * 10.0 ** rng.integers(-3, 4, N)).astype(dtype)
    assert same(ours(labels, values, FRACTIONS, threads=threads), quantiles(labels, values, FRACTIONS))


@pytest.mark.parametrize(
    "values",
    [
        np.tile([0.0, -0.0, 1.0, -1.0], N // 4),
        np.full(N, 0.1),
        np.arange(N) % 2 * 1.0,
        np.sort(np.random.default_rng(0).normal(size=N)),
        -np.arange(N, dtype=np.float64),
        1.0 + np.arange(N) * 2.0**-52,
        np.random.default_rng(0).choice([np.inf, -np.inf, 1.0, 5e-324], N),
        np.ldexp(1.0, np.random.default_rng(0).integers(-1074, 1024, N)) * np.random.default_rng(1).choice([-1, 1], N),
        np.concatenate([np.zeros(N - 2), [1e308, -1e308]]),
    ],
    ids=["zeros", "constant", "two", "sorted", "descending", "neighbours", "infinite", "magnitudes", "outliers"],
)
@pytest.mark.parametrize("groups", [1, 3, N // 100, N // 20])
def test_any_values(values, groups):
    labels = np.random.default_rng(1).integers(0, groups, values.shape[0])
    assert same(ours(labels, values, FRACTIONS), quantiles(labels, values, FRACTIONS))


floats = st.floats(allow_nan=False, width=32) | st.sampled_from([0.0, 1.0, -1.0])


@given(
    st.lists(st.tuples(st.integers(-3, 3), floats), min_size=1, max_size=400),
    st.lists(st.floats(0, 1), min_size=1, max_size=6),
    st.sampled_from([np.float32, np.float64]),
)
def test_random_samples_and_fractions(pairs, fractions, dtype):
    labels = np.array([label for label, _ in pairs])
    values = np.array([value for _, value in pairs], dtype)
    assert same(ours(labels, values, fractions), quantiles(labels, values, fractions))


@given(st.integers(1, 3000), st.integers(1, 40), st.integers(0, 2**32), st.sampled_from([np.float32, np.float64]))
def test_random_sizes(n, groups, seed, dtype):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, groups, n)
    # Few distinct values, or all different: both ends of how often a digit is the same.
    values = (rng.normal(size=n) if seed % 2 else rng.integers(0, 3, n) * rng.normal()).astype(dtype)
    fractions = np.unique(rng.random(rng.integers(1, 5)))
    assert same(ours(labels, values, fractions), quantiles(labels, values, fractions))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("values", "fraction", "wanted"),
    [
        ([1, 2, np.inf], 0.5, 2.0),
        ([1, 2, np.inf], 1.0, np.inf),
        ([-np.inf, 1, 2], 0.5, 1.0),
        ([-np.inf, 1, 2], 0.0, -np.inf),
        ([-np.inf, np.inf], 0.0, -np.inf),
        ([-np.inf, np.inf], 1.0, np.inf),
        ([-np.inf, 3, np.inf], 0.5, 3.0),
        ([0, np.inf, np.inf], 0.75, np.inf),
        ([-np.inf, -np.inf, 0, 0], 0.1, -np.inf),
        ([-np.inf, 3, 3, np.inf], 0.5, 3.0),
        ([np.inf], 0.3, np.inf),
        ([-np.inf], 0.5, -np.inf),
        ([np.inf] * 100, 0.5, np.inf),
        ([*range(100), np.inf], 0.5, 50.0),
        ([*range(1000), np.inf], 0.5, 500.0),
    ],
)
def test_a_quantile_that_is_a_sample_ignores_the_samples_beside_it(values, fraction, wanted, dtype):
    array = np.random.default_rng(0).permutation(np.array(values, dtype=dtype))
    for labels in (np.zeros(array.size, dtype=int), np.full(array.size, "cat"), np.full(array.size, 2**40)):
        assert ours(labels, array, [fraction]).tolist() == [[wanted]]


def test_outliers_do_not_move_the_band_of_quartiles_though_they_be_infinite():
    tracker = lt.LabelTracker("y", "loss", bounds=["iqr", "median"])
    tracker.update(np.repeat([3, 4], 9), np.array([*range(7), np.inf, np.inf, *range(9)], dtype=float))
    stats = tracker.end_epoch(1)
    assert [column.tolist() for column in stats.bounds("iqr")] == [[2.0, 2.0], [4.0, 4.0], [6.0, 6.0]]
    assert stats.bounds("median")[1].tolist() == [4.0, 4.0]
    assert tracker.history.series(3, "median")[1].tolist() == [4.0]


def test_between_a_number_and_infinity_it_is_interpolated_as_by_numpy():
    values = np.array([1.0, np.inf])
    with np.errstate(invalid="ignore"):
        assert np.array_equal(ours([0, 0], values, [0.2, 0.5])[:, 0], np.quantile(values, [0.2, 0.5]), equal_nan=True)


@pytest.mark.parametrize("low", [-1.7976931348623157e308, -(2.0**970), -9.98e291])
def test_quantiles_of_finite_samples_are_finite_though_their_difference_overflows(low):
    found = ours(np.zeros(2, dtype=int), np.array([1.7976931348623157e308, low]), FRACTIONS)[:, 0].tolist()
    exact = [Fraction(low) + (Fraction(1.7976931348623157e308) - Fraction(low)) * Fraction(f) for f in FRACTIONS]
    assert found[0] == low
    assert found[-1] == 1.7976931348623157e308
    assert all(
        abs(Fraction(x) - wanted) <= 2 * Fraction(np.spacing(1.7e308)) for x, wanted in zip(found, exact, strict=True)
    )


def test_nan_follow_the_policy():
    labels = np.array([0, 0, 0, 1, 1, 2])
    values = np.array([1.0, np.nan, 4.0, 2.0, 3.0, np.nan])
    stats = lt.label_stats(labels, values, quantiles=[0.5])
    assert np.array_equal(stats.median, [np.nan, 2.5, np.nan], equal_nan=True)
    assert np.array_equal(stats.with_nan_policy("omit").median, [2.5, 2.5, np.nan], equal_nan=True)
    with pytest.raises(ValueError, match="NaN samples under nan_policy='raise'"):
        stats._under("raise").quantile(0.5)


def test_samples_of_several_kinds_of_keys_come_together():
    rng = np.random.default_rng(0)
    parts, labels, values = [], [], []
    for keys, dtype in (([3, 5, 9], np.float32), ([7, 2**60], np.float64), ([5], np.float32)):
        chosen = rng.integers(0, len(keys), 500)
        some = rng.normal(size=500).astype(dtype)
        slots = np.array([{3: 0, 5: 1, 9: 2, 7: 1, 2**60: 3}[key] for key in keys])
        cut = 123
        at = np.array(keys)[chosen]
        parts.append(Samples([(at[:cut], some[:cut]), (at[cut:], some[cut:])], np.array(keys), slots))
        labels.append(slots[chosen])
        values.append(some.astype(np.float64))
    slots, together = np.concatenate(labels), np.concatenate(values)
    counts = np.bincount(slots)
    for threads in (1, 2, 3):
        assert same(reduce_quantiles(parts, counts, FRACTIONS, threads=threads), quantiles(slots, together, FRACTIONS))


def test_keys_that_do_not_count_are_ignored():
    keys = np.array([1, 2, 3, 2, 1, 9, -4])
    values = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0])
    for wanted in ([1, 2], [2, 9], [1, 2**50]):
        slots = np.arange(2)
        counts = np.array([int((keys == key).sum()) for key in wanted])
        found = reduce_quantiles([Samples([(keys, values)], np.array(wanted), slots)], counts, (0.5,), threads=1)
        medians = [np.median(values[keys == key]) if (keys == key).any() else np.nan for key in wanted]
        assert np.array_equal(found[0], medians, equal_nan=True)


def test_samples_are_ignored_if_no_key_counts():
    keys, values = np.array([0, 1, 1]), np.array([1.0, 2.0, 4.0])
    none = np.empty(0, dtype=np.int64)
    parts = [Samples([(keys, 100 * values)], none, none), Samples([(keys, values)], np.array([1]), np.array([1]))]
    found = reduce_quantiles(parts, np.array([0, 2]), (0.5,), threads=1)
    assert np.array_equal(found, [[np.nan, 3.0]], equal_nan=True)


def test_samples_that_change_meanwhile_are_harmless():
    """A concurrent change must not cause a write out of bounds."""
    keys, values = np.zeros(1000, dtype=np.int64), np.ones(1000)
    keys[:] = 1  # all in slot 1 now, which had none when they were counted
    found = reduce_quantiles([Samples([(keys, values)], np.arange(2), np.arange(2))], np.array([500, 0]), (0.5,))
    assert found.shape == (1, 2)


@pytest.mark.skipif(not COMPILED, reason="it takes a hundred thousand labels")
@pytest.mark.parametrize("threads", [1, 3])
def test_labels_may_be_many(threads):
    rng = np.random.default_rng(4)
    labels = rng.permutation(np.repeat(np.arange(100_000, dtype=np.int32), 6))
    values = rng.normal(size=labels.size).astype(np.float32)
    groups = values[np.argsort(labels, kind="stable")].reshape(-1, 6)
    assert same(ours(labels, values, (0.5,), threads=threads)[0], np.median(groups.astype(np.float64), axis=1))


def test_slots_without_samples_and_keys_that_do_not_count():
    rng = np.random.default_rng(5)
    keys, values = rng.integers(0, 50, N), rng.normal(size=N)
    counted = np.arange(10, 40, 3)
    part = Samples([(keys, values)], counted, np.arange(counted.size) * 2)
    counts = np.zeros(2 * counted.size + 1, dtype=np.int64)
    counts[: 2 * counted.size : 2] = [np.count_nonzero(keys == key) for key in counted]
    found = reduce_quantiles([part], counts, (0.25, 0.75), threads=2)
    wanted = np.full((2, counts.size), np.nan)
    for i, key in enumerate(counted):
        wanted[:, 2 * i] = np.quantile(values[keys == key], (0.25, 0.75))
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("counted", [12, 48])
def test_samples_that_change_meanwhile_do_not_end_the_process(counted):
    # More or fewer samples of a slot than were counted: what comes out is worthless.
    keys, values = np.random.default_rng(5).permutation(np.repeat(np.arange(20), 30)), np.arange(600.0)
    part = Samples([(keys, values)], np.arange(20), np.arange(20))
    assert reduce_quantiles([part], np.full(20, counted), (0.5,), threads=2).shape == (1, 20)


@pytest.mark.parametrize("bad", [["x"], 5, [None], object()])
def test_fractions_of_a_wrong_type_are_explained(bad):
    with pytest.raises(TypeError, match="quantiles must be an iterable of numbers from 0 to 1"):
        lt.label_stats([1], [1.0], quantiles=bad)


@pytest.mark.parametrize("bad", [[-0.1], [1.5], [float("nan")], [25]])
def test_fractions_out_of_range_are_explained(bad):
    with pytest.raises(ValueError, match="quantiles must be numbers from 0 to 1, got"):
        lt.label_stats([1], [1.0], quantiles=bad)


def test_fractions_are_sorted_and_unique():
    assert check_fractions([0.75, 0.25, 0.75, -0.0]) == (0.0, 0.25, 0.75)
    assert lt.label_stats([1], [1.0], quantiles=np.array([0.5, 0.1])).quantiles == (0.1, 0.5)
    assert lt.label_stats([], [], quantiles=[0.5]).median.shape == (0,)


def test_samples_side_by_side_are_all_that_were_counted():
    slots, samples = np.array([1, 0, 1, 2]), np.array([4.0, np.nan, -1.0, 2.0])
    found = grouped([(slots, samples)], np.array([0, 2, 0]))
    assert found[0] > 0 > found[1]
    for wrong in ([0, 3, 0], [1, 2, 0], [0, 1, 0]):
        with pytest.raises(ValueError, match="changed while they were read"):
            grouped([(slots, samples)], np.array(wrong))
