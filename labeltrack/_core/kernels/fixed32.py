"""The fastest format of fixed-point sums: integers of 32 bits times one power of two, 32 bytes per label.

float32 samples within some nine binades of each other are integers ``y`` of 32 bits times a power of two; so are zeros
and ones, or fractions with small denominators. The state of a label is four words, updated by one vector addition:

====  =====================================================================================================
word  meaning
====  =====================================================================================================
0     sum of y, modulo 2**64, which it never reaches
1     sum of y * y, modulo 2**64
2     number of samples in the lowest 21 bits, above them the sum of ``y * y >> 43``
3     largest y in the low half, largest ``~y`` in the high half, which is the smallest y
====  =====================================================================================================

Words 1 and 2 determine the sum of squares: what the shifts drop is less than ``2**43`` per sample, so for up to
``2**21`` samples it is below 2**64 and known modulo 2**64. A row of zeros is that of no samples, so a new table is
memory that has not been written to.

A sample that is not such an integer is rejected: it runs through the loop as the word 0, which adds one to the count
and nothing else. The count is corrected, and the sample is queued for `labeltrack._kernels.add_exactly`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types

from labeltrack._core.kernels.fixed_point import COUNT_BITS, MAX_COUNT, SHIFT, Format, reducing, vector_lanes, whole_sum
from labeltrack._core.kernels.intrinsics import _apart, _emitting, _greater, _jit, _lesser, _one_label, _part, two_sum
from labeltrack._core.kernels.rows import _add_squares, _add_sum, empty_row

_U0, _U1, _U2, _U3, _U4, _, _U6, _U7 = map(np.uint64, range(8))
WORDS = 4  # words per row
COUNT = 2  # word of a row that holds the count
BIAS = 1 << 31  # what is added to integers where some are negative
_HALF = (1 << 32) - 1
_AHEAD = np.uint64(32)  # samples between prefetching a row and adding to it; 16 takes a tenth longer, 300 000 labels
_FAR = 1 << 14  # rows from which they are prefetched, 512 KiB; from half of that, it takes a tenth longer
_U32, _U44, _U62 = np.uint64(32), np.uint64(44), np.uint64(62)
_LOW_HALF, _LOW44 = np.uint64(_HALF), np.uint64((1 << 44) - 1)
_COUNT_BITS, _SHIFT = np.uint64(COUNT_BITS), np.uint64(SHIFT)


_WORD, _LANE = ir.IntType(64), ir.IntType(32)
_FOUR, _PAIR, _EIGHT_LANES = ir.VectorType(_WORD, 4), ir.VectorType(_LANE, 2), ir.VectorType(_LANE, 8)


def _wrap(number: int) -> int:
    """Return a number modulo 2**64 as a signed integer."""
    return ((number + (1 << 63)) & ((1 << 64) - 1)) - (1 << 63)


def _emit_larger(builder: Any, one: Any, other: Any) -> Any:  # pragma: no cover (runs while kernels are compiled)
    return builder.select(builder.icmp_unsigned(">", one, other), one, other)


def _emit_add(builder: Any, table: Any, base: Any, r: Any, words: Any, i: Any) -> None:  # pragma: no cover
    # One vpbroadcastq, vpblendd, vpmuludq, vpsrlvq, vpternlogq, vpaddq, vpmaxud, vpblendd and two moves.
    word, nothing = builder.load(builder.gep(words, [i])), ir.Constant(_FOUR, ir.Undefined)
    spread = builder.shuffle_vector(builder.insert_element(nothing, word, _LANE(0)), nothing, vector_lanes(0, 0, 0, 0))
    y = builder.and_(spread, ir.Constant(_FOUR, [_HALF] * 4))
    factor = builder.shuffle_vector(y, ir.Constant(_FOUR, [1] * 4), vector_lanes(4, 1, 2, 3))
    terms = builder.lshr(builder.mul(y, factor), ir.Constant(_FOUR, [0, 0, SHIFT - COUNT_BITS, 0]))
    terms = builder.and_(terms, ir.Constant(_FOUR, [-1, -1, -(1 << COUNT_BITS), -1]))
    terms = builder.or_(terms, ir.Constant(_FOUR, [0, 0, 1, 0]))
    place = builder.bitcast(builder.gep(builder.gep(table, [base]), [r]), _FOUR.as_pointer())
    row = builder.load(place, align=32)
    sums = builder.bitcast(builder.add(row, terms), _EIGHT_LANES)
    extremes = _emit_larger(builder, builder.bitcast(row, _EIGHT_LANES), builder.bitcast(spread, _EIGHT_LANES))
    row = builder.shuffle_vector(sums, extremes, vector_lanes(0, 1, 2, 3, 4, 5, 14, 15))
    builder.store(builder.bitcast(row, _FOUR), place, align=32)


@_emitting(_emit_add, types.void, None, types.int64, types.uint64, None, types.uint64)
def _add(table, base, r, words, i):
    """Add a sample to the row at word ``base + r``; `base`, which is the same for all samples, then costs nothing."""
    word, place = int(words[i]), _wrap(int(base) + int(r))
    y = word & _HALF
    table[place] = _wrap(int(table[place]) + y)
    table[place + 1] = _wrap(int(table[place + 1]) + y * y)
    table[place + 2] = _wrap(int(table[place + 2]) + (y * y >> SHIFT << COUNT_BITS) + 1)
    _join_extremes(table, place + 3, word)


def _emit_join_extremes(builder: Any, table: Any, place: Any, word: Any) -> None:  # pragma: no cover
    at = builder.bitcast(builder.gep(table, [place]), _PAIR.as_pointer())
    builder.store(_emit_larger(builder, builder.load(at, align=8), builder.bitcast(word, _PAIR)), at, align=8)


@_emitting(_emit_join_extremes, types.void, None, types.uint64, types.int64)
def _join_extremes(table, place, word):
    """Replace each half of a word of the table by the larger of itself and that half of another word."""
    mine, other = int(table[place]) & ((1 << 64) - 1), int(word) & ((1 << 64) - 1)
    table[place] = _wrap(max(mine >> 32, other >> 32) << 32 | max(mine & _HALF, other & _HALF))


def _emit_zeros(builder: Any, words: Any, i: Any) -> Any:  # pragma: no cover
    many = ir.VectorType(_WORD, 64)
    row = builder.load(builder.bitcast(builder.gep(words, [i]), many.as_pointer()), align=8)
    return builder.bitcast(builder.icmp_unsigned("==", row, ir.Constant(many, [0] * 64)), _WORD)


@_emitting(_emit_zeros, types.uint64, None, types.uint64)
def _zeros(words, i):
    """Return a bit for each of 64 words from `i` that is zero."""
    return np.uint64(sum(1 << j for j, word in enumerate(words[int(i) : int(i) + 64].tolist()) if word == 0))


@_jit
def convert(samples, start, stop, unit, _stride, words, _offsets):
    """Write samples, in the `Unit`, as integers of 32 bits below their complements, from index 0; else 0."""
    first = np.uint64(start)
    scale = samples.dtype.type(unit.scale)
    # In the precision of the samples, sixteen float32 at a time: 0.17 ns per sample, as doubles 0.31. Two loops, as
    # LLVM does not unswitch one.
    half, nothing = samples.dtype.type(0.5), samples.dtype.type(0.0)
    if unit.signed:
        low, high = samples.dtype.type(-2147483648.0), samples.dtype.type(2147483648.0)
        for i in range(np.uint64(stop - start)):
            x = samples[first + i] * scale
            x = x if (x >= low) & (x < high) else half
            y = np.int32(x)
            word = np.uint64(np.uint32(y) ^ np.uint32(BIAS))
            words[i] = np.int64(word | (~word << _U32)) if samples.dtype.type(y) == x else 0
    else:
        high = samples.dtype.type(4294967296.0)
        for i in range(np.uint64(stop - start)):
            x = samples[first + i] * scale
            x = x if (x >= nothing) & (x < high) else half
            whole = np.uint32(x)
            word = np.uint64(whole)
            words[i] = np.int64(word | (~word << _U32)) if samples.dtype.type(whole) == x else 0


@_part
def _add_runs(labels, m, low, table, words, _lines):
    """Add samples of which many in a row have one label, summing each run in registers."""
    _apart()
    i = _U0
    while i < m:
        n = _one_label(labels, i, m)
        r = np.uint64((np.int64(labels[i]) - low) * WORDS)
        if n < _U4:
            _add(table, 0, r, words, i)
            i += _U1
            continue
        total, squares, high, most, least = _U0, _U0, _U0, _U0, _U0
        for j in range(i, i + n):
            word = np.uint64(words[j])
            y = word & _LOW_HALF
            total += y
            squares += y * y
            high += (y * y) >> _SHIFT
            most = _greater(most, y)
            least = _greater(least, word >> _U32)
        table[r] += np.int64(total)
        table[r + _U1] += np.int64(squares)
        table[r + _U2] += np.int64((high << _COUNT_BITS) + n)
        _join_extremes(table, r + _U3, np.int64(most | (least << _U32)))
        i += n


_form = Format("fixed32", _U2, np.uint64(COUNT), _AHEAD, _FAR, convert, _zeros, _add, _add_runs)
reduce = reducing(_form)


@_jit
def flush(table, unit, start, stop, fresh, rows, counts, keys, values):
    """Move the sums of the table to the rows, exactly, and clear them unless the rows are `fresh`: uninitialised.

    `start` rows are done, from the last one back, as the table may be the first half of the memory of the rows. Returns
    how many are done, fewer than `stop` if there is no room for the terms of another, and the number of terms.
    """
    n: Any = np.int64(0)
    room = keys.shape[0] - 4
    size = np.uint64(rows.shape[0] >> 3)
    last = table.shape[0] // WORDS - 1
    scale = 1.0 / unit.scale
    square = scale * scale
    coarse = square * 17592186044416.0  # 2**44
    bias = np.int64(BIAS if unit.signed else 0)
    for number in range(start, stop):
        if n > room:
            return number, n
        row = np.uint64(last - number)
        t = row << _U2
        r = (row if fresh else row % size) << _U3
        total, packed, extremes = table[t], table[t + _U2], np.uint64(table[t + _U3])
        squares, high = whole_sum(table, t + _U1, packed)
        count = packed & MAX_COUNT
        if fresh:
            empty_row(r, rows)
        if count == 0:
            continue
        if not fresh:
            for j in range(_U4):
                table[t + j] = 0
        counts[r] += count
        # The sum of squares is high * 2**64 + squares.
        if unit.signed:
            # The squares of z = y - 2**31 are those of y, less 2**32 * y, plus 2**62.
            less = np.uint64(total) << _U32
            high -= np.uint64(total >> 32) + np.uint64(squares < less)
            squares -= less
            more = np.uint64(count) << _U62
            squares += more
            high += np.uint64(count >> 2) + np.uint64(squares < more)
            total -= count * bias
        least = np.int64(~(extremes >> _U32) & _LOW_HALF) - bias
        most = np.int64(extremes & _LOW_HALF) - bias
        rows[r + _U6] = _lesser(rows[r + _U6], np.float64(least) * scale)
        rows[r + _U7] = _greater(rows[r + _U7], np.float64(most) * scale)
        # Sums are below 2**53, squares below 2**85: one double, and two of 44 bits.
        whole = np.float64(total) * scale
        upper = np.float64(np.int64((high << np.uint64(20)) | (squares >> _U44))) * coarse
        lower = np.float64(squares & _LOW44) * square
        if fresh:
            rows[r + _U1] = whole
            rows[r + _U3], rows[r + _U4] = two_sum(upper, lower)
        else:
            n = _add_sum(r, whole, rows, keys, values, n)
            n = _add_squares(r, upper, rows, keys, values, n)
            n = _add_squares(r, lower, rows, keys, values, n)
    return stop, n
