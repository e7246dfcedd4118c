"""Reading recorded parts into exact statistics, comparing all checksums and counting torn and damaged rows."""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from labeltrack._core.accumulator import Accumulator
from labeltrack._core.reduce import reduce_stream
from labeltrack._labels.codes import BOOL, BYTES, FLOAT, INTEGER, STRING, UNSIGNED, LabelDecoder, LabelMapping
from labeltrack._labels.missing import names_of, wanted_by
from labeltrack.errors import TruncatedRunError
from labeltrack.recording.layout import begin_part
from labeltrack.recording.part import Part
from labeltrack.recording.storage import EXHAUSTED, FileContent
from labeltrack.stats import LabelStats, merge_stats

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Self

    from labeltrack._nan_policy import NanPolicy
    from labeltrack.recording.arrow_ipc import Batch
    from labeltrack.recording.epochs import PartEntry
    from labeltrack.recording.storage import Storage

Array = npt.NDArray[Any]

_COLUMN = {STRING: "i4", BYTES: "i4", FLOAT: "f8", UNSIGNED: "u8", BOOL: "u1"}  # label dtypes by kind; integers vary
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


class Samples(NamedTuple):
    """The samples that statistics were computed from."""

    chunks: list[tuple[Array, Array]]  # ``(N,)`` keys and ``(N,)`` values
    space: LabelDecoder  # what the keys stand for
    labels: Array  # ``(K,)`` labels that occurred


class Reduced(NamedTuple):
    """Statistics of some parts."""

    stats: LabelStats
    found: list[PartResult]
    samples: list[Samples]  # empty unless they were to be kept


class Rules(NamedTuple):
    """How samples become statistics."""

    mapping: LabelMapping | None  # labels to keep, and their names; None keeps every label
    nan_policy: NanPolicy
    missing: Any = "error"  # what samples without a label did when they were recorded


class PartReader:
    """Reads a part, batch by batch; the methods for batches may be called in any thread."""

    def __init__(self, storage: Storage, entry: PartEntry) -> None:
        self.entry = entry
        self.part = Part(b"")
        self.kind = ""  # of its labels; empty if nothing can be read
        self.number = ""  # of the vocabulary of its labels, if they have one
        self.found = PartResult(entry.name, lost=entry.rows or 0)
        self._lock = Lock()
        self._words: Array | None = None
        self._storage = storage
        self._whole = True  # all bytes of the file are at hand, not just the first ones
        if entry.place is None:
            self.found.message = "the file is missing"
            return
        try:
            self.part, self._whole = begin_part(storage, entry.name)
            self._size = len(self.part.data) if self._whole else storage.size(entry.name)
        except OSError as error:
            self._unreadable(error)
            return
        self.found.torn = self.part.torn
        self.found.message = self.part.damage if self.part.schema is None else self._refusal()

    def _unreadable(self, error: OSError) -> None:
        if error.errno in EXHAUSTED:
            raise error
        self.found.message = f"it cannot be read: {error}"

    def _refusal(self) -> str:
        """Return why no row can be used; empty if rows can be, after `kind` and `number` were set."""
        there = self.part.metadata
        for key, value in self.entry.metadata:
            if key == "run" and not there.get(key):
                continue  # early versions wrote none
            if there.get(key, "") != value:
                if key in ("run", "writer"):
                    return "it is a part of another run, or of another recording of this run"
                return f"its metadata says {key} {there.get(key)!r}, but its path {value!r}"
        kind, number = there.get("kind", ""), there.get("words", "")
        dtype = self.stored_dtype.str[1:]
        allowed = dtype[0] != "f" if kind == INTEGER else dtype == _COLUMN.get(kind)
        if not allowed and not (kind in _WIDENED and dtype == "i8"):
            return f"it has {kind!r} labels in a column of type {dtype}"
        if kind in (STRING, BYTES):
            words = self.entry.words.get(number)
            if words is None or (len(words) and isinstance(words[0], str) != (kind == STRING)):
                return "its labels are codes, and the journal does not say what they stand for"
            self._words = words
        self.kind, self.number = kind, number
        return ""

    @property
    def expected(self) -> int:
        """The approximate number of rows."""
        if self.entry.rows is not None or self.part.schema is None:
            return self.entry.rows or 0
        return self._size // sum(dtype.itemsize for dtype in self.part.schema.dtypes.values())

    @property
    def stored_dtype(self) -> np.dtype[Any]:
        """Dtype of the labels in the file."""
        return np.dtype("i4") if self.part.schema is None else self.part.schema.dtypes["label"]

    @property
    def label_dtype(self) -> np.dtype[Any]:
        """Dtype of the labels as they are read."""
        return np.dtype(_COLUMN.get(self.kind, self.stored_dtype))

    def space(self) -> LabelDecoder:
        """Return what its keys stand for."""
        return LabelDecoder(self.kind, self._words)

    def batches(self) -> Iterator[Batch]:
        """Yield the batches; each has to be passed to `columns` or `keys`."""
        if not self.kind or not self._load():
            return
        yield from self.part.walk(check=False)
        with self._lock:
            self.found.torn = self.found.torn or (self.part.torn and not self.found.message)
            self.found.message = self.found.message or self.part.damage

    def _load(self) -> bool:
        """Get all bytes of the file; return whether that worked."""
        if not self._whole:
            try:
                self.part.data = self._storage.content(self.entry.name)
            except OSError as error:
                self._unreadable(error)
                return False
            self._whole = True
        return True

    def release(self) -> None:
        """Release the file until its batches are asked for; batches that were handed out keep it open."""
        self.part.data, self._whole = b"", False

    def columns(self, batch: Batch) -> tuple[Array, Array] | None:
        """Return the ``(N,)`` labels, of `label_dtype`, and values of a batch; None if they are damaged."""
        labels = values = np.empty(0)
        message = f"the checksum of batch {batch.metadata['seq']} does not agree"
        try:
            labels, values, agrees = self.part.read(batch)
        except TruncatedRunError as damage:
            message = str(damage)
        else:
            if agrees:
                message = ""
                words = None if self._words is None or not batch.rows else len(self._words)
                if words is not None and not 0 <= int(labels.min()) <= int(labels.max()) < words:
                    message = "it has codes for which the journal has no words"
        with self._lock:
            if message:
                self.found.message, self.found.torn = message, False
                self.part.lost_rows += batch.rows
                return None
            self.found.rows += batch.rows
        return labels.astype(self.label_dtype, copy=False), values

    def keys(self, batch: Batch) -> tuple[Array, Array] | None:
        """Return the ``(N,)`` keys and values of a batch; None if there are none or they are damaged."""
        found = self.columns(batch)
        if found is None or not batch.rows:
            return None
        labels, values = found
        return (labels.view(np.int64) if self.kind in (FLOAT, UNSIGNED) else labels), values

    def finish(self) -> PartResult:
        """Return what was read, after all batches."""
        found, rows = self.found, self.entry.rows
        found.lost = self.part.lost_rows if rows is None else max(0, rows - found.rows)
        if rows not in (None, found.rows) and not found.message:
            found.message = f"it has {found.rows} rows, and {rows} were written"
        return found


