"""When samples are summed in fixed point, in which form and with which unit: the policy around the compiled roads.

There are two roads, from the quickest to the one that takes most; what suits neither is added without fixed point.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from labeltrack._core import kernels
from labeltrack._core.arrays import aligned_words, read_only
from labeltrack._core.threads import in_slices

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType
    from typing import Self

Samples = npt.NDArray[Any]
Integers = npt.NDArray[np.int64]

ROW = 8
LEAST = 1 << 12  # samples; below this finding a unit is not worth it
_HEAD = 1 << 10  # samples that a unit is chosen by
_ODD = 32  # one in so many samples may be no integer
_PATIENCE = 1 << 14  # samples summed on another road before a unit is tried again; doubles each time
_LONGEST = 1 << 22
_SECOND = 1 << 15  # labels up to which samples that are no integers of 32 bits have rows of their own
_FEW = 16  # labels up to which there are copies of the table
_LARGEST_SHIFT = 340  # so that neither a scaled sample nor the square of a unit underflows


class Counts(NamedTuple):
    """Where numbers of samples are; see `labeltrack._core.kernels.units.largest_count`."""

    table: Integers | None
    word: int
    step: int
    mask: int


class FixedPoint(ABC):
    """A fixed-point table of an accumulator: its memory, its unit, and whether it is worth using.

    Args:
        size: Number of slots.
    """

    largest: ClassVar[int] = 1 << 62
    """Most labels that it is used for."""
    samples_a_label: ClassVar[float] = 0.5
    """At least so many samples a label, so that draining does not dominate."""
    headrooms: ClassVar[tuple[int, ...]] = (2, 1, 0)
    """Bits above the first samples, but for the largest few, that are tried; the first of the best is taken."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.scale = 0.0  # integers a unit; 0.0 while none is chosen
        self.signed = False  # whether the integers are shifted, so that some may be negative
        self.held = 0  # samples that a row has got since the table was last empty, at most
        self.table: Integers | None = None
        self._scratch: tuple[Any, ...] = ()
        self._seen = 0
        self._detour = 0  # samples that still go another road
        self._patience = _PATIENCE
        self._suited = 0  # samples in a row that a unit held

    # -- what the roads differ in ---------------------------------------------------------------------------

    @property
    @abstractmethod
    def capacity(self) -> int:
        """Samples of a label after which the table has to be drained."""

    @abstractmethod
    def unfit(self, head: Samples, scale: float) -> int:
        """Return how many samples are no such integers."""

    @abstractmethod
    def shift(self, exponent: int) -> int:
        """Return the largest shift that holds samples below two to the power of `exponent`."""

    @abstractmethod
    def reduce(self, where: tuple[Any, ...], aside: tuple[Any, ...], memory: Integers | None) -> tuple[int, int, bool]:
        """Add samples.

        Args:
            where: Labels, samples, start, stop, the label of slot 0, number of slots.
            aside: Slots and samples set aside, and how many there are.
            memory: ``(size * ROW,)`` words that may be used for the table, if it is to be made.

        Returns:
            The position reached, the number of samples set aside, and whether too many of them do not suit.
        """

    @abstractmethod
    def drain(
        self, row: int, stop: int, rows: tuple[Any, ...], spills: tuple[Any, ...], *, fresh: bool
    ) -> tuple[int, int]:
        """Move sums to the rows of the accumulator, from table row `row` on.

        Args:
            row: Where to go on; 0 at first, or where a slice begins.
            stop: Where to stop; `rows`, or where a slice ends, which only `in_place` roads may be asked for.
            rows: The rows, and their memory as int64.
            spills: Keys, values, and how many there are.
            fresh: Whether the rows are the memory of the table, and hold nothing yet.

        Returns:
            The row reached, `stop` if all is done, and the number of spills.
        """

    @abstractmethod
    def add_table(self, other: Self) -> bool:
        """Add the table of another of the same size and unit, row by row.

        Returns:
            Whether all was added. If not, as labels would have too many samples, the other has the rest, and no more.
        """

    def _add_rows(self, add: Callable[..., int], other: Self, rows: int) -> bool:
        """Add rows by a kernel, in threads if there are many; see `add_table`."""
        table, added, most = self.table, other.table, self.capacity
        slices: list[tuple[int, int, int]] = []
        in_slices(rows, lambda start, stop: slices.append((start, stop, add(table, added, start, stop, most))))
        self.held = min(self.held + other.held, most - 1)
        if all(reached == stop for _, stop, reached in slices):
            return True
        for start, _, reached in slices:
            other.empty(start, reached)
        return False

    def empty(self, start: int, stop: int) -> None:
        """Make rows of the table those of no samples."""
        if self.table is not None:
            row = self.counts()[0].step
            self.table[start * row : stop * row] = 0

    @property
    def rows(self) -> int:
        """Number of rows that are to be drained."""
        return self.size

    @abstractmethod
    def counts(self) -> tuple[Counts, ...]:
        """Return where the numbers of samples of all rows are, in one table or two."""

    @property
    def words(self) -> Integers | None:
        """The memory of the table if it can become the rows of the accumulator."""
        return self.table if self.in_place else None

    @property
    @abstractmethod
    def in_place(self) -> bool:
        """Whether a row of the table is as long as one of the accumulator, and there is one for each slot."""

    @property
    def becomes_rows(self) -> bool:
        """Whether the memory of the table, ``(size * ROW,)`` words, can become the rows of the accumulator."""
        return self.in_place

    # -- policy ---------------------------------------------------------------------------------------------

    def plan(self, samples: Samples, start: int, stop: int, most: int) -> int:
        """Decide how the next samples are summed: in this form if `scale` is set afterwards.

        The table must be empty (drained) if `scale` is 0.0.

        Args:
            samples: ``(N,)`` float32 or float64.
            start: The next sample.
            stop: One past the last.
            most: How many of these samples are of one label, at most.

        Returns:
            How far to go before asking again.
        """
        if not (self.scale or self._detour) and self._worth_it(stop - start):
            self._choose(samples, start, stop)
            if not self.scale:
                self.avoid()
        if self.scale:
            if self.held + most > self.capacity:
                stop = min(stop, start + self.capacity - self.held)
        elif self._detour:
            stop = min(stop, start + self._detour)
            self._detour -= stop - start
        self._seen += stop - start
        return stop

    def suggest(self, samples: Samples, total: int) -> None:
        """Choose the unit by some samples of all that are to come, so that tables of several threads have the same."""
        if not self.scale and self._worth_it(total):
            # From all over them: the first ones may be those of one label.
            some = np.ascontiguousarray(samples[:: max(1, samples.shape[0] // _HEAD)])
            self._choose(some, 0, some.shape[0])

    def adopt(self, other: FixedPoint) -> None:
        """Take the unit of another table; this one must be empty."""
        self.scale, self.signed = other.scale, other.signed

    def same_unit(self, other: FixedPoint) -> bool:
        """Return whether the integers of another table mean the same."""
        return self.scale == other.scale and self.signed == other.signed

    def largest_count(self) -> int:
        """Return how many samples the label with most of them has in the table."""
        if self.table is None:
            return 0
        return max(int(kernels.units.largest_count(*counts)) for counts in self.counts())

    def _worth_it(self, samples: int) -> bool:
        """Return whether so many samples are enough to look for a unit, for a table of this size."""
        enough = max(LEAST, self.samples_a_label * self.size - self._seen)
        return samples >= LEAST and samples >= enough and self.size <= self.largest

    def avoid(self) -> None:
        """Send the next samples down another road, more of them each time."""
        self._detour = self._patience
        self._patience = min(2 * self._patience, _LONGEST)

    def _choose(self, samples: Samples, start: int, stop: int) -> None:
        """Choose the unit by the next thousand samples, if there is one that holds nearly all of them."""
        # As the kernels take them, so that what converts samples is compiled once.
        head = read_only(samples[start : min(start + _HEAD, stop)])
        # Not by the largest, which may be a stray: those that do not fit are summed one by one anyway.
        module = kernels.units
        exponent, negative, finite = module.extent(head, np.zeros(module.EXPONENTS, dtype=np.int32))
        if not finite:
            return
        self.signed = bool(negative)
        best, best_shift = head.shape[0] + 1, 0
        for headroom in self.headrooms:
            shift = self.shift(int(exponent)) - headroom
            if self._possible(shift, samples):
                unfit = self.unfit(head, math.ldexp(1.0, shift))
                if unfit < best:
                    best, best_shift = unfit, shift
                if not best:
                    break
        if best * _ODD <= head.shape[0]:
            self.scale = math.ldexp(1.0, best_shift)

    def _possible(self, shift: int, samples: Samples) -> bool:  # noqa: ARG002 (for those who look at them)
        """Return whether scaling samples with two to that power is exact: it must not underflow."""
        return 0 <= shift <= _LARGEST_SHIFT

    def note(self, samples: int, most: int, *, poor: bool) -> bool:
        """Take note of samples that were added, and of some that did not suit; return whether to drain now.

        Args:
            samples: How many.
            most: How many of them are of one label, at most.
            poor: Whether too many did not suit.
        """
        self.held += min(samples, most)
        self._suited = 0 if poor else self._suited + samples
        if self._suited >= 1 << 20:
            self._patience = _PATIENCE
        if poor:
            self.avoid()
            return True
        if self.held < self.capacity or self.table is None:
            return False
        # What must not be too many are the samples of one label. Where labels are many, this spares most draining.
        self.held = self.largest_count()
        return 2 * self.held >= self.capacity

    def drained(self, *, keep: bool) -> None:
        """Take note that the table is empty; the unit is kept if asked."""
        self.held = 0
        if not keep:
            self.scale = 0.0


class Tight(FixedPoint):
    """Integers of 32 bits: half a cache line a label."""

    headrooms = (1, 0)

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.copies = 4 if size <= _FEW else 1
        self._words: Integers | None = None
        self.second: Integers = np.empty(0, dtype=np.int64)
        self.strays = False  # whether there may be samples in the second rows

    @property
    def capacity(self) -> int:
        """Samples of a label after which the table has to be drained."""
        return int(kernels.fixed32.TIGHT_DRAIN)

    def shift(self, exponent: int) -> int:
        """Return the largest shift that holds samples below two to the power of `exponent`."""
        return (31 if self.signed else 32) - exponent

    def _possible(self, shift: int, samples: Samples) -> bool:  # noqa: ARG002
        return 0 <= shift <= 100  # scaled as float32, if they are

    def unfit(self, head: Samples, scale: float) -> int:
        """Return how many samples are no such integers."""
        words = np.empty(head.shape[0], dtype=np.int64)
        kernels.fixed32.to_tight(head, 0, head.shape[0], head.dtype.type(scale), self.signed, words)
        return words.shape[0] - int(np.count_nonzero(words))

    def reduce(self, where: tuple[Any, ...], aside: tuple[Any, ...], memory: Integers | None) -> tuple[int, int, bool]:
        """See `FixedPoint.reduce`."""
        module = kernels.fixed32
        if self.table is None:
            # Twice as long as needed: it may become the rows.
            self._words = aligned_words(self.copies * self.size * ROW) if memory is None else memory
            self.table = self._words[: self.copies * self.size * module.TIGHT_ROW]
            # Where labels are many, strays would touch a line each of memory that nobody has used. Memory is given
            # where they are a part of many.
            second = self.size if self.size <= _SECOND and memory is None else 0
            self.second = aligned_words(second * ROW)
        if not self._scratch:
            queue = np.zeros(module.TIGHT_QUEUE, dtype=np.uint64)
            self._scratch = (np.zeros(module.TIGHT_BLOCK, dtype=np.int64), queue)
        scale = where[1].dtype.type(self.scale)
        position, n, poor, strays = module.reduce_tight(
            *where, self.copies, self.table, self.second, scale, self.signed, *self._scratch, *aside
        )
        self.strays |= strays
        return position, n, poor

    def drain(
        self,
        row: int,
        stop: int,  # noqa: ARG002 (all of it at once)
        rows: tuple[Any, ...],
        spills: tuple[Any, ...],
        *,
        fresh: bool,
    ) -> tuple[int, int]:
        """See `FixedPoint.drain`."""
        drained: tuple[int, int]
        first = self.copies * self.size
        if row < first:
            drained = kernels.fixed32.drain_tight(self.table, self.scale, self.signed, row, fresh, *rows, *spills)
            return drained
        scale = math.ldexp(self.scale, kernels.fixed32.TIGHT_FINER)
        drained = kernels.fixed63.drain_wide(self.second, scale, self.signed, False, row - first, False, *rows, *spills)
        return drained[0] + first, drained[1]

    def same_unit(self, other: FixedPoint) -> bool:
        """Return whether the integers of another table mean the same, and it has as many second rows."""
        return super().same_unit(other) and isinstance(other, Tight) and self.second.shape == other.second.shape

    def add_table(self, other: Self) -> bool:
        """See `FixedPoint.add_table`."""
        if other.strays:
            self.strays = True
            rows = self.second.shape[0] // ROW
            reached = kernels.fixed63.add_wide_tables(self.second, other.second, 0, rows, self.capacity)
            if reached != rows:
                self.held = self.capacity - 1
                other.second[: reached * ROW] = 0
                return False
        if not self._add_rows(kernels.fixed32.add_tight_tables, other, self.copies * self.size):
            if other.strays:
                other.second[:] = 0
            return False
        return True

    @property
    def rows(self) -> int:
        """Number of rows that are to be drained: those of the table, then the second ones if there are any samples."""
        return self.copies * self.size + (self.second.shape[0] // ROW if self.strays else 0)

    def drained(self, *, keep: bool) -> None:
        """Take note that the table is empty; the unit is kept if asked."""
        super().drained(keep=keep)
        self.strays = False

    def counts(self) -> tuple[Counts, ...]:
        """See `FixedPoint.counts`; a label may have samples in the second rows alone."""
        first, second = kernels.fixed32, kernels.fixed63
        return (
            Counts(self.table, 2, first.TIGHT_ROW, first.TIGHT_COUNTS),
            Counts(self.second, 4, second.WIDE_ROW, second.WIDE_COUNTS),
        )

    @property
    def words(self) -> Integers | None:
        """The memory of the table if it can become the rows of the accumulator."""
        return self._words if self.becomes_rows else None

    @property
    def becomes_rows(self) -> bool:
        """Where there is one table."""
        return self.copies == 1

    @property
    def in_place(self) -> bool:
        """No: rows are half as long, and a table that becomes rows is gone through from its end."""
        return False


class Wide(FixedPoint):
    """Integers of 63 bits, of one unit or of four: a cache line for each of them."""

    # Beyond, and with fewer samples a label, tables took longer than error-free additions: 11 against 17 M samples/s
    # for a million samples of as many labels.
    largest = 1 << 22
    samples_a_label = 4.0

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.copies = 4 if size <= _FEW else 1
        self.finer = False

    @property
    def _module(self) -> ModuleType:
        return kernels.fixed63

    @property
    def capacity(self) -> int:
        """Samples of a label after which the table has to be drained."""
        return int(self._module.WIDE_DRAIN)

    def shift(self, exponent: int) -> int:
        """Return the largest shift that holds samples below two to the power of `exponent`."""
        return (62 if self.signed else 63) - exponent

    def _choose(self, samples: Samples, start: int, stop: int) -> None:
        self.finer = False
        super()._choose(samples, start, stop)
        if not self.scale:
            self.finer = True
            super()._choose(samples, start, stop)

    def unfit(self, head: Samples, scale: float) -> int:
        """Return how many samples are no such integers."""
        n = head.shape[0]
        words, offsets = np.empty((n, 2), dtype=np.int64), np.empty(n, dtype=np.uint64)
        self._module.to_wide(head, 0, n, scale, self.signed, int(self.finer), words.reshape(-1), offsets)
        return int(np.count_nonzero(~words.any(axis=1)))

    def reduce(self, where: tuple[Any, ...], aside: tuple[Any, ...], memory: Integers | None) -> tuple[int, int, bool]:
        """See `FixedPoint.reduce`."""
        module = self._module
        words = self.rows * module.WIDE_ROW
        if self.table is None or self.table.shape[0] != words:  # which is empty if the units are others now
            self.table = memory if memory is not None and self.in_place else aligned_words(words)
        if not self._scratch:
            block = module.WIDE_BLOCK
            self._scratch = (
                np.zeros(2 * block, dtype=np.int64),
                np.zeros(block, dtype=np.uint64),
                np.zeros(module.WIDE_SCRATCH, dtype=np.uint64),
                np.zeros(module.WIDE_QUEUE, dtype=np.uint64),
                aligned_words(4 * module.WIDE_ROW),
            )
        self._scratch[1][:] = 0
        reached: tuple[int, int, bool] = module.reduce_wide(
            *where, self.copies, self.finer, self.table, self.scale, self.signed, *self._scratch, *aside
        )
        return reached

    def drain(
        self, row: int, stop: int, rows: tuple[Any, ...], spills: tuple[Any, ...], *, fresh: bool
    ) -> tuple[int, int]:
        """See `FixedPoint.drain`."""
        table = self.table[: stop * self._module.WIDE_ROW]  # type: ignore[index]
        drained: tuple[int, int] = self._module.drain_wide(
            table, self.scale, self.signed, self.finer, row, fresh, *rows, *spills
        )
        return drained

    def adopt(self, other: FixedPoint) -> None:
        """Take the unit of another table; this one must be empty."""
        super().adopt(other)
        self.finer = isinstance(other, Wide) and other.finer

    def same_unit(self, other: FixedPoint) -> bool:
        """Return whether the integers of another table mean the same."""
        return super().same_unit(other) and isinstance(other, Wide) and self.finer == other.finer

    def add_table(self, other: Self) -> bool:
        """See `FixedPoint.add_table`."""
        return self._add_rows(self._module.add_wide_tables, other, self.rows)

    @property
    def in_place(self) -> bool:
        """Where there is one table of one unit."""
        return self.copies == 1 and not self.finer

    @property
    def rows(self) -> int:
        """Number of rows that are to be drained: of the tables that are used."""
        return (self._module.WIDE_TABLES if self.finer else self.copies) * self.size

    def counts(self) -> tuple[Counts, ...]:
        """See `FixedPoint.counts`."""
        return (Counts(self.table, 4, self._module.WIDE_ROW, self._module.WIDE_COUNTS),)
