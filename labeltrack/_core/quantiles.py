"""Exact quantiles per label, from samples: keys become slots, and the samples of each slot are grouped and searched."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from labeltrack._core import kernels
from labeltrack._core.arrays import Array, Floats, Integers, cast, read_only
from labeltrack._core.key_tables import Hash
from labeltrack._core.threads import Share, all_at_once, default_threads, edges_of, shares_of

_BLOCK = 1 << 15  # samples encoded at a time
_SMALL_SPAN, _LARGEST_SPAN = 1 << 16, 1 << 26  # slots of a table; 256 MiB


class Samples(NamedTuple):
    """Samples whose keys mean the same."""

    chunks: Sequence[tuple[Array, Array]]  # ``(N,)`` keys (uint8, int32, int64) and samples (float32, float64)
    keys: Integers  # ``(M,)`` distinct, those that count; others are ignored
    slots: Integers  # ``(M,)`` the slot of each


def check_fractions(fractions: Iterable[Any]) -> tuple[float, ...]:
    """Return the distinct fractions, ascending; TypeError or ValueError if they are no numbers from 0 to 1."""
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
    parts: Sequence[Samples], counts: Integers, fractions: Sequence[float], *, threads: int | None = None
) -> Floats:
    """Return ``(Q, K)`` quantiles, bit for bit those of `numpy.quantile`; ``(K,)`` counts are without NaN."""
    total = int(counts.sum())
    threads = default_threads(total) if threads is None else threads
    if total == 0 or not fractions:
        return np.full((len(fractions), counts.shape[0]), np.nan)
    double = any(samples.dtype == np.float64 for part in parts for _, samples in part.chunks)
    dtype = np.dtype(np.float64 if double else np.float32)
    chunks = [chunk for part in parts for chunk in _chunks(part, dtype)]
    sizes = [chunk.samples.shape[0] for chunk in chunks]
    shares = shares_of(sizes, threads)
    _ = kernels.quantiles  # load numba once, not in every thread

    def pieces(share: Share) -> Iterator[Any]:
        for i, start, stop in share:
            yield from chunks[i].pieces(start, stop)

    if total > sum(sizes) or int(counts.min()) < 0:
        # Another thread changed the samples while they were counted, and there would be no memory for so many.
        counts = np.sum([_count(pieces(share), counts.shape[0]) for share in shares], axis=0)
    return _by_groups(pieces, shares, counts, dtype, np.array(fractions))


def grouped(parts: Iterable[tuple[Array, Floats]], counts: Integers) -> Integers:
    """Return samples of slots side by side, as integers of their order; ValueError if not ``(K,)`` counts."""
    starts, slots = np.append(0, np.cumsum(counts)), np.where(counts, np.arange(counts.shape[0]), -1).astype(np.int32)
    places, groups = starts[:-1].copy(), np.empty(starts[-1] + 1, dtype=np.int64)  # one to see that there are more
    for keys, samples in parts:
        chunk = _Chunk(read_only(keys), read_only(samples), samples.dtype, 0, slots, None)
        for piece in chunk.pieces(0, keys.shape[0]):
            kernels.quantiles.fill_groups(piece, places, 1, groups)
    if (places != starts[1:]).any():
        msg = "the samples changed while they were read; try again"
        raise ValueError(msg)
    return groups[:-1]


class _Chunk(NamedTuple):
    """Samples whose keys lie close together, or are to be hashed; `slots` as kernels take them."""

    keys: Array
    samples: Array
    dtype: np.dtype[Any]
    low: int
    slots: Array
    hash: Hash | None

    def pieces(self, start: int, stop: int) -> Iterator[Any]:
        """Yield some of the samples as kernels read them, with NaN."""
        dtype, piece = self.dtype, kernels.quantiles.Piece
        whole = np.dtype(f"i{dtype.itemsize}")
        rest = self.low, self.slots, int(np.array(np.inf, dtype).view(whole)), int(np.iinfo(whole).max)

        codes = np.empty(_BLOCK, dtype=np.int32)
        for at in range(start, stop, _BLOCK):
            n = min(stop - at, _BLOCK)
            keys = self.keys[at : at + n]
            if self.hash is not None:
                self.hash.encode(self.keys, at, at + n, codes, frozen=True)
                keys = codes[:n]
            samples = cast(self.samples[at : at + n], dtype, copy=False)
            yield piece(read_only(keys), read_only(samples.view(whole)), 0, n, *rest)


def _chunks(part: Samples, dtype: np.dtype[Any]) -> Iterator[_Chunk]:
    """Yield the chunks of a part: with a table of slots where keys lie close together, hashed elsewhere."""
    keys, hashed = part.keys, None
    low, span = (int(keys.min()), int(keys.max()) - int(keys.min()) + 1) if keys.size else (0, 0)
    if span > _SMALL_SPAN and span > min(2 * sum(chunk[0].shape[0] for chunk in part.chunks), _LARGEST_SPAN):
        hashed, low, slots = Hash(keys), 0, part.slots.astype(np.int32)
    else:
        slots = np.full(max(1, span), -1, dtype=np.int32)
        slots[keys - low] = part.slots

    for given, samples in part.chunks:
        yield _Chunk(read_only(given), read_only(samples), dtype, low, slots, hashed)


def _count(pieces: Iterator[Any], size: int) -> Integers:
    """Return how many of some samples each of so many slots has."""
    counts = np.zeros(size, dtype=np.int64)
    for piece in pieces:
        kernels.quantiles.count_groups(piece, counts)
    return counts


def _by_groups(
    pieces: Callable[[Share], Iterator[Any]],
    shares: Sequence[Share],
    counts: Integers,
    dtype: np.dtype[Any],
    fractions: Floats,
) -> Floats:
    """Return quantiles as `reduce_quantiles` does: write the samples of each slot side by side, and select."""
    threads, size = len(shares), counts.shape[0]
    starts = np.concatenate([[0], np.cumsum(counts)])
    total = int(starts[-1])
    inner = np.searchsorted(starts, edges_of(total, threads)[1:-1]).tolist()
    edges = sorted({0, *inner, size})
    # Room for the largest group of each range, of which little is written to and takes memory.
    largest = [int(counts[a:b].max()) for a, b in pairwise(edges)]
    rooms = (total + np.cumsum([0, *largest[:-1]])).tolist()
    groups = np.empty(total + sum(largest), dtype=f"i{dtype.itemsize}")

    places, steps = [starts[:-1].copy() for _ in shares], [1] * threads
    if threads == 2:  # neither needs to know how many samples of a group the other has: one begins at its end
        places[1], steps[1] = starts[1:] - 1, -1
    elif threads > 2:
        numbers = all_at_once(lambda share: _count(pieces(share), size), shares)
        places = list(np.cumsum([starts[:-1], *numbers[:-1]], axis=0))

    def fill(share: Share, place: Integers, step: int) -> None:
        for piece in pieces(share):
            kernels.quantiles.fill_groups(piece, place, step, groups)

    all_at_once(fill, shares, places, steps)
    out = np.empty((fractions.shape[0], size))
    rest = int(np.iinfo(groups.dtype).max)

    def select(first: int, last: int, room: int) -> None:
        scratch = kernels.quantiles.scratch(dtype, fractions.shape[0])
        kernels.quantiles.select_quantiles(groups, starts, first, last, room, fractions, rest, scratch, out)

    all_at_once(select, edges[:-1], edges[1:], rooms)
    return out
