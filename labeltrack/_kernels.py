"""Every compiled function of the package: arrays in, arrays out, no policy.

This module is the only one that imports numba, and it is itself imported on first use, so that
``import labeltrack`` stays light. All kernels release the GIL and are cached on disk. They are plain
Python too: with ``NUMBA_DISABLE_JIT=1`` the same source runs under the interpreter.

The state of one label is one cache line of eight 64-bit words, ``ROW`` apart in a flat float64 array:

====  =====  =======================================================================================
word  type   meaning
====  =====  =======================================================================================
0     int64  number of finite samples (read through an int64 view of the same memory)
1, 2  f8     sum of the samples, as an unevaluated sum of two doubles
3-5   f8     sum of the squares, as an unevaluated sum of three doubles
6, 7  f8     smallest and largest finite sample
====  =====  =======================================================================================

Sums are cascades of error-free additions (Knuth's TwoSum). Whatever falls off the last word, which is
rare, is not rounded away but *spilled*: appended to a list of (key, double) pairs with
``key = slot * KINDS + kind`` (KINDS is ROW, so that is also the first word of the row plus the kind). State plus
spills is therefore always the exact sum, and nothing depends on the order of the samples. ``settle`` folds
spills back in through a wide fixed-point accumulator.

``fastmath`` and any other licence to reassociate would destroy all of this and must never be used here.

References:
    D. E. Knuth, The Art of Computer Programming, vol. 2, section 4.2.2 (TwoSum).
    T. Ogita, S. M. Rump, S. Oishi, "Accurate sum and dot product", SIAM J. Sci. Comput. 26 (2005).
    J. R. Shewchuk, "Adaptive precision floating-point arithmetic", Discrete Comput. Geom. 18 (1997).
    U. W. Kulisch, "Computer Arithmetic and Validity" (the wide fixed-point accumulator).
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import config, njit
from numba.core import types
from numba.extending import intrinsic

ROW = 8
"""Words a label: 64 bytes, one cache line. Five separate arrays cost up to five cache misses a sample."""

KINDS = 8
"""Stride of spill keys; the kinds in use are the ones below."""
KIND_SUM = 0
KIND_SQUARES = 1
KIND_SUM_HUGE = 2  # stored times 2**-600
KIND_SQUARES_HUGE = 3  # stored times 2**-1200
KIND_SQUARES_TINY = 4  # stored times 2**+1200

# A sample outside [TINY, HUGE] takes the slow road, scaled by a power of two: beyond HUGE the sum of 2**53
# squares times 2**53 could overflow, below TINY the error term of the square would be cut by underflow.
HUGE = 2.0**440
TINY = 2.0**-480
_TINY_SQUARE = 2.0**-960
_DOWN = 2.0**-600
_UP = 2.0**600

DIGITS = 72
"""Length of the wide accumulator: 32-bit digits in int64, digit 0 worth 2**-1152, top worth 2**1120."""
_BIAS = 1152
_MASK = (1 << 32) - 1

_jit = njit(nogil=True, cache=True, error_model="numpy")
# For parts of a loop's body that LLVM, left to itself, would call.
_inline = njit(nogil=True, cache=True, error_model="numpy", forceinline=True)


def _wrapping(kernel: Any) -> Any:
    """Let 64-bit arithmetic wrap silently under the interpreter too, as it does in compiled code."""
    if not config.DISABLE_JIT:
        return kernel

    @functools.wraps(kernel)
    def quiet(*args: Any) -> Any:
        with np.errstate(over="ignore"):
            return kernel(*args)

    return quiet


if config.DISABLE_JIT:

    def fma(a: float, b: float, c: float) -> float:
        """``a * b + c`` with one rounding, by exact integer arithmetic (plain Python mode only)."""
        if a == 0.0 or b == 0.0:
            return a * b + c
        from fractions import Fraction  # noqa: PLC0415 (never loaded in compiled mode)

        return float(Fraction(a) * Fraction(b) + Fraction(c))

else:

    @intrinsic
    def fma(_typing_context: Any, _a: Any, _b: Any, _c: Any) -> Any:  # pragma: no cover (built by the compiler)
        """``a * b + c`` with one rounding. numba offers none before Python 3.13's ``math.fma``."""

        def codegen(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
            return builder.fma(*args)

        return types.float64(types.float64, types.float64, types.float64), codegen


@_inline
def two_sum(a: Any, b: Any) -> tuple[Any, Any]:
    """Return ``s, e`` with ``s = fl(a + b)`` and ``s + e == a + b`` exactly (Knuth; no branch)."""
    s = a + b
    t = s - a
    return s, (a - (s - t)) + (b - t)


@_inline
def two_prod(a: Any, b: Any) -> tuple[Any, Any]:
    """Return ``p, e`` with ``p = fl(a * b)`` and ``p + e == a * b`` exactly, barring underflow."""
    p = a * b
    return p, fma(a, b, -p)


# ---------------------------------------------------------------------------------------------------------
# The one pass over the samples
# ---------------------------------------------------------------------------------------------------------


@_jit
def _spill(keys: Any, values: Any, n: Any, key: Any, value: Any) -> Any:
    """Append one pair unless it is zero; return the new length."""
    if value == 0.0:
        return n
    keys[n] = key
    values[n] = value
    return n + 1


@_jit
def _odd_sample(slot: int, v: float, rows: Any, counts: Any, nonfinite: Any, keys: Any, values: Any, n: Any) -> Any:
    """Account for a sample that is not an ordinary number; return the new number of spills (at most 3 more).

    NaN and the infinities are counted apart and never summed. A finite sample beyond ``HUGE`` or below
    ``TINY`` goes whole to the spills, scaled by a power of two so that its square is exact.
    """
    if math.isnan(v):
        nonfinite[slot, 0] += 1
        return n
    if math.isinf(v):
        nonfinite[slot, 1 if v > 0 else 2] += 1
        return n
    r = slot * ROW
    counts[r] += 1
    rows[r + 6] = min(rows[r + 6], v)
    rows[r + 7] = max(rows[r + 7], v)
    key = slot * KINDS
    if abs(v) > HUGE:
        w = v * _DOWN
        n = _spill(keys, values, n, key + KIND_SUM_HUGE, w)
        kind = KIND_SQUARES_HUGE
    else:
        w = v * _UP
        n = _spill(keys, values, n, key + KIND_SUM, v)
        kind = KIND_SQUARES_TINY
    p, e = two_prod(w, w)
    n = _spill(keys, values, n, key + kind, p)
    return _spill(keys, values, n, key + kind, e)


@_wrapping
@_jit
def reduce_float32(
    labels: Any,
    samples: Any,
    start: int,
    stop: int,
    low: int,
    size: int,
    skip: bool,
    rows: Any,
    counts: Any,
    nonfinite: Any,
    keys: Any,
    values: Any,
    n: int,
) -> tuple[int, int]:
    """Add ``samples[start:stop]`` (float32) to the rows of their labels.

    Args:
        labels: ``(N,)`` integers; the slot of a sample is ``label - low``.
        samples: ``(N,)`` float32.
        start: First sample to read.
        stop: One past the last.
        low: The label of slot 0.
        size: Number of slots. A label outside the table never writes: the pass stops before it, or
            passes over it if `skip`.
        skip: Whether labels outside the table are passed over.
        rows: ``(size * ROW,)`` float64 state.
        counts: The same memory as int64.
        nonfinite: ``(size, 3)`` int64: how many NaN, +inf, -inf.
        keys: ``(S,)`` int64 spill keys.
        values: ``(S,)`` float64 spill values.
        n: Number of spills already there.

    Returns:
        The position reached and the number of spills. The position is short of `stop` if a label is
        outside the table, or if fewer than four spill places are left (so it takes at least four to start).
    """
    # The body stands here, and again below, because moved into a function of its own it ran at 66 instead of 200.
    # A product of two float32 is exact in float64, so the square needs no FMA and one word less to carry.
    # Measured on one core at 10 and 1000 labels: 205 and 200 M samples/s; the float64 form does 117.
    # Unsigned arithmetic spares the branch that numba emits for negative indices.
    limit = np.uint64(size)
    room = keys.shape[0] - 4
    one = np.uint64(1)
    for i in range(start, stop):
        slot = np.uint64(np.int64(labels[i]) - low)
        if slot >= limit:
            if skip:
                continue
            return i, n
        v = np.float64(samples[i])  # float(x) of a float32 would stay float32 in numba
        if not (abs(v) <= HUGE):
            # Only NaN and the infinities come here: the square of no float32 overflows or underflows. No spill.
            n = _odd_sample(np.int64(slot), v, rows, counts, nonfinite, keys, values, n)
            continue
        r = slot << np.uint64(3)
        counts[r] += 1
        s0, e = two_sum(rows[r + one], v)
        s1, es = two_sum(rows[r + np.uint64(2)], e)
        q0, e = two_sum(rows[r + np.uint64(3)], v * v)
        q1, eq = two_sum(rows[r + np.uint64(4)], e)
        rows[r + one] = s0
        rows[r + np.uint64(2)] = s1
        rows[r + np.uint64(3)] = q0
        rows[r + np.uint64(4)] = q1
        # min() and max() compile to one instruction each; compare-and-branch was slower.
        rows[r + np.uint64(6)] = min(rows[r + np.uint64(6)], v)
        rows[r + np.uint64(7)] = max(rows[r + np.uint64(7)], v)
        if (es != 0.0) | (eq != 0.0):
            q2, eq = two_sum(rows[r + np.uint64(5)], eq)
            rows[r + np.uint64(5)] = q2
            n = _spill(keys, values, n, np.int64(slot) * KINDS + KIND_SUM, es)
            n = _spill(keys, values, n, np.int64(slot) * KINDS + KIND_SQUARES, eq)
            if n > room:
                return i + 1, n
    return stop, n


@_wrapping
@_jit
def reduce_float64(
    labels: Any,
    samples: Any,
    start: int,
    stop: int,
    low: int,
    size: int,
    skip: bool,
    rows: Any,
    counts: Any,
    nonfinite: Any,
    keys: Any,
    values: Any,
    n: int,
) -> tuple[int, int]:
    """Add ``samples[start:stop]`` (float64) to the rows of their labels.

    Arguments and result are those of `reduce_float32`.
    """
    limit = np.uint64(size)
    room = keys.shape[0] - 4
    one = np.uint64(1)
    for i in range(start, stop):
        slot = np.uint64(np.int64(labels[i]) - low)
        if slot >= limit:
            if skip:
                continue
            return i, n
        v = np.float64(samples[i])
        # Bitwise `&` on purpose: zeros are common (losses, accuracies), a branch on them would mispredict.
        if not (abs(v) <= HUGE) or ((v * v < _TINY_SQUARE) & (v != 0.0)):
            n = _odd_sample(np.int64(slot), v, rows, counts, nonfinite, keys, values, n)
            if n > room:
                return i + 1, n
            continue
        r = slot << np.uint64(3)
        counts[r] += 1
        s0, e = two_sum(rows[r + one], v)
        s1, es = two_sum(rows[r + np.uint64(2)], e)
        p, pe = two_prod(v, v)
        q0, e = two_sum(rows[r + np.uint64(3)], p)
        e, e2 = two_sum(e, pe)
        q1, e = two_sum(rows[r + np.uint64(4)], e)
        e, ed = two_sum(e, e2)
        q2, eq = two_sum(rows[r + np.uint64(5)], e)
        rows[r + one] = s0
        rows[r + np.uint64(2)] = s1
        rows[r + np.uint64(3)] = q0
        rows[r + np.uint64(4)] = q1
        rows[r + np.uint64(5)] = q2
        rows[r + np.uint64(6)] = min(rows[r + np.uint64(6)], v)
        rows[r + np.uint64(7)] = max(rows[r + np.uint64(7)], v)
        if (es != 0.0) | (eq != 0.0) | (ed != 0.0):
            n = _spill(keys, values, n, np.int64(slot) * KINDS + KIND_SUM, es)
            n = _spill(keys, values, n, np.int64(slot) * KINDS + KIND_SQUARES, eq)
            n = _spill(keys, values, n, np.int64(slot) * KINDS + KIND_SQUARES, ed)
            if n > room:
                return i + 1, n
    return stop, n


# ---------------------------------------------------------------------------------------------------------
# The same pass in fixed point, for samples that are multiples of one power of two
# ---------------------------------------------------------------------------------------------------------

# Samples of float32 that lie within some 16 binades of each other, as nearly all metrics do, are integers of
# at most 40 bits times a power of two, and integers are summed exactly by integer addition. With the integer
# split in two halves, y = a * 2**20 + b, the state of a label is the vector (sum a*a, sum a*b, sum b*b, sum y)
# that one multiplication, one addition and one store of four lanes update. Measured on one core, float32:
# 500 to 600 M samples/s at 10 labels and 400 to 470 at 1000, where the error-free additions above do 200 and 195.
# Samples that are no such multiple (or too large, or not finite) take the road above, one by one.

FIXED_ROW = 8
"""Words of a label in fixed point: the four sums, count, minimum, maximum, nothing. Again a cache line."""
FIXED_DRAIN = 1 << 22
"""Samples after which the sums have to be drained: 2**22 products of 2**40 stay below 2**63."""
FIXED_EMPTY_MIN, FIXED_EMPTY_MAX = 1 << 62, -(1 << 62)
"""Minimum and maximum of a label without samples."""
FIXED_BLOCK = 1024
"""Samples converted at a time; the integers stay in the first-level cache until they are added."""
_FIXED_HALF = 20
_FIXED_HALF_MASK = (1 << _FIXED_HALF) - 1
_FIXED_LIMIT = 2.0**39
# Adding 1.5 * 2**52 leaves an integer in the low bits of the double. Unlike the conversion instruction of most
# processors, this has a vector form everywhere: 4.8 G samples/s on one core.
_MAGIC = 1.5 * 2.0**52
_MAGIC_BITS = 0x4338000000000000


if config.DISABLE_JIT:

    def _fixed_add(table: Any, r: Any, y: Any) -> None:
        """Add an integer, its halves' products and itself to the four words from `r` (plain Python mode)."""
        a, b = y >> _FIXED_HALF, y & _FIXED_HALF_MASK
        r = int(r)
        table[r] += a * a
        table[r + 1] += a * b
        table[r + 2] += b * b
        table[r + 3] += y

else:

    @intrinsic
    def _fixed_add(_context: Any, table: Any, _r: Any, _y: Any) -> Any:  # pragma: no cover (built by the compiler)
        """Add an integer, its halves' products and itself to the four words from `r`.

        Written out because numba leaves LLVM's vectoriser of straight-line code off. The assembly has one
        vpmuldq, one vpaddq and one store for the four words.
        """

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            word, lane = ir.IntType(64), ir.IntType(32)
            vector = ir.VectorType(word, 4)
            memory = context.make_array(signature.args[0])(context, builder, args[0]).data
            place = builder.bitcast(builder.gep(memory, [args[1]]), vector.as_pointer())
            nothing = ir.Constant(vector, ir.Undefined)
            spread = builder.shuffle_vector(
                builder.insert_element(nothing, args[2], lane(0)), nothing, ir.Constant(ir.VectorType(lane, 4), [0] * 4)
            )

            def halves(shift: list[int]) -> Any:
                """Return lanes a (shifted) and b (not), sign-extended from 32 bits as vpmuldq takes them."""
                mask = [0xFFFFFFFF if s else _FIXED_HALF_MASK for s in shift]
                part = builder.and_(builder.lshr(spread, ir.Constant(vector, shift)), ir.Constant(vector, mask))
                full = ir.Constant(vector, [32] * 4)
                return builder.ashr(builder.shl(part, full), full)

            h = _FIXED_HALF
            products = builder.mul(halves([h, h, 0, 0]), halves([h, 0, 0, 0]))
            terms = builder.shuffle_vector(products, spread, ir.Constant(ir.VectorType(lane, 4), [0, 1, 2, 7]))
            builder.store(builder.add(builder.load(place, align=32), terms), place, align=32)
            return context.get_dummy_value()

        return types.void(table, types.uint64, types.int64), codegen


@_jit
def to_fixed(samples: Any, scale: float, block: Any) -> Any:
    """Write ``samples * scale`` as doubles with the integer in their low bits; return how many are no integer.

    Args:
        samples: ``(M,)`` float32 or float64.
        scale: A power of two that underflows no sample.
        block: ``(>= M,)`` float64, written.

    Returns:
        The number of samples that are no multiple of ``1 / scale``, or 2**39 times that or larger, or not finite.
    """
    bad: Any = 0
    for i in range(samples.shape[0]):
        x = np.float64(samples[i]) * scale
        y = x + _MAGIC
        block[i] = y
        # No short circuit, so that the loop is vectorised.
        bad += np.int64((y - _MAGIC != x) | (not (abs(x) < _FIXED_LIMIT)))
    return bad


@_inline
def _add_run(labels: Any, words: Any, low: Any, size: Any, skip: Any, table: Any) -> Any:
    """Add a run of integers to the fixed-point table; return how far it got before a label outside the table."""
    limit = np.uint64(size)
    for i in range(labels.shape[0]):
        slot = np.uint64(np.int64(labels[i]) - low)
        if slot >= limit:
            if skip:
                continue
            return i
        r = slot << np.uint64(3)
        y = np.int64(words[i]) - _MAGIC_BITS
        _fixed_add(table, r, y)
        table[r + np.uint64(4)] += 1
        # A new extreme is rare and predicted so; always storing both costs a third of the speed here.
        if y < table[r + np.uint64(5)]:  # noqa: PLR1730 (min() would always store)
            table[r + np.uint64(5)] = y
        if y > table[r + np.uint64(6)]:  # noqa: PLR1730 (max() would always store)
            table[r + np.uint64(6)] = y
    return labels.shape[0]


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
    rows: Any,
    counts: Any,
    nonfinite: Any,
    keys: Any,
    values: Any,
    n: int,
    table: Any,
    scale: float,
    block: Any,
    words: Any,
) -> tuple[int, int, bool]:
    """Add ``samples[start:stop]`` to the fixed-point table, those it cannot hold to the rows of their labels.

    Args:
        labels: See `reduce_float32`, as all arguments up to `n`.
        samples: ``(N,)`` float32 or float64.
        start: First sample to read.
        stop: One past the last.
        low: The label of slot 0.
        size: Number of slots.
        skip: Whether labels outside the table are passed over.
        rows: ``(size * ROW,)`` float64 state.
        counts: The same memory as int64.
        nonfinite: ``(size, 3)`` int64.
        keys: ``(S,)`` int64 spill keys.
        values: ``(S,)`` float64 spill values.
        n: Number of spills already there.
        table: ``(size * FIXED_ROW,)`` int64, each row on a cache line.
        scale: The power of two that makes integers of the samples.
        block: ``(FIXED_BLOCK,)`` float64 scratch.
        words: The same memory as int64.

    Returns:
        The position reached, the number of spills, and whether it stopped because a block had so many samples
        that the table cannot hold (one in 32) that another road is faster.
    """
    room = keys.shape[0] - 4
    position = start
    while position < stop:
        m = min(FIXED_BLOCK, stop - position)
        bad = to_fixed(samples[position : position + m], scale, block)
        if bad * 32 > m:
            return position, n, True
        i = 0
        while i < m:
            j = m
            if bad > 0:  # find the next one that does not fit
                for k in range(i, m):
                    x = np.float64(samples[position + k]) * scale
                    if (block[k] - _MAGIC != x) or not (abs(x) < _FIXED_LIMIT):
                        j = k
                        break
            reached = i + _add_run(labels[position + i : position + j], words[i:j], low, size, skip, table)
            if reached < j:
                return position + reached, n, False
            i = j
            if i < m:
                if n > room:
                    return position + i, n, False
                one = position + i
                reached, n = reduce_float64(
                    labels, samples, one, one + 1, low, size, skip, rows, counts, nonfinite, keys, values, n
                )
                if reached == one:
                    return one, n, False
                bad -= 1
                i += 1
        position += m
    return stop, n, False


