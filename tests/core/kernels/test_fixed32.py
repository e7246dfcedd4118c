"""Integers of 32 bits in rows of four words, against Python's integers and fractions."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from conftest import COMPILED
from exact import sums
from hypothesis import given
from hypothesis import strategies as st

from labeltrack._core.accumulator import Accumulator
from labeltrack._core.arrays import aligned_words
from labeltrack._core.kernels import DONE, OUTSIDE, UNSUITABLE, fixed
from labeltrack._core.kernels import fixed32 as kernels

MOST = 2**32 - 1
WORD = 2**64 - 1


def signed(word):
    return word - 2**64 if word >> 63 else word


def row_of(ys, times=1):
    """Return the words of a row by Python's integers, of samples that come some times over."""
    packed = sum(y * y >> 43 for y in ys) * times << 21 | len(ys) * times
    extremes = max(ys) | (MOST - min(ys)) << 32 if ys else 0
    return [signed(word & WORD) for word in (sum(ys) * times, sum(y * y for y in ys) * times, packed, extremes)]


def unit_of(shift, *, negative, copies=1):
    return fixed.Unit(2.0**shift, negative, copies, False)


def reduce(labels, samples, size, shift, *, copies=1, low=0, negative=True):
    """Return the position reached, the table, what is queued, and why the pass stopped."""
    table = aligned_words(copies * size * kernels.WORDS)
    queue = np.zeros(8192, dtype=np.int64), np.zeros(8192)
    position, n, status = kernels.reduce(
        fixed.Batch(labels, samples, 0, len(samples), low, size),
        table,
        unit_of(shift, negative=negative, copies=copies),
        fixed.new_scratch(1),
        fixed.Queue(*queue),
        0,
    )
    return position, table, (queue[0][:n], queue[1][:n]), status


def flushed(table, size, shift, *, negative, fresh=False):
    """Return an accumulator with the sums of a table."""
    accumulator = Accumulator(size)
    keys, values = np.empty(64 * size, dtype=np.int64), np.empty(64 * size)
    if fresh:
        accumulator._rows = np.append(table, np.full(table.shape[0], -1)).view(np.float64)
        table = accumulator._rows.view(np.int64)[: table.shape[0]]
    state, number = (accumulator.rows, accumulator.counts), table.shape[0] // kernels.WORDS
    row, n = kernels.flush(table, unit_of(shift, negative=negative), 0, number, fresh, *state, keys, values)
    assert row == number
    accumulator.keys, accumulator.values, accumulator._folded = keys[:n], values[:n], False
    return accumulator


def test_no_word_of_a_row_overflows():
    n, square = fixed.MAX_COUNT, MOST**2
    assert n * MOST < 2**63
    assert n * (square >> fixed.SHIFT) < 2 ** (64 - fixed.COUNT_BITS)


integers = st.one_of(st.integers(0, MOST), st.sampled_from([0, 1, 2**31, MOST]))


@given(st.lists(integers, max_size=40))
def test_a_row_is_the_sum_that_python_has(ys):
    if not ys:
        return
    # Multiples of 1 / 8 as the samples of one label, in turn and in runs.
    samples, labels = np.array(ys, dtype=np.float64) / 8, np.zeros(len(ys), dtype=np.int32)
    for copies in (1, 4):
        _, table, *_ = reduce(labels, samples, 1, 3, copies=copies, negative=False)
        assert table.reshape(copies, 4).tolist() == [row_of(ys[turn::copies]) for turn in range(copies)]
    ones = np.repeat(labels, 80)
    _, table, *_ = reduce(ones, np.repeat(samples, 80), 1, 3, negative=False)
    assert table.tolist() == row_of(ys, 80)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(st.data())
def test_conversion_keeps_integers_and_nothing_else(dtype, data):
    width = 32 if dtype == np.float32 else 64
    numbers = st.integers(-(2**33), 2**33).map(lambda n: float(dtype(n / 2**20)))
    values = data.draw(st.lists(st.one_of(st.floats(width=width), numbers), min_size=1, max_size=70))
    shift, negative = data.draw(st.sampled_from([0, 20, 31, 100])), data.draw(st.booleans())
    samples, m = np.array(values, dtype=dtype), len(values)
    words = np.full(m, 7, dtype=np.int64)
    kernels.convert(samples, 0, m, unit_of(shift, negative=negative), 0, words, np.empty(0, dtype=np.uint64))
    low, high = (-(2**31), 2**31) if negative else (0, 2**32)
    for v, word in zip(values, words.tolist(), strict=True):
        scaled = Fraction(v) * 2**shift if math.isfinite(v) else None
        if scaled is None or scaled.denominator != 1 or not low <= scaled < high:
            assert word == 0
        else:
            y = int(scaled) - low
            assert word == signed(y | (MOST - y) << 32) != 0


