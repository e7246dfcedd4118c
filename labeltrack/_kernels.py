"""The pass that labeltrack is about: count, sum, sum of squares, minimum and maximum per label, exactly.

`add_exactly` is the definition. It takes any doubles, one after the other, by error-free additions; every fast path
must give the same statistics to the last bit, and the tests compare them. `labeltrack._core.kernels.rows` describes
the state: a row of eight words per label, and overflow terms for what the words cannot hold.

The fast paths are for what training loops produce. `_core.accumulator` chooses the format of the sums,
`_core.key_tables` the table:

==============================  ======================================================================================
module of `_core.kernels`       used for
==============================  ======================================================================================
`fixed32`                       most float32 losses, zeros and ones: sums of integers of 32 bits
`fixed63`                       float64 losses, float32 losses of many magnitudes: sums of integers of 63 bits
`partition`                     many labels: samples are first sorted by ranges of labels whose rows fit the cache
`hashing`                       integer labels too far apart for a slot each
`strings`                       strings: they become integer codes
`rounding`                      no pass over samples: rows become sum, mean and standard deviation, each rounded once
==============================  ======================================================================================

Samples that a fixed-point format cannot represent come back to `add_exactly`. With ``NUMBA_DISABLE_JIT=1`` the same
source runs under the interpreter.
"""

from __future__ import annotations

import math

import numpy as np

from labeltrack._core.kernels import DONE, FULL, KINDS, NONFINITE, OUTSIDE
from labeltrack._core.kernels.intrinsics import _jit, _prefetch, two_prod, two_sum
from labeltrack._core.kernels.rows import HUGE, KIND_SQUARES, KIND_SUM, TINY, _add_unusual, _append

_U1, _U2, _U3, _U4, _U5, _U6, _U7 = map(np.uint64, range(1, 8))
_TINY_SQUARE = TINY * TINY
_AHEAD = 16  # samples between prefetching a row and adding to it
_FAR = 4096  # rows (256 KiB) from which they are prefetched; at 30 000 rows, 370 instead of 270 million samples/s


@_jit
def add_exactly(labels, samples, start, stop, low, size, rows, counts, nonfinite, keys, values, n):
    """Add ``samples[start:stop]``, float64, to the rows of their int64 labels by error-free additions.

    The slot of a sample is ``label - low``, below `size`; `rows` to `n` are the state, with room for four more terms.

    Returns:
        The position reached, the number of terms, and why the pass stopped: `DONE`; before a label that is `OUTSIDE`
        the table, and is not added; before a `NONFINITE` sample, if `nonfinite` has no rows; or `FULL` if there is no
        room for four more terms.
    """
    # Unsigned indices spare the branch that numba emits for negative ones.
    limit = np.uint64(size)
    room = keys.shape[0] - 4
    far = size > _FAR
    last = labels.shape[0] - _AHEAD
    for i in range(start, stop):
        if far and i < last:
            _prefetch(rows, np.uint64(labels[i + _AHEAD] - low) << _U3)
        slot = np.uint64(labels[i] - low)
        if slot >= limit:
            return i, n, OUTSIDE
        v = samples[i]
        # Bitwise `&`: a branch on zeros, which are common among losses and accuracies, would mispredict.
        if not (abs(v) <= HUGE) or ((v * v < _TINY_SQUARE) & (v != 0.0)):
            if nonfinite.shape[0] == 0 and not math.isfinite(v):
                return i, n, NONFINITE
            n = _add_unusual(np.int64(slot), v, rows, counts, nonfinite, keys, values, n)
            if n > room:
                return i + 1, n, FULL
            continue
        r = slot << _U3
        counts[r] += 1
        # The sum is two words: what the first addition rounds off goes to the second word, and so on.
        s0, e = two_sum(rows[r + _U1], v)
        s1, es = two_sum(rows[r + _U2], e)
        # The sum of squares is three, and the square itself two.
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
        # One instruction each; compare-and-branch was slower.
        rows[r + _U6] = min(rows[r + _U6], v)
        rows[r + _U7] = max(rows[r + _U7], v)
        if (es != 0.0) | (eq != 0.0) | (ed != 0.0):  # rare: what the last words round off
            key = np.int64(slot) * KINDS
            n = _append(keys, values, n, key + KIND_SUM, es)
            n = _append(keys, values, n, key + KIND_SQUARES, eq)
            n = _append(keys, values, n, key + KIND_SQUARES, ed)
            if n > room:
                return i + 1, n, FULL
    return stop, n, DONE
