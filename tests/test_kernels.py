"""The compiled functions one by one, against rational arithmetic. Runs compiled and as plain Python."""

from __future__ import annotations

import itertools
import math
import statistics
from fractions import Fraction

import numpy as np
import pytest
from conftest import part
from hypothesis import assume, given
from hypothesis import strategies as st

from labeltrack import _accumulate
from labeltrack import _kernels as kernels
from labeltrack._compiled import read_only

finite = st.floats(allow_nan=False, allow_infinity=False)
moderate = st.floats(min_value=-1e140, max_value=1e140, allow_nan=False)


def test_constants_of_the_driver_are_those_of_the_kernels():
    assert (_accumulate.ROW, _accumulate.KINDS) == (kernels.ROW, kernels.KINDS)
    assert kernels.ROW == kernels.KINDS  # keys of spills are built from indices of rows


@given(moderate, moderate)
def test_two_sum_loses_nothing(a, b):
    s, e = part(kernels.two_sum)(a, b)
    assert s == a + b
    assert Fraction(s) + Fraction(e) == Fraction(a) + Fraction(b)


@given(moderate, moderate)
def test_two_prod_loses_nothing_short_of_underflow(a, b):
    assume(a == 0 or b == 0 or abs(a * b) > 1e-280)
    p, e = part(kernels.two_prod)(a, b)
    assert p == a * b
    assert Fraction(p) + Fraction(e) == Fraction(a) * Fraction(b)


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
        labels, samples, 0, 4, 0, 3, False, rows, rows.view(np.int64), nonfinite, keys, values, 0
    )
    assert (position, n) == (2, 0)
    assert rows.view(np.int64)[:: kernels.ROW].tolist() == [1, 0, 1]
    assert (guarded[: kernels.ROW] == 7.0).all()
    assert (guarded[-kernels.ROW :] == 7.0).all()


def test_a_label_outside_the_table_is_passed_over_when_asked():
    rows, counts, nonfinite = _table(2)
    labels = np.array([5, 0, -1, 1, 2], dtype=np.int64)
    samples = np.arange(5.0)
    spills = np.empty(8, dtype=np.int64), np.empty(8)
    position, _ = kernels.add_exactly(labels, samples, 0, 5, 0, 2, True, rows, counts, nonfinite, *spills, 0)
    assert position == 5
    assert rows[1 :: kernels.ROW].tolist() == [1.0, 3.0]


def test_the_pass_stops_when_the_spills_are_full_and_loses_nothing():
    rows, counts, nonfinite = _table(1)
    values = np.array([1e30, 1e-30, 1e10, 1e-10, 1.0, 1e25] * 4)
    labels = np.zeros(values.size, dtype=np.int64)
    spill_keys, spill_values = np.empty(5, dtype=np.int64), np.empty(5)
    spilled = {0: Fraction(0), 1: Fraction(0)}
    position, calls = 0, 0
    while position < values.size:
        position, n = kernels.add_exactly(
            labels, values, position, values.size, 0, 1, False, rows, counts, nonfinite, spill_keys, spill_values, 0
        )
        for key, value in zip(spill_keys[:n].tolist(), spill_values[:n].tolist(), strict=True):
            spilled[key] += Fraction(value)
        calls += 1
    assert calls > 1
    exact = [Fraction(float(v)) for v in values]
    assert Fraction(rows[1]) + Fraction(rows[2]) + spilled[0] == sum(exact)
    assert sum(map(Fraction, rows[3:6].tolist())) + spilled[1] == sum(x * x for x in exact)


