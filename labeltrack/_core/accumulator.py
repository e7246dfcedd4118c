"""Exact running statistics of a table of slots: memory and policy around the compiled kernels."""

from __future__ import annotations

import ctypes
import math
from fractions import Fraction
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from labeltrack._core import kernels
from labeltrack._core.arrays import aligned_words, cast, read_only
from labeltrack._core.fixed_point import FixedPoint, Tight, Wide
from labeltrack._core.threads import in_slices

if TYPE_CHECKING:
    from collections.abc import Sequence

ROW = 8
KINDS = 8
_BLOCK = 1 << 15  # samples cast at a time, so that one kernel does for all dtypes
_ASIDE = 1 << 12  # samples set aside at first
_LARGEST_ASIDE = 1 << 22
_SPILL_ROOM = 1 << 15  # pairs; 512 KiB. One batch of spills is sorted and settled in about 2 ms.
_SPILLS = 1 << 10  # of a thread that drains a table
_SCALES = (0, 0, 600, 1200, -1200)  # the power of two that a spill of each kind is to be multiplied with

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

# Shared, as there is nothing in them to be written to.
_NO_INTEGERS: Integers = np.empty(0, dtype=np.int64)
_NO_FLOATS: Floats = np.empty(0, dtype=np.float64)
_NONE_NONFINITE: Integers = np.empty((0, 3), dtype=np.int64)


class Totals(NamedTuple):
    """Finite samples of every slot, finalised: each entry is the exact value rounded once."""

    count: Integers  # type: ignore[assignment]  # hides tuple.count, which nobody misses
    sum: Floats
    mean: Floats
    std: Floats
    min: Floats
    max: Floats


def _empty_rows(words: Integers) -> Floats:
    """Make words of zero the state of no samples."""
    rows = words.view(np.float64)
    rows.reshape(-1, ROW)[:, 6:] = (np.inf, -np.inf)
    return rows


