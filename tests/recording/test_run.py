"""Recorded runs: what `open_run`, `Run.info` and `Run.epochs` return."""

from __future__ import annotations

import inspect
import json
import os
import shutil

import numpy as np
import pytest
from test_recorder import batch, same

import labeltrack as lt
from labeltrack.recording import epochs

pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed (extra 'record')")


def recorded(run, *, steps=(1, 2), flush_rows=1024, n=4, labels=10, **options):
    recording = lt.RecordingOptions(run, flush_rows=flush_rows, fsync="never")
    with lt.LabelTracker("y", "ce", record_to=recording, **options) as tracker:
        for step in steps:
            for i in range(n):
                tracker.update(*batch(400, labels, seed=10 * step + i))
            tracker.update(["cat", "dog", "cat"], [step, 2.0, 3.0], mode="eval", ds_id="a")
            tracker.update(["dog", "eel"], [4.0, 5.0], mode="eval", ds_id="b")
            tracker.end_epoch(step)
            tracker.end_epoch(step, mode="eval")
    return tracker


@pytest.fixture(scope="module", name="run")
def _run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    return folder, recorded(folder)


def test_a_run_describes_itself(run):
    path, _ = run
    opened = lt.open_run(str(path))
    info = opened.info()
    assert json.loads(json.dumps(info)) == info
    assert info | {"created": "", "bytes": 0} == {
        "path": str(path),
        "metric": "ce",
        "metrics": ["ce"],
        "ids": False,
        "duplicates": "first",
        "label": "y",
        "label_mapping": None,
        "bounds": ["std"],
        "nan_policy": "propagate",
        "missing": "error",
        "dtypes": [["int32", "float32"], ["string", "float64"]],
        "labeltrack": lt.__version__,
        "created": "",
        "sessions": 1,
        "modes": ["train", "eval"],
        "ds_ids": ["", "a", "b"],
        "epochs": 4,
        "incomplete": [],
        "by_epoch": [
            {"mode": mode, "step": step, "ds_ids": ds_ids, "rows": rows, "complete": True, "lost": 0}
            | {"other_attempts": 0}
            for step in (1, 2)
            for mode, ds_ids, rows in (("train", [""], 1600), ("eval", ["a", "b"], 5))
        ],
        "rows": 3210,
        "bytes": 0,
        "damage": [],
    }
    assert info["bytes"] == sum(p.stat().st_size for p in path.rglob("*.arrow"))
    assert [(e.mode, e.step, e.ds_ids, e.rows, e.complete) for e in opened.epochs] == [
        ("train", 1, ("",), 1600, True),
        ("eval", 1, ("a", "b"), 5, True),
        ("train", 2, ("",), 1600, True),
        ("eval", 2, ("a", "b"), 5, True),
    ]
    assert repr(opened) == f"Run({str(path)!r}): 'ce' by 'y', 4 epochs, 3,210 samples"


def test_a_folder_without_a_run_is_refused(tmp_path):
    for path in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(FileNotFoundError, match=r"no recorded run in .*run\.json"):
            lt.open_run(path)


def test_a_run_can_be_moved(run, tmp_path):
    path, tracker = run
    shutil.copytree(path, tmp_path / "elsewhere")
    assert same(lt.open_run(tmp_path / "elsewhere").recompute(progress=False), tracker.history)
    text = "".join(p.read_text(errors="replace") for p in path.rglob("*") if p.is_file())
    assert str(path) not in text
    assert os.uname().nodename not in text


def test_defaults_of_a_recomputation_are_readable():
    signature = str(inspect.signature(lt.Run.recompute))
    assert "<the tracker's>" in signature
    assert "<as recorded>" in signature


@pytest.mark.parametrize("closed", ["before it is read", "while it is opened"])
def test_a_run_can_be_read_while_its_parts_are_closed(tmp_path, monkeypatch, closed):
    options = lt.RecordingOptions(tmp_path / "run", flush_rows=1024)
    with lt.LabelTracker("y", "ce", record_to=options) as tracker:
        tracker.update([0, 1] * 1000, np.arange(2000.0))
        tracker.flush()
        assert list((tmp_path / "run").rglob("*.open"))

        def end():
            if tracker.pending:
                tracker.end_epoch(1)
                tracker.flush()
                assert not list((tmp_path / "run").rglob("*.open"))

        if closed == "while it is opened":

            def listed(storage, contents_of=epochs.contents_of):
                found = contents_of(storage)
                end()
                return found

            monkeypatch.setattr(epochs, "contents_of", listed)
        run = lt.open_run(tmp_path / "run")
        end()
        assert run.info()["bytes"] == sum(path.stat().st_size for path in (tmp_path / "run").rglob("*.arrow"))
        assert run.verify(progress=False).ok
        assert run.samples(incomplete=True)["value"].to_pylist() == list(range(2000))
        assert run.export(tmp_path / "samples.csv", incomplete=True, progress=False) == 2000
        history = run.recompute(incomplete=True, progress=False)
        assert history.at(1)[0].mean == 999.0
        shutil.rmtree(tmp_path / "run" / "mode=train")
        assert run.info()["bytes"] == 0
