"""Compiled: samples sorted by label into groups, or counted in cells, for quantiles.

Floats are handled as signed integers of the same order: all bits of a negative one but its sign are flipped (after
M. Herf, "Radix tricks", 2001). That is a total order, and digits of such an integer can be counted.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from labeltrack._core.kernels.intrinsics import _STREAM, _U1, _inline, _jit, _lesser, _prefetch_read, _wrapping

_AHEAD = np.uint64(32)  # samples that lines are prefetched ahead: 36 instead of 50 ms for ten million of 1e5 labels
_NEAR = 1 << 12  # groups: with 1000, ten million float32 are sorted in 13 and not 17 ms, with 10 000 in 34 and not 27
_LINES = 128  # bytes between a written sample and the line prefetched with it
NOWHERE = (1 << 16) - 1  # the cell of samples that are ignored
_NOWHERE = np.uint64(NOWHERE)
_TOGETHER = 1 << 12  # samples whose cells are looked up before the wanted ones are read


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


class Cells(NamedTuple):
    """How samples become digits: by value, scaled, or by bits, shifted, which suits samples of many magnitudes."""

    linear: bool  # by value, ``(sample - low) * scale``
    lows: Any  # (K,) float64: the smallest sample of each slot
    scales: Any  # (K,) float64
    bases: Any  # (K,) int64: the integer of the smallest sample of each slot
    shifts: Any  # (K,) uint64: the bits after the digit
    digit: int  # binary logarithm of the digits of a slot


@_wrapping
@_jit
def count_digits(piece: Any, samples: Any, cells: Any, counts: Any, noted: Any, first: int) -> None:
    """Count the samples of each slot by their leading digits, and note the cell of each sample.

    Args:
        piece: `Piece`, without NaN.
        samples: The memory of its bits as float32 or float64.
        cells: `Cells`.
        counts: ``(K * 2**digit,)`` uint32, added to; fewer than `NOWHERE` of them.
        noted: ``(M,)`` uint16: where the cell of each sample is written, or `NOWHERE`.
        first: Where that of the first sample goes.
    """
    slots, digit = piece.slots, np.uint64(cells.digit)
    direct = slots.shape[0] == 0
    size = np.uint64(cells.bases.shape[0] if direct else slots.shape[0])
    out = np.uint64(first)
    for i in range(np.uint64(piece.start), np.uint64(piece.stop)):
        _prefetch_read(piece.keys, i + _STREAM)
        _prefetch_read(samples, i + _STREAM)
        at = np.uint64(np.int64(piece.keys[i]) - piece.low)
        cell = _NOWHERE
        if at < size and (direct or slots[at] >= 0):
            if not direct:
                at = np.uint64(slots[at])
            x = np.int64(piece.bits[i])
            if cells.linear:
                leading = np.uint64(np.int64((np.float64(samples[i]) - cells.lows[at]) * cells.scales[at]))
            else:
                leading = np.uint64((x ^ (x >> 63 & piece.rest)) - cells.bases[at]) >> cells.shifts[at]
            if leading >> digit == 0:  # always, unless another thread changes the samples meanwhile
                cell = at << digit | leading
                counts[cell] += np.uint32(1)
        noted[out] = cell
        out += _U1


@_wrapping
@_jit
def keep_digits(
    bits: Any, start: int, stop: int, rest: int, noted: Any, first: int, wanted: Any, places: Any, kept: Any
) -> None:
    """Copy the samples of some cells, as signed integers of the same order.

    Args:
        bits: ``(N,)`` samples as signed integers of their size.
        start: First sample.
        stop: One past the last.
        rest: All bits of a sample but the sign.
        noted: From `count_digits`.
        first: Where the cell of the first sample is.
        wanted: ``(NOWHERE + 1,)`` uint16: the number of each wanted cell, from 1 on, or 0.
        places: ``(S,)`` int64: where the next sample of each wanted cell goes; advanced.
        kept: ``(M,)`` of the dtype of `bits`.
    """
    where = np.empty(_TOGETHER + 1, dtype=np.uint64)
    together, end = np.uint64(_TOGETHER), np.uint64(stop - start)
    here, samples_from = np.uint64(first), np.uint64(start)
    for begin in range(np.uint64(0), end, together):
        # Wanted samples are found without a branch, then read together: each of them is a cache miss.
        n = np.uint64(0)
        for i in range(begin, _lesser(begin + together, end)):
            where[n] = i
            n += np.uint64(wanted[noted[here + i]] != 0)
        for j in range(n):
            x = np.int64(bits[samples_from + where[j]])
            which = np.uint64(wanted[noted[here + where[j]]]) - _U1
            place = places[which]
            kept[np.uint64(place)] = x ^ (x >> 63 & rest)
            places[which] = place + 1
