"""Tests of a change, label by label: arrays in, arrays out. scipy computes every p-value.

A test gives ``(K,)`` two-sided p-values, and the ends of a confidence interval of the difference of means where it has
one, else NaN.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from labeltrack.errors import need

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

WELCH, PAIRED_T, WILCOXON, MANN_WHITNEY = "Welch's t", "paired t", "Wilcoxon", "Mann-Whitney"
CONFIDENCE = 0.95
_BLOCK = 1 << 17  # samples whose intermediate results stay in the cache


class Moments(NamedTuple):
    """``(K,)`` statistics of one side; count 0 where a label has no samples there."""

    count: Integers  # type: ignore[assignment]  # hides tuple.count
    mean: Floats
    std: Floats
    min: Floats
    max: Floats

    def at(self, places: Array) -> Moments:
        """Return the statistics of some labels."""
        return Moments(self.count[places], *(column[places] for column in (self.mean, self.std, self.min, self.max)))


class Found(NamedTuple):
    """``(K,)`` results of a test of the difference after - before."""

    p: Floats
    low: Floats
    high: Floats
    sign: Floats  # of what was tested: of means or of ranks


def scipy_stats() -> Any:
    """Import scipy.stats, which takes half a second: only for tests by ranks.

    Raises:
        ImportError: scipy is not installed (extra ``stats``).
    """
    return need("scipy.stats", "tests of significance", "stats")


def scipy_special() -> Any:
    """Import scipy.special; errors are those of `scipy_stats`."""
    return need("scipy.special", "tests of significance", "stats")


def welch(before: Moments, after: Moments) -> Found:
    """Test a difference of means by Welch's t; labels without variance differ for certain, or not at all."""
    n, m = before.count.astype(np.float64), after.count.astype(np.float64)
    with np.errstate(all="ignore"):
        parts = after.std**2 / m, before.std**2 / n
        error = np.sqrt(parts[0] + parts[1])
        df = (parts[0] + parts[1]) ** 2 / (parts[0] ** 2 / (m - 1) + parts[1] ** 2 / (n - 1))
    return _of_student(after.mean - before.mean, error, df)


def paired_t(pairs: Moments) -> Found:
    """Test the mean of differences between pairs by Student's t."""
    with np.errstate(all="ignore"):
        error = pairs.std / np.sqrt(pairs.count)
    return _of_student(pairs.mean, error, pairs.count - 1.0)


def _of_student(difference: Floats, error: Array, df: Array) -> Found:
    constant, special = error == 0, scipy_special()
    with np.errstate(all="ignore"):
        p = 2 * special.stdtr(df, -np.abs(difference / error))
        reach = np.where(constant, 0.0, special.stdtrit(df, (1 + CONFIDENCE) / 2) * error)
    p = np.where(constant, np.where(difference == 0, 1.0, 0.0), p)
    return Found(p, difference - reach, difference + reach, np.sign(difference))


def wilcoxon(differences: list[Floats]) -> Found:
    """Test each label's differences between pairs by Wilcoxon's signed ranks."""
    test, p, sign = scipy_stats().wilcoxon, [], []
    for of_label in differences:
        ranks = _signed_ranks(of_label)
        p.append(test(of_label).pvalue if ranks is not None else 1.0)
        sign.append(0.0 if ranks is None else np.sign(ranks))
    return _of_ranks(p, sign)


def _signed_ranks(differences: Floats) -> float | None:
    """Return the sum of signed ranks; None if all differences are zero."""
    moved = differences[differences != 0]
    return float(np.sum(np.sign(moved) * scipy_stats().rankdata(np.abs(moved)))) if moved.size else None


def mann_whitney(before: list[Floats], after: list[Floats]) -> Found:
    """Test each label's samples by the ranks of Mann and Whitney."""
    test, p, sign = scipy_stats().mannwhitneyu, [], []
    for old, new in zip(before, after, strict=True):
        with np.errstate(invalid="ignore"):  # all samples are one number
            result = test(new, old)
        p.append(result.pvalue)
        sign.append(np.sign(result.statistic - new.size * old.size / 2))
    return _of_ranks(p, sign)


