"""The quickest road of a sample: integers of 32 bits times one power of two, a row of 32 bytes a label.

Samples of float32 that lie within some nine binades of each other are integers ``y`` of 32 bits times a power of two,
and so are zeros and ones, shares of small numbers and the like. The state of a label is then four words, which one
addition of four lanes updates in all:

====  =====================================================================================================
word  meaning
====  =====================================================================================================
0     sum of y, modulo 2**64, which it never reaches
1     sum of y * y, modulo 2**64
2     number of samples in the lowest 21 bits, above them the sum of ``y * y >> 43``
3     largest y in the low half, largest ``~y`` in the high half, which is the smallest y
====  =====================================================================================================

Words 1 and 2 determine the sum of squares: what the shifts leave away is less than ``2**43`` a sample, so that it is
known modulo 2**64 and below 2**64 for up to ``2**21`` samples. A row of zeros is that of no samples, so that a new
table is memory that nobody has written to yet.

A sample that is no such integer goes through the loop as the word 0, which adds nothing but one to the count and is
smaller than all extremes. The count is put right, and the sample is added to a second row, of integers of 63 bits (see
`fixed63`) in a unit that is `TIGHT_FINER` bits finer. What is none of these either is set aside, for
`labeltrack._kernels.add_exactly`. The loops over samples are those of the other module with other rows: what a
row is must be known where they are compiled.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import config
from numba.core import types
from numba.extending import intrinsic

from labeltrack._core.kernels.fixed63 import (
    WIDE_BLOCK,
    WIDE_ODD,
    WIDE_PATIENCE,
    WIDE_QUEUE,
    _bounds,
    _find_odd,
    _inside,
    _put,
    _runs,
    _wide_add,
)
from labeltrack._core.kernels.intrinsics import (
    _STREAM,
    _apart,
    _fetch,
    _greater,
    _jit,
    _lesser,
    _memory,
    _one_label,
    _part,
    _prefetch,
    _wrapping,
    two_sum,
)
from labeltrack._core.kernels.rows import _add_squares, _add_sum

TIGHT_ROW = 4
"""Words of a label."""
TIGHT_COUNT = 21
"""Bits of the count."""
TIGHT_COUNTS = (1 << TIGHT_COUNT) - 1
"""The largest count."""
TIGHT_DRAIN = TIGHT_COUNTS
"""Samples of a label after which its sums have to be drained."""
TIGHT_FINER = 20
"""Bits by which the unit of the second row is finer."""
TIGHT_SHIFT = 43
"""Squares are shifted by so many bits. With n bits of a count, at least ``2 * n - 1`` and at most ``64 - n``."""
TIGHT_BLOCK = WIDE_BLOCK
"""Samples converted at a time. At 1000 labels, rows, words and what is read do not fit the first-level cache together:
760 at 192, 660 at 256; at 100, 860 and 905."""
TIGHT_QUEUE = WIDE_QUEUE
"""Room for samples that do not suit."""
TIGHT_COPIES = 4
"""Copies of the table where labels are few, as a sample would wait for the store of the one before."""
TIGHT_BIAS = 1 << 31
"""What is added to integers where some are negative."""
_HALF = (1 << 32) - 1
_AHEAD = 32  # samples between prefetching a row and adding to it; 16 takes a tenth longer for 300 000 labels
_FAR = 1 << 14  # rows from which they are prefetched; 512 KB, as with half of that it takes a tenth longer
# Ready made, see `labeltrack._core.kernels.intrinsics`.
_U0, _U1, _U2, _U3, _U4, _, _U6, _U7 = (np.uint64(number) for number in range(8))
_MARK = np.uint64(1 << 63)  # a sample that was added to the first of several tables whatever its turn
_U32, _U44, _U62 = np.uint64(32), np.uint64(44), np.uint64(62)
_LOW_HALF, _LOW44 = np.uint64(_HALF), np.uint64((1 << 44) - 1)
_COUNT, _COUNTS = np.uint64(TIGHT_COUNT), np.uint64(TIGHT_COUNTS)
_SHIFT, _WRAPPED = np.uint64(TIGHT_SHIFT), np.uint64(64 - TIGHT_SHIFT)
_ROWS_AHEAD = np.uint64(_AHEAD)


if config.DISABLE_JIT:

    def _wrap(number: int) -> int:
        """Return a number modulo 2**64 as a signed integer."""
        return ((number + (1 << 63)) & ((1 << 64) - 1)) - (1 << 63)

    def _tight_add(table: Any, base: Any, r: Any, words: Any, i: Any) -> None:
        """Add a sample to the row at word ``base + r`` (plain Python mode)."""
        word, place = int(words[i]), _wrap(int(base) + int(r))
        y = word & _HALF
        table[place] = _wrap(int(table[place]) + y)
        table[place + 1] = _wrap(int(table[place + 1]) + y * y)
        table[place + 2] = _wrap(int(table[place + 2]) + (y * y >> TIGHT_SHIFT << TIGHT_COUNT) + 1)
        _join_extremes(table, place + 3, word)

    def _join_extremes(table: Any, place: Any, word: Any) -> None:
        """Make each half of a word of the table the larger one of its own and that of another (plain Python mode)."""
        mine, other = int(table[place]) & ((1 << 64) - 1), int(word) & ((1 << 64) - 1)
        table[place] = _wrap(max(mine >> 32, other >> 32) << 32 | max(mine & _HALF, other & _HALF))

else:
    _WORD, _LANE = ir.IntType(64), ir.IntType(32)
    _FOUR, _EIGHT_LANES = ir.VectorType(_WORD, 4), ir.VectorType(_LANE, 8)

    def _lanes(*which: int) -> Any:  # pragma: no cover (runs while kernels are compiled)
        return ir.Constant(ir.VectorType(_LANE, len(which)), list(which))

    def _larger(builder: Any, one: Any, other: Any) -> Any:  # pragma: no cover
        return builder.select(builder.icmp_unsigned(">", one, other), one, other)

    @intrinsic
    def _tight_add(_context: Any, table: Any, _base: Any, _r: Any, words: Any, _i: Any) -> Any:  # pragma: no cover
        """Add a sample to the row at word ``base + r``.

        The assembly is one vpbroadcastq, vpblendd, vpmuludq, vpsrlvq, vpternlogq, vpaddq, vpmaxud, vpblendd and two
        moves. `base` is apart, as it is the same for all samples and then costs nothing.
        """

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            word = builder.load(builder.gep(_memory(context, builder, signature, args, 3), [args[4]]))
            nothing = ir.Constant(_FOUR, ir.Undefined)
            spread = builder.shuffle_vector(
                builder.insert_element(nothing, word, _LANE(0)), nothing, _lanes(0, 0, 0, 0)
            )
            y = builder.and_(spread, ir.Constant(_FOUR, [_HALF] * 4))
            factor = builder.shuffle_vector(y, ir.Constant(_FOUR, [1] * 4), _lanes(4, 1, 2, 3))
            terms = builder.mul(y, factor)
            terms = builder.lshr(terms, ir.Constant(_FOUR, [0, 0, TIGHT_SHIFT - TIGHT_COUNT, 0]))
            terms = builder.and_(terms, ir.Constant(_FOUR, [-1, -1, -(1 << TIGHT_COUNT), -1]))
            terms = builder.or_(terms, ir.Constant(_FOUR, [0, 0, 1, 0]))
            start = builder.gep(_memory(context, builder, signature, args, 0), [args[1]])
            place = builder.bitcast(builder.gep(start, [args[2]]), _FOUR.as_pointer())
            row = builder.load(place, align=32)
            sums = builder.bitcast(builder.add(row, terms), _EIGHT_LANES)
            extremes = _larger(builder, builder.bitcast(row, _EIGHT_LANES), builder.bitcast(spread, _EIGHT_LANES))
            row = builder.shuffle_vector(sums, extremes, _lanes(0, 1, 2, 3, 4, 5, 14, 15))
            builder.store(builder.bitcast(row, _FOUR), place, align=32)
            return context.get_dummy_value()

        return types.void(table, types.int64, types.uint64, words, types.uint64), codegen

    @intrinsic
    def _join_extremes(_context: Any, table: Any, _place: Any, _word: Any) -> Any:  # pragma: no cover
        """Make each half of a word of the table the larger one of its own and that of another."""

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            pair = ir.VectorType(_LANE, 2)
            place = builder.gep(_memory(context, builder, signature, args, 0), [args[1]])
            place = builder.bitcast(place, pair.as_pointer())
            builder.store(
                _larger(builder, builder.load(place, align=8), builder.bitcast(args[2], pair)), place, align=8
            )
            return context.get_dummy_value()

        return types.void(table, types.uint64, types.int64), codegen


@_wrapping
@_jit
def to_tight(samples: Any, start: int, stop: int, scale: Any, signed: bool, words: Any) -> None:
    """Write ``samples * scale`` as integers of 32 bits, each with its complement in the high half.

    Args:
        samples: ``(N,)`` float32 or float64.
        start: First sample.
        stop: One past the last.
        scale: A power of two of the type of the samples, at least 1, so that nothing underflows.
        signed: Whether `TIGHT_BIAS` is added.
        words: ``(>= stop - start,)`` int64, written from index 0: 0 for samples that are no multiple of ``1 / scale``,
            or below ``-bias`` times that, or as large as ``2**32 - bias`` times that, or not finite.
    """
    first = np.uint64(start)
    # In the precision of the samples, sixteen float32 at a time: 0.17 ns a sample, where doubles took 0.31. Two
    # loops, as the compiler does not make two of one.
    half, nothing = samples.dtype.type(0.5), samples.dtype.type(0.0)
    if signed:
        low, high = samples.dtype.type(-2147483648.0), samples.dtype.type(2147483648.0)
        for i in range(np.uint64(stop - start)):
            x = samples[first + i] * scale
            x = x if (x >= low) & (x < high) else half
            y = np.int32(x)
            word = np.uint64(np.uint32(y) ^ np.uint32(TIGHT_BIAS))
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
def _settle_odd(
    labels: Any,
    samples: Any,
    queue: Any,
    k: Any,
    origin: Any,
    low: Any,
    limit: Any,
    table: Any,
    stride: Any,
    second: Any,
    fine_scale: Any,
    signed: Any,
    words: Any,
    aside: Any,
    aside_samples: Any,
    n: Any,
) -> Any:
    """Add the samples of the queue to the second rows, or set them aside, and take them out of the counts.

    Returns:
        How many samples are set aside.
    """
    _apart()
    least, most, bias = _bounds(signed)
    for i in range(k):
        j = queue[i] & ~_MARK
        slot = np.uint64(np.int64(labels[j]) - low)
        if slot >= limit:
            continue
        # Of four tables, it was counted in that of its turn, or in the first.
        turn = ((j - origin) & _U3) * np.uint64(stride) if queue[i] == j else _U0
        table[turn + (slot << _U2) + _U2] -= 1
        if second.shape[0]:
            _put(np.float64(samples[j]) * fine_scale, least, most, bias, words, _U0)
            if words[0] | words[1] != 0:
                _wide_add(second, 0, slot << _U3, words, _U0)
                continue
        aside[n] = np.int64(slot)
        aside_samples[n] = samples[j]
        n += _U1
    return n


@_part
def _add_few(labels: Any, first: Any, words: Any, m: Any, low: Any, table: Any, stride: Any) -> None:
    """Add samples to four tables in turn."""
    _apart()
    base0 = -low * TIGHT_ROW
    base1 = base0 + stride
    base2 = base1 + stride
    base3 = base2 + stride
    most = m & ~_U3
    for i in range(_U0, most, _U4):
        _tight_add(table, base0, np.uint64(np.int64(labels[first + i])) << _U2, words, i)
        _tight_add(table, base1, np.uint64(np.int64(labels[first + i + _U1])) << _U2, words, i + _U1)
        _tight_add(table, base2, np.uint64(np.int64(labels[first + i + _U2])) << _U2, words, i + _U2)
        _tight_add(table, base3, np.uint64(np.int64(labels[first + i + _U3])) << _U2, words, i + _U3)
    for i in range(most, m):
        turn = np.int64(i - most) * stride
        _tight_add(table, base0 + turn, np.uint64(np.int64(labels[first + i])) << _U2, words, i)


@_part
def _add_near(labels: Any, first: Any, words: Any, m: Any, low: Any, table: Any) -> None:
    """Add samples to a table that the cache holds."""
    _apart()
    base = -low * TIGHT_ROW
    for i in range(m):
        _tight_add(table, base, np.uint64(np.int64(labels[first + i])) << _U2, words, i)


@_part
def _add_far(labels: Any, first: Any, block: Any, words: Any, m: Any, low: Any, table: Any) -> None:
    """Add samples to a table that the cache does not hold."""
    _apart()
    base = -low * TIGHT_ROW
    ahead = first + _ROWS_AHEAD
    fetched = np.uint64(_lesser(np.int64(m), _greater(0, labels.shape[0] - np.int64(ahead))))
    for i in range(fetched):
        _prefetch(table, np.uint64((np.int64(labels[ahead + i]) - low) * TIGHT_ROW))
        _tight_add(table, base, np.uint64(np.int64(block[i])) << _U2, words, i)
    for i in range(fetched, m):
        _tight_add(table, base, np.uint64(np.int64(block[i])) << _U2, words, i)


@_part
def _add_runs(labels: Any, first: Any, words: Any, m: Any, low: Any, table: Any) -> None:
    """Add samples of which many in a row have one label: the sums of a run stay in registers."""
    _apart()
    i = _U0
    while i < m:
        n = _one_label(labels, first + i, first + m)
        r = np.uint64((np.int64(labels[first + i]) - low) * TIGHT_ROW)
        if n < _U4:
            _tight_add(table, 0, r, words, i)
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
        table[r + _U2] += np.int64((high << _COUNT) + n)
        _join_extremes(table, r + _U3, np.int64(most | (least << _U32)))
        i += n


@_wrapping
@_jit
def reduce_tight(
    labels: Any,
    samples: Any,
    start: int,
    stop: int,
    low: int,
    size: int,
    copies: int,
    table: Any,
    second: Any,
    scale: Any,
    signed: bool,
    words: Any,
    queue: Any,
    aside: Any,
    aside_samples: Any,
    n: Any,
) -> tuple[int, int, bool, bool]:
    """Add ``samples[start:stop]`` to the table of `TIGHT_ROW` words a label; what it cannot hold is set aside.

    Args:
        labels: See `labeltrack._core.kernels.fixed63.reduce_wide`, as all arguments that are not named here.
        samples: ``(N,)`` float32 or float64.
        start: First sample to read.
        stop: One past the last.
        low: The label of slot 0.
        size: Number of slots.
        copies: How many tables there are, one after the other: 1 or `TIGHT_COPIES`. They are to be added up.
        table: ``(copies * size * TIGHT_ROW,)`` int64, on a cache line.
        second: ``(size * WIDE_ROW,)`` int64, on a cache line, or none at all.
        scale: See `to_tight`.
        signed: See `to_tight`.
        words: ``(TIGHT_BLOCK,)`` int64 scratch.
        queue: ``(TIGHT_QUEUE,)`` uint64 scratch.
        aside: ``(A,)`` int64.
        aside_samples: ``(A,)`` float64.
        n: Number of samples already set aside.

    Returns:
        What `reduce_wide` returns, and whether there are samples in the second rows, or set aside.
    """
    limit = np.uint64(size)
    few = copies == TIGHT_COPIES
    stride = size * TIGHT_ROW if few else 0
    fine_scale = np.float64(scale) * 2.0**TIGHT_FINER
    room = aside.shape[0] - TIGHT_QUEUE
    origin = np.uint64(start)
    block = np.empty(TIGHT_BLOCK, dtype=labels.dtype)
    waiting: Any = _U0
    position: Any = start
    excess: Any = 0
    poor: Any = False
    strays: Any = False
    while position < stop and n <= room and not poor:
        end = _lesser(position + TIGHT_BLOCK, stop)
        first = np.uint64(position)
        m = np.uint64(end - position)
        _fetch(labels, first + _STREAM, TIGHT_BLOCK)
        _fetch(samples, first + _STREAM, TIGHT_BLOCK)
        to_tight(samples, position, end, scale, signed, words)
        looked = _inside(labels, first, m, low, limit, block)
        run = _runs(block, m)
        before = waiting
        waiting = _find_odd(words, False, first, looked, _MARK if run else _U0, queue, waiting)
        excess = _greater(0, excess + WIDE_ODD * np.int64(waiting - before) - np.int64(m))
        poor = excess > WIDE_PATIENCE
        if run:
            _add_runs(block, _U0, words, looked, low, table)
        elif few:
            _add_few(block, _U0, words, looked, low, table, stride)
        elif size <= _FAR:
            _add_near(block, _U0, words, looked, low, table)
        else:
            _add_far(labels, first, block, words, looked, low, table)
        position += np.int64(looked)
        if waiting > TIGHT_BLOCK or looked < m or position == stop or poor:
            strays |= waiting != _U0
            n = np.int64(
                _settle_odd(
                    labels,
                    samples,
                    queue,
                    waiting,
                    origin,
                    low,
                    limit,
                    table,
                    stride,
                    second,
                    fine_scale,
                    signed,
                    words,
                    aside,
                    aside_samples,
                    np.uint64(n),
                )
            )
            waiting = _U0
            if looked < m:
                return position, n, False, strays
    return position, n, poor, strays


@_wrapping
@_jit
def add_tight_tables(table: Any, other: Any, start: int, stop: int, most: int) -> Any:
    """Add rows of another table of the same unit to this one's.

    Args:
        table: ``(size * TIGHT_ROW,)`` int64.
        other: Likewise; only read.
        start: First row.
        stop: One past the last.
        most: A row must get fewer samples than that.

    Returns:
        `stop`; or the first row of too many samples: it and those after it were not added then.
    """
    for row in range(np.uint64(start), np.uint64(stop)):
        r = row << _U2
        if np.int64(np.uint64(table[r + _U2]) & _COUNTS) + np.int64(np.uint64(other[r + _U2]) & _COUNTS) >= most:
            return np.int64(row)
        for j in range(_U3):
            table[r + j] += other[r + j]
        _join_extremes(table, r + _U3, other[r + _U3])
    return stop


@_wrapping
@_jit
def drain_tight(
    table: Any,
    scale: float,
    signed: bool,
    start: int,
    fresh: bool,
    rows: Any,
    counts: Any,
    keys: Any,
    values: Any,
    n: Any,
) -> tuple[int, int]:
    """Move the sums of the table to the rows, exactly, and empty it.

    Args:
        table: ``(copies * size * TIGHT_ROW,)`` int64.
        scale: The power of two that its integers were made with.
        signed: Whether `TIGHT_BIAS` was added to them.
        start: How many rows of the table are done. They are done from the last one on.
        fresh: Whether the rows hold nothing yet, and the table may be the first half of their memory. It is not
            emptied.
        rows: ``(size * ROW,)`` float64 state.
        counts: The same memory as int64.
        keys: ``(S,)`` int64 spill keys.
        values: ``(S,)`` float64 spill values.
        n: Number of spills already there.

    Returns:
        How many rows are done (not all if fewer than four spill places are left) and the number of spills.
    """
    room = keys.shape[0] - 4
    size = np.uint64(rows.shape[0] >> 3)
    done = table.shape[0] // TIGHT_ROW
    unit = 1.0 / scale
    square = unit * unit
    coarse = square * 17592186044416.0  # 2**44
    bias = np.int64(TIGHT_BIAS if signed else 0)
    for number in range(start, done):
        if n > room:
            return number, n
        row = np.uint64(done - 1 - number)
        t = row << _U2
        r = (row if fresh else row % size) << _U3
        total, squares, packed = table[t], np.uint64(table[t + _U1]), np.uint64(table[t + _U2])
        extremes = np.uint64(table[t + _U3])
        count = np.int64(packed & _COUNTS)
        if fresh:
            counts[r] = count
            for j in range(_U1, _U6):
                rows[r + j] = 0.0
            rows[r + _U6] = np.inf
            rows[r + _U7] = -np.inf
            if count == 0:
                continue
        else:
            if count == 0:
                continue
            counts[r] += count
            for j in range(_U4):
                table[t + j] = 0
        # The sum of squares is high * 2**64 + squares: the sum of shifted squares says how often that wrapped around.
        shifted = packed >> _COUNT
        high = np.int64(shifted >> _WRAPPED) + np.int64(squares < (shifted << _SHIFT))
        if signed:
            # The squares of z = y - 2**31 are those of y, less 2**32 * y, plus 2**62.
            less = np.uint64(total) << _U32
            high -= (total >> 32) + np.int64(squares < less)
            squares -= less
            more = np.uint64(count) << _U62
            squares += more
            high += (count >> 2) + np.int64(squares < more)
            total -= count * bias
        least = np.int64(~(extremes >> _U32) & _LOW_HALF) - bias
        most = np.int64(extremes & _LOW_HALF) - bias
        rows[r + _U6] = _lesser(rows[r + _U6], np.float64(least) * unit)
        rows[r + _U7] = _greater(rows[r + _U7], np.float64(most) * unit)
        # Sums are below 2**53, squares below 2**85: one double, and two of 44 bits.
        whole = np.float64(total) * unit
        upper = np.float64((high << 20) | np.int64(squares >> _U44)) * coarse
        lower = np.float64(squares & _LOW44) * square
        if fresh:
            rows[r + _U1] = whole
            rows[r + _U3], rows[r + _U4] = two_sum(upper, lower)
        else:
            n = _add_sum(r, whole, rows, keys, values, n)
            n = _add_squares(r, upper, rows, keys, values, n)
            n = _add_squares(r, lower, rows, keys, values, n)
    return done, n
