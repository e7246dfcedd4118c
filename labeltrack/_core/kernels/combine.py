"""Compiled: the samples that a mask selects, keys of several labels combined into one, codes of pairs."""

from __future__ import annotations

import numpy as np

from labeltrack._core.kernels.intrinsics import _U0, _jit


@_jit
def select(column, mask, start, stop, out, at, end):
    """Copy the elements that a mask (uint8, 0 or 1) selects to places from `at` to before `end`, where others write."""
    # Without a branch, as a random mask mispredicts half of the time: numpy's indexing takes three times as long then.
    n, last = np.uint64(at), np.uint64(end)
    for i in range(np.uint64(start), np.uint64(stop)):
        if n >= last:
            break
        out[n] = column[i]
        n += np.uint64(mask[i])
    return np.int64(n)


@_jit
def add_offsets(part, start, stop, low, size, factor, first, keys):
    """Add keys of one label, less `low`, times `factor`, to combined keys; return whether all are within `size`."""
    beyond = _U0
    for i in range(np.uint64(start), np.uint64(stop)):
        offset = np.int64(part[i]) - low
        beyond |= np.uint64(np.uint64(offset) >= np.uint64(size))
        keys[i] = (np.int64(0) if first else np.int64(keys[i])) + offset * factor
    return beyond == _U0


@_jit
def add_ranks(codes, start, stop, ranks, first, keys):
    """Add the ``(V,)`` ranks of int32 codes, multiplied by their factor already, to combined keys."""
    for i in range(np.uint64(start), np.uint64(stop)):
        keys[i] = (np.int64(0) if first else np.int64(keys[i])) + ranks[np.uint64(codes[i])]


@_jit
def look_up_pairs(first, second, table, codes):
    """Write the codes of pairs of labels; return whether all are in the ``(R, C)`` table, which has -1 for none."""
    rows, columns = np.uint64(table.shape[0]), np.uint64(table.shape[1])
    outside, beyond = _U0, np.int32(0)
    for i in range(np.uint64(codes.shape[0])):  # apart, where it takes vector instructions: 0.86 instead of 1.13 ns
        row, column = np.uint64(np.int64(first[i])), np.uint64(np.int64(second[i]))
        outside |= np.uint64(row >= rows) | np.uint64(column >= columns)
    if outside != _U0:
        return False
    for i in range(np.uint64(codes.shape[0])):
        code = table[np.uint64(np.int64(first[i])), np.uint64(np.int64(second[i]))]
        beyond |= code
        codes[i] = code
    return beyond >= 0
