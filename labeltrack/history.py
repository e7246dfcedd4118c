"""`History`: the statistics of every epoch; tables, series and ranking."""

from __future__ import annotations

import operator
from bisect import bisect_left
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from labeltrack._convert.objects import value_of
from labeltrack._convert.texts import text_array, written
from labeltrack._filters import single_mode
from labeltrack._labels.codes import common_type
from labeltrack._state import plain
from labeltrack._tables import render as _tables
from labeltrack._tables.files import write_csv, write_parquet
from labeltrack.bounds import TRACKER_BOUNDS
from labeltrack.errors import missing_key
from labeltrack.stats import STATISTICS, LabelStats, merge_stats

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator, Mapping

    from matplotlib.figure import Figure

    from labeltrack.bounds import BoundName, TrackerBounds

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Entry:
    """What is added to a history at once.

    Attributes:
        step: Epoch or step.
        mode: Mode.
        parts: Statistics by dataset.
        gone: Datasets of that step that the history has, and that they take the place of.
        pooled: Statistics of all of them together, if the history is to have them.
    """

    step: int
    mode: str
    parts: dict[str, LabelStats]
    gone: set[str]
    pooled: LabelStats | None = None


class History:
    """One `LabelStats` for each mode, dataset id and step.

    What reads one mode takes ``mode=None`` to be ``"eval"`` if there is such a mode, else the only one there is.
    What writes has the default ``"train"``.

    Attributes:
        metric: Name of the metric.
        label: Name of the label.
        bounds: Names of the bounds that pictures show unless asked otherwise.

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
        self.metric = metric
        self.label = label
        self.bounds: tuple[BoundName, ...] = tuple(bounds)
        self._entries: dict[tuple[str, str, int], LabelStats] = {}  # in the order they were recorded
        self._found: dict[str, dict[int, dict[str, LabelStats]]] = {}  # the same by mode, step and dataset
        self._ascending: dict[str, list[int]] = {}  # the steps of each mode
        self._pooled: dict[tuple[str, int], LabelStats] = {}  # of several datasets, where they have quantiles

    # -- writing ------------------------------------------------------------------------------------------

    def add(self, step: int, stats: LabelStats, *, mode: str = "train", ds_id: str = "", replace: bool = False) -> None:
        """Add the statistics of one epoch.

        Args:
            step: Epoch or step, an integer.
            stats: Its statistics.
            mode: Mode they were taken in.
            ds_id: Dataset they were taken of.
            replace: Whether they may take the place of what is there of that step, mode and dataset.

        Raises:
            TypeError: `step` is no integer.
            ValueError: That step of that mode and dataset is already there, and is not to be replaced.
        """
        step, mode, ds_id = check_step(step), value_of(mode), value_of(ds_id)
        if not replace:
            self._check_new([(mode, ds_id, step)])
        self._enter_all(Entry(step, mode, {ds_id: stats}, {ds_id} & self.datasets(step, mode).keys()))

    def add_all(
        self,
        step: int,
        stats: Mapping[str, LabelStats],
        *,
        mode: str = "train",
        replace: bool = False,
        pooled: LabelStats | None = None,
    ) -> None:
        """Add the statistics of one epoch of several datasets; all or nothing.

        Args:
            step: Epoch or step, an integer.
            stats: Statistics by dataset id.
            mode: Mode they were taken in.
            replace: Whether they may take the place of all that is there of that step and mode, of whatever
                datasets: for an epoch that is done again after an interruption.
            pooled: Statistics of all these datasets together, where merging does not give all of them: it gives no
                quantiles.

        Raises:
            TypeError: `step` is no integer.
            ValueError: That step of that mode and one of the datasets is already there, and is not to be replaced.
        """
        self._enter_all(self.entry(step, stats, mode=mode, replace=replace, pooled=pooled))

    def entry(
        self,
        step: int,
        stats: Mapping[str, LabelStats],
        *,
        mode: str,
        replace: bool = False,
        pooled: LabelStats | None = None,
    ) -> Entry:
        """Return what `add_all` adds, checked, for `enter`."""
        step, mode = check_step(step), value_of(mode)
        stats = {value_of(ds_id): part for ds_id, part in stats.items()}
        there = set(self.datasets(step, mode))
        if not replace:
            self._check_new((mode, ds_id, step) for ds_id in stats)
        gone = there if replace else set()
        return Entry(step, mode, stats, gone, pooled if there <= gone else None)

    def enter(self, entry: Entry) -> None:
        """Add what was checked; may be done again, if an interrupt came in between."""
        mode, step = entry.mode, entry.step
        for ds_id in entry.gone:
            self._remove(mode, step, ds_id)
        self._pooled.pop((mode, step), None)
        if not entry.parts:
            return
        self._entries.update({(mode, ds_id, step): part for ds_id, part in entry.parts.items()})
        steps = self._ascending.setdefault(mode, [])
        place = bisect_left(steps, step)
        if steps[place : place + 1] != [step]:
            steps.insert(place, step)
        self._found.setdefault(mode, {}).setdefault(step, {}).update(entry.parts)
        if entry.pooled is not None:
            self._pooled[mode, step] = entry.pooled

    def _enter_all(self, entry: Entry) -> None:
        try:
            self.enter(entry)
        except BaseException:
            self.enter(entry)
            raise

    def _check_new(self, keys: Iterable[tuple[str, str, int]]) -> None:
        for mode, ds_id, step in keys:
            if (mode, ds_id, step) in self._entries:
                of = f" of ds_id {ds_id!r}" if ds_id else ""
                msg = (
                    f"step {step} of mode {mode!r}{of} is already in the history; every epoch needs a step of its own, "
                    "or replace=True if it was done again"
                )
                raise ValueError(msg)

    def _remove(self, mode: str, step: int, ds_id: str) -> None:
        """Remove one entry, if it is there."""
        self._pooled.pop((mode, step), None)
        self._entries.pop((mode, ds_id, step), None)
        of_mode = self._found.get(mode, {})
        of_mode.get(step, {}).pop(ds_id, None)
        if of_mode.get(step):
            return
        of_mode.pop(step, None)
        steps = self._ascending.get(mode, [])
        place = bisect_left(steps, step)
        if steps[place : place + 1] == [step]:
            del steps[place]
        if not of_mode:
            self._found.pop(mode, None)
            self._ascending.pop(mode, None)

    # -- what is there ------------------------------------------------------------------------------------

    @property
    def modes(self) -> list[str]:
        """Modes, in the order they were first recorded."""
        return list(self._found)

    @property
    def ds_ids(self) -> list[str]:
        """Dataset ids, in the order they were first recorded."""
        return list(dict.fromkeys(ds_id for _, ds_id, _ in self._entries))

    def steps(self, mode: str | None = None) -> list[int]:
        """Return the steps recorded in a mode, ascending; None: in any mode."""
        if mode is None:
            return sorted(set().union(*self._ascending.values()))
        return list(self._ascending.get(mode, ()))

    def names(self) -> dict[Any, str]:
        """Return the display name of every label that ever occurred, by label, sorted by label."""
        if not self._entries:
            return {}
        found: dict[Any, str] = {}
        for stats in self._entries.values():
            found.update(zip(stats.labels.tolist(), stats.names.tolist(), strict=True))
        try:
            return dict(sorted(found.items()))
        except TypeError:  # strings in one epoch, numbers in another
            return dict(sorted(found.items(), key=lambda item: (isinstance(item[0], str), str(item[0]))))

    def items(self) -> Iterator[tuple[tuple[str, str, int], LabelStats]]:
        """Yield every entry as ``((mode, ds_id, step), statistics)``, in the order they were recorded.

        Example:
            >>> import labeltrack as lt
            >>> history = History()
            >>> history.add(1, lt.label_stats([0], [2.0]), mode="eval", ds_id="a")
            >>> [(key, len(stats)) for key, stats in history.items()]
            [(('eval', 'a', 1), 1)]
        """
        yield from self._entries.items()

    def datasets(self, step: int, mode: str | None = None) -> dict[str, LabelStats]:
        """Return the statistics of one step by dataset id, in the order they were recorded; empty if there are none."""
        mode = self._single(mode) if self._found else mode
        return {} if mode is None else dict(self._found.get(mode, {}).get(step, {}))

    def __len__(self) -> int:
        """Return the number of entries: steps, over all modes and dataset ids."""
        return len(self._entries)

    # -- reading ------------------------------------------------------------------------------------------

    def at(self, step: int, mode: str | None = None, ds_id: str | None = None) -> LabelStats:
        """Return the statistics of one step.

        Args:
            step: Epoch or step.
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
        if mode not in self._found:
            return missing_key(mode, self.modes, "mode")
        known = {at: parts for at, parts in self._found[mode].items() if ds_id is None or ds_id in parts}
        if not known:
            there = dict.fromkeys(of for parts in self._found[mode].values() for of in parts)
            return missing_key(ds_id, list(there), f"ds_id in mode {mode!r}:")
        return missing_key(step, sorted(known), f"step in mode {mode!r}:")

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
        found = self._found.get(mode, {})
        steps = [step for step in self._ascending.get(mode, ()) if ds_id is None or ds_id in found[step]]
        if not steps:
            raise self._missing(mode, ds_id)
        if ds_id is not None:
            return [(step, found[step][ds_id]) for step in steps]
        return [(step, self._together(mode, step, list(found[step].values()))) for step in steps]

    def with_absent(self, labels: Iterable[Any] = ()) -> History:
        """Return the same history with rows for labels without samples at every step; see `LabelStats.with_absent`.

        They are in every table and picture, so that a label that has vanished is seen.

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

        Columns are step, mode, ds_id, label, name, count, sum, mean, std, min and max, and the quantiles that any step
        has, as ``"q0.25"``, NaN where another does not have them; rows are sorted by mode (as first recorded), step and
        dataset.
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
        for name in ("label", "name", *STATISTICS):
            columns[name] = _together([table[name] for table in tables], name)
        for fraction in sorted({fraction for part in parts for fraction in part.quantiles}):
            name = f"q{fraction!r}"
            columns[name] = np.concatenate([table.get(name, np.full(len(table["label"]), np.nan)) for table in tables])
        return columns

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        r"""Write the table as CSV; numbers are written so that they read back as the same double.

        Text is UTF-8. Halves of surrogate pairs, which `os.fsdecode` makes of bytes that are not UTF-8, are written as
        Python writes them, such as ``\udce9``. Backslashes before such a half, and before what reads like one
        already, are doubled, so that different texts stay different. This is so in Parquet and Arrow tables, too.

        Args:
            path: File to write; one that is there is replaced when all is written, and stays if that fails.

        Raises:
            OSError: It cannot be written.
        """
        write_csv(self.columns(), Path(path))

    def to_parquet(self, path: str | os.PathLike[str]) -> None:
        """Write the table as Parquet; see `to_csv`.

        Args:
            path: File to write; one that is there is replaced when all is written, and stays if that fails.

        Raises:
            ImportError: pyarrow is not installed (extra ``arrow``).
            OSError: It cannot be written.
        """
        write_parquet(self.columns(), Path(path))

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
        return _tables.text(self._title(), self._shown(), len(self._shown()) - 1)

    def _repr_html_(self) -> str:
        return _tables.html(self._title(), self._shown(), len(self._shown()) - 1)

    def _title(self) -> str:
        return f"History of {self.metric!r} by {self.label!r}: {len(self)} entries"

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

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> History:
        """Return the history whose `state_dict` this is."""
        history = cls(metric=state["metric"], label=state["label"], bounds=state["bounds"])
        for entry in state["entries"]:
            stats = LabelStats._from_state(entry["stats"])
            history.add(entry["step"], stats, mode=entry["mode"], ds_id=entry["ds_id"])
        for entry in state.get("pooled", ()):
            history._pooled[entry["mode"], entry["step"]] = LabelStats._from_state(entry["stats"])
        return history


def _quiet(stats: LabelStats) -> LabelStats:
    """Return statistics that can be looked at, whatever is in them."""
    return stats.with_nan_policy("propagate") if stats.nan_policy == "raise" else stats


def check_step(step: Any) -> int:
    """Return a step as int.

    Raises:
        TypeError: It is no integer.
        ValueError: It takes more than 64 bits, which no table holds.
    """
    try:
        number = operator.index(step)
    except TypeError:
        msg = f"step must be an integer (an epoch or a step number), got {type(step).__name__} {step!r}"
        raise TypeError(msg) from None
    if not -(2**63) <= number < 2**63:
        msg = f"step must be from -2**63 to 2**63 - 1, got {number}"
        raise ValueError(msg)
    return number


def _together(parts: list[Array], name: str) -> Array:
    """Concatenate a column of all entries; labels of different types become strings."""
    if not parts:
        return np.empty(0, dtype=np.str_ if name == "name" else np.int64 if name in ("label", "count") else np.float64)
    if name == "label":
        try:
            parts = common_type(parts)
        except TypeError:  # strings in one epoch, numbers in another; or numbers that no one type holds exactly
            parts = [written(part) for part in parts]
    return np.concatenate(parts)