def test_codes_are_given_in_order_of_appearance_and_stop_when_full():
    labels = np.array([7, -1, 7, 2**62, -1, 5], dtype=np.int64)  # -1, which empty places hold, too
    table, found = np.full(16, -1, dtype=np.int64), np.empty(3, dtype=np.int64)
    codes = np.empty(6, dtype=np.int32)
    position, n = kernels.encode_int64(labels, 0, 6, table, found, 0, False, codes)
    assert (position, n) == (5, 3)
    assert codes[:5].tolist() == [0, 1, 0, 2, 1]
    assert found.tolist() == [7, -1, 2**62]
    position, n = kernels.encode_int64(labels, 5, 6, table, found, n, True, codes)
    assert (position, n, codes[0]) == (6, 3, -1)


def test_colliding_labels_are_told_apart():
    # A table of four places and two codes: some of these labels must share a place.
    for other in range(1, 40):
        table, found = np.full(8, -1, dtype=np.int64), np.empty(2, dtype=np.int64)
        codes = np.empty(4, dtype=np.int32)
        labels = np.array([0, other, 0, other], dtype=np.int64)
        kernels.encode_int64(labels, 0, 4, table, found, 0, False, codes)
        assert codes.tolist() == [0, 1, 0, 1]


def test_labels_of_a_table_beyond_the_cache_get_the_same_codes():
    labels = np.random.default_rng(5).integers(-(2**62), 2**62, 40)
    labels = np.concatenate([labels, labels[::-1]])
    codes = []
    for words in (256, 2 * kernels._FAR_KEYS):
        table, found = np.full(words, -1, dtype=np.int64), np.empty(64, dtype=np.int64)
        codes.append(np.empty(80, dtype=np.int32))
        assert kernels.encode_int64(labels, 0, 80, table, found, 0, False, codes[-1]) == (80, 40)
        assert found[:40].tolist() == labels[:40].tolist()
    assert codes[0].tolist() == codes[1].tolist() == [*range(40), *range(39, -1, -1)]


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
                False,
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


def finalised(rows, counts, residue):
    size = residue.size
    number, out, doubt = np.empty(size, dtype=np.int64), np.empty((5, size)), np.empty(size, dtype=np.bool_)
    kernels.finalise(0, size, rows, counts, residue, 0, False, number, out, doubt)
    return number, out, doubt


def test_finalising_leaves_rows_without_samples_out_if_asked():
    table = _accumulate.Accumulator(6)
    table.add(np.array([1, 3, 3, 5]), np.array([2.5, 1.0, 2.0, -4.0]))
    rows, counts, residue = table.rows, table.counts, np.zeros(6, dtype=np.uint8)
    number, out, doubt = np.zeros(5, dtype=np.int64), np.zeros((5, 5)), np.empty(6, dtype=np.bool_)
    kernels.finalise(0, 6, rows, counts, residue, 2, True, number, out, doubt)
    assert number.tolist() == [0, 0, 1, 2, 1]
    assert out[0].tolist() == [0.0, 0.0, 2.5, 3.0, -4.0]
    assert out[1].tolist() == [0.0, 0.0, 2.5, 1.5, -4.0]
    assert out[2].tolist() == [0.0, 0.0, 0.0, 0.5**0.5, 0.0]
    assert out[3].tolist() == [0.0, 0.0, 2.5, 1.0, -4.0]
    assert out[4].tolist() == [0.0, 0.0, 2.5, 2.0, -4.0]
    assert not doubt.any()


def test_finalising_says_what_it_cannot_certify():
    rows, counts, _ = _table(4)
    residue = np.zeros(4, dtype=np.uint8)
    for slot, (n, high, low) in enumerate([(1, 2.0**53, 1.0), (1, 1.0, 2.0**-53), (2, 0.0, 0.0), (1, 1.0, 0.0)]):
        counts[slot * 8] = n
        rows[slot * 8 + 1 : slot * 8 + 3] = [high, low]
        rows[slot * 8 + 3] = high * high
    residue[:2] = 1  # something is left beside the row, which decides the tie
    number, out, doubt = finalised(rows, counts, residue)
    assert number.tolist() == [1, 1, 2, 1]
    assert doubt.tolist() == [True, True, True, False]
    assert out[:3, 3].tolist() == [1.0, 1.0, 0.0]
    kernels.finalise_carefully(np.arange(3), rows, counts, residue, np.arange(3), out, doubt)
    assert doubt.tolist() == [True, True, False, False]
    assert out[:3, 2].tolist() == [0.0, 0.0, 0.0]


