"""Integers of 63 bits in rows of eight words, against Python's integers and fractions."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from conftest import COMPILED
from exact import sums
from hypothesis import example, given
from hypothesis import strategies as st

from labeltrack._core.accumulator import Accumulator
from labeltrack._core.arrays import aligned_words
from labeltrack._core.kernels import DONE, OUTSIDE, UNSUITABLE, fixed
from labeltrack._core.kernels import fixed63 as kernels

MOST = 2**63 - 1
WORD = 2**64 - 1


def signed(word):
    return word - 2**64 if word >> 63 else word


def row_of(us, times=1):
    """Return the words of a row by Python's integers, of samples that come some times over."""
    parts = [[u * u & WORD for u in us], [u * u >> 64 for u in us], us]
    sums = [signed(sum(part) * times & WORD) for part in parts]
    shifted = [sum(x >> 43 for x in part) * times << 21 for part in parts]
    shifted[0] += len(us) * times
    return [*sums, MOST - min(us, default=MOST), *map(signed, shifted), max(us, default=0)]


def unit_of(shift, *, negative, copies=1, finer=False):
    return fixed.Unit(2.0**shift, negative, copies, finer)


def reduce(labels, samples, size, shift, *, copies=1, finer=False, low=0, negative=True):
    """Return the position reached, the table, what is queued, and why the pass stopped."""
    table = aligned_words(4 * size * kernels.WORDS)
    queue, scratch = (np.zeros(4096, dtype=np.int64), np.zeros(4096)), fixed.new_scratch(2)
    position, n, status = kernels.reduce(
        fixed.Batch(labels, samples, 0, len(samples), low, size),
        table,
        unit_of(shift, negative=negative, copies=copies, finer=finer),
        scratch,
        fixed.Queue(*queue),
        0,
    )
    assert scratch.lines.ctypes.data % 64 == 0
    assert not scratch.lines.any()
    return position, table, (queue[0][:n], queue[1][:n]), status


def flushed(table, size, shift, *, negative, finer=False, fresh=False):
    accumulator = Accumulator(size)
    keys, values = np.empty(64 * size, dtype=np.int64), np.empty(64 * size)
    if fresh:
        accumulator._rows = table.view(np.float64)
    unit, number = unit_of(shift, negative=negative, finer=finer), table.shape[0] // kernels.WORDS
    row, n = kernels.flush(table, unit, 0, number, fresh, accumulator.rows, accumulator.counts, keys, values)
    assert row == number
    accumulator.keys, accumulator.values, accumulator._folded = keys[:n], values[:n], False
    return accumulator


def test_no_word_of_a_row_overflows():
    assert fixed.MAX_COUNT * (WORD >> fixed.SHIFT) < 2 ** (64 - fixed.COUNT_BITS)


@pytest.mark.parametrize("negative", [False, True])
def test_the_most_samples_of_the_most_are_flushed_exactly(negative):
    for u in (0, 1, 2**32 - 1, 2**62, MOST):
        table = aligned_words(8)
        table[:] = row_of([u], fixed.MAX_COUNT)
        x = Fraction(u - (2**62 if negative else 0))
        n = fixed.MAX_COUNT
        assert flushed(table, 1, 0, negative=negative).exact(0) == (n, n * x, n * x * x)


@given(st.lists(st.one_of(st.integers(0, MOST), st.sampled_from([0, 1, MOST])), max_size=40))
def test_a_row_is_the_sum_that_python_has(us):
    if not us:
        return
    # The nearest doubles, as the samples of one label, in turn and in runs.
    samples = np.minimum(np.array(us, dtype=np.float64), 2.0**63 - 2.0**10)
    us, labels = [int(x) for x in samples], np.zeros(len(us), dtype=np.int32)
    for copies in (1, 4):
        _, table, *_ = reduce(labels, samples, 1, 0, copies=copies, negative=False)
        rows = [row_of(us[turn::copies]) if us[turn::copies] else [0] * 8 for turn in range(copies)]
        assert table.reshape(4, 8)[:copies].tolist() == rows
    _, table, *_ = reduce(np.repeat(labels, 80), np.repeat(samples, 80), 1, 0, negative=False)
    assert table[:8].tolist() == row_of(us, 80)


