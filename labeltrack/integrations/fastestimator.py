"""`LabelTracker` for FastEstimator: the trace of ``fastestimator.trace.xai``, on compiled statistics.

Change one import, and nothing else::

    from labeltrack.integrations.fastestimator import LabelTracker  # was: from fastestimator.trace.xai import …

Same arguments, same summaries to the last bit, same graphs in ImageViewer, ImageSaver and Traceability.
"""

from __future__ import annotations

import os
from collections import ChainMap
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

import labeltrack
from labeltrack.integrations._shared import needed

with needed(
    "fastestimator needs FastEstimator 1.7 (Python 3.11): "
    'pip install "labeltrack[fastestimator]"; without it, use labeltrack.LabelTracker',
    "fastestimator",
):
    from fastestimator.summary.summary import Summary, ValWithError
    from fastestimator.trace.trace import Trace
    from fastestimator.util.traceability_util import traceable

if TYPE_CHECKING:
    from fastestimator.util.data import Data

# The order of the keys in a summary, and so of the lines in a graph: that of the original, and others in between.
_ORDER = ("std", "range", "sem", "ci95", "median", "iqr")


def _place(bound: labeltrack.bounds.BoundName) -> tuple[int, str]:
    """Return what bounds are sorted by in the summaries; None is the last."""
    at = _ORDER.index(bound) if isinstance(bound, str) else len(_ORDER) + (bound is None)
    return at, str(bound)


