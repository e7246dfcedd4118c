"""Rounding, against rational arithmetic. Runs compiled and as plain Python."""

from __future__ import annotations

import math
import statistics
from fractions import Fraction

import numpy as np
from conftest import part
from hypothesis import assume, given
from hypothesis import strategies as st

from labeltrack._core import accumulator as _accumulate
from labeltrack._core.kernels import rounding as kernels


def finalised(rows, counts, residue):
    size = residue.size
    number, out, doubt = np.empty(size, dtype=np.int64), np.empty((5, size)), np.empty(size, dtype=np.bool_)
    kernels.finalise(0, size, rows, counts, residue, number, out, doubt)
    return number, out, doubt


def test_finalising_says_what_it_cannot_certify():
    accumulator = _accumulate.Accumulator(4)
    rows, counts = accumulator.rows, accumulator.counts
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
    kernels.finalise_carefully(np.arange(3), rows, counts, residue, out, doubt)
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
