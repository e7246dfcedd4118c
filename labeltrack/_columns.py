"""The exact state of K labels and the columns read from it: statistics, quantiles, and the NaN policy applied."""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self, cast

import numpy as np
import numpy.typing as npt

from labeltrack._convert.objects import tight
from labeltrack._core.arrays import Array, Floats, Integers, Mask, read_only
from labeltrack._core.quantiles import Samples, reduce_quantiles
from labeltrack._core.rounding import Totals
from labeltrack._labels.combined import columns_of
from labeltrack._labels.lookup import display_names
from labeltrack._nan_policy import NanPolicy, check_finite, check_nan_policy, with_nonfinite
from labeltrack.errors import listing

if TYPE_CHECKING:
    from labeltrack._core.accumulator import Accumulator

STATISTICS = ("count", "sum", "mean", "std", "min", "max")
"""Names of the statistics, in the order used by every table."""


class NoQuantiles(enum.Enum):
    """Why statistics have no quantiles: what the state keeps, and what the error says."""

    NOT_REQUESTED = "not requested"
    MERGED = "merged"
    MARGINAL = "marginal"
    FOLDED = "folded"

    @property
    def sentence(self) -> str:
        """The reason and the remedy."""
        return _NO_QUANTILES[self]


_NO_QUANTILES = {
    NoQuantiles.NOT_REQUESTED: (
        "quantiles are computed only on request: with quantiles=[...] in label_stats(), or with bounds='iqr', 'median' "
        "or ('quantile', low, high) in LabelTracker() or Run.recompute()"
    ),
    NoQuantiles.MERGED: (
        "these statistics were merged, and quantiles cannot be merged; compute them from all the samples at once, with "
        "one tracker or one call of label_stats()"
    ),
    NoQuantiles.MARGINAL: (
        "by() merges the statistics of combinations of labels, and quantiles cannot be merged; compute them from the "
        "samples, with label_stats() of those labels alone"
    ),
    NoQuantiles.FOLDED: (
        "max_buffer_bytes was full, so samples were folded into exact sums, and quantiles need the samples. Raise "
        "max_buffer_bytes to the size of an epoch; or record the run with record_to= and compute the quantiles with "
        "labeltrack.open_run(...).recompute()"
    ),
}


