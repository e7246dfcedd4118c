"""Recomputing on a cluster: the same bits as locally, also when a worker dies, and through fsspec."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from test_recorder import same

import labeltrack as lt
from labeltrack.recording import recompute
from labeltrack.recording import writer as writer_module
from labeltrack.recording.part import examine
from labeltrack.recording.storage import FileContent

distributed = pytest.importorskip("distributed", reason="distributed is not installed (extra 'dask')")

PARTS = 40
ROUNDS = 256 if os.environ.get("NUMBA_DISABLE_JIT") != "1" else 32  # of 4096 rows


@pytest.fixture(scope="module", name="run")
def _run(tmp_path_factory):
    """A run of a million rows in many parts."""
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("dask") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer_module, "LARGEST_PART", ROUNDS * 4096 * 8 // PARTS)
        recording = lt.RecordingOptions(folder, flush_rows=4096, fsync="never")
        with lt.LabelTracker("y", "ce", bounds=["std", "range"], record_to=recording) as tracker:
            for i in range(ROUNDS):
                values = rng.normal(size=4096) * 10.0 ** rng.integers(-20, 20)
                tracker.update(rng.integers(-50, 50, 4096).astype(np.int32), values.astype(np.float32))
                tracker.update(rng.choice(["ä", "b", "c"], 16), values[:16], mode="eval", ds_id="a")
                tracker.update(rng.choice(["b", "d"], 16), values[:16], mode="eval", ds_id="b")
                if i % (ROUNDS // 4) == ROUNDS // 4 - 1:
                    tracker.end_epoch(i)
                    tracker.end_epoch(i, mode="eval")
            tracker.update(np.array([True, False]), [1.0, 2.0], mode="test")
            tracker.update(np.array([7, 3], np.uint8), [1.0, 2.0], mode="test")
            tracker.update(np.array([7, 2**63 + 9], np.uint64), [1.0, 2.0], mode="test")
            tracker.end_epoch(1, mode="test")
    assert len(list(folder.glob("mode=train/**/*.arrow"))) >= 16
    return folder, tracker.history


@pytest.fixture(scope="module", name="client")
def _client():
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


@pytest.mark.usefixtures("client")
def test_the_result_is_the_same_bit_for_bit(run):
    path, live = run
    history = lt.open_run(path).recompute(engine="dask", progress=False)
    assert same(history, live)
    assert same(lt.open_run(path).recompute(progress=False), history)
    mapping = {"seven": 7, "B": "b"}
    options = {"label_mapping": mapping, "bounds": None, "nan_policy": "omit", "progress": False}
    assert same(lt.open_run(path).recompute(engine="dask", **options), lt.open_run(path).recompute(**options))
    options = {"group": {7: "odd", 3: "odd", 2: "even"}, "rest": "others", "modes": "train", "progress": False}
    assert same(lt.open_run(path).recompute(engine="dask", **options), lt.open_run(path).recompute(**options))


def test_a_worker_that_is_killed_does_not_change_the_result(run, client, monkeypatch):
    path, live = run
    victims = list(client.run(os.getpid).values())[:1]
    killed = []

    def advance(n):  # noqa: ARG001 (the first part is done)
        if victims:
            killed.append(victims.pop())
            os.kill(killed[0], signal.SIGKILL)

    monkeypatch.setattr(recompute, "progress_bar", lambda *_, **__: contextlib.nullcontext(advance))
    history = lt.open_run(path).recompute(engine="dask", progress=False)
    assert killed
    assert killed[0] not in client.run(os.getpid).values()
    assert same(history, live)


@pytest.mark.usefixtures("client")
def test_damage_is_reported_as_by_the_local_engine(run, tmp_path):
    shutil.copytree(run[0], tmp_path / "run")
    path = sorted((tmp_path / "run").glob("mode=train/**/*.arrow"))[5]
    content = bytearray(path.read_bytes())
    bad = examine(FileContent(path)).batches[0]
    content[bad.columns[1] + 5] ^= 8
    path.write_bytes(content)
    opened = lt.open_run(tmp_path / "run")
    with pytest.warns(lt.LabelTrackWarning, match=f"{bad.rows:,} rows are left out") as here:
        local = opened.recompute(progress=False)
    with pytest.warns(lt.LabelTrackWarning, match=f"{bad.rows:,} rows are left out") as there:
        assert same(opened.recompute(engine="dask", progress=False), local)
    assert str(here[0].message) == str(there[0].message)


def test_without_a_client_there_is_a_local_cluster(tmp_path):
    """In a process of its own, as the other tests have a client."""
    with lt.LabelTracker("y", "ce", record_to=tmp_path / "run") as tracker:
        tracker.update(["a", "b"], [1.0, 2.0])
        tracker.end_epoch(1)
    code = (
        "import os, sys, labeltrack as lt\n"
        "if __name__ == '__main__':\n"
        "    os.chdir(os.path.dirname(sys.argv[1]))\n"
        "    history = lt.open_run('run').recompute(engine='dask', progress=False)\n"
        "    print(history.at(1).mean.tolist(), history.at(1).labels.tolist())\n"
    )
    script = tmp_path / "script.py"
    script.write_text(code)
    done = subprocess.run([sys.executable, script, tmp_path / "run"], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[0] == "[1.0, 2.0] ['a', 'b']"


@pytest.mark.parametrize("protocol", ["memory", "file"])
def test_a_run_is_read_through_fsspec(run, tmp_path, protocol):
    import fsspec

    url = f"{protocol}://{tmp_path}/copy"
    fs = fsspec.filesystem(protocol)
    fs.put(str(run[0]), f"{tmp_path}/copy", recursive=True)
    opened = lt.open_run(url)
    assert opened.path == url
    assert same(opened.recompute(progress=False), run[1])
    assert opened.verify(progress=False).ok
    assert opened.info()["bytes"] == lt.open_run(run[0]).info()["bytes"]
    assert opened.samples("eval", ROUNDS - 1, "a")["label"].to_pylist() == (
        lt.open_run(run[0]).samples("eval", ROUNDS - 1, "a")["label"].to_pylist()
    )
    with pytest.raises(ValueError, match="only a run in a local folder can be repaired"):
        opened.repair()
    with (
        distributed.LocalCluster(n_workers=1, processes=False, dashboard_address=":0") as cluster,
        distributed.Client(cluster),
    ):
        assert same(opened.recompute(engine="dask", progress=False), run[1])


def test_workers_that_join_later_get_work_too(tmp_path, monkeypatch):
    class Cluster:
        def __init__(self):
            self.waiting = self.most = 0
            self.workers = {"first": 1}

        def nthreads(self):
            now, self.workers = self.workers, {"first": 1, "second": 60}
            return now

        def submit(self, do, *args, pure):  # noqa: ARG002
            self.waiting += 1
            self.most = max(self.most, self.waiting)
            return Future(self, do(*args))

        def cancel(self, futures):
            pass

    class Future:
        def __init__(self, cluster, found):
            self._cluster, self._found = cluster, found

        def add_done_callback(self, call):
            call(self)

        def result(self):
            self._cluster.waiting -= 1
            return self._found

    with lt.LabelTracker("y", "ce", record_to=lt.RecordingOptions(tmp_path / "run", fsync="never")) as tracker:
        for step in range(100):
            tracker.update([1, 2], [float(step), 2.0])
            tracker.end_epoch(step)
    cluster = Cluster()
    monkeypatch.setattr(distributed, "default_client", lambda: cluster)
    assert same(lt.open_run(tmp_path / "run").recompute(engine="dask", progress=False), tracker.history)
    assert cluster.most > 60
    assert cluster.waiting == 0


def test_workers_that_have_read_a_run_read_what_came_since_and_one_recorded_anew(tmp_path):
    def compare():
        run = lt.open_run(tmp_path / "run")
        history = run.recompute(engine="dask", progress=False)
        assert same(history, run.recompute(progress=False))
        found, local = (run.dynamics(engine=engine, progress=False) for engine in ("dask", "local"))
        assert (found.ids.tolist(), found.labels.tolist()) == (local.ids.tolist(), local.labels.tolist())
        return dict(zip(history.at(1).labels.tolist(), history.at(1).mean.tolist(), strict=True))

    with (
        distributed.LocalCluster(n_workers=1, processes=False, dashboard_address=":0") as cluster,
        distributed.Client(cluster),
    ):
        for words in (["cat", "dog"], ["dog", "cat"]):
            shutil.rmtree(tmp_path / "run", ignore_errors=True)
            with lt.LabelTracker("y", "ce", record_to=tmp_path / "run") as tracker:
                for step, more in ((1, words), (2, [*words, "cow"])):
                    tracker.update(more, [1.0, 2.0, 3.0][: len(more)], ids=[f"{one} {step}" for one in more])
                    tracker.end_epoch(step)
                    tracker.flush()
                    assert compare() == dict(zip(words, (1.0, 2.0), strict=True))


def test_a_missing_run_and_an_unknown_protocol_are_explained(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no recorded run in memory://.*nothing: it has no run\.json"):
        lt.open_run(f"memory://{tmp_path}/nothing")
    with pytest.raises(ValueError, match="Protocol not known: nonsense"):
        lt.open_run("nonsense://bucket/run")


def test_a_local_cluster_gives_the_same_bits_as_one_that_is_there(run, monkeypatch):
    def none():
        raise ValueError

    cluster = functools.partial(distributed.LocalCluster, n_workers=1, processes=False)
    monkeypatch.setattr(distributed, "default_client", none)
    monkeypatch.setattr(distributed, "LocalCluster", cluster)
    assert same(lt.open_run(run[0]).recompute(engine="dask", progress=False), run[1])


def test_a_missing_dependency_is_named(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(
        ImportError, match=r'cannot import distributed, required for engine="dask": pip install "labeltrack\[dask\]"'
    ):
        lt.open_run(run[0]).recompute(engine="dask")
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(
        ImportError, match=r'cannot import fsspec.core, required for .*: pip install "labeltrack\[dask\]"'
    ):
        lt.open_run("memory://x")
