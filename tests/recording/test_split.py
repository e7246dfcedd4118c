"""Codes of combinations become one column per label."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labeltrack._labels.tuples import Combinations
from labeltrack.recording.split import Split

LABELS = {
    "bool": st.booleans(),
    "integer": st.integers(-(2**63), 2**63 - 1) | st.integers(-3, 3),
    "unsigned": st.integers(0, 2**64 - 1),
    "float": st.floats(allow_nan=False).map(lambda label: label + 0.0),
    "string": st.text(max_size=3),
    "bytes": st.binary(max_size=3),
}


@given(st.data(), st.lists(st.sampled_from(sorted(LABELS)), min_size=1, max_size=3))
def test_columns_hold_the_labels_as_combinations_come(data, kinds):
    words = Combinations(["x", "y", "z"][: len(kinds)])
    split, kind = Split(words), f"({', '.join(kinds)})"
    for _ in range(3):
        rows = data.draw(st.lists(st.tuples(*(LABELS[one] for one in kinds)), max_size=20))
        columns = split.columns(words.encode(rows), kind)
        assert [found for _, found, _ in columns] == kinds
        labels = [
            column.tolist() if of is None else [of.words[code] for code in column.tolist()] for column, _, of in columns
        ]
        assert list(zip(*labels, strict=True)) == rows


def test_integers_take_32_bits_until_one_does_not_fit():
    words = Combinations(["x"])
    split = Split(words)
    dtypes = [
        split.columns(words.encode([(label,) for label in labels]), "(integer)")[0][0].dtype
        for labels in ([1, 2], [2**31 - 1, -(2**31)], [2**31], [1])
    ]
    assert dtypes == [np.int32, np.int32, np.int64, np.int64]


def test_a_combination_may_be_of_several_kinds():
    words = Combinations(["x", "y"])
    split = Split(words)
    for kind, row in (("(bool, integer)", (True, 1)), ("(float, integer)", (1.0, 1)), ("(integer, bool)", (1, True))):
        (first, *_), (second, *_) = split.columns(words.encode([row]), kind)
        assert (first.tolist(), second.tolist()) == ([1], [1])
        assert first.dtype == {"(bool": np.uint8, "(float": np.float64, "(integer": np.int32}[kind.split(",")[0]]


@pytest.mark.parametrize("kind", ["string", "bytes"])
def test_kinds_share_the_words_of_a_label(kind):
    words = Combinations(["x", "y"])
    split = Split(words)
    text = "a" if kind == "string" else b"a"
    first = split.columns(words.encode([(text, 1)]), f"({kind}, integer)")[0]
    second = split.columns(words.encode([(text, 2.5)]), f"({kind}, float)")[0]
    assert first[2] is second[2]
    assert second[0].tolist() == [0]
