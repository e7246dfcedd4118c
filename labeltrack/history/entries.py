"""What a history holds: statistics by mode, dataset and step. They are entered as a whole or not at all."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from labeltrack._convert.objects import value_of
from labeltrack._filters import check_step, single_mode

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from labeltrack.stats import LabelStats


@dataclass(frozen=True)
class Entry:
    """What is added to a history at once.

    Attributes:
        step: Step.
        mode: Mode.
        parts: Statistics by dataset.
        gone: Datasets of that step to remove first.
        pooled: Statistics of all datasets together, if they cannot be merged from the parts.
    """

    step: int
    mode: str
    parts: dict[str, LabelStats]
    gone: set[str]
    pooled: LabelStats | None = None


class Entries:
    """Statistics by mode, dataset and step, in the order they were recorded."""

    def __init__(self) -> None:
        self._entries: dict[tuple[str, str, int], LabelStats] = {}
        self._found: dict[str, dict[int, dict[str, LabelStats]]] = {}  # the same by mode, step and dataset
        self._ascending: dict[str, list[int]] = {}  # the steps of each mode
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
        if not replace:
            self._check_new((mode, ds_id, step) for ds_id in stats)
        gone = there if replace else set()
        return Entry(step, mode, stats, gone, pooled if there <= gone else None)

    def enter(self, entry: Entry) -> None:
        """Add a checked entry; may be repeated after an interrupt."""
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
                    f"step {step} of mode {mode!r}{of} is already in the history; give every epoch its own step, "
                    "or pass replace=True to repeat one"
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
    def label_names(self) -> tuple[str, ...]:
        """Names of several labels per sample; empty for one."""
        return next((stats.label_names for stats in self._entries.values() if stats.label_names), ())

    @property
    def ds_ids(self) -> list[str]:
        """Dataset ids, in the order they were first recorded."""
        return list(dict.fromkeys(ds_id for _, ds_id, _ in self._entries))

    def steps(self, mode: str | None = None) -> list[int]:
        """Return the steps of a mode, ascending; None for those of all modes."""
        if mode is None:
            return sorted(set().union(*self._ascending.values()))
        return list(self._ascending.get(mode, ()))

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
