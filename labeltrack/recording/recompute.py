"""Recomputing the statistics of recorded epochs: from parts to exact statistics per label or combination of labels."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

import numpy as np

from labeltrack._core import quantiles
from labeltrack._core.accumulator import Accumulator
from labeltrack._core.arrays import Array, Integers, order_of
from labeltrack._core.combine import selected
from labeltrack._core.reduce import reduce_stream
from labeltrack._labels.codes import INTEGER, LabelDecoder, common_type
from labeltrack._labels.combination_codes import WHOLE, wider
from labeltrack._labels.combined import columns_of, grouped, union
from labeltrack.errors import NaNError, check_option
from labeltrack.recording.keys import Distinct, Join
from labeltrack.recording.reader import Engine, batches_of, open_parts, progress_bar, read_on_cluster
from labeltrack.stats import LabelStats, merge_stats

if TYPE_CHECKING:
    from labeltrack._labels.options import Labels
    from labeltrack._nan_policy import NanPolicy
    from labeltrack.history import History
    from labeltrack.recording.arrow_ipc import Batch
    from labeltrack.recording.description import Description
    from labeltrack.recording.epochs import Epoch, PartEntry
    from labeltrack.recording.reader import PartReader, PartResult, Rows
    from labeltrack.recording.regroup import Grouping, Groupings
    from labeltrack.recording.storage import Storage

Chunk = tuple[Array, Array]
_Item = tuple["PartReader", "Batch", "Rows | None", "Array | None"]


class Samples(NamedTuple):
    """The samples that statistics were computed from."""

    chunks: list[Chunk]  # ``(N,)`` keys and ``(N,)`` values
    keys: Integers  # ``(K,)`` keys that occurred
    labels: Array  # ``(K,)`` what they stand for


class Reduced(NamedTuple):
    """Statistics of some parts."""

    stats: LabelStats
    found: list[PartResult]
    samples: list[Samples]  # empty unless they were to be kept


class Rules(NamedTuple):
    """How samples become statistics."""

    described: Description
    metric: int  # place among those of the run
    labels: Labels  # which count, and what they are called
    nan_policy: NanPolicy

    @property
    def distinct(self) -> bool:
        """Whether only the first sample of each id counts, of all parts together."""
        return self.described.duplicates == "first"


@dataclass(frozen=True)
class Recomputation:
    """What to compute from the samples, and where; ValueError if the engine cannot."""

    rules: Rules  # for recorded labels
    grouping: Grouping | Groupings | None  # None keeps the recorded labels
    new: Labels  # which new labels count, and what they are called
    fractions: tuple[float, ...]  # quantiles
    engine: Engine
    threads: int | None

    def __post_init__(self) -> None:
        check_option("engine", self.engine, get_args(Engine))
        if self.engine == "dask" and self.fractions:
            msg = (
                "engine='dask' merges statistics of parts, and quantiles cannot be merged; use engine='local', or "
                "other bounds, such as bounds='std'"
            )
            raise ValueError(msg)

    def run(self, storage: Storage, epochs: Sequence[Epoch], history: History, *, progress: bool) -> list[PartResult]:
        """Add the statistics of epochs to a history; return what was read from each part."""
        jobs = [epoch.parts(ds_id) for epoch in epochs for ds_id in epoch.ds_ids]
        found: list[PartResult] = []
        total = sum(part.rows or 0 for job in jobs for part in job)
        with (
            progress_bar("Recomputing", total, "samples", wanted=progress) as advance,
            contextlib.closing(self._results(storage, jobs, advance)) as results,
        ):
            for epoch in epochs:
                stats: dict[str, LabelStats] = {}
                samples: list[Samples] = []
                for ds_id in epoch.ds_ids:
                    reduced = next(results)
                    found += reduced.found
                    finished = self._finished(reduced, f"mode {epoch.mode!r}, step {epoch.step}", ds_id)
                    if len(finished):
                        stats[ds_id] = finished
                        samples += reduced.samples
                if stats:
                    merges = len(stats) == 1 or not self.fractions  # merging gives everything except quantiles
                    pooled = None if merges else self._with_quantiles(merge_stats(stats.values()), samples)
                    history.add_all(epoch.step, stats, mode=epoch.mode, pooled=pooled)
        return found

    def _results(
        self, storage: Storage, jobs: Sequence[Sequence[PartEntry]], on_rows: Callable[[int], object]
    ) -> Generator[Reduced, None, None]:
        rules, threads, keep = self.rules, self.threads, bool(self.fractions)
        if self.engine == "local":
            return (reduce_parts(storage, job, rules, threads=threads, on_rows=on_rows, keep=keep) for job in jobs)
        whole = rules.distinct and rules.described.ids  # to find samples of one id, one task has to read all parts
        tasks = [[job] if whole else [[part] for part in job] for job in jobs]
        return read_on_cluster(storage, tasks, partial(reduce_parts, rules=rules, threads=1), on_rows, _merged)

    def _finished(self, reduced: Reduced, where: str, ds_id: str) -> LabelStats:
        """Return the statistics by new label, with quantiles."""
        stats = reduced.stats if self.grouping is None else self.grouping.apply(reduced.stats, self._new_mappings)
        try:
            stats._check_finite()
        except NaNError as error:
            of = f" of ds_id {ds_id!r}" if ds_id else ""
            msg = f"{where}{of}: {error}"
            raise NaNError(msg) from None
        return self._with_quantiles(stats, reduced.samples)

    @property
    def _new_mappings(self) -> Any:
        """The mapping of the new label, or those of several, as groupings take them."""
        each = [option.mapping for option in self.new.options.values()]
        return each if self.new.names else each[0]

    def _with_quantiles(self, stats: LabelStats, samples: Sequence[Samples]) -> LabelStats:
        if not self.fractions or not len(stats):
            return stats
        parts = []
        for one in samples:
            keys, labels = one.keys, one.labels
            if self.grouping is not None:
                rows, labels = self.grouping.new_labels(one.labels, self._new_mappings)
                keys = keys[rows]
            if labels.size:
                parts.append(quantiles.Samples(one.chunks, keys, _places(stats.labels, labels)))
        return stats._with_quantiles(parts, self.fractions, threads=self.threads)


def _places(known: Array, labels: Array) -> Integers:
    """Return where ``(N,)`` labels, or combinations, are among all of them."""
    if known.dtype.names is not None:
        return union([known, labels])[1][1]
    known, labels = common_type([known, labels])
    return np.searchsorted(known, labels)


def _merged(results: list[Reduced]) -> Reduced:
    """Merge results; runs on a worker."""
    return Reduced(merge_stats([one.stats for one in results]), [part for one in results for part in one.found], [])


# -- reading parts ----------------------------------------------------------------------------------------


def reduce_parts(
    storage: Storage,
    parts: Sequence[PartEntry],
    rules: Rules,
    *,
    threads: int | None = None,
    on_rows: Callable[[int], object] = lambda _: None,
    keep: bool = False,
) -> Reduced:
    """Reduce parts to statistics per label; `on_rows` is called with the rows of each batch, in any thread."""
    readers = open_parts(storage, parts, rules.described.columns)
    distinct = Distinct() if rules.distinct and any(reader.ids is not None for reader in readers) else None
    stats, samples = [], []
    for members in _groups(readers, in_turn=distinct is not None):
        of_group, kept = _reduce_group(members, rules, distinct, threads, on_rows, keep=keep)
        stats.append(of_group)
        samples += [kept] if keep else []
    found = [reader.finish() for reader in readers]
    if not stats:  # nothing can be read
        labels = rules.labels.nothing.decode(np.empty(0, dtype=np.int64))
        stats = [LabelStats(labels, Accumulator(0), nan_policy=rules.nan_policy)]
    return Reduced(stats[0] if len(stats) == 1 else merge_stats(stats), found, samples)


def _groups(readers: Sequence[PartReader], *, in_turn: bool) -> list[list[PartReader]]:
    """Return parts whose keys mean the same together; if `in_turn`, only those that follow each other."""
    groups: dict[Any, list[PartReader]] = defaultdict(list)
    turn, before = 0, None
    for reader in readers:
        if reader.labels:
            # Codes mean something in one process and vocabulary only.
            key = ["" if one.kind in WHOLE else (one.kind, one.number, reader.entry.journal) for one in reader.labels]
            turn += in_turn and key != before
            before = key
            groups[turn, *key].append(reader)
    return list(groups.values())


def _items(members: Sequence[PartReader], distinct: Distinct | None) -> Iterator[_Item]:
    """Yield batches; where samples must be distinct, with their rows and a mask, as their order then matters."""
    for reader, batch in batches_of(members):
        rows = None if distinct is None else reader.rows(batch)
        ids = None if rows is None else rows.ids
        first = None if distinct is None or ids is None or reader.ids is None else distinct.first(ids, reader.ids)
        yield reader, batch, rows, first


def _reduce_group(
    members: Sequence[PartReader],
    rules: Rules,
    distinct: Distinct | None,
    threads: int | None,
    on_rows: Callable[[int], object],
    *,
    keep: bool,
) -> tuple[LabelStats, Samples]:
    """Reduce parts whose keys mean the same."""
    every = [[reader.labels[place] for reader in members] for place in range(len(rules.labels.options))]
    kinds = [reduce(wider, [column.kind for column in columns]) for columns in every]
    spaces = [columns[0]._replace(kind=kind).space() for columns, kind in zip(every, kinds, strict=True)]
    wanted = rules.labels.wanted_of_each(spaces)
    names = rules.labels.names
    join = Join(names, spaces, wanted) if names else None
    chunks: list[Chunk] = []

    def load(item: _Item) -> list[Chunk]:
        reader, batch, rows, first = item
        rows = reader.rows(batch) if distinct is None else rows
        on_rows(batch.rows)
        if rows is None or not batch.rows:
            return []
        keys = [of.keys(column) for of, column in zip(reader.labels, rows.labels, strict=True)]
        values = rows.values[rules.metric]
        if first is not None:
            *keys, values = selected(first, *keys, values, threads=1)
        chunk = (keys[0], values) if join is None else join.chunk(keys, values)
        if keep:
            chunks.append(chunk)
        return [chunk]

    expected = sum(reader.expected for reader in members)
    decoder: Any = LabelDecoder(INTEGER) if join is not None else spaces[0]
    only = wanted[0] if join is None else None
    items = _items(members, distinct)
    labels, accumulator = reduce_stream(items, load, expected, decoder, wanted=only, threads=threads)
    if join is None:
        keys = spaces[0].keys(labels) if keep else labels
    else:
        table, places = grouped(columns_of(join.decode(labels)))
        order = order_of(places)
        keys, labels, accumulator = labels[order], table, accumulator.take(order)
    stats = LabelStats(labels, accumulator, names=rules.labels.shown, nan_policy=rules.nan_policy)
    return stats, Samples(chunks, keys, labels)
