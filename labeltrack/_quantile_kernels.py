"""The compiled half of quantiles: samples are sorted by label into groups, of which order statistics are selected.

Floats are handled as signed integers of the same order: all bits of a negative one but its sign are flipped (after
M. Herf, "Radix tricks", 2001). That is a total order, and digits of such an integer can be counted.

Selection counts the samples of a group by a digit, of eleven bits where the group is large, and copies those alone
whose digit is that of a wanted order statistic; then it does the same with these. A round is three passes without a
branch that depends on the samples, and each leaves a digit less: quickselect mispredicts every other comparison, and
takes quadratic time for samples that are made for it. Where few are left, all are compared with all, many at a time.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from labeltrack._kernels import _inline, _jit, _wrapping

DIGIT = 11
"""Bits of a digit: 2048 counters stay in the first-level cache."""
SMALL = 128
"""Samples that are compared all with all."""
_VECTORS = 16  # samples that vectorised loops do at a time
_A_DIGIT = 4  # samples: with more digits, clearing and walking them takes longest
_U1 = np.uint64(1)


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
    for i in range(start, stop):
        at = np.uint64(np.int64(keys[i]) - low)
        if at < size and (np.int64(bits[i]) & rest) <= infinity:
            if not direct:
                slot = slots[at]
                if slot < 0:
                    continue
                at = np.uint64(slot)
            counts[at] += 1


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
    for i in range(start, stop):
        at = np.uint64(np.int64(keys[i]) - low)
        x = np.int64(bits[i])
        if at < size and (x & rest) <= infinity:
            if not direct:
                slot = slots[at]
                if slot < 0:
                    continue
                at = np.uint64(slot)
            place = places[at]
            if np.uint64(place) < room:  # always, unless somebody changes the samples meanwhile
                groups[np.uint64(place)] = x ^ (rest if x < 0 else 0)
                places[at] = place + step


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
) -> None:
    """Count the samples of each slot by their leading digits.

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
        counts: ``(K * 2**digit,)`` uint32, added to.
    """
    direct = slots.shape[0] == 0
    size = np.uint64(bases.shape[0] if direct else slots.shape[0])
    bits_a_digit = np.uint64(digit)
    for i in range(np.uint64(start), np.uint64(stop)):
        at = np.uint64(np.int64(keys[i]) - low)
        if at >= size:
            continue
        if not direct:
            if slots[at] < 0:
                continue
            at = np.uint64(slots[at])
        x = np.int64(bits[i])
        if linear:
            leading = np.uint64((np.float64(samples[i]) - lows[at]) * scales[at])
        else:
            leading = np.uint64((x ^ (x >> 63 & rest)) - bases[at]) >> shifts[at]
        if leading >> bits_a_digit == 0:  # always, unless somebody changes the samples meanwhile
            counts[at << bits_a_digit | leading] += np.uint32(1)


@_wrapping
@_jit
def keep_digits(
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
    wanted: Any,
    places: Any,
    ends: Any,
    kept: Any,
) -> None:
    """Copy the samples of some cells, as signed integers of the same order.

    Args:
        keys: As in `count_digits`, like all to `digit`.
        samples: See there.
        bits: See there.
        start: See there.
        stop: See there.
        low: See there.
        slots: See there.
        rest: See there.
        linear: See there.
        lows: See there.
        scales: See there.
        bases: See there.
        shifts: See there.
        digit: See there.
        wanted: ``(K * 2**digit,)`` uint16: which cell of the wanted ones it is, from 1 on, or 0.
        places: ``(S,)`` int64: where the next sample of each wanted cell goes; moved on.
        ends: ``(S,)`` int64: where there is no more room for them.
        kept: ``(M,)`` of the dtype of `bits`.
    """
    # The loop of `count_digits` once more: a function of a sample that takes these arrays, even one that is inlined,
    # counts references to them, atomically, which took 26 ns a sample instead of 1.6.
    direct = slots.shape[0] == 0
    size = np.uint64(bases.shape[0] if direct else slots.shape[0])
    bits_a_digit = np.uint64(digit)
    for i in range(np.uint64(start), np.uint64(stop)):
        at = np.uint64(np.int64(keys[i]) - low)
        if at >= size:
            continue
        if not direct:
            if slots[at] < 0:
                continue
            at = np.uint64(slots[at])
        x = np.int64(bits[i])
        y = x ^ (x >> 63 & rest)
        if linear:
            leading = np.uint64((np.float64(samples[i]) - lows[at]) * scales[at])
        else:
            leading = np.uint64(y - bases[at]) >> shifts[at]
        if leading >> bits_a_digit == 0:
            cell = np.uint64(wanted[at << bits_a_digit | leading])
            if cell:
                place = places[cell - _U1]
                if place < ends[cell - _U1]:  # always, see above
                    kept[np.uint64(place)] = y
                    places[cell - _U1] = place + 1


@_wrapping
@_jit
def select_quantiles(
    groups: Any,
    starts: Any,
    first: int,
    last: int,
    copy: int,
    fractions: Any,
    rest: int,
    places: Any,
    moves: Any,
    line: Any,
    less: Any,
    segments: Any,
    ranks: Any,
    found: Any,
    bits: Any,
    floats: Any,
    out: Any,
) -> None:
    """Compute quantiles of groups, as `numpy.quantile` does with its default method, bit for bit.

    Between the two nearest order statistics is interpolated linearly (R. J. Hyndman and Y. Fan, "Sample quantiles in
    statistical packages", Amer. Statist. 50, 1996, definition 7), in the steps of numpy.

    Args:
        groups: Integers from `fill_groups`, which are moved about within their groups; and room.
        starts: ``(K + 1,)`` int64: where each group starts, and the last ends.
        first: First group.
        last: One past the last.
        copy: Where in `groups` there is room for as many samples as the largest of these groups has.
        fractions: ``(Q,)`` float64 from 0 to 1, ascending.
        rest: All bits of a sample but the sign.
        places: ``(2**DIGIT,)`` int64, scratch.
        moves: ``(2**DIGIT,)`` uint8, scratch.
        line: ``(SMALL,)`` scratch of the dtype of `groups`.
        less: ``(SMALL,)`` uint32, scratch.
        segments: ``(2 * Q, 6)`` int64, scratch: what is still to be searched; each has a rank that no other has.
        ranks: ``(2 * Q,)`` int64, scratch.
        found: ``(2 * Q,)`` int64, scratch.
        bits: ``(2,)`` scratch of the dtype of `groups`.
        floats: The memory of `bits` as float32 or float64.
        out: ``(Q, K)`` float64; NaN for empty groups.
    """
    for k in range(first, last):
        start = starts[k]
        n = starts[k + 1] - start
        if n == 0:
            for q in range(fractions.shape[0]):
                out[q, k] = np.nan
            continue
        # The neighbours of all the quantiles, each once: as fractions ascend, so do they.
        m = 0
        for q in range(fractions.shape[0]):
            below, above, _ = _neighbours(n, fractions[q])
            if m == 0 or below > ranks[m - 1]:
                ranks[m] = below
                m += 1
            if above > ranks[m - 1]:
                ranks[m] = above
                m += 1
        _push(segments, 0, start, copy, n, 0, m, 0)
        top = 1
        while top:
            top = _round(groups, segments, top - 1, ranks, found, places, moves, rest, line, less)
        r = 0
        for q in range(fractions.shape[0]):
            below, above, weight = _neighbours(n, fractions[q])
            while ranks[r] < below:
                r += 1
            for j in range(2):
                x = found[r] if j == 0 or above == below else found[r + 1]
                bits[j] = x ^ (rest if x < 0 else 0)
            a, b = np.float64(floats[0]), np.float64(floats[1])
            step = b - a
            out[q, k] = b - step * (1.0 - weight) if weight >= 0.5 else a + step * weight


@_inline
def _neighbours(n: Any, fraction: Any) -> tuple[Any, Any, Any]:
    """Return the ranks of the order statistics on both sides of a quantile, and the weight of the higher one."""
    virtual = np.float64(n - 1) * fraction
    if virtual >= n - 1:
        return n - 1, n - 1, virtual + 1.0  # as numpy has it, which takes rank -1; infinity minus infinity is NaN
    below = np.int64(np.floor(virtual))
    return below, below + 1, virtual - below


@_inline
def _push(segments: Any, top: int, start: int, other: int, n: int, first: int, m: int, before: int) -> None:
    """Note a segment: where it is, where it may be copied to, how long, which ranks, and how many samples are less."""
    segments[top, 0], segments[top, 1], segments[top, 2] = start, other, n
    segments[top, 3], segments[top, 4], segments[top, 5] = first, m, before


@_inline
def _round(
    groups: Any,
    segments: Any,
    top: int,
    ranks: Any,
    found: Any,
    places: Any,
    moves: Any,
    rest: int,
    line: Any,
    less: Any,
) -> int:
    """Find the order statistics of a segment, or copy what is to be searched for them next.

    Args:
        groups: See `select_quantiles`, like all others.
        segments: See there.
        top: The segment; is taken from the list.
        ranks: See there.
        found: See there.
        places: See there.
        moves: See there.
        rest: See there.
        line: See there.
        less: See there.

    Returns:
        Number of segments then.
    """
    start, other, n = segments[top, 0], segments[top, 1], segments[top, 2]
    first, end, before = segments[top, 3], segments[top, 3] + segments[top, 4], segments[top, 5]
    # A view: indices that might be negative count from the end, which would keep LLVM from doing several at a time.
    samples = groups[start : start + n]
    if n <= SMALL:
        _compare_all(samples, ranks, first, end, before, rest, line, less, found)
        return top
    smallest = largest = samples[0]
    for i in range(n):
        smallest = min(smallest, samples[i])
        largest = max(largest, samples[i])
    low = np.int64(smallest)
    span = np.uint64(np.int64(largest) - low)
    bits, digits = np.uint64(4), 16
    while bits < DIGIT and _A_DIGIT * digits < n:
        bits, digits = bits + _U1, 2 * digits
    shift = np.uint64(0)
    while (span >> shift) >> bits:
        shift += _U1
    size = np.int64(span >> shift) + 1
    for d in range(size):
        places[d] = 0
    for i in range(n):
        places[np.uint64(np.int64(samples[i]) - low) >> shift] += 1
    r, kept = first, 0
    trash = other + n - 1  # if it is used at all, less than n are kept
    for d in range(size):
        count = places[d]
        places[d] = trash
        moves[d] = 0
        if r < end and ranks[r] < before + count:
            from_rank = r
            while r < end and ranks[r] < before + count:
                found[r] = low + np.int64(np.uint64(d) << shift)  # final if a digit is all that is left
                r += 1
            if shift:
                _push(segments, top, other + kept, start + kept, count, from_rank, r - from_rank, before)
                top += 1
                places[d] = other + kept
                moves[d] = 1
                kept += count
        before += count
    if kept:
        for i in range(n):
            x = samples[i]
            digit = np.uint64(np.int64(x) - low) >> shift
            place = places[digit]
            groups[np.uint64(place)] = x
            places[digit] = place + np.int64(moves[digit])
    return top


@_inline
def _compare_all(
    samples: Any, ranks: Any, first: int, end: int, before: int, rest: int, line: Any, less: Any, found: Any
) -> None:
    """Find order statistics of few samples, by how many others each is above.

    They are filled up to whole vectors: what remains of a vectorised loop is done one by one, and took half the time.
    """
    n = samples.shape[0]
    m = (n + _VECTORS - 1) & -_VECTORS
    for i in range(n):
        line[i] = samples[i]
    for i in range(n, m):
        line[i] = rest  # the largest integer, which is below nothing
    for i in range(m):
        less[i] = 0
    j = 0
    while j + 4 <= n:
        a, b, c, d = samples[j], samples[j + 1], samples[j + 2], samples[j + 3]
        for i in range(m):
            x = line[i]
            less[i] += np.uint32(a < x) + np.uint32(b < x) + np.uint32(c < x) + np.uint32(d < x)
        j += 4
    while j < n:
        a = samples[j]
        for i in range(m):
            less[i] += np.uint32(a < line[i])
        j += 1
    smallest = line[0]
    for i in range(m):
        smallest = min(smallest, line[i])
    for r in range(first, end):
        # The largest of those that no more than `rank` others are below. No more than n are, and those added last are
        # above all of them.
        rank = np.uint32(ranks[r] - before)
        largest = smallest
        for i in range(m):
            largest = max(largest, line[i] if less[i] <= rank else smallest)
        found[r] = largest
