"""How many threads work is worth, and sharing it out to them."""

from __future__ import annotations

import os
from threading import Lock, Thread, local
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Self

_Result = TypeVar("_Result")
_Item = TypeVar("_Item")

Share = list[tuple[int, int, int]]
"""What a thread does: some of the samples of some chunks, each as (chunk, first sample, one past the last)."""

# Below this a second thread costs more than it gains. Back to back, a million samples take two threads 1.34 ms and one
# 1.63; where the other processor has to be woken first, 3.0 and 2.4.
_SAMPLES_A_THREAD = 1 << 19
_SLOTS_A_THREAD = 1 << 13  # finalising takes 22 ns a slot, draining 27
_MOST = 16  # threads; more where there are more processors
_working = local()  # .too: set in threads that are at work together, which shall not make more of them


def available() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def most_threads() -> int:
    """Return how many threads are made at most, whatever is asked for: each takes a table of its own."""
    return max(_MOST, available())


def started(thread: Thread) -> bool:
    """Start a thread; return whether there was one to be had."""
    try:
        thread.start()
    except RuntimeError:  # a limit of the system, of the container or of the user: "can't start new thread"
        return False
    return True


def default_threads(samples: int) -> int:
    """Return how many threads a pass over so many samples is worth on this machine."""
    return max(1, min(available(), samples // _SAMPLES_A_THREAD))


def all_at_once(work: Callable[..., _Result], *arguments: Sequence[Any]) -> list[_Result]:
    """Return what ``map(work, *arguments)`` gives, with all calls at once: the first here, each other in a thread.

    Threads are made anew, 60 us each: threads that are kept would make every later fork of the process unsafe, such as
    those of data loaders, which newer Pythons warn of. A pool that is made anew takes twice as long. Where the system
    has no more threads to give, the calls that are left are made here, one after the other.

    Args:
        work: Releases the GIL.
        arguments: As many of each as there are calls.

    Raises:
        BaseException: The first one that a call raised, when all have ended.
    """
    calls = list(zip(*arguments, strict=True))
    if len(calls) == 1:
        return [work(*calls[0])]
    results: list[Any] = [None] * len(calls)
    errors: list[BaseException | None] = [None] * len(calls)

    def run(number: int) -> None:
        before = getattr(_working, "too", False)
        _working.too = True
        try:
            results[number] = work(*calls[number])
        except BaseException as error:  # noqa: BLE001 (it is raised below, once the others have ended)
            errors[number] = error
        finally:
            _working.too = before

    threads: list[Thread] = []
    for number in range(1, len(calls)):
        thread = Thread(target=run, args=(number,), name="labeltrack")
        if not started(thread):
            break
        threads.append(thread)
    for number in (0, *range(1 + len(threads), len(calls))) if calls else ():
        run(number)
    for thread in threads:
        thread.join()
    for error in errors:
        if error is not None:
            raise error
    return results


class Turns(Generic[_Item]):
    """An iterator that several threads may take items from, each of which goes to one of them.

    A thread that is held up, by another program or by memory that is slower for it, then has less to do.

    Example:
        >>> list(Turns("ab"))
        ['a', 'b']
    """

    def __init__(self, items: Iterable[_Item]) -> None:
        self._items = iter(items)
        self._lock = Lock()

    def __iter__(self) -> Self:
        """Return this iterator."""
        return self

    def __next__(self) -> _Item:
        """Return the next item."""
        with self._lock:
            return next(self._items)


def in_slices(size: int, work: Callable[[int, int], None]) -> None:
    """Call ``work(start, stop)`` for slices that make up ``range(size)``, in threads if there are many slots.

    Within `all_at_once`, which has threads of its own, it is one slice.

    Args:
        size: Number of slots.
        work: Releases the GIL.
    """
    if size < 2 * _SLOTS_A_THREAD or getattr(_working, "too", False):
        work(0, size)
        return
    threads = min(available(), size // _SLOTS_A_THREAD)
    edges = [size * t // threads for t in range(threads + 1)]
    all_at_once(work, edges[:-1], edges[1:])


def shares_of(sizes: Sequence[int], threads: int) -> list[Share]:
    """Cut chunks of samples into one share a thread, with equal numbers of samples.

    Args:
        sizes: Samples of each chunk.
        threads: How many shares.

    Example:
        >>> shares_of([4, 2], 2)
        [[(0, 0, 3)], [(0, 3, 4), (1, 0, 2)]]
    """
    total = sum(sizes)
    edges = [total * t // threads for t in range(threads + 1)]
    shares: list[Share] = [[] for _ in range(threads)]
    begin = 0
    for chunk, size in enumerate(sizes):
        for share, low, high in zip(shares, edges[:-1], edges[1:], strict=True):
            start, stop = max(low - begin, 0), min(high - begin, size)
            if start < stop:
                share.append((chunk, start, stop))
        begin += size
    return shares
