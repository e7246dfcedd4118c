"""Recording a run: what a tracker's columns hand on is written by one background thread.

`Recording` says where and how. `Recorder` joins the run, and writes; a `Lane` is what it has of one mode and dataset.
The training thread hands views of its columns on and goes on; whatever goes wrong is kept as `Recorder.failure`, for
the tracker to warn about, and never raised into training.
"""

from __future__ import annotations

import contextlib
import operator
import os
import queue
import threading
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from labeltrack._backlog import HandedOnBuffer
from labeltrack._journal import Journal, read_journal
from labeltrack._labels import BOOL, BYTES, FLOAT, STRING, UNSIGNED, Array, Vocabulary
from labeltrack._locks import Lock, is_held, locked
from labeltrack._parts import OPEN, PartWriter, need
from labeltrack._storage import LocalFolder
from labeltrack.store import (
    DESCRIPTION,
    LOCK,
    Contents,
    Description,
    contents_of,
    folder_of,
    journal_name,
    part_name,
    sync_folder,
    writer_lock,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from labeltrack._buffers import Dtype

Fsync = Literal["never", "epoch", "flush"]

LARGEST_PART = 256 * 2**20  # bytes; a part is what a machine of a cluster works on at a time
WORDS_A_LINE = 4096
CHARACTERS_A_LINE = 2**18


@dataclass(frozen=True)
class Recording:
    """Where and how a tracker records: what ``record_to`` takes when a path is not enough.

    Args:
        path: Folder of the run. Made if it is not there; if there is a run in it, that run goes on.
        flush_rows: Samples of a mode and dataset that are written at a time, 1024 to 1,048,576: what a crash costs at
            most, per mode and dataset.
        fsync: When to wait for the disk. ``"never"``: the operating system writes when it likes, which a crash of the
            process survives, and a crash of the machine does not. ``"epoch"``: when an epoch ends. ``"flush"``: at
            every write. It is a thread in the background that waits.
        rank: Number of this process, if several record one run; by default the environment variable ``RANK``, or 0.
        world_size: How many processes there are; by default ``WORLD_SIZE``, or 1.

    Raises:
        TypeError: An argument of the wrong type.
        ValueError: An unknown option, or a number out of its limits.

    Example:
        >>> Recording("runs/exp1", flush_rows=2**20, fsync="flush").world_size
        1
    """

    path: str | os.PathLike[str]
    flush_rows: int = 65_536
    fsync: Fsync = "epoch"
    rank: int | None = None
    world_size: int | None = None

    def __post_init__(self) -> None:
        """Check the arguments."""
        path: Any = self.path
        if not isinstance(path, (str, os.PathLike)) or not isinstance(os.fspath(path), str):
            msg = f"a run is recorded to a folder, given as a string or path, got {type(self.path).__name__}"
            raise TypeError(msg)
        if "://" in os.fspath(self.path):
            msg = f"a run is recorded to a folder of this machine, got {self.path}; copy it there afterwards"
            raise ValueError(msg)
        if self.fsync not in get_args(Fsync):
            msg = f"fsync: unknown option {self.fsync!r}; allowed are {', '.join(map(repr, get_args(Fsync)))}"
            raise ValueError(msg)
        object.__setattr__(self, "flush_rows", _number("flush_rows", self.flush_rows, 2**10, 2**20))
        size = _number("world_size", _of_environment("WORLD_SIZE", self.world_size, 1), 1, 10**6)
        rank = _number("rank", _of_environment("RANK", self.rank, 0), 0, size - 1)
        object.__setattr__(self, "world_size", size)
        object.__setattr__(self, "rank", rank)


def _of_environment(name: str, given: Any, default: int) -> Any:
    """Return what was given, else the environment variable that launchers such as torchrun set."""
    if given is not None:
        return given
    text = os.environ.get(name, "")
    return int(text) if text.isdecimal() else default


def _number(what: str, given: Any, least: int, most: int) -> int:
    try:
        number = operator.index(given)
    except TypeError:
        number = least - 1
    if isinstance(given, bool) or not least <= number <= most:
        msg = f"{what} must be an integer from {least} to {most}, got {given!r}"
        raise ValueError(msg)
    return number


@dataclass(eq=False)
class Lane:
    """What is recorded of one mode and dataset.

    Attributes:
        recorder: Where it goes.
        mode: Mode.
        ds_id: Dataset.
        kind: Kind of the labels; whoever hands rows on sets it before.
        words: What codes stand for, if the labels are strings or bytes.
    """

    recorder: Recorder
    mode: str
    ds_id: str
    kind: str
    words: Vocabulary | None
    # What follows is the business of the background thread.
    writer: PartWriter | None = None
    written_as: tuple[Any, ...] = ()
    parts: list[tuple[Path, int, str]] = field(default_factory=list)  # of the attempt: where they lie, rows, checksum
    rows: int = 0
    lost: int = 0  # rows that could not be written
    missing: int = 0  # rows that never came

    def __call__(self, labels: Array, values: Array) -> Future[Any]:
        """Hand rows on.

        Args:
            labels: ``(N,)`` keys, which must not change before the future is done.
            values: ``(N,)`` likewise.
        """
        return self.recorder.take(self, labels, values)

    def reset(self) -> None:
        """Begin anew, with another attempt."""
        if self.writer is not None:
            self.writer.abandon()
            self.writer = None
        self.parts, self.rows, self.lost, self.missing = [], 0, 0, 0

    def buffer(self, label_dtype: Dtype, value_dtype: Dtype) -> HandedOnBuffer:
        """Return columns that hand their rows on to this lane."""
        buffer = HandedOnBuffer(label_dtype, value_dtype, self, self.recorder.recording.flush_rows)
        self.recorder.track(self, buffer)
        return buffer


class Recorder:
    """Writes the samples of a run.

    Args:
        recording: Where and how.
        description: What is tracked.

    Attributes:
        failure: What went wrong first, and what that means; empty if nothing did.

    Raises:
        ImportError: pyarrow or xxhash is not installed, or does not work.
        OSError: The folder cannot be made or written to.
        RuntimeError: Another process records this run.
        ValueError: There is something else in the folder, or a run of something else.
    """

    def __init__(self, recording: Recording, description: Description) -> None:
        for module in ("xxhash", "pyarrow"):
            need(module)
        self.recording = recording
        self.root = Path(recording.path).absolute()
        self.failure = ""
        self._rank, self._size = recording.rank or 0, recording.world_size or 1
        self._attempts: dict[str, int] = {}
        self._expected: dict[str, int] = {}
        self._last: dict[str, int] = {}
        self._vocabularies: list[Vocabulary] = []
        self._words_written: dict[int, int] = {}  # by number of the vocabulary; of the background thread
        self._begun: set[tuple[str, str]] = set()
        self._buffers: dict[Lane, HandedOnBuffer] = {}
        self._lock = Lock(self.root / writer_lock(self._rank))
        self._pid = os.getpid()
        self._closed = False
        self.rows_written = 0
        self.root.mkdir(parents=True, exist_ok=True)
        self._description = self._join(description)
        # Not an executor: its locks are not to be taken in a garbage collection, which is where `finish` may be called.
        self._jobs: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._thread = threading.Thread(target=_work, args=(self._jobs, self._guarded), daemon=True)
        self._thread.name = "labeltrack-recorder"
        self._thread.start()

    # -- joining the run ----------------------------------------------------------------------------------

    def _join(self, description: Description) -> Description:
        """Take part in the run: agree on what it is of, on the number of this launch, and begin a journal."""
        with locked(self.root / LOCK):
            try:
                description = self._agree(description)
                self._own()
                contents = contents_of(LocalFolder(self.root))
                self.session = self._launch(contents)
                self._journal = Journal(self.root / journal_name(self.session, self._rank))
                self._journal.append(
                    "begin",
                    sync=self._syncs,
                    session=self.session,
                    rank=self._rank,
                    world_size=self._size,
                    run=description.plain(),
                )
            except BaseException:
                self._lock.release()
                raise
        if self._syncs:
            sync_folder(self.root)
        return description

    def _own(self) -> None:
        """See to it that no other process records as the same rank."""
        if not self._lock.acquire(wait=False):
            raise self._busy(self._rank)

    def _agree(self, description: Description) -> Description:
        """Write `run.json`, or see that the one that is there is of the same thing."""
        if not (self.root / DESCRIPTION).exists():
            others = [path.name for path in self.root.iterdir() if not path.name.startswith(".")]
            if others:
                msg = (
                    f"{self.root} is not empty, and there is no recorded run in it (no {DESCRIPTION}); "
                    "record to a folder of its own"
                )
                raise ValueError(msg)
            description.write(self.root)
            return description
        before = Description.read(LocalFolder(self.root))
        for name in ("metric", "label", "label_mapping", "nan_policy"):
            old, new = getattr(before, name), getattr(description, name)
            if old != new:
                msg = (
                    f"{self.root} is a run of {name} {old!r}, and this is {name} {new!r}; "
                    "go on with the same, or record to another folder"
                )
                raise ValueError(msg)
        after = replace(before, bounds=description.bounds)
        if after != before:
            after.write(self.root)
        return after

    def _launch(self, contents: Contents) -> int:
        """Return the number of this launch: that of the processes that run already, or a new one."""
        journals = contents.journals
        newest = max((session for session, _ in journals), default=0)
        others = [rank for session, rank in journals if session == newest and rank != self._rank]
        living = [rank for rank in others if is_held(self.root / writer_lock(rank))]
        if not living:
            return newest + 1
        with (self.root / journals[newest, living[0]]).open("rb") as file:
            lines = read_journal(file).lines
        size = lines[0].get("world_size") if lines else None
        if size != self._size:
            raise self._busy(living[0], size)
        return newest if (newest, self._rank) not in journals else newest + 1

    def _busy(self, rank: int, size: Any = None) -> RuntimeError:
        of = f" of {size}" if size is not None else ""
        msg = (
            f"another process is recording to {self.root} as number {rank}{of}, and this is number {self._rank} of "
            f"{self._size}. Record to another folder; or, if both belong to one training, give each a rank of its own "
            "(RANK and WORLD_SIZE, or labeltrack.Recording)"
        )
        return RuntimeError(msg)

    @property
    def _syncs(self) -> bool:
        return self.recording.fsync != "never"

    # -- the training thread ------------------------------------------------------------------------------

    def lane(self, mode: str, ds_id: str, kind: str, words: Vocabulary | None, expected: int) -> Lane:
        """Return what takes the samples of a mode and dataset.

        Args:
            mode: Mode.
            ds_id: Dataset.
            kind: Kind of the labels.
            words: What codes stand for.
            expected: The epoch that this will probably be, unless one of the mode has ended before.
        """
        self._attempts.setdefault(mode, 1)
        self._expected.setdefault(mode, expected)
        lane = Lane(self, mode, ds_id, kind, words)
        if (mode, ds_id) not in self._begun:
            self._begun.add((mode, ds_id))
            self._submit(self._say, "stream", mode=mode, ds_id=ds_id)
        return lane

    def take(self, lane: Lane, labels: Array, values: Array) -> Future[Any]:
        """Hand rows on to be written."""
        words = None if lane.words is None else (self._number(lane.words), lane.words, len(lane.words.words))
        attempt, expected = self._attempts[lane.mode], self._expected[lane.mode]
        return self._submit(self._write, lane, lane.kind, words, attempt, expected, labels, values)

    def _number(self, words: Vocabulary) -> int:
        """Return the number of a vocabulary, from 1 on."""
        for number, known in enumerate(self._vocabularies, 1):
            if known is words:
                return number
        self._vocabularies.append(words)
        return len(self._vocabularies)

    def end(self, mode: str, step: int, lanes: list[Lane]) -> Future[Any]:
        """End the epoch of a mode: all of its rows were handed on.

        Args:
            mode: Mode.
            step: Epoch or step.
            lanes: Those that have samples, in the order of the history.
        """
        before = self._last.get(mode, self._expected.get(mode, step) - 1)
        self._last[mode] = step
        done = self._submit(self._commit, mode, step, self._attempts.get(mode, 1), list(lanes))
        self._attempts[mode] = self._attempts.get(mode, 1) + 1
        self._expected[mode] = step + max(1, step - before)
        return done

    def miss(self, lane: Lane, rows: int) -> None:
        """Say that so many rows of this attempt are not there to be recorded."""

        def note() -> None:
            lane.missing += rows

        self._submit(note)
        self._fail(
            f"the state that was loaded has {rows} samples of mode {lane.mode!r} as statistics only, so they are not "
            f"recorded; the run at {self.root} lacks them in this epoch. A larger max_buffer_bytes keeps them"
        )

    def drop(self, mode: str, lanes: list[Lane]) -> None:
        """Say that the samples since the last end are not to count; what is written of them stays."""
        if lanes:
            self._submit(self._forget, mode, self._attempts.get(mode, 1), list(lanes))
            self._attempts[mode] = self._attempts.get(mode, 1) + 1

    def _submit(self, job: Callable[..., Any], *args: Any, **more: Any) -> Future[Any]:
        future: Future[Any] = Future()
        if self._pid != os.getpid():  # in a child that was forked there is no thread, and the files are the parent's
            future.set_result(None)
        elif self._closed:
            self._fail("samples after close() are not recorded")
            future.set_result(None)
        else:
            self._jobs.put((future, job, args, more))
        return future

    def flush(self) -> None:
        """Wait until all that was handed on is written."""
        if not self._closed:
            self._submit(int).result()

    def close(self) -> None:
        """Write what is left, and leave the run; may be called again."""
        if self._closed or self._pid != os.getpid():
            return
        done = self._submit(self._finish)
        self._closed = True
        self._jobs.put(None)
        # A tracker that nobody needs any more may be found in any thread, also in this one.
        if threading.current_thread() is not self._thread:
            done.result()
            self._thread.join()

    def finish(self) -> None:
        """Hand everything on, and close; for when the tracker is gone."""
        if not self._closed and self._pid == os.getpid():
            for buffer in self._buffers.values():
                buffer.hand_on()
            self.close()

    # -- the background thread ----------------------------------------------------------------------------

    def _fail(self, text: str) -> None:
        self.failure = self.failure or text

    def _guarded(self, job: Callable[..., Any], *args: Any, **more: Any) -> Any:
        """Run a job; what it raises is kept as the failure, as nobody waits for it."""
        try:
            return job(*args, **more)
        except Exception as error:  # noqa: BLE001 (training must go on whatever it was)
            self._fail(
                f"recording to {self.root} failed: {error}. Training and statistics go on; the run lacks samples "
                "of this epoch, and recording is tried again with the next"
            )
            return None

    def _say(self, event: str, **said: Any) -> None:
        self._journal.append(event, sync=self.recording.fsync == "flush", **said)

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
        labels: Array,
        values: Array,
    ) -> None:
        if lane.lost:
            lane.lost += labels.shape[0]
            return
        try:
            if words is not None:
                self._write_words(*words)
            labels = _as_labels(labels, kind)
            wanted = (labels.dtype, values.dtype, kind, "" if words is None else str(words[0]))
            if lane.writer is not None and (lane.written_as != wanted or _is_large(lane.writer)):
                self._close_part(lane)
            if lane.writer is None:
                lane.writer, lane.written_as = self._open_part(lane, wanted, attempt, expected), wanted
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
        if not self._journal.path.exists():  # or a folder that was deleted would be made anew, with nothing else in it
            msg = f"{self._journal.path} was deleted"
            raise FileNotFoundError(msg)
        folder = self.root / folder_of(lane.mode, lane.ds_id, expected)
        folder.mkdir(parents=True, exist_ok=True)
        metadata = {
            "mode": lane.mode,
            "ds_id": lane.ds_id,
            "session": str(self.session),
            "rank": str(self._rank),
            "attempt": str(attempt),
            "index": str(len(lane.parts)),
            "kind": kind,
            "words": words,
        }
        path = folder / part_name(self.session, self._rank, attempt, len(lane.parts))
        writer = PartWriter(path, label_dtype, value_dtype, metadata)
        pair = (kind if kind in (STRING, BYTES, BOOL) else label_dtype.name, value_dtype.name)
        if pair not in self._description.dtypes:
            self._note_dtypes(pair)
        return writer

    def _note_dtypes(self, pair: tuple[str, str]) -> None:
        # It is for information, and not worth a single row.
        with contextlib.suppress(OSError, ValueError), locked(self.root / LOCK):
            before = Description.read(LocalFolder(self.root))
            after = replace(before, dtypes=tuple(dict.fromkeys((*before.dtypes, pair))))
            if after != before:
                after.write(self.root)
            self._description = after

    def _close_part(self, lane: Lane, last: dict[str, str] | None = None) -> None:
        """Write the end of a lane's part, with a batch of no rows that says what is known by then."""
        writer, lane.writer = lane.writer, None
        if writer is None:
            return
        try:
            if last:
                empty = (np.empty(0, writer.dtypes["label"]), np.empty(0, writer.dtypes["value"]))
                writer.write(*empty, last)
            writer.close(sync=self._syncs)
        except BaseException:
            writer.abandon()
            lane.parts.append((writer.open_path, writer.rows, ""))
            lane.rows += writer.rows
            raise
        writer.open_path.replace(writer.path)
        if self._syncs:
            sync_folder(writer.path.parent)
        lane.parts.append((writer.path, writer.rows, writer.checksum))
        lane.rows += writer.rows

    def _commit(self, mode: str, step: int, attempt: int, lanes: list[Lane]) -> None:
        """Close the parts of an attempt, put them where they belong, and say in the journal that it is complete."""
        try:
            streams = [self._settle(lane, step) for lane in lanes]
        finally:
            # If one failed, the rows of the others may well be there, but nothing in this epoch says so with certainty.
            for lane in lanes:
                lane.reset()
        self._journal.append("epoch", sync=self._syncs, mode=mode, step=step, attempt=attempt, streams=streams)

    def _settle(self, lane: Lane, step: int) -> dict[str, Any]:
        """Close the parts of a lane, put them where they belong, and return what there is to say of them."""
        self._close_part(lane, {"step": str(step)})
        folder = self.root / folder_of(lane.mode, lane.ds_id, step)
        moved = [(self._move(path, folder), rows, xxh3) for path, rows, xxh3 in lane.parts]
        names = [path.name.removesuffix(OPEN) for path, _, _ in moved]
        return {
            "ds_id": lane.ds_id,
            "parts": [
                {"name": name, "rows": rows, "xxh3": xxh3} for name, (_, rows, xxh3) in zip(names, moved, strict=True)
            ],
            "rows": lane.rows,
            "lost": lane.lost + lane.missing,
        }

    def _move(self, path: Path, folder: Path) -> Path:
        """Put a part into the folder of its epoch, which was not known when it was begun."""
        if path.parent == folder:
            return path
        folder.mkdir(parents=True, exist_ok=True)
        there = folder / path.name
        path.replace(there)
        if self._syncs:
            sync_folder(folder)
        with contextlib.suppress(OSError):
            path.parent.rmdir()  # if nothing else is in it
        return there

    def _forget(self, mode: str, attempt: int, lanes: list[Lane]) -> None:
        try:
            for lane in lanes:
                self._close_part(lane)
        finally:
            for lane in lanes:
                lane.reset()
        self._journal.append("reset", sync=self._syncs, mode=mode, attempt=attempt)

    def track(self, lane: Lane, buffer: HandedOnBuffer) -> None:
        """Remember columns, whose rows `close` then hands on."""
        for other in [other for other in self._buffers if (other.mode, other.ds_id) == (lane.mode, lane.ds_id)]:
            del self._buffers[other]
        self._buffers[lane] = buffer

    def _finish(self) -> None:
        try:
            for lane in self._buffers:
                self._close_part(lane)
            self._journal.append("end", sync=self._syncs)
        finally:
            self._journal.close(sync=False)
            self._lock.release()


def _work(jobs: queue.SimpleQueue[Any], run: Callable[..., Any]) -> None:
    """Run jobs one after the other, until there is a None."""
    while (item := jobs.get()) is not None:
        future, job, args, more = item
        future.set_result(run(job, *args, **more))
        del item, future, job, args  # what the job had may be freed while this waits


def _is_large(writer: PartWriter) -> bool:
    return writer.rows * sum(int(dtype.itemsize) for dtype in writer.dtypes.values()) >= LARGEST_PART


def _as_labels(keys: Array, kind: str) -> Array:
    """Return keys as the labels they stand for, where Arrow has a type for these."""
    if kind == FLOAT:
        return keys.view(np.float64)
    if kind == UNSIGNED:
        return keys.view(np.uint64) if keys.dtype.itemsize == 8 else keys.astype(np.uint64)
    return keys
