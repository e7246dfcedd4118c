"""The state of a tracker: saved as built-in values alone, restored, and merged with that of others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from labeltrack._labels.codes import key_dtype
from labeltrack._labels.tuples import vocabularies
from labeltrack._state import plain, with_arrays
from labeltrack._tracking.merging import combine, folded, gather, missed
from labeltrack._tracking.recorded import Recorded
from labeltrack._tracking.streams import Loaded, Owed
from labeltrack.errors import warn
from labeltrack.history import History
from labeltrack.stats import LabelStats

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

    from labeltrack._labels.codes import Vocabulary
    from labeltrack._tracking.intake import Intake
    from labeltrack._tracking.reducing import Reducer
    from labeltrack._tracking.streams import Key, Stream
    from labeltrack._tracking.turns import Turns

Label = str | tuple[str, ...]
STATE_VERSION = 1
_ARGUMENTS = (
    *("label", "metric", "label_mapping", "bounds", "mode", "ds_id", "outputs"),
    *("nan_policy", "missing", "max_buffer_bytes", "record_to", "keep_order", "ignore_label"),
)
"""Arguments of `labeltrack.LabelTracker`, which a pickle holds."""
ALIKE = ("label", "metric", "label_mapping", "nan_policy", "missing", "ignore_label")
"""Arguments that trackers have to share to be merged."""


class Stateful:
    """The part of `labeltrack.LabelTracker` that saves, restores and merges what is recorded."""

    label: str | tuple[str, ...]
    metric: str
    _recorded: Recorded
    _reducer: Reducer
    _intake: Intake
    _turns: Turns
    _warned: bool  # that no label of the mapping occurred

    def state_dict(self, *, mode: str | None = None, history: bool = True, samples: bool = True) -> dict[str, Any]:
        """Return history and the samples of the running epoch as built-in Python values; arrays as bytes.

        ``torch.load`` reads them with its default ``weights_only=True``. The tracker's arguments are not included: load
        the state into a tracker made with the same ones, or add it to one with `merge_state`.

        Args:
            mode: The mode whose running epoch to return; None for all.
            history: Whether to return the history.
            samples: Whether to return the samples. False returns their exact sums instead, which take 72 bytes per
                integer label: the statistics are the same to the last bit, but there are no quantiles.

        Example:
            >>> import labeltrack as lt
            >>> trained, tracker = (lt.LabelTracker(label="y", metric="ce") for _ in range(2))
            >>> trained.update([0, 1, 1], [0.5, 1.0, 3.0])
            >>> tracker.merge_state([trained.state_dict(samples=False)])
            >>> tracker.compute().mean
            array([0.5, 2. ])
        """
        with self._turns.to_read:
            self._recorded.settle()
            reducer = None if samples else self._reducer
            return write_state(
                self._recorded, self.label, self.metric, mode, reducer, warned=self._warned, history=history
            )

    def load_state_dict(self, state: Any) -> None:
        """Continue from a `state_dict`; what this tracker has recorded is replaced.

        Args:
            state: From a tracker of the same label and metric.

        Raises:
            TypeError: It is not the state of a tracker.
            ValueError: It is of another label or metric, or of a later version.
        """
        saved = self._read(state)
        with self._turns.of("load_state_dict"):
            self._recorded.settle()
            dropped = self._recorded.dropped(None)
            self._recorded.decide(replace(dropped, loaded=load(saved, self._recorded)))
            self._warned = saved.warned

    def merge_state(self, trackers: Iterable[Self | Mapping[str, Any]]) -> None:
        """Add what other trackers have recorded, such as those of other processes: histories and running epochs.

        The result is bit for bit what a single tracker would have of all samples. Steps that several trackers have in
        the same mode and dataset are merged, as parts of one training. Samples of running epochs are copied as long as
        `max_buffer_bytes` allows, and folded beyond it. Merged steps have no quantiles, which cannot be merged. Every
        call adds everything, so merge the same samples only once.

        A tracker that records does not record the samples of others. If nobody else does, they are missing in the
        recorded run, and it warns.

        Args:
            trackers: Trackers of the same label, metric, `label_mapping`, `nan_policy`, `missing` and `ignore_label`,
                or what their `state_dict` returns; not changed. They are taken from an iterator one by one.

        Raises:
            TypeError: Something is neither a tracker nor a state, or labels of a mode are of different types.
            ValueError: A tracker differs in one of these arguments. Nothing is merged in either case.

        Example:
            >>> import labeltrack as lt
            >>> first, second = (lt.LabelTracker(label="y", metric="ce") for _ in range(2))
            >>> first.update([0, 1], [1.0, 2.0])
            >>> second.update([1, 1], [4.0, 6.0])
            >>> first.merge_state([second])
            >>> first.end_epoch(1).mean
            array([1., 4.])
        """
        given: Any = trackers
        if not isinstance(given, Iterable):
            msg = f"expected trackers to merge, such as [tracker], got {type(given).__name__}"
            raise TypeError(msg)
        recorded = (self._of(other, number) for number, other in enumerate(given))
        parts = gather(recorded, self._reducer, self._intake.budget(), keep_order=self._recorded.keep_order)
        with self._turns.of("merge_state"):
            self._recorded.settle()
            self._recorded.decide(combine(self._recorded, parts, self._reducer, self._intake))
        self._recorded.tell()

    def _read(self, state: Any) -> Saved:
        """Return what a state says, checked."""
        try:
            return read_state(state, self.label, self.metric, self._recorded.names)
        except (KeyError, IndexError, AttributeError) as error:
            msg = f"expected the state_dict() of a LabelTracker, but it cannot be read: {type(error).__name__} {error}"
            raise TypeError(msg) from error

    def _of(self, other: Any, number: int) -> Recorded:
        """Return what a tracker to merge, or a state, has recorded."""
        own = self._recorded
        if isinstance(other, Mapping):
            saved = self._read(other)
            recorded = Recorded(History(), None, keep_order=own.keep_order, names=own.names)
            recorded.of_state = True
            recorded.decide(Owed([], loaded=load(saved, recorded)))
            return recorded
        if not isinstance(other, Stateful):
            msg = f"expected trackers to merge, or their states, got {type(other).__name__} (number {number})"
            raise TypeError(msg)
        for name in ALIKE:
            mine, its = getattr(self, name), getattr(other, name)
            if mine != its:
                msg = f"cannot merge tracker number {number}: its {name} is {its!r}, and {mine!r} here"
                raise ValueError(msg)
        return other._recorded  # noqa: SLF001 (of the same class)

    def __getstate__(self) -> dict[str, Any]:
        """Return the arguments and the `state_dict`, for pickle."""
        return {"arguments": {name: getattr(self, name) for name in _ARGUMENTS}, "state": self.state_dict()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore from pickle."""
        try:
            self.__init__(**state["arguments"])  # type: ignore[misc]
        except (OSError, RuntimeError, ImportError) as error:  # of the recorder: the original may be recording
            self.__init__(**state["arguments"] | {"record_to": None})  # type: ignore[misc]
            warn(f"this copy of a tracker does not record: {error}")
        self.load_state_dict(state["state"])