@_inline
def _add_squares(r: Any, x: Any, rows: Any, keys: Any, values: Any, n: Any) -> Any:
    """Add a double to the sum of squares of the row at word `r`; return the number of spills."""
    for j in range(3, 6):
        rows[r + j], x = two_sum(rows[r + j], x)
    return _spill(keys, values, n, r + KIND_SQUARES, x)


@_inline
def _add_sum(r: Any, x: Any, rows: Any, keys: Any, values: Any, n: Any) -> Any:
    """Add a double to the sum of the row at word `r`; return the number of spills."""
    for j in range(1, 3):
        rows[r + j], x = two_sum(rows[r + j], x)
    return _spill(keys, values, n, r + KIND_SUM, x)


@_jit
def drain_fixed(
    table: Any, scale: float, start: int, rows: Any, counts: Any, keys: Any, values: Any, n: int
) -> tuple[int, int]:
    """Move the sums of a fixed-point table to the rows, exactly, and empty it.

    Args:
        table: ``(size * FIXED_ROW,)`` int64.
        scale: The power of two that its integers were made with.
        start: First slot.
        rows: ``(size * ROW,)`` float64 state.
        counts: The same memory as int64.
        keys: ``(S,)`` int64 spill keys.
        values: ``(S,)`` float64 spill values.
        n: Number of spills already there.

    Returns:
        The slot reached (short of the size if fewer than eight spill places are left) and the number of spills.
    """
    room = keys.shape[0] - 8
    size = table.shape[0] // FIXED_ROW
    unit = 1.0 / scale
    for slot in range(start, size):
        f = slot * FIXED_ROW
        if table[f + 4] == 0:
            continue
        if n > room:
            return slot, n
        r = slot * ROW
        counts[r] += table[f + 4]
        rows[r + 6] = min(rows[r + 6], float(table[f + 5]) * unit)
        rows[r + 7] = max(rows[r + 7], float(table[f + 6]) * unit)
        for j in range(4):
            high = table[f + j] >> 32  # a double holds 32 bits of an integer, and the rest, but not all 64
            low = table[f + j] & _MASK
            if j == 3:
                n = _add_sum(r, float(high) * (4294967296.0 * unit), rows, keys, values, n)
                n = _add_sum(r, float(low) * unit, rows, keys, values, n)
            else:
                weight = unit * unit * (1099511627776.0 if j == 0 else 2097152.0 if j == 1 else 1.0)
                n = _add_squares(r, float(high) * (4294967296.0 * weight), rows, keys, values, n)
                n = _add_squares(r, float(low) * weight, rows, keys, values, n)
            table[f + j] = 0
        table[f + 4] = 0
        table[f + 5] = FIXED_EMPTY_MIN
        table[f + 6] = FIXED_EMPTY_MAX
    return size, n


