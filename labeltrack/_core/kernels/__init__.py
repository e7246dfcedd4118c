"""Everything that is compiled; each module is imported on first use, as importing numba takes 0.25 s.

Most kernels write to arrays that they are given. Where no other meaning is given, `labels` are ``(N,)`` uint8, int32 or
int64, `samples` and `values` ``(N,)`` float32 or float64; of these, elements from `start` to before `stop` are read.
`low` is the label of slot 0, `size` the number of slots, and `rows`, `counts`, `nonfinite`, `keys`, `values` and `n`
are the state of `rows`.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.util import find_spec
from threading import Lock, Thread, current_thread, main_thread
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

_Result = TypeVar("_Result")

ROW = 8  # words per label: 64 bytes, one cache line. Five separate arrays cost up to five cache misses per sample
COPIES = 4
"""Fixed-point tables used in turn where labels are few, as a sample would wait for the store of the one before; or
tables of different units."""
KINDS = 8  # stride of the keys of overflow terms; see `rows`
DONE, OUTSIDE, FULL, NONFINITE, UNSUITABLE = range(5)
"""Why a pass over samples stopped: all were added; the next label is outside the table; there is no room for what has
to be queued; the next sample is not finite, and there is nowhere to count it; too few samples fit the unit."""


def uninterrupted(work: Callable[..., _Result], *arguments: Any, **options: Any) -> _Result:
    """Return what a function returns, called outside the main thread: an interrupt in numba would leave it unusable."""
    if current_thread() is not main_thread():
        return work(*arguments, **options)
    results: list[_Result] = []
    errors: list[BaseException] = []
    done = Lock()

    def run() -> None:
        try:
            results.append(work(*arguments, **options))
        except BaseException as error:  # noqa: BLE001 (raised in the thread that waits)
            errors.append(error)
        finally:
            done.release()

    done.acquire()
    try:
        Thread(target=run, name="labeltrack").start()
    except RuntimeError:  # the system has no more threads
        return work(*arguments, **options)
    done.acquire()
    for error in errors:
        raise error
    return results[0]


def __getattr__(name: str) -> ModuleType:
    if find_spec(f"{__name__}.{name}") is None:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return uninterrupted(import_module, f"{__name__}.{name}")


@cache
def exact_pass() -> ModuleType:
    return uninterrupted(import_module, "labeltrack._kernels")
