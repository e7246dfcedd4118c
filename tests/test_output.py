"""Columns to files: what is written reads back, and a file is there whole or not at all."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from labeltrack._output import check_ending, rows_of, whole_file, write_columns

COLUMNS = {"label": np.array(["ä", "b,c"]), "value": np.array([0.1, np.nan]), "n": np.array([1, 2**60])}


def test_files_read_back(tmp_path):
    pq = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed (extra 'arrow')")
    for ending in ("csv", "JSON", "parquet"):
        write_columns(COLUMNS, tmp_path / f"x.{ending}")
    with (tmp_path / "x.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert (rows[0]["label"], float(rows[0]["value"]), int(rows[1]["n"])) == ("ä", 0.1, 2**60)
    assert json.loads((tmp_path / "x.JSON").read_text(encoding="utf-8")) == rows_of(COLUMNS)
    assert pq.read_table(tmp_path / "x.parquet")["n"].to_pylist() == [1, 2**60]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.JSON", "x.csv", "x.parquet"]


def test_json_has_no_numbers_that_are_none():
    assert rows_of(COLUMNS)[1] == {"label": "b,c", "value": None, "n": 2**60}
    assert rows_of({"x": np.array([b"a\xff"])}) == [{"x": "a\\xff"}]


def test_another_ending_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"'x.xls' by its name; it must end in \.csv, \.parquet, \.json"):
        write_columns(COLUMNS, tmp_path / "x.xls")
    assert check_ending(tmp_path / "x.PNG", (".png",)) == ".png"


def test_a_file_that_fails_leaves_the_one_that_is_there(tmp_path):
    (tmp_path / "x").write_text("old")

    def fail():
        with whole_file(tmp_path / "x") as half:
            half.write_text("new")
            msg = "in between"
            raise RuntimeError(msg)

    with pytest.raises(RuntimeError, match="in between"):
        fail()
    assert (tmp_path / "x").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
    with pytest.raises(OSError, match=r"cannot write .*No such file"), whole_file(tmp_path / "no" / "x") as half:
        half.write_text("new")