@given(
    st.lists(st.one_of(st.floats(), st.integers(-(2**63), 2**63).map(lambda n: n / 2**60)), min_size=1, max_size=70),
    st.sampled_from([0, 40, 60]),
    st.booleans(),
    st.booleans(),
)
@example(values=[2.208415776070488e-12], shift=60, negative=True, finer=True)  # 2**21.3 units, and half a finest one
@example(values=[(2.0**53 - 1) / 2**91, -(2.0**52 + 1) / 2**90], shift=60, negative=True, finer=True)
def test_conversion_keeps_integers_and_nothing_else(values, shift, negative, finer):
    samples, m = np.array(values), len(values)
    words, offsets = np.full(2 * m, 7, dtype=np.int64), np.zeros(m, dtype=np.uint64)
    kernels.convert(samples, 0, m, unit_of(shift, negative=negative, finer=finer), 1, words, offsets)
    for i, v in enumerate(values):
        pair = words[2 * i : 2 * i + 2].tolist()
        scaled = Fraction(v) * 2**shift * 2 ** (kernels.FINER_BITS * int(offsets[i])) if math.isfinite(v) else None
        low, high = (-(2**62), 2**62) if negative else (0, 2**63)
        if scaled is None or scaled.denominator != 1 or not low <= scaled < high:
            assert pair == [0, 0]
        else:
            u = int(scaled) + (2**62 if negative else 0)
            assert pair == [u, MOST - u]
    # One of the four units holds every double that is not too large and not too small: the last of 53 bits is worth
    # at least 2**-30 from 2**22 on, which is one in the finest unit.
    if finer and negative:
        for i, v in enumerate(values):
            if v == 0.0 or (math.isfinite(v) and 2.0**22 <= abs(v) * 2.0**shift < 2.0**62):
                assert words[2 * i + 1] != 0


