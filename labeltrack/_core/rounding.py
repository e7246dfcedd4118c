"""From exact states to statistics, each rounded once: compiled, or in rational arithmetic where that is not certain."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from labeltrack._core import kernels
from labeltrack._core.arrays import Floats, Integers
from labeltrack._core.kernels import KINDS, ROW
from labeltrack._core.threads import in_slices

_SCALES = (0, 0, 600, 1200, -1200)  # powers of two that overflow terms of each kind are to be multiplied by


class Totals(NamedTuple):
    """Statistics of the finite samples of every slot; the arrays are read-only, as they are shared."""

    count: Integers  # type: ignore[assignment]  # hides tuple.count
    sum: Floats
    mean: Floats
    std: Floats
    min: Floats
    max: Floats


def totals(rows: Floats, keys: Integers, values: Floats) -> Totals:
    """Return the statistics of slots, from their rows, and sorted keys and values of the terms that folding left."""
    module, size = kernels.rounding, rows.shape[0] // ROW
    residue = np.zeros(size, dtype=np.uint8)
    if keys.size:
        residue[keys // KINDS] = 1
        residue[(keys // KINDS)[keys % KINDS > kernels.rows.KIND_SQUARES]] = 2
    count, doubt = np.empty(size, dtype=np.int64), np.empty(size, dtype=np.bool_)
    out = np.empty((5, size), dtype=np.float64)
    head = rows, rows.view(np.int64), residue
    doubts: list[int] = []
    in_slices(size, lambda start, stop: doubts.append(module.finalise(start, stop, *head, count, out, doubt)))
    if any(doubts):
        doubtful = np.flatnonzero(doubt)
        module.finalise_carefully(doubtful, *head, out, doubt)
        for slot in doubtful.tolist():
            if doubt[slot]:
                out[:3, slot] = _rational(*exact(slot, rows, keys, values))
    # Views: whether one can be made writable again depends on the memory it is of.
    count.flags.writeable = out.flags.writeable = False
    return Totals(count.view(), *out)


def exact(slot: int, rows: Floats, keys: Integers, values: Floats) -> tuple[int, Fraction, Fraction]:
    """Return count, sum and sum of squares of a slot as exact numbers; see `totals`."""
    row = rows[slot * ROW : (slot + 1) * ROW]
    sums = [sum(map(Fraction, words), Fraction(0)) for words in (row[1:3].tolist(), row[3:6].tolist())]
    mine = slice(*np.searchsorted(keys, [slot * KINDS, (slot + 1) * KINDS]))
    for key, value in zip(keys[mine].tolist(), values[mine].tolist(), strict=True):
        kind = key % KINDS
        sums[kind not in (0, 2)] += Fraction(value) * Fraction(2) ** _SCALES[kind]
    return int(row.view(np.int64)[0]), sums[0], sums[1]


def _rational(n: int, total: Fraction, squares: Fraction) -> tuple[float, float, float]:
    std = 0.0 if n == 1 else _root((squares - total * total / n) / (n - 1))
    return _rounded(total), _rounded(total / n), std


def _rounded(number: Fraction) -> float:
    """Round a fraction to the nearest double; beyond the largest, to infinity of its sign."""
    try:
        return float(number)
    except OverflowError:
        return math.inf if number > 0 else -math.inf


def _root(number: Fraction) -> float:
    """Return the correctly rounded square root of a non-negative fraction."""
    # The integer root is taken to more than 106 bits and made odd if inexact ("round to odd"), so that the division
    # rounds as if from the exact value (S. Boldo, G. Melquiond, IEEE Trans. Comput. 57, 2008).
    n, d = number.numerator, number.denominator
    if n == 0:
        return 0.0
    shift = (n.bit_length() - d.bit_length() - 110) // 2
    scaled_n, scaled_d = (n, d << 2 * shift) if shift >= 0 else (n << -2 * shift, d)
    root = math.isqrt(scaled_n // scaled_d)
    if root * root * scaled_d != scaled_n:
        root |= 1
    return _rounded(Fraction(root) * Fraction(2) ** shift)
