"""The folder of a run: its description, names of parts, and what does not belong there."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labeltrack.recording import layout as store
from labeltrack.recording import storage as _storage
from labeltrack.recording.layout import DESCRIPTION, Description, contents_of, folder_of, part_name
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


def test_a_description_says_nothing_of_the_machine(tmp_path):
    Description("ce", "y").write(tmp_path)
    text = (tmp_path / DESCRIPTION).read_text(encoding="utf-8")
    assert os.uname().nodename not in text
    assert str(tmp_path) not in text


def test_a_description_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    Description("old", "y").write(tmp_path)

    def fail(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store.os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        Description("new", "y").write(tmp_path)
    assert Description.read(LocalFolder(tmp_path)).metric == "old"
    assert [path.name for path in tmp_path.iterdir()] == [DESCRIPTION]


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
        (json.dumps(GOOD | {"version": 2}), "version 2 of the format.*update"),
        (json.dumps(GOOD | {"version": "1"}), "version '1'"),
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


@given(st.text(), st.text(), st.integers(-(10**17), 10**17))
def test_any_name_stays_within_the_folder_and_comes_back(mode, ds_id, epoch):
    place = folder_of(mode.encode("utf-8", "replace").decode(), ds_id.encode("utf-8", "replace").decode(), epoch)
    assert len(place.split("/")) == 3
    assert all(part not in ("", ".", "..") and "\0" not in part for part in place.split("/"))
    assert (Path("/run") / place).resolve().is_relative_to("/run")


@pytest.mark.parametrize(("mode", "ds_id"), [("train", ""), ("..", "../.."), ("a/b", "ä=|%2F"), ("__x__", "\n")])
def test_parts_are_found_by_their_names(tmp_path, mode, ds_id):
    for epoch in (10, 9, -1):
        folder = tmp_path / folder_of(mode, ds_id, epoch)
        folder.mkdir(parents=True)
        for name in (part_name(1, 0, 1, 0), part_name(1, 0, 2, 0) + ".open"):
            (folder / name).touch()
    (tmp_path / "journal-0001-0000.log").touch()
    (tmp_path / "journal-x.log").touch()
    contents = contents_of(LocalFolder(tmp_path))
    places = contents.places
    assert contents.strange == []
    assert contents.journals == {(1, 0): "journal-0001-0000.log"}
    assert [(p.mode, p.ds_id, p.epoch, p.is_open) for p in places] == [
        (mode, ds_id, epoch, is_open) for epoch in (-1, 9, 10) for is_open in (False, True)
    ]
    assert all((tmp_path / p.name).is_file() for p in places)
    assert {(p.session, p.rank, p.attempt, p.index) for p in places} == {(1, 0, 1, 0), (1, 0, 2, 0)}


def test_a_hive_reader_finds_the_same(tmp_path):
    ds = pytest.importorskip("pyarrow.dataset", reason="pyarrow is not installed (extra 'record')")
    import pyarrow as pa

    for ds_id in ("", "a/b", "c d"):
        folder = tmp_path / folder_of("train", ds_id, 3)
        folder.mkdir(parents=True)
        with pa.OSFile(str(folder / "part-1.arrow"), "wb") as file:
            table = pa.table({"label": np.zeros(2, np.int32)})
            with pa.ipc.new_file(file, table.schema) as writer:
                writer.write_table(table)
    table = ds.dataset(tmp_path, format="ipc", partitioning="hive").to_table()
    assert set(table["ds_id"].to_pylist()) == {"", "a/b", "c d"}
    assert set(table["epoch"].to_pylist()) == {3}


def test_what_does_not_belong_is_named_and_not_followed(tmp_path):
    run = tmp_path / "run"
    inside = run / folder_of("train", "", 1)
    inside.mkdir(parents=True)
    outside = tmp_path / "outside"
    outside.mkdir()
    name = part_name(1, 0, 1, 0)
    (outside / name).touch()
    (inside / name).symlink_to(outside / name)
    os.mkfifo(inside / part_name(1, 0, 1, 1))
    (inside / part_name(1, 0, 1, 2)).mkdir()
    (inside / "notes.txt").touch()
    (inside / "part-..arrow").touch()
    for epoch in ("epoch=x", f"epoch={10**30}", "epoch=01"):
        (inside.parent / epoch).mkdir()
        (inside.parent / epoch / name).touch()
    (inside.parent / "epoch=2").symlink_to(outside)
    (inside.parent.parent / "ds_id=%2e%2E" / "epoch=1").mkdir(parents=True)  # not as it is written
    (inside.parent.parent / "ds_id=%2e%2E" / "epoch=1" / name).touch()
    (run / "mode=%ff" / "ds_id=" / "epoch=1").mkdir(parents=True)  # stands for no text
    (run / "mode=%ff" / "ds_id=" / "epoch=1" / name).touch()
    (run / "mode=eval").symlink_to(outside)
    (run / "README").touch()  # at the top, anybody may put a file
    contents = contents_of(LocalFolder(run))
    assert contents.places == []
    assert len(contents.strange) == 12
    assert not [line for line in contents.strange if "README" in line]


def test_a_folder_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(_storage, "MOST_ENTRIES", 3)
    for i in range(4):
        (tmp_path / str(i)).touch()
    with pytest.raises(ValueError, match="more than 3 entries"):
        contents_of(LocalFolder(tmp_path))
