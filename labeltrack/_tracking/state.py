"""The saved state of a tracker: built-in values alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from labeltrack._labels.codes import Vocabulary, key_dtype
from labeltrack._state import plain, with_arrays
from labeltrack._tracking.streams import Loaded
from labeltrack.history import History
from labeltrack.stats import LabelStats

if TYPE_CHECKING:
    from labeltrack._tracking.recorded import Recorded
    from labeltrack._tracking.streams import Key, Stream

STATE_VERSION = 1


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


@dataclass(frozen=True)
class Saved:
    """A state that was read and checked."""

    history: History
    words: dict[str, Vocabulary]
    streams: list[SavedStream]
    order: list[Any]
    warned: bool


def write_state(recorded: Recorded, label: str, metric: str, *, warned: bool) -> dict[str, Any]:
    """Return the state of what is recorded."""
    streams = []
    for (mode, ds_id), stream in recorded.streams.items():
        merged = stream.buffer.merged
        filled = stream.buffer.filled()
        filled = filled[: len(filled) - len(merged)]
        streams.append(
            {
                "mode": mode,
                "ds_id": ds_id,
                "kind": stream.kind,
                "began": stream.began,
                "labels": [keys for keys, _ in filled],
                "values": [values for _, values in filled],
                "merged": [list(chunk) for chunk in merged],
                "folded": None if stream.folded is None else stream.folded._state(),
                "appeared": list(stream.appeared),
            }
        )
    state: dict[str, Any] = plain(
        {
            "version": STATE_VERSION,
            "label": label,
            "metric": metric,
            "history": recorded.history.state_dict(),
            "words": {kind: vocabulary.words for kind, vocabulary in recorded.words.items()},
            "order": list(recorded.order) if recorded.keep_order else None,
            "streams": streams,
            "warned": warned,
        }
    )
    return state


def read_state(state: Any, label: str, metric: str) -> Saved:
    """Return what a state says, checked.

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
        )
        for entry in state["streams"]
    ]
    words = {kind: Vocabulary(kind, with_arrays(some)) for kind, some in state["words"].items()}
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
        stream.missed = stream.count() - sum(keys.shape[0] for keys, _ in entry.chunks)
    return Loaded(saved.history, saved.words, streams, saved.order)
