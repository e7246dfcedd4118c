"""The compiled kernels, imported on first use."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType


@cache
def kernels() -> ModuleType:
    """Return the module of kernels: numba takes a quarter of a second to import that nobody else shall pay."""
    from labeltrack import _kernels  # noqa: PLC0415

    return _kernels
