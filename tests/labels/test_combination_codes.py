"""Combinations of labels of any type: a code for each, in order of appearance, and the way back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labeltrack._labels.codes import label_kind
from labeltrack._labels.combination_codes import CODED, Combinations, kind_of, uncoded
from labeltrack._serialize import plain, with_arrays

COLUMNS = {
    "small": st.integers(0, 3).map(np.int64),
    "whole": (st.integers(-(2**63), 2**63 - 1) | st.sampled_from([-1, 0, 2**30 - 1, 2**30])).map(np.int64),
    "high": (st.integers(0, 2**64 - 1) | st.sampled_from([1, 2**63])).map(np.uint64),
    "float": st.sampled_from([-1.5, 0.0, 0.1, 2.0**70, float("inf")]).map(np.float64),
    "bool": st.booleans().map(np.bool_),
    "text": st.sampled_from(["", "a", "b" * 200, "c\0"]),
    "bytes": st.sampled_from([b"a", b"bb"]),
}


def as_array(values):
    if isinstance(values[0], (str, bytes)):
        found = np.empty(len(values), dtype=object)
        found[:] = values
        return found
    return np.array(values)


@st.composite
def batches(draw):
    """Return several batches of labels of the same types: ``(columns, kinds)``."""
    types = draw(st.lists(st.sampled_from(sorted(COLUMNS)), min_size=1, max_size=4))
    found = []
    for _ in range(draw(st.integers(1, 4))):
        rows = draw(st.lists(st.tuples(*(COLUMNS[each] for each in types)), min_size=1, max_size=8))
        columns = [as_array(list(column)) for column in zip(*rows, strict=True)]
        found.append((columns, list(map(label_kind, columns))))
    return found


@given(batches())
def test_codes_are_those_of_a_dict_and_lead_back_to_the_labels(drawn):
    names = [f"label {i}" for i in range(len(drawn[0][0]))]
    words, expected = Combinations(names), {}
    for columns, kinds in drawn:
        rows = list(zip(*(column.tolist() for column in columns), strict=True))
        codes = words.encode_columns(columns, kinds)
        assert codes.tolist() == [expected.setdefault(row, len(expected)) for row in rows]
        decoder = words.decoder(kind_of(kinds))
        assert decoder.decode(codes.astype(np.int64)).tolist() == rows
        kept = {names[0]: [rows[0][0]]}
        mine = {code for row, code in zip(rows, codes.tolist(), strict=True) if row[0] == rows[0][0]}
        assert mine <= set(decoder.wanted(kept).tolist()) <= {c for row, c in expected.items() if row[0] == rows[0][0]}
    again = Combinations(names, with_arrays(plain(words.state())))
    assert len(again) == len(words) == len(expected)
    for columns, kinds in drawn:
        assert again.encode_columns(columns, kinds).tolist() == words.encode_columns(columns, kinds).tolist()


@given(batches())
def test_keys_of_labels_are_those_they_were_decoded_from(drawn):
    words = Combinations([f"label {i}" for i in range(len(drawn[0][0]))])
    for columns, kinds in drawn:
        codes = np.unique(words.encode_columns(columns, kinds)).astype(np.int64)
        decoder = words.decoder(kind_of(kinds))
        assert decoder.keys(decoder.decode(codes)).tolist() == codes.tolist()


def test_integers_above_a_bool_are_no_bools():
    words = Combinations(["a", "b"])
    words.encode_columns([np.array([0, 1, 5]), np.array([0, 0, 0])], ["integer", "integer"])
    codes = words.encode_columns([np.array([True]), np.array([0])], ["bool", "integer"])
    decoder = words.decoder("(bool, integer)")
    assert decoder.decode(codes.astype(np.int64)).tolist() == [(True, 0)]
    assert decoder.keys(decoder.decode(codes.astype(np.int64))).tolist() == codes.tolist() == [1]


def test_labels_that_wait_get_the_codes_of_those_that_are_coded_at_once():
    words, other = Combinations(["a", "b"]), Combinations(["a", "b"])
    a, b = np.array([1, 2, 1]), np.array([7, 7, 8], dtype=np.uint8)
    waiting = uncoded({"b": b, "a": a, "c": None}, words, "(integer, integer)", CODED)
    waiting.write((a, b), 0, 3)
    waiting.write((b.astype(a.dtype), b), 3, 6)
    codes = other.encode_columns([np.append(a, b), np.append(b, b)], ["integer", "integer"])
    assert waiting.codes(6).tolist() == codes.tolist()
    assert (
        words.encode_columns([a, b], ["integer"] * 2).tolist() == other.encode_columns([a, b], ["integer"] * 2).tolist()
    )
    assert uncoded((a, b), words, "(integer, integer)", waiting) is waiting
    assert uncoded((a, a), words, "(integer, integer)", waiting) is not waiting
    for wrong in [(a, a), (a, b, b), (a,), (a, b[:2]), (a.reshape(-1, 1), b.reshape(-1, 1)), [a, b], (a * 1.0, b), a]:
        with pytest.raises((TypeError, ValueError, NotImplementedError)):
            waiting.write(wrong, 0, 3)
    for labels, kind in [
        ((a, b), "(unsigned, integer)"),
        ((a * 1.0, b), "(integer, integer)"),
        ([a, b], "(integer, integer)"),
    ]:
        assert uncoded(labels, words, kind, CODED) is CODED
    with pytest.raises((TypeError, ValueError)):
        CODED.write((a, b), 0, 3)


def test_one_code_means_other_labels_under_other_kinds():
    words = Combinations(["a", "b"])
    first = words.encode_columns([np.array([0, -1]), np.array([7, 7])], ["integer", "integer"])
    second = words.encode_columns([["x"], np.array([7])], ["string", "integer"])
    third = words.encode_columns([np.array([2**64 - 1], np.uint64), np.array([7])], ["unsigned", "integer"])
    assert [*second.tolist(), *third.tolist()] == first.tolist()
    for kind, code, row in [("integer", 0, (0, 7)), ("string", 0, ("x", 7)), ("unsigned", 1, (2**64 - 1, 7))]:
        decoder = words.decoder(f"({kind}, integer)")
        assert decoder.decode(np.array([code])).tolist() == [row]
        assert code in decoder.wanted({"a": [row[0]]}).tolist()


@pytest.mark.parametrize("names", [["a"], ["a", "b", "c"]])
def test_combinations_of_another_number_of_labels_are_refused(names):
    words = Combinations(["a", "b"])
    words.encode_columns([np.arange(3), np.arange(3)], ["integer", "integer"])
    with pytest.raises(TypeError, match=f"expected combinations of {len(names)} labels, got 2"):
        Combinations(names, words.state())
