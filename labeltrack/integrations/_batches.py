"""What callbacks of PyTorch frameworks share: labels from batches, and no samples that a sampler repeats."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import labeltrack
from labeltrack.integrations._shared import Epochs, Tracker
from labeltrack.integrations.torch import sizes_of, sync

_NO_LOADER: tuple[Any, tuple[int, int, int]] = None, (0, 0, 0)


class Batches:
    """Fills a tracker, or with several metrics a collection, from batches, which its framework hands over."""

    tracker: Tracker

    def __init__(self, label: Any, value: Any, ids: Any, options: dict[str, Any]) -> None:
        name = tuple(label) if isinstance(label, Mapping) else label if isinstance(label, str) else "label"
        if isinstance(value, Mapping):
            self.tracker = labeltrack.TrackerCollection(name, tuple(value), **options)
        else:
            self.tracker = labeltrack.LabelTracker(name, value if isinstance(value, str) else "value", **options)
        self._label, self._value = (dict(of) if isinstance(of, Mapping) else of for of in (label, value))
        self._ids = ids
        self._epochs = Epochs(self.tracker)
        self._passed: dict[tuple[str, str], int] = {}  # samples of the loader, from its begin
        self._skipped: dict[str, int] = {}  # batches, of a loader that continues where a checkpoint was saved
        self._source = _NO_LOADER  # where batches come from, and its sizes: looking them up takes 9 us in cold caches

    def begin(self, mode: str, skipped: int = 0) -> None:
        """Begin to count the samples of loaders, whose first batches may be skipped."""
        self._skipped[mode] = skipped
        self._passed = {key: passed for key, passed in self._passed.items() if key[0] != mode}
        self._source = _NO_LOADER

    def update(self, batch: Any, outputs: Any, loader: Any, mode: str, ds_id: str = "") -> None:
        """Record a batch: what a step got, and returned, which is nothing if skipped. KeyError says what is missing."""
        skipped = outputs is None or (isinstance(outputs, (dict, Mapping)) and not outputs)
        if loader is not self._source[0]:
            self._source = loader, sizes_of(loader, warns=self._ids is None)
        real, size, of_batch = self._source[1]
        if skipped and not size:
            return
        labels = _each(self._label, _found, batch)
        left = n = 0
        if size:
            n = len(next(iter(labels.values())) if isinstance(labels, dict) else labels)
            passed = self._passed.get((mode, ds_id), self._skipped.get(mode, 0) * of_batch)
            self._passed[mode, ds_id] = (passed + n) % size  # a loader may begin again within an epoch
            left = min(max(real - passed, 0), n)
        if skipped:
            return
        values = _each(self._value, _returned, outputs, mode)
        ids = None if self._ids is None else _found(self._ids, batch)
        if left < n:
            labels, values, ids = _first(labels, left), _first(values, left), _first(ids, left)
        self.tracker.update(labels, values, mode=mode, ds_id=ds_id, ids=ids)

    def end(self, step: int, mode: str) -> dict[str, float]:
        """End an epoch on all ranks; return the means to log, which are none if there were no samples."""
        self._source = _NO_LOADER
        sync(self.tracker, mode=mode)
        return self._epochs.end(step, mode)


def _each(keys: Any, get: Callable[..., Any], *where: Any) -> Any:
    """Return what is at a key, or at each one of several."""
    return {name: get(key, *where) for name, key in keys.items()} if isinstance(keys, dict) else get(keys, *where)


def _first(some: Any, n: int) -> Any:
    """Return the first of some items, or of several columns of them."""
    if isinstance(some, dict):
        return {name: column[:n] for name, column in some.items()}
    return None if some is None else some[:n]


def _returned(key: Any, outputs: Any, mode: str) -> Any:
    """Return values from what a step returned."""
    if callable(key):
        return key(outputs)
    if isinstance(outputs, (dict, Mapping)) and key in outputs:
        return outputs[key]
    got = f"keys {sorted(outputs)}" if isinstance(outputs, Mapping) else type(outputs).__name__
    msg = f"the step has to return {{{key!r}: one value per sample, …}} in mode {mode!r}, got {got}"
    raise KeyError(msg)


def _found(key: Any, batch: Any) -> Any:
    """Return what is at a key of a batch, or what a function makes of it."""
    if callable(key):
        return key(batch)
    try:
        return batch[key]
    except (KeyError, IndexError, TypeError) as error:
        there = f"keys {sorted(map(str, batch))}" if isinstance(batch, Mapping) else type(batch).__name__
        msg = f"no {key!r} in the batch, which has {there}; pass a key, a place in a tuple, or a function of the batch"
        raise KeyError(msg) from error
