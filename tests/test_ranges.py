"""Ranges of buckets, each the work of one thread, against rational arithmetic."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from labeltrack._ranges import Ranges, Sorted


@pytest.mark.parametrize("edges", [[0, 4], [0, 1, 4], [0, 1, 2, 3, 4]])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rounds_of_sorted_samples_add_up(edges, dtype):
    rng = np.random.default_rng(3)
    shift, size = 4, 60
    ranges = Ranges(edges, shift, size)
    groups: dict[int, list[float]] = {}
    for _ in range(3):
        slots = np.sort(rng.integers(0, size, 900)).astype(np.int32)
        slots = slots[slots != 7]
        samples = rng.normal(size=slots.size).astype(dtype)
        ranges.suggest(samples[::10], 3 * slots.size)
        ranges.add(Sorted(slots, samples, np.searchsorted(slots >> shift, np.arange(5)), shift))
        for slot, sample in zip(slots.tolist(), samples.tolist(), strict=True):
            groups.setdefault(slot, []).append(sample)
    slots, accumulator = ranges.result()
    assert slots.tolist() == sorted(groups)
    for place, slot in enumerate(slots.tolist()):
        numbers = [Fraction(x) for x in groups[slot]]
        assert accumulator.exact(place) == (len(numbers), sum(numbers), sum(x * x for x in numbers))
