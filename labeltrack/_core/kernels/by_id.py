"""Compiled: what is kept of the course of each sample: its first and last value, when it was right, its label.

The state of one id is half a cache line of four 64-bit words:

====  =====  =======================================================================================
word  type   meaning
====  =====  =======================================================================================
0, 1  f8     first and last value
2     int64  low half: forgetting events; high half: how often it was right
3     int64  low half: flags; high half: number of the last step in which the id occurred, from 1 on
====  =====  =======================================================================================

Rows are sorted by buckets of slots before they are noted, as the state of a bucket fits the cache. A row is a record of
these words, and one of int64 for each label:

====  =====  =======================================================================================
word  type   meaning
====  =====  =======================================================================================
0     int64  high half: slot; low half: twice the number of the step, plus 1 if the sample is right
1     f8     value
====  =====  =======================================================================================
"""

from __future__ import annotations

import math

import numpy as np

from labeltrack._core.kernels.intrinsics import _U1, _U2, _U3, _jit, _lesser, _prefetch

WORDS = 4
HAS_VALUE, LAST_HIT = 1, 2
RECORD = 2  # words of a record without labels
_AHEAD = np.uint64(16)  # records between fetching a line and using it
_HALF = np.int64(32)
_LOW = np.int64((1 << 32) - 1)
_ONE = np.int64(1)


@_jit
def sort_rows(slots, values, labels, hits, step, shift, places, words, floats):
    """Write rows of a step as records to the places of buckets of ``2**shift`` slots, which are advanced.

    Slots are ``(N,)`` int32, labels ``(N, L)`` int64, hits ``(N,)`` uint8, or ``(0,)`` if not known. `words` and
    `floats` are the same memory.
    """
    bits, width, known = np.uint64(shift), np.uint64(RECORD + labels.shape[1]), hits.shape[0] > 0
    for i in range(np.uint64(slots.shape[0])):
        slot = np.int64(slots[i])
        bucket = np.uint64(slot) >> bits
        at = np.uint64(places[bucket]) * width
        _prefetch(words, at + _AHEAD * width)
        places[bucket] += 1
        words[at] = slot << _HALF | np.int64(step) << _ONE | (np.int64(hits[i]) if known else np.int64(0))
        floats[at + _U1] = values[i]
        for j in range(np.uint64(labels.shape[1])):
            words[at + _U2 + j] = labels[i, j]


@_jit
def note_rows(heads, floats, start, stop, state, words, known, many, drop, skip_nan, has_hits, slots, values, already):
    """Add records to the state, and write the slots and values of those that count after those `already` there.

    Returns:
        How many slots and values there are then; how many records are of an id that had occurred in its step before,
        and the smallest first word of these, or -1; how many labels of known ids are others.
    """
    labels = np.uint64(many)
    width = np.uint64(RECORD) + labels
    kept = np.uint64(already)
    again = changed = 0
    example = np.int64(-1)
    last = np.uint64(stop - 1)
    for i in range(np.uint64(start), np.uint64(stop)):
        ahead = np.uint64(heads[np.uint64(_lesser(i + _AHEAD, last)) * width] >> _HALF)
        _prefetch(state, ahead << _U2)
        _prefetch(known, ahead * labels)
        at = i * width
        head = heads[at]
        slot, step, hit = np.uint64(head >> _HALF), (head & _LOW) >> _ONE, head & _ONE
        r = slot << _U2
        word = words[r + _U3]
        if word >> _HALF == step:
            again += 1
            example = head if example < 0 or head < example else example
            if drop:
                continue
        for j in range(labels):
            if word == 0:
                known[slot * labels + j] = heads[at + _U2 + j]
            elif known[slot * labels + j] != heads[at + _U2 + j]:
                changed += 1
        flags = word & np.int64(HAS_VALUE | LAST_HIT)
        v = floats[at + _U1]
        slots[kept] = slot
        values[kept] = v
        kept += _U1
        if not (skip_nan and math.isnan(v)):
            if not flags & HAS_VALUE:
                state[r] = v
            state[r + _U1] = v
            flags |= HAS_VALUE
        if has_hits:  # which are 1 or 0 at random: branches would mispredict
            words[r + _U2] += (hit << _HALF) + (flags >> _ONE & (hit ^ _ONE))
            flags = flags & HAS_VALUE | hit << _ONE
        words[r + _U3] = step << _HALF | np.int64(flags)
    return int(kept), again, int(example), changed
