"""Which thread, and which call in it, may change a tracker."""

from __future__ import annotations

import os
import sys
import weakref
from threading import RLock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType

    from labeltrack._tracking.streams import Key, Stream


class ChangeLock:
    """The lock that allows one thread at a time to change a tracker, and one call within that thread.

    Take it with ``with lock.of(...):`` only: no signal handler runs where the interpreter acquires and releases it, so
    an exception of one cannot leave it locked.
    """

    def __init__(self, streams: dict[Key, Stream]) -> None:
        self._streams = streams
        self.to_read = RLock()  # for reading, which may be within a change
        _LOCKS.add(self)

    def of(self, caller: str) -> RLock:
        """Return the lock to hold for a change; RuntimeError within one, where a signal handler or finalizer calls."""
        lock = self.to_read
        if lock._is_owned():  # type: ignore[attr-defined]  # noqa: SLF001 (as `threading.Condition` does)
            frame: FrameType | None = sys._getframe(2)  # noqa: SLF001
            while frame is not None:
                if frame.f_code.co_name in CHANGES and getattr(frame.f_locals.get("self"), "_lock", None) is self:
                    within = frame.f_code.co_name.strip("_")
                    msg = (
                        f"{caller}() was called within {within}() of the same tracker, by a signal handler or a "
                        "finalizer. Have it set a flag, and act on that between two batches; compute(), state_dict(), "
                        "flush() and close() may be called at any time, unless tensors on a device, or batches of "
                        "update_later(), are still to be read"
                    )
                    raise RuntimeError(msg)
                frame = frame.f_back
        return lock

    def anew(self) -> None:  # pragma: no cover (in a forked process, where nothing is measured)
        """Replace the lock in a forked process, where the thread that may hold it does not exist."""
        self.to_read = RLock()
        for stream in self._streams.values():
            stream.buffer.left_alone()


CHANGES = {"_update", "update_later", "_end_epoch", "reset", "load_state_dict", "merge_state", "complete", "deliver"}
"""Methods of objects with the attribute ``_lock`` that change a tracker."""

_LOCKS: weakref.WeakSet[ChangeLock] = weakref.WeakSet()


def _anew() -> None:  # pragma: no cover (in a forked process, where nothing is measured)
    for lock in _LOCKS:
        lock.anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_anew)
