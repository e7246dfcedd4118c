"""Columns whose rows are handed on while they fill, to be written elsewhere by another thread.

Nothing is copied: what is handed on are views of the columns. A chunk is filled anew only when all that was handed on
of it is done with. So the memory of the columns is the backlog, and appending waits only if all of it is still to be
written.
"""

from __future__ import annotations

import os
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np

from labeltrack._buffers import Array, Chunk, Dtype, SampleBuffer

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

_BUFFERS: weakref.WeakSet[HandedOnBuffer] = weakref.WeakSet()
TOGETHER = 64  # rows: of that many, columns of any type end at a multiple of 64 bytes, and so the next one is aligned


class HandedOnBuffer(SampleBuffer):
    """A `SampleBuffer` that hands its rows on, so many at a time.

    Args:
        label_dtype: Dtype of the label column.
        value_dtype: float32 or float64.
        sink: Takes ``(N,)`` labels and values, which do not change until the future it returns is done.
        rows: How many rows to hand on at a time; fewer where a chunk ends, and by `hand_on`. More than 64 are handed on
            in multiples of that.

    Example:
        >>> from concurrent.futures import ThreadPoolExecutor
        >>> with ThreadPoolExecutor(1) as thread:
        ...     sink = lambda labels, values: thread.submit(print, labels, values)
        ...     buffer = HandedOnBuffer(np.dtype(np.int32), np.dtype(np.float32), sink, rows=2)
        ...     _ = buffer.append(np.array([1, 2, 3], np.int32), np.array([0.5, 0.25, 1.0], np.float32))
        ...     buffer.hand_on()
        [1 2] [0.5  0.25]
        [3] [1.]
    """

    __slots__ = ("__weakref__", "_at_a_time", "_busy", "_sink")

    def __init__(
        self, label_dtype: Dtype, value_dtype: Dtype, sink: Callable[[Array, Array], Future[Any]], rows: int
    ) -> None:
        super().__init__(label_dtype, value_dtype)
        self._sink = sink
        self._at_a_time = rows
        self._busy: list[Chunk] = []  # emptied, and not yet done with
        _BUFFERS.add(self)

    def hand_on(self) -> None:
        """Hand on every row that was not."""
        for chunk in self._chunks:
            self._offer(chunk)

    def clear(self) -> None:
        """Forget the rows; memory that is not done with yet comes back when it is.

        Rows that were not handed on are lost to the sink: call `hand_on` before.
        """
        busy = [not _done(chunk) for chunk in self._chunks]
        self._busy += [chunk for chunk, still in zip(self._chunks, busy, strict=True) if still]
        self._chunks = [chunk for chunk, still in zip(self._chunks, busy, strict=True) if not still]
        if not self._chunks:
            self._chunks.append(Chunk(np.empty(0, self.label_dtype), np.empty(0, self.value_dtype)))
        super().clear()
        for chunk in self._chunks:
            self._renew(chunk)

    def wait(self) -> None:
        """Wait until all that was handed on is done with."""
        for chunk in (*self._chunks, *self._busy):
            _wait(chunk)

    def shrink(self, nbytes: int) -> None:
        """Give memory back until no more than so many bytes are allocated. The buffer must be empty."""
        self.wait()
        self.nbytes -= sum(chunk.nbytes for chunk in self._take_back())
        super().shrink(nbytes)

    def disown(self) -> None:
        """Take all that was handed on as done with: in a forked process, nobody is left to say so."""
        for chunk in (*self._chunks, *self._busy):
            chunk.pending = []  # nor asked whether they are done: their locks may have been held in that moment

    def _renew(self, chunk: Chunk) -> None:
        chunk.used = chunk.handed = 0
        chunk.pending.clear()
        chunk.limit = min(chunk.labels.shape[0], self._at_a_time)

    def _filled(self, chunk: Chunk) -> None:
        full = chunk.used == chunk.labels.shape[0]
        if chunk.used - chunk.handed >= (1 if full else self._at_a_time):
            for each in self._chunks:  # the ones before it may have rows left, where a batch was of another dtype
                if each is chunk:
                    break
                self._offer(each)
            self._offer(chunk, 1 if full else min(TOGETHER, self._at_a_time))
        chunk.limit = min(chunk.labels.shape[0], chunk.handed + self._at_a_time)

    def _offer(self, chunk: Chunk, multiple: int = 1) -> None:
        """Hand on the rows of a chunk that were not, as many as a multiple of some number allows."""
        n = (chunk.used - chunk.handed) // multiple * multiple
        if n:
            chunk.pending = [future for future in chunk.pending if not future.done()]
            rows = slice(chunk.handed, chunk.handed + n)
            chunk.pending.append(self._sink(chunk.labels[rows], chunk.values[rows]))
            chunk.handed += n

    def _take_back(self) -> list[Chunk]:
        """Return emptied chunks that are done with."""
        back = [chunk for chunk in self._busy if _done(chunk)]
        self._busy = [chunk for chunk in self._busy if chunk not in back]
        return back

    def _regain(self, label_dtype: Dtype, value_dtype: Dtype) -> int:
        rows = 0
        for chunk in self._take_back():
            if (chunk.labels.dtype, chunk.values.dtype) == (label_dtype, value_dtype):
                self._renew(chunk)
                self._chunks.append(chunk)
                rows += chunk.labels.shape[0]
            else:
                self.nbytes -= chunk.nbytes
        return rows

    def _next_size(self, short: int, row: int, budget: int | None) -> int:
        size = super()._next_size(max(short, self._at_a_time), row, budget) or super()._next_size(short, row, budget)
        while not size and self._busy:  # all the memory there may be is still to be written
            _wait(self._busy[0])
            # What comes back is freed, which makes room in the budget for a chunk of the size that is needed.
            free = sum(chunk.nbytes for chunk in self._take_back())
            self.nbytes -= free
            budget = None if budget is None else budget + free
            size = super()._next_size(short, row, budget)
        return size


def _done(chunk: Chunk) -> bool:
    """Return whether nobody reads the memory any more."""
    return all(future.done() for future in chunk.pending)


def _wait(chunk: Chunk) -> None:
    for future in chunk.pending:
        future.exception()  # waits, and does not raise: what became of the rows is the sink's business


def _disown() -> None:
    """Let a process that was forked go on without the thread that its parent hands rows on to."""
    for buffer in _BUFFERS:
        buffer.disown()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_disown)
