"""Labels to keys and back: kinds, encoding, vocabularies, mappings, unions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labeltrack._convert.objects import text_array
from labeltrack._labels.codes import (
    LabelDecoder,
    Vocabulary,
    integer_keys,
    label_kind,
    read_mapping,
    sorted_unique,
    union,
)


@pytest.mark.parametrize(
    ("dtype", "kind"),
    [
        ("?", "bool"),
        ("i1", "integer"),
        ("u4", "integer"),
        ("u8", "unsigned"),
        ("f2", "float"),
        ("U3", "string"),
        ("S3", "bytes"),
    ],
)
def test_every_dtype_of_labels_has_a_kind(dtype, kind):
    assert label_kind(np.zeros(1, dtype=dtype)) == kind


@pytest.mark.parametrize("dtype", ["c16", "M8[s]", "m8[s]", "V3", "g"])
def test_a_dtype_that_cannot_be_ordered_is_refused(dtype):
    with pytest.raises(TypeError, match="labels must be integers, bools, floats or strings, got dtype"):
        label_kind(np.zeros(1, dtype=dtype))


@pytest.mark.parametrize("dtype", ["?", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8"])
def test_keys_of_every_numeric_dtype_lead_back_to_the_labels(dtype):
    labels = np.array([1, 0, 1, 100], dtype=dtype)
    if labels.dtype.kind in "if":
        labels[0] = -7
    kind = label_kind(labels)
    keys = integer_keys(labels, kind)
    assert keys.dtype in (np.uint8, np.int32, np.int64)
    assert np.array_equal(LabelDecoder(kind).decode(keys.astype(np.int64)), labels)


def test_the_common_dtypes_are_read_as_they_are():
    for dtype in ("u1", "i4", "i8", "u8", "?"):
        labels = np.zeros(4, dtype=dtype)
        assert np.shares_memory(integer_keys(labels, label_kind(labels)), labels)


def test_the_largest_unsigned_labels_survive():
    labels = np.array([0, 2**63, 2**64 - 1], dtype=np.uint64)
    back = LabelDecoder("unsigned").decode(integer_keys(labels, "unsigned").astype(np.int64))
    assert back.dtype == np.uint64
    assert back.tolist() == labels.tolist()
    assert LabelDecoder("unsigned").decode(np.array([3, 5])).dtype == np.int64  # no need of uint64


def test_negative_zero_is_the_label_zero():
    keys = integer_keys(np.array([-0.0, 0.0]), "float")
    assert keys[0] == keys[1]


words = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=9)


def test_a_vocabulary_grows_from_lists_and_arrays_alike():
    vocabulary = Vocabulary("string")
    assert vocabulary.encode(["b", "a", "b"]).tolist() == [0, 1, 0]
    assert vocabulary.encode(np.array(["c", "a"])).tolist() == [2, 1]
    assert vocabulary.encode(("c",)).tolist() == [2]
    assert vocabulary.encode([]).size == 0
    assert vocabulary.decoder("string").decode(np.array([2, 0])).tolist() == ["c", "b"]
    large = np.array(["a", "d"]).repeat(3000)
    assert vocabulary.encode(large).tolist() == [1] * 3000 + [3] * 3000


def test_nuls_at_the_end_tell_words_apart():
    vocabulary = Vocabulary("string")
    assert vocabulary.encode(["a\0", "a", "a\0\0", "a"]).tolist() == [0, 1, 2, 1]
    assert vocabulary.decoder("string").decode(np.array([2, 1, 0])).tolist() == ["a\0\0", "a", "a\0"]


def test_objects_are_labels_if_they_are_text():
    assert label_kind(np.array(["a", "b"], dtype=object)) == "string"
    assert label_kind(np.array([b"a"], dtype=object)) == "bytes"
    with pytest.raises(TypeError, match="got dtype object"):
        label_kind(np.array([1], dtype=object))


long_or_short = st.lists(st.sampled_from(["a", "a\0", "b", "c" * 300, "", "\0"]), min_size=1, unique=True)


@given(st.lists(long_or_short, min_size=1, max_size=4))
def test_the_union_of_long_and_short_text_is_that_of_sets(parts):
    arrays = [text_array(sorted(part)) for part in parts]
    together, places = union(arrays)
    assert together.tolist() == sorted(set().union(*parts))
    for part, where in zip(arrays, places, strict=True):
        assert together[where].tolist() == part.tolist()


@given(st.lists(st.integers(-5, 5), max_size=30))
def test_distinct_labels_are_found_by_sorting(labels):
    assert sorted_unique(np.array(labels, dtype=np.int64)).tolist() == sorted(set(labels))
    assert sorted_unique(np.array(labels).astype(np.str_)).tolist() == sorted(set(map(str, labels)))


@pytest.mark.parametrize("labels", [["a", 1], ["a", None], ["a", ["b"]], ["a", b"b"]])
def test_a_vocabulary_refuses_what_is_no_string_and_keeps_its_words(labels):
    vocabulary = Vocabulary("string", ["z"])
    with pytest.raises(TypeError):
        vocabulary.encode(labels)
    assert vocabulary.words == ["z"]


def test_an_empty_vocabulary_decodes_nothing():
    assert Vocabulary("string").decoder("string").decode(np.empty(0, dtype=np.int64)).dtype.kind == "U"
    assert Vocabulary("bytes").decoder("bytes").decode(np.empty(0, dtype=np.int64)).dtype.kind == "S"


@pytest.mark.parametrize(
    ("kind", "labels", "found"),
    [
        ("integer", [3, True, 4.0, 4.5, "3", float("nan"), float("inf"), 2**63], [3, 1, 4]),
        ("bool", [True, 0], [1, 0]),
        ("unsigned", [3, -1, 2**63, 2**64], [3, -(2**63)]),
        ("float", [0.5, -0.0, "x", 10**400], [np.float64(0.5).view(np.int64), 0]),
    ],
)
def test_a_mapping_keeps_the_labels_that_its_kind_can_hold(kind, labels, found):
    assert LabelDecoder(kind).encode(labels).tolist() == found


def test_a_mapping_of_strings_keeps_the_words_that_occurred():
    space = Vocabulary("string", ["cat", "dog"]).decoder("string")
    assert space.encode(["dog", "cow", 3]).tolist() == [1]


@pytest.mark.parametrize(
    ("mapping", "error", "message"),
    [
        ([("a", 1)], TypeError, r"must be a dict \{display name: label value\}, got list"),
        ({}, ValueError, "label_mapping is empty.*pass None"),
        ({0: "cat"}, TypeError, "the wrong way round"),
        ({"cat": [0]}, TypeError, r"label_mapping\['cat'\] must be a number or a string, got list"),
        ({"cat": 1, "dog": True}, ValueError, "gives label True two names: 'cat' and 'dog'"),
    ],
)
def test_a_mapping_that_makes_no_sense_is_refused(mapping, error, message):
    with pytest.raises(error, match=message):
        read_mapping(mapping)


def test_a_mapping_takes_numpy_labels():
    assert read_mapping({"cat": np.int64(3), "dog": np.str_("d")}) == {3: "cat", "d": "dog"}


@given(st.lists(st.sets(st.integers(-(2**62), 2**62), max_size=8), min_size=1, max_size=5))
def test_a_union_is_sorted_and_knows_the_place_of_every_label(sets):
    parts = [np.array(sorted(part), dtype=np.int64) for part in sets]
    together, places = union(parts)
    assert together.tolist() == sorted(set().union(*sets))
    for part, place in zip(parts, places, strict=True):
        assert together[place].tolist() == part.tolist()


def test_a_union_aliases_none_of_its_parts():
    part = np.array([1, 2])
    assert not np.shares_memory(union([part, part])[0], part)


@pytest.mark.parametrize(
    ("parts", "together"),
    [
        ([np.array([True]), np.array([0, 5])], [0, 1, 5]),
        ([np.array([1, 2]), np.array([1.5])], [1.0, 1.5, 2.0]),
        ([np.array(["a"]), np.array(["long"])], ["a", "long"]),
        ([np.array([5]), np.array([2**63], dtype=np.uint64)], [5, 2**63]),
        ([np.array([], dtype=np.int64), np.array(["a"])], ["a"]),
        ([np.array([-(2**63), 0]), np.array([2**63 - 1])], [-(2**63), 0, 2**63 - 1]),
        ([np.array([2**63, 2**64 - 1], dtype=np.uint64), np.array([3])], [3, 2**63, 2**64 - 1]),
        ([np.array([2**64 - 1], dtype=np.uint64), np.array([2**64 - 2], dtype=np.uint64)], [2**64 - 2, 2**64 - 1]),
        ([np.array([-(2**63)]), np.array([], dtype=np.int64), np.array([2 - 2**63])], [-(2**63), 2 - 2**63]),
        ([np.array([], dtype=np.int64), np.array([], dtype=np.int64)], []),
    ],
)
def test_labels_of_related_types_are_united(parts, together):
    assert union(parts)[0].tolist() == together


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([np.array([1]), np.array(["a"])], "cannot put integer and string labels into one table"),
        ([np.array([b"a"]), np.array(["a"])], "cannot put bytes and string"),
        ([np.array([-1]), np.array([2**63], dtype=np.uint64)], r"labels above 2\*\*63 - 1 and negative"),
        ([np.array([2**53 + 1]), np.array([0.5])], r"integer labels beyond 2\*\*53 and float"),
    ],
)
def test_labels_that_have_no_common_order_are_refused(parts, message):
    with pytest.raises(TypeError, match=message):
        union(parts)
