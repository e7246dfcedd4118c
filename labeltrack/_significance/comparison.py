"""Comparing two sides: what changed for every label; which test it gets, and whether it is more than noise.

The limits were chosen by simulation (``benchmarks/significance.py``): what does not hold its level there is not chosen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

import numpy as np
import numpy.typing as npt

from labeltrack._convert.objects import text_array
from labeltrack._core.arrays import Array, Floats, Integers, Mask
from labeltrack._labels.combined import columns_of, union
from labeltrack._labels.lookup import CombinedLookup, Lookup
from labeltrack._significance import methods
from labeltrack._significance.methods import Found, Moments
from labeltrack._significance.samples import difference, reduced
from labeltrack._tables import Table, shown_places
from labeltrack.errors import check_option, counted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matplotlib.figure import Figure

    from labeltrack._significance.samples import Samples
    from labeltrack.stats import LabelStats

WORSE, BETTER, NO_EVIDENCE, TOO_FEW = "worse", "better", "no evidence", "too few"
VERDICTS = WORSE, NO_EVIDENCE, BETTER, TOO_FEW
"""In the order in which they are shown."""
_COLUMNS = (
    *("count_before", "count_after", "mean_before", "mean_after", "difference", "relative"),
    *("low", "high", "g", "p", "q", "method", "verdict"),
)
_HEAD = "label", "before", "after", "change", "q", "samples", "method", "verdict"

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


def percent(change: float) -> str:
    """Return a relative change as text; empty if there is none, as of a mean that is no number."""
    return "" if np.isnan(change) else f"{change:+.1%}"


@dataclass(frozen=True, eq=False, repr=False)
class Comparison(Table):
    """What changed for each of K labels, from before to after; from `labeltrack.compare` and `History.compare`.

    Attributes:
        labels: ``(K,)`` label values of both sides, sorted; a structured array where samples have several labels.
        names: ``(K,)`` display names.
        count_before: ``(K,)`` int64 number of samples before; 0 where the label has none.
        count_after: ``(K,)`` int64 number of samples after.
        mean_before: ``(K,)`` float64 mean before, NaN where there are no samples.
        mean_after: ``(K,)`` float64 mean after.
        difference: ``(K,)`` float64 mean after - mean before.
        relative: ``(K,)`` float64 difference as a share of the absolute mean before.
        low: ``(K,)`` float64 lower end of the difference's 95 % confidence interval; NaN for tests by ranks.
        high: ``(K,)`` float64 upper end.
        g: ``(K,)`` float64 Hedges' g: the difference in units of the pooled standard deviation.
        p: ``(K,)`` float64 two-sided p-value; NaN where nothing was tested.
        q: ``(K,)`` float64 p-value after Benjamini and Hochberg across the labels that were tested.
        method: ``(K,)`` the test, or why there is none.
        verdict: ``(K,)`` ``"worse"``, ``"better"``, ``"no evidence"`` or ``"too few"``.
        title: What was compared.
        metric: Name of the metric.
        alpha: Limit of `q` for a verdict.
        higher_is_worse: True for a loss, False for an accuracy.
    """

    labels: Array
    names: npt.NDArray[np.str_]
    count_before: Integers
    count_after: Integers
    mean_before: Floats
    mean_after: Floats
    difference: Floats
    relative: Floats
    low: Floats
    high: Floats
    g: Floats
    p: Floats
    q: Floats
    method: npt.NDArray[np.str_]
    verdict: npt.NDArray[np.str_]
    title: str
    metric: str
    alpha: float
    higher_is_worse: bool

    def __post_init__(self) -> None:
        """Make the arrays read-only."""
        for name in ("labels", "names", *_COLUMNS):
            getattr(self, name).flags.writeable = False

    def __len__(self) -> int:
        """Return the number of labels."""
        return int(self.labels.shape[0])

    def worse(self) -> list[Any]:
        """Return the labels that got worse, the largest change first."""
        return self._of(WORSE)

    def better(self) -> list[Any]:
        """Return the labels that got better, the largest change first."""
        return self._of(BETTER)[::-1]

    def _of(self, verdict: str) -> list[Any]:
        order = self.order()
        found: list[Any] = self.labels[order[self.verdict[order] == verdict]].tolist()
        return found

    def order(self) -> Integers:
        """Return the positions of the labels by verdict (worse first), and by effect size within each."""
        bad = self.g if self.higher_is_worse else -self.g
        rank = np.argmax(self.verdict[:, np.newaxis] == np.array(VERDICTS), axis=1)
        return np.lexsort([-bad, rank])  # NaN comes last

    def index(self, label: Any) -> int:
        """Return the position of a label, given by its value or its display name.

        Raises:
            KeyError: There is no such label; the message names the nearest.
        """
        if self.labels.dtype.names is not None:
            return CombinedLookup(self.labels, lambda: self.names, {}).index(label)
        return Lookup(self.labels, self.names).index(label)

    def columns(self) -> dict[str, Array]:
        """Return every column as a dict of ``(K,)`` arrays; each of several labels has a column of its name."""
        labels = columns_of(self.labels) or {"label": self.labels}
        return {**labels, "name": self.names, **{name: getattr(self, name) for name in _COLUMNS}}

    def summary(self) -> str:
        """Return how many labels have which verdict, in one sentence."""
        worse, neither, better, few = (int((self.verdict == verdict).sum()) for verdict in VERDICTS)
        text = f"{worse or 'none'} of {counted(len(self), 'label')} got worse"
        text += f", {better} got better" if better else ""
        rest = [f"no evidence for {neither}"] if neither else []
        rest += [f"too few samples for {few}"] if few else []
        return "; ".join([f"{text} (q < {self.alpha:g})", *rest])

    def _shown(self) -> tuple[str, list[tuple[Any, ...]], int]:
        """Return the summary and a table, worst first."""
        rows = [self._row(k) for k in self.order()[shown_places(len(self))].tolist()]
        return f"{self.metric}, {self.title}: {self.summary()}", [_HEAD, *rows], len(self)

    def _row(self, k: int) -> tuple[Any, ...]:
        q, samples = self.q[k], f"{self.count_before[k]} → {self.count_after[k]}"
        means = f"{self.mean_before[k]:.6g}", f"{self.mean_after[k]:.6g}"
        shown = percent(self.relative[k]) or "-", "-" if np.isnan(q) else f"{q:.2g}"
        return (str(self.names[k]), *means, *shown, samples, str(self.method[k]), str(self.verdict[k]))

    def plot(self, labels: Any = None, *, title: str | None = None) -> Figure:
        """Draw the differences with their confidence intervals, worst first (a forest plot).

        Args:
            labels: Label values or display names to show, in that order; None for the first 40 of `order`.
            title: Title; None for what was compared.

        Returns:
            A matplotlib Figure that is not registered with pyplot; save it with ``figure.savefig(path)``.

        Raises:
            KeyError: There is no such label.
            ValueError: There is no label to show.
        """
        from labeltrack.plot.forest import MOST, forest  # noqa: PLC0415 (matplotlib is loaded only to draw)

        places = self.order()[:MOST] if labels is None else np.array([self.index(label) for label in labels], np.int64)
        return forest(self, places, title)


# -- which test a label gets ---------------------------------------------------------------------------------


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
    tested, units = enough & finite[0] & finite[1] & ~vast, methods.units((old, new))
    sides = old.scaled(units), new.scaled(units)
    found, used = _tested(*sides, _scaled(samples, units), tested, method)
    with np.errstate(over="ignore"):
        low, high = np.ldexp(found.low, units), np.ldexp(found.high, units)
    difference, relative = methods.change(old.mean, new.mean)
    q = methods.adjusted(found.p)
    sign = np.sign(difference) * (1 if higher_is_worse else -1)
    sign[found.sign != np.sign(difference)] = 0  # ranks and means disagree
    worse, better = (q < alpha) & (sign > 0), (q < alpha) & (sign < 0)
    where = [~enough, finite[0] & ~finite[1], finite[1] & ~finite[0], worse, better]
    verdict = np.select(where, [TOO_FEW, WORSE, BETTER, WORSE, BETTER], NO_EVIDENCE)
    used[vast], used[~(finite[0] & finite[1])] = TOO_LARGE, NOT_FINITE
    used[~enough] = f"fewer than {FEWEST} samples"
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
    """Yield differences that are numbers, with their labels' positions, in parts that stay in the cache."""
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
