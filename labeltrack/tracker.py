"""`LabelTracker`: the training-loop trace."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from labeltrack._buffers import REFUSED
from labeltrack._filters import Selection, check_step
from labeltrack._labels.codes import INTEGER
from labeltrack._nan_policy import NanPolicy, check_nan_policy
from labeltrack._tracking.arguments import Labels, check_bytes, check_label, check_name
from labeltrack._tracking.intake import Intake
from labeltrack._tracking.recorded import Recorded, start_recorder
from labeltrack._tracking.reducing import Reducer, some_labels
from labeltrack._tracking.state import Stateful
from labeltrack._tracking.streams import Owed
from labeltrack._version import __version__
from labeltrack.bounds import needed_quantiles, resolve_all
from labeltrack.errors import missing_key, warn_elsewhere
from labeltrack.history import History, joined
from labeltrack.recording.description import Description

if TYPE_CHECKING:
    import os
    from typing import Self

    from labeltrack._labels.missing import Missing
    from labeltrack._tracking.streams import Stream
    from labeltrack.bounds import BoundName
    from labeltrack.recording.options import RecordingOptions
    from labeltrack.stats import LabelStats

_ARRAY = np.ndarray


class LabelTracker(Stateful):
    """Track a per-sample metric by label while a model trains.

    `update` copies batches into preallocated buffers; `end_epoch` computes exact statistics of them in one compiled
    pass. Both may be called by several threads: a batch belongs to the epoch that ends after it. An exception at any
    point, such as KeyboardInterrupt, leaves a batch or the end of an epoch complete or without effect. Signal handlers
    may call methods that only read, `flush` and `close`; others raise RuntimeError if the handler interrupted a call.

    Args:
        label: Name of the label, such as its key in a batch; or a tuple of names, for several labels per sample.
        metric: Name of the metric.
        label_mapping: ``{display name: label value}``; other labels are ignored. None tracks every label. With several
            labels, one mapping or None for each, as ``{name of the label: mapping}`` or a tuple.
        bounds: Bands that figures show: None, ``"std"``, ``"range"``, ``"sem"``, ``"ci95"``, or, around the median,
            ``"iqr"``, ``("quantile", low, high)`` and ``"median"``; or an iterable of these.
        mode: Modes to track: None for all, a name, several, or ``"!name"`` for all except it. Updates in other modes
            are ignored.
        ds_id: Dataset ids to track, likewise.
        outputs: Name of the result; ``f"{metric}_by_{label}"`` by default, such as ``"ce_by_class_and_site"``.
        nan_policy: ``"propagate"``: a label with NaN samples has NaN statistics. ``"omit"``: NaN samples are ignored.
            ``"raise"``: they are an error at the end of the epoch.
        missing: What to do with samples whose label is missing (None, NaN, NA, null, masked): ``"error"``, ``"skip"``,
            or ``"label"``, which gives them a label of their own, ``"(missing)"``; see `label_stats`. A first batch
            without any label is treated as text. With several labels, one option for all or one for each.
        max_buffer_bytes: Memory for samples. When it is full, samples are folded into exact sums: the statistics are
            the same to the last bit, but there are no quantiles.
        record_to: Folder to save every sample in (or `labeltrack.RecordingOptions`), for `labeltrack.open_run`. A run
            that is there is continued. A background thread writes; training waits only if `max_buffer_bytes` of
            samples are still to be written. If writing fails, for example because the disk is full, training goes on
            after one warning.
        keep_order: Whether to keep the order in which labels first appear, for `labels_in_order`. It takes time if
            there are many labels.
        ignore_label: A label, or several, such as -100 or ``[255, None]``, whose samples are ignored whatever their
            value is; they are not recorded either. None or NaN among several stands for missing labels. With several
            labels per sample, for all of them or, as ``{name of the label: …}``, for some.

    Raises:
        TypeError: An argument of the wrong type.
        ValueError: An unknown option, or an argument that contradicts itself; or `record_to` contains something else.
        ImportError: Recording needs pyarrow and xxhash: the extra ``record``.
        OSError: The folder of `record_to` cannot be written to.
        RuntimeError: Another process records to it.

    Example:
        >>> import numpy as np
        >>> tracker = LabelTracker(label="y", metric="ce")
        >>> for epoch in (1, 2):
        ...     tracker.update(np.array([0, 1, 1]), np.array([0.5, 1.0, 3.0]) / epoch)
        ...     stats = tracker.end_epoch(epoch)
        >>> stats.mean
        array([0.25, 1.  ])
        >>> tracker.history.series(1, "mean")
        (array([1, 2]), array([2., 1.]))
    """

    def __init__(
        self,
        label: str | tuple[str, ...],
        metric: str,
        label_mapping: Mapping[str, Any] | Sequence[Any] | None = None,
        bounds: BoundName | Iterable[BoundName] = "std",
        mode: str | Iterable[str] | None = None,
        ds_id: str | Iterable[str] | None = None,
        outputs: str | None = None,
        *,
        nan_policy: NanPolicy = "propagate",
        missing: Missing | Mapping[str, Missing] | Sequence[Missing] = "error",
        max_buffer_bytes: int = 256 * 2**20,
        record_to: str | os.PathLike[str] | RecordingOptions | None = None,
        keep_order: bool = False,
        ignore_label: Any = None,
    ) -> None:
        self.label = check_label(label)
        self.metric = check_name("metric", metric)
        resolved = resolve_all(bounds)
        self.bounds = tuple(bound.name for bound in resolved)
        # Iterators are read once, here: the arguments are kept for pickling.
        self.mode = list(mode) if isinstance(mode, Iterable) and not isinstance(mode, str) else mode
        self.ds_id = list(ds_id) if isinstance(ds_id, Iterable) and not isinstance(ds_id, str) else ds_id
        names = (self.label,) if isinstance(self.label, str) else self.label
        default = f"{self.metric}_by_{'_and_'.join(names)}"
        self.outputs = default if outputs is None else check_name("outputs", outputs)
        self.nan_policy: NanPolicy = check_nan_policy(nan_policy)
        self.max_buffer_bytes = check_bytes(max_buffer_bytes)
        self._labels = Labels(self.label, label_mapping, missing, ignore_label)
        self.label_mapping, self.missing, self.ignore_label = self._labels.given
        self._modes = Selection(self.mode, "mode")
        self._ds_ids = Selection(self.ds_id, "ds_id")
        self.record_to = record_to
        self.keep_order = bool(keep_order)
        self._warned = False
        self._never_told = False
        history = History(metric=self.metric, label=joined(names), bounds=self.bounds)
        self._recorder = None if record_to is None else start_recorder(record_to, self._description())
        if self._recorder is not None:
            weakref.finalize(self, self._recorder.finish)  # when the tracker is not needed any more, or at exit
        self._recorded = Recorded(history, self._recorder, keep_order=self.keep_order, names=self._labels.names)
        self._reducer = Reducer(self._labels, needed_quantiles(resolved))
        self._intake = Intake(self._recorded, self._reducer, self.max_buffer_bytes)
        self._turns = self._recorded.turns
        self._streams = self._intake.quick  # looked up with every batch
        self._recorded.tell()

    def _description(self) -> Description:
        """Return what a recorded run says of its tracker."""
        if not isinstance(self.label, str):
            msg = f"recorded runs hold one label per sample, and this tracker has {joined(self.label)}"
            raise ValueError(msg)  # noqa: TRY004 (the type is right, and recording cannot do it)
        return Description(
            metric=self.metric,
            label=self.label,
            label_mapping=self.label_mapping,
            bounds=self.bounds,
            nan_policy=self.nan_policy,
            missing=self.missing,
            labeltrack=__version__,
        )

    @property
    def history(self) -> History:
        """The statistics of the epochs that ended."""
        if self._recorded.owed is not None:
            with self._turns.to_read:
                self._recorded.settle()
        return self._recorded.history

    @property
    def pending(self) -> dict[tuple[str, str], int]:
        """The number of samples recorded since the last end of an epoch, by mode and dataset id.

        Modes and datasets without any are left out. Samples with labels that the `label_mapping` leaves out count until
        memory is full and they are folded.

        Example:
            >>> tracker = LabelTracker(label="y", metric="ce")
            >>> tracker.update([0, 1], [1.0, 2.0], mode="eval")
            >>> tracker.pending
            {('eval', ''): 2}
        """
        with self._turns.to_read:
            self._recorded.settle()
            return self._recorded.pending()

    @property
    def labels_in_order(self) -> list[Any]:
        """Every label of the epochs that ended, in the order in which they first appeared.

        Labels that are new in an epoch are ordered by their first sample, dataset by dataset, in the order in which the
        datasets began.

        Raises:
            ValueError: The tracker was made without ``keep_order=True``.

        Example:
            >>> tracker = LabelTracker(label="y", metric="ce", keep_order=True)
            >>> tracker.update(["dog", "cat", "dog"], [1.0, 2.0, 3.0])
            >>> _ = tracker.end_epoch(1)
            >>> tracker.labels_in_order
            ['dog', 'cat']
        """
        if not self.keep_order:
            msg = "the order of labels is not known; make the tracker with LabelTracker(…, keep_order=True)"
            raise ValueError(msg)
        with self._turns.to_read:
            self._recorded.settle()
            return list(self._recorded.order)

    # -- recording ----------------------------------------------------------------------------------------

    def update(self, labels: Any, values: Any, *, mode: str = "train", ds_id: str = "", where: Any = None) -> None:
        """Record the samples of one batch.

        Args:
            labels: ``(N,)`` or ``(N, 1)`` integers, bools, floats or strings, as any array-like. A tracker of several
                labels takes a mapping ``{name of the label: labels}``, or a tuple of array-likes.
            values: As many real numbers, as any array-like; or labels and values of one same shape; or labels of as
                many dimensions, some of length 1: see `label_stats`.
            mode: Mode of the batch.
            ds_id: Dataset of the batch.
            where: Bools in the shape of the values, or in one that broadcasts to it: samples where it is False are
                ignored, whatever their label and value are. None records all samples.

        Raises:
            KeyError: One of several labels is not in the mapping.
            TypeError: Labels or values of an unsupported type, or labels of another type than before in this epoch.
            ValueError: Shapes that do not match, or missing labels under ``missing="error"``. A batch that raises is
                not recorded.

        Warns:
            LabelTrackWarning: Labels look multi-hot; see `label_stats`. There is one such warning.
        """
        # A batch like the one before, one-dimensional and of the same dtypes, takes two writes to memory that check
        # what they write. All others are checked and converted first, as is the first batch of an epoch: its labels
        # have to be of the same kind as those of other datasets.
        if where is not None:
            pass
        elif type(labels) is _ARRAY and type(values) is _ARRAY:
            # `SampleBuffer.try_append`, written out: calling it and asking `QUICK` took 0.3 of 0.75 us.
            try:
                rows = len(labels)
                buffer = self._streams[mode, ds_id].buffer
            except (KeyError, TypeError):
                pass  # the first batch, a mode that is no string, labels without a length
            else:
                chunk = buffer.open
                start = chunk.used
                end = start + rows
                if start and end <= chunk.limit and buffer.kind == INTEGER and not chunk.busy:
                    try:
                        try:  # first, as no line between it and the next is guarded by the other one
                            chunk.busy = True
                            chunk.label_view[start:end] = labels
                            chunk.value_view[start:end] = values
                            chunk.used = end
                            chunk.busy = False
                            return  # noqa: TRY300 (an `else` would not be guarded)
                        except REFUSED:
                            chunk.busy = False
                            if chunk.used != start:
                                raise  # by a signal handler: the rows are in
                    except BaseException:
                        chunk.busy = False
                        raise
        elif self._intake.quickly(labels, values, mode, ds_id):
            return
        self._update(labels, values, mode, ds_id, where)

    def update_batch(
        self, batch: Mapping[str, Any], *, mode: str = "train", ds_id: str = "", where: Any = None
    ) -> None:
        """Record the samples of a batch that is a mapping: its label and its metric are looked up by their names.

        Args:
            batch: Has the keys that the tracker's `label` and `metric` name.
            mode: Mode of the batch.
            ds_id: Dataset of the batch.
            where: Which samples count; see `update`.

        Raises:
            KeyError: A key is missing; the message lists those that are there.
            TypeError: See `update`.
            ValueError: See `update`.
        """
        names = (self.label,) if isinstance(self.label, str) else self.label
        for what, key in (*(("label", name) for name in names), ("metric", self.metric)):
            if key not in batch:
                raise missing_key(key, batch, f"{what} key in the batch:")
        labels = batch[self.label] if isinstance(self.label, str) else {name: batch[name] for name in names}
        self.update(labels, batch[self.metric], mode=mode, ds_id=ds_id, where=where)

    def _update(self, labels: Any, values: Any, mode: str, ds_id: str, where: Any) -> None:
        mode, ds_id = check_name("mode", mode), check_name("ds_id", ds_id)
        if mode not in self._modes or ds_id not in self._ds_ids:
            return
        with self._turns.of("update"):
            self._recorded.settle()
            self._intake.append(labels, values, (mode, ds_id), where)
        self._recorded.tell()

    # -- the end of an epoch ------------------------------------------------------------------------------

    def end_epoch(self, step: int, *, mode: str = "train", replace: bool = False) -> LabelStats:
        """Compute the statistics of the samples recorded in a mode since the last call, and add them to the history.

        Args:
            step: The epoch or step, an integer that the history does not have yet in that mode.
            mode: The mode that ended.
            replace: Whether to replace this step in the history, for an epoch that is repeated after an interruption.

        Returns:
            Statistics of all dataset ids pooled. If nothing was recorded they are empty and not added to the history.

        Raises:
            TypeError: `step` is not an integer.
            ValueError: The history has that step and `replace` is False, or there are NaN under ``nan_policy="raise"``.
                The samples are kept in either case.

        Warns:
            LabelTrackWarning: Nothing was recorded in this mode, but something in others; or no sample has a label of
                the `label_mapping`.
        """
        step, mode = check_step(step), check_name("mode", mode)
        with self._turns.of("end_epoch"):
            self._recorded.settle()
            of_mode = self._recorded.sealed(mode)
            streams = self._recorded.filled(mode)
            stats, pooled = self._statistics(streams)
            if not streams:
                if mode in self._modes:
                    warn_elsewhere(mode, self._recorded.pending())
                return pooled
            parts = {ds_id: part for ds_id, part in stats.items() if len(part)}
            together = pooled if pooled.quantiles and len(parts) > 1 else None
            entry = self._recorded.history.entry(step, parts, mode=mode, replace=replace, pooled=together)
            some = list(streams.values())
            ends = self._recorded.endings({mode: some}, step)
            order = self._recorded.appeared(some, list(stats.values()))
            self._recorded.decide(Owed(list(of_mode.values()), [entry], ends, order))
        self._recorded.tell()
        return pooled

    def compute(self, mode: str = "train") -> LabelStats:
        """Return the statistics of the samples recorded in a mode since the last end of an epoch; they stay recorded.

        Args:
            mode: The mode.

        Returns:
            What `end_epoch` would return now: all dataset ids pooled, with the quantiles that `bounds` need; empty if
            nothing was recorded.

        Raises:
            ValueError: There are NaN under ``nan_policy="raise"``.

        Warns:
            LabelTrackWarning: No sample has a label of the `label_mapping`. Either this or `end_epoch` warns, once.

        Example:
            >>> tracker = LabelTracker(label="y", metric="ce")
            >>> tracker.update([0, 1, 1], [0.5, 1.0, 3.0])
            >>> tracker.compute().mean
            array([0.5, 2. ])
        """
        mode = check_name("mode", mode)
        with self._turns.to_read:
            self._recorded.settle()
            return self._statistics(self._recorded.filled(mode))[1]

    def _statistics(self, streams: dict[str, Stream]) -> tuple[dict[str, LabelStats], LabelStats]:
        """Return the statistics of the datasets of a mode, and of all of them together."""
        samples = [stream.snapshot() for stream in streams.values()]
        stats = [self._reducer.stats(each, self.nan_policy) for each in samples]
        for part in stats:
            part._check_finite()
        if not stats:
            return {}, self._reducer.reduce([], self._labels.nothing, self.nan_policy)
        pooled = self._reducer.pooled(samples, stats)
        if not len(pooled) and self._labels.mapped and not self._warned:
            self._warned = True
            occurred = dict(self._recorded.unmapped)
            for each in samples:
                occurred.update(some_labels(each.chunks, each.decoder))
            self._labels.warn_nothing(list(occurred))
        return dict(zip(streams, stats, strict=True)), pooled

    def reset(self, *, mode: str | None = None) -> None:
        """Forget the samples recorded since the last end of an epoch; the history stays.

        Args:
            mode: The mode whose samples to forget; None for all.

        Example:
            >>> tracker = LabelTracker(label="y", metric="ce")
            >>> tracker.update([0], [1.0])
            >>> tracker.reset()
            >>> len(tracker.end_epoch(1))
            0
        """
        with self._turns.of("reset"):
            self._recorded.settle()
            self._recorded.decide(self._recorded.dropped(mode))

    def flush(self) -> None:
        """Wait until every sample so far is written, if the tracker records."""
        if self._recorder is not None:
            self._recorded.hand_on()
            self._recorder.flush()
            self._recorded.tell()

    def close(self) -> None:
        """Write what is left and end the recording; then `check_mapping`.

        Recording also ends when the tracker is no longer referenced, and when the process exits in an orderly way.
        The tracker can still be used afterwards; its samples are then not recorded, and it warns.
        """
        if self._recorder is not None:
            self._recorded.hand_on()
            self._recorder.close()
            self._recorded.tell()
        self.check_mapping()

    def check_mapping(self) -> None:
        """Warn, once, about labels of the `label_mapping` that never occurred in the history, if others did.

        Warns:
            LabelTrackWarning: There are such labels. They may have another type than the labels.
        """
        if self._labels.mapped and not self._never_told and len(self.history):
            self._never_told = True
            self._labels.warn_never(stats for _, stats in self.history.items())

    def __enter__(self) -> Self:
        """Return the tracker."""
        return self

    def __exit__(self, *_exception: object) -> None:
        """End the recording; see `close`."""
        self.close()

    def __repr__(self) -> str:
        """Return arguments, and what is recorded."""
        with self._turns.to_read:
            pending = sum(len(stream.buffer) for stream in self._recorded.streams.values())
        return (
            f"LabelTracker(label={self.label!r}, metric={self.metric!r}, bounds={self.bounds!r}): "
            f"{len(self.history)} entries in the history, {pending} samples since"
        )
