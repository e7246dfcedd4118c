"""Settings shared by all tests."""

from __future__ import annotations

import os

import hypothesis
import numpy as np
import pytest

COMPILED = os.environ.get("NUMBA_DISABLE_JIT", "0") in ("", "0")

hypothesis.settings.register_profile(
    "labeltrack",
    # The first example of a kernel may compile it.
    deadline=None,
    max_examples=200 if COMPILED else 40,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("labeltrack")


@pytest.fixture(autouse=True)
def _wrapping_integers():
    """Let unsigned arithmetic wrap silently under the interpreter too, as it does in compiled kernels."""
    if COMPILED:
        yield
    else:
        with np.errstate(over="ignore"):
            yield
