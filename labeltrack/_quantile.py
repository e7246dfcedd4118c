"""Exact quantiles a label, from samples: memory, threads, and the way from keys to groups."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from labeltrack._arrays import cast
from labeltrack._compiled import quantile_kernels, read_only
from labeltrack._quantile_few import few_quantiles, is_few
from labeltrack._quantile_groups import Bits, Groups, count_samples
from labeltrack._quantile_many import are_many, many_quantiles
from labeltrack._reduce import Hash
from labeltrack._threads import Share, default_threads, shares_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

Array = npt.NDArray[Any]
Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

_BLOCK = 1 << 15  # samples encoded at a time
_PAIRS = 1 << 10  # neighbours by which it is decided whether samples are in the order of their labels
_SMALL_SPAN, _LARGEST_SPAN = 1 << 16, 1 << 26  # slots of a table; 256 MiB


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

    It takes memory for as many samples as there are, and at most once more where groups are few; where labels are many,
    two bytes a sample more. Where labels are few, two bytes a sample and an eighth of the samples do, unless too many
    are alike.

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
    quantile_kernels()  # load numba once, not in every thread

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
    in_two_steps = are_many(counts) and not _in_order(chunks)
    if not (in_two_steps and many_quantiles(pieces, shares, counts, dtype, np.array(fractions), out)):
        groups = Groups(counts, dtype, threads)
        groups.fill(pieces, shares)
        groups.select(np.array(fractions), out, threads)
    return out


def _in_order(chunks: Sequence[_Chunk]) -> bool:
    """Return whether most samples have the label of the one before, or the next one: nothing has to be sorted then."""
    near = seen = 0
    for chunk in chunks:
        keys = chunk.keys
        step = max(1, keys.shape[0] * len(chunks) // _PAIRS)
        here, following = keys[:-1:step].astype(np.float64), keys[1::step].astype(np.float64)
        near += int(np.count_nonzero(np.abs(following - here) <= chunk.way.gap))
        seen += here.shape[0]
    return 4 * near > 3 * seen


class _Way:
    """The way from the keys of some samples to slots: a table where keys lie close together, hashing where not.

    Args:
        part: The samples.
        size: How many slots there are.

    Attributes:
        low: Key of the first entry of `slots`.
        slots: ``(S,)`` int32, as kernels take it: the slot of each key, or none at all if each key is its slot.
        hash: From keys to places in `slots`, if they do not lie close together.
        gap: Twice what keys that follow one another are apart, on average.
    """

    def __init__(self, part: Samples, size: int) -> None:
        samples = sum(chunk[0].shape[0] for chunk in part.chunks)
        keys = part.keys
        self.low = int(keys.min()) if keys.size else 0
        span = int(keys.max()) - self.low + 1 if keys.size else 0
        self.gap = 2 * span / max(1, keys.size)
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
