"""`History`: the statistics of every epoch; tables, series and ranking."""

from __future__ import annotations

import operator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from labeltrack import _tables
from labeltrack._convert.objects import text_array, written
from labeltrack._filters import chosen_steps, single_mode
from labeltrack._labels.codes import common_type
from labeltrack._state import plain
from labeltrack.bounds import TRACKER_BOUNDS
from labeltrack.errors import listing, missing_key
from labeltrack.history.entries import Entries, Entry
from labeltrack.stats import STATISTICS, LabelStats, merge_stats

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Mapping

    from matplotlib.figure import Figure

    from labeltrack.bounds import BoundName, TrackerBounds

Array = npt.NDArray[Any]

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

    # -- reading ------------------------------------------------------------------------------------------

    def at(self, step: int, mode: str | None = None, ds_id: str | None = None) -> LabelStats:
        """Return the statistics of one step.

        Args:
            step: Step, such as the number of an epoch.
            mode: Mode; None for ``"eval"`` if there is such a mode, else for the only one.
            ds_id: Dataset; None pools all of them.

        Raises:
            KeyError: There is no such mode, dataset or step; the message names the nearest and lists those there.
            ValueError: `mode` is None, and there are several modes but no ``"eval"``.
        """
        mode = self._single(mode)
        found = self.datasets(step, mode)
        if not found or ds_id not in (None, *found):
            raise self._missing(mode, ds_id, step)
        return self._together(mode, step, list(found.values())) if ds_id is None else found[ds_id]

    def _single(self, mode: str | None) -> str:
        """Return the mode to read."""
        return single_mode(self._found, mode)

    def _missing(self, mode: str, ds_id: str | None, step: int | None = None) -> KeyError:
        """Return what to raise where there is no such mode, no such dataset in it, or no such step of both."""
        if not self._found:
            return KeyError(f"no mode {mode!r}: the history is empty")
        if mode not in self._found:
            return missing_key(mode, self.modes, "mode")
        known = {at: parts for at, parts in self._found[mode].items() if ds_id is None or ds_id in parts}
        if not known:
            there = dict.fromkeys(of for parts in self._found[mode].values() for of in parts)
            return missing_key(ds_id, list(there), f"ds_id in mode {mode!r}:")
        return missing_key(step, sorted(known), f"step in mode {mode!r}:")

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

    def _steps_of(self, mode: str, ds_id: str | None) -> list[int]:
        """Return the steps of a mode and dataset, ascending, or raise if there are none."""
        found = self._found.get(mode, {})
        steps = [step for step in self._ascending.get(mode, ()) if ds_id is None or ds_id in found[step]]
        if not steps:
            raise self._missing(mode, ds_id)
        return steps

    def _together(self, mode: str, step: int, parts: list[LabelStats]) -> LabelStats:
        """Return the statistics of all datasets of a step."""
        if (mode, step) in self._pooled:
            return self._pooled[mode, step]
        return parts[0] if len(parts) == 1 else merge_stats(parts)

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
            raise missing_key(
                label, [*names, *(n for k, n in names.items() if n != str(k))], f"label in mode {mode!r}:"
            )
        return np.array(steps, dtype=np.int64), np.array(values)

    def worst(
        self,
        k: int = 5,
        by: str = "mean",
        mode: str | None = None,
        *,
        step: int | None = None,
        ds_id: str | None = None,
        higher_is_worse: bool = True,
    ) -> list[Any]:
        """Return the labels ranked worst first.

        Args:
            k: How many at most.
            by: The statistic that ranks: count, sum, mean, std, min or max; or a quantile, see `LabelStats.column`.
            mode: Mode; None for ``"eval"`` if there is such a mode, else for the only one.
            step: Which step; None for the last of the mode.
            ds_id: Dataset; None pools all of them.
            higher_is_worse: True for a loss, False for an accuracy. A NaN is worst either way.

        Returns:
            At most `k` label values.

        Raises:
            KeyError: There is no such mode, dataset or step.
            ValueError: There is no such statistic, `k` is not positive, or `mode` is None and it is not clear which.
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
        ranked: list[Any] = stats.labels[stats.order(by, descending=higher_is_worse)[:k]].tolist()
        return ranked

    def _of(self, mode: str, ds_id: str | None) -> list[tuple[int, LabelStats]]:
        """Return the steps of a mode with their statistics, ascending."""
        steps = self._steps_of(mode, ds_id)
        found = self._found[mode]
        if ds_id is not None:
            return [(step, found[step][ds_id]) for step in steps]
        return [(step, self._together(mode, step, list(found[step].values()))) for step in steps]

    def with_absent(self, labels: Iterable[Any] = ()) -> History:
        """Return the same history with rows for labels without samples at every step; see `LabelStats.with_absent`.

        They appear in every table and figure, so that labels that have vanished can be seen.

        Args:
            labels: Labels to have rows for, besides those of the `label_mapping` and those that occur at any step.

        Raises:
            TypeError: Labels that cannot be ordered among each other.
        """
        wanted = [*self.names(), *labels]
        history = History(metric=self.metric, label=self.label, bounds=self.bounds)
        for (mode, ds_id, step), stats in self.items():
            history.add(step, stats.with_absent(wanted), mode=mode, ds_id=ds_id)
        history._pooled = {key: stats.with_absent(wanted) for key, stats in self._pooled.items()}
        return history

    # -- tables -------------------------------------------------------------------------------------------

    def columns(self) -> dict[str, Array]:
        """Return the whole history as a dict of equally long arrays, one row for each step, dataset and label.

        Columns are step, mode, ds_id, label (or one for each of several labels), name, count, sum, mean, std, min and
        max, and the quantiles that any step has, as ``"q0.25"``, NaN where another does not have them; rows are sorted
        by mode (as first recorded), step and dataset.

        Raises:
            ValueError: Some steps have other labels than others.
        """
        place = {mode: i for i, mode in enumerate(self.modes)}
        keys = sorted(self._entries, key=lambda key: (place[key[0]], key[2], key[1]))
        parts = [self._entries[key] for key in keys]
        lengths = np.array([len(part) for part in parts], dtype=np.int64)
        columns: dict[str, Array] = {
            "step": np.repeat(np.array([key[2] for key in keys], dtype=np.int64), lengths),
            "mode": np.repeat(text_array([key[0] for key in keys]), lengths),
            "ds_id": np.repeat(text_array([key[1] for key in keys]), lengths),
        }
        tables = [part.columns() for part in parts]
        heads = {part.label_names or ("label",) for part in parts} or {("label",)}
        if len(heads) > 1:
            msg = f"there is no table of steps with different labels: {' and '.join(map(listing, sorted(heads)))}"
            raise ValueError(msg)
        for name in (*heads.pop(), "name", *STATISTICS):
            columns[name] = _concatenated([table[name] for table in tables], name)
        for name in [f"q{fraction!r}" for fraction in sorted({one for part in parts for one in part.quantiles})]:
            columns[name] = np.concatenate([table.get(name, np.full(len(table["name"]), np.nan)) for table in tables])
        return columns

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        r"""Write the table as CSV; numbers read back as the same doubles.

        Text is UTF-8. In CSV, Parquet and Arrow tables, lone surrogates, which `os.fsdecode` makes of invalid UTF-8,
        become Python escapes such as ``\udce9``; backslashes before them, or before text that looks like such an
        escape, are doubled, so that different texts stay different.

        Args:
            path: File to write; an existing one is replaced once everything is written.

        Raises:
            OSError: It cannot be written.
        """
        _tables.write_csv(self.columns(), Path(path))

    def to_parquet(self, path: str | os.PathLike[str]) -> None:
        """Write the table as Parquet; see `to_csv`.

        Args:
            path: File to write; an existing one is replaced once everything is written.

        Raises:
            ImportError: pyarrow is not installed (extra ``arrow``).
            OSError: It cannot be written.
        """
        _tables.write_parquet(self.columns(), Path(path))

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """Offer the table to polars, pandas, duckdb and pyarrow (Arrow PyCapsule interface).

        Raises:
            ImportError: pyarrow is not installed (extra ``arrow``).
        """
        return _tables.arrow_stream(self.columns(), requested_schema)

    # -- looks --------------------------------------------------------------------------------------------

    def plot(
        self,
        bounds: BoundName | Iterable[BoundName] | TrackerBounds = TRACKER_BOUNDS,
        modes: str | Iterable[str] | None = None,
        labels: Any = None,
    ) -> Figure:
        """Draw the history; see `labeltrack.plot.plot_history`, which has more options.

        Args:
            bounds: Bounds to show, one row of panels for each; None for no band; by default those of the tracker.
            modes: Modes to show, one or several; None for all.
            labels: Label values or display names to show, one or several; None for all.

        Returns:
            A matplotlib Figure that is not registered with pyplot; save it with ``figure.savefig(path)``.

        Raises:
            ValueError: The history is empty, or a bound is unknown.
            KeyError: There is no such mode or label.
        """
        from labeltrack.plot import plot_history  # noqa: PLC0415 (matplotlib is loaded only to draw)

        return plot_history(self, bounds=bounds, modes=modes, labels=labels)

    def __repr__(self) -> str:
        """Return a table of the modes: how many steps, labels and samples."""
        return self._rendered(_tables.text)

    def _repr_html_(self) -> str:
        return self._rendered(_tables.html)

    def _rendered(self, render: Callable[[str, list[tuple[Any, ...]], int], str]) -> str:
        rows = self._shown()
        return render(f"History of {self.metric!r} by {self.label!r}: {len(self)} entries", rows, len(rows) - 1)

    def _shown(self) -> list[tuple[Any, ...]]:
        rows: list[tuple[Any, ...]] = [
            ("mode", "ds_id", "steps", "first", "last", "labels", "samples", "worst at last")
        ]
        groups: dict[tuple[str, str], dict[int, LabelStats]] = {}
        for (mode, ds_id, step), stats in self._entries.items():
            groups.setdefault((mode, ds_id), {})[step] = stats
        for (mode, ds_id), of in groups.items():
            last = of[max(of)]
            worst = ""
            if len(last):
                quiet = _quiet(last)
                k = int(quiet.order("mean")[0])
                worst = f"{quiet.names[k]} (mean {quiet.mean[k]:.4g})"
            samples = sum(int(_quiet(stats).count.sum()) for stats in of.values())
            rows.append((mode, ds_id or "-", len(of), min(of), max(of), len(last), samples, worst))
        return rows

    # -- state --------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return everything as built-in Python values, which ``torch.load`` takes by default; arrays as bytes."""
        entries = [
            {"mode": mode, "ds_id": ds_id, "step": step, "stats": stats._state()}
            for (mode, ds_id, step), stats in self._entries.items()
        ]
        pooled = [{"mode": mode, "step": step, "stats": stats._state()} for (mode, step), stats in self._pooled.items()]
        state: dict[str, Any] = plain(
            {
                "metric": self.metric,
                "label": self.label,
                "bounds": list(self.bounds),
                "entries": entries,
                "pooled": pooled,
            }
        )
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
        self._entries, self._found = other._entries, other._found
        self._ascending, self._pooled = other._ascending, other._pooled


def _quiet(stats: LabelStats) -> LabelStats:
    """Return statistics that can be shown even if there are NaN samples under ``"raise"``."""
    return stats.with_nan_policy("propagate") if stats.nan_policy == "raise" else stats


def _concatenated(parts: list[Array], name: str) -> Array:
    """Concatenate a column of all entries; labels of different types become strings."""
    if not parts:
        return np.empty(0, dtype=np.str_ if name == "name" else np.int64 if name in ("label", "count") else np.float64)
    if name not in ("name", *STATISTICS):
        try:
            parts = common_type(parts)
        except TypeError:  # strings in one epoch, numbers in another; or numbers that no one type holds exactly
            parts = [written(part) for part in parts]
    return np.concatenate(parts)
