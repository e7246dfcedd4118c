"""The loop over characters against plain numpy, and coding of rows."""

from __future__ import annotations

import numpy as np
import pytest

from labeltrack import _string_kernels as kernels
from labeltrack._alphabets import STEP_UNIT


def test_constants_of_the_driver_are_those_of_the_kernels():
    assert STEP_UNIT == kernels.BLOCK


@pytest.mark.parametrize("dtype", [np.uint32, np.uint8])
@pytest.mark.parametrize("rows", [1, 15, 16, 17, 63, 64, 65, 128, 200])
@pytest.mark.parametrize("keys_dtype", [np.int32, np.int64])
@pytest.mark.parametrize("varying", [1, 2, 3, 4, 5, 8, 9])
@pytest.mark.parametrize("width", [10, 12, 16])
def test_numbers_are_sums_of_steps(dtype, rows, keys_dtype, varying, width):
    rng = np.random.default_rng(rows)
    block = kernels.BLOCK // np.dtype(dtype).itemsize
    places = rng.permutation(width)
    constant, places = places[0], places[1 : varying + 1]
    chars = np.tile(rng.integers(0, 255, width).astype(dtype), (rows, 1))
    chars[:, places] = rng.integers(0, 255, (rows, varying))
    steps = rng.integers(0, 2**27, (varying, 256))
    row, mask = chars[0].copy(), np.full(width, np.iinfo(dtype).max, dtype=dtype)
    mask[places] -= 255
    expected = steps[np.arange(varying), chars[:, places]].sum(axis=1)

    def number(start=0):
        keys = np.full(rows, -1, dtype=keys_dtype)
        flat = chars.reshape(-1)
        words = np.concatenate([flat.view(np.uint8), np.zeros(-flat.nbytes % 8, dtype=np.uint8)]).view(np.uint64)
        base, masks = np.tile(row, block), np.tile(mask, block)
        known = (base.view(np.uint64), masks.view(np.uint64), base, masks, places, steps.reshape(-1))
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
    for which in {0, varying - 1}:
        before, steps[which, chars[place, places[which]]] = steps.copy(), -(2**56)
        with_it = np.flatnonzero(chars[:, places[which]] == chars[place, places[which]])[0]
        assert number()[0] == with_it // block * block
        steps[:] = before
    chars[place, constant] ^= 1
    assert number()[0] == place // block * block
    chars[place, constant] ^= 1
    if np.dtype(dtype).itemsize > 1:  # one that looks like a known one in its lowest byte
        chars[place, places[0]] ^= 1 << 16
        assert number()[0] == place // block * block


@pytest.mark.parametrize("width", range(1, 40))
@pytest.mark.parametrize("dtype", [np.uint32, np.uint8])
def test_each_character_of_a_block_is_compared(width, dtype):
    block = kernels.BLOCK // np.dtype(dtype).itemsize
    rng = np.random.default_rng(width)
    row = rng.integers(0, 127, width).astype(dtype)
    base, mask = np.tile(row, block), np.tile(np.full(width, np.iinfo(dtype).max, dtype=dtype), block)
    known = (base.view(np.uint64), mask.view(np.uint64), base, mask, np.zeros(1, dtype=np.int64))
    keys = np.empty(64, dtype=np.int32)
    for place in rng.permutation(64 * width)[:50]:
        flat = np.tile(row, 64)
        flat[place] ^= 64
        steps = np.zeros(256, dtype=np.int64)
        reached = kernels.number_rows(flat.view(np.uint64), flat, width, 0, 64, *known, steps, 0, keys)
        assert reached == place // width // block * block


@pytest.mark.parametrize("rows", [100, 384, 1000])
@pytest.mark.parametrize("dtype", [np.uint32, np.uint8])
def test_numbering_ends_at_the_first_of_several_blocks_that_are_not_known(rows, dtype):
    block = kernels.BLOCK // np.dtype(dtype).itemsize
    rng = np.random.default_rng(rows)
    base, mask = np.full(8 * block, 65, dtype=dtype), np.full(8 * block, np.iinfo(dtype).max, dtype=dtype)
    known = (base.view(np.uint64), mask.view(np.uint64), base, mask, np.zeros(1, dtype=np.int64))
    steps = np.full(256, 7, dtype=np.int64)
    for start in (0, 64):
        for many in (1, 2, 5) * 5:
            flat = np.full(rows * 8, 65, dtype=dtype)
            strange = rng.integers(start, rows, many)
            flat[strange * 8 + rng.integers(0, 8, many)] ^= 32
            keys = np.full(rows - start, -1, dtype=np.int32)
            reached = kernels.number_rows(flat.view(np.uint64), flat, 8, start, rows, *known, steps, start, keys)
            assert reached == strange.min() // block * block
            assert (keys[: reached - start] == 7).all()


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
