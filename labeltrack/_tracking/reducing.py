"""From the samples of streams to their statistics."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from labeltrack._core.quantiles import Samples
from labeltrack._core.reduce import reduce_columns
from labeltrack._labels.codes import INTEGER, LabelDecoder
from labeltrack._labels.combination_codes import TupleDecoder
from labeltrack._labels.combined import in_order_of_labels, union
from labeltrack._tracking.ids import Duplicates, Seen, distinct
from labeltrack._tracking.streams import Folded, Snapshot, Stream
from labeltrack.stats import LabelStats, merge_stats

if TYPE_CHECKING:
    from labeltrack._buffers import Rows
    from labeltrack._labels.options import Labels
    from labeltrack._nan_policy import NanPolicy
    from labeltrack.recording.description import OnDuplicate

FIRST_LOOK = 1 << 10  # samples in which to look for labels that are new
FEW_SAMPLES = 100_000  # of which the labels are named in a warning


@dataclass(frozen=True)
class Reducer:
    """Reduces the samples of streams."""

    labels: Labels
    fractions: Sequence[float]
    metrics: int = 1
    on_duplicate: OnDuplicate | None = None

    def finds_duplicates(self, stream: Snapshot | Stream) -> bool:
        """Return whether samples count only once."""
        return stream.ids is not None and self.on_duplicate != "count"

    def distinct(self, samples: Snapshot) -> tuple[Snapshot, Duplicates]:
        """Return the samples that count, and what was left out as duplicates, those that were folded included."""
        if not self.finds_duplicates(samples):
            return samples, Duplicates()
        seen = None if samples.folded is None else samples.folded.seen
        rows, found = distinct(samples.rows, seen)
        return replace(samples, rows=rows), found if seen is None else seen.duplicates.and_(found)

    def fold(
        self, samples: Snapshot, appeared: dict[Any, None] | None = None, unmapped: dict[Any, None] | None = None
    ) -> Folded:
        """Return what is kept of samples; `appeared` gets labels as they appear, `unmapped` some if none is mapped."""
        kept, duplicates = self.distinct(samples)
        before = samples.folded
        stats = self.stats(kept, "propagate", ())
        labels = stats[0].labels
        if appeared is not None:
            appeared |= dict.fromkeys(in_order({*labels.tolist()} - {*appeared}, samples.rows, samples.decoder))
        if unmapped is not None and not labels.size:
            unmapped |= some_labels(samples.rows, samples.decoder)
        number = (0 if before is None else before.rows) + sum(len(rows[0]) for rows in samples.rows)
        if not self.finds_duplicates(samples):
            return Folded(stats, rows=number)
        seen = [] if before is None or before.seen is None else [before.seen.ids]
        ids = np.concatenate([*seen, *(rows[-1] for rows in kept.rows), np.empty(0, np.int64)])
        return Folded(stats, Seen(ids, duplicates), number)

    def reduce(
        self, rows: Sequence[Rows], decoder: LabelDecoder, nan_policy: NanPolicy = "propagate"
    ) -> tuple[LabelStats, ...]:
        """Return the statistics of each metric: of rows of keys and values, whose further columns are ignored."""
        wanted, shown = self.labels.wanted(decoder), self.labels.shown
        chunks = [columns[: 1 + self.metrics] for columns in rows]
        if isinstance(decoder, TupleDecoder):
            as_keys, size = LabelDecoder(INTEGER), decoder.size
            codes, unsorted = reduce_columns(chunks, as_keys, columns=self.metrics, wanted=wanted, codes=size)
            labels, order = in_order_of_labels(decoder.decode(codes))
            accumulators = [accumulator.take(order) for accumulator in unsorted]
        else:
            words = 0 if decoder.vocabulary is None else len(decoder.vocabulary)
            labels, accumulators = reduce_columns(chunks, decoder, columns=self.metrics, wanted=wanted, codes=words)
        return tuple([LabelStats(labels, each, names=shown, nan_policy=nan_policy) for each in accumulators])

    def stats(
        self, samples: Snapshot, nan_policy: NanPolicy, fractions: Sequence[float] | None = None
    ) -> tuple[LabelStats, ...]:
        """Return the statistics of each metric of a stream, with quantiles if none of its samples were folded."""
        fractions = self.fractions if fractions is None else fractions
        before = None if samples.folded is None else [each._under(nan_policy) for each in samples.folded.stats]
        if before is not None and not samples.rows:
            return tuple(before)
        fresh = self.reduce(samples.rows, samples.decoder, nan_policy)
        if before is not None:
            return tuple(map(merge_stats, zip(before, fresh, strict=True)))
        if not fractions:
            return fresh
        keys, places = samples.decoder.keys(fresh[0].labels), np.arange(len(fresh[0]))
        parts = [Samples(samples.of(metric), keys, places) for metric in range(self.metrics)]
        return tuple([each._with_quantiles([part], fractions) for each, part in zip(fresh, parts, strict=True)])

    def pooled(self, streams: Sequence[Snapshot], stats: Sequence[LabelStats], metric: int) -> LabelStats:
        """Return the statistics of a metric in several streams together, given those of each."""
        if len(stats) == 1:
            return stats[0]
        pooled = merge_stats(stats)
        if not self.fractions or any(samples.folded is not None for samples in streams):
            return pooled
        filled = [(samples, part.labels) for samples, part in zip(streams, stats, strict=True) if len(part)]
        slots = union([labels for _, labels in filled])[1] if filled else []
        parts = [
            Samples(samples.of(metric), samples.decoder.keys(labels), places)
            for (samples, labels), places in zip(filled, slots, strict=True)
        ]
        return pooled._with_quantiles(parts, self.fractions)


def some_labels(rows: Iterable[Rows], decoder: LabelDecoder) -> dict[Any, None]:
    """Return some of the labels of samples, whether mapped or not."""
    found: dict[Any, None] = {}
    for keys, *_ in list(rows)[:1]:
        some = np.unique(keys[:FEW_SAMPLES]).astype(np.int64)
        found.update(dict.fromkeys(decoder.decode(some).tolist()))
    return found


def in_order(labels: Iterable[Any], rows: Iterable[Rows], decoder: LabelDecoder) -> list[Any]:
    """Return labels in the order in which they first appear in samples."""
    new, found = set(labels), []
    for keys, *_ in rows:
        start, size = 0, FIRST_LOOK  # new labels mostly appear soon: few samples are looked at
        while new and start < len(keys):
            some, first = np.unique(keys[start : start + size], return_index=True)
            for label in decoder.decode(some[np.argsort(first)].astype(np.int64)).tolist():
                if label in new:
                    new.remove(label)
                    found.append(label)
            start, size = start + size, 2 * size
    return found
