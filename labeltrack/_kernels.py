"""The pass that labeltrack is about: count, sum, sum of squares, minimum and maximum per label, exactly.

`add_exactly` is the definition. It takes any finite double, one sample after the other, by error-free additions, and
everything else that adds samples must give the same state to the last bit; the tests compare them. What a row of the
state holds, and where the part goes that does not fit, is described in `labeltrack._core.kernels.rows`.

The fast paths are for what training loops really have:

===================================  =============================================================================
path                                 what takes it
===================================  =============================================================================
`_core.kernels.fixed32`              most float32 losses: sums in integers, 32 bits a sample
`_core.kernels.fixed63`              float64 and wide float32 losses, zeros and ones: sums in integers of 63 bits
`_core.kernels.partition`            many labels: samples are sorted by ranges of labels that fit the cache first
`_core.kernels.hashing`              integer labels that are too far apart to be slots themselves
`_core.kernels.dictionary`           strings
`_core.kernels.rounding`             no path but the end of all: rows to sum, mean and standard deviation, rounded once
===================================  =============================================================================

`_core.accumulator` chooses among them. Samples that a fast path cannot represent exactly come back to `add_exactly`.
With ``NUMBA_DISABLE_JIT=1`` the same source runs under the interpreter.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from labeltrack._core.kernels.intrinsics import (
    _U1,
    _U2,
    _U3,
    _U4,
    _U5,
    _U6,
    _U7,
    _jit,
    _prefetch,
    _wrapping,
    two_prod,
    two_sum,
)
from labeltrack._core.kernels.rows import HUGE, KIND_SQUARES, KIND_SUM, KINDS, TINY, _odd_sample, _spill

_TINY_SQUARE = TINY * TINY
_AHEAD = 16  # samples between prefetching a row and adding to it
_FAR = 4096  # rows from which they are prefetched; 256 KB. At 4000 both ways are equal, at 30 000 370 against 270


@_wrapping
@_jit
def add_exactly(
    labels: Any,
    samples: Any,
    start: int,
    stop: int,
    low: int,
    size: int,
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
        size: Number of slots. A label outside the table never writes: the pass stops before it.
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
