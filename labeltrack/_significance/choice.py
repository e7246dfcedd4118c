"""Which test a label gets, and the comparison of two sides.

The limits were chosen by simulation (``benchmarks/significance.py``): what does not hold its level there is not chosen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, get_args

import numpy as np

from labeltrack._convert.objects import text_array
from labeltrack._core.arrays import Array, Floats, Integers, Mask
from labeltrack._labels.combined import union
from labeltrack._significance import methods
from labeltrack._significance.comparison import BETTER, NO_EVIDENCE, TOO_FEW, WORSE, Comparison
from labeltrack._significance.methods import Found, Moments
from labeltrack._significance.samples import difference, reduced
from labeltrack.errors import check_option

if TYPE_CHECKING:
    from collections.abc import Iterator

    from labeltrack._significance.samples import Samples
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
    """Compare two sides; see `labeltrack.compare`.

    Args:
        before: Statistics before.
        after: Statistics after.
        samples: Their samples, by position in ``merged_labels(before, after)``; None if there are only statistics.
        title: What is compared.
        metric: Name of the metric.
        higher_is_worse: True for a loss, False for an accuracy.
        alpha: Limit of q for a verdict.
        method: The test; ``"auto"`` chooses the best for each label.

    Raises:
        ImportError: scipy is not installed (extra ``stats``).
        ValueError: An unknown method, one that needs other samples, or `alpha` is not between 0 and 1.
    """
    _check(method, alpha, samples)
    labels, places, others = merged_labels(before, after)
    old, new = moments(before, places, len(labels)), moments(after, others, len(labels))
    names = np.empty(len(labels), dtype=object)
    names[others], names[places] = after.names, before.names
    enough = (old.count >= FEWEST) & (new.count >= FEWEST)
    finite = [np.isfinite(side.mean) & ~np.isnan(side.std) for side in (old, new)]
    vast = finite[0] & finite[1] & (np.isinf(old.std) | np.isinf(new.std))
    tested, units = enough & finite[0] & finite[1] & ~vast, methods.units((old, new))
    sides = old.scaled(units), new.scaled(units)
    found, used = _tested(*sides, _scaled(samples, units), tested, method)
    with np.errstate(over="ignore"):
        low, high = np.ldexp(found.low, units), np.ldexp(found.high, units)
    difference, relative = methods.change(old.mean, new.mean)
    q = methods.adjusted(found.p)
    sign = np.sign(difference) * (1 if higher_is_worse else -1)
    sign[found.sign != np.sign(difference)] = 0  # ranks and means disagree
    verdict = np.full(len(labels), NO_EVIDENCE, dtype="<U11")
    verdict[(q < alpha) & (sign > 0)] = WORSE
    verdict[(q < alpha) & (sign < 0)] = BETTER
    verdict[finite[0] & ~finite[1]] = WORSE
    verdict[~finite[0] & finite[1]] = BETTER
    used[vast], used[~(finite[0] & finite[1])] = TOO_LARGE, NOT_FINITE
    verdict[~enough], used[~enough] = TOO_FEW, f"fewer than {FEWEST} samples"
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
        g=np.where(vast, np.nan, methods.hedges_g(*sides)),
        p=found.p,
        q=q,
        method=used.astype(np.str_),
        verdict=verdict,
        title=title,
        metric=metric,
        alpha=alpha,
        higher_is_worse=higher_is_worse,
    )


def merged_labels(before: LabelStats, after: LabelStats) -> tuple[Array, Integers, Integers]:
    """Return the labels of both sides, and the positions of each side's labels among them."""
    labels, (places, others) = union([before.labels, after.labels])
    return labels, places, others


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


def check_alpha(alpha: float) -> None:
    """Raise a ValueError unless it is a probability."""
    if not 0 < alpha < 1:
        msg = f"alpha must be between 0 and 1, got {alpha}"
        raise ValueError(msg)


def moments(stats: LabelStats, places: Integers, size: int) -> Moments:
    """Return the statistics of one side at the positions of its labels."""
    columns = stats.mean, stats.std, stats.min, stats.max
    return Moments(spread(stats.count, places, size, 0), *(spread(column, places, size) for column in columns))


def spread(column: Array, places: Integers, size: int, rest: float = np.nan) -> Array:
    """Return a longer column that has some values at their places, and one number elsewhere."""
    whole = np.full(size, rest, dtype=column.dtype)
    whole[places] = column
    return whole


