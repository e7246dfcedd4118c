"""When samples are summed in fixed point, and with which unit: the policy around `_kernels.reduce_fixed`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from labeltrack._compiled import kernels

LEAST = 1 << 12  # samples; below this finding a unit is not worth it
_LARGEST_TABLE = 1 << 16  # labels; 4 MiB. At 100 000 labels runs differed on whether it gains (83 to 138 against 98)
_SAMPLES_A_LABEL = 4  # at least, so that draining does not dominate
_HEADROOM = 2  # bits: later samples may be four times as large as the first thousand
_BITS = 39  # integers stay below 2**39 in magnitude
_PATIENCE = 1 << 14  # samples summed on the other road before a unit is tried again; doubles each time
_LONGEST = 1 << 22


class FixedPoint:
    """The fixed-point table of an accumulator: its memory, its unit, and whether it is worth using.

    Args:
        size: Number of slots.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.scale = 0.0  # integers a unit; 0.0 while none is chosen
        self.held = 0  # samples since the table was last empty, at most
        self._table: npt.NDArray[np.int64] | None = None
        self._block = np.empty(0)
        self._seen = 0
        self._detour = 0  # samples that still go the other road
        self._patience = _PATIENCE
        self._suited = 0  # samples in a row that a unit held

    def plan(self, samples: npt.NDArray[Any], start: int, stop: int) -> int:
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
            stop = min(stop, start + kernels().FIXED_DRAIN - self.held)
        elif self._detour:
            stop = min(stop, start + self._detour)
            self._detour -= stop - start
        self._seen += stop - start
        return stop

    def _worth_it(self, samples: int) -> bool:
        """Return whether so many samples are enough to look for a unit, for a table of this size."""
        enough = max(LEAST, _SAMPLES_A_LABEL * self.size - self._seen)
        return samples >= LEAST and samples >= enough and self.size <= _LARGEST_TABLE

    def avoid(self) -> None:
        """Send the next samples down the other road, more of them each time."""
        self._detour = self._patience
        self._patience = min(2 * self._patience, _LONGEST)

    def _choose(self, samples: npt.NDArray[Any], start: int, stop: int) -> None:
        """Choose the unit by the next thousand samples, if there is one that holds nearly all of them."""
        module = kernels()
        head = samples[start : min(start + module.FIXED_BLOCK, stop)]
        finite = head[np.isfinite(head)]
        if not finite.size:
            return
        # Not the largest, which may be a stray: those that do not fit are summed one by one anyway.
        place = finite.size - 1 - finite.size // 64
        top = np.partition(np.abs(finite), place)[place]
        _, exponent = math.frexp(float(top))
        shift = _BITS - _HEADROOM - exponent
        # Scaling must be exact: no float32 is so small that it would underflow, but a double may be.
        if samples.dtype == np.float64 and not 0 <= shift <= 400:
            return
        scale = math.ldexp(1.0, shift)
        if self._table is None:
            self._table = empty_table(self.size)
            self._block = np.empty(module.FIXED_BLOCK)
        if module.to_fixed(head, scale, self._block) * 32 <= head.shape[0]:
            self.scale = scale

    def state(self) -> tuple[Any, float, Any, Any]:
        """Return what `reduce_fixed` takes: table, scale, block and its words."""
        return self._table, self.scale, self._block, self._block.view(np.int64)

    def note(self, samples: int, *, poor: bool) -> bool:
        """Take note of samples that were added, and of a block that did not suit; return whether to drain now."""
        self.held += samples
        self._suited = 0 if poor else self._suited + samples
        if self._suited >= 1 << 20:
            self._patience = _PATIENCE
        if poor:
            self.avoid()
        return poor or self.held >= kernels().FIXED_DRAIN

    def drained(self, *, keep: bool) -> None:
        """Take note that the table is empty; the unit is kept if asked."""
        self.held = 0
        if not keep:
            self.scale = 0.0


def empty_table(size: int) -> npt.NDArray[np.int64]:
    """Return the ``(size * FIXED_ROW,)`` table of no samples, each row on a cache line of its own."""
    module = kernels()
    row = module.FIXED_ROW
    memory = np.zeros(size * row + row, dtype=np.int64)
    offset = (-memory.ctypes.data // 8) % row
    table = memory[offset : offset + size * row]
    table[5::row] = module.FIXED_EMPTY_MIN
    table[6::row] = module.FIXED_EMPTY_MAX
    return table
