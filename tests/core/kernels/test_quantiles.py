"""Groups, both ways of filling them, and their order statistics: every size, and digits that many samples share."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import COMPILED
from exact import quantiles

from labeltrack._core.kernels import quantiles as kernels

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


def test_many_groups_are_filled_like_few():
    rng = np.random.default_rng(3)
    size, n = 5000, 300
    keys, values = rng.integers(-5, size + 5, n), rng.normal(size=n)
    slots = rng.permutation(size).astype(np.int32)
    slots[::3] = -1
    piece = kernels.Piece(keys, values.view(np.int64), 0, n, 0, slots, *limits(np.float64))
    inside = (keys >= 0) & (keys < size)
    wanted = np.where(inside, slots[np.clip(keys, 0, size - 1)], -1)
    counts = np.zeros(size, dtype=np.int64)
    kernels.count_groups(piece, counts)
    assert counts.tolist() == np.bincount(wanted[wanted >= 0], minlength=size).tolist()
    places, groups = np.cumsum(counts) - counts, np.zeros(int(counts.sum()), dtype=np.int64)
    kernels.fill_groups(piece, places, 1, groups)
    assert groups.tolist() == ordered(values)[wanted >= 0][np.argsort(wanted[wanted >= 0], kind="stable")].tolist()


def reference(group, fractions):
    """Return ``(Q,)`` quantiles of a group."""
    return quantiles(np.zeros(group.size), group, fractions)[:, 0]


def selected(values, starts, fractions):
    """Return ``(Q, K)`` quantiles of groups that lie side by side."""
    dtype = values.dtype.type
    q, largest = len(fractions), int(np.diff(starts).max())
    groups = np.concatenate([ordered(values), np.zeros(largest, WHOLE[dtype])])
    out = np.empty((q, len(starts) - 1))
    scratch, rest = kernels.scratch(values.dtype, q), int(np.iinfo(WHOLE[dtype]).max)
    wanted = np.array(fractions, dtype=np.float64)
    kernels.select_quantiles(groups, np.array(starts), 0, len(starts) - 1, values.shape[0], wanted, rest, scratch, out)
    return out


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [1, 2, kernels.SMALL - 1, kernels.SMALL, kernels.SMALL + 1, 8 * kernels.SMALL, N])
def test_every_rank_of_a_group_is_found(n, dtype):
    """Ranks that are whole numbers leave nothing to interpolate: the sorted samples must come out."""
    rng = np.random.default_rng(n)
    values = (rng.normal(size=n) * 10.0 ** rng.integers(-30, 30, n)).astype(dtype)
    ranks = np.unique(np.linspace(0, n - 1, 40).astype(int))
    fractions = ranks / max(n - 1, 1)
    found = selected(values, [0, n], fractions)[:, 0]
    np.testing.assert_array_equal(found, reference(values, fractions))
    np.testing.assert_allclose(found, np.sort(values)[ranks], rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_samples_that_differ_in_the_last_digit_alone_are_told_apart(dtype):
    values = np.arange(N).astype(WHOLE[dtype]).view(dtype)  # subnormals, one after the other
    values = np.concatenate([values, np.full(N, np.inf, dtype), np.full(N, -np.inf, dtype)])
    values = np.random.default_rng(0).permutation(values)
    fractions = (np.arange(N, 2 * N - 1, 37) + 0.0) / (3 * N - 1)
    found = selected(values, [0, 3 * N], fractions)[:, 0]
    np.testing.assert_array_equal(found, reference(values, fractions))


def test_groups_are_searched_each_on_its_own_and_empty_ones_have_none():
    values = np.random.default_rng(1).normal(size=300)
    found = selected(values, [0, 0, 100, 100, 300, 300], [0.5])
    medians = [np.nan, np.median(values[:100]), np.nan, np.median(values[100:]), np.nan]
    np.testing.assert_array_equal(found[0], medians)


KINDS = {
    "few values": lambda rng, n: rng.choice([-1.0, -0.0, 0.0, 0.25, 1.0], n),
    "one value": lambda _, n: np.full(n, 0.1),
    "exponential": lambda rng, n: rng.standard_exponential(n),
    "of both signs": lambda rng, n: rng.normal(size=n),
    "zeros among them": lambda rng, n: np.maximum(rng.normal(size=n), 0.0),
    "a cluster and one far away": lambda rng, n: np.concatenate([1 + rng.random(n - 1) * 1e-6, [-1e30]]),
    "two clusters": lambda rng, n: rng.choice([-1.0, 1.0], n) * (1 + rng.random(n) * 1e-6),
    "of all magnitudes": lambda rng, n: rng.normal(size=n) * 10.0 ** rng.integers(-37, 37, n),
    "the largest ones": lambda rng, n: rng.choice([-3.4e38, 3.4e38], n) * rng.random(n),
    "infinite ones": lambda rng, n: rng.choice([-np.inf, -1.0, 0.5, 2.0, np.inf], n, p=[0.1, 0.3, 0.2, 0.3, 0.1]),
    "subnormal": lambda rng, n: rng.integers(-9, 9, n) * 1.5e-45,
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", KINDS)
def test_all_order_statistics_of_small_groups_are_found(kind, dtype):
    rng = np.random.default_rng(list(KINDS).index(kind))
    sizes = [*range(1, 40), 63, 64, 65, 96, 100, 127, 128]
    sizes = sizes if COMPILED else sizes[20::6]
    groups = [KINDS[kind](rng, n).astype(dtype) for n in sizes]
    starts = np.concatenate([[0], np.cumsum(sizes)]).tolist()
    for count in (1, 3, 41):
        fractions = np.linspace(0.0, 1.0, count) if count > 1 else np.array([0.37])
        found = selected(np.concatenate(groups), starts, fractions)
        with np.errstate(invalid="ignore"):  # between two infinities
            for k, group in enumerate(groups):
                np.testing.assert_array_equal(found[:, k], reference(group, fractions), str(group))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_samples_of_the_same_leading_bits_are_told_apart_by_their_last_bit(dtype):
    """All but two have the same leading bits, so that they are searched once more."""
    n = 128
    close = (np.array(1.0, dtype).view(WHOLE[dtype]) + np.arange(n - 2) // 3).astype(WHOLE[dtype]).view(dtype)
    values = np.random.default_rng(3).permutation(np.concatenate([close, np.array([1e-20, 1e20], dtype)]))
    found = selected(values, [0, n], np.arange(n) / (n - 1))[:, 0]
    np.testing.assert_array_equal(found, reference(values, np.arange(n) / (n - 1)))
