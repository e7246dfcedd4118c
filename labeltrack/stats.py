"""`LabelStats`: exact statistics per label, merged exactly, rounded when they are read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from labeltrack import bounds
from labeltrack._columns import STATISTICS, ExactColumns, NoQuantiles
from labeltrack._core.accumulator import Accumulator
from labeltrack._core.arrays import Array, Integers, sorted_unique
from labeltrack._labels.codes import MISSING_NAME, MISSING_NUMBER, table_labels
from labeltrack._labels.combined import columns_of, combination_table, combinations, grouped, mapped_combinations, union
from labeltrack._labels.lookup import CombinedLookup, Lookup
from labeltrack._nan_policy import NanPolicy, check_nan_policy
from labeltrack._serialize import plain, with_arrays
from labeltrack._tables import Table, shown_places
from labeltrack.errors import counted, listing, missing_key

__all__ = ["STATISTICS", "LabelRow", "LabelStats", "NanPolicy", "NoQuantiles", "merge_stats"]


class LabelRow(NamedTuple):
    """The statistics of one label."""

    label: Any
    name: str
    count: int  # type: ignore[assignment]  # replaces tuple.count
    sum: float
    mean: float
    std: float
    min: float
    max: float


class LabelStats(ExactColumns, Table):
    """Count, sum, mean, standard deviation, minimum and maximum for each of K labels.

    Exact sufficient statistics are kept; every number that is read is the result of rational arithmetic, rounded once.
    Objects are immutable; merging makes new ones.

    Attributes:
        labels: ``(K,)`` label values, sorted: bool, int64 (uint64 only for labels beyond it), float64 or text.
            Lower-precision floats become the decimal that they print as (0.1 for a float32 of 0.1), except multiples
            of 1/8, which keep their value. Text has dtype ``U`` or ``S``, or object (all str or bytes) where a label is
            longer than 128 characters or ends with NUL. Where samples have several labels, a structured array with one
            such field for each, and a row for each combination that occurs; a label is then a tuple.
        names: ``(K,)`` display names, strings likewise.
        count: ``(K,)`` int64, number of samples; includes NaN samples under ``"propagate"``.
        sum: ``(K,)`` float64.
        mean: ``(K,)`` float64, NaN where `count` is 0.
        std: ``(K,)`` float64, sample standard deviation (ddof=1); 0.0 where `count` is 1.
        min: ``(K,)`` float64.
        max: ``(K,)`` float64.

    Where a label has infinite samples, sum and mean are the infinity (NaN if both signs occur) and std is NaN.
    A result beyond the largest double is infinite.

    Example:
        >>> import labeltrack as lt
        >>> stats = lt.label_stats(["cat", "dog", "cat"], [0.5, 2.0, 1.5])
        >>> stats["cat"].mean, stats.count
        (1.0, array([2, 1]))
    """

    # -- reading ------------------------------------------------------------------------------------------

    def bounds(self, bound: bounds.BoundName = "std") -> bounds.Band:
        """Return the band of every label.

        Args:
            bound: ``"std"`` (mean ± std), ``"range"`` (min, max), ``"sem"`` (mean ± `sem`), ``"ci95"`` (the mean's
                95 % confidence interval by Student's t with ``count - 1`` degrees of freedom; NaN where `count` is
                1) or None (the mean three times). Around the median: ``"iqr"`` (the quartiles),
                ``("quantile", low, high)`` and ``"median"`` (the median three times).

        Returns:
            ``(low, centre, high)``, each ``(K,)`` float64.

        Raises:
            ValueError: The bound is unknown, or its quantiles were not computed; see `quantile`.
        """
        return bounds.resolve(bound).band(self)

    def __len__(self) -> int:
        """Return the number of labels."""
        return int(self._labels.shape[0])

    def __getitem__(self, label: Any) -> LabelRow:
        """Return the statistics of a label, given by its value or its display name.

        Raises:
            KeyError: There is no such label; the message names the nearest.
        """
        return self._row(self.index(label))

    def __contains__(self, label: Any) -> bool:
        """Return whether there is a row for a label, given by value or display name."""
        return self._lookup.find(label) is not None

    def __iter__(self) -> Iterator[LabelRow]:
        """Iterate over the rows, in order of labels."""
        return (self._row(k) for k in range(len(self)))

    def index(self, label: Any) -> int:
        """Return the position of a label, given by its value or its display name.

        Raises:
            KeyError: There is no such label; the message names the nearest.
        """
        return self._lookup.index(label)

    @cached_property
    def _lookup(self) -> Lookup:
        if self.label_names:
            return CombinedLookup(self._labels, lambda: self.names, self._names)
        return Lookup(self._labels, self.names if self._names else None, self._names)

    def _row(self, k: int) -> LabelRow:
        values = [getattr(self, name)[k].item() for name in STATISTICS]
        return LabelRow(self._labels[k : k + 1].tolist()[0], str(self.names[k]), *values)

    def total(self) -> LabelRow:
        """Return the exact statistics of the samples of all labels together.

        Returns:
            A row with label None and name ``"all"``.

        Example:
            >>> import labeltrack as lt
            >>> lt.label_stats([0, 1, 1], [0.5, 2.0, 3.5]).total().mean
            2.0
        """
        return self.by()._row(0)._replace(label=None)

    def by(self, *names: str) -> LabelStats:
        """Return the statistics by some of several labels per sample: exact marginals.

        Args:
            names: Names of labels; see `label_names`. One gives what tracking that label alone gives, bit for bit;
                several give combinations of these. None gives one row for all samples.

        Returns:
            A new object, without quantiles, which cannot be merged.

        Raises:
            KeyError: There is no label of that name.
            ValueError: A name is given twice.

        Example:
            >>> import labeltrack as lt
            >>> stats = lt.label_stats({"class": [0, 1, 1], "site": ["a", "a", "b"]}, [0.5, 2.0, 3.0])
            >>> stats.by("class").mean, stats.by("site").mean, stats.by().count
            (array([0.5, 2.5]), array([1.25, 3.  ]), array([3]))
        """
        for name in names:
            if name not in self.label_names:
                raise missing_key(name, self.label_names, "label called")
        if len(set(names)) < len(names):
            msg = f"by() expects each name once, got {listing(names)}"
            raise ValueError(msg)
        if len(names) > 1 and names == self.label_names:
            return self
        if names:
            labels, slots = grouped({name: self._labels[name] for name in names})
        else:
            labels, slots = np.array(["all"]), np.zeros(len(self), dtype=np.int64)
        shown = {key: name for key, name in self._names.items() if key[0] in names} if names else {}
        if len(names) == 1:
            labels, shown = labels[names[0]], {label: name for (_, label), name in shown.items()}
        why = NoQuantiles.MARGINAL if self._quantiles else self._no_quantiles
        return self._merged_into(labels, self._accumulator, slots, names=shown, no_quantiles=why)

    def order(self, by: str = "mean", *, descending: bool = True) -> Integers:
        """Return the positions of the labels, ranked; NaN comes first, ties are in order of labels.

        Labels without samples (see `with_absent`) come last, unless `by` is count.

        Args:
            by: A statistic: count, sum, mean, std, min or max; or a quantile, see `column`.
            descending: Whether the largest comes first.

        Raises:
            ValueError: There is no such statistic.
        """
        column = self.column(by)
        ranked = -column.astype(np.float64) if descending else column.astype(np.float64)
        keys = [ranked, ~np.isnan(ranked)]
        if by != "count" and not self.present.all():
            keys.append(~self.present)
        return np.lexsort(keys)

    # -- labels without samples ---------------------------------------------------------------------------

    def with_absent(self, labels: Iterable[Any] = ()) -> LabelStats:
        """Return the same statistics with rows for labels that have no samples.

        Those rows have count 0 and sum 0.0; everything else is NaN. Rankings put them last.

        Args:
            labels: Labels to add, besides those of the `label_mapping`. With several labels per sample, combinations,
                as tuples; besides those of all labels of each `label_mapping`, and of all that occur of labels without.

        Raises:
            TypeError: Labels that cannot be ordered together with the existing ones, or no tuples.
            ValueError: Mappings of several labels have more than a million combinations.

        Example:
            >>> import labeltrack as lt
            >>> stats = lt.label_stats([0, 0], [1.0, 2.0], label_mapping={"cat": 0, "dog": 1})
            >>> stats.with_absent()["dog"].count, stats.with_absent([7]).names.tolist()
            (0, ['cat', 'dog', '7'])
        """
        mapped: Iterable[Any]
        if self.label_names:
            mapped = mapped_combinations(self._labels, self._names)
        else:  # no row for missing labels: their absence is the normal case
            mapped = (label for label, name in self._names.items() if (label, name) != (MISSING_NUMBER, MISSING_NAME))
        extra = [label for label in dict.fromkeys([*mapped, *labels]) if label not in self]
        if not extra:
            return self
        if self.label_names:
            absent, _ = grouped(columns_of(combination_table(extra, self._labels)))
        else:
            absent = sorted_unique(table_labels(extra))
        empty = LabelStats(absent, Accumulator(absent.shape[0]), names=self._names, nan_policy=self._nan_policy)
        merged = merge_stats([self, empty])
        (places, _) = union([self._labels, absent])[1]
        quantiles = {fraction: np.full(len(merged), np.nan) for fraction in self._quantiles}
        for fraction, column in quantiles.items():
            column[places] = self._quantiles[fraction]
        return merged._like(quantiles=quantiles, no_quantiles=self._no_quantiles)

    # -- merging ------------------------------------------------------------------------------------------

    def merge(self, other: LabelStats) -> LabelStats:
        """Return the statistics of both sets of samples together.

        Args:
            other: May have other labels.

        Returns:
            A new object, bit for bit what one pass over all the samples gives, but without quantiles, which cannot be
            merged.

        Raises:
            TypeError: `other` is not a LabelStats, or its labels cannot be ordered together with these.
            ValueError: The two give one label different names, or differ in their policy.
        """
        return merge_stats([self, other])

    def _regrouped(
        self, labels: Array, rows: Integers, slots: Integers, *, names: Mapping[Any, str] | None
    ) -> LabelStats:
        """Return the statistics by other labels: those at position ``rows[i]`` are merged into ``labels[slots[i]]``."""
        return self._merged_into(labels, self._accumulator.take(rows), slots, names=names, no_quantiles=_why([self]))

    def _merged_into(self, labels: Array, rows: Accumulator, slots: Integers, **options: Any) -> LabelStats:
        accumulator = Accumulator(labels.shape[0])
        accumulator.merge(rows, slots)
        accumulator.release()
        return LabelStats(labels, accumulator, nan_policy=self._nan_policy, **options)

    # -- display --------------------------------------------------------------------------------------------

    def _shown(self) -> tuple[str, list[tuple[Any, ...]], int]:
        stats = self._under("propagate") if self._nan_policy == "raise" and self.nan_count.any() else self
        header = (*(("name",) if self._names else ()), *STATISTICS)
        rows = [stats._row(k) for k in shown_places(len(self))]
        labels = [row.label if self.label_names else (row.label,) for row in rows]
        cells = [(*label, *(getattr(row, name) for name in header)) for label, row in zip(labels, rows, strict=True)]
        title = counted(len(self), "combination") + " of labels" if self.label_names else counted(len(self), "label")
        return f"LabelStats of {title}", [(*(self.label_names or ("label",)), *header), *cells], len(self)

    # -- state --------------------------------------------------------------------------------------------

    def _state(self) -> dict[str, Any]:
        """Return the state as built-in Python values, which ``torch.load`` accepts by default."""
        state: dict[str, Any] = plain(
            {
                "labels": list(columns_of(self._labels).items()) or self._labels,
                "names": list(self._names.items()),
                "nan_policy": self._nan_policy,
                "accumulator": self._accumulator.__getstate__(),
                "quantiles": self._quantiles,
                "no_quantiles": self._no_quantiles.value,
            }
        )
        return state

    @classmethod
    def _from_state(cls, state: Mapping[str, Any]) -> LabelStats:
        """Return the object whose `_state` this is."""
        stats = cls.__new__(cls)
        stats.__setstate__(state)
        return stats

    __getstate__ = _state

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        """Restore the state from pickle."""
        state = with_arrays(state)
        accumulator = Accumulator(0)
        accumulator.__setstate__(state["accumulator"])
        labels = state["labels"]
        self.__init__(  # type: ignore[misc]
            combinations(dict(labels)) if isinstance(labels, list) else labels,
            accumulator,
            names=dict(state["names"]),
            nan_policy=check_nan_policy(state["nan_policy"]),
            quantiles=state["quantiles"],
            no_quantiles=NoQuantiles(state["no_quantiles"]),
        )


def merge_stats(parts: Iterable[LabelStats]) -> LabelStats:
    """Return the statistics of all the samples of several objects together.

    Args:
        parts: At least one; their labels may differ.

    Returns:
        A new object sharing no memory with the parts, bit for bit what one pass over all their samples gives,
        regardless of order. It has no quantiles, which cannot be merged.

    Raises:
        TypeError: A part is not a LabelStats, or the labels cannot be ordered together.
        ValueError: There are no parts, two parts give one label different names, or they differ in their policy.

    Example:
        >>> import labeltrack as lt
        >>> lt.merge_stats([lt.label_stats([1], [0.5]), lt.label_stats([1, 2], [1.5, 3.0])]).mean
        array([1., 3.])
    """
    given: list[Any] = list(parts)
    if not given:
        msg = "merge_stats() got nothing to merge; pass at least one LabelStats"
        raise ValueError(msg)
    names: dict[Any, str] = {}
    for part in given:
        if not isinstance(part, LabelStats):
            msg = f"expected a LabelStats to merge, got {type(part).__name__}"
            raise TypeError(msg)
        if part.nan_policy != given[0].nan_policy:
            both = f"{given[0].nan_policy!r} with {part.nan_policy!r}"
            msg = f"cannot merge nan_policy {both}; use with_nan_policy() first"
            raise ValueError(msg)
        for label, name in part._names.items():
            if names.setdefault(label, name) != name:
                msg = f"label {label!r} is called {names[label]!r} in one part and {name!r} in another"
                raise ValueError(msg)
    labels, slots = union([part._labels for part in given])
    accumulator = Accumulator(labels.shape[0])
    for part, places in zip(given, slots, strict=True):
        accumulator.merge(part._accumulator, places)
    accumulator.release()
    return LabelStats(labels, accumulator, names=names, nan_policy=given[0].nan_policy, no_quantiles=_why(given))


_FIRST = (NoQuantiles.FOLDED, NoQuantiles.MARGINAL, NoQuantiles.MERGED, NoQuantiles.NOT_REQUESTED)


def _why(parts: Iterable[LabelStats]) -> NoQuantiles:
    """Return why the result of a merge has no quantiles."""
    reasons = {NoQuantiles.MERGED if part._quantiles else part._no_quantiles for part in parts}
    return next(why for why in _FIRST if why in reasons)
