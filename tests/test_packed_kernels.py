"""Rows of characters packed and looked up, whatever their width."""

from __future__ import annotations

import numpy as np
import pytest

from labeltrack import _dictionary
from labeltrack import _packed_kernels as kernels
from labeltrack._dictionary_kernels import HASHED, arrange_rows, enter_rows


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


FACTORS = [0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x27D4EB2F165667C5]


@pytest.mark.parametrize("width", range(kernels.GROUP, kernels.GROUP * HASHED + 1))
@pytest.mark.parametrize("moved", [True, False])  # False: all have one place, where each has to be compared
def test_each_character_is_compared_where_they_are_packed(width, moved):
    rng = np.random.default_rng(width)
    known_chars = rng.integers(0, 256, (5, width), dtype=np.uint32)
    known, groups = packed(known_chars), -(-width // kernels.GROUP)
    pad = [0] * (HASHED - groups)
    factors = FACTORS[:groups] if moved else [0] * groups
    hashed = np.array([*range(groups), *pad, *factors, *pad, 64 - 8], dtype=np.uint64)
    table, moves = np.full(256, -1, dtype=np.int32), np.zeros(32, dtype=np.uint16)
    if moved:
        assert arrange_rows(known, groups, table, moves, hashed) < 5
        moves[rng.integers(0, 32, 5)] += np.uint16(7)  # wherever they are moved to, what was entered is found
        table[:] = -1
    enter_rows(known, groups, 0, 5, table, moves, hashed)
    expected = rng.integers(0, 5, 317)
    rows = known_chars[expected]
    strange = rng.permutation(317)[: 4 * width]
    for k, row in enumerate(strange.tolist()):  # one bit of one character, of its lowest byte or of the others
        rows[row, k % width] ^= np.uint32(1 << (5 * k % 32))
    expected[strange] = -1
    codes = np.full(317, 7, dtype=np.int32)
    state = (table, moves, known, hashed)
    assert kernels.look_packed_up(rows.reshape(-1), width, 0, 317, *state, 0, codes) == strange.size
    assert codes.tolist() == expected.tolist()
    ranges = (100, 200), (3, 4), (40, 40), (10, 90), (200, 317)  # streams, blocks after them, a part of one
    for start, stop in ranges:
        codes[:] = 7
        missing = kernels.look_packed_up(rows.reshape(-1), width, start, stop, *state, start - 3, codes)
        assert missing == np.count_nonzero(expected[start:stop] < 0)
        assert codes[:3].tolist() == [7] * 3
        assert codes[3 : 3 + stop - start].tolist() == expected[start:stop].tolist()
        assert (codes[3 + stop - start :] == 7).all()


@pytest.mark.parametrize("width", [8, 13, 20, 32])
@pytest.mark.parametrize("suffixes", [0, 100])
def test_places_depend_on_each_character(width, suffixes):
    rng = np.random.default_rng(width)
    many = 40 * suffixes or 26 * width
    chars = np.repeat(rng.integers(97, 123, (1, width), dtype=np.uint32), many, axis=0)
    if suffixes:  # the last two of eight characters have no part in the lower bits of a product
        chars[:, :6] = np.repeat(rng.integers(97, 123, (40, 6)), suffixes, axis=0)
        chars[:, 6:8] = np.tile(np.indices((10, 10)).reshape(2, -1).T + 97, (40, 1))
    else:  # words that differ in one character alone, wherever it is
        chars[np.arange(many), np.repeat(np.arange(width), 26)] = np.tile(np.arange(65, 91), width)
    known, groups = packed(chars), -(-width // kernels.GROUP)
    pad = [0] * (HASHED - groups)
    bits = (4 * chars.shape[0] - 1).bit_length()
    hashed = np.array([*range(groups), *pad, *FACTORS[:groups], *pad, 64 - bits], dtype=np.uint64)
    table, moves = np.full(1 << bits, -1, dtype=np.int32), np.zeros(1 << bits - 3, dtype=np.uint16)
    assert arrange_rows(known, groups, table, moves, hashed) <= (5 if suffixes else many // 20)
    codes = np.empty(chars.shape[0], dtype=np.int32)
    state = (table, moves, known, hashed)
    assert kernels.look_packed_up(chars.reshape(-1), width, 0, codes.size, *state, 0, codes) == 0
    assert codes.tolist() == list(range(codes.size))
