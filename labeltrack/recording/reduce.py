"""From recorded parts to exact statistics per label, or per combination of several labels."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from labeltrack._core.accumulator import Accumulator
from labeltrack._core.arrays import order_of
from labeltrack._core.masks import selected
from labeltrack._core.reduce import AsKeys, reduce_stream
from labeltrack._labels.codes import INTEGER, UNSIGNED, LabelDecoder
from labeltrack._labels.combined import columns_of, combinations, grouped
from labeltrack._labels.missing import names_of, wanted_by
from labeltrack._labels.tuples import WHOLE
from labeltrack.recording.distinct import Distinct
from labeltrack.recording.join import Join
from labeltrack.recording.reader import batches_of, open_parts
from labeltrack.stats import LabelStats, merge_stats

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from labeltrack._labels.codes import LabelMapping
    from labeltrack._nan_policy import NanPolicy
    from labeltrack.recording.arrow_ipc import Batch
    from labeltrack.recording.columns import Columns
    from labeltrack.recording.epochs import PartEntry
    from labeltrack.recording.reader import Column, PartReader, PartResult, Rows
    from labeltrack.recording.storage import Storage

Array = npt.NDArray[Any]
Integers = npt.NDArray[np.int64]
Chunk = tuple[Array, Array]


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
    """How samples become statistics.

    Attributes:
        columns: Labels and metrics of the samples.
        metric: Place of the metric among them.
        several: Whether labels are combinations, be it of one label.
        mappings: Labels to keep, and their names, for each label; None keeps every label.
        missing: What samples without a label did when they were recorded, for each label.
        nan_policy: What NaN samples do.
        distinct: Whether only the first sample of each id counts, of all parts together.
    """

    columns: Columns
    metric: int
    several: bool
    mappings: tuple[LabelMapping | None, ...]
    missing: tuple[str, ...]
    nan_policy: NanPolicy
    distinct: bool = False

    @property
    def names(self) -> Mapping[Any, str] | None:
        """Display names, as statistics take them."""
        each = [names_of(*pair) for pair in zip(self.mappings, self.missing, strict=True)]
        if not self.several:
            return each[0]
        pairs = zip(self.columns.labels, each, strict=True)
        return {(name, label): shown for name, of in pairs for label, shown in (of or {}).items()}

    def wanted(self, spaces: Sequence[LabelDecoder]) -> list[Integers | None]:
        """Return the keys to keep of each label; None keeps all."""
        return [
            None if mapping is None else space.encode(wanted_by(mapping, missing))
            for space, mapping, missing in zip(spaces, self.mappings, self.missing, strict=True)
        ]

    def nothing(self) -> LabelStats:
        """Return the statistics of no samples."""
        empty = np.empty(0, dtype=np.int64)
        labels = combinations(dict.fromkeys(self.columns.labels, empty)) if self.several else empty
        return LabelStats(labels, Accumulator(0), nan_policy=self.nan_policy)


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
    readers = open_parts(storage, parts, rules.columns)
    distinct = Distinct() if rules.distinct and any(reader.ids is not None for reader in readers) else None
    stats, samples = [], []
    for members in _groups(readers, in_turn=distinct is not None):
        of_group, kept = _reduce_group(members, rules, distinct, threads, on_rows, keep=keep)
        stats.append(of_group)
        samples += [kept] if keep else []
    found = [reader.finish() for reader in readers]
    stats = stats or [rules.nothing()]  # nothing can be read
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


class _Item(NamedTuple):
    """A batch, which may have been read."""

    reader: PartReader
    batch: Batch
    rows: Rows | None = None
    first: Array | None = None  # which samples are the first of their id; None: all


def _items(members: Sequence[PartReader], distinct: Distinct | None) -> Iterator[_Item]:
    """Yield batches; where samples must be distinct, with their rows, as the order of batches then matters."""
    for reader, batch in batches_of(members):
        if distinct is None:
            yield _Item(reader, batch)
        else:
            rows = reader.rows(batch)
            ids = None if rows is None else rows.ids
            first = None if ids is None or reader.ids is None else distinct.first(ids, reader.ids)
            yield _Item(reader, batch, rows, first)


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
    every = [[reader.labels[place] for reader in members] for place in range(len(rules.columns.labels))]
    spaces = [_common_space(columns) for columns in every]
    wanted = rules.wanted(spaces)
    dtypes = [{column.dtype for column in columns} for columns in every]
    join = Join(rules.columns.labels, dtypes, spaces, wanted) if rules.several else None
    chunks: list[Chunk] = []

    def load(item: _Item) -> Chunk | None:
        reader, batch, rows, first = item
        rows = reader.rows(batch) if distinct is None else rows
        on_rows(batch.rows)
        if rows is None or not batch.rows:
            return None
        keys = [of.keys(column) for of, column in zip(reader.labels, rows.labels, strict=True)]
        values = rows.values[rules.metric]
        if first is not None:
            *keys, values = selected(first, *keys, values, threads=1)
        chunk = (keys[0], values) if join is None else join.chunk(keys, values)
        if keep:
            chunks.append(chunk)
        return chunk

    expected = sum(reader.expected for reader in members)
    decoder: Any = AsKeys() if join is not None else spaces[0]
    only = wanted[0] if join is None else None
    labels, accumulator = reduce_stream(
        _items(members, distinct), load, expected, decoder, wanted=only, threads=threads
    )
    if join is None:
        keys = spaces[0].keys(labels) if keep else labels
    else:
        table, places = grouped(columns_of(join.decode(labels)))
        order = order_of(places)
        keys, labels, accumulator = labels[order], table, accumulator.take(order)
    stats = LabelStats(labels, accumulator, names=rules.names, nan_policy=rules.nan_policy)
    return stats, Samples(chunks, keys, labels)


def _common_space(columns: Sequence[Column]) -> LabelDecoder:
    """Return what the keys of a label mean in several parts."""
    kinds = {column.kind for column in columns}
    return columns[0].space() if len(kinds) == 1 else LabelDecoder(UNSIGNED if UNSIGNED in kinds else INTEGER)
