"""Trackers of one label and one metric, batches for them, and ways in which they are taken up again."""

from __future__ import annotations

import numpy as np
from exact import expected_by_label

import labeltrack as lt


def make(**options):
    return lt.LabelTracker("y", "ce", **options)


def batches(count, size=64, seed=0, classes=5):
    rng = np.random.default_rng(seed)
    return [(rng.integers(0, classes, size), rng.lognormal(0, 2, size).astype(np.float32)) for _ in range(count)]


def exact(some):
    """Return the statistics of batches by rational arithmetic."""
    return expected_by_label(*(np.concatenate([batch[i] for batch in some]).tolist() for i in (0, 1)))


def restored(state):
    tracker = make()
    tracker.load_state_dict(state)
    return tracker


def merged(tracker):
    other = make()
    other.merge_state([tracker])
    return other
