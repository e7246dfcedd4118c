"""Coding of fixed-width strings, against numpy: any width, words that turn up late, and too many of them.

Reduced piece by piece, against rational arithmetic and the hash table.
"""

from __future__ import annotations

import numpy as np
import pytest
from conftest import COMPILED
from exact import expected_by_label, fingerprint
from hypothesis import given
from hypothesis import strategies as st

import labeltrack as lt
from labeltrack._core import strings as _strings
from labeltrack._core.key_tables import KeyTable
from labeltrack._core.strings import Dictionary, encode_strings, encode_words, reduce_words
from labeltrack._core.threads import all_at_once

words = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=9)


@given(st.lists(words, min_size=1, max_size=50))
def test_strings_are_coded_in_order_of_appearance(labels):
    array = np.array(labels, dtype=np.str_)
    codes, found = encode_strings(array)
    order = list(dict.fromkeys(array.tolist()))
    assert [order[code] for code in codes.tolist()] == array.tolist()
    assert found.tolist() == order
    assert found.dtype == array.dtype


@given(st.lists(st.binary(max_size=11).filter(lambda b: not b.endswith(b"\0")), min_size=1, max_size=50))
def test_bytes_of_any_width_are_coded_in_order_of_appearance(labels):
    array = np.array(labels, dtype=np.bytes_)
    codes, found = encode_strings(array)
    assert found[codes].tolist() == array.tolist()
    assert found.size == len(set(labels))


def test_the_table_of_strings_grows_and_keeps_the_codes():
    n = 30_000 if COMPILED else 6_000
    numbers = np.random.default_rng(1).permutation(np.repeat(np.arange(n), 2))
    labels = numbers.astype(np.str_)
    codes, found = encode_strings(labels)
    assert found.size == n
    assert np.array_equal(found[codes], labels)


def test_a_strided_view_of_strings_is_coded():
    labels = np.array(["a", "x", "b", "x", "a"])[::2]
    assert encode_strings(labels)[0].tolist() == [0, 1, 0]


def by_python(array):
    """Return codes in order of appearance, by a dict."""
    places = {}
    return [places.setdefault(word, len(places)) for word in array.tolist()]


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
def test_words_get_codes_wherever_they_appear(numbers, monkeypatch):
    monkeypatch.setattr(_strings, "_FIRST", 64)
    labels = np.char.add("class ", np.char.zfill(numbers.astype(np.str_), 7))
    codes, found = encode_strings(labels)
    assert codes.tolist() == by_python(labels)
    assert found.tolist() == list(dict.fromkeys(labels.tolist()))


