"""When samples are summed in fixed point, and with which unit: the policy around `reduce_fixed` and `reduce_limbs`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from labeltrack._compiled import kernels

Samples = npt.NDArray[Any]
Integers = npt.NDArray[np.int64]

LEAST = 1 << 12  # samples; below this finding a unit is not worth it
_HEADROOM = 2  # bits: later samples may be four times as large as the first thousand
_HEAD = 1 << 10  # samples that a unit is chosen by
_PATIENCE = 1 << 14  # samples summed on the other road before a unit is tried again; doubles each time
_LONGEST = 1 << 22
_FEW = 16  # labels up to which there are copies of the table


@dataclass(frozen=True)
class Form:
    """A form of integers.

    Attributes:
        bits: Magnitudes stay below two to this power.
        row: Words of a label.
        largest: Most labels that it is used for.
        samples_a_label: At least so many samples a label, so that draining does not dominate.
    """

    bits: int
    row: int
    largest: int
    samples_a_label: float


NARROW = Form(bits=39, row=8, largest=1 << 62, samples_a_label=0.5)
# With 100 000 labels its rows of two cache lines take longer than error-free additions to one.
LIMBS = Form(bits=82, row=16, largest=1 << 16, samples_a_label=4.0)


class FixedPoint:
    """A fixed-point table of an accumulator: its memory, its unit, and whether it is worth using.

    Args:
        size: Number of slots.
        form: What integers it holds.
    """

    def __init__(self, size: int, form: Form) -> None:
        self.size = size
        self.form = form
        self.copies = 4 if size <= _FEW and form is LIMBS else 1
        self.scale = 0.0  # integers a unit; 0.0 while none is chosen
        self.held = 0  # samples that a label has got since the table was last empty, at most
        self.table: Integers | None = None
        self._scratch: tuple[Any, ...] = ()
        self._seen = 0
        self._detour = 0  # samples that still go the other road
        self._patience = _PATIENCE
        self._suited = 0  # samples in a row that a unit held

    @property
    def rows(self) -> int:
        """Number of rows that are to be drained."""
        return self.copies * self.size

    @property
    def _drain(self) -> int:
        module = kernels()
        return int(module.FIXED_DRAIN if self.form is NARROW else module.LIMBS_DRAIN)

    def plan(self, samples: Samples, start: int, stop: int) -> int:
        """Decide how the next samples are summed: in fixed point if `scale` is set afterwards.

        The table must be empty (drained) if `scale` is 0.0.

        Args:
            samples: ``(N,)`` float32 or float64.
            start: The next sample.
            stop: One past the last.

        Returns:
            How far to go before asking again.
        """
        if not (self.scale or self._detour) and self._worth_it(stop - start):
            self._choose(samples, start, stop)
            if not self.scale:
                self.avoid()
        if self.scale:
            stop = min(stop, start + self._drain - self.held)
        elif self._detour:
            stop = min(stop, start + self._detour)
            self._detour -= stop - start
        self._seen += stop - start
        return stop

    def suggest(self, samples: Samples) -> None:
        """Choose the unit by some samples of all there are, so that tables of several threads have the same."""
        if not self.scale and self.size <= self.form.largest:
            self._choose(samples, 0, samples.shape[0])

    def largest_count(self) -> int:
        """Return how many samples the label with most of them has in the table."""
        if self.table is None or not self.table.size:
            return 0
        return int(self.table[4 if self.form is NARROW else 12 :: self.form.row].max())

    def _worth_it(self, samples: int) -> bool:
        """Return whether so many samples are enough to look for a unit, for a table of this size."""
        enough = max(LEAST, self.form.samples_a_label * self.size - self._seen)
        return samples >= LEAST and samples >= enough and self.size <= self.form.largest

    def avoid(self) -> None:
        """Send the next samples down the other road, more of them each time."""
        self._detour = self._patience
        self._patience = min(2 * self._patience, _LONGEST)

    def _choose(self, samples: Samples, start: int, stop: int) -> None:
        """Choose the unit by the next thousand samples, if there is one that holds nearly all of them."""
        head = samples[start : min(start + _HEAD, stop)]
        finite = head[np.isfinite(head)]
        if not finite.size:
            return
        # Not the largest, which may be a stray: those that do not fit are summed one by one anyway.
        place = finite.size - 1 - finite.size // 64
        top = np.partition(np.abs(finite), place)[place]
        _, exponent = math.frexp(float(top))
        shift = self.form.bits - _HEADROOM - exponent
        # Scaling must be exact: no float32 is so small that it would underflow, but a double may be.
        if not (0 <= shift <= 400) and (samples.dtype == np.float64 or self.form is LIMBS):
            return
        scale = math.ldexp(1.0, shift)
        if self._unfit(head, scale) * 32 <= head.shape[0]:
            self.scale = scale

    def _unfit(self, head: Samples, scale: float) -> int:
        """Return how many samples are no such integers."""
        module = kernels()
        if self.form is NARROW:
            return int(module.to_fixed(head, 0, head.shape[0], scale, np.empty(head.shape[0], dtype=np.int64)))
        blocks, words = np.empty((2, 2 * head.shape[0]), dtype=np.int64)
        scratch = np.empty((4, head.shape[0]))
        return int(module.to_limbs(head, 0, head.shape[0], scale, scratch, scratch.view(np.int64), blocks, words))

    def state(self, memory: Integers | None = None) -> tuple[Any, ...]:
        """Return what the kernel takes: copies, table, scale and scratch.

        Args:
            memory: Words for the table, if it is to be made; None allocates them.
        """
        module = kernels()
        if self.table is None:
            self.table = empty_table(self.rows, self.form, memory)
        if not self._scratch:
            places = np.zeros(module.FIXED_SCRATCH, dtype=np.uint64)
            if self.form is NARROW:
                self._scratch = (np.empty(module.FIXED_BLOCK, dtype=np.int64), places)
            else:
                blocks = np.empty((4, module.LIMBS_BLOCK))
                pieces, sums = np.empty((2, 2 * module.LIMBS_BLOCK), dtype=np.int64)
                self._scratch = (blocks, blocks.view(np.int64), pieces, sums, places)
        if self.form is NARROW:
            return (self.table, self.scale, *self._scratch)
        return (self.copies, self.table, self.scale, self.table.view(np.float64), *self._scratch)

    def note(self, samples: int, *, poor: bool) -> bool:
        """Take note of samples that were added, and of a block that did not suit; return whether to drain now."""
        self.held += samples
        self._suited = 0 if poor else self._suited + samples
        if self._suited >= 1 << 20:
            self._patience = _PATIENCE
        if poor:
            self.avoid()
            return True
        if self.held < self._drain or self.table is None:
            return False
        # What must not be too many are the samples of one label. Where labels are many, this spares most draining.
        self.held = self.largest_count()
        return 2 * self.held >= self._drain

    def drained(self, *, keep: bool) -> None:
        """Take note that the table is empty; the unit is kept if asked."""
        self.held = 0
        if not keep:
            self.scale = 0.0


def empty_table(size: int, form: Form, memory: Integers | None = None) -> Integers:
    """Return the ``(size * form.row,)`` table of no samples, each row on a cache line of its own.

    Args:
        size: Number of slots.
        form: What integers it holds.
        memory: Words to use; None allocates them.
    """
    module = kernels()
    if memory is None:
        table = aligned_words(size * form.row)
    else:
        table = memory
        table[:] = 0
    if form is NARROW:
        table.reshape(-1, form.row)[:, 5:7] = (module.FIXED_EMPTY_MIN, module.FIXED_EMPTY_MAX)
    else:
        table.view(np.float64).reshape(-1, form.row)[:, 13:15] = (np.inf, -np.inf)
    return table


def aligned_words(words: int) -> Integers:
    """Return so many words of zero that begin on a cache line."""
    memory = np.zeros(words + 8, dtype=np.int64)
    offset = (-memory.ctypes.data // 8) % 8
    return memory[offset : offset + words]
