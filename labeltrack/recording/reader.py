"""Reading recorded parts batch by batch, comparing all checksums and counting torn and damaged rows."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from labeltrack._labels.codes import BOOL, BYTES, INTEGER, STRING
from labeltrack.errors import DamagedRunError, TruncatedRunError, counted, listing
from labeltrack.recording.keys import DTYPES, Column
from labeltrack.recording.layout import begin_part, size_of
from labeltrack.recording.part import OPEN, Part
from labeltrack.recording.schema import ID, read_coded
from labeltrack.recording.storage import EXHAUSTED, FileContent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Self

    from labeltrack.recording.arrow_ipc import Batch
    from labeltrack.recording.epochs import PartEntry
    from labeltrack.recording.schema import Coded, Columns
    from labeltrack.recording.storage import Storage

Array = npt.NDArray[Any]
T = TypeVar("T")

_WIDENED = {STRING, BYTES, BOOL}  # kinds that early versions wrote as int64 after a checkpoint had been loaded
PATIENCE = 1.0  # seconds before a progress bar is shown
KEPT_OPEN = 16  # parts of an unfinished epoch that stay open, so that they can be read after they were renamed


@dataclass
class PartResult:
    """What was read from a part."""

    name: str  # relative to the run
    rows: int = 0  # intact ones
    lost: int = 0  # missing or damaged ones
    torn: bool = False  # the file ends too early, and nothing else is wrong with it
    message: str = ""  # what is wrong; empty: nothing


class Rows(NamedTuple):
    """Samples of a batch whose checksum agrees.

    Attributes:
        labels: ``(N,)`` labels, or codes of the words of their column, of each label; see `Column`.
        values: ``(N,)`` float32 or float64, of each metric.
        ids: ``(N,)`` int64, ids or codes of the words of their column; None without.
    """

    labels: list[Array]
    values: list[Array]
    ids: Array | None


class PartReader:
    """Reads a part, batch by batch; the methods for batches may be called in any thread.

    Args:
        storage: Where it is.
        entry: The part.
        columns: The columns that it must have, apart from ids; None for any.

    Attributes:
        labels: What its columns of labels are; empty if nothing can be read.
        ids: Likewise, its ids; None without.
    """

    def __init__(self, storage: Storage, entry: PartEntry, columns: Columns | None = None) -> None:
        self.entry, self.name = entry, entry.name
        self.part = Part(b"")
        self.labels: list[Column] = []
        self.ids: Column | None = None
        self.found = PartResult(entry.name, lost=entry.rows or 0)
        self._lock = Lock()
        self._storage = storage
        self._whole = True  # all bytes of the file are at hand, not just the first ones
        if entry.place is None:
            self.found.message = "the file is missing"
            return
        try:
            self.part, self._whole = self._read(lambda name: begin_part(storage, name))
            self._size = len(self.part.data) if self._whole else size_of(storage, self.name)
        except OSError as error:
            self._unreadable(error)
            return
        self.found.torn, self.found.message = self.part.torn, self.part.damage
        if self.part.schema is not None:
            try:
                self._check(columns)
            except DamagedRunError as damage:
                self.found.message = str(damage)

    def _read(self, read: Callable[[str], T]) -> T:
        """Return what is read of the file, which may have been closed and renamed since it was listed."""
        try:
            return read(self.name)
        except FileNotFoundError:
            if not self.name.endswith(OPEN):
                raise
        self.name = self.name.removesuffix(OPEN)
        return read(self.name)

    def _unreadable(self, error: OSError) -> None:
        if error.errno in EXHAUSTED:
            raise error
        self.found.message = f"it cannot be read: {error}"

    def _check(self, columns: Columns | None) -> None:
        """Set `labels` and `ids`; DamagedRunError if no row can be used."""
        there, mine = self.part.metadata, self.part.columns
        for key, value in self.entry.metadata:
            if there.get(key, "") != value and (key != "run" or there.get(key)):  # early versions wrote no run
                msg = f"its metadata says {key} {there.get(key)!r}, but its path {value!r}"
                if key in ("run", "writer"):
                    msg = "it is a part of another run, or of another recording of this run"
                raise DamagedRunError(msg)
        if columns is not None and mine._replace(ids=columns.ids) != columns:
            msg = f"it has columns {listing(mine.names)}, and the run {listing(columns.names)}"
            raise DamagedRunError(msg)
        coded, coded_ids = read_coded(mine, there)
        if not coded:
            msg = f"it has labels of kinds {there.get('kind')!r} in columns {listing(mine.labels)}"
            raise DamagedRunError(msg)
        labels = [self._column(*pair) for pair in zip(mine.labels, coded, strict=True)]
        self.ids = None if coded_ids is None else self._column(ID, coded_ids)
        self.labels = labels

    def _column(self, name: str, coded: Coded) -> Column:
        """Return what a column is; DamagedRunError if it cannot be read."""
        stored = self._dtypes()[name]
        kind, dtype, what = coded.kind, stored.str[1:], "ids" if name == ID and self.part.columns.ids else "labels"
        if what == "ids":
            allowed = kind in (INTEGER, STRING, BYTES)
        else:
            allowed = dtype[0] != "f" if kind == INTEGER else dtype == DTYPES.get(kind)
            allowed = allowed or (kind in _WIDENED and dtype == "i8")
        if not allowed:
            msg = f"it has {kind!r} {what} in a column of type {dtype}"
            raise DamagedRunError(msg)
        if kind not in (STRING, BYTES):
            return Column(kind, stored, coded.words)
        words = self.entry.words.get(coded.words)
        if words is None or words.kind != kind:
            msg = f"its {what} are codes, and the journal does not say what they stand for"
            raise DamagedRunError(msg)
        return Column(kind, stored, coded.words, words)

    def _dtypes(self) -> dict[str, np.dtype[Any]]:
        return {} if self.part.schema is None else dict(self.part.schema.dtypes)

    @property
    def expected(self) -> int:
        """The approximate number of rows."""
        if self.entry.rows is not None or self.part.schema is None:
            return self.entry.rows or 0
        return self._size // sum(dtype.itemsize for dtype in self._dtypes().values())

    @property
    def value_dtypes(self) -> list[np.dtype[Any]]:
        """Dtype of each metric."""
        dtypes = self._dtypes()
        return [dtypes[name] for name in self.part.columns.values]

    def batches(self) -> Iterator[Batch]:
        """Yield the batches; each has to be passed to `rows`."""
        if not self.labels or not self._load():
            return
        yield from self.part.walk(check=False)
        with self._lock:
            self.found.torn = self.found.torn or (self.part.torn and not self.found.message)
            self.found.message = self.found.message or self.part.damage

    def _load(self) -> bool:
        """Get all bytes of the file; return whether that worked."""
        if not self._whole:
            try:
                self.part.data = self._read(self._storage.content)
            except OSError as error:
                self._unreadable(error)
                return False
            self._whole = True
        return True

    def release(self) -> None:
        """Release the file until its batches are asked for; batches that were handed out keep it open."""
        self.part.data, self._whole = b"", False

    def rows(self, batch: Batch) -> Rows | None:
        """Return the samples of a batch; None if they are damaged."""
        columns: list[Array] = []
        message = f"the checksum of batch {batch.metadata['seq']} does not agree"
        try:
            columns, agrees = self.part.read(batch)
        except TruncatedRunError as damage:
            message = str(damage)
        else:
            if agrees:
                coded = [*zip(self.labels, columns, strict=False), *([(self.ids, columns[-1])] if self.ids else [])]
                whole = all(column.has(codes) for column, codes in coded)
                message = "" if whole else "it has codes for which the journal has no words"
        with self._lock:
            if message:
                self.found.message, self.found.torn = message, False
                self.part.lost_rows += batch.rows
                return None
            self.found.rows += batch.rows
        labels = [array.astype(one.dtype, copy=False) for one, array in zip(self.labels, columns, strict=False)]
        values = columns[len(labels) : len(labels) + len(self.part.columns.values)]
        return Rows(labels, values, columns[-1] if self.ids is not None else None)

    def finish(self) -> PartResult:
        """Return what was read, after all batches."""
        found, rows = self.found, self.entry.rows
        found.lost = self.part.lost_rows if rows is None else max(0, rows - found.rows)
        if rows not in (None, found.rows) and not found.message:
            found.message = f"it has {counted(found.rows, 'row')}, and {rows:,} were written"
        return found


def open_parts(storage: Storage, parts: Sequence[PartEntry], columns: Columns | None = None) -> list[PartReader]:
    """Return readers of parts, few of which stay open; see `PartReader`."""
    readers: list[PartReader] = []
    for part in parts:
        reader = PartReader(storage, part, columns)
        if (part.rows is not None or len(readers) >= KEPT_OPEN) and isinstance(reader.part.data, FileContent):
            reader.release()
        readers.append(reader)
    return readers


def read_rows(readers: Sequence[PartReader]) -> Iterator[tuple[PartReader, Rows]]:
    """Yield the samples of parts, batch by batch, each with its reader; `PartReader.finish` then says what was lost."""
    for reader, batch in batches_of(readers):
        rows = reader.rows(batch)
        if rows is not None and batch.rows:
            yield reader, rows


def batches_of(readers: Sequence[PartReader]) -> Iterator[tuple[PartReader, Batch]]:
    """Yield the batches of several parts, and release each part after its last one."""
    for reader in readers:
        yield from ((reader, batch) for batch in reader.batches())
        # Not all files at the end: unmapping takes 9 ms/GB, which other threads can use, and any number of files fits.
        reader.release()


class Progress:
    """Counts, and shows a bar on stderr if that is a terminal and it takes more than a second."""

    def __init__(self, task: str, total: int, unit: str, *, wanted: bool = True) -> None:
        self._task, self._total, self._unit = task, total, unit
        self._wanted = wanted and sys.stderr.isatty()
        self._start = time.monotonic()
        self._done = 0
        self._lock = Lock()
        self._bar: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self, n: int) -> None:
        """Count `n` more, in any thread."""
        if not self._wanted:
            return
        with self._lock:
            self._done += n
            if self._bar is None and time.monotonic() - self._start > PATIENCE:
                self._bar = self._shown()
            if self._bar is not None:
                self._bar.update(self._bar.task_ids[0], completed=self._done)

    def _shown(self) -> Any:
        from rich import progress  # noqa: PLC0415 (takes 0.1 s, which most calls need not spend)
        from rich.console import Console  # noqa: PLC0415

        columns = [
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.TaskProgressColumn(),
            progress.TextColumn(f"of {self._total:,} {self._unit}"),
            progress.TimeRemainingColumn(),
        ]
        bar = progress.Progress(*columns, console=Console(stderr=True), transient=True)
        bar.add_task(self._task, total=self._total or None)
        bar.start()
        return bar
