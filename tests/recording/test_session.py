"""Joining a run: what may be continued, locks, and that no process joins twice."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import threading
import time
import warnings
from contextlib import nullcontext

import numpy as np
import pytest
from test_recorder import QUICK, die, same, train

import labeltrack as lt
from labeltrack.recording.session import Lock, is_held, locked

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
    with pytest.raises(lt.errors.RunInUseError, match=r"another process is recording to .*run as number 0"):
        lt.LabelTracker("y", "ce", record_to=tmp_path / "run")
    with pytest.raises(RuntimeError, match="RANK and WORLD_SIZE"):
        lt.LabelTracker("y", "ce", record_to=lt.RecordingOptions(tmp_path / "run", rank=1, world_size=2))
    code = "import sys, labeltrack as lt; lt.LabelTracker('y', 'ce', record_to=sys.argv[1])"
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "run"], capture_output=True, text=True, check=False)
    assert "another process is recording" in done.stderr
    train(None, [2], tracker=tracker).close()
    assert same(lt.open_run(tmp_path / "run").recompute(progress=False), tracker.history)


# -- several processes of one launch ----------------------------------------------------------------------

RANK = """
import errno, fcntl, os, signal, sys, time, warnings
import numpy as np
if sys.argv[2]:
    def flock(*_):
        raise OSError(getattr(errno, sys.argv[2]), "no locks here")
    fcntl.flock = flock
import labeltrack as lt
rank = int(os.environ["RANK"])
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    tracker = lt.LabelTracker("y", "ce", record_to=sys.argv[1])
print("ready", "no locks" in str([str(one.message) for one in told]), flush=True)
sys.stdin.readline()
for step in (1, 2):
    tracker.update(np.zeros(100, np.int32), np.full(100, rank + float(sys.argv[3])))
    tracker.end_epoch(step)
    tracker.flush()
    if step == 1 and sys.argv[4] == "crash":
        os.kill(os.getpid(), signal.SIGKILL)
