"""The state of a tracker: saved as built-in values alone, restored, and merged with that of others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from labeltrack._labels.codes import key_dtype
from labeltrack._labels.combination_codes import vocabularies
from labeltrack._serialize import plain, with_arrays
from labeltrack._tracking.changes import Recorded
from labeltrack._tracking.ids import Duplicates, Seen
from labeltrack._tracking.merging import column_dtypes, combine, folded, gather, missed
from labeltrack._tracking.streams import Folded, Loaded, Owed, Stream
from labeltrack.errors import warn
from labeltrack.history import History
from labeltrack.stats import LabelStats

if TYPE_CHECKING:
    from labeltrack._buffers import Placed, Rows
    from labeltrack._tracking.intake import Intake
    from labeltrack._tracking.lock import ChangeLock
    from labeltrack._tracking.reducing import Reducer

STATE_VERSION = 4
_ARGUMENTS = (
    *("label", "label_mapping", "bounds", "mode", "ds_id", "outputs", "nan_policy", "missing", "max_buffer_bytes"),
    *("record_to", "keep_order", "ignore_label", "on_duplicate"),
)
"""Arguments of a tracker, beside its metrics, that a pickle holds."""
_ALIKE = ("label", "label_mapping", "nan_policy", "missing", "ignore_label", "on_duplicate")
"""Arguments, beside its metrics, that trackers have to share to be merged."""


def _comparable(option: Any) -> Any:
    """Return an argument with another object in place of NaN, which is not equal to itself once it was pickled."""
    if isinstance(option, Mapping):
        return {name: _comparable(value) for name, value in option.items()}
    if isinstance(option, tuple):
        return tuple(map(_comparable, option))
    return Ellipsis if option != option else option  # noqa: PLR0124


class Stateful:
    """The part of a tracker that saves, restores and merges what is recorded."""

    _metric = "metric"
    label: str | tuple[str, ...]
    _recorded: Recorded
    _reducer: Reducer
    _intake: Intake
    _lock: ChangeLock
    _warned: bool  # that no label of the mapping occurred

    def state_dict(self, *, mode: str | None = None, history: bool = True, samples: bool = True) -> dict[str, Any]:
        """Return history and the samples of the running epoch as built-in Python values; arrays as bytes.

        ``torch.load`` reads them with its default ``weights_only=True``. The tracker's arguments are not included: load
        the state into a tracker made with the same ones, or add it to one with `merge_state`.

        Args:
            mode: The mode whose running epoch to return; None for all.
            history: Whether to return the history.
            samples: Whether to return the samples. False returns their exact sums instead, which take 72 bytes per
                integer label: the statistics are the same to the last bit, but there are no quantiles. Samples with ids
                are returned all the same unless the tracker has ``on_duplicate="count"``: merging has to see which
                ones are duplicates.

        Example:
            >>> import labeltrack as lt
            >>> trained, tracker = (lt.LabelTracker(label="y", metric="ce") for _ in range(2))
            >>> trained.update([0, 1, 1], [0.5, 1.0, 3.0])
            >>> tracker.merge_state([trained.state_dict(samples=False)])
            >>> tracker.compute().mean
            array([0.5, 2. ])
        """
        with self._lock.to_read:
            self._intake.arrive("state_dict")
            return self._state(mode, history=history, reducer=None if samples else self._reducer)

    def load_state_dict(self, state: Any) -> None:
        """Continue from a `state_dict`; what this tracker has recorded is replaced.

        Args:
            state: From a tracker of the same label and metric.

        Raises:
            TypeError: It is not the state of a tracker.
            ValueError: It is of another label or metric, or of another version.
        """
        with self._lock.of("load_state_dict"):
            self._recorded.complete()
            dropped = self._recorded.dropped(None)
            loaded = self._loaded(state, self._recorded)
            self._recorded.decide(replace(dropped, loaded=loaded))
            self._warned = loaded.warned

    def merge_state(self, trackers: Iterable[Self | Mapping[str, Any]], *, place: int = 0) -> None:
        """Add what other trackers have recorded, such as those of other processes: histories and running epochs.

        The result is bit for bit what a single tracker would have of all samples. Steps that several trackers have in
        the same mode and dataset are merged, as parts of one training. Samples of running epochs are copied as long as
        `max_buffer_bytes` allows, and folded beyond it. Merged steps have no quantiles, which cannot be merged. Every
        call adds everything, so merge the same samples only once. Of samples with ids, each counts once among all
        trackers, see `on_duplicate`: those of this tracker so far before those of the first one given, and so on,
        unless `place` says otherwise. Epochs that ended are sums, in which duplicates are not found: merge before.

        A tracker that records does not record the samples of others. If no other process does, they are missing in the
        recorded run, and it warns.

        Args:
            trackers: Trackers of the same label, metric, `label_mapping`, `nan_policy`, `missing`, `ignore_label` and
                `on_duplicate`, or what their `state_dict` returns; not changed. They are taken from an iterator one by
                one.
            place: How many of these have samples that count before those of this tracker: with ids and the trackers of
                all other ranks, the rank of this one makes all ranks count the same samples.

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
        with self._lock.of("merge_state"):
            self._intake.arrive()
        recorded = (self._of(other, number) for number, other in enumerate(given))
        parts = gather(
            recorded, self._reducer, self._intake.budget(), keep_order=self._recorded.keep_order, place=place
        )
        with self._lock.of("merge_state"):
            self._intake.arrive()
            self._recorded.decide(combine(self._intake, parts))
        self._recorded.tell()

    def _named(self) -> dict[str, Any]:
        """Return the names of label and metric."""
        return {"label": self.label, "metric": getattr(self, self._metric)}

    def _state(self, mode: str | None, *, history: bool, reducer: Reducer | None) -> dict[str, Any]:
        """Return the state; with a `reducer` sums instead of samples, where all of these count."""
        recorded, streams, coded = self._recorded, [], reducer is None
        for (of, ds_id), stream in recorded.streams.items():
            if mode not in (None, of) or (reducer is not None and stream.empty()):
                continue
            kept, appeared = stream.folded, list(stream.appeared)
            rows: list[Rows] = []
            merged: tuple[Placed, ...] = ()
            if reducer is None or reducer.finds_duplicates(stream):
                coded, merged, rows = True, stream.buffer.merged, stream.buffer.own_rows()
            else:
                kept, appeared = folded(stream, reducer, keep_order=recorded.keep_order)
            entry = {
                "mode": of,
                "ds_id": ds_id,
                "kind": stream.kind,
                "began": stream.began,
                "missed": missed(stream),
                "rows": [list(columns) for columns in rows],
                "merged": [[place, list(columns)] for place, columns in merged],
                "folded": _folded_state(kept),
                "appeared": appeared,
                "ids": None if stream.ids is None else stream.ids.kind,
            }
            streams.append(entry)
        past = recorded.histories
        if not history:
            past = tuple(History(metric=each.metric, label=each.label, bounds=each.bounds) for each in past)
        state = {
            "version": STATE_VERSION,
            **self._named(),
            "history": [each.state_dict() for each in past],
            "words": {kind: words.state() for kind, words in recorded.words.items()} if coded else {},
            "order": list(recorded.order) if recorded.keep_order and history else None,
            "streams": streams,
            "warned": self._warned,
        }
        return dict(plain(state))

    def _loaded(self, state: Any, recorded: Recorded) -> Loaded:
        """Return what is to replace everything that is recorded: a state, checked."""
        if not isinstance(state, Mapping) or "version" not in state:
            msg = f"expected the state_dict() of a LabelTracker, got {type(state).__name__} without a version"
            raise TypeError(msg)
        try:
            return read_state(state, self._named(), recorded)
        except (KeyError, IndexError, AttributeError, TypeError) as error:
            msg = f"expected the state_dict() of a LabelTracker, but it cannot be read: {type(error).__name__} {error}"
            raise TypeError(msg) from error

    def _of(self, other: Any, number: int) -> Recorded:
        """Return what a tracker to merge, or a state, has recorded."""
        own = self._recorded
        if not isinstance(other, Stateful) and isinstance(other, Mapping):
            recorded = Recorded((), None, keep_order=own.keep_order, names=own.names)
            recorded.of_state = True
            recorded.decide(Owed([], loaded=self._loaded(other, recorded)))
            return recorded
        if not isinstance(other, Stateful) or other._metric != self._metric:  # noqa: SLF001 (likewise)
            msg = f"expected trackers to merge, or their states, got {type(other).__name__} (number {number})"
            raise TypeError(msg)
        for name in (self._metric, *_ALIKE):
            mine, its = getattr(self, name), getattr(other, name)
            if _comparable(mine) != _comparable(its):
                msg = f"cannot merge tracker number {number}: its {name} is {its!r}, and {mine!r} here"
                raise ValueError(msg)
        with other._lock.to_read:  # noqa: SLF001 (of the same class)
            other._intake.arrive("merge_state")  # noqa: SLF001 (likewise)
        return other._recorded  # noqa: SLF001 (likewise)

    def __getstate__(self) -> dict[str, Any]:
        """Return the arguments and the `state_dict`, for pickle."""
        return {
            "arguments": {name: getattr(self, name) for name in (self._metric, *_ARGUMENTS)},
            "state": self.state_dict(),
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore from pickle."""
        try:
            self.__init__(**state["arguments"])  # type: ignore[misc]
        except (OSError, RuntimeError, ImportError) as error:  # of the recorder: the original may be recording
            self.__init__(**state["arguments"] | {"record_to": None})  # type: ignore[misc]
            warn(f"this copy of a tracker does not record: {error}")
        self.load_state_dict(state["state"])


def _folded_state(folded: Folded | None) -> dict[str, Any] | None:
    """Return what the state of a stream says of samples that were folded."""
    if folded is None:
        return None
    seen = None if folded.seen is None else {"ids": folded.seen.ids, "duplicates": list(folded.seen.duplicates)}
    return {"stats": [stats._state() for stats in folded.stats], "seen": seen}


def _read_folded(folded: Mapping[str, Any] | None) -> Folded | None:
    if folded is None:
        return None
    stats, seen = tuple(LabelStats._from_state(each) for each in folded["stats"]), folded["seen"]
    if seen is None:
        return Folded(stats)
    number, some = seen["duplicates"]
    return Folded(stats, Seen(with_arrays(seen["ids"]), Duplicates(number, tuple(some))))


def read_state(state: Mapping[str, Any], named: Mapping[str, Any], recorded: Recorded) -> Loaded:
    """Return what a state says, checked; ValueError if it is of another label, metric or version."""
    if state["version"] != STATE_VERSION:
        msg = (
            f"state of version {state['version']} cannot be read, expected {STATE_VERSION}; use the labeltrack that "
            "saved it"
        )
        raise ValueError(msg)
    for what, own in named.items():
        if state[what] != own:
            msg = f"state of {what} {state[what]!r} cannot be loaded into a tracker of {own!r}"
            raise ValueError(msg)
    histories = []
    for each in state["history"]:
        histories.append(History())
        histories[-1].load_state_dict(each)
    words = vocabularies(recorded.names, with_arrays(state["words"]))
    # Where the order was not kept, labels so far come in that of the labels.
    order = list(histories[0].names() if state["order"] is None else with_arrays(state["order"]))
    warned = bool(state["warned"])  # read before streams are made, as a recorder writes down those
    entries = [
        {**with_arrays({**entry, "folded": None}), "folded": _read_folded(entry["folded"])}
        for entry in state["streams"]
    ]
    streams = {(entry["mode"], entry["ds_id"]): _stream(entry, histories, words, recorded) for entry in entries}
    return Loaded(tuple(histories), words, streams, order, warned=warned)


def _stream(entry: Mapping[str, Any], histories: Sequence[History], words: Any, recorded: Recorded) -> Stream:
    """Return a stream of what one was saved as."""
    kind, ids, rows, lost = entry["kind"], entry["ids"], entry["rows"], entry["missed"]
    first = rows[0] if rows else [np.empty(0, dtype) for dtype in column_dtypes(len(histories), ids=bool(ids))]
    dtypes = [key_dtype(kind, first[0].dtype), *(column.dtype for column in first[1:])]
    stream = recorded.new_stream((entry["mode"], entry["ds_id"]), kind, dtypes, ids, histories[0], words)
    stream.began, stream.appeared = entry["began"], dict.fromkeys(entry["appeared"])
    stream.buffer.paused = True  # nothing is recorded until everything is there
    for labels, values, *more in rows:
        stream.buffer.append(labels.astype(key_dtype(kind, labels.dtype), copy=False), values, more=tuple(more))
    stream.buffer.merge_in(tuple((place, tuple(columns)) for place, columns in entry["merged"]), entry["folded"], kind)
    stream.missed = lost if recorded.of_state else stream.count() - sum(len(labels) for labels, *_ in rows)
    return stream
