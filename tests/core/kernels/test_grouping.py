"""Groups: both ways of filling, and what must not be touched."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import COMPILED

from labeltrack._core.kernels import grouping as kernels

WHOLE = {np.float32: np.int32, np.float64: np.int64}
N = 5000 if COMPILED else 1200


def ordered(values):
    """Return floats as integers of the same order, as the kernels have them."""
    bits = values.view(WHOLE[values.dtype.type])
    return np.where(bits < 0, bits ^ np.iinfo(bits.dtype).max, bits).astype(bits.dtype)


def limits(dtype):
    whole = WHOLE[dtype]
    return int(np.array(np.inf, dtype).view(whole)), int(np.iinfo(whole).max)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_groups_are_filled_from_both_ends_and_nan_and_other_keys_are_left_out(dtype):
    rng = np.random.default_rng(2)
    keys = rng.integers(-2, 8, N).astype(np.int32)
    values = rng.normal(size=N).astype(dtype)
    values[::7] = np.nan
    slots = np.array([2, -1, 0, 1], dtype=np.int32)  # of the keys 1, 2, 3 and 4
    bits = values.view(WHOLE[dtype])
    infinity, rest = limits(dtype)
    wanted = [np.sort(ordered(values[(keys == key) & ~np.isnan(values)])) for key in (3, 4, 1)]
    counts = np.zeros(3, dtype=np.int64)
    piece = kernels.Piece(keys, bits, 0, N, 1, slots, infinity, rest)
    kernels.count_groups(piece, counts)
    assert counts.tolist() == [group.size for group in wanted]
    starts = np.concatenate([[0], np.cumsum(counts)])
    groups = np.zeros(int(starts[-1]), WHOLE[dtype])
    half = N // 3
    front, back = starts[:-1].copy(), starts[1:] - 1
    kernels.fill_groups(piece._replace(stop=half), front, 1, groups)
    kernels.fill_groups(piece._replace(start=half), back, -1, groups)
    assert (front == back + 1).all()
    for k, group in enumerate(wanted):
        assert np.sort(groups[starts[k] : starts[k + 1]]).tolist() == group.tolist()


@pytest.mark.parametrize("direct", [True, False])
def test_many_groups_are_filled_like_few(direct):
    """Beyond 4096 groups, lines are prefetched by the key of a later sample."""
    rng = np.random.default_rng(3)
    size, n = 5000, 300
    keys, values = rng.integers(-5, size + 5, n), rng.normal(size=n)
    slots = np.empty(0, dtype=np.int32) if direct else rng.permutation(size).astype(np.int32)
    if not direct:
        slots[::3] = -1
    piece = kernels.Piece(keys, values.view(np.int64), 0, n, 0, slots, *limits(np.float64))
    inside = (keys >= 0) & (keys < size)
    wanted = np.where(inside, keys if direct else slots[np.clip(keys, 0, size - 1)], -1)
    counts = np.zeros(size, dtype=np.int64)
    kernels.count_groups(piece, counts)
    assert counts.tolist() == np.bincount(wanted[wanted >= 0], minlength=size).tolist()
    places, groups = np.cumsum(counts) - counts, np.zeros(int(counts.sum()), dtype=np.int64)
    kernels.fill_groups(piece, places, 1, groups)
    assert groups.tolist() == ordered(values)[wanted >= 0][np.argsort(wanted[wanted >= 0], kind="stable")].tolist()
