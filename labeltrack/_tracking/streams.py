"""The samples of one mode and dataset, a change to several of them that is decided, and the type of their labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from labeltrack._core.arrays import Array
from labeltrack._labels.codes import INTEGER, UNSIGNED, LabelDecoder, Vocabulary
from labeltrack._labels.combination_codes import WHOLE, TupleDecoder, compatible, kinds_of, wider
from labeltrack._labels.combined import columns_of

if TYPE_CHECKING:
    from labeltrack._buffers import Placed, Rows, SampleBuffer
    from labeltrack._tracking.ids import Seen
    from labeltrack.history import Entry, History
    from labeltrack.recording.description import Ids
    from labeltrack.recording.recorder import Ending
    from labeltrack.recording.writer import Lane
    from labeltrack.stats import LabelStats

Key = tuple[str, str]
"""Mode and dataset id."""


class Folded(NamedTuple):
    """What is kept of samples that were folded."""

    stats: tuple[LabelStats, ...]  # one per metric
    seen: Seen | None = None  # their ids; None if they have none, or duplicates count
    rows: int = 0  # how many samples this tracker has folded, whether they count or not


@dataclass(slots=True, eq=False)
class Stream:
    """The samples of one mode and dataset since the last end of an epoch."""

    buffer: SampleBuffer
    words: Vocabulary | None = None  # what the keys of strings and bytes stand for
    lane: Lane | None = None  # what records them, if anything does
    began: int = 0  # number of its first batch, which says in what order the streams of an epoch began
    appeared: dict[Any, None] = field(default_factory=dict)  # folded labels, in that order, if the tracker keeps it
    missed: int = 0  # samples that count here and are not recorded
    ids: Ids | None = None  # what the last column has; None without

    @property
    def kind(self) -> str:
        """Kind of the labels."""
        self.buffer.completed()
        return self.buffer.kind

    @property
    def folded(self) -> Folded | None:
        """What is kept of samples that were folded."""
        folded: Folded | None = self.buffer.folded
        return folded

    def empty(self) -> bool:
        """Return whether nothing was recorded."""
        return self.folded is None and self.buffer.empty()

    def count(self) -> int:
        """Return the number of samples; of those that were folded, the number with mapped labels."""
        folded = self.folded
        if folded is None:
            return len(self.buffer)
        left_out = 0 if folded.seen is None else folded.seen.duplicates.number
        return len(self.buffer) + left_out + int(folded.stats[0]._under("propagate").count.sum())

    def decoder(self) -> LabelDecoder:
        """Return the decoder of the keys."""
        return LabelDecoder(self.kind) if self.words is None else self.words.decoder(self.kind)

    def snapshot(self) -> Snapshot:
        """Return the samples so far."""
        return Snapshot(self.buffer.rows(), self.folded, self.decoder(), self.ids)


@dataclass(frozen=True)
class Snapshot:
    """The samples of a stream at one time: views that stay as they are until the stream is emptied."""

    rows: list[Rows]
    folded: Folded | None
    decoder: LabelDecoder
    ids: Ids | None = None

    def of(self, metric: int) -> list[tuple[Array, Array]]:
        """Return the keys and values of one metric, by its place."""
        return [(columns[0], columns[1 + metric]) for columns in self.rows]


@dataclass(frozen=True)
class Owed:
    """A change to histories and several streams that is decided, and which may be carried out any number of times."""

    streams: list[Stream]  # whose samples are dropped
    entries: list[tuple[int, Entry]] = field(default_factory=list)  # by place of the metric
    endings: list[Ending] = field(default_factory=list)  # for the recorder
    order: list[Any] = field(default_factory=list)  # labels that appeared for the first time
    loaded: Loaded | None = None  # what replaces everything
    merged: list[Merged] = field(default_factory=list)
    modes: tuple[str | None, ...] = ()  # that begin anew, None for all; without entries, what waits of them is dropped


@dataclass(frozen=True)
class Loaded:
    """A loaded state: histories, streams, what their keys stand for, and the order in which labels appeared."""

    histories: tuple[History, ...]
    words: dict[str, Vocabulary]
    streams: dict[Key, Stream]
    order: list[Any]
    warned: bool  # that no label of the mapping occurred


@dataclass(frozen=True)
class Merged:
    """What a stream takes from other trackers; each attribute replaces that of the stream or of its buffer."""

    key: Key
    stream: Stream
    kind: str
    merged: tuple[Placed, ...]
    folded: Folded | None
    began: int
    appeared: dict[Any, None]
    missed: int


# -- labels above 2**63 - 1 and negative ones: which type holds all integers of a mode, if one does ---------


def one_type(kind: str, array: Array, key: Key, streams: Mapping[Key, Stream]) -> tuple[str, Array]:
    """Return kind and ``(N,)`` labels of a batch in the type that holds those of its mode; TypeError if none does."""
    own = streams.get(key)
    before = None if own is None or own.empty() else own.kind
    if kind == UNSIGNED and before != UNSIGNED and int(array.max()) < 2**63:
        kind, array = INTEGER, array.view(np.int64) if array.flags.c_contiguous else array.astype(np.int64)
    if kind in WHOLE and kind != before:
        others = check_signs(Snapshot([(array,)], None, LabelDecoder(kind)), key[0], streams)
        for other in others:
            if kind == UNSIGNED and other.kind == INTEGER:  # later batches are checked then
                other.buffer.merge_in(other.buffer.merged, other.folded, UNSIGNED)
        if UNSIGNED in (before, kind) or (kind == INTEGER and UNSIGNED in [other.kind for other in others]):
            return UNSIGNED, array.astype(np.uint64)
    return kind, array


def check_signs(batch: Snapshot, mode: str, streams: Mapping[Key, Stream]) -> list[Stream]:
    """Return what a mode has of kinds that go together with that of a batch; TypeError if no type holds all labels."""
    kind = batch.decoder.kind
    others = [stream for (of, _), stream in streams.items() if of == mode and stream.kind != kind]
    others = [stream for stream in others if not stream.empty() and compatible([kind, stream.kind])]
    for stream in others:
        stream.buffer.seal()  # other threads add none then
        check_common_type([batch, stream.snapshot()])
    return others


def check_common_type(every: Sequence[Snapshot], lost: str = "this batch was not recorded") -> str:
    """Return the kind that holds all labels; TypeError if some are negative, and others above ``2**63 - 1``."""
    kind = reduce(wider, (samples.decoder.kind for samples in every))
    for place, wide in enumerate(kinds_of(kind)):
        narrow = [samples for samples in every if kinds_of(samples.decoder.kind)[place] != UNSIGNED]
        if wide == UNSIGNED and any(_any_negative(samples, place) for samples in narrow):
            msg = f"labels above 2**63 - 1 and negative labels do not fit one type ({lost})"
            raise TypeError(msg)
    return kind


def _any_negative(samples: Snapshot, place: int) -> bool:
    """Return whether signed labels are negative somewhere, by their place among several."""
    decoder = samples.decoder
    folded = None if samples.folded is None else samples.folded.stats[0].labels
    if not isinstance(decoder, TupleDecoder):
        return bool(folded is not None and len(folded) and folded[0] < 0) or any(
            int(keys.min()) < 0 for keys, *_ in samples.rows
        )
    tables = [decoder.decode(np.unique(keys)) for keys, *_ in samples.rows] + ([] if folded is None else [folded])
    return any(bool((list(columns_of(table).values())[place] < 0).any()) for table in tables)
