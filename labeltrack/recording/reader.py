"""Reading recorded parts batch by batch, here or on a cluster, comparing checksums and counting lost rows."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

from labeltrack._core.arrays import Array
from labeltrack._labels.codes import BOOL, BYTES, INTEGER, STRING
from labeltrack.errors import DamagedRunError, TruncatedRunError, counted, listing, need
from labeltrack.recording.arrow_ipc import check
from labeltrack.recording.epochs import read_vocabularies
from labeltrack.recording.keys import DTYPES, Column
from labeltrack.recording.layout import begin_part, size_of
from labeltrack.recording.part import OPEN, Part
from labeltrack.recording.schema import ID, read_coded
from labeltrack.recording.storage import EXHAUSTED, FileContent, LocalFolder, storage_of

if TYPE_CHECKING:
    from typing import Self

    import numpy as np

    from labeltrack.recording.arrow_ipc import Batch
    from labeltrack.recording.epochs import PartEntry
    from labeltrack.recording.schema import Coded, Columns
    from labeltrack.recording.storage import Storage

    Parts = Sequence[PartEntry]
    Read = Callable[[Storage, Parts], Any]

Engine = Literal["local", "dask"]
T = TypeVar("T")

_WIDENED = {STRING, BYTES, BOOL}  # kinds that early versions wrote as int64 after a checkpoint had been loaded
PATIENCE = 1.0  # seconds before a progress bar is shown
FAN_IN = 8  # results that one task of a cluster merges
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
    """Samples of a batch whose checksum agrees, in columns of ``(N,)``; see `Column` for codes."""

    labels: list[Array]
    values: list[Array]  # float32 or float64, of each metric
    ids: Array | None  # int64


class PartReader:
    """Reads a part, batch by batch; the methods for batches may be called in any thread.

    `columns` are those that it must have, apart from ids; None for any.
    """

    def __init__(self, storage: Storage, entry: PartEntry, columns: Columns | None = None) -> None:
        self.entry, self.name = entry, entry.name
        self.part = Part(b"")
        self.labels: list[Column] = []  # empty if nothing can be read
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
            self.found.torn, self.found.message = self.part.torn, self.part.damage
            if self.part.schema is not None:
                self._check(columns)
        except OSError as error:
            self._unreadable(error)
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
        check(bool(coded), f"it has labels of kinds {there.get('kind')!r} in columns {listing(mine.labels)}")
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
        check(allowed, f"it has {kind!r} {what} in a column of type {dtype}")
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
        if not self.labels:
            return
        if not self._whole:
            try:
                self.part.data, self._whole = self._read(self._storage.content), True
            except OSError as error:
                self._unreadable(error)
                return
        yield from self.part.walk(check=False)
        with self._lock:
            self.found.torn = self.found.torn or (self.part.torn and not self.found.message)
            self.found.message = self.found.message or self.part.damage

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
        self._start, self._done = time.monotonic(), 0
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

        done = progress.TextColumn("{task.description}"), progress.BarColumn(), progress.TaskProgressColumn()
        rest = progress.TextColumn(f"of {self._total:,} {self._unit}"), progress.TimeRemainingColumn()
        bar = progress.Progress(*done, *rest, console=Console(stderr=True), transient=True)
        bar.add_task(self._task, total=self._total or None)
        bar.start()
        return bar


# -- on a Dask cluster --------------------------------------------------------------------------------------


def read_on_cluster(
    storage: Storage,
    jobs: Sequence[Sequence[tuple[Read, Parts]]],
    merge: Callable[[list[Any]], Any],
    on_rows: Callable[[int], object],
) -> Generator[Any, None, None]:
    """Yield what each job found: functions read some parts each, and `merge` makes one of their results, in order.

    A task runs where the run is stored, and is repeated elsewhere if its worker dies. As merging is exact, order and
    number of workers do not change a bit. `on_rows` is called with the numbers of rows that were read.
    """
    root = str(storage.path.absolute()) if isinstance(storage, LocalFolder) else storage.root
    with _client() as client:
        futures = []
        for job in jobs:
            level = []
            for read, parts in job:
                # Workers look up words themselves: data that is sent once is lost with the worker that received it.
                bare = [(replace(part, words={}), bool(part.words)) for part in parts]
                leaf = client.submit(_read, root, bare, read, pure=False)
                rows = sum(part.rows or 0 for part in parts)
                leaf.add_done_callback(lambda _, rows=rows: on_rows(rows))
                level.append(leaf)
            while len(level) != 1:
                groups = [level[i : i + FAN_IN] for i in range(0, len(level), FAN_IN)] or [[]]
                level = [client.submit(merge, group, pure=False) if len(group) != 1 else group[0] for group in groups]
            futures += level
        try:
            yield from (future.result() for future in futures)
        finally:
            client.cancel(futures)


@contextlib.contextmanager
def _client() -> Iterator[Any]:
    """Yield the current client, or one of a local cluster that is closed afterwards."""
    distributed = need("distributed", 'engine="dask"', "dask")
    try:
        current = distributed.default_client()
    except ValueError:  # there is none
        with (
            distributed.LocalCluster(dashboard_address=":0", threads_per_worker=1) as cluster,
            distributed.Client(cluster) as client,
        ):
            yield client
    else:
        yield current


def _read(root: str, parts: list[tuple[PartEntry, bool]], read: Read) -> Any:
    """Read parts, and say of each whether it has words; runs on a worker."""
    whole = [replace(part, words=_vocabularies(root, part.journal)) if words else part for part, words in parts]
    return read(storage_of(root), whole)


@lru_cache(maxsize=4)
def _vocabularies(root: str, journal: str) -> dict[str, Any]:
    """Return the words of a journal by number of the vocabulary; on a worker, kept for the next part."""
    return read_vocabularies(storage_of(root), journal)
