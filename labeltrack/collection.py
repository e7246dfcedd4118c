"""`TrackerCollection`: several metrics of the same samples."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from labeltrack._buffers import REFUSED
from labeltrack._labels.codes import INTEGER
from labeltrack._tracking.base import Tracking, check_name
from labeltrack.errors import counted, listing, missing_key

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
_REFUSED = (*REFUSED, IndexError)  # the latter where samples had ids before


class TrackedMetric:
    """One metric of a `TrackerCollection`.

    Attributes:
        metric: Its name.
        outputs: Name of the result, such as ``"ce_by_class"``.
    """

    __slots__ = ("_collection", "_place", "metric", "outputs")

    def __init__(self, collection: TrackerCollection, place: int) -> None:
        self._collection = collection
        self._place = place
        self.metric = collection.metrics[place]
        self.outputs = collection.outputs[self.metric]

    @property
    def label(self) -> str | tuple[str, ...]:
        """Name of the label; of several labels per sample, a tuple of names."""
        return self._collection.label

    @property
    def history(self) -> History:
        """The statistics of the epochs that ended."""
        return self._collection._history(self._place)  # noqa: SLF001 (a part of it)

    def compute(self, mode: str = "train") -> LabelStats:
        """Return the statistics of the running epoch; see `TrackerCollection.compute`."""
        return self._collection.compute(mode)[self.metric]

    def __repr__(self) -> str:
        """Return names, and how much there is."""
        size = counted(len(self.history), "entry")
        return f"TrackedMetric(label={self.label!r}, metric={self.metric!r}): {size} in the history"


class TrackerCollection(Tracking, Mapping[str, TrackedMetric]):
    """Track several per-sample metrics of the same samples by label.

    Labels are converted, encoded and kept once, and a batch is recorded with all its metrics or not at all. Everything
    else is as with `LabelTracker`: the statistics of each metric are bit for bit those of a tracker of its own.

    ``collection["ce"]`` has the `history` of a metric, and its names; the collection is a mapping of its metrics.

    Args:
        label: Name of the label, or of several labels per sample; see `LabelTracker`.
        metrics: Names of the metrics, in the order of results.
        label_mapping: See `LabelTracker`, as for all arguments that are not described here.
        bounds: Bands that figures show, for all metrics.
        mode: Modes to track.
        ds_id: Dataset ids to track.
        outputs: Names of the results of some metrics, as ``{metric: name}``; ``f"{metric}_by_{label}"`` for others.
        nan_policy: What NaN samples do, in each metric by itself: a NaN of one metric leaves the others as they are.
        missing: What to do with samples whose label is missing.
        max_buffer_bytes: Memory for the samples of all metrics together.
        record_to: Folder to save every sample in, with all metrics.
        keep_order: Whether to keep the order in which labels first appear.
        ignore_label: Labels whose samples are ignored.
        on_duplicate: What to do with samples whose id occurred before.
        sinks: Callables that get the result of every epoch as it ends, once for each metric.

    Raises:
        TypeError: An argument of the wrong type.
        ValueError: There are no metrics, one is there twice, or see `LabelTracker`.
        ImportError: Recording needs pyarrow and xxhash: the extra ``record``.
        OSError: The folder of `record_to` cannot be written to.
        RuntimeError: Another process records to it.

    Example:
        >>> import numpy as np
        >>> collection = TrackerCollection("y", metrics=["ce", "correct"])
        >>> loss, hit = np.array([0.5, 1.0, 3.0]), np.array([True, True, False])
        >>> collection.update(np.array([0, 1, 1]), {"ce": loss, "correct": hit})
        >>> collection.end_epoch(1)["correct"].mean
        array([1. , 0.5])
        >>> collection["ce"].history.series(1, "mean")
        (array([1]), array([2.]))
    """

    _metric = "metrics"

    def __init__(
        self,
        label: str | tuple[str, ...],
        metrics: Iterable[str],
        label_mapping: Mapping[str, Any] | Sequence[Any] | None = None,
        bounds: BoundName | Iterable[BoundName] = "std",
        mode: str | Iterable[str] | None = None,
        ds_id: str | Iterable[str] | None = None,
        outputs: Mapping[str, str] | None = None,
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
        self.metrics = _check_metrics(metrics)
        self._begin(locals(), self.metrics)
        self.outputs = {metric: self._output(metric) for metric in self.metrics}
        for metric, name in ({} if outputs is None else outputs).items():
            if metric not in self.outputs:
                raise missing_key(metric, self.metrics, "metric of the collection:")
            self.outputs[metric] = check_name("outputs", name)
        self._tracked = {metric: TrackedMetric(self, place) for place, metric in enumerate(self.metrics)}
        # One C call; of a single name, `itemgetter` gives no tuple.
        self._number = len(self.metrics)
        self._taken = itemgetter(*self.metrics) if self._number > 1 else itemgetter(self.metrics[0], self.metrics[0])

    # -- a mapping of metrics -----------------------------------------------------------------------------

    @property
    def history(self) -> NoReturn:
        """Not here: every metric has a history of its own, ``collection["ce"].history``."""
        msg = f"a TrackerCollection has a history for each metric, such as collection[{self.metrics[0]!r}].history"
        raise AttributeError(msg)

    def __getitem__(self, metric: str) -> TrackedMetric:
        """Return a metric by its name; KeyError names the nearest ones."""
        try:
            return self._tracked[metric]
        except (KeyError, TypeError):
            raise missing_key(metric, self.metrics, "metric of the collection:") from None

    def __iter__(self) -> Iterator[str]:
        """Return an iterator over the names of the metrics."""
        return iter(self.metrics)

    def __len__(self) -> int:
        """Return the number of metrics."""
        return self._number

    def __eq__(self, other: object) -> bool:  # `object.__eq__` would ask another mapping, which compares items
        """Return whether this is the same collection."""
        return self is other

    __hash__ = object.__hash__

    # -- recording ----------------------------------------------------------------------------------------

    def update(
        self,
        labels: Any,
        values: Mapping[str, Any],
        *,
        mode: str = "train",
        ds_id: str = "",
        where: Any = None,
        ids: Any = None,
    ) -> None:
        """Record the samples of one batch.

        Args:
            labels: See `LabelTracker.update`.
            values: ``{name of the metric: values}``, as many values of each metric, all of one shape.
            mode: Mode of the batch.
            ds_id: Dataset of the batch.
            where: Which samples count; see `LabelTracker.update`.
            ids: What identifies the samples; see `LabelTracker.update`.

        Raises:
            KeyError: There is no such metric, or one is missing in the batch; or see `LabelTracker.update`.
            TypeError: `values` is no mapping; or see `LabelTracker.update`.
            ValueError: Metrics differ in shape; or see `LabelTracker.update`. A batch that raises is not recorded.

        Warns:
            LabelTrackWarning: Labels look multi-hot; see `label_stats`. There is one such warning.
        """
        # A batch like the one before, as in `LabelTracker.update`.
        if type(labels) is _ARRAY and type(values) is dict and where is None and ids is None:
            # `SampleBuffer.try_append`, written out, for further columns.
            try:
                rows, columns = len(labels), self._taken(values)
                buffer = self._streams[mode, ds_id].buffer
            except (KeyError, TypeError):
                pass
            else:
                chunk = buffer.wide
                start = chunk.used
                end = start + rows
                if start and end <= chunk.limit and buffer.kind == INTEGER and not chunk.busy:
                    try:
                        try:  # first, as no line between it and the next is guarded by the other one
                            chunk.busy = True
                            chunk.label_view[start:end] = labels
                            if type(columns[0]) is not _ARRAY:  # its memory may not say all, as of a masked array
                                raise TypeError
                            chunk.value_view[start:end] = columns[0]
                            place = 1
                            for view in chunk.more_views:
                                if type(columns[place]) is not _ARRAY:
                                    raise TypeError
                                view[start:end] = columns[place]
                                place += 1
                            if place != len(values):
                                raise ValueError
                            chunk.used = end
                            chunk.busy = False
                            return  # noqa: TRY300 (an `else` would not be guarded)
                        except _REFUSED:
                            chunk.busy = False
                            if chunk.used != start:
                                raise  # by a signal handler: the rows are in
                    except BaseException:
                        chunk.busy = False
                        raise
        try:
            columns = self._taken(values)
        except (KeyError, TypeError, IndexError):
            raise self._not_these(values) from None
        if len(values) != self._number or not isinstance(values, Mapping):
            raise self._not_these(values)
        some = columns if self._number > 1 else columns[:1]
        if where is None and self._intake.quickly(labels, some, mode, ds_id, ids):
            return
        self._update(labels, some, mode, ds_id, where, ids)

    def _not_these(self, values: Any) -> Exception:
        """Return the error for values that are not those of the metrics."""
        if not isinstance(values, Mapping):
            expected = f"{{{', '.join(f'{metric!r}: …' for metric in self.metrics)}}}"
            return TypeError(f"values must be a mapping of metrics, {expected}, got {type(values).__name__}")
        for metric in self.metrics:
            if metric not in values:
                return missing_key(metric, values, "metric in the batch:")
        unknown = [metric for metric in values if metric not in self._tracked]
        return KeyError(
            f"the batch has metrics that the collection does not track: {listing(unknown)}; it tracks "
            f"{listing(self.metrics)} (this batch was not recorded)"
        )

    # -- the end of an epoch ------------------------------------------------------------------------------

    def end_epoch(self, step: int, *, mode: str = "train", replace: bool = False) -> dict[str, LabelStats]:
        """Compute the statistics of the samples recorded in a mode since the last call, and add them to the histories.

        Args:
            step: The epoch or step, an integer that the histories do not have yet in that mode.
            mode: The mode that ended.
            replace: Whether to replace this step in the histories, for an epoch that is repeated after an interruption.

        Returns:
            ``{metric: statistics}`` of all dataset ids pooled; see `LabelTracker.end_epoch`.

        Raises:
            TypeError: `step` is not an integer.
            ValueError: See `LabelTracker.end_epoch`. No history is changed.

        Warns:
            LabelTrackWarning: See `LabelTracker.end_epoch`.
        """
        return dict(zip(self.metrics, self._end_epoch(step, mode, replace=replace), strict=True))

    def compute(self, mode: str = "train") -> dict[str, LabelStats]:
        """Return the statistics of the samples recorded in a mode since the last end of an epoch; they stay recorded.

        Args:
            mode: The mode.

        Returns:
            What `end_epoch` would return now.

        Raises:
            ValueError: See `LabelTracker.compute`.

        Warns:
            LabelTrackWarning: See `LabelTracker.compute`.

        Example:
            >>> collection = TrackerCollection("y", ["ce", "hit"])
            >>> collection.update([0, 1, 1], {"ce": [0.5, 1.0, 3.0], "hit": [1, 1, 0]})
            >>> collection.compute()["hit"].mean
            array([1. , 0.5])
        """
        return dict(zip(self.metrics, self._compute(mode), strict=True))


def _check_metrics(metrics: Any) -> tuple[str, ...]:
    """Return the names of metrics, or raise."""
    if isinstance(metrics, (str, bytes)):
        msg = f"metrics must be names, such as [{metrics!r}], got {metrics!r}"
        raise TypeError(msg)
    names = tuple(check_name("metric", name) for name in metrics)
    if not names or len(set(names)) < len(names):
        msg = f"metrics must be one name or several different ones, got {listing(names)}"
        raise ValueError(msg)
    return names
