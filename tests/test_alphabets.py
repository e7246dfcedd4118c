"""Strings as numbers: the way there and back, order, characters that turn up late, and what cannot be numbered."""

from __future__ import annotations

from itertools import product
from unittest.mock import Mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labeltrack import _alphabets
from labeltrack._alphabets import Alphabets, number_strings

MANY = 20_000


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(_alphabets, "_FEWEST", 1)
    monkeypatch.setattr(_alphabets, "_STEP", 128)


def check(labels, threads=None):
    """Assert that numbers stand for the labels and are in their order; return the numbers and what they mean."""
    found = number_strings(labels, threads=threads)
    assert found is not None
    keys, alphabets = found
    assert keys.shape == labels.shape
    assert keys.min() >= 0
    assert keys.max() < alphabets.size
    decoded = alphabets.decode(keys.astype(np.int64))
    assert decoded.dtype == labels.dtype.newbyteorder("=")
    assert np.array_equal(decoded, labels)
    order = np.argsort(keys, kind="stable")
    assert np.array_equal(order, np.argsort(labels, kind="stable"))
    return found


@given(
    st.lists(st.text("ab\u00ffz", max_size=9), min_size=1, max_size=300),
    st.sampled_from(["U9", "U12", "S9", "S16", ">U9"]),
    st.integers(1, 3),
    st.integers(1, 300),
)
def test_numbers_stand_for_strings_in_their_order(labels, dtype, threads, sample):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_alphabets, "_FEWEST", 1)
        patch.setattr(_alphabets, "_SAMPLE", sample)
        encoded = [label.encode("latin-1") for label in labels] if dtype.startswith("S") else labels
        check(np.array(encoded, dtype=dtype), threads)


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("dtype", ["U", "S"])
def test_numbers_of_counted_names_are_their_places(dtype, threads):
    numbers = np.random.default_rng(0).integers(0, 1000, MANY)
    labels = np.array([f"class {number:06d}" for number in range(1000)], dtype=dtype)[numbers]
    keys, alphabets = check(labels, threads)
    assert alphabets.size == 1000
    assert keys.dtype == np.int32
    assert np.array_equal(keys, numbers)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("place", [0, 1, 63, 64, 5000, MANY - 1])
@pytest.mark.parametrize("late", ["dog", "caX", "Xat", "ca", "\u0107at"])
def test_characters_that_turn_up_anywhere_are_learnt(place, late, threads):
    labels = np.tile(np.array(["cat", "cot", "cut", "hat"]), MANY // 4)
    labels[place] = late
    # Another window of characters than that of the others cannot be numbered.
    if late.startswith("\u0107"):
        assert number_strings(labels, threads=threads) is None
    else:
        check(labels, threads)


def test_a_pass_does_not_end_twice_at_one_block(monkeypatch):
    monkeypatch.setattr(_alphabets, "_SAMPLE", 1)
    labels = np.array(["a"] * 200)
    labels[60] = "b"
    check(labels, 1)


def test_what_turns_up_again_and_again_is_given_up():
    labels = np.array(["a"] * MANY)
    step = MANY // 20
    labels[step - 1 :: step] = list("bcdefghijklmnopqrstu")
    assert number_strings(labels, threads=1) is None  # each one is found when all rows before have been read once more
    assert number_strings(labels[: 2 * step], threads=1) is not None


@pytest.mark.parametrize("numbered", [True, False])
def test_few_rows_show_that_words_have_too_many_characters(numbered, monkeypatch):
    looked_at = Mock(wraps=_alphabets.sample_rows)
    monkeypatch.setattr(_alphabets, "sample_rows", looked_at)
    letters = np.random.default_rng(0).integers(97, 123, (MANY, 12), dtype=np.uint32)
    labels = np.array(["cat", "cot"])[np.arange(MANY) % 2] if numbered else letters.view("U12").reshape(-1)
    assert _alphabets.Numbering(labels).possible == numbered
    assert looked_at.call_count == (2 if numbered else 1)
    assert looked_at.call_args_list[0].args[1] * 16 <= MANY


def test_scripts_of_one_window_are_numbered():
    check(np.array(["собака", "корова", "лошадь"])[np.arange(3000) % 3])
    assert number_strings(np.array(["собака", "cat"] * 500)) is None


def test_where_nothing_varies_all_numbers_are_zero():
    keys, alphabets = check(np.full(1000, "the only one"))
    assert alphabets.size == 1
    assert not keys.any()
    check(np.full(1000, "", dtype="U4"))


def test_too_many_combinations_are_not_numbered():
    rng = np.random.default_rng(0)
    letters = rng.choice(list("abcdefghijklmnopqrstuvwxyz"), (500, 40))
    labels = np.array(["".join(row) for row in letters])
    assert number_strings(labels) is None
    keys, alphabets = check(labels.astype("U9"))
    assert 2**31 < alphabets.size <= 2**53
    assert keys.dtype == np.int64
    wide = np.array(["".join(row) for row in rng.choice(list("ab"), (300, 53))])
    check(wide)
    assert number_strings(np.array(["".join(row) for row in rng.choice(list("ab"), (300, 54))])) is None


def test_views_are_read_whatever_their_layout():
    labels = np.array([f"{a}{b}{c}" for a, b, c in product("xyz", "0123456789", "uvw")])
    check(labels[::-1])
    check(labels[::3])
    raw = bytearray(4 + labels.nbytes)
    shifted = np.frombuffer(raw, dtype=np.uint8)[4:].view(labels.dtype)
    shifted[:] = labels
    check(shifted[1:])
    labels.flags.writeable = False
    check(labels)


def test_a_few_rows_and_strings_of_no_width_are_left_to_others(monkeypatch):
    assert number_strings(np.zeros(100, dtype="S0")[:0]) is None
    monkeypatch.undo()
    assert number_strings(np.array(["a", "b"])) is None


def test_labels_without_a_number_are_told_apart():
    _, alphabets = check(np.array(["cat 1", "cat 2", "dog 2"] * 50))
    numbers, known = alphabets.encode(np.array(["cat 1", "dog 1", "cat 3", "cow 1", "cat 12", "cat", "", "dog 2"]))
    assert known.tolist() == [True, True, False, False, False, False, False, True]  # "dog 1" might have occurred
    assert alphabets.decode(numbers[known]).tolist() == ["cat 1", "dog 1", "dog 2"]
    numbers, known = alphabets.encode(np.empty(0, dtype="U1"))
    assert numbers.shape == known.shape == (0,)
    assert alphabets.decode(np.empty(0, dtype=np.int64)).shape == (0,)


def test_learning_keeps_what_was_learnt():
    alphabets = Alphabets(np.dtype("U3"))
    for words in (["abc", "abd"], ["abc", "abc"], ["xbc", "abe"]):
        assert alphabets.learn(alphabets.characters(np.array(words)))
    assert alphabets.size == 2 * 3
    assert alphabets.decode(np.arange(6)).tolist() == ["abc", "abd", "abe", "xbc", "xbd", "xbe"]
