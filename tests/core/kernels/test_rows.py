"""Rows of exact state, merged and folded, against rational arithmetic. Runs compiled and as plain Python."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from conftest import part
from hypothesis import given
from hypothesis import strategies as st

from labeltrack._core.accumulator import Accumulator
from labeltrack._core.kernels import rows as kernels

finite = st.floats(allow_nan=False, allow_infinity=False)


def _table(size):
    accumulator = Accumulator(size)
    return accumulator.rows, accumulator.counts, accumulator.nonfinite


@given(st.lists(finite, max_size=30))
def test_the_superaccumulator_is_exact_over_the_whole_range(numbers):
    digits = np.zeros(kernels.DIGITS, dtype=np.int64)
    for x in numbers:
        part(kernels._super_add)(digits, x)
    part(kernels._super_carry)(digits)
    assert sum(int(d) << (32 * i) for i, d in enumerate(digits)) == sum(map(Fraction, numbers)) * 2**1152


@given(st.lists(st.floats(min_value=-1e300, max_value=1e300), min_size=1, max_size=30))
def test_the_head_of_the_superaccumulator_is_within_a_unit_in_the_last_place(numbers):
    digits = np.zeros(kernels.DIGITS, dtype=np.int64)
    for x in numbers:
        part(kernels._super_add)(digits, x)
    part(kernels._super_carry)(digits)
    before = digits.copy()
    head = part(kernels._super_head)(digits)
    total = sum(map(Fraction, numbers))
    assert np.array_equal(digits, before)
    assert abs(Fraction(head) - total) <= Fraction(math.ulp(head))
    assert (head == 0.0) == (total == 0)


@given(st.lists(st.tuples(st.sampled_from([0, 1, 8, 10, 16]), st.floats(-1e300, 1e300)), min_size=1, max_size=40))
def test_folding_keeps_every_sum_and_leaves_ever_smaller_parts(terms):
    terms.sort(key=lambda pair: pair[0])
    keys = np.array([key for key, _ in terms], dtype=np.int64)
    values = np.array([value for _, value in terms])
    rows = np.zeros(3 * kernels.ROW)
    rows[1], rows[2], rows[3] = 1.0, 2.0**-60, 7.5
    exact = {}
    for key, value in terms:
        exact[key] = exact.get(key, Fraction(0)) + Fraction(value)
    if 0 in exact:
        exact[0] += 1 + Fraction(2) ** -60
    if 1 in exact:
        exact[1] += Fraction(7.5)
    out_keys, out_values = np.empty(400, dtype=np.int64), np.empty(400)
    digits = np.zeros(kernels.DIGITS, dtype=np.int64)
    position, n = kernels.fold_back(keys, values, 0, rows, digits, out_keys, out_values)
    assert position == keys.size
    for key, total in exact.items():
        row = rows[key // 8 * 8 :]
        words = {0: [row[1], row[2]], 1: [row[3], row[4], row[5]]}.get(key % 8, [])
        parts = [*map(float, words), *out_values[:n][out_keys[:n] == key].tolist()]
        assert sum(map(Fraction, parts)) == total
        for greater, smaller in itertools.pairwise(parts):
            assert abs(smaller) <= math.ulp(greater) or greater == 0.0 == smaller


def test_folding_stops_before_a_key_that_might_not_fit_and_resumes():
    keys = np.repeat(np.arange(0, 80, 8, dtype=np.int64), 2)
    values = np.tile([1.0, 2.0**-70], 10)
    rows = np.zeros(10 * kernels.ROW)
    digits = np.zeros(kernels.DIGITS, dtype=np.int64)
    out = np.empty(kernels.DIGITS, dtype=np.int64), np.empty(kernels.DIGITS)
    position, calls = 0, 0
    while position < keys.size:
        position, _ = kernels.fold_back(keys, values, position, rows, digits, *out)
        calls += 1
    assert calls == 1
    assert rows[1 :: kernels.ROW].tolist() == [1.0] * 10
    assert rows[2 :: kernels.ROW].tolist() == [2.0**-70] * 10


def test_merging_stops_when_the_terms_are_full_and_resumes():
    size = 6
    rows, counts, nonfinite = _table(size)
    other, other_counts, other_nonfinite = _table(size)
    for r in range(0, size * kernels.ROW, kernels.ROW):
        rows[r + 1 : r + 6] = [1.0, 2.0**-60, 1.0, 2.0**-60, 2.0**-120]
        other[r + 1 : r + 6] = [2.0**-120, 2.0**-200, 2.0**-180, 2.0**-240, 2.0**-300]
    keys, values = np.empty(6, dtype=np.int64), np.empty(6)
    slots = np.arange(size)
    overflow = np.zeros(2, dtype=object)
    position, calls = 0, 0
    while position < size:
        position, n = kernels.merge_rows(
            rows, counts, nonfinite, other, other_counts, other_nonfinite, slots, position, keys, values, 0
        )
        for key, value in zip(keys[:n].tolist(), values[:n].tolist(), strict=True):
            overflow[key % 8] += Fraction(value)
        calls += 1
    assert calls > 1
    exact = [
        sum(Fraction(2) ** p for p in powers) for powers in ([0, -60, -120, -200], [0, -60, -120, -180, -240, -300])
    ]
    for kind, (first, last) in enumerate([(1, 3), (3, 6)]):
        words = [x for k in range(size) for x in rows[k * 8 + first : k * 8 + last].tolist()]
        assert sum(map(Fraction, words)) + overflow[kind] == size * exact[kind]


@pytest.mark.parametrize("odd", [[], [False, False, False, True, False]])
def test_rows_with_samples_are_moved_to_the_front(odd):
    words = np.arange(5 * kernels.ROW)
    words[8] = words[24] = 0  # the numbers of samples of slots 1 and 3, and that of slot 0
    words[0] = 7
    slots = np.empty(5, dtype=np.int64)
    n = kernels.pack_rows(words, np.array(odd, dtype=bool), slots)
    wanted = [0, 2, 3, 4] if odd else [0, 2, 4]
    assert slots[:n].tolist() == wanted
    assert words.reshape(5, -1)[:n, 1].tolist() == [8 * slot + 1 for slot in wanted]
