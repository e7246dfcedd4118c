"""Samples sorted into groups, and searched there: equal to `numpy.sort` and `numpy.quantile`, label by label."""

from __future__ import annotations

import numpy as np
import pytest
from exact import quantiles
from hypothesis import given
from hypothesis import strategies as st

from labeltrack import _quantile_groups
from labeltrack._quantile_groups import Bits, Groups, Selector, count_samples, places_of, starts_of
from labeltrack._threads import shares_of

FRACTIONS = np.array([0.0, 0.1, 0.5, 2 / 3, 1.0])
NOTHING = np.empty(0, dtype=np.int32)


def ordered(values):
    """Return the integers of floats, of the same order, as they are explained in IEEE 754."""
    bits = values.view(f"i{values.dtype.itemsize}")
    return np.where(bits < 0, bits ^ np.iinfo(bits.dtype).max, bits)


def pieces_of(keys, values, slots=NOTHING, low=0):
    """Return what gives kernels the samples of a share."""
    bits = values.view(f"i{values.dtype.itemsize}")

    def pieces(share):
        for _, start, stop in share:
            middle = (start + stop) // 2  # several pieces a share, as casting has it
            yield keys, bits, start, middle, low, slots
            yield keys, bits, middle, stop, low, slots

    return pieces


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_the_bits_are_those_of_numpy(dtype):
    bits = Bits(np.dtype(dtype))
    assert bits.whole == np.dtype(dtype.replace("f", "i"))
    assert np.array(bits.infinity, bits.whole).view(dtype) == np.inf
    # A sign and all the rest: -0.0 is the sign alone, so that all bits together are a NaN with a sign.
    assert np.array(-0.0, dtype).view(bits.whole) == -bits.rest - 1


def test_groups_start_where_the_one_before_ends():
    assert starts_of(np.array([3, 0, 2])).tolist() == [0, 3, 3, 5]
    assert starts_of(np.array([], dtype=np.int64)).tolist() == [0]


@pytest.mark.parametrize("threads", [1, 2, 3, 5])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_samples_of_threads_go_to_their_groups_and_to_no_other_place(threads, dtype):
    rng = np.random.default_rng(threads)
    keys = rng.integers(0, 9, 500).astype(np.int32)
    values = rng.standard_normal(500).astype(dtype)
    values[::50] = np.nan
    some = ~np.isnan(values)
    counts = np.bincount(keys[some], minlength=10)
    groups = Groups(counts, np.dtype(dtype), threads)
    groups.fill(pieces_of(keys, values), shares_of([500], threads))
    for slot, (first, last) in enumerate(zip(groups._starts, groups._starts[1:], strict=False)):
        assert np.array_equal(np.sort(groups._groups[first:last]), np.sort(ordered(values[some & (keys == slot)])))


def test_more_than_two_threads_are_told_what_those_before_them_write():
    counts = np.array([[1, 2], [3, 0], [0, 5]])
    shares = [[(0, k, k + 1)] for k in range(3)]
    places, steps = places_of(starts_of(counts.sum(axis=0)), shares, lambda share: counts[share[0][1]])
    assert [place.tolist() for place in places] == [[0, 4], [1, 6], [4, 6]]
    assert steps == [1, 1, 1]


def test_two_threads_begin_at_both_ends_without_counting():
    def count(share):
        raise AssertionError(share)

    places, steps = places_of(np.array([0, 4, 4, 9]), [[(0, 0, 5)], [(0, 5, 9)]], count)
    assert [place.tolist() for place in places] == [[0, 4, 4], [3, 3, 8]]
    assert steps == [1, -1]


def test_keys_outside_and_those_without_a_slot_are_not_counted():
    keys = np.array([4, 5, 6, 7, 8, 5], dtype=np.int64)
    values = np.array([1.0, 2.0, 3.0, 4.0, 5.0, np.nan], dtype=np.float32)
    slots = np.array([1, -1, 0], dtype=np.int32)  # of 5, 6 and 7
    pieces = pieces_of(keys, values, slots, 5)([(0, 0, 6)])
    assert count_samples(pieces, Bits(np.dtype(np.float32)), 2).tolist() == [1, 1]


@given(
    groups=st.lists(
        st.lists(st.floats(width=32, allow_nan=False), max_size=40),
        min_size=1,
        max_size=12,
    ),
    threads=st.integers(1, 4),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_quantiles_are_those_of_the_reference(groups, threads, dtype):
    counts = np.array([len(group) for group in groups])
    keys = np.repeat(np.arange(len(groups), dtype=np.int32), counts)
    values = np.array([sample for group in groups for sample in group], dtype=dtype)
    shuffled = np.random.default_rng(0).permutation(keys.size)
    keys, values = keys[shuffled], values[shuffled]
    found = np.full((FRACTIONS.size, counts.size), np.nan)
    sorter = Groups(counts, np.dtype(dtype), threads)
    sorter.fill(pieces_of(keys, values), shares_of([keys.size], threads))
    sorter.select(FRACTIONS, found, threads)
    kept = counts > 0
    np.testing.assert_array_equal(found[:, kept], quantiles(keys, values, FRACTIONS))
    assert np.isnan(found[:, ~kept]).all()


def test_a_slot_with_most_of_the_samples_has_room_where_it_is_searched(monkeypatch):
    monkeypatch.setattr(_quantile_groups, "_RANGES_A_THREAD", 3)
    rng = np.random.default_rng(4)
    keys = np.minimum(rng.geometric(0.001, 6000) // 900, 3).astype(np.uint8)
    values = rng.standard_normal(6000).round(1)
    counts = np.bincount(keys)
    assert counts[0] > 2 * counts[1:].sum() // 3
    found = np.empty((FRACTIONS.size, counts.size))
    sorter = Groups(counts, np.dtype(np.float64), 2)
    sorter.fill(pieces_of(keys, values), shares_of([6000], 2))
    sorter.select(FRACTIONS, found, 2)
    assert np.array_equal(found, np.array([np.quantile(values[keys == k], FRACTIONS) for k in range(counts.size)]).T)


def test_some_slots_are_selected_in_samples_that_begin_with_them():
    values = np.random.default_rng(5).standard_normal(300)
    starts = np.array([0, 100, 130, 230, 300])
    found = np.zeros((FRACTIONS.size, 4))
    here = np.concatenate([ordered(values[100:230]), np.empty(100, dtype=np.int64)])  # the samples of two, and room
    Selector(Bits(np.dtype(np.float64)), FRACTIONS, found).select(here, starts, 1, 3, 100, 130)
    expected = [np.quantile(values[first:last], FRACTIONS) for first, last in ((100, 130), (130, 230))]
    assert np.array_equal(found[:, 1:3], np.array(expected).T)
    assert not found[:, [0, 3]].any()
