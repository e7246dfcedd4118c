"""From the samples of streams to their statistics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from labeltrack._core.quantiles import Samples
from labeltrack._core.reduce import AsKeys, reduce_chunks
from labeltrack._labels.combined import columns_of, grouped, union
from labeltrack._labels.tuples import TupleDecoder
from labeltrack.stats import LabelStats, merge_stats

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from labeltrack._labels.codes import LabelDecoder
    from labeltrack._nan_policy import NanPolicy
    from labeltrack._tracking.arguments import Labels
    from labeltrack._tracking.streams import Snapshot

Array = npt.NDArray[Any]

FIRST_LOOK = 1 << 10  # samples in which to look for labels that are new
FEW_SAMPLES = 100_000  # of which the labels are named in a warning


@dataclass(frozen=True)
class Reducer:
    """Reduces the samples of streams.

    Attributes:
        labels: Which labels count, and what they are called.
        fractions: Which quantiles to compute.
    """

    labels: Labels
    fractions: Sequence[float]

    def reduce(
        self, chunks: list[tuple[Array, Array]], decoder: LabelDecoder, nan_policy: NanPolicy = "propagate"
    ) -> LabelStats:
        """Return the statistics of samples, given as ``(N,)`` keys and values."""
        wanted = self.labels.wanted(decoder)
        if isinstance(decoder, TupleDecoder):
            codes, unsorted = reduce_chunks(chunks, AsKeys(), wanted=wanted)
            labels, places = grouped(columns_of(decoder.decode(codes)))
            accumulator = unsorted.take(np.argsort(places))
        else:
            labels, accumulator = reduce_chunks(chunks, decoder, wanted=wanted)
        return LabelStats(labels, accumulator, names=self.labels.shown, nan_policy=nan_policy)

    def stats(self, samples: Snapshot, nan_policy: NanPolicy) -> LabelStats:
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

    def pooled(self, streams: Sequence[Snapshot], stats: Sequence[LabelStats]) -> LabelStats:
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


def some_labels(chunks: Iterable[tuple[Array, Array]], decoder: LabelDecoder) -> dict[Any, None]:
    """Return some of the labels of samples, whether mapped or not."""
    found: dict[Any, None] = {}
    for keys, _ in list(chunks)[:1]:
        some = np.unique(keys[:FEW_SAMPLES]).astype(np.int64)
        found.update(dict.fromkeys(decoder.decode(some).tolist()))
    return found


def in_order(labels: Iterable[Any], chunks: Iterable[tuple[Array, Array]], decoder: LabelDecoder) -> list[Any]:
    """Return labels in the order in which they first appear in samples."""
    new, found = set(labels), []
    for keys, _ in chunks:
        start, size = 0, FIRST_LOOK  # new labels mostly appear soon: few samples are looked at
        while new and start < len(keys):
            some, first = np.unique(keys[start : start + size], return_index=True)
            for label in decoder.decode(some[np.argsort(first)].astype(np.int64)).tolist():
                if label in new:
                    new.remove(label)
                    found.append(label)
            start, size = start + size, 2 * size
    return found
