"""The road of float32 within some 16 binades: integers of 40 bits times a power of two, summed exactly as integers.

With the integer split in two halves, ``y = a * 2**20 + b``, the state of a label is a cache line of which one
multiplication, one addition and one store of four lanes update the first half:

====  ================================================
word  meaning
====  ================================================
0-3   sums of ``a * a``, of ``a * b``, of ``b * b``, of y
4     number of samples
5, 6  smallest and largest y
====  ================================================

700 M samples/s on one core at 10 labels and 590 at 1000, where error-free additions do 117. Those within some nine
binades are integers of 32 bits, for which `labeltrack._tight_kernels` takes half as much memory; doubles of full
precision are integers of 63 bits: `labeltrack._wide_kernels`. Samples that are no such multiple (or too large, or not
finite) are set aside, for `labeltrack._kernels.add_exactly`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import config
from numba.core import types
from numba.extending import intrinsic

from labeltrack._intrinsics import (
    _STREAM,
    _U0,
    _U1,
    _U2,
    _U3,
    _U4,
    _U5,
    _U6,
    _U8,
    _apart,
    _fetch,
    _inline,
    _jit,
    _lowest_bit,
    _memory,
    _one_label,
    _part,
    _prefetch,
    _wrapping,
    two_sum,
)
from labeltrack._kernels import _AHEAD, _FAR, _MASK, ROW, _add_squares, _add_sum

FIXED_ROW = 8
"""Words of a label in fixed point: the four sums, count, minimum, maximum, nothing. Again a cache line."""
FIXED_DRAIN = 1 << 23
"""Samples of a label after which its sums have to be drained: 2**23 products below 2**40 stay below 2**63."""
FIXED_EMPTY_MIN, FIXED_EMPTY_MAX = 1 << 62, -(1 << 62)
"""Minimum and maximum of a label without samples."""
FIXED_BLOCK = 256
"""Samples converted at a time. Blocks of 1024 took 15 % longer: with the rows they fill the first-level cache."""
FIXED_SCRATCH = 3 * FIXED_BLOCK
"""Words of scratch: integers, where their rows are, and what prefetching reads beyond the end of that."""
_FIXED_HALF = 20
_FIXED_HALF_MASK = (1 << _FIXED_HALF) - 1
_FIXED_LIMIT = 2.0**39
# Adding 1.5 * 2**52 leaves an integer in the low bits of the double. Unlike the conversion instruction of most
# processors, this has a vector form everywhere: 4.8 G samples/s on one core.
_MAGIC = 1.5 * 2.0**52
_MAGIC_BITS = 0x4338000000000000
_STRAY = 1 << 62
"""In place of a sample that is no integer: this plus its number in the block, which is undone where it was added."""
_OFTEN = 32  # samples a label after which it is looked again what no label's extremes lie within
_LEAST_OFTEN = 1 << 14
_FEW_OUTLIERS = 16  # in so many samples, one at most
_RUN = 16  # samples of one label in a row from which they are summed in registers
_LOOK = 64  # samples between looking for a run


if config.DISABLE_JIT:

    def _signed32(word: int) -> int:
        """Return the low half of a word as a signed integer."""
        return ((word & _MASK) ^ (1 << 31)) - (1 << 31)

    def _fixed_add(table: Any, r: Any, y: Any) -> None:
        """Add an integer, its halves' products and itself to the four words from `r` (plain Python mode)."""
        a, b = _signed32(int(y) >> _FIXED_HALF), int(y) & _FIXED_HALF_MASK
        r = int(r)
        table[r] += a * a
        table[r + 1] += a * b
        table[r + 2] += b * b
        table[r + 3] += y

    def _fixed_add_all(table: Any, r: Any, y: Any) -> None:
        """Do as `_fixed_add`, and keep count, minimum and maximum (plain Python mode)."""
        _fixed_add(table, r, y)
        r = int(r)
        table[r + 4] += 1
        table[r + 5] = min(table[r + 5], y)
        table[r + 6] = max(table[r + 6], y)

    def _outside(words: Any, i: Any, low: Any, high: Any) -> Any:
        """Return a bit for each of eight words from `i` that is below `low` or above `high` (plain Python mode)."""
        eight = words[int(i) : int(i) + 8]
        return np.uint64(sum(1 << j for j, y in enumerate(eight.tolist()) if y < low or y > high))