def _tested(
    before: Moments, after: Moments, samples: Samples | None, tested: Mask, method: Method
) -> tuple[Found, Array]:
    """Return the results of the labels to be tested, and the name of each label's test."""
    found = Found(*(np.full(tested.shape[0], np.nan) for _ in Found._fields))
    used = np.full(tested.shape[0], "", dtype=object)
    shares = methods.are_shares(before, after) & np.bool_(method == "auto")
    tests = int(tested.sum())
    if samples is not None and samples.pairs is not None and method in ("auto", "paired-t", "wilcoxon"):
        fewest = (1 - MOST_ALONE) * np.minimum(np.maximum(before.count, after.count), samples.pairs.most)
        tested = tested & ~_test_pairs(samples, tested, fewest, shares, method, found, used)
    if method in ("paired-t", "wilcoxon"):
        used[tested] = NO_PAIRS
        return found, used
    by_share = tested & shares
    _enter(found, used, by_share, methods.FISHER, methods.fisher(before.at(by_share), after.at(by_share)))
    skewed = methods.skew_error(before, after) > MOST_SKEW
    by_sample = tested & ~by_share & (skewed if method == "auto" else np.bool_(method != "welch"))
    by_mean = tested & ~by_share & ~by_sample
    _enter(found, used, by_mean, methods.WELCH, methods.welch(before.at(by_mean), after.at(by_mean)))
    if samples is None:
        used[by_sample] = TOO_SKEWED
    elif by_sample.any():
        every = samples.every()
        old, new = (_of_labels(*side, by_sample) for side in zip(every.codes, every.values, strict=True))
        size = int(by_sample.sum())
        if method == "mann-whitney":
            _enter(found, used, by_sample, methods.MANN_WHITNEY, methods.mann_whitney(old, new, size))
        else:
            _enter(found, used, by_sample, methods.PERMUTATION, methods.permutation(old, new, size, tests))
    return found, used


def _scaled(samples: Samples | None, units: Array) -> Samples | None:
    """Return samples divided by the powers of two of their labels, as far as tests look at more than their ranks."""
    if samples is None or samples.pairs is None or not units.any():
        return samples
    samples = samples.every()
    pairs: Any = samples.pairs
    old, new = (np.ldexp(side.astype(np.float64), -units[pairs.codes]) for side in (pairs.before, pairs.after))
    return samples._replace(pairs=pairs._replace(before=old, after=new))


def _test_pairs(
    samples: Samples,
    tested: Mask,
    fewest: Floats,
    shares: Mask,
    method: Method,
    found: Found,
    used: Array,
) -> Mask:
    """Test the labels that have enough pairs; return which these are."""
    stats = samples.differences or reduced(_differences(samples, tested), samples.codes[0].shape[0])
    of = moments(stats, stats.labels, tested.shape[0])
    enough = tested & (of.count >= np.maximum(fewest, FEWEST))
    by_share = enough & shares
    _enter(found, used, by_share, methods.MCNEMAR, methods.mcnemar(of.at(by_share)))
    by_rank = enough & ~by_share & np.bool_(method != "paired-t")
    if method == "auto":
        most = np.where(by_rank, MOST_PAIRED_SKEW * np.sqrt(of.count), np.inf)
        by_rank &= methods.skewed(_differences(samples, tested), of, most)
    by_mean = enough & ~by_share & ~by_rank
    _enter(found, used, by_mean, methods.PAIRED_T, methods.paired_t(of.at(by_mean)))
    if by_rank.any():
        ranked = methods.wilcoxon(_differences(samples, tested), np.where(by_rank, of.count, 0))
        _enter(found, used, by_rank, methods.WILCOXON, ranked)
    return enough


def _differences(samples: Samples, tested: Mask) -> Iterator[tuple[Integers, Floats]]:
    """Yield differences that are numbers, those of all labels to be tested among them, with their labels' positions.

    They come in parts that stay in the cache: new memory for all of them would take longer than everything else.
    """
    if samples.parts is not None:
        yield from samples.parts()
        return
    pairs: Any = samples.pairs
    wanted = None if tested.all() else tested
    for start in range(0, max(pairs.codes.shape[0], 1), methods.BLOCK):
        part = slice(start, start + methods.BLOCK)
        yield difference(pairs.codes[part], pairs.before[part], pairs.after[part], wanted)


def _of_labels(codes: Integers, values: Floats, wanted: Mask) -> tuple[Integers, Floats]:
    """Return the samples of wanted labels that are numbers, with their labels' positions among these."""
    kept = wanted[codes] & ~np.isnan(values)
    return (np.cumsum(wanted) - 1)[codes[kept]], values[kept]


def _enter(found: Found, used: Array, where: Mask, name: str, results: Found) -> None:
    for column, result in zip(found, results, strict=True):
        column[where] = result
    used[where] = name
