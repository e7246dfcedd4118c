"""Samples as tables and files: exactly those that were recorded, without copies, also for other libraries."""

from __future__ import annotations

import csv
import os
import shutil

import numpy as np
import pytest
from test_recorder import batch
from test_run import _run  # noqa: F401 (a fixture)

import labeltrack as lt

pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed (extra 'record')")
pa_csv = pytest.importorskip("pyarrow.csv", reason="pyarrow is not installed (extra 'record')")
pq = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed (extra 'record')")


def test_samples_are_those_that_were_recorded(run):
    path, _ = run
    opened = lt.open_run(path)
    table = opened.samples("train", step=2)
    labels, values = (np.concatenate([batch(400, seed=20 + i)[k] for i in range(4)]) for k in (0, 1))
    np.testing.assert_array_equal(table["label"].to_numpy(), labels)
    np.testing.assert_array_equal(table["value"].to_numpy(), values)
    assert table.schema.names == ["label", "value"]
    assert opened.samples("eval", ds_id="b").to_pydict() == {"label": ["dog", "eel"] * 2, "value": [4.0, 5.0] * 2}
    assert opened.samples("!train", [1], "!b").to_pydict() == {"label": ["cat", "dog", "cat"], "value": [1.0, 2.0, 3.0]}
    every = opened.samples("eval", columns=["step", "ds_id", "mode", "session", "rank", "attempt"]).to_pydict()
    assert every == {
        "step": [1] * 5 + [2] * 5,
        "ds_id": ["a", "a", "a", "b", "b"] * 2,
        "mode": ["eval"] * 10,
        "session": [1] * 10,
        "rank": [0] * 10,
        "attempt": [1] * 5 + [2] * 5,
    }
    assert opened.samples("train", ds_id="a").num_rows == 0


def test_samples_share_the_memory_of_the_files(tmp_path):
    with lt.LabelTracker("y", "ce", record_to=tmp_path / "run") as tracker:
        for _ in range(2):
            tracker.update(np.arange(65_536, dtype=np.int32), np.ones(65_536, np.float32))
        tracker.end_epoch(1)
    opened = lt.open_run(tmp_path / "run")
    opened.samples()
    before = pa.total_allocated_bytes()
    table = opened.samples()
    assert table.nbytes == 2 * 65_536 * 8
    assert pa.total_allocated_bytes() - before < 10_000
    for name in ("label", "value"):
        addresses = [chunk.buffers()[1].address for chunk in table[name].chunks]
        assert not any(address % 64 for address in addresses)


def test_other_libraries_take_samples_and_files(run):
    path, _ = run
    table = lt.open_run(path).samples("train")
    polars = pytest.importorskip("polars", reason="polars is not installed (extra 'test')")
    duckdb = pytest.importorskip("duckdb", reason="duckdb is not installed (extra 'test')")
    pandas = pytest.importorskip("pandas", reason="pandas is not installed (extra 'test')")
    import pyarrow.dataset as ds

    total = float(np.sum(table["value"].to_numpy().astype(np.float64)))
    files = sorted(path.glob("mode=train/**/*.arrow"))
    assert polars.from_arrow(table)["value"].cast(polars.Float64).sum() == pytest.approx(total)
    assert polars.scan_ipc(files).select(polars.col("value").cast(polars.Float64).sum()).collect().item() == (
        pytest.approx(total)
    )
    hive = ds.dataset(path, format="ipc", partitioning="hive", exclude_invalid_files=True)
    assert hive.count_rows() >= 3200
    connection = duckdb.connect()
    connection.register("recorded", ds.dataset(path / "mode=train", format="ipc", partitioning="hive"))
    found = connection.execute("select count(*), sum(value::double), max(epoch) from recorded").fetchall()
    assert found == [(3200, pytest.approx(total), 2)]
    dask = pytest.importorskip("dask", reason="dask is not installed (extra 'dask')")
    counts = dask.compute(*[dask.delayed(pandas.read_feather)(file) for file in files])
    assert sum(map(len, counts)) == 3200
    frame = pandas.concat([pandas.read_feather(file) for file in files])
    assert (len(frame), frame["value"].astype(float).sum()) == (3200, pytest.approx(total))


def test_columns_of_several_types_become_the_wider_one(tmp_path):
    with lt.LabelTracker("y", "ce", record_to=tmp_path / "run") as tracker:
        for step, (labels, values) in enumerate(
            [
                (np.array([True, False]), np.array([1, 2], np.float32)),
                (np.array([3], np.int32), np.array([0.1])),
                (np.array([2**40]), np.array([4.0])),
                (np.array([2**63 + 5], np.uint64), np.array([5.0])),
                (np.array([0.5]), np.array([6.0])),
            ],
            1,
        ):
            tracker.update(labels, values)
            tracker.end_epoch(step)
    opened = lt.open_run(tmp_path / "run")
    assert opened.samples(step=1).to_pydict() == {"label": [True, False], "value": [1.0, 2.0]}
    assert opened.samples(step=[1, 2]).to_pydict() == {"label": [1, 0, 3], "value": [1.0, 2.0, 0.1]}
    assert opened.samples(step=[2, 3])["label"].to_pylist() == [3, 2**40]
    assert opened.samples(step=[1, 3, 4])["label"].to_pylist() == [1, 0, 2**40, 2**63 + 5]
    with pytest.raises(ValueError, match=r"labels have types that do not fit one column.*labels of one type"):
        opened.samples()


