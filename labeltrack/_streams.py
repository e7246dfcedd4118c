"""What a tracker holds of one mode and dataset between two ends of an epoch, and how that changes as a whole."""

from __future__ import annotations

import os
import sys
import weakref
from dataclasses import dataclass, field
from threading import RLock
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from labeltrack._labels.codes import BOOL, INTEGER, UNSIGNED

if TYPE_CHECKING:
    from types import FrameType

    from labeltrack._buffers import SampleBuffer
    from labeltrack._labels.codes import Vocabulary
    from labeltrack.history import Entry, History
    from labeltrack.recording.recorder import Ending
    from labeltrack.recording.writer import Lane
    from labeltrack.stats import LabelStats

Array = npt.NDArray[Any]

WHOLE = {BOOL, INTEGER, UNSIGNED}
"""Kinds of labels that one 64-bit type may hold together."""


@dataclass(slots=True, eq=False)
class Stream:
    """The samples of one mode and dataset since the last end of an epoch."""

    buffer: SampleBuffer
    lane: Lane | None = None  # of the recorder, if there is one

    @property
    def kind(self) -> str:
        """Kind of the labels."""
        return self.buffer.kind

    @property
    def folded(self) -> LabelStats | None:
        """Statistics of samples that were given up."""
        return self.buffer.folded

    def empty(self) -> bool:
        """Return whether nothing was recorded since."""
        return self.folded is None and not len(self.buffer)


@dataclass(frozen=True)
class Owed:
    """A change to the history and to several streams that is decided, and which may be carried out any number of times.

    Attributes:
        streams: Those whose samples it takes.
        entry: What goes into the history.
        endings: What the recorder is to be told.
        loaded: History, words and streams that take the place of all there is.
    """

    streams: list[Stream]
    entry: Entry | None = None
    endings: list[Ending] = field(default_factory=list)
    loaded: tuple[History, dict[str, Vocabulary], dict[tuple[str, str], Stream]] | None = None


class Turns:
    """Whose turn it is to change a tracker: one thread's, and within that one call's.

    Only the interpreter itself takes and gives back the lock (``with turns.of(...):``), at points where no signal
    handler runs, so no exception of one leaves it locked.

    Args:
        owner: The tracker; calls within calls are those of its methods.
    """

    def __init__(self, owner: Any) -> None:
        self._owner = weakref.ref(owner)
        self._lock = RLock()
        _TURNS.add(self)

    def of(self, caller: str) -> RLock:
        """Return the lock to hold for a change.

        Args:
            caller: Name of the method, for the message.

        Raises:
            RuntimeError: This thread is in the middle of such a change: a signal handler calls, or a finalizer.
        """
        lock = self._lock
        if lock._is_owned():  # type: ignore[attr-defined]  # noqa: SLF001 (as `threading.Condition` does)
            frame: FrameType | None = sys._getframe(2)  # noqa: SLF001
            while frame is not None:
                if frame.f_code.co_name in CHANGES and frame.f_locals.get("self") is self._owner():
                    msg = (
                        f"{caller}() was called within {frame.f_code.co_name}() of the same tracker, by a signal "
                        "handler or a finalizer. Have it set a flag, and act on that between two batches; "
                        "state_dict(), flush() and close() may be called at any time"
                    )
                    raise RuntimeError(msg)
                frame = frame.f_back
        return lock

    @property
    def to_read(self) -> RLock:
        """The lock to hold for reading, which may be within a change."""
        return self._lock

    def anew(self) -> None:  # pragma: no cover (in a forked process, where nothing is measured)
        """Let a forked process go on without the threads of its parent, one of which may hold the lock."""
        self._lock = RLock()
        owner = self._owner()
        for stream in () if owner is None else owner._streams.values():  # noqa: SLF001
            stream.buffer.left_alone()


CHANGES = {"_update", "end_epoch", "reset", "load_state_dict", "_settle"}
_TURNS: weakref.WeakSet[Turns] = weakref.WeakSet()


def _anew() -> None:  # pragma: no cover (in a forked process, where nothing is measured)
    for turns in _TURNS:
        turns.anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_anew)


def whole_numbers(kind: str, array: Array, stream: Stream | None) -> tuple[str, Array]:
    """Bring uint64 labels and signed ones together, as far as one 64-bit type holds them all.

    Args:
        kind: Kind of this batch.
        array: Its ``(N,)`` labels.
        stream: What was recorded before.

    Returns:
        The kind to record the batch under, and its labels.

    Raises:
        TypeError: No one type holds the labels of the epoch.
    """
    before = None if stream is None or stream.empty() else stream.kind
    if kind == UNSIGNED and before != UNSIGNED and (not array.size or int(array.max()) < 2**63):
        return INTEGER, array.view(np.int64) if array.flags.c_contiguous else array.astype(np.int64)
    if kind in WHOLE and before in WHOLE and (kind == UNSIGNED) != (before == UNSIGNED):
        negative = _any_negative(stream) if kind == UNSIGNED else array.size and int(array.min()) < 0
        if negative:
            msg = "labels above 2**63 - 1 and negative labels do not fit one type (this batch was not recorded)"
            raise TypeError(msg)
        return UNSIGNED, array.astype(np.uint64)
    return kind, array


def _any_negative(stream: Stream | None) -> bool:
    """Return whether signed labels recorded so far are negative somewhere."""
    if stream is None:
        return False
    stream.buffer.seal()  # other threads add none then
    folded = stream.folded is not None and len(stream.folded) and stream.folded.labels[0] < 0
    return bool(folded) or any(int(keys.min()) < 0 for keys, _ in stream.buffer.filled())
