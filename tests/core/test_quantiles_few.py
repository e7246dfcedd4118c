"""Quantiles of few labels: equal to numpy's bit for bit, whichever cells samples fall in."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import COMPILED
from exact import quantiles
from hypothesis import given
from hypothesis import strategies as st

import labeltrack as lt
from labeltrack._core import quantiles as _quantile
from labeltrack._core import quantiles_few as _quantile_few
from labeltrack._core.quantiles import Samples, reduce_quantiles

N = 20_000 if COMPILED else 2_000
FRACTIONS = (0.0, 0.05, 0.25, 1 / 3, 0.5, 0.75, 0.95, 1.0)


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    """Use this algorithm with few samples already."""
    monkeypatch.setattr(_quantile_few, "_DIGIT", 4)
    monkeypatch.setattr(_quantile_few, "_ENOUGH", 1)
    monkeypatch.setattr(_quantile_few, "_LEAST_SPREAD", 0)  # however many samples are in the cells
    monkeypatch.setattr(_quantile, "_BLOCK", 700)  # several of those that are cast or hashed first


@pytest.fixture
def taken(monkeypatch):
    """Return the calls of the algorithm."""
    calls = []

    def few(*arguments):
        calls.append(arguments)
        return _quantile_few.few_quantiles(*arguments)

    monkeypatch.setattr(_quantile, "few_quantiles", few)
    return calls


def ours(labels, values, fractions=FRACTIONS, **options):
    stats = lt.label_stats(labels, values, quantiles=fractions, **options)
    return np.array([stats.quantile(fraction) for fraction in fractions])


SHAPES = {
    "exponential": lambda rng: rng.exponential(size=N),
    "normal": lambda rng: rng.normal(size=N),
    "negative": lambda rng: -rng.exponential(size=N),
    "many magnitudes": lambda rng: rng.normal(size=N) * 10.0 ** rng.integers(-30, 30, N),
    "integers": lambda rng: rng.integers(-3, 4, N).astype(float),
    "zeros of both signs": lambda rng: np.where(rng.random(N) < 0.5, 0.0, -0.0),
    "zeros and negative": lambda rng: np.where(rng.random(N) < 0.5, -0.0, -rng.random(N)),
    "one": lambda _: np.full(N, 2.5),
    "one far away": lambda rng: np.where(np.arange(N) == 7, 3e38, rng.random(N)),
    "next to one another": lambda rng: (rng.integers(0, 50, N) + (1 << 23)).astype(float),
    "subnormal": lambda rng: rng.integers(-9, 9, N) * 1.4012984643e-45,
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("way", [0, -1])
def test_quantiles_of_any_samples_are_those_of_numpy(shape, dtype, threads, way, taken, monkeypatch):
    monkeypatch.setattr(_quantile_few, "_best", lambda shares: range(len(shares))[way])
    rng = np.random.default_rng(1)
    values = SHAPES[shape](rng).astype(dtype)
    labels = rng.integers(0, 7, N)
    labels[labels == 3] = 11
    found = ours(labels, values, threads=threads)
    np.testing.assert_array_equal(found, quantiles(labels, values, FRACTIONS))
    assert len(taken) == 1


@pytest.mark.parametrize(
    "labels",
    [
        np.random.default_rng(1).integers(0, 7, N).astype(np.uint8),
        np.random.default_rng(1).integers(-5, 5, N).astype(np.int32),
        np.random.default_rng(2).integers(0, 2**62, 20)[np.random.default_rng(3).integers(0, 20, N)],
        np.sort(np.random.default_rng(4).integers(0, 32, N)),
        np.random.default_rng(5).choice(["cat", "dog", "eel"], N),
        np.random.default_rng(5).choice([0.5, -1.5], N),
        np.random.default_rng(5).choice([True, False], N),
    ],
    ids=lambda labels: str(labels.dtype),
)
def test_all_kinds_of_labels_are_counted(labels, taken):
    values = np.random.default_rng(6).normal(size=N).astype(np.float32)
    for threads in (1, 3):
        np.testing.assert_array_equal(ours(labels, values, threads=threads), quantiles(labels, values, FRACTIONS))
    assert len(taken) == 2


def test_labels_that_are_not_mapped_are_ignored(taken):
    rng = np.random.default_rng(7)
    labels, values = rng.integers(0, 9, N), rng.random(N)
    stats = lt.label_stats(labels, values, quantiles=FRACTIONS, label_mapping={"b": 6, "a": 2})
    kept = (labels == 2) | (labels == 6)
    found = np.array([stats.quantile(fraction) for fraction in FRACTIONS])
    np.testing.assert_array_equal(found, quantiles(labels[kept], values[kept], FRACTIONS))
    assert len(taken) == 1


def test_parts_of_several_dtypes_go_together_and_empty_slots_have_none(taken):
    rng = np.random.default_rng(8)
    first, second = rng.integers(0, 3, N).astype(np.int32), rng.integers(10, 12, N)
    a, b = rng.random(N, dtype=np.float32), rng.random(N)
    parts = [
        Samples([(first[: N // 2], a[: N // 2]), (first[N // 2 :], a[N // 2 :])], np.arange(3), np.array([0, 1, 2])),
        Samples([(second, b)], np.array([10, 11]), np.array([2, 4])),
    ]
    slots = np.concatenate([first, np.where(second == 10, 2, 4)])
    values = np.concatenate([a.astype(np.float64), b])
    counts = np.bincount(slots, minlength=5)
    ends = np.array(
        [(values[slots == k].min(), values[slots == k].max()) if counts[k] else (np.nan,) * 2 for k in range(5)]
    )
    found = reduce_quantiles(parts, counts, FRACTIONS, extremes=(ends[:, 0], ends[:, 1]), threads=2)
    assert np.isnan(found[:, 3]).all()
    np.testing.assert_array_equal(np.delete(found, 3, axis=1), quantiles(slots, values, FRACTIONS))
    assert len(taken) == 1


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
def test_samples_that_are_not_finite_are_grouped(odd, taken):
    rng = np.random.default_rng(9)
    labels, values = rng.integers(0, 3, N), rng.random(N)
    values[17] = odd
    stats = lt.label_stats(labels, values, quantiles=[0.25], nan_policy="omit")
    kept = ~np.isnan(values)
    np.testing.assert_array_equal(stats.quantile(0.25), quantiles(labels[kept], values[kept], [0.25])[0])
    assert not taken


def test_samples_that_change_meanwhile_are_harmless():
    """Some are outside the cells, others more than were counted: nothing is written out of bounds."""
    rng = np.random.default_rng(10)
    labels, values = rng.integers(0, 3, N), rng.random(N)
    counts = np.bincount(labels)
    ends = (np.full(3, 0.2), np.full(3, 0.7))
    parts = [Samples([(labels, values)], np.arange(3), np.arange(3))]
    assert reduce_quantiles(parts, counts, [0.1, 0.9], extremes=ends, threads=2).shape == (2, 3)
    assert reduce_quantiles(parts, counts * 2, [0.1, 0.9], extremes=ends, threads=1).shape == (2, 3)


@pytest.mark.parametrize("shape", SHAPES)
def test_samples_that_lie_close_together_are_grouped(shape, monkeypatch):
    monkeypatch.setattr(_quantile_few, "_LEAST_SPREAD", 8)
    monkeypatch.setattr(_quantile_few, "_DIGIT", 8)
    answers = []
    monkeypatch.setattr(_quantile, "few_quantiles", lambda *given: answers.append(_quantile_few.few_quantiles(*given)))
    rng = np.random.default_rng(12)
    values, labels = SHAPES[shape](rng), rng.integers(0, 3, N)
    np.testing.assert_array_equal(ours(labels, values, [0.5]), quantiles(labels, values, [0.5]))
    close = shape in ("integers", "zeros of both signs", "zeros and negative", "one")
    assert (answers[0] is None) == close


def test_doubles_of_both_signs_spread_by_value_and_many_magnitudes_by_bits():
    rng = np.random.default_rng(13)
    for values, linear in ((rng.normal(size=N), True), (10.0 ** rng.uniform(-200, 200, N), False)):
        slots = np.zeros(N, dtype=np.int64)
        ends = np.array([values.min()]), np.array([values.max()])
        counts = np.array([N])
        cells, share = _quantile_few._cells(ends, counts, np.dtype(float), slots, values)
        assert cells.linear == linear
        assert share < 0.5


def test_gaps_beyond_the_largest_double_are_silent(taken):
    labels, values = np.zeros(N, dtype=int), np.tile([-1.7e308, 1.7e308], N // 2)
    with np.errstate(all="raise"):
        found = ours(labels, values, [0.25, 0.5])
    np.testing.assert_array_equal(found, quantiles(labels, values, [0.25, 0.5]))
    np.testing.assert_array_equal(found[:, 0], [-1.7e308, 0.0])
    assert len(taken) == 1


def test_a_slot_without_samples_at_the_end_has_none():
    labels, values = np.repeat([0, 1], N), np.random.default_rng(14).random(2 * N)
    parts = [Samples([(labels, values)], np.arange(3), np.arange(3))]
    ends = (
        np.array([values[:N].min(), values[N:].min(), np.nan]),
        np.array([values[:N].max(), values[N:].max(), np.nan]),
    )
    found = reduce_quantiles(parts, np.array([N, N, 0]), [0.5], extremes=ends)
    np.testing.assert_array_equal(found[:, :2], quantiles(labels, values, [0.5]))
    assert np.isnan(found[0, 2])


@given(
    st.lists(st.tuples(st.integers(0, 3), st.floats(-1e300, 1e300)), min_size=70, max_size=200),
    st.lists(st.floats(0, 1), min_size=1, max_size=4, unique=True),
)
def test_any_samples_and_fractions(pairs, fractions):
    labels, values = (np.array(column) for column in zip(*pairs, strict=True))
    fractions = sorted(fractions)
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(ours(labels, values, fractions), quantiles(labels, values, fractions))


def test_few_labels_with_many_samples_are_counted():
    few = _quantile_few.is_few
    assert few(np.array([64, 64]), [0.5])
    assert not few(np.array([10, 10]), [0.5])
    assert not few(np.array([], dtype=np.int64), [0.5])
    assert not few(np.full(65, 1000), [0.5])
    assert few(np.full(64, 1000), [0.5])
    assert not few(np.full(32, 10**6), np.linspace(0, 1, 1100).tolist())
    assert not few(np.array([1 << 32]), [0.5])


@pytest.mark.parametrize("linear", [False, True])
@pytest.mark.parametrize("size", [1, 15, 16, 31, 32, 33, 63, 64])
def test_the_largest_sample_of_the_last_label_has_a_cell_of_its_own(size, linear, taken, monkeypatch):
    monkeypatch.setattr(_quantile_few, "_DIGIT", 11)  # as many cells as there can be
    monkeypatch.setattr(_quantile_few, "_best", lambda shares: min(int(linear), len(shares) - 1))
    monkeypatch.setattr(_quantile_few, "_ENOUGH", 0)
    labels = np.arange(40 * size) % (size + 1)
    values = (1 + np.random.default_rng(0).random(40 * size)).astype(np.float32)
    values[: size + 1] = 1.0
    values[-size - 1 :] = np.nextafter(np.float32(2.0), np.float32(0.0))  # all bits of the digit are set, either way
    values[labels == size] = -1.0  # ignored, with a cell of its own
    kept = labels < size
    found = ours(labels, values, label_mapping={str(k): k for k in range(size)})
    assert np.array_equal(found, quantiles(labels[kept], values[kept], FRACTIONS))
    assert len(taken) == 1
