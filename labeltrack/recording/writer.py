"""Writing the files of a run, in one thread: parts with samples, and the journal that says which of them count."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from labeltrack._core.arrays import Array
from labeltrack._labels.codes import BOOL, BYTES, STRING, Vocabulary, as_stored
from labeltrack._labels.combination_codes import Combinations
from labeltrack.recording.description import ID, Coded, said_of
from labeltrack.recording.keys import Split
from labeltrack.recording.layout import LAST_STEP, folder_of, part_name
from labeltrack.recording.part import OPEN, PartWriter
from labeltrack.recording.session import Membership
from labeltrack.recording.storage import EXHAUSTED, rename, sync_folder

resource: Any
try:
    import resource
except ImportError:  # pragma: no cover (Windows)
    resource = None

if TYPE_CHECKING:
    from pathlib import Path

    from labeltrack._buffers import Chunk
    from labeltrack._buffers import Rows as Arrays
    from labeltrack.recording.description import Description, Ids
    from labeltrack.recording.options import RecordingOptions

T = TypeVar("T")

LARGEST_PART = 256 * 2**20  # bytes; a part is what one task of a cluster reads
WORDS_A_LINE = 4096
CHARACTERS_A_LINE = 2**18
MOST_OPEN = 32  # parts


@dataclass(eq=False)
class Lane:
    """What is recorded of one mode and dataset."""

    mode: str
    ds_id: str
    words: Vocabulary | None  # what codes stand for, if labels are strings, bytes or combinations
    ids: Ids | None = None  # what ids are, the last of the further columns of chunks; None without
    # The rest belongs to the writing thread.
    part: PartWriter | None = None
    written_as: tuple[Any, ...] = ()  # form of the rows in the part
    parts: list[tuple[Path, int, str]] = field(default_factory=list)  # of the attempt: path, rows, checksum
    lost: int = 0  # rows that could not be written
    missing: int = 0  # rows that were never handed on


class _Rows(NamedTuple):
    """Rows as they are written."""

    columns: dict[str, Array]
    said: dict[str, str]  # what the part says of the columns
    types: list[str]  # what `run.json` says of them

    @property
    def form(self) -> tuple[dict[str, Any], dict[str, str]]:
        """What the rows of a part have in common."""
        return {name: column.dtype for name, column in self.columns.items()}, self.said


class RunWriter:
    """Writes the files of a run; its methods are called in one thread, in the order in which things happened."""

    def __init__(self, options: RecordingOptions, description: Description) -> None:
        self._member = Membership(options, description)
        self.root, self.notes = self._member.root, self._member.notes
        self._syncs, self._flushes = options.fsync != "never", options.fsync == "flush"
        self._begun: set[tuple[str, str]] = set()  # modes and datasets
        self._came: set[str] = set()  # modes of which there was something to write
        self._ended: dict[str, int] = {}  # the last attempt that ended, by mode
        self._pending: list[tuple[str, dict[str, Any]]] = []  # lines that are still to be written
        self._words: dict[Vocabulary, tuple[int, int]] = {}  # its number, from 1 on; how many words are written
        self._splits: dict[Vocabulary, Split] = {}  # of combinations
        self._open: list[Lane] = []  # the lane that was written to last comes last

    def begin(self, mode: str, ds_id: str) -> None:
        """Record, once, that there is such a mode and dataset."""
        if (mode, ds_id) not in self._begun:
            self._begun.add((mode, ds_id))
            self._log("stream", sync=self._flushes, mode=mode, ds_id=ds_id)

    def write(self, lane: Lane, chunk: Chunk, stop: int, kind: str, attempt: int, expected: int) -> None:
        """Write the rows of a chunk up to `stop`, unless that was done before."""
        start = chunk.done
        if stop <= start:
            return
        self._came.add(lane.mode)
        try:
            if lane.lost:
                lane.lost += stop - start
            else:
                rows = self._stored(lane, tuple(column[start:stop] for column in chunk.columns), kind)
                self._append(lane, rows, attempt, expected)
        except Exception:
            lane.lost += stop - start
            self._abandon(lane)
            raise
        finally:
            chunk.done = stop

    def end(self, mode: str, step: int | None, attempt: int, lanes: list[Lane], adds: bool) -> None:
        """Close the parts of an attempt and record in the journal that it is complete or, without a step, dropped."""
        if attempt <= self._ended.get(mode, 0):  # a second call, after an interrupt
            return
        self._ended[mode] = attempt
        streams = []
        more = {"adds": True} if adds else {}
        try:
            for lane in lanes:
                if step is None:
                    self._close(lane)
                else:
                    streams.append(self._settle(lane, step, dict.fromkeys(more, "true")))
        finally:
            # If one failed, rows of the others may be there, but nothing in this epoch says so with certainty.
            for lane in lanes:
                self._abandon(lane)
                lane.parts, lane.lost, lane.missing = [], 0, 0
        if step is None:
            self._log("reset", sync=self._syncs, mode=mode, attempt=attempt)
        else:
            self._log("epoch", sync=self._syncs, mode=mode, step=step, attempt=attempt, streams=streams, **more)

    def finish(self, lanes: Iterable[Lane]) -> None:
        """Close the parts of these lanes, and leave the run."""
        try:
            for lane in lanes:
                self._close(lane)
            some = self._came | self._ended.keys() | {lane.mode for lane in lanes if lane.missing}
            for mode in sorted({mode for mode, _ in self._begun} - some):  # its first batch was interrupted
                self._log("reset", sync=self._syncs, mode=mode, attempt=1)
            self._log("end", sync=self._syncs)
        finally:
            self._member.leave()

    # -- the journal --------------------------------------------------------------------------------------

    def _log(self, event: str, *, sync: bool, **fields: Any) -> None:
        """Append a line, after earlier ones that could not be written, which it would hide otherwise."""
        self._pending.append((event, fields))
        while self._pending:
            event, fields = self._pending[0]
            self._member.journal.append(event, sync=sync, **fields)
            del self._pending[0]

    def _number(self, words: Vocabulary | None) -> str:
        """Return the number of a vocabulary as text, after its words so far are written; empty for none."""
        if words is None:
            return ""
        number, first = self._words.get(words, (len(self._words) + 1, 0))
        stop = len(words.words)  # another thread may add some
        while first < stop:
            some = words.words[first : min(stop, first + WORDS_A_LINE)]
            before = accumulate(map(len, some), initial=0)
            some = [word for word, characters in zip(some, before, strict=False) if characters < CHARACTERS_A_LINE]
            kind = BYTES if isinstance(some[0], bytes) else STRING
            plain = [word.hex() if kind == BYTES else word for word in some]
            # Durable before the codes that use them, under any policy: without them the samples are worth nothing.
            self._member.journal.append("words", sync=True, vocabulary=number, kind=kind, first=first, words=plain)
            first += len(some)
            self._words[words] = number, first
        return str(number)

    # -- parts --------------------------------------------------------------------------------------------

    def _stored(self, lane: Lane, columns: Arrays, kind: str) -> _Rows:
        """Return ``(N,)`` columns of a chunk as they are written, once the words that they need are."""
        keys, *others = columns
        found = [(as_stored(keys, kind), kind, lane.words)]
        if isinstance(lane.words, Combinations):
            found = self._splits.setdefault(lane.words, Split(lane.words)).columns(keys, kind)
        labels = [Coded(of, self._number(words)) for _, of, words in found]
        ids = None if lane.ids is None else Coded(lane.ids.kind, self._number(lane.ids.words))
        names = self._member.description.columns._replace(ids=ids is not None)
        arrays = dict(zip(names.names, [*(column for column, *_ in found), *others], strict=True))
        coded = dict(zip(names.labels, labels, strict=True)) | ({ID: ids} if ids else {})
        types = [
            coded[name].kind if name in coded and coded[name].kind in (STRING, BYTES, BOOL) else column.dtype.name
            for name, column in arrays.items()
        ]
        return _Rows(arrays, said_of(names, labels, ids), types)

    def _append(self, lane: Lane, rows: _Rows, attempt: int, expected: int) -> None:
        """Append rows to the part of a lane, or to a new one if they do not fit it."""
        if lane.part is not None and (lane.written_as != rows.form or lane.part.nbytes >= LARGEST_PART):
            self._close(lane)
        if lane.part is None:
            lane.part, lane.written_as = self._opened(lane, rows, attempt, expected), rows.form
        self._open = [*self._others_open(lane), lane]
        lane.part.write(list(rows.columns.values()))
        if self._flushes:
            lane.part.sync()

    def _opened(self, lane: Lane, rows: _Rows, attempt: int, expected: int) -> PartWriter:
        self._member.ensure_present()  # otherwise a deleted folder would be recreated without the rest
        if ID in rows.columns and self._member.note_ids():
            self._log("run", sync=self._syncs, run=self._member.description.plain())
        folder = self.root / folder_of(lane.mode, lane.ds_id, min(expected, LAST_STEP))
        own = {"mode": lane.mode, "ds_id": lane.ds_id, "attempt": str(attempt), "index": str(len(lane.parts))}
        metadata = {**own, **rows.said, **self._member.identity()}
        path = folder / part_name(self._member.session, self._member.rank, attempt, len(lane.parts))
        others = self._others_open(lane)
        while True:
            try:
                if len(others) < _most_open():
                    part = self._within(folder, lambda: PartWriter(path, rows.form[0], metadata))
                    break
            except OSError as error:
                if error.errno not in EXHAUSTED or not others:
                    raise
            self._close(others.pop(0))  # the lane that has waited longest continues in another part
        self._member.note_dtypes(*rows.types)
        return part

    def _others_open(self, lane: Lane) -> list[Lane]:
        return [other for other in self._open if other is not lane and other.part is not None]

    def _close(self, lane: Lane, last: dict[str, str] | None = None) -> None:
        """Close the part of a lane; `last` is what is known by then, written with a batch of no rows."""
        part = lane.part
        if part is None:
            return
        try:
            if last:
                part.end(last)
            self._member.ensure_present()
            part.close(sync=self._syncs)
            rename(part.open_path, part.path)
        except BaseException:
            self._abandon(lane)
            raise
        lane.part = None
        lane.parts.append((part.path, part.rows, part.checksum))
        if self._syncs:
            sync_folder(part.path.parent)

    def _abandon(self, lane: Lane) -> None:
        """Leave the part of a lane as it is."""
        part, lane.part = lane.part, None
        if part is not None:
            part.abandon()
            lane.parts.append((part.open_path, part.rows, ""))

    def _settle(self, lane: Lane, step: int, more: dict[str, str]) -> dict[str, Any]:
        """Close the parts of a lane, move them to their epoch, and return what the journal says of them."""
        self._close(lane, {"step": str(step), **more})
        self._member.ensure_present()
        folder = self.root / folder_of(lane.mode, lane.ds_id, step)
        parts = [
            {"name": self._move(path, folder).name.removesuffix(OPEN), "rows": rows, "xxh3": xxh3}
            for path, rows, xxh3 in lane.parts
        ]
        rows = sum(rows for _, rows, _ in lane.parts)
        return {"ds_id": lane.ds_id, "parts": parts, "rows": rows, "lost": lane.lost + lane.missing}

    def _move(self, path: Path, folder: Path) -> Path:
        """Move a part to the folder of its epoch, which was not known when it was begun."""
        if path.parent == folder:
            return path
        there = folder / path.name
        self._within(folder, lambda: rename(path, there))
        if self._syncs:
            sync_folder(folder)
        with contextlib.suppress(OSError):
            path.parent.rmdir()  # if nothing else is in it
        return there

    def _within(self, folder: Path, make: Callable[[], T]) -> T:
        """Make a file in a folder, which is made first; another process removes it if it finds it empty (`_move`)."""
        for _ in range(100):
            with contextlib.suppress(FileNotFoundError, FileExistsError):
                folder.mkdir(parents=True, exist_ok=True)
                return make()
            if folder.exists():
                break
            self._member.ensure_present()
        folder.mkdir(parents=True, exist_ok=True)
        return make()


def _most_open() -> int:
    """Return how many parts may be open: with two descriptors each, an eighth of those that a process may have."""
    soft = -1 if resource is None else resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return MOST_OPEN if soft < 0 else max(1, min(MOST_OPEN, soft // 16))
