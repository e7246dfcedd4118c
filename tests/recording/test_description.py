"""`run.json`, and what parts say of their columns: it comes back, and damage is noticed."""

from __future__ import annotations

import json
import os
import string

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_recorder import fail

from labeltrack.errors import DamagedRunError
from labeltrack.recording.description import (
    DESCRIPTION,
    Coded,
    Columns,
    Description,
    columns_of,
    read_coded,
    read_columns,
    said_of,
)
from labeltrack.recording.storage import LocalFolder


def test_a_description_comes_back_as_it_was_written(tmp_path):
    mapping = {"cat": 3, "dog": np.int64(2**40), "x": 0.1, "y": "ä", "raw": b"\x00\xff", "yes": True}
    written = Description("ce", "y", mapping, (None, "range"), "omit", (("int32", "float32"),), "0.1.0")
    written.write(tmp_path)
    read = Description.read(LocalFolder(tmp_path))
    assert read == written
    assert [type(label) for label in read.label_mapping.values()] == [int, int, float, str, bytes, bool]
    assert [path.name for path in tmp_path.iterdir()] == [DESCRIPTION]
    Description("ce", "y").write(tmp_path)
    assert Description.read(LocalFolder(tmp_path)).label_mapping is None


def test_a_description_of_one_label_and_one_metric_is_of_version_1(tmp_path):
    Description(("ce",), "y").write(tmp_path)
    said = json.loads((tmp_path / DESCRIPTION).read_text(encoding="utf-8"))
    assert [said["version"], said["metric"], said["label"], "ids" in said] == [1, "ce", "y", False]


@pytest.mark.parametrize(
    ("label", "label_mapping", "missing"),
    [
        ("y", {"cat": 3, "raw": b"\xff"}, "label"),
        (("y",), None, "error"),
        (("y", "site"), {"y": {"cat": 3}, "site": None}, {"y": "label", "site": "skip"}),
        (("y", "site"), {"y": None, "site": {"here": "a", "there": "b"}}, "skip"),
    ],
)
@pytest.mark.parametrize(("metric", "ids"), [("ce", True), (("ce", "correct"), False), (("ce", "ä b", "x"), True)])
def test_a_description_of_version_2_comes_back_as_it_was_written(tmp_path, label, label_mapping, missing, metric, ids):
    written = Description(metric, label, label_mapping, missing=missing, ids=ids, id="1f")
    written.write(tmp_path)
    assert json.loads((tmp_path / DESCRIPTION).read_text(encoding="utf-8"))["version"] == 2
    assert Description.read(LocalFolder(tmp_path)) == written


def test_the_same_description_may_be_given_in_several_ways():
    several = Description("ce", ["y", "z"], {"y": None}, missing={"y": "skip", "z": "skip"})
    assert (several.names, several.label_mapping, several.missing) == (("y", "z"), None, "skip")


@pytest.mark.parametrize(
    ("metric", "label", "message"),
    [
        ("ce", ("class", "id"), "label called 'id'.*another column.*rename the label"),
        ("ce", ("class", "value"), "label called 'value'"),
        ("ce", ("class", "mode"), "label called 'mode'"),
        ("ce", ("class", "epoch"), "label called 'epoch'"),
        (("ce", "rank"), "y", "metric called 'rank'.*rename the metric"),
        (("ce", "label"), "y", "metric called 'label'"),
        (("ce", "site"), ("class", "site"), "'site'.*another column"),
        (("ce", "ce"), "y", "metrics to record must have different names"),
        (("ce", ""), "y", "1 to 1000 characters"),
        (("ce", "x" * 1001), "y", "1 to 1000 characters"),
        ("ce", ("class", "\ud800"), "surrogate"),
        ("ce", tuple(string.ascii_letters), "31 labels and metrics together, got 52 and 1"),
    ],
)
def test_names_that_cannot_be_names_of_columns_are_refused(metric, label, message):
    with pytest.raises(ValueError, match=message):
        Description(metric, label)


@pytest.mark.parametrize("name", ["id", "value", "mode", "", "\ud800"])
def test_one_label_and_one_metric_may_be_called_anything(name):
    assert Description(name, name).columns.names == ("label", "value")


