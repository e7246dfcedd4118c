"""Choices of modes and dataset ids."""

from __future__ import annotations

import pytest

from labeltrack._filters import Selection


@pytest.mark.parametrize(
    ("chosen", "kept"),
    [
        (None, {"train", "eval", "test", ""}),
        ("train", {"train"}),
        (["train", "test"], {"train", "test"}),
        ({"eval"}, {"eval"}),
        ((name for name in ["eval"]), {"eval"}),
        ("!eval", {"train", "test", ""}),
        (("!eval", "!test"), {"train", ""}),
    ],
)
def test_a_choice_keeps_what_it_names_or_all_but_that(chosen, kept):
    selection = Selection(chosen, "mode")
    assert {name for name in ("train", "eval", "test", "") if name in selection} == kept


def test_mixing_the_two_forms_is_refused():
    with pytest.raises(ValueError, match=r"mode mixes names to keep with names to leave out .*'train', '!eval'"):
        Selection(["train", "!eval"], "mode")


def test_choosing_nothing_is_refused():
    with pytest.raises(ValueError, match=r"ds_id is an empty iterable.*pass None"):
        Selection([], "ds_id")


@pytest.mark.parametrize("chosen", [3, ["train", 3]])
def test_names_that_are_no_strings_are_refused(chosen):
    with pytest.raises(TypeError, match="mode must be None, a string or an iterable of strings, got int"):
        Selection(chosen, "mode")
