"""Columns whose rows are handed on while they fill, to be written by another thread.

Nothing is copied: views of the columns are handed on, and a chunk is reused once all its rows are written. The memory
of the columns is the backlog; appending waits only when all of it is still to be written.
"""

from __future__ import annotations

import os
import time
import weakref
from typing import TYPE_CHECKING, Any

from labeltrack._buffers import Chunk, Dtype, Plan, Rows, SampleBuffer
from labeltrack._core.arrays import Array, size_of

if TYPE_CHECKING:
    from collections.abc import Callable

_BUFFERS: weakref.WeakSet[HandedOnBuffer] = weakref.WeakSet()
TOGETHER = 64  # rows; columns of so many end at a multiple of 64 bytes, so that the next ones are aligned


class HandedOnBuffer(SampleBuffer):
    """A `SampleBuffer` that hands its rows on, so many at a time.

    The sink is called with a chunk, a row of it and the kind of its labels. It has the rows from ``chunk.done`` up to
    that one read in another thread, in the order of the calls, and ``chunk.done`` then set to it; they do not change
    before. After an interrupt, it may be called a second time for the same rows.
    """

    __slots__ = ("__weakref__", "_at_a_time", "_sink")

    def __init__(
        self,
        label_dtype: Dtype,
        value_dtype: Dtype,
        sink: Callable[[Chunk, int, str], Any],
        rows: int,
        kind: str = "",
        more: tuple[Dtype, ...] = (),
    ) -> None:
        super().__init__(label_dtype, value_dtype, kind, more)
        self._sink = sink
        self._at_a_time = rows
        _BUFFERS.add(self)

    def hand_on(self, *, asked: bool = False) -> None:
        """Hand on all remaining rows; with `asked`, only those that an interrupt kept from being handed on."""
        if self.paused:
            return
        held = self.completed()
        for chunk in (*held.emptied, *held.chunks):
            if chunk.asked > chunk.handed:
                self._ask(chunk, chunk.asked)
        for chunk in () if asked or self.retired else held.chunks:
            self._offer(chunk)

    def fold_in(self, folded: Any, rows: Rows, kind: str) -> None:
        """Replace what is kept of folded rows, and hand on those that were not appended; see `SampleBuffer.fold_in`."""
        self.seal()
        # A copy: after an interrupt, the caller's memory would still have to be read.
        labels, values, *more = (column.copy() for column in rows)
        chunk = Chunk(labels, values, tuple(more), used=labels.shape[0], asked=labels.shape[0])
        before = self._held.emptied
        self._carry_out(Plan(kind, [], self._held._replace(folded=folded, emptied=(*before, chunk))))
        self._wait(chunk)
        self._held = self._held._replace(emptied=tuple(other for other in self._held.emptied if other is not chunk))

    def wait(self) -> None:
        """Wait until everything that was handed on is written."""
        for chunk in (*self._held.chunks, *self._held.emptied):
            self._wait(chunk)

    def shrink(self, nbytes: int) -> None:
        """Free memory until at most so many bytes are allocated; the buffer must be empty."""
        self.wait()
        self._take_back()
        super().shrink(nbytes)

    def disown(self) -> None:
        """Treat everything that was handed on as written: in a forked process, no thread is left to do it."""
        for chunk in (*self._held.chunks, *self._held.emptied):
            chunk.done = max(chunk.done, chunk.asked)

    def _free(self) -> tuple[list[Chunk], tuple[Chunk, ...]]:
        chunks, emptied = self._held.chunks, self._held.emptied
        still = tuple(chunk for chunk in chunks if not _done(chunk))
        return [chunk for chunk in chunks if _done(chunk) and chunk not in still], (*emptied, *still)

    def _chunk(self, labels: Array, values: Array, *more: Array) -> Chunk:
        chunk = super()._chunk(labels, values, *more)
        chunk.limit = min(chunk.limit, self._at_a_time)
        return chunk

    def _filled(self, chunk: Chunk) -> None:
        full = chunk.used == chunk.labels.shape[0]
        if chunk.used - chunk.handed >= (1 if full else self._at_a_time):
            for each in self._held.chunks:  # if a batch had another dtype, earlier ones may have rows left
                if each is chunk:
                    break
                self._offer(each)
            self._offer(chunk, 1 if full else min(TOGETHER, self._at_a_time))
        chunk.limit = min(chunk.labels.shape[0], chunk.handed + self._at_a_time)

    def _offer(self, chunk: Chunk, multiple: int = 1) -> None:
        """Hand on the remaining rows of a chunk, rounded down to a multiple."""
        stop = max(chunk.asked, chunk.handed + (self._ready(chunk) - chunk.handed) // multiple * multiple)
        if stop > chunk.handed and not self.paused:
            self._ask(chunk, stop)

    def _ask(self, chunk: Chunk, stop: int) -> None:
        """Hand on the rows of a chunk up to `stop`; may be repeated after an interrupt."""
        if stop > chunk.asked:  # noqa: PLR1730 (a call of `max` is where a signal handler could run, and hand on, too)
            chunk.asked = stop
        self._sink(chunk, stop, self.kind)
        if stop > chunk.handed:  # noqa: PLR1730 (likewise)
            chunk.handed = stop

    def _wait(self, chunk: Chunk) -> None:
        """Wait until a chunk is written, by polling: an interrupt may leave a lock or condition of Python locked."""
        if chunk.asked > chunk.handed:
            self._ask(chunk, chunk.asked)
        while not _done(chunk):
            time.sleep(0.0005)

    def _take_back(self) -> list[Chunk]:
        """Return emptied chunks that are written."""
        back = [chunk for chunk in self._held.emptied if _done(chunk)]
        if back:
            self._held = self._held._replace(emptied=tuple(chunk for chunk in self._held.emptied if chunk not in back))
        return back

    def _regain(self, dtypes: tuple[Dtype, ...]) -> int:
        fresh = [self._chunk(*chunk.columns) for chunk in self._take_back() if chunk.dtypes == dtypes]
        self._held = self._held._replace(chunks=[*self._held.chunks, *fresh])
        return sum(chunk.labels.shape[0] for chunk in fresh)

    def _next_size(self, short: int, row: int, budget: int | None) -> int:
        size = super()._next_size(max(short, self._at_a_time), row, budget) or super()._next_size(short, row, budget)
        while not size and self._held.emptied:  # all the allowed memory is still to be written
            self._wait(self._held.emptied[0])
            # Freeing it makes room in the budget for a chunk of the size that is needed.
            free = sum(size_of(chunk.columns) for chunk in self._take_back())
            budget = None if budget is None else budget + free
            size = super()._next_size(short, row, budget)
        return size


def _done(chunk: Chunk) -> bool:
    return chunk.done >= chunk.asked


def _disown() -> None:  # pragma: no cover (in a forked process, where nothing is measured)
    """Let a forked process go on without the thread that writes in its parent."""
    for buffer in _BUFFERS:
        buffer.disown()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_disown)
