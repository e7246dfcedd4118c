"""The compiled kernels, imported on first use."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from types import ModuleType


_T = TypeVar("_T", bound=np.generic)


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


@cache
def kernels() -> ModuleType:
    """Return the module of exact additions: numba takes a quarter of a second to import that nobody else shall pay."""
    from labeltrack import _kernels  # noqa: PLC0415 (on first use)

    return _kernels


@cache
def tight_kernels() -> ModuleType:
    """Return the module of the road of integers of 32 bits."""
    from labeltrack import _tight_kernels  # noqa: PLC0415 (on first use)

    return _tight_kernels


@cache
def wide_kernels() -> ModuleType:
    """Return the module of the road of integers of 63 bits."""
    from labeltrack import _wide_kernels  # noqa: PLC0415 (on first use)

    return _wide_kernels


@cache
def fixed_kernels() -> ModuleType:
    """Return the module of the road of integers of 40 bits."""
    from labeltrack import _fixed_kernels  # noqa: PLC0415 (on first use)

    return _fixed_kernels


@cache
def finalise_kernels() -> ModuleType:
    """Return the module of the kernels that round."""
    from labeltrack import _finalise_kernels  # noqa: PLC0415 (on first use)

    return _finalise_kernels


@cache
def hash_kernels() -> ModuleType:
    """Return the module of the kernel that gives labels codes."""
    from labeltrack import _hash_kernels  # noqa: PLC0415 (on first use)

    return _hash_kernels


@cache
def unit_kernels() -> ModuleType:
    """Return the module of the kernels that say how samples may be summed."""
    from labeltrack import _unit_kernels  # noqa: PLC0415 (on first use)

    return _unit_kernels


@cache
def partition_kernels() -> ModuleType:
    """Return the module of the kernels that sort samples by buckets of labels."""
    from labeltrack import _partition_kernels  # noqa: PLC0415 (on first use)

    return _partition_kernels


@cache
def string_kernels() -> ModuleType:
    """Return the module of the kernels that read strings."""
    from labeltrack import _string_kernels  # noqa: PLC0415 (on first use)

    return _string_kernels


@cache
def dictionary_kernels() -> ModuleType:
    """Return the module of the kernels that look strings up."""
    from labeltrack import _dictionary_kernels  # noqa: PLC0415 (on first use)

    return _dictionary_kernels


@cache
def packed_kernels() -> ModuleType:
    """Return the module of the kernels that look strings of Latin-1 up."""
    from labeltrack import _packed_kernels  # noqa: PLC0415 (on first use)

    return _packed_kernels


@cache
def quantile_kernels() -> ModuleType:
    """Return the module of the kernels of quantiles, compiled for those alone who want them."""
    from labeltrack import _quantile_kernels  # noqa: PLC0415 (on first use)

    return _quantile_kernels


@cache
def selection_kernels() -> ModuleType:
    """Return the module of the kernels that select order statistics."""
    from labeltrack import _selection_kernels  # noqa: PLC0415 (on first use)

    return _selection_kernels