@given(
    st.lists(st.text("ab", min_size=12, max_size=12), min_size=1, max_size=300),
    st.sampled_from(["U12", "S12", "U40"]),
)
def test_rows_that_differ_anywhere_get_codes_of_their_own(labels, dtype):
    """Only as many words are hashed as tell rows apart: which these are is learnt while rows come."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_strings, "_FIRST", 2)
        array = np.array(labels, dtype=dtype)
        codes, found = encode_strings(array)
    assert codes.tolist() == by_python(array)
    assert found.tolist() == list(dict.fromkeys(array.tolist()))


# -- the dictionary


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(_strings, "_FEWEST", 1)


def coded(dictionary, step=50, threads=1):
    """Return the codes of all rows, coded piece by piece."""
    codes = np.empty(dictionary.rows, dtype=np.int32)

    def part(start, stop):
        for first in range(start, stop, step):
            last = min(first + step, stop)
            assert dictionary.encode(first, last, codes[first:last]) or not dictionary.possible

    edges = [dictionary.rows * t // threads for t in range(threads + 1)]
    all_at_once(part, edges[:-1], edges[1:])
    return codes


@given(
    st.lists(
        st.one_of(st.text("ab\u00ff\u4e2dz", max_size=9), st.text("ab\u00ffz", min_size=6, max_size=20)),
        min_size=1,
        max_size=30,
    ),
    st.integers(0, 2**32),
    st.sampled_from(["U1", "U2", "U5", "U8", "U9", "U20", "U32", "U40", "S1", "S3", "S9", "S16", "S40", ">U9"]),
    st.integers(4, 60),
)
def test_codes_stand_for_words(words, seed, dtype, sample):
    encoded = [word.encode("latin-1", "replace") for word in words] if dtype.startswith("S") else words
    labels = np.array(encoded, dtype=dtype)[np.random.default_rng(seed).integers(0, len(words), 300)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_strings, "_FEWEST", 1)
        patch.setattr(_strings, "_SAMPLES", (sample, sample))
        dictionary = Dictionary(labels)
        if not dictionary.possible:
            return
        codes = coded(dictionary, threads=2)
    assert np.array_equal(dictionary.words[codes], labels)
    assert dictionary.words.dtype == labels.dtype
    assert dictionary.size == np.unique(labels).size == codes.max() + 1


@pytest.mark.parametrize("threads", [1, 3])
def test_words_that_turn_up_late_are_learnt(threads, monkeypatch):
    monkeypatch.setattr(_strings, "_SAMPLES", (64, 64))
    names = np.array([f"{k % 7}name{k * k}" for k in range(200)])
    labels = names[np.minimum(np.arange(6000) // 25, 199)]
    labels[:3000] = names[:3][np.arange(3000) % 3]
    dictionary = Dictionary(labels)
    before, known = dictionary.size, dictionary.words
    assert before < 150
    codes = coded(dictionary, threads=threads)
    assert dictionary.possible
    assert dictionary.size == np.unique(labels).size
    assert np.array_equal(dictionary.words[codes], labels)
    assert np.array_equal(dictionary.words[:before], known)  # codes stay what they are


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("letter", ["\u00ff", "\u0100", "\U0001f40d"])
def test_words_beyond_latin_turn_up_late(letter, threads, monkeypatch):
    # The lowest byte of each letter alone would make one of them another word.
    monkeypatch.setattr(_strings, "_SAMPLES", (16, 16))
    names = np.array(["grasshopper", "grasshoppe\x00r", "dragonfly", "\x0dragonfly", "bumblebee"])
    labels = np.tile(names, 800)
    late = np.array([letter + "ragonfly", "grasshoppe" + letter, "grasshoppe" + letter + "r"])
    labels = np.concatenate([labels, np.repeat(late, 3), labels[:50]]).astype("U14")
    dictionary = Dictionary(labels)
    codes = coded(dictionary, threads=threads)
    assert np.array_equal(dictionary.words[codes], labels)
    assert dictionary.size == np.unique(labels).size


def test_unaligned_rows_and_every_other_row_are_words_too():
    labels = np.array(["cat", "dog", "cow"] * 100)
    memory = np.empty(labels.nbytes + 2, dtype=np.uint8)
    unaligned = memory[2:].view(labels.dtype)
    unaligned[:] = labels
    for given_labels in (unaligned, np.repeat(labels, 2)[::2]):
        assert np.array_equal(Dictionary(given_labels).words, ["cat", "dog", "cow"])
        assert coded(Dictionary(given_labels)).tolist() == [0, 1, 2] * 100


def test_it_is_given_up_where_words_are_too_many(monkeypatch):
    assert not Dictionary(np.array([f"{k}" for k in range(400)])).possible  # each occurs once
    monkeypatch.setattr(_strings, "_MOST", 5)
    assert not Dictionary(np.array(list("abcdef") * 100)).possible
    late = np.array(list("abcd") * 1000)
    late[3101:3109] = list("uvwxyzuv")
    monkeypatch.setattr(_strings, "_SAMPLES", (16, 16))
    dictionary = Dictionary(late)
    assert dictionary.possible
    codes = np.empty(4000, dtype=np.int32)
    assert not dictionary.encode(0, 4000, codes)
    assert not dictionary.possible
    assert not Dictionary(np.empty(0, dtype="U3")).possible
    monkeypatch.setattr(_strings, "_FEWEST", 1000)
    assert not Dictionary(np.array(list("ab") * 100)).possible


@pytest.mark.parametrize("width", [40, 41])
def test_words_may_differ_in_any_number_of_places(width):
    # Each word has one letter, at one of forty places: whichever ten of them are looked at, most words are alike.
    words = np.full((width, width), ord("."), dtype=np.uint32)
    words[np.arange(width), np.arange(width)] = ord("x")
    labels = np.tile(words.view(f"U{width}").reshape(-1), 20)
    dictionary = Dictionary(labels)
    assert np.array_equal(dictionary.words[coded(dictionary)], labels)
    assert encode_strings(labels)[0].tolist() == by_python(labels)
    assert lt.label_stats(labels, np.ones(labels.size)).count.tolist() == [20] * width


@pytest.mark.parametrize("dtype", ["<U0", "S0", "U1"])
def test_empty_strings_are_one_word(dtype):
    codes, found = encode_strings(np.zeros(3, dtype=dtype))
    assert codes.tolist() == [0, 0, 0]
    assert found.tolist() == [np.zeros(1, dtype=dtype)[0]]
    assert encode_strings(np.zeros(0, dtype=dtype))[1].size == 0
    labels = np.zeros(3, dtype=[("label", dtype)])["label"]  # other arrays are of one character at least
    assert lt.label_stats(labels, [1, 2, 3]).labels.dtype == dtype.replace("0", "1")


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("dtype", ["U", "S"])
@pytest.mark.parametrize("most", [1 << 14, 60])
def test_statistics_are_those_of_hashed_rows(dtype, threads, most, monkeypatch):
    monkeypatch.setattr(_strings, "_SMALLEST", 64)
    monkeypatch.setattr(_strings, "_LARGEST", 256)
    monkeypatch.setattr(_strings, "_SAMPLES", (128, 128))
    monkeypatch.setattr(_strings, "_MOST", most)  # sixty are not enough, which is found out late
    rng = np.random.default_rng(3)
    names = np.array(
        ["".join(rng.choice(list("abcdefghijklmnop"), rng.integers(1, 15))) for _ in range(90)], dtype=dtype
    )
    labels = names[np.minimum(rng.geometric(0.07, 4000), 90) - 1]
    labels[2000:2090] = names
    values = rng.normal(size=4000).astype(np.float32)
    used = []
    monkeypatch.setattr(
        lt.functional, "reduce_words", lambda *a, **k: used.append(_strings.reduce_words(*a, **k)) or used[-1]
    )
    stats = lt.label_stats(labels, values, threads=threads)
    assert [found is None for found in used] == [most == 60]
    plain = {name: values[labels == name].astype(np.float64) for name in np.unique(labels)}
    assert stats.labels.tolist() == list(plain)
    assert stats.labels.dtype == labels.dtype
    assert stats.count.tolist() == [mine.size for mine in plain.values()]
    assert stats.min.tolist() == [mine.min() for mine in plain.values()]
    monkeypatch.setattr(_strings, "_FEWEST", 1 << 40)
    hashed = lt.label_stats(labels, values, threads=threads)
    for column in ("count", "sum", "mean", "std", "min", "max"):
        assert np.array_equal(getattr(stats, column), getattr(hashed, column))


MANY = 3000


@pytest.fixture
def small_pieces(monkeypatch):
    monkeypatch.setattr(_strings, "_FEWEST", 1)
    monkeypatch.setattr(_strings, "_SMALLEST", 64)
    monkeypatch.setattr(_strings, "_LARGEST", 256)


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("dtype", ["U", "S"])
@pytest.mark.parametrize("value_dtype", [np.float32, np.float64])
def test_pieces_give_what_the_hash_table_gives(dtype, value_dtype, threads, monkeypatch):
    rng = np.random.default_rng(0)
    labels = np.array([f"class {k:03d}" for k in range(250)], dtype=dtype)[rng.integers(0, 250, MANY)]
    values = rng.normal(size=MANY).astype(value_dtype)
    values[[5, 700]] = np.nan, np.inf
    found = reduce_words(Dictionary(labels), values, threads=threads)
    assert found is not None
    finite = np.isfinite(values)
    got = found[1].totals()
    expected = expected_by_label(labels[finite].tolist(), values[finite])
    assert found[0].tolist() == sorted(expected)
    assert got.count.tolist() == [expected[label][0] for label in found[0].tolist()]
    stats = lt.label_stats(labels, values, threads=threads, nan_policy="omit")
    monkeypatch.setattr(_strings, "_FEWEST", 1 << 40)
    hashed = lt.label_stats(labels, values, threads=threads, nan_policy="omit")
    assert fingerprint(stats) == fingerprint(hashed)
    assert stats.labels.dtype == hashed.labels.dtype


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_mapped_labels_and_quantiles_are_those_of_plain_numpy(threads):
    rng = np.random.default_rng(1)
    names = np.array(["cat", "dog", "eel", "a much longer name"])
    labels, values = names[rng.integers(0, 4, MANY)], rng.normal(size=MANY)
    stats = lt.label_stats(labels, values, threads=threads, quantiles=[0.5], label_mapping={"C": "cat", "L": names[3]})
    assert stats.names.tolist() == ["L", "C"]
    assert stats.median.tolist() == [np.quantile(values[labels == name], 0.5) for name in (names[3], "cat")]


@pytest.mark.usefixtures("small_pieces")
def test_codes_are_those_of_the_words_or_none_where_there_are_too_many(monkeypatch):
    labels = np.array(["cat", "dog", "cow"] * 100)
    dictionary = Dictionary(labels)
    assert np.array_equal(dictionary.words[encode_words(dictionary, threads=2)], labels)
    monkeypatch.setattr(_strings, "_MOST", 2)
    assert encode_words(Dictionary(labels)) is None
    assert lt.label_stats(labels, np.ones(300), quantiles=[0.5]).count.tolist() == [100] * 3


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("threads", [1, 2, 3, 8])
@pytest.mark.parametrize("rows", [0, 1, 63, 64, 65, 255, 256, 257, 300, 5000, 12_345])
def test_pieces_are_all_rows_in_pieces_small_ones_first_and_last(rows, threads):
    pieces = list(_strings._pieces(rows, threads))
    assert [0, *(stop for _, stop in pieces)] == [*(start for start, _ in pieces), rows]
    sizes = [stop - start for start, stop in pieces]
    assert all(64 <= size <= 256 for size in sizes[:-1])
    assert all(0 < size <= 256 for size in sizes)
    assert sizes[threads:] == sorted(sizes[threads:], reverse=True)
    assert all(size <= 64 for size in sizes[:threads])
    if rows > 4000:
        assert max(sizes) == 256


@pytest.mark.usefixtures("small_pieces")
def test_words_learnt_on_the_way_leave_the_table_as_wide_as_it_is(monkeypatch):
    widened = []
    widen = KeyTable._widen
    monkeypatch.setattr(KeyTable, "_widen", lambda self, keys: (widened.append(keys), widen(self, keys))[1])
    monkeypatch.setattr(_strings, "_FEWEST", 1)
    monkeypatch.setattr(_strings, "_SAMPLES", (1024, 1024))
    names = np.array([f"name {k * k:x} {k}" for k in range(100)])
    labels = names[np.random.default_rng(0).integers(0, 100, 20_000)]
    labels[10_001:15_000:999] = ["late", "too late", "never", "again", "at last", "too"]
    dictionary = Dictionary(labels)
    assert dictionary.size < 106
    values = np.arange(20_000, dtype=np.float64)
    found, accumulator = reduce_words(dictionary, values, threads=2)
    assert dictionary.size == len(found) == 106
    assert accumulator.totals().sum.tolist() == [values[labels == name].sum() for name in found]
    assert len(widened) == 1  # when the table was laid out