# ---------------------------------------------------------------------------------------------------------
# Merging and settling
# ---------------------------------------------------------------------------------------------------------


@_jit
def merge_rows(
    rows: Any,
    counts: Any,
    nonfinite: Any,
    other_rows: Any,
    other_counts: Any,
    other_nonfinite: Any,
    slots: Any,
    start: int,
    keys: Any,
    values: Any,
    n: int,
) -> tuple[int, int]:
    """Add row ``i`` of the other table to row ``slots[i]`` of this one, exactly, for ``i >= start``.

    Args:
        rows: ``(K * ROW,)`` float64 state that is added to.
        counts: The same memory as int64.
        nonfinite: ``(K, 3)`` int64.
        other_rows: ``(M * ROW,)`` float64 state that is read.
        other_counts: The same memory as int64.
        other_nonfinite: ``(M, 3)`` int64.
        slots: ``(M,)`` int64, each within ``[0, K)``.
        start: First row of the other table to add.
        keys: ``(S,)`` int64 spill keys.
        values: ``(S,)`` float64 spill values.
        n: Number of spills already there.

    Returns:
        The row reached (short of M if fewer than five spill places are left) and the number of spills.
    """
    room = keys.shape[0] - 5
    for i in range(start, slots.shape[0]):
        if n > room:
            return i, n
        slot = slots[i]
        r = slot * ROW
        o = i * ROW
        counts[r] += other_counts[o]
        for j in range(3):
            nonfinite[slot, j] += other_nonfinite[i, j]
        for j in range(1, 3):
            n = _add_sum(r, other_rows[o + j], rows, keys, values, n)
        for j in range(3, 6):
            n = _add_squares(r, other_rows[o + j], rows, keys, values, n)
        rows[r + 6] = min(rows[r + 6], other_rows[o + 6])
        rows[r + 7] = max(rows[r + 7], other_rows[o + 7])
    return slots.shape[0], n


