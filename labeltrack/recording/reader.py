"""From recorded parts to exact statistics a label: every checksum is compared, what is damaged is counted."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from labeltrack._core.reduce import reduce_stream
from labeltrack._labels.codes import BOOL, BYTES, FLOAT, INTEGER, STRING, UNSIGNED, LabelDecoder, LabelMapping
from labeltrack._labels.missing import names_of, wanted_by
from labeltrack.errors import TruncatedRunError
from labeltrack.recording import part as _parts
from labeltrack.recording.content import EXHAUSTED, FileContent
from labeltrack.recording.layout import begin_part, journal_name
from labeltrack.stats import LabelStats, merge_stats

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from labeltrack.recording.arrow_ipc import Batch
    from labeltrack.recording.index import Attempt, Catalog, Segment
    from labeltrack.recording.storage import Storage
    from labeltrack.stats import NanPolicy

Array = npt.NDArray[Any]

_COLUMN = {STRING: "i4", BYTES: "i4", FLOAT: "f8", UNSIGNED: "u8", BOOL: "u1"}  # of labels of a kind; integers may vary
KEPT_OPEN = 16  # parts of an epoch that has not ended, to be read whatever they are called when their turn comes
_WIDENED = {STRING, BYTES, BOOL}
"""Kinds that were also written as int64 once, after a checkpoint had been loaded."""


@dataclass(frozen=True)
class Source:
    """A part to read, with all that takes, so that it can be sent to another machine.

    Attributes:
        name: Of the file, relative to the run.
        metadata: What the file must say of itself.
        rows: How many rows there should be, None if nobody knows.
        words: By number of the vocabulary: what codes stand for.
        missing: Whether the file is not there.
        journal: Name of the journal that has the words.
    """

    name: str
    metadata: tuple[tuple[str, str], ...]
    rows: int | None
    words: dict[str, Array] = field(default_factory=dict)
    missing: bool = False
    journal: str = ""


@dataclass
class Found:
    """What was found in a part.

    Attributes:
        name: Of the file, relative to the run.
        rows: Intact rows.
        lost: Rows that should be there and are not, or are damaged.
        torn: Whether the file ends too early, and nothing else is wrong with it.
        message: What is wrong, in words; empty if nothing is.
    """

    name: str
    rows: int = 0
    lost: int = 0
    torn: bool = False
    message: str = ""


def sources_of(catalog: Catalog, attempt: Attempt, ds_id: str | None = None) -> list[Source]:
    """Return the parts of an attempt, all of them or those of a dataset."""
    chosen = [segment for segment in attempt.segments if ds_id is None or segment.ds_id == ds_id]
    return [source_of(catalog, attempt, segment) for segment in chosen]


def source_of(catalog: Catalog, attempt: Attempt, segment: Segment) -> Source:
    """Return a part of an attempt."""
    said = {
        "mode": attempt.mode,
        "ds_id": segment.ds_id,
        "session": str(attempt.session),
        "rank": str(attempt.rank),
        "attempt": str(attempt.number),
        **({} if segment.place is None else {"index": str(segment.place.index)}),
        **catalog.identity_of(attempt.session, attempt.rank),
    }
    words = catalog.words_of(attempt.session, attempt.rank)
    journal = journal_name(attempt.session, attempt.rank)
    return Source(segment.name, tuple(said.items()), segment.rows, words, segment.place is None, journal)


@dataclass
class Kept:
    """Samples, and what their statistics were of.

    Attributes:
        chunks: Pairs of ``(N,)`` keys and ``(N,)`` values.
        space: What the keys stand for.
        labels: ``(K,)`` labels that occurred.
    """

    chunks: list[tuple[Array, Array]]
    space: LabelDecoder
    labels: Array


class Opened:
    """A part that is being read.

    Args:
        storage: Where it is.
        source: Which one.

    Attributes:
        kind: Kind of its labels; empty if nothing of it can be read.
        number: Number of the vocabulary of its labels, if they have one.
        found: What was found so far.
    """

    def __init__(self, storage: Storage, source: Source) -> None:
        self.source = source
        self.kind = ""
        self.number = ""
        self.found = Found(source.name, lost=source.rows or 0)
        self._lock = Lock()
        self._words: Array | None = None
        self._part = _parts.Part(source.name)
        self._storage = storage
        self._whole = True  # whether the bytes of the file are there, not its first ones alone
        if source.missing:
            self.found.message = "the file is missing"
            return
        try:
            self._part, self._whole = begin_part(storage, source.name)
            if not self._whole:
                self._part.size = storage.size(source.name)
        except OSError as error:
            if error.errno in EXHAUSTED:
                raise
            self.found.message = f"it cannot be read: {error}"
            return
        self.found.message = self._part.damage
        self.found.torn = self._part.torn
        if self._part.schema is not None:
            self.found.message = self._refused()

    def _refused(self) -> str:
        """Return why no row can be used, if so; see what kind of labels these are otherwise."""
        said = self._part.metadata
        for key, value in self.source.metadata:
            if key == "run" and not said.get(key):
                continue  # of a version that wrote none; what such a version did not write is not awaited either
            if said.get(key, "") != value:
                if key in ("run", "writer"):
                    return "it is a part of another run, or of another recording of this one"
                return f"it says it has {key} {said.get(key)!r}, and lies where {value!r} belongs"
        kind, number = said.get("kind", ""), said.get("words", "")
        schema = self._part.schema
        dtype = "" if schema is None else schema.dtypes["label"].str[1:]
        allowed = dtype[0] != "f" if kind == INTEGER else dtype == _COLUMN.get(kind)
        if not allowed and not (kind in _WIDENED and dtype == "i8"):
            return f"{kind!r} labels in a column of type {dtype}"
        if kind in (STRING, BYTES):
            words = self.source.words.get(number)
            if words is None or (len(words) and isinstance(words[0], str) != (kind == STRING)):
                return "its labels are codes, and the journal does not say what they stand for"
            self._words = words
        self.kind, self.number = kind, number
        return ""

    @property
    def expected(self) -> int:
        """How many rows there are, about."""
        if self.source.rows is not None or self._part.schema is None:
            return self.source.rows or 0
        return self._part.size // sum(dtype.itemsize for dtype in self._part.schema.dtypes.values())

    @property
    def stored_dtype(self) -> Any:
        """The dtype of the labels in the file."""
        schema = self._part.schema
        return np.dtype("i4") if schema is None else schema.dtypes["label"]

    @property
    def label_dtype(self) -> Any:
        """The dtype that labels of its kind have."""
        return np.dtype(_COLUMN.get(self.kind, self.stored_dtype))

    def space(self) -> LabelDecoder:
        """Return the way from its keys to labels."""
        return LabelDecoder(self.kind, self._words)

    def batches(self) -> Iterator[Batch]:
        """Yield the batches; each has to be asked for its columns."""
        if not self.kind or not self._complete():
            return
        yield from _parts.walk(self._part, check=False)
        with self._lock:
            self.found.torn = self.found.torn or (self._part.torn and not self.found.message)
            self.found.message = self.found.message or self._part.damage

    def _complete(self) -> bool:
        """Have all the bytes of the file; return whether that worked."""
        if not self._whole:
            try:
                self._part.data = self._storage.content(self.source.name)
            except OSError as error:
                if error.errno in EXHAUSTED:
                    raise
                self.found.message = f"it cannot be read: {error}"
                return False
            self._part.size, self._whole = len(self._part.data), True
        return True

    def let_go(self) -> None:
        """Let go of the file, until its batches are asked for; batches that were handed out keep it open."""
        self._part.data, self._whole = b"", False

    def close(self) -> None:
        """Let go of a file of this machine, and its descriptor."""
        if isinstance(self._part.data, FileContent):
            self.let_go()

    def columns(self, batch: Batch) -> tuple[Array, Array] | None:
        """Return the ``(N,)`` labels, of `label_dtype`, and values of a batch; None if they are damaged."""
        labels = values = np.empty(0)
        agrees, message = False, ""
        try:
            labels, values, agrees = self._part.read(batch)
        except TruncatedRunError as damage:
            message = str(damage)
        if not agrees:
            message = message or f"the checksum of batch {batch.metadata['seq']} does not agree"
        elif self._words is not None and batch.rows and not _within(labels, len(self._words)):
            message = "there are codes for which the journal has no words"
        else:
            labels = labels.astype(self.label_dtype, copy=False)
        with self._lock:
            if message:
                self.found.message = message
                self.found.torn = False
                self._part.lost_rows += batch.rows
                return None
            self.found.rows += batch.rows
        return labels, values

    def keys(self, batch: Batch) -> tuple[Array, Array] | None:
        """Return the ``(N,)`` keys and values of a batch None if there are none or they are damaged."""
        found = self.columns(batch)
        if found is None or not batch.rows:
            return None
        labels, values = found
        return (labels.view(np.int64) if self.kind in (FLOAT, UNSIGNED) else labels), values

    def finish(self) -> Found:
        """Return what was found, when all the batches were asked for."""
        if self.source.rows is None:
            self.found.lost = self._part.lost_rows
        else:
            self.found.lost = max(0, self.source.rows - self.found.rows)
            if self.found.rows != self.source.rows and not self.found.message:
                self.found.message = f"it has {self.found.rows} rows, and {self.source.rows} were written"
        return self.found

    @property
    def part(self) -> _parts.Part:
        """The part."""
        return self._part


def _within(codes: Array, words: int) -> bool:
    return int(codes.min()) >= 0 and int(codes.max()) < words


def reduce_sources(
    storage: Storage,
    sources: Sequence[Source],
    *,
    mapping: LabelMapping | None,
    nan_policy: NanPolicy,
    missing: str = "error",
    threads: int | None = None,
    on_rows: Callable[[int], object] | None = None,
    keep: list[Kept] | None = None,
) -> tuple[LabelStats, list[Found]]:
    """Reduce parts to statistics a label.

    Args:
        storage: Where they are.
        sources: Which ones.
        mapping: Labels to keep, and their names; None keeps every one.
        nan_policy: What NaN samples do when statistics are read.
        missing: What samples without a label did when they were recorded.
        threads: How many threads share the work; None chooses by the number of samples.
        on_rows: Is told how many more rows were read, in any thread.
        keep: Gets the samples, which take their memory.

    Returns:
        The statistics, and what was found in each part.

    Raises:
        TypeError: Labels of types that cannot be ordered among each other.
    """
    opened = []
    for source in sources:
        opened.append(Opened(storage, source))
        if source.rows is not None or len(opened) > KEPT_OPEN:
            opened[-1].close()
    together: dict[Any, list[Opened]] = defaultdict(list)
    for one in opened:
        if one.kind:
            whole = one.kind in (BOOL, INTEGER, UNSIGNED)
            # Codes belong to one process and vocabulary.
            together["whole" if whole else (one.kind, one.number, one.source.metadata)].append(one)
    names = names_of(mapping, missing)
    parts = []
    for members in together.values():
        space = _common_space(members)
        wanted = None if mapping is None else space.encode(wanted_by(mapping, missing))
        samples = sum(one.expected for one in members)

        chunks: list[tuple[Array, Array]] = []

        def load(item: tuple[Opened, Batch], chunks: list[tuple[Array, Array]] = chunks) -> tuple[Array, Array] | None:
            one, batch = item
            chunk = one.keys(batch)
            if on_rows is not None:
                on_rows(batch.rows)
            if chunk is not None and keep is not None:
                chunks.append(chunk)
            return chunk

        labels, accumulator = reduce_stream(_batches(members), load, samples, space, wanted=wanted, threads=threads)
        parts.append(LabelStats(labels, accumulator, names=names, nan_policy=nan_policy))
        if keep is not None:
            keep.append(Kept(chunks, space, labels))
    found = [one.finish() for one in opened]
    if not parts:
        return empty_stats(nan_policy), found
    return merge_stats(parts) if len(parts) > 1 else parts[0], found


def _batches(members: Sequence[Opened]) -> Iterator[tuple[Opened, Batch]]:
    """Yield the batches of several parts, letting go of each part behind its last."""
    for one in members:
        yield from ((one, batch) for batch in one.batches())
        # The memory goes with the last of its columns, instead of all files' at the end: unmapping takes 9 ms a
        # gigabyte, which other threads can use, and remote files of any number fit.
        one.let_go()


def empty_stats(nan_policy: NanPolicy) -> LabelStats:
    """Return the statistics of no samples."""
    labels, accumulator = reduce_stream(iter(()), lambda _: None, 0, LabelDecoder(INTEGER))
    return LabelStats(labels, accumulator, nan_policy=nan_policy)


def _common_space(members: Sequence[Opened]) -> LabelDecoder:
    """Return the way from keys to labels that holds for several parts."""
    kinds = {one.kind for one in members}
    if len(kinds) == 1:
        return members[0].space()
    return LabelDecoder(UNSIGNED if UNSIGNED in kinds else INTEGER)
