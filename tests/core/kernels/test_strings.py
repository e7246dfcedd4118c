"""Rows of strings get codes by what they are, whichever vectors compare them, and wherever they collide."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from labeltrack._core.arrays import read_only
from labeltrack._core.kernels import strings as kernels

GOLDEN = 0x9E3779B97F4A7C15


def empty(capacity, width, bits=8, dtype=np.uint64, factor=GOLDEN):
    """Return the state that rows are coded with: table, known rows, what the place of a row depends on."""
    hashed = np.zeros((3, 1 + max(kernels.UNROLLED, width)), dtype=np.uint64)
    hashed[1, 0], hashed[1, 1:] = 64 - bits, factor
    return np.full(1 << bits, -1, dtype=np.int32), np.zeros(capacity * width, dtype=dtype), hashed


def encode_rows(words, width, start, stop, table, known, hashed, n, learn, codes):
    state, more = (table, known, hashed, n, codes), bool(hashed[0, 0] > kernels.UNROLLED)
    return kernels.encoder(width * words.itemsize, learn=learn, more=more)(words, width, start, stop, *state)


def test_rows_of_bytes_get_codes_by_content():
    words = read_only(np.array([1, 2, 1, 3, 1, 2, 0, 0, 1, 3], dtype=np.uint64))
    state, codes = empty(2, 2), np.empty(5, dtype=np.int32)
    assert encode_rows(words, 2, 0, 5, *state, 0, True, codes)[:2] == (3, 2)  # no room for a third row
    assert codes[:3].tolist() == [0, 1, 0]
    assert state[1].tolist() == [1, 2, 1, 3]
    assert state[2][0].tolist() == [1, 1, 0, 0, 0]  # of the words of a row, the second tells them apart
    wider = empty(4, 2)
    known = read_only(state[1])
    assert encode_rows(known, 2, 0, 2, *wider, 0, True, np.empty(2, dtype=np.int32)) == (2, 2, False)
    assert encode_rows(words, 2, 3, 5, *wider, 2, True, codes[3:]) == (5, 3, False)
    assert codes.tolist() == [0, 1, 0, 2, 1]


def test_colliding_rows_are_told_apart():
    # A table of four places and two codes: some of these rows must share a place.
    for other in range(1, 40):
        codes = np.empty(4, dtype=np.int32)
        words = read_only(np.array([0, other, 0, other], dtype=np.uint64))
        encode_rows(words, 1, 0, 4, *empty(2, 1, bits=2), 0, True, codes)
        assert codes.tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize(("width", "most"), [(3, 1), (5, 1), (40, 10)])
def test_so_many_words_are_hashed_that_few_rows_agree_in_all_of_them(width, most):
    rows = np.zeros((width, width), dtype=np.uint64)
    rows[np.arange(1, width), np.arange(1, width)] = 1  # each in a word of its own, the first one always the same
    state, codes, words = empty(width, width), np.empty(width, dtype=np.int32), read_only(rows.reshape(-1))
    assert encode_rows(words, width, 0, width, *state, 0, True, codes) == (width, width, False)
    assert codes.tolist() == list(range(width))
    count, *which = state[2][0].tolist()
    assert max(Counter(map(tuple, rows[:, which[:count]].tolist())).values()) <= most
    assert count < width


@pytest.mark.parametrize("dtype", [np.uint64, np.uint32])
@pytest.mark.parametrize("width", [*range(1, 20), 31, 32, 33])
@pytest.mark.parametrize("factor", [0, GOLDEN])  # 0: all have one place, where each has to be compared
def test_each_word_of_a_row_is_compared(dtype, width, factor):
    rng = np.random.default_rng(width)
    known = rng.integers(0, np.iinfo(dtype).max, (5, width), dtype=dtype)
    state = empty(5, width, dtype=dtype, factor=factor)
    codes = np.full(300, 7, dtype=np.int32)
    assert encode_rows(read_only(known.reshape(-1)), width, 0, 5, *state, 0, True, codes) == (5, 5, False)
    assert codes[:5].tolist() == list(range(5))
    expected = rng.integers(0, 5, 300)
    rows = known[expected]
    strange = rng.permutation(300)[: 2 * width]
    for k, row in enumerate(strange.tolist()):  # one bit of one word, another one each time
        rows[row, k % width] ^= dtype(1 << (7 * k % (8 * np.dtype(dtype).itemsize)))
    expected[strange] = -1
    rows = read_only(rows.reshape(-1))
    assert encode_rows(rows, width, 0, 300, *state, 5, False, codes) == (300, 5, True)
    assert codes.tolist() == expected.tolist()
    codes[:] = 7
    encode_rows(rows, width, 100, 200, *state, 5, False, codes[10:])
    assert codes[:10].tolist() == [7] * 10
    assert codes[10:110].tolist() == expected[100:200].tolist()
    assert (codes[110:] == 7).all()


@pytest.mark.parametrize("place", [0, 3])
def test_rows_of_one_place_are_found_one_after_the_other(place):
    # All rows have the same place, the last one of four as well, from which it goes on at the first.
    known = np.array([place, place + 4, place + 8], dtype=np.uint64) << np.uint64(62)
    known |= np.array([1, 2, 3], dtype=np.uint64)
    state = empty(3, 1, bits=2, factor=1)
    codes = np.empty(4, dtype=np.int32)
    assert encode_rows(read_only(known), 1, 0, 3, *state, 0, True, codes) == (3, 3, False)
    assert state[0].tolist() == ([0, 1, 2, -1] if place == 0 else [1, 2, -1, 0])
    rows = known[[2, 0, 1, 1]].copy()
    rows[3] ^= np.uint64(4)
    assert encode_rows(read_only(rows), 1, 0, 4, *state, 3, False, codes) == (4, 3, True)
    assert codes.tolist() == [2, 0, 1, -1]
