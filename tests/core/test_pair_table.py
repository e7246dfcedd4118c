"""The table of pairs of small integers: it has the code that was entered, or says that it does not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labeltrack._core.pair_table import PairTable

PAIRS = st.tuples(st.sampled_from([0, 1, 2, 17, 900]), st.sampled_from([0, 1, 5, 40]))


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
