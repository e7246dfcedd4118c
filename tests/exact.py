"""Rational arithmetic to compare with, and the hard cases, kept apart from the code under test."""

from __future__ import annotations

import math
import statistics
from fractions import Fraction
from typing import Any

import numpy as np


def rounded(number: Fraction) -> float:
    """Round to the nearest double, to infinity beyond the largest."""
    try:
        return float(number)
    except OverflowError:
        return math.inf if number > 0 else -math.inf


def stdev(values: list[float]) -> float:
    """Sample standard deviation by the standard library, 0.0 for one value."""
    if len(values) == 1:
        return 0.0
    try:
        return statistics.stdev(values)
    except OverflowError:
        return math.inf


def expected(values: Any) -> tuple[int, float, float, float, float, float]:
    """Count, sum, mean, std, min and max of finite values, each exact and rounded once."""
    numbers = [float(x) for x in values]
    total = sum((Fraction(x) for x in numbers), Fraction(0))
    return (len(numbers), rounded(total), statistics.mean(numbers), stdev(numbers), min(numbers), max(numbers))


def sums(values: Any) -> tuple[int, Fraction, Fraction]:
    """Return count, sum and sum of squares, as rational numbers; what `Accumulator.exact` gives for a slot."""
    numbers = [Fraction(float(v)) for v in values]
    return len(numbers), sum(numbers, Fraction(0)), sum((x * x for x in numbers), Fraction(0))


def read(accumulator: Any, slot: int = 0) -> tuple[Any, ...]:
    """Return the statistics of a slot of an `Accumulator`, in the order of `expected`."""
    return tuple(column[slot].item() for column in accumulator.totals())


def expected_by_label(labels: Any, values: Any) -> dict[Any, tuple[int, float, float, float, float, float]]:
    """`expected` for each label, sorted by label; grouped by a Python loop."""
    groups: dict[Any, list[float]] = {}
    for label, value in zip(labels, values, strict=True):
        groups.setdefault(label, []).append(float(value))
    return {label: expected(groups[label]) for label in sorted(groups)}


def rows(stats: Any) -> dict[Any, tuple[int, float, float, float, float, float]]:
    """Return the rows of a LabelStats in the form of `expected_by_label`."""
    return {row.label: (row.count, row.sum, row.mean, row.std, row.min, row.max) for row in stats}


def fingerprint(stats: Any) -> tuple[bytes, ...]:
    """Return every bit of every column that can be read."""
    return tuple(np.ascontiguousarray(column).tobytes() for column in stats.columns().values())


def hard_cases() -> dict[str, np.ndarray[Any, Any]]:
    """Return the named cases that break other libraries."""
    rng = np.random.default_rng(20240229)
    sign = rng.choice([-1.0, 1.0], 3001)
    return {
        "normal in float32": rng.normal(1, 0.5, 4001).astype(np.float32),
        "normal in float64": rng.normal(1, 0.5, 4001),
        "normal in float16": rng.normal(1, 0.5, 4001).astype(np.float16),
        "1e8 plus or minus one": 1e8 + sign,
        "1e15 plus or minus one": 1e15 + sign,
        "lognormal, sigma 4": rng.lognormal(0, 4, 4001),
        "lognormal, sigma 4, in float32": rng.lognormal(0, 4, 4001).astype(np.float32),
        "an outlier of 1e12 first": np.concatenate([[1e12], rng.normal(1, 0.5, 3000)]),
        "a constant": np.full(1000, 0.1),
        "a constant in float32": np.full(1000, 0.1, dtype=np.float32),
        "1e16, 1, -1e16 repeated": np.tile([1e16, 1.0, -1e16], 1000),
        "every magnitude of float32": (10.0 ** rng.uniform(-44, 38, 500) * rng.choice([-1, 1], 500)).astype(np.float32),
        "1e-140 to 1e150": 10.0 ** rng.uniform(-140, 150, 500) * rng.choice([-1, 1], 500),
        "squares that overflow and underflow": np.array([1e300, -1e300, 1e160, 1.0, 1e-200, 5e-324, 1e-310]),
        "subnormals": rng.normal(0, 1, 50) * 1e-310,
        "a tie of the sum": np.array([2.0**53, 1.0]),
        "just above a tie": np.array([2.0**53, 1.0, 2.0**-1000]),
        "just below a tie": np.array([2.0**53, 1.0, -(2.0**-1000)]),
        "zeros and ones": rng.integers(0, 2, 1000).astype(bool),
        "large integers": rng.integers(-(2**62), 2**62, 1000),
        "one value": np.array([3.25]),
        "negative zero": np.array([-0.0, 0.0]),
    }


def _in_double(number: Fraction) -> Fraction:
    """Round to the 53 bits of a double, without its largest exponent."""
    return Fraction(float(number / 16)) * 16 if abs(number) > 2.0**1000 else Fraction(float(number))


def quantile(ordered: Any, fraction: float) -> float:
    """Return a quantile of ascending numbers, at least one, in the steps of `numpy.quantile`, which are rounded each.

    Unlike there, a number that is hit exactly, or has two equal neighbours, is the answer though it be infinite or its
    neighbour be; and no step between finite numbers overflows.
    """
    place = (len(ordered) - 1) * float(fraction)
    below = min(int(place), len(ordered) - 1)
    weight = place - below
    a, b = float(ordered[below]), float(ordered[min(below + 1, len(ordered) - 1)])
    if not weight or a == b:
        return a
    if math.isinf(a) or math.isinf(b):
        return b - (b - a) * (1.0 - weight) if weight >= 0.5 else a + (b - a) * weight
    step = _in_double(Fraction(b) - Fraction(a))
    if weight >= 0.5:
        return float(_in_double(Fraction(b) - _in_double(step * Fraction(1.0 - weight))))
    return float(_in_double(Fraction(a) + _in_double(step * Fraction(weight))))


def quantiles(labels: Any, values: Any, fractions: Any) -> np.ndarray[Any, Any]:
    """Return ``(Q, K)`` quantiles of the samples of each label, in the order of labels; NaN are left out.

    By `numpy.quantile`, but where there are infinities, or differences that overflow: label by label and exactly there.
    """
    doubles = np.asarray(values).astype(np.float64)
    names, slots = np.unique(labels, return_inverse=True)
    found = np.full((len(fractions), len(names)), np.nan)
    groups = np.split(doubles[np.argsort(slots, kind="stable")], np.cumsum(np.bincount(slots))[:-1])
    for k, samples in enumerate(groups):
        group = samples[~np.isnan(samples)]
        if not group.size:
            continue
        if group.size == 1:
            found[:, k] = group
        elif np.abs(group).max() < 2.0**1000:
            found[:, k] = np.quantile(group, fractions)
        else:
            ordered = np.sort(group).tolist()
            found[:, k] = [quantile(ordered, fraction) for fraction in fractions]
    return found
