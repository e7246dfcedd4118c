"""The samples that a mask selects, in memory of their own."""

from __future__ import annotations

from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt

from labeltrack._core import kernels
from labeltrack._core.arrays import read_only
from labeltrack._core.threads import all_at_once, default_threads, edges_of

Array = npt.NDArray[Any]

_PER_THREAD = 1 << 20


def selected(mask: npt.NDArray[np.bool_], *columns: Array, threads: int | None = None) -> list[Array]:
    """Return the elements of columns (uint8, int32, int64, float32 or float64, contiguous) that a mask selects."""
    # Copying them takes a third of the time of counting the others in a row of their own, and ignores what they hold.
    rows, flags = mask.shape[0], read_only(np.ascontiguousarray(mask).view(np.uint8))
    edges = edges_of(rows, default_threads(rows, _PER_THREAD) if threads is None else threads)
    counts = all_at_once(lambda start, stop: int(np.count_nonzero(flags[start:stop])), edges[:-1], edges[1:])
    places = [0, *accumulate(counts)]
    if places[-1] == rows:
        return list(columns)
    select, found = kernels.combine.select, []
    for column in columns:
        dtype = column.dtype if column.dtype.kind in "iu" else np.dtype(f"i{column.dtype.itemsize}")
        given, out = read_only(column.view(dtype)), np.zeros(places[-1], dtype=dtype)

        def copy(start: int, stop: int, at: int, end: int, given: Array = given, out: Array = out) -> None:
            select(given, flags, start, stop, out, at, end)

        all_at_once(copy, edges[:-1], edges[1:], places[:-1], places[1:])
        found.append(out.view(column.dtype))
    return found
