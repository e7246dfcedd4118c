"""Words of a vocabulary come back; the first sample of each id, as a plain set finds it; combinations of labels.

Codes of combinations become columns of labels, and keys of several labels become one and come back.
"""

from __future__ import annotations

import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labeltrack._labels.codes import LabelDecoder
from labeltrack._labels.combination_codes import Combinations
from labeltrack.recording.keys import Column, Distinct, Join, Split, Words

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


# -- combinations -------------------------------------------------------------------------------------------

WORDS = np.array(["b", "a", "c"], dtype=object)
# Dtype of the keys, what they mean, and keys.
SPACES = {
    "string": (np.int32, LabelDecoder("string", WORDS), st.integers(0, 2)),
    "bool": (np.uint8, LabelDecoder("bool"), st.integers(0, 1)),
    "small": (np.uint8, LabelDecoder("integer"), st.integers(0, 255)),
    "integer": (np.int32, LabelDecoder("integer"), st.integers(-(2**31), 2**31 - 1)),
    "wide": (np.int64, LabelDecoder("integer"), st.integers(-(2**63), 2**63 - 1)),
    "unsigned": (np.int64, LabelDecoder("unsigned"), st.integers(0, 2**63 - 1)),
    "float": (np.int64, LabelDecoder("float"), st.floats(allow_nan=False).map(lambda x: np.float64(x).view(np.int64))),
}


@given(st.data(), st.lists(st.sampled_from(sorted(SPACES)), min_size=1, max_size=5))
def test_combinations_come_back(data, kinds):
    dtypes, spaces, keys = zip(*(SPACES[kind] for kind in kinds), strict=True)
    names = [f"label {i}" for i in range(len(kinds))]
    wanted = [data.draw(st.none() | st.lists(some, max_size=5)) for some in keys]
    join = Join(names, spaces, [None if w is None else np.array(w, np.int64) for w in wanted])
    for _ in range(2):
        rows = data.draw(st.lists(st.tuples(*keys), min_size=1, max_size=20))
        columns = [np.array(column, dtype) for column, dtype in zip(zip(*rows, strict=True), dtypes, strict=True)]
        joined, values = join.chunk(columns, np.arange(len(rows), dtype=np.float32))
        kept = [
            i for i, row in enumerate(rows) if all(w is None or key in w for key, w in zip(row, wanted, strict=True))
        ]
        assert values.tolist() == kept
        found = join.decode(joined.astype(np.int64))
        assert found.dtype.names == tuple(names)
        for name, space, column in zip(names, spaces, columns, strict=True):
            np.testing.assert_array_equal(found[name], space.decode(column[kept].astype(np.int64)))
        distinct = {tuple(rows[i]) for i in kept}
        assert len(np.unique(joined)) == len(distinct)


def test_labels_beyond_those_of_the_first_batch_keep_combinations_apart():
    spaces, rng = [LabelDecoder("integer")] * 2, np.random.default_rng(0)
    join, joined, every = Join(["a", "b"], spaces, [None, None]), [], []
    for low, high in ((5, 300), (0, 20), (-4, 9), (-(2**31), 2**31), (290, 400), (5, 300)):
        columns = [rng.integers(low, high, 500).astype(np.int32) for _ in range(2)]
        joined.append(join.chunk(columns, np.ones(500))[0].astype(np.int64))
        every += zip(*(column.tolist() for column in columns), strict=True)
    keys = np.concatenate(joined)
    assert join.decode(keys).tolist() == every
    assert len(set(keys.tolist())) == len(set(every))


