"""What a history holds: statistics by mode, dataset and step, entered as a whole or not at all, and read."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from labeltrack._convert.objects import text_array, value_of, written
from labeltrack._core.arrays import Array
from labeltrack._filters import check_step, chosen_steps, labels_named, single_mode
from labeltrack._labels.codes import common_type
from labeltrack._tables import Table
from labeltrack.errors import listing, missing_key
from labeltrack.stats import STATISTICS, LabelStats, merge_stats


@dataclass(frozen=True)
class Entry:
    """What is added to a history at once."""

    step: int
    mode: str
    parts: dict[str, LabelStats]  # by dataset
    gone: set[str]  # datasets of that step to remove first
    pooled: LabelStats | None = None  # of all datasets together, if it cannot be merged from the parts


class Entries(Table):
    """Statistics by mode, dataset and step, in the order they were recorded."""

    def __init__(self) -> None:
        self._entries: dict[tuple[str, str, int], LabelStats] = {}
        self._found: dict[str, dict[int, dict[str, LabelStats]]] = {}  # the same by mode, step and dataset
        self._pooled: dict[tuple[str, int], LabelStats] = {}  # of several datasets, where they have quantiles

    # -- writing ------------------------------------------------------------------------------------------

    def add(self, step: int, stats: LabelStats, *, mode: str = "train", ds_id: str = "", replace: bool = False) -> None:
        """Add the statistics of one step.

        Args:
            step: Step, such as the number of an epoch; an integer.
            stats: Its statistics.
            mode: Mode they were taken in.
            ds_id: Dataset they belong to.
            replace: Whether they replace what the history has of that step, mode and dataset.

        Raises:
            TypeError: `step` is not an integer.
            ValueError: The history has that step of that mode and dataset, and `replace` is False.
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
        """Add the statistics of one step of several datasets, all or nothing.

        Args:
            step: Step, such as the number of an epoch; an integer.
            stats: Statistics by dataset id.
            mode: Mode they were taken in.
            replace: Whether they replace what the history has of that step and mode, of any dataset: for an epoch that
                is repeated after an interruption.
            pooled: Statistics of all these datasets together, if they have quantiles, which cannot be merged.

        Raises:
            TypeError: `step` is not an integer.
            ValueError: The history has that step of that mode and one of the datasets, and `replace` is False.
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
        if replace:
            return Entry(step, mode, stats, there, pooled)
        self._check_new((mode, ds_id, step) for ds_id in stats)
        return Entry(step, mode, stats, set(), None if there else pooled)

    def enter(self, entry: Entry) -> None:
        """Add a checked entry; may be repeated after an interrupt."""
        mode, step = entry.mode, entry.step
        self._pooled.pop((mode, step), None)
        for ds_id in entry.gone:
            self._entries.pop((mode, ds_id, step), None)
        self._entries.update({(mode, ds_id, step): part for ds_id, part in entry.parts.items()})
        there = self._found.setdefault(mode, {})  # which stays where it is among the modes
        parts = {ds_id: part for ds_id, part in there.get(step, {}).items() if ds_id not in entry.gone} | entry.parts
        if parts:
            there[step] = parts
        else:
            there.pop(step, None)
        if not there:
            del self._found[mode]
        if entry.parts and entry.pooled is not None:
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
                there = f"step {step} of mode {mode!r}{of} is already in the history"
                msg = f"{there}; give every epoch its own step, or pass replace=True to repeat one"
                raise ValueError(msg)

    # -- what is there ------------------------------------------------------------------------------------

    @property
    def modes(self) -> list[str]:
        """Modes, in the order they were first recorded."""
        return list(self._found)

    @property
    def label_names(self) -> tuple[str, ...]:
        """Names of several labels per sample; empty for one."""
        return next((stats.label_names for stats in self._entries.values() if stats.label_names), ())

    @property
    def ds_ids(self) -> list[str]:
        """Dataset ids, in the order they were first recorded."""
        return list(dict.fromkeys(ds_id for _, ds_id, _ in self._entries))

    def steps(self, mode: str | None = None) -> list[int]:
        """Return the steps of a mode, ascending; None for those of all modes."""
        return sorted(set().union(*self._found.values()) if mode is None else self._found.get(mode, ()))

    def names(self) -> dict[Any, str]:
        """Return the display name of every label that ever occurred, by label, sorted by label."""
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
            >>> history = lt.History()
            >>> history.add(1, lt.label_stats([0], [2.0]), mode="eval", ds_id="a")
            >>> [(key, len(stats)) for key, stats in history.items()]
            [(('eval', 'a', 1), 1)]
        """
        yield from self._entries.items()

    def datasets(self, step: int, mode: str | None = None) -> dict[str, LabelStats]:
        """Return the statistics of one step by dataset id, in the order they were recorded; empty if there are none."""
        mode = single_mode(self._found, mode) if self._found else mode
        return {} if mode is None else dict(self._found.get(mode, {}).get(step, {}))

    def __len__(self) -> int:
        """Return the number of entries: steps, over all modes and dataset ids."""
        return len(self._entries)

    def columns(self) -> dict[str, Array]:
        """Return the whole history as a dict of equally long arrays, one row for each step, dataset and label.

        Columns are step, mode, ds_id, label (or one for each of several labels), name, count, sum, mean, std, min and
        max, and the quantiles that any step has, as ``"q0.25"``, NaN where another does not have them; rows are sorted
        by mode (as first recorded), step and dataset.

        Raises:
            ValueError: Some steps have other labels than others.
        """
        parts = self._sorted()
        lengths = np.array([len(part) for part in parts.values()], dtype=np.int64)
        columns: dict[str, Array] = {
            "step": np.repeat(np.array([step for _, _, step in parts], dtype=np.int64), lengths),
            "mode": np.repeat(text_array([mode for mode, _, _ in parts]), lengths),
            "ds_id": np.repeat(text_array([ds_id for _, ds_id, _ in parts]), lengths),
        }
        tables = [part.columns() for part in parts.values()]
        heads = {part.label_names or ("label",) for part in parts.values()} or {("label",)}
        if len(heads) > 1:
            msg = f"there is no table of steps with different labels: {' and '.join(map(listing, sorted(heads)))}"
            raise ValueError(msg)
        for name in (*heads.pop(), "name", *STATISTICS):
            columns[name] = _concatenated([table[name] for table in tables], name)
        for name in [f"q{one!r}" for one in sorted({one for part in parts.values() for one in part.quantiles})]:
            columns[name] = np.concatenate([table.get(name, np.full(len(table["name"]), np.nan)) for table in tables])
        return columns

    def _sorted(self) -> dict[tuple[str, str, int], LabelStats]:
        """Return the entries in the order of the rows of `columns`."""
        place = {mode: i for i, mode in enumerate(self.modes)}
        return dict(sorted(self._entries.items(), key=lambda item: (place[item[0][0]], item[0][2], item[0][1])))

    # -- one mode -------------------------------------------------------------------------------------------

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
        mode = single_mode(self._found, mode)
        found = self.datasets(step, mode)
        if not found or ds_id not in (None, *found):
            raise self._missing(mode, ds_id, step)
        if ds_id is not None:
            return found[ds_id]
        parts = list(found.values()) if (mode, step) not in self._pooled else [self._pooled[mode, step]]
        return parts[0] if len(parts) == 1 else merge_stats(parts)

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
            >>> history = lt.History()
            >>> for step in (1, 2, 3):
            ...     history.add(step, lt.label_stats(["cat"], [step]), mode="eval")
            >>> history.pooled()["cat"].mean, history.pooled(steps=slice(-2, None))["cat"].mean
            (2.0, 2.5)
        """
        mode = single_mode(self._found, mode)
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
        mode = single_mode(self._found, mode)
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
            >>> history = lt.History()
            >>> history.add(1, lt.label_stats({"class": [0, 1, 1], "site": ["a", "a", "b"]}, [5.0, 1.0, 4.0]))
            >>> history.worst(2), history.worst(1, by="class"), history.worst(1, by="site")
            ([(0, 'a'), (1, 'b')], [0], ['b'])
        """
        if operator.index(k) < 1:
            msg = f"k must be at least 1, got {k}"
            raise ValueError(msg)
        mode = single_mode(self._found, mode)
        if step is None:
            latest = (at for at in reversed(self.steps(mode)) if ds_id is None or ds_id in self._found[mode][at])
            step = next(latest, None)
            if step is None:
                raise self._missing(mode, ds_id)
        stats = self.at(step, mode, ds_id)
        labels = labels_named(by, stats.label_names)
        if labels is not None:
            stats, by = stats.by(*labels), "mean"
        ranked: list[Any] = stats.labels[stats.order(str(by), descending=higher_is_worse)[:k]].tolist()
        return ranked

    def _missing(self, mode: str, ds_id: str | None, step: int | None = None) -> KeyError:
        """Return what to raise where there is no such mode, no such dataset in it, or no such step of both."""
        if not self._found:
            return KeyError(f"no mode {mode!r}: the history is empty")
        if mode not in self._found:
            return missing_key(mode, self.modes, "mode")
        if known := self._having(mode, ds_id):
            return missing_key(step, known, f"step in mode {mode!r}:")
        there = dict.fromkeys(of for parts in self._found[mode].values() for of in parts)
        return missing_key(ds_id, list(there), f"ds_id in mode {mode!r}:")

    def _having(self, mode: str, ds_id: str | None) -> list[int]:
        """Return the steps of a mode and dataset, ascending."""
        steps = self.steps(mode)
        return steps if ds_id is None else [step for step in steps if ds_id in self._found[mode][step]]

    def _steps_of(self, mode: str, ds_id: str | None) -> list[int]:
        """Return the steps of a mode and dataset, ascending, or raise if there are none."""
        if steps := self._having(mode, ds_id):
            return steps
        raise self._missing(mode, ds_id)

    def _of(self, mode: str, ds_id: str | None) -> list[tuple[int, LabelStats]]:
        """Return the steps of a mode with their statistics, ascending."""
        return [(step, self.at(step, mode, ds_id)) for step in self._steps_of(mode, ds_id)]


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
