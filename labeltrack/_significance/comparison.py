"""What a comparison of two sides shows: a row for each label, worst first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from labeltrack._core.arrays import Array, Floats, Integers
from labeltrack._labels.combined import columns_of
from labeltrack._labels.lookup import CombinedLookup, Lookup
from labeltrack._tables import Table, shown_places
from labeltrack.errors import counted

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WORSE, BETTER, NO_EVIDENCE, TOO_FEW = "worse", "better", "no evidence", "too few"
VERDICTS = WORSE, NO_EVIDENCE, BETTER, TOO_FEW
"""In the order in which they are shown."""
_COLUMNS = (
    *("count_before", "count_after", "mean_before", "mean_after", "difference", "relative"),
    *("low", "high", "g", "p", "q", "method", "verdict"),
)
_HEAD = "label", "before", "after", "change", "q", "samples", "method", "verdict"


def check_alpha(alpha: float) -> None:
    """Raise a ValueError unless it is a probability."""
    if not 0 < alpha < 1:
        msg = f"alpha must be between 0 and 1, got {alpha}"
        raise ValueError(msg)


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
