"""The fixed-point road: exact like the other one, and taken only where it pays."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from conftest import COMPILED
from exact import expected, hard_cases
from hypothesis import given, settings
from hypothesis import strategies as st

from labeltrack import _fixed
from labeltrack import _kernels as kernels
from labeltrack._accumulate import Accumulator
from labeltrack._fixed import FixedPoint, empty_table

CASES = {name: x for name, x in hard_cases().items() if x.dtype in (np.float32, np.float64)}


@pytest.fixture(name="_eager")
def _eager_fixture(monkeypatch):
    """Try fixed point on any number of samples."""
    monkeypatch.setattr(_fixed, "LEAST", 1)
    monkeypatch.setattr(_fixed, "_SAMPLES_A_LABEL", 0)


def read(accumulator, slot=0):
    return tuple(column[slot].item() for column in accumulator.totals())


def of(accumulator, slot=0):
    return accumulator.exact(slot)


def sums(values):
    numbers = [Fraction(float(v)) for v in values]
    return len(numbers), sum(numbers), sum(x * x for x in numbers)


@given(st.lists(st.integers(-(2**39) + 1, 2**39 - 1), min_size=1, max_size=30))
def test_integers_up_to_the_limit_are_added_exactly(numbers):
    table = empty_table(1)
    for y in numbers:
        kernels._add_run(np.zeros(1, dtype=np.int32), np.array([y + kernels._MAGIC_BITS]), 0, 1, False, table)
    aa, ab, bb, total, count, low, high, _ = table.tolist()
    assert aa * 2**40 + 2 * ab * 2**20 + bb == sum(y * y for y in numbers)
    assert (total, count, low, high) == (sum(numbers), len(numbers), min(numbers), max(numbers))


def test_no_sum_overflows_before_it_is_drained():
    largest = int(kernels._FIXED_LIMIT)
    half = 1 << 20
    assert kernels.FIXED_DRAIN * max(largest, (largest // half) * half, half * half, (largest // half) ** 2) < 2**63


@given(st.lists(st.floats(width=32), min_size=1, max_size=20), st.integers(-60, 60))
def test_conversion_keeps_integers_and_counts_everything_else(values, shift):
    samples, scale = np.array(values, dtype=np.float32), 2.0**shift
    block = np.zeros(len(values))
    bad = kernels.to_fixed(samples, scale, block)
    wrong = 0
    for v, word in zip(samples.tolist(), block.view(np.int64).tolist(), strict=True):
        scaled = Fraction(v) * Fraction(2) ** shift if math.isfinite(v) else None
        if scaled is None or scaled.denominator != 1 or abs(scaled) >= 2**39:
            wrong += 1
        else:
            assert word - kernels._MAGIC_BITS == scaled
    assert bad == wrong


def test_draining_adds_the_exact_sums_and_leaves_an_empty_table():
    rng = np.random.default_rng(0)
    values = rng.integers(-(2**38), 2**38, 300) * 2.0**-70
    slots = rng.integers(0, 3, 300).astype(np.int32)
    words = (values * 2.0**70).astype(np.int64) + kernels._MAGIC_BITS
    table = empty_table(4)
    assert kernels._add_run(slots, words, 0, 4, False, table) == 300
    accumulator = Accumulator(4)
    spills = np.empty(8, dtype=np.int64), np.empty(8)
    slot, n = kernels.drain_fixed(table, 2.0**70, 0, accumulator.rows, accumulator.counts, *spills, 0)
    assert (slot, n) == (4, 0)
    for k in range(3):
        assert of(accumulator, k) == sums(values[slots == k])
        assert read(accumulator, k) == expected(values[slots == k])
    assert np.array_equal(table, empty_table(4))


def test_draining_stops_when_the_spills_are_full_and_goes_on():
    table = empty_table(3)
    accumulator = Accumulator(3)
    words = np.array([2**38 + 12345 + kernels._MAGIC_BITS])
    for slot in range(3):
        for j, x in zip(range(1, 6), [1e100, 1e60, 1e100, 1e60, 1e20], strict=True):
            accumulator.rows[slot * 8 + j] = x
        kernels._add_run(np.array([slot]), words, 0, 3, False, table)
    spilled = [Fraction(0)] * 2
    slot, calls = 0, 0
    keys, values = np.empty(9, dtype=np.int64), np.empty(9)
    while slot < 3:
        slot, n = kernels.drain_fixed(table, 2.0**90, slot, accumulator.rows, accumulator.counts, keys, values, 0)
        for key, value in zip(keys[:n].tolist(), values[:n].tolist(), strict=True):
            spilled[key % 8] += Fraction(value)
        calls += 1
    assert calls > 1
    sample = Fraction(2**38 + 12345, 2**90)
    words_of = [accumulator.rows.reshape(3, 8)[:, a:b].ravel().tolist() for a, b in ((1, 3), (3, 6))]
    assert sum(map(Fraction, words_of[0])) + spilled[0] == 3 * (Fraction(1e100) + Fraction(1e60) + sample)
    squares = Fraction(1e100) + Fraction(1e60) + Fraction(1e20) + sample * sample
    assert sum(map(Fraction, words_of[1])) + spilled[1] == 3 * squares


@pytest.mark.usefixtures("_eager")
@pytest.mark.parametrize("name", CASES)
def test_every_hard_case_is_exact_on_this_road_too(name):
    values = CASES[name]
    accumulator = Accumulator(3)
    slots = (np.arange(values.size) % 3).astype(np.int32)
    for part in np.array_split(np.arange(values.size), 5):
        assert accumulator.add(slots[part], values[part]) == part.size
    for slot in range(min(3, values.size)):
        assert of(accumulator, slot) == sums(values[slots == slot])
        assert read(accumulator, slot) == expected(values[slots == slot])


@pytest.mark.usefixtures("_eager")
@settings(suppress_health_check=list(__import__("hypothesis").HealthCheck))
@given(
    st.lists(
        st.tuples(
            st.integers(0, 2),
            st.one_of(
                st.integers(-64, 64).map(lambda k: k / 16),
                st.floats(width=32),
            ),
        ),
        min_size=1,
        max_size=60,
    )
)
def test_samples_that_fit_and_samples_that_do_not_may_come_in_any_mixture(pairs):
    slots = np.array([slot for slot, _ in pairs], dtype=np.int32)
    values = np.array([value for _, value in pairs], dtype=np.float32)
    accumulator = Accumulator(3)
    accumulator._fixed.scale = 2.0**20  # as chosen by earlier samples
    accumulator._fixed._table = empty_table(3)
    accumulator._fixed._block = np.empty(kernels.FIXED_BLOCK)
    accumulator.add(slots, values)
    for slot in range(3):
        mine = values[slots == slot]
        assert of(accumulator, slot) == sums(mine[np.isfinite(mine)])
        assert accumulator.nonfinite[slot].sum() == (~np.isfinite(mine)).sum()


def long_run(rng, n):
    values = rng.exponential(1, n).astype(np.float32)
    values[rng.integers(0, n, n // 200)] *= np.float32(1e-6)  # too fine
    values[rng.integers(0, n, n // 300)] = 1e9  # too large
    values[rng.integers(0, n, 5)] = np.nan
    return values


def test_a_long_run_with_strays_is_exact_and_took_this_road():
    rng = np.random.default_rng(1)
    n = 30_000 if COMPILED else 6_000
    values, slots = long_run(rng, n), rng.integers(0, 5, n).astype(np.int32)
    accumulator = Accumulator(5)
    accumulator.add(slots, values)
    assert accumulator._fixed.held > n * 0.9
    for slot in range(5):
        mine = values[slots == slot]
        assert of(accumulator, slot) == sums(mine[np.isfinite(mine)])
        assert read(accumulator, slot) == expected(mine[np.isfinite(mine)])


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64])
@pytest.mark.parametrize("stray", [0.25, 1e-7])
def test_a_label_outside_the_table_stops_this_road_or_is_passed_over(dtype, stray):
    n = 5000
    slots = np.zeros(n, dtype=dtype)
    slots[4100] = 9
    values = np.full(n, 0.25, dtype=np.float32)
    values[4100] = stray  # whether it fits or not
    accumulator = Accumulator(2)
    assert accumulator.add(slots, values) == 4100
    assert of(accumulator)[0] == 4100
    accumulator = Accumulator(2)
    assert accumulator.add(slots, values, skip=True) == n
    assert of(accumulator)[0] == n - 1


def test_the_table_is_drained_before_it_can_overflow(monkeypatch):
    monkeypatch.setattr(kernels, "FIXED_DRAIN", 3000)
    values = np.full(10_000, 0.75, dtype=np.float32)
    accumulator = Accumulator(1)
    accumulator.add(np.zeros(10_000, dtype=np.int32), values)
    assert 0 < accumulator._fixed.held <= 3000
    assert of(accumulator) == sums(values)


def test_samples_of_another_magnitude_lead_to_another_unit():
    accumulator = Accumulator(1)
    slots = np.zeros(60_000 if COMPILED else 21_000, dtype=np.int32)
    large = np.full(5000, 1e6, dtype=np.float32)
    small = np.random.default_rng(2).random(slots.size).astype(np.float32) * np.float32(1e-9)
    accumulator.add(slots[:5000], large)
    first = accumulator._fixed.scale
    accumulator.add(slots, small)
    assert accumulator._fixed.scale > first
    assert of(accumulator) == sums([*large, *small])


@pytest.mark.parametrize(
    "values",
    [
        np.full(5000, np.nan, dtype=np.float32),
        np.random.default_rng(3).normal(size=5000),  # 53 bits each
        np.full(5000, 1e300),
        np.full(5000, 1e-300),
        10.0 ** np.random.default_rng(4).uniform(-40, 38, 5000).astype(np.float32),
    ],
    ids=["only NaN", "full doubles", "huge", "tiny", "every magnitude"],
)
def test_samples_that_do_not_suit_go_the_other_road(values):
    accumulator = Accumulator(1)
    accumulator.add(np.zeros(values.size, dtype=np.int32), values)
    assert accumulator._fixed.held == 0
    assert of(accumulator) == sums(values[np.isfinite(values)])


def test_zeros_and_ones_suit_in_either_precision():
    for dtype in (np.float32, np.float64):
        values = (np.arange(5000) % 3 == 0).astype(dtype)
        accumulator = Accumulator(1)
        accumulator.add(np.zeros(5000, dtype=np.int32), values)
        assert accumulator._fixed.held == 5000
        assert read(accumulator) == expected(values)


def test_few_samples_or_many_labels_do_not_try():
    samples = np.ones(5000, dtype=np.float32)
    few = FixedPoint(1)
    assert (few.plan(samples, 0, 100), few.scale) == (100, 0.0)
    many = FixedPoint(2000)
    assert (many.plan(samples, 0, 5000), many.scale) == (5000, 0.0)
    huge = FixedPoint(1 << 17)
    assert (huge.plan(samples, 0, 5000), huge.scale) == (5000, 0.0)


def test_detours_grow_while_nothing_suits_and_shrink_after_success():
    road = FixedPoint(1)
    samples = np.random.default_rng(5).normal(size=200_000)
    position, reaches = 0, []
    while position < samples.size:
        reach = road.plan(samples, position, samples.size)
        reaches.append(reach - position)
        position = reach
    assert reaches[:3] == [1 << 14, 1 << 15, 1 << 16]
    assert road._patience > 1 << 14
    road.note(1 << 20, poor=False)
    assert road._patience == 1 << 14


def test_strays_that_fill_the_spills_stop_the_pass_and_lose_nothing():
    samples = np.full(1024, 0.5)
    samples[5:13] = [1e300, 1e-300, 1e100, 1e-100, 1e200, 1e-200, 1.0 / 3.0, 1e-310]
    labels = np.zeros(1024, dtype=np.int32)
    accumulator = Accumulator(1)
    table, block = empty_table(1), np.empty(kernels.FIXED_BLOCK)
    keys, values = np.empty(6, dtype=np.int64), np.empty(6)
    spilled = {"sum": Fraction(0), "squares": Fraction(0)}
    position, calls = 0, 0
    while position < 1024:
        state = (accumulator.rows, accumulator.counts, accumulator.nonfinite, keys, values, 0)
        position, n, poor = kernels.reduce_fixed(
            labels, samples, position, 1024, 0, 1, False, *state, table, 2.0, block, block.view(np.int64)
        )
        assert not poor
        for key, value in zip(keys[:n].tolist(), values[:n].tolist(), strict=True):
            scale = Fraction(2) ** {0: 0, 1: 0, 2: 600, 3: 1200, 4: -1200}[key]
            spilled["sum" if key in (0, 2) else "squares"] += Fraction(value) * scale
        calls += 1
    assert calls > 2
    row = accumulator.rows.tolist()
    count, total, squares = sums(samples)
    assert accumulator.counts[0] + table[4] == count
    assert Fraction(row[1]) + Fraction(row[2]) + Fraction(int(table[3]), 2) + spilled["sum"] == total
    whole = int(table[0]) * 2**40 + int(table[1]) * 2**21 + int(table[2])
    assert sum(map(Fraction, row[3:6])) + Fraction(whole, 4) + spilled["squares"] == squares
