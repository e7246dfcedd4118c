"""`Dynamics`: a table with one row per sample id, from `Run.dynamics`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from labeltrack._core.arrays import Array, Floats, Integers, Mask
from labeltrack._labels.combined import columns_of
from labeltrack._labels.lookup import Lookup, display_names
from labeltrack._tables import Table, shown_places, text
from labeltrack.errors import check_option, counted, listing, missing_key

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_ALWAYS = ("count", "mean", "std", "min", "max", "first", "last")
_PERHAPS = ("confidence", "variability", "forgetting", "ever_correct", "correctness")
_NOT_SHOWN = ("min", "max", "ever_correct")  # in text: the table would be too wide
_WHY_NOT = {
    "confidence": "the metric has values that no cross-entropy has: negative ones, or 0 and 1 alone",
    "forgetting": "no recorded metric is 0 or 1 for each sample; record one, such as whether a prediction is right",
}


@dataclass(frozen=True, repr=False, eq=False)
class Dynamics(Table):
    """How the metric of each of K samples went over the steps of a recorded run; see `Run.dynamics`.

    Any Arrow library takes it as a table: ``polars.DataFrame(dynamics)``, ``pyarrow.table(dynamics)``.

    Attributes:
        ids: ``(K,)`` ids of the samples, ascending: int64 or text.
        labels: ``(K,)`` labels as in `LabelStats.labels`: those that the ids had when they first occurred.
        count: ``(K,)`` int64, number of values: one per step in which the id occurred, or as many as there are with
            ``on_duplicate="count"``.
        mean: ``(K,)`` float64, and likewise `std` (ddof=1; 0.0 where `count` is 1), `min` and `max`: exact, rounded
            once.
        first: ``(K,)`` float64, value in the first step in which the id occurred.
        last: ``(K,)`` float64, value in the last one.
        confidence: ``(K,)`` float64, mean over the steps of the probability of the right label, which is
            ``exp(-value)`` of a cross-entropy in nats, computed in the precision of the recorded values; the mean is
            exact, rounded once. None if the metric is no cross-entropy: has negative values, or 0 and 1 alone.
        variability: ``(K,)`` float64, the standard deviation (ddof=0) of that probability, to about one unit in the
            last place. None likewise.
        forgetting: ``(K,)`` int64, forgetting events: how often the sample was right in a step and wrong in the next
            one in which it occurred. None if no metric says whether a sample is right.
        ever_correct: ``(K,)`` bool, whether it was ever right. None likewise.
        correctness: ``(K,)`` float64, share of its values that were right. None likewise.
        metric: Name of the metric.
        correct: Name of the metric that says whether a sample is right; None without.
        mode: Mode.
        steps: Steps, ascending.
        ds_ids: ``(K,)`` datasets; empty if there is only one. Ids of different datasets are different samples.

    References:
        M. Toneva et al., "An empirical study of example forgetting during deep neural network learning", ICLR 2019.
        S. Swayamdipta et al., "Dataset cartography: mapping and diagnosing datasets with training dynamics", EMNLP
        2020: confidence ``μ = Σ p_e / E`` and variability ``σ = sqrt(Σ (p_e - μ)² / E)`` over epochs ``e = 1 … E``.
    """

    ids: Array
    labels: Array
    count: Integers
    mean: Floats
    std: Floats
    min: Floats
    max: Floats
    first: Floats
    last: Floats
    confidence: Floats | None
    variability: Floats | None
    forgetting: Integers | None
    ever_correct: Mask | None
    correctness: Floats | None
    metric: str
    correct: str | None
    mode: str
    steps: tuple[int, ...]
    ds_ids: Array = field(default_factory=lambda: np.empty(0, dtype=np.str_))
    names: Mapping[str, Mapping[Any, str]] = field(default_factory=dict)

    @property
    def label_names(self) -> tuple[str, ...]:
        """Names of the labels where samples have several, each a field of `labels`; empty for one label."""
        return self.labels.dtype.names or ()

    def __len__(self) -> int:
        """Return the number of rows."""
        return int(self.ids.shape[0])

    def column(self, name: str) -> Array:
        """Return a column of numbers by its name.

        Args:
            name: Such as ``"mean"`` or ``"forgetting"``.

        Raises:
            ValueError: There is no such column; the message says why.
        """
        known = self._numbers()
        if name in known:
            return known[name]
        why = ""
        if name in _PERHAPS:
            why = f": {_WHY_NOT['confidence' if name in ('confidence', 'variability') else 'forgetting']}"
        msg = f"there is no column {name!r}{why}; there are {listing(known, 20)}"
        raise ValueError(msg)

    def _numbers(self) -> dict[str, Array]:
        return {name: one for name in (*_ALWAYS, *_PERHAPS) if (one := getattr(self, name)) is not None}

    def columns(self) -> dict[str, Array]:
        """Return all columns as a dict of ``(K,)`` arrays: id, label and the numbers.

        With several labels per sample, each has a column of its name in place of ``"label"``, or of its name and
        ``"_label"`` if there is another of that name. With several datasets, there is a column ``"ds_id"``.
        """
        head = {"id": self.ids} | ({"ds_id": self.ds_ids} if self.ds_ids.size else {})
        numbers = self._numbers()
        labels = columns_of(self.labels) or {"label": self.labels}
        taken = {*head, *numbers}
        return head | {f"{name}_label" if name in taken else name: one for name, one in labels.items()} | numbers

    def hardest(self, k: int = 10, label: Any = None, *, by: str = "mean", higher_is_worse: bool = True) -> Dynamics:
        """Return the k worst samples, the worst first.

        Args:
            k: How many.
            label: Only those of a label, given by its value or display name; with several labels per sample, of labels
                by name: ``{"class": "cat"}``. None for all.
            by: Name of a column, such as ``"last"``, ``"forgetting"`` or ``"confidence"``.
            higher_is_worse: Whether high values are bad, as for a loss.

        Returns:
            A table of at most k rows. NaN comes first, as the worst; rows that are equally bad are in the order of ids.

        Raises:
            KeyError: There is no such label.
            ValueError: There is no such column, or k is no positive number.
        """
        if k < 1:
            msg = f"k must be at least 1, got {k!r}"
            raise ValueError(msg)
        column = self.column(by).astype(np.float64)
        if higher_is_worse:
            np.negative(column, out=column)
        number = ~np.isnan(column)
        column[~number] = -np.inf
        rows = np.arange(len(self)) if label is None else self._of_label(label)
        if k < rows.size:  # sort those alone that may be among the first k
            rows = rows[column[rows] <= np.partition(column[rows], k - 1)[k - 1]]
        return self._taken(rows[np.lexsort((column[rows], number[rows]))][:k])

    def _of_label(self, label: Any) -> Integers:
        """Return the rows of a label, or of several by name."""
        columns = columns_of(self.labels) or {"label": self.labels}
        if self.label_names and not hasattr(label, "items"):
            msg = f"samples have labels {listing(self.label_names)}; pass one as {{name: label}}, got {label!r}"
            raise ValueError(msg)
        chosen = np.ones(len(self), dtype=np.bool_)
        for name, wanted in label.items() if self.label_names else [("label", label)]:
            if name not in columns:
                raise missing_key(name, self.label_names, "label called")
            there = np.unique(columns[name])
            names = self.names.get(name, {})
            place = Lookup(there, display_names(there, names) if names else None, names).index(wanted)
            chosen &= columns[name] == there[place]
        return np.flatnonzero(chosen)

    def _taken(self, rows: Integers) -> Dynamics:
        taken: Any = {name: one[rows] for name, one in vars(self).items() if isinstance(one, np.ndarray) and one.size}
        return replace(self, **taken)

    def plot(self, color: str = "count", *, title: str | None = None) -> Figure:
        """Draw the data map: how many samples there are of each variability and confidence.

        Args:
            color: ``"count"``: their number, on a logarithmic scale; ``"forgetting"``: how often they were forgotten,
                on average.
            title: Title; by default the metric and the mode.

        Returns:
            A matplotlib Figure that is not registered with pyplot; save it with ``figure.savefig(path)``.

        Raises:
            ValueError: There is no confidence, no forgetting, or no such colour.
        """
        from labeltrack.plot.datamap import plot_datamap  # noqa: PLC0415 (matplotlib is loaded only to draw)

        check_option("color", color, ("count", "forgetting"))
        forgetting = self.column("forgetting") if color == "forgetting" else None
        subtitle = f"{len(self):,} samples over {counted(len(self.steps), 'step')}"
        title = f"Data map of {self.metric!r}, {self.mode}" if title is None else title
        axes = self.column("variability"), self.column("confidence")
        return plot_datamap(*axes, forgetting, title=title, subtitle=subtitle)

    # -- display --------------------------------------------------------------------------------------------

    def _shown(self, places: list[int] | None = None) -> tuple[str, list[list[Any]], int]:
        """Return the table of some rows, or of every row or the first and last few; some columns are left out."""
        total = len(self) if places is None else len(places)
        rows = np.array(shown_places(total) if places is None else places, dtype=np.int64)
        shown = {name: one.tolist() for name, one in self._taken(rows).columns().items() if name not in _NOT_SHOWN}
        many, steps = counted(len(self), "sample"), listing(self.steps, 3)
        title = f"Dynamics of {self.metric!r} in mode {self.mode!r}: {many}, steps {steps}"
        return title, [[*shown], *map(list, zip(*shown.values(), strict=True))], total

    def text(self, most: int = 12) -> str:
        """Return a table as text.

        Args:
            most: How many rows to show, from the first on.
        """
        return text(*self._shown(list(range(min(most, len(self))))))
