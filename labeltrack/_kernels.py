"""The compiled functions of the package: arrays in, arrays out, no policy.

Those of quantiles, strings, sorting and the two other forms of fixed point have modules of their own, which build on
this one. All of them are imported on first use, so that ``import labeltrack`` stays light. All kernels release the GIL
and are cached on disk. They are plain Python too: with ``NUMBA_DISABLE_JIT=1`` the same source runs under the
interpreter.

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

STREAMS = 3
"""Parts of an array of strings that are read side by side, a block of each in turn. Processors fetch by themselves what
comes next, but stop at the end of a page of 4 KiB and when nothing is read for a while. From memory, strings that are
looked up took 3.7 ns in one stream, 3.1 in two, 3.0 in three and four, 3.7 in six; numbered ones 2.9, 2.5, 2.4, 2.4."""

STREAM = 512
"""Samples between fetching labels and samples and reading them. Processors stop at the end of a page by themselves, and
some fall behind well before: with ten labels 1.7 and 3.0 ns a float and double without, 1.45 and 2.75 with (Intel)."""

# Unsigned constants, ready made: numba takes a while over each cast that it has to work out the type of.
_U0, _U1, _U2, _U3, _U4, _U5, _U6, _U7, _U8 = (np.uint64(number) for number in range(9))
_U16 = np.uint64(16)
_STREAM = np.uint64(STREAM)

_jit = njit(nogil=True, cache=True, error_model="numpy", no_cfunc_wrapper=True)
# Parts of kernels are not cached on their own, which would take another 20 ms each to write: they are in their callers.
# Nor is there a way in from Python, which would take half a second to compile for all of them: calling one crashes.
_part = njit(nogil=True, error_model="numpy", no_cfunc_wrapper=True, no_cpython_wrapper=True)
# For parts of a loop's body that LLVM, left to itself, would call.
_inline = njit(nogil=True, error_model="numpy", forceinline=True, no_cfunc_wrapper=True, no_cpython_wrapper=True)


def _wrapping(kernel: Any) -> Any:
    """Let 64-bit arithmetic wrap, and infinities cancel, silently under the interpreter too, as in compiled code."""
    if not config.DISABLE_JIT:
        return kernel

    @functools.wraps(kernel)
    def quiet(*args: Any) -> Any:
        with np.errstate(over="ignore", invalid="ignore"):
            return kernel(*args)

    return quiet


def _memory(context: Any, builder: Any, signature: Any, args: Any, which: int) -> Any:  # pragma: no cover
    """Return the address of the memory of an array among the arguments of what is built."""
    return context.make_array(signature.args[which])(context, builder, args[which]).data


def _emit_prefetch(builder: Any, place: Any, *, write: bool) -> None:  # pragma: no cover (runs while kernels compile)
    """Emit that the cache line of a place is fetched, to be written to or only to be read.

    Some processors do not care; others take a tenth longer for strings, and a seventh for a hundred thousand labels, if
    labels and samples are fetched as if they were to be written to.
    """
    pointer, lane = ir.IntType(8).as_pointer(), ir.IntType(32)
    kind = ir.FunctionType(ir.VoidType(), [pointer, lane, lane, lane])
    fetch = builder.module.declare_intrinsic("llvm.prefetch", [pointer], kind)
    builder.call(fetch, [builder.bitcast(place, pointer), lane(int(write)), lane(3), lane(1)])


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


if config.DISABLE_JIT:
    _lesser, _greater = min, max

else:

    def _chosen(sign: str) -> Any:
        """Return what builds the choice of one of two numbers.

        numba compiles `min` and `max` anew for each pair of types and each place: 20 to 40 ms, a third of a second in
        all for a reduction.
        """

        def build(typing_context: Any, a: Any, b: Any) -> Any:  # pragma: no cover (built by the compiler)
            kind = typing_context.unify_types(a, b)

            def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
                x, y = (context.cast(builder, arg, of, kind) for arg, of in zip(args, signature.args, strict=True))
                if isinstance(kind, types.Float):
                    other = builder.fcmp_ordered(sign, y, x)
                else:
                    other = (builder.icmp_signed if kind.signed else builder.icmp_unsigned)(sign, y, x)
                return builder.select(other, y, x)

            return kind(a, b), codegen

        return intrinsic(build)

    _lesser, _greater = _chosen("<"), _chosen(">")


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


@_part
def _spill(keys: Any, values: Any, n: Any, key: Any, value: Any) -> Any:
    """Append one pair unless it is zero; return the new length."""
    if value == 0.0:
        return n
    keys[n] = key
    values[n] = value
    return n + 1


@_part
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
def add_exactly(
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
    """Add ``samples[start:stop]`` to the rows of their labels by error-free additions, whatever they are.

    Args:
        labels: ``(N,)`` int64; the slot of a sample is ``label - low``.
        samples: ``(N,)`` float64.
        start: First sample to read.
        stop: One past the last.
        low: The label of slot 0.
        size: Number of slots. A label outside the table never writes: the pass stops before it, or
            passes over it if `skip`.
        skip: Whether labels outside the table are passed over.
        rows: ``(size * ROW,)`` float64 state.
        counts: The same memory as int64.
        nonfinite: ``(size, 3)`` int64: how many NaN, +inf, -inf. It may have no rows until one is needed.
        keys: ``(S,)`` int64 spill keys.
        values: ``(S,)`` float64 spill values.
        n: Number of spills already there.

    Returns:
        The position reached and the number of spills. The position is short of `stop` before a label outside the
        table, before a sample that is not finite if `nonfinite` has no rows, and where fewer than four spill places
        are left (so it takes at least four to start).
    """
    # Unsigned arithmetic spares the branch that numba emits for negative indices.
    limit = np.uint64(size)
    room = keys.shape[0] - 4
    far = size > _FAR
    last = labels.shape[0] - _AHEAD
    for i in range(start, stop):
        if far and i < last:
            _prefetch(rows, np.uint64(labels[i + _AHEAD] - low) << _U3)
        slot = np.uint64(labels[i] - low)
        if slot >= limit:
            if skip:
                continue
            return i, n
        v = samples[i]
        # Bitwise `&` on purpose: zeros are common (losses, accuracies), a branch on them would mispredict.
        if not (abs(v) <= HUGE) or ((v * v < _TINY_SQUARE) & (v != 0.0)):
            if nonfinite.shape[0] == 0 and not math.isfinite(v):
                return i, n
            n = _odd_sample(np.int64(slot), v, rows, counts, nonfinite, keys, values, n)
            if n > room:
                return i + 1, n
            continue
        r = slot << _U3
        counts[r] += 1
        s0, e = two_sum(rows[r + _U1], v)
        s1, es = two_sum(rows[r + _U2], e)
        p, pe = two_prod(v, v)
        q0, e = two_sum(rows[r + _U3], p)
        e, e2 = two_sum(e, pe)
        q1, e = two_sum(rows[r + _U4], e)
        e, ed = two_sum(e, e2)
        q2, eq = two_sum(rows[r + _U5], e)
        rows[r + _U1] = s0
        rows[r + _U2] = s1
        rows[r + _U3] = q0
        rows[r + _U4] = q1
        rows[r + _U5] = q2
        # min() and max() compile to one instruction each; compare-and-branch was slower.
        rows[r + _U6] = min(rows[r + _U6], v)
        rows[r + _U7] = max(rows[r + _U7], v)
        if (es != 0.0) | (eq != 0.0) | (ed != 0.0):
            n = _spill(keys, values, n, np.int64(slot) * KINDS + KIND_SUM, es)
            n = _spill(keys, values, n, np.int64(slot) * KINDS + KIND_SQUARES, eq)
            n = _spill(keys, values, n, np.int64(slot) * KINDS + KIND_SQUARES, ed)
            if n > room:
                return i + 1, n
    return stop, n


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


# ---------------------------------------------------------------------------------------------------------
# The same pass in fixed point, for samples that are multiples of one power of two
# ---------------------------------------------------------------------------------------------------------

# Samples of float32 that lie within some 16 binades of each other, as nearly all metrics do, are integers of
# at most 40 bits times a power of two, and integers are summed exactly by integer addition. With the integer
# split in two halves, y = a * 2**20 + b, the state of a label is the vector (sum a*a, sum a*b, sum b*b, sum y)
# that one multiplication, one addition and one store of four lanes update. Measured on one core, float32:
# 700 M samples/s at 10 labels and 590 at 1000, where error-free additions do 117.
# Those within some nine binades are integers of 32 bits, for which `reduce_tight` takes half as much memory; doubles of
# full precision are integers of 63 bits: `reduce_wide`.
# Samples that are no such multiple (or too large, or not finite) are set aside, for `add_exactly`.

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
_NO_NUMBER = 2047  # the exponent of NaN and infinities
"""In place of a sample that is no integer: this plus its number in the block, which is undone where it was added."""
_AHEAD = 16  # samples between prefetching a row and adding to it
_FAR_KEYS = 1 << 15  # words of a hash table from which places are fetched beforehand; 256 KB
_FAR = 4096  # rows from which they are prefetched; 256 KB. At 4000 both ways are equal, at 30 000 370 against 270
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

    def _prefetch(table: Any, r: Any) -> None:
        """Do nothing (plain Python mode)."""

    _prefetch_read = _prefetch

    def _apart() -> None:
        """Do nothing (plain Python mode)."""

    def _outside(words: Any, i: Any, low: Any, high: Any) -> Any:
        """Return a bit for each of eight words from `i` that is below `low` or above `high` (plain Python mode)."""
        eight = words[int(i) : int(i) + 8]
        return np.uint64(sum(1 << j for j, y in enumerate(eight.tolist()) if y < low or y > high))

    def _lowest_bit(mask: Any) -> Any:
        """Return the number of zeros below the lowest bit that is set, 64 if none is (plain Python mode)."""
        return np.uint64((int(mask) & -int(mask)).bit_length() - 1 if mask else 64)

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
    def _apart(_context: Any) -> Any:  # pragma: no cover (built by the compiler)
        """Tell LLVM not to inline the function that calls this, for which numba has no option."""

        def codegen(context: Any, builder: Any, _signature: Any, _args: Any) -> Any:
            builder.function.attributes.add("noinline")
            return context.get_dummy_value()

        return types.void(), codegen

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

    @intrinsic
    def _lowest_bit(_context: Any, _mask: Any) -> Any:  # pragma: no cover (built by the compiler)
        """Return the number of zeros below the lowest bit that is set, 64 if none is."""

        def codegen(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
            flag = ir.IntType(1)
            kind = ir.FunctionType(_WORD, [_WORD, flag])
            return builder.call(builder.module.declare_intrinsic("llvm.cttz", [_WORD], kind), [args[0], flag(0)])

        return types.uint64(types.uint64), codegen

    def _fetching(*, write: bool) -> Any:
        """Return what fetches a cache line."""

        @intrinsic
        def prefetch(_context: Any, table: Any, _r: Any) -> Any:  # pragma: no cover (built by the compiler)
            """Fetch the cache line of the word at `r`; any `r` will do, it need not exist."""

            def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
                place = builder.gep(_memory(context, builder, signature, args, 0), [args[1]])
                _emit_prefetch(builder, place, write=write)
                return context.get_dummy_value()

            return types.void(table, types.uint64), codegen

        return prefetch

    _prefetch, _prefetch_read = _fetching(write=True), _fetching(write=False)


@_inline
def _fetch(array: Any, start: Any, block: Any) -> None:
    """Fetch a block of an array that is read some blocks later. It need not exist."""
    for i in range(block * array.itemsize // 64):
        _prefetch_read(array, start + np.uint64(i * (64 // array.itemsize)))


@_inline
def _in_turn(k: Any, each: Any) -> Any:
    """Return which block of strings is read as the k-th: those of `STREAMS` parts of `each` in turn, then the rest."""
    streams = np.uint64(STREAMS)
    return k if k >= each * streams else k % streams * each + k // streams


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


@_inline
def _exponent(sample: Any) -> Any:
    """Return the exponent of a sample as a double has it: `_NO_NUMBER` if it is not finite, 0 for zeros."""
    return (np.float64(sample).view(np.int64) >> 52) & _NO_NUMBER


@_jit
def extent(samples: Any) -> tuple[Any, Any, Any]:
    """Return how large some samples are but for the largest few, in a tenth of the time that numpy takes to sort them.

    Args:
        samples: ``(N,)`` float32 or float64.

    Returns:
        The exponent of the largest absolute value but for one in 64, as `math.frexp` has it; whether any is negative;
        and how many there are. NaN and infinite ones do not count. Of zeros it is 0, of subnormal doubles -1022.
    """
    finite = negative = zeros = np.int64(0)
    for i in range(np.uint64(samples.shape[0])):
        exponent = _exponent(samples[i])
        number = np.int64(exponent != _NO_NUMBER)
        finite += number
        negative |= number & np.int64(samples[i] < 0)
        zeros += np.int64(samples[i] == 0)
    # The largest exponent, then the next one below it, until there are enough: vectorised passes, mostly one or two.
    bound, enough = np.int64(_NO_NUMBER), finite >> 6
    above = np.int64(0)
    while above <= enough and bound > 0:
        largest = np.int64(0)
        for i in range(np.uint64(samples.shape[0])):
            exponent = _exponent(samples[i])
            largest = max(largest, exponent if exponent < bound else np.int64(0))
        for i in range(np.uint64(samples.shape[0])):
            above += np.int64(_exponent(samples[i]) == largest)
        bound = largest
    return 0 if bound == 0 and above - zeros <= enough else bound - 1022, negative != 0, finite


# These take arrays and where to begin, not slices of them: a slice is a reference more to count, which is an atomic
# operation, and a few of them for every 64 samples took a third of the time. They count in unsigned integers, which
# spares the branches that numba emits for negative indices: 650 against 580.


@_inline
def _one_label(labels: Any, start: Any, stop: Any) -> Any:
    """Return how many of the labels from `start` on are the same one; 1 unless at least four are."""
    first = labels[start]
    if start + _U4 > stop:
        return _U1
    if labels[start + _U1] != first or labels[start + _U2] != first or labels[start + _U3] != first:
        return _U1
    end = start + _U4
    while end + _U16 <= stop:  # one comparison of vectors instead of sixteen branches
        different = labels[end] ^ first
        for j in range(_U1, _U16):
            different |= labels[end + j] ^ first
        if different != 0:
            break
        end += _U16
    while end < stop and labels[end] == first:
        end += _U1
    return end - start


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
    for i in range(_U0, m, _U8):
        mask = _outside(words, i, least, most)
        if m - i < _U8:
            mask &= (_U1 << (m - i)) - _U1  # words of an earlier block
        while mask:
            j = i + _lowest_bit(mask)
            mask &= mask - _U1
            slot = np.uint64(np.int64(labels[first + j]) - low)
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
            if np.uint64(np.int64(labels[first + i]) - low) >= limit:
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
def largest_count(table: Any, word: int, step: int, mask: int) -> Any:
    """Return the largest number of samples that a row of a fixed-point table has got.

    With a hundred thousand labels numpy, which writes all numbers down first, takes three times as long.

    Args:
        table: ``(K * step,)`` int64.
        word: Where in a row the number is.
        step: Words of a row.
        mask: Its bits in that word.
    """
    largest = np.int64(0)
    for at in range(np.uint64(word), np.uint64(table.shape[0]), np.uint64(step)):
        largest = max(largest, table[at] & mask)
    return largest


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


# ---------------------------------------------------------------------------------------------------------
# Merging and settling
# ---------------------------------------------------------------------------------------------------------


@_jit
def keep_rows(rows: Any, slots: Any) -> None:
    """Move the rows ``slots`` to the front, in place.

    Args:
        rows: ``(K * ROW,)`` float64 state, or its words.
        slots: ``(M,)`` int64, ascending, without repeats.
    """
    for i in range(slots.shape[0]):
        r, s = np.uint64(i * ROW), np.uint64(slots[i] * ROW)
        if r != s:
            for j in range(np.uint64(ROW)):
                rows[r + j] = rows[s + j]


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
        nonfinite: ``(K, 3)`` int64; it may have no rows if `other_nonfinite` has none.
        other_rows: ``(>= M * ROW,)`` float64 state that is read.
        other_counts: The same memory as int64.
        other_nonfinite: ``(M, 3)`` int64, or without rows.
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
        if other_nonfinite.shape[0]:
            for j in range(3):
                nonfinite[slot, j] += other_nonfinite[i, j]
        for j in range(1, 3):
            n = _add_sum(r, other_rows[o + j], rows, keys, values, n)
        for j in range(3, 6):
            n = _add_squares(r, other_rows[o + j], rows, keys, values, n)
        rows[r + 6] = min(rows[r + 6], other_rows[o + 6])
        rows[r + 7] = max(rows[r + 7], other_rows[o + 7])
    return slots.shape[0], n


@_part
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


@_part
def _wide_carry(digits: Any) -> None:
    """Bring every digit but the top one into ``[0, 2**32)``."""
    for d in range(DIGITS - 1):
        digits[d + 1] += digits[d] >> 32
        digits[d] &= _MASK


@_part
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


@_inline
def _divide(a0: Any, a1: Any, b0: Any, b1: Any) -> Any:
    """Quotient of two double-doubles, as a double-double: a first quotient, and its exact remainder divided.

    The first quotient is off by two units in its last place, the second by as much of itself, so that the error is a
    few units of 2**-104. One division of doubles instead of two that wait for each other.
    """
    inverse = 1.0 / b0
    q0 = a0 * inverse
    p, e = two_prod(q0, b0)
    return two_sum(q0, (((a0 - p) - e) + (a1 - q0 * b1)) * inverse)


@_inline
def _certain(high: float, low: float, error: float) -> bool:
    """Whether every number within `error` of ``high + low`` rounds to `high` (Ziv's test)."""
    return high + (low - error) == high and high + (low + error) == high


@_inline
def _mean(s0: Any, s1: Any, n: Any) -> Any:
    """Return ``(s0 + s1) / n`` rounded once, and whether that is certain."""
    nf = np.float64(n)
    if n & (n - 1) == 0:
        return s0 / nf, True  # a power of two, so that the rounding of the sum is that of the mean
    m0, m1 = _divide(s0, s1, nf, 0.0)
    if _certain(m0, m1, _SLACK * abs(m0)):
        return m0, True
    # Too close to the middle between two doubles, or just there, which is frequent where samples are few: a third of
    # all sums can be divided by three. The remainder decides, if it is a double.
    p, e = two_prod(m0, nf)
    x, lost0 = two_sum(s0, -p)
    x, lost1 = two_sum(x, -e)
    x, lost2 = two_sum(x, s1)
    mantissa, exponent = math.frexp(m0)
    ulp = math.ldexp(1.0, exponent - 53)
    half = 0.5 * ulp * nf
    if lost0 != 0.0 or lost1 != 0.0 or lost2 != 0.0 or abs(mantissa) == 0.5 or abs(x) > half:
        return m0, False
    if abs(x) == half and np.int64(math.ldexp(mantissa, 53)) & 1:
        return m0 + math.copysign(ulp, x), True
    return m0, True


@_inline
def _deviation(s0: Any, s1: Any, q0: Any, q1: Any, q2: Any, nf: Any) -> Any:
    """Return the standard deviation rounded once, and whether that is certain. All parts are exact."""
    p, pe = two_prod(nf, q0)
    b, be = two_prod(s0, s0)
    d, de = two_sum(p, -b)
    nq1, ss = nf * q1, 2.0 * s0 * s1
    a0, a1 = two_sum(d, (de + (pe - be)) + (nq1 - ss) + (nf * q2 - s1 * s1))
    # Fewer than sixteen roundings, each of a number that is no larger than the sum of these.
    lost = 2.0**-49 * (abs(de) + abs(pe) + abs(be) + abs(nq1) + abs(ss) + abs(nf * q2) + s1 * s1)
    if not (a0 > _FLOOR and lost < 0.5 * a0):
        return 0.0, False
    return _root(a0, a1, lost, nf)


@_inline
def _root(a0: Any, a1: Any, lost: Any, nf: Any) -> Any:
    """Return the root of ``(a0 + a1) / (n * (n - 1))`` rounded once, and whether `lost` leaves that certain."""
    d0, d1 = two_prod(nf, nf - 1.0)
    v0, v1 = _divide(a0, a1, d0, d1)
    y0 = math.sqrt(v0)
    y1 = (fma(-y0, y0, v0) + v1) / (2.0 * y0)
    y0, y1 = two_sum(y0, y1)
    return y0, v0 > _FLOOR and _certain(y0, y1, y0 * (lost / a0 + _SLACK))


@_jit
def finalise(
    start: int,
    stop: int,
    rows: Any,
    counts: Any,
    residue: Any,
    place: int,
    packed: bool,
    number: Any,
    out: Any,
    doubt: Any,
) -> int:
    """Write the statistics of rows, rounded once, or say that it takes more care.

    Args:
        start: First row.
        stop: One past the last.
        rows: ``(K * ROW,)`` float64 state.
        counts: The same memory as int64.
        residue: ``(K,)`` uint8: 0 if the row is the exact sum, 1 if settled spills remain beside it, 2 if
            scaled spills do.
        place: Where the statistics of the first row go.
        packed: Whether rows without samples are left out, and those after them move up.
        number: ``(P,)`` int64, with room for all rows that are not left out: the number of samples is written here.
        out: ``(5, P)`` float64: sum, mean, sample standard deviation (ddof=1; 0.0 for one sample, NaN for none),
            minimum and maximum (NaN for none) are written here; the first three are correctly rounded wherever `doubt`
            is not set.
        doubt: ``(K,)`` bool: set where the rounding could not be certified.

    Returns:
        How many times that is.
    """
    doubts = 0
    after = np.uint64(place)
    for k in range(np.uint64(start), np.uint64(stop)):
        r, at = k << _U3, after
        n = counts[r]
        after += np.uint64(not packed or n > 0)
        doubt[k] = False
        if n == 0:
            if packed:
                continue
            number[at] = 0
            out[0, at] = 0.0
            out[1, at] = out[2, at] = out[3, at] = out[4, at] = np.nan
            continue
        number[at] = n
        # `+ 0.0` turns -0.0 into 0.0: which of the two zeros came first must not show.
        out[3, at] = rows[r + _U6] + 0.0
        out[4, at] = rows[r + _U7] + 0.0
        # The quick way does for nearly all rows: 20 ns instead of 100.
        if residue[k] == 0:
            s0, s1 = two_sum(rows[r + _U1], rows[r + _U2])
            if n == 1:  # where labels have few samples, these are many
                out[0, at] = out[1, at] = s0
                out[2, at] = 0.0
                continue
            m0, sure = _mean(s0, s1, n)
            if sure and abs(s0) > _FLOOR:
                y0, sure = _deviation(s0, s1, rows[r + _U3], rows[r + _U4], rows[r + _U5], np.float64(n))
                if sure:
                    out[0, at] = s0
                    out[1, at] = m0
                    out[2, at] = y0
                    continue
        out[0, at] = out[1, at] = out[2, at] = np.nan
        doubt[k] = True
        doubts += 1
    return doubts


@_part
def _certified(k: Any, r: Any, rows: Any, counts: Any, residue: Any, at: Any, out: Any) -> Any:
    """Round one row; return whether that is certain."""
    n = counts[r]
    nf = np.float64(n)
    s0, s1 = two_sum(rows[r + 1], rows[r + 2])
    # A part left beside the row is at most one unit in the last place of its last word, the parts
    # after it sum to less than that again.
    rest = 2.0**-51 * abs(rows[r + 2]) if residue[k] else 0.0
    out[0, at] = s0
    sure = residue[k] < 2 and (rest == 0.0 or _certain(s0, s1, rest))
    if rest == 0.0:
        out[1, at], mean_sure = _mean(s0, s1, n)
        sure &= mean_sure and (abs(s0) > _FLOOR or (s0 == 0.0 and s1 == 0.0))
    else:
        m0, m1 = _divide(s0, s1, nf, 0.0)
        out[1, at] = m0
        sure &= abs(s0) > _FLOOR and _certain(m0, m1, _SLACK * abs(m0) + rest)
    if n == 1:
        out[2, at] = 0.0
        return sure

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
        out[2, at] = 0.0
        return sure
    if a0 <= _FLOOR or lost >= 0.5 * a0:
        return False
    out[2, at], root_sure = _root(a0, a1, lost, nf)
    return sure and root_sure


@_jit
def finalise_carefully(slots: Any, rows: Any, counts: Any, residue: Any, places: Any, out: Any, doubt: Any) -> None:
    """Round rows that `finalise` could not certify, with four words for what cancels.

    A kernel of its own, as few need it and it takes half a second to compile.

    Args:
        slots: ``(M,)`` int64: rows of at least one sample.
        rows: See `finalise`, as all that follow.
        counts: The same memory as int64.
        residue: ``(K,)`` uint8.
        places: ``(M,)`` int64: where the statistics of these rows go.
        out: ``(5, P)`` float64: sum, mean and standard deviation are written.
        doubt: ``(K,)`` bool: unset where they are certain.
    """
    for i in range(slots.shape[0]):
        k = slots[i]
        doubt[k] = not _certified(k, k * ROW, rows, counts, residue, places[i], out)


# ---------------------------------------------------------------------------------------------------------
# Labels to codes
# ---------------------------------------------------------------------------------------------------------


@_inline
def _look(label: Any, mask: Any) -> Any:
    """Return where a label is looked for first in a table of pairs."""
    h = np.uint64(np.int64(label))
    h = (h ^ (h >> np.uint64(32))) * np.uint64(0x9E3779B97F4A7C15)
    return ((h ^ (h >> np.uint64(29))) << _U1) & mask


@_wrapping
@_jit
def encode_int64(
    labels: Any, start: int, stop: int, table: Any, found: Any, n: Any, frozen: bool, codes: Any
) -> tuple[int, int]:
    """Give each label its code by open addressing; new labels get the next code.

    Args:
        labels: ``(N,)`` integers.
        start: First label to read.
        stop: One past the last.
        table: ``(2 * 2**b,)`` int64: pairs of a label and its code, which is -1 in an empty place. Side by side, so
            that a label costs one look into memory; with labels in an array of their own it took half as long again.
        found: ``(C,)`` int64: the label of each code, C at most half the places.
        n: Number of codes in use.
        frozen: If set, unknown labels get code -1 and no new code.
        codes: ``(>= stop - start,)`` int32, written from index 0.

    Returns:
        The position reached (short of `stop` if `found` is full) and the number of codes.
    """
    mask = np.uint64(table.shape[0] - 1)
    first = np.uint64(start)
    last = np.uint64(max(labels.shape[0], 1) - 1)
    far = table.shape[0] > _FAR_KEYS
    for i in range(np.uint64(stop - start)):
        _prefetch_read(labels, first + i + _STREAM)
        if far:
            ahead = min(first + i + np.uint64(_AHEAD), last)
            _prefetch(table, _look(labels[ahead], mask))
        label = np.int64(labels[first + i])
        place = _look(label, mask)
        while True:
            code = table[place + _U1]
            if code >= 0 and table[place] == label:
                break
            if code < 0:
                if not frozen:
                    if n >= found.shape[0]:
                        reached: Any = np.int64(first + i)
                        return reached, n
                    code = np.int64(n)
                    table[place] = label
                    table[place + _U1] = code
                    found[code] = label
                    n += 1
                break
            place = (place + _U2) & mask
        codes[i] = code
    return stop, n
