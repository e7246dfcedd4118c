"""Selecting by a mask and combining keys, against numpy. Runs compiled and as plain Python."""

from __future__ import annotations

import numpy as np
import pytest

from labeltrack._core.kernels import combine as kernels


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64])
def test_selected_elements_follow_one_another_and_nothing_is_written_beyond_the_end(dtype):
    rng = np.random.default_rng(0)
    column, mask = rng.integers(0, 200, 100).astype(dtype), (rng.random(100) < 0.4).astype(np.uint8)
    wanted = column[7:90][mask[7:90] > 0]
    out = np.full(100, 9, dtype=dtype)
    assert kernels.select(column, mask, 7, 90, out, 3, 3 + wanted.size) == 3 + wanted.size
    assert out[3 : 3 + wanted.size].tolist() == wanted.tolist()
    assert (np.delete(out, np.s_[3 : 3 + wanted.size]) == 9).all()
    # A mask that another thread changes after it was counted.
    out = np.full(100, 9, dtype=dtype)
    assert kernels.select(column, np.ones(100, dtype=np.uint8), 0, 100, out, 0, 5) == 5
    assert out.tolist() == [*column[:5].tolist(), *[9] * 95]


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64])
@pytest.mark.parametrize("key_dtype", [np.int32, np.int64])
def test_keys_are_digits_times_factors(dtype, key_dtype):
    rng = np.random.default_rng(1)
    left, right = rng.integers(5, 12, 50).astype(dtype), rng.integers(0, 3, 50).astype(np.int32)
    keys, ranks = np.full(50, -1, dtype=key_dtype), np.array([0, 2, 1])
    assert kernels.add_offsets(left, 10, 40, 5, 7, 3, True, keys)
    kernels.add_ranks(right, 10, 40, ranks, False, keys)
    assert keys[10:40].tolist() == ((left.astype(np.int64) - 5) * 3 + ranks[right])[10:40].tolist()
    assert (keys[:10] == -1).all()
    assert (keys[40:] == -1).all()
    kernels.add_ranks(right, 0, 50, ranks, True, keys)
    assert kernels.add_offsets(left, 0, 50, 5, 7, 3, False, keys)
    assert keys.tolist() == ((left.astype(np.int64) - 5) * 3 + ranks[right]).tolist()


@pytest.mark.parametrize("stray", [4, 12, -(2**63), 2**63 - 1])
def test_keys_beyond_the_sizes_are_told(stray):
    keys, column = np.empty(3, dtype=np.int64), np.array([5, stray, 11])
    assert not kernels.add_offsets(column, 0, 3, 5, 7, 1, True, keys)
    assert kernels.add_offsets(column, 2, 3, 5, 7, 1, True, keys)
