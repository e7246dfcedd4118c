"""`LabelTracker`: the training-loop trace."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from labeltrack._buffers import REFUSED
from labeltrack._convert.arrays import TENSORS
from labeltrack._labels.codes import INTEGER
from labeltrack._tracking.base import Tracking, check_name

if TYPE_CHECKING:
    from labeltrack._labels.missing import Missing
    from labeltrack._nan_policy import NanPolicy
    from labeltrack._tracking.sinks import Sink
    from labeltrack.bounds import BoundName
    from labeltrack.history import History
    from labeltrack.recording.description import OnDuplicate
    from labeltrack.recording.options import RecordingOptions
    from labeltrack.stats import LabelStats

_ARRAY = np.ndarray


class LabelTracker(Tracking):
    """Track a per-sample metric by label while a model trains.

    `update` copies batches into preallocated buffers; `end_epoch` computes exact statistics of them in one compiled
    pass. Both may be called by several threads: a batch belongs to the epoch that ends after it. An exception at any
    point, such as KeyboardInterrupt, leaves a batch or the end of an epoch complete or without effect. Signal handlers
    may call methods that only read, `flush` and `close`; others raise RuntimeError if the handler interrupted a call,
    and so do these while tensors on a device, or batches of `update_later`, are still to be read.

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
            samples are still to be written. If writing fails, for example because the disk is full, training continues
            after one warning.
        keep_order: Whether to keep the order in which labels first appear, for `labels_in_order`. It takes time if
            there are many labels.
        ignore_label: A label, or several, such as -100 or ``[255, None]``, whose samples are ignored, with
            any value; they are not recorded either. None or NaN among several stands for missing labels. With several
            labels per sample, for all of them or, as ``{name of the label: …}``, for some.
        on_duplicate: What to do with samples whose id, see `update`, occurred before in the same epoch, mode and
            dataset: None counts only the first sample of each id, in order of arrival, and warns once; ``"first"``
            does so without a warning; ``"count"`` counts all; ``"error"`` raises at the end of the epoch. The ids of
            samples that are folded are kept, 8 bytes each, beside `max_buffer_bytes`, except under ``"count"``.
        sinks: Callables that get the result of every epoch as it ends, a `labeltrack.EpochResult`, such as those of
            `labeltrack.integrations.loggers`. One that fails warns once and never stops training. They are not part of
            states and copies; the attribute `sinks` may be set again.

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
        on_duplicate: OnDuplicate | None = None,
        sinks: Iterable[Sink] = (),
    ) -> None:
        self.metric = check_name("metric", metric)
        self._begin(locals(), (self.metric,))
        self.outputs = self._output(self.metric) if outputs is None else check_name("outputs", outputs)

    @property
    def history(self) -> History:
        """The statistics of the epochs that ended."""
        return self._history(0)

    # -- recording ----------------------------------------------------------------------------------------

    def update(
        self, labels: Any, values: Any, *, mode: str = "train", ds_id: str = "", where: Any = None, ids: Any = None
    ) -> None:
        """Record the samples of one batch.

        Tensors on a device are copied there and read later, without waiting for the device: a mistake in what they
        contain is an error of a later call, which says which batch it was, and records its own.

        Args:
            labels: ``(N,)`` or ``(N, 1)`` integers, bools, floats or strings, as any array-like. A tracker of several
                labels takes a mapping ``{name of the label: labels}``, or a tuple of array-likes.
            values: As many real numbers, as any array-like; or labels and values of one same shape; or labels of as
                many dimensions, some of length 1: see `label_stats`.
            mode: Mode of the batch.
            ds_id: Dataset of the batch.
            where: Bools in the shape of the values, or in one that broadcasts to it: samples where it is False are
                ignored, with any label and value, NaN and missing ones included. None records all samples.
            ids: Integers or strings that identify the samples, such as their places in the dataset: as many as values,
                of the same shape, as any array-like; with every batch of an epoch or with none. Samples whose id
                occurred before in the epoch are duplicates, see `on_duplicate`; recorded runs have an `id` column.

        Raises:
            KeyError: One of several labels is not in the mapping.
            TypeError: Labels, values or ids of an unsupported type, or labels or ids of another type than before in
                this epoch.
            ValueError: Shapes that do not match, missing labels under ``missing="error"``, missing ids, or ids in some
                batches only. A batch that raises is not recorded, unless the error is of an earlier one.

        Warns:
            LabelTrackWarning: Labels look multi-hot; see `label_stats`. There is one such warning.
        """
        # A batch like the one before, one-dimensional and of the same dtypes, takes a write to memory per column, which
        # checks what it writes. All others are checked and converted first, as is the first batch of an epoch: its
        # labels have to be of the same kind as those of other datasets.
        if ids is not None or where is not None or type(values) is not _ARRAY:
            pass
        elif type(labels) is _ARRAY or type(labels) is tuple:
            # `SampleBuffer.try_append`, written out: calling it and asking `QUICK` took 0.3 of 0.75 us.
            try:
                rows = len(values)
                buffer = self._streams[mode, ds_id].buffer
            except (KeyError, TypeError):
                pass  # the first batch, a mode that is no string, values without a length
            else:
                chunk = buffer.open
                start = chunk.used
                end = start + rows
                if start and end <= chunk.limit and not chunk.busy:
                    try:
                        try:  # first, as no line between it and the next is guarded by the other one
                            chunk.busy = True
                            if buffer.kind == INTEGER:
                                chunk.label_view[start:end] = labels
                            else:
                                buffer.raw.write(labels, start - chunk.coded, end - chunk.coded)
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
        tensors = where is None and ids is None and type(values) in TENSORS and type(labels) is type(values)
        if tensors and values.is_cpu and labels.is_cpu:
            try:  # here, as a call for each takes 6 of 42 us after a step of training, which leaves code out of caches
                arrays = labels.numpy(), (values.detach() if values.requires_grad else values).numpy()
            except (RuntimeError, TypeError):  # of a dtype that numpy does not have
                if values.dtype is TENSORS[type(values)]:
                    values = values.detach().float()
            else:
                LabelTracker.update(self, *arrays, mode=mode, ds_id=ds_id)
                return
        if where is None and self._intake.quickly(labels, (values,), mode, ds_id, ids):
            return
        self._update(labels, (values,), mode, ds_id, where, ids)

    def update_later(
        self,
        batch: Any,
        make: Callable[[list[Any]], dict[str, Any]],
        *,
        mode: str = "train",
        ds_id: str = "",
        nbytes: int = 0,
    ) -> None:
        """Keep a batch that `make` turns into samples later: once 64 wait, or before anything reads what is recorded.

        For integrations that have to compute values: of many batches at once, and not between two steps of training,
        where code and data are out of caches, that takes a small part of the time. Like `update`, it is exact, keeps
        the order of batches, and loses nothing to an interrupt. A batch in which there is a mistake is an error of a
        later call, which says which batch it was; all others are recorded, that of this call too. LookupError and
        RuntimeError of `make` count as such mistakes. After other errors all batches still wait, and later calls try
        again, until `reset`. The first batch of an epoch does not wait.

        Args:
            batch: What `make` takes; nothing of it may change from now on.
            make: Gets a list of such batches that came one after the other, and returns the arguments of `update` of
                all of their samples: ``{"labels": …, "values": …, "where": …, "ids": …}``, the last two if there are
                any; on the CPU. Batches go into one list if their `make` is equal, and one by one after a mistake.
            mode: Mode of the batch.
            ds_id: Dataset of the batch.
            nbytes: Memory that the batch keeps: those that wait are also recorded when they keep a megabyte.

        Raises:
            TypeError: A mistake in a batch that waited, see `update`; or `mode` or `ds_id` is no string.
            ValueError: Likewise.

        Example:
            >>> tracker = LabelTracker(label="y", metric="error")
            >>> def make(batches):
            ...     labels, answers, targets = map(np.concatenate, zip(*batches))
            ...     return {"labels": labels, "values": abs(answers - targets)}
            >>> for answer in (1.5, 3.0):
            ...     tracker.update_later((np.array([0, 1]), np.array([answer, 2.0]), np.array([1.0, 4.0])), make)
            >>> tracker.compute().mean
            array([1.25, 2.  ])
        """
        waiting = self._recorded.waiting
        if waiting.at_once(batch, make, (mode, ds_id), nbytes):
            return
        mode, ds_id = check_name("mode", mode), check_name("ds_id", ds_id)
        if mode not in self._modes or ds_id not in self._ds_ids:
            return
        with self._lock.of("update_later"):
            self._recorded.complete()
            waiting.later(batch, make, (mode, ds_id), nbytes, self._intake)
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
            ValueError: The history has that step and `replace` is False, there are NaN under ``nan_policy="raise"``,
                or duplicates under ``on_duplicate="error"``. The samples are kept in any case.

        Warns:
            LabelTrackWarning: Nothing was recorded in this mode, but something in others; no sample has a label of
                the `label_mapping`; or there are duplicates, see `on_duplicate`.
        """
        return self._end_epoch(step, mode, replace=replace)[0]

    def compute(self, mode: str = "train") -> LabelStats:
        """Return the statistics of the samples recorded in a mode since the last end of an epoch; they stay recorded.

        Args:
            mode: The mode.

        Returns:
            What `end_epoch` would return now: all dataset ids pooled, with the quantiles that `bounds` need; empty if
            nothing was recorded.

        Raises:
            ValueError: There are NaN under ``nan_policy="raise"``, or duplicates under ``on_duplicate="error"``.

        Warns:
            LabelTrackWarning: No sample has a label of the `label_mapping`, or there are duplicates. Either this or
                `end_epoch` warns, once.

        Example:
            >>> tracker = LabelTracker(label="y", metric="ce")
            >>> tracker.update([0, 1, 1], [0.5, 1.0, 3.0])
            >>> tracker.compute().mean
            array([0.5, 2. ])
        """
        return self._compute(mode)[0]
