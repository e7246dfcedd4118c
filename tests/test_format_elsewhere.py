"""What docs/format.md and README say of other programs, run with these programs."""

from __future__ import annotations

import contextlib
import pathlib
import re

import numpy as np
import pytest

import labeltrack

pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed (extra 'record')")
dataset = pytest.importorskip("pyarrow.dataset", reason="pyarrow is not installed (extra 'record')")
polars = pytest.importorskip("polars", reason="polars is not installed (extra 'test')")
duckdb = pytest.importorskip("duckdb", reason="duckdb is not installed (extra 'test')")
pandas = pytest.importorskip("pandas", reason="pandas is not installed (extra 'test')")

# What pandas before 2.1 calls, numpy from 1.25 on deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:np.find_common_type:DeprecationWarning")

DOCS = pathlib.Path(__file__).parents[1] / "docs" / "format.md"
LATE = 1_764_378_000_123_456_789
SAMPLES = {
    # by mode, dataset and epoch; labels and values become wider, and strings are codes in the files
    ("train", "", 1): (np.array([1, 2, 2], np.int32), np.array([0.5, 1.5, 2.5], np.float32)),
    ("train", "site a/b", 2): (np.array([2**40, 1]), np.array([0.1, 2.0])),
    ("train", "7", LATE): (np.array([5], np.int32), np.array([3.0])),
    ("1", "", 1): (np.array([3, 3]), np.array([1.0, 4.0])),
    ("eval", "", 1): (["cat", "dog", "cat"], np.array([1.0, 2.0, 4.0])),
}


@pytest.fixture(name="root", params=[False, True], ids=["closed", "with a part that is not"])
def _root(request, tmp_path):
    """Record the samples; and, if asked, a torn part as a process that was killed leaves it."""
    root = tmp_path / "run"
    tracker = labeltrack.LabelTracker("y", "ce", record_to=labeltrack.RecordingOptions(root, flush_rows=1024))
    for (mode, ds_id, epoch), (labels, values) in SAMPLES.items():
        tracker.update(labels, values, mode=mode, ds_id=ds_id)
        tracker.end_epoch(epoch, mode=mode)
    tracker.close()
    if request.param:
        more = labeltrack.LabelTracker("y", "ce", record_to=labeltrack.RecordingOptions(root, flush_rows=1024))
        for _ in range(3):
            more.update(np.arange(1024), np.arange(1024.0), mode="train")
            more.flush()
        (part,) = root.glob("mode=*/**/*.open")
        content = part.read_bytes()
        more.reset()
        more.close()
        (closed,) = root.glob("mode=*/**/part-0002*.arrow")
        closed.unlink()
        part.write_bytes(content[:-2000])
    return root


def run_page(root):
    """Run every example of the section about other programs, one after the other, as somebody who copies them."""
    section = DOCS.read_text(encoding="utf-8").partition("## Other programs")[2].partition("\n## ")[0]
    names = {
        "root": str(root),
        "labeltrack": labeltrack,
        "pyarrow": pyarrow,
        "polars": polars,
        "duckdb": duckdb,
        "pandas": pandas,
        "pathlib": pathlib,
        "contextlib": contextlib,
    }
    blocks = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    assert len(blocks) == 6
    for block in blocks:
        exec(block, names)  # noqa: S102 (it is our own page)
    return names


def rows_of(labels, values):
    return sorted(zip(np.asarray(labels).tolist(), np.asarray(values, np.float64).tolist(), strict=True))


def test_the_examples_for_other_programs_find_what_was_recorded(root):
    names = run_page(root)
    numbers = {key: pair for key, pair in SAMPLES.items() if key[0] != "eval"}
    train = [pair for key, pair in SAMPLES.items() if key[0] == "train"]
    expected = sorted(row for pair in train for row in rows_of(*pair))
    for found in (names["samples"], names["in_polars"], names["in_pandas"]):
        assert rows_of(found["label"], found["value"]) == expected
    assert sorted(row[:2] for row in names["in_duckdb"].fetchall()) == (
        sorted((label, sum(one == label for one, _ in expected)) for label in {label for label, _ in expected})
    )
    for frame in (names["dataset"].to_table().to_pandas(), names["frame"].to_pandas()):
        found = {key: rows_of(rows["label"], rows["value"]) for key, rows in frame.groupby(["mode", "ds_id", "epoch"])}
        assert found.keys() == SAMPLES.keys()
        assert {key: found[key] for key in numbers} == {key: rows_of(*pair) for key, pair in numbers.items()}
        assert found["eval", "", 1] == [(0, 1.0), (0, 4.0), (1, 2.0)]  # codes
    assert sorted(names["by_epoch"].fetchall()) == [
        ("1", 1, 2, 5.0),
        ("eval", 1, 3, 7.0),
        ("train", 1, 3, 4.5),
        ("train", 2, 2, 2.1),
        ("train", LATE, 1, 3.0),
    ]
    frames = names["frames"]
    assert rows_of(frames["label"], frames["value"]) == sorted(
        [row for pair in numbers.values() for row in rows_of(*pair)] + [(0, 1.0), (0, 4.0), (1, 2.0)]
    )


def test_the_example_for_parts_that_are_not_closed_finds_their_whole_batches(root):
    batches = run_page(root)["batches"]
    torn = any(root.glob("mode=*/**/*.open"))
    assert [batch.num_rows for batch in batches] == ([1024, 1024] if torn else [])
    for batch in batches:
        assert batch["value"].to_pylist() == list(range(1024))


def test_what_the_page_says_that_programs_do_not_do_is_so(root):
    """Else it could say something simpler."""
    (first, *_), (second, *_) = ((*root.glob(f"mode=train/**/epoch={epoch}/*.arrow"),) for epoch in (1, 2))
    with pytest.raises(duckdb.Error, match="capable of reading the file"):
        duckdb.sql(f"from '{first}'")
    with pytest.raises(polars.exceptions.SchemaError):
        polars.scan_ipc([second, first]).collect()
    with pytest.raises(pyarrow.ArrowInvalid, match="journal"):
        dataset.dataset(root, format="ipc", partitioning="hive")
    inferred = dataset.dataset(root, format="ipc", partitioning="hive", exclude_invalid_files=True)
    assert inferred.schema.field("epoch").type == pyarrow.string()
    narrow = [str(part) for part in (first, second)]
    with pytest.raises(pyarrow.ArrowInvalid, match="not in range"):
        dataset.dataset(narrow, format="ipc").to_table()


def test_a_flipped_bit_is_read_silently_wrong_by_all_but_labeltrack(root):
    part = next(root.glob("mode=1/**/*.arrow"))
    content = bytearray(part.read_bytes())
    content[content.index(np.array([1.0, 4.0]).tobytes()) + 6] ^= 1
    part.write_bytes(content)
    names = run_page(root)
    wrong = names["dataset"].to_table(filter=dataset.field("mode") == "1")["value"].to_pylist()
    assert wrong != [1.0, 4.0]
    assert names["frame"].filter(polars.col("mode") == "1")["value"].to_list() == wrong
    assert pandas.read_feather(part)["value"].tolist() == wrong
    assert [row[3] for row in names["by_epoch"].fetchall() if row[0] == "1"] == [sum(wrong)]
    with pytest.warns(labeltrack.LabelTrackWarning, match="checksum"):
        assert labeltrack.open_run(root).samples("1").num_rows == 0
