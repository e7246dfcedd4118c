"""The compiled kernels, imported on first use."""

from __future__ import annotations

from functools import cache, partial
from importlib import import_module
from threading import Lock, Thread, current_thread, main_thread
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from labeltrack._threads import started

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType


_T = TypeVar("_T", bound=np.generic)
_Result = TypeVar("_Result")


def read_only(array: npt.NDArray[_T]) -> npt.NDArray[_T]:
    """Return a view that cannot be written through, of memory that is aligned.

    Whether an array is writable and aligned is part of its type to numba, which would compile every kernel anew, about
    a second each, for the read-only arrays that JAX and pandas give.
    """
    flags = array.flags
    if flags.aligned and not flags.writeable:
        return array
    view = array.view() if flags.aligned else array.copy()
    view.flags.writeable = False
    return view


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
    if not started(Thread(target=run, name="labeltrack")):
        return work(*arguments, **options)
    done.acquire()
    for error in errors:
        raise error
    return results[0]


def _module(name: str) -> ModuleType:
    """Import a module of kernels, and have these compile uninterrupted, too."""
    module = uninterrupted(import_module, f"labeltrack.{name}")
    for kernel in vars(module).values():
        compile_for = getattr(kernel, "_compile_for_args", None)
        if compile_for is not None and not isinstance(compile_for, partial):  # pragma: no cover (where they compile)
            kernel._compile_for_args = partial(uninterrupted, compile_for)  # noqa: SLF001 (what numba calls to compile)
    return module


@cache
def kernels() -> ModuleType:
    """Return the module of exact additions: numba takes a quarter of a second to import that nobody else shall pay."""
    return _module("_kernels")


@cache
def tight_kernels() -> ModuleType:
    """Return the module of the road of integers of 32 bits."""
    return _module("_tight_kernels")


@cache
def wide_kernels() -> ModuleType:
    """Return the module of the road of integers of 63 bits."""
    return _module("_wide_kernels")


@cache
def finalise_kernels() -> ModuleType:
    """Return the module of the kernels that round."""
    return _module("_finalise_kernels")


@cache
def hash_kernels() -> ModuleType:
    """Return the module of the kernel that gives labels codes."""
    return _module("_hash_kernels")


@cache
def unit_kernels() -> ModuleType:
    """Return the module of the kernels that say how samples may be summed."""
    return _module("_unit_kernels")


@cache
def partition_kernels() -> ModuleType:
    """Return the module of the kernels that sort samples by buckets of labels."""
    return _module("_partition_kernels")


@cache
def string_kernels() -> ModuleType:
    """Return the module of the kernels that read strings."""
    return _module("_string_kernels")


@cache
def dictionary_kernels() -> ModuleType:
    """Return the module of the kernels that look strings up."""
    return _module("_dictionary_kernels")


@cache
def quantile_kernels() -> ModuleType:
    """Return the module of the kernels of quantiles, compiled for those alone who want them."""
    return _module("_quantile_kernels")


@cache
def selection_kernels() -> ModuleType:
    """Return the module of the kernels that select order statistics."""
    return _module("_selection_kernels")
