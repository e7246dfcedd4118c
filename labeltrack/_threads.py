"""How many threads work is worth, and sharing it out to them."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_SAMPLES_A_THREAD = 1 << 19  # below this a second thread costs more than it gains
_SLOTS_A_THREAD = 1 << 16


def available() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def default_threads(samples: int) -> int:
    """Return how many threads a pass over so many samples is worth on this machine."""
    return max(1, min(available(), samples // _SAMPLES_A_THREAD))


def in_slices(size: int, work: Callable[[int, int], None]) -> None:
    """Call ``work(start, stop)`` for slices that make up ``range(size)``, in threads if there are many slots.

    Args:
        size: Number of slots.
        work: Releases the GIL.
    """
    threads = max(1, min(available(), size // _SLOTS_A_THREAD))
    if threads == 1:
        work(0, size)
        return
    edges = [size * t // threads for t in range(threads + 1)]
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, edges[:-1], edges[1:]))