@pytest.mark.parametrize("ids", [[7, 8], ["p", "q"]])
def test_samples_without_ids_have_none_beside_others(tmp_path, ids):
    with lt.LabelTracker("y", "ce", record_to=tmp_path / "run") as tracker:
        for step in (1, 2):
            tracker.update([0, 1], [1.0, 2.0], ids=ids if step == 2 else None)
            tracker.end_epoch(step)
    run = lt.open_run(tmp_path / "run")
    assert run.samples()["id"].to_pylist() == [None, None, *ids]
    assert run.samples(step=1, columns=["id"])["id"].to_pylist() == [None, None]
    assert run.export(tmp_path / "samples.parquet", columns=["id"]) == 4
    assert pq.read_table(tmp_path / "samples.parquet")["id"].to_pylist() == [None, None, *ids]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"mode": "trian"}, KeyError, "no recorded mode 'trian'. Did you mean 'train'"),
        ({"step": 7}, KeyError, "no recorded step 7"),
        ({"ds_id": "c"}, KeyError, "no recorded ds_id 'c'.* There are: '', 'a', 'b'"),
        ({"step": "1"}, TypeError, "step must be an integer"),
        ({"columns": ["label", "labels"]}, ValueError, "unknown 'labels'; allowed are 'label', 'value'"),
        ({"columns": []}, ValueError, "allowed are 'label'"),
    ],
)
def test_a_wrong_selection_of_samples_is_explained(run, arguments, error, message):
    with pytest.raises(error, match=message):
        lt.open_run(run[0]).samples(**arguments)


def csv_rows(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_texts_that_are_not_utf8_are_exported_and_stay_distinct(tmp_path):
    names = [os.fsdecode(b"caf\xe9"), r"caf\udce9", "caf\u00e9", "plain"]
    mode, ds_id = os.fsdecode(b"tr\xff"), os.fsdecode(b"d\xe9")
    with lt.LabelTracker("y", "ce", record_to=tmp_path / "run") as tracker:
        tracker.update(names, np.arange(4.0), mode=mode, ds_id=ds_id)
        tracker.end_epoch(1, mode=mode)
    run = lt.open_run(tmp_path / "run")
    labels = [r"caf\udce9", r"caf\\udce9", "caf\u00e9", "plain"]
    expected = {"label": labels, "value": [0.0, 1.0, 2.0, 3.0], "mode": [r"tr\udcff"] * 4, "ds_id": [r"d\udce9"] * 4}
    assert run.samples(columns=list(expected)).to_pydict() == expected
    assert run.samples(mode, ds_id=ds_id).num_rows == 4  # asked for as they were recorded
    for ending in ("csv", "parquet"):
        assert run.export(tmp_path / f"x.{ending}", columns=list(expected), progress=False) == 4
    assert pq.read_table(tmp_path / "x.parquet").to_pydict() == expected
    assert [row["label"] for row in csv_rows(tmp_path / "x.csv")] == labels


def test_labels_of_bytes_are_text_in_csv_and_bytes_elsewhere(tmp_path):
    words = [b"cat", b"\xff", rb"\xff", "d\u00f6g".encode(), b'a,"b', b"back\\slash"]
    with lt.LabelTracker("y", "ce", record_to=tmp_path / "run") as tracker:
        tracker.update(np.array(words), np.arange(6.0))
        tracker.end_epoch(1)
    run = lt.open_run(tmp_path / "run")
    for ending in ("csv", "parquet"):
        assert run.export(tmp_path / f"x.{ending}", progress=False) == 6
    assert pq.read_table(tmp_path / "x.parquet")["label"].to_pylist() == words
    assert [row["label"] for row in csv_rows(tmp_path / "x.csv")] == (
        ["cat", r"\xff", r"\\xff", "d\u00f6g", 'a,"b', r"back\slash"]
    )


@pytest.mark.parametrize("ending", ["csv", "parquet"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt(), MemoryError()])
def test_an_export_that_fails_leaves_the_file_that_was_there(run, tmp_path, monkeypatch, ending, error):
    out = tmp_path / f"samples.{ending}"
    out.write_bytes(b"what was there")
    opened = lt.open_run(run[0])
    module, name = (pq, "ParquetWriter") if ending == "parquet" else (pa_csv, "CSVWriter")
    written = []

    class Failing(getattr(module, name)):
        def write_batch(self, batch):
            super().write_batch(batch)
            written.append(batch.num_rows)
            if len(written) == 2:
                raise error

    with monkeypatch.context() as patch:
        patch.setattr(module, name, Failing)
        with pytest.raises(type(error)):
            opened.export(out, "train", progress=False)
    assert len(written) == 2
    assert out.read_bytes() == b"what was there"
    assert list(tmp_path.iterdir()) == [out]
    assert opened.export(out, "train", progress=False) == 3200
    assert list(tmp_path.iterdir()) == [out]


def test_an_export_leaves_out_a_missing_part_with_a_warning(run, tmp_path):
    shutil.copytree(run[0], tmp_path / "run")
    next((tmp_path / "run").glob("mode=train/**/epoch=1/*.arrow")).unlink()
    with pytest.warns(lt.LabelTrackWarning, match=r"the file is missing \(1,600 rows lost"):
        assert lt.open_run(tmp_path / "run").export(tmp_path / "x.csv", "train", progress=False) == 1600
