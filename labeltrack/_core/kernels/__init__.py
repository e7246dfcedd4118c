"""Everything that is compiled; each module is imported when it is used first, as numba takes 0.25 s to import."""

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


def uninterrupted(work: Callable[..., _Result], *arguments: Any, **options: Any) -> _Result:
    """Return what a function gives, called where no signal handler raises: in another thread than the main one.

    An interrupt then ends the waiting for it, not the import or the compilation, which numba does not survive.
    """
    if current_thread() is not main_thread():
        return work(*arguments, **options)
    results: list[_Result] = []
    errors: list[BaseException] = []
    done = Lock()

    def run() -> None:
        try:
            results.append(work(*arguments, **options))
        except BaseException as error:  # noqa: BLE001 (it is raised in the thread that waits)
            errors.append(error)
        finally:
            done.release()

    done.acquire()
    try:
        Thread(target=run, name="labeltrack").start()
    except RuntimeError:  # there are no more threads to be had
        return work(*arguments, **options)
    done.acquire()
    for error in errors:
        raise error
    return results[0]


def __getattr__(name: str) -> ModuleType:
    """Import a module of kernels."""
    if find_spec(f"{__name__}.{name}") is None:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return uninterrupted(import_module, f"{__name__}.{name}")


@cache
def exact_pass() -> ModuleType:
    """Return `labeltrack._kernels`."""
    return uninterrupted(import_module, "labeltrack._kernels")