def open_parts(storage: Storage, parts: Sequence[PartEntry]) -> list[PartReader]:
    """Return readers of parts, few of which stay open."""
    readers: list[PartReader] = []
    for part in parts:
        reader = PartReader(storage, part)
        if (part.rows is not None or len(readers) >= KEPT_OPEN) and isinstance(reader.part.data, FileContent):
            reader.release()
        readers.append(reader)
    return readers


def reduce_parts(
    storage: Storage,
    parts: Sequence[PartEntry],
    rules: Rules,
    *,
    threads: int | None = None,
    on_rows: Callable[[int], object] = lambda _: None,
    keep: bool = False,
) -> Reduced:
    """Reduce parts to statistics per label; `on_rows` is called with the rows of each batch, in any thread.

    Raises:
        TypeError: The labels cannot be ordered.
    """
    readers = open_parts(storage, parts)
    groups: dict[Any, list[PartReader]] = defaultdict(list)
    for reader in readers:
        if reader.kind:
            whole = reader.kind in (BOOL, INTEGER, UNSIGNED)
            # Codes mean something in one process and vocabulary only.
            groups["whole" if whole else (reader.kind, reader.number, reader.entry.journal)].append(reader)
    names = names_of(rules.mapping, rules.missing)
    stats, samples = [], []
    for members in groups.values():
        space = _common_space(members)
        wanted = None if rules.mapping is None else space.encode(wanted_by(rules.mapping, rules.missing))
        expected = sum(reader.expected for reader in members)
        chunks: list[tuple[Array, Array]] = []

        def load(
            item: tuple[PartReader, Batch], chunks: list[tuple[Array, Array]] = chunks
        ) -> tuple[Array, Array] | None:
            reader, batch = item
            chunk = reader.keys(batch)
            on_rows(batch.rows)
            if chunk is not None and keep:
                chunks.append(chunk)
            return chunk

        labels, accumulator = reduce_stream(_batches(members), load, expected, space, wanted=wanted, threads=threads)
        stats.append(LabelStats(labels, accumulator, names=names, nan_policy=rules.nan_policy))
        if keep:
            samples.append(Samples(chunks, space, labels))
    found = [reader.finish() for reader in readers]
    if not stats:  # nothing can be read
        stats = [LabelStats(np.empty(0, np.int64), Accumulator(0), nan_policy=rules.nan_policy)]
    return Reduced(stats[0] if len(stats) == 1 else merge_stats(stats), found, samples)


def _batches(members: Sequence[PartReader]) -> Iterator[tuple[PartReader, Batch]]:
    """Yield the batches of several parts, and release each part after its last one."""
    for reader in members:
        yield from ((reader, batch) for batch in reader.batches())
        # Not all files at the end: unmapping takes 9 ms/GB, which other threads can use, and any number of files fits.
        reader.release()


def _common_space(members: Sequence[PartReader]) -> LabelDecoder:
    """Return what the keys of several parts stand for."""
    kinds = {reader.kind for reader in members}
    if len(kinds) == 1:
        return members[0].space()
    return LabelDecoder(UNSIGNED if UNSIGNED in kinds else INTEGER)


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