@given(st.integers(1, 60), st.integers(2**52, 2**53 - 1), st.integers(-3, 3), st.sampled_from([2.0**-60, 1.0, 2.0**40]))
def test_a_mean_in_the_middle_between_two_doubles_is_certain_and_goes_to_the_even_one(n, mantissa, quarters, unit):
    # Sums that are n times a quarter, a half or three quarters of a unit in the last place above a double.
    total = n * (Fraction(mantissa) + Fraction(quarters, 4)) * Fraction(unit)
    high = float(total)
    low = float(total - Fraction(high))
    assume(Fraction(high) + Fraction(low) == total)
    mean, sure = part(kernels._mean)(high, low, n)
    assert not sure or mean == float(total / n)
    assert sure or abs(math.frexp(mean)[0]) == 0.5


@given(st.lists(st.floats(-1e6, 1e6).filter(lambda x: x == 0 or abs(x) > 1e-6), min_size=2, max_size=12))
def test_the_quick_deviation_is_right_or_says_that_it_does_not_know(values):
    numbers = [Fraction(x) for x in values]
    parts = []
    for total, words in ((sum(numbers), 2), (sum(x * x for x in numbers), 3)):
        rest = total
        for _ in range(words):
            parts.append(float(rest))
            rest -= Fraction(parts[-1])
        assume(rest == 0)
    deviation, sure = part(kernels._deviation)(*parts, float(len(values)))
    assert not sure or deviation == statistics.stdev(values)


def test_rows_are_moved_to_the_front():
    rows = np.arange(5.0 * kernels.ROW)
    kernels.keep_rows(rows, np.array([0, 2, 4]))
    assert rows.reshape(5, -1)[:3, 0].tolist() == [0.0, 2.0 * kernels.ROW, 4.0 * kernels.ROW]


@given(
    st.lists(
        st.one_of(
            st.floats(width=32),
            st.floats(-8.0, 8.0, width=32),
            st.sampled_from([0.0, -0.0, 1.0, math.inf, -math.inf, math.nan, 2.0**-149]),
        ),
        max_size=200,
    ),
    st.integers(1, 70),
    st.sampled_from([np.float32, np.float64]),
)
def test_the_extent_is_that_of_sorted_magnitudes(values, times, dtype):
    values = [x for x in values for _ in range(times)][:300]  # so that one in 64 is one of several alike
    exponent, negative, finite = kernels.extent(read_only(np.array(values, dtype=dtype)))
    numbers = [x for x in values if math.isfinite(x)]
    assert finite == len(numbers)
    if numbers:
        sizes = sorted(map(abs, numbers), reverse=True)
        assert exponent == math.frexp(sizes[len(sizes) // 64])[1]
    assert bool(negative) == any(x < 0 for x in numbers)


def test_the_extent_of_doubles_goes_to_both_ends():
    for values, expected in [
        ([1.7976931348623157e308, -1.0], (1024, True, 2)),
        ([2.0**-1022], (-1021, False, 1)),
        ([5e-324, 0.0], (-1022, False, 2)),
        ([0.0] * 127 + [5e-324], (0, False, 128)),
        ([0.0] * 125 + [5e-324] * 3, (-1022, False, 128)),
        ([0.0] * 125 + [5e-324, 1.0, 2.0], (-1022, False, 128)),
        ([0.0, -0.0], (0, False, 2)),
        ([math.nan, -math.inf], (0, False, 0)),
        ([], (0, False, 0)),
    ]:
        assert kernels.extent(read_only(np.array(values, dtype=np.float64))) == expected
