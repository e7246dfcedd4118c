"""Quantiles of Student's t distribution for 95 % confidence intervals."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np

from labeltrack._core.arrays import Floats, Integers

_NORMAL = 1.959963984540054  # the 0.975 quantile of the normal distribution
_MOST = 500  # degrees of freedom up to which the distribution function is solved; beyond, the expansion is as good


def t_975(degrees: Integers) -> Floats:
    """Return 0.975 quantiles of Student's t distribution, to about 14 digits; NaN without degrees of freedom.

    For up to 500 degrees of freedom, the distribution function, a finite sum, is solved by Newton's method (M.
    Abramowitz, I. A. Stegun, *Handbook of Mathematical Functions*, 26.7.3 and 26.7.4); beyond, five terms of the
    expansion in the quantile of the normal distribution (26.7.5) are off by less than one part in 10**13.
    """
    n = np.asarray(degrees, dtype=np.float64)
    found = np.full(n.shape, np.nan)
    large = n > _MOST
    found[large] = _expansion(n[large])
    small = (n >= 1) & ~large
    distinct, places = np.unique(n[small], return_inverse=True)
    found[small] = np.array([_solved(int(one)) for one in distinct.tolist()])[places] if distinct.size else ()
    return found


def _expansion(n: Any) -> Any:
    x = _NORMAL
    terms = (
        (x**3 + x) / 4,
        (5 * x**5 + 16 * x**3 + 3 * x) / 96,
        (3 * x**7 + 19 * x**5 + 17 * x**3 - 15 * x) / 384,
        (79 * x**9 + 776 * x**7 + 1482 * x**5 - 1920 * x**3 - 945 * x) / 92160,
    )
    return x + sum(term / n**k for k, term in enumerate(terms, 1))


@cache
def _solved(n: int) -> float:
    if n == 1:
        return math.tan(math.pi * 0.475)
    t = float(_expansion(n)) if n > 2 else 4.3
    # log of the density at 0
    constant = math.lgamma((n + 1) / 2) - math.lgamma(n / 2) - 0.5 * math.log(n * math.pi)
    for _ in range(50):
        density = math.exp(constant - (n + 1) / 2 * math.log1p(t * t / n))
        step = (_within(t, n) - 0.95) / (2.0 * density)
        t -= step
        if abs(step) <= 1e-15 * t:
            break
    return t


def _within(t: float, n: int) -> float:
    """Return the probability of lying between -t and t."""
    theta = math.atan2(t, math.sqrt(n))
    sine, cosine = math.sin(theta), math.cos(theta)
    odd = n % 2
    term, terms = (cosine, [cosine]) if odd else (1.0, [1.0])
    for k in range(3 if odd else 2, n - 1, 2):
        term *= (k - 1) / k * cosine * cosine
        terms.append(term)
    total = sine * math.fsum(terms)
    return 2.0 / math.pi * (theta + total) if odd else total
