"""The road of doubles of full precision: integers ``u`` of 63 bits times a power of two, a cache line a label.

The square of an integer has a low and a high half of 64 bits. The eight words of a row are

====  =================================================================================================
word  meaning
====  =================================================================================================
0-2   sums of the low halves, of the high halves, and of u, each modulo 2**64
3     largest ``2**63 - 1 - u``, which is the smallest u
4-6   the same three, each shifted right by 43 bits, above 21 bits; the lowest 21 of word 4 are the count
7     largest u
====  =================================================================================================

so that one addition and one maximum of eight lanes update all of it. As in `fixed32`, a sum modulo
2**64 and the sum of what is above 43 bits determine the sum. A row of zeros is that of no samples. 380 M samples/s on
one core at 1000 labels, where products of pieces of 21 bits did 200.

Where samples are of many magnitudes, there are four rows a label for units that are each `WIDE_FINER` bits finer than
the one before: a double of 53 bits is an integer of 63 bits in one of them. What is none is set aside, for
`labeltrack._kernels.add_exactly`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import config
from numba.core import types
from numba.extending import intrinsic

from labeltrack._core.kernels.intrinsics import (
    _STREAM,
    _apart,
    _fetch,
    _greater,
    _inline,
    _jit,
    _lesser,
    _lowest_bit,
    _memory,
    _one_label,
    _part,
    _prefetch,
    _same,
    _wrapping,
)
from labeltrack._core.kernels.rows import ROW, _add_squares, _add_sum

WIDE_ROW = 8
"""Words of a row."""
WIDE_TABLES = 4
"""Tables, one after the other: of four units, or of one where labels are few, as a sample would wait for the store of
the one before. Memory that is not needed is not touched."""
WIDE_FINER = 10
"""Bits by which the unit of each table is finer than that of the one before, if they are of four units."""
WIDE_COUNT = 21
"""Bits of the count."""
WIDE_COUNTS = (1 << WIDE_COUNT) - 1
"""The largest count."""
WIDE_SHIFT = 43
"""Sums are shifted by so many bits. With n bits of a count, at least ``2 * n - 1`` and at most ``64 - n``."""
WIDE_DRAIN = WIDE_COUNTS
"""Samples of a label after which its sums have to be drained."""
WIDE_BLOCK = 192
"""Samples converted at a time; a multiple of 64."""
WIDE_SCRATCH = 2 * WIDE_BLOCK
"""Words of scratch: where rows are, and what prefetching reads beyond the end of that."""
WIDE_QUEUE = 2 * WIDE_BLOCK + 8
"""Room for the samples of a block that do not suit, after those that wait, and four places more."""
WIDE_BIAS = 1 << 62
"""What is added to integers where some are negative."""
WIDE_ODD = 32
"""One in so many samples may be set aside, in the long run."""
WIDE_PATIENCE = 1 << 11
"""Excess over that, in samples, at which another road is taken."""
_COMPLEMENT = (1 << 63) - 1
_RUN = 16  # samples of one label in a row from which they are summed apart
_AHEAD = 64  # samples between prefetching a row and adding to it; 16 takes a quarter longer for 100 000 labels
_FAR = 4096  # rows from which they are prefetched
_U0, _U1, _U2, _U3, _U4, _, _U6, _U7, _U8 = (np.uint64(number) for number in range(9))
_U64 = np.uint64(64)
_PIECE = np.uint64((1 << 49) - 1)
_U15, _U30, _U34, _U49, _U60, _U62, _U63 = (np.uint64(number) for number in (15, 30, 34, 49, 60, 62, 63))
_COUNT, _COUNTS = np.uint64(WIDE_COUNT), np.uint64(WIDE_COUNTS)
_SHIFT, _WRAPPED = np.uint64(WIDE_SHIFT), np.uint64(64 - WIDE_SHIFT)
_RUN_LONG = np.uint64(_RUN)
_ROWS_AHEAD = np.uint64(16)  # likewise, among the places of a block: with more, those of its beginning are not fetched


if config.DISABLE_JIT:
    _ALL = (1 << 64) - 1

    def _join_row(table: Any, place: int, row: list[int]) -> None:
        """Add the words of a row but for its extremes, and join these (plain Python mode)."""
        for j, word in enumerate(row):
            mine = int(table[place + j])
            total = max(mine, word) if j in (3, 7) else mine + word & _ALL
            table[place + j] = total - (1 << 64) if total >> 63 else total

    def _wide_add(table: Any, base: Any, r: Any, words: Any, i: Any) -> None:
        """Add a sample to the row at word ``base + r`` (plain Python mode)."""
        u, complement = int(words[2 * int(i)]), int(words[2 * int(i) + 1])
        sums = [u * u & _ALL, u * u >> 64, u]
        shifted = [word >> WIDE_SHIFT << WIDE_COUNT for word in sums]
        shifted[0] += 1
        _join_row(table, (int(base) + int(r)) & _ALL, [*sums, complement, *shifted, u])

    def _wide_join(table: Any, r: Any, other: Any, o: Any) -> None:
        """Add a row of another table to the row at word `r` (plain Python mode)."""
        _join_row(table, int(r), [int(other[int(o) + j]) & _ALL for j in range(8)])

    def _zeros(words: Any, i: Any) -> Any:
        """Return a bit for each of 64 words from `i` that is zero (plain Python mode)."""
        return np.uint64(sum(1 << j for j, word in enumerate(words[int(i) : int(i) + 64].tolist()) if word == 0))

    def _bits(mask: Any) -> Any:
        """Return how many bits are set (plain Python mode)."""
        return np.uint64(int(mask).bit_count())

    def _pair_zeros(words: Any, i: Any) -> Any:
        """Return a bit for each of 64 pairs from `i` that is zero (plain Python mode)."""
        second = words[2 * int(i) + 1 : 2 * int(i) + 128 : 2].tolist()
        first = words[2 * int(i) : 2 * int(i) + 128 : 2].tolist()
        return np.uint64(sum(1 << j for j, pair in enumerate(zip(first, second, strict=True)) if pair == (0, 0)))

else:
    _WORD, _LANE = ir.IntType(64), ir.IntType(32)
    _LONG, _PAIR, _ROW = ir.IntType(128), ir.VectorType(_WORD, 2), ir.VectorType(_WORD, 8)

    def _lanes(*which: int) -> Any:  # pragma: no cover (runs while kernels are compiled)
        return ir.Constant(ir.VectorType(_LANE, len(which)), list(which))

    def _emit_join(builder: Any, place: Any, row: Any) -> None:  # pragma: no cover
        """Emit the addition of a row to that at a place."""
        place = builder.bitcast(place, _ROW.as_pointer())
        mine = builder.load(place, align=64)
        larger = builder.select(builder.icmp_unsigned(">", mine, row), mine, row)
        joined = builder.shuffle_vector(builder.add(mine, row), larger, _lanes(0, 1, 2, 11, 4, 5, 6, 15))
        builder.store(joined, place, align=64)

    @intrinsic
    def _wide_add(_context: Any, table: Any, _base: Any, _r: Any, words: Any, _i: Any) -> Any:  # pragma: no cover
        """Add a sample to the row at word ``base + r``.

        The assembly is one mulx, three moves to a vector, one vpermq, vpsrlvq, vpternlogq, vpaddq, vpmaxuq and a store.
        `base` is apart, as it is the same for all samples and then costs nothing.
        """

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            at = builder.shl(args[4], ir.Constant(_WORD, 1))
            word = builder.gep(_memory(context, builder, signature, args, 3), [at])
            u = builder.load(word)
            pair = builder.load(builder.bitcast(word, _PAIR.as_pointer()), align=8)
            long = builder.zext(u, _LONG)
            square = builder.mul(long, long)
            halves = ir.Constant(_PAIR, ir.Undefined)
            for j, shift in enumerate((0, 64)):
                half = builder.trunc(builder.lshr(square, ir.Constant(_LONG, shift)), _WORD)
                halves = builder.insert_element(halves, half, _LANE(j))
            row = builder.shuffle_vector(halves, pair, _lanes(0, 1, 2, 3, 0, 1, 2, 2))
            down = WIDE_SHIFT - WIDE_COUNT
            row = builder.lshr(row, ir.Constant(_ROW, [0, 0, 0, 0, down, down, down, 0]))
            high = -(1 << WIDE_COUNT)
            row = builder.and_(row, ir.Constant(_ROW, [-1, -1, -1, -1, high, high, high, -1]))
            row = builder.or_(row, ir.Constant(_ROW, [0, 0, 0, 0, 1, 0, 0, 0]))
            start = builder.gep(_memory(context, builder, signature, args, 0), [args[1]])
            _emit_join(builder, builder.gep(start, [args[2]]), row)
            return context.get_dummy_value()

        return types.void(table, types.int64, types.uint64, words, types.uint64), codegen

    @intrinsic
    def _wide_join(_context: Any, table: Any, _r: Any, other: Any, _o: Any) -> Any:  # pragma: no cover
        """Add the row at word `o` of another table to the row at word `r`."""

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            row = builder.gep(_memory(context, builder, signature, args, 2), [args[3]])
            row = builder.load(builder.bitcast(row, _ROW.as_pointer()), align=64)
            place = builder.gep(_memory(context, builder, signature, args, 0), [args[1]])
            _emit_join(builder, place, row)
            return context.get_dummy_value()

        return types.void(table, types.uint64, other, types.uint64), codegen

    @intrinsic
    def _zeros(_context: Any, words: Any, _i: Any) -> Any:  # pragma: no cover (built by the compiler)
        """Return a bit for each of 64 words from `i` that is zero."""

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            many = ir.VectorType(_WORD, 64)
            place = builder.gep(_memory(context, builder, signature, args, 0), [args[1]])
            row = builder.load(builder.bitcast(place, many.as_pointer()), align=8)
            return builder.bitcast(builder.icmp_unsigned("==", row, ir.Constant(many, [0] * 64)), _WORD)

        return types.uint64(words, types.uint64), codegen

    @intrinsic
    def _bits(_context: Any, _mask: Any) -> Any:  # pragma: no cover (built by the compiler)
        """Return how many bits are set."""

        def codegen(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
            return builder.ctpop(args[0])

        return types.uint64(types.uint64), codegen

    @intrinsic
    def _pair_zeros(_context: Any, words: Any, _i: Any) -> Any:  # pragma: no cover (built by the compiler)
        """Return a bit for each of 64 pairs from `i` that is zero. Its halves add up to 2**63 - 1 if it is not."""

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            many, twice = ir.VectorType(_WORD, 64), ir.VectorType(_WORD, 128)
            at = builder.shl(args[1], ir.Constant(_WORD, 1))
            place = builder.gep(_memory(context, builder, signature, args, 0), [at])
            row = builder.load(builder.bitcast(place, twice.as_pointer()), align=8)

            def each(start: int) -> Any:
                which = ir.Constant(ir.VectorType(_LANE, 64), list(range(start, 128, 2)))
                return builder.shuffle_vector(row, row, which)

            both = builder.or_(each(0), each(1))
            return builder.bitcast(builder.icmp_unsigned("==", both, ir.Constant(many, [0] * 64)), _WORD)

        return types.uint64(words, types.uint64), codegen


@_inline
def _bounds(signed: Any) -> Any:
    """Return the smallest scaled sample, what is just too large, and what is added to make an integer of 63 bits."""
    if signed:
        return -4611686018427387904.0, 4611686018427387904.0, np.int64(WIDE_BIAS)
    return 0.0, 9223372036854775808.0, np.int64(0)


@_inline
def _put(x: Any, low: Any, high: Any, bias: Any, words: Any, i: Any) -> None:
    """Write a scaled sample as an integer and its complement, or twice 0; without a branch, to be vectorised."""
    x = x if (x >= low) & (x < high) else 0.5
    y = np.int64(x)
    u = y + bias
    fits = np.float64(y) == x
    words[i << _U1] = u if fits else 0
    words[(i << _U1) + _U1] = u ^ _COMPLEMENT if fits else 0


@_wrapping
@_jit
def to_wide(
    samples: Any, start: int, stop: int, scale: float, signed: bool, stride: int, words: Any, offsets: Any
) -> None:
    """Write ``samples * scale`` as integers of 63 bits, each with its complement.

    Args:
        samples: ``(N,)`` float32 or float64.
        start: First sample.
        stop: One past the last, M further.
        scale: A power of two, at least 1, so that nothing underflows.
        signed: Whether `WIDE_BIAS` is added.
        stride: Words of a table, for four units; 0 for one.
        words: ``(>= 2 * M,)`` int64, written from index 0: twice 0 for samples that are no multiple of the unit, or out
            of range, or not finite.
        offsets: ``(>= M,)`` uint64: where the table of each sample begins, written if there are four.
    """
    first = np.uint64(start)
    low, high, bias = _bounds(signed)
    if stride == 0:
        for i in range(np.uint64(stop - start)):
            _put(np.float64(samples[first + i]) * scale, low, high, bias, words, i)
        return
    for i in range(np.uint64(stop - start)):
        x = np.float64(samples[first + i]) * scale
        # From 2**52 on, all doubles are integers. What is less may be multiplied with 2**10 and stay below 2**62.
        size = abs(x)
        x = x * 1024.0 if size < 4503599627370496.0 else x
        x = x * 1024.0 if size < 4398046511104.0 else x
        x = x * 1024.0 if size < 4294967296.0 else x
        finer = np.int64(size < 4503599627370496.0) + np.int64(size < 4398046511104.0) + np.int64(size < 4294967296.0)
        offsets[i] = finer * stride
        _put(x, low, high, bias, words, i)


@_part
def _inside(labels: Any, first: Any, m: Any, low: Any, limit: Any, block: Any) -> Any:
    """Copy `m` labels; return how many of the copies come before one that is outside the table.

    What is looked at and what is used must be the same, also where somebody changes the labels meanwhile.
    """
    least = most = labels[first]
    for i in range(m):
        label = labels[first + i]
        block[i] = label
        least = _lesser(least, label)
        most = _greater(most, label)
    if np.uint64(np.int64(least) - low) < limit and np.uint64(np.int64(most) - low) < limit:
        return m
    for i in range(m):
        if np.uint64(np.int64(block[i]) - low) >= limit:
            return i
    return m


@_inline
def _runs(block: Any, m: Any) -> Any:
    """Return whether a block looks as if many samples in a row had one label.

    That is, sixteen in a row do, at its start or in the middle. Three of them would, half the time, if there are two.
    """
    middle = m >> _U1
    return m >= _U64 and (_same(block, _U0, block[_U0]) or _same(block, middle, block[middle]))


@_inline
def _find_odd(words: Any, pairs: Any, first: Any, m: Any, mark: Any, queue: Any, k: Any) -> Any:
    """Append the numbers of samples whose words (or pairs) are zero, with a mark, to a queue; return its length.

    Without a branch on the samples, which would be mispredicted twice for each of them: four places are written for 64
    samples, whether there are four or not.
    """
    for i in range(_U0, m, _U64):
        mask = _pair_zeros(words, i) if pairs else _zeros(words, i)
        if m - i < _U64:
            mask &= (_U1 << (m - i)) - _U1  # words of an earlier block
        there = _bits(mask)
        start = (first + i) | mark
        for j in range(_U4):
            queue[k + j] = start + _lowest_bit(mask)
            mask &= mask - _U1
        for j in range(_U4, there):
            queue[k + j] = start + _lowest_bit(mask)
            mask &= mask - _U1
        k += there
    return k


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
    counted: Any,
    aside: Any,
    aside_samples: Any,
    n: Any,
) -> Any:
    """Set the samples of the queue aside, and take them out of the counts where they were counted.

    Returns:
        How many samples are set aside.
    """
    _apart()
    for i in range(k):
        j = queue[i]
        slot = np.uint64(np.int64(labels[j]) - low)
        if slot >= limit:
            continue
        if counted:
            turn = ((j - origin) & _U3) * np.uint64(stride)  # of four tables, it was counted in that of its turn
            table[turn + (slot << _U3) + _U4] -= 1
        aside[n] = np.int64(slot)
        aside_samples[n] = samples[j]
        n += _U1
    return n


@_part
def _add_few(labels: Any, first: Any, words: Any, m: Any, low: Any, table: Any, stride: Any) -> None:
    """Add samples to four tables in turn."""
    _apart()
    base0 = -low * WIDE_ROW
    base1 = base0 + stride
    base2 = base1 + stride
    base3 = base2 + stride
    most = m & ~_U3
    for i in range(_U0, most, _U4):
        _wide_add(table, base0, np.uint64(np.int64(labels[first + i])) << _U3, words, i)
        _wide_add(table, base1, np.uint64(np.int64(labels[first + i + _U1])) << _U3, words, i + _U1)
        _wide_add(table, base2, np.uint64(np.int64(labels[first + i + _U2])) << _U3, words, i + _U2)
        _wide_add(table, base3, np.uint64(np.int64(labels[first + i + _U3])) << _U3, words, i + _U3)
    for i in range(most, m):
        turn = np.int64(i - most) * stride
        _wide_add(table, base0 + turn, np.uint64(np.int64(labels[first + i])) << _U3, words, i)


@_part
def _add_near(labels: Any, first: Any, words: Any, m: Any, low: Any, table: Any) -> None:
    """Add samples to a table that the cache holds."""
    _apart()
    base = -low * WIDE_ROW
    for i in range(m):
        _wide_add(table, base, np.uint64(np.int64(labels[first + i])) << _U3, words, i)


@_part
def _add_far(labels: Any, first: Any, block: Any, words: Any, m: Any, low: Any, table: Any) -> None:
    """Add samples to a table that the cache does not hold."""
    _apart()
    base = -low * WIDE_ROW
    last = labels.shape[0] - 1
    for i in range(m):
        ahead = _lesser(np.int64(first + i) + _AHEAD, last)
        _prefetch(table, np.uint64((np.int64(labels[np.uint64(ahead)]) - low) * WIDE_ROW))
        _wide_add(table, base, np.uint64(np.int64(block[i])) << _U3, words, i)


@_part
def _add_runs(labels: Any, first: Any, words: Any, m: Any, low: Any, table: Any, lines: Any) -> None:
    """Add samples of which many in a row have one label, to four rows in turn, which are then added to its row."""
    _apart()
    i = _U0
    while i < m:
        n = _one_label(labels, first + i, first + m)
        r = np.uint64((np.int64(labels[first + i]) - low) * WIDE_ROW)
        if n < _RUN_LONG:
            for j in range(i, i + n):
                _wide_add(table, 0, r, words, j)
            i += n
            continue
        whole = n & ~_U3
        for j in range(i, i + whole, _U4):
            _wide_add(lines, 0, _U0, words, j)
            _wide_add(lines, WIDE_ROW, _U0, words, j + _U1)
            _wide_add(lines, 2 * WIDE_ROW, _U0, words, j + _U2)
            _wide_add(lines, 3 * WIDE_ROW, _U0, words, j + _U3)
        for j in range(i + whole, i + n):
            _wide_add(table, 0, r, words, j)
        for j in range(_U4):
            _wide_join(table, r, lines, j << _U3)
        for j in range(np.uint64(4 * WIDE_ROW)):
            lines[j] = 0
        i += n


@_part
def _add_places(table: Any, places: Any, words: Any, k: Any) -> None:
    """Add samples to the rows at `places`, which are fetched beforehand."""
    _apart()
    for i in range(k):
        _prefetch(table, places[i + _ROWS_AHEAD])
        _wide_add(table, 0, places[i], words, i)


@_part
def _select_places(labels: Any, words: Any, offsets: Any, m: Any, low: Any, places: Any) -> Any:
    """Move what is to be added to the front, and write where the rows are; return how many samples that are."""
    n = _U0
    for i in range(m):
        slot = np.uint64(np.int64(labels[i]) - low)
        u, complement = words[i << _U1], words[(i << _U1) + _U1]
        places[n] = (slot << _U3) + offsets[i]
        words[n << _U1] = u
        words[(n << _U1) + _U1] = complement
        n += np.uint64((u | complement) != 0)
    return n


@_wrapping
@_jit
def reduce_wide(
    labels: Any,
    samples: Any,
    start: int,
    stop: int,
    low: int,
    size: int,
    copies: int,
    finer: bool,
    table: Any,
    scale: float,
    signed: bool,
    words: Any,
    offsets: Any,
    places: Any,
    queue: Any,
    lines: Any,
    aside: Any,
    aside_samples: Any,
    n: Any,
) -> tuple[int, int, bool]:
    """Add ``samples[start:stop]`` to a table of `WIDE_ROW` words a row; what it cannot hold is set aside.

    Args:
        labels: ``(N,)`` integers; the slot of a sample is ``label - low``.
        samples: ``(N,)`` float32 or float64.
        start: First sample to read.
        stop: One past the last.
        low: The label of slot 0.
        size: Number of slots. A label outside the table never writes: the pass stops before it.
        copies: How many tables of one unit are used in turn: 1 or `WIDE_TABLES`. They are to be added up.
        finer: Whether the tables are of four units; `copies` then is of no effect.
        table: ``(T * size * WIDE_ROW,)`` int64, on a cache line; T is `WIDE_TABLES` if `finer`, else `copies`.
        scale: See `to_wide`.
        signed: See `to_wide`.
        words: ``(2 * WIDE_BLOCK,)`` int64 scratch.
        offsets: ``(WIDE_BLOCK,)`` uint64 scratch, zero unless `finer`.
        places: ``(WIDE_SCRATCH,)`` uint64 scratch.
        queue: ``(WIDE_QUEUE,)`` uint64 scratch.
        lines: ``(4 * WIDE_ROW,)`` int64 of zero, on a cache line, which it is again afterwards.
        aside: ``(A,)`` int64: the slots of samples that are set aside.
        aside_samples: ``(A,)`` float64: those samples.
        n: Number of samples already set aside.

    Returns:
        The position reached, the number of samples set aside, and whether it stopped because so many samples do not
        suit that another road is faster. The position is short of `stop` in that case, before a label outside the
        table, and where fewer than `WIDE_QUEUE` can be set aside.
    """
    limit = np.uint64(size)
    few = copies == WIDE_TABLES and not finer
    stride = size * WIDE_ROW
    room = aside.shape[0] - WIDE_QUEUE
    origin = np.uint64(start)
    block = np.empty(WIDE_BLOCK, dtype=labels.dtype)
    waiting: Any = _U0
    position: Any = start
    excess: Any = 0
    poor: Any = False
    while position < stop and n <= room and not poor:
        end = _lesser(position + WIDE_BLOCK, stop)
        first = np.uint64(position)
        m = np.uint64(end - position)
        _fetch(labels, first + _STREAM, WIDE_BLOCK)
        _fetch(samples, first + _STREAM, WIDE_BLOCK)
        to_wide(samples, position, end, scale, signed, stride if finer else 0, words, offsets)
        looked = _inside(labels, first, m, low, limit, block)
        before = waiting
        waiting = _find_odd(words, True, first, looked, _U0, queue, waiting)
        excess = _greater(0, excess + WIDE_ODD * np.int64(waiting - before) - np.int64(m))
        poor = excess > WIDE_PATIENCE
        if finer:
            k = _select_places(block, words, offsets, looked, low, places)
            _add_places(table, places, words, k)
        elif few:
            _add_few(block, _U0, words, looked, low, table, stride)
        elif _runs(block, m):
            _add_runs(block, _U0, words, looked, low, table, lines)
        elif size <= _FAR:
            _add_near(block, _U0, words, looked, low, table)
        else:
            _add_far(labels, first, block, words, looked, low, table)
        position += np.int64(looked)
        if waiting > WIDE_BLOCK or looked < m or position == stop or poor:
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
                    stride if few else 0,
                    not finer,
                    aside,
                    aside_samples,
                    np.uint64(n),
                )
            )
            waiting = _U0
            if looked < m:
                return position, n, False
    return position, n, poor


@_part
def _whole(table: Any, place: Any) -> tuple[Any, Any]:
    """Return the two words of a sum of which one has it modulo 2**64, and one that of what is above 43 bits."""
    low = np.uint64(table[place])
    shifted = np.uint64(table[place + _U4]) >> _COUNT
    known = shifted << _SHIFT
    return low, (shifted >> _WRAPPED) + np.uint64(low < known)


@_jit
def add_wide_tables(table: Any, other: Any, start: int, stop: int, most: int) -> Any:
    """Add rows of another table of the same unit to this one's.

    Args:
        table: ``(size * WIDE_ROW,)`` int64.
        other: Likewise; only read.
        start: First row.
        stop: One past the last.
        most: A row must get fewer samples than that.

    Returns:
        `stop`; or the first row of too many samples: it and those after it were not added then.
    """
    for row in range(np.uint64(start), np.uint64(stop)):
        r = row << _U3
        if np.int64(np.uint64(table[r + _U4]) & _COUNTS) + np.int64(np.uint64(other[r + _U4]) & _COUNTS) >= most:
            return np.int64(row)
        _wide_join(table, r, other, r)
    return stop


@_inline
def _empty(r: Any, rows: Any) -> None:
    """Make the row at word `r` that of no samples."""
    for j in range(_U6):
        rows[r + j] = 0.0
    rows[r + _U6] = np.inf
    rows[r + _U7] = -np.inf


@_wrapping
@_jit
def drain_wide(
    table: Any,
    scale: float,
    signed: bool,
    finer: bool,
    start: int,
    fresh: bool,
    rows: Any,
    counts: Any,
    keys: Any,
    values: Any,
    n: Any,
) -> tuple[int, int]:
    """Move the sums of the table to the rows, exactly, and empty it unless it is `fresh`.

    Args:
        table: ``(T * size * WIDE_ROW,)`` int64: the tables that were used; or the rows before the one to stop at.
        scale: The power of two that the integers of the first table were made with.
        signed: Whether `WIDE_BIAS` was added to them.
        finer: Whether the tables are of four units.
        start: First row of the table.
        fresh: Whether the rows hold nothing yet and are the memory of the table itself, seen as float64.
        rows: ``(size * ROW,)`` float64 state.
        counts: The same memory as int64.
        keys: ``(S,)`` int64 spill keys.
        values: ``(S,)`` float64 spill values.
        n: Number of spills already there.

    Returns:
        The row reached (short of the end if fewer than five spill places are left) and the number of spills.
    """
    room = keys.shape[0] - 5
    size = rows.shape[0] // ROW
    number = table.shape[0] // WIDE_ROW
    for row in range(start, number):
        if n > room:
            return row, n
        t = np.uint64(row) << _U3
        count = np.int64(np.uint64(table[t + _U4]) & _COUNTS)
        if count == 0:
            if fresh:
                _empty(t, rows)
            continue
        unit = 1.0 / (scale * 2.0 ** (WIDE_FINER * (row // size)) if finer else scale)
        square = unit * unit
        r = np.uint64(row % size) << _U3
        # The sum of squares in words a0 a1 a2, the sum in words b0 b1.
        a0, carry = _whole(table, t)
        a1, a2 = _whole(table, t + _U1)
        a1 += carry
        a2 += np.uint64(a1 < carry)
        b0, b1 = _whole(table, t + _U2)
        least, most = _COMPLEMENT - table[t + _U3], table[t + _U7]
        if signed:
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
            least -= WIDE_BIAS
            most -= WIDE_BIAS
        if fresh:
            _empty(r, rows)
        else:
            for j in range(_U8):
                table[t + j] = 0
        counts[r] += count
        rows[r + _U6] = _lesser(rows[r + _U6], np.float64(least) * unit)
        rows[r + _U7] = _greater(rows[r + _U7], np.float64(most) * unit)
        # Pieces of 49 bits, each a double: squares are below 2**148, sums below 2**85.
        upper = np.int64((b0 >> _U49) | (b1 << _U15))
        n = _add_sum(r, np.float64(upper) * (562949953421312.0 * unit), rows, keys, values, n)
        n = _add_sum(r, np.float64(b0 & _PIECE) * unit, rows, keys, values, n)
        piece = (a1 >> _U34) | (a2 << _U30)
        n = _add_squares(r, np.float64(piece) * (316912650057057350374175801344.0 * square), rows, keys, values, n)
        piece = ((a0 >> _U49) | (a1 << _U15)) & _PIECE
        n = _add_squares(r, np.float64(piece) * (562949953421312.0 * square), rows, keys, values, n)
        n = _add_squares(r, np.float64(a0 & _PIECE) * square, rows, keys, values, n)
    return number, n
