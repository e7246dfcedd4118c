"""What callbacks of PyTorch frameworks share: labels from batches, and no samples that a sampler repeats."""

from __future__ import annotations

from collections.abc import Mapping, Sized
from typing import TYPE_CHECKING, Any

import torch

import labeltrack
from labeltrack.integrations.loggers import ScalarsSink
from labeltrack.integrations.torch import sync

if TYPE_CHECKING:
    from collections.abc import Callable


class Batches:
    """Fills a tracker from batches, which its framework hands over.

    Args:
        label: Key of the labels in a batch, or a function of a batch; or ``{name: key or function}``.
        value: Key of the values in what a step returns, or a function of that.
        ids: Key of ids in a batch, a function of it, or None.
        options: Arguments of the tracker.

    Attributes:
        tracker: The tracker.
    """

    def __init__(self, label: Any, value: str | Callable[[Any], Any], ids: Any, options: dict[str, Any]) -> None:
        name = tuple(label) if isinstance(label, Mapping) else label if isinstance(label, str) else "label"
        self.tracker = labeltrack.LabelTracker(name, value if isinstance(value, str) else "value", **options)
        self._label, self._value, self._ids = label, value, ids
        self._policy = ScalarsSink(print, summary=True)
        self._left: dict[tuple[str, str], int] = {}  # samples that are no padding; -1 if none is

    def begin(self, mode: str) -> None:
        """Begin to count the samples of an epoch."""
        self._left = {key: left for key, left in self._left.items() if key[0] != mode}

    def update(self, batch: Any, outputs: Any, loader: Any, mode: str, ds_id: str = "") -> None:
        """Record a batch.

        Args:
            batch: What the step got.
            outputs: What it returned; nothing if it was skipped.
            loader: Where the batch comes from.
            mode: Mode of the batch.
            ds_id: Dataset of the batch.

        Raises:
            KeyError: Labels or values are not there; the message says what is.
        """
        if outputs is None or (isinstance(outputs, Mapping) and not outputs):
            return
        values = self._values(outputs, mode)
        many = isinstance(self._label, Mapping)
        labels = {n: _found(batch, key) for n, key in self._label.items()} if many else _found(batch, self._label)
        ids = None if self._ids is None else _found(batch, self._ids)
        left = self._left.setdefault((mode, ds_id), _real(loader))
        if left >= 0:
            self._left[mode, ds_id] = max(left - len(values), 0)
            if left < len(values):
                values = values[:left]
                labels = {name: some[:left] for name, some in labels.items()} if many else labels[:left]
                ids = None if ids is None else ids[:left]
        self.tracker.update(labels, values, mode=mode, ds_id=ds_id, ids=ids)

    def end(self, step: int, mode: str) -> dict[str, float]:
        """End an epoch on all ranks; return the means to log, which are none if there were no samples."""
        tracker = self.tracker
        sync(tracker, mode=mode)
        if not any(of == mode for of, _ in tracker.pending):
            return {}
        stats = tracker.end_epoch(step, mode=mode, replace=True)
        result = labeltrack.EpochResult(step, mode, tracker.metric, tracker.outputs, stats, tracker.history)
        return self._policy.report(result).scalars

    def _values(self, outputs: Any, mode: str) -> Any:
        """Return the values of what a step returned, without their graph."""
        if not isinstance(self._value, str):
            values = self._value(outputs)
        elif isinstance(outputs, Mapping) and self._value in outputs:
            values = outputs[self._value]
        else:
            got = f"keys {sorted(outputs)}" if isinstance(outputs, Mapping) else type(outputs).__name__
            msg = f"the step has to return {{{self._value!r}: one value per sample, …}} in mode {mode!r}, got {got}"
            raise KeyError(msg)
        return values.detach() if isinstance(values, torch.Tensor) else values


def _found(batch: Any, key: Any) -> Any:
    """Return what is at a key of a batch, or what a function makes of it."""
    if callable(key):
        return key(batch)
    try:
        return batch[key]
    except (KeyError, IndexError, TypeError) as error:
        there = f"keys {sorted(map(str, batch))}" if isinstance(batch, Mapping) else type(batch).__name__
        msg = f"no {key!r} in the batch, which has {there}; pass a key, a place in a tuple, or a function of the batch"
        raise KeyError(msg) from error


def _real(loader: Any) -> int:
    """Return how many samples of this rank are no padding; -1 if there is none."""
    sampler = getattr(loader, "sampler", None)
    if isinstance(sampler, torch.utils.data.DistributedSampler) and isinstance(sampler.dataset, Sized):
        return len(range(sampler.rank, len(sampler.dataset), sampler.num_replicas))
    return -1
