"""Codes of integer keys: in order of appearance, and the same ever after."""

from __future__ import annotations

import sys

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from labeltrack._core import hash_index
from labeltrack._core.hash_index import Hash, estimated_labels

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
            if frame.f_code.co_filename != hash_index.__file__:
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
            if frame.f_code.co_filename != hash_index.__file__:
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