def _of_ranks(p: list[float], sign: list[float]) -> Found:
    found, none = np.array(p, dtype=np.float64), np.full(len(p), np.nan)
    return Found(np.where(np.isnan(found), 1.0, found), none, none, np.array(sign, dtype=np.float64))


def adjusted(p: Floats) -> Floats:
    """Return q-values by Benjamini and Hochberg, of the p-values that are numbers, as scipy.stats does."""
    q, tested = np.full(p.shape[0], np.nan), np.flatnonzero(~np.isnan(p))
    order = tested[np.argsort(p[tested])]
    scaled = p[order] * (order.size / np.arange(1, order.size + 1))
    q[order] = np.clip(np.minimum.accumulate(scaled[::-1])[::-1], 0.0, 1.0)
    return q


def hedges_g(before: Moments, after: Moments) -> Floats:
    """Return Hedges' g: the difference in units of the pooled standard deviation, corrected for small samples."""
    gammaln = scipy_special().gammaln
    n, m = before.count.astype(np.float64), after.count.astype(np.float64)
    df = n + m - 2
    with np.errstate(all="ignore"):
        pooled = np.sqrt(((n - 1) * before.std**2 + (m - 1) * after.std**2) / df)
        small = np.exp(gammaln(df / 2) - gammaln((df - 1) / 2) - np.log(df / 2) / 2)
        difference = after.mean - before.mean
        return np.where((pooled == 0) & (difference == 0), 0.0, difference / pooled * small)


def skew_error(before: Moments, after: Moments) -> Floats:
    """Return the skewness of the difference of means that two samples of one skewed distribution would have.

    It is what makes Welch's t reject too often, and zero where both sides have the same number of samples. Moments do
    not say how skewed the samples are, but samples from ``m - a·s`` to ``m + b·s`` around their mean ``m``, with
    standard deviation ``s``, have a skewness from ``1/a - a`` to ``b - 1/b``; the middle of that is taken.
    """
    n, m = before.count.astype(np.float64), after.count.astype(np.float64)
    both = together(before, after)
    with np.errstate(all="ignore"):
        a, b = (both.mean - both.min) / both.std, (both.max - both.mean) / both.std
        skewness = ((1 / a - a) + (b - 1 / b)) / 2
        found = np.abs(skewness * (1 / m**2 - 1 / n**2)) / (1 / m + 1 / n) ** 1.5
    return np.where((both.std == 0) | (n == m), 0.0, found)


def together(one: Moments, other: Moments) -> Moments:
    """Return the statistics of the samples of both, rounded."""
    n, m = one.count.astype(np.float64), other.count.astype(np.float64)
    with np.errstate(all="ignore"):
        share = m / (n + m)
        apart = other.mean - one.mean
        mean = np.where(m == 0, one.mean, np.where(n == 0, other.mean, one.mean + share * apart))
        spread = (n - 1) * one.std**2 + (m - 1) * other.std**2 + n * share * apart**2
        std = np.where(m == 0, one.std, np.where(n == 0, other.std, np.sqrt(spread / (n + m - 1))))
    return Moments(one.count + other.count, mean, std, np.fmin(one.min, other.min), np.fmax(one.max, other.max))


def skewness(codes: Integers, differences: Floats, pairs: Moments) -> Floats:
    """Return the skewness of each label's differences."""
    third = np.zeros(pairs.count.shape[0])
    with np.errstate(all="ignore"):
        for start in range(0, codes.shape[0], _BLOCK):
            part = codes[start : start + _BLOCK]
            scaled = (differences[start : start + _BLOCK] - pairs.mean[part]) / pairs.std[part]
            third += np.bincount(part, scaled * scaled * scaled, minlength=third.shape[0])
        return np.where(pairs.std == 0, 0.0, third / pairs.count)