@_jit
def _wide_add(digits: Any, x: float) -> None:
    """Add a finite double to the wide accumulator, exactly. At most 2**30 additions between carries."""
    m, exponent = math.frexp(x)
    mantissa = np.int64(m * 9007199254740992.0)  # 2**53: the 53 bits as an integer, with sign
    position = exponent - 53 + _BIAS
    d = position >> 5
    shift = position & 31
    negative = mantissa < 0
    if negative:
        mantissa = -mantissa
    low = (mantissa & _MASK) << shift  # below 2**63
    high = (mantissa >> 32) << shift  # below 2**52
    a, b, c = low & _MASK, (low >> 32) + (high & _MASK), high >> 32
    if negative:
        a, b, c = -a, -b, -c
    digits[d] += a
    digits[d + 1] += b
    digits[d + 2] += c


@_jit
def _wide_carry(digits: Any) -> None:
    """Bring every digit but the top one into ``[0, 2**32)``."""
    for d in range(DIGITS - 1):
        digits[d + 1] += digits[d] >> 32
        digits[d] &= _MASK


@_jit
def _wide_head(digits: Any) -> float:
    """A double within one unit in its last place of the carried accumulator; 0.0 only for zero.

    Built from the three topmost digits, which hold at least 65 significant bits.
    """
    negative = digits[DIGITS - 1] < 0
    if negative:
        for d in range(DIGITS):
            digits[d] = -digits[d]
        _wide_carry(digits)
    d = DIGITS - 1
    while d > 1 and digits[d] == 0:
        d -= 1
    head = math.ldexp(float(digits[d]), 32 * d - _BIAS)
    if d > 0:
        head += math.ldexp(float(digits[d - 1]), 32 * (d - 1) - _BIAS)
    if d > 1:
        head += math.ldexp(float(digits[d - 2]), 32 * (d - 2) - _BIAS)
    if negative:
        for d in range(DIGITS):
            digits[d] = -digits[d]
        _wide_carry(digits)
        head = -head
    return head


