"""The samples of one mode and dataset, and a change to several of them that is decided."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from labeltrack._labels.codes import LabelDecoder

if TYPE_CHECKING:
    from labeltrack._buffers import Rows, SampleBuffer
    from labeltrack._labels.codes import Vocabulary
    from labeltrack.history import Entry, History
    from labeltrack.recording.recorder import Ending
    from labeltrack.recording.writer import Lane
    from labeltrack.stats import LabelStats

Array = npt.NDArray[Any]
Key = tuple[str, str]
"""Mode and dataset id."""


@dataclass(slots=True, eq=False)
class Stream:
    """The samples of one mode and dataset since the last end of an epoch.

    Attributes:
        buffer: The samples.
        words: What the keys of strings and bytes stand for.
        lane: What records them, if anything does.
        began: Number of its first batch, which says in what order the streams of an epoch began.
        appeared: Labels of samples that were folded, in order of appearance, if the tracker keeps that.
        missed: Number of samples that count here and are not recorded.
    """

    buffer: SampleBuffer
    words: Vocabulary | None = None
    lane: Lane | None = None
    began: int = 0
    appeared: dict[Any, None] = field(default_factory=dict)
    missed: int = 0

    @property
    def kind(self) -> str:
        """Kind of the labels."""
        return self.buffer.kind

    @property
    def folded(self) -> LabelStats | None:
        """Statistics of samples that were folded."""
        return self.buffer.folded

    def empty(self) -> bool:
        """Return whether nothing was recorded."""
        return self.folded is None and self.buffer.empty()

    def count(self) -> int:
        """Return the number of samples; of those that were folded, the number with mapped labels."""
        folded = self.folded
        return len(self.buffer) + (0 if folded is None else int(folded._under("propagate").count.sum()))

    def decoder(self) -> LabelDecoder:
        """Return the decoder of the keys."""
        return LabelDecoder(self.kind) if self.words is None else self.words.decoder(self.kind)

    def snapshot(self) -> Snapshot:
        """Return the samples so far."""
        return Snapshot(self.buffer.filled(), self.folded, self.decoder())


@dataclass(frozen=True)
class Snapshot:
    """The samples of a stream at one time: views that stay as they are until the stream is emptied."""

    chunks: list[tuple[Array, Array]]
    folded: LabelStats | None
    decoder: LabelDecoder


@dataclass(frozen=True)
class Owed:
    """A change to the history and to several streams that is decided, and which may be carried out any number of times.

    Attributes:
        streams: Those whose samples are dropped.
        entries: What enters the history.
        endings: What to tell the recorder.
        order: Labels that appeared for the first time, in that order.
        loaded: What replaces everything.
        merged: What streams take from other trackers.
    """

    streams: list[Stream]
    entries: list[Entry] = field(default_factory=list)
    endings: list[Ending] = field(default_factory=list)
    order: list[Any] = field(default_factory=list)
    loaded: Loaded | None = None
    merged: list[Merged] = field(default_factory=list)


@dataclass(frozen=True)
class Loaded:
    """A loaded state: history, streams, what their keys stand for, and the order in which labels appeared."""

    history: History
    words: dict[str, Vocabulary]
    streams: dict[Key, Stream]
    order: list[Any]


@dataclass(frozen=True)
class Merged:
    """What a stream takes from other trackers; each attribute replaces that of the stream or of its buffer."""

    key: Key
    stream: Stream
    kind: str
    chunks: tuple[Rows, ...]
    folded: LabelStats | None
    began: int
    appeared: dict[Any, None]
    missed: int