@traceable()
class LabelTracker(Trace):
    """Track a per-sample metric by label: the loss of each class over time, for example.

    Use it with ImageViewer or ImageSaver to see the graph when training ends; Traceability draws it too.

    Args:
        label: Key of the labels: batches of ``(N,)`` or ``(N, 1)`` integers, bools, floats or strings.
        metric: Key of the metric, one number per sample: ``(N,)`` or ``(N, 1)``. A loss needs ``average_loss=False``.
        label_mapping: ``{display name: label value}``; other labels are ignored. None or an empty one tracks every
            label.
        bounds: What to draw around the mean: None for nothing, ``"std"`` for one standard deviation, ``"range"``
            for the smallest and largest sample, ``"sem"`` and ``"ci95"`` for standard error and confidence interval of
            the mean; or around the median ``"iqr"`` for the quartiles and ``("quantile", low, high)``; or several of
            these, each in a graph of its own.
        mode: Modes to run in: ``"train"``, ``"eval"``, ``"test"``, ``"infer"``, several of these, ``"!train"`` for
            all except it, or None for all.
        ds_id: Dataset ids to run for: one, several, ``"!a"`` for all except it, or None for all.
        outputs: Key under which the summaries are written when training ends; ``f"{metric}_by_{label}"`` by default.
        split_ds: Whether to keep datasets apart: summaries then have the keys ``f"{key}|{ds_id}"``, which FastEstimator
            draws as separate lines in one graph. Otherwise all datasets of a mode are pooled.
        nan_policy: What to do with NaN samples: ``"propagate"``, ``"omit"`` or ``"raise"``; see
            `labeltrack.LabelTracker`.
        missing: What to do with samples whose label is missing: ``"error"``, ``"skip"`` or ``"label"``; see
            `labeltrack.LabelTracker`.
        max_buffer_bytes: Memory for the samples of an epoch; see `labeltrack.LabelTracker`.
        record_to: Folder to save every sample in, or a `labeltrack.RecordingOptions`; see `labeltrack.LabelTracker`.

    Raises:
        TypeError: An argument of the wrong type.
        ValueError: An unknown option, or two display names for one label; or `record_to` contains something else.
        ImportError: Recording needs pyarrow and xxhash: the extra ``record``.
        OSError: The folder of `record_to` cannot be written to.
        RunInUseError: Another process records to it.
        AssertionError: A mode or dataset id that FastEstimator refuses.

    Example:
        >>> tracker = LabelTracker(label="y", metric="ce", label_mapping={"zero": 0, "one": 1}, bounds="range")
        >>> tracker.outputs, sorted(tracker.mode)
        (['ce_by_y'], ['eval'])
    """

    def __init__(
        self,
        label: str,
        metric: str,
        label_mapping: Mapping[str, Any] | None = None,
        bounds: labeltrack.bounds.BoundName | Iterable[labeltrack.bounds.BoundName] = "std",
        mode: str | Iterable[str] | None = "eval",
        ds_id: str | Iterable[str] | None = None,
        outputs: str | None = None,
        *,
        split_ds: bool = False,
        nan_policy: labeltrack.stats.NanPolicy = "propagate",
        missing: Literal["error", "skip", "label"] = "error",
        max_buffer_bytes: int = 256 * 2**20,
        record_to: str | os.PathLike[str] | labeltrack.RecordingOptions | None = None,
    ) -> None:
        # FastEstimator decides by mode and ds_id when a trace runs: the tracker records all that arrives.
        self._tracker = labeltrack.LabelTracker(
            label,
            metric,
            label_mapping or None,
            _bounds(bounds),
            outputs=outputs or None,
            nan_policy=nan_policy,
            missing=missing,
            max_buffer_bytes=max_buffer_bytes,
            record_to=record_to,
            keep_order=True,  # which is that of the summaries
        )
        super().__init__(inputs=[label, metric], outputs=self._tracker.outputs, mode=mode, ds_id=ds_id)
        self.split_ds = split_ds
        self._summaries: dict[Any, Summary] = {}
        self._ending: tuple[str, int | None] | None = None  # mode and step that may not be in the summaries yet

    @property
    def label_key(self) -> str:
        """Key of the labels."""
        return str(self._tracker.label)

    @property
    def metric_key(self) -> str:
        """Key of the metric."""
        return self._tracker.metric

    @property
    def label_mapping(self) -> dict[Any, str] | None:
        """``{label value: display name}``, or None."""
        mapping = self._tracker.label_mapping
        return None if mapping is None else {label: name for name, label in mapping.items()}

    @property
    def bounds(self) -> set[labeltrack.bounds.BoundName]:
        """Names of the bounds."""
        return set(self._tracker.bounds)

    @property
    def history(self) -> labeltrack.History:
        """Count, sum, mean, std, min and max of every label in every mode, dataset and step."""
        return self._tracker.history

    @property
    def label_summaries(self) -> dict[Any, Summary]:
        """A ``Summary`` for each label that occurred, by display name (or label, if there is no mapping).

        They are in order of appearance. Their ``history[mode][key][step]`` is a float or a ``ValWithError``.
        """
        self._settle()
        return self._summaries

    def on_batch_end(self, data: Data) -> None:
        """Record a batch; errors are those of `labeltrack.LabelTracker.update_batch`."""
        if self._ending is not None:
            self._settle()
        tracker = self._tracker
        system = self.system
        try:
            labels, values = _item(data, self.label_key), _item(data, tracker.metric)
        except KeyError:
            tracker.update_batch(data, mode=system.mode, ds_id=system.ds_id)  # says which is missing
            return
        tracker.update(labels, values, mode=system.mode, ds_id=system.ds_id)

    def on_epoch_end(self, data: Data) -> None:
        """Compute the statistics of the epoch and write them into the summaries.

        Raises:
            ValueError: There are NaN under ``nan_policy="raise"``; or a bound needs quantiles, and samples were folded.
        """
        self._settle()
        mode, step = self.system.mode, self.system.global_step
        if any(of == mode for of, _ in self._tracker.pending):
            self._ending = mode, step
        # RestoreWizard may repeat the last eval epoch. A test without training has no step: FastEstimator writes 0.
        self._tracker.end_epoch(step or 0, mode=mode, replace=True)
        self._settle()

    def _settle(self) -> None:
        """Write an epoch that ended into the summaries; may be repeated, as an interrupt may come at any line."""
        ending = self._ending
        if ending is None:
            return
        mode, step = ending
        history = self.history
        if any(of == mode for of, _ in self._tracker.pending):
            return  # it has not ended
        parts = history.datasets(step or 0, mode)
        if parts and not self.split_ds:
            parts = {"": history.at(step or 0, mode)}
        try:
            for ds_id, stats in parts.items():
                self._write(stats, mode, step, f"|{ds_id}" if ds_id else "")
        except ValueError:  # there are no quantiles, which is raised once
            self._ending = None
            raise
        if self._ending is ending:  # and not the next one, where another thread looks at the summaries
            self._ending = None

    def on_end(self, data: Data) -> None:
        """Hand the list of summaries to the system, for Traceability, and to the traces that follow, as `outputs`.

        Warns:
            LabelTrackWarning: Labels of the mapping never occurred. It warns once.
        """
        self._settle()
        self._tracker.flush()
        self._tracker.check_mapping()
        summaries = list(self.label_summaries.values())
        self.system.add_graph(self.outputs[0], summaries)
        data.write_without_log(self.outputs[0], summaries)

    def close(self) -> None:
        """End the recording, so that another trace of this process can continue it; see `labeltrack.LabelTracker`."""
        self._tracker.close()

    def _write(self, stats: labeltrack.LabelStats, mode: str, step: int | None, suffix: str = "") -> None:
        """Write statistics into the summaries."""
        labels = stats.labels.tolist()
        names = dict(zip(labels, stats.names.tolist(), strict=True))
        histories = {}
        for label in self._tracker.labels_in_order:
            if label not in names:
                continue
            name = names[label] if self.label_mapping is not None or names[label] == "(missing)" else label
            if name not in self._summaries:
                self._summaries[name] = Summary(name)
            histories[label] = self._summaries[name].history[mode]
        for bound in sorted(self._tracker.bounds, key=_place):
            key = labeltrack.bounds.resolve(bound).graph_key(self.metric_key) + suffix
            low, centre, high = (column.tolist() for column in stats.bounds(bound))
            for i, label in enumerate(labels):
                value = centre[i] if bound is None else ValWithError(low[i], centre[i], high[i])
                histories[label][key][step] = value

    def __getstate__(self) -> dict[str, Any]:
        """Return the state for System.save_state and pickle, with the samples of the running epoch."""
        summaries = self.label_summaries
        others = "system", "_tracker", "_summaries", "_ending"
        state = {name: value for name, value in vars(self).items() if name not in others}
        return {**state, "label_summaries": summaries, "tracker": self._tracker.__getstate__()}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        """Restore from a state: `System.load_state` calls this on a trace of the script, which keeps its arguments."""
        if "tracker" not in state:
            msg = (
                "this state was not saved by labeltrack's LabelTracker; a run that began with that of "
                "fastestimator.trace.xai has to go on with it"
            )
            raise ValueError(msg)
        state = dict(state)
        tracker, summaries = state.pop("tracker"), dict(state.pop("label_summaries"))
        for summary in summaries.values():
            # Summary leaves this out of its state, and cannot be saved a second time without it.
            if not hasattr(summary, "system_config"):
                summary.system_config = None
        if hasattr(self, "_tracker"):
            self._tracker.load_state_dict(tracker["state"])
        else:
            for name, value in state.items():
                setattr(self, name, value)
            self._tracker = labeltrack.LabelTracker.__new__(labeltrack.LabelTracker)
            self._tracker.__setstate__(tracker)
        self._summaries, self._ending = summaries, None


def _item(data: Data, key: str) -> Any:
    """Return ``data[key]`` in 0.25 us: a lookup in a ChainMap raises KeyError for each map without it, in 0.5."""
    if not isinstance(data, ChainMap):
        return data[key]
    for part in data.maps:
        for inner in part.maps if type(part) is ChainMap else (part,):
            if key in inner:
                return inner[key]
    raise KeyError(key)


def _bounds(bounds: Any) -> Any:
    """Return bounds; None for an empty iterable."""
    given = bounds is not None and not isinstance(bounds, str) and isinstance(bounds, Iterable)
    return (list(bounds) or None) if given else bounds
