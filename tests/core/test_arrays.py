"""Memory of tables begins where vectors of them can be loaded and stored at once."""

from __future__ import annotations

import pytest

from labeltrack._core.arrays import aligned_words


@pytest.mark.parametrize("words", [1, 100, 1 << 14, 1 << 18, 1 << 19])
def test_words_are_zero_and_begin_on_a_cache_line(words):
    memory = aligned_words(words)
    assert memory.shape == (words,)
    assert not memory.any()
    assert memory.ctypes.data % 64 == 0
