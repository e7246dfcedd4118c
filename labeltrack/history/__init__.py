"""`History`: the statistics of every epoch; what changed, tables, figures, state."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from labeltrack._filters import compared_step, single_mode
from labeltrack._serialize import plain
from labeltrack.bounds import TRACKER_BOUNDS, needed_quantiles, resolve_all
from labeltrack.errors import counted
from labeltrack.history.entries import Entries, Entry
from labeltrack.stats import LabelStats

if TYPE_CHECKING:
    import os

    from matplotlib.figure import Figure

    from labeltrack._significance.alarms import Alarm
    from labeltrack._significance.comparison import Comparison
    from labeltrack.bounds import BoundName, TrackerBounds


__all__ = ["Entry", "History"]


class History(Entries):
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

    # -- other labels -------------------------------------------------------------------------------------

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
        return self._mapped(self.label, lambda stats: stats.with_absent(wanted))

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
        return self._mapped(joined(names) if names else "all", lambda stats: stats.by(*names))

    def _mapped(self, label: str, change: Callable[[LabelStats], LabelStats]) -> History:
        """Return the history of changed entries; without the bounds of quantiles if these were lost."""
        parts = {key: change(stats) for key, stats in self.items()}
        lost = any(stats.quantiles and not parts[key].quantiles for key, stats in self.items())
        bounds = [bound for bound in self.bounds if not (lost and needed_quantiles(resolve_all(bound)))]
        history = History(metric=self.metric, label=label, bounds=bounds or [None])
        for (mode, ds_id, step), part in parts.items():
            history.add(step, part, mode=mode, ds_id=ds_id)
        pooled = {key: change(stats) for key, stats in self._pooled.items()}
        history._pooled = {key: stats for key, stats in pooled.items() if stats.quantiles}
        return history

    # -- changes ------------------------------------------------------------------------------------------------

    def compare(
        self,
        before: int,
        after: int,
        mode: str | None = None,
        ds_id: str | None = None,
        *,
        higher_is_worse: bool = True,
        alpha: float = 0.05,
    ) -> Comparison:
        """Compare two steps, label by label; see `labeltrack.compare`.

        Args:
            before: Step to compare with.
            after: Step to judge.
            mode: Mode; None for ``"eval"`` if there is such a mode, else for the only one.
            ds_id: Dataset; None pools all of them.
            higher_is_worse: True for a loss, False for an accuracy.
            alpha: Limit of q for a verdict.

        Raises:
            ImportError: scipy is not installed (extra ``stats``).
            KeyError: There is no such mode, dataset or step.
            ValueError: `mode` is None, and it is not clear which; or `alpha` is not between 0 and 1.

        Example:
            >>> import labeltrack as lt
            >>> history = lt.History(metric="ce")
            >>> for step, shift in ((3, 0.0), (7, 0.25)):
            ...     losses = [0.5 + 0.01 * i for i in range(40)] + [1.0 + 0.01 * i + shift for i in range(40)]
            ...     history.add(step, lt.label_stats(["cat"] * 40 + ["dog"] * 40, losses), mode="eval")
            >>> history.compare(3, 7).worse()
            ['dog']
        """
        from labeltrack._significance.choice import compare_stats  # noqa: PLC0415 (only for this)

        mode = single_mode(self._found, mode)
        title = f"{mode}, step {before} → step {after}" + (f" of {ds_id}" if ds_id else "")
        options: dict[str, Any] = {"metric": self.metric, "higher_is_worse": higher_is_worse, "alpha": alpha}
        return compare_stats(self.at(before, mode, ds_id), self.at(after, mode, ds_id), title=title, **options)

    def alarms(
        self,
        mode: str | None = None,
        ds_id: str | None = None,
        *,
        against: int | None = None,
        higher_is_worse: bool = True,
        alpha: float = 0.05,
    ) -> list[Alarm]:
        """Return the labels that got worse since a step, at any of the steps after it.

        This may be asked after every epoch: however many looks there are, a label that did not change is an alarm with
        a probability of at most about `alpha`. A test repeated at every epoch is not: with 50 looks, it sees changes in
        nearly half of the labels that did not change. Once there is an alarm, it stays.

        Every look counts twice: all samples since the step that is compared with, which shows changes that last, and
        the samples of the look alone, which show sudden ones. Both use means and standard deviations only. Where sizes
        differ and samples are so skewed that these do not suffice, there is no alarm; nor with fewer than 20 samples. A
        mean that is no longer finite is an alarm without a test.

        Args:
            mode: Mode; None for ``"eval"`` if there is such a mode, else for the only one.
            ds_id: Dataset; None pools all of them.
            against: Step to compare with, which must not be chosen for its results; None for the first.
            higher_is_worse: True for a loss, False for an accuracy.
            alpha: Limit of q: p-values after Benjamini and Hochberg across the labels.

        Returns:
            The labels, with the step of the alarm, means and p-values, the largest change first.

        Raises:
            ImportError: scipy is not installed (extra ``stats``).
            KeyError: There is no such mode, dataset or step.
            ValueError: `mode` is None, and it is not clear which; or `alpha` is not between 0 and 1.

        Example:
            >>> import labeltrack as lt
            >>> history = lt.History()
            >>> for step in range(1, 6):
            ...     losses = [0.5 + 0.01 * i + (step > 3) * 0.25 for i in range(40)]
            ...     history.add(step, lt.label_stats(["cat"] * 40, losses), mode="eval")
            >>> [(alarm.label, alarm.step) for alarm in history.alarms()]
            [('cat', 4)]
        """
        from labeltrack._significance.alarms import find_alarms  # noqa: PLC0415 (only for this)

        mode = single_mode(self._found, mode)
        found = dict(self._of(mode, ds_id))
        against = min(found) if against is None else against
        reference = self.at(against, mode, ds_id)
        looks = [(step, stats) for step, stats in found.items() if step > against]
        return find_alarms(reference, looks, higher_is_worse=higher_is_worse, alpha=alpha)

    def to_html(
        self,
        path: str | os.PathLike[str],
        mode: str | None = None,
        ds_id: str | None = None,
        *,
        against: int | str = "previous",
        higher_is_worse: bool = True,
        alpha: float = 0.05,
        title: str | None = None,
    ) -> None:
        """Write a report: one HTML file with the verdict, a table of all labels, curves and a heatmap.

        It needs nothing but a browser: no network and no other file. Of a recorded run,
        `labeltrack.report.write_report` shows the samples, too. Without scipy (extra ``stats``), nothing is tested.

        Args:
            path: A name that ends in .html; an existing file is replaced on success.
            mode: Mode that is judged; None for ``"eval"`` if there is such a mode, else for the only one. The curves
                of other modes can be drawn beside it.
            ds_id: Dataset; None pools all of them.
            against: What the last step is compared with: ``"previous"``, ``"first"`` or a step.
            higher_is_worse: True for a loss, False for an accuracy.
            alpha: Limit of q for a verdict.
            title: Title of the page; None for metric and label.

        Raises:
            KeyError: There is no such mode, dataset or step.
            OSError: The file cannot be written; an existing one stays.
            ValueError: `mode` is None, and it is not clear which; `alpha` is not between 0 and 1; or the name has
                another ending.

        Example:
            >>> import tempfile, pathlib
            >>> import labeltrack as lt
            >>> history = lt.History(metric="ce", label="animal")
            >>> for step, shift in ((1, 0.0), (2, 0.25)):
            ...     losses = [0.5 + 0.01 * i for i in range(40)] + [1.0 + 0.01 * i + shift for i in range(40)]
            ...     history.add(step, lt.label_stats(["cat"] * 40 + ["dog"] * 40, losses), mode="eval")
            >>> path = pathlib.Path(tempfile.mkdtemp(), "report.html")
            >>> history.to_html(path)
            >>> "1 of 2 labels got worse from step 1 to step 2" in path.read_text(encoding="utf-8")
            True
        """
        from labeltrack.page import Content, Track, write_page  # noqa: PLC0415 (only for this)

        mode = single_mode(self._found, mode)
        shown = [mode, *(of for of in self.modes if of != mode and self._having(of, ds_id))]
        tracks = [Track(of, self._of(of, ds_id)) for of in shown]
        looks = dict(tracks[0].looks)
        at = compared_step(list(looks)[:-1], against)
        content = Content(
            self.metric,
            self.label,
            tracks,
            None if at is None else looks[at],
            title=title,
            bounds=self.bounds,
            higher_is_worse=higher_is_worse,
            alpha=alpha,
            sides="" if at is None else f"step {at} to step {max(looks)}",
        )
        write_page(content, path)

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
        **options: Any,
    ) -> Figure:
        """Draw the history: lines, small multiples, a heatmap or a grid; see `labeltrack.plot.plot_history`.

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
            options: `title`, `x_label`, `units` and `higher_is_worse`, as `plot_history` takes them.

        Returns:
            A matplotlib Figure that is not registered with pyplot; save it with ``figure.savefig(path)``.

        Raises:
            ValueError: The history is empty, a bound or kind is unknown, or `step` is not for a grid alone.
            KeyError: There is no such mode, step or label.
        """
        from labeltrack.plot import plot_grid, plot_history  # noqa: PLC0415 (matplotlib is loaded only to draw)

        options |= {"modes": modes, "labels": labels}
        if step is None:
            shown = self if by is None else self.by(*([by] if isinstance(by, str) else by))
            return plot_history(shown, kind=kind, bounds=bounds, highlight=highlight, top=top, **options)
        if kind not in ("auto", "grid") or not (highlight is None and top is None):
            msg = f"step= is for grids, without highlight= and top=; got step={step!r} and kind={kind!r}"
            raise ValueError(msg)
        return plot_grid(self, by=by, step=step, bounds=None if bounds is TRACKER_BOUNDS else bounds, **options)

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
                k = int(last.order("mean")[0])
                worst = f"{last.names[k]} (mean {last.mean[k]:.4g})"
            samples = sum(int(stats.count.sum()) for stats in of.values())
            rows.append((mode, ds_id or "-", len(of), min(of), max(of), len(last), samples, worst))
        return f"History of {self.metric!r} by {self.label!r}: {counted(len(self), 'entry')}", rows, len(rows) - 1

    # -- state --------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return everything as built-in Python values, which ``torch.load`` takes by default; arrays as bytes."""
        entries = [
            {"mode": mode, "ds_id": ds_id, "step": step, "stats": stats._state()}
            for (mode, ds_id, step), stats in self.items()
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


def joined(names: str | Iterable[str]) -> str:
    """Return what one or several labels are called together, such as ``"class and site"``."""
    return names if isinstance(names, str) else " and ".join(names)
