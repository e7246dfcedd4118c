"""Compiled: what is kept of the course of each sample: its first and last value, when it was right, its label.

The state of one id is half a cache line of four 64-bit words:

====  =====  =======================================================================================
word  type   meaning
====  =====  =======================================================================================
0, 1  f8     first and last value
2     int64  low half: forgetting events; high half: how often it was right
3     int64  low half: flags; high half: number of the last step in which the id occurred, from 1 on
====  =====  =======================================================================================
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from labeltrack._core.kernels.intrinsics import _U1, _U2, _U3, _jit, _lesser, _prefetch

WORDS = 4
HAS_VALUE, HAS_HIT, FIRST_HIT, LAST_HIT = 1, 2, 4, 8
KNOWN, AGAIN, NEW = range(3)
"""What a row is: of an id that is known, of one that has occurred in this step before, of one that is new."""
_AHEAD = 16  # rows between fetching the line of an id and using it
_HALF = np.int64(32)
_EVENT, _HIT = np.int64(1), np.int64(1 << 32)


@_jit
def note_rows(
    slots: Any, values: Any, hits: Any, state: Any, words: Any, step: int, drop: bool, skip_nan: bool, rows: Any
) -> int:
    """Add the rows of a step to the state; return how many are of an id that has occurred in this step before.

    Args:
        slots: ``(N,)`` int32: the slot of the id of each row.
        values: ``(N,)`` float32 or float64.
        hits: ``(N,)`` uint8, 1 where the sample is right; ``(0,)`` if that is not known.
        state: ``(S * WORDS,)`` float64.
        words: The same memory as int64.
        step: Number of the step, from 1 on.
        drop: Whether an id counts once per step.
        skip_nan: Whether NaN is neither a first nor a last value.
        rows: ``(N,)`` uint8: what each row is is written here.
    """
    last = slots.shape[0] - 1
    again = 0
    for i in range(slots.shape[0]):
        _prefetch(state, np.uint64(slots[_lesser(i + _AHEAD, last)]) << _U2)
        r = np.uint64(slots[i]) << _U2
        word = words[r + _U3]
        rows[i] = KNOWN if word else NEW
        if word >> _HALF == step:
            again += 1
            if drop:
                rows[i] = AGAIN
                continue
        flags = word & np.int64(15)
        v = np.float64(values[i])
        if not (skip_nan and math.isnan(v)):
            if not flags & HAS_VALUE:
                state[r] = v
            state[r + _U1] = v
            flags |= HAS_VALUE
        if hits.shape[0]:
            if hits[i]:
                words[r + _U2] += _HIT
                flags |= LAST_HIT if flags & HAS_HIT else LAST_HIT | FIRST_HIT
            elif flags & LAST_HIT:
                words[r + _U2] += _EVENT
                flags ^= LAST_HIT
            flags |= HAS_HIT
        words[r + _U3] = np.int64(step) << _HALF | np.int64(flags)
    return again


@_jit
def note_labels(slots: Any, labels: Any, rows: Any, known: Any) -> int:
    """Keep the labels of new ids; return in how many rows a known id has another label.

    Args:
        slots: ``(N,)`` int32.
        labels: ``(N,)`` int64 keys.
        rows: ``(N,)`` uint8 of `note_rows`.
        known: ``(S,)`` int64: the label of each slot, written to.
    """
    last = slots.shape[0] - 1
    changed = 0
    for i in range(slots.shape[0]):
        _prefetch(known, np.uint64(slots[_lesser(i + _AHEAD, last)]))
        slot = np.uint64(slots[i])
        if rows[i] == NEW:
            known[slot] = labels[i]
        elif rows[i] == KNOWN and known[slot] != labels[i]:
            changed += 1
    return changed
