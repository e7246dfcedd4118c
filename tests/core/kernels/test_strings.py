"""Rows are hashed, or looked up in a table, whichever vectors compare them, and wherever they collide."""

from __future__ import annotations

import numpy as np
import pytest

from labeltrack._core.kernels import strings as kernels


def _rows(capacity, width, places):
    """Return the state that rows are coded with: table, known rows, words that vary, first appearances."""
    return (
        np.full(places, -1, dtype=np.int32),
        np.zeros(capacity * width, dtype=np.uint64),
        np.zeros(1 + width, dtype=np.int64),
        np.empty(capacity, dtype=np.int64),
    )


def test_rows_of_bytes_get_codes_by_content():
    words = np.array([1, 2, 1, 3, 1, 2, 0, 0, 1, 3], dtype=np.uint64)
    state, codes = _rows(2, 2, 16), np.empty(5, dtype=np.int32)
    assert kernels.encode_rows(words, 2, 0, 5, *state, 0, codes) == (3, 2)  # there is no room for a third row
    assert codes[:3].tolist() == [0, 1, 0]
    assert state[3].tolist() == [0, 1]
    assert state[2].tolist() == [1, 1, 0]  # of the words of a row, only the second varies
    wider = _rows(4, 2, 16)
    assert kernels.encode_rows(state[1], 2, 0, 2, *wider, 0, np.empty(2, dtype=np.int32)) == (2, 2)
    assert kernels.encode_rows(words, 2, 3, 5, *wider, 2, codes) == (5, 3)
    assert codes.tolist() == [0, 1, 0, 2, 1]


def test_colliding_rows_are_told_apart():
    # A table of four places and two codes: some of these rows must share a place.
    for other in range(1, 40):
        codes = np.empty(4, dtype=np.int32)
        words = np.array([0, other, 0, other], dtype=np.uint64)
        kernels.encode_rows(words, 1, 0, 4, *_rows(2, 1, 4), 0, codes)
        assert codes.tolist() == [0, 1, 0, 1]


# -- the dictionary


def numbers_of(places, factors, bits):
    """Return what the place of a row depends on, padded to the four words that are always read."""
    pad = kernels.HASHED - len(places)
    return np.array([*places, *[0] * pad, *factors, *[0] * pad, 64 - bits], dtype=np.uint64)


def placed(known, width, hashed):
    """Return where rows go, by Python's integers."""
    four = list(zip(hashed[:4].tolist(), hashed[4:8].tolist(), strict=True))
    sums = [sum(row[word] * factor for word, factor in four) % 2**64 for row in known.reshape(-1, width).tolist()]
    return np.array(sums, dtype=np.uint64) >> hashed[8]


@pytest.mark.parametrize("dtype", [np.uint64, np.uint32])
@pytest.mark.parametrize("width", [*range(1, 20), 31, 32, 33])
@pytest.mark.parametrize("factor", [0, 0x9E3779B97F4A7C15])  # 0: all have one place, where each has to be compared
def test_each_word_of_a_row_is_compared(dtype, width, factor):
    rng = np.random.default_rng(width)
    known = rng.integers(0, np.iinfo(dtype).max, (5, width), dtype=dtype)
    hashed = numbers_of([0], [factor], 8)
    table = np.full(256, -1, dtype=np.int32)
    assert kernels.enter_rows(placed(known, width, hashed), 0, table) == (0 if factor else 10)
    expected = rng.integers(0, 5, 300)
    rows = known[expected]
    strange = rng.permutation(300)[: 2 * width]
    for k, row in enumerate(strange.tolist()):  # one bit of one word, another one each time
        rows[row, k % width] ^= dtype(1 << (7 * k % (8 * np.dtype(dtype).itemsize)))
    expected[strange] = -1
    codes = np.full(300, 7, dtype=np.int32)
    state = (table, known.reshape(-1), hashed)
    assert kernels.look_rows_up(rows.reshape(-1), width, 0, 300, *state, 0, codes) == strange.size
    assert codes.tolist() == expected.tolist()
    codes[:] = 7
    kernels.look_rows_up(rows.reshape(-1), width, 100, 200, *state, 90, codes)
    assert codes[:10].tolist() == [7] * 10
    assert codes[10:110].tolist() == expected[100:200].tolist()
    assert (codes[110:] == 7).all()


@pytest.mark.parametrize("place", [0, 3])
def test_rows_of_one_place_are_found_one_after_the_other(place):
    known = np.arange(10, 13, dtype=np.uint64)
    # All rows have the same place, the last one of four as well, from which it goes on at the first.
    hashed = numbers_of([0], [0], 2)
    table = np.full(4, -1, dtype=np.int32)
    if place:
        known = np.array([3, 7, 11], dtype=np.uint64) << np.uint64(62)
        known |= np.array([1, 2, 3], dtype=np.uint64)
        hashed = numbers_of([0], [1], 2)
    assert kernels.enter_rows(placed(known, 1, hashed), 0, table) == 3
    rows = known[[2, 0, 1, 1]].copy()
    rows[3] ^= np.uint64(4)
    codes = np.empty(4, dtype=np.int32)
    assert kernels.look_rows_up(rows, 1, 0, 4, table, known, hashed, 0, codes) == 1
    assert codes.tolist() == [2, 0, 1, -1]