@dataclass(frozen=True)
class SavedStream:
    """A stream as it was saved."""

    key: Key
    kind: str
    began: int
    chunks: list[tuple[Any, Any]]
    merged: list[tuple[Any, Any]]
    folded: LabelStats | None
    appeared: list[Any]
    missed: int | None  # None in states of early versions


@dataclass(frozen=True)
class Saved:
    """A state that was read and checked."""

    history: History
    words: dict[str, Vocabulary]
    streams: list[SavedStream]
    order: list[Any]
    warned: bool


def write_state(
    recorded: Recorded,
    label: Label,
    metric: str,
    mode: str | None,
    reducer: Reducer | None,
    *,
    warned: bool,
    history: bool,
) -> dict[str, Any]:
    """Return the state of what is recorded; with a reducer, sums instead of samples."""
    streams = []
    for (of, ds_id), stream in recorded.streams.items():
        if mode not in (None, of):
            continue
        entry: dict[str, Any] = {
            "mode": of,
            "ds_id": ds_id,
            "kind": stream.kind,
            "began": stream.began,
            "missed": missed(stream),
        }
        if reducer is None:
            merged = stream.buffer.merged
            filled = stream.buffer.filled()
            filled = filled[: len(filled) - len(merged)]
            entry["labels"], entry["values"] = [keys for keys, _ in filled], [values for _, values in filled]
            entry["merged"] = [list(rows) for rows in merged]
            entry["folded"], entry["appeared"] = stream.folded, list(stream.appeared)
        elif stream.empty():
            continue
        else:
            entry |= {"labels": [], "values": [], "merged": []}
            entry["folded"], entry["appeared"] = folded(stream, reducer, keep_order=recorded.keep_order)
        entry["folded"] = None if entry["folded"] is None else entry["folded"]._state()
        streams.append(entry)
    past = recorded.history
    if not history:
        past = History(metric=past.metric, label=past.label, bounds=past.bounds)
    state: dict[str, Any] = plain(
        {
            "version": STATE_VERSION,
            "label": label,
            "metric": metric,
            "history": past.state_dict(),
            "words": {kind: words.words for kind, words in recorded.words.items() if reducer is None},
            "order": list(recorded.order) if recorded.keep_order and history else None,
            "streams": streams,
            "warned": warned,
        }
    )
    return state


