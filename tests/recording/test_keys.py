"""Words of a vocabulary come back; the first sample of each id, as a plain set finds it."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labeltrack.recording.keys import Column, Distinct, Words

TEXT = st.text(st.characters(min_codepoint=0, max_codepoint=0x10FFFF, categories=None), max_size=5)


@given(st.lists(st.lists(TEXT, max_size=5), max_size=5))
def test_strings_come_back(blocks):
    words, expected = Words("string"), []
    for block in blocks:
        words.add(block)
        expected += block
        assert words.array.tolist() == expected
        assert len(words) == len(expected)


@given(st.lists(st.binary(max_size=4), max_size=9))
def test_bytes_are_added_in_hexadecimal(expected):
    words = Words("bytes")
    words.add([word.hex() for word in expected])
    assert words.array.tolist() == expected


@pytest.mark.parametrize(("kind", "added"), [("string", ["a", 3]), ("bytes", ["0g"]), ("bytes", [b"\0"])])
def test_words_of_another_kind_are_refused_and_add_nothing(kind, added):
    words = Words(kind)
    with pytest.raises((TypeError, ValueError)):
        words.add(added)
    assert len(words) == 0
    with pytest.raises(ValueError, match="words of kind 'integer'"):
        Words("integer")


# -- ids -------------------------------------------------------------------------------------------------

VOCABULARIES = [["a", "b", "c"], ["c", "d", "a"], ["b"]]
NUMBERS = Column("integer", np.dtype(np.int64))
BATCH = st.tuples(st.integers(-1, 2), st.lists(st.integers(0, 2), max_size=8))


def column(words):
    vocabulary = Words("string")
    vocabulary.add(words)
    return Column("string", np.dtype(np.int64), "1", vocabulary)


@given(st.lists(st.lists(st.integers(0, 20) | st.sampled_from([-1, 2**21, 2**40, -(2**63), 2**63 - 1]), max_size=9)))
def test_integers_of_any_size_are_found(batches):
    distinct, seen = Distinct(), set()
    for ids in batches:
        found = distinct.first(np.array(ids, dtype=np.int64), NUMBERS)
        expected = [one not in seen and one not in ids[:place] for place, one in enumerate(ids)]
        assert (np.ones(len(ids), bool) if found is None else found).tolist() == expected
        seen.update(ids)


def test_many_ids_in_any_order_are_found():
    rng, distinct, seen = np.random.default_rng(0), Distinct(), np.zeros(3_000_000, bool)
    for _ in range(20):
        ids = rng.integers(0, 3_000_000, 50_000)
        found = distinct.first(ids, NUMBERS)
        fresh = np.zeros(ids.shape[0], bool)
        fresh[np.unique(ids, return_index=True)[1]] = True
        np.testing.assert_array_equal(found, fresh & ~seen[ids])
        seen[ids] = True


def test_ids_that_ascend_by_leaps_take_memory_by_their_number():
    distinct, batches = Distinct(), [file * 10**6 + np.arange(100) for file in range(0, 5000, 2)]
    tracemalloc.start()
    firsts = [distinct.first(ids, NUMBERS) for ids in batches]
    again = [distinct.first(ids, NUMBERS) for ids in batches]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert all(first is None or first.all() for first in firsts)
    assert not any(first is None or first.any() for first in again)
    assert peak < 2**26


@given(st.lists(BATCH, max_size=8))
def test_the_first_of_each_id_is_found_among_batches(batches):
    columns, distinct, seen = [column(words) for words in VOCABULARIES], Distinct(), set()
    for place, codes in batches:
        words = VOCABULARIES[place]
        ids = codes if place < 0 else [words[code % len(words)] for code in codes]
        of = NUMBERS if place < 0 else columns[place]
        keys = codes if place < 0 else [code % len(words) for code in codes]
        expected = []
        for one in ids:
            expected.append(one not in seen)
            seen.add(one)
        found = distinct.first(np.array(keys, dtype=np.int64), of)
        assert (np.ones(len(ids), bool) if found is None else found).tolist() == expected
