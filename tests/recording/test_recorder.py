"""Recording while training goes on: the same bits, resuming, memory, several processes."""

from __future__ import annotations

import gc
import os
import pickle
import subprocess
import sys
import threading
import warnings

import numpy as np
import pytest

import labeltrack as lt
from labeltrack.recording import writer as writer_module
from labeltrack.recording.recorder import HandedOnBuffer

pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed (extra 'record')")

QUICK = os.environ.get("LABELTRACK_QUICK") == "1"  # fewer rounds of what is random, where all of it runs elsewhere


def batch(n=256, labels=10, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, labels, n).astype(np.int32), rng.normal(size=n).astype(np.float32)


NO_SPACE = OSError(28, "No space left on device")


def fail(patch, owner, method, when=lambda *_arguments, **_options: True, *, error=NO_SPACE, times=10**9):
    """Have a method raise, so many times, when it is called with some arguments."""
    real, left = getattr(owner, method), iter(range(times))

    def failing(*arguments, **options):
        if when(*arguments, **options) and next(left, None) is not None:
            raise error
        return real(*arguments, **options)

    patch.setattr(owner, method, failing)


def same(one, other):
    """Return whether two histories are equal, bit for bit, in the same order."""
    first, second = list(one.items()), list(other.items())
    if [key for key, _ in first] != [key for key, _ in second]:
        return False
    for (_, a), (_, b) in zip(first, second, strict=True):
        x, y = a.columns(), b.columns()
        for name in x:
            if x[name].dtype != y[name].dtype and name not in ("label", "name"):
                return False
            if x[name].tobytes() != y[name].astype(x[name].dtype).tobytes():
                return False
        if a.nan_count.tolist() != b.nan_count.tolist():
            return False
    return True