tracker.close()
"""
LAUNCHERS = ("TORCHELASTIC_RUN_ID", "MASTER_ADDR", "MASTER_PORT", "SLURM_JOB_ID", "SLURM_STEP_ID")


def start(run, rank, size, *, locks="", add=0, crash=False, **more):
    """Start a process of a launch; it records when it gets a line."""
    env = {name: text for name, text in os.environ.items() if name not in LAUNCHERS}
    return subprocess.Popen(
        [sys.executable, "-c", RANK, str(run), locks, str(add), "crash" if crash else ""],
        env=env | {"RANK": str(rank), "WORLD_SIZE": str(size)} | more,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def go_on(process):
    """Have a process record to its end, and return what it said when it began."""
    said = process.communicate("\n", timeout=300)[0]
    return said.split()


def sums(run):
    """Return the count and mean of each epoch that is read back, and see that there is nothing to be said of it."""
    opened = lt.open_run(run)
    assert opened.verify(progress=False).ok
    return {
        step: (row.count, row.mean) for (_, _, step), stats in opened.recompute(progress=False).items() for row in stats
    }


def test_processes_of_a_launch_that_follow_each_other_record_together(tmp_path):
    for add, order in ((0, (0, 1, 2)), (5, (2, 0, 1))):
        for rank in order:
            assert go_on(start(tmp_path / "run", rank, 3, add=add)) == ["ready", "False"]
        assert sums(tmp_path / "run") == {1: (300, 1.0 + add), 2: (300, 1.0 + add)}
    assert lt.open_run(tmp_path / "run").info()["sessions"] == 2


@pytest.mark.parametrize("locks", ["", "ENOSYS"])
def test_processes_of_a_launch_that_begin_at_once_record_together(tmp_path, locks):
    for add in (0, 5):
        processes = [start(tmp_path / "run", rank, 3, locks=locks, add=add) for rank in range(3)]
        assert [go_on(process)[1] for process in processes] == [str(locks != "")] * 3
        assert sums(tmp_path / "run") == {1: (300, 1.0 + add), 2: (300, 1.0 + add)}


def test_a_launch_that_crashed_is_not_joined_by_the_next_one(tmp_path):
    for rank in (0, 1):  # the third one never got so far
        go_on(start(tmp_path / "run", rank, 3, crash=True))
    for rank in (2, 1, 0):
        go_on(start(tmp_path / "run", rank, 3, add=5))
    assert sums(tmp_path / "run") == {1: (300, 6.0), 2: (300, 6.0)}


def rank_of(run, rank, size, **options):
    return lt.LabelTracker("y", "ce", record_to=lt.RecordingOptions(run, rank=rank, world_size=size, **options))


def record(tracker, value, steps=(1,)):
    for step in steps:
        tracker.update([0] * 100, [value] * 100)
        tracker.end_epoch(step)
    tracker.close()


def test_a_launch_that_lacks_processes_is_incomplete_and_says_so(tmp_path):
    for rank in (0, 2):
        record(rank_of(tmp_path / "run", rank, 4), float(rank))
    run = lt.open_run(tmp_path / "run")
    assert not run.epochs[0].complete
    said = r"session 1 has 4 processes, and there is no journal of process 1, 3 \(.*rank=0, world_size=1\)"
    with pytest.warns(lt.LabelTrackWarning, match=said):
        assert len(run.recompute(progress=False)) == 0
    verification = run.verify(progress=False)
    assert not verification.ok
    assert "no journal of process 1, 3" in str(verification)
    assert run.recompute(progress=False, incomplete=True).at(1)[0].count == 200


def test_an_older_launch_that_counts_as_a_newer_one_lacks_processes_is_told(tmp_path):
    for rank in (0, 1):
        record(rank_of(tmp_path / "run", rank, 2), 1.0)
    record(rank_of(tmp_path / "run", 1, 2), 2.0)
    run = lt.open_run(tmp_path / "run")
    said = r"step 1 is taken from session 1, because not all processes of session 2.*no journal of process 0 \("
    for read in (run.recompute, run.samples, lambda: run.export(tmp_path / "samples.csv")):
        with pytest.warns(lt.LabelTrackWarning, match=said):
            read()
    verification = run.verify(progress=False)
    assert not verification.ok
    assert "not all processes of session 2" in str(verification)
    record(rank_of(tmp_path / "run", 0, 2), 2.0)
    assert sums(tmp_path / "run") == {1: (200, 2.0)}


def test_one_process_of_many_may_record_alone_if_it_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "4")
    record(rank_of(tmp_path / "run", 0, 1), 3.0)
    assert sums(tmp_path / "run") == {1: (100, 3.0)}


def test_a_run_goes_on_with_fewer_and_with_more_processes(tmp_path):
    for step, size in enumerate((3, 2, 4, 1, 3), 1):
        for rank in range(size):
            record(rank_of(tmp_path / "run", rank, size), float(rank), (step,))
    assert sums(tmp_path / "run") == {
        step: (100 * size, (size - 1) / 2) for step, size in enumerate((3, 2, 4, 1, 3), 1)
    }


def test_launches_of_different_names_do_not_mix(tmp_path):
    first = rank_of(tmp_path / "run", 0, 2, launch="a")
    with pytest.raises(lt.errors.RunInUseError, match=r"another process is recording.*the same launch"):
        rank_of(tmp_path / "run", 1, 2, launch="b")
    record(first, 1.0)
    record(rank_of(tmp_path / "run", 1, 2, launch="b"), 2.0)
    run = lt.open_run(tmp_path / "run")
    assert [(epoch.complete, epoch.rows, epoch.other_attempts) for epoch in run.epochs] == [(False, 100, 1)]
    record(rank_of(tmp_path / "run", 0, 2, launch="b"), 4.0)
    assert sums(tmp_path / "run") == {1: (200, 3.0)}


@pytest.mark.parametrize("locks", [True, False])
@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("seed", range(5 if QUICK else 25))
def test_whatever_the_order_the_newest_whole_launch_is_read_and_nothing_beside_it(
    tmp_path, monkeypatch, locks, named, seed
):
    if not locks:
        monkeypatch.setattr(fcntl, "flock", no_locks)
        warnings.simplefilter("ignore", lt.LabelTrackWarning)
    rng = np.random.default_rng(seed)
    expected, partly = None, False
    for launch in range(rng.integers(1, 6)):
        size = int(rng.integers(1, 5))
        coming = rng.permutation(size).tolist()
        begun, ended, crashes = [], 0, rng.random() < 0.4
        while coming or begun:
            if coming and (not begun or rng.random() < 0.5):
                rank = coming.pop()
                name = str(launch) if named else None
                begun.append((rank, rank_of(tmp_path / "run", rank, size, launch=name)))
                continue
            rank, tracker = begun.pop(rng.integers(len(begun)))
            tracker.update([launch] * 10, [float(rank)] * 10)
            # Of launches without a name, one of which some processes never began is not told from the next.
            if crashes and (named or not coming) and rng.random() < 0.5:
                die(tracker)
                coming = coming[: rng.integers(len(coming) + 1)]
            else:
                tracker.end_epoch(1)
                tracker.close()
                ended += 1
        if ended == size:
            expected, partly = (launch, size), False
        partly = partly or 0 < ended < size
    run = lt.open_run(tmp_path / "run")
    (epoch,) = run.epochs
    assert epoch.complete == (expected is not None)
    if expected:
        launch, size = expected
        told = pytest.warns(lt.LabelTrackWarning, match="because not all processes of session")
        with told if partly else nullcontext():
            table = run.samples(columns=["label", "value"])
        assert not (partly and run.verify(progress=False).ok)
        assert table["label"].to_pylist() == [launch] * 10 * size
        assert sorted(table["value"].to_pylist()) == [rank for rank in range(size) for _ in range(10)]


def no_locks(*_):
    raise OSError(errno.ENOLCK, "No locks available")


def test_missing_locks_are_told_at_once_where_there_are_several_processes(tmp_path, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", no_locks)
    with pytest.warns(lt.LabelTrackWarning, match="has no locks.*launch=") as caught:
        tracker = rank_of(tmp_path / "run", 1, 2)
    assert caught[0].filename == __file__
    tracker.close()
    rank_of(tmp_path / "alone", 0, 1).close()


# -- locks ------------------------------------------------------------------------------------------------


HOLDER = (
    "import sys, time; from pathlib import Path; from labeltrack.recording.session import Lock; "
    "print(Lock(Path(sys.argv[1])).acquire(wait=False), flush=True); time.sleep(60)"
)


def test_a_lock_of_another_process_is_seen_until_it_is_killed(tmp_path):
    path = tmp_path / "lock"
    assert not is_held(path)
    assert not path.exists()
    code = HOLDER.replace("print(Lock(Path(sys.argv[1]))", "lock = Lock(Path(sys.argv[1])); print(lock")
    with subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "True\n"
        assert is_held(path)
        assert not Lock(path).acquire(wait=False)
        holder.kill()
    assert not is_held(path)
    with locked(path):
        assert is_held(path)
    assert not is_held(path)


def test_waiting_for_a_lock(tmp_path):
    first, order = Lock(tmp_path / "lock"), []
    first.acquire(wait=True)

    def second():
        with locked(tmp_path / "lock"):
            order.append("second")

    thread = threading.Thread(target=second)
    thread.start()
    time.sleep(0.1)
    order.append("first")
    first.release()
    first.release()
    thread.join()
    assert order == ["first", "second"]


def test_a_file_system_without_locks_lets_everybody_in(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(number, "of the file system")

    monkeypatch.setattr(fcntl, "flock", refuse)
    number = errno.ENOLCK
    lock = Lock(tmp_path / "lock")
    assert lock.acquire(wait=False)
    assert not is_held(tmp_path / "lock")
    lock.release()
    number = errno.EIO
    with pytest.raises(OSError, match="of the file system"):
        lock.acquire(wait=False)
    with pytest.raises(OSError, match="No such file"):
        Lock(tmp_path / "no" / "lock").acquire(wait=True)
