"""Exact states, merged and settled, against rational arithmetic. Runs compiled and as plain Python."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from conftest import part
from hypothesis import given
from hypothesis import strategies as st

from labeltrack import _accumulate
from labeltrack import _kernels as kernels

finite = st.floats(allow_nan=False, allow_infinity=False)


def test_constants_of_the_driver_are_those_of_the_kernels():
    assert (_accumulate.ROW, _accumulate.KINDS) == (kernels.ROW, kernels.KINDS)
    assert kernels.ROW == kernels.KINDS  # keys of spills are built from indices of rows


@given(st.lists(finite, max_size=30))
def test_the_wide_accumulator_is_exact_over_the_whole_range(numbers):
    digits = np.zeros(kernels.DIGITS, dtype=np.int64)
    for x in numbers:
        part(kernels._wide_add)(digits, x)
    part(kernels._wide_carry)(digits)
    assert sum(int(d) << (32 * i) for i, d in enumerate(digits)) == sum(map(Fraction, numbers)) * 2**1152


@given(st.lists(st.floats(min_value=-1e300, max_value=1e300), min_size=1, max_size=30))
def test_the_head_of_the_wide_accumulator_is_within_a_unit_in_the_last_place(numbers):
    digits = np.zeros(kernels.DIGITS, dtype=np.int64)
    for x in numbers:
        part(kernels._wide_add)(digits, x)
    part(kernels._wide_carry)(digits)
    before = digits.copy()
    head = part(kernels._wide_head)(digits)
    total = sum(map(Fraction, numbers))
    assert np.array_equal(digits, before)
    assert abs(Fraction(head) - total) <= Fraction(math.ulp(head))
    assert (head == 0.0) == (total == 0)


@given(st.lists(st.tuples(st.sampled_from([0, 1, 8, 10, 16]), st.floats(-1e300, 1e300)), min_size=1, max_size=40))
def test_settling_keeps_every_sum_and_leaves_ever_smaller_parts(spills):
    spills.sort(key=lambda pair: pair[0])
    keys = np.array([key for key, _ in spills], dtype=np.int64)
    values = np.array([value for _, value in spills])
    rows = np.zeros(3 * kernels.ROW)
    rows[1], rows[2], rows[3] = 1.0, 2.0**-60, 7.5
    exact = {}
    for key, value in spills:
        exact[key] = exact.get(key, Fraction(0)) + Fraction(value)
    if 0 in exact:
        exact[0] += 1 + Fraction(2) ** -60
    if 1 in exact:
        exact[1] += Fraction(7.5)
    out_keys, out_values = np.empty(400, dtype=np.int64), np.empty(400)
    digits = np.zeros(kernels.DIGITS, dtype=np.int64)
    position, n = kernels.settle(keys, values, 0, rows, digits, out_keys, out_values)
    assert position == keys.size
    for key, total in exact.items():
        row = rows[key // 8 * 8 :]
        words = {0: [row[1], row[2]], 1: [row[3], row[4], row[5]]}.get(key % 8, [])
        parts = [*map(float, words), *out_values[:n][out_keys[:n] == key].tolist()]
        assert sum(map(Fraction, parts)) == total
        for greater, smaller in itertools.pairwise(parts):
            assert abs(smaller) <= math.ulp(greater) or greater == 0.0 == smaller


def test_settling_stops_at_a_group_that_might_not_fit_and_goes_on():
    keys = np.repeat(np.arange(0, 80, 8, dtype=np.int64), 2)
    values = np.tile([1.0, 2.0**-70], 10)
    rows = np.zeros(10 * kernels.ROW)
    digits = np.zeros(kernels.DIGITS, dtype=np.int64)
    out = np.empty(kernels.DIGITS, dtype=np.int64), np.empty(kernels.DIGITS)
    position, calls = 0, 0
    while position < keys.size:
        position, _ = kernels.settle(keys, values, position, rows, digits, *out)
        calls += 1
    assert calls == 1
    assert rows[1 :: kernels.ROW].tolist() == [1.0] * 10
    assert rows[2 :: kernels.ROW].tolist() == [2.0**-70] * 10


def _table(size):
    accumulator = _accumulate.Accumulator(size)
    return accumulator.rows, accumulator.counts, accumulator.nonfinite


@pytest.mark.parametrize("label", [-1, 3, 2**31 - 1, -(2**31)])
def test_a_label_outside_the_table_stops_the_pass_and_writes_nothing(label):
    guarded = np.full(5 * kernels.ROW, 7.0)
    rows = guarded[kernels.ROW : 4 * kernels.ROW]  # a row of guards before and after a table of three
    rows[:] = _table(3)[0]
    labels = np.array([0, 2, label, 1])
    samples = np.ones(4)
    keys, values = np.empty(8, dtype=np.int64), np.empty(8)
    nonfinite = np.zeros((3, 3), dtype=np.int64)
    position, n = kernels.add_exactly(
        labels, samples, 0, 4, 0, 3, rows, rows.view(np.int64), nonfinite, keys, values, 0
    )
    assert (position, n) == (2, 0)
    assert rows.view(np.int64)[:: kernels.ROW].tolist() == [1, 0, 1]
    assert (guarded[: kernels.ROW] == 7.0).all()
    assert (guarded[-kernels.ROW :] == 7.0).all()


def test_the_pass_stops_when_the_spills_are_full_and_loses_nothing():
    rows, counts, nonfinite = _table(1)
    values = np.array([1e30, 1e-30, 1e10, 1e-10, 1.0, 1e25] * 4)
    labels = np.zeros(values.size, dtype=np.int64)
    spill_keys, spill_values = np.empty(5, dtype=np.int64), np.empty(5)
    spilled = {0: Fraction(0), 1: Fraction(0)}
    position, calls = 0, 0
    while position < values.size:
        position, n = kernels.add_exactly(
            labels, values, position, values.size, 0, 1, rows, counts, nonfinite, spill_keys, spill_values, 0
        )
        for key, value in zip(spill_keys[:n].tolist(), spill_values[:n].tolist(), strict=True):
            spilled[key] += Fraction(value)
        calls += 1
    assert calls > 1
    exact = [Fraction(float(v)) for v in values]
    assert Fraction(rows[1]) + Fraction(rows[2]) + spilled[0] == sum(exact)
    assert sum(map(Fraction, rows[3:6].tolist())) + spilled[1] == sum(x * x for x in exact)


def test_odd_samples_stop_the_pass_when_the_spills_are_full():
    scales = {0: 0, 1: 0, 2: 600, 3: 1200, 4: -1200}
    for samples in (np.array([1.5e200, -1e-200, 1e300, 3e-310] * 3), np.array([1e38, -1e38, 1e38] * 4)):
        rows, counts, nonfinite = _table(1)
        spill_keys, spill_values = np.empty(6, dtype=np.int64), np.empty(6)
        total, squares = Fraction(0), Fraction(0)
        position = 0
        labels = np.zeros(samples.size, dtype=np.int64)
        while position < samples.size:
            position, n = kernels.add_exactly(
                labels,
                samples,
                position,
                samples.size,
                0,
                1,
                rows,
                counts,
                nonfinite,
                spill_keys,
                spill_values,
                0,
            )
            for key, value in zip(spill_keys[:n].tolist(), spill_values[:n].tolist(), strict=True):
                part = Fraction(value) * Fraction(2) ** scales[key]
                total, squares = (total + part, squares) if key in (0, 2) else (total, squares + part)
        exact = [Fraction(float(v)) for v in samples]
        assert total + Fraction(rows[1]) + Fraction(rows[2]) == sum(exact)
        assert squares + sum(map(Fraction, rows[3:6].tolist())) == sum(x * x for x in exact)
        assert (counts[0], rows[6], rows[7]) == (samples.size, samples.min(), samples.max())


def test_merging_stops_when_the_spills_are_full_and_goes_on():
    size = 6
    rows, counts, nonfinite = _table(size)
    other, other_counts, other_nonfinite = _table(size)
    for r in range(0, size * kernels.ROW, kernels.ROW):
        rows[r + 1 : r + 6] = [1.0, 2.0**-60, 1.0, 2.0**-60, 2.0**-120]
        other[r + 1 : r + 6] = [2.0**-120, 2.0**-200, 2.0**-180, 2.0**-240, 2.0**-300]
    keys, values = np.empty(6, dtype=np.int64), np.empty(6)
    slots = np.arange(size)
    spilled = np.zeros(2, dtype=object)
    position, calls = 0, 0
    while position < size:
        position, n = kernels.merge_rows(
            rows, counts, nonfinite, other, other_counts, other_nonfinite, slots, position, keys, values, 0
        )
        for key, value in zip(keys[:n].tolist(), values[:n].tolist(), strict=True):
            spilled[key % 8] += Fraction(value)
        calls += 1
    assert calls > 1
    exact = [
        sum(Fraction(2) ** p for p in powers) for powers in ([0, -60, -120, -200], [0, -60, -120, -180, -240, -300])
    ]
    for kind, (first, last) in enumerate([(1, 3), (3, 6)]):
        words = [x for k in range(size) for x in rows[k * 8 + first : k * 8 + last].tolist()]
        assert sum(map(Fraction, words)) + spilled[kind] == size * exact[kind]


def test_rows_are_moved_to_the_front():
    rows = np.arange(5.0 * kernels.ROW)
    kernels.keep_rows(rows, np.array([0, 2, 4]))
    assert rows.reshape(5, -1)[:3, 0].tolist() == [0.0, 2.0 * kernels.ROW, 4.0 * kernels.ROW]
