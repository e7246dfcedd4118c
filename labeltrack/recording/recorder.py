"""Recording a run: what a tracker's columns hand on is written by one background thread.

A `Lane` is what the recorder has of one mode and dataset.
The training thread hands views of its columns on and goes on; whatever goes wrong is kept as `Recorder.failure`, for
the tracker to warn about, and never raised into training.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from labeltrack._core.threads import started
from labeltrack._labels.codes import BOOL, BYTES, STRING, Array, Vocabulary, as_stored
from labeltrack.errors import need
from labeltrack.recording.content import EXHAUSTED, most_open
from labeltrack.recording.layout import LAST_STEP, folder_of, part_name, rename, sync_folder
from labeltrack.recording.part import OPEN, PartWriter
from labeltrack.recording.session import Membership
from labeltrack.recording.write_behind import HandedOnBuffer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from labeltrack._buffers import Chunk, Dtype
    from labeltrack.recording.layout import Description
    from labeltrack.recording.options import RecordingOptions

LARGEST_PART = 256 * 2**20  # bytes; a part is what a machine of a cluster works on at a time
LONGEST_NAME = 10_000  # characters of a mode or dataset; readers take schemas of a megabyte
WORDS_A_LINE = 4096
CHARACTERS_A_LINE = 2**18


@dataclass(eq=False)
class Lane:
    """What is recorded of one mode and dataset.

    Attributes:
        recorder: Where it goes.
        mode: Mode.
        ds_id: Dataset.
        words: What codes stand for, if the labels are strings or bytes.
    """

    recorder: Recorder
    mode: str
    ds_id: str
    words: Vocabulary | None
    # What follows is the business of the background thread.
    writer: PartWriter | None = None
    written_as: tuple[Any, ...] = ()
    parts: list[tuple[Path, int, str]] = field(default_factory=list)  # of the attempt: where they lie, rows, checksum
    rows: int = 0
    lost: int = 0  # rows that could not be written
    missing: int = 0  # rows that never came

    def __call__(self, chunk: Chunk, stop: int, kind: str) -> None:
        """Have rows written.

        Args:
            chunk: Where they are; those that are there must not change before they are done.
            stop: Up to which row.
            kind: Kind of the labels.
        """
        self.recorder.take(self, chunk, stop, kind)

    def reset(self) -> None:
        """Begin anew, with another attempt."""
        if self.writer is not None:
            self.writer.abandon()
            self.writer = None
        self.parts, self.rows, self.lost, self.missing = [], 0, 0, 0

    def buffer(self, label_dtype: Dtype, value_dtype: Dtype, kind: str) -> HandedOnBuffer:
        """Return columns that hand their rows on to this lane."""
        buffer = HandedOnBuffer(label_dtype, value_dtype, self, self.recorder.recording.flush_rows, kind)
        self.recorder.track(self, buffer)
        return buffer


class Ticket:
    """Says when a job is done. In it is nothing that an interrupt could leave locked for the other thread."""

    __slots__ = ("_lock", "finished")

    def __init__(self) -> None:
        self.finished = False
        self._lock = threading.Lock()
        self._lock.acquire()

    def finish(self) -> None:
        """Say that it is done, once."""
        self.finished = True
        self._lock.release()

    def wait(self) -> None:
        """Wait until it is done."""
        while not self.finished:
            self._lock.acquire(timeout=0.1)  # whether it was taken or not, nobody waits for it to be given back


@dataclass(frozen=True)
class Ending:
    """The end of what was recorded of a mode so far: an epoch, or nothing that counts.

    Attributes:
        mode: Mode.
        step: Epoch or step; None if it is not to count.
        attempt: Number of what ends.
        expected: What is probably the epoch after it.
        lanes: Those that have samples, in the order of the history.
    """

    mode: str
    step: int | None
    attempt: int
    expected: int
    lanes: list[Lane]


class Recorder:
    """Writes the samples of a run.

    Args:
        recording: Where and how.
        description: What is tracked.

    Attributes:
        failure: What went wrong first, and what that means; empty if nothing did.
        notes: What else there is to warn about, for whoever does to take away.

    Raises:
        ImportError: pyarrow or xxhash is not installed, or does not work.
        OSError: The folder cannot be made or written to.
        RunInUseError: Another process records this run.
        ValueError: There is something else in the folder, or a run of something else.
    """

    def __init__(self, recording: RecordingOptions, description: Description) -> None:
        for module in ("xxhash", "pyarrow"):
            need(module)
        self.recording = recording
        self.failure = ""
        self._attempts: dict[str, int] = {}
        self._expected: dict[str, int] = {}
        self._last: dict[str, int] = {}
        self._vocabularies: list[Vocabulary] = []
        self._words_written: dict[int, int] = {}  # by number of the vocabulary; of the background thread
        self._begun: set[tuple[str, str]] = set()
        self._came: set[str] = set()  # modes of which there was something to write; of the background thread
        self._unsaid: list[tuple[str, dict[str, Any]]] = []  # of the background thread: what the journal lacks as yet
        self._open: list[Lane] = []  # of the background thread, too: whose parts are open
        self._buffers: dict[Lane, HandedOnBuffer] = {}
        self._pid = os.getpid()
        self._closed = False
        self._ended: dict[str, int] = {}  # the last attempt that did; this and those below: of the background thread
        self._finished = False
        self.rows_written = 0
        self._member = Membership(recording, description)
        self.notes = self._member.notes
        self.root, self._journal = self._member.root, self._member.journal
        # Not an executor: its locks are not to be taken in a garbage collection, which is where `finish` may be called.
        self._jobs: queue.SimpleQueue[Any] | _AtOnce = queue.SimpleQueue()
        self._over = Ticket()
        self._thread = threading.Thread(target=_work, args=(self._jobs, self._guarded, self._over), daemon=True)
        self._thread.name = "labeltrack-recorder"
        if not started(self._thread):
            self._jobs = _AtOnce(self._guarded, self._over)

    @property
    def _syncs(self) -> bool:
        return self.recording.fsync != "never"

    # -- the training thread ------------------------------------------------------------------------------

    def lane(self, mode: str, ds_id: str, words: Vocabulary | None, expected: int) -> Lane:
        """Return what takes the samples of a mode and dataset.

        Args:
            mode: Mode.
            ds_id: Dataset.
            words: What codes stand for.
            expected: The epoch that this will probably be, unless one of the mode has ended before.

        Raises:
            ValueError: A name is longer than what a part can say of itself.
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
        self._submit(self._begin, mode, ds_id)
        return Lane(self, mode, ds_id, words)

    def take(self, lane: Lane, chunk: Chunk, stop: int, kind: str) -> None:
        """Have rows written."""
        if self._pid != os.getpid():
            self._fail(
                f"this process was forked from the one that records to {self.root}: its samples count, and are not "
                "recorded. Make the tracker in the process that trains"
            )
        words = None if lane.words is None else (self._number(lane.words), lane.words, len(lane.words.words))
        attempt, expected = self._attempts[lane.mode], self._expected[lane.mode]
        if not self._submit(self._write, lane, kind, words, attempt, expected, chunk, stop):
            chunk.done = max(chunk.done, stop)

    def _number(self, words: Vocabulary) -> int:
        """Return the number of a vocabulary, from 1 on."""
        for number, known in enumerate(self._vocabularies, 1):
            if known is words:
                return number
        self._vocabularies.append(words)
        return len(self._vocabularies)

    def ending(self, mode: str, step: int | None, lanes: list[Lane]) -> Ending:
        """Return what to `end`: the epoch of a mode, or what is not to count (None), so that it can be done again."""
        expected = self._expected.get(mode, 1 if step is None else step)
        if step is not None:
            expected = step + max(1, step - self._last.get(mode, expected - 1))
        return Ending(mode, step, self._attempts.get(mode, 1), expected, lanes)

    def end(self, ending: Ending) -> None:
        """Say that an epoch ended, all of whose rows were handed on, or that they are not to count.

        Of the latter, what is written stays. After an interrupt, this may be done again.
        """
        mode = ending.mode
        if self._attempts.get(mode, 1) > ending.attempt:
            return
        self._submit(self._end, ending)
        if ending.step is not None:
            self._last[mode] = ending.step
        self._expected[mode] = ending.expected
        self._attempts[mode] = ending.attempt + 1
        if ending.step is not None and self.recording.durable == "epoch":
            self.flush()

    def miss(self, lane: Lane, rows: int) -> None:
        """Say that so many rows of this attempt are not there to be recorded."""

        def note() -> None:
            lane.missing = rows

        self._submit(note)
        self._fail(
            f"the state that was loaded has {rows} samples of mode {lane.mode!r} as statistics only, so they are not "
            f"recorded; the run at {self.root} lacks them in this epoch. A larger max_buffer_bytes keeps them"
        )

    def _submit(self, job: Callable[..., Any], *args: Any, ticket: Ticket | None = None) -> bool:
        """Have a job done by the background thread; return whether there is one."""
        if self._pid != os.getpid():  # in a child that was forked there is none, and the files are the parent's
            return False
        if self._closed:
            self._fail("samples after close() are not recorded")
            return False
        self._jobs.put((ticket, job, args))
        return True

    def flush(self) -> None:
        """Wait until all that was handed on is written."""
        ticket = Ticket()
        if not self._closed and self._submit(int, ticket=ticket):
            ticket.wait()

    def close(self) -> None:
        """Write what is left, and leave the run; may be called again, after an interrupt for example."""
        if self._pid != os.getpid() or self._over.finished:
            return
        self._closed = True
        self._jobs.put((None, self._finish, ()))
        self._jobs.put(None)
        # A tracker that nobody needs any more may be found in any thread, also in this one.
        if threading.current_thread() is not self._thread:
            self._over.wait()
            if self._thread.is_alive():
                self._thread.join()

    def finish(self) -> None:
        """Hand everything on, and close; for when the tracker is gone."""
        try:
            self._leave()
        except BaseException:
            self._leave()  # nobody would do it later
            raise

    def _leave(self) -> None:
        if self._pid == os.getpid():
            for buffer in () if self._closed else self._buffers.values():
                buffer.hand_on()
            self.close()

    # -- the background thread ----------------------------------------------------------------------------

    def _fail(self, text: str) -> None:
        self.failure = self.failure or text

    def _guarded(self, job: Callable[..., Any], *args: Any) -> Any:
        """Run a job; what it raises is kept as the failure, as nobody waits for it."""
        try:
            return job(*args)
        except Exception as error:  # noqa: BLE001 (training must go on whatever it was)
            self._fail(
                f"recording to {self.root} failed: {error}. Training and statistics go on; the run lacks samples "
                "of this epoch, and recording is tried again with the next"
            )
            return None

    def _begin(self, mode: str, ds_id: str) -> None:
        """Say, once, that there is such a mode and dataset."""
        if (mode, ds_id) not in self._begun:
            self._begun.add((mode, ds_id))
            self._say("stream", sync=self.recording.fsync == "flush", mode=mode, ds_id=ds_id)

    def _say(self, event: str, *, sync: bool, **said: Any) -> None:
        """Have the journal say something; what could not be written comes first, or the next line would hide it."""
        self._unsaid.append((event, said))
        while self._unsaid:
            event, said = self._unsaid[0]
            self._journal.append(event, sync=sync, **said)
            del self._unsaid[0]

    def _write_words(self, number: int, words: Vocabulary, stop: int) -> None:
        """Write the words of a vocabulary up to a code, as far as they are not written."""
        first = self._words_written.get(number, 0)
        while first < stop:
            some: list[Any] = []
            characters = 0
            while first + len(some) < stop and len(some) < WORDS_A_LINE and characters < CHARACTERS_A_LINE:
                some.append(words.words[first + len(some)])
                characters += len(some[-1])
            kind = BYTES if isinstance(some[0], bytes) else STRING
            plain = [word.hex() if kind == BYTES else word for word in some]
            # Durable before the codes that use them, whatever the policy: without them the samples are worth nothing.
            self._journal.append("words", sync=True, vocabulary=number, kind=kind, first=first, words=plain)
            first += len(some)
            self._words_written[number] = first

    def _write(
        self,
        lane: Lane,
        kind: str,
        words: tuple[int, Vocabulary, int] | None,
        attempt: int,
        expected: int,
        chunk: Chunk,
        stop: int,
    ) -> None:
        """Write the rows of a chunk up to one, unless that was asked for before."""
        start = chunk.done
        if stop <= start:
            return
        self._came.add(lane.mode)
        try:
            self._write_rows(lane, kind, words, attempt, expected, chunk.labels[start:stop], chunk.values[start:stop])
        finally:
            chunk.done = stop

    def _write_rows(
        self,
        lane: Lane,
        kind: str,
        words: tuple[int, Vocabulary, int] | None,
        attempt: int,
        expected: int,
        labels: Array,
        values: Array,
    ) -> None:
        if lane.lost:
            lane.lost += labels.shape[0]
            return
        try:
            if words is not None:
                self._write_words(*words)
            labels = as_stored(labels, kind)
            wanted = (labels.dtype, values.dtype, kind, "" if words is None else str(words[0]))
            if lane.writer is not None and (lane.written_as != wanted or _is_large(lane.writer)):
                self._close_part(lane)
            if lane.writer is None:
                lane.writer, lane.written_as = self._open_part(lane, wanted, attempt, expected), wanted
            self._open = [*self._others_open(lane), lane]
            lane.writer.write(labels, values)
            if self.recording.fsync == "flush":
                lane.writer.sync()
        except Exception:
            lane.lost += labels.shape[0]
            if lane.writer is not None:
                lane.rows += lane.writer.rows
                lane.parts.append((lane.writer.open_path, lane.writer.rows, ""))
                lane.writer.abandon()
                lane.writer = None
            raise
        self.rows_written += labels.shape[0]

    def _open_part(self, lane: Lane, wanted: tuple[Any, ...], attempt: int, expected: int) -> PartWriter:
        label_dtype, value_dtype, kind, words = wanted
        self._member.stay()  # or a folder that was deleted would be made anew, with nothing else in it
        folder = self.root / folder_of(lane.mode, lane.ds_id, min(expected, LAST_STEP))
        folder.mkdir(parents=True, exist_ok=True)
        metadata = {
            "mode": lane.mode,
            "ds_id": lane.ds_id,
            "attempt": str(attempt),
            "index": str(len(lane.parts)),
            "kind": kind,
            "words": words,
            **self._member.identity(),
        }
        path = folder / part_name(self._member.session, self._member.rank, attempt, len(lane.parts))
        others = self._others_open(lane)
        writer: PartWriter | None = None
        while writer is None:
            try:
                if len(others) < most_open():
                    writer = PartWriter(path, label_dtype, value_dtype, metadata)
            except OSError as error:
                if error.errno not in EXHAUSTED or not others:
                    raise
            if writer is None:  # what is still to come of the one that has waited longest goes into another part
                self._close_part(others.pop(0))
        self._member.note_dtypes(kind if kind in (STRING, BYTES, BOOL) else label_dtype.name, value_dtype.name)
        return writer

    def _others_open(self, lane: Lane) -> list[Lane]:
        """Return the other lanes whose parts are open, the one that was written to last at the end."""
        return [other for other in self._open if other is not lane and other.writer is not None]

    def _close_part(self, lane: Lane, last: dict[str, str] | None = None) -> None:
        """Write the end of a lane's part, with a batch of no rows that says what is known by then."""
        writer, lane.writer = lane.writer, None
        if writer is None:
            return
        try:
            if last:
                empty = (np.empty(0, writer.dtypes["label"]), np.empty(0, writer.dtypes["value"]))
                writer.write(*empty, last)
            self._member.stay()
            writer.close(sync=self._syncs)
            rename(writer.open_path, writer.path)
        except BaseException:
            writer.abandon()
            lane.parts.append((writer.open_path, writer.rows, ""))
            lane.rows += writer.rows
            raise
        lane.parts.append((writer.path, writer.rows, writer.checksum))
        lane.rows += writer.rows
        if self._syncs:
            sync_folder(writer.path.parent)

    def _end(self, ending: Ending) -> None:
        """Close the parts of an attempt, and say in the journal that it is complete, and where its parts then are.

        Or that it is not to count; it is asked for a second time after some interrupts.
        """
        mode, step, attempt = ending.mode, ending.step, ending.attempt
        if attempt <= self._ended.get(mode, 0):
            return
        self._ended[mode] = attempt
        streams = []
        try:
            for lane in ending.lanes:
                if step is None:
                    self._close_part(lane)
                else:
                    streams.append(self._settle(lane, step))
        finally:
            # If one failed, the rows of the others may well be there, but nothing in this epoch says so with certainty.
            for lane in ending.lanes:
                lane.reset()
        if step is None:
            self._say("reset", sync=self._syncs, mode=mode, attempt=attempt)
        else:
            self._say("epoch", sync=self._syncs, mode=mode, step=step, attempt=attempt, streams=streams)

    def _settle(self, lane: Lane, step: int) -> dict[str, Any]:
        """Close the parts of a lane, put them where they belong, and return what there is to say of them."""
        self._close_part(lane, {"step": str(step)})
        self._member.stay()
        folder = self.root / folder_of(lane.mode, lane.ds_id, step)
        parts = [
            {"name": self._move(path, folder).name.removesuffix(OPEN), "rows": rows, "xxh3": xxh3}
            for path, rows, xxh3 in lane.parts
        ]
        return {"ds_id": lane.ds_id, "parts": parts, "rows": lane.rows, "lost": lane.lost + lane.missing}

    def _move(self, path: Path, folder: Path) -> Path:
        """Put a part into the folder of its epoch, which was not known when it was begun."""
        if path.parent == folder:
            return path
        folder.mkdir(parents=True, exist_ok=True)
        there = folder / path.name
        rename(path, there)
        if self._syncs:
            sync_folder(folder)
        with contextlib.suppress(OSError):
            path.parent.rmdir()  # if nothing else is in it
        return there

    def track(self, lane: Lane, buffer: HandedOnBuffer) -> None:
        """Remember columns, whose rows `close` then hands on."""
        self._buffers = {other: held for other, held in self._buffers.items() if not held.retired} | {lane: buffer}

    def _finish(self) -> None:
        if self._finished:
            return
        self._finished = True
        try:
            for lane in self._buffers:
                self._close_part(lane)
            some = self._came | self._ended.keys() | {lane.mode for lane in self._buffers if lane.missing}
            for mode in sorted({mode for mode, _ in self._begun} - some):  # its first batch was interrupted
                self._say("reset", sync=self._syncs, mode=mode, attempt=1)
            self._say("end", sync=self._syncs)
        finally:
            self._member.leave()


def _work(jobs: queue.SimpleQueue[Any], run: Callable[..., Any], over: Ticket) -> None:
    """Run jobs one after the other, until there is a None."""
    while (item := jobs.get()) is not None:
        ticket, job, args = item
        run(job, *args)
        if ticket is not None:
            ticket.finish()
        del item, ticket, job, args  # what the job had may be freed while this waits
    over.finish()


class _AtOnce:
    """Takes jobs where the system has no thread to give: each is done, in the caller's, before `put` returns."""

    def __init__(self, run: Callable[..., Any], over: Ticket) -> None:
        self._run, self._over = run, over

    def put(self, item: tuple[Ticket | None, Callable[..., Any], Any] | None) -> None:
        """Do a job; None is the end of them."""
        if item is not None:
            ticket, job, args = item
            self._run(job, *args)
            if ticket is not None:
                ticket.finish()
        elif not self._over.finished:
            self._over.finish()


def _is_large(writer: PartWriter) -> bool:
    return writer.rows * sum(int(dtype.itemsize) for dtype in writer.dtypes.values()) >= LARGEST_PART
