"""Compiled: samples sorted by label into groups, and quantiles of each by counting digits or comparing all with all.

Floats are handled as signed integers of the same order: all bits of a negative one but its sign are flipped (after
M. Herf, "Radix tricks", 2001). That is a total order, and digits of such an integer can be counted.

A large group is counted by a digit of up to eleven bits; only samples that share the digit of a wanted order statistic
are copied, and searched likewise. Each round is three passes without a data-dependent branch: quickselect mispredicts
every other comparison, and takes quadratic time for adversarial input. Up to 64 samples are compared all with all.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from labeltrack._core.kernels.intrinsics import _STREAM, _inline, _jit, _prefetch_read

_LINES = 128  # bytes between a written sample and the line prefetched with it
DIGIT = 11  # bits of a digit: 2048 counters stay in the first-level cache
SMALL = 64  # samples that are compared all with all: 1.1 to 1.3 times as fast as up to 32, with 50 per group
_VECTORS = 16  # samples per iteration of a vectorised loop
_A_DIGIT = 4  # samples per digit: with more digits, clearing and walking them dominates
_LARGEST = float(np.finfo(np.float64).max)
_U1 = np.uint64(1)


class Piece(NamedTuple):
    """Samples of some keys, and the slots of these."""

    keys: Any  # (N,) integers
    bits: Any  # (N,) samples as signed integers of their size
    start: int  # the first sample to read
    stop: int  # one past the last
    low: int  # the key of the first entry of `slots`
    slots: Any  # (S,) int32: the slot of each key, -1 to ignore it, as all keys outside
    infinity: int  # bits of positive infinity
    rest: int  # all bits but the sign


@_inline
def _slot(piece, i, x):
    """Return the slot of a sample with the bits `x`, -1 to ignore it; NaN are ignored."""
    at = np.uint64(np.int64(piece.keys[i]) - piece.low)
    inside = at < np.uint64(piece.slots.shape[0]) and (x & piece.rest) <= piece.infinity
    return np.int64(piece.slots[at]) if inside else np.int64(-1)


@_jit
def count_groups(piece, counts):
    """Count the samples of each slot, except NaN, in ``(K,)`` int64 `counts`."""
    for i in range(np.uint64(piece.start), np.uint64(piece.stop)):
        _prefetch_read(piece.keys, i + _STREAM)
        _prefetch_read(piece.bits, i + _STREAM)
        slot = _slot(piece, i, np.int64(piece.bits[i]))
        if slot >= 0:
            counts[np.uint64(slot)] += 1


@_jit
def fill_groups(piece, places, step, groups):
    """Write samples but NaN to their groups as signed integers, from `places` on, or backwards if `step` is -1."""
    room = np.uint64(groups.shape[0])
    far = np.int64(step) * np.int64(_LINES // groups.itemsize)
    for i in range(np.uint64(piece.start), np.uint64(piece.stop)):
        _prefetch_read(piece.keys, np.uint64(i) + _STREAM)
        _prefetch_read(piece.bits, np.uint64(i) + _STREAM)
        x = np.int64(piece.bits[i])
        slot = _slot(piece, i, x)
        if slot >= 0:
            at = np.uint64(slot)
            place = places[at]
            if np.uint64(place) < room:  # always, unless another thread changes the samples meanwhile
                groups[np.uint64(place)] = x ^ (piece.rest if x < 0 else 0)
                places[at] = place + step
                # The next line of each group: 1.6 times as fast with 100 groups, 1.3 with 10 000. For reading, as
                # prefetching for writing takes a tenth longer (Intel): other threads write near it.
                _prefetch_read(groups, np.uint64(place + far))


class Scratch(NamedTuple):
    """Memory that one thread selects with; Q is the number of quantiles."""

    places: Any  # (2**DIGIT,) int64
    moves: Any  # (2**DIGIT,) uint8
    line: Any  # (SMALL,) of the dtype of the groups
    values: Any  # the memory of `line` as float32 or float64
    less: Any  # (SMALL,) uint32
    segments: Any  # (2 * Q, 6) int64: what is still to be searched, see `_push`
    ranks: Any  # (2 * Q,) int64: the wanted order statistics, ascending
    found: Any  # (2 * Q,) int64: their values


def scratch(dtype: Any, quantiles: int) -> Scratch:
    """Return memory to select quantiles of samples of a dtype."""
    line = np.empty(SMALL, dtype=f"i{dtype.itemsize}")
    return Scratch(
        np.empty(1 << DIGIT, dtype=np.int64),
        np.empty(1 << DIGIT, dtype=np.uint8),
        line,
        line.view(dtype),
        np.empty(SMALL, dtype=np.uint32),
        np.empty((2 * quantiles, 6), dtype=np.int64),
        np.empty(2 * quantiles, dtype=np.int64),
        np.empty(2 * quantiles, dtype=np.int64),
    )


@_jit
def select_quantiles(groups, starts, first, last, copy, fractions, rest, s, out):
    """Write quantiles of groups `first` to before `last` to ``(Q, K)`` `out`, bit for bit those of `numpy.quantile`.

    Samples move within groups, and to `copy`, where there is room for the largest of these groups. `fractions` ascend.
    """
    # Unpacked once, as each access counts references: 25 ns per group if the functions below did it.
    places, moves, line, values, less, segments, ranks, found = s
    for k in range(first, last):
        start = starts[k]
        n = starts[k + 1] - starts[k]
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
            top -= 1
            if segments[top, 2] <= SMALL:
                _compare_all(groups, segments, top, ranks, rest, line, less, found)
            else:
                top = _round(groups, segments, top, ranks, found, places, moves)
        r = 0
        for q in range(fractions.shape[0]):
            below, above, weight = _neighbours(n, fractions[q])
            while ranks[r] < below:
                r += 1
            for j in range(2):
                x = found[r] if j == 0 or above == below else found[r + 1]
                line[j] = x ^ (rest if x < 0 else 0)
            out[q, k] = _between(np.float64(values[0]), np.float64(values[1]), weight)


@_inline
def _between(a, b, weight):
    """Interpolate between ``a <= b`` in the steps of numpy, except at infinities and where the gap overflows."""
    if weight == 0.0 or a == b:
        return a + 0.0  # infinity times zero, and infinity minus infinity, would be NaN
    # The difference of two finite numbers may overflow; that of their halves, which are exact then, does not.
    scale = 0.5 if b - a > _LARGEST and a >= -_LARGEST and b <= _LARGEST else 1.0
    step = b * scale - a * scale
    return (b * scale - step * (1.0 - weight) if weight >= 0.5 else a * scale + step * weight) / scale


@_inline
def _neighbours(n, fraction):
    """Return the ranks on both sides of a quantile of `n` samples, and the weight of the higher one."""
    # R. J. Hyndman and Y. Fan, "Sample quantiles in statistical packages", Amer. Statist. 50, 1996, definition 7.
    virtual = np.float64(n - 1) * fraction
    if virtual >= n - 1:
        return n - 1, n - 1, virtual + 1.0  # as numpy has it, which takes rank -1
    below = np.int64(np.floor(virtual))
    return below, below + 1, virtual - below


@_inline
def _push(segments, top, start, other, n, first, m, before):
    """Note a segment: where it is, where it may be copied to, how long, which ranks, and how many samples are less."""
    segments[top, 0], segments[top, 1], segments[top, 2] = start, other, n
    segments[top, 3], segments[top, 4], segments[top, 5] = first, m, before


@_inline
def _round(groups, segments, top, ranks, found, places, moves):
    """Search segment `top` by a digit; return how many segments are left."""
    start, other, n = segments[top, 0], segments[top, 1], segments[top, 2]
    first, end, before = segments[top, 3], segments[top, 3] + segments[top, 4], segments[top, 5]
    # A view, as indices that might be negative keep LLVM from vectorising.
    samples = groups[start : start + n]
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
def _compare_all(groups, segments, top, ranks, rest, line, less, found):
    """Find the order statistics of segment `top`, of few samples, by how many others each is above."""
    # They are filled up to whole vectors: the scalar remainder of a vectorised loop took half the time.
    start, n = segments[top, 0], segments[top, 2]
    first, end, before = segments[top, 3], segments[top, 3] + segments[top, 4], segments[top, 5]
    samples = groups[start : start + n]  # see `_round`
    m = (n + _VECTORS - 1) & -_VECTORS
    for i in range(n):
        line[i] = samples[i]
    for i in range(n, m):
        line[i] = rest  # the largest integer, which is below nothing
    for i in range(m):
        less[i] = 0
    j = 0
    while j + 4 <= n:
        a, b, c, d = line[j], line[j + 1], line[j + 2], line[j + 3]
        for i in range(m):
            x = line[i]
            less[i] += np.uint8(a < x) + np.uint8(b < x) + np.uint8(c < x) + np.uint8(d < x)
        j += 4
    while j < n:
        for i in range(m):
            less[i] += np.uint8(line[j] < line[i])
        j += 1
    smallest = line[0]
    for i in range(m):
        smallest = min(smallest, line[i])
    for r in range(first, end):
        # The largest of those that at most `rank` others are below; the padding is above them all.
        rank = np.uint32(ranks[r] - before)
        largest = smallest
        for i in range(m):
            largest = max(largest, line[i] if less[i] <= rank else smallest)
        found[r] = largest
