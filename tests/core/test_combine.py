"""Combined keys, which split to the keys they were made of; columns that a mask selects; the table of small pairs."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labeltrack._core.combine import PairTable, Part, combine, numbered, selected

PAIRS = st.tuples(st.sampled_from([0, 1, 2, 17, 900]), st.sampled_from([0, 1, 5, 40]))
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


def test_a_few_keys_far_from_the_others_are_found():
    column = np.full(100_000, 1000)
    column[[777, 50_001]] = -5, 10**6
    keys, form = combine([Part(column), Part(np.zeros(100_000, dtype=np.uint8))], threads=2)
    assert form.split(keys.astype(np.int64))[0].tolist() == column.tolist()


@pytest.mark.parametrize("threads", [1, 2, 5, None])
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_selected_columns_are_those_of_numpy(threads, share):
    rng = np.random.default_rng(0)
    mask = rng.random(5003) < share
    columns = [rng.integers(0, 99, 5003).astype(dtype) for dtype in ("u1", "i4", "i8")]
    columns += [rng.normal(size=5003).astype(dtype) for dtype in ("f4", "f8")]
    for got, column in zip(selected(mask, *columns, threads=threads), columns, strict=True):
        assert got.dtype == column.dtype
        assert got.tobytes() == column[mask].tobytes()


def test_bits_of_nan_stay():
    column = np.array([0x7F800001, 0xFFC00123, 0], dtype=np.uint32).view(np.float32)
    mask = np.array([True, True, False])
    assert selected(mask, column)[0].view(np.uint32).tolist() == [0x7F800001, 0xFFC00123]


@given(st.lists(st.lists(PAIRS, max_size=6), max_size=4), PAIRS)
def test_pairs_have_the_codes_they_were_entered_with(batches, other):
    table, expected = PairTable(), {}
    for batch in batches:
        fresh = [pair for pair in dict.fromkeys(batch) if pair not in expected]
        codes = np.arange(len(expected), len(expected) + len(fresh))
        table.enter(*np.array(fresh, dtype=np.int64).reshape(-1, 2).T, codes)
        expected.update(zip(fresh, codes.tolist(), strict=True))
    first, second = np.array([*expected, other], dtype=np.int64).T
    found = table.look_up(first[:-1], second[:-1])
    assert found is not None
    assert found.tolist() == list(expected.values())
    last = table.look_up(first[-1:], second[-1:])
    assert (None if last is None else last.tolist()) == ([expected[other]] if other in expected else None)


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64])
def test_labels_of_all_widths_are_looked_up(dtype):
    table = PairTable()
    table.enter(np.array([3]), np.array([200]), np.array([0]))
    assert table.look_up(np.array([3, 3], dtype=dtype), np.array([200, 200], dtype=np.uint8)).tolist() == [0, 0]
    assert table.look_up(np.array([3], dtype=dtype), np.array([-1])) is None
    assert table.look_up(np.array([2**40]), np.array([200])) is None


def test_large_labels_and_tables_that_would_be_large_are_left_out():
    table = PairTable()
    table.enter(np.array([5, 2**40, 2]), np.array([5, 1, 2**29]), np.array([0, 1, 2]))
    assert table.look_up(np.array([5]), np.array([5])).tolist() == [0]
    assert table.look_up(np.array([2]), np.array([2**29])) is None
    table.enter(np.array([100_000]), np.array([100]), np.array([3]))
    assert table.look_up(np.array([100_000]), np.array([100])) is None
    assert table.look_up(np.array([5]), np.array([5])).tolist() == [0]
