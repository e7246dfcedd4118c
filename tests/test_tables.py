"""Printed tables, and files: what is written reads back, and a file is there whole or not at all."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import re
import resource
import threading
from contextlib import contextmanager

import numpy as np
import pytest

import labeltrack as lt
from labeltrack import _tables
from labeltrack._tables import check_ending, rows_of, whole_file, write_columns

COLUMNS = {"label": np.array(["ä", "b,c"]), "value": np.array([0.1, np.nan]), "n": np.array([1, 2**60])}


def test_short_tables_are_whole_and_long_ones_have_a_head_and_a_tail():
    assert _tables.shown_places(12) == list(range(12))
    assert _tables.shown_places(13) == [*range(8), 9, 10, 11, 12]


def test_columns_are_aligned_to_the_right():
    text = _tables.text("Title", [("name", "mean"), ("a", 0.123456789), ("long", 2.0)], 2)
    assert text.splitlines() == ["Title", "name      mean", "   a  0.123457", "long         2"]


def test_labels_and_ids_neither_break_lines_nor_control_the_terminal(tmp_path):
    pytest.importorskip("pyarrow", reason="pyarrow is not installed (extra 'arrow')")
    pytest.importorskip("scipy", reason="scipy is not installed (extra 'stats')")
    labels, ids = ["a\0b", "\x1b[31mred", "x\n\ry"], ["i\0", "\x1b[1m", "n\u2028l"]
    with lt.LabelTracker("y", "ce", record_to=tmp_path / "run") as tracker:
        tracker.update(labels, [1.0, 2.0, 3.0], ids=ids)
        stats = tracker.end_epoch(1)
    dynamics = lt.open_run(tmp_path / "run").dynamics("train")
    tables = (stats, 5), (tracker.history, 3), (lt.compare(stats, stats), 5), (dynamics, 5)
    for table, lines in tables:
        assert len(str(table).splitlines()) == lines
        assert all(text.replace("\n", "").isprintable() for text in (str(table), table._repr_html_()))
    assert r"x\n\ry" in str(stats)
    assert r"n\u2028l" in str(dynamics)


def test_a_gap_is_marked_where_rows_are_left_out():
    rows = [("k",), *((k,) for k in _tables.shown_places(30))]
    assert _tables.text("T", rows, 30).split() == ["T", "k", *map(str, range(8)), "…", "26", "27", "28", "29"]
    assert "<td>…</td>" in _tables.html("T", rows, 30)


# -- files ------------------------------------------------------------------------------------------------


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


@contextmanager
def at_most(size):
    """Within the block, no file can be larger, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture(scope="module", name="history")
def _history():
    history = lt.History()
    for step in range(20):
        history.add(step, lt.label_stats(np.arange(6), np.random.default_rng(step).random(6)))
    return history