@_jit
def settle(
    keys: Any, values: Any, start: int, rows: Any, digits: Any, out_keys: Any, out_values: Any
) -> tuple[int, int]:
    """Fold sorted spills into the rows; what does not fit a row comes out as a short expansion.

    Each group of equal keys, with the words of its row, is summed exactly in the wide accumulator and
    read back greatest part first: two words of sum or three of squares go to the row, the rest, each part
    at most one unit in the last place of the part before, to the output. The result depends on the exact
    sum alone.

    Args:
        keys: ``(S,)`` int64, sorted.
        values: ``(S,)`` float64, finite.
        start: Where to begin; the first entry of a group.
        rows: ``(K * ROW,)`` float64 state.
        digits: ``(DIGITS,)`` int64 scratch.
        out_keys: ``(T,)`` int64.
        out_values: ``(T,)`` float64.

    Returns:
        The entry reached (short of S if another group might not fit the output) and the number of
        output pairs.
    """
    n = 0
    i = start
    end = keys.shape[0]
    while i < end and n + DIGITS <= out_keys.shape[0]:
        key = keys[i]
        slot, kind = key // KINDS, key % KINDS
        first = slot * ROW
        words = 0
        if kind == KIND_SUM:
            first += 1
            words = 2
        elif kind == KIND_SQUARES:
            first += 3
            words = 3
        digits[:] = 0
        for j in range(first, first + words):
            _wide_add(digits, rows[j])
        pending = words
        while i < end and keys[i] == key:
            _wide_add(digits, values[i])
            i += 1
            pending += 1
            if pending >= 1 << 28:  # pragma: no cover (2 GiB of spills of one label)
                _wide_carry(digits)
                pending = 0
        _wide_carry(digits)
        for j in range(first, first + words):
            head = _wide_head(digits)
            rows[j] = head
            _wide_add(digits, -head)
            _wide_carry(digits)
        head = _wide_head(digits)
        while head != 0.0:
            out_keys[n] = key
            out_values[n] = head
            n += 1
            _wide_add(digits, -head)
            _wide_carry(digits)
            head = _wide_head(digits)
    return i, n