class Accumulator:
    """Count, exact sum, exact sum of squares, minimum and maximum of the samples of each slot.

    The state of a slot is the sum of the words in its row plus the spills with its key: always the exact
    value, whatever order the samples came in (see `labeltrack._kernels`).
    """

    def __init__(self, size: int, memory: Integers | None = None) -> None:
        """Begin with no samples.

        Args:
            size: Number of slots.
            memory: ``(size * ROW,)`` words of zero on a cache line, to be used instead of others of its own.
        """
        self.size = size
        self._memory = memory
        self._rows: Floats | None = None  # allocated when needed, as the fixed-point table may become it
        self._nonfinite: Integers = _NONE_NONFINITE  # likewise: few samples are not finite
        # What earlier settling left beside the rows, sorted by key; and the spills since then.
        self.keys: Integers = _NO_INTEGERS
        self.values: Floats = _NO_FLOATS
        self._new_keys: Integers | None = None
        self._new_values: Floats | None = None
        self._new = 0
        self._left_over = _SPILL_ROOM
        self._settled = True
        self._made: tuple[Tight, Wide] | None = None
        # Samples that no fixed-point table holds, with their slots; they are added to the rows later.
        self._aside: Integers = _NO_INTEGERS
        self._aside_samples: Floats = _NO_FLOATS
        self._set_aside = 0

    @property
    def _roads(self) -> tuple[Tight, Wide]:
        """The fixed-point tables, the quickest first; made when needed, as most accumulators are kept as results."""
        if self._made is None:
            self._made = Tight(self.size), Wide(self.size)
        return self._made

    @property
    def rows(self) -> Floats:
        """``(size * ROW,)`` state of the slots; what fixed-point tables and spills hold is not in it."""
        if self._rows is None:
            words = self._claim()
            self._rows = _empty_rows(aligned_words(self.size * ROW) if words is None else words)
        return self._rows

    def _claim(self) -> Integers | None:
        """Return the memory that was given, once."""
        memory, self._memory = self._memory, None
        return memory

    @property
    def counts(self) -> Integers:
        """The memory of `rows` as int64."""
        return self.rows.view(np.int64)

    @property
    def nonfinite(self) -> Integers:
        """``(size, 3)``: how many samples of each slot are NaN, +inf and -inf."""
        if self._nonfinite.shape[0] != self.size:
            self._nonfinite = np.zeros((self.size, 3), dtype=np.int64)
        return self._nonfinite

    def all_finite(self) -> bool:
        """Return whether no sample was NaN or infinite. Only samples that were drained are known of."""
        return not (self._nonfinite.size and self._nonfinite.any())

    # -- adding -------------------------------------------------------------------------------------------

    def add(
        self,
        labels: npt.NDArray[Any],
        samples: npt.NDArray[Any],
        start: int = 0,
        stop: int | None = None,
        *,
        low: int = 0,
        most: int | None = None,
    ) -> int:
        """Add samples to the slots ``label - low``.

        Args:
            labels: ``(N,)`` uint8, int32 or int64, C-contiguous.
            samples: ``(N,)`` float32 or float64, C-contiguous.
            start: First sample.
            stop: One past the last; all by default.
            low: The label of slot 0.
            most: How many of these samples are of one label, at most; None if not known.

        Returns:
            The position reached: `stop`, or that of the first label outside the table.
        """
        labels, samples = read_only(labels), read_only(samples)
        position, end = start, samples.shape[0] if stop is None else stop
        most = end - start if most is None else most
        while position < end:
            self._settled = False
            last, fixed = end, None
            for road in self._roads:
                last = road.plan(samples, position, last, most)
                if road.scale:
                    fixed = road
                    break
            where = (labels, samples, position, last, low, self.size)
            if fixed is None:
                position = self._add_exactly(*where)
                if position < last:
                    return position  # a label outside the table
                continue
            if self._set_aside + _ASIDE // 2 > self._aside.shape[0]:
                self._aside_room()
            claims = fixed.becomes_rows and fixed.table is None and self._rows is None
            memory = self._claim() if claims else None
            aside = (self._aside, self._aside_samples, self._set_aside)
            reached, self._set_aside, poor = fixed.reduce(where, aside, memory)
            if fixed.note(reached - position, most, poor=poor):
                self._drain(fixed, keep=not poor)
            position = int(reached)
            if position < last and not poor and self._set_aside + _ASIDE // 4 <= self._aside.shape[0]:
                return position  # a label outside the table, not a lack of room
        return end

    def _add_exactly(
        self,
        labels: npt.NDArray[Any],
        samples: npt.NDArray[Any],
        start: int,
        stop: int,
        low: int,
        size: int,
    ) -> int:
        """Add samples to the rows without fixed point; return the position reached, as `add` does."""
        while start < stop:
            block = slice(start, min(start + _BLOCK, stop))
            # One kernel for all dtypes, a second of compilation each. The cast costs a tenth of what it feeds.
            slots = read_only(labels[block].astype(np.int64, copy=False))
            # A copy, as what is found to be no number must not be one when it is looked at again.
            block_samples = read_only(cast(samples[block], np.float64))
            position, end = 0, slots.shape[0]
            while position < end:
                keys, values = self._room()
                self._settled = False  # after _room(), which may settle
                state = (self.rows, self.counts, self._nonfinite, keys, values, self._new)
                position, self._new = kernels.exact_pass().add_exactly(
                    slots, block_samples, position, end, low, size, *state
                )
                if position < end and self._new <= keys.shape[0] - 4:
                    if self._nonfinite.shape[0] == size or np.isfinite(block_samples[position]):
                        return start + int(position)
                    self._nonfinite = self.nonfinite
            start += end
        return stop

    def _aside_room(self) -> None:
        """Make room for samples set aside; add to the rows those that are there once they are many."""
        have = self._aside.shape[0]
        if have >= _BLOCK and (self._rows is not None or have >= _LARGEST_ASIDE):
            self._take_in()
            return
        grown = max(_ASIDE, 4 * have)
        self._aside, old = np.empty(grown, dtype=np.int64), self._aside
        self._aside_samples, old_samples = np.empty(grown, dtype=np.float64), self._aside_samples
        self._aside[: self._set_aside] = old[: self._set_aside]
        self._aside_samples[: self._set_aside] = old_samples[: self._set_aside]

    def _take_in(self) -> None:
        """Add the samples set aside to the rows."""
        n, self._set_aside = self._set_aside, 0
        self._add_exactly(self._aside, self._aside_samples, 0, n, 0, self.size)

    def _drain(self, fixed: FixedPoint, *, keep: bool) -> None:
        """Move what a fixed-point table holds to the rows."""
        if fixed.held and fixed.table is not None:
            # With many labels, the memory of the table itself becomes the rows: it has as many words.
            fresh = self._rows is None and fixed.words is not None
            if fresh and fixed.words is not None:
                self._rows = fixed.words.view(np.float64)
            rows = self.rows, self.counts
            self._settled = False
            self._drain_rows(fixed, rows, fresh=fresh)
            if fresh:
                fixed.table = None
        fixed.drained(keep=keep)
        if self.keys.size > 2 * self._left_over:
            self.settle()

    def _drain_rows(self, fixed: FixedPoint, rows: tuple[Floats, Integers], *, fresh: bool) -> None:
        """Move what a table holds to the rows, in threads if it has many that each belong to one row alone."""
        spills: list[tuple[Integers, Floats]] = [(self.keys, self.values)]

        def drain(row: int, stop: int) -> None:
            """Move the rows of a slice, with room for spills of its own."""
            keys, values = np.empty(_SPILLS, dtype=np.int64), np.empty(_SPILLS, dtype=np.float64)
            while row < stop:
                row, n = fixed.drain(row, stop, rows, (keys, values, 0), fresh=fresh)
                if n:
                    spills.append((keys[:n].copy(), values[:n].copy()))

        if fixed.in_place:
            in_slices(self.size, drain)
        else:
            drain(0, fixed.rows)
        if len(spills) > 1:
            self.keys, self.values = (np.concatenate(column) for column in zip(*spills, strict=True))

    def _collect(self) -> None:
        """Move to the rows all that is elsewhere but spills."""
        for fixed in self._made or ():
            if fixed.held:
                self._drain(fixed, keep=True)
        if self._set_aside:
            self._take_in()

    def merge(self, other: Accumulator, slots: Integers) -> None:
        """Add slot ``i`` of another accumulator to slot ``slots[i]`` of this one.

        Args:
            other: Only read.
            slots: ``(<= other.size,)``; slots of the other beyond have no samples.
        """
        module = kernels.rows
        other._collect()
        nonfinite = self._nonfinite if other._nonfinite.shape[0] == 0 else self.nonfinite
        position = 0
        while position < slots.shape[0]:
            keys, values = self._room()
            self._settled = False
            position, self._new = module.merge_rows(
                self.rows,
                self.counts,
                nonfinite,
                other.rows,
                other.counts,
                other._nonfinite,
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

    def suggest(self, samples: npt.NDArray[Any], total: int) -> None:
        """Look for a unit of fixed point by some of `total` samples that are to come; see `absorb`."""
        for road in self._roads:
            road.suggest(samples, total)
            if road.scale:
                return

    def alike(self) -> Accumulator:
        """Return another accumulator of as many slots, with the unit that was suggested; see `absorb`."""
        other = Accumulator(self.size)
        for mine, theirs in zip(self._roads, other._roads, strict=True):
            theirs.adopt(mine)
        return other

    def absorb(self, other: Accumulator) -> None:
        """Add the slots of another accumulator of the same size, which is not to be used any more.

        Where all is still in tables of integers of one unit, those are added, which takes a tenth of the time.
        """
        for mine, theirs in zip(self._roads, other._roads, strict=True):
            if not self._alike(other, mine, theirs):
                continue
            if not mine.add_table(theirs):
                break
            # What is not in the tables. The other is left without samples in its table, so that merging adds the rest.
            theirs.table, theirs.held = None, 0
            rest = other._set_aside
            if any(road.held for road in other._roads):
                self._merge_all(other)
            elif rest:
                while self._aside.shape[0] < self._set_aside + rest:
                    self._aside_room()
                here = slice(self._set_aside, self._set_aside + rest)
                self._aside[here], self._aside_samples[here] = other._aside[:rest], other._aside_samples[:rest]
                self._set_aside += rest
            self._settled = False
            return
        self._merge_all(other)

    def _merge_all(self, other: Accumulator) -> None:
        """Add all slots of another accumulator of the same size."""
        self.merge(other, np.arange(self.size, dtype=np.int64))

    def _alike(self, other: Accumulator, mine: FixedPoint, theirs: FixedPoint) -> bool:
        """Return whether two tables can be added: of integers of one unit, with rows that are in no other place."""
        return (
            (self._rows is None and other._rows is None)
            and (mine.table is not None and theirs.table is not None and mine.table.shape == theirs.table.shape)
            and mine.same_unit(theirs)
        )

    def spills(self) -> list[tuple[Integers, Floats]]:
        """Return what has to be added to the rows to have the exact sums, as (keys, values) pairs.

        Samples in fixed point and those set aside are not among them; see `_collect`.
        """
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
        self._collect()
        if self._settled:
            return
        pairs = self.spills()
        if pairs:
            module = kernels.rows
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
        if self._nonfinite.shape[0] == self.size:
            taken._nonfinite = self._nonfinite[slots]
        taken.keys, taken.values = self._moved(slots)
        return taken

    def keep(self, slots: Integers) -> None:
        """Keep the given slots alone, in place.

        Args:
            slots: ``(M,)`` ascending, without repeats.
        """
        if slots.shape[0] == self.size:
            return
        if 2 * slots.shape[0] < self.size:  # give the memory back
            self.__dict__.update(self.take(slots).__dict__)
            return
        self.settle()
        first = int(slots[0])
        if int(slots[-1]) - first + 1 != slots.shape[0]:  # else nothing has to be moved
            kernels.rows.keep_rows(self.rows, slots)
            first = 0
        self._rows = self.rows[first * ROW : (first + slots.shape[0]) * ROW]
        if self._nonfinite.shape[0] == self.size:
            self._nonfinite = self._nonfinite[slots]
        self.keys, self.values = self._moved(slots)
        self.size = slots.shape[0]
        self._made = None

    def _moved(self, slots: Integers) -> tuple[Integers, Floats]:
        """Return the spills of the given slots under their new numbers, sorted."""
        if not self.keys.size:
            return self.keys.copy(), self.values.copy()
        new_slot = np.full(self.size, -1, dtype=np.int64)
        new_slot[slots] = np.arange(slots.shape[0])
        moved = new_slot[self.keys // KINDS]
        keep = moved >= 0
        keys = moved[keep] * KINDS + self.keys[keep] % KINDS
        order = np.argsort(keys, kind="stable")
        return keys[order], self.values[keep][order]

    @classmethod
    def joined(cls, parts: Sequence[Accumulator], memory: Integers) -> Accumulator:
        """Return the slots of several accumulators, one after the other. The parts are not to be used any more.

        Args:
            parts: Settled ones. Where their rows lie in `memory`, they do so in this order.
            memory: ``(>= K * ROW,)`` words, K being the number of all slots.
        """
        size = sum(part.size for part in parts)
        whole = cls(size)
        whole._rows = memory[: size * ROW].view(np.float64)
        # Parts further on are moved to the left, over those that were moved before; a part with rows elsewhere is
        # copied when all that lie here have been moved out of its way.
        for here in (True, False):
            at = 0
            for part in parts:
                target = whole._rows[at * ROW : (at + part.size) * ROW]
                if part.size and np.may_share_memory(part.rows, memory) == here:
                    ctypes.memmove(target.ctypes.data, part.rows.ctypes.data, target.nbytes)
                at += part.size
        if not all(part.all_finite() for part in parts):
            whole._nonfinite = np.concatenate([part.nonfinite for part in parts])
        starts = np.cumsum([0, *(part.size for part in parts)])
        shifted = [part.keys + start * KINDS for part, start in zip(parts, starts[:-1].tolist(), strict=True)]
        whole.keys, whole.values = np.concatenate(shifted), np.concatenate([part.values for part in parts])
        return whole

    def copy(self) -> Accumulator:
        """Return an independent copy."""
        return self.take(np.arange(self.size))

    def release(self) -> None:
        """Settle and give all buffers back; for accumulators that are kept as results."""
        self.settle()
        self._made = None
        self._new_keys = self._new_values = None
        self._aside, self._aside_samples = _NO_INTEGERS, _NO_FLOATS

    # -- reading ------------------------------------------------------------------------------------------

    def occupied(self) -> Integers:
        """Return the slots that got at least one sample, finite or not."""
        self._collect()
        some: npt.NDArray[Any] = self.counts[::ROW]
        if not self.all_finite():
            some = (some > 0) | self._nonfinite.any(axis=1)
        slots: Integers = some.nonzero()[0]
        return slots

    def totals(self) -> Totals:
        """Round every statistic of every slot once; arrays that cannot be written through, as they are shared.

        A compiled pass does it with error bounds; the few slots whose rounding it cannot certify (a tie,
        extreme cancellation, samples beyond 1e132 or below 1e-144) are done in rational arithmetic.
        """
        self.settle()
        module = kernels.rounding
        residue = np.zeros(self.size, dtype=np.uint8)
        if self.keys.size:
            kinds = self.keys % KINDS
            residue[self.keys // KINDS] = 1
            residue[(self.keys // KINDS)[kinds > kernels.rows.KIND_SQUARES]] = 2
        count, doubt = np.empty(self.size, dtype=np.int64), np.empty(self.size, dtype=np.bool_)
        words = np.empty(5 * self.size, dtype=np.float64)
        out = words.reshape(5, self.size)
        head = self.rows, self.counts, residue
        doubts: list[int] = []
        in_slices(self.size, lambda start, stop: doubts.append(module.finalise(start, stop, *head, count, out, doubt)))
        if any(doubts):
            doubtful = np.flatnonzero(doubt)
            module.finalise_carefully(doubtful, *head, out, doubt)
            for slot in doubtful.tolist():
                if doubt[slot]:
                    out[:3, slot] = self._rational(slot)
        # The words, too: what views can be made writable again is decided by the memory they are of.
        count.flags.writeable = words.flags.writeable = out.flags.writeable = False
        return Totals(count.view(), *out)

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
