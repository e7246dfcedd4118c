"""Strings reduced piece by piece against rational arithmetic, and against the hash table."""

from __future__ import annotations

import numpy as np
import pytest
from exact import expected_by_label, fingerprint

import labeltrack as lt
from labeltrack._core import reduce_strings as _reduce_strings
from labeltrack._core import strings as _strings
from labeltrack._core.reduce import KeyTable
from labeltrack._core.reduce_strings import reduce_words
from labeltrack._core.strings import Dictionary, encode_words

MANY = 3000


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(_strings, "_FEWEST", 1)
    monkeypatch.setattr(_reduce_strings, "_SMALLEST", 64)
    monkeypatch.setattr(_reduce_strings, "_LARGEST", 256)


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


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_mapped_labels_and_quantiles_are_those_of_plain_numpy(threads):
    rng = np.random.default_rng(1)
    names = np.array(["cat", "dog", "eel", "a much longer name"])
    labels, values = names[rng.integers(0, 4, MANY)], rng.normal(size=MANY)
    stats = lt.label_stats(labels, values, threads=threads, quantiles=[0.5], label_mapping={"C": "cat", "L": names[3]})
    assert stats.names.tolist() == ["L", "C"]
    assert stats.median.tolist() == [np.quantile(values[labels == name], 0.5) for name in (names[3], "cat")]


def test_codes_are_those_of_the_words_or_none_where_there_are_too_many(monkeypatch):
    labels = np.array(["cat", "dog", "cow"] * 100)
    dictionary = Dictionary(labels)
    assert np.array_equal(dictionary.words[encode_words(dictionary, threads=2)], labels)
    monkeypatch.setattr(_strings, "_MOST", 2)
    assert encode_words(Dictionary(labels)) is None
    assert lt.label_stats(labels, np.ones(300), quantiles=[0.5]).count.tolist() == [100] * 3


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
@pytest.mark.parametrize("rows", [0, 1, 63, 64, 65, 255, 256, 257, 300, 5000, 12_345])
def test_pieces_are_all_rows_in_pieces_small_ones_first_and_last(rows, threads):
    pieces = list(_reduce_strings._pieces(rows, threads))
    assert [0, *(stop for _, stop in pieces)] == [*(start for start, _ in pieces), rows]
    sizes = [stop - start for start, stop in pieces]
    assert all(64 <= size <= 256 for size in sizes[:-1])
    assert all(0 < size <= 256 for size in sizes)
    assert sizes[threads:] == sorted(sizes[threads:], reverse=True)
    assert all(size <= 64 for size in sizes[:threads])
    if rows > 4000:
        assert max(sizes) == 256


def test_words_learnt_on_the_way_leave_the_table_as_wide_as_it_is(monkeypatch):
    widened = []
    widen = KeyTable._widen
    monkeypatch.setattr(KeyTable, "_widen", lambda self, keys: (widened.append(keys), widen(self, keys))[1])
    monkeypatch.setattr(_strings, "_FEWEST", 1)
    monkeypatch.setattr(_strings, "_SAMPLES", (1024,))
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
