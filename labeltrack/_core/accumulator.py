"""Exact running statistics of a table of slots: memory and policy around the kernels."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

import numpy as np

from labeltrack._core import kernels
from labeltrack._core.arrays import Array, Floats, Integers, aligned_words, cast, read_only
from labeltrack._core.fixed_point import Fixed32, Fixed63, FixedPoint
from labeltrack._core.kernels import DONE, KINDS, NONFINITE, OUTSIDE, ROW, UNSUITABLE
from labeltrack._core.rounding import exact, totals
from labeltrack._core.threads import in_slices

if TYPE_CHECKING:
    from collections.abc import Sequence
    from fractions import Fraction

    from labeltrack._core.rounding import Totals

_BLOCK = 1 << 15  # samples cast at a time, so that one kernel serves all dtypes
_QUEUE = 1 << 12  # room in the queue at first
_LARGEST_QUEUE = 1 << 22
_TERMS = 1 << 15  # room for overflow terms, 512 KiB; sorting and folding them takes 2 ms
_FLUSH_TERMS = 1 << 10  # likewise, of a thread that flushes a table
_FEW = 1 << 15  # slots whose rows are packed by numpy


# Shared, as there is nothing in them to be written to.
_NO_INTEGERS: Integers = np.empty(0, dtype=np.int64)
_NO_FLOATS: Floats = np.empty(0, dtype=np.float64)
_NO_NONFINITE: Integers = np.empty((0, 3), dtype=np.int64)


class Accumulator:
    """Count, exact sum and sum of squares, minimum and maximum of each slot: in its row and overflow terms; see `rows`.

    Samples in fixed-point tables or in the queue join on reading. Rows are made in `memory`, ``(size * ROW,)`` words of
    zero on a cache line, if it is given.
    """

    def __init__(self, size: int, memory: Integers | None = None) -> None:
        self.size = size
        self._memory = memory
        self._rows: Floats | None = None  # allocated when needed, as a fixed-point table may become the rows
        self._nonfinite: Integers = _NO_NONFINITE  # likewise: most samples are finite
        # Overflow terms: those that folding left, sorted by key, and later ones; the last are in a buffer.
        self.keys: Integers = _NO_INTEGERS
        self.values: Floats = _NO_FLOATS
        self._buffer: tuple[Integers, Floats] | None = None
        self._buffered = 0
        self._unfoldable = _TERMS
        self._folded = True
        self._tables: tuple[Fixed32, Fixed63] | None = None
        # Samples that no fixed-point table can hold, with their slots.
        self._queue: tuple[Integers, Floats] = _NO_INTEGERS, _NO_FLOATS
        self._queued = 0

    @property
    def _formats(self) -> tuple[Fixed32, Fixed63]:
        """The fixed-point tables, the fastest first; made when needed, as most accumulators are kept as results."""
        if self._tables is None:
            self._tables = Fixed32(self.size), Fixed63(self.size)
        return self._tables

    @property
    def rows(self) -> Floats:
        """``(size * ROW,)`` state of the slots, without overflow terms and what is in fixed-point tables."""
        if self._rows is None:
            memory = self._claim_memory()
            self._rows = (aligned_words(self.size * ROW) if memory is None else memory).view(np.float64)
            self._rows[6::ROW], self._rows[7::ROW] = np.inf, -np.inf
        return self._rows

    def _claim_memory(self) -> Integers | None:
        memory, self._memory = self._memory, None
        return memory

    @property
    def counts(self) -> Integers:
        return self.rows.view(np.int64)

    @property
    def nonfinite(self) -> Integers:
        """``(size, 3)``: how many samples of each slot are NaN, +inf and -inf."""
        if self._nonfinite.shape[0] != self.size:
            self._nonfinite = np.zeros((self.size, 3), dtype=np.int64)
        return self._nonfinite

    def all_finite(self) -> bool:
        """Return whether all samples are finite; queued samples are not looked at."""
        return not (self._nonfinite.size and self._nonfinite.any())

    # -- adding -------------------------------------------------------------------------------------------

    def add(
        self, labels: Array, samples: Array, start: int = 0, stop: int | None = None, *, low: int = 0, most: int = 0
    ) -> int:
        """Add samples, `most` of one label, to slots ``label - low``; return `stop` or where a label is outside."""
        labels, samples = read_only(labels), read_only(samples)
        position, end = start, samples.shape[0] if stop is None else stop
        most = most or end - start
        while position < end:
            self._folded = False
            last, fixed = end, None
            for table in self._formats:
                last = table.plan(samples, position, last, most)
                if table.scale:
                    fixed = table
                    break
            where = (labels, samples, position, last, low, self.size)
            if fixed is None:
                position = self._add_exactly(*where[:-1])
                if position < last:
                    return position
                continue
            self._make_room_in_queue()
            claims = fixed.becomes_rows and fixed.table is None and self._rows is None
            memory = self._claim_memory() if claims else None
            reached, self._queued, status = fixed.reduce(where, (*self._queue, self._queued), memory)
            if fixed.record(reached - position, most, status):
                self._flush(fixed, keep=status != UNSUITABLE)
            position = int(reached)
            if status == OUTSIDE:
                return position
        return end

    def _add_exactly(self, labels: Array, samples: Array, start: int, stop: int, low: int) -> int:
        """Add samples to the rows without fixed point; return the position reached, as `add` does."""
        while start < stop:
            # One kernel for all dtypes, a second of compilation each. The cast costs a tenth of what it feeds.
            block = slice(start, min(start + _BLOCK, stop))
            slots = read_only(labels[block].astype(np.int64, copy=False))
            # A copy: another thread must not change a sample between checking and counting.
            block_samples = read_only(cast(samples[block], np.float64))
            start += self._add_doubles(slots, block_samples, low)
            if start < block.stop:
                break
        return start

    def _add_doubles(self, slots: Integers, samples: Floats, low: int = 0) -> int:
        """Add doubles, which no other thread changes, to the rows; return the position reached, as `add` does."""
        position, end, status = 0, samples.shape[0], DONE
        while position < end and status != OUTSIDE:
            self._folded = False
            state = (self.rows, self.counts, self._nonfinite, *self._room_for_terms(), self._buffered)
            reached, self._buffered, status = kernels.exact_pass().add_exactly(
                slots, samples, position, end, low, self.size, *state
            )
            position = int(reached)
            if status == NONFINITE:
                self._nonfinite = self.nonfinite
        return position

    def _make_room_in_queue(self) -> None:
        """Make the queue longer where it is nearly full, or add what is in it to the rows once it is long."""
        room = self._queue[0].shape[0]
        if self._queued + _QUEUE // 2 <= room:
            return
        if room >= _BLOCK and (self._rows is not None or room >= _LARGEST_QUEUE):
            self._add_queued(self)
            return
        room = max(_QUEUE, 4 * room)
        longer = np.empty(room, dtype=np.int64), np.empty(room, dtype=np.float64)
        if self._queued:
            for new, old in zip(longer, self._queue, strict=True):
                new[: self._queued] = old[: self._queued]
        self._queue = longer

    def _add_queued(self, other: Accumulator) -> None:
        """Add the queued samples of an accumulator, which may be this one, to the rows."""
        n, other._queued = other._queued, 0
        slots, samples = other._queue
        self._add_doubles(read_only(slots[:n]), read_only(samples[:n]))

    def _flush(self, fixed: FixedPoint, *, keep: bool) -> None:
        if fixed.held:
            # With many labels, the memory of the table becomes the rows: it has as many words.
            memory = fixed.memory if self._rows is None and fixed.becomes_rows else None
            fresh = memory is not None
            if memory is not None:
                self._rows = memory.view(np.float64)
            self._folded = False
            rows = self.rows, self.counts
            found: list[tuple[Integers, Floats]] = []

            def flush(row: int, stop: int) -> None:
                terms = np.empty(_FLUSH_TERMS, dtype=np.int64), np.empty(_FLUSH_TERMS, dtype=np.float64)
                while row < stop:
                    row, n = fixed.flush(row, stop, rows, terms, fresh=fresh)
                    if n:
                        found.append((terms[0][:n].copy(), terms[1][:n].copy()))

            if fixed.in_place or (fixed.becomes_rows and not fresh):
                in_slices(self.size, flush)
            else:
                flush(0, fixed.rows)
            if fresh:
                fixed.table = fixed.memory = None
            if found:
                self._append_terms(*(np.concatenate(column) for column in zip(*found, strict=True)))
        fixed.flushed(keep=keep)

    def _collect(self) -> None:
        """Move to rows and overflow terms all that is in fixed-point tables and in the queue."""
        for fixed in self._tables or ():
            if fixed.held:
                self._flush(fixed, keep=True)
        if self._queued:
            self._add_queued(self)
        self._append_buffered()

    def _room_for_terms(self) -> tuple[Integers, Floats]:
        """Return the buffer for overflow terms, with room for more than are in it."""
        if self._buffer is None:
            self._buffer = np.empty(_TERMS, dtype=np.int64), np.empty(_TERMS, dtype=np.float64)
        if self._buffered > _TERMS // 2:
            self._append_buffered()
        return self._buffer

    def _append_buffered(self) -> None:
        n, self._buffered = self._buffered, 0
        if n and self._buffer is not None:
            self._append_terms(self._buffer[0][:n], self._buffer[1][:n])

    def _append_terms(self, keys: Integers, values: Floats) -> None:
        """Append overflow terms; fold them back once they outnumber what folding left the last time."""
        self.keys, self.values = np.concatenate([self.keys, keys]), np.concatenate([self.values, values])
        if self.keys.size > 2 * self._unfoldable:
            self._fold_terms()

    def fold_back(self) -> None:
        """Fold the overflow terms into the rows; what is left of them is as short as possible."""
        self._collect()
        if not self._folded:
            self._fold_terms()
            self._folded = True

    def _fold_terms(self) -> None:
        if self.keys.size:
            module = kernels.rows
            order = np.argsort(self.keys)  # order within a key does not matter: the sum is exact
            keys, values = self.keys[order], self.values[order]
            digits = np.zeros(module.DIGITS, dtype=np.int64)
            room = max(4 * module.DIGITS, min(2 * keys.size, 1 << 16))
            left: list[tuple[Integers, Floats]] = []
            position = 0
            while position < keys.size:
                out_keys, out_values = np.empty(room, dtype=np.int64), np.empty(room, dtype=np.float64)
                position, n = module.fold_back(keys, values, position, self.rows, digits, out_keys, out_values)
                left.append((out_keys[:n].copy(), out_values[:n].copy()))
            self.keys, self.values = (np.concatenate(column) for column in zip(*left, strict=True))
        self._unfoldable = max(_TERMS, self.keys.size)

    def merge(self, other: Accumulator, slots: Integers) -> None:
        """Add slot ``i`` of another to slot ``slots[i]`` of this one; further slots of the other have no samples."""
        other._collect()
        nonfinite = self._nonfinite if other._nonfinite.shape[0] == 0 else self.nonfinite
        theirs = other.rows, other.counts, other._nonfinite
        position = 0
        while position < slots.shape[0]:
            self._folded = False
            state = self.rows, self.counts, nonfinite, *theirs, slots, position, *self._room_for_terms()
            position, self._buffered = kernels.rows.merge_rows(*state, self._buffered)
        if other.keys.size:
            self._folded = False
            self._append_terms(slots[other.keys // KINDS] * KINDS + other.keys % KINDS, other.values)

    def suggest(self, samples: Array, total: int) -> None:
        """Choose a fixed-point unit by some of `total` samples to come, as the first may be those of one label."""
        for table in self._formats:
            table.suggest(samples, total)
            if table.scale:
                return

    def alike(self) -> Accumulator:
        """Return another accumulator of as many slots, with the unit that was suggested."""
        other = Accumulator(self.size)
        for mine, theirs in zip(self._formats, other._formats, strict=True):
            theirs.adopt(mine)
        return other

    def absorb(self, other: Accumulator) -> None:
        """Add the slots of another accumulator of the same size, which must not be used afterwards."""
        self._collect()
        for fixed in other._tables or ():
            self._flush(fixed, keep=False)
        self._add_queued(other)
        if other._rows is not None or other.keys.size:
            self.merge(other, np.arange(self.size, dtype=np.int64))

    def take(self, slots: Integers) -> Accumulator:
        """Return a new accumulator with the given slots of this one, in that order, without duplicates."""
        self.fold_back()
        taken = Accumulator(slots.shape[0])
        taken._rows = aligned_words(taken.size * ROW).view(np.float64)
        # Without a mode, numpy copies to other memory first.
        self.rows.reshape(-1, ROW).take(slots, axis=0, out=taken._rows.reshape(-1, ROW), mode="clip")
        if self._nonfinite.shape[0] == self.size:
            taken._nonfinite = self._nonfinite[slots]
        taken.keys, taken.values = self._terms_of(slots)
        return taken

    def compact(self) -> Integers:
        """Drop the slots without samples, in place; return those that are left, ascending."""
        self.fold_back()
        if self.size < _FEW:  # not worth compiling a kernel
            slots = self.occupied()
            if slots.shape[0] == self.size:
                return slots
            rows = self.rows.reshape(-1, ROW)[slots].reshape(-1)
        else:
            # One pass, as each is 80 MB of rows for 1.3 million labels: 5 ms, finding slots and moving rows apart 17.
            odd = np.empty(0, dtype=np.bool_) if self.all_finite() else self._nonfinite.any(axis=1)
            slots = np.empty(self.size, dtype=np.int64)
            slots = slots[: kernels.rows.pack_rows(self.counts, odd, slots)]
            rows = self.rows[: slots.shape[0] * ROW]
            if 2 * slots.shape[0] < self.size:  # give the memory back
                rows, slots = rows.copy(), slots.copy()
        if self._nonfinite.shape[0] == self.size:
            self._nonfinite = self._nonfinite[slots]
        self.keys, self.values = self._terms_of(slots)
        self._rows, self.size, self._tables = rows, slots.shape[0], None
        return slots

    def _terms_of(self, slots: Integers) -> tuple[Integers, Floats]:
        """Return the overflow terms of the given slots under their new numbers, sorted."""
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
        """Return the slots of folded parts in memory where rows of them lie in this order; the parts are used up."""
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

    def release(self) -> None:
        """Fold back and free all buffers, for accumulators that are kept as results."""
        self.fold_back()
        self._tables = self._buffer = None
        self._queue = _NO_INTEGERS, _NO_FLOATS

    # -- reading ------------------------------------------------------------------------------------------

    def occupied(self) -> Integers:
        """Return the slots that have at least one sample, finite or not."""
        self._collect()
        some: Array = self.counts[::ROW]
        if not self.all_finite():
            some = (some > 0) | self._nonfinite.any(axis=1)
        return np.asarray(some.nonzero()[0], dtype=np.int64)

    def counts_without_nan(self) -> Integers:
        """Return how many samples of each slot are numbers, infinities included."""
        self._collect()
        finite: Integers = self.counts[::ROW]
        return finite + (0 if self.all_finite() else self._nonfinite[:, 1:].sum(axis=1))

    def totals(self) -> Totals:
        self.fold_back()
        return totals(self.rows, self.keys, self.values)

    def exact(self, slot: int) -> tuple[int, Fraction, Fraction]:
        """Return count, sum and sum of squares of a slot as exact numbers."""
        self.fold_back()
        return exact(slot, self.rows, self.keys, self.values)

    def __getstate__(self) -> dict[str, Any]:
        """Return plain arrays: rows with counts as ``(K, 8)`` int64 words, non-finite counts, overflow terms."""
        self.fold_back()
        return {
            "rows": self.counts.reshape(-1, ROW).copy(),
            "nonfinite": _NO_NONFINITE if self.all_finite() else self.nonfinite.copy(),
            "keys": self.keys.copy(),
            "values": self.values.copy(),
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        rows = np.asarray(state["rows"], dtype=np.int64)
        self.__init__(rows.shape[0])  # type: ignore[misc]
        self.counts[...] = rows.reshape(-1)
        if len(state["nonfinite"]):
            self.nonfinite[...] = state["nonfinite"]
        self.keys = np.array(state["keys"], dtype=np.int64)
        self.values = np.array(state["values"], dtype=np.float64)
