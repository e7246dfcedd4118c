"""When samples are summed in fixed point, in which of two formats and in which unit: the policy around the kernels."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np

from labeltrack._core import kernels
from labeltrack._core.arrays import Array, Integers, aligned_words, read_only
from labeltrack._core.kernels import COPIES, ROW, UNSUITABLE

LEAST = 1 << 12  # samples; with fewer, finding a unit does not pay
_HEAD = 1 << 10  # samples that a unit is chosen by
_UNFIT = 32  # one in so many samples may be rejected
_PATIENCE = 1 << 14  # samples summed otherwise before a unit is looked for again; doubles each time
_LONGEST = 1 << 22
_FINER = 1 << 15  # labels up to which there are tables of several units: 1.5 times as fast, with 100 000 two thirds
_FEW = 16  # labels up to which there are copies of the table: 1.3 to 1.9 times as fast with two


class FixedPoint:
    """A fixed-point table of an accumulator: its memory, its unit, and whether it is worth using."""

    module: ClassVar[str]  # name of its kernels
    bits: ClassVar[int]  # of an integer
    sample_words: ClassVar[int]  # words of a converted sample
    largest_shift: ClassVar[int]  # binary logarithm of the largest scale
    most_labels: ClassVar[int] = 1 << 62  # that it is used for
    samples_per_label: ClassVar[float] = 0.5  # fewest, so that flushing does not dominate
    # Bits above the first samples, except for the largest few, that are tried; the first of the best is taken.
    headrooms: ClassVar[tuple[int, ...]]
    capacity: ClassVar[int] = (1 << 21) - 1  # samples of a label after which the table has to be flushed

    def __init__(self, size: int) -> None:
        self.size = size
        self.scale = 0.0  # integers per unit; 0.0 while none is chosen
        self.signed = False  # whether the integers are biased, so that some may be negative
        self.finer = False  # whether there are tables of several units
        self.copies = COPIES if size <= _FEW else 1
        self.held = 0  # upper bound of the samples in a row
        self.table: Integers | None = None
        self.memory: Integers | None = None  # it begins with the table
        self._scratch: Any = None
        self._seen = 0
        self._avoided = 0  # samples that are still summed otherwise
        self._patience = _PATIENCE
        self._suited = 0  # consecutive samples that a unit suited

    @property
    def _module(self) -> Any:
        return getattr(kernels, self.module)

    @property
    def rows(self) -> int:
        """Number of rows of the table: several per label if there are copies, or tables of several units."""
        return (COPIES if self.finer else self.copies) * self.size

    @property
    def becomes_rows(self) -> bool:
        """Whether the memory of the table has as many words as the rows of the accumulator, and can become them."""
        return self.rows == self.size

    @property
    def in_place(self) -> bool:
        """Whether each slot has one row of the table, as long as one of the accumulator."""
        return self.becomes_rows and self._module.WORDS == ROW

    def reduce(self, where: tuple[Any, ...], queue: tuple[Any, ...], memory: Integers | None) -> Any:
        """Add the samples of a `Batch`, to a table in ``(size * ROW,)`` words of zero if given, as kernels do."""
        module, words = (
            kernels.fixed_point,
            self.rows * ROW,
        )  # twice as many as 32 bits need, as they may become the rows
        if self.memory is None or self.memory.shape[0] != words:  # which is empty if there are other units now
            self.memory = aligned_words(words) if memory is None else memory
            self.table = self.memory[: self.rows * self._module.WORDS]
        if self._scratch is None:
            self._scratch = module.new_scratch(self.sample_words)
        slots, samples, n = queue
        state = self.table, self._unit(self.scale), self._scratch, module.Queue(slots, samples), n
        block = self._scratch.block.view(where[0].dtype)[: module.BLOCK]
        return self._module.reduce(module.Batch(*where, block), *state)

    def _unit(self, scale: float) -> Any:
        return kernels.fixed_point.Unit(scale, self.signed, self.copies, self.finer)

    def flush(self, row: int, stop: int, rows: tuple[Any, ...], terms: tuple[Any, ...], *, fresh: bool) -> Any:
        """Move sums to the rows of the accumulator; return the row reached, and the number of overflow terms."""
        # All rows at once unless the table `becomes_rows`, and is `in_place` if `fresh`: in the memory of the table.
        return self._module.flush(self.table, self._unit(self.scale), row, stop, fresh, *rows, *terms)

    def plan(self, samples: Array, start: int, stop: int, most: int) -> int:
        """Return up to where samples, at most `most` of a label, are summed, in this format if `scale` is set."""
        if not (self.scale or self._avoided) and self._worth_it(stop - start):
            self._choose(samples, start, stop)
            if not self.scale:
                self._avoid()
        if self.scale:
            if self.held + most > self.capacity:
                stop = min(stop, start + self.capacity - self.held)
        elif self._avoided:
            stop = min(stop, start + self._avoided)
            self._avoided -= stop - start
        self._seen += stop - start
        return stop

    def suggest(self, samples: Array, total: int) -> None:
        """Choose the unit by a sample of all data to come, so that the tables of several threads share it."""
        if not self.scale and self._worth_it(total):
            # From all over: the first samples may be those of one label.
            some = np.ascontiguousarray(samples[:: max(1, samples.shape[0] // _HEAD)])
            self._choose(some, 0, some.shape[0])

    def adopt(self, other: FixedPoint) -> None:
        self.scale, self.signed, self.finer = other.scale, other.signed, other.finer

    def _worth_it(self, samples: int) -> bool:
        """Return whether so many samples are enough to look for a unit, for a table of this size."""
        enough = max(LEAST, self.samples_per_label * self.size - self._seen)
        return samples >= enough and self.size <= self.most_labels

    def _avoid(self) -> None:
        """Sum the next samples otherwise, more of them each time."""
        self._avoided = self._patience
        self._patience = min(2 * self._patience, _LONGEST)

    def _choose(self, samples: Array, start: int, stop: int) -> None:
        """Choose the unit by the next thousand samples, if there is one that holds nearly all of them."""
        head = read_only(samples[start : min(start + _HEAD, stop)])
        # Not by the largest, which may be an outlier: rejected samples are added one by one.
        module = kernels.fixed_point
        exponent, negative, finite = module.extent(head, np.zeros(module.EXPONENTS, dtype=np.int32))
        if not finite:
            return
        self.signed = bool(negative)
        best, best_shift = head.shape[0] + 1, 0
        for headroom in self.headrooms:
            shift = self.bits - self.signed - int(exponent) - headroom
            if 0 <= shift <= self.largest_shift:
                unfit = self.unfit(head, math.ldexp(1.0, shift))
                if unfit < best:
                    best, best_shift = unfit, shift
                if not best:
                    break
        if best * _UNFIT <= head.shape[0]:
            self.scale = math.ldexp(1.0, best_shift)

    def unfit(self, head: Array, scale: float) -> int:
        """Return how many samples are not representable."""
        n: int = head.shape[0]
        words, offsets = np.empty(n * self.sample_words, dtype=np.int64), np.empty(n, dtype=np.uint64)
        self._module.convert(head, 0, n, self._unit(scale), 1, words, offsets)
        return n - int(np.count_nonzero(words if self.sample_words == 1 else words[::2] | words[1::2]))

    def record(self, samples: int, most: int, status: int) -> bool:
        """Record that samples were added, at most `most` to one label; return whether to flush now."""
        self.held += min(samples, most)
        if status == UNSUITABLE:
            self._suited = 0
            self._avoid()
            return True
        self._suited += samples
        if self._suited >= 1 << 20:
            self._patience = _PATIENCE
        if self.held < self.capacity:
            return False
        # Only the samples of one label are limited: with many labels, counting them saves most flushes.
        module = self._module
        self.held = int((self.table[module.COUNT :: module.WORDS] & kernels.fixed_point.MAX_COUNT).max())  # type: ignore[index]
        return 2 * self.held >= self.capacity

    def flushed(self, *, keep: bool) -> None:
        """Record that the table is empty; the unit is kept if asked."""
        self.held = 0
        if not keep:
            self.scale = 0.0


class Fixed32(FixedPoint):
    """Integers of 32 bits: half a cache line per label."""

    module = "fixed32"
    bits = 32
    sample_words = 1
    largest_shift = 100  # float32 samples are scaled as such
    headrooms = (1, 0)


class Fixed63(FixedPoint):
    """Integers of 63 bits, of one unit or of four: a cache line for each of them."""

    module = "fixed63"
    bits = 63
    sample_words = 2
    largest_shift = 340  # so that neither a scaled sample nor the square of a unit underflows
    headrooms = (2, 1, 0)
    # Beyond, tables are slower than error-free additions: 11 against 17 M samples/s, a million samples and labels.
    most_labels = 1 << 22
    samples_per_label = 4.0

    def _choose(self, samples: Array, start: int, stop: int) -> None:
        units = (False, True) if self.size <= _FINER else (False,)
        for self.finer in units:
            super()._choose(samples, start, stop)
            if self.scale:
                return
