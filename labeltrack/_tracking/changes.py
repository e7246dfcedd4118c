"""All that a tracker has recorded, and how that changes as a whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from labeltrack._buffers import SampleBuffer
from labeltrack._core.kernels.cache import check_cache
from labeltrack._labels.codes import STRING, LabelDecoder, Vocabulary
from labeltrack._labels.combination_codes import IDS, vocabularies, words_of
from labeltrack._tracking.lock import ChangeLock
from labeltrack._tracking.reducing import in_order
from labeltrack._tracking.streams import Key, Loaded, Merged, Owed, Stream
from labeltrack._tracking.waiting import Waiting
from labeltrack.errors import warn
from labeltrack.recording.description import Ids

if TYPE_CHECKING:
    from labeltrack.history import History
    from labeltrack.recording.recorder import Ending, Recorder
    from labeltrack.recording.writer import Lane
    from labeltrack.stats import LabelStats


class Recorded:
    """The histories, and the samples since the last end of an epoch.

    A change is decided in one assignment (`decide`). If an interrupt comes before it is carried out, the next call
    completes it (`complete`).
    """

    def __init__(
        self,
        histories: Sequence[History],
        recorder: Recorder | None,
        *,
        keep_order: bool,
        names: Sequence[str] | None = None,
    ) -> None:
        self.histories = tuple(histories)
        self.recorder = recorder
        self.keep_order = keep_order
        self.streams: dict[Key, Stream] = {}  # always the same dict
        self.names = names  # of several labels per sample; None for one
        self.words = vocabularies(names)
        self.unmapped: dict[Any, None] = {}  # some labels of samples that were folded and of which none was mapped
        self.order: dict[Any, None] = {}  # labels of the epochs that ended, in order of appearance
        self.began = 0  # number of times that a stream has begun
        self.owed: Owed | None = None  # the change that is decided
        self.of_state = False  # whether this is a state to be merged, whose streams know what was not recorded
        self._told = ""  # the failure of the recorder that there was a warning about
        self._lock = self.lock = ChangeLock(self.streams)
        self.waiting = Waiting(self.streams, self.lock)

    # -- streams ------------------------------------------------------------------------------------------

    def new_stream(
        self,
        key: Key,
        kind: str,
        dtypes: Sequence[Any],
        ids: str | None,
        history: History | None = None,
        words: Mapping[str, Vocabulary] | None = None,
    ) -> Stream:
        """Return a stream without samples, for this history and these words or for those that will replace them."""
        check_cache()
        words = self.words if words is None else words
        its_words = words_of(words, kind)
        its_ids = None if ids is None else Ids(ids, words[IDS] if ids == STRING else None)
        if self.recorder is None:
            label, value, *more = dtypes
            return Stream(SampleBuffer(label, value, kind, tuple(more)), its_words, ids=its_ids)
        past = self.histories[0] if history is None else history
        expected = max(past.steps(key[0]), default=0) + 1
        lane, buffer = self.recorder.stream(key, its_words, its_ids, kind, dtypes, expected)
        return Stream(buffer, its_words, lane, ids=its_ids)

    def decoder(self, kind: str) -> LabelDecoder:
        """Return the decoder of the keys of a kind of labels."""
        words = words_of(self.words, kind)
        return LabelDecoder(kind) if words is None else words.decoder(kind)

    def sealed(self, mode: str | None) -> dict[Key, Stream]:
        """Return the streams of a mode, or of all, with no batch of another thread on its way into them."""
        found = {key: stream for key, stream in self.streams.items() if mode is None or key[0] == mode}
        for stream in found.values():
            stream.buffer.seal()
        return found

    def filled(self, mode: str) -> dict[str, Stream]:
        """Return the streams of a mode that have samples, by dataset."""
        return {ds_id: stream for (of, ds_id), stream in self.streams.items() if of == mode and not stream.empty()}

    def pending(self) -> dict[Key, int]:
        """Return the number of samples of every stream that has some."""
        return {key: stream.count() for key, stream in self.streams.items() if not stream.empty()}

    def hand_on(self) -> None:
        """Hand every row to the recorder."""
        with self._lock.to_read:
            self.complete()
            for stream in self.streams.values():
                stream.buffer.hand_on()

    def tell(self) -> None:
        """Warn, once, that recording failed; and about what else the recorder noticed."""
        recorder = self.recorder
        if recorder is None:
            return
        while recorder.notes:
            warn(recorder.notes.pop(0))
        if recorder.failure and not self._told:
            self._told = recorder.failure
            warn(recorder.failure)

    def appeared(self, streams: Sequence[Stream], stats: Sequence[LabelStats]) -> list[Any]:
        """Return the labels of streams that appeared for the first time, in that order; one stream after the other."""
        found: dict[Any, None] = {}
        pairs = zip(streams, stats, strict=True)
        for stream, part in sorted(pairs, key=lambda pair: pair[0].began) if self.keep_order else ():
            new = {label for label in part.labels.tolist() if label not in self.order and label not in found}
            found.update(dict.fromkeys(label for label in stream.appeared if label in new))
            fresh = in_order(new.difference(found), stream.buffer.rows(), stream.decoder())
            found.update(dict.fromkeys(fresh))
            # Labels of samples that were folded by a tracker without the option, whose state was loaded.
            found.update(dict.fromkeys(label for label in part.labels.tolist() if label in new))
        return list(found)

    # -- changes ------------------------------------------------------------------------------------------

    def endings(self, streams: Mapping[Key, Stream], step: int | None, *, replace: bool = False) -> list[Ending]:
        """Return what to tell the recorder of samples, by mode, that are in the history now, or dropped."""
        lanes: dict[str, list[Lane]] = {}
        for (mode, _), stream in streams.items():
            if stream.lane is not None and not stream.empty():
                lanes.setdefault(mode, []).append(stream.lane)
        recorder: Any = self.recorder
        return [recorder.ending(mode, step, some, replace=replace) for mode, some in lanes.items()]

    def dropped(self, mode: str | None) -> Owed:
        """Return the change that drops the samples of a mode, or of all."""
        streams = self.sealed(mode)
        return Owed(list(streams.values()), endings=self.endings(streams, None), modes=(mode,))

    def decide(self, owed: Owed) -> None:
        """Decide a change and carry it out."""
        try:
            self.owed = owed
            self.complete()
        except BaseException:
            self.complete()
            raise

    def complete(self) -> None:
        """Complete the change that is decided; every step may be repeated after an interrupt."""
        owed = self.owed
        if owed is None:
            return
        for place, entry in owed.entries:
            self.histories[place].enter(entry)
        self.order.update(dict.fromkeys(owed.order))
        for stream in owed.streams:
            stream.buffer.hand_on(asked=not owed.entries)
        for mode in owed.modes if self.waiting.numbers else ():  # without, no batch has ever waited
            self.waiting.begin(mode, drop=not owed.entries)
        for ending in owed.endings:
            if self.recorder is not None:
                self.recorder.end(ending)
        for stream in owed.streams:
            stream.buffer.clear()
            stream.appeared, stream.missed = {}, 0
        if (owed.streams and owed.entries) or owed.loaded is not None:
            self.unmapped = {}
        if owed.loaded is not None:
            self._replace(owed.streams, owed.loaded)
        for part in owed.merged:
            self._merge(part)
        self.owed = None

    def _replace(self, old: Sequence[Stream], loaded: Loaded) -> None:
        """Replace everything with a loaded state."""
        self.histories, self.words, self.order = loaded.histories, loaded.words, dict.fromkeys(loaded.order)
        self.began = max((stream.began for stream in loaded.streams.values()), default=0)
        self.streams.clear()
        self.streams.update(loaded.streams)
        for stream in old:
            stream.buffer.retire()
        for stream in list(self.streams.values()):
            if stream.missed or stream.folded is not None:
                why = "the state that was loaded has them as statistics only; a larger max_buffer_bytes keeps them"
                self._miss(stream, why)
            stream.buffer.paused = False

    def _merge(self, part: Merged) -> None:
        """Add what other trackers recorded to a stream."""
        old, stream = self.streams.get(part.key), part.stream
        self.streams[part.key] = stream
        if old is not None and old is not stream:
            old.buffer.retire()
        stream.buffer.merge_in(part.merged, part.folded, part.kind)
        stream.began, stream.appeared = part.began, part.appeared
        self.began = max(self.began, part.began)
        stream.missed = part.missed
        if part.missed:
            self._miss(stream, "merge_state() took them from a tracker that does not record")

    def _miss(self, stream: Stream, why: str) -> None:
        """Tell the recorder how many samples of a stream it will not get."""
        if self.recorder is not None and stream.lane is not None:
            self.recorder.miss(stream.lane, stream.missed, why)
