"""Exact quantiles a label, from samples: memory, threads, and the way from keys to groups."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from labeltrack._core import kernels
from labeltrack._core.arrays import cast, read_only
from labeltrack._core.quantiles_few import few_quantiles, is_few
from labeltrack._core.reduce import Hash
from labeltrack._core.threads import Share, Turns, all_at_once, default_threads, shares_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

Array = npt.NDArray[Any]
Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

_BLOCK = 1 << 15  # samples encoded at a time
_SMALL_SPAN, _LARGEST_SPAN = 1 << 16, 1 << 26  # slots of a table; 256 MiB
_RANGES_A_THREAD = 4  # so that threads end at about the same time, however the samples lie


class Samples(NamedTuple):
    """Samples of one keyspace.

    Attributes:
        chunks: Pairs of ``(N,)`` keys (uint8, int32, int64) and ``(N,)`` samples (float32, float64).
        keys: ``(M,)`` int64, the keys that count, without repeats; others are passed over.
        slots: ``(M,)`` int64, the slot of each.
    """

    chunks: Sequence[tuple[Array, Array]]
    keys: Integers
    slots: Integers


def check_fractions(fractions: Iterable[Any]) -> tuple[float, ...]:
    """Return fractions ascending, each once.

    Raises:
        TypeError: Not an iterable of numbers.
        ValueError: One is not from 0 to 1.
    """
    try:
        found = sorted({float(fraction) for fraction in fractions})
    except (TypeError, ValueError):
        msg = f"quantiles must be an iterable of numbers from 0 to 1, such as [0.25, 0.75], got {fractions!r}"
        raise TypeError(msg) from None
    for fraction in found:
        if not 0.0 <= fraction <= 1.0:
            msg = f"quantiles must be numbers from 0 to 1, got {fraction!r}"
            raise ValueError(msg)
    return tuple(fraction + 0.0 for fraction in found)  # -0.0 is 0.0


def reduce_quantiles(
    parts: Sequence[Samples],
    counts: Integers,
    fractions: Sequence[float],
    *,
    extremes: tuple[Floats, Floats] | None = None,
    threads: int | None = None,
) -> Floats:
    """Return quantiles of the samples of each slot, NaN left out.

    It takes memory for as many samples as there are. Where labels are few, two bytes a sample and an eighth of the
    samples do, unless too many are alike; by way of groups, ten million samples of ten labels take 1.3 to 1.6 times as
    long.

    Args:
        parts: The samples; those of one slot may be in several parts.
        counts: ``(K,)`` int64, how many samples each slot has, without NaN.
        fractions: From `check_fractions`.
        extremes: ``(K,)`` smallest and largest sample of each slot, if all samples are known to be finite.
        threads: How many threads share the work; None chooses by the number of samples.

    Returns:
        ``(Q, K)`` float64: what `numpy.quantile` gives for the samples as float64, bit for bit; NaN for empty slots.
    """
    total = int(counts.sum())
    threads = default_threads(total) if threads is None else threads
    double = any(samples.dtype == np.float64 for part in parts for _, samples in part.chunks)
    out = np.full((len(fractions), counts.shape[0]), np.nan)
    if total == 0 or not fractions:
        return out
    dtype = np.dtype(np.float64 if double else np.float32)
    chunks = []
    for part in parts:
        way = _Way(part, counts.shape[0])
        chunks += [_Chunk(*chunk, way) for chunk in part.chunks]
    shares = shares_of([chunk.samples.shape[0] for chunk in chunks], threads)
    _ = kernels.grouping  # load numba once, not in every thread

    def pieces(share: Share) -> Iterator[tuple[Any, ...]]:
        for i, start, stop in share:
            for piece in chunks[i].pieces(dtype, start, stop):
                yield *piece, chunks[i].way.slots

    if total > sum(chunk.samples.shape[0] for chunk in chunks) or int(counts.min()) < 0:
        # Somebody changed the samples while they were counted, and there would be no memory for so many.
        bits, size = Bits(dtype), counts.shape[0]
        counts = np.sum([count_samples(pieces(share), bits, size) for share in shares], axis=0)
        extremes = None
    if extremes is not None and is_few(counts, fractions):

        def with_samples(share: Share) -> Iterator[tuple[Any, ...]]:
            for keys, bits, *where in pieces(share):
                yield keys, bits.view(dtype), bits, *where

        def samples(share: Share) -> Iterator[tuple[Any, ...]]:
            for i, start, stop in share:
                yield from chunks[i].bits(dtype, start, stop)

        found = few_quantiles(with_samples, samples, shares, counts, extremes, dtype, np.array(fractions))
        if found is not None:
            return found
    groups = Groups(counts, dtype, threads)
    groups.fill(pieces, shares)
    groups.select(np.array(fractions), out, threads)
    return out


class _Way:
    """The way from the keys of some samples to slots: a table where keys lie close together, hashing where not.

    Args:
        part: The samples.
        size: How many slots there are.

    Attributes:
        low: Key of the first entry of `slots`.
        slots: ``(S,)`` int32, as kernels take it: the slot of each key, or none at all if each key is its slot.
        hash: From keys to places in `slots`, if they do not lie close together.
    """

    def __init__(self, part: Samples, size: int) -> None:
        samples = sum(chunk[0].shape[0] for chunk in part.chunks)
        keys = part.keys
        self.low = int(keys.min()) if keys.size else 0
        span = int(keys.max()) - self.low + 1 if keys.size else 0
        self.hash: Hash | None = None
        if span > _SMALL_SPAN and span > min(2 * samples, _LARGEST_SPAN):
            self.hash = Hash(keys)
            self.low, self.slots = 0, part.slots.astype(np.int32)
        else:
            self.slots = np.full(max(1, span), -1, dtype=np.int32)
            self.slots[keys - self.low] = part.slots
        if self.slots.shape[0] == size and bool((self.slots == np.arange(size)).all()):
            self.slots = self.slots[:0]  # the table says nothing that the keys do not say


class _Chunk:
    """Samples, and the way from their keys to slots."""

    def __init__(self, keys: Array, samples: Array, way: _Way) -> None:
        self.keys = read_only(keys)
        self.samples = read_only(samples)
        self.way = way

    def pieces(self, dtype: np.dtype[Any], start: int, stop: int) -> Iterator[tuple[Any, ...]]:
        """Yield what kernels take of some of the samples: keys, bits, start, stop, and the key of the first slot."""
        whole = f"i{dtype.itemsize}"
        if self.way.hash is None and self.samples.dtype == dtype:
            yield self.keys, self.samples.view(whole), start, stop, self.way.low
            return
        codes = np.empty(_BLOCK, dtype=np.int32)
        for at in range(start, stop, _BLOCK):
            n = min(stop - at, _BLOCK)
            keys = self.keys[at : at + n]
            if self.way.hash is not None:
                self.way.hash.encode(self.keys, at, at + n, codes, frozen=True)
                keys = codes[:n]
            samples = cast(self.samples[at : at + n], dtype, copy=False)
            yield read_only(keys), read_only(samples.view(whole)), 0, n, self.way.low

    def bits(self, dtype: np.dtype[Any], start: int, stop: int) -> Iterator[tuple[Array, int, int]]:
        """Yield the bits of some of the samples, and which of them: start, stop."""
        whole = f"i{dtype.itemsize}"
        if self.samples.dtype == dtype:
            yield self.samples.view(whole), start, stop
            return
        for at in range(start, stop, _BLOCK):
            samples = cast(self.samples[at : min(at + _BLOCK, stop)], dtype)
            yield read_only(samples.view(whole)), 0, samples.shape[0]


class Bits:
    """How kernels have samples: as signed integers of the same order.

    Args:
        dtype: float32 or float64.

    Attributes:
        dtype: See there.
        whole: Dtype of the integers.
        infinity: Bits of positive infinity.
        rest: All bits but the sign.
    """

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self.dtype = dtype
        self.whole = np.dtype(f"i{dtype.itemsize}")
        self.infinity = int(np.array(np.inf, dtype).view(self.whole))
        self.rest = int(np.iinfo(self.whole).max)


def starts_of(counts: Integers) -> Integers:
    """Return where groups of so many samples start, and where the last one ends."""
    starts = np.zeros(counts.shape[0] + 1, dtype=np.int64)
    np.cumsum(counts, out=starts[1:])
    return starts


def places_of(
    starts: Integers, shares: Sequence[Share], count: Callable[[Share], Integers]
) -> tuple[list[Integers], list[int]]:
    """Return where each thread is to write its first sample of each group, and in which direction it goes on.

    Args:
        starts: From `starts_of`.
        shares: The samples of each thread.
        count: Counts how many of a share are of each group.
    """
    places, steps = [starts[:-1].copy() for _ in shares], [1] * len(shares)
    if len(shares) == 2:
        # Two threads need not know how many samples of a group the other has: one begins at its end.
        places[1], steps[1] = starts[1:] - 1, -1
    elif len(shares) > 2:
        for before, number, place in zip(places, all_at_once(count, shares), places[1:], strict=False):
            place[:] = before + number
    return places, steps


def count_samples(pieces: Iterator[tuple[Any, ...]], bits: Bits, size: int) -> Integers:
    """Return how many of some samples each of so many slots has."""
    counts = np.zeros(size, dtype=np.int64)
    for piece in pieces:
        kernels.grouping.count_groups(*piece, bits.infinity, bits.rest, counts)
    return counts


class Selector:
    """Selects order statistics, with scratch memory of its own: one for each thread.

    Args:
        bits: How samples are given.
        fractions: ``(Q,)``, ascending.
        out: ``(Q, K)``, written to.
    """

    def __init__(self, bits: Bits, fractions: Floats, out: Floats) -> None:
        self._module = module = kernels.selection
        q = fractions.shape[0]
        line = np.empty(module.SMALL, dtype=bits.whole)
        self._rest = (
            fractions,
            bits.rest,
            np.empty(1 << module.DIGIT, dtype=np.int64),
            np.empty(1 << module.DIGIT, dtype=np.uint8),
            line,
            np.empty(module.SMALL, dtype=np.uint32),
            line.view(bits.dtype),
            *np.empty((2, module.SMALL), dtype=np.uint16),
            np.empty(module.SMALL + 1, dtype=np.uint8),
            np.empty((2 * q, 6), dtype=np.int64),
            *np.empty((2, 2 * q), dtype=np.int64),
            out,
        )

    def select(self, groups: Array, starts: Integers, first: int, last: int, room: int) -> None:
        """Write the quantiles of the slots from `first` to before `last`.

        Args:
            groups: Samples of slots, side by side, which are moved about; and room.
            starts: ``(K + 1,)`` where the samples of each slot start.
            first: First slot.
            last: One past the last.
            room: Where in `groups` there is room for as many as the largest of these slots has.
        """
        self._module.select_quantiles(groups, starts, first, last, room, *self._rest)


class Groups:
    """The samples of each slot, side by side.

    Args:
        counts: ``(K,)`` how many each has.
        dtype: float32 or float64.
        threads: How many threads will select.
    """

    def __init__(self, counts: Integers, dtype: np.dtype[Any], threads: int) -> None:
        self._bits = Bits(dtype)
        self._starts = starts_of(counts)
        total = int(self._starts[-1])
        ranges = _RANGES_A_THREAD * threads if threads > 1 else 1
        edges = np.searchsorted(self._starts, [total * r // ranges for r in range(1, ranges)]).tolist()
        self._edges = sorted({0, *edges, counts.shape[0]})
        # Room for the largest group of each range, of which little is written to and takes memory.
        largest = [int(counts[a:b].max()) for a, b in pairwise(self._edges)]
        self._rooms = (total + np.cumsum([0, *largest[:-1]])).tolist()
        self._groups = np.empty(total + sum(largest), dtype=self._bits.whole)

    def fill(self, pieces: Callable[[Share], Iterator[tuple[Any, ...]]], shares: Sequence[Share]) -> None:
        """Sort the samples into their groups.

        Args:
            pieces: Gives what kernels take of some samples: keys, bits, start, stop, the key of the first slot, slots.
            shares: The samples of each thread.
        """
        bits, size = self._bits, self._starts.shape[0] - 1
        places, steps = places_of(self._starts, shares, lambda share: count_samples(pieces(share), bits, size))

        def fill(share: Share, place: Integers, step: int) -> None:
            for piece in pieces(share):
                kernels.grouping.fill_groups(*piece, bits.infinity, bits.rest, place, step, self._groups)

        all_at_once(fill, shares, places, steps)

    def select(self, fractions: Floats, out: Floats, threads: int) -> None:
        """Compute the quantiles of the groups."""
        turns = Turns(zip(self._edges[:-1], self._edges[1:], self._rooms, strict=True))

        def some(_: int) -> None:
            selector = Selector(self._bits, fractions, out)
            for first, last, room in turns:
                selector.select(self._groups, self._starts, first, last, room)

        all_at_once(some, range(threads))