# ---------------------------------------------------------------------------------------------------------
# Finalising: one rounding
# ---------------------------------------------------------------------------------------------------------

_SLACK = 2.0**-96
"""Relative error allowed to the double-double operations below, whose own is a few units of 2**-104."""
_FLOOR = 2.0**-900
"""Below this the low halves of double-doubles could underflow; such rows are left to exact arithmetic."""


@_jit
def _divide(a0: Any, a1: Any, b0: Any, b1: Any) -> Any:
    """Quotient of two double-doubles, as a double-double (long division, three steps)."""
    q0 = a0 / b0
    p, e = two_prod(q0, b0)
    r, re = two_sum(a0, -p)
    re += a1 - e - q0 * b1
    q1 = (r + re) / b0
    p, e = two_prod(q1, b0)
    s, se = two_sum(r, -p)
    se += re - e - q1 * b1
    q2 = (s + se) / b0
    q0, q1 = two_sum(q0, q1)
    q1 += q2
    return two_sum(q0, q1)


@_jit
def _certain(high: float, low: float, error: float) -> bool:
    """Whether every number within `error` of ``high + low`` rounds to `high` (Ziv's test)."""
    return high + (low - error) == high and high + (low + error) == high


@_jit
def finalise(rows: Any, counts: Any, residue: Any, out: Any, doubt: Any) -> None:
    """Round sum, mean and standard deviation of every row once, or say that it takes exact arithmetic.

    Args:
        rows: ``(K * ROW,)`` float64 state.
        counts: The same memory as int64.
        residue: ``(K,)`` uint8: 0 if the row is the exact sum, 1 if settled spills remain beside it, 2 if
            scaled spills do.
        out: ``(K, 3)`` float64: sum, mean, sample standard deviation (ddof=1; 0.0 for one sample, NaN
            for none) are written here, correctly rounded wherever `doubt` is not set.
        doubt: ``(K,)`` bool: set where the rounding could not be certified.
    """
    for k in range(residue.shape[0]):
        r = k * ROW
        n = counts[r]
        doubt[k] = False
        out[k, 0] = 0.0
        out[k, 1] = np.nan
        out[k, 2] = np.nan
        if n == 0:
            continue
        s0, s1 = two_sum(rows[r + 1], rows[r + 2])
        nf = np.float64(n)
        # A part left beside the row is at most one unit in the last place of its last word, the parts
        # after it sum to less than that again.
        rest = 2.0**-51 * abs(rows[r + 2]) if residue[k] else 0.0
        m0, m1 = _divide(s0, s1, nf, 0.0)
        out[k, 0] = s0
        out[k, 1] = m0
        sure = residue[k] < 2 and (rest == 0.0 or _certain(s0, s1, rest))
        if s0 != 0.0:
            sure &= abs(s0) > _FLOOR and _certain(m0, m1, _SLACK * abs(m0) + rest)
        elif rest != 0.0 or s1 != 0.0:
            sure = False
        if n == 1:
            out[k, 2] = 0.0
            doubt[k] = not sure
            continue

        # n * squares - sum**2, exactly: six products of two words each, cascaded over four words.
        a0 = a1 = a2 = a3 = lost = 0.0
        q0, q1, q2 = rows[r + 3], rows[r + 4], rows[r + 5]
        for j in range(6):
            if j == 0:
                p, e = two_prod(nf, q0)
            elif j == 1:
                p, e = two_prod(-s0, s0)
            elif j == 2:
                p, e = two_prod(nf, q1)
            elif j == 3:
                p, e = two_prod(-2.0 * s0, s1)
            elif j == 4:
                p, e = two_prod(nf, q2)
            else:
                p, e = two_prod(-s1, s1)
            a0, x = two_sum(a0, p)
            a1, x = two_sum(a1, x)
            a2, x = two_sum(a2, x)
            a3, x = two_sum(a3, x)
            lost += abs(x)
            a1, x = two_sum(a1, e)
            a2, x = two_sum(a2, x)
            a3, x = two_sum(a3, x)
            lost += abs(x)
        if residue[k]:
            lost += 2.0**-51 * nf * abs(q2) + 4.0 * abs(s0) * rest
        for _ in range(3):  # distil: cancellation may have left the weight in the lower words
            a2, a3 = two_sum(a2, a3)
            a1, a2 = two_sum(a1, a2)
            a0, a1 = two_sum(a0, a1)
        lost += abs(a2) + abs(a3)
        lost *= 1.0 + 2.0**-40  # the bound itself was summed with rounding
        if a0 == 0.0 and lost == 0.0:
            out[k, 2] = 0.0
            doubt[k] = not sure
            continue
        if a0 <= _FLOOR or lost >= 0.5 * a0:
            doubt[k] = True
            continue
        d0, d1 = two_prod(nf, nf - 1.0)
        v0, v1 = _divide(a0, a1, d0, d1)
        y0 = math.sqrt(v0)
        y1 = (fma(-y0, y0, v0) + v1) / (2.0 * y0)
        y0, y1 = two_sum(y0, y1)
        out[k, 2] = y0
        error = y0 * (lost / a0 + _SLACK)
        doubt[k] = not (sure and v0 > _FLOOR and _certain(y0, y1, error))


