"""From the samples of streams to their statistics."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from labeltrack._core.quantiles import Samples
from labeltrack._core.reduce import AsKeys, reduce_chunks
from labeltrack._labels.combined import in_order_of_labels, union
from labeltrack._labels.tuples import TupleDecoder
from labeltrack._tracking.ids import Duplicates, OnDuplicate, Seen, distinct
from labeltrack._tracking.streams import Folded
from labeltrack.stats import LabelStats, merge_stats

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from labeltrack._buffers import Rows
    from labeltrack._labels.codes import LabelDecoder
    from labeltrack._nan_policy import NanPolicy
    from labeltrack._tracking.arguments import Labels
    from labeltrack._tracking.streams import MetricSamples, Snapshot, Stream

Array = npt.NDArray[Any]

FIRST_LOOK = 1 << 10  # samples in which to look for labels that are new
FEW_SAMPLES = 100_000  # of which the labels are named in a warning


@dataclass(frozen=True)
class Reducer:
    """Reduces the samples of streams.

    Attributes:
        labels: Which labels count, and what they are called.
        fractions: Which quantiles to compute.
        metrics: How many metrics there are.
        on_duplicate: What to do with samples whose id occurred before.
    """

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

    def fold(self, samples: Snapshot) -> Folded:
        """Return what is kept of samples, and of those folded before, once they are folded."""
        kept, duplicates = self.distinct(samples)
        before = samples.folded
        stats = []
        for metric in range(self.metrics):
            chunks, earlier, decoder = (of := kept.of(metric)).chunks, of.folded, of.decoder
            if earlier is None:
                stats.append(self.reduce(chunks, decoder))
            else:
                earlier = earlier._under("propagate")
                stats.append(merge_stats([earlier, self.reduce(chunks, decoder)]) if chunks else earlier)
        number = (0 if before is None else before.rows) + sum(len(rows[0]) for rows in samples.rows)
        if not self.finds_duplicates(samples):
            return Folded(tuple(stats), rows=number)
        seen = [] if before is None or before.seen is None else [before.seen.ids]
        ids = np.concatenate([*seen, *(rows[-1] for rows in kept.rows), np.empty(0, np.int64)])
        return Folded(tuple(stats), Seen(ids, duplicates), number)

    def reduce(
        self, chunks: list[tuple[Array, Array]], decoder: LabelDecoder, nan_policy: NanPolicy = "propagate"
    ) -> LabelStats:
        """Return the statistics of samples, given as ``(N,)`` keys and values."""
        wanted = self.labels.wanted(decoder)
        if isinstance(decoder, TupleDecoder):
            codes, unsorted = reduce_chunks(chunks, AsKeys(), wanted=wanted, codes=decoder.size)
            labels, order = in_order_of_labels(decoder.decode(codes))
            accumulator = unsorted.take(order)
        else:
            words = 0 if decoder.vocabulary is None else len(decoder.vocabulary)
            labels, accumulator = reduce_chunks(chunks, decoder, wanted=wanted, codes=words)
        return LabelStats(labels, accumulator, names=self.labels.shown, nan_policy=nan_policy)

    def stats(self, samples: MetricSamples, nan_policy: NanPolicy) -> LabelStats:
        """Return the statistics of a stream, with quantiles if none of its samples were folded."""
        before = None if samples.folded is None else samples.folded._under(nan_policy)
        if before is not None and not samples.chunks:
            return before
        fresh = self.reduce(samples.chunks, samples.decoder, nan_policy)
        if before is not None:
            return merge_stats([before, fresh])
        if not self.fractions:
            return fresh
        part = Samples(samples.chunks, samples.decoder.keys(fresh.labels), np.arange(len(fresh)))
        return fresh._with_quantiles([part], self.fractions)

    def pooled(self, streams: Sequence[MetricSamples], stats: Sequence[LabelStats]) -> LabelStats:
        """Return the statistics of several streams together, given those of each."""
        if len(stats) == 1:
            return stats[0]
        pooled = merge_stats(stats)
        if not self.fractions or any(samples.folded is not None for samples in streams):
            return pooled
        filled = [(samples, part.labels) for samples, part in zip(streams, stats, strict=True) if len(part)]
        slots = union([labels for _, labels in filled])[1] if filled else []
        parts = [
            Samples(samples.chunks, samples.decoder.keys(labels), places)
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
