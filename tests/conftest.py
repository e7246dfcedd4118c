"""Settings shared by all tests."""

from __future__ import annotations

import os

import hypothesis

collect_ignore = ["typing"]  # for the type checker; nothing in it runs

COMPILED = os.environ.get("NUMBA_DISABLE_JIT", "0") in ("", "0")

hypothesis.settings.register_profile(
    "labeltrack",
    # The first example of a kernel may compile it.
    deadline=None,
    max_examples=200 if COMPILED else 40,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("labeltrack")
