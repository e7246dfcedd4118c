"""Reading recorded parts batch by batch, here or on a cluster, comparing checksums and counting lost rows."""

from __future__ import annotations

import contextlib
import sys
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

from labeltrack._core.arrays import Array
from labeltrack._labels.codes import BOOL, BYTES, INTEGER, STRING
from labeltrack.errors import DamagedRunError, TruncatedRunError, counted, listing, need
from labeltrack.recording.arrow_ipc import check
from labeltrack.recording.description import ID, read_coded
from labeltrack.recording.epochs import read_vocabularies
from labeltrack.recording.keys import DTYPES, Column
from labeltrack.recording.layout import begin_part, size_of
from labeltrack.recording.part import OPEN, Part
from labeltrack.recording.storage import EXHAUSTED, FileContent, LocalFolder, storage_of

if TYPE_CHECKING:
    import numpy as np

    from labeltrack.recording.arrow_ipc import Batch
    from labeltrack.recording.description import Coded, Columns
    from labeltrack.recording.epochs import PartEntry
    from labeltrack.recording.keys import Words
    from labeltrack.recording.storage import Storage

    Parts = Sequence[PartEntry]
    Read = Callable[[Storage, Parts], Any]

Engine = Literal["local", "dask"]
T = TypeVar("T")

_WIDENED = {STRING, BYTES, BOOL}  # kinds that early versions wrote as int64 after a checkpoint had been loaded
PATIENCE = 1.0  # seconds before a progress bar is shown
FAN_IN = 8  # results that one task of a cluster merges
AHEAD = 16  # jobs that a cluster may do in advance, if it is small
KEPT_OPEN = 16  # parts of an unfinished epoch that stay open, so that they can be read after they were renamed


class PartResult(NamedTuple):
    """What was read from a part."""

    name: str  # relative to the run
    rows: int  # intact ones
    lost: int  # missing or damaged ones
    torn: bool  # the file ends too early, and nothing else is wrong with it
    message: str  # what is wrong; empty: nothing


class Rows(NamedTuple):
    """Samples of a batch whose checksum agrees, in columns of ``(N,)``; see `Column` for codes."""

    labels: list[Array]
    values: list[Array]  # float32 or float64, of each metric
    ids: Array | None  # int64


class PartReader:
    """Reads a part that must have some columns, or any, batch by batch; methods for batches run in any thread."""

    def __init__(self, storage: Storage, entry: PartEntry, columns: Columns | None = None) -> None:
        self.entry, self.name = entry, entry.name
        self.part = Part(b"")
        self.labels: list[Column] = []  # empty if nothing can be read
        self.ids: Column | None = None
        self._rows = 0  # intact ones
        self._message = ""  # what is wrong, apart from what the part itself says
        self._lock = Lock()
        self._storage = storage
        self._whole = True  # all bytes of the file are at hand, not just the first ones
        self._dtypes: Mapping[str, np.dtype[Any]] = {}  # of columns, as stored
        if entry.place is None:
            self._message = "the file is missing"
            return
        try:
            self.part, self._whole = self._read(lambda name: begin_part(storage, name))
            self._size = len(self.part.data) if self._whole else size_of(storage, self.name)
            if self.part.schema is not None:
                self._dtypes = self.part.schema.dtypes
                self._check(columns)
        except OSError as error:
            self._unreadable(error)
        except DamagedRunError as damage:
            self._message = str(damage)

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
        self._message = f"it cannot be read: {error}"

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
        stored = self._dtypes[name]
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

    def learn(self, words: Mapping[str, Words]) -> None:
        """Replace the words that were known when the run was opened."""
        known = {**self.entry.words, **words}
        self.labels = [one.among(known) for one in self.labels]
        self.ids = self.ids and self.ids.among(known)

    @property
    def expected(self) -> int:
        """The approximate number of rows."""
        if self.entry.rows is not None or not self._dtypes:
            return self.entry.rows or 0
        return self._size // sum(dtype.itemsize for dtype in self._dtypes.values())

    @property
    def value_dtypes(self) -> list[np.dtype[Any]]:
        """Dtype of each metric."""
        return [self._dtypes[name] for name in self.part.columns.values]

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
                self._message = message
                self.part.lost_rows += batch.rows
                return None
            self._rows += batch.rows
        labels = [array.astype(one.dtype, copy=False) for one, array in zip(self.labels, columns, strict=False)]
        values = columns[len(labels) : len(labels) + len(self.part.columns.values)]
        return Rows(labels, values, columns[-1] if self.ids is not None else None)

    def finish(self) -> PartResult:
        """Return what was read, after all batches."""
        expected, message = self.entry.rows, self._message or self.part.damage
        lost = self.part.lost_rows if expected is None else max(0, expected - self._rows)
        if expected not in (None, self._rows) and not message:
            message = f"it has {counted(self._rows, 'row')}, and {expected:,} were written"
        return PartResult(self.entry.name, self._rows, lost, self.part.torn and not self._message, message)


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


