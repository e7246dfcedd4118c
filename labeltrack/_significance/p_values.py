"""The tests of a change: p-values, intervals, effect sizes, q-values. Arrays in, arrays out; scipy has the laws."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from labeltrack._core import kernels
from labeltrack._core.arrays import Array, Floats, Integers, Mask
from labeltrack._core.quantiles import grouped
from labeltrack.errors import need

if TYPE_CHECKING:
    from collections.abc import Iterable

    from labeltrack.stats import LabelStats

Side = tuple[Integers, Floats]
"""``(N,)`` positions of labels, and ``(N,)`` samples."""

CONFIDENCE = 0.95
BLOCK = 1 << 17  # samples whose intermediate results stay in the cache
_EXACT = 50  # pairs
_ROUNDS = 499  # permutations of every label
_FEW = 10  # as extreme as what was seen: with so many, p is known to a third of it
_SURE = 0.05  # q up to which fewer are enough
_LARGE = 256  # power of two; cubes of smaller samples, and sums of them, do not overflow


class Moments(NamedTuple):
    """``(K,)`` statistics of one side; count 0 where a label has no samples there."""

    count: Integers  # type: ignore[assignment]  # hides tuple.count
    mean: Floats
    std: Floats
    min: Floats
    max: Floats

    def at(self, places: Array) -> Moments:
        """Return the statistics of some labels."""
        return Moments(self.count[places], *(column[places] for column in self[1:]))

    def scaled(self, units: Array) -> Moments:
        """Return the statistics of samples divided by ``(K,)`` powers of two."""
        return Moments(self.count, *(np.ldexp(column, -units) for column in self[1:])) if units.any() else self


def moments(stats: LabelStats, places: Integers, size: int) -> Moments:
    """Return the statistics of one side at the positions of its labels."""
    columns = stats.mean, stats.std, stats.min, stats.max
    return Moments(spread(stats.count, places, size, 0), *(spread(column, places, size) for column in columns))


def spread(column: Array, places: Integers, size: int, rest: float = np.nan) -> Array:
    """Return a longer column that has some values at their places, and one number elsewhere."""
    whole = np.full(size, rest, dtype=column.dtype)
    whole[places] = column
    return whole


class Found(NamedTuple):
    """``(K,)`` results of a test of the difference after - before."""

    method: str
    p: Floats  # two-sided
    low: Floats  # end of a confidence interval of the difference of means; NaN for tests that have none
    high: Floats
    sign: Floats  # of what was tested: of means or of ranks


def units(sides: Iterable[Moments]) -> Array:
    """Return powers of two to divide samples by, as tests are free of scale; 0 of labels where nothing can overflow."""
    largest: Any = 0.0
    for size in (np.abs(column) for side in sides for column in (side.min, side.max)):
        largest = np.fmax(largest, np.where(np.isfinite(size), size, 0.0))
    power = np.frexp(largest)[1]
    return np.where(np.abs(power) > _LARGE, power, 0)


def change(before: Floats, after: Floats) -> tuple[Floats, Floats]:
    """Return differences, and these as shares of the absolute numbers before; 0 where there is none."""
    with np.errstate(all="ignore"):
        difference = after - before
        relative = difference / np.abs(before)
        halves = (after / 2 - before / 2) / np.abs(before / 2)
    relative = np.where(np.isinf(difference), halves, relative)  # the difference may be more than a double holds
    return difference, np.where(difference == 0, 0.0, relative)


def scipy_special() -> Any:
    """Import scipy.special, which takes a fifth of the time of scipy.stats."""
    return need("scipy.special", "tests of significance", "stats")


def welch(before: Moments, after: Moments) -> Found:
    """Test a difference of means by Welch's t; labels without variance differ for certain, or not at all."""
    n, m = before.count.astype(np.float64), after.count.astype(np.float64)
    with np.errstate(all="ignore"):
        unit = np.frexp(np.fmax(before.std, after.std))[1]  # squares of 1e-200 would be zero
        parts = np.ldexp(after.std, -unit) ** 2 / m, np.ldexp(before.std, -unit) ** 2 / n
        error = np.ldexp(np.sqrt(parts[0] + parts[1]), unit)
        df = (parts[0] + parts[1]) ** 2 / (parts[0] ** 2 / (m - 1) + parts[1] ** 2 / (n - 1))
    return _of_student("Welch's t", after.mean - before.mean, error, df)


