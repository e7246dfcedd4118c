"""Settings shared by all tests."""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING, Any

import hypothesis
import numba

if TYPE_CHECKING:
    from collections.abc import Callable

collect_ignore = ["typing"]  # for the type checker; nothing in it runs

QUICK = bool(os.environ.get("LABELTRACK_QUICK"))
COMPILED = os.environ.get("NUMBA_DISABLE_JIT", "0") in ("", "0")

hypothesis.settings.register_profile(
    "labeltrack",
    # The first example of a kernel may compile it.
    deadline=None,
    max_examples=40 if QUICK or not COMPILED else 200,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("labeltrack")


@functools.cache
def part(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a part of a kernel that can be called from here: compiled ones have no way in from Python."""
    if not COMPILED:
        return function

    @numba.njit
    def call(*arguments):
        return function(*arguments)

    return call
