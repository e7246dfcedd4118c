"""Which test a label gets, when there is none, and what the result of a test says.

The limits were chosen by simulation (``benchmarks/significance.py``): what does not hold its level there is not chosen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, get_args

import numpy as np

from labeltrack._convert.objects import text_array
from labeltrack._core.arrays import Array, Floats, Integers, Mask
from labeltrack._labels.combined import union
from labeltrack._significance import p_values
from labeltrack._significance.comparison import BETTER, NO_EVIDENCE, TOO_FEW, WORSE, Comparison, check_alpha
from labeltrack._significance.p_values import Found, Moments, moments
from labeltrack._significance.pairs import difference, reduced
from labeltrack.errors import check_option

if TYPE_CHECKING:
    from collections.abc import Iterator

    from labeltrack._significance.pairs import Samples
    from labeltrack.stats import LabelStats

Method = Literal["auto", "welch", "permutation", "mann-whitney", "paired-t", "wilcoxon"]
_METHODS = get_args(Method)
FEWEST: Final = 20  # samples on each side; with fewer no test says much, and Welch's t depends on the distribution
# Of the difference of means; at 0.2, 20 against 40 exponential samples pass 0.001 twice as often.
MOST_SKEW: Final = 0.1
MOST_PAIRED_SKEW: Final = 0.2  # of the mean of differences between pairs
MOST_ALONE: Final = 0.1  # of a side's samples that are not on the other, for a test of pairs
NO_PAIRS = "no pairs"
TOO_SKEWED, NOT_FINITE = "too skewed for moments alone: record the run", "not finite"
TOO_LARGE = "standard deviation beyond the largest double"


def compare_stats(
    before: LabelStats,
    after: LabelStats,
    samples: Samples | None = None,
    *,
    title: str = "before and after",
    metric: str = "metric",
    higher_is_worse: bool = True,
    alpha: float = 0.05,
    method: Method = "auto",
) -> Comparison:
    """Compare two sides; see `labeltrack.compare`. Samples, if any, have positions in the union of labels."""
    _check(method, alpha, samples)
    labels, (places, others) = union([before.labels, after.labels])
    old, new = moments(before, places, len(labels)), moments(after, others, len(labels))
    names = np.empty(len(labels), dtype=object)
    names[others], names[places] = after.names, before.names
    enough = (old.count >= FEWEST) & (new.count >= FEWEST)
    finite = [np.isfinite(side.mean) & ~np.isnan(side.std) for side in (old, new)]
    vast = finite[0] & finite[1] & (np.isinf(old.std) | np.isinf(new.std))
    tested, units = enough & finite[0] & finite[1] & ~vast, p_values.units((old, new))
    sides = old.scaled(units), new.scaled(units)
    found = _tested(*sides, _scaled(samples, units), tested, method)
    with np.errstate(over="ignore"):
        low, high = np.ldexp(found.low, units), np.ldexp(found.high, units)
    difference, relative = p_values.change(old.mean, new.mean)
    q = p_values.adjusted(found.p)
    sign = np.sign(difference) * (1 if higher_is_worse else -1)
    sign[found.sign != np.sign(difference)] = 0  # ranks and means disagree
    worse, better = (q < alpha) & (sign > 0), (q < alpha) & (sign < 0)
    where = [~enough, finite[0] & ~finite[1], finite[1] & ~finite[0], worse, better]
    verdict = np.select(where, [TOO_FEW, WORSE, BETTER, WORSE, BETTER], NO_EVIDENCE)
    found.method[vast], found.method[~(finite[0] & finite[1])] = TOO_LARGE, NOT_FINITE
    found.method[~enough] = f"fewer than {FEWEST} samples"
    return Comparison(
        labels=labels,
        names=text_array(names.tolist()),
        count_before=old.count,
        count_after=new.count,
        mean_before=old.mean,
        mean_after=new.mean,
        difference=difference,
        relative=relative,
        low=low,
        high=high,
        g=np.where(vast, np.nan, p_values.hedges_g(*sides)),
        p=found.p,
        q=q,
        method=found.method.astype(np.str_),
        verdict=verdict,
        title=title,
        metric=metric,
        alpha=alpha,
        higher_is_worse=higher_is_worse,
    )


def _check(method: str, alpha: float, samples: Samples | None) -> None:
    check_option("method", method, _METHODS)
    check_alpha(alpha)
    if method in ("paired-t", "wilcoxon") and (samples is None or samples.pairs is None):
        msg = (
            f"method={method!r} needs the same samples on both sides: recorded runs with ids, or with equal labels in "
            "equal order"
        )
        raise ValueError(msg)
    if method in ("permutation", "mann-whitney") and samples is None:
        msg = f"method={method!r} needs the samples, and statistics do not have them: compare recorded runs"
        raise ValueError(msg)


class _Results:
    """What was found for K labels: NaN where nothing was tested; which test it was, or why there is none."""

    def __init__(self, size: int) -> None:
        self.method: Array = np.full(size, "", dtype=object)
        self.p, self.low, self.high, self.sign = (np.full(size, np.nan) for _ in range(4))

    def enter(self, where: Mask, found: Found) -> None:
        """Take over the results of some labels."""
        self.method[where], self.p[where], self.low[where], self.high[where], self.sign[where] = found


def _tested(before: Moments, after: Moments, samples: Samples | None, tested: Mask, method: Method) -> _Results:
    """Test the labels that are to be tested."""
    found = _Results(tested.shape[0])
    shares = p_values.are_shares(before, after) & np.bool_(method == "auto")
    tests = int(tested.sum())
    if samples is not None and samples.pairs is not None and method in ("auto", "paired-t", "wilcoxon"):
        fewest = (1 - MOST_ALONE) * np.minimum(np.maximum(before.count, after.count), samples.pairs.most)
        tested = tested & ~_test_pairs(samples, tested, fewest, shares, method, found)
    if method in ("paired-t", "wilcoxon"):
        found.method[tested] = NO_PAIRS
        return found
    by_share = tested & shares
    found.enter(by_share, p_values.fisher(before.at(by_share), after.at(by_share)))
    skewed = p_values.skew_error(before, after) > MOST_SKEW
    by_sample = tested & ~by_share & (skewed if method == "auto" else np.bool_(method != "welch"))
    by_mean = tested & ~by_share & ~by_sample
    found.enter(by_mean, p_values.welch(before.at(by_mean), after.at(by_mean)))
    if samples is None:
        found.method[by_sample] = TOO_SKEWED
    elif by_sample.any():
        every = samples.every()
        old, new = (_of_labels(*side, by_sample) for side in zip(every.codes, every.values, strict=True))
        size = int(by_sample.sum())
        if method == "mann-whitney":
            found.enter(by_sample, p_values.mann_whitney(old, new, size))
        else:
            found.enter(by_sample, p_values.permutation(old, new, size, tests))
    return found


def _scaled(samples: Samples | None, units: Array) -> Samples | None:
    """Return samples divided by the powers of two of their labels, as far as tests look at more than their ranks."""
    if samples is None or samples.pairs is None or not units.any():
        return samples
    samples = samples.every()
    pairs: Any = samples.pairs
    old, new = (np.ldexp(side.astype(np.float64), -units[pairs.codes]) for side in (pairs.before, pairs.after))
    return samples._replace(pairs=pairs._replace(before=old, after=new))


def _test_pairs(samples: Samples, tested: Mask, fewest: Floats, shares: Mask, method: Method, found: _Results) -> Mask:
    """Test the labels that have enough pairs; return which these are."""
    stats = samples.differences or reduced(_differences(samples, tested), samples.codes[0].shape[0])
    of = moments(stats, stats.labels, tested.shape[0])
    enough = tested & (of.count >= np.maximum(fewest, FEWEST))
    by_share = enough & shares
    found.enter(by_share, p_values.mcnemar(of.at(by_share)))
    by_rank = enough & ~by_share & np.bool_(method != "paired-t")
    if method == "auto":
        most = np.where(by_rank, MOST_PAIRED_SKEW * np.sqrt(of.count), np.inf)
        by_rank &= p_values.skewed(_differences(samples, tested), of, most)
    by_mean = enough & ~by_share & ~by_rank
    found.enter(by_mean, p_values.paired_t(of.at(by_mean)))
    if by_rank.any():
        found.enter(by_rank, p_values.wilcoxon(_differences(samples, tested), np.where(by_rank, of.count, 0)))
    return enough


def _differences(samples: Samples, tested: Mask) -> Iterator[tuple[Integers, Floats]]:
    """Yield differences that are numbers, with their labels' positions, in parts that stay in the cache."""
    if samples.parts is not None:
        yield from samples.parts()
        return
    pairs: Any = samples.pairs
    wanted = None if tested.all() else tested
    for start in range(0, max(pairs.codes.shape[0], 1), p_values.BLOCK):
        part = slice(start, start + p_values.BLOCK)
        yield difference(pairs.codes[part], pairs.before[part], pairs.after[part], wanted)


def _of_labels(codes: Integers, values: Floats, wanted: Mask) -> tuple[Integers, Floats]:
    """Return the samples of wanted labels that are numbers, with their labels' positions among these."""
    kept = wanted[codes] & ~np.isnan(values)
    return (np.cumsum(wanted) - 1)[codes[kept]], values[kept]
