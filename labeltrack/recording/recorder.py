"""Recording a run: the training thread hands rows to a background thread, and does not wait.

A failure is kept as `Recorder.failure`, for the tracker to warn about, and never raised into training.
"""

from __future__ import annotations

import os
import queue
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from labeltrack._buffers import Chunk, Dtype, Plan, Rows, SampleBuffer
from labeltrack._core.arrays import Array, size_of
from labeltrack._core.threads import started
from labeltrack.errors import counted, need
from labeltrack.recording.writer import Lane, RunWriter

if TYPE_CHECKING:
    from labeltrack._labels.codes import Vocabulary
    from labeltrack.recording.description import Description, Ids
    from labeltrack.recording.options import RecordingOptions

LONGEST_NAME = 10_000  # characters of a mode or dataset; readers accept schemas of a megabyte
TOGETHER = 64  # rows; columns of so many end at a multiple of 64 bytes, so that the next ones are aligned
_BUFFERS: weakref.WeakSet[HandedOnBuffer] = weakref.WeakSet()


class HandedOnBuffer(SampleBuffer):
    """A `SampleBuffer` whose rows are handed on while it fills, so many at a time, to be written by another thread.

    Nothing is copied: the sink is called with a chunk, a row of it and the kind of its labels. It has the rows from
    ``chunk.done`` up to that one read in another thread, in the order of the calls, and ``chunk.done`` then set to it;
    they do not change before. After an interrupt, it may be called a second time for the same rows. A chunk is reused
    once all its rows are written; appending waits only when all the memory is still to be written.
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
        self._sink, self._at_a_time = sink, rows
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
        return [chunk for chunk in chunks if chunk not in still], (*emptied, *still)

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
        """Wait until a chunk is written."""
        if chunk.asked > chunk.handed:
            self._ask(chunk, chunk.asked)
        _wait_until(lambda: _done(chunk))

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


def _wait_until(done: Callable[[], Any]) -> None:
    """Wait by polling: an interrupt may leave a lock or condition of Python locked for other threads."""
    while not done():
        time.sleep(0.0005)


def _disown() -> None:  # pragma: no cover (in a forked process, where nothing is measured)
    for buffer in _BUFFERS:
        buffer.disown()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_disown)


@dataclass(frozen=True)
class Ending:
    """The end of what was recorded of a mode so far."""

    mode: str
    step: int | None  # None: the samples are dropped
    attempt: int  # number of what ends
    expected: int  # the step that probably comes next
    lanes: list[Lane]  # those that have samples, in the order of the history
    adds: bool = False  # other datasets to what ended with this step before


class Recorder:
    """Records the samples of a tracker.

    ImportError if pyarrow or xxhash does not work, OSError if the folder cannot be written to, RunInUseError if another
    process records this run, ValueError if something else is in the folder.
    """

    def __init__(self, options: RecordingOptions, description: Description) -> None:
        for module in ("xxhash", "pyarrow"):
            need(module)
        self._options = options
        self.failure = ""  # what failed first, and what that means
        self._attempts: dict[str, int] = {}
        self._expected: dict[str, int] = {}
        self._last: dict[str, int] = {}
        self._ended: set[tuple[str, int]] = set()  # modes and steps
        self._buffers: dict[Lane, HandedOnBuffer] = {}
        self._pid = os.getpid()
        self._closed = False
        self._writer = RunWriter(options, description)
        self.notes = self._writer.notes  # other warnings, for the caller to take away
        # Not an executor: `finish` may run within a garbage collection, where its locks must not be taken.
        self._jobs: queue.SimpleQueue[tuple[Any, ...]] = queue.SimpleQueue()
        self._over = False  # whether the run was left
        self._thread = threading.Thread(target=self._work, name="labeltrack-recorder", daemon=True)
        self._threaded = started(self._thread)  # if not, jobs are done at once

    def stream(
        self,
        key: tuple[str, str],
        words: Vocabulary | None,
        ids: Ids | None,
        kind: str,
        dtypes: Sequence[Dtype],
        expected: int,
    ) -> tuple[Lane, HandedOnBuffer]:
        """Return a lane for samples of a mode and dataset, and columns whose rows are recorded there.

        `expected` is the probable step of the first epoch. ValueError if a name is too long.
        """
        lane = Lane(*key, words, ids)
        for what, name in (("mode", lane.mode), ("ds_id", lane.ds_id)):
            if len(name) > LONGEST_NAME:
                msg = (
                    f"{what} has {len(name):,} characters, {name[:40]!r} and so on, and no more than {LONGEST_NAME:,} "
                    "can be recorded; give it a shorter name (this batch was not recorded)"
                )
                raise ValueError(msg)
        self._attempts.setdefault(lane.mode, 1)
        self._expected.setdefault(lane.mode, expected)
        self._submit(self._writer.begin, *key)
        label, value, *more = dtypes
        sink = partial(self._take, lane)
        buffer = HandedOnBuffer(label, value, sink, self._options.flush_rows, kind, tuple(more))
        self._buffers = {other: held for other, held in self._buffers.items() if not held.retired} | {lane: buffer}
        return lane, buffer

    def _take(self, lane: Lane, chunk: Chunk, stop: int, kind: str) -> None:
        """Have the rows of a chunk written up to `stop`; they must not change before that."""
        if self._pid != os.getpid():
            self._fail(
                f"this process was forked from the one that records to {self._writer.root}: its samples count, and are "
                "not recorded. Make the tracker in the process that trains"
            )
        attempt, expected = self._attempts[lane.mode], self._expected[lane.mode]
        if not self._submit(self._writer.write, lane, chunk, stop, kind, attempt, expected):
            chunk.done = max(chunk.done, stop)

    def ending(self, mode: str, step: int | None, lanes: list[Lane], *, replace: bool) -> Ending:
        """Return what to pass to `end`, as often as interrupts make necessary; without a step, samples are dropped."""
        adds = step is not None and not replace and (mode, step) in self._ended
        expected = self._expected[mode]
        if step is not None:
            expected = step + max(1, step - self._last.get(mode, expected - 1))
        return Ending(mode, step, self._attempts[mode], expected, lanes, adds)

    def end(self, ending: Ending) -> None:
        """Record that an epoch ended, all of whose rows were handed on, or that its samples are dropped."""
        mode = ending.mode
        if self._attempts[mode] > ending.attempt:
            return
        self._submit(self._writer.end, mode, ending.step, ending.attempt, ending.lanes, ending.adds)
        if ending.step is not None:
            self._last[mode] = ending.step
            self._ended.add((mode, ending.step))
        self._expected[mode], self._attempts[mode] = ending.expected, ending.attempt + 1
        if ending.step is not None and self._options.durable == "epoch":
            self.flush()

    def miss(self, lane: Lane, rows: int, why: str) -> None:
        """Record that so many rows of this attempt will not come."""
        self._submit(setattr, lane, "missing", rows)
        self._fail(
            f"in mode {lane.mode!r}, {counted(rows, 'sample', 'are')} not recorded; the run at {self._writer.root} "
            f"lacks {'it' if rows == 1 else 'them'} in this epoch: {why}"
        )

    def flush(self) -> None:
        """Wait until everything that was handed on is written."""
        done: list[bool] = []
        if not self._closed and self._submit(done.append, True):
            _wait_until(lambda: done)

    def close(self) -> None:
        """Write the rest and leave the run; may be called again, after an interrupt for example."""
        if self._pid != os.getpid() or self._over:
            return
        self._closed = True
        self._put(self._end_run, list(self._buffers))
        # A tracker that is no longer needed may be collected in any thread, this one included.
        if threading.current_thread() is not self._thread:
            _wait_until(lambda: self._over)
            if self._thread.is_alive():
                self._thread.join()

    def _end_run(self, lanes: list[Lane]) -> None:
        try:
            self._writer.finish(lanes)
        finally:
            self._over = True

    def finish(self, arrive: Callable[[], None]) -> None:
        """Hand everything on and close, as the tracker is gone; `arrive` appends the rows that are still to come."""
        try:
            self._leave(arrive)
        except BaseException:
            self._leave(arrive)  # nothing would do it later
            raise

    def _leave(self, arrive: Callable[[], None]) -> None:
        if self._pid == os.getpid():
            try:
                arrive()
            finally:
                for buffer in () if self._closed else self._buffers.values():
                    buffer.hand_on()
                self.close()

    def _submit(self, job: Callable[..., Any], *args: Any) -> bool:
        """Have a job done in the background; return False if that is over."""
        if self._pid != os.getpid():  # in a forked child, there is no thread, and the files are the parent's
            return False
        if self._closed:
            self._fail("samples after close() are not recorded")
            return False
        self._put(job, *args)
        return True

    def _put(self, *job: Any) -> None:
        if self._threaded:
            self._jobs.put(job)
        else:
            self._run(*job)

    def _work(self) -> None:
        while not self._over:
            self._run(*self._jobs.get())

    def _run(self, job: Callable[..., Any], *args: Any) -> None:
        try:
            job(*args)
        except Exception as error:  # noqa: BLE001 (no failure stops training)
            self._fail(
                f"recording to {self._writer.root} failed: {error}. Training and statistics go on; the run lacks "
                "samples of this epoch, and recording is tried again with the next"
            )

    def _fail(self, text: str) -> None:
        self.failure = self.failure or text
