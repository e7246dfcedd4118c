"""Samples of several labels: some of any types, and statistics compared in every bit."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import strategies as st

LABELS = {
    "integers": lambda n: st.lists(st.integers(-3, 3) | st.sampled_from([-(2**63), 2**63 - 1]), min_size=n, max_size=n),
    "large": lambda n: st.lists(st.sampled_from([0, 5, 2**63, 2**64 - 1]), min_size=n, max_size=n),
    "bools": lambda n: st.lists(st.booleans(), min_size=n, max_size=n),
    "bytes": lambda n: st.lists(st.sampled_from([b"a", b"b\0", b""]), min_size=n, max_size=n),
    "texts": lambda n: st.lists(st.sampled_from(["cat", "dog", "", "x" * 200, "a\0"]), min_size=n, max_size=n),
    "words": lambda n: st.lists(st.sampled_from(["cat", "dog", "élan"]), min_size=n, max_size=n).map(np.array),
    "floats": lambda n: st.lists(st.sampled_from([0.1, -2.5, 0.0, -0.0, math.inf]), min_size=n, max_size=n),
    "singles": lambda n: st.lists(st.sampled_from([0.1, -2.5, 1 / 3]), min_size=n, max_size=n).map(
        lambda x: np.array(x, dtype=np.float32)
    ),
    "small": lambda n: st.lists(st.integers(0, 3), min_size=n, max_size=n).map(lambda x: np.array(x, dtype=np.uint8)),
}

samples = st.integers(1, 40).flatmap(
    lambda n: st.tuples(
        st.lists(st.sampled_from(sorted(LABELS)), min_size=3, max_size=3, unique=True).flatmap(
            lambda kinds: st.fixed_dictionaries({kind: LABELS[kind](n) for kind in kinds})
        ),
        st.lists(st.floats(), min_size=n, max_size=n),
    )
)


def alike(some, others):
    """Return whether two objects are the same in every bit that can be read."""
    return (
        some.labels.dtype == others.labels.dtype
        and some.labels.tolist() == others.labels.tolist()
        and some.names.tolist() == others.names.tolist()
        and numbers(some) == numbers(others)
    )


def numbers(stats):
    """Return every bit of the statistics."""
    columns = [getattr(stats, name) for name in ("count", "sum", "mean", "std", "min", "max", "nan_count")]
    return [column.tobytes() for column in columns]
