"""Error-free transforms, against rational arithmetic. Runs compiled and as plain Python."""

from __future__ import annotations

from fractions import Fraction

from conftest import part
from hypothesis import assume, given
from hypothesis import strategies as st

from labeltrack import _intrinsics as kernels

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
