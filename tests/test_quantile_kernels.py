"""Groups and order statistics: every digit, both ways of filling, and what must not be touched."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import COMPILED

from labeltrack import _quantile_kernels as kernels

WHOLE = {np.float32: np.int32, np.float64: np.int64}
N = 5000 if COMPILED else 1200


def ordered(values):
    """Return floats as integers of the same order, as the kernels have them."""
    bits = values.view(WHOLE[values.dtype.type])
    return np.where(bits < 0, bits ^ np.iinfo(bits.dtype).max, bits).astype(bits.dtype)


def limits(dtype):
    whole = WHOLE[dtype]
    return int(np.array(np.inf, dtype).view(whole)), int(np.iinfo(whole).max)


def selected(values, starts, fractions):
    """Return ``(Q, K)`` quantiles of groups that lie side by side."""
    dtype = values.dtype.type
    q, largest = len(fractions), int(np.diff(starts).max())
    groups = np.concatenate([ordered(values), np.zeros(largest, WHOLE[dtype])])
    bits, out = np.zeros(2, WHOLE[dtype]), np.empty((q, len(starts) - 1))
    kernels.select_quantiles(
        groups,
        np.array(starts),
        0,
        len(starts) - 1,
        values.shape[0],
        np.array(fractions, dtype=np.float64),
        limits(dtype)[1],
        np.empty(1 << kernels.DIGIT, dtype=np.int64),
        np.empty(1 << kernels.DIGIT, dtype=np.uint8),
        np.empty(kernels.SMALL, dtype=WHOLE[dtype]),
        np.empty(kernels.SMALL, dtype=np.uint32),
        np.empty((2 * q, 6), dtype=np.int64),
        np.empty(2 * q, dtype=np.int64),
        np.empty(2 * q, dtype=np.int64),
        bits,
        bits.view(dtype),
        out,
    )
    return out


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [1, 2, kernels.SMALL - 1, kernels.SMALL, kernels.SMALL + 1, 4 * kernels.SMALL, N])
def test_every_rank_of_a_group_is_found(n, dtype):
    """Ranks that are whole numbers leave nothing to interpolate: the sorted samples must come out."""
    rng = np.random.default_rng(n)
    values = (rng.normal(size=n) * 10.0 ** rng.integers(-30, 30, n)).astype(dtype)
    ranks = np.unique(np.linspace(0, n - 1, 40).astype(int))
    fractions = ranks / max(n - 1, 1)
    found = selected(values, [0, n], fractions)[:, 0]
    np.testing.assert_array_equal(found, np.quantile(values.astype(np.float64), fractions))
    np.testing.assert_allclose(found, np.sort(values)[ranks], rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_samples_that_differ_in_the_last_digit_alone_are_told_apart(dtype):
    values = np.arange(N).astype(WHOLE[dtype]).view(dtype)  # subnormals, one after the other
    values = np.concatenate([values, np.full(N, np.inf, dtype), np.full(N, -np.inf, dtype)])
    values = np.random.default_rng(0).permutation(values)
    fractions = (np.arange(N, 2 * N - 1, 37) + 0.0) / (3 * N - 1)
    found = selected(values, [0, 3 * N], fractions)[:, 0]
    np.testing.assert_array_equal(found, np.quantile(values.astype(np.float64), fractions))


def test_groups_are_searched_each_on_its_own_and_empty_ones_have_none():
    values = np.random.default_rng(1).normal(size=300)
    found = selected(values, [0, 0, 100, 100, 300, 300], [0.5])
    medians = [np.nan, np.median(values[:100]), np.nan, np.median(values[100:]), np.nan]
    np.testing.assert_array_equal(found[0], medians)


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
    kernels.count_groups(keys, bits, 0, N, 1, slots, infinity, rest, counts)
    assert counts.tolist() == [group.size for group in wanted]
    starts = np.concatenate([[0], np.cumsum(counts)])
    groups = np.zeros(int(starts[-1]), WHOLE[dtype])
    half = N // 3
    front, back = starts[:-1].copy(), starts[1:] - 1
    kernels.fill_groups(keys, bits, 0, half, 1, slots, infinity, rest, front, 1, groups)
    kernels.fill_groups(keys, bits, half, N, 1, slots, infinity, rest, back, -1, groups)
    assert (front == back + 1).all()
    for k, group in enumerate(wanted):
        assert np.sort(groups[starts[k] : starts[k + 1]]).tolist() == group.tolist()
