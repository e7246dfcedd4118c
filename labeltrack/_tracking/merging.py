"""Adding what other trackers have recorded to a tracker."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from labeltrack._labels.tuples import compatible, wider, words_of
from labeltrack._tracking.intake import no_common_type
from labeltrack._tracking.reducing import in_order, some_labels
from labeltrack._tracking.streams import Merged, Owed, Snapshot
from labeltrack.history import Entry
from labeltrack.stats import merge_stats

if TYPE_CHECKING:
    from collections.abc import Iterable

    from labeltrack._labels.codes import LabelDecoder
    from labeltrack._tracking.intake import Intake
    from labeltrack._tracking.recorded import Recorded
    from labeltrack._tracking.reducing import Reducer
    from labeltrack._tracking.streams import Key, Stream
    from labeltrack.history import History
    from labeltrack.stats import LabelStats

Array = npt.NDArray[Any]
Chunks = list[tuple[Array, Array]]


@dataclass(frozen=True)
class Part:
    """The samples of one mode and dataset of another tracker: copies of them, or their statistics."""

    kind: str
    decoder: LabelDecoder
    chunks: Chunks
    folded: LabelStats | None
    appeared: list[Any]  # labels that were folded
    missed: int  # samples that nothing records


@dataclass
class Parts:
    """What other trackers have recorded."""

    streams: dict[Key, list[Part]] = field(default_factory=dict)
    epochs: dict[tuple[str, int], list[dict[str, LabelStats]]] = field(default_factory=dict)
    pooled: dict[tuple[str, int], LabelStats | None] = field(default_factory=dict)
    order: dict[Any, None] = field(default_factory=dict)
    unmapped: dict[Any, None] = field(default_factory=dict)


def gather(others: Iterable[Recorded], reducer: Reducer, room: int, *, keep_order: bool) -> Parts:
    """Return what other trackers have recorded, with copies of as many samples as `room`, in bytes, allows."""
    parts = Parts()
    for other in others:
        with other.turns.to_read:
            other.settle()
            streams = [(key, stream) for key, stream in other.streams.items() if not stream.empty()]
            for key, stream in sorted(streams, key=lambda item: item[1].began):
                part = _part(stream, reducer, room, parts.unmapped, other, keep_order=keep_order)
                room -= sum(keys.nbytes + values.nbytes for keys, values in part.chunks)
                given = parts.streams.setdefault(key, [])
                given.append(_joined(given.pop(), part) if given and _sums(given[-1], part) else part)
            for mode, step in dict.fromkeys((mode, step) for (mode, _, step), _ in other.history.items()):
                datasets = other.history.datasets(step, mode)
                parts.epochs.setdefault((mode, step), []).append(datasets)
                parts.pooled[mode, step] = _pooled(other.history, mode, step)
            parts.order.update(other.order if other.keep_order else other.history.names())
            parts.unmapped.update(other.unmapped)
    return parts


def _part(
    stream: Stream, reducer: Reducer, room: int, unmapped: dict[Any, None], other: Recorded, *, keep_order: bool
) -> Part:
    samples = stream.snapshot()
    gone = stream.missed if other.of_state else missed(stream)
    if sum(keys.nbytes + values.nbytes for keys, values in samples.chunks) <= room:
        copies = [(keys.copy(), values.copy()) for keys, values in samples.chunks]
        before = None if samples.folded is None else samples.folded._under("propagate")
        return Part(
            stream.kind, samples.decoder, copies, before, _appeared(stream, before, keep_order=keep_order), gone
        )
    together, appeared = folded(stream, reducer, keep_order=keep_order, unmapped=unmapped)
    return Part(stream.kind, samples.decoder, [], together, appeared, gone)


def missed(stream: Stream) -> int:
    """Return the number of samples of a stream that nothing records."""
    return stream.count() if stream.lane is None else stream.missed


def _appeared(stream: Stream, before: LabelStats | None, *, keep_order: bool) -> list[Any]:
    """Return the labels of samples that were folded, in order of appearance if that is known."""
    if keep_order and not stream.appeared and before is not None:  # the other tracker does not keep it
        return list(before.labels.tolist())
    return list(stream.appeared)


def folded(
    stream: Stream, reducer: Reducer, *, keep_order: bool, unmapped: dict[Any, None] | None = None
) -> tuple[LabelStats, list[Any]]:
    """Return statistics of all samples of a stream, and their labels in order of appearance if that is to be kept.

    Args:
        stream: It is not changed.
        reducer: Reduces samples.
        keep_order: Whether to look for that order.
        unmapped: Gets some labels of samples of which none is mapped.
    """
    samples = stream.snapshot()
    before = None if samples.folded is None else samples.folded._under("propagate")
    appeared = _appeared(stream, before, keep_order=keep_order)
    if before is not None and not samples.chunks:
        return before, appeared
    fresh = reducer.reduce(samples.chunks, samples.decoder)
    if not len(fresh) and unmapped is not None:
        unmapped.update(some_labels(samples.chunks, samples.decoder))
    if keep_order:
        appeared += in_order(fresh.labels.tolist(), samples.chunks, samples.decoder)
    return fresh if before is None else merge_stats([before, fresh]), appeared


def _sums(part: Part, other: Part) -> bool:
    """Return whether both are only sums of labels of one kind."""
    alone = part.folded is not None and other.folded is not None and not part.chunks and not other.chunks
    return alone and part.kind == other.kind


def _joined(part: Part, other: Part) -> Part:
    """Return two parts that are only sums as one, so that no more than one and the next are in memory."""
    both = merge_stats([sums for sums in (part.folded, other.folded) if sums is not None])
    return replace(part, folded=both, appeared=[*part.appeared, *other.appeared], missed=part.missed + other.missed)


def _pooled(history: History, mode: str, step: int) -> LabelStats | None:
    """Return the statistics of all datasets of a step, if there are several and they have quantiles."""
    datasets = history.datasets(step, mode)
    if len(datasets) == 1 or not all(part.quantiles for part in datasets.values()):
        return None
    together = history.at(step, mode)
    return together if together.quantiles else None


def combine(recorded: Recorded, parts: Parts, reducer: Reducer, intake: Intake) -> Owed:
    """Return the change that adds parts to what is recorded; nothing is changed yet."""
    recorded.sealed(None)
    entries = [_entry(recorded.history, key, given, parts.pooled[key]) for key, given in parts.epochs.items()]
    kinds = {key: _common_kind(key, recorded.streams.get(key), given) for key, given in parts.streams.items()}
    every = {key: stream.kind for key, stream in recorded.streams.items() if not stream.empty()} | kinds
    for mode, _ in kinds:  # all datasets of a mode are pooled in the end
        _check_alike(mode, {kind for (of, _), kind in every.items() if of == mode})
    began, merged = recorded.began, []
    for key, given in parts.streams.items():
        began += 1
        merged.append(_merged(recorded, key, kinds[key], given, began, reducer, intake))
    recorded.unmapped.update(parts.unmapped)
    order = [label for label in parts.order if label not in recorded.order] if recorded.keep_order else []
    return Owed([], entries, order=order, merged=merged)


def _entry(
    history: History, key: tuple[str, int], given: list[dict[str, LabelStats]], pooled: LabelStats | None
) -> Entry:
    mode, step = key
    own = history.datasets(step, mode) if mode in history.modes else {}
    every: dict[str, list[LabelStats]] = {}
    for datasets in given:
        for ds_id, stats in datasets.items():
            every.setdefault(ds_id, [own[ds_id]] if ds_id in own else []).append(stats)
    together = {ds_id: some[0] if len(some) == 1 else merge_stats(some) for ds_id, some in every.items()}
    return Entry(step, mode, together, set(), None if own or len(given) > 1 else pooled)


def _common_kind(key: Key, stream: Stream | None, given: list[Part]) -> str:
    """Return the kind of labels that holds all of a mode and dataset."""
    own = [] if stream is None or stream.empty() else [(stream.kind, stream.snapshot())]
    every = [*own, *((part.kind, Snapshot(part.chunks, part.folded, part.decoder)) for part in given)]
    kinds = {kind for kind, _ in every}
    _check_alike(key[0], kinds)
    if no_common_type(reduce(wider, kinds), every):
        msg = "labels above 2**63 - 1 and negative labels do not fit one type (nothing was merged)"
        raise TypeError(msg)
    return reduce(wider, kinds)


def _check_alike(mode: str, kinds: set[str]) -> None:
    """Raise TypeError if a mode would have labels of kinds that do not go together."""
    if not compatible(kinds):
        msg = (
            f"the trackers to merge have {' and '.join(sorted(kinds))} labels in mode {mode!r}; convert them to one "
            "type (nothing was merged)"
        )
        raise TypeError(msg)


def _merged(
    recorded: Recorded, key: Key, kind: str, given: list[Part], began: int, reducer: Reducer, intake: Intake
) -> Merged:
    """Return what a stream is to hold of other trackers."""
    stream = recorded.streams.get(key)
    chunks = [chunk for part in given for chunk in _recoded(recorded, part)]
    if stream is None or (stream.kind != kind and stream.empty()):
        first = chunks[0] if chunks else (np.empty(0, np.int32), np.empty(0, np.float32))
        stream = recorded.new_stream(key, kind, (first[0].dtype, first[1].dtype))
    elif not stream.empty():
        began = stream.began
    own: Snapshot = stream.snapshot()
    before = [] if own.folded is None else [own.folded._under("propagate")]
    folds = [part.folded for part in given if part.folded is not None]
    folded = own.folded
    appeared = dict(stream.appeared)
    if folds:
        folded = intake.without_quantiles(merge_stats([*before, *folds]))
        if recorded.keep_order:
            if own.chunks:
                labels = reducer.reduce(own.chunks, own.decoder).labels.tolist()
                appeared.update(dict.fromkeys(in_order(labels, own.chunks, own.decoder)))
            appeared.update(dict.fromkeys(label for part in given for label in part.appeared))
    missed = stream.missed + sum(part.missed for part in given)
    return Merged(key, stream, kind, (*stream.buffer.merged, *chunks), folded, began, appeared, missed)


def _recoded(recorded: Recorded, part: Part) -> Chunks:
    """Return samples with the keys that this tracker has for their labels."""
    vocabulary, words = part.decoder.vocabulary, words_of(recorded.words, part.kind)
    if vocabulary is None or words is None or not part.chunks:
        return part.chunks
    used = np.unique(np.concatenate([np.unique(keys) for keys, _ in part.chunks]))
    codes = np.zeros(vocabulary.shape[0], dtype=np.int32)
    codes[used] = words.encode(vocabulary[used].tolist())
    return [(codes[keys], values) for keys, values in part.chunks]
