"""The first sample of each id, as a plain set finds it."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from labeltrack.recording.distinct import Distinct
from labeltrack.recording.reader import Column
from labeltrack.recording.words import Words

VOCABULARIES = [["a", "b", "c"], ["c", "d", "a"], ["b"]]
NUMBERS = Column("integer", np.dtype(np.int64))
BATCH = st.tuples(st.integers(-1, 2), st.lists(st.integers(0, 2), max_size=8))


def column(words):
    vocabulary = Words("string")
    vocabulary.add(words)
    return Column("string", np.dtype(np.int64), "1", vocabulary)


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