@pytest.mark.parametrize("kinds", [("wide", "string"), ("integer", "integer", "integer")])
def test_threads_give_combinations_the_same_keys(kinds):
    dtypes, spaces, _ = zip(*(SPACES[kind] for kind in kinds), strict=True)
    join = Join(kinds[:1] + tuple("xy")[: len(kinds) - 1], spaces, [None] * len(kinds))
    rng = np.random.default_rng(0)
    batches = [[rng.integers(0, 3, 5000).astype(dtype) for dtype in dtypes] for _ in range(40)]
    with ThreadPoolExecutor(4) as pool:
        chunks = list(pool.map(lambda columns: join.chunk(columns, np.zeros(5000)), batches))
    assert len(np.unique(np.concatenate([keys for keys, _ in chunks]))) == 3 ** len(kinds)
    for (keys, _), columns in zip(chunks, batches, strict=True):
        found = join.decode(keys)
        for name, space, column in zip(found.dtype.names, spaces, columns, strict=True):
            np.testing.assert_array_equal(found[name], space.decode(column.astype(np.int64)))


def test_dtypes_of_one_label_may_differ():
    join = Join(["x", "y"], [LabelDecoder("integer")] * 2, [None] * 2)
    first, _ = join.chunk([np.array([3], np.int32), np.array([7], np.int32)], np.zeros(1))
    second, _ = join.chunk([np.array([3], np.uint8), np.array([7], np.int64)], np.zeros(1))
    assert first.tolist() == second.tolist()
    assert join.decode(first).tolist() == [(3, 7)]


# -- columns of labels --------------------------------------------------------------------------------------

LABELS = {
    "bool": st.booleans(),
    "integer": st.integers(-(2**63), 2**63 - 1) | st.integers(-3, 3),
    "unsigned": st.integers(0, 2**64 - 1),
    "float": st.floats(allow_nan=False).map(lambda label: label + 0.0),
    "string": st.text(max_size=3),
    "bytes": st.binary(max_size=3),
}


def coded(words, rows, kinds):
    """Return the codes of rows of labels."""
    dtypes = {"bool": np.bool_, "integer": np.int64, "unsigned": np.uint64, "float": np.float64}
    columns = [np.array([row[i] for row in rows], dtypes.get(kind, object)) for i, kind in enumerate(kinds)]
    return words.encode_columns(columns, kinds)


@given(st.data(), st.lists(st.sampled_from(sorted(LABELS)), min_size=1, max_size=3))
def test_columns_hold_the_labels_as_combinations_come(data, kinds):
    words = Combinations(["x", "y", "z"][: len(kinds)])
    split, kind = Split(words), f"({', '.join(kinds)})"
    for _ in range(3):
        rows = data.draw(st.lists(st.tuples(*(LABELS[one] for one in kinds)), max_size=20))
        columns = split.columns(coded(words, rows, kinds), kind)
        assert [found for _, found, _ in columns] == kinds
        labels = [
            column.tolist() if of is None else [of.words[code] for code in column.tolist()] for column, _, of in columns
        ]
        assert list(zip(*labels, strict=True)) == rows


def test_integers_take_32_bits_until_one_does_not_fit():
    words = Combinations(["x"])
    split = Split(words)
    dtypes = [
        split.columns(coded(words, [(label,) for label in labels], ["integer"]), "(integer)")[0][0].dtype
        for labels in ([1, 2], [2**31 - 1, -(2**31)], [2**31], [1])
    ]
    assert dtypes == [np.int32, np.int32, np.int64, np.int64]


def test_a_combination_may_be_of_several_kinds():
    words = Combinations(["x", "y"])
    split = Split(words)
    for kind, dtype in (("bool", np.uint8), ("float", np.float64), ("integer", np.int32)):
        codes = coded(words, [(1, 1)], [kind, "integer"])
        (first, *_), (second, *_) = split.columns(codes, f"({kind}, integer)")
        assert (first.tolist(), second.tolist()) == ([1], [1])
        assert first.dtype == dtype


@pytest.mark.parametrize("kind", ["string", "bytes"])
def test_kinds_share_the_words_of_a_label(kind):
    words = Combinations(["x", "y"])
    split = Split(words)
    text = "a" if kind == "string" else b"a"
    first = split.columns(coded(words, [(text, 1)], [kind, "integer"]), f"({kind}, integer)")[0]
    second = split.columns(coded(words, [(text, 2.5)], [kind, "float"]), f"({kind}, float)")[0]
    assert first[2] is second[2]
    assert second[0].tolist() == [0]
