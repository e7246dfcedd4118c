"""Exact running statistics of a table of slots: memory and policy around the compiled kernels."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from labeltrack._compiled import kernels, read_only
from labeltrack._fixed import FixedPoint

ROW = 8
KINDS = 8
_SPILL_ROOM = 1 << 15  # pairs; 512 KiB. One batch of spills is sorted and settled in about 2 ms.
_SCALES = (0, 0, 600, 1200, -1200)  # the power of two that a spill of each kind is to be multiplied with

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


class Totals(NamedTuple):
    """Finite samples of every slot, finalised: each entry is the exact value rounded once."""

    count: Integers  # type: ignore[assignment]  # hides tuple.count, which nobody misses
    sum: Floats
    mean: Floats
    std: Floats
    min: Floats
    max: Floats


def _rows(size: int) -> Floats:
    """Return an empty state of `size` rows, each on a cache line of its own."""
    memory = np.zeros(size * ROW + ROW, dtype=np.float64)
    offset = (-memory.ctypes.data // 8) % ROW
    rows = memory[offset : offset + size * ROW]
    rows[6::ROW] = np.inf
    rows[7::ROW] = -np.inf
    return rows


class Accumulator:
    """Count, exact sum, exact sum of squares, minimum and maximum of the samples of each slot.

    The state of a slot is the sum of the words in its row plus the spills with its key: always the exact
    value, whatever order the samples came in (see `labeltrack._kernels`).
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.rows = _rows(size)
        self.counts: Integers = self.rows.view(np.int64)
        self.nonfinite: Integers = np.zeros((size, 3), dtype=np.int64)
        # What earlier settling left beside the rows, sorted by key; and the spills since then.
        self.keys: Integers = np.empty(0, dtype=np.int64)
        self.values: Floats = np.empty(0, dtype=np.float64)
        self._new_keys: Integers | None = None
        self._new_values: Floats | None = None
        self._new = 0
        self._left_over = _SPILL_ROOM
        self._settled = True
        self._fixed = FixedPoint(size)

    # -- adding -------------------------------------------------------------------------------------------

    def add(
        self,
        labels: npt.NDArray[Any],
        samples: npt.NDArray[Any],
        start: int = 0,
        stop: int | None = None,
        *,
        low: int = 0,
        skip: bool = False,
    ) -> int:
        """Add samples to the slots ``label - low``.

        Args:
            labels: ``(N,)`` uint8, int32 or int64, C-contiguous.
            samples: ``(N,)`` float32 or float64, C-contiguous.
            start: First sample.
            stop: One past the last; all by default.
            low: The label of slot 0.
            skip: Whether labels outside the table are passed over, or end the pass.

        Returns:
            The position reached: `stop`, or that of the first label outside the table.
        """
        labels, samples = read_only(labels), read_only(samples)
        position, end = start, samples.shape[0] if stop is None else stop
        while position < end:
            keys, values = self._room()
            self._settled = False  # after _room(), which may settle
            last = self._fixed.plan(samples, position, end)
            where = (labels, samples, position, last, low, self.size, skip)
            state = (self.rows, self.counts, self.nonfinite, keys, values, self._new)
            if self._fixed.scale:
                reached, self._new, poor = kernels().reduce_fixed(*where, *state, *self._fixed.state())
                if self._fixed.note(reached - position, poor=poor):
                    self._drain(keep=not poor)
            else:
                reduce = kernels().reduce_float32 if samples.dtype == np.float32 else kernels().reduce_float64
                (reached, self._new), poor = reduce(*where, *state), False
            position = int(reached)
            if position < last and not poor and self._new <= keys.shape[0] - 4:
                return position  # a label outside the table, not a lack of room
        return end

    def _drain(self, *, keep: bool = False) -> None:
        """Move what the fixed-point table holds to the rows."""
        if self._fixed.held:
            slot = 0
            table, scale, *_ = self._fixed.state()
            while slot < self.size:
                keys, values = self._room()
                self._settled = False
                slot, self._new = kernels().drain_fixed(
                    table, scale, slot, self.rows, self.counts, keys, values, self._new
                )
        self._fixed.drained(keep=keep)

    def merge(self, other: Accumulator, slots: Integers) -> None:
        """Add slot ``i`` of another accumulator to slot ``slots[i]`` of this one. `other` is only read."""
        module = kernels()
        other._drain(keep=True)
        position = 0
        while position < other.size:
            keys, values = self._room()
            self._settled = False
            position, self._new = module.merge_rows(
                self.rows,
                self.counts,
                self.nonfinite,
                other.rows,
                other.counts,
                other.nonfinite,
                slots,
                position,
                keys,
                values,
                self._new,
            )
        for keys, values in other.spills():
            self._settled = False
            self.keys = np.concatenate([self.keys, slots[keys // KINDS] * KINDS + keys % KINDS])
            self.values = np.concatenate([self.values, values])

    def spills(self) -> list[tuple[Integers, Floats]]:
        """Return what has to be added to the rows to have the exact sums, as (keys, values) pairs."""
        pairs = [(self.keys, self.values)] if self.keys.size else []
        if self._new and self._new_keys is not None and self._new_values is not None:
            pairs.append((self._new_keys[: self._new], self._new_values[: self._new]))
        return pairs

    def _room(self) -> tuple[Integers, Floats]:
        """Return the spill buffers, with room for the next samples."""
        if self._new_keys is None or self._new_values is None:
            self._new_keys = np.empty(_SPILL_ROOM, dtype=np.int64)
            self._new_values = np.empty(_SPILL_ROOM, dtype=np.float64)
        if self._new > _SPILL_ROOM // 2:
            self._flush()
        return self._new_keys, self._new_values

    def _flush(self) -> None:
        """Move new spills over; settle them once they outnumber what settling left the last time."""
        pairs = self.spills()
        self.keys = np.concatenate([keys for keys, _ in pairs])
        self.values = np.concatenate([values for _, values in pairs])
        self._new = 0
        if self.keys.size > 2 * self._left_over:
            self.settle()

    def settle(self) -> None:
        """Fold the spills into the rows; what remains beside them is as short as it can be."""
        self._drain(keep=True)
        if self._settled:
            return
        pairs = self.spills()
        if pairs:
            module = kernels()
            keys = np.concatenate([keys for keys, _ in pairs])
            values = np.concatenate([values for _, values in pairs])
            order = np.argsort(keys)  # order within a key does not matter: the sum is exact
            keys, values = keys[order], values[order]
            digits = np.zeros(module.DIGITS, dtype=np.int64)
            room = max(4 * module.DIGITS, min(2 * keys.size, 1 << 16))
            left: list[tuple[Integers, Floats]] = []
            position = 0
            while position < keys.size:
                out_keys = np.empty(room, dtype=np.int64)
                out_values = np.empty(room, dtype=np.float64)
                position, n = module.settle(keys, values, position, self.rows, digits, out_keys, out_values)
                left.append((out_keys[:n].copy(), out_values[:n].copy()))
            self.keys = np.concatenate([k for k, _ in left])
            self.values = np.concatenate([v for _, v in left])
            self._new = 0
        self._left_over = max(_SPILL_ROOM, self.keys.size)
        self._settled = True

    def take(self, slots: Integers) -> Accumulator:
        """Return a new accumulator with the given slots of this one, in that order, no slot twice."""
        self.settle()
        taken = Accumulator(slots.shape[0])
        taken.rows.reshape(-1, ROW)[...] = self.rows.reshape(-1, ROW)[slots]
        taken.nonfinite[...] = self.nonfinite[slots]
        if self.keys.size:
            new_slot = np.full(self.size, -1, dtype=np.int64)
            new_slot[slots] = np.arange(slots.shape[0])
            moved = new_slot[self.keys // KINDS]
            keep = moved >= 0
            keys = moved[keep] * KINDS + self.keys[keep] % KINDS
            order = np.argsort(keys, kind="stable")
            taken.keys, taken.values = keys[order], self.values[keep][order]
        return taken

    def copy(self) -> Accumulator:
        """Return an independent copy."""
        return self.take(np.arange(self.size))

    def release(self) -> None:
        """Settle and give all buffers back; for accumulators that are kept as results."""
        self.settle()
        self._fixed = FixedPoint(self.size)
        self._new_keys = self._new_values = None

    # -- reading ------------------------------------------------------------------------------------------

    def occupied(self) -> Integers:
        """Return the slots that got at least one sample, finite or not."""
        self._drain(keep=True)
        return np.flatnonzero((self.counts[::ROW] > 0) | self.nonfinite.any(axis=1))

    def totals(self) -> Totals:
        """Round every statistic of every slot once.

        A compiled pass does it with error bounds; the few slots whose rounding it cannot certify (a tie,
        extreme cancellation, samples beyond 1e132 or below 1e-144) are done in rational arithmetic.
        """
        self.settle()
        module = kernels()
        residue = np.zeros(self.size, dtype=np.uint8)
        kinds = self.keys % KINDS
        residue[self.keys // KINDS] = 1
        residue[(self.keys // KINDS)[kinds > module.KIND_SQUARES]] = 2
        out = np.empty((self.size, 3), dtype=np.float64)
        doubt = np.zeros(self.size, dtype=np.bool_)
        module.finalise(self.rows, self.counts, residue, out, doubt)
        for slot in np.flatnonzero(doubt).tolist():
            out[slot] = self._rational(slot)
        empty = self.counts[::ROW] == 0
        return Totals(
            self.counts[::ROW].copy(),
            out[:, 0].copy(),
            out[:, 1].copy(),
            out[:, 2].copy(),
            # `+ 0.0` turns -0.0 into 0.0: which of the two zeros came first must not show.
            np.where(empty, np.nan, self.rows[6::ROW] + 0.0),
            np.where(empty, np.nan, self.rows[7::ROW] + 0.0),
        )

    def exact(self, slot: int) -> tuple[int, Fraction, Fraction]:
        """Return count, sum and sum of squares of a slot as exact numbers."""
        self.settle()  # which leaves the spills sorted
        row = self.rows[slot * ROW : (slot + 1) * ROW].tolist()
        total = Fraction(row[1]) + Fraction(row[2])
        squares = Fraction(row[3]) + Fraction(row[4]) + Fraction(row[5])
        mine = slice(*np.searchsorted(self.keys, [slot * KINDS, (slot + 1) * KINDS]))
        for key, value in zip(self.keys[mine].tolist(), self.values[mine].tolist(), strict=True):
            kind = key % KINDS
            part = Fraction(value) * Fraction(2) ** _SCALES[kind]
            if kind in (0, 2):
                total += part
            else:
                squares += part
        return int(self.counts[slot * ROW]), total, squares

    def _rational(self, slot: int) -> tuple[float, float, float]:
        """Return sum, mean and standard deviation of a slot by rational arithmetic."""
        n, total, squares = self.exact(slot)
        std = 0.0 if n == 1 else _root((squares - total * total / n) / (n - 1))
        return _rounded(total), _rounded(total / n), std

    # -- state --------------------------------------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        """Return plain arrays: rows with counts as ``(K, 8)`` int64 words, non-finite counts, spills."""
        self.settle()
        return {
            "rows": self.counts.reshape(-1, ROW).copy(),
            "nonfinite": self.nonfinite.copy(),
            "keys": self.keys.copy(),
            "values": self.values.copy(),
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore what `__getstate__` gave."""
        rows = np.asarray(state["rows"], dtype=np.int64)
        self.__init__(rows.shape[0])  # type: ignore[misc]
        self.counts[...] = rows.reshape(-1)
        self.nonfinite[...] = state["nonfinite"]
        self.keys = np.array(state["keys"], dtype=np.int64)
        self.values = np.array(state["values"], dtype=np.float64)


def _rounded(number: Fraction) -> float:
    """Round a fraction to the nearest double; beyond the largest, infinity of its sign."""
    try:
        return float(number)
    except OverflowError:
        return math.inf if number > 0 else -math.inf


def _root(number: Fraction) -> float:
    """Return the correctly rounded square root of a non-negative fraction.

    The integer square root is taken to more than 106 bits and made odd if inexact ("round to odd"), so that the
    final division rounds as if from the exact value (S. Boldo, G. Melquiond, IEEE Trans. Comput. 57, 2008).
    """
    n, d = number.numerator, number.denominator
    if n == 0:
        return 0.0
    shift = (n.bit_length() - d.bit_length() - 110) // 2
    scaled_n, scaled_d = (n, d << 2 * shift) if shift >= 0 else (n << -2 * shift, d)
    root = math.isqrt(scaled_n // scaled_d)
    if root * root * scaled_d != scaled_n:
        root |= 1
    return _rounded(Fraction(root) * Fraction(2) ** shift)
