"""Coding of fixed-width strings: by content, in order of appearance, for any number of threads."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import COMPILED
from hypothesis import given
from hypothesis import strategies as st

from labeltrack._core import strings as _strings
from labeltrack._core.strings import encode_strings

words = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=9)


@given(st.lists(words, min_size=1, max_size=50))
def test_strings_are_coded_in_order_of_appearance(labels):
    array = np.array(labels, dtype=np.str_)
    codes, first = encode_strings(array)
    order = list(dict.fromkeys(array.tolist()))
    assert [order[code] for code in codes.tolist()] == array.tolist()
    assert array[first].tolist() == order


@given(st.lists(st.binary(max_size=11).filter(lambda b: not b.endswith(b"\0")), min_size=1, max_size=50))
def test_bytes_of_any_width_are_coded_in_order_of_appearance(labels):
    array = np.array(labels, dtype=np.bytes_)
    codes, first = encode_strings(array)
    assert array[first][codes].tolist() == array.tolist()
    assert first.size == len(set(labels))


def test_the_table_of_strings_grows_and_keeps_the_codes():
    n = 30_000 if COMPILED else 6_000
    numbers = np.random.default_rng(1).permutation(np.repeat(np.arange(n), 2))
    labels = numbers.astype(np.str_)
    codes, first = encode_strings(labels)
    assert first.size == n
    assert np.array_equal(labels[first][codes], labels)


def test_a_strided_view_of_strings_is_coded():
    labels = np.array(["a", "x", "b", "x", "a"])[::2]
    assert encode_strings(labels)[0].tolist() == [0, 1, 0]


def by_python(array):
    """Return codes in order of appearance, by a dict."""
    places = {}
    return [places.setdefault(word, len(places)) for word in array.tolist()]


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize(
    "numbers",
    [
        np.random.default_rng(0).integers(0, 50, 5000),
        np.random.default_rng(0).integers(0, 3000, 5000),
        np.arange(5000),
        np.sort(np.random.default_rng(0).integers(0, 400, 5000)),
        np.concatenate([np.zeros(3000, dtype=np.int64), np.random.default_rng(0).integers(0, 90, 2000)]),
        np.concatenate([np.zeros(4990, dtype=np.int64), np.arange(10)]),
    ],
    ids=["few", "many", "all different", "sorted", "late", "last"],
)
def test_threads_do_not_show(numbers, threads, monkeypatch):
    monkeypatch.setattr(_strings, "_FIRST", 64)
    labels = np.char.add("class ", np.char.zfill(numbers.astype(np.str_), 7))
    codes, first = encode_strings(labels, threads=threads)
    assert codes.tolist() == by_python(labels)
    assert labels[first].tolist() == list(dict.fromkeys(labels.tolist()))


@given(
    st.lists(st.text("ab", min_size=12, max_size=12), min_size=1, max_size=300),
    st.sampled_from(["U12", "S12", "U40"]),
    st.integers(1, 3),
)
def test_rows_that_differ_anywhere_get_codes_of_their_own(labels, dtype, threads):
    """Only words that vary are hashed: which these are is learnt while rows come."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_strings, "_FIRST", 2)
        array = np.array(labels, dtype=dtype)
        codes, first = encode_strings(array, threads=threads)
    assert codes.tolist() == by_python(array)
    assert array[first].tolist() == list(dict.fromkeys(array.tolist()))
