"""Compiled: from exact rows to statistics, each rounded once."""

from __future__ import annotations

import math

import numpy as np

from labeltrack._core.kernels import ROW
from labeltrack._core.kernels.intrinsics import _inline, _jit, _part, fma, two_prod, two_sum

_U1, _U2, _U3, _U4, _U5, _U6, _U7 = map(np.uint64, range(1, 8))
_SLACK = 2.0**-96  # relative error allowed for double-double operations, whose own is a few units of 2**-104
_FLOOR = 2.0**-900  # below this, the low halves of double-doubles could underflow


@_inline
def _divide(a0, a1, b0, b1):
    """Return the quotient of two double-doubles as one, off by a few units of 2**-104."""
    # A quotient, and its exact remainder divided: one division instead of two in turn.
    inverse = 1.0 / b0
    q0 = a0 * inverse
    p, e = two_prod(q0, b0)
    return two_sum(q0, (((a0 - p) - e) + (a1 - q0 * b1)) * inverse)


@_inline
def _certain(high, low, error):
    """Return whether every number within `error` of ``high + low`` rounds to `high` (Ziv's test)."""
    return high + (low - error) == high and high + (low + error) == high


@_inline
def _mean(s0, s1, n):
    """Return ``(s0 + s1) / n`` rounded once, and whether that is certain."""
    nf = np.float64(n)
    if n & (n - 1) == 0:
        return s0 / nf, True  # a power of two, so that the rounding of the sum is that of the mean
    m0, m1 = _divide(s0, s1, nf, 0.0)
    if _certain(m0, m1, _SLACK * abs(m0)):
        return m0, True
    # Close to the middle between two doubles, or there, which is frequent with few samples: a third of all sums is
    # divisible by three. The remainder decides, if it is a double.
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
def _deviation(s0, s1, q0, q1, q2, nf):
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
def _root(a0, a1, lost, nf):
    """Return the root of ``(a0 + a1) / (n * (n - 1))`` rounded once, and whether `lost` leaves that certain."""
    d0, d1 = two_prod(nf, nf - 1.0)
    v0, v1 = _divide(a0, a1, d0, d1)
    y0 = math.sqrt(v0)
    y1 = (fma(-y0, y0, v0) + v1) / (2.0 * y0)
    y0, y1 = two_sum(y0, y1)
    return y0, v0 > _FLOOR and _certain(y0, y1, y0 * (lost / a0 + _SLACK))


@_jit
def finalise(start, stop, rows, counts, residue, number, out, doubt):
    """Write the number of samples, and to ``(5, K)`` `out` sum, mean, std, minimum and maximum, each rounded once.

    `residue` is 0 if the row is the exact sum, 1 if there are overflow terms beside it, 2 if scaled ones. `doubt` tells
    where the first three may not be correctly rounded; how many there are is returned.
    """
    doubts = 0
    for k in range(np.uint64(start), np.uint64(stop)):
        r = np.uint64(k) << _U3
        number[k] = n = counts[r]
        doubt[k] = False
        if n == 0:
            out[0, k] = 0.0
            out[1, k] = out[2, k] = out[3, k] = out[4, k] = np.nan
            continue
        # `+ 0.0` turns -0.0 into 0.0: which of the two zeros came first must not show.
        out[3, k] = rows[r + _U6] + 0.0
        out[4, k] = rows[r + _U7] + 0.0
        # 20 ns for nearly all rows; four words take 100.
        if residue[k] == 0:
            s0, s1 = two_sum(rows[r + _U1], rows[r + _U2])
            if n == 1:  # where labels have few samples, these are many
                out[0, k] = out[1, k] = s0
                out[2, k] = 0.0
                continue
            m0, sure = _mean(s0, s1, n)
            if sure and abs(s0) > _FLOOR:
                y0, sure = _deviation(s0, s1, rows[r + _U3], rows[r + _U4], rows[r + _U5], np.float64(n))
                if sure:
                    out[0, k] = s0
                    out[1, k] = m0
                    out[2, k] = y0
                    continue
        out[0, k] = out[1, k] = out[2, k] = np.nan
        doubt[k] = True
        doubts += 1
    return doubts


@_part
def _certified(k, r, rows, counts, residue, out):
    """Round one row; return whether that is certain."""
    n = counts[r]
    nf = np.float64(n)
    s0, s1 = two_sum(rows[r + 1], rows[r + 2])
    # The first overflow term is at most one unit in the last place of the last word, all others sum to less again.
    rest = 2.0**-51 * abs(rows[r + 2]) if residue[k] else 0.0
    out[0, k] = s0
    sure = residue[k] < 2 and (rest == 0.0 or _certain(s0, s1, rest))
    if rest == 0.0:
        out[1, k], mean_sure = _mean(s0, s1, n)
        sure &= mean_sure and (abs(s0) > _FLOOR or (s0 == 0.0 and s1 == 0.0))
    else:
        m0, m1 = _divide(s0, s1, nf, 0.0)
        out[1, k] = m0
        sure &= abs(s0) > _FLOOR and _certain(m0, m1, _SLACK * abs(m0) + rest)
    if n == 1:
        out[2, k] = 0.0
        return sure

    # n * squares - sum**2, exactly: six products of two words each, cascaded over four words.
    a0 = a1 = a2 = a3 = lost = 0.0
    q0, q1, q2 = rows[r + 3], rows[r + 4], rows[r + 5]
    for left, right in ((nf, q0), (-s0, s0), (nf, q1), (-2.0 * s0, s1), (nf, q2), (-s1, s1)):
        p, e = two_prod(left, right)
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
        out[2, k] = 0.0
        return sure
    if a0 <= _FLOOR or lost >= 0.5 * a0:
        return False
    out[2, k], root_sure = _root(a0, a1, lost, nf)
    return sure and root_sure


@_jit
def finalise_carefully(slots, rows, counts, residue, out, doubt):
    """Do as `finalise` for some rows, with four words for what cancels: rarely needed, and half a second to compile."""
    for i in range(slots.shape[0]):
        k = slots[i]
        doubt[k] = not _certified(k, k * ROW, rows, counts, residue, out)
