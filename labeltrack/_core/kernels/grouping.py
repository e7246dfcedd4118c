"""Compiled: samples sorted by label into groups, for quantiles.

Floats are handled as signed integers of the same order: all bits of a negative one but its sign are flipped (after
M. Herf, "Radix tricks", 2001). That is a total order, and digits of such an integer can be counted.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from labeltrack._core.kernels.intrinsics import _STREAM, _inline, _jit, _lesser, _prefetch_read, _wrapping

_AHEAD = np.uint64(32)  # samples that lines are prefetched ahead: 36 instead of 50 ms for ten million of 1e5 labels
_NEAR = 1 << 12  # groups up to which it pays to prefetch the next line of each: 1.2 times as fast with 100
_LINES = 128  # bytes between a written sample and the line prefetched with it


class Piece(NamedTuple):
    """Samples of some keys, and the slots of these."""

    keys: Any  # (N,) integers
    bits: Any  # (N,) samples as signed integers of their size
    start: int  # the first sample to read
    stop: int  # one past the last
    low: int  # the key of the first entry of `slots`
    slots: Any  # (S,) int32: the slot of each key, -1 to ignore it, as all keys outside; empty if each key is its slot
    infinity: int  # bits of positive infinity
    rest: int  # all bits but the sign


@_inline
def _slot(piece: Any, i: Any, x: Any, size: Any) -> Any:
    """Return the slot of a sample with the bits `x`, -1 to ignore it; NaN are ignored."""
    at = np.uint64(np.int64(piece.keys[i]) - piece.low)
    if at < size and (x & piece.rest) <= piece.infinity:
        return np.int64(piece.slots[at]) if piece.slots.shape[0] else np.int64(at)
    return np.int64(-1)


@_wrapping
@_jit
def count_groups(piece: Any, counts: Any) -> None:
    """Count the samples of each slot, except NaN, in ``(K,)`` int64 `counts`."""
    direct = piece.slots.shape[0] == 0
    size = np.uint64(counts.shape[0] if direct else piece.slots.shape[0])
    for i in range(np.uint64(piece.start), np.uint64(piece.stop)):
        _prefetch_read(piece.keys, i + _STREAM)
        _prefetch_read(piece.bits, i + _STREAM)
        slot = _slot(piece, i, np.int64(piece.bits[i]), size)
        if slot >= 0:
            counts[np.uint64(slot)] += 1


@_wrapping
@_jit
def fill_groups(piece: Any, places: Any, step: int, groups: Any) -> None:
    """Write each sample to its group, as a signed integer of the same order; NaN are left out.

    Args:
        piece: `Piece`.
        places: ``(K,)`` int64: where the next sample of each slot goes; advanced.
        step: 1, or -1 to fill groups from their ends.
        groups: ``(M,)`` of the dtype of the bits.
    """
    direct = piece.slots.shape[0] == 0
    size = np.uint64(places.shape[0] if direct else piece.slots.shape[0])
    room = np.uint64(groups.shape[0])
    # Lines that come next stay in the cache where groups are few: nothing has to be looked up to know them.
    near, far = places.shape[0] <= _NEAR, np.int64(step) * np.int64(_LINES // groups.itemsize)
    for i in range(np.uint64(piece.start), np.uint64(piece.stop)):
        _prefetch_read(piece.keys, np.uint64(i) + _STREAM)
        _prefetch_read(piece.bits, np.uint64(i) + _STREAM)
        # Prefetched for reading, as prefetching for writing takes a tenth longer (Intel): other threads write near it.
        if not near:
            ahead = _lesser(np.uint64(i) + _AHEAD, np.uint64(piece.stop - 1))
            at = np.uint64(np.int64(piece.keys[ahead]) - piece.low)
            if at < size:
                if direct:
                    _prefetch_read(groups, np.uint64(places[at]))
                elif piece.slots[at] >= 0:
                    _prefetch_read(groups, np.uint64(places[np.uint64(piece.slots[at])]))
        x = np.int64(piece.bits[i])
        slot = _slot(piece, i, x, size)
        if slot >= 0:
            at = np.uint64(slot)
            place = places[at]
            if np.uint64(place) < room:  # always, unless another thread changes the samples meanwhile
                groups[np.uint64(place)] = x ^ (piece.rest if x < 0 else 0)
                places[at] = place + step
                if near:
                    _prefetch_read(groups, np.uint64(place + far))
