"""Integers of 63 bits in sums of 256 bits, against Python's integers and fractions."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from conftest import COMPILED, part
from exact import sums
from hypothesis import example, given
from hypothesis import strategies as st

from labeltrack._core.accumulator import Accumulator
from labeltrack._core.arrays import aligned_words
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


def pairs_of(us):
    words = np.zeros((kernels.WIDE_BLOCK, 2), dtype=np.int64)
    for i, u in enumerate(us):
        words[i] = u, MOST - u
    return words.reshape(-1)


def scratch():
    block = kernels.WIDE_BLOCK
    return (
        np.zeros(2 * block, dtype=np.int64),
        np.zeros(block, dtype=np.uint64),
        np.zeros(kernels.WIDE_SCRATCH, dtype=np.uint64),
        np.zeros(kernels.WIDE_QUEUE, dtype=np.uint64),
        aligned_words(4 * kernels.WIDE_ROW),
    )


def reduce(labels, samples, size, shift, *, copies=1, finer=False, low=0, negative=True):
    """Return the position reached, the table, what is set aside, and whether it was too much."""
    table = aligned_words(kernels.WIDE_TABLES * size * kernels.WIDE_ROW)
    aside = np.zeros(4096, dtype=np.int64), np.zeros(4096)
    position, n, poor = kernels.reduce_wide(
        labels,
        samples,
        0,
        len(samples),
        low,
        size,
        copies,
        finer,
        table,
        2.0**shift,
        negative,
        *scratch(),
        *aside,
        0,
    )
    return position, table, (aside[0][:n], aside[1][:n]), poor


def drained(table, size, shift, *, negative, finer=False, fresh=False):
    accumulator = Accumulator(size)
    keys, values = np.empty(64 * size, dtype=np.int64), np.empty(64 * size)
    if fresh:
        accumulator._rows = table.view(np.float64)
    row, n = kernels.drain_wide(
        table, 2.0**shift, negative, finer, 0, fresh, accumulator.rows, accumulator.counts, keys, values, 0
    )
    assert row == table.shape[0] // kernels.WIDE_ROW
    accumulator.keys, accumulator.values, accumulator._settled = keys[:n], values[:n], False
    return accumulator


def test_no_word_of_a_row_overflows_and_the_sums_are_determined():
    n = kernels.WIDE_DRAIN
    assert n * (WORD >> kernels.WIDE_SHIFT) < 2 ** (64 - kernels.WIDE_COUNT)
    assert n < 2**kernels.WIDE_COUNT
    # What the shifts leave away is known modulo 2**64.
    assert n * (2**kernels.WIDE_SHIFT - 1) < 2**64


@pytest.mark.parametrize("negative", [False, True])
def test_the_most_samples_of_the_most_are_drained_exactly(negative):
    for u in (0, 1, 2**32 - 1, 2**62, MOST):
        table = aligned_words(8)
        table[:] = row_of([u], kernels.WIDE_DRAIN)
        x = Fraction(u - (2**62 if negative else 0))
        n = kernels.WIDE_DRAIN
        assert drained(table, 1, 0, negative=negative).exact(0) == (n, n * x, n * x * x)


@given(st.lists(st.one_of(st.integers(0, MOST), st.sampled_from([0, 1, MOST])), max_size=40))
def test_a_row_is_the_sum_that_python_has(us):
    table, other = aligned_words(8), aligned_words(8)
    words = pairs_of(us)
    for i in range(len(us)):
        part(kernels._add_near)(
            np.zeros(1, dtype=np.int32), np.uint64(0), words[2 * i :].copy(), np.uint64(1), 0, table
        )
    assert table.tolist() == row_of(us)
    half = len(us) // 2
    runs = np.zeros(len(us), dtype=np.int32)
    lines = aligned_words(32)
    part(kernels._add_runs)(runs, np.uint64(0), words, np.uint64(half), 0, other, lines)
    part(kernels._add_runs)(runs, np.uint64(0), words[2 * half :].copy(), np.uint64(len(us) - half), 0, other, lines)
    assert other.tolist() == row_of(us)
    assert not lines.any()


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
    kernels.to_wide(samples, 0, m, 2.0**shift, negative, 1 if finer else 0, words, offsets)
    for i, v in enumerate(values):
        pair = words[2 * i : 2 * i + 2].tolist()
        scaled = Fraction(v) * 2**shift * 2 ** (kernels.WIDE_FINER * int(offsets[i])) if math.isfinite(v) else None
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
    st.integers(1, kernels.WIDE_DRAIN // 30),
    st.booleans(),
    st.integers(0, 300),
)
def test_draining_is_exact_up_to_the_largest_count(us, times, negative, shift):
    table = aligned_words(8)
    table[:] = row_of(us, times)
    accumulator = drained(table, 1, shift, negative=negative)
    numbers = [Fraction(u - (2**62 if negative else 0), 2**shift) for u in us]
    assert accumulator.exact(0) == (len(us) * times, times * sum(numbers), times * sum(x * x for x in numbers))
    assert accumulator.totals().min[0] == float(min(numbers))
    assert accumulator.totals().max[0] == float(max(numbers))
    assert not table.any()
    # In place, beside a row of no samples.
    table = aligned_words(16)
    table[8:] = row_of(us, times)
    there = drained(table, 2, shift, negative=negative, fresh=True)
    assert there.exact(1) == accumulator.exact(0)
    assert there.rows[8:].tolist() == accumulator.rows.tolist()
    assert there.rows[:8].tolist() == Accumulator(1).rows.tolist()


def test_draining_stops_when_the_spills_are_full_and_goes_on():
    us = [2**62 + 12345]
    table = aligned_words(24)
    table[:] = row_of(us) * 3
    accumulator = Accumulator(3)
    for slot in range(3):
        accumulator.rows[slot * 8 + 1 : slot * 8 + 6] = [1e100, 1e60, 1e100, 1e60, 1e20]
        accumulator.counts[slot * 8] = 5
    spilled, row, calls = [Fraction(0)] * 2, 0, 0
    keys, values = np.empty(7, dtype=np.int64), np.empty(7)
    while row < 3:
        row, n = kernels.drain_wide(
            table, 2.0**90, False, False, row, False, accumulator.rows, accumulator.counts, keys, values, 0
        )
        for key, value in zip(keys[:n].tolist(), values[:n].tolist(), strict=True):
            spilled[key % 8] += Fraction(value)
        calls += 1
    assert calls > 1
    x = Fraction(us[0], 2**90)
    words = accumulator.rows.reshape(3, 8)
    assert sum(map(Fraction, words[:, 1:3].ravel().tolist())) + spilled[0] == 3 * (Fraction(1e100) + Fraction(1e60) + x)
    squares = Fraction(1e100) + Fraction(1e60) + Fraction(1e20) + x * x
    assert sum(map(Fraction, words[:, 3:6].ravel().tolist())) + spilled[1] == 3 * squares


@pytest.mark.parametrize("way", ["near", "far", "few", "runs", "finer"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("negative", [False, True])
def test_every_loop_is_exact_and_sets_aside_what_does_not_suit(way, dtype, negative):
    rng = np.random.default_rng(1)
    n = 5000 if COMPILED else 700
    size = {"few": 3, "far": 5000}.get(way, 40)
    samples = (rng.normal(size=n) if negative else rng.random(n)).astype(dtype)
    if way == "finer":
        samples *= np.exp(rng.uniform(-12, 0, n)).astype(dtype)
    samples[::197] = 2.0**-120
    samples[5::231] = 2.0**40
    samples[::333] = np.nan
    samples[1::333] = np.inf
    labels = rng.integers(0, size, n).astype(np.int32)
    if way == "runs":
        labels.sort()
    shift = 58
    position, table, (slots, aside), poor = reduce(
        labels,
        samples,
        size,
        shift,
        copies=4 if way == "few" else 1,
        finer=way == "finer",
        negative=negative,
    )
    assert (position, poor) == (n, False)
    accumulator = drained(table, size, shift, negative=negative, finer=way == "finer")
    odd = 0
    for slot in range(size):
        mine = samples[labels == slot]
        put_aside = aside[slots == slot]
        odd += put_aside.size
        held = mine[np.isfinite(mine)].tolist()
        for value in put_aside[np.isfinite(put_aside)].tolist():
            held.remove(value)
        assert put_aside[~np.isfinite(put_aside)].size == (~np.isfinite(mine)).sum()
        assert accumulator.exact(slot) == sums(held)
        if held:
            totals = accumulator.totals()
            assert (totals.min[slot], totals.max[slot]) == (min(held), max(held))
    assert 0 < odd < 0.1 * n


def test_a_sample_that_does_not_suit_as_the_first_of_its_label_leaves_nothing():
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
    position, table, *_ = reduce(labels, samples, 2, 1, negative=False, copies=copies)
    assert position == at
    accumulator = drained(table[: copies * 16], 2, 1, negative=False)
    assert accumulator.exact(0) == sums(samples[:at])


def test_samples_that_do_not_suit_are_too_many_at_some_time():
    samples = np.full(20_000, 0.1)
    samples[::5] = np.nan
    position, _, (slots, _), poor = reduce(np.zeros(20_000, dtype=np.int32), samples, 1, 60)
    assert poor
    assert position < 2000
    assert slots.size == len(range(0, position, 5))
