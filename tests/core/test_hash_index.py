"""Codes of integer keys: in order of appearance, and the same ever after."""

from __future__ import annotations

import sys

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from labeltrack._core import hash_index
from labeltrack._core.hash_index import Codes

KEYS = st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(-3, 3), max_size=40)


@given(st.lists(KEYS, max_size=5))
def test_codes_are_those_of_a_dict_however_keys_come(batches):
    codes, expected = Codes(), {}
    for batch in batches:
        found = codes.encode(np.array(batch, dtype=np.int64))
        assert found.tolist() == [expected.setdefault(key, len(expected)) for key in batch]
    assert codes.keys.tolist() == list(expected)


def test_codes_stay_when_the_table_grows():
    codes, keys = Codes(), np.random.default_rng(1).permutation(20_000) * 7919
    first = codes.encode(keys[:1000])
    codes.encode(keys)
    assert codes.encode(keys[:1000]).tolist() == first.tolist() == list(range(1000))
    assert codes.keys.tolist() == keys.tolist()


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

        codes = Codes()
        before = codes.encode(np.arange(1000) * 3)
        measures = sys.gettrace()  # coverage
        sys.settrace(trace)
        try:
            codes.encode(np.arange(5000) * 5)
        except KeyboardInterrupt:
            sys.settrace(measures)
            assert codes.keys[:1000].tolist() == (np.arange(1000) * 3).tolist()
            assert codes.encode(np.arange(1000) * 3).tolist() == before.tolist()
            again = codes.encode(np.arange(5000) * 5)
            assert codes.keys[again].tolist() == (np.arange(5000) * 5).tolist()
            return True
        finally:
            sys.settrace(measures)
        return False

    lines = 1
    while interrupted_at(lines):
        lines += 1
    assert lines > 15
