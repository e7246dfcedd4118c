"""Exceptions to catch, and wording that errors share."""

from __future__ import annotations

import pytest

import labeltrack as lt
from labeltrack.errors import DamagedRunError, NaNError, RunInUseError, listing, missing_key, nearest


def test_short_lists_are_written_out_and_long_ones_counted():
    assert listing(["a", 1]) == "'a', 1"
    assert listing([]) == "none"
    assert listing(range(20), limit=2) == "0, 1, … (20 in all)"


def test_numbers_are_near_by_distance_and_strings_by_spelling():
    assert nearest(7, [1, 5, 8, 100]) == [8, 5, 1]
    assert nearest("catt", ["dog", "cat"]) == ["cat"]
    assert nearest("zebra", ["dog"]) == []
    assert nearest(3, ["3", "x"]) == ["3"]


def test_a_missing_key_says_what_is_near_and_what_is_there():
    error = missing_key("trian", ["train", "eval"], "mode")
    assert error.args[0] == "no mode 'trian'. Did you mean 'train'? There are: 'train', 'eval'"
    assert "Did you mean" not in missing_key("x", ["train"], "mode").args[0]


def test_nan_under_the_policy_raise_has_an_exception_of_its_own():
    with pytest.raises(NaNError, match=r"1 NaN samples .* 5 \(1\)"):
        lt.label_stats([5, 6], [float("nan"), 1.0], nan_policy="raise")


def test_a_damaged_run_and_one_that_is_in_use_have_exceptions_of_their_own(tmp_path):
    pytest.importorskip("xxhash", reason="xxhash is not installed (extra 'record')")
    (tmp_path / "run.json").write_text("{", encoding="utf-8")
    with pytest.raises(DamagedRunError, match="is damaged: it is not JSON"):
        lt.open_run(tmp_path)
    assert issubclass(DamagedRunError, ValueError)
    assert issubclass(RunInUseError, RuntimeError)
