"""Rounding in rational arithmetic, of slots that the compiled pass cannot certify."""

from __future__ import annotations

import math
from decimal import Decimal, localcontext
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from labeltrack._core.rounding import _root, _rounded


@given(st.fractions(min_value=0), st.integers(-600, 600))
def test_the_rational_root_is_correctly_rounded(number, scale):
    number *= Fraction(4) ** scale
    root = _root(number)
    with localcontext() as context:
        context.prec = 1200
        context.Emax, context.Emin = 10**6, -(10**6)
        precise = (Decimal(number.numerator) / Decimal(number.denominator)).sqrt()
        half = (Decimal(math.ulp(root)) if root else Decimal(math.ulp(0.0))) / 2
        assert abs(Decimal(root) - precise) <= half


def test_rounding_beyond_the_largest_double_gives_infinity():
    assert _rounded(Fraction(10) ** 400) == math.inf
    assert _rounded(-(Fraction(10) ** 400)) == -math.inf
