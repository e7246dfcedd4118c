"""States hold plain values, arrays among them as bytes, and what they cannot hold is named."""

from __future__ import annotations

import json

import numpy as np
import pytest

from labeltrack._serialize import plain, with_arrays


def test_what_is_loaded_can_be_written_to_and_shares_no_memory():
    array = np.arange(6).reshape(2, 3)
    state = plain([array, array[:, 1], np.array(["a", "bc"])])
    json.dumps(state[2])
    first, second = with_arrays(state), with_arrays(state)
    first[0][0, 0] = 9
    assert second[0].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert second[1].tolist() == [1, 4]
    assert second[2].dtype == "<U2"


def test_states_hold_scalars_of_numpy_whole():
    found = plain([np.str_("a\0"), np.bytes_(b"a\0"), np.float32(0.5), np.int8(3), np.bool_(True)])
    assert [(item, type(item)) for item in found] == [
        ("a\0", str),
        (b"a\0", bytes),
        (0.5, float),
        (3, int),
        (True, bool),
    ]


def test_what_no_state_can_hold_is_named():
    with pytest.raises(TypeError, match="a state cannot hold complex 1j"):
        plain({"x": [1j]})
