"""Compiled: a hash table from integer labels that are far apart to codes."""

from __future__ import annotations

import numpy as np

from labeltrack._core.kernels.intrinsics import _STREAM, _U1, _U2, _inline, _jit, _prefetch, _prefetch_read

_AHEAD = 16  # labels between prefetching a place and probing it
_FAR_KEYS = 1 << 15  # words of a table (256 KiB) from which places are prefetched


@_inline
def _first_place(label, mask):
    """Return the word of the table where probing for a label starts."""
    h = np.uint64(np.int64(label))
    h = (h ^ (h >> np.uint64(32))) * np.uint64(0x9E3779B97F4A7C15)
    return ((h ^ (h >> np.uint64(29))) << _U1) & mask


@_jit
def encode_int64(labels, start, stop, table, found, size, frozen, codes):
    """Write codes of labels from index 0; new ones get the next, or `size` if `frozen`. Return the position reached.

    `table` has ``2**b`` pairs of a label and its code, -1 in an empty place: two arrays took half as long again. The
    pass stops where `found`, the label of each code, is full; `size` is ``(1,)``, so all changes within one call.
    """
    mask = np.uint64(table.shape[0] - 1)
    first = np.uint64(start)
    last = np.uint64(max(labels.shape[0], 1) - 1)
    far = table.shape[0] > _FAR_KEYS
    n = size[0]
    for i in range(np.uint64(stop - start)):
        _prefetch_read(labels, first + i + _STREAM)
        if far:
            ahead = min(first + i + np.uint64(_AHEAD), last)
            _prefetch(table, _first_place(labels[ahead], mask))
        label = np.int64(labels[first + i])
        place = _first_place(label, mask)
        while True:
            code = table[place + _U1]
            if code >= 0 and table[place] == label:
                break
            if code < 0:
                code = np.int64(n)
                if not frozen:
                    if n >= found.shape[0]:
                        return np.int64(first + i)
                    found[code] = label
                    n += 1
                    size[0] = n
                    table[place] = label
                    table[place + _U1] = code
                break
            place = (place + _U2) & mask
        codes[i] = code
    return stop