@given(st.lists(st.text(min_size=1), min_size=2, max_size=4, unique=True))
def test_any_names_come_back_or_are_refused(names):
    try:
        written = Description(tuple(names), "y")
    except ValueError:
        return
    assert Description.from_plain(json.loads(json.dumps(written.plain()))) == written


def test_a_description_says_nothing_of_the_machine(tmp_path):
    Description("ce", "y").write(tmp_path)
    text = (tmp_path / DESCRIPTION).read_text(encoding="utf-8")
    assert os.uname().nodename not in text
    assert str(tmp_path) not in text


def test_a_description_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    Description("old", "y").write(tmp_path)
    fail(monkeypatch, os, "fsync")
    with pytest.raises(OSError, match="No space left"):
        Description("new", "y").write(tmp_path)
    assert Description.read(LocalFolder(tmp_path)).metric == "old"
    assert [path.name for path in tmp_path.iterdir()] == [DESCRIPTION]


LATER = {"ids": False, "duplicates": "first"}
GOOD = {
    "format": "labeltrack run",
    "version": 1,
    "metric": "ce",
    "label": "y",
    "label_mapping": None,
    "bounds": ["std"],
    "nan_policy": "omit",
    "dtypes": [],
    "labeltrack": "0.1.0",
    "created": "2026-01-01T00:00:00+00:00",
}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "no description"),
        ("null", "no description"),
        (json.dumps({"version": 1}), "no description"),
        (json.dumps(GOOD | {"version": 3}), "version 3 of the format.*update"),
        (json.dumps(GOOD | {"version": "1"}), "version '1'"),
        (json.dumps(GOOD | {"label": ["y", "site"]}), "label must be a string"),
        (json.dumps(GOOD | {"version": 2}), "ids"),
        (json.dumps(GOOD | {"version": 2, "ids": False}), "duplicates"),
        (json.dumps(GOOD | {"version": 2, "ids": False, "duplicates": "last"}), "duplicates: unknown option 'last'"),
        (json.dumps(GOOD | {"version": 2, **LATER, "metric": []}), "metric must be a string"),
        (json.dumps(GOOD | {"version": 2, **LATER, "metric": ["ce", 3]}), "metric must be a string"),
        (json.dumps(GOOD | {"version": 2, **LATER, "metric": ["ce", "ce"]}), "different names"),
        (json.dumps(GOOD | {"version": 2, **LATER, "label": ["y", "id"]}), "another column"),
        (json.dumps(GOOD | {"version": 2, **LATER, "label": ["y", "z"], "label_mapping": [None]}), "damaged"),
        (json.dumps(GOOD | {"version": 2, **LATER, "label": ["y", "z"], "missing": ["skip"]}), "damaged"),
        (json.dumps(GOOD | {"version": 2, **LATER, "label": ["y", "z"], "missing": ["skip", "x"]}), "'x'"),
        (json.dumps(GOOD | {"nan_policy": "ignore"}), "'ignore'"),
        (json.dumps(GOOD | {"dtypes": [3]}), "damaged"),
        (json.dumps(GOOD), "checksum"),
        (json.dumps(GOOD | {"metric": 3}), "metric must be a string"),
        (json.dumps({key: value for key, value in GOOD.items() if key != "label"}), "label"),
        (json.dumps(GOOD | {"bounds": ["everything"]}), "'everything'"),
        (json.dumps(GOOD | {"bounds": []}), "empty iterable"),
        (json.dumps(GOOD | {"label_mapping": []}), "empty"),
        (json.dumps(GOOD | {"label_mapping": [["a", [1]]]}), "must be a number or a string"),
        (json.dumps(GOOD | {"label_mapping": [["a", {"bytes": "xyz"}]]}), "damaged"),
        (json.dumps(GOOD | {"label_mapping": [["a", 1], ["a", 2]]}), "twice"),
        (json.dumps(GOOD | {"label_mapping": [["a", 1], ["b", 1]]}), "two names"),
        (json.dumps(GOOD | {"label_mapping": "ab"}), "damaged"),
    ],
)
def test_a_damaged_description_is_refused(tmp_path, text, message):
    (tmp_path / DESCRIPTION).write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message) as caught:
        Description.read(LocalFolder(tmp_path))
    assert str(tmp_path / DESCRIPTION) in str(caught.value)


