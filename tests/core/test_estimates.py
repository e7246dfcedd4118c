"""Estimates of the number of labels."""

from __future__ import annotations

import numpy as np

from labeltrack._core.estimates import estimated_labels


def test_the_number_of_labels_is_estimated_by_repeats():
    rng = np.random.default_rng(12)
    for labels in (1, 10, 1000, 20_000, 200_000):
        found, error = estimated_labels(rng.integers(0, labels, 1 << 14))
        assert 0.8 * labels <= found <= 1.25 * labels
        assert found - 4 * error <= labels <= found + 4 * error
    assert estimated_labels(np.arange(1000)) == (64_000, 64_000)  # no repeats: as many as it says at most
