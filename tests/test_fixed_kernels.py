"""The road of integers of 40 bits, against rational arithmetic. Runs compiled and as plain Python."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from conftest import part
from exact import expected, read, sums
from hypothesis import given
from hypothesis import strategies as st

from labeltrack import _fixed_kernels as kernels
from labeltrack._accumulate import Accumulator
from labeltrack._fixed import empty_table


def add_narrow(slots, words, size, table):
    """Add integers to a table by the loop for tables that the cache holds."""
    words, last = np.asarray(words, dtype=np.int64), np.uint64(len(words))
    return part(kernels._add_near)(slots, np.uint64(0), words, np.uint64(0), last, 0, np.uint64(size), table)


def add_quickly(slots, words, size, table):
    """Do the same by the loop without extremes, and the one that looks for them."""
    block = np.zeros(kernels.FIXED_BLOCK, dtype=np.int64)
    block[len(words) :] = 1 << 61  # what an earlier block left must not count
    block[: len(words)] = words
    m = np.uint64(len(words))
    with np.errstate(over="ignore"):
        reached = part(kernels._add_sums)(slots, np.uint64(0), block, m, 0, np.uint64(size), table)
    least, most = part(kernels._common_range)(table, size)
    aside = np.empty(len(words), dtype=np.int64), np.empty(len(words))
    samples = np.arange(len(words)) + 0.5
    with np.errstate(over="ignore"):
        n = part(kernels._sift)(
            slots, samples, np.uint64(0), block, np.uint64(reached), 0, table, least, most, *aside, 0
        )
    return reached, aside[0][:n], aside[1][:n]


integers = st.lists(st.integers(-(2**39) + 1, 2**39 - 1), min_size=1, max_size=40)


@given(integers, st.booleans())
def test_integers_up_to_the_limit_are_added_exactly(numbers, one_label):
    table = empty_table(2)
    slots = np.zeros(len(numbers), dtype=np.int32)
    if not one_label:  # in a row of at least sixteen, another loop adds them
        slots[::3] = 1
    assert add_narrow(slots, numbers, 2, table) == len(numbers)
    for slot in (0, 1):
        mine = [y for y, of_slot in zip(numbers, slots.tolist(), strict=True) if of_slot == slot]
        aa, ab, bb, total, count, low, high, _ = table[slot * 8 : slot * 8 + 8].tolist()
        assert aa * 2**40 + 2 * ab * 2**20 + bb == sum(y * y for y in mine)
        assert (total, count) == (sum(mine), len(mine))
        assert (low, high) == (min(mine, default=2**62), max(mine, default=-(2**62)))


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(-(2**39) + 1, 2**39 - 1), st.booleans()), max_size=40),
    st.lists(st.tuples(st.integers(0, 2), st.integers(-(2**39) + 1, 2**39 - 1)), max_size=20),
)
def test_extremes_and_strays_are_found_afterwards(pairs, before):
    tables = [empty_table(3) for _ in range(2)]
    earlier = np.array([slot for slot, _ in before], dtype=np.int32)
    for table in tables:
        add_narrow(earlier, [y for _, y in before], 3, table)
    slots = np.array([slot for slot, _, _ in pairs], dtype=np.int32)
    words = [kernels._STRAY + i if stray else y for i, (_, y, stray) in enumerate(pairs)]
    reached, aside, samples = add_quickly(slots, words, 3, tables[0])
    assert reached == len(pairs)
    strays = [i for i, (_, _, stray) in enumerate(pairs) if stray]
    assert (aside.tolist(), samples.tolist()) == ([int(slots[i]) for i in strays], [i + 0.5 for i in strays])
    good = [i for i, (_, _, stray) in enumerate(pairs) if not stray]
    add_narrow(slots[good], [words[i] for i in good], 3, tables[1])
    assert np.array_equal(*tables)


def test_a_label_outside_the_table_stops_the_quick_loop_too():
    table, other = empty_table(2), empty_table(2)
    slots = np.array([0, 1, 0, 2, 1], dtype=np.int32)
    reached, *_ = add_quickly(slots, [5, 6, 7, 8, 9], 2, table)
    assert reached == 3
    assert add_narrow(slots, [5, 6, 7, 8, 9], 2, other) == 3
    assert np.array_equal(table, other)


@given(integers)
def test_the_loop_without_branches_adds_the_same(numbers):
    table, branching = empty_table(1), empty_table(1)
    slots = (np.arange(len(numbers)) % 2 * 0).astype(np.int32)
    places = np.zeros(kernels.FIXED_SCRATCH, dtype=np.uint64)
    part(kernels._add_far)(table, places, np.array(numbers), np.uint64(len(numbers)))
    add_narrow(slots, numbers, 1, branching)
    assert np.array_equal(table, branching)


def test_no_sum_overflows_before_it_is_drained():
    largest = int(kernels._FIXED_LIMIT) - 1
    high, low = largest >> 20, (1 << 20) - 1
    assert kernels.FIXED_DRAIN * max(largest, (high + 1) ** 2, (high + 1) * low, low * low) < 2**63


@given(st.lists(st.floats(width=32), min_size=1, max_size=20), st.integers(-60, 60))
def test_conversion_keeps_integers_and_counts_everything_else(values, shift):
    samples, scale = np.array(values, dtype=np.float32), 2.0**shift
    words = np.zeros(len(values), dtype=np.int64)
    bad = kernels.to_fixed(samples, 0, len(values), scale, words)
    wrong = 0
    for i, (v, word) in enumerate(zip(samples.tolist(), words.tolist(), strict=True)):
        scaled = Fraction(v) * Fraction(2) ** shift if math.isfinite(v) else None
        if scaled is None or scaled.denominator != 1 or abs(scaled) >= 2**39:
            wrong += 1
            assert word == kernels._STRAY + i
        else:
            assert word == scaled
    assert bad == wrong


@pytest.mark.parametrize("in_place", [False, True])
def test_draining_adds_the_exact_sums_and_leaves_an_empty_table(in_place):
    rng = np.random.default_rng(0)
    values = rng.integers(-(2**38), 2**38, 300) * 2.0**-70
    slots = rng.integers(0, 3, 300).astype(np.int32)
    table = empty_table(4)
    assert add_narrow(slots, (values * 2.0**70).astype(np.int64), 4, table) == 300
    accumulator = Accumulator(4)
    if in_place:
        accumulator._rows = table.view(np.float64)
    spills = np.empty(8, dtype=np.int64), np.empty(8)
    state = (accumulator.rows, accumulator.counts, *spills, 0)
    slot, n = kernels.drain_fixed(table, 2.0**70, 0, in_place, *state)
    assert (slot, n) == (4, 0)
    for k in range(3):
        assert accumulator.exact(k) == sums(values[slots == k])
        assert read(accumulator, k) == expected(values[slots == k])
    assert accumulator.occupied().tolist() == [0, 1, 2]
    if not in_place:
        assert np.array_equal(table, empty_table(4))


def test_draining_stops_when_the_spills_are_full_and_goes_on():
    table = empty_table(3)
    accumulator = Accumulator(3)
    for slot in range(3):
        for j, x in zip(range(1, 6), [1e100, 1e60, 1e100, 1e60, 1e20], strict=True):
            accumulator.rows[slot * 8 + j] = x
        accumulator.counts[slot * 8] = 5
        add_narrow(np.array([slot]), [2**38 + 12345], 3, table)
    spilled = [Fraction(0)] * 2
    slot, calls = 0, 0
    keys, values = np.empty(9, dtype=np.int64), np.empty(9)
    while slot < 3:
        slot, n = kernels.drain_fixed(
            table, 2.0**90, slot, False, accumulator.rows, accumulator.counts, keys, values, 0
        )
        for key, value in zip(keys[:n].tolist(), values[:n].tolist(), strict=True):
            spilled[key % 8] += Fraction(value)
        calls += 1
    assert calls > 1
    sample = Fraction(2**38 + 12345, 2**90)
    words_of = [accumulator.rows.reshape(3, 8)[:, a:b].ravel().tolist() for a, b in ((1, 3), (3, 6))]
    assert sum(map(Fraction, words_of[0])) + spilled[0] == 3 * (Fraction(1e100) + Fraction(1e60) + sample)
    squares = Fraction(1e100) + Fraction(1e60) + Fraction(1e20) + sample * sample
    assert sum(map(Fraction, words_of[1])) + spilled[1] == 3 * squares
