"""The loop over characters against plain numpy, and coding of rows."""

from __future__ import annotations

import numpy as np
import pytest

from labeltrack import _string_kernels as kernels
from labeltrack._alphabets import STEP_UNIT


def test_constants_of_the_driver_are_those_of_the_kernels():
    assert STEP_UNIT == kernels.BLOCK


@pytest.mark.parametrize("dtype", [np.uint32, np.uint8])
@pytest.mark.parametrize("rows", [1, 63, 64, 65, 128, 200])
@pytest.mark.parametrize("keys_dtype", [np.int32, np.int64])
def test_numbers_are_sums_of_steps(dtype, rows, keys_dtype):
    rng = np.random.default_rng(rows)
    width, varying = 10, np.array([7, 2, 5, 9, 0, 0, 0, 0])
    chars = np.tile(rng.integers(0, 255, width).astype(dtype), (rows, 1))
    chars[:, varying[:4]] = rng.integers(0, 255, (rows, 4))
    steps = np.zeros((varying.size, 256), dtype=np.int64)
    steps[:4] = rng.integers(0, 2**28, (4, 256))
    row, mask = chars[0].copy(), np.full(width, np.iinfo(dtype).max, dtype=dtype)
    mask[varying[:4]] -= 255
    expected = steps[np.arange(4), chars[:, varying[:4]]].sum(axis=1)

    def number(start=0):
        keys = np.full(rows, -1, dtype=keys_dtype)
        flat = chars.reshape(-1)
        words = np.concatenate([flat.view(np.uint8), np.zeros(-flat.nbytes % 8, dtype=np.uint8)]).view(np.uint64)
        base, masks = np.tile(row, kernels.BLOCK), np.tile(mask, kernels.BLOCK)
        known = (base.view(np.uint64), masks.view(np.uint64), base, masks, varying, steps.reshape(-1))
        return kernels.number_rows(words, flat, width, start, rows, *known, 0, keys), keys

    reached, keys = number()
    assert reached == rows
    np.testing.assert_array_equal(keys, expected)
    if rows > 64:
        reached, keys = number(start=64)
        assert reached == rows
        np.testing.assert_array_equal(keys[64:], expected[64:])
        assert (keys[:64] == -1).all()
    # A character that has no step, or one where nothing may vary, stops it at its block.
    place = rows - 1
    before, steps[1, chars[place, 2]] = steps.copy(), -(2**56)
    with_it = np.flatnonzero(chars[:, 2] == chars[place, 2])[0]
    assert number()[0] == with_it // 64 * 64
    steps[:] = before
    chars[place, 1] ^= 1
    assert number()[0] == place // 64 * 64


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
    assert kernels.encode_rows(words, 2, 0, 5, kernels.ALL_ROWS, *state, 0, codes) == (3, 2, 0)
    assert codes[:3].tolist() == [0, 1, 0]
    assert state[3].tolist() == [0, 1]
    assert state[2].tolist() == [1, 1, 0]  # of the words of a row, the second alone varies
    assert kernels.encode_rows(words, 2, 0, 5, kernels.KNOWN_ROWS, *state, 2, codes) == (5, 2, 1)
    assert codes.tolist() == [0, 1, 0, -1, 1]
    wider = _rows(4, 2, 16)
    scratch = np.empty(2, dtype=np.int32)
    assert kernels.encode_rows(state[1], 2, 0, 2, kernels.ALL_ROWS, *wider, 0, scratch) == (2, 2, 0)
    assert kernels.encode_rows(words, 2, 0, 5, kernels.MISSING_ROWS, *wider, 2, codes) == (5, 3, 0)
    assert codes.tolist() == [0, 1, 0, 2, 1]


def test_colliding_rows_are_told_apart():
    # A table of four places and two codes: some of these rows must share a place.
    for other in range(1, 40):
        codes = np.empty(4, dtype=np.int32)
        words = np.array([0, other, 0, other], dtype=np.uint64)
        kernels.encode_rows(words, 1, 0, 4, kernels.ALL_ROWS, *_rows(2, 1, 4), 0, codes)
        assert codes.tolist() == [0, 1, 0, 1]