# ---------------------------------------------------------------------------------------------------------
# Labels to codes
# ---------------------------------------------------------------------------------------------------------


@_wrapping
@_jit
def encode_int64(
    labels: Any, start: int, stop: int, table: Any, found: Any, n: int, frozen: bool, codes: Any
) -> tuple[int, int]:
    """Give each label its code by open addressing; new labels get the next code.

    Args:
        labels: ``(N,)`` integers.
        start: First label to read.
        stop: One past the last.
        table: ``(2**b,)`` int64: a code, or -1 for an empty place.
        found: ``(C,)`` int64: the label of each code, C at most half the table.
        n: Number of codes in use.
        frozen: If set, unknown labels get code -1 and no new code.
        codes: ``(>= stop - start,)`` int32, written from index 0.

    Returns:
        The position reached (short of `stop` if `found` is full) and the number of codes.
    """
    mask = np.uint64(table.shape[0] - 1)
    for i in range(start, stop):
        label = np.int64(labels[i])
        h = np.uint64(label)
        h = (h ^ (h >> np.uint64(32))) * np.uint64(0x9E3779B97F4A7C15)
        place = (h ^ (h >> np.uint64(29))) & mask
        while True:
            code = table[place]
            if code < 0:
                if not frozen:
                    if n >= found.shape[0]:
                        return i, n
                    code = n
                    table[place] = code
                    found[code] = label
                    n += 1
                break
            if found[code] == label:
                break
            place = (place + np.uint64(1)) & mask
        codes[i - start] = code
    return stop, n


