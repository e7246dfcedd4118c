"""The columns of a part: what the metadata says of them is checked."""

from __future__ import annotations

import numpy as np
import pytest

from labeltrack.errors import DamagedRunError
from labeltrack.recording.schema import Coded, Columns, columns_of, read_coded, read_columns, said_of

I4, I8, F4, F8 = (np.dtype(code) for code in ("i4", "i8", "f4", "f8"))
ONE, WORD = Coded("integer"), Coded("string", "3")


@pytest.mark.parametrize(
    ("names", "metrics", "ids", "expected"),
    [
        ((), ("ce",), False, ("label", "value")),
        ((), ("ce",), True, ("label", "value", "id")),
        (("class",), (), False, ("class", "value")),
        (("class", "label"), ("ce",), False, ("class", "label", "value")),
        ((), ("ce", "value"), True, ("label", "ce", "value", "id")),
        (("a", "b", "c"), ("d", "e"), True, ("a", "b", "c", "d", "e", "id")),
    ],
)
def test_what_a_part_says_of_its_columns_comes_back(names, metrics, ids, expected):
    columns = columns_of(names, metrics, ids=ids)
    assert columns.names == expected
    coded, coded_ids = [ONE, WORD, ONE][: len(columns.labels)], WORD if ids else None
    said = said_of(columns, coded, coded_ids)
    dtypes = dict.fromkeys(columns.labels, I4) | dict.fromkeys(columns.values, F4) | dict.fromkeys(["id"] * ids, I8)
    assert read_columns(dtypes, said) == columns
    assert read_coded(columns, said) == (coded, coded_ids)
    assert (said.keys() == {"kind", "words"}) == (expected == ("label", "value"))


@pytest.mark.parametrize(
    ("dtypes", "said"),
    [
        ({"label": I4, "values": F4}, {}),
        ({"labels": I4, "value": F4}, {}),
        ({"label": I4}, {}),
        ({"label": I4, "value": I4}, {}),
        ({"label": I4, "value": F4, "id": I8}, {}),
        ({"label": I4, "value": F4, "id": I4}, {"ids": "integer"}),
        ({"label": I4, "value": F4, "key": I8}, {"ids": "integer"}),
        ({"label": I4, "value": F4}, {"ids": "integer"}),
        ({"a": I4, "b": I4, "value": F4}, {"labels": "3"}),
        ({"a": I4, "b": I4, "value": F4}, {"labels": "0"}),
        ({"a": I4, "b": I4, "value": F4}, {"labels": "-2"}),
        ({"a": I4, "b": I4, "value": F4}, {"labels": "²"}),
        ({"a": I4, "b": I4, "ce": F4}, {"labels": "2"}),
        ({"label": I4, "ce": F4, "hit": I8}, {"metrics": "2"}),
    ],
)
def test_columns_that_are_not_what_the_metadata_says_are_damage(dtypes, said):
    with pytest.raises(DamagedRunError, match=f"columns {next(iter(dtypes))}"):
        read_columns(dtypes, said)


@pytest.mark.parametrize("said", [{}, {"kind": "integer", "words": ","}, {"kind": "a,b,c", "words": ",,"}])
def test_kinds_and_words_that_are_not_one_for_each_label_say_nothing(said):
    assert read_coded(Columns(("a", "b")), said) == ([], None)
