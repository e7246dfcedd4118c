"""The samples of one mode and dataset, and a change to several of them that is decided."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from labeltrack._core.arrays import Array
from labeltrack._labels.codes import LabelDecoder, Vocabulary

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
