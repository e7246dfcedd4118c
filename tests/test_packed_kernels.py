"""Rows of characters packed and looked up, whatever their width."""

from __future__ import annotations

import numpy as np
import pytest

from labeltrack import _dictionary
from labeltrack import _packed_kernels as kernels
from labeltrack._dictionary_kernels import HASHED, enter_rows


def test_constants_of_the_driver_are_those_of_the_kernels():
    assert _dictionary._GROUP == kernels.GROUP
    assert _dictionary._WIDEST == kernels.GROUP * HASHED


def packed(chars):
    """Return rows of characters as the kernel has them: groups of eight bytes, of which the last may overlap."""
    width = chars.shape[1]
    starts = [min(first, width - kernels.GROUP) for first in range(0, width, kernels.GROUP)]
    low = chars.astype(np.uint8)
    return (
        np.concatenate([low[:, start : start + kernels.GROUP] for start in starts], axis=1).reshape(-1).view(np.uint64)
    )


@pytest.mark.parametrize("width", range(kernels.GROUP, kernels.GROUP * HASHED + 1))
@pytest.mark.parametrize("factor", [0, 0x9E3779B97F4A7C15])
def test_each_character_is_compared_where_they_are_packed(width, factor):
    rng = np.random.default_rng(width)
    known_chars = rng.integers(0, 256, (5, width), dtype=np.uint32)
    known, groups = packed(known_chars), -(-width // kernels.GROUP)
    pad = [0] * (HASHED - groups)
    hashed = np.array([*range(groups), *pad, *[factor] * groups, *pad, 64 - 8], dtype=np.uint64)
    table, no_moves = np.full(256, -1, dtype=np.int32), np.zeros(1, dtype=np.uint16)
    elsewhere = enter_rows(known, groups, 0, 5, table, no_moves, hashed)
    assert elsewhere < 5 if factor else elsewhere == 10
    expected = rng.integers(0, 5, 300)
    rows = known_chars[expected]
    strange = rng.permutation(300)[: 4 * width]
    for k, row in enumerate(strange.tolist()):  # one bit of one character, of its lowest byte or of the others
        rows[row, k % width] ^= np.uint32(1 << (5 * k % 32))
    expected[strange] = -1
    codes = np.full(300, 7, dtype=np.int32)
    state = (table, no_moves, known, hashed)
    assert kernels.look_packed_up(rows.reshape(-1), width, 0, 300, *state, 0, codes) == strange.size
    assert codes.tolist() == expected.tolist()
    codes[:] = 7
    kernels.look_packed_up(rows.reshape(-1), width, 100, 200, *state, 90, codes)
    assert codes[:10].tolist() == [7] * 10
    assert codes[10:110].tolist() == expected[100:200].tolist()
    assert (codes[110:] == 7).all()
