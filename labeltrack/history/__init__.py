"""`History`: the statistics of every epoch; tables, series and ranking."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from labeltrack._core.arrays import Array
from labeltrack._filters import chosen_steps, labels_named
from labeltrack._serialize import plain
from labeltrack.bounds import TRACKER_BOUNDS, needed_quantiles, resolve_all
from labeltrack.errors import counted, listing, missing_key
from labeltrack.history.changes import Changes
from labeltrack.history.entries import Entry
from labeltrack.stats import LabelStats, merge_stats, quiet

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from labeltrack.bounds import BoundName, TrackerBounds


__all__ = ["Entry", "History"]


class History(Changes):
    """One `LabelStats` for each mode, dataset id and step.

    For methods that read one mode, ``mode=None`` means ``"eval"`` if there is such a mode, else the only one. Methods
    that write default to ``"train"``.

    Attributes:
        metric: Name of the metric.
        label: Name of the label.
        bounds: Names of the bounds that figures show by default.

    Example:
        >>> import labeltrack as lt
        >>> history = History(metric="ce", label="y")
        >>> history.add(1, lt.label_stats([0, 1], [0.5, 2.0]), mode="train")
        >>> history.add(2, lt.label_stats([0, 1], [0.25, 3.0]), mode="train")
        >>> history.worst(1, by="mean")
        [1]
        >>> history.series(1, "mean")
        (array([1, 2]), array([2., 3.]))
    """

    def __init__(self, *, metric: str = "metric", label: str = "label", bounds: Iterable[BoundName] = ("std",)) -> None:
        super().__init__()
        self.metric = metric
        self.label = label
        self.bounds: tuple[BoundName, ...] = tuple(bounds)

    # -- reading ------------------------------------------------------------------------------------------

    def pooled(
        self, mode: str | None = None, steps: Iterable[int] | slice | None = None, ds_id: str | None = None
    ) -> LabelStats:
        """Return the statistics of several steps together, merged exactly.

        Args:
            mode: Mode; None for ``"eval"`` if there is such a mode, else for the only one.
            steps: Step numbers, such as ``[1, 2]`` or ``range(1, 11)``; or a slice of the recorded steps in ascending
                order, such as ``slice(-5, None)`` for the last five; None for all.
            ds_id: Dataset; None pools all of them.

        Returns:
            What `label_stats` would return for all their samples, but without quantiles, which cannot be merged; one
            step keeps its own.

        Raises:
            KeyError: There is no such mode, dataset or step; the message says which are missing and lists those there.
            TypeError: `steps` is something else, or labels of different steps cannot be ordered among each other.
            ValueError: `steps` selects nothing, or `mode` is None and it is not clear which.

        Example:
            >>> import labeltrack as lt
            >>> history = History()
            >>> for step in (1, 2, 3):
            ...     history.add(step, lt.label_stats(["cat"], [step]), mode="eval")
            >>> history.pooled()["cat"].mean, history.pooled(steps=slice(-2, None))["cat"].mean
            (2.0, 2.5)
        """
        mode = self._single(mode)
        there = self._steps_of(mode, ds_id)
        wanted = chosen_steps(there, steps)
        if missing := set(wanted).difference(there):
            msg = f"no step in mode {mode!r}: {listing(sorted(missing))}. There are: {listing(there)}"
            raise KeyError(msg)
        if not wanted:
            msg = f"steps={steps!r} selects none of the steps of mode {mode!r}, which are {listing(there)}"
            raise ValueError(msg)
        if len(wanted) == 1:
            return self.at(wanted[0], mode, ds_id)  # which keeps quantiles
        found = self._found[mode]
        return merge_stats([part for step in wanted for of, part in found[step].items() if ds_id in (None, of)])

    def series(
        self, label: Any, statistic: str = "mean", mode: str | None = None, ds_id: str | None = None
    ) -> tuple[Array, Array]:
        """Return one statistic of one label over the steps.

        Args:
            label: Label value or display name.
            statistic: count, sum, mean, std, min or max; or a quantile, see `LabelStats.column`.
            mode: Mode; None for ``"eval"`` if there is such a mode, else for the only one.
            ds_id: Dataset; None pools all of them.

        Returns:
            ``(S,)`` int64 steps at which the label has samples, ascending, and ``(S,)`` values.

        Raises:
            KeyError: There is no such mode or dataset, or the label never has samples in it; the message names the
                nearest.
            ValueError: There is no such statistic, or `mode` is None and it is not clear which.
        """
        mode = self._single(mode)
        steps, values = [], []
        for step, stats in self._of(mode, ds_id):
            column = stats.column(statistic)
            if label in stats:
                steps.append(step)
                values.append(column[stats.index(label)])
        if not steps:
            names = self.names()
            known = [*names, *(name for value, name in names.items() if name != str(value))]
            raise missing_key(label, known, f"label in mode {mode!r}:")
        return np.array(steps, dtype=np.int64), np.array(values)

    def worst(
        self,
        k: int = 5,
        by: str | Iterable[str] = "mean",
        mode: str | None = None,
        *,
        step: int | None = None,
        ds_id: str | None = None,
        higher_is_worse: bool = True,
    ) -> list[Any]:
        """Return the labels ranked worst first; combinations, if there are several labels per sample.

        Args:
            k: How many at most.
            by: The statistic that ranks: count, sum, mean, std, min or max; or a quantile, see `LabelStats.column`. The
                name of one of several labels per sample ranks that label by its mean over all others; several names
                rank their combinations. ``history.by("class").worst(by="std")`` ranks a label by a statistic.
            mode: Mode; None for ``"eval"`` if there is such a mode, else for the only one.
            step: Which step; None for the last of the mode.
            ds_id: Dataset; None pools all of them.
            higher_is_worse: True for a loss, False for an accuracy. A NaN is worst either way.

        Returns:
            At most `k` label values.

        Raises:
            KeyError: There is no such mode, dataset or step, or none of several names is that of a label.
            ValueError: There is no such statistic, `k` is not positive, or `mode` is None and it is not clear which.

        Example:
            >>> import labeltrack as lt
            >>> history = History()
            >>> history.add(1, lt.label_stats({"class": [0, 1, 1], "site": ["a", "a", "b"]}, [5.0, 1.0, 4.0]))
            >>> history.worst(2), history.worst(1, by="class"), history.worst(1, by="site")
            ([(0, 'a'), (1, 'b')], [0], ['b'])
        """
        if operator.index(k) < 1:
            msg = f"k must be at least 1, got {k}"
            raise ValueError(msg)
        mode = self._single(mode)
        if step is None:
            latest = reversed(self._ascending.get(mode, ()))
            step = next((at for at in latest if ds_id is None or ds_id in self._found[mode][at]), None)
            if step is None:
                raise self._missing(mode, ds_id)
        stats = self.at(step, mode, ds_id)
        labels = labels_named(by, stats.label_names)
        if labels is not None:
            stats, by = stats.by(*labels), "mean"
        ranked: list[Any] = stats.labels[stats.order(str(by), descending=higher_is_worse)[:k]].tolist()
        return ranked

    def with_absent(self, labels: Iterable[Any] = ()) -> History:
        """Return the same history with rows for labels without samples at every step; see `LabelStats.with_absent`.

        They appear in every table and figure, so that labels that have vanished can be seen.

        Args:
            labels: Labels to have rows for, besides those of the `label_mapping` and those that occur at any step.

        Raises:
            TypeError: Labels that cannot be ordered among each other.
            ValueError: Mappings of several labels have more than a million combinations.
        """
        wanted = [*self.names(), *labels]
        history = History(metric=self.metric, label=self.label, bounds=self.bounds)
        for (mode, ds_id, step), stats in self.items():
            history.add(step, stats.with_absent(wanted), mode=mode, ds_id=ds_id)
        history._pooled = {key: stats.with_absent(wanted) for key, stats in self._pooled.items()}
        return history

    def by(self, *names: str) -> History:
        """Return the history of some of several labels per sample: exact marginals of every entry.

        Args:
            names: Names of labels; see `LabelStats.by`. One gives the history of that label alone, bit for bit;
                several give that of their combinations. None gives one row for all samples.

        Returns:
            A new history, without quantiles, which cannot be merged; nor with bounds that need them.

        Raises:
            KeyError: There is no label of that name.
            ValueError: A name is given twice.

        Example:
            >>> import labeltrack as lt
            >>> history = History(metric="ce", label="class and site")
            >>> history.add(1, lt.label_stats({"class": [0, 1, 1], "site": ["a", "a", "b"]}, [0.5, 2.0, 3.0]))
            >>> history.by("site").worst(1), history.by().at(1).mean
            (['b'], array([1.83333333]))
        """
        parts = {key: stats.by(*names) for key, stats in self.items()}
        pooled = {key: stats.by(*names) for key, stats in self._pooled.items()}
        kept = all(part.quantiles or not self._entries[key].quantiles for key, part in parts.items())
        bounds = [bound for bound in self.bounds if kept or not needed_quantiles(resolve_all(bound))] or [None]
        history = History(metric=self.metric, label=joined(names) if names else "all", bounds=bounds)
        for (mode, ds_id, step), part in parts.items():
            history.add(step, part, mode=mode, ds_id=ds_id)
        history._pooled = {key: stats for key, stats in pooled.items() if stats.quantiles}
        return history

    # -- looks --------------------------------------------------------------------------------------------

    def plot(
        self,
        bounds: BoundName | Iterable[BoundName] | TrackerBounds = TRACKER_BOUNDS,
        modes: str | Iterable[str] | None = None,
        labels: Any = None,
        *,
        kind: str = "auto",
        highlight: Any = None,
        top: int | None = None,
        by: str | Iterable[str] | None = None,
        step: int | None = None,
    ) -> Figure:
        """Draw the history; see `labeltrack.plot.plot_history`, which has more options.

        Args:
            bounds: Bounds to show, one row of panels for each; None for no band; by default those of the tracker.
            modes: Modes to show, one or several; None for all.
            labels: Label values or display names to show, one or several; None for all.
            kind: ``"lines"``, ``"multiples"``, ``"heatmap"``, or for two labels per sample ``"grid"``, one down and the
                other across; ``"auto"`` chooses by the number of labels.
            highlight: Label values or display names to draw in colour, the others in grey; None for the worst few.
            top: Draw only this many labels, the worst at the last step; None for all.
            by: Which of several labels per sample to draw, one or several; None for all of them.
            step: The step that a grid shows; None for the last.

        Returns:
            A matplotlib Figure that is not registered with pyplot; save it with ``figure.savefig(path)``.

        Raises:
            ValueError: The history is empty, a bound or kind is unknown, or `step` is not for a grid alone.
            KeyError: There is no such mode, step or label.
        """
        from labeltrack.plot import plot_grid, plot_history  # noqa: PLC0415 (matplotlib is loaded only to draw)

        if step is None:
            shown = self if by is None else self.by(*([by] if isinstance(by, str) else by))
            chosen = {"labels": labels, "highlight": highlight, "top": top}
            return plot_history(shown, kind=kind, bounds=bounds, modes=modes, **chosen)
        if kind not in ("auto", "grid") or not (highlight is None and top is None):
            msg = f"step= is for grids, without highlight= and top=; got step={step!r} and kind={kind!r}"
            raise ValueError(msg)
        some = None if bounds is TRACKER_BOUNDS else bounds
        return plot_grid(self, by=by, step=step, bounds=some, modes=modes, labels=labels)

    def _shown(self) -> tuple[str, list[tuple[Any, ...]], int]:
        """Return a table of the modes: how many steps, labels and samples."""
        rows: list[tuple[Any, ...]]
        rows = [("mode", "ds_id", "steps", "first", "last", "labels", "samples", "worst at last")]
        groups: dict[tuple[str, str], dict[int, LabelStats]] = {}
        for (mode, ds_id, step), stats in self._entries.items():
            groups.setdefault((mode, ds_id), {})[step] = stats
        for (mode, ds_id), of in groups.items():
            last = of[max(of)]
            worst = ""
            if len(last):
                shown = quiet(last)
                k = int(shown.order("mean")[0])
                worst = f"{shown.names[k]} (mean {shown.mean[k]:.4g})"
            samples = sum(int(quiet(stats).count.sum()) for stats in of.values())
            rows.append((mode, ds_id or "-", len(of), min(of), max(of), len(last), samples, worst))
        return f"History of {self.metric!r} by {self.label!r}: {counted(len(self), 'entry')}", rows, len(rows) - 1

    # -- state --------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return everything as built-in Python values, which ``torch.load`` takes by default; arrays as bytes."""
        entries = [
            {"mode": mode, "ds_id": ds_id, "step": step, "stats": stats._state()}
            for (mode, ds_id, step), stats in self._entries.items()
        ]
        pooled = [{"mode": mode, "step": step, "stats": stats._state()} for (mode, step), stats in self._pooled.items()]
        named = {"metric": self.metric, "label": self.label, "bounds": list(self.bounds)}
        state: dict[str, Any] = plain({**named, "entries": entries, "pooled": pooled})
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Replace everything, names and bounds included, with what a `state_dict` holds; all or nothing.

        Args:
            state: From `state_dict`.

        Raises:
            TypeError: It is not the state of a history.
            ValueError: It contradicts itself.

        Example:
            >>> import labeltrack as lt
            >>> history, copy = History(metric="ce"), History()
            >>> history.add(1, lt.label_stats([0, 1], [0.5, 2.0]))
            >>> copy.load_state_dict(history.state_dict())
            >>> copy.metric, copy.worst(1)
            ('ce', [1])
        """
        try:
            loaded = History(metric=state["metric"], label=state["label"], bounds=state["bounds"])
            for entry in state["entries"]:
                stats = LabelStats._from_state(entry["stats"])
                loaded.add(entry["step"], stats, mode=entry["mode"], ds_id=entry["ds_id"])
            for entry in state["pooled"]:
                loaded._pooled[entry["mode"], entry["step"]] = LabelStats._from_state(entry["stats"])
        except (KeyError, TypeError, IndexError, AttributeError) as error:
            msg = f"expected the state_dict() of a History, but it cannot be read: {type(error).__name__} {error}"
            raise TypeError(msg) from error
        try:
            self._become(loaded)
        except BaseException:  # an interrupt
            self._become(loaded)
            raise

    def _become(self, other: History) -> None:
        """Take over what another history holds."""
        self.metric, self.label, self.bounds = other.metric, other.label, other.bounds
        self._entries, self._found, self._pooled = other._entries, other._found, other._pooled
        self._ascending = other._ascending


def joined(names: str | Iterable[str]) -> str:
    """Return what one or several labels are called together, such as ``"class and site"``."""
    return names if isinstance(names, str) else " and ".join(names)
