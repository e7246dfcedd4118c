"""Error-free transforms, against rational arithmetic. Runs compiled and as plain Python."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from conftest import part
from hypothesis import assume, given
from hypothesis import strategies as st

from labeltrack._core.kernels import intrinsics as kernels

moderate = st.floats(min_value=-1e140, max_value=1e140, allow_nan=False)


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


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64])
@pytest.mark.parametrize("start", [0, 1, 5])  # aligned to a vector or not
def test_sixteen_labels_are_the_same_if_each_of_them_is(dtype, start):
    for label in (0, 100, np.iinfo(dtype).max, np.iinfo(dtype).min):
        labels = np.full(40, 7, dtype=dtype)
        inside = slice(start, start + kernels.SAME)
        labels[inside] = label
        same = part(kernels._same)
        assert same(labels, np.uint64(start), dtype(label))
        assert not same(labels, np.uint64(start + 1), dtype(label))
        for j in range(kernels.SAME):
            for bit in (0, 8 * labels.itemsize - 1):
                labels[inside] = label
                labels.view(f"u{labels.itemsize}")[start + j] ^= np.array(1 << bit, dtype=f"u{labels.itemsize}")
                assert not same(labels, np.uint64(start), dtype(label))


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64])
@pytest.mark.parametrize("label", [-3, 0, 100])
def test_labels_in_a_row_are_counted_from_four_on(dtype, label):
    label = np.array(label).astype(dtype)
    for length in (1, 2, 3, 4, 5, 19, 20, 21, 36, 60):
        labels = np.append(np.full(length, label), np.full(5, label + dtype(1)))
        found = part(kernels._one_label)(labels, np.uint64(0), np.uint64(labels.size))
        assert found == (length if length >= 4 else 1)
        # And no further than asked.
        assert part(kernels._one_label)(labels, np.uint64(0), np.uint64(min(length, 7))) == (
            min(length, 7) if length >= 4 else 1
        )
