"""The folder of a run: names of parts, and what does not belong there."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labeltrack.recording import storage as _storage
from labeltrack.recording.layout import contents_of, folder_of, part_name
from labeltrack.recording.storage import LocalFolder


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
