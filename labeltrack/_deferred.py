"""Few samples a label: what is kept are the samples themselves, until somebody wants sums."""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from labeltrack._accumulate import ROW, Accumulator
from labeltrack._compiled import kernels, partition_kernels
from labeltrack._memory import spared_words
from labeltrack._ranges import Ranges
from labeltrack._threads import Turns, all_at_once

if TYPE_CHECKING:
    from labeltrack._ranges import Sorted

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

_WORD = 64  # slots a word of marks
_PIECE = 1 << 16  # samples that are looked at at a time


def defer(samples: Sorted, low: int, threads: int) -> tuple[Integers, Accumulator]:
    """Return statistics of samples, which are computed when they are asked for.

    A row of sums takes 64 bytes a label, ten of them samples that are sorted. Where labels have a sample or two each,
    they are the shorter form: rounded statistics are computed a bucket at a time, by rows that are used again for
    the next one and stay in the cache. With ten million labels, 640 megabytes less of memory are touched.

    Args:
        samples: Buckets of at least 64 slots.
        low: The label of slot 0.
        threads: How many threads share the work, now and later.

    Returns:
        ``(K,)`` labels that have samples, ascending, and their statistics.
    """
    module, buckets = partition_kernels(), samples.starts.shape[0] - 1
    words = (1 << samples.shift) // _WORD
    marks = np.zeros(buckets * words, dtype=np.uint64)
    edges = _edges(samples, threads)
    counts = np.empty(buckets, dtype=np.int64)

    def mark(first: int, last: int) -> None:
        for bucket in range(first, last):
            start, stop = samples.starts[bucket : bucket + 2].tolist()
            mine = marks[bucket * words : (bucket + 1) * words]
            module.mark_slots(samples.slots, start, stop, bucket << samples.shift, mine)
            counts[bucket] = module.count_marks(marks, bucket * words, (bucket + 1) * words)

    all_at_once(mark, edges[:-1], edges[1:])
    places = np.concatenate([[0], np.cumsum(counts)])
    labels = np.empty(int(places[-1]), dtype=np.int64)

    def unmark(first: int, last: int) -> None:
        scratch = np.empty((1 << samples.shift) + 1, dtype=np.int64)
        for bucket in range(first, last):
            module.marked_slots(marks, bucket * words, (bucket + 1) * words, low, scratch)
            labels[places[bucket] : places[bucket + 1]] = scratch[: counts[bucket]]

    all_at_once(unmark, edges[:-1], edges[1:])
    return labels, Deferred(samples, places, threads)


def _edges(samples: Sorted, threads: int) -> list[int]:
    """Cut buckets into ranges with about as many samples each; return where they begin, and the end."""
    total, buckets = int(samples.starts[-1]), samples.starts.shape[0] - 1
    inner = np.searchsorted(samples.starts, [total * t // threads for t in range(1, threads)]).tolist()
    return sorted({0, *inner, buckets})


class Deferred(Accumulator):
    """Samples of the slots that have any, sorted by buckets of slots.

    It becomes an accumulator as any other when something but rounded statistics is asked for.

    Args:
        samples: The samples.
        places: ``(B + 1,)``: how many slots with samples there are before each bucket, and in all.
        threads: How many threads share the work.
    """

    def __init__(self, samples: Sorted, places: Integers, threads: int) -> None:
        super().__init__(int(places[-1]))
        self._samples: Sorted | None = samples
        self._places, self._threads = places, threads
        self._finite: bool | None = None  # not looked at yet
        self._lock = Lock()

    def _sum_up(self) -> None:
        """Make rows of the samples."""
        with self._lock:
            samples = self._samples
            if samples is None:
                return
            size = samples.starts.shape[0] - 1 << samples.shift
            ranges = Ranges(_edges(samples, self._threads), samples.shift, size)
            ranges.suggest(self._some(samples), samples.slots.shape[0])
            ranges.add(samples)
            _, whole = ranges.result()
            self.__dict__.update(whole.__dict__)
            self._samples = None

    @staticmethod
    def _some(samples: Sorted) -> npt.NDArray[Any]:
        """Return a thousand samples from all over them: of more, those of the first labels alone would be looked at."""
        return np.ascontiguousarray(samples.samples[:: max(1, samples.samples.shape[0] >> 10)])

    def _collect(self) -> None:
        self._sum_up()
        super()._collect()

    @property
    def rows(self) -> Floats:
        """See `Accumulator.rows`."""
        self._sum_up()
        return super().rows

    @property
    def nonfinite(self) -> Integers:
        """See `Accumulator.nonfinite`."""
        if not self._known_finite():
            self._sum_up()
        return super().nonfinite

    def all_finite(self) -> bool:
        """See `Accumulator.all_finite`."""
        return self._known_finite() or super().all_finite()

    def _known_finite(self) -> bool:
        """Return whether all samples are finite, and are not in the rows yet, which know themselves."""
        samples = self._samples
        if samples is None:
            return False
        if self._finite is None:
            values = samples.samples
            pieces = (values[at : at + _PIECE] for at in range(0, values.shape[0], _PIECE))
            self._finite = all(bool(np.isfinite(piece).all()) for piece in pieces)
        if not self._finite:
            self._sum_up()
        return self._finite

    # What changes the accumulator makes rows first.

    def add(self, *arguments: Any, **options: Any) -> int:
        """See `Accumulator.add`."""
        self._sum_up()
        return super().add(*arguments, **options)

    def merge(self, other: Accumulator, slots: Integers) -> None:
        """See `Accumulator.merge`."""
        self._sum_up()
        super().merge(other, slots)

    def absorb(self, other: Accumulator) -> None:
        """See `Accumulator.absorb`."""
        self._sum_up()
        super().absorb(other)

    def write_totals(self, place: int, count: Integers, out: Floats, *, packed: bool = False) -> None:
        """See `Accumulator.write_totals`."""
        samples = self._samples
        if samples is None or not self._write_by_bucket(samples, place, count, out):
            super().write_totals(place, count, out, packed=packed)

    def _write_by_bucket(self, samples: Sorted, place: int, count: Integers, out: Floats) -> bool:
        """Write rounded statistics bucket by bucket; return whether all samples are finite, as they must be."""
        kernels()  # load numba once, not in every thread
        slots, starts = 1 << samples.shift, samples.starts.tolist()
        model = Accumulator(slots)
        model.suggest(self._some(samples), samples.slots.shape[0] // (len(starts) - 1))
        buckets = Turns(range(len(starts) - 1))
        finite = [True]

        def work(_number: int) -> None:
            memory = spared_words(slots * ROW)
            for bucket in buckets:
                start, stop = starts[bucket : bucket + 2]
                memory[:] = 0
                part = model.alike(memory)
                part.add(samples.slots, samples.samples, start, stop, low=bucket << samples.shift, most=stop - start)
                part.settle()
                if not part.all_finite():
                    finite[0] = False
                if not finite[0]:
                    break
                part.write_totals(place + int(self._places[bucket]), count, out, packed=True)

        all_at_once(work, range(self._threads))
        self._finite = finite[0]
        return finite[0]

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle and copy as an accumulator as any other."""
        return Accumulator, (0,), self.__getstate__()