else:
    _WORD, _LANE = ir.IntType(64), ir.IntType(32)
    _FOUR = ir.VectorType(_WORD, 4)

    def _lanes(*which: int) -> Any:  # pragma: no cover (runs while kernels are compiled)
        return ir.Constant(ir.VectorType(_LANE, len(which)), list(which))

    def _place(context: Any, builder: Any, signature: Any, args: Any, offset: int = 0) -> Any:  # pragma: no cover
        """Return where four words of a table are."""
        word = builder.gep(_memory(context, builder, signature, args, 0), [args[1]])
        if offset:
            word = builder.gep(word, [ir.Constant(_WORD, offset)])
        return builder.bitcast(word, _FOUR.as_pointer())

    def _spread(builder: Any, number: Any) -> Any:  # pragma: no cover
        nothing = ir.Constant(_FOUR, ir.Undefined)
        return builder.shuffle_vector(builder.insert_element(nothing, number, _LANE(0)), nothing, _lanes(0, 0, 0, 0))

    def _add_terms(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # pragma: no cover
        """Emit the update of the four sums; return the integer in all lanes.

        Written out because numba leaves LLVM's vectoriser of straight-line code off. The assembly has one
        vpmuldq, one vpaddq and one store for the four words.
        """
        spread = _spread(builder, args[2])

        def halves(shift: list[int]) -> Any:
            """Return lanes a (shifted) and b (not), sign-extended from 32 bits as vpmuldq takes them."""
            mask = [0xFFFFFFFF if s else _FIXED_HALF_MASK for s in shift]
            part = builder.and_(builder.lshr(spread, ir.Constant(_FOUR, shift)), ir.Constant(_FOUR, mask))
            full = ir.Constant(_FOUR, [32] * 4)
            return builder.ashr(builder.shl(part, full), full)

        h = _FIXED_HALF
        products = builder.mul(halves([h, h, 0, 0]), halves([h, 0, 0, 0]))
        terms = builder.shuffle_vector(products, spread, _lanes(0, 1, 2, 7))
        place = _place(context, builder, signature, args)
        builder.store(builder.add(builder.load(place, align=32), terms), place, align=32)
        return spread

    @intrinsic
    def _fixed_add(_context: Any, table: Any, _r: Any, _y: Any) -> Any:  # pragma: no cover (built by the compiler)
        """Add an integer, its halves' products and itself to the four words from `r`."""

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            _add_terms(context, builder, signature, args)
            return context.get_dummy_value()

        return types.void(table, types.uint64, types.int64), codegen

    @intrinsic
    def _fixed_add_all(_context: Any, table: Any, _r: Any, _y: Any) -> Any:  # pragma: no cover (built by the compiler)
        """Do as `_fixed_add`, and keep count, minimum and maximum in the next four words, without a branch.

        Where a label has few samples, new extremes are too frequent to be predicted: 395 against 340 M samples/s
        at 10 000 labels. Where labels are few, the branches are faster: 580 against 480 at 100.
        """

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            spread = _add_terms(context, builder, signature, args)
            place = _place(context, builder, signature, args, 4)
            row = builder.load(place, align=32)
            count = builder.add(row, ir.Constant(_FOUR, [1, 0, 0, 0]))
            low = builder.select(builder.icmp_signed("<", spread, row), spread, row)
            high = builder.select(builder.icmp_signed(">", spread, row), spread, row)
            row = builder.shuffle_vector(count, low, _lanes(0, 5, 2, 3))
            builder.store(builder.shuffle_vector(row, high, _lanes(0, 1, 6, 3)), place, align=32)
            return context.get_dummy_value()

        return types.void(table, types.uint64, types.int64), codegen

    @intrinsic
    def _outside(_context: Any, words: Any, _i: Any, _low: Any, _high: Any) -> Any:  # pragma: no cover
        """Return a bit for each of eight words from `i` that is below `low` or above `high`."""

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            eight = ir.VectorType(_WORD, 8)
            memory = _memory(context, builder, signature, args, 0)
            place = builder.bitcast(builder.gep(memory, [args[1]]), eight.as_pointer())
            row = builder.load(place, align=8)

            def spread(number: Any) -> Any:
                nothing = ir.Constant(eight, ir.Undefined)
                return builder.shuffle_vector(
                    builder.insert_element(nothing, number, _LANE(0)), nothing, _lanes(*[0] * 8)
                )

            below = builder.icmp_signed("<", row, spread(args[2]))
            above = builder.icmp_signed(">", row, spread(args[3]))
            return builder.zext(builder.bitcast(builder.or_(below, above), ir.IntType(8)), _WORD)

        return types.uint64(words, types.uint64, types.int64, types.int64), codegen


@_wrapping
@_jit
def to_fixed(samples: Any, start: int, stop: int, scale: float, words: Any) -> Any:
    """Write ``samples * scale`` as integers; return how many are no integer.

    Args:
        samples: ``(N,)`` float32 or float64.
        start: First sample.
        stop: One past the last.
        scale: A power of two that underflows no sample.
        words: ``(>= stop - start,)`` int64, written from index 0: the integer, or `_STRAY` plus the index.

    Returns:
        The number of samples that are no multiple of ``1 / scale``, or 2**39 times that or larger, or not finite.
    """
    bad: Any = 0
    first = np.uint64(start)
    for i in range(np.uint64(stop - start)):
        x = np.float64(samples[first + i]) * scale
        y = x + _MAGIC
        # No short circuit, so that the loop is vectorised.
        stray = (y - _MAGIC != x) | (not (abs(x) < _FIXED_LIMIT))
        words[i] = _STRAY + np.int64(i) if stray else np.float64(y).view(np.int64) - _MAGIC_BITS
        bad += np.int64(stray)
    return bad


# These take arrays and where to begin, not slices of them: a slice is a reference more to count, which is an atomic
# operation, and a few of them for every 64 samples took a third of the time. They count in unsigned integers, which
# spares the branches that numba emits for negative indices: 650 against 580.


@_inline
def _run(labels: Any, start: Any, stop: Any) -> Any:
    """Return whether `_RUN` labels from `start` on are the same one."""
    end = start + np.uint64(_RUN)
    return end <= stop and _one_label(labels, start, end) == np.uint64(_RUN)


@_inline
def _add_one_label(words: Any, start: Any, stop: Any, r: Any, table: Any) -> None:
    """Add integers of one label to the row at word `r`. The sums stay in registers, and the loop is vectorised."""
    aa: Any = 0
    ab: Any = 0
    bb: Any = 0
    total: Any = 0
    low: Any = FIXED_EMPTY_MIN
    high: Any = FIXED_EMPTY_MAX
    for i in range(start, stop):
        y = words[i]
        # By way of 32 bits, so that LLVM uses the multiplication of 32 bits.
        a, b = np.int64(np.int32(y >> _FIXED_HALF)), np.int64(np.int32(y & _FIXED_HALF_MASK))
        aa += a * a
        ab += a * b
        bb += b * b
        total += y
        low = min(low, y)
        high = max(high, y)
    table[r] += aa
    table[r + _U1] += ab
    table[r + _U2] += bb
    table[r + _U3] += total
    table[r + _U4] += np.int64(stop - start)
    table[r + _U5] = min(table[r + _U5], low)
    table[r + _U6] = max(table[r + _U6], high)


# The loops over single samples are not inlined: as parts of the whole kernel, they keep their constants in memory for
# want of registers, and ran at 460 instead of 650.


@_part
def _add_sums(labels: Any, first: Any, words: Any, m: Any, low: Any, limit: Any, table: Any) -> Any:
    """Add integers to a table that the cache holds, but for the extremes; return as `_add_near`."""
    _apart()
    for i in range(m):
        slot = np.uint64(np.int64(labels[first + i]) - low)
        if slot >= limit:
            return i
        _fixed_add(table, slot << _U3, words[i])
        table[(slot << _U3) + _U4] += 1
    return m


@_part
def _add_near(labels: Any, first: Any, words: Any, i: Any, m: Any, low: Any, limit: Any, table: Any) -> Any:
    """Add integers from `i` to `m` to a table that the cache holds; return how far it got before a label outside it."""
    _apart()
    while i < m:
        n = _one_label(labels, first + i, first + m)
        if n >= np.uint64(_RUN):
            slot = np.uint64(np.int64(labels[first + i]) - low)
            if slot >= limit:
                return i
            _add_one_label(words, i, i + n, slot << _U3, table)
            i += n
            continue
        end = min(i + (n if n > _U1 else np.uint64(_LOOK)), m)
        for j in range(i, end):
            slot = np.uint64(np.int64(labels[first + j]) - low)
            if slot >= limit:
                return j
            r, y = slot << _U3, words[j]
            _fixed_add(table, r, y)
            table[r + _U4] += 1
            # A new extreme is rare and predicted so; always storing both costs a third of the speed here.
            if y < table[r + _U5]:  # noqa: PLR1730 (min() would always store)
                table[r + _U5] = y
            if y > table[r + _U6]:  # noqa: PLR1730 (max() would always store)
                table[r + _U6] = y
        i = end
    return m


@_part
def _sift(
    labels: Any,
    samples: Any,
    first: Any,
    words: Any,
    m: Any,
    low: Any,
    table: Any,
    least: Any,
    most: Any,
    aside: Any,
    aside_samples: Any,
    n: Any,
) -> Any:
    """Go through the integers outside ``[least, most]`` again, after `_add_sums`.

    No integer within can be a new extreme of its label. Outside lie those that may be, and what stands for samples
    that are no integer: it is taken out of the sums again, and the sample is set aside. Most blocks of 256 have a few.
    Eight integers are compared at a time: 700 M samples/s at 100 labels instead of 600, 570 at 1000 instead of 500.

    Returns:
        The number of samples set aside.
    """
    _apart()
    limit = np.uint64(table.shape[0]) >> _U3
    for i in range(_U0, m, _U8):
        mask = _outside(words, i, least, most)
        if m - i < _U8:
            mask &= (_U1 << (m - i)) - _U1  # words of an earlier block
        while mask:
            j = i + _lowest_bit(mask)
            mask &= mask - _U1
            slot = np.uint64(np.int64(labels[first + j]) - low)
            if slot >= limit:
                continue  # somebody changes the labels meanwhile
            r, y = slot << _U3, words[j]
            if y >= _STRAY:
                b = y - _STRAY
                table[r + _U2] -= b * b
                table[r + _U3] -= y
                table[r + _U4] -= 1
                aside[n] = np.int64(slot)
                aside_samples[n] = samples[first + j]
                n += 1
                continue
            table[r + _U5] = min(table[r + _U5], y)
            table[r + _U6] = max(table[r + _U6], y)
    return n


@_part
def _common_range(table: Any, size: Any) -> Any:
    """Return the largest minimum and the smallest maximum of all labels."""
    least: Any = FIXED_EMPTY_MAX
    most: Any = FIXED_EMPTY_MIN
    for k in range(np.uint64(size)):
        least = max(least, table[(k << _U3) + _U5])
        most = min(most, table[(k << _U3) + _U6])
    return least, most


@_part
def _outliers(words: Any, m: Any, least: Any, most: Any) -> Any:
    """Return how many of the integers lie outside."""
    n: Any = 0
    for i in range(m):
        n += np.int64((words[i] < least) | (words[i] > most))
    return n


@_part
def _add_far(table: Any, places: Any, words: Any, k: Any) -> None:
    """Add integers to the rows at `places`, which are fetched into the cache beforehand."""
    _apart()
    for i in range(k):
        _prefetch(table, places[i + np.uint64(_AHEAD)])
        _fixed_add_all(table, places[i], words[i])


@_inline
def _find_rows(labels: Any, first: Any, m: Any, low: Any, size: Any, places: Any) -> Any:
    """Write where the row of each label begins; return how far it got, as `_add_near`."""
    limit = np.uint64(size)
    outside: Any = 0
    for i in range(m):
        slot = np.uint64(np.int64(labels[first + i]) - low)
        outside += np.int64(slot >= limit)
        places[i] = slot << _U3
    if outside:
        for i in range(m):
            # By where the row would be, too, as somebody may have changed the labels since.
            if np.uint64(np.int64(labels[first + i]) - low) >= limit or places[i] >= limit << _U3:
                return i
    return m


@_inline
def _select_rows(labels: Any, first: Any, words: Any, m: Any, low: Any, size: Any, places: Any) -> Any:
    """Do as `_find_rows`, moving the integers of labels inside the table to the front; return how many there are.

    Without a branch: threads that share the labels by their range pass over every other sample or so.
    """
    limit = np.uint64(size)
    n = _U0
    for i in range(m):
        slot = np.uint64(np.int64(labels[first + i]) - low)
        places[n] = slot << _U3
        words[n] = words[i]
        n += np.uint64(slot < limit)
    return n


@_wrapping
@_jit
def reduce_fixed(
    labels: Any,
    samples: Any,
    start: int,
    stop: int,
    low: int,
    size: int,
    skip: bool,
    table: Any,
    scale: float,
    words: Any,
    places: Any,
    aside: Any,
    aside_samples: Any,
    n: int,
) -> tuple[int, int, bool]:
    """Add ``samples[start:stop]`` to the fixed-point table; what it cannot hold is set aside.

    Args:
        labels: ``(N,)`` integers; the slot of a sample is ``label - low``.
        samples: ``(N,)`` float32 or float64.
        start: First sample to read.
        stop: One past the last.
        low: The label of slot 0.
        size: Number of slots. A label outside the table never writes: the pass stops before it, or
            passes over it if `skip`.
        skip: Whether labels outside the table are passed over.
        table: ``(size * FIXED_ROW,)`` int64, each row on a cache line.
        scale: The power of two that makes integers of the samples.
        words: ``(FIXED_BLOCK,)`` int64 scratch.
        places: ``(FIXED_SCRATCH,)`` uint64 scratch.
        aside: ``(A,)`` int64: the slots of samples that are set aside.
        aside_samples: ``(A,)`` float64: those samples.
        n: Number of samples already set aside.

    Returns:
        The position reached, the number of samples set aside, and whether it stopped because a block had so many
        samples that the table cannot hold (one in 32) that another road is faster. The position is short of `stop`
        in that case, before a label outside the table, and where fewer than `FIXED_BLOCK` can be set aside.
    """
    limit = np.uint64(size)
    room = aside.shape[0] - FIXED_BLOCK
    position: Any = start
    quick, look, least, most = False, start, 0, 0
    while position < stop:
        if n > room:
            return position, n, False
        end = min(position + FIXED_BLOCK, stop)
        _fetch(labels, np.uint64(position) + _STREAM, FIXED_BLOCK)
        _fetch(samples, np.uint64(position) + _STREAM, FIXED_BLOCK)
        bad = to_fixed(samples, position, end, scale, words)
        m = np.uint64(end - position)
        if bad * 32 > end - position:
            return position, n, True
        first = np.uint64(position)
        looked: Any = m
        k: Any = _U0
        run = not skip and (_run(labels, first, first + m) or _run(labels, first + (m >> _U1), first + m))
        if not skip and (size <= _FAR or run):
            if position >= look and size <= _FAR:
                least, most = _common_range(table, size)
                quick = _outliers(words, m, least, most) * _FEW_OUTLIERS <= end - position
                look = position + max(_LEAST_OFTEN, _OFTEN * size)
            if quick and not run:
                looked = _add_sums(labels, first, words, m, low, limit, table)
                n = _sift(labels, samples, first, words, looked, low, table, least, most, aside, aside_samples, n)
            else:
                i = _U0
                while True:
                    j = m
                    if bad > 0:  # find the next one that does not fit
                        j = i
                        while j < m and words[j] < _STRAY:
                            j += _U1
                    looked = _add_near(labels, first, words, i, j, low, limit, table)
                    if looked < j or j == m:
                        break
                    slot = np.uint64(np.int64(labels[first + j]) - low)
                    if slot >= limit:
                        looked = j
                        break
                    aside[n] = np.int64(slot)
                    aside_samples[n] = samples[first + j]
                    n += 1
                    bad -= 1
                    i = j + _U1
        else:
            if skip:
                k = _select_rows(labels, first, words, m, low, size, places)
            else:
                looked = k = _find_rows(labels, first, m, low, size, places)
            if bad > 0:
                i = _U0
                while i < k:
                    if words[i] >= _STRAY:
                        aside[n] = np.int64(places[i] >> _U3)
                        aside_samples[n] = samples[first + np.uint64(words[i] - _STRAY)]
                        n += 1
                        k -= _U1  # the last one takes its place; the order does not matter
                        places[i], words[i] = places[k], words[k]
                    else:
                        i += _U1
            _add_far(table, places, words, k)
        position += np.int64(looked)
        if looked < m:
            return position, n, False
    return stop, n, False


@_jit
def add_tables(table: Any, other: Any, start: int, stop: int, most: int) -> Any:
    """Add rows of another fixed-point table of the same unit to this one's.

    Args:
        table: ``(size * FIXED_ROW,)`` int64.
        other: Likewise; only read.
        start: First row.
        stop: One past the last.
        most: A row must get fewer samples than that.

    Returns:
        `stop`; or the first row of too many samples: it and those after it were not added then.
    """
    for row in range(np.uint64(start), np.uint64(stop)):
        f = row << _U3
        if table[f + _U4] + other[f + _U4] >= most:
            return np.int64(row)
        for j in range(_U5):
            table[f + j] += other[f + j]
        table[f + _U5] = min(table[f + _U5], other[f + _U5])
        table[f + _U6] = max(table[f + _U6], other[f + _U6])
    return stop


@_jit
def drain_fixed(
    table: Any, scale: float, start: int, fresh: bool, rows: Any, counts: Any, keys: Any, values: Any, n: int
) -> tuple[int, int]:
    """Move the sums of a fixed-point table to the rows, exactly, and empty it.

    Args:
        table: ``(size * FIXED_ROW,)`` int64, or the rows before the one to stop at.
        scale: The power of two that its integers were made with.
        start: First row of the table.
        fresh: Whether the rows hold nothing yet and are the memory of the table itself, seen as float64.
        rows: ``(size * ROW,)`` float64 state.
        counts: The same memory as int64.
        keys: ``(S,)`` int64 spill keys.
        values: ``(S,)`` float64 spill values.
        n: Number of spills already there.

    Returns:
        The row reached (short of the end if fewer than eight spill places are left) and the number of spills.
    """
    room = keys.shape[0] - 8
    size = rows.shape[0] // ROW
    unit = 1.0 / scale
    exact = 1 << 53  # up to here, an integer is a double
    for row in range(start, table.shape[0] // FIXED_ROW):
        f = row * FIXED_ROW
        count = table[f + 4]
        if n > room:
            return row, n
        if count == 0 and not fresh:
            continue
        aa, ab, bb, total = table[f], table[f + 1], table[f + 2], table[f + 3]
        low, high = float(table[f + 5]) * unit, float(table[f + 6]) * unit
        r = (row % size) * ROW
        if fresh:
            counts[r] = 0
            for j in range(1, 6):
                rows[r + j] = 0.0
            rows[r + 6] = np.inf
            rows[r + 7] = -np.inf
            if count == 0:
                continue
        else:
            table[f] = table[f + 1] = table[f + 2] = table[f + 3] = table[f + 4] = 0
            table[f + 5] = FIXED_EMPTY_MIN
            table[f + 6] = FIXED_EMPTY_MAX
        empty = counts[r] == 0
        counts[r] += count
        rows[r + 6] = min(rows[r + 6], low)
        rows[r + 7] = max(rows[r + 7], high)
        square = unit * unit
        if empty and abs(total) < exact and aa < exact and abs(ab) < exact and bb < exact:
            # The row of a label with few samples: four doubles, added without rounding.
            rows[r + 1] = float(total) * unit
            q0, q1 = two_sum(float(aa) * (1099511627776.0 * square), float(ab) * (2097152.0 * square))
            q0, e = two_sum(q0, float(bb) * square)
            q1, q2 = two_sum(q1, e)
            q0, q1 = two_sum(q0, q1)
            rows[r + 3] = q0
            rows[r + 4], rows[r + 5] = two_sum(q1, q2)
            continue
        # A double holds 32 bits of an integer, and the rest, but not all 64. A loop, as this compiles in half the time.
        for j in range(8):
            word = aa if j < 2 else ab if j < 4 else bb if j < 6 else total
            part = float(word >> 32) * 4294967296.0 if j & 1 == 0 else float(word & _MASK)
            if j < 6:
                weight = 1099511627776.0 if j < 2 else 2097152.0 if j < 4 else 1.0
                n = _add_squares(r, part * (weight * square), rows, keys, values, n)
            else:
                n = _add_sum(r, part * unit, rows, keys, values, n)
    return table.shape[0] // FIXED_ROW, n