@_wrapping
@_jit
def encode_rows(rows: Any, start: int, stop: int, table: Any, first: Any, n: int, codes: Any) -> tuple[int, int]:
    """Give each fixed-width row of words its code by open addressing; equal rows get equal codes.

    Args:
        rows: ``(N, W)`` uint64, such as a view of a fixed-width string array.
        start: First row to read.
        stop: One past the last.
        table: ``(2**b,)`` int64: a code, or -1 for an empty place.
        first: ``(C,)`` int64: where in `rows` each code was first seen, C at most half the table.
        n: Number of codes in use.
        codes: ``(N,)`` int32, written at the row's own index.

    Returns:
        The position reached (short of `stop` if `first` is full) and the number of codes.
    """
    mask = np.uint64(table.shape[0] - 1)
    width = rows.shape[1]
    for i in range(start, stop):
        h = np.uint64(0)
        for j in range(width):
            h = (h ^ rows[i, j]) * np.uint64(0x9E3779B97F4A7C15)
            h ^= h >> np.uint64(29)
        place = (h ^ (h >> np.uint64(32))) & mask
        while True:
            code = table[place]
            if code < 0:
                if n >= first.shape[0]:
                    return i, n
                code = n
                table[place] = code
                first[code] = i
                n += 1
                break
            same = True
            other = first[code]
            for j in range(width):
                if rows[i, j] != rows[other, j]:
                    same = False
                    break
            if same:
                break
            place = (place + np.uint64(1)) & mask
        codes[i] = code
    return stop, n