@contextlib.contextmanager
def progress_bar(task: str, total: int, unit: str, *, wanted: bool = True) -> Iterator[Callable[[int], None]]:
    """Yield a function that counts n more, in any thread; on a terminal, a bar on stderr shows that after a second."""
    start, done, lock = time.monotonic(), 0, Lock()
    bar: Any = None

    def advance(n: int) -> None:
        nonlocal done, bar
        with lock:
            done += n
            if bar is None and time.monotonic() - start > PATIENCE:
                bar = _shown_bar(task, total, unit)
            if bar is not None:
                bar.update(bar.task_ids[0], completed=done)

    try:
        yield advance if wanted and sys.stderr.isatty() else lambda _: None
    finally:
        if bar is not None:
            bar.stop()


def _shown_bar(task: str, total: int, unit: str) -> Any:
    from rich import progress  # noqa: PLC0415 (takes 0.1 s, which most calls need not spend)
    from rich.console import Console  # noqa: PLC0415

    done = progress.TextColumn("{task.description}"), progress.BarColumn(), progress.TaskProgressColumn()
    rest = progress.TextColumn(f"of {total:,} {unit}"), progress.TimeRemainingColumn()
    bar = progress.Progress(*done, *rest, console=Console(stderr=True), transient=True)
    bar.add_task(task, total=total or None)
    bar.start()
    return bar


# -- on a Dask cluster --------------------------------------------------------------------------------------


def read_on_cluster(
    storage: Storage,
    jobs: Sequence[Sequence[Parts]],
    read: Read,
    on_rows: Callable[[int], object],
    merge: Callable[[list[Any]], Any] | None = None,
) -> Generator[Any, None, None]:
    """Yield what was read for each job, with a task for each sequence of parts, whose results are merged in order."""
    root = str(storage.path.absolute()) if isinstance(storage, LocalFolder) else storage.root
    with _client() as client:
        # Results stay in the memory of workers until they are taken.
        futures = deque[Any]()
        try:
            for job in jobs:
                level = []
                for parts in job:
                    # Workers look up words themselves: data that is sent once is lost with the worker that received it.
                    known = [{number: len(words) for number, words in part.words.items()} for part in parts]
                    bare = [replace(part, words={}) for part in parts]
                    leaf = client.submit(_read, root, bare, known, read, pure=False)
                    rows = sum(part.rows or 0 for part in parts)
                    leaf.add_done_callback(lambda _, rows=rows: on_rows(rows))
                    level.append(leaf)
                while len(level) > 1:
                    groups = [level[i : i + FAN_IN] for i in range(0, len(level), FAN_IN)]
                    level = [client.submit(merge, one, pure=False) if len(one) > 1 else one[0] for one in groups]
                futures += level
                # Workers may join or leave at any time.
                if len(futures) > AHEAD and len(futures) > 2 * sum(client.nthreads().values()):
                    yield futures.popleft().result()
            while futures:
                yield futures.popleft().result()
        finally:
            client.cancel([*futures])


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


def _read(root: str, parts: Sequence[PartEntry], known: Sequence[Mapping[str, int]], read: Read) -> Any:
    """Read parts of which so many words are known, by number of the vocabulary; runs on a worker."""
    whole = []
    for part, sizes in zip(parts, known, strict=True):
        key = root, part.journal, dict(part.metadata).get("writer", "")
        words = _vocabularies(*key) if sizes else {}
        if any(len(words.get(one, ())) < size for one, size in sizes.items()):  # the run has gone on since
            _vocabularies.cache_clear()
            words = _vocabularies(*key)
        whole.append(replace(part, words={one: words[one].up_to(size) for one, size in sizes.items() if one in words}))
    return read(storage_of(root), whole)


@lru_cache(maxsize=4)
def _vocabularies(root: str, journal: str, writer: str) -> dict[str, Words]:  # noqa: ARG001 (a run recorded anew)
    """Return the words of a journal by number of the vocabulary; on a worker, kept for the next part."""
    return read_vocabularies(storage_of(root), journal)