class ExactColumns:
    """Columns of exact statistics; `labeltrack.LabelStats` adds rows, rankings, merging and tables."""

    def __init__(
        self,
        labels: Array,
        accumulator: Accumulator,
        *,
        names: Mapping[Any, str] | None = None,
        nan_policy: NanPolicy = "propagate",
        quantiles: Mapping[float, Floats] | None = None,
        no_quantiles: NoQuantiles = NoQuantiles.NOT_REQUESTED,
    ) -> None:
        """Wrap ``(K,)`` sorted, unique labels and an accumulator with K slots in the same order, which must not change.

        `names` are display names by label, or by ``(name of the label, label)`` where samples have several; `quantiles`
        are ``(K,)`` by fraction, NaN samples excluded, and `no_quantiles` is why there are no others.
        """
        self._labels = tight(labels)
        self._accumulator = accumulator
        self._names = dict(names or {})
        self._nan_policy = check_nan_policy(nan_policy)
        self._quantiles = dict(quantiles or {})
        self._no_quantiles = no_quantiles

    @property
    def labels(self) -> Array:
        """``(K,)`` label values, sorted."""
        return read_only(self._labels)

    @cached_property
    def names(self) -> npt.NDArray[np.str_]:
        """``(K,)`` display names: those of the mapping, else the label as text."""
        return read_only(display_names(self._labels, self._names))

    @property
    def label_names(self) -> tuple[str, ...]:
        """Names of the labels where samples have several, each a field of `labels`; empty for one label."""
        return self._labels.dtype.names or ()

    @property
    def nan_policy(self) -> NanPolicy:
        """How NaN samples enter the statistics."""
        return self._nan_policy

    @property
    def count(self) -> Integers:
        """``(K,)`` int64 number of samples."""
        return self._totals.count

    @property
    def sum(self) -> Floats:
        """``(K,)`` float64 sum."""
        return self._totals.sum

    @property
    def mean(self) -> Floats:
        """``(K,)`` float64 arithmetic mean."""
        return self._totals.mean

    @property
    def std(self) -> Floats:
        """``(K,)`` float64 sample standard deviation, ddof=1; 0.0 where `count` is 1."""
        return self._totals.std

    @property
    def sem(self) -> Floats:
        """``(K,)`` float64 standard error of the mean, ``std / sqrt(count)``; NaN where `count` is 1.

        A single sample has no standard error, although `std` is 0.0 by convention.
        """
        count = self.count.astype(np.float64)
        return np.where(count > 1, self.std / np.sqrt(np.maximum(count, 1.0)), np.nan)

    @property
    def min(self) -> Floats:
        """``(K,)`` float64 smallest sample."""
        return self._totals.min

    @property
    def max(self) -> Floats:
        """``(K,)`` float64 largest sample."""
        return self._totals.max

    @property
    def nan_count(self) -> Integers:
        """``(K,)`` int64 number of NaN samples, under any policy."""
        return read_only(self._accumulator.nonfinite[:, 0].copy())

    @property
    def quantiles(self) -> tuple[float, ...]:
        """Fractions of the quantiles that were computed, ascending."""
        return tuple(self._quantiles)

    def quantile(self, fraction: float) -> Floats:
        """Return a quantile of every label, bit for bit as `numpy.quantile` computes it from the samples as float64.

        Args:
            fraction: From 0 to 1; one of `quantiles`.

        Returns:
            ``(K,)`` float64, interpolated linearly between samples. NaN where a label has NaN samples under
            ``"propagate"``. Unlike in numpy, a quantile that falls on a sample is that sample even next to an infinity.

        Raises:
            ValueError: It was not computed; the message says why and what to do.

        Example:
            >>> import labeltrack as lt
            >>> lt.label_stats([0, 0, 1], [1.0, 2.0, 5.0], quantiles=[0.5]).quantile(0.5)
            array([1.5, 5. ])
        """
        found = self._quantiles.get(fraction)
        if found is None:
            there = f"available are {listing(self.quantiles)}; " if self._quantiles else ""
            msg = f"there is no quantile {fraction!r}: {there}{self._no_quantiles.sentence}"
            raise ValueError(msg)
        self._check_finite()
        if self._nan_policy == "propagate" and self.nan_count.any():
            found = np.where(self.nan_count > 0, np.nan, found)
        return read_only(found)

    @property
    def median(self) -> Floats:
        """``(K,)`` float64 median, if it was computed; see `quantile`."""
        return self.quantile(0.5)

    def _with_quantiles(
        self, parts: Sequence[Samples], fractions: Sequence[float], *, threads: int | None = None
    ) -> Self:
        """Return the same statistics with quantiles of `parts`, all their samples; `fractions` ascend."""
        found = reduce_quantiles(parts, self._accumulator.counts_without_nan(), fractions, threads=threads)
        return self._like(quantiles=dict(zip(fractions, found, strict=True)))

    def _like(self, **different: Any) -> Self:
        """Return the same statistics with some arguments changed."""
        names = ("names", "nan_policy", "quantiles", "no_quantiles")
        same = {name: getattr(self, f"_{name}") for name in names}
        return type(self)(self._labels, self._accumulator, **{**same, **different})

    @cached_property
    def _totals(self) -> Totals:
        """Every statistic with the policy applied."""
        self._check_finite()
        finite = self._accumulator.totals()
        if self._accumulator.all_finite():  # no pass over counts of zero
            return finite
        count, *others = with_nonfinite(finite, self._accumulator.nonfinite, self._nan_policy)
        return Totals(read_only(count), *map(read_only, others))

    def _check_finite(self) -> None:
        """Raise NaNError if there are NaN samples and the policy is ``"raise"``."""
        if self._nan_policy == "raise":
            check_finite(self._accumulator.nonfinite[:, 0], lambda: self.names)

    def with_nan_policy(self, nan_policy: NanPolicy) -> Self:
        """Return the same statistics under another policy, without recomputing them.

        Args:
            nan_policy: ``"propagate"`` (a label with NaN has NaN statistics), ``"omit"`` or ``"raise"``.

        Raises:
            ValueError: An unknown policy, or NaN samples under ``"raise"``.
        """
        other = self._under(nan_policy)
        other._check_finite()
        return other

    def _under(self, nan_policy: NanPolicy) -> Self:
        """Return the same statistics under another policy, without checking for NaN yet."""
        return self._like(nan_policy=nan_policy)

    def column(self, statistic: str) -> Array:
        """Return one statistic of every label by name.

        Args:
            statistic: count, sum, mean, std, min or max; median, or another quantile that was computed, as ``"q0.25"``.

        Raises:
            ValueError: There is no such statistic.
        """
        if statistic in STATISTICS:
            return cast("Array", getattr(self, statistic))
        fraction = _fraction_of(statistic)
        if fraction is None:
            msg = f"unknown statistic {statistic!r}; there are {listing((*STATISTICS, 'median', *self._named()))}"
            labels = f"; the labels are {listing(self.label_names)}" if self.label_names else ""
            raise ValueError(msg + labels)
        return self.quantile(fraction)

    def _named(self) -> dict[str, float]:
        """Return the fractions of the quantiles by column name."""
        return {f"q{fraction!r}": fraction for fraction in self._quantiles}

    def columns(self) -> dict[str, Array]:
        """Return label, name and every statistic as a dict of ``(K,)`` arrays; quantiles are named like ``"q0.25"``.

        With several labels per sample, each has a column of its name in place of ``"label"``.
        """
        labels = columns_of(self._labels) or {"label": self._labels}
        head = {name: read_only(column) for name, column in labels.items()} | {"name": self.names}
        return head | {name: self.column(name) for name in (*STATISTICS, *self._named())}

    @property
    def present(self) -> Mask:
        """``(K,)`` whether the label has samples, NaN or not; False for rows of `with_absent`."""
        found = np.zeros(self._labels.shape[0], dtype=np.bool_)
        found[self._accumulator.occupied()] = True
        return found


def _fraction_of(statistic: str) -> float | None:
    """Return the fraction that a column name stands for; None if it names no quantile."""
    if statistic == "median":
        return 0.5
    try:
        fraction = float(statistic[1:])
    except ValueError:
        return None
    return fraction if statistic[0] == "q" and not math.isnan(fraction) else None