def test_a_changed_description_is_noticed(tmp_path):
    Description("ce", "y", {"cat": 3}).write(tmp_path)
    path = tmp_path / DESCRIPTION
    path.write_text(path.read_text(encoding="utf-8").replace("3", "4", 1), encoding="utf-8")
    with pytest.raises(ValueError, match="checksum does not agree"):
        Description.read(LocalFolder(tmp_path))


def test_a_description_that_is_no_plain_file_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no recorded run in .*run\.json"):
        Description.read(LocalFolder(tmp_path))
    path = tmp_path / DESCRIPTION
    os.mkfifo(path)
    with pytest.raises(OSError, match="not a regular file"):
        Description.read(LocalFolder(tmp_path))
    path.unlink()
    (tmp_path / "secret").write_text(json.dumps(GOOD), encoding="utf-8")
    path.symlink_to(tmp_path / "secret")
    with pytest.raises(OSError, match="symbolic links"):
        Description.read(LocalFolder(tmp_path))
    path.unlink()
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="not JSON"):
        Description.read(LocalFolder(tmp_path))
    path.unlink()
    with path.open("wb") as file:
        file.truncate(10 * 2**30)  # takes no room
    with pytest.raises(ValueError, match="more than the 16777216 bytes"):
        Description.read(LocalFolder(tmp_path))


# -- columns ----------------------------------------------------------------------------------------------

I4, I8, F4, F8 = (np.dtype(code) for code in ("i4", "i8", "f4", "f8"))
ONE, WORD = Coded("integer"), Coded("string", "3")


@pytest.mark.parametrize(
    ("names", "metrics", "ids", "expected"),
    [
        ((), ("ce",), False, ("label", "value")),
        ((), ("ce",), True, ("label", "value", "id")),
        (("class",), (), False, ("class", "value")),
        (("class", "label"), ("ce",), False, ("class", "label", "value")),
        ((), ("ce", "value"), True, ("label", "ce", "value", "id")),
        (("a", "b", "c"), ("d", "e"), True, ("a", "b", "c", "d", "e", "id")),
    ],
)
def test_what_a_part_says_of_its_columns_comes_back(names, metrics, ids, expected):
    columns = columns_of(names, metrics, ids=ids)
    assert columns.names == expected
    coded, coded_ids = [ONE, WORD, ONE][: len(columns.labels)], WORD if ids else None
    said = said_of(columns, coded, coded_ids)
    dtypes = dict.fromkeys(columns.labels, I4) | dict.fromkeys(columns.values, F4) | dict.fromkeys(["id"] * ids, I8)
    assert read_columns(dtypes, said) == columns
    assert read_coded(columns, said) == (coded, coded_ids)
    assert (said.keys() == {"kind", "words"}) == (expected == ("label", "value"))


@pytest.mark.parametrize(
    ("dtypes", "said"),
    [
        ({"label": I4, "values": F4}, {}),
        ({"labels": I4, "value": F4}, {}),
        ({"label": I4}, {}),
        ({"label": I4, "value": I4}, {}),
        ({"label": I4, "value": F4, "id": I8}, {}),
        ({"label": I4, "value": F4, "id": I4}, {"ids": "integer"}),
        ({"label": I4, "value": F4, "key": I8}, {"ids": "integer"}),
        ({"label": I4, "value": F4}, {"ids": "integer"}),
        ({"a": I4, "b": I4, "value": F4}, {"labels": "3"}),
        ({"a": I4, "b": I4, "value": F4}, {"labels": "0"}),
        ({"a": I4, "b": I4, "value": F4}, {"labels": "-2"}),
        ({"a": I4, "b": I4, "value": F4}, {"labels": "²"}),
        ({"a": I4, "b": I4, "ce": F4}, {"labels": "2"}),
        ({"label": I4, "ce": F4, "hit": I8}, {"metrics": "2"}),
    ],
)
def test_columns_that_are_not_what_the_metadata_says_are_damage(dtypes, said):
    with pytest.raises(DamagedRunError, match=f"columns {next(iter(dtypes))}"):
        read_columns(dtypes, said)


@pytest.mark.parametrize("said", [{}, {"kind": "integer", "words": ","}, {"kind": "a,b,c", "words": ",,"}])
def test_kinds_and_words_that_are_not_one_for_each_label_say_nothing(said):
    assert read_coded(Columns(("a", "b")), said) == ([], None)