@given(
    st.lists(st.integers(0, MOST), min_size=1, max_size=30),
    st.integers(1, fixed.MAX_COUNT // 30),
    st.booleans(),
    st.integers(0, 300),
)
def test_flushing_is_exact_up_to_the_largest_count(us, times, negative, shift):
    table = aligned_words(8)
    table[:] = row_of(us, times)
    accumulator = flushed(table, 1, shift, negative=negative)
    numbers = [Fraction(u - (2**62 if negative else 0), 2**shift) for u in us]
    assert accumulator.exact(0) == (len(us) * times, times * sum(numbers), times * sum(x * x for x in numbers))
    assert accumulator.totals().min[0] == float(min(numbers))
    assert accumulator.totals().max[0] == float(max(numbers))
    assert not table.any()
    # In place, beside a row of no samples.
    table = aligned_words(16)
    table[8:] = row_of(us, times)
    there = flushed(table, 2, shift, negative=negative, fresh=True)
    assert there.exact(1) == accumulator.exact(0)
    assert there.rows[8:].tolist() == accumulator.rows.tolist()
    assert there.rows[:8].tolist() == Accumulator(1).rows.tolist()


def test_flushing_stops_when_the_terms_are_full_and_resumes():
    us = [2**62 + 12345]
    table = aligned_words(24)
    table[:] = row_of(us) * 3
    accumulator = Accumulator(3)
    for slot in range(3):
        accumulator.rows[slot * 8 + 1 : slot * 8 + 6] = [1e100, 1e60, 1e100, 1e60, 1e20]
        accumulator.counts[slot * 8] = 5
    overflow, row, calls = [Fraction(0)] * 2, 0, 0
    keys, values = np.empty(7, dtype=np.int64), np.empty(7)
    while row < 3:
        state = accumulator.rows, accumulator.counts, keys, values
        row, n = kernels.flush(table, unit_of(90, negative=False), row, 3, False, *state)
        for key, value in zip(keys[:n].tolist(), values[:n].tolist(), strict=True):
            overflow[key % 8] += Fraction(value)
        calls += 1
    assert calls > 1
    x = Fraction(us[0], 2**90)
    words = accumulator.rows.reshape(3, 8)
    assert sum(map(Fraction, words[:, 1:3].ravel().tolist())) + overflow[0] == 3 * (
        Fraction(1e100) + Fraction(1e60) + x
    )
    squares = Fraction(1e100) + Fraction(1e60) + Fraction(1e20) + x * x
    assert sum(map(Fraction, words[:, 3:6].ravel().tolist())) + overflow[1] == 3 * squares


@pytest.mark.parametrize("way", ["near", "far", "few", "few, runs", "runs", "finer"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("negative", [False, True])
def test_every_loop_is_exact_and_queues_what_it_rejects(way, dtype, negative):
    rng = np.random.default_rng(1)
    n = 5000 if COMPILED else 700
    size = 3 if "few" in way else 5000 if way == "far" else 40
    samples = (rng.normal(size=n) if negative else rng.random(n)).astype(dtype)
    if way == "finer":
        samples *= np.exp(rng.uniform(-12, 0, n)).astype(dtype)
    samples[::197] = 2.0**-120
    samples[5::231] = 2.0**40
    samples[::333] = np.nan
    samples[1::333] = np.inf
    labels = rng.integers(0, size, n).astype(np.int32)
    if "runs" in way:
        labels.sort()
    shift = 58
    position, table, (slots, queued_samples), status = reduce(
        labels,
        samples,
        size,
        shift,
        copies=4 if "few" in way else 1,
        finer=way == "finer",
        negative=negative,
    )
    assert (position, status) == (n, DONE)
    accumulator = flushed(table, size, shift, negative=negative, finer=way == "finer")
    odd, totals = 0, accumulator.totals()
    for slot in range(size):
        mine = samples[labels == slot]
        queued = queued_samples[slots == slot]
        odd += queued.size
        held = mine[np.isfinite(mine)].tolist()
        for value in queued[np.isfinite(queued)].tolist():
            held.remove(value)
        assert queued[~np.isfinite(queued)].size == (~np.isfinite(mine)).sum()
        assert accumulator.exact(slot) == sums(held)
        if held:
            assert (totals.min[slot], totals.max[slot]) == (min(held), max(held))
    assert 0 < odd < 0.1 * n


def test_a_rejected_sample_that_is_the_first_of_its_label_leaves_nothing():
    samples = np.zeros(8)
    samples[3] = np.nan
    labels = np.array([0, 0, 0, 1, 2, 2, 2, 2], dtype=np.int32)
    _, table, (slots, _), _ = reduce(labels, samples, 3, 10, negative=False, copies=4)
    assert slots.tolist() == [1]
    rows = table.reshape(4, 3, 8)
    assert not rows[:, 1].any()
    _, table, (slots, _), _ = reduce(labels, samples, 3, 10, negative=False)
    assert slots.tolist() == [1]
    assert not table.reshape(4, 3, 8)[:, 1].any()


@pytest.mark.parametrize("copies", [1, 4])
@pytest.mark.parametrize("at", [0, 1, 190, 191, 192, 300])
def test_a_label_outside_the_table_ends_the_pass_before_it(at, copies):
    labels = np.zeros(400, dtype=np.int64)
    labels[at] = 2
    samples = np.arange(400) * 0.5
    position, table, _, status = reduce(labels, samples, 2, 1, negative=False, copies=copies)
    assert (position, status) == (at, OUTSIDE)
    accumulator = flushed(table[: copies * 16], 2, 1, negative=False)
    assert accumulator.exact(0) == sums(samples[:at])


def test_the_pass_stops_where_too_many_samples_are_rejected():
    samples = np.full(20_000, 0.1)
    samples[::5] = np.nan
    position, _, (slots, _), status = reduce(np.zeros(20_000, dtype=np.int32), samples, 1, 60)
    assert status == UNSUITABLE
    assert position < 2000
    assert slots.size == len(range(0, position, 5))
