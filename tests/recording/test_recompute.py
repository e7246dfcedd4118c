"""Recomputing a run: bit for bit the live history; other bounds, mappings, groups and policies; little memory."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import weakref

import numpy as np
import pytest
from test_recorder import batch, same
from test_run import _run, recorded  # noqa: F401 (a fixture)

import labeltrack as lt
from labeltrack.recording import recompute
from labeltrack.recording import writer as writer_module
from labeltrack.recording.storage import LocalFolder, RemoteFolder

pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed (extra 'record')")


def test_another_mapping_other_bounds_and_modes(run):
    path, tracker = run
    opened = lt.open_run(path)
    assert same(opened.recompute(progress=False), tracker.history)
    history = opened.recompute(bounds=["range", None], label_mapping={"three": 3, "CAT": "cat"}, progress=False)
    assert history.bounds == ("range", None)
    assert history.at(1, "train").names.tolist() == ["three"]
    assert history.at(1, "train")[3].std == tracker.history.at(1, "train")[3].std
    assert history.at(2, "eval")["CAT"].mean == 2.5
    assert opened.recompute(modes="!train", progress=False).modes == ["eval"]
    with pytest.warns(lt.LabelTrackWarning, match="no sample has a label of label_mapping: it maps 77"):
        opened.recompute(label_mapping={"x": 77}, progress=False)


@pytest.mark.parametrize("threads", [1, 2])
def test_quantiles_are_those_of_the_live_run(threads, tmp_path):
    bounds = ["std", "iqr", ("quantile", 0.05, 0.95)]
    tracker = recorded(tmp_path / "run", bounds=bounds)
    opened = lt.open_run(tmp_path / "run")
    assert list(opened.bounds) == bounds
    history = opened.recompute(threads=threads, progress=False)
    assert same(history, tracker.history)
    for mode in ("train", "eval"):
        for bound in bounds:
            for found, wanted in zip(
                history.at(2, mode).bounds(bound), tracker.history.at(2, mode).bounds(bound), strict=True
            ):
                assert found.tobytes() == wanted.tobytes()
    assert opened.recompute(bounds="std", progress=False).at(1).quantiles == ()


def test_quantiles_of_groups_and_mappings(run):
    path, _ = run
    opened = lt.open_run(path)
    labels = np.concatenate([batch(400, seed=10 + i)[0] for i in range(4)])
    values = np.concatenate([batch(400, seed=10 + i)[1] for i in range(4)]).astype(np.float64)
    history = opened.recompute(
        modes="train", bounds="median", group=lambda label: label % 2 if label < 8 else None, progress=False
    )
    found = history.at(1, "train").median
    assert found.tolist() == [np.median(values[(labels % 2 == k) & (labels < 8)]) for k in (0, 1)]
    mapping = {"four": 4, "no": 77}
    with pytest.warns(lt.LabelTrackWarning, match="labels that never occurred: 77, called 'no'"):
        mapped = opened.recompute(modes="train", bounds="median", label_mapping=mapping, progress=False)
    assert mapped.at(1).median.tolist() == [np.median(values[labels == 4])]
    words = opened.recompute(
        modes="eval", bounds="median", group={"cat": "pet", "dog": "pet", "eel": "fish"}, progress=False
    )
    assert words.at(1, "eval").median.tolist() == [5.0, np.median([1.0, 2.0, 3.0, 4.0])]
    assert words.at(1, "eval", "b").median.tolist() == [5.0, 4.0]


def test_quantiles_of_groups_leave_out_samples_of_another_type(tmp_path):
    for rank, labels in enumerate(([1, 2, 1], [0.5, 0.5, 0.25])):
        recording = lt.RecordingOptions(tmp_path / "run", rank=rank, world_size=2, launch="one")
        with lt.LabelTracker("y", "ce", record_to=recording) as tracker:
            tracker.update(labels, [1.0, 2.0, 4.0])
            tracker.end_epoch(1)
    group = {1: "a", 2: None, 0.5: None, 0.25: None}
    history = lt.open_run(tmp_path / "run").recompute("median", group=group, progress=False)
    assert [(row.label, row.count) for row in history.at(1, "train")] == [("a", 2)]
    assert history.at(1, "train").median.tolist() == [2.5]


def test_quantiles_of_a_cluster_are_refused(run):
    with pytest.raises(ValueError, match="quantiles cannot be merged; use engine='local', or other bounds"):
        lt.open_run(run[0]).recompute(engine="dask", bounds="iqr")


def test_the_mapping_of_the_tracker_is_the_default_though_all_rows_were_recorded(tmp_path):
    tracker = recorded(tmp_path / "run", label_mapping={"three": 3, "cat": "cat"})
    opened = lt.open_run(tmp_path / "run")
    assert opened.label_mapping == {"three": 3, "cat": "cat"}
    assert same(opened.recompute(progress=False), tracker.history)
    everything = opened.recompute(label_mapping=None, progress=False)
    assert everything.at(1, "train").labels.tolist() == list(range(10))
    assert everything.at(1, "train")[3].sum == tracker.history.at(1, "train")["three"].sum


def test_a_group_is_called_once_per_label_and_epoch(run):
    path, tracker = run
    opened = lt.open_run(path)
    calls = []

    def parity(label):
        calls.append(label)
        return "even" if label % 2 == 0 else "odd"

    history = opened.recompute(modes="train", group=parity, progress=False)
    assert len(calls) == 20  # asked for each label of each epoch, not for samples
    labels = np.concatenate([batch(400, seed=10 + i)[0] for i in range(4)])
    values = np.concatenate([batch(400, seed=10 + i)[1] for i in range(4)])
    direct = lt.label_stats(np.where(labels % 2 == 0, "even", "odd"), values)
    for name in ("count", "sum", "mean", "std", "min", "max"):
        assert history.at(1).column(name).tobytes() == direct.column(name).tobytes()
    few = {3: 0, 4: 0, 5: 1}
    with pytest.warns(lt.LabelTrackWarning, match=r"group has no key for 7 of 10 labels"):
        coarse = opened.recompute(modes="train", group=few, label_mapping={"low": 0}, progress=False)
    assert coarse.at(1, "train").names.tolist() == ["low"]
    fine = tracker.history.at(1, "train")
    assert coarse.at(1, "train")["low"].count == fine[3].count + fine[4].count
    with pytest.warns(lt.LabelTrackWarning, match="group returned None for all 13 labels"):
        assert opened.recompute(group=lambda _: None, progress=False).modes == []
    with pytest.raises(TypeError, match="only numbers or only strings, got float, str"):
        opened.recompute(modes="train", group=lambda label: "a" if label else 1, progress=False)
    with pytest.raises(TypeError, match="only numbers or only strings, got list"):
        opened.recompute(modes="train", group=lambda label: [label], progress=False)
    with pytest.raises(TypeError, match="a mapping from labels to new labels, or a function, got int"):
        opened.recompute(group=3)


def test_nan_policies(tmp_path):
    with lt.LabelTracker("y", "ce", record_to=tmp_path / "run") as tracker:
        tracker.update([1, 1, 2], [1.0, np.nan, 3.0])
        tracker.end_epoch(1)
    opened = lt.open_run(tmp_path / "run")
    assert same(opened.recompute(progress=False), tracker.history)
    assert opened.recompute(nan_policy="omit", progress=False).at(1)[1].mean == 1.0
    with pytest.raises(ValueError, match=r"mode 'train', step 1: 1 NaN samples.*1 \(1\)"):
        opened.recompute(nan_policy="raise", progress=False)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"engine": "spark"}, ValueError, "'local', 'dask'"),
        ({"bounds": "iqr2"}, ValueError, "unknown option 'iqr2'"),
        ({"threads": 0}, ValueError, "threads must be a positive integer"),
        ({"modes": "trian"}, KeyError, "no recorded mode 'trian'"),
        ({"nan_policy": "x"}, ValueError, "'propagate', 'omit', 'raise'"),
        ({"label_mapping": {}}, ValueError, "empty"),
    ],
)
def test_a_wrong_option_is_explained(run, arguments, error, message):
    with pytest.raises(error, match=message):
        lt.open_run(run[0]).recompute(**arguments)


MEMORY = """
import sys, threading, time
import numpy as np
import labeltrack as lt

