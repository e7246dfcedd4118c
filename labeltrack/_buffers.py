"""Preallocated growable columns for the samples of one stream.

Rows are kept in chunks. A full chunk is never copied or moved: growing means one more chunk, and a batch of a wider
dtype starts a chunk of that dtype. Emptying keeps the memory, so nothing is allocated from the second epoch on.

An exception, from a signal handler for example, may occur between any two steps, and another thread may run. So every
change is a single assignment; one that takes several is decided in a single one first (`_plan`), and the next call
completes it. Only `try_append` may be called by several threads at once: it marks the chunk it writes to as busy.
Between checking and setting that mark, CPython with a GIL runs no other thread or signal handler; a lock would take
0.2 us.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from labeltrack._core.arrays import Array, cast, from_page, size_of
from labeltrack._labels.combination_codes import CODED, Uncoded

Dtype = np.dtype[Any]
Budget = Callable[[], int]
Rows = tuple[Array, ...]
"""Columns of as many rows: labels, values, and further ones."""

Placed = tuple[int, Rows]
"""How many own rows come before rows from elsewhere, and these."""

FIRST_ROWS = 1 << 12
PATIENCE = 10.0  # seconds to wait for another thread that is copying a batch, which takes it microseconds
_GIL: bool = getattr(sys, "_is_gil_enabled", lambda: True)()  # without it, every batch takes the lock
REFUSED = (ValueError, TypeError, NotImplementedError, BufferError)
"""What writing through a view raises for memory of another dtype or shape."""
# Columns stay below the 4 MiB from which numpy asks for huge pages: the first access to one takes up to 5 ms in a
# virtual machine. With four times as many rows, the slowest append was 11 ms instead of 0.3.
LARGEST_ROWS = 1 << 18


@dataclass(slots=True, eq=False)
class Chunk:
    """Rows ``[0, used)`` of two columns or more, written through views: three times as fast as checking and copying."""

    labels: Array
    values: Array
    more: Rows = ()  # the values of further metrics, float32 or float64, and int64 ids of samples
    used: int = 0
    coded: int = 0  # rows whose labels are written; those of others wait in `SampleBuffer.raw`
    limit: int = field(init=False)  # up to which row `try_append` may fill it
    busy: bool = False  # whether `try_append` is writing to it
    asked: int = 0  # up to which row others are to read it
    handed: int = 0  # up to which row they know of it
    done: int = 0  # up to which row they have read it; see `recording.recorder`
    label_view: Any = field(init=False)
    value_view: Any = field(init=False)
    more_views: tuple[Any, ...] = field(init=False)
    width: int = field(init=False)
    columns: Rows = field(init=False)
    dtypes: tuple[Dtype, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.limit = self.labels.shape[0]
        # numpy 1.26's stubs do not know that its arrays are buffers.
        columns: tuple[Any, ...] = (self.labels, self.values, *self.more)
        self.columns, self.dtypes = columns, tuple([column.dtype for column in columns])
        self.label_view, self.value_view, *more = (memoryview(column) for column in columns)
        self.more_views = tuple(more)
        self.width = len(columns)


CLOSED = Chunk(np.empty(0, np.int64), np.empty(0, np.float32))
"""Takes the place of the open chunk while `try_append` may not write: it has no room."""


class Held(NamedTuple):
    """All that a buffer holds, replaced in one assignment."""

    chunks: list[Chunk]
    at: int = 0  # number of the chunk to append to; those after it are empty
    emptied: tuple[Chunk, ...] = ()  # that others still read
    folded: Any = None  # what is kept of rows that were folded
    merged: tuple[Placed, ...] = ()  # rows from elsewhere, which are not handed on, in the order in which they count


class Plan(NamedTuple):
    """A change that is decided, and may be carried out any number of times."""

    kind: str
    used: list[tuple[Chunk, int]]
    held: Held


class SampleBuffer:
    """Growable columns, labels and values and perhaps more, appended to together."""

    __slots__ = ("_batch", "_held", "_plan", "dtypes", "kind", "open", "paused", "raw", "retired", "wide")

    def __init__(self, label_dtype: Dtype, value_dtype: Dtype, kind: str = "", more: tuple[Dtype, ...] = ()) -> None:
        self.dtypes: tuple[Dtype, ...] = (label_dtype, value_dtype, *more)
        self.kind = kind
        self.raw = CODED  # or where `try_append` writes several labels per sample, coded later, many at a time
        self.paused = False  # whether rows are not handed on for now
        self.retired = False  # whether other columns have replaced these
        self._batch = 0  # rows of the batch before
        self._plan: Plan | None = None
        self._held = Held([self._no_rows()])
        self.open = self.wide = CLOSED  # what `try_append` writes to: with two columns, and with more

    def __len__(self) -> int:
        """Return the number of rows."""
        held = self.completed()
        return sum(chunk.used for chunk in held.chunks) + sum(len(rows[0]) for _, rows in held.merged)

    def empty(self) -> bool:
        """Return whether there are no rows."""
        held = self.completed()
        return not (held.chunks[held.at].used or len(self))

    @property
    def nbytes(self) -> int:
        """Bytes allocated."""
        held = self._held
        chunks = sum(size_of(chunk.columns) for chunk in (*held.chunks, *held.emptied))
        return chunks + sum(size_of(rows) for _, rows in held.merged)

    @property
    def merged(self) -> tuple[Placed, ...]:
        """Rows from elsewhere."""
        return self.completed().merged

    @property
    def folded(self) -> Any:
        """What is kept of rows that were folded."""
        return self.completed().folded

    def try_append(self, labels: Any, values: Any, kind: str = "", more: tuple[Any, ...] = ()) -> bool:
        """Append ``(N,)`` rows, any buffers or what `raw` takes, if the open chunk has room, their kind and dtypes.

        `LabelTracker.update` has this written out for numpy arrays: keep both alike. False, with nothing changed, if
        there are no rows yet, another thread is writing, or an object is no array and not as long as the last batch.
        """
        # Other objects take longer to say how many rows they have than to be copied.
        rows = values.size if type(values) is np.ndarray else self._batch
        width = 2 + len(more)
        chunk = self.wide if more else self.open
        start = chunk.used
        end = start + rows
        if not start or end > chunk.limit or self.kind != kind or chunk.width != width or chunk.busy:
            return False
        try:
            try:  # first, as no line between it and the next is guarded by the other one
                chunk.busy = True
                if self.raw is CODED:
                    chunk.label_view[start:end] = labels
                else:
                    self.raw.write(labels, start - chunk.coded, end - chunk.coded)
                chunk.value_view[start:end] = values
                place = 0
                for view in chunk.more_views:  # `zip` takes 0.2 us
                    view[start:end] = more[place]
                    place += 1  # noqa: SIM113 (so does `enumerate`)
                chunk.used = end
                chunk.busy = False
                return True  # noqa: TRY300 (an `else` would not be guarded)
            except REFUSED:
                chunk.busy = False
                if chunk.used != start:
                    raise  # by a signal handler: the rows are in
        except BaseException:
            chunk.busy = False
            raise
        return False

    def append(
        self, labels: Array, values: Array, budget: Budget | None = None, kind: str | None = None, more: Rows = ()
    ) -> bool:
        """Append ``(N,)`` rows, growing and widening columns; or none, and return False, if more bytes than the budget.

        `kind` is that of all labels from now on, None for the same. Errors change nothing.
        """
        self.seal()
        columns = labels, values, *more
        dtypes = tuple([column.dtype for column in columns])
        if dtypes != self.dtypes:
            dtypes = tuple([np.promote_types(*pair) for pair in zip(self.dtypes, dtypes, strict=True)])
        rows = labels.shape[0]
        held = self._held
        room = sum([c.labels.shape[0] - c.used for c in held.chunks[held.at :] if c.dtypes == dtypes])
        if rows > room:
            room += self._regain(dtypes)
        if rows > room:
            size = self._next_size(rows - room, sum(dtype.itemsize for dtype in dtypes), budget and budget())
            if not size:
                return False
            chunk = self._chunk(*[from_page(size, dtype) for dtype in dtypes])
            held = self._held
            at = sum(len(each.labels) > 0 for each in held.chunks[: held.at])  # a new buffer has one of no rows
            self._held = held._replace(chunks=[*(c for c in held.chunks if len(c.labels)), chunk], at=at)
        self.dtypes, self._batch = dtypes, rows
        held = self._held
        at, done, used = held.at, 0, []
        while done < rows:
            chunk = held.chunks[at]
            n = min(rows - done, len(chunk.labels) - chunk.used)
            if n == 0 or chunk.dtypes != dtypes:
                at += 1
                continue
            end = chunk.used + n
            for column, given in zip(chunk.columns, columns, strict=True):
                column[chunk.used : end] = cast(given[done : done + n], column.dtype, copy=False)
            used.append((chunk, end))
            done += n
            at += done < rows
        self._carry_out(Plan(self.kind if kind is None else kind, used, held._replace(at=at)))
        for chunk, _ in used:
            self._filled(chunk)
        self._reopen()
        return True

    def expect(self, raw: Uncoded) -> None:
        """Code the labels that wait, and have others wait there from now on."""
        self.seal()
        self.raw = raw
        self._reopen()

    def fold_in(self, folded: Any, rows: Rows, kind: str) -> None:  # noqa: ARG002 (for subclasses)
        """Replace what is kept of folded rows, those of `rows` included, which subclasses hand on."""
        self.seal()
        self._carry_out(Plan(kind, [], self._held._replace(folded=folded)))

    def merge_in(self, merged: tuple[Placed, ...], folded: Any, kind: str) -> None:
        """Replace the rows from elsewhere, which are not copied, and what is kept of folded rows."""
        self.seal()
        self._carry_out(Plan(kind, [], self._held._replace(folded=folded, merged=merged)))
        self._reopen()

    def hand_on(self, *, asked: bool = False) -> None:
        """Do nothing; for subclasses that hand rows on."""

    def seal(self) -> None:
        """Stop `try_append`, and complete what an interrupt left. RuntimeError: a thread does not finish its batch."""
        self.open = self.wide = CLOSED
        held = self.completed()
        chunk = held.chunks[held.at]
        since = time.monotonic()
        while chunk.busy:
            if time.monotonic() - since > PATIENCE:
                msg = (
                    f"a batch has been on its way into the tracker for {PATIENCE:g} s: its thread is held up, or this "
                    "was called by a signal handler within update(); nothing was changed"
                )
                raise RuntimeError(msg)
            time.sleep(0)
        chunk.coded = self._ready(chunk)

    def retire(self) -> None:
        """Stop `try_append` for good: other columns replace these."""
        self.retired = True
        self.seal()

    def left_alone(self) -> None:  # pragma: no cover (in a forked process, where nothing is measured)
        """Release chunks in a forked process, where the threads of its parent do not exist."""
        for chunk in self._held.chunks:
            chunk.busy = False

    def rows(self) -> list[Rows]:
        """Return the rows as tuples of contiguous arrays, without copying, in the order in which they count."""
        found: list[Rows] = []
        merged, start = list(self.merged), 0
        for own in self.own_rows():
            rest, stop = own, start + own[0].shape[0]
            while merged and merged[0][0] < stop:
                place, rows = merged.pop(0)
                found += [tuple(column[: place - start] for column in rest), rows]
                rest, start = tuple(column[place - start :] for column in rest), place
            found, start = [*found, rest], stop
        return [rows for rows in (*found, *(rows for _, rows in merged)) if rows[0].shape[0]]

    def own_rows(self) -> list[Rows]:
        """Return the rows that were appended, likewise."""
        filled = [(chunk, self._ready(chunk)) for chunk in self.completed().chunks]
        return [tuple(column[:used] for column in chunk.columns) for chunk, used in filled if used]

    def clear(self, folded: Any = None) -> None:
        """Forget the rows, keeping memory, in larger chunks, and `folded`, what is kept of rows that are folded."""
        self.seal()
        free, emptied = self._free()
        chunks = [self._chunk(*columns) for columns in self._memory(free)] or [self._no_rows()]
        self._held = Held(chunks, 0, emptied, folded)
        self._reopen()

    def shrink(self, nbytes: int) -> None:
        """Free memory until at most `nbytes` are allocated. The buffer must be empty."""
        self.seal()
        chunks = list(self._held.chunks)
        while chunks and sum(size_of(chunk.columns) for chunk in chunks) > nbytes:
            chunks.pop()
        self._held = self._held._replace(chunks=chunks or [self._no_rows()], at=0)

    def _ready(self, chunk: Chunk) -> int:
        """Return how many rows of a chunk there are, with the codes of all their labels written."""
        used, raw = chunk.used, self.raw
        if raw is not CODED and used > chunk.coded:
            chunk.labels[chunk.coded : used] = raw.codes(used - chunk.coded)
        return used

    def completed(self) -> Held:
        """Complete what was decided, and return what is held."""
        plan = self._plan
        if plan is not None:
            for chunk, used in plan.used:
                chunk.coded = chunk.used = used
            if plan.kind != self.kind:
                self.raw, self.kind = CODED, plan.kind
            self._held = plan.held
            self._plan = None
        return self._held

    def _carry_out(self, plan: Plan) -> None:
        self._plan = plan  # from here on, the rows are in
        self.completed()

    def _reopen(self) -> None:
        if _GIL and not self.retired:
            chunk = self._held.chunks[self._held.at]
            if chunk.more:
                self.wide = chunk
            else:
                self.open = chunk

    def _no_rows(self) -> Chunk:
        labels, values, *more = (np.empty(0, dtype) for dtype in self.dtypes)
        return Chunk(labels, values, tuple(more))

    def _free(self) -> tuple[list[Chunk], tuple[Chunk, ...]]:
        """Return the chunks whose memory can be reused, and those that others still read."""
        return self._held.chunks, ()

    def _memory(self, chunks: list[Chunk]) -> list[Rows]:
        """Return as much memory as chunks have: theirs, unless their dtypes are others or several are small."""
        kept = [chunk for chunk in chunks if chunk.dtypes == self.dtypes]
        if sum(len(chunk.labels) < LARGEST_ROWS for chunk in kept) > 1:  # the end of each costs 40 us, reducing it 25
            kept = [chunk for chunk in kept if len(chunk.labels) >= LARGEST_ROWS]
        short = sum(len(chunk.labels) for chunk in chunks) - sum(len(chunk.labels) for chunk in kept)
        whole, rest = divmod(short, LARGEST_ROWS)
        fresh = [tuple([from_page(size, dtype) for dtype in self.dtypes]) for size in (*[LARGEST_ROWS] * whole, rest)]
        return [rows for rows in (*(chunk.columns for chunk in kept), *fresh) if rows[0].size]

    def _chunk(self, labels: Array, values: Array, *more: Array) -> Chunk:
        """Return a chunk without rows."""
        return Chunk(labels, values, more)

    def _filled(self, chunk: Chunk) -> None:
        """Do nothing; for subclasses that do something with rows that were appended to a chunk."""

    def _regain(self, dtypes: tuple[Dtype, ...]) -> int:  # noqa: ARG002 (for subclasses)
        """Return for how many more rows of those dtypes there is room without allocating; none here."""
        return 0

    def _next_size(self, short: int, row: int, budget: int | None) -> int:
        """Return the number of rows of the next chunk: that of all others, within limits; 0 if over the budget."""
        have = sum(len(chunk.labels) for chunk in self._held.chunks)
        size = max(short, min(LARGEST_ROWS, max(FIRST_ROWS, have)))
        if budget is not None:
            size = min(size, budget // row)
        return size if size >= short else 0
