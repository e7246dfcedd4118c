"""Reading one mode of a history, step by step."""

from __future__ import annotations

from labeltrack._filters import single_mode
from labeltrack.errors import missing_key
from labeltrack.history.tables import Tables
from labeltrack.stats import LabelStats, merge_stats


class Reading(Tables):
    """Statistics of one mode by step, their datasets pooled or one of them."""

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

    def _has(self, mode: str, ds_id: str | None) -> bool:
        """Return whether there is a step of a mode with a dataset."""
        return any(ds_id in (None, *parts) for parts in self._found[mode].values())

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

    def _of(self, mode: str, ds_id: str | None) -> list[tuple[int, LabelStats]]:
        """Return the steps of a mode with their statistics, ascending."""
        steps = self._steps_of(mode, ds_id)
        found = self._found[mode]
        if ds_id is not None:
            return [(step, found[step][ds_id]) for step in steps]
        return [(step, self._together(mode, step, list(found[step].values()))) for step in steps]