def anonymous():
    return int(next(line for line in open("/proc/self/status") if line.startswith("RssAnon")).split()[1])

rng = np.random.default_rng(0)
with lt.LabelTracker("y", "ce", record_to=lt.RecordingOptions(sys.argv[1], fsync="never")) as tracker:
    labels, values = rng.integers(0, 10_000, 2**20).astype(np.int32), rng.random(2**20, dtype=np.float32)
    for _ in range(40):
        tracker.update(labels, values)
    tracker.end_epoch(1)
del tracker, labels, values
run = lt.open_run(sys.argv[1])
before, peak, done = anonymous(), [0], threading.Event()

def watch():
    while not done.wait(0.002):
        peak[0] = max(peak[0], anonymous())

thread = threading.Thread(target=watch)
thread.start()
history = run.recompute(progress=False)
done.set()
thread.join()
print(peak[0] - before, int(history.at(1).count.sum()))
"""


def test_memory_does_not_grow_with_the_run(tmp_path):
    """A recomputation takes the memory of its labels and one batch per thread."""
    compiled = {name: value for name, value in os.environ.items() if name != "NUMBA_DISABLE_JIT"}
    command = [sys.executable, "-c", MEMORY, tmp_path / "run"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=compiled)
    kilobytes, rows = map(int, done.stdout.split())
    assert rows == 40 * 2**20
    assert kilobytes < 100_000  # the file has 335 MB


@pytest.mark.parametrize("protocol", ["", "memory://"])
def test_a_file_is_released_once_it_was_read(protocol, tmp_path, monkeypatch):
    monkeypatch.setattr(writer_module, "LARGEST_PART", 100_000)
    recording = lt.RecordingOptions(tmp_path / "run", flush_rows=4096, fsync="never")
    with lt.LabelTracker("y", "ce", record_to=recording) as tracker:
        for seed in range(20):
            tracker.update(*batch(4096, 5, seed=seed))
            tracker.flush()
        tracker.end_epoch(1)
    path, folder = str(tmp_path / "run"), LocalFolder
    if protocol:
        fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed (extra 'dask')")
        path, folder = f"memory://{tmp_path}/run", RemoteFolder
        fsspec.filesystem("memory").put(str(tmp_path / "run"), f"{tmp_path}/run", recursive=True)
    contents = []
    original = folder.content

    def recorded_content(self, name):
        data = original(self, name)
        contents.append(weakref.ref(data))
        return data

    alive = []
    run = lt.open_run(path)
    monkeypatch.setattr(folder, "content", recorded_content)
    looked = contextlib.nullcontext(lambda _: alive.append([one() is not None for one in contents]))
    monkeypatch.setattr(recompute, "progress_bar", lambda *_, **__: looked)
    history = run.recompute(threads=1, progress=False)
    assert same(history, tracker.history)
    files = sorted((tmp_path / "run").glob("mode=train/**/*.arrow"))
    assert 4 < len(files) <= len(contents)
    assert all(sum(before) <= 2 for before in alive)  # they are read in their turn
    assert alive[-1] == [False] * (len(contents) - 1) + [True]
    assert not any(one() is not None for one in contents)


def test_a_remote_file_that_vanishes_is_damage(tmp_path, monkeypatch):
    fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed (extra 'dask')")
    recording = lt.RecordingOptions(tmp_path / "run", fsync="never")
    with lt.LabelTracker("y", "ce", record_to=recording) as tracker:
        tracker.update(*batch(40_000, 5, seed=1))
        tracker.end_epoch(1)
    fsspec.filesystem("memory").put(str(tmp_path / "run"), f"{tmp_path}/gone", recursive=True)
    run = lt.open_run(f"memory://{tmp_path}/gone")

    def vanished(_, name):
        raise FileNotFoundError(name)

    monkeypatch.setattr(RemoteFolder, "content", vanished)
    with pytest.warns(lt.LabelTrackWarning, match="it cannot be read: mode=train") as caught:
        history = run.recompute(progress=False)
    assert len(caught) == 1
    assert not history
