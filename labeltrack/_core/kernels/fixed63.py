"""The format of doubles of full precision: integers ``u`` of 63 bits times a power of two, one cache line per label.

The square of an integer has a low and a high half of 64 bits. The eight words of a row are

====  =================================================================================================
word  meaning
====  =================================================================================================
0-2   sums of the low halves, of the high halves, and of u, each modulo 2**64
3     largest ``2**63 - 1 - u``, which is the smallest u
4-6   the same three, each shifted right by 43 bits, above 21 bits; the lowest 21 of word 4 are the count
7     largest u
====  =================================================================================================

so that one addition and one maximum of eight lanes update all of it. As in `fixed32`, a sum modulo 2**64 and the sum of
what is above 43 bits determine the sum, and a row of zeros is that of no samples. 380 M samples/s on one core at 1000
labels, where products of pieces of 21 bits reached 200.

Where samples are of many magnitudes, there are four rows per label, for units that are each `FINER_BITS` finer than the
one before: a double of 53 bits is an integer of 63 bits in one of them. Samples that are not are queued for
`labeltrack._kernels.add_exactly`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types

from labeltrack._core.kernels.fixed_point import COUNT_BITS, MAX_COUNT, SHIFT, Format, reducing, vector_lanes, whole_sum
from labeltrack._core.kernels.intrinsics import (
    _apart,
    _emitting,
    _greater,
    _inline,
    _jit,
    _lesser,
    _one_label,
    _part,
    _prefetch,
)
from labeltrack._core.kernels.rows import _add_squares, _add_sum, empty_row

_U0, _U1, _U2, _U3, _U4, _, _U6, _U7, _U8 = map(np.uint64, range(9))
WORDS = 8  # words per row
COUNT = 4  # word of a row that holds the count
FINER_BITS = 10  # bits by which the unit of each of them is finer than that of the one before
BIAS = 1 << 62  # what is added to integers where some are negative
_COMPLEMENT = (1 << 63) - 1
_RUN = np.uint64(16)  # samples of one label in a row from which they are summed apart
_AHEAD = np.uint64(64)  # samples between prefetching a row and adding to it; 16 takes a quarter longer, 100 000 labels
_PLACES_AHEAD = np.uint64(16)  # likewise, among the places of a block, whose first ones are not prefetched
_FAR = 4096  # rows from which they are prefetched
_PIECE = np.uint64((1 << 49) - 1)
_U15, _U30, _U34, _U49, _U60, _U62, _U63 = (np.uint64(number) for number in (15, 30, 34, 49, 60, 62, 63))


_WORD, _LONG = ir.IntType(64), ir.IntType(128)
_PAIR, _ROW = ir.VectorType(_WORD, 2), ir.VectorType(_WORD, 8)
_ALL = (1 << 64) - 1


def _join_row(table: Any, place: int, row: list[int]) -> None:
    """Add the words of a row except for its extremes, and join these (plain Python mode)."""
    for j, word in enumerate(row):
        mine = int(table[place + j])
        total = max(mine, word) if j in (3, 7) else mine + word & _ALL
        table[place + j] = total - (1 << 64) if total >> 63 else total


def _emit_join_row(builder: Any, place: Any, row: Any) -> None:  # pragma: no cover (runs while kernels are compiled)
    place = builder.bitcast(place, _ROW.as_pointer())
    mine = builder.load(place, align=64)
    larger = builder.select(builder.icmp_unsigned(">", mine, row), mine, row)
    joined = builder.shuffle_vector(builder.add(mine, row), larger, vector_lanes(0, 1, 2, 11, 4, 5, 6, 15))
    builder.store(joined, place, align=64)


def _emit_add(builder: Any, table: Any, base: Any, r: Any, words: Any, i: Any) -> None:  # pragma: no cover
    # One mulx, three moves to a vector, one vpermq, vpsrlvq, vpternlogq, vpaddq, vpmaxuq and a store.
    word = builder.gep(words, [builder.shl(i, _WORD(1))])
    pair = builder.load(builder.bitcast(word, _PAIR.as_pointer()), align=8)
    long = builder.zext(builder.load(word), _LONG)
    square = builder.mul(long, long)
    halves = ir.Constant(_PAIR, ir.Undefined)
    for j, shift in enumerate((0, 64)):
        half = builder.trunc(builder.lshr(square, _LONG(shift)), _WORD)
        halves = builder.insert_element(halves, half, ir.IntType(32)(j))
    row = builder.shuffle_vector(halves, pair, vector_lanes(0, 1, 2, 3, 0, 1, 2, 2))
    down, high = SHIFT - COUNT_BITS, -(1 << COUNT_BITS)
    row = builder.lshr(row, ir.Constant(_ROW, [0, 0, 0, 0, down, down, down, 0]))
    row = builder.and_(row, ir.Constant(_ROW, [-1, -1, -1, -1, high, high, high, -1]))
    row = builder.or_(row, ir.Constant(_ROW, [0, 0, 0, 0, 1, 0, 0, 0]))
    _emit_join_row(builder, builder.gep(builder.gep(table, [base]), [r]), row)


@_emitting(_emit_add, types.void, None, types.int64, types.uint64, None, types.uint64)
def add(table, base, r, words, i):
    """Add a sample to the row at word ``base + r``; `base`, which is the same for all samples, then costs nothing."""
    u, complement = int(words[2 * int(i)]), int(words[2 * int(i) + 1])
    sums = [u * u & _ALL, u * u >> 64, u]
    shifted = [word >> SHIFT << COUNT_BITS for word in sums]
    shifted[0] += 1
    _join_row(table, (int(base) + int(r)) & _ALL, [*sums, complement, *shifted, u])


def _emit_join(builder: Any, table: Any, r: Any, other: Any, o: Any) -> None:  # pragma: no cover
    row = builder.load(builder.bitcast(builder.gep(other, [o]), _ROW.as_pointer()), align=64)
    _emit_join_row(builder, builder.gep(table, [r]), row)


@_emitting(_emit_join, types.void, None, types.uint64, None, types.uint64)
def _join(table, r, other, o):
    """Add the row at word `o` of another table to the row at word `r`."""
    _join_row(table, int(r), [int(other[int(o) + j]) & _ALL for j in range(8)])


def _emit_pair_zeros(builder: Any, words: Any, i: Any) -> Any:  # pragma: no cover
    many, twice = ir.VectorType(_WORD, 64), ir.VectorType(_WORD, 128)
    place = builder.gep(words, [builder.shl(i, _WORD(1))])
    row = builder.load(builder.bitcast(place, twice.as_pointer()), align=8)
    first, second = (builder.shuffle_vector(row, row, vector_lanes(*range(start, 128, 2))) for start in (0, 1))
    zeros = builder.icmp_unsigned("==", builder.or_(first, second), ir.Constant(many, [0] * 64))
    return builder.bitcast(zeros, _WORD)


@_emitting(_emit_pair_zeros, types.uint64, None, types.uint64)
def _pair_zeros(words, i):
    """Return a bit for each of 64 pairs from `i` that is zero: its words add up to 2**63 - 1 if it is not."""
    pairs = words[2 * int(i) : 2 * int(i) + 128].reshape(-1, 2).tolist()
    return np.uint64(sum(1 << j for j, pair in enumerate(pairs) if pair == [0, 0]))


@_inline
def bounds(signed):
    """Return the smallest scaled sample, what is just too large, and what is added to make an integer of 63 bits."""
    if signed:
        return -4611686018427387904.0, 4611686018427387904.0, np.int64(BIAS)
    return 0.0, 9223372036854775808.0, np.int64(0)


@_inline
def put(x, low, high, bias, words, i):
    """Write a scaled sample as an integer and its complement, or twice 0; without a branch, to be vectorised."""
    x = x if (x >= low) & (x < high) else 0.5
    y = np.int64(x)
    u = y + bias
    fits = np.float64(y) == x
    words[i << _U1] = u if fits else 0
    words[(i << _U1) + _U1] = u ^ _COMPLEMENT if fits else 0


@_jit
def convert(samples, start, stop, unit, stride, words, offsets):
    """Write samples as integers of 63 bits and complements, twice 0 if none; with four units, where tables begin."""
    first = np.uint64(start)
    low, high, bias = bounds(unit.signed)
    scale = unit.scale
    if not unit.finer:
        for i in range(np.uint64(stop - start)):
            put(np.float64(samples[first + i]) * scale, low, high, bias, words, i)
        return
    for i in range(np.uint64(stop - start)):
        x = np.float64(samples[first + i]) * scale
        # From 2**52 on, all doubles are integers. What is less may be multiplied by 2**10 and stay below 2**62.
        size = abs(x)
        x = x * 1024.0 if size < 4503599627370496.0 else x
        x = x * 1024.0 if size < 4398046511104.0 else x
        x = x * 1024.0 if size < 4294967296.0 else x
        finer = np.int64(size < 4503599627370496.0) + np.int64(size < 4398046511104.0) + np.int64(size < 4294967296.0)
        offsets[i] = finer * stride
        put(x, low, high, bias, words, i)


@_part
def _add_runs(labels, m, low, table, words, lines):
    """Add samples of which many in a row have one label, to four rows in turn, which are then added to its row."""
    _apart()
    i = _U0
    while i < m:
        n = _one_label(labels, i, m)
        r = np.uint64((np.int64(labels[i]) - low) * WORDS)
        whole = n & ~_U3 if n >= _RUN else _U0
        for j in range(i, i + whole, _U4):
            add(lines, 0, _U0, words, j)
            add(lines, WORDS, _U0, words, j + _U1)
            add(lines, 2 * WORDS, _U0, words, j + _U2)
            add(lines, 3 * WORDS, _U0, words, j + _U3)
        for j in range(i + whole, i + n):
            add(table, 0, r, words, j)
        if whole:
            for j in range(_U4):
                _join(table, r, lines, j << _U3)
            for j in range(np.uint64(4 * WORDS)):
                lines[j] = 0
        i += n


@_part
def _add_finer(labels, m, low, table, words, places):
    """Add samples to tables of four units: rows are worked out first, so that they can be prefetched."""
    _apart()
    n = _U0
    for i in range(m):
        slot = np.uint64(np.int64(labels[i]) - low)
        u, complement = words[i << _U1], words[(i << _U1) + _U1]
        places[n] = (slot << _U3) + places[i]  # n is at most i
        words[n << _U1] = u
        words[(n << _U1) + _U1] = complement
        n += np.uint64((u | complement) != 0)
    for i in range(n):
        _prefetch(table, places[i + _PLACES_AHEAD])
        add(table, 0, places[i], words, i)


_form = Format(
    "fixed63", _U3, np.uint64(COUNT), _AHEAD, _FAR, convert, _pair_zeros, add, _add_runs, add_finer=_add_finer
)
reduce = reducing(_form)


@_jit
def flush(table, unit, start, stop, fresh, rows, counts, keys, values):
    """Move sums of the table to the rows, exactly, as that of `fixed32`; `fresh` rows are the memory of the table."""
    n: Any = np.int64(0)
    room = keys.shape[0] - 5
    size = rows.shape[0] // WORDS
    for row in range(start, stop):
        if n > room:
            return row, n
        t = np.uint64(row) << _U3
        packed = table[t + _U4]
        count = packed & MAX_COUNT
        if count == 0:
            if fresh:
                empty_row(t, rows)
            continue
        scale = 1.0 / (unit.scale * 2.0 ** (FINER_BITS * (row // size)) if unit.finer else unit.scale)
        square = scale * scale
        r = np.uint64(row % size) << _U3
        # The sum of squares in words a0 a1 a2, the sum in words b0 b1.
        a0, carry = whole_sum(table, t, packed)
        a1, a2 = whole_sum(table, t + _U1, table[t + _U1 + _U4])
        a1 += carry
        a2 += np.uint64(a1 < carry)
        b0, b1 = whole_sum(table, t + _U2, table[t + _U2 + _U4])
        least, most = _COMPLEMENT - table[t + _U3], table[t + _U7]
        if unit.signed:
            # The squares of z = u - 2**62 are those of u, less 2**63 * u, plus 2**124.
            c0, c1, c2 = b0 << _U63, (b0 >> _U1) | (b1 << _U63), b1 >> _U1
            borrow = np.uint64(a0 < c0)
            a0 -= c0
            a2 -= c2 + np.uint64(a1 < c1) + np.uint64(a1 - c1 < borrow)
            a1 -= c1 + borrow
            more = np.uint64(count) << _U60
            a1 += more
            a2 += np.uint64(count >> 4) + np.uint64(a1 < more)
            less = np.uint64(count) << _U62
            b1 -= np.uint64(count >> 2) + np.uint64(b0 < less)
            b0 -= less
            least -= BIAS
            most -= BIAS
        if fresh:
            empty_row(r, rows)
        else:
            for j in range(_U8):
                table[t + j] = 0
        counts[r] += count
        rows[r + _U6] = _lesser(rows[r + _U6], np.float64(least) * scale)
        rows[r + _U7] = _greater(rows[r + _U7], np.float64(most) * scale)
        # Pieces of 49 bits, each a double: squares are below 2**148, sums below 2**85.
        upper = np.int64((b0 >> _U49) | (b1 << _U15))
        n = _add_sum(r, np.float64(upper) * (562949953421312.0 * scale), rows, keys, values, n)
        n = _add_sum(r, np.float64(b0 & _PIECE) * scale, rows, keys, values, n)
        piece = (a1 >> _U34) | (a2 << _U30)
        n = _add_squares(r, np.float64(piece) * (316912650057057350374175801344.0 * square), rows, keys, values, n)
        piece = ((a0 >> _U49) | (a1 << _U15)) & _PIECE
        n = _add_squares(r, np.float64(piece) * (562949953421312.0 * square), rows, keys, values, n)
        n = _add_squares(r, np.float64(a0 & _PIECE) * square, rows, keys, values, n)
    return stop, n
