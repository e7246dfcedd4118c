"""The exact state of labels: the words of a row, overflow terms, merging rows, and folding terms back.

The state of one label is one cache line of eight 64-bit words, ``ROW`` apart in a flat float64 array:

====  =====  =======================================================================================
word  type   meaning
====  =====  =======================================================================================
0     int64  number of finite samples (read through an int64 view of the same memory)
1, 2  f8     sum of the samples, as an unevaluated sum of two doubles
3-5   f8     sum of the squares, as an unevaluated sum of three doubles
6, 7  f8     smallest and largest finite sample
====  =====  =======================================================================================

Sums are cascades of error-free additions (Knuth's TwoSum). What the last word cannot hold, which is rare, is not
rounded away but appended to a list of *overflow terms*: pairs of a key and a double with ``key = slot * KINDS + kind``
(KINDS is ROW, so that is also the first word of the row plus the kind). Rows plus overflow terms are therefore always
the exact sums, regardless of the order of the samples. `fold_back` adds the terms to the rows through a
superaccumulator.

Kernels take this state as

- `rows`: ``(K * ROW,)`` float64, and `counts`: the same memory as int64;
- `keys`: ``(S,)`` int64, and `values`: ``(S,)`` float64: overflow terms, of which `n` are in use;
- `nonfinite`: ``(K, 3)`` int64: how many samples are NaN, +inf and -inf; or ``(0, 3)`` while there are none.

References:
    D. E. Knuth, The Art of Computer Programming, vol. 2, section 4.2.2 (TwoSum).
    T. Ogita, S. M. Rump, S. Oishi, "Accurate sum and dot product", SIAM J. Sci. Comput. 26 (2005).
    J. R. Shewchuk, "Adaptive precision floating-point arithmetic", Discrete Comput. Geom. 18 (1997).
    U. W. Kulisch, "Computer Arithmetic and Validity" (the superaccumulator: fixed point over the range of doubles).
"""

from __future__ import annotations

import math

import numpy as np

from labeltrack._core.kernels import KINDS, ROW
from labeltrack._core.kernels.intrinsics import _U0, _U1, _U3, _U6, _U7, _inline, _jit, _part, two_prod, two_sum

# The kinds of overflow terms.
KIND_SUM = 0
KIND_SQUARES = 1
KIND_SUM_HUGE = 2  # stored times 2**-600
KIND_SQUARES_HUGE = 3  # stored times 2**-1200
KIND_SQUARES_TINY = 4  # stored times 2**+1200

# Samples outside [TINY, HUGE] are scaled by a power of two: beyond HUGE the sum of 2**53 squares times 2**53 could
# overflow, below TINY the error term of the square would underflow.
HUGE = 2.0**440
TINY = 2.0**-480
_DOWN = 2.0**-600
_UP = 2.0**600

DIGITS = 72  # length of the superaccumulator: 32-bit digits in int64, digit 0 worth 2**-1152, the top one 2**1120
_BIAS = 1152
_MASK = (1 << 32) - 1


@_part
def _append(keys, values, n, key, value):
    """Append an overflow term unless it is zero; return the new number of terms."""
    if value == 0.0:
        return n
    keys[n] = key
    values[n] = value
    return n + 1


@_part
def _add_unusual(slot, v, rows, counts, nonfinite, keys, values, n):
    """Count a sample that is not finite, or append one outside [TINY, HUGE] and its square as up to three terms."""
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
        n = _append(keys, values, n, key + KIND_SUM_HUGE, w)
        kind = KIND_SQUARES_HUGE
    else:
        w = v * _UP
        n = _append(keys, values, n, key + KIND_SUM, v)
        kind = KIND_SQUARES_TINY
    p, e = two_prod(w, w)
    n = _append(keys, values, n, key + kind, p)
    return _append(keys, values, n, key + kind, e)


@_inline
def _add_squares(r, x, rows, keys, values, n):
    """Add a double to the sum of squares of the row at word `r`; return the new number of terms."""
    for j in range(3, 6):
        rows[r + j], x = two_sum(rows[r + j], x)
    return _append(keys, values, n, r + KIND_SQUARES, x)


@_inline
def _add_sum(r, x, rows, keys, values, n):
    """Add a double to the sum of the row at word `r`; return the new number of terms."""
    for j in range(1, 3):
        rows[r + j], x = two_sum(rows[r + j], x)
    return _append(keys, values, n, r + KIND_SUM, x)


@_inline
def empty_row(r, rows):
    """Make the row at word `r` that of no samples."""
    for j in range(_U6):
        rows[r + j] = 0.0
    rows[r + _U6] = np.inf
    rows[r + _U7] = -np.inf


@_jit
def pack_rows(counts, odd, slots):
    """Move the rows with samples to the front, and write their slots; `odd` ones, if any, have non-finite samples."""
    n = _U0
    for i in range(np.uint64(slots.shape[0])):
        r = np.uint64(i) << _U3
        if counts[r] != 0 or (odd.shape[0] != 0 and odd[np.uint64(i)]):
            slots[n] = np.int64(i)
            to = n << _U3
            if to != r:
                for j in range(np.uint64(ROW)):
                    counts[to + j] = counts[r + j]
            n += _U1
    return int(n)


@_jit
def merge_rows(rows, counts, nonfinite, other_rows, other_counts, other_nonfinite, slots, start, keys, values, n):
    """Add row ``i`` of the other table to row ``slots[i]``; return the row reached, and the number of terms."""
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
def _super_add(digits, x):
    """Add a finite double to the superaccumulator, exactly. At most 2**30 additions between carries."""
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
def _super_carry(digits):
    """Bring every digit but the top one into ``[0, 2**32)``."""
    for d in range(DIGITS - 1):
        digits[d + 1] += digits[d] >> 32
        digits[d] &= _MASK


@_part
def _super_head(digits):
    """A double of the top 65 bits, after carrying: off by less than a unit in its last place; 0.0 only for zero."""
    negative = digits[DIGITS - 1] < 0
    if negative:
        for d in range(DIGITS):
            digits[d] = -digits[d]
        _super_carry(digits)
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
        _super_carry(digits)
        head = -head
    return head


@_jit
def fold_back(keys, values, start, rows, digits, out_keys, out_values):
    """Fold sorted overflow terms into the rows; return the term reached, by room in the output, and how many are left.

    The terms of a key and the words of its row are summed exactly and read back greatest part first, each at most one
    unit in the last place of the part before: two words of sum or three of squares go to the row, the rest to the
    output. The result depends on the exact sum alone.
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
            _super_add(digits, rows[j])
        pending = words
        while i < end and keys[i] == key:
            _super_add(digits, values[i])
            i += 1
            pending += 1
            if pending >= 1 << 28:  # pragma: no cover (4 GiB of terms of one label)
                _super_carry(digits)
                pending = 0
        _super_carry(digits)
        for j in range(first, first + words):
            head = _super_head(digits)
            rows[j] = head
            _super_add(digits, -head)
            _super_carry(digits)
        head = _super_head(digits)
        while head != 0.0:
            out_keys[n] = key
            out_values[n] = head
            n += 1
            _super_add(digits, -head)
            _super_carry(digits)
            head = _super_head(digits)
    return i, n
