"""The end of an epoch, as callbacks of frameworks need it: statistics in the history, and scalars to log."""

from __future__ import annotations

import warnings
from typing import Any

import labeltrack
from labeltrack.integrations.loggers import ScalarsSink

Tracker = labeltrack.LabelTracker | labeltrack.TrackerCollection


class Epochs:
    """Ends epochs of a tracker or a collection."""

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker
        self._policy = ScalarsSink(print, summary=True)

    def end(self, step: int, mode: str) -> dict[str, float]:
        """End an epoch; return what to log, by ``{mode}/{outputs}/{name}``; nothing if there were no samples.

        Datasets that were at this step before are replaced; others stay. A recorded run loses those, which it warns of.
        """
        tracker = self._tracker
        ended = {ds_id for of, ds_id in tracker.pending if of == mode}
        if not ended:
            return {}
        tracked: list[Any] = [tracker] if isinstance(tracker, labeltrack.LabelTracker) else list(tracker.values())
        before = [of.history.datasets(step, mode) for of in tracked]
        replace = any(there.keys() & ended for there in before)
        stats = tracker.end_epoch(step, mode=mode, replace=replace)
        found: dict[str, float] = {}
        for of, there in zip(tracked, before, strict=True):
            kept = there.keys() - ended if replace else ()
            for ds_id in kept:
                of.history.add(step, there[ds_id], mode=mode, ds_id=ds_id)
            if kept and tracker.record_to is not None:
                text = (
                    f"mode {mode!r}, step {step} was evaluated again for datasets {sorted(ended)}, and the recorded "
                    f"run now lacks datasets {sorted(kept)} of this step, which the history has. Give datasets "
                    "that are evaluated one after the other modes of their own"
                )
                warnings.warn(text, labeltrack.LabelTrackWarning, stacklevel=2)
            some = stats[of.metric] if isinstance(stats, dict) else stats
            found |= self.scalars(labeltrack.EpochResult(step, mode, of.metric, of.outputs, some, of.history))
        return found

    def scalars(self, result: labeltrack.EpochResult) -> dict[str, float]:
        """Return what to log of an epoch."""
        return self._policy.report(result).scalars if len(result.stats) else {}
