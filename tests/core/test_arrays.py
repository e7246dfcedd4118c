"""Memory begins where it is loaded and stored fastest."""

from __future__ import annotations

import numpy as np
import pytest

from labeltrack._core.arrays import aligned_words, from_page


@pytest.mark.parametrize("words", [1, 100, 1 << 18])
def test_words_are_zero_and_begin_on_a_cache_line(words):
    memory = aligned_words(words)
    assert memory.shape == (words,)
    assert not memory.any()
    assert memory.ctypes.data % 64 == 0


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64, np.float32, np.float64])
@pytest.mark.parametrize("rows", [0, 1, 4096, 1 << 18])
def test_columns_begin_on_a_page_and_have_their_own_memory(rows, dtype):
    first, second = (from_page(rows, np.dtype(dtype)) for _ in range(2))
    assert (first.shape, first.dtype, first.nbytes) == ((rows,), dtype, rows * np.dtype(dtype).itemsize)
    assert first.flags.c_contiguous
    assert first.flags.writeable
    assert rows == 0 or first.ctypes.data % 4096 == second.ctypes.data % 4096 == 0
    assert not np.shares_memory(first, second)
