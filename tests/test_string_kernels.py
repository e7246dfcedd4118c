"""The loop over characters against plain numpy; coding by rows is tested where it is used, in `test_strings`."""

from __future__ import annotations

import numpy as np
import pytest

from labeltrack import _string_kernels as kernels


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
