"""`run.json`: what it says comes back, and damage is noticed."""

from __future__ import annotations

import json
import os
import string

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labeltrack.recording.description import Description
from labeltrack.recording.layout import DESCRIPTION
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

    def fail(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
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
        (json.dumps(GOOD | {"version": 2, "ids": False, "duplicates": "last"}), "one of 'first', 'count', got 'last'"),
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
