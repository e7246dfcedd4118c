"""Adding what other trackers have recorded to a tracker."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np

from labeltrack._core.arrays import Array, size_of
from labeltrack._labels.combination_codes import IDS, compatible, words_of
from labeltrack._tracking.ids import Duplicates, Seen, check_alike, repeated
from labeltrack._tracking.reducing import Reducer, in_order
from labeltrack._tracking.streams import Folded, Key, Merged, Owed, Snapshot, Stream, check_common_type
from labeltrack.errors import counted, warn
from labeltrack.history import Entry, History
from labeltrack.stats import LabelStats, merge_stats

if TYPE_CHECKING:
    from labeltrack._buffers import Rows
    from labeltrack._labels.codes import Vocabulary
    from labeltrack._tracking.changes import Recorded
    from labeltrack._tracking.intake import Intake

Epoch = tuple[int, str, int]
"""Place of the metric, mode and step."""

Given = tuple[dict[str, LabelStats], LabelStats | None]
"""The statistics of a step by dataset, and of all together if these have quantiles."""


@dataclass(frozen=True)
class Part:
    """The samples of one mode and dataset of another tracker: copies of them, or their statistics."""

    samples: Snapshot
    appeared: list[Any]  # labels that were folded
    missed: int  # samples that nothing records
    early: bool  # whether they count before those of the tracker that merges


@dataclass
class Parts:
    """What other trackers have recorded."""

    streams: dict[Key, list[Part]] = field(default_factory=dict)
    epochs: dict[Epoch, list[Given]] = field(default_factory=dict)
    order: dict[Any, None] = field(default_factory=dict)
    unmapped: dict[Any, None] = field(default_factory=dict)
    room: int = 0  # bytes that samples may still take


def gather(others: Iterable[Recorded], reducer: Reducer, room: int, *, keep_order: bool, place: int = 0) -> Parts:
    """Return what others have recorded, with copies of as many samples as `room`, in bytes, or duplicates require."""
    parts = Parts(room=room)
    for number, other in enumerate(others):
        with other.lock.to_read:
            other.complete()
            streams = [(key, stream) for key, stream in other.streams.items() if not stream.empty()]
            for key, stream in sorted(streams, key=lambda item: item[1].began):
                part = _part(stream, reducer, parts, other, keep_order=keep_order, early=number < place)
                parts.room -= sum(map(size_of, part.samples.rows))
                given = parts.streams.setdefault(key, [])
                given.append(_joined(given.pop(), part) if given and _sums(given[-1], part) else part)
            for at, history in enumerate(other.histories):
                for mode, step in dict.fromkeys((mode, step) for (mode, _, step), _ in history.items()):
                    of_step = history.datasets(step, mode), _pooled(history, mode, step)
                    parts.epochs.setdefault((at, mode, step), []).append(of_step)
            parts.order.update(other.order if other.keep_order else other.histories[0].names())
            parts.unmapped.update(other.unmapped)
    return parts


def _part(stream: Stream, reducer: Reducer, parts: Parts, other: Recorded, *, keep_order: bool, early: bool) -> Part:
    samples = stream.snapshot()
    gone = stream.missed if other.of_state else missed(stream)
    if reducer.finds_duplicates(stream) or sum(map(size_of, samples.rows)) <= parts.room:
        copies = [tuple(column.copy() for column in rows) for rows in samples.rows]
        together, appeared = samples.folded, _appeared(stream, keep_order=keep_order)
    else:
        copies = []
        together, appeared = folded(stream, reducer, keep_order=keep_order, unmapped=parts.unmapped)
    return Part(replace(samples, rows=copies, folded=together), appeared, gone, early)


def missed(stream: Stream) -> int:
    """Return the number of samples of a stream that nothing records."""
    return stream.count() if stream.lane is None else stream.missed


def _appeared(stream: Stream, *, keep_order: bool) -> list[Any]:
    """Return the labels of samples that were folded, in order of appearance if that is known."""
    if keep_order and not stream.appeared and stream.folded is not None:  # the other tracker does not keep it
        return list(stream.folded.stats[0].labels.tolist())
    return list(stream.appeared)


def folded(
    stream: Stream, reducer: Reducer, *, keep_order: bool, unmapped: dict[Any, None] | None = None
) -> tuple[Folded, list[Any]]:
    """Return what is kept of all samples, and labels as they appeared; `unmapped` gets some if none is mapped."""
    appeared = dict.fromkeys(_appeared(stream, keep_order=keep_order))
    return reducer.fold(stream.snapshot(), appeared if keep_order else None, unmapped), list(appeared)


def _sums(part: Part, other: Part) -> bool:
    """Return whether both are only sums of labels of one kind, of samples that all count."""
    alone = all(one.samples.folded is not None and not one.samples.rows for one in (part, other))
    kinds = {one.samples.decoder.kind for one in (part, other)}
    return alone and len(kinds) == 1 and part.samples.ids == other.samples.ids is None


def _joined(part: Part, other: Part) -> Part:
    """Return two parts that are only sums as one, so that no more than one and the next are in memory."""
    both = _together([one.samples.folded for one in (part, other)])
    samples, appeared = replace(part.samples, folded=both), [*part.appeared, *other.appeared]
    return replace(part, samples=samples, appeared=appeared, missed=part.missed + other.missed)


def _together(parts: Sequence[Folded | None]) -> Folded | None:
    """Return what is kept of samples that were folded in several places; None for nothing."""
    some = [part for part in parts if part is not None]
    if len(some) < 2:
        return some[0] if some else None
    stats = zip(*(part.stats for part in some), strict=True)
    merged = tuple(merge_stats([part._under("propagate") for part in each]) for each in stats)
    seen = [part.seen for part in some if part.seen is not None]
    if not seen:
        return Folded(merged)
    masks = repeated([each.ids for each in seen])
    ids = [each.ids for each in seen]
    if masks is not None:
        number = sum(int(mask.sum()) for mask in masks)
        warn(
            f"{counted(number, 'sample', 'are')} in the statistics of several of the trackers that were "
            "merged, counted more than once: these trackers had no room for samples, only for their sums; a larger "
            "max_buffer_bytes keeps samples"
        )
        ids = [each[~mask] for each, mask in zip(ids, masks, strict=True)]
    return Folded(merged, Seen(np.concatenate(ids), reduce(Duplicates.and_, (each.duplicates for each in seen))))


def _pooled(history: History, mode: str, step: int) -> LabelStats | None:
    """Return the statistics of all datasets of a step, if there are several and they have quantiles."""
    datasets = history.datasets(step, mode)
    if len(datasets) == 1 or not all(part.quantiles for part in datasets.values()):
        return None
    together = history.at(step, mode)
    return together if together.quantiles else None


def combine(intake: Intake, parts: Parts) -> Owed:
    """Return the change that adds parts to what is recorded; nothing is changed yet."""
    recorded = intake.recorded
    recorded.sealed(None)
    entries = [
        (place, _entry(recorded.histories[place], mode, step, given))
        for (place, mode, step), given in parts.epochs.items()
    ]
    kinds = {key: _common_kind(key, recorded.streams.get(key), given) for key, given in parts.streams.items()}
    every = {key: stream.kind for key, stream in recorded.streams.items() if not stream.empty()} | kinds
    for mode, _ in kinds:  # all datasets of a mode are pooled in the end
        _check_alike(mode, {kind for (of, _), kind in every.items() if of == mode})
    began, merged = recorded.began, []
    for key in parts.streams:
        began += 1
        merged.append(_merged(intake, parts, key, kinds[key], began))
    recorded.unmapped.update(parts.unmapped)
    order = [label for label in parts.order if label not in recorded.order] if recorded.keep_order else []
    return Owed([], entries, order=order, merged=merged)


def _entry(history: History, mode: str, step: int, given: list[Given]) -> Entry:
    own = history.datasets(step, mode) if mode in history.modes else {}
    every: dict[str, list[LabelStats]] = {}
    for datasets, _ in given:
        for ds_id, stats in datasets.items():
            every.setdefault(ds_id, [own[ds_id]] if ds_id in own else []).append(stats)
    together = {ds_id: some[0] if len(some) == 1 else merge_stats(some) for ds_id, some in every.items()}
    return Entry(step, mode, together, set(), None if own or len(given) > 1 else given[0][1])


def _common_kind(key: Key, stream: Stream | None, given: list[Part]) -> str:
    """Return the kind of labels that holds all of a mode and dataset."""
    own = [] if stream is None or stream.empty() else [stream.snapshot()]
    first, *more = every = [*own, *(part.samples for part in given)]
    for other in more:
        check_alike(key[0], first.ids, other.ids and other.ids.kind, "nothing was merged")
    _check_alike(key[0], {samples.decoder.kind for samples in every})
    return check_common_type(every, "nothing was merged")


def _check_alike(mode: str, kinds: set[str]) -> None:
    """Raise TypeError if a mode would have labels of kinds that do not go together."""
    if not compatible(kinds):
        msg = (
            f"the trackers to merge have {' and '.join(sorted(kinds))} labels in mode {mode!r}; convert them to one "
            "type (nothing was merged)"
        )
        raise TypeError(msg)


def _merged(intake: Intake, parts: Parts, key: Key, kind: str, began: int) -> Merged:
    """Return what a stream is to hold of other trackers."""
    recorded, reducer, given = intake.recorded, intake.reducer, parts.streams[key]
    stream = recorded.streams.get(key)
    recoded = [_recoded(recorded, part) for part in given]
    early: list[Rows] = []
    late: list[Rows] = []
    for samples, part in zip(recoded, given, strict=True):
        (early if part.early else late).extend(samples.rows)
    rows = [*early, *late]
    ids = recoded[0].ids
    own_ids = None if stream is None or stream.ids is None else stream.ids.kind
    if stream is None or (stream.empty() and (stream.kind != kind or own_ids != (ids and ids.kind))):
        dtypes = [column.dtype for column in rows[0]] if rows else column_dtypes(reducer.metrics, ids=ids is not None)
        stream = recorded.new_stream(key, kind, dtypes, ids and ids.kind)
    elif not stream.empty():
        began = stream.began
    own: Snapshot = stream.snapshot()
    appeared = dict(stream.appeared)
    kept = own.folded
    if any(samples.folded is not None for samples in recoded):
        kept = _together([own.folded, *(samples.folded for samples in recoded)])
        if recorded.keep_order:
            _note_order(appeared, own, reducer)
            appeared.update(dict.fromkeys(label for part in given for label in part.appeared))
    if parts.room < 0 and ids is not None:
        whole, found = reducer.distinct(replace(own, rows=[*early, *own.rows, *late], folded=kept))
        others = [*whole.rows[: len(early)], *whole.rows[len(early) + len(own.rows) :]]
        fresh = replace(own, rows=others, folded=kept)
        if recorded.keep_order:
            _note_order(appeared, own, reducer)
        number = sum(len(columns[0]) for columns in rows) - sum(len(columns[0]) for columns in fresh.rows)
        kept, early, late = reducer.fold(fresh, appeared if recorded.keep_order else None), [], []
        if kept.seen is not None:
            duplicates = kept.seen.duplicates.and_(Duplicates(number, found.some))
            kept = kept._replace(seen=kept.seen._replace(duplicates=duplicates))
    if kept is not own.folded and kept is not None:
        kept = kept._replace(stats=tuple(map(intake.without_quantiles, kept.stats)))
    missed = stream.missed + sum(part.missed for part in given)
    here = sum(len(columns[0]) for columns in stream.buffer.own_rows())
    merged = (*((0, columns) for columns in early), *stream.buffer.merged, *((here, columns) for columns in late))
    return Merged(key, stream, kind, merged, kept, began, appeared, missed)


def column_dtypes(metrics: int, *, ids: bool) -> list[Any]:
    """Return dtypes of columns that have no rows yet."""
    return [np.dtype(np.uint8), *[np.dtype(np.float32)] * metrics, *([np.dtype(np.int64)] if ids else [])]


def _note_order(appeared: dict[Any, None], samples: Snapshot, reducer: Reducer) -> None:
    """Add the labels of samples, in order of appearance."""
    if samples.rows:
        labels = reducer.reduce(samples.rows, samples.decoder)[0].labels.tolist()
        appeared.update(dict.fromkeys(in_order(labels, samples.rows, samples.decoder)))


def _recoded(recorded: Recorded, part: Part) -> Snapshot:
    """Return samples with the keys that this tracker has for their labels and ids."""
    samples, decoder, rows = part.samples, part.samples.decoder, part.samples.rows
    words = words_of(recorded.words, decoder.kind)
    if words is not None and rows:
        codes = _codes([columns[0] for columns in rows], decoder.decode, words)
        rows = [(codes[keys], *more) for keys, *more in rows]
    folded, ids = samples.folded, samples.ids
    if ids is not None and ids.words is not None:
        seen = None if folded is None else folded.seen
        columns = [columns[-1] for columns in rows] + ([] if seen is None else [seen.ids])
        known = ids.words.words
        codes = _codes(columns, lambda used: [known[code] for code in used.tolist()], recorded.words[IDS]).astype(
            np.int64
        )
        rows = [(*others, codes[column]) for *others, column in rows]
        if folded is not None and seen is not None:
            some = tuple(codes[np.array(seen.duplicates.some, dtype=np.int64)].tolist())
            folded = folded._replace(seen=Seen(codes[seen.ids], seen.duplicates._replace(some=some)))
    return replace(samples, rows=rows, folded=folded)


def _codes(columns: Sequence[Array], decode: Callable[[Array], Any], own: Vocabulary) -> Array:
    """Return, by code of another tracker, the code that this one has for the word; zero for those that do not occur."""
    used = np.unique(np.concatenate([np.unique(column) for column in columns])) if columns else np.empty(0, np.int64)
    codes = np.zeros(int(used.max(initial=-1)) + 1, dtype=np.int32)
    codes[used] = own.encode(decode(used.astype(np.int64)))
    return codes
