"""The compiled half of quantiles that goes through samples: they are sorted by label into groups, or counted in cells.

Floats are handled as signed integers of the same order: all bits of a negative one but its sign are flipped (after
M. Herf, "Radix tricks", 2001). That is a total order, and digits of such an integer can be counted.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from labeltrack._core.kernels.intrinsics import _STREAM, _inline, _jit, _lesser, _prefetch_read, _wrapping

_AHEAD = np.uint64(32)  # samples that lines are fetched ahead: 36 instead of 50 ms for ten million of 1e5 labels
_NEAR = 1 << 12  # groups: with 1000, ten million float32 are sorted in 13 and not 17 ms, with 10 000 in 34 and not 27
_LINES = 128  # bytes from where a sample is written to what is fetched then
_U1 = np.uint64(1)
NOWHERE = (1 << 16) - 1
"""The cell of samples that are passed over."""
_NOWHERE = np.uint64(NOWHERE)
_TOGETHER = 1 << 12  # samples that are looked through before those that are wanted are read


@_inline
def _slot(key: Any, x: Any, low: Any, slots: Any, direct: Any, size: Any, infinity: Any, rest: Any) -> Any:
    """Return the slot of a sample with the bits `x`, as `count_groups` has it; -1 for one that is passed over."""
    at = np.uint64(np.int64(key) - low)
    if at < size and (x & rest) <= infinity:
        return np.int64(at) if direct else np.int64(slots[at])
    return np.int64(-1)


@_wrapping
@_jit
def count_groups(
    keys: Any, bits: Any, start: int, stop: int, low: int, slots: Any, infinity: int, rest: int, counts: Any
) -> None:
    """Count the samples of each slot; NaN are left out.

    Args:
        keys: ``(N,)`` integers.
        bits: ``(N,)`` samples as signed integers of their size.
        start: First sample.
        stop: One past the last.
        low: Key of the first entry of `slots`.
        slots: ``(S,)`` int32: slot of each key, -1 for keys to pass over; empty if each key is a slot. Keys outside
            are passed over, too.
        infinity: Bits of positive infinity.
        rest: All bits of a sample but the sign.
        counts: ``(K,)`` int64, added to.
    """
    direct = slots.shape[0] == 0
    size = np.uint64(counts.shape[0] if direct else slots.shape[0])
    for i in range(np.uint64(start), np.uint64(stop)):
        _prefetch_read(keys, i + _STREAM)
        _prefetch_read(bits, i + _STREAM)
        slot = _slot(keys[i], np.int64(bits[i]), low, slots, direct, size, infinity, rest)
        if slot >= 0:
            counts[np.uint64(slot)] += 1


@_wrapping
@_jit
def fill_groups(
    keys: Any,
    bits: Any,
    start: int,
    stop: int,
    low: int,
    slots: Any,
    infinity: int,
    rest: int,
    places: Any,
    step: int,
    groups: Any,
) -> None:
    """Write each sample to its group, as a signed integer of the same order; NaN are left out.

    Args:
        keys: As in `count_groups`, like all to `rest`.
        bits: See there.
        start: See there.
        stop: See there.
        low: See there.
        slots: See there.
        infinity: See there.
        rest: See there.
        places: ``(K,)`` int64: where the next sample of each slot goes; moved on.
        step: 1, or -1 to fill groups from their ends.
        groups: ``(M,)`` of the dtype of `bits`.
    """
    direct = slots.shape[0] == 0
    size = np.uint64(places.shape[0] if direct else slots.shape[0])
    room = np.uint64(groups.shape[0])
    # Lines that come next stay in the cache where groups are few: nothing has to be looked up to know them.
    near, far = places.shape[0] <= _NEAR, np.int64(step) * np.int64(_LINES // groups.itemsize)
    for i in range(np.uint64(start), np.uint64(stop)):
        _prefetch_read(keys, np.uint64(i) + _STREAM)
        _prefetch_read(bits, np.uint64(i) + _STREAM)
        # The processor waits for each line that is written to, unless it is asked for. For reading, as asking for it to
        # be written to takes a tenth longer (Intel): other threads write near it.
        if not near:
            at = np.uint64(np.int64(keys[_lesser(np.uint64(i) + _AHEAD, np.uint64(stop - 1))]) - low)
            if at < size:
                if direct:
                    _prefetch_read(groups, np.uint64(places[at]))
                elif slots[at] >= 0:
                    _prefetch_read(groups, np.uint64(places[np.uint64(slots[at])]))
        x = np.int64(bits[i])
        slot = _slot(keys[i], x, low, slots, direct, size, infinity, rest)
        if slot >= 0:
            at = np.uint64(slot)
            place = places[at]
            if np.uint64(place) < room:  # always, unless somebody changes the samples meanwhile
                groups[np.uint64(place)] = x ^ (rest if x < 0 else 0)
                places[at] = place + step
                if near:
                    _prefetch_read(groups, np.uint64(place + far))


@_wrapping
@_jit
def count_digits(
    keys: Any,
    samples: Any,
    bits: Any,
    start: int,
    stop: int,
    low: int,
    slots: Any,
    rest: int,
    linear: bool,
    lows: Any,
    scales: Any,
    bases: Any,
    shifts: Any,
    digit: int,
    counts: Any,
    cells: Any,
    first: int,
) -> None:
    """Count the samples of each slot by their leading digits, and note the cell of each sample.

    Args:
        keys: As in `count_groups`, like all to `slots` but `samples`.
        samples: ``(N,)`` float32 or float64.
        bits: See there.
        start: See there.
        stop: See there.
        low: See there.
        slots: See there.
        rest: All bits of a sample but the sign.
        linear: Whether digits are by value, ``(sample - low) * scale``, or by bits.
        lows: ``(K,)`` float64: the smallest sample of each slot.
        scales: ``(K,)`` float64.
        bases: ``(K,)`` int64: the integer of the smallest sample of each slot.
        shifts: ``(K,)`` uint64: the bits after the digit.
        digit: Binary logarithm of the digits of a slot.
        counts: ``(K * 2**digit,)`` uint32, added to; less than `NOWHERE` of them.
        cells: ``(M,)`` uint16: the cell of each sample is written here, or `NOWHERE`.
        first: Where that of the first sample goes.
    """
    direct = slots.shape[0] == 0
    size = np.uint64(bases.shape[0] if direct else slots.shape[0])
    bits_a_digit = np.uint64(digit)
    out = np.uint64(first)
    for i in range(np.uint64(start), np.uint64(stop)):
        _prefetch_read(keys, i + _STREAM)
        _prefetch_read(samples, i + _STREAM)
        at = np.uint64(np.int64(keys[i]) - low)
        cell = _NOWHERE
        if at < size and (direct or slots[at] >= 0):
            if not direct:
                at = np.uint64(slots[at])
            x = np.int64(bits[i])
            if linear:
                leading = np.uint64(np.int64((np.float64(samples[i]) - lows[at]) * scales[at]))
            else:
                leading = np.uint64((x ^ (x >> 63 & rest)) - bases[at]) >> shifts[at]
            if leading >> bits_a_digit == 0:  # always, unless somebody changes the samples meanwhile
                cell = at << bits_a_digit | leading
                counts[cell] += np.uint32(1)
        cells[out] = cell
        out += _U1


@_wrapping
@_jit
def keep_digits(
    bits: Any, start: int, stop: int, rest: int, cells: Any, first: int, wanted: Any, places: Any, kept: Any
) -> None:
    """Copy the samples of some cells, as signed integers of the same order.

    Args:
        bits: ``(N,)`` samples as signed integers of their size.
        start: First sample.
        stop: One past the last.
        rest: All bits of a sample but the sign.
        cells: From `count_digits`.
        first: Where the cell of the first sample is.
        wanted: ``(NOWHERE + 1,)`` uint16: which cell of the wanted ones it is, from 1 on, or 0.
        places: ``(S,)`` int64: where the next sample of each wanted cell goes; moved on.
        kept: ``(M,)`` of the dtype of `bits`.
    """
    where = np.empty(_TOGETHER + 1, dtype=np.uint64)
    together, end = np.uint64(_TOGETHER), np.uint64(stop - start)
    here, samples_from = np.uint64(first), np.uint64(start)
    for begin in range(np.uint64(0), end, together):
        # Those that are wanted are found without a branch first, and then read side by side: each is a line of the
        # cache that nothing has asked for.
        n = np.uint64(0)
        for i in range(begin, _lesser(begin + together, end)):
            where[n] = i
            n += np.uint64(wanted[cells[here + i]] != 0)
        for j in range(n):
            x = np.int64(bits[samples_from + where[j]])
            which = np.uint64(wanted[cells[here + where[j]]]) - _U1
            place = places[which]
            kept[np.uint64(place)] = x ^ (x >> 63 & rest)
            places[which] = place + 1
