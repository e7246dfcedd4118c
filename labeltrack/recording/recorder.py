"""Recording a run: the training thread hands rows to a background thread, and does not wait.

A failure is kept as `Recorder.failure`, for the tracker to warn about, and never raised into training.
"""

from __future__ import annotations

import os
import queue
import threading
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from labeltrack._core.threads import started
from labeltrack.errors import counted, need
from labeltrack.recording.write_behind import HandedOnBuffer
from labeltrack.recording.writer import Lane, RunWriter

if TYPE_CHECKING:
    from collections.abc import Callable

    from labeltrack._buffers import Chunk, Dtype
    from labeltrack._labels.codes import Vocabulary
    from labeltrack.recording.description import Description
    from labeltrack.recording.options import RecordingOptions
    from labeltrack.recording.schema import Ids

LONGEST_NAME = 10_000  # characters of a mode or dataset; readers accept schemas of a megabyte


class Ticket:
    """Says when a job is done; unlike `threading.Event`, an interrupt cannot leave it locked for the other thread."""

    __slots__ = ("_lock", "finished")

    def __init__(self) -> None:
        self.finished = False
        self._lock = threading.Lock()
        self._lock.acquire()

    def finish(self) -> None:
        """Mark the job as done; to be called once."""
        self.finished = True
        self._lock.release()

    def wait(self) -> None:
        """Wait until the job is done."""
        while not self.finished:
            self._lock.acquire(timeout=0.1)  # never given back, as several threads may wait


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

    Args:
        options: Where and how.
        description: What is tracked.

    Attributes:
        failure: What failed first, and what that means; empty if nothing did.
        notes: Other warnings, for the caller to take away.

    Raises:
        ImportError: pyarrow or xxhash is not installed, or does not work.
        OSError: The folder cannot be made or written to.
        RunInUseError: Another process records this run.
        ValueError: The folder contains something else, or a run of something else.
    """

    def __init__(self, options: RecordingOptions, description: Description) -> None:
        for module in ("xxhash", "pyarrow"):
            need(module)
        self._options = options
        self.failure = ""
        self._attempts: dict[str, int] = {}
        self._expected: dict[str, int] = {}
        self._last: dict[str, int] = {}
        self._ended: set[tuple[str, int]] = set()  # modes and steps
        self._buffers: dict[Lane, HandedOnBuffer] = {}
        self._pid = os.getpid()
        self._closed = False
        self._writer = RunWriter(options, description)
        self.notes = self._writer.notes
        # Not an executor: `finish` may run within a garbage collection, where its locks must not be taken.
        self._jobs: queue.SimpleQueue[tuple[Any, ...]] = queue.SimpleQueue()
        self._over = Ticket()
        self._thread = threading.Thread(target=self._work, name="labeltrack-recorder", daemon=True)
        self._threaded = started(self._thread)  # if not, jobs are done at once

    def lane(self, mode: str, ds_id: str, words: Vocabulary | None, expected: int, ids: Ids | None = None) -> Lane:
        """Return a lane for samples of a mode and dataset; `words` and `ids` say what codes and the last column are.

        The step of this epoch is probably the one `expected`, unless one of the mode has ended before.

        Raises:
            ValueError: A name is too long to be recorded.
        """
        for what, name in (("mode", mode), ("ds_id", ds_id)):
            if len(name) > LONGEST_NAME:
                msg = (
                    f"{what} has {len(name):,} characters, {name[:40]!r} and so on, and no more than {LONGEST_NAME:,} "
                    "can be recorded; give it a shorter name (this batch was not recorded)"
                )
                raise ValueError(msg)
        self._attempts.setdefault(mode, 1)
        self._expected.setdefault(mode, expected)
        self._submit(self._writer.begin, mode, ds_id)
        return Lane(mode, ds_id, words, ids)

    def buffer(
        self, lane: Lane, label_dtype: Dtype, value_dtype: Dtype, kind: str, more: tuple[Dtype, ...] = ()
    ) -> HandedOnBuffer:
        """Return columns whose rows are recorded."""
        sink, rows = partial(self._take, lane), self._options.flush_rows
        buffer = HandedOnBuffer(label_dtype, value_dtype, sink, rows, kind, more)
        self._buffers = {other: held for other, held in self._buffers.items() if not held.retired} | {lane: buffer}
        return buffer

    def _take(self, lane: Lane, chunk: Chunk, stop: int, kind: str) -> None:
        """Have the rows of a chunk written up to `stop`; they must not change before that."""
        if self._pid != os.getpid():
            self._fail(
                f"this process was forked from the one that records to {self._writer.root}: its samples count, and are "
                "not recorded. Make the tracker in the process that trains"
            )
        attempt, expected = self._attempts[lane.mode], self._expected[lane.mode]
        if not self._submit(self._writer.write, lane, chunk, stop, kind, lane.sizes, attempt, expected):
            chunk.done = max(chunk.done, stop)

    def ending(self, mode: str, step: int | None, lanes: list[Lane], *, replace: bool) -> Ending:
        """Return what to pass to `end`, as often as interrupts make necessary; without a step, samples are dropped."""
        adds = step is not None and not replace and (mode, step) in self._ended
        expected = self._expected.get(mode, 1 if step is None else step)
        if step is not None:
            expected = step + max(1, step - self._last.get(mode, expected - 1))
        return Ending(mode, step, self._attempts.get(mode, 1), expected, lanes, adds)

    def end(self, ending: Ending) -> None:
        """Record that an epoch ended, all of whose rows were handed on, or that its samples are dropped."""
        mode = ending.mode
        if self._attempts.get(mode, 1) > ending.attempt:
            return
        self._submit(self._writer.end, mode, ending.step, ending.attempt, ending.lanes, ending.adds)
        if ending.step is not None:
            self._last[mode] = ending.step
            self._ended.add((mode, ending.step))
        self._expected[mode] = ending.expected
        self._attempts[mode] = ending.attempt + 1
        if ending.step is not None and self._options.durable == "epoch":
            self.flush()

    def miss(self, lane: Lane, rows: int, why: str) -> None:
        """Record that so many rows of this attempt will not come."""
        self._submit(self._writer.miss, lane, rows)
        self._fail(
            f"in mode {lane.mode!r}, {counted(rows, 'sample', 'are')} not recorded; the run at {self._writer.root} "
            f"lacks {'it' if rows == 1 else 'them'} in this epoch: {why}"
        )

    def flush(self) -> None:
        """Wait until everything that was handed on is written."""
        ticket = Ticket()
        if not self._closed and self._submit(int, ticket=ticket):
            ticket.wait()

    def close(self) -> None:
        """Write the rest and leave the run; may be called again, after an interrupt for example."""
        if self._pid != os.getpid() or self._over.finished:
            return
        self._closed = True
        self._put(self._over, self._writer.finish, list(self._buffers))
        # A tracker that is no longer needed may be collected in any thread, this one included.
        if threading.current_thread() is not self._thread:
            self._over.wait()
            if self._thread.is_alive():
                self._thread.join()

    def finish(self, arrive: Callable[[], None]) -> None:
        """Hand everything on and close; for when the tracker is gone.

        Args:
            arrive: Appends the rows that are still to come to their buffers.
        """
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

    def _submit(self, job: Callable[..., Any], *args: Any, ticket: Ticket | None = None) -> bool:
        """Have a job done in the background; return False if that is over."""
        if self._pid != os.getpid():  # in a forked child, there is no thread, and the files are the parent's
            return False
        if self._closed:
            self._fail("samples after close() are not recorded")
            return False
        self._put(ticket, job, *args)
        return True

    def _put(self, *job: Any) -> None:
        if self._threaded:
            self._jobs.put(job)
        else:
            self._run(*job)

    def _work(self) -> None:
        while not self._over.finished:
            self._run(*self._jobs.get())

    def _run(self, ticket: Ticket | None, job: Callable[..., Any], *args: Any) -> None:
        try:
            job(*args)
        except Exception as error:  # noqa: BLE001 (no failure stops training)
            self._fail(
                f"recording to {self._writer.root} failed: {error}. Training and statistics go on; the run lacks "
                "samples of this epoch, and recording is tried again with the next"
            )
        if ticket is not None:
            ticket.finish()

    def _fail(self, text: str) -> None:
        self.failure = self.failure or text
