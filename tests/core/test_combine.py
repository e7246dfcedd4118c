"""Combined keys: split again to the keys they were made of, in the same order, from any range."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labeltrack._core.combine import Part, combine, numbered

columns = st.integers(0, 30).flatmap(
    lambda n: st.lists(
        st.lists(st.integers(-3, 3), min_size=n, max_size=n).map(lambda x: np.array(x, dtype=np.int32))
        | st.lists(st.integers(-(2**63), 2**63 - 1), min_size=n, max_size=n).map(lambda x: np.array(x, dtype=np.int64))
        | st.lists(st.integers(0, 255), min_size=n, max_size=n).map(lambda x: np.array(x, dtype=np.uint8)),
        min_size=1,
        max_size=6,
    )
)


@given(columns, st.data())
def test_combined_keys_are_split_to_what_they_were_and_ascend_with_it(drawn, data):
    parts = [numbered(column) if data.draw(st.booleans()) else Part(column) for column in drawn]
    keys, form = combine(parts, threads=data.draw(st.integers(1, 3)))
    back = form.split(keys.astype(np.int64))
    assert [column.tolist() for column in back] == [column.tolist() for column in drawn]
    rows = list(zip(*(column.tolist() for column in drawn), strict=True))
    order = sorted(range(len(rows)), key=rows.__getitem__)
    for i, j in itertools.pairwise(order):
        assert (keys[i] < keys[j]) == (rows[i] < rows[j])


def test_codes_are_combined_by_the_rank_of_what_they_stand_for():
    part = numbered(np.array([7, -2, 7, 5]), np.negative)  # the largest first
    keys, form = combine([part, Part(np.array([0, 0, 1, 1]))])
    assert keys.tolist() == [0, 4, 1, 3]
    assert [column.tolist() for column in form.split(keys.astype(np.int64))] == [[7, -2, 7, 5], [0, 0, 1, 1]]


@pytest.mark.parametrize("n", [1000, 200_000])
def test_few_keys_far_apart_become_keys_close_together(n):
    rng = np.random.default_rng(0)
    wide, narrow = 10**15 * rng.integers(0, 50, n), rng.integers(0, 50, n)
    keys, form = combine([Part(wide), Part(narrow)])
    assert keys.max() < 2500
    assert [column.tolist() for column in form.split(keys.astype(np.int64))] == [wide.tolist(), narrow.tolist()]


def test_many_keys_far_apart_stay_so():
    wide = np.random.default_rng(1).permutation(100_000) * 10**9
    keys, form = combine([Part(wide), Part(np.zeros(100_000, dtype=np.int64))])
    assert form.sizes[0] > 9 * 10**13
    assert form.split(keys)[0].tolist() == wide.tolist()


def test_keys_outside_those_that_were_sampled_are_found():
    column = np.full(100_000, 1000)
    column[[777, 50_001]] = -5, 10**6
    keys, form = combine([Part(column), Part(np.zeros(100_000, dtype=np.uint8))], threads=2)
    assert form.split(keys.astype(np.int64))[0].tolist() == column.tolist()
