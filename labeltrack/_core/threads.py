"""How many threads to use, and dividing work between them."""

from __future__ import annotations

import operator
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate, pairwise
from threading import Lock, Thread, local
from typing import Any, TypeVar

_Result = TypeVar("_Result")
_Item = TypeVar("_Item")

Share = list[tuple[int, int, int]]  # the work of one thread: slices, each as (chunk, first sample, one past the last)

# At the end of an epoch the other cores sleep and have cold caches: a hundred thousand slots are finalised in 1.5 ms by
# one thread and in 1.8 by two, 300,000 in the same time by both. Six million samples of 1.3 million labels take 82 ms
# where two threads round and flush, and 94 with one; ten million of as many labels 219 and 278.
_SLOTS_PER_THREAD = 1 << 16
_MOST = 16
_working = local()  # .together: set in threads of `all_at_once`, which start no further ones


def available() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def check_threads(threads: Any) -> int | None:
    """Return a requested number of threads, limited as each needs a table; ValueError unless positive or None."""
    if threads is None:
        return None
    try:
        number = operator.index(threads)
    except TypeError:
        number = 0
    if number < 1:
        msg = f"threads must be a positive integer or None, got {threads!r}"
        raise ValueError(msg)
    return min(number, max(_MOST, available()))


def started(thread: Thread) -> bool:
    """Start a thread; return False if the system has none to give ("can't start new thread")."""
    try:
        thread.start()
    except RuntimeError:
        return False
    return True


def default_threads(samples: int, per_thread: int = 1 << 19) -> int:
    """Return how many threads to use if each should get at least `per_thread` samples."""
    most = samples // per_thread
    return min(available(), most) if most > 1 else 1


def all_at_once(work: Callable[..., _Result], *arguments: Sequence[Any]) -> list[_Result]:
    """Return ``list(map(work, *arguments))``, all but the first called in new threads; errors are raised at the end."""
    # A thread takes 60 us. Threads that outlive the call would make later forks unsafe, such as those of data loaders.
    calls = list(zip(*arguments, strict=True))
    if len(calls) == 1:
        return [work(*calls[0])]
    results: list[Any] = [None] * len(calls)
    errors: list[BaseException | None] = [None] * len(calls)

    def run(number: int) -> None:
        before = getattr(_working, "together", False)
        _working.together = True
        try:
            results[number] = work(*calls[number])
        except BaseException as error:  # noqa: BLE001 (raised below, after the others have ended)
            errors[number] = error
        finally:
            _working.together = before

    threads: list[Thread] = []
    for number in range(1, len(calls)):
        thread = Thread(target=run, args=(number,), name="labeltrack")
        if not started(thread):
            break  # the other calls are made here
        threads.append(thread)
    for number in (0, *range(1 + len(threads), len(calls))) if calls else ():
        run(number)
    for thread in threads:
        thread.join()
    for error in errors:
        if error is not None:
            raise error
    return results


class Turns(Iterator[_Item]):
    """An iterator shared by several threads: each item goes to one of them, so a slower thread gets fewer."""

    def __init__(self, items: Iterable[_Item]) -> None:
        self._items = iter(items)
        self._lock = Lock()

    def __next__(self) -> _Item:
        with self._lock:
            return next(self._items)


def edges_of(size: int, parts: int) -> list[int]:
    """Return where parts of ``range(size)`` of about equal length begin, and the end."""
    return [size * part // parts for part in range(parts + 1)]


def in_slices(size: int, work: Callable[[int, int], None]) -> None:
    """Call ``work(start, stop)`` for slices of ``range(size)``: in threads if it is long, but not in `all_at_once`."""
    threads = 1 if getattr(_working, "together", False) else default_threads(size, _SLOTS_PER_THREAD)
    if threads == 1:
        work(0, size)
        return
    edges = edges_of(size, threads)
    all_at_once(work, edges[:-1], edges[1:])


def shares_of(sizes: Sequence[int], shares: int) -> list[Share]:
    """Divide chunks of the given sizes into shares with equal numbers of samples."""
    starts = [0, *accumulate(sizes)]
    return [
        [
            (chunk, max(low - start, 0), min(high - start, size))
            for chunk, (start, size) in enumerate(zip(starts, sizes, strict=False))
            if max(low, start) < min(high, start + size)
        ]
        for low, high in pairwise(edges_of(starts[-1], shares))
    ]
