"""What trackers of one metric and of several have in common."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np

from labeltrack._convert.objects import value_of
from labeltrack._filters import Selection, check_step
from labeltrack._labels.combined import separate_labels
from labeltrack._labels.options import Labels
from labeltrack._nan_policy import NanPolicy, check_nan_policy
from labeltrack._tracking.changes import Recorded
from labeltrack._tracking.intake import Intake
from labeltrack._tracking.reducing import Reducer, some_labels
from labeltrack._tracking.sinks import EpochResult, Sink, check_sinks, hand_to
from labeltrack._tracking.state import Stateful
from labeltrack._tracking.streams import Owed, Snapshot, Stream
from labeltrack._version import __version__
from labeltrack.bounds import needed_quantiles, resolve_all
from labeltrack.errors import NaNError, check_option, counted, missing_key, warn, warn_elsewhere
from labeltrack.history import History, joined
from labeltrack.recording.description import ON_DUPLICATE, Description, OnDuplicate
from labeltrack.recording.options import RecordingOptions

if TYPE_CHECKING:
    from labeltrack.recording.recorder import Recorder
    from labeltrack.stats import LabelStats


class Tracking(Stateful):
    """A tracker of some metrics."""

    outputs: Any
    update: Callable[..., None]

    def _begin(self, given: Mapping[str, Any], metrics: tuple[str, ...]) -> None:
        """Check the arguments of the constructor, which become attributes, and begin."""
        self.label = check_label(given["label"])
        self._metrics = metrics
        resolved = resolve_all(given["bounds"])
        self.bounds = tuple(bound.name for bound in resolved)
        # Iterators are read once, here: the arguments are kept for pickling.
        self.mode, self.ds_id = (
            list(some) if isinstance(some, Iterable) and not isinstance(some, str) else some
            for some in (given["mode"], given["ds_id"])
        )
        self.nan_policy: NanPolicy = check_nan_policy(given["nan_policy"])
        self.max_buffer_bytes = check_bytes(given["max_buffer_bytes"])
        check_option("on_duplicate", given["on_duplicate"], ON_DUPLICATE)
        self.on_duplicate: OnDuplicate | None = given["on_duplicate"]
        self._labels = Labels(self.label, given["label_mapping"], given["missing"], given["ignore_label"])
        self.label_mapping, self.missing, self.ignore_label = self._labels.given
        self._modes = Selection(self.mode, "mode")
        self._ds_ids = Selection(self.ds_id, "ds_id")
        self.record_to = given["record_to"]
        self.keep_order = bool(given["keep_order"])
        self.sinks: list[Sink] = check_sinks(given["sinks"])
        self._sinks_told: list[Sink] = []
        self._warned = self._never_told = self._duplicates_told = False
        names = joined(self._label_names)
        histories = [History(metric=metric, label=names, bounds=self.bounds) for metric in metrics]
        self._recorder = self._start_recorder()
        self._recorded = Recorded(histories, self._recorder, keep_order=self.keep_order, names=self._labels.names)
        self._reducer = Reducer(self._labels, needed_quantiles(resolved), len(metrics), self.on_duplicate)
        self._intake = Intake(self._recorded, self._reducer, self.max_buffer_bytes)
        if self._recorder is not None:  # when the tracker is not needed any more, or at exit
            weakref.finalize(self, self._recorder.finish, self._intake.arrive)
        self._lock = self._recorded.lock
        self._streams = self._intake.quick  # looked up with every batch
        self._recorded.tell()

    @property
    def _label_names(self) -> tuple[str, ...]:
        return (self.label,) if isinstance(self.label, str) else self.label

    def _output(self, metric: str) -> str:
        """Return the default name of the result of a metric."""
        return f"{metric}_by_{'_and_'.join(self._label_names)}"

    def _start_recorder(self) -> Recorder | None:
        """Return what records a run, if samples are to be recorded."""
        if self.record_to is None:
            return None
        from labeltrack.recording.recorder import Recorder  # noqa: PLC0415 (only those who record pay for it)

        options = self.record_to if isinstance(self.record_to, RecordingOptions) else RecordingOptions(self.record_to)
        description = Description(
            metric=self._metrics,
            label=self.label,
            label_mapping=self.label_mapping,
            bounds=self.bounds,
            nan_policy=self.nan_policy,
            missing=self.missing,
            labeltrack=__version__,
            duplicates="count" if self.on_duplicate == "count" else "first",
        )
        return Recorder(options, description)

    def _history(self, place: int) -> History:
        """Return the history of a metric, by its place."""
        if self._recorded.owed is not None:
            with self._lock.to_read:
                self._recorded.complete()
        return self._recorded.histories[place]

    @property
    def pending(self) -> dict[tuple[str, str], int]:
        """The number of samples recorded since the last end of an epoch, by mode and dataset id.

        Modes and datasets without any are left out. Samples with labels that the `label_mapping` leaves out count until
        memory is full and they are folded.

        Example:
            >>> from labeltrack import LabelTracker
            >>> tracker = LabelTracker(label="y", metric="ce")
            >>> tracker.update([0, 1], [1.0, 2.0], mode="eval")
            >>> tracker.pending
            {('eval', ''): 2}
        """
        with self._lock.to_read:
            self._intake.arrive("pending")
            return self._recorded.pending()

    @property
    def labels_in_order(self) -> list[Any]:
        """Every label of the epochs that ended, in the order in which they first appeared.

        Labels that are new in an epoch are ordered by their first sample, dataset by dataset, in the order in which the
        datasets began.

        Raises:
            ValueError: The tracker was made without ``keep_order=True``.

        Example:
            >>> from labeltrack import LabelTracker
            >>> tracker = LabelTracker(label="y", metric="ce", keep_order=True)
            >>> tracker.update(["dog", "cat", "dog"], [1.0, 2.0, 3.0])
            >>> _ = tracker.end_epoch(1)
            >>> tracker.labels_in_order
            ['dog', 'cat']
        """
        if not self.keep_order:
            msg = "the order of labels is not known; make the tracker with LabelTracker(…, keep_order=True)"
            raise ValueError(msg)
        with self._lock.to_read:
            self._recorded.complete()
            return list(self._recorded.order)

    # -- recording ----------------------------------------------------------------------------------------

    def update_batch(
        self, batch: Mapping[str, Any], *, mode: str = "train", ds_id: str = "", where: Any = None, ids: Any = None
    ) -> None:
        """Record the samples of a batch that is a mapping: labels and values are looked up by their names.

        Args:
            batch: Has the keys that `label` and `metric`, or `metrics`, name.
            mode: Mode of the batch.
            ds_id: Dataset of the batch.
            where: Which samples count; see `update`.
            ids: What identifies the samples; see `update`.

        Raises:
            KeyError: A key is missing; the message lists those that are there.
            TypeError: See `update`.
            ValueError: See `update`.
        """
        names = self._label_names
        wanted = [*(("label", name) for name in names), *(("metric", metric) for metric in self._metrics)]
        for what, key in wanted:
            if key not in batch:
                raise missing_key(key, batch, f"{what} key in the batch:")
        labels = batch[self.label] if isinstance(self.label, str) else {name: batch[name] for name in names}
        values = [batch[metric] for metric in self._metrics]
        given = values[0] if self._metric == "metric" else dict(zip(self._metrics, values, strict=True))
        self.update(labels, given, mode=mode, ds_id=ds_id, where=where, ids=ids)

    def _update(self, labels: Any, values: Sequence[Any], mode: str, ds_id: str, where: Any, ids: Any) -> None:
        mode, ds_id = check_name("mode", mode), check_name("ds_id", ds_id)
        if mode not in self._modes or ds_id not in self._ds_ids:
            return
        with self._lock.of("update"):
            self._recorded.complete()
            self._intake.take(labels, values, (mode, ds_id), where, ids)
        self._recorded.tell()

    # -- the end of an epoch ------------------------------------------------------------------------------

    def _end_epoch(self, step: int, mode: str, *, replace: bool) -> list[LabelStats]:
        """End an epoch; return the statistics of each metric."""
        step, mode = check_step(step), check_name("mode", mode)
        with self._lock.of("end_epoch"):
            self._intake.arrive()
            of_mode = self._recorded.sealed(mode)
            streams = self._recorded.filled(mode)
            found = self._statistics(mode, streams)
            together = [pooled for _, pooled in found]
            if not streams:
                if mode in self._modes:
                    warn_elsewhere(mode, self._recorded.pending())
                return together
            entries = []
            for place, (stats, pooled) in enumerate(found):
                parts = {ds_id: part for ds_id, part in zip(streams, stats, strict=True) if len(part)}
                more = pooled if pooled.quantiles and len(parts) > 1 else None
                history = self._recorded.histories[place]
                entries.append((place, history.entry(step, parts, mode=mode, replace=replace, pooled=more)))
            ends = self._recorded.endings(of_mode, step, replace=replace)
            order = self._recorded.appeared(list(streams.values()), found[0][0])
            self._recorded.decide(Owed(list(of_mode.values()), entries, ends, order, modes=(mode,)))
        self._recorded.tell()
        if self.sinks:
            outputs = self.outputs if isinstance(self.outputs, dict) else {self._metrics[0]: self.outputs}
            results = [
                EpochResult(step, mode, metric, str(outputs[metric]), stats, self._history(place))
                for place, (metric, stats) in enumerate(zip(self._metrics, together, strict=True))
            ]
            hand_to(self.sinks, results, self._sinks_told)
        return together

    def _compute(self, mode: str) -> list[LabelStats]:
        """Return the statistics of each metric since the last end of an epoch."""
        mode = check_name("mode", mode)
        with self._lock.to_read:
            self._intake.arrive("compute")
            return [pooled for _, pooled in self._statistics(mode, self._recorded.filled(mode))]

    def _statistics(self, mode: str, streams: dict[str, Stream]) -> list[tuple[tuple[LabelStats, ...], LabelStats]]:
        """Return, for each metric, the statistics of the datasets of a mode, and of all of them together."""
        samples = [self._distinct(mode, stream.snapshot()) for stream in streams.values()]
        if samples:
            parts = [self._reducer.stats(each, self.nan_policy) for each in samples]
        else:
            parts = [self._reducer.reduce([], self._labels.nothing, self.nan_policy)]
        found = []
        for place, (metric, stats) in enumerate(zip(self._metrics, zip(*parts, strict=True), strict=True)):
            for part in stats:
                try:
                    part._check_finite()
                except NaNError as error:
                    if len(self._metrics) == 1:
                        raise
                    msg = f"metric {metric!r}: {error}"
                    raise NaNError(msg) from error
            found.append((stats, self._reducer.pooled(samples, stats, place)))
        if samples and not len(found[0][1]) and self._labels.mapped and not self._warned:
            self._warned = True
            occurred = dict(self._recorded.unmapped)
            for each in samples:
                occurred.update(some_labels(each.rows, each.decoder))
            self._labels.warn_nothing(list(occurred))
        return found

    def _distinct(self, mode: str, samples: Snapshot) -> Snapshot:
        """Return the samples of a stream that count; tell of duplicates."""
        kept, duplicates = self._reducer.distinct(samples)
        if duplicates.number and samples.ids is not None:
            some = (
                f"in mode {mode!r}, {counted(duplicates.number, 'sample', 'have')} an id that occurred before in this "
                f"epoch, such as {duplicates.shown(samples.ids)}"
            )
            if self.on_duplicate == "error":
                msg = f"{some}; on_duplicate='first' counts only the first sample of each id, 'count' all of them"
                raise ValueError(msg)
            if self.on_duplicate is None and not self._duplicates_told:
                self._duplicates_told = True
                warn(
                    f"{some}; only the first sample of each id counts, which on_duplicate='first' does without this "
                    "warning, and 'count' counts all. Distributed samplers repeat samples to make batches equal"
                )
        return kept

    def reset(self, *, mode: str | None = None) -> None:
        """Forget the samples recorded since the last end of an epoch; the history stays.

        Args:
            mode: The mode whose samples to forget; None for all.

        Example:
            >>> from labeltrack import LabelTracker
            >>> tracker = LabelTracker(label="y", metric="ce")
            >>> tracker.update([0], [1.0])
            >>> tracker.reset()
            >>> len(tracker.end_epoch(1))
            0
        """
        with self._lock.of("reset"):
            self._recorded.complete()
            self._recorded.decide(self._recorded.dropped(mode))

    def flush(self) -> None:
        """Wait until every sample so far is written, if the tracker records."""
        self._write("flush")

    def close(self) -> None:
        """Write what is left and end the recording; then `check_mapping`.

        Recording also ends when the tracker is no longer referenced, and when the process exits in an orderly way.
        The tracker can still be used afterwards; its samples are then not recorded, and it warns.
        """
        self._write("close")
        self.check_mapping()

    def _write(self, how: Literal["flush", "close"]) -> None:
        """Hand what there is to the recorder, if there is one, and call a method of it."""
        if self._recorder is not None:
            with self._lock.to_read:
                self._intake.arrive(how)
            self._recorded.hand_on()
            getattr(self._recorder, how)()
            self._recorded.tell()

    def check_mapping(self) -> None:
        """Warn, once, about labels of the `label_mapping` that never occurred in the history, if others did.

        Warns:
            LabelTrackWarning: There are such labels. They may have another type than the labels.
        """
        history = self._history(0)
        if self._labels.mapped and not self._never_told and len(history):
            self._never_told = True
            self._labels.warn_never(stats for _, stats in history.items())

    def __enter__(self) -> Self:
        """Return the tracker."""
        return self

    def __exit__(self, *_exception: object) -> None:
        """End the recording; see `close`."""
        self.close()

    def __repr__(self) -> str:
        """Return arguments, and what is recorded."""
        with self._lock.to_read:
            pending = sum(len(stream.buffer) for stream in self._recorded.streams.values())
            waiting = len(self._recorded.waiting)
        named = f"{self._metric}={getattr(self, self._metric)!r}"
        return (
            f"{type(self).__name__}(label={self.label!r}, {named}, bounds={self.bounds!r}): "
            f"{counted(len(self._recorded.histories[0]), 'entry')} in the history, {counted(pending, 'sample')} since"
            + (f", and {counted(waiting, 'update')} to be recorded" if waiting else "")
        )


# -- arguments ------------------------------------------------------------------------------------------


def check_name(what: str, name: Any) -> str:
    """Return a name as a plain string, or raise TypeError if it is none."""
    if not isinstance(name, str):
        several = isinstance(name, (tuple, list)) and what == "metric"
        hint = "; for several metrics, see TrackerCollection" if several else ""
        msg = f"{what} must be a string, got {type(name).__name__} {name!r}{hint}"
        raise TypeError(msg)
    return name if type(name) is str else str(value_of(name))


def check_bytes(number: Any) -> int:
    """Return a positive integer, or raise ValueError."""
    if isinstance(number, bool) or not isinstance(number, (int, np.integer)) or number < 1:
        msg = f"max_buffer_bytes must be a positive integer, got {number!r}"
        raise ValueError(msg)
    return int(number)


def check_label(label: Any) -> str | tuple[str, ...]:
    """Return the name of the label, or those of several; TypeError or ValueError if they are no names of columns."""
    if not isinstance(label, (tuple, list)):
        return check_name("label", label)
    names = tuple(check_name("label", name) for name in label)
    if len(set(names)) < len(names) or not all(names or [""]):
        msg = f"label must be a name, or several different ones, none of them empty, got {label!r}"
        raise ValueError(msg)
    separate_labels(dict.fromkeys(names))
    return names