def paired_t(pairs: Moments) -> Found:
    """Test the mean of differences between pairs by Student's t."""
    with np.errstate(all="ignore"):
        error = pairs.std / np.sqrt(pairs.count)
    return _of_student("paired t", pairs.mean, error, pairs.count - 1.0)


def _of_student(method: str, difference: Floats, error: Array, df: Array) -> Found:
    constant, special = error == 0, scipy_special()
    with np.errstate(all="ignore"):
        p = 2 * special.stdtr(df, -np.abs(difference / error))
        reach = np.where(constant, 0.0, special.stdtrit(df, (1 + CONFIDENCE) / 2) * error)
    p = np.where(constant, np.where(difference == 0, 1.0, 0.0), p)
    return Found(method, p, difference - reach, difference + reach, np.sign(difference))


def wilcoxon(differences: Iterable[Side], pairs: Integers) -> Found:
    """Test differences between ``(K,)`` `pairs`, 0 where there is no test and else at least 14, as scipy since 1.15."""
    groups = grouped(differences, pairs)
    pairs = pairs[pairs > 0]
    ends = np.cumsum(pairs)
    firsts = np.flatnonzero(np.diff(ends // BLOCK, prepend=-1)).tolist()
    found = []
    for first, last in pairwise([*firsts, pairs.shape[0]]):  # labels of which the ranks stay in the cache
        found.append(_signed_ranks(groups[ends[first] - pairs[first] : ends[last - 1]], pairs[first:last]))
    return _of_ranks("Wilcoxon", *(np.concatenate(column) for column in zip(*found, strict=True)))


def _signed_ranks(groups: Integers, pairs: Integers) -> tuple[Floats, Floats]:
    """Return p and sign of labels, whose differences follow one another as `grouped` returns them."""
    keys = (groups << 1 ^ groups >> 63).view(np.uint64)  # sizes, and then signs: numbers sort faster than their places
    ends = np.cumsum(pairs)
    for of_label in np.split(keys, ends):
        of_label.sort()
    moved = keys > 1
    keys, count = keys[moved], _sums(moved, ends)
    n = count.astype(np.float64)
    above, tied = _rank_sums(keys >> 1, keys & 1 == 0, np.cumsum(count))
    middle, error = n * (n + 1) / 4, np.sqrt((n * (n + 1) * (2 * n + 1) - tied / 2) / 24)
    with np.errstate(all="ignore"):  # no error: all differences are zero
        p = 2 * scipy_special().ndtr(-np.abs(above - middle) / error)
    exact = (pairs <= _EXACT) & (count == pairs) & (tied == 0)
    fewer, law = np.minimum(above, 2 * middle - above).astype(np.int64), np.ones(1)
    for k in range(1, pairs[exact].max(initial=0) + 1):
        law = (np.append(law, np.zeros(k)) + np.append(np.zeros(k), law)) / 2  # of sums of k signed ranks
        same = exact & (pairs == k)
        p[same] = 2 * np.cumsum(law)[fewer[same]]
    return p, np.sign(above - middle)


def _rank_sums(values: Array, counted: Mask, ends: Integers) -> tuple[Array, Array]:
    """Return sums of the ranks of counted samples, sorted by label and value, and of ``t**3 - t`` of t equal ones."""
    equal = np.zeros(values.shape[0] + 1, dtype=np.bool_)  # to the sample before
    equal[1:-1] = values[1:] == values[:-1]
    equal[ends] = False
    total = _sums(np.where(counted, np.arange(values.shape[0]), 0), ends)
    total -= _sums(counted, ends) * (np.append(0, ends[:-1]) - 1)
    shared = np.flatnonzero(equal[1:] | equal[:-1])  # samples that are equal have the mean of their ranks
    new, chosen = ~equal[shared], counted[shared]
    first, run = shared[new], np.cumsum(new) - 1
    ties, label = np.bincount(run).astype(np.float64), np.searchsorted(ends, first, side="right")
    moved = np.bincount(run, chosen) * (first + (ties - 1) / 2) - np.bincount(run, shared * chosen)
    sums = total.astype(np.float64) + np.bincount(label, moved, minlength=ends.shape[0])
    return sums, np.bincount(label, ties**3 - ties, minlength=ends.shape[0])


def _sums(column: Array, ends: Integers) -> Integers:
    """Return the sum of each label's entries, which end before ``ends[k]``."""
    return np.diff(np.append(0, np.cumsum(column))[ends], prepend=0)


def mann_whitney(before: Side, after: Side, size: int) -> Found:
    """Test at least 9 samples of each label by ranks, as scipy from that many on: corrected for ties and continuity."""
    n, m = (np.bincount(codes, minlength=size).astype(np.float64) for codes, _ in (before, after))
    codes, values = (np.concatenate(parts) for parts in zip(before, after, strict=True))
    order = np.lexsort((values, codes))
    above, tied = _rank_sums(values[order], order >= before[0].shape[0], np.cumsum(n + m, dtype=np.int64))
    above -= m * (m + 1) / 2
    middle, total = n * m / 2, n + m
    error = np.sqrt(n * m / 12 * (total + 1 - tied / (total * (total - 1))))
    with np.errstate(all="ignore"):  # no error: all samples are one number
        p = 2 * scipy_special().ndtr(-(np.abs(above - middle) - 0.5) / error)
    return _of_ranks("Mann-Whitney", p, np.sign(above - middle))


def permutation(before: Side, after: Side, size: int, tests: int) -> Found:
    """Test each label's difference of means among sides that are drawn by lot, as `scipy.stats.permutation_test`.

    Labels of small p get more permutations, until those that are left would have a small q among all `tests`.
    """
    counts = [np.bincount(codes, minlength=size) for codes, _ in (before, after)]
    codes, values = (np.concatenate(parts) for parts in zip(before, after, strict=True))
    order = np.argsort(codes, kind="stable")
    values, codes, later = values[order].astype(np.float64), codes[order], order >= before[0].shape[0]
    starts = np.append(0, np.cumsum(counts[0] + counts[1]))
    largest = np.maximum.reduceat(np.abs(values), starts[:-1])
    values = np.ldexp(values, -np.frexp(largest)[1][codes])  # sums of samples such as 1e307 are infinite
    values -= (np.bincount(codes, values, minlength=size) / np.diff(starts))[codes]
    swapped = counts[0] < counts[1]  # the smaller side is drawn
    drawn = later ^ swapped[codes]
    seen = np.bincount(codes[drawn], values[drawn], minlength=size)
    slack = 1e-13 * np.bincount(codes, np.abs(values), minlength=size)
    found, done = np.zeros((2, size), dtype=np.int64), np.zeros(size, dtype=np.int64)
    rng, few, rounds = np.random.default_rng(0), np.arange(size), _ROUNDS
    while few.size:
        limits = seen - slack, seen + slack  # sums in another order differ by rounding
        kernels.permutation.count_extreme(values, starts, np.minimum(*counts), *limits, few, rounds, rng, found)
        done[few] += rounds
        rounds = int(done[few[0]])  # twice as many in all
        few = few[found.min(axis=0)[few] < _FEW]
        if rounds * few.size * _SURE > 2 * _FEW * tests:
            break
    p = 2 * (1 + found.min(axis=0)) / (1 + done)
    return _of_ranks("permutation", p, np.sign(np.where(swapped, -seen, seen)))


def _of_ranks(method: str, p: Floats, sign: Floats) -> Found:
    none = np.full(p.shape[0], np.nan)
    return Found(method, np.fmin(p, 1.0), none, none, sign)  # NaN where all samples are one number


def ones(of: Moments) -> Floats:
    """Return how many samples are 1 where all are 0 or 1, else NaN: only then, sum and sum of squares are equal."""
    n = of.count.astype(np.float64)
    with np.errstate(all="ignore"):
        total = np.rint(of.mean * n)
        squares = total * (n - total) / n  # around the mean, if they are
        same = np.abs(of.std**2 * (n - 1) - squares) <= 1e-12 * squares
        same &= np.abs(of.mean * n - total) <= 1e-12 * total  # 100 samples of 0.001 are no zeros
    return np.where((of.min >= 0) & (of.max <= 1) & same, total, np.nan)


def are_shares(before: Moments, after: Moments) -> Mask:
    """Return where both sides' samples are all 0 or 1, so that means are shares of ones."""
    return ~np.isnan(ones(before) + ones(after))


def fisher(before: Moments, after: Moments) -> Found:
    """Test a difference of two shares of ones by Fisher's exact test; intervals are of Agresti and Caffo."""
    n, m, old, new = before.count, after.count, ones(before), ones(after)
    p = _tables_as_unlikely(new, n + m, old + new, m)
    shares = (old + 1) / (n + 2), (new + 1) / (m + 2)
    error = np.sqrt(sum(share * (1 - share) / (of + 2) for share, of in zip(shares, (n, m), strict=True)))
    return _of_shares("Fisher's exact", p, after.mean - before.mean, shares[1] - shares[0], error)


def _tables_as_unlikely(seen: Floats, total: Integers, right: Floats, drawn: Integers) -> Floats:
    """Return how probable tables are of which none is more probable than the one that was seen."""
    p = np.empty(seen.shape[0])
    for at, (k, n, r, d) in enumerate(zip(seen, total, right, drawn, strict=True)):
        # No double holds the probabilities of tables that are farther from the mean (Hoeffding's inequality).
        middle, reach = r * d / n, 20 * np.sqrt(min(r, d)) + 1
        low = np.floor(max(0, d + r - n, middle - reach))
        x = np.arange(low, min(r, d, middle + reach))
        ratio = (r - x) * (d - x) / ((x + 1) * (n - r - d + x + 1))  # of the probabilities of x + 1 and x; falls
        most = int(np.searchsorted(-ratio, -1))
        law = np.concatenate([np.cumprod(1 / ratio[:most][::-1])[::-1], [1.0], np.cumprod(ratio[most:])])
        own = law[int(k - low)] if 0 <= k - low < law.size else 0.0
        p[at] = law[law <= own * (1 + 1e-7)].sum() / law.sum()  # equal ones differ by rounding
    return p


def mcnemar(pairs: Moments) -> Found:
    """Test differences between pairs of zeros and ones by McNemar's exact test; intervals are of Agresti and Min."""
    n = pairs.count.astype(np.float64)
    net = np.rint(pairs.mean * n)
    moved = np.rint(pairs.std**2 * (n - 1) + net**2 / n)  # the sum of squares, each of which is 0 or 1
    p = np.minimum(1.0, 2 * scipy_special().bdtr((moved - np.abs(net)) / 2, moved.astype(np.int64), 0.5))
    error = np.sqrt(moved + 1 - net**2 / (n + 2)) / (n + 2)
    return _of_shares("McNemar's exact", p, pairs.mean, net / (n + 2), error)


def _of_shares(method: str, p: Floats, difference: Floats, centre: Floats, error: Floats) -> Found:
    reach = scipy_special().ndtri((1 + CONFIDENCE) / 2) * error
    return Found(method, p, np.maximum(centre - reach, -1.0), np.minimum(centre + reach, 1.0), np.sign(difference))


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
        pooled = np.hypot(np.sqrt((n - 1) / df) * before.std, np.sqrt((m - 1) / df) * after.std)
        small = np.exp(gammaln(df / 2) - gammaln((df - 1) / 2) - np.log(df / 2) / 2)
        difference = after.mean - before.mean
        return np.where((pooled == 0) & (difference == 0), 0.0, difference / pooled * small)


def skew_error(before: Moments, after: Moments) -> Floats:
    """Return the skewness of the difference of means of two samples of one distribution: Welch's t rejects too often.

    Samples from ``m - a·s`` to ``m + b·s`` around their mean ``m``, with standard deviation ``s``, have a skewness from
    ``1/a - a`` to ``b - 1/b``; the middle of that is taken. Where sizes are equal, the difference has none.
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
        spread = np.hypot(np.hypot(np.sqrt(n - 1) * one.std, np.sqrt(m - 1) * other.std), np.sqrt(n * share) * apart)
        std = np.where(m == 0, one.std, np.where(n == 0, other.std, spread / np.sqrt(n + m - 1)))
    return Moments(one.count + other.count, mean, std, np.fmin(one.min, other.min), np.fmax(one.max, other.max))


def skewed(differences: Iterable[Side], pairs: Moments, most: Floats) -> Mask:
    """Return where the skewness of a label's differences, which come in parts, is beyond a limit."""
    third = np.zeros(pairs.count.shape[0])
    with np.errstate(all="ignore"):
        farthest = np.maximum(pairs.max - pairs.mean, pairs.mean - pairs.min) / pairs.std  # no skewness is larger
        for codes, values in differences if (farthest > most).any() else ():
            scaled = (values - pairs.mean[codes]) / pairs.std[codes]
            third += np.bincount(codes, scaled * scaled * scaled, minlength=third.shape[0])
        beyond: Mask = (pairs.std > 0) & (np.abs(third / pairs.count) > most)
    return beyond
