"""What integrations share: what is said without their framework, and the end of an epoch with what is logged then."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import labeltrack
from labeltrack.integrations.loggers import ScalarsSink

Tracker = labeltrack.LabelTracker | labeltrack.TrackerCollection


@contextmanager
def needed(what: str, *frameworks: str) -> Iterator[None]:
    """Raise ImportError, with what to install, if an import within finds that one of the frameworks is not there."""
    try:
        yield
    except ModuleNotFoundError as error:  # pragma: no cover (a test runs this in a process of its own)
        if (error.name or "").partition(".")[0] not in frameworks:
            raise
        msg = f"labeltrack.integrations.{what}"
        raise ImportError(msg, name=error.name) from error


class Epochs:
    """Ends epochs of a tracker or a collection."""

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker
        self._policy = ScalarsSink(print, summary=True)

    def end(self, step: int, mode: str) -> dict[str, float]:
        """End an epoch, whose datasets replace those of this step alone; return what to log, if anything."""
        tracker = self._tracker
        ended = {ds_id for of, ds_id in tracker.pending if of == mode}
        if not ended:
            return {}
        tracked: list[Any] = [tracker] if isinstance(tracker, labeltrack.LabelTracker) else list(tracker.values())
        before = [of.history.datasets(step, mode) for of in tracked]
        replace = any(there.keys() & ended for there in before)
        done = tracker.end_epoch(step, mode=mode, replace=replace)
        found: dict[str, float] = {}
        for of, there in zip(tracked, before, strict=True):
            kept = {ds_id: stats for ds_id, stats in there.items() if replace and ds_id not in ended}
            if kept:
                of.history.add_all(step, kept, mode=mode)
            if kept and tracker.record_to is not None:
                text = (
                    f"mode {mode!r}, step {step} was evaluated again for datasets {sorted(ended)}, and the recorded "
                    f"run now lacks datasets {sorted(kept)} of this step, which the history has. Give datasets "
                    "that are evaluated one after the other modes of their own"
                )
                warnings.warn(text, labeltrack.LabelTrackWarning, stacklevel=2)
            some = done[of.metric] if isinstance(done, dict) else done
            found |= self.scalars(labeltrack.EpochResult(step, mode, of.metric, of.outputs, some, of.history))
        return found

    def scalars(self, result: labeltrack.EpochResult) -> dict[str, float]:
        """Return what to log of an epoch."""
        return self._policy.report(result).scalars if len(result.stats) else {}
