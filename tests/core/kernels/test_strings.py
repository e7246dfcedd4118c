"""Coding of rows."""

from __future__ import annotations

import numpy as np

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
