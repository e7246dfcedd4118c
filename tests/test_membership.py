"""Taking part in a run: what may go on, and that nobody takes part twice."""

from __future__ import annotations

import subprocess
import sys

import pytest
from test_recorder import same, train

import labeltrack as lt

pytest.importorskip("pyarrow", reason="pyarrow is not installed (extra 'record')")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metric": "acc"}, "a run of metric 'ce', and this is metric 'acc'"),
        ({"label": "site"}, "a run of label 'y'"),
        ({"label_mapping": {"one": 1}}, "a run of label_mapping None"),
        ({"nan_policy": "omit"}, "a run of nan_policy 'propagate'"),
    ],
)
def test_a_run_goes_on_only_with_the_same(tmp_path, options, message):
    train(tmp_path / "run", [1]).close()
    with pytest.raises(ValueError, match=message):
        lt.LabelTracker(**{"label": "y", "metric": "ce", **options}, record_to=tmp_path / "run")
    train(tmp_path / "run", [2], bounds="range").close()  # and the failed one holds no lock
    assert lt.open_run(tmp_path / "run").bounds == ("range",)


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"not empty, and there is no recorded run in it.*folder of its own"):
        lt.LabelTracker("y", "ce", record_to=tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        lt.LabelTracker("y", "ce", record_to=tmp_path / "file")


def test_a_second_writer_by_mistake_is_detected(tmp_path):
    tracker = train(tmp_path / "run", [1])
    with pytest.raises(RuntimeError, match=r"another process is recording to .*run as number 0"):
        lt.LabelTracker("y", "ce", record_to=tmp_path / "run")
    with pytest.raises(RuntimeError, match="RANK and WORLD_SIZE"):
        lt.LabelTracker("y", "ce", record_to=lt.Recording(tmp_path / "run", rank=1, world_size=2))
    code = "import sys, labeltrack as lt; lt.LabelTracker('y', 'ce', record_to=sys.argv[1])"
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "run"], capture_output=True, text=True, check=False)
    assert "another process is recording" in done.stderr
    train(None, [2], tracker=tracker).close()
    assert same(lt.open_run(tmp_path / "run").recompute(progress=False), tracker.history)