WRITERS = {
    "x.csv": lambda history, path: history.to_csv(path),
    "x.parquet": lambda history, path: history.to_parquet(path),
    "x.png": lambda history, path: history.plot().savefig(path),
    "x.svg": lambda history, path: history.plot().savefig(str(path), bbox_inches="tight"),
    "x.pdf": lambda history, path: history.plot().savefig(path, format="PDF"),
    "x.json": lambda history, path: write_columns(history.columns(), path),
    "run.json": lambda _, path: lt.LabelTracker("y" * 5000, "ce", record_to=path.parent).close(),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_leaves_every_file_as_it_was(history, tmp_path, name):
    if name in ("x.parquet", "run.json"):
        pytest.importorskip("pyarrow", reason="pyarrow is not installed (extra 'arrow')")
    path = tmp_path / name
    old = b"" if name == "run.json" else b"what was there"
    if old:
        path.write_bytes(old)
    WRITERS["x.png"](history, io.BytesIO())  # fonts and kernels are loaded, which may write caches
    with at_most(4000), pytest.raises(OSError, match=r"File too large"):
        WRITERS[name](history, path)
    left = [one.name for one in tmp_path.iterdir() if not one.name.endswith(".lock")]
    assert left == ([name] if old else [])
    if old:
        assert path.read_bytes() == old
        WRITERS[name](history, path)
        assert path.read_bytes() != old


def test_the_error_keeps_its_kind_and_number(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"cannot write .*no/x.csv: No such file") as caught:
        lt.History().to_csv(tmp_path / "no" / "x.csv")
    assert caught.value.errno == errno.ENOENT
    with pytest.raises(IsADirectoryError, match=r"cannot write .*: Is a directory"):
        lt.History().to_csv(tmp_path)


def test_links_devices_pipes_and_permissions_stay_what_they_are(tmp_path, history):
    real, link = tmp_path / "real.csv", tmp_path / "link.csv"
    real.write_text("old")
    real.chmod(0o640)
    link.symlink_to("real.csv")
    history.to_csv(link)
    assert link.is_symlink()
    assert real.read_text(encoding="utf-8").startswith("step,mode")
    assert real.stat().st_mode & 0o777 == 0o640
    os.mkfifo(tmp_path / "pipe.csv")
    read = []
    reader = threading.Thread(target=lambda: read.append((tmp_path / "pipe.csv").read_text(encoding="utf-8")))
    reader.start()
    history.to_csv(tmp_path / "pipe.csv")
    reader.join()
    assert read == [real.read_bytes().decode().replace("\r\n", "\n")]
    history.to_csv("/dev/null")
    assert not os.path.isfile("/dev/null")  # noqa: PTH113
    umask = os.umask(0o022)
    try:
        history.to_csv(tmp_path / ("n" * 250 + ".csv"))
    finally:
        os.umask(umask)
    assert (tmp_path / ("n" * 250 + ".csv")).stat().st_mode & 0o777 == 0o644


def test_a_figure_without_an_ending_gets_the_one_that_matplotlib_gives(tmp_path, history):
    figure = history.plot()
    for name, at in (("a", "a.png"), ("b.", "b.png"), ("c.SVG", "c.SVG")):
        figure.savefig(tmp_path / name)
        assert (tmp_path / at).stat().st_size > 1000
    drawn = io.BytesIO()
    history.plot().savefig(drawn, dpi=100)
    assert drawn.getvalue() == (tmp_path / "a.png").read_bytes()
    with pytest.raises(ValueError, match="nonsense"):
        figure.savefig(tmp_path / "a.nonsense")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png", "c.SVG"]


# What os.fsdecode makes of names that are not UTF-8, and what could be taken for how it is written.
TEXTS = [
    "caf\udce9",
    r"caf\udce9",
    r"caf\\udce9",
    "caf\\\udce9",
    "\ud83d\ude00",
    "😀",
    r"\uD83D",
    r"a\b",
    "é",
    "\\",
    r"\ud7ff",
]


def told(text):
    """Read a text as the documentation of `History.to_csv` says that it is written."""

    def read(found):
        backslashes, odd = divmod(len(found[1]), 2)
        return "\\" * backslashes + (chr(int(found[2][1:], 16)) if odd else found[2])

    return re.sub(r"(\\+)(ud[89a-f][0-9a-f]{2})", read, text)


def with_surrogates():
    history = lt.History()
    for i, text in enumerate(TEXTS):
        history.add(i, lt.label_stats(TEXTS, np.arange(len(TEXTS))), mode=text, ds_id=text)
    return history


@pytest.mark.parametrize("ending", ["csv", "parquet", "json"])
def test_texts_that_utf_8_does_not_hold_are_written_and_can_all_be_told(tmp_path, ending):
    history = with_surrogates()
    path = tmp_path / f"x.{ending}"
    if ending == "parquet":
        pq = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed (extra 'arrow')")
        history.to_parquet(path)
        rows = pq.read_table(path).to_pylist()
    elif ending == "csv":
        history.to_csv(path)
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    else:
        write_columns(history.columns(), path)
        rows = json.loads(path.read_text(encoding="utf-8"))
    assert len(rows) == len(TEXTS) ** 2
    for row in rows:
        for name, column in history.columns().items():
            if name in ("mode", "ds_id", "label", "name"):
                assert row[name].encode("utf-8").decode("utf-8") == row[name]
                assert told(row[name]) in column.tolist()
    assert {told(row["label"]) for row in rows} == {told(row["mode"]) for row in rows} == set(TEXTS)
    plain = [row["label"] for row in rows if row["label"] in (r"a\b", "é", "\\", r"\ud7ff", r"\uD83D", "😀")]
    assert len(plain) == 6 * len(TEXTS)


def test_texts_that_utf_8_does_not_hold_can_be_shown():
    history = with_surrogates()
    stats = history.at(0, TEXTS[0])
    for shown in (repr(history), history._repr_html_(), repr(stats), stats._repr_html_()):
        shown.encode("utf-8")
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed (extra 'arrow')")
    assert {told(label) for label in pa.table(stats)["label"].to_pylist()} == set(TEXTS)
    figure = history.plot(modes=TEXTS[0])
    figure.savefig(io.BytesIO(), format="svg")
    names = {text.get_text() for axes in figure.axes for text in (*axes.texts, axes.title, axes._left_title)}
    assert len(names & {told_as for told_as in names if told(told_as) in TEXTS}) == len(TEXTS)


def test_statistics_and_comparisons_are_written_to_files_as_histories_are(tmp_path):
    pa, pq = (pytest.importorskip(name, reason="pyarrow is not installed") for name in ("pyarrow", "pyarrow.parquet"))
    pytest.importorskip("scipy", reason="scipy is not installed (extra 'stats')")
    stats = lt.label_stats(["a", "b"] * 30, [0.1 * k for k in range(60)])
    for one, mean in ((stats, "mean"), (lt.compare(stats, stats), "mean_after")):
        one.to_csv(tmp_path / "one.csv")
        one.to_parquet(tmp_path / "one.parquet")
        with (tmp_path / "one.csv").open(newline="", encoding="utf-8") as file:
            assert [float(row[mean]) for row in csv.DictReader(file)] == stats.mean.tolist()
        assert pq.read_table(tmp_path / "one.parquet").to_pydict() == pa.table(one).to_pydict()
