"""`LabelTracker`: the training-loop trace."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from labeltrack._buffers import NOT_AS_IT_IS, SampleBuffer
from labeltrack._convert.arrays import QUICK, looks_multi_hot, to_values
from labeltrack._convert.objects import value_of
from labeltrack._core.kernels.cache import check_cache
from labeltrack._core.quantiles import Samples
from labeltrack._core.reduce import reduce_chunks
from labeltrack._filters import Selection, check_step
from labeltrack._labels.codes import (
    BYTES,
    INTEGER,
    STRING,
    UNSIGNED,
    LabelDecoder,
    LabelMapping,
    Vocabulary,
    integer_keys,
    key_dtype,
    label_array,
    label_kind,
    union,
)
from labeltrack._labels.missing import Missing, check_missing, names_of, read_labels, settle, wanted_by
from labeltrack._labels.mistakes import warn_multi_hot, warn_never, warn_nothing_mapped
from labeltrack._nan_policy import NanPolicy, check_nan_policy
from labeltrack._state import plain, with_arrays
from labeltrack._streams import WHOLE, Owed, Stream, Turns, whole_numbers
from labeltrack._version import __version__
from labeltrack.bounds import needed_quantiles, resolve_all
from labeltrack.errors import LabelTrackWarning, missing_key, outside
from labeltrack.history import History
from labeltrack.recording.layout import Description
from labeltrack.recording.options import RecordingOptions
from labeltrack.stats import LabelStats, NoQuantiles, merge_stats

if TYPE_CHECKING:
    import os
    from typing import Self

    from labeltrack.bounds import BoundName
    from labeltrack.recording.recorder import Ending, Recorder

Array = npt.NDArray[Any]

STATE_VERSION = 1
_ARRAY = np.ndarray
_ARGUMENTS = (
    *("label", "metric", "label_mapping", "bounds", "mode", "ds_id", "outputs"),
    *("nan_policy", "missing", "max_buffer_bytes", "record_to"),
)


class LabelTracker:
    """Track a per-sample metric by label while a model trains.

    Batches are copied into preallocated buffers; the statistics are computed when the epoch ends, in one compiled
    pass, exactly. Several threads may call it at once: a batch belongs to the epoch that ends after it. An exception
    from outside, such as KeyboardInterrupt, leaves all of a batch or of the end of an epoch, or nothing. Signal
    handlers may call what reads, `flush` and `close`; other calls within a call raise RuntimeError.

    Args:
        label: Name of the label, such as its key in a batch.
        metric: Name of the metric.
        label_mapping: ``{display name: label value}``; other labels are passed over. None tracks every label.
        bounds: Bands that pictures show: None, ``"std"``, ``"range"``, ``"sem"``, ``"ci95"``, or, around the median,
            ``"iqr"``, ``("quantile", low, high)`` and ``"median"``; or an iterable of these.
        mode: Modes to track: None for all, a name, several, or ``"!name"`` for all but it. Updates in other modes
            are ignored.
        ds_id: Dataset ids to track, likewise.
        outputs: Name of the result; ``f"{metric}_by_{label}"`` by default.
        nan_policy: What NaN samples do: ``"propagate"`` into the statistics of their label, ``"omit"``, or
            ``"raise"`` at the end of the epoch.
        missing: What samples do whose label is missing (None, NaN, NA, null, masked): ``"error"``, ``"skip"`` them, or
            ``"label"``, which gives them a label of their own, called ``"(missing)"``; see `label_stats`. Where nothing
            yet says of what type labels are, a batch without any is taken for one of text.
        max_buffer_bytes: Memory for samples. When it is full, they are folded into running statistics, which
            changes no bit of the result, except that there are no quantiles then.
        record_to: Folder to save every sample in as it comes (or `labeltrack.RecordingOptions`), for
            `labeltrack.open_run`. If there is a recorded run in it, that run goes on. A thread in the background
            writes; training waits for it only when `max_buffer_bytes` of samples are still to be written. When
            writing fails, because the disk is full for example, there is one warning and training goes on.

    Raises:
        TypeError: An argument of the wrong type.
        ValueError: An unknown option, or an argument that contradicts itself; or `record_to` is a folder of something
            else.
        ImportError: To record takes pyarrow and xxhash: the extra ``record``.
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
        label: str,
        metric: str,
        label_mapping: Mapping[str, Any] | None = None,
        bounds: BoundName | Iterable[BoundName] = "std",
        mode: str | Iterable[str] | None = None,
        ds_id: str | Iterable[str] | None = None,
        outputs: str | None = None,
        *,
        nan_policy: NanPolicy = "propagate",
        missing: Missing = "error",
        max_buffer_bytes: int = 256 * 2**20,
        record_to: str | os.PathLike[str] | RecordingOptions | None = None,
    ) -> None:
        self.label = _check_name("label", label)
        self.metric = _check_name("metric", metric)
        resolved = resolve_all(bounds)
        self.bounds = tuple(bound.name for bound in resolved)
        self._fractions = needed_quantiles(resolved)
        # Iterators are read once, here: the arguments are kept for pickling.
        self.mode = list(mode) if isinstance(mode, Iterable) and not isinstance(mode, str) else mode
        self.ds_id = list(ds_id) if isinstance(ds_id, Iterable) and not isinstance(ds_id, str) else ds_id
        self.outputs = f"{self.metric}_by_{self.label}" if outputs is None else _check_name("outputs", outputs)
        self.nan_policy: NanPolicy = check_nan_policy(nan_policy)
        self.max_buffer_bytes = _check_bytes(max_buffer_bytes)
        self._history = History(metric=self.metric, label=self.label, bounds=self.bounds)
        self._mapping = None if label_mapping is None else LabelMapping(label_mapping)
        self.label_mapping = None if self._mapping is None else {n: x for x, n in self._mapping.names.items()}
        self.missing: Missing = check_missing(missing, self._mapping)
        self._modes = Selection(self.mode, "mode")
        self._ds_ids = Selection(self.ds_id, "ds_id")
        self._streams: dict[tuple[str, str], Stream] = {}
        self._owed: Owed | None = None  # what is decided, and an interrupt may have kept from being done
        self._turns = Turns(self)
        self._words = {kind: Vocabulary(kind) for kind in (STRING, BYTES)}
        self._warned = False
        self._multi_hot_told = label_mapping is not None
        self._never_told = False
        self._unmapped: dict[Any, None] = {}  # some labels of folded samples of which none was mapped
        self.record_to = record_to
        self._folding_told = False
        self._told = ""  # the failure of the recorder that there was a warning about
        self._recorder: Recorder | None = None
        if record_to is not None:
            self._recorder = self._record(record_to)

    def _record(self, record_to: str | os.PathLike[str] | RecordingOptions) -> Recorder:
        """Begin to record."""
        from labeltrack.recording.recorder import Recorder  # noqa: PLC0415 (only those who record pay for it)

        recording = record_to if isinstance(record_to, RecordingOptions) else RecordingOptions(record_to)
        description = Description(
            metric=self.metric,
            label=self.label,
            label_mapping=self.label_mapping,
            bounds=self.bounds,
            nan_policy=self.nan_policy,
            missing=self.missing,
            labeltrack=__version__,
        )
        recorder = Recorder(recording, description)
        weakref.finalize(self, recorder.finish)  # when the tracker is not needed any more, or the process ends
        self._tell(recorder)
        return recorder

    @property
    def history(self) -> History:
        """The statistics of the epochs that ended."""
        if self._owed is not None:
            with self._turns.to_read:
                self._settle()
        return self._history

    # -- recording ----------------------------------------------------------------------------------------

    def update(self, labels: Any, values: Any, *, mode: str = "train", ds_id: str = "") -> None:
        """Record the samples of one batch.

        Args:
            labels: ``(N,)`` or ``(N, 1)`` integers, bools, floats or strings, as any array-like.
            values: As many real numbers, as any array-like; or labels and values of one same shape.
            mode: Mode of the batch.
            ds_id: Dataset of the batch.

        Raises:
            TypeError: Labels or values of a type that cannot be used, or other labels than before in this epoch.
            ValueError: Shapes that do not belong together, or missing labels under ``missing="error"``. A batch that
                raises leaves no trace.

        Warns:
            LabelTrackWarning: Labels look multi-hot; see `label_stats`. This is told once.
        """
        # The common batch, one-dimensional and of the dtypes of the batch before, takes two writes to memory that
        # check what they write. Everything else goes the checked road, and so does the first batch of an epoch, whose
        # kind of labels has to be that of other datasets.
        if type(labels) is _ARRAY and type(values) is _ARRAY:
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
                        except NOT_AS_IT_IS:
                            chunk.busy = False
                            if chunk.used != start:
                                raise  # by a signal handler: the rows are in
                    except BaseException:
                        chunk.busy = False
                        raise
        elif self._quickly(labels, values, mode, ds_id):
            return
        self._update(labels, values, mode, ds_id)

    def _quickly(self, labels: Any, values: Any, mode: str, ds_id: str) -> bool:
        """Record a batch of tensors, or a list of strings, if it is like the one before; return whether it was."""
        keys: Any = None
        samples: Any = None
        try:
            buffer = self._streams[mode, ds_id].buffer
            kind = buffer.kind
            if not buffer.open.used:
                return False
            read_values = QUICK[type(values)]
            if kind == INTEGER:
                read_labels = QUICK[type(labels)]
                keys = labels if read_labels is None else read_labels(labels)
            elif kind == STRING and type(labels) is list:
                keys = self._words[STRING].known(labels)
            if keys is None:
                return False
            samples = values if read_values is None else read_values(values)
        except (KeyError, TypeError, ValueError, RuntimeError, BufferError):
            return False  # the first batch, another type or shape, a mode that is no string, memory that is elsewhere
        return buffer.try_append(keys, samples, kind)

    def update_batch(self, batch: Mapping[str, Any], *, mode: str = "train", ds_id: str = "") -> None:
        """Record the samples of a batch that is a mapping: its label and its metric are looked up by their names.

        Args:
            batch: Has the keys that the tracker's `label` and `metric` name.
            mode: Mode of the batch.
            ds_id: Dataset of the batch.

        Raises:
            KeyError: A key is missing; the message lists those that are there.
            TypeError: See `update`.
            ValueError: See `update`.
        """
        for what, key in (("label", self.label), ("metric", self.metric)):
            if key not in batch:
                raise missing_key(key, batch, f"{what} key in the batch:")
        self.update(batch[self.label], batch[self.metric], mode=mode, ds_id=ds_id)

    def _update(self, labels: Any, values: Any, mode: str, ds_id: str) -> None:
        mode, ds_id = _check_name("mode", mode), _check_name("ds_id", ds_id)
        if mode not in self._modes or ds_id not in self._ds_ids:
            return
        with self._turns.of("update"):
            self._settle()
            self._append(labels, values, mode, ds_id)
        if self._recorder is not None:
            self._tell(self._recorder)

    def _append(self, labels: Any, values: Any, mode: str, ds_id: str) -> None:
        """Record a batch of whatever is allowed."""
        samples = to_values(values)
        stream = self._streams.get((mode, ds_id))
        array: Any
        if type(labels) is list and samples.shape == (len(labels),) and set(map(type, labels)) == {str}:
            kind, array = STRING, labels  # coded as it is: making an array of it first would take twice as long
        else:
            array, gone = read_labels(labels)
            if (
                gone is None
                and stream is not None
                and stream.kind == INTEGER
                and stream.buffer.try_append(array, samples, INTEGER)
            ):
                return  # tensors of the dtypes of the batch before
            if not self._multi_hot_told and looks_multi_hot(array, samples):
                self._multi_hot_told = True
                warn_multi_hot(stacklevel=outside())
            expected = stream.kind if stream is not None else None if gone is None else self._expected(mode, array)
            array, samples = settle(array, samples, gone, self.missing, expected)
            if not array.size:
                return  # labels of no sample are of no kind: an empty list would be one of doubles
            kind = label_kind(array)
            kind, array = whole_numbers(kind, array, stream)
        for (of, _), other in self._streams.items():  # those of all datasets of the mode are pooled in the end
            if of == mode and other.kind != kind and not {kind, other.kind} <= WHOLE and not other.empty():
                msg = (
                    f"labels of mode {mode!r} were {other.kind} labels so far in this epoch and are {kind} labels now; "
                    "convert them to one type (this batch was not recorded)"
                )
                raise TypeError(msg)
        keys = self._words[kind].encode(array) if kind in self._words else integer_keys(array, kind)
        if stream is None or (stream.kind != kind and stream.empty()):
            old, stream = stream, self._stream(mode, ds_id, kind, keys.dtype, samples.dtype)
            self._streams = {**self._streams, (mode, ds_id): stream}
            if old is not None:
                old.buffer.retire()
        widened = kind if kind == stream.kind else UNSIGNED if UNSIGNED in (kind, stream.kind) else INTEGER
        # The short road first: strings come here with every batch, and it takes 2.4 us less.
        buffer = stream.buffer
        if widened == buffer.kind and buffer.try_append(keys, samples, widened):
            return
        if not buffer.append(keys, samples, self._budget(), widened):
            self._make_room(stream, widened, keys, samples)

    def _expected(self, mode: str, array: Array) -> str | None:
        """Return the kind of labels of a mode's other datasets; for text, also of other modes or of the mapping."""
        kinds = {of: stream.kind for (of, _), stream in self._streams.items()}
        mapped = label_kind(label_array(self._mapping.labels[:1])) if self._mapping is not None else None
        return kinds.get(mode, next(iter(kinds.values()), mapped) if array.dtype.kind == "U" else None)

    def _stream(
        self,
        mode: str,
        ds_id: str,
        kind: str,
        label_dtype: Any,
        value_dtype: Any,
        history: History | None = None,
        words: dict[str, Vocabulary] | None = None,
    ) -> Stream:
        """Return a stream of no samples, for this history and these words or for those that are to come."""
        check_cache()
        if self._recorder is None:
            return Stream(SampleBuffer(label_dtype, value_dtype, kind))
        expected = max((self._history if history is None else history).steps(mode), default=0) + 1
        lane = self._recorder.lane(mode, ds_id, (words or self._words).get(kind), expected)
        return Stream(self._recorder.buffer(lane, label_dtype, value_dtype, kind), lane)

    def _tell(self, recorder: Recorder) -> None:
        """Warn, once, that recording failed, and about whatever else it came upon."""
        while recorder.notes:
            warnings.warn(recorder.notes.pop(0), LabelTrackWarning, stacklevel=outside())
        if recorder.failure and not self._told:
            self._told = recorder.failure
            warnings.warn(recorder.failure, LabelTrackWarning, stacklevel=outside())

    def _budget(self) -> int:
        return max(0, self.max_buffer_bytes - sum(stream.buffer.nbytes for stream in self._streams.values()))

    def _make_room(self, stream: Stream, kind: str, keys: Array, samples: Array) -> None:
        """Record a batch for which there is no memory left, by folding samples into running statistics."""
        share = self.max_buffer_bytes // max(1, sum(not other.empty() for other in self._streams.values()))
        if stream.buffer.nbytes < share:
            # Others took more than their part while this stream had nothing to record. Without this, an eval
            # after a long train would have to reduce every single batch.
            for other in self._streams.values():
                if other.buffer.nbytes > share:
                    self._fold(other)
                    other.buffer.shrink(share)
            if stream.buffer.append(keys, samples, self._budget(), kind):
                return
        self._fold(stream)
        if stream.buffer.append(keys, samples, self._budget(), kind):
            return
        # A batch larger than all the memory.
        chunks = [(np.ascontiguousarray(keys), np.ascontiguousarray(samples))]
        stats = self._reduce(chunks, kind)
        self._reduced(stream, chunks, stats)
        if stream.folded is not None:
            stats = merge_stats([stream.folded._under(self.nan_policy), stats])
        stream.buffer.fold_in(self._without_quantiles(stats), *chunks[0], kind)

    def _without_quantiles(self, stats: LabelStats) -> LabelStats:
        """Return statistics of samples that are given up; warn, once, if there should have been quantiles."""
        if not self._fractions:
            return stats
        if not self._folding_told:
            self._folding_told = True
            msg = f"no quantiles for this epoch: {NoQuantiles.FOLDED.sentence} (it is {self.max_buffer_bytes:,})"
            warnings.warn(msg, LabelTrackWarning, stacklevel=outside())
        return stats._without_quantiles(NoQuantiles.FOLDED)

    def _fold(self, stream: Stream) -> None:
        stream.buffer.seal()
        if len(stream.buffer):
            stats = self._without_quantiles(self._stats(stream, quantiles=False))
            if not len(stats):
                self._unmapped.update(dict.fromkeys(self._occurred([stream])))
            stream.buffer.hand_on()
            stream.buffer.clear(stats)

    def _settle(self) -> None:
        """Do what was decided and is not done, because an interrupt came in between; all of it may be done twice."""
        owed = self._owed
        if owed is None:
            return
        if owed.entry is not None:
            self._history.enter(owed.entry)
        for stream in owed.streams:
            stream.buffer.hand_on(asked=owed.entry is None)
        for ending in owed.endings:
            if self._recorder is not None:
                self._recorder.end(ending)
        for stream in owed.streams:
            stream.buffer.clear()
        if owed.entry is not None or owed.loaded is not None:
            self._unmapped = {}
        if owed.loaded is not None:
            self._history, self._words, self._streams = owed.loaded
            for stream in owed.streams:
                stream.buffer.retire()
            for stream in self._streams.values():
                if stream.folded is not None and self._recorder is not None and stream.lane is not None:
                    self._recorder.miss(stream.lane, int(stream.folded._under("propagate").count.sum()))
                stream.buffer.paused = False
        self._owed = None

    def _decide(self, owed: Owed) -> None:
        """Carry out a change that is whole from here on."""
        try:
            self._owed = owed
            self._settle()
        except BaseException:
            self._settle()
            raise

    # -- the end of an epoch ------------------------------------------------------------------------------

    def end_epoch(self, step: int, *, mode: str = "train", replace: bool = False) -> LabelStats:
        """Compute the statistics of the samples recorded in a mode since the last call, and enter them in the history.

        Args:
            step: The epoch or step, an integer that the history does not have yet in that mode.
            mode: The mode that ended.
            replace: Whether this is a step done again, after an interruption, and takes the place of what the history
                has of it.

        Returns:
            Statistics of all dataset ids pooled. Empty, and not entered in the history, if nothing was recorded; with a
            warning, if there are samples of other modes.

        Raises:
            TypeError: `step` is no integer.
            ValueError: The history has that step and it is not to be replaced, or there are NaN under
                ``nan_policy="raise"``. Samples stay recorded in either case.
        """
        step, mode = check_step(step), _check_name("mode", mode)
        with self._turns.of("end_epoch"):
            self._settle()
            of_mode = self._sealed(mode)
            streams = {ds_id: stream for (_, ds_id), stream in of_mode.items() if not stream.empty()}
            stats = {ds_id: self._stats(stream) for ds_id, stream in streams.items()}
            for part in stats.values():
                part._check_finite()
            if not stats:
                self._warn_elsewhere(mode)
                return self._reduce([], INTEGER)
            pooled = self._pooled(list(streams.values()), list(stats.values()))
            if not len(pooled) and self._mapping is not None and not self._warned:
                self._warned = True
                occurred = dict.fromkeys([*self._unmapped, *self._occurred(streams.values())])
                warn_nothing_mapped(self._mapping, list(occurred), stacklevel=2)
            parts = {ds_id: part for ds_id, part in stats.items() if len(part)}
            together = pooled if pooled.quantiles and len(parts) > 1 else None
            entry = self._history.entry(step, parts, mode=mode, replace=replace, pooled=together)
            ends = self._endings({mode: list(streams.values())}, step)
            self._decide(Owed(list(of_mode.values()), entry, ends))
        if self._recorder is not None:
            self._tell(self._recorder)
        return pooled

    def _sealed(self, mode: str | None) -> dict[tuple[str, str], Stream]:
        """Return the streams of a mode, or of all, with no batch of another thread on its way into them."""
        found = {key: stream for key, stream in self._streams.items() if mode is None or key[0] == mode}
        for stream in found.values():
            stream.buffer.seal()
        return found

    def _endings(self, streams: Mapping[str, list[Stream]], step: int | None) -> list[Ending]:
        """Return what the recorder is to be told of samples, by mode, that are in the history now, or dropped."""
        recorder = self._recorder
        if recorder is None:
            return []
        lanes = {mode: [stream.lane for stream in some if stream.lane is not None] for mode, some in streams.items()}
        return [recorder.ending(mode, step, some) for mode, some in lanes.items() if some]

    def _warn_elsewhere(self, mode: str) -> None:
        """Warn if nothing was recorded in the mode that ends, and something in others."""
        counts: dict[str, int] = {}
        for (of, _), stream in self._streams.items():
            if not stream.empty():
                folded = 0 if stream.folded is None else int(stream.folded._under("propagate").count.sum())
                counts[of] = counts.get(of, 0) + len(stream.buffer) + folded
        if counts and mode in self._modes:
            there = ", ".join(f"mode {of!r} has {count:,}" for of, count in counts.items())
            msg = f"no samples were recorded in mode {mode!r} since its last epoch, but {there}: end_epoch(…, mode=…)?"
            warnings.warn(msg, LabelTrackWarning, stacklevel=outside())

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
            self._settle()
            self._decide(self._dropped(mode))

    def _dropped(self, mode: str | None) -> Owed:
        """Return what it takes to forget the samples of a mode, or of all."""
        streams = self._sealed(mode)
        filled: dict[str, list[Stream]] = {}
        for (of, _), stream in streams.items():
            if not stream.empty():
                filled.setdefault(of, []).append(stream)
        return Owed(list(streams.values()), endings=self._endings(filled, None))

    def flush(self) -> None:
        """Wait until every sample so far that is to be recorded is written; without `record_to`, do nothing."""
        if self._recorder is not None:
            self._hand_on()
            self._recorder.flush()
            self._tell(self._recorder)

    def close(self) -> None:
        """Write what is still to be recorded, and end the recording; say which labels of the mapping never occurred.

        The former also happens when the tracker is not needed any more, and when the process ends in an orderly way.
        Statistics can go on; what comes afterwards is not recorded, which a warning says.
        """
        if self._recorder is not None:
            self._hand_on()
            self._recorder.close()
            self._tell(self._recorder)
        self._tell_never()

    def _tell_never(self) -> None:
        """Say, once, which labels of the mapping never occurred."""
        if self._mapping is not None and not self._never_told:
            self._never_told = True
            warn_never(self._mapping, (stats for _, stats in self.history.items()), stacklevel=outside())

    def _hand_on(self) -> None:
        with self._turns.to_read:
            self._settle()
            for stream in self._streams.values():
                stream.buffer.hand_on()

    def __enter__(self) -> Self:
        """Return the tracker."""
        return self

    def __exit__(self, *_exception: object) -> None:
        """End the recording; see `close`."""
        self.close()

    def _pooled(self, streams: list[Stream], stats: list[LabelStats]) -> LabelStats:
        """Return the statistics of several streams together."""
        if len(stats) == 1:
            return stats[0]
        pooled = merge_stats(stats)
        if not self._fractions or any(stream.folded is not None for stream in streams):
            return pooled
        filled = [(stream, part.labels) for stream, part in zip(streams, stats, strict=True) if len(part)]
        slots = union([labels for _, labels in filled])[1] if filled else []
        samples = [
            Samples(stream.buffer.filled(), self._space(stream.kind).keys(labels), places)
            for (stream, labels), places in zip(filled, slots, strict=True)
        ]
        return pooled._with_quantiles(samples, self._fractions)

    def _stats(self, stream: Stream, *, quantiles: bool = True) -> LabelStats:
        """Return the statistics of a stream so far."""
        before = None if stream.folded is None else stream.folded._under(self.nan_policy)
        if not len(stream.buffer) and before is not None:
            return before
        chunks = stream.buffer.filled()
        fresh = self._reduce(chunks, stream.kind)
        self._reduced(stream, chunks, fresh)
        if before is not None:
            return merge_stats([before, fresh])
        if not quantiles or not self._fractions:
            return fresh
        keys = self._space(stream.kind).keys(fresh.labels)
        return fresh._with_quantiles([Samples(chunks, keys, np.arange(len(fresh)))], self._fractions)

    def _space(self, kind: str) -> LabelDecoder:
        """Return the decoder of the keys of a kind of labels."""
        return self._words[kind].decoder(kind) if kind in self._words else LabelDecoder(kind)

    def _reduce(self, chunks: list[tuple[Array, Array]], kind: str) -> LabelStats:
        """Return the statistics of samples."""
        space = self._space(kind)
        wanted = None if self._mapping is None else space.encode(wanted_by(self._mapping, self.missing))
        labels, accumulator = reduce_chunks(chunks, space, wanted=wanted)
        names = names_of(self._mapping, self.missing)
        return LabelStats(labels, accumulator, names=names, nan_policy=self.nan_policy)

    def _reduced(self, stream: Stream, chunks: list[tuple[Array, Array]], stats: LabelStats) -> None:
        """Do nothing; for subclasses that want to see samples before they are given up.

        Args:
            stream: Where they were recorded.
            chunks: ``(N,)`` keys and ``(N,)`` values.
            stats: Their statistics.
        """

    def _occurred(self, streams: Iterable[Stream]) -> list[Any]:
        """Return some of the labels that the streams hold, whether mapped or not."""
        found: dict[Any, None] = {}
        for stream in streams:
            space = self._space(stream.kind)
            for keys, _ in stream.buffer.filled()[:1]:
                some = np.unique(keys[:100_000]).astype(np.int64)
                found.update(dict.fromkeys(space.decode(some).tolist()))
        return list(found)

    # -- state --------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return history and the samples of the running epoch as built-in Python values; arrays as bytes.

        ``torch.load`` takes them by default, with ``weights_only=True``. The arguments of the tracker are not part of
        it: load it into a tracker made with the same ones.
        """
        with self._turns.to_read:
            self._settle()
            streams = []
            for (mode, ds_id), stream in self._streams.items():
                filled = stream.buffer.filled()
                streams.append(
                    {
                        "mode": mode,
                        "ds_id": ds_id,
                        "kind": stream.kind,
                        "labels": [keys for keys, _ in filled],
                        "values": [values for _, values in filled],
                        "folded": None if stream.folded is None else stream.folded._state(),
                    }
                )
            state: dict[str, Any] = plain(
                {
                    "version": STATE_VERSION,
                    "label": self.label,
                    "metric": self.metric,
                    "history": self._history.state_dict(),
                    "words": {kind: vocabulary.words for kind, vocabulary in self._words.items()},
                    "streams": streams,
                }
            )
        return state

    def load_state_dict(self, state: Any) -> None:
        """Go on from a `state_dict`; what this tracker has recorded is replaced.

        Args:
            state: From a tracker of the same label and metric.

        Raises:
            TypeError: It is no state of a tracker.
            ValueError: It is of another label or metric, or of a later version.
        """
        if not isinstance(state, Mapping) or "version" not in state:
            msg = "expected the state_dict() of a LabelTracker"
            raise TypeError(msg)
        if state["version"] != STATE_VERSION:
            msg = f"state of version {state['version']} cannot be read, expected {STATE_VERSION}; update labeltrack"
            raise ValueError(msg)
        for name in ("label", "metric"):
            if state[name] != getattr(self, name):
                msg = f"state of {name} {state[name]!r} cannot be loaded into a tracker of {getattr(self, name)!r}"
                raise ValueError(msg)
        history = History()
        history.load_state_dict(state["history"])
        words = {kind: Vocabulary(kind, with_arrays(state["words"][kind])) for kind in self._words}
        entries = [
            (
                entry["mode"],
                entry["ds_id"],
                entry["kind"],
                list(zip(with_arrays(entry["labels"]), with_arrays(entry["values"]), strict=True)),
                None if entry["folded"] is None else LabelStats._from_state(entry["folded"]),
            )
            for entry in state["streams"]
        ]
        with self._turns.of("load_state_dict"):
            self._settle()
            dropped = self._dropped(None)
            streams: dict[tuple[str, str], Stream] = {}
            for mode, ds_id, kind, chunks, folded in entries:
                first = chunks[0] if chunks else (np.empty(0, np.uint8), np.empty(0, np.float32))
                dtypes = key_dtype(kind, first[0].dtype), first[1].dtype
                stream = streams[mode, ds_id] = self._stream(mode, ds_id, kind, *dtypes, history, words)
                stream.buffer.paused = True  # none of it is recorded before all of it is there
                stream.buffer.clear(folded)
                for keys, values in chunks:
                    stream.buffer.append(keys.astype(key_dtype(kind, keys.dtype), copy=False), values)
            self._decide(replace(dropped, loaded=(history, words, streams)))

    def __getstate__(self) -> dict[str, Any]:
        """Return arguments and state, for pickle."""
        arguments = {name: getattr(self, name) for name in _ARGUMENTS}
        return {"arguments": arguments, "state": self.state_dict(), "warned": self._warned}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore from pickle."""
        try:
            self.__init__(**state["arguments"])  # type: ignore[misc]
        except (OSError, RuntimeError, ImportError) as error:  # of the recorder: the original may be recording
            self.__init__(**state["arguments"] | {"record_to": None})  # type: ignore[misc]
            warnings.warn(f"this copy of a tracker does not record: {error}", LabelTrackWarning, stacklevel=outside())
        self.load_state_dict(state["state"])
        self._warned = state["warned"]

    def __repr__(self) -> str:
        """Return arguments, and what is recorded."""
        with self._turns.to_read:
            pending = sum(len(stream.buffer) for stream in self._streams.values())
        return (
            f"LabelTracker(label={self.label!r}, metric={self.metric!r}, bounds={self.bounds!r}): "
            f"{len(self.history)} entries in the history, {pending} samples since"
        )


def _check_name(what: str, name: Any) -> str:
    """Return a name as a plain string, or raise TypeError if it is none."""
    if not isinstance(name, str):
        msg = f"{what} must be a string, got {type(name).__name__} {name!r}"
        raise TypeError(msg)
    return str(value_of(name))


def _check_bytes(number: Any) -> int:
    """Return a positive integer, or raise ValueError."""
    if isinstance(number, bool) or not isinstance(number, (int, np.integer)) or number < 1:
        msg = f"max_buffer_bytes must be a positive integer, got {number!r}"
        raise ValueError(msg)
    return int(number)
