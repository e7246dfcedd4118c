"""Words of a vocabulary: what was added comes back, by code and all at once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labeltrack.recording.words import Words

TEXT = st.text(st.characters(min_codepoint=0, max_codepoint=0x10FFFF, categories=None), max_size=5)


@given(st.lists(st.lists(TEXT, max_size=5), max_size=5), st.data())
def test_strings_come_back_by_code_and_all_at_once(blocks, data):
    words, expected = Words("string"), []
    for block in blocks:
        words.add(block)
        expected += block
        assert words.array.tolist() == expected
    codes = data.draw(st.lists(st.integers(0, len(expected) - 1)) if expected else st.just([]))
    assert (len(words), words.at(codes)) == (len(expected), [expected[code] for code in codes])


@given(st.lists(st.binary(max_size=4), max_size=9))
def test_bytes_are_added_in_hexadecimal(expected):
    words = Words("bytes")
    words.add([word.hex() for word in expected])
    assert words.array.tolist() == words.at(range(len(words))) == expected


@pytest.mark.parametrize(("kind", "added"), [("string", ["a", 3]), ("bytes", ["0g"]), ("bytes", [b"\0"])])
def test_words_of_another_kind_are_refused_and_add_nothing(kind, added):
    words = Words(kind)
    with pytest.raises((TypeError, ValueError)):
        words.add(added)
    assert len(words) == 0
    with pytest.raises(ValueError, match="words of kind 'integer'"):
        Words("integer")