@given(
    st.lists(integers, min_size=1, max_size=20),
    st.integers(1, fixed.MAX_COUNT // 20),
    st.booleans(),
    st.booleans(),
    st.integers(0, 100),
)
def test_flushing_is_exact_up_to_the_largest_count(ys, times, negative, fresh, shift):
    table = aligned_words(8)
    table[4:] = row_of(ys, times)
    accumulator = flushed(table, 2, shift, negative=negative, fresh=fresh)
    numbers = [Fraction(y - (2**31 if negative else 0), 2**shift) for y in ys]
    assert accumulator.exact(1) == (len(ys) * times, times * sum(numbers), times * sum(x * x for x in numbers))
    assert accumulator.exact(0) == (0, 0, 0)
    totals = accumulator.totals()
    assert (totals.min[1], totals.max[1]) == (float(min(numbers)), float(max(numbers)))
    if not fresh:
        assert not table.any()


@pytest.mark.parametrize("negative", [False, True])
def test_the_most_samples_of_the_most_are_flushed_exactly(negative):
    for y in (0, 1, 2**31 - 1, 2**31, MOST):
        table = aligned_words(4)
        table[:] = row_of([y], fixed.MAX_COUNT)
        x = Fraction(y - (2**31 if negative else 0))
        n = fixed.MAX_COUNT
        assert flushed(table, 1, 0, negative=negative).exact(0) == (n, n * x, n * x * x)


def test_flushing_stops_when_the_terms_are_full_and_resumes():
    table = aligned_words(12)
    table[:] = row_of([2**31 + 12345]) * 3
    accumulator = Accumulator(3)
    for slot in range(3):
        accumulator.rows[slot * 8 + 1 : slot * 8 + 6] = [1e100, 1e60, 1e100, 1e60, 1e20]
        accumulator.counts[slot * 8] = 5
    overflow, row, calls = [Fraction(0)] * 2, 0, 0
    keys, values = np.empty(5, dtype=np.int64), np.empty(5)
    while row < 3:
        state = accumulator.rows, accumulator.counts, keys, values
        row, n = kernels.flush(table, unit_of(90, negative=False), row, 3, False, *state)
        for key, value in zip(keys[:n].tolist(), values[:n].tolist(), strict=True):
            overflow[key % 8] += Fraction(value)
        calls += 1
    assert calls > 1
    x = Fraction(2**31 + 12345, 2**90)
    words = accumulator.rows.reshape(3, 8)
    assert sum(map(Fraction, words[:, 1:3].ravel().tolist())) + overflow[0] == 3 * (
        Fraction(1e100) + Fraction(1e60) + x
    )
    squares = Fraction(1e100) + Fraction(1e60) + Fraction(1e20) + x * x
    assert sum(map(Fraction, words[:, 3:6].ravel().tolist())) + overflow[1] == 3 * squares


@pytest.mark.parametrize("way", ["near", "far", "few", "few, runs", "runs"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("negative", [False, True])
def test_every_loop_is_exact_regardless_of_rejected_samples(way, dtype, negative):
    rng = np.random.default_rng(2)
    n = 9000 if COMPILED else 900
    size = 3 if "few" in way else kernels._FAR + 1 if way == "far" else 40
    samples = rng.integers(-2000 if negative else 0, 2000, n).astype(dtype) / dtype(1024)
    samples[::97] = 2.0**-30
    samples[5::131] = 2.0**40
    samples[7::211] = 2.0**-90
    samples[::333] = np.nan
    samples[1::333] = -np.inf
    labels = np.minimum(rng.geometric(0.1, n) - 1, size - 1).astype(np.int32)
    if "runs" in way:
        labels.sort()
    shift = 20
    position, table, (slots, queued_samples), status = reduce(
        labels, samples, size, shift, copies=4 if "few" in way else 1, negative=negative
    )
    assert (position, status) == (n, DONE)
    accumulator = flushed(table, size, shift, negative=negative)
    totals = accumulator.totals()
    occurring = np.unique(labels)
    for slot in occurring.tolist():
        mine = samples[labels == slot]
        queued = queued_samples[slots == slot].tolist()
        held = mine[np.isfinite(mine)].tolist()
        assert 2.0**-30 in queued or 2.0**-30 not in held
        for value in queued:
            if math.isfinite(value):
                held.remove(value)
        assert sum(not math.isfinite(value) for value in queued) == (~np.isfinite(mine)).sum()
        assert accumulator.exact(slot) == sums(held)
        if held:
            assert (totals.min[slot], totals.max[slot]) == (min(held), max(held))
    assert totals.count.sum() + slots.size == n


@pytest.mark.parametrize("copies", [1, 4])
def test_a_rejected_sample_that_is_the_first_of_its_label_leaves_nothing(copies):
    samples = np.zeros(8, dtype=np.float32)
    samples[3] = np.nan
    labels = np.array([0, 0, 0, 1, 2, 2, 2, 2], dtype=np.int32)
    _, table, (slots, _), _ = reduce(labels, samples, 3, 10, copies=copies)
    assert slots.tolist() == [1]
    assert not table.reshape(copies, 3, 4)[:, 1, :3].any()


@pytest.mark.parametrize("copies", [1, 4])
@pytest.mark.parametrize("at", [0, 1, 190, 191, 192, 300])
@pytest.mark.parametrize("stray", [False, True])
def test_a_label_outside_the_table_ends_the_pass_before_it(at, copies, stray):
    labels = np.zeros(400, dtype=np.int64)
    labels[at] = 2
    samples = np.arange(400) * 0.5
    if stray:
        samples[at] = np.nan
    samples[at + 1] = np.nan
    position, table, (slots, _), status = reduce(labels, samples, 2, 1, negative=False, copies=copies)
    assert (position, slots.size, status) == (at, 0, OUTSIDE)
    assert flushed(table, 2, 1, negative=False).exact(0) == sums(samples[:at])


def test_the_pass_stops_where_too_many_samples_are_rejected():
    samples = np.full(20_000, 0.5, dtype=np.float32)
    samples[::5] = 2.0**-30
    position, _, (slots, _), status = reduce(np.zeros(20_000, dtype=np.int32), samples, 1, 20)
    assert status == UNSUITABLE
    assert position < 2000
    assert slots.size == len(range(0, position, 5))
