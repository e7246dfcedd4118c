"""Codes of integer keys: in order of appearance, and the same ever after; tables of statistics by key."""

from __future__ import annotations

import sys

import numpy as np
from conftest import COMPILED
from hypothesis import given
from hypothesis import strategies as st

from labeltrack._core import key_tables
from labeltrack._core.key_tables import Hash, KeyTable, estimated_labels

N = 20_000 if COMPILED else 3_000
KEYS = st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(-3, 3), max_size=40)


@given(st.lists(KEYS, max_size=5))
def test_codes_are_those_of_a_dict_however_keys_come(batches):
    codes, expected = Hash(), {}
    for batch in batches:
        found = codes.codes_of(np.array(batch, dtype=np.int64))
        assert found.tolist() == [expected.setdefault(key, len(expected)) for key in batch]
    assert codes.keys.tolist() == list(expected)


def test_codes_stay_when_the_table_grows():
    codes, keys = Hash(), np.random.default_rng(1).permutation(20_000) * 7919
    first = codes.codes_of(keys[:1000])
    codes.codes_of(keys)
    assert codes.codes_of(keys[:1000]).tolist() == first.tolist() == list(range(1000))
    assert codes.keys.tolist() == keys.tolist()


def test_a_signal_handler_that_adds_keys_at_any_line_gets_codes_that_stay():
    def handled_at(n):
        """Encode a batch that makes the table grow; at the nth line, a handler adds keys, some of which are new too."""
        left, given = n, []

        def trace(frame, event, _):
            nonlocal left
            if frame.f_code.co_filename != key_tables.__file__:
                return None
            left -= event == "line"
            if left == 0:
                left = -1
                sys.settrace(None)
                given.append(codes.codes_of(inner))
                sys.settrace(trace)
            return trace

        codes = Hash()
        codes.codes_of(np.arange(1000) * 3)
        inner, outer = np.arange(3000) * 7, np.arange(5000) * 5
        measures = sys.gettrace()  # coverage
        sys.settrace(trace)
        try:
            found = codes.codes_of(outer)
        finally:
            sys.settrace(measures)
        assert codes.keys[found].tolist() == outer.tolist()
        assert len(set(codes.keys.tolist())) == codes.size
        for each in given:
            assert codes.keys[each].tolist() == inner.tolist()
        return bool(given)

    lines = 1
    while handled_at(lines):
        lines += 1
    assert lines > 15


def test_an_interrupt_at_any_line_changes_no_code():
    def interrupted_at(n):
        """Encode a batch that makes the table grow, interrupted at the nth line; return whether there was one."""
        left = n

        def trace(frame, event, _):
            nonlocal left
            if frame.f_code.co_filename != key_tables.__file__:
                return None
            if event == "line":
                left -= 1
                if left == 0:
                    raise KeyboardInterrupt
            return trace

        codes = Hash()
        before = codes.codes_of(np.arange(1000) * 3)
        measures = sys.gettrace()  # coverage
        sys.settrace(trace)
        try:
            codes.codes_of(np.arange(5000) * 5)
        except KeyboardInterrupt:
            sys.settrace(measures)
            assert codes.keys[:1000].tolist() == (np.arange(1000) * 3).tolist()
            assert codes.codes_of(np.arange(1000) * 3).tolist() == before.tolist()
            again = codes.codes_of(np.arange(5000) * 5)
            assert codes.keys[again].tolist() == (np.arange(5000) * 5).tolist()
            return True
        finally:
            sys.settrace(measures)
        return False

    lines = 1
    while interrupted_at(lines):
        lines += 1
    assert lines > 15


def test_the_number_of_labels_is_estimated_by_repeats():
    rng = np.random.default_rng(12)
    for labels in (1, 10, 1000, 20_000, 200_000):
        found, error = estimated_labels(rng.integers(0, labels, 1 << 14))
        assert 0.8 * labels <= found <= 1.25 * labels
        assert found - 4 * error <= labels <= found + 4 * error
    assert estimated_labels(np.arange(1000)) == (64_000, 64_000)  # no repeats: as many as it says at most


# -- tables of statistics


def test_bytes_may_have_room_below_zero():
    keys = np.random.default_rng(13).integers(0, 250, N).astype(np.uint8)
    table = KeyTable(N)
    table.begin(keys[:2000], np.ones(2000, dtype=np.float32), total=N)
    assert table._low < 0
    table.add(keys, np.ones(N, dtype=np.float32))
    found, (accumulator,) = table.result()
    assert found.tolist() == list(range(250))
    assert accumulator.totals().count.tolist() == np.bincount(keys).tolist()


def test_a_dense_table_grows_to_both_sides():
    table = KeyTable(10)
    table.add(np.array([5, 6]), np.array([1.0, 2.0]))
    table.add(np.array([9, 2]), np.array([3.0, 4.0]))
    keys, (accumulator,) = table.result()
    assert dict(zip(keys.tolist(), accumulator.totals().sum.tolist(), strict=True)) == {2: 4.0, 5: 1.0, 6: 2.0, 9: 3.0}


def test_a_dense_table_is_left_for_a_hashed_one_and_keeps_its_sums(monkeypatch):
    monkeypatch.setattr(key_tables, "_SMALL_SPAN", 16)
    table = KeyTable(4)
    table.add(np.array([1, 2, 3]), np.array([1.0, 2.0, 3.0]))
    assert table._hash is None
    table.add(np.array([2, 10**12]), np.array([4.0, 5.0]))
    assert table._hash is not None
    table.add(np.array([2, 7]), np.array([1.0, 1.0]))
    keys, (accumulator,) = table.result()
    got = dict(zip(keys.tolist(), accumulator.totals().sum.tolist(), strict=True))
    assert got == {1: 1.0, 2: 7.0, 3: 3.0, 7: 1.0, 10**12: 5.0}


def test_one_stray_label_does_not_make_a_huge_table():
    keys = np.concatenate([np.arange(200_000) % 10, [350_000]])
    table = KeyTable(keys.size)
    table.add(keys, np.ones(keys.size, dtype=np.float32))
    assert table.size < 100_000
    found, (accumulator,) = table.result()
    assert dict(zip(found.tolist(), accumulator.totals().count.tolist(), strict=True)) == {
        **dict.fromkeys(range(10), 20_000),
        350_000: 1,
    }


def test_many_labels_that_fill_their_span_get_a_dense_table():
    keys = np.random.default_rng(0).permutation(100_000)
    table = KeyTable(keys.size)
    table.add(keys, np.ones(keys.size, dtype=np.float32))
    assert table._hash is None


def test_room_for_hashed_labels_is_no_more_than_there_are_samples():
    keys = np.random.default_rng(13).integers(-(2**62), 2**62, 5000)
    table = KeyTable(keys.size)
    table.begin(keys, np.ones(keys.size), total=keys.size)
    assert table.size == keys.size
    assert table.alike()._hash.keys.shape == table._hash.keys.shape