def test_without_recording_nothing_is_loaded_and_flush_and_close_do_nothing():
    code = (
        "import sys, labeltrack as lt; t = lt.LabelTracker('y', 'ce'); t.update([0], [1.0]); t.flush(); t.close(); "
        "print('pyarrow' in sys.modules, 'xxhash' in sys.modules, len(t.end_epoch(1)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.split() == ["False", "False", "1"]


@pytest.mark.parametrize("module", ["pyarrow", "xxhash"])
def test_what_is_missing_is_said_when_the_tracker_is_made(tmp_path, monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf'cannot import {module}, .*: pip install "labeltrack\[record\]"'):
        lt.LabelTracker("y", "ce", record_to=tmp_path / "run")


# -- the same bits ----------------------------------------------------------------------------------------


def random_labels(rng, kind, n):
    if kind == "bool":
        return rng.integers(0, 2, n).astype(bool)
    if kind == "uint64":
        return rng.integers(0, 5, n).astype(np.uint64) + np.uint64(2**63)
    if kind == "float":
        return rng.integers(-3, 4, n) / np.float32(4) * rng.choice([-1.0, 1.0])
    if kind == "str":
        return rng.choice(["ä", "b", "", "long word", "x" * 40], n)
    if kind == "list":
        return rng.choice(["b", "q", "r"], n).tolist()
    if kind == "bytes":
        return rng.choice([b"\xff", b"b"], n)
    if kind == "sparse":
        return rng.choice([-(2**60), 5, 2**61], n)
    return rng.integers(0 if kind[0] == "u" else -20, 100, n).astype(kind)


KINDS = {
    "whole": ["bool", "uint8", "int8", "int16", "int32", "int64", "sparse"],
    "natural": ["uint8", "uint32", "uint64", "bool"],
    "float": ["float"],
    "str": ["str", "list"],
    "bytes": ["bytes"],
}


@pytest.mark.parametrize("seed", range(10 if QUICK else 30))
def test_the_history_comes_out_bit_for_bit(tmp_path, seed):
    rng = np.random.default_rng(seed)
    run = tmp_path / "run"
    family = list(KINDS)[seed % len(KINDS)]
    mapping = None
    if rng.random() < 0.3:
        some = random_labels(rng, KINDS[family][0], 2)
        mapping = {"one": some[0], **({"two": some[1]} if some[1] != some[0] else {})}
    tracker = lt.LabelTracker(
        *("y", "ce", mapping),
        bounds=["std", "range"],
        nan_policy=str(rng.choice(["propagate", "omit"])),
        max_buffer_bytes=int(rng.choice([30_000, 200_000, 2**28])),
        record_to=lt.RecordingOptions(run, flush_rows=int(rng.choice([1024, 3000])), fsync="never"),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", lt.LabelTrackWarning)  # nothing of the mapping may occur
        for step in range(1, 5):
            for _ in range(rng.integers(1, 12)):
                n = int(rng.integers(0, 3000))
                values = rng.normal(size=n) * 10.0 ** rng.integers(-30, 30)
                values[rng.random(n) < 0.001] = rng.choice([np.nan, np.inf, -np.inf])
                dtype = rng.choice(["f2", "f4", "f8", "i4", "?"])
                with np.errstate(over="ignore", invalid="ignore"):
                    values = values.astype(dtype)
                labels = random_labels(rng, str(rng.choice(KINDS[family])), n)
                tracker.update(
                    labels, values, mode=str(rng.choice(["train", "eval"])), ds_id=str(rng.choice(["", "a", "b/.."]))
                )
            if rng.random() < 0.2:
                tracker.reset()
            tracker.end_epoch(3 * step)
            if rng.random() < 0.7:
                tracker.end_epoch(step, mode="eval")
            if rng.random() < 0.2:
                tracker.update(
                    *batch(50) if family == "whole" else (random_labels(rng, KINDS[family][0], 50), np.ones(50))
                )
                tracker.end_epoch(3 * step, replace=True)
        tracker.close()
        history = lt.open_run(run).recompute(progress=False, threads=int(rng.integers(1, 4)))
    assert same(history, tracker.history)
    assert (history.bounds, history.metric, history.label) == (("std", "range"), "ce", "y")
    verification = lt.open_run(run).verify(progress=False)
    assert {part.state for part in verification.parts} == {"intact"}, verification
    assert all("did not end" in text for text in verification.other), verification


def test_a_batch_larger_than_all_the_memory_is_recorded_before_the_caller_has_it_back(tmp_path):
    tracker = lt.LabelTracker("y", "ce", max_buffer_bytes=5000, record_to=tmp_path / "run")
    labels, values = batch(50_000)
    tracker.update(labels, values)
    labels[:], values[:] = 99, 99  # memory that the caller uses again
    tracker.update(*batch(100, seed=1))
    tracker.end_epoch(1)
    tracker.close()
    assert same(lt.open_run(tmp_path / "run").recompute(progress=False), tracker.history)
    assert lt.open_run(tmp_path / "run").samples()["label"].to_numpy().max() < 10


def test_training_waits_only_when_all_the_memory_is_still_to_be_written(tmp_path, monkeypatch):
    gate = threading.Event()
    write = writer_module.PartWriter.write

    def slow(self, *args):
        gate.wait(60)
        return write(self, *args)

    monkeypatch.setattr(writer_module.PartWriter, "write", slow)
    recording = lt.RecordingOptions(tmp_path / "run", flush_rows=1024)
    tracker = lt.LabelTracker("y", "ce", max_buffer_bytes=8 * 16_384, record_to=recording)
    for i in range(64):  # exactly the memory there may be
        tracker.update(*batch(seed=i))
    waiting = threading.Thread(target=lambda: [tracker.update(*batch(seed=i)) for i in range(64, 100)])
    waiting.start()
    waiting.join(0.3)
    assert waiting.is_alive()
    gate.set()
    waiting.join(60)
    assert not waiting.is_alive()
    tracker.end_epoch(1)
    tracker.close()
    assert tracker.history.at(1).count.sum() == 25_600
    assert same(lt.open_run(tmp_path / "run").recompute(progress=False), tracker.history)


# -- going on ---------------------------------------------------------------------------------------------


def train(run, steps, *, seed=0, tracker=None, **options):
    tracker = tracker or lt.LabelTracker("y", "ce", record_to=run, **options)
    for step in steps:
        tracker.update(*batch(seed=seed + step))
        tracker.end_epoch(step)
    return tracker


def test_a_run_goes_on_and_what_is_done_again_replaces(tmp_path):
    run = tmp_path / "run"
    first = train(run, [1, 2, 3])
    first.update(*batch(seed=77))  # of an epoch that does not end
    first.close()
    second = lt.LabelTracker("y", "ce", record_to=run)
    second.load_state_dict(first.state_dict())
    second.reset()
    train(run, [4], tracker=second, seed=100)
    second.update(*batch(seed=500))
    second.end_epoch(2, replace=True)
    second.close()
    opened = lt.open_run(run)
    assert same(opened.recompute(progress=False), second.history)
    epochs = {epoch.step: epoch for epoch in opened.epochs}
    assert sorted(epochs) == [1, 2, 3, 4]
    assert all(epoch.complete for epoch in epochs.values())
    assert (epochs[2].other_attempts, epochs[4].other_attempts, opened.info()["sessions"]) == (1, 1, 2)
    np.testing.assert_array_equal(opened.samples(step=2)["value"].to_numpy(), batch(seed=500)[1])
    every = opened.samples(step=2, all_attempts=True, columns=["value", "session", "attempt"])
    assert every.num_rows == 512
    assert set(every["session"].to_pylist()) == {1, 2}
    assert opened.samples(step=4, all_attempts=True).num_rows == 256 * 2


@pytest.mark.parametrize("kind", [kind for family in KINDS.values() for kind in family])
@pytest.mark.parametrize("pending", [0, 10])
@pytest.mark.parametrize("copied", ["state", "pickle"])
def test_what_is_recorded_after_a_checkpoint_was_loaded_is_what_would_be_without(tmp_path, kind, pending, copied):
    rng = np.random.default_rng(len(kind))
    first = lt.LabelTracker("y", "ce", record_to=tmp_path / "run")
    first.update(random_labels(rng, kind, 50), rng.normal(size=50), ds_id="a")
    first.end_epoch(1)
    if pending:
        first.update(random_labels(rng, kind, pending), rng.normal(size=pending), ds_id="a")
    state = pickle.dumps(first) if copied == "pickle" else first.state_dict()
    first.close()
    if copied == "pickle":
        second = pickle.loads(state)
    else:
        second = lt.LabelTracker("y", "ce", record_to=tmp_path / "run")
        second.load_state_dict(state)
    for step in (2, 3):
        labels = random_labels(rng, kind, 50)
        second.update(labels, rng.normal(size=50), ds_id="a")
        second.end_epoch(step)
    second.close()
    run = lt.open_run(tmp_path / "run")
    assert run.verify(progress=False).ok
    assert same(run.recompute(progress=False), second.history)
    labels = labels.tolist() if isinstance(labels, np.ndarray) else labels
    assert run.samples(step=3)["label"].to_pylist() == labels
    # Programs that know nothing of runs see the same types before and after.
    types = {path: pa.ipc.open_file(path).schema.field("label").type for path in (tmp_path / "run").rglob("*.arrow")}
    assert len(set(types.values())) == 1, types


def test_samples_of_the_running_epoch_are_part_of_the_state_and_recorded_again(tmp_path):
    run = tmp_path / "run"
    first = lt.LabelTracker("y", "ce", record_to=run)
    first.update(["a", "b"], [1.0, 2.0])
    state = first.state_dict()
    first.update(["z"], [9.0])
    first.close()
    second = lt.LabelTracker("y", "ce", record_to=run)
    second.update(["q", "a"], [5.0, 5.0])  # is replaced by the state
    second.load_state_dict(state)
    second.update(["b", "c"], [3.0, 4.0])
    second.end_epoch(1)
    second.close()
    opened = lt.open_run(run)
    assert same(opened.recompute(progress=False), second.history)
    assert opened.samples()["label"].to_pylist() == ["a", "b", "b", "c"]


def test_folded_samples_of_a_state_are_missed_and_said_to_be(tmp_path):
    first = lt.LabelTracker("y", "ce", max_buffer_bytes=4000)
    for i in range(10):
        first.update(*batch(seed=i))
    second = lt.LabelTracker("y", "ce", record_to=tmp_path / "run")
    second.load_state_dict(first.state_dict())
    with pytest.warns(lt.LabelTrackWarning, match="samples are not recorded.*as statistics only"):
        second.end_epoch(1)
    second.close()
    (epoch,) = lt.open_run(tmp_path / "run").epochs
    assert not epoch.complete
    assert epoch.lost + epoch.rows == 2560
    assert epoch.lost > 0


def test_an_unfinished_epoch_is_written_when_the_tracker_goes(tmp_path):
    tracker = lt.LabelTracker("y", "ce", record_to=tmp_path / "run")
    tracker.update(*batch())
    del tracker
    gc.collect()
    opened = lt.open_run(tmp_path / "run")
    assert not opened.epochs[0].complete
    assert opened.samples(incomplete=True).num_rows == 256
    with pytest.warns(lt.LabelTrackWarning, match=r"did not end.*are left out: 'train 1'; incomplete=True"):
        assert len(opened.recompute(progress=False)) == 0
    assert opened.recompute(progress=False, incomplete=True).at(1).count.sum() == 256


def test_what_is_left_is_written_when_the_process_ends(tmp_path):
    code = (
        "import sys, numpy as np, labeltrack as lt\n"
        "tracker = lt.LabelTracker('y', 'ce', record_to=sys.argv[1])\n"
        "tracker.update(np.arange(500) % 7, np.ones(500)); tracker.end_epoch(1)\n"
        "tracker.update(np.arange(300) % 7, np.ones(300))\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code, tmp_path / "run"], check=True)
    opened = lt.open_run(tmp_path / "run")
    assert [(epoch.step, epoch.complete) for epoch in opened.epochs] == [(1, True), (2, False)]
    assert opened.samples(step=2, incomplete=True).num_rows == 300


def test_rows_that_are_first_written_while_the_process_ends_are_written(tmp_path):
    code = (
        "import sys, threading, time, numpy as np, labeltrack as lt\n"
        "from labeltrack.recording import writer\n"
        "class Late(writer.PartWriter):\n"
        "    def __init__(self, *args):\n"
        "        while threading.main_thread().is_alive(): time.sleep(0.01)\n"
        "        super().__init__(*args)\n"
        "        print(sorted({'pandas', 'concurrent.futures.thread'} & set(sys.modules) - before))\n"
        "writer.PartWriter = Late\n"
        "tracker = lt.LabelTracker('y', 'ce', record_to=sys.argv[1])\n"
        "tracker.update(np.arange(500) % 7, np.ones(500)); tracker.end_epoch(1)\n"
        "before = set(sys.modules)\n"  # what numba imports imports the latter, where there is a newer scipy
    )
    ran = subprocess.run([sys.executable, "-W", "error", "-c", code, tmp_path / "run"], check=True, capture_output=True)
    assert ran.stdout == b"[]\n"  # neither can be imported any more
    assert [(epoch.step, epoch.complete, epoch.rows) for epoch in lt.open_run(tmp_path / "run").epochs] == [
        (1, True, 500)
    ]


def test_a_mode_of_which_nothing_came_leaves_nothing_to_miss(tmp_path, monkeypatch):
    tracker = lt.LabelTracker("y", "ce", record_to=tmp_path / "run")
    tracker.update(*batch())
    tracker.end_epoch(1)
    fail(monkeypatch, HandedOnBuffer, "append", error=KeyboardInterrupt(), times=1)
    with pytest.raises(KeyboardInterrupt):
        tracker.update(*batch(), mode="eval")
    tracker.close()
    run = lt.open_run(tmp_path / "run")
    assert [(epoch.mode, epoch.complete) for epoch in run.epochs] == [("train", True)]
    assert run.verify(progress=False).ok


def test_after_close_statistics_go_on_and_a_warning_says_that_nothing_is_recorded(tmp_path):
    tracker = train(tmp_path / "run", [1])
    tracker.close()
    tracker.close()
    with pytest.warns(lt.LabelTrackWarning, match="after close"):
        train(None, [2], tracker=tracker)
    assert tracker.history.steps() == [1, 2]
    assert lt.open_run(tmp_path / "run").recompute(progress=False).steps() == [1]


class Cycle:
    """Something that only the garbage collector finds."""

    def __init__(self, tracker):
        self.tracker, self.itself = tracker, self


def test_a_tracker_may_be_found_by_the_garbage_collector_in_any_thread(tmp_path):
    gc.disable()
    try:
        cycle = Cycle(lt.LabelTracker("y", "ce", record_to=tmp_path / "run"))
        cycle.tracker.update(*batch())
        recorder = cycle.tracker._recorder
        del cycle
        recorder._submit(gc.collect)  # in the thread that writes
        recorder._thread.join(timeout=60)
        assert not recorder._thread.is_alive()
    finally:
        gc.enable()
    assert lt.open_run(tmp_path / "run").samples(incomplete=True).num_rows == 256


def test_flushing_after_close_is_no_mistake(tmp_path):
    tracker = train(tmp_path / "run", [1])
    tracker.close()
    tracker.flush()  # does not warn
    assert len(tracker.end_epoch(2)) == 0


def test_where_no_thread_can_be_started_rows_are_written_in_the_training_thread(tmp_path, monkeypatch):
    def start(_thread):
        msg = "can't start new thread"
        raise RuntimeError(msg)

    monkeypatch.setattr(threading.Thread, "start", start)
    with lt.LabelTracker("y", "ce", record_to=tmp_path / "run") as tracker:
        for step in (1, 2):
            tracker.update(["cat", "dog", "cat"], [1.0, 2.0, 4.0])
            tracker.flush()
            stats = tracker.end_epoch(step)
    run = lt.open_run(tmp_path / "run")
    assert run.verify().ok
    assert run.recompute(threads=4).at(2)["cat"].mean == stats["cat"].mean == 2.5
    tracker = lt.LabelTracker("y", "ce", record_to=tmp_path / "run")
    tracker.update(["eel"], [8.0])
    tracker.end_epoch(3)
    del tracker  # as if it were closed
    gc.collect()
    assert lt.open_run(tmp_path / "run").recompute().at(3).mean.tolist() == [8.0]


# -- several processes ------------------------------------------------------------------------------------


def test_a_copy_does_not_record_and_says_so(tmp_path):
    tracker = train(tmp_path / "run", [1])
    with pytest.warns(lt.LabelTrackWarning, match="this copy of a tracker does not record: another process"):
        copy = pickle.loads(pickle.dumps(tracker))
    train(None, [2], tracker=copy)
    assert copy.history.steps() == [1, 2]
    tracker.close()
    again = pickle.loads(pickle.dumps(tracker))  # as in a process that is started anew
    train(None, [2], tracker=again).close()
    assert same(lt.open_run(tmp_path / "run").recompute(progress=False), again.history)


FORKED = """
import os, signal, sys, time, warnings
import numpy as np
import labeltrack as lt

def train(tracker, step, batches):
    for _ in range(batches):
        tracker.update(np.arange(256, dtype=np.int32), np.full(256, step, np.float32))

tracker = lt.LabelTracker("y", "ce", record_to=sys.argv[1])
train(tracker, 1, 1)
tracker.end_epoch(1)
train(tracker, 2, 1)
warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads: data loaders do it
child = os.fork()
if not child:
    train(tracker, 2, 500)
    tracker.end_epoch(2)
    tracker.flush()
    tracker.close()
    os.write(1, b"child ")
    time.sleep(60)  # outlives the parent's recording
tracker.end_epoch(2)
tracker.close()
del tracker
again = lt.LabelTracker("y", "ce", record_to=sys.argv[1])  # the child keeps no lock
train(again, 3, 1)
again.end_epoch(3)
again.close()
os.kill(child, signal.SIGKILL)
os.waitpid(child, 0)
print("parent")
"""


def test_a_child_that_is_forked_neither_records_nor_keeps_the_run(tmp_path):
    command = [sys.executable, "-c", FORKED, tmp_path / "run"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.split()[-1] == "parent"
    opened = lt.open_run(tmp_path / "run")
    assert [(epoch.step, epoch.rows, epoch.complete) for epoch in opened.epochs] == [
        (step, 256, True) for step in (1, 2, 3)
    ]
    assert opened.verify(progress=False).ok


FORKED_WITH_ROWS_PENDING = """
import os, signal, sys, threading, warnings
import numpy as np
import labeltrack as lt
from labeltrack.recording.part import PartWriter

go_on = threading.Event()
write = PartWriter.write
PartWriter.write = lambda *arguments: (go_on.wait(), write(*arguments))[1]  # a disk that takes its time

def train(batches):
    for _ in range(batches):
        tracker.update(np.arange(256, dtype=np.int32), np.ones(256, np.float32))

options = lt.RecordingOptions(sys.argv[1], flush_rows=1024)
tracker = lt.LabelTracker("y", "ce", max_buffer_bytes=2**15, record_to=options)
train(16)  # all the memory
warnings.simplefilter("ignore", DeprecationWarning)
child = os.fork()
if not child:
    signal.alarm(60)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", lt.LabelTrackWarning)
        if sys.argv[2] == "update":
            train(64)
            assert tracker.end_epoch(1).count.sum() == 256 * 80
        elif sys.argv[2] == "load_state_dict":
            tracker.load_state_dict(tracker.state_dict())
            assert tracker.end_epoch(1).count.sum() == 256 * 16
        else:
            getattr(tracker, sys.argv[2])(*[1] * (sys.argv[2] == "end_epoch"))
        train(64)
        assert tracker.end_epoch(2).count.sum() >= 256 * 64
    assert [str(one.message).partition(" the one")[0] for one in told] == ["this process was forked from"], told
    os._exit(0)
status = os.waitpid(child, 0)[1]
go_on.set()
tracker.end_epoch(1)
tracker.close()
sys.exit(status)
"""


@pytest.mark.parametrize("call", ["update", "end_epoch", "flush", "close", "reset", "load_state_dict"])
def test_a_child_that_is_forked_while_rows_are_written_goes_on_and_says_that_it_does_not_record(tmp_path, call):
    command = [sys.executable, "-c", FORKED_WITH_ROWS_PENDING, tmp_path / "run", call]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    (epoch,) = lt.open_run(tmp_path / "run").epochs
    assert (epoch.rows, epoch.complete) == (256 * 16, True)


def die(tracker):
    """End a recording as a crash does: neither an end in the journal nor a closed part."""
    tracker.flush()
    recorder = tracker._recorder
    recorder._writer.finish = lambda _: None
    tracker.close()
    recorder._writer._member.journal.close(sync=False)
    recorder._writer._member._lock.release()


def ranks(run, size, **options):
    return [
        lt.LabelTracker("y", "ce", record_to=lt.RecordingOptions(run, rank=rank, world_size=size, **options))
        for rank in range(size)
    ]


def test_several_ranks_record_one_run(tmp_path):
    run = tmp_path / "run"
    alone = lt.LabelTracker("y", "ce")
    for launch, steps in enumerate(([1, 2], [3])):
        trackers = ranks(run, 3)
        for step in steps:
            for rank, tracker in enumerate(trackers):
                data = batch(seed=10 * step + rank)
                tracker.update(*data)
                tracker.end_epoch(step)
                alone.update(*data)
            alone.end_epoch(step)
            trackers[0].update(*batch(seed=step), mode="eval")  # the first one evaluates for all
            trackers[0].end_epoch(step, mode="eval")
            alone.update(*batch(seed=step), mode="eval")
            alone.end_epoch(step, mode="eval")
        for tracker in trackers:
            tracker.close()
        assert lt.open_run(run).info()["sessions"] == launch + 1
    opened = lt.open_run(run)
    assert all(epoch.complete for epoch in opened.epochs)
    assert same(opened.recompute(progress=False), alone.history)


def test_ranks_with_words_of_their_own_go_together(tmp_path):
    trackers = ranks(tmp_path / "run", 2)
    trackers[0].update(["a", "b"], [1.0, 2.0])
    trackers[1].update(["b", "c"], [3.0, 4.0])
    for tracker in trackers:
        tracker.end_epoch(1)
        tracker.close()
    stats = lt.open_run(tmp_path / "run").recompute(progress=False).at(1)
    assert dict(zip(stats.labels.tolist(), stats.mean.tolist(), strict=True)) == {"a": 1.0, "b": 2.5, "c": 4.0}