def read_state(state: Any, label: Label, metric: str, names: Sequence[str] | None) -> Saved:
    """Return what a state says, checked; `names` are those of several labels.

    Raises:
        TypeError: It is not the state of a tracker.
        ValueError: It is of another label or metric, or of a later version.
    """
    if not isinstance(state, Mapping) or "version" not in state:
        msg = "expected the state_dict() of a LabelTracker"
        raise TypeError(msg)
    if state["version"] != STATE_VERSION:
        msg = f"state of version {state['version']} cannot be read, expected {STATE_VERSION}; update labeltrack"
        raise ValueError(msg)
    for what, own in (("label", label), ("metric", metric)):
        if state[what] != own:
            msg = f"state of {what} {state[what]!r} cannot be loaded into a tracker of {own!r}"
            raise ValueError(msg)
    history = History()
    history.load_state_dict(state["history"])
    streams = [
        SavedStream(
            (entry["mode"], entry["ds_id"]),
            entry["kind"],
            entry["began"],
            list(zip(with_arrays(entry["labels"]), with_arrays(entry["values"]), strict=True)),
            [tuple(with_arrays(chunk)) for chunk in entry["merged"]],
            None if entry["folded"] is None else LabelStats._from_state(entry["folded"]),
            with_arrays(entry["appeared"]),
            entry.get("missed"),
        )
        for entry in state["streams"]
    ]
    words = vocabularies(names, with_arrays(state["words"]))
    # Where the order was not kept, labels so far come in that of the labels.
    order = list(history.names()) if state["order"] is None else with_arrays(state["order"])
    return Saved(history, words, streams, order, warned=state["warned"])


def load(saved: Saved, recorded: Recorded) -> Loaded:
    """Return what is to replace everything that is recorded; nothing is changed yet."""
    streams: dict[Key, Stream] = {}
    for entry in saved.streams:
        first = entry.chunks[0] if entry.chunks else (np.empty(0, np.uint8), np.empty(0, np.float32))
        dtypes = key_dtype(entry.kind, first[0].dtype), first[1].dtype
        stream = streams[entry.key] = recorded.new_stream(entry.key, entry.kind, dtypes, saved.history, saved.words)
        stream.began, stream.appeared = entry.began, dict.fromkeys(entry.appeared)
        stream.buffer.paused = True  # nothing is recorded until everything is there
        for keys, values in entry.chunks:
            stream.buffer.append(keys.astype(key_dtype(entry.kind, keys.dtype), copy=False), values)
        stream.buffer.merge_in(tuple(entry.merged), entry.folded, entry.kind)
        if recorded.of_state:
            stream.missed = stream.count() if entry.missed is None else entry.missed
        else:
            stream.missed = stream.count() - sum(keys.shape[0] for keys, _ in entry.chunks)
    return Loaded(saved.history, saved.words, streams, saved.order)
