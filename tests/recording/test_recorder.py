"""Recording: what is written, resuming, several processes, and failures that training does not notice."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import pickle
import resource
import shutil
import subprocess
import sys
import threading
import warnings

import numpy as np
import pytest
import xxhash

import labeltrack as lt
from labeltrack.recording import writer as writer_module
from labeltrack.recording.journal import Journal
from labeltrack.recording.part import PartWriter, examine
from labeltrack.recording.storage import FileContent
from labeltrack.recording.write_behind import HandedOnBuffer

pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed (extra 'record')")

QUICK = os.environ.get("LABELTRACK_QUICK") == "1"  # fewer rounds of what is random, where all of it runs elsewhere


def batch(n=256, labels=10, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, labels, n).astype(np.int32), rng.normal(size=n).astype(np.float32)


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


def parts(path):
    return sorted(str(p.relative_to(path)) for p in path.rglob("part-*"))


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


# -- what is written --------------------------------------------------------------------------------------


def test_parts_lie_where_their_epoch_is(tmp_path):
    run = tmp_path / "deep" / "run"
    tracker = lt.LabelTracker("y", "ce", record_to=run)
    for step in (1, 2, 10, 30):
        tracker.update(*batch(seed=step))
        tracker.update(*batch(seed=step), mode="eval", ds_id="a/b")
        tracker.end_epoch(step)
        tracker.end_epoch(step, mode="eval")
    tracker.close()
    names = parts(run)
    assert [name.rpartition("/")[0] for name in names] == [
        f"mode={mode}/ds_id={ds_id}/epoch={step}"
        for mode, ds_id in (("eval", "a%2Fb"), ("train", ""))
        for step in (1, 10, 2, 30)
    ]
    assert all(name.endswith(".arrow") for name in names)
    assert sorted(p.name for p in (run / "mode=train" / "ds_id=").iterdir()) == [f"epoch={s}" for s in (1, 10, 2, 30)]


def test_a_batch_is_written_every_so_many_rows_and_says_what_it_is(tmp_path):
    tracker = lt.LabelTracker("y", "ce", record_to=lt.RecordingOptions(tmp_path / "run", flush_rows=1024))
    rows = [batch(256, seed=i) for i in range(10)]
    for labels, values in rows:
        tracker.update(labels, values)
    tracker.end_epoch(5)
    tracker.close()
    (name,) = parts(tmp_path / "run")
    with pa.ipc.open_file(tmp_path / "run" / name) as reader:
        sizes, said = [], []
        for i in range(reader.num_record_batches):
            got, metadata = reader.get_batch_with_custom_metadata(i)
            sizes.append(got.num_rows)
            said.append(metadata)
        meta = reader.schema.metadata
        table = reader.read_all()
    assert sizes == [1280, 1280, 0]  # when there are as many, with all of the batch that brought them
    assert said[-1][b"step"] == b"5"
    assert [one[b"seq"] for one in said] == [b"0", b"1", b"2"]
    assert {k: meta[k] for k in (b"mode", b"ds_id", b"session", b"rank", b"kind", b"hash")} == {
        b"mode": b"train",
        b"ds_id": b"",
        b"session": b"1",
        b"rank": b"0",
        b"kind": b"integer",
        b"hash": b"xxh3_64",
    }
    np.testing.assert_array_equal(table["label"].to_numpy(), np.concatenate([labels for labels, _ in rows]))
    np.testing.assert_array_equal(table["value"].to_numpy(), np.concatenate([values for _, values in rows]))


@pytest.mark.parametrize("n", [100, 256, 1])
def test_columns_are_aligned_in_every_batch_but_the_last(tmp_path, n):
    with lt.LabelTracker("y", "ce", record_to=lt.RecordingOptions(tmp_path / "run", flush_rows=1024)) as tracker:
        for i in range(5000 // n):
            tracker.update(np.arange(n, dtype=np.uint8), np.full(n, i, np.float32))
        tracker.end_epoch(1)
    (name,) = parts(tmp_path / "run")
    *batches, last, end = examine(FileContent(tmp_path / "run" / name)).batches
    assert len(batches) >= 3
    assert not [column for batch in batches for column in batch.columns if column % 64]
    assert not last.columns[0] % 64
    assert not end.rows
    assert lt.open_run(tmp_path / "run").samples()["value"].to_pylist() == np.repeat(np.arange(5000 // n), n).tolist()


def test_words_stand_in_the_journal_before_the_codes_that_use_them(tmp_path, monkeypatch):
    run = tmp_path / "run"
    order = []
    append, write = Journal.append, writer_module.PartWriter.write
    monkeypatch.setattr(
        Journal,
        "append",
        lambda self, event, *, sync, **said: (order.append((event, sync)), append(self, event, sync=sync, **said))[1],
    )
    monkeypatch.setattr(
        writer_module.PartWriter, "write", lambda *args: (order.append(("rows", len(args[1]))), write(*args))[1]
    )
    recording = lt.RecordingOptions(run, flush_rows=1024, fsync="never")
    with lt.LabelTracker("y", "ce", record_to=recording) as tracker:
        tracker.update(["a", "b"] * 512, np.zeros(1024))
        tracker.update(["c\ud800", "b"] * 512, np.zeros(1024))
        tracker.end_epoch(1)
    interesting = [one for one in order if one[0] in ("words", "rows") and one != ("rows", 0)]
    assert interesting == [("words", True), ("rows", 1024), ("words", True), ("rows", 1024)]
    lines = [line.split(" ", 1) for line in (run / "journal-0001-0000.log").read_text().splitlines()]
    assert all(said == xxhash.xxh3_64_hexdigest(text.encode()) for said, text in lines)
    words = [json.loads(text) for _, text in lines if json.loads(text)["event"] == "words"]
    assert [(line["first"], line["words"]) for line in words] == [(0, ["a", "b"]), (2, ["c\ud800"])]
    labels = lt.open_run(run).recompute(progress=False).at(1).labels
    assert labels.tolist() == ["a", "b", "c\ud800"]


def test_many_and_long_words_take_several_lines(tmp_path, monkeypatch):
    monkeypatch.setattr(writer_module, "WORDS_A_LINE", 100)
    monkeypatch.setattr(writer_module, "CHARACTERS_A_LINE", 3000)
    words = [f"{i:06d}" for i in range(1000)] + ["x" * 5000, "y" * 5000, "z"]
    with lt.LabelTracker("y", "ce", record_to=tmp_path / "run") as tracker:
        tracker.update(words, np.arange(len(words)))
        live = tracker.end_epoch(1)
    journal = (tmp_path / "run" / "journal-0001-0000.log").read_text()
    assert journal.count('"event": "words"') == 13
    assert lt.open_run(tmp_path / "run").recompute(progress=False).at(1).labels.tolist() == live.labels.tolist()


@pytest.mark.parametrize("fsync", ["never", "epoch", "flush"])
def test_the_policy_says_when_the_disk_is_waited_for(tmp_path, monkeypatch, fsync):
    synced = []
    sync = writer_module.PartWriter.sync
    monkeypatch.setattr(writer_module.PartWriter, "sync", lambda self: (synced.append("flush"), sync(self)))
    fsync_of_os = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.append("fsync"), fsync_of_os(fd)))
    recording = lt.RecordingOptions(tmp_path / "run", flush_rows=1024, fsync=fsync)
    with lt.LabelTracker("y", "ce", record_to=recording) as tracker:
        synced.clear()
        tracker.update(*batch(2048))
        tracker.flush()
        before = synced.count("flush")
        synced.clear()
        tracker.end_epoch(1)
        tracker.flush()
        ended = synced.count("fsync")
    assert bool(before) == (fsync == "flush")
    assert bool(ended) == (fsync != "never")


def test_parts_do_not_grow_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr(writer_module, "LARGEST_PART", 20_000)
    with lt.LabelTracker("y", "ce", record_to=lt.RecordingOptions(tmp_path / "run", flush_rows=1024)) as tracker:
        for i in range(40):
            tracker.update(*batch(seed=i))
        tracker.end_epoch(1)
        tracker.update(*batch())
        tracker.end_epoch(2)
    assert len(parts(tmp_path / "run")) == 5
    assert same(lt.open_run(tmp_path / "run").recompute(progress=False), tracker.history)


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
    with pytest.warns(lt.LabelTrackWarning, match="samples of mode 'train' are not recorded.*as statistics only"):
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
    append = HandedOnBuffer.append

    def interrupted(*_arguments, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr(HandedOnBuffer, "append", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tracker.update(*batch(), mode="eval")
    monkeypatch.setattr(HandedOnBuffer, "append", append)
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


# -- many datasets ----------------------------------------------------------------------------------------

MANY = """
import os, resource, sys, warnings
import numpy as np
import labeltrack as lt

folder, limit, free = sys.argv[1], *map(int, sys.argv[2:])
warnings.simplefilter("error")
count = lambda: len(os.listdir("/proc/self/fd")) - 1

def epoch(tracker, step):
    global most
    for turn in range(3):
        for i in range(150):
            tracker.update(np.arange(700), np.full(700, i + turn), ds_id=f"site {i}")
            most = most if free else max(most, count())
    tracker.end_epoch(step)

most = 0
epoch(lt.LabelTracker("y", "ce"), 1)  # loads what is compiled
tracker = lt.LabelTracker("y", "ce", record_to=lt.RecordingOptions(folder, flush_rows=1024, fsync="never"))
tracker.update([0], [0.0], mode="first")
tracker.end_epoch(1, mode="first")
tracker.flush()
before = most = count()
resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
held = [os.open("/dev/null", os.O_RDONLY) for _ in range(limit - before - free if free else 0)]
for step in (1, 2):
    epoch(tracker, step)
tracker.close()
print(most - before)
for fd in held:
    os.close(fd)
assert lt.open_run(folder).verify(progress=False).ok
history = lt.open_run(folder).recompute(progress=False)
assert [key for key, _ in history.items()] == [key for key, _ in tracker.history.items()]
for (key, one), (_, other) in zip(history.items(), tracker.history.items()):
    assert one.sum.tolist() == other.sum.tolist() and one.count.tolist() == other.count.tolist(), key
"""


@pytest.mark.parametrize(("limit", "free"), [(1024, 0), (64, 0), (256, 3)])
def test_any_number_of_datasets_is_recorded_with_a_few_descriptors(tmp_path, limit, free):
    compiled = {name: value for name, value in os.environ.items() if name != "NUMBA_DISABLE_JIT"}
    command = [sys.executable, "-c", MANY, tmp_path / "run", str(limit), str(free)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, env=compiled)
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) <= max(4, limit // 8)


def test_where_no_descriptor_is_left_training_goes_on_and_the_next_epoch_is_recorded(tmp_path):
    tracker = lt.LabelTracker("y", "ce", record_to=lt.RecordingOptions(tmp_path / "run", flush_rows=1024))

    def train(step):
        for i in range(40):
            tracker.update(*batch(2048), ds_id=f"{i}")
        tracker.flush()
        assert tracker.end_epoch(step).count.sum() == 40 * 2048

    train(1)  # also loads what is compiled
    tracker.flush()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, limits[1]))
        with contextlib.suppress(OSError):
            while True:
                held.append(os.open("/dev/null", os.O_RDONLY))
        with pytest.warns(lt.LabelTrackWarning, match="Too many open files"):
            train(2)
    finally:
        for fd in held:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    train(3)
    tracker.close()
    run = lt.open_run(tmp_path / "run")
    assert [epoch.step for epoch in run.epochs if epoch.complete] == [1, 3]
    with pytest.warns(lt.LabelTrackWarning, match="train 2"):
        assert run.recompute(progress=False).steps() == [1, 3]


# -- names ------------------------------------------------------------------------------------------------

NAMES = {
    "28 characters of Chinese": "数据集" * 9 + "数",
    "the longest that is no longer than a file name": "x" * 249,
    "one more": "x" * 250,
    "long": "ä/+%" * 2_500,
    "not UTF-8": os.fsdecode(b"caf\xe9"),
    "halves of a pair": "\ud83d\ude00",
    "the pair": "\U0001f600",
    "long and not UTF-8": "\udce9" * 10_000,
}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_a_mode_or_dataset_may_have_any_name(tmp_path, name):
    others = [*NAMES.values(), name[:-1], name + "'"]  # some of which differ at the end alone
    others = [other for other in dict.fromkeys(others) if len(other) <= 10_000]
    with lt.LabelTracker("y", "ce", record_to=tmp_path / "run") as tracker:
        for step in (1, 2):
            for i, ds_id in enumerate(others):
                tracker.update([1, 2], [float(i), 0.5], mode=name, ds_id=ds_id)
            tracker.end_epoch(step, mode=name)
    run = lt.open_run(tmp_path / "run")
    assert run.verify(progress=False).ok
    assert same(run.recompute(progress=False), tracker.history)
    assert run.info()["modes"] == [name]
    assert run.info()["ds_ids"] == others
    for i, ds_id in enumerate(others):
        table = run.samples(name, 2, [ds_id], columns=["value"])
        assert table["value"].to_pylist() == [i, 0.5]
    assert max(len(part) for path in (tmp_path / "run").rglob("*") for part in path.parts) <= 255


@pytest.mark.parametrize(("mode", "ds_id"), [("m" * 400, "d" * 400), ("\udce9", "\ud83d\ude00" * 50)])
def test_parts_with_such_names_that_a_crash_left_are_found_and_repaired(tmp_path, mode, ds_id):
    tracker = lt.LabelTracker("y", "ce", record_to=lt.RecordingOptions(tmp_path / "run", flush_rows=1024))
    tracker.update(np.arange(1024), np.ones(1024), mode=mode, ds_id=ds_id)
    tracker.flush()
    shutil.copytree(tmp_path / "run", tmp_path / "crashed")
    tracker.close()
    run = lt.open_run(tmp_path / "crashed")
    assert [(epoch.mode, epoch.ds_ids) for epoch in run.epochs] == [(mode, (ds_id,))]
    assert len(run.repair()) == 1
    assert run.samples(mode, ds_id=ds_id, incomplete=True).num_rows == 1024
    with lt.LabelTracker("y", "ce", record_to=tmp_path / "crashed") as again:
        again.update([1], [2.0], mode=mode, ds_id=ds_id)
        again.end_epoch(1, mode=mode)
    assert lt.open_run(tmp_path / "crashed").samples(mode, ds_id=ds_id).num_rows == 1


def test_a_part_in_a_folder_whose_shortened_name_it_does_not_have_is_told(tmp_path):
    mode = "m" * 400
    with lt.LabelTracker("y", "ce", record_to=tmp_path / "run") as tracker:
        tracker.update([1], [2.0], mode=mode)
        tracker.end_epoch(1, mode=mode)
    (folder,) = (tmp_path / "run").glob("mode=*")
    folder.rename(folder.with_name(folder.name[:-1] + ("0" if folder.name[-1] != "0" else "1")))
    verification = lt.open_run(tmp_path / "run").verify(progress=False)
    assert not verification.ok
    assert [(part.state, part.lost) for part in verification.parts] == [("missing", 1)]


def test_a_name_without_end_is_refused_at_once_and_leaves_no_trace(tmp_path):
    with lt.LabelTracker("y", "ce", record_to=tmp_path / "run") as tracker:
        for names in ({"mode": "m" * 10_001}, {"ds_id": "d" * 1_000_000}):
            with pytest.raises(ValueError, match=r"characters, '.{40}' and so on, and no more than 10,000 can be"):
                tracker.update([1], [2.0], **names)
        tracker.update([1], [2.0])
        tracker.end_epoch(1)
    assert lt.open_run(tmp_path / "run").samples().num_rows == 1


ODD_WORDS = [
    os.fsdecode(b"caf\xe9"),
    "caf\udce8",
    "\ud83d\ude00",
    "\U0001f600",
    "\udc00",
    "\ud800",
    "a\\ud83d\\ude00",
    "ä",
]


def test_labels_and_names_with_lone_surrogates_are_recorded_as_they_are(tmp_path):
    path = tmp_path / os.fsdecode(b"run-caf\xe9")
    mapping = {f"the {word}": word for word in ODD_WORDS}
    for mode, labels in {"list": ODD_WORDS, "array": np.array(ODD_WORDS * 1000)}.items():
        with lt.LabelTracker(ODD_WORDS[2], ODD_WORDS[0], mapping, record_to=path) as tracker:
            tracker.update(labels, np.arange(len(labels), dtype=np.float32), mode=mode)
            tracker.end_epoch(1, mode=mode)
        run = lt.open_run(path)
        assert (run.label, run.metric, run.label_mapping) == (ODD_WORDS[2], ODD_WORDS[0], mapping)
        assert run.verify(progress=False).ok
        history = run.recompute(label_mapping=None, modes=mode, progress=False)
        assert sorted(history.at(1, mode).labels.tolist()) == sorted(ODD_WORDS)
        assert same(run.recompute(modes=mode, progress=False), tracker.history)
        assert {row.name: row.count for row in tracker.history.at(1, mode)} == dict.fromkeys(
            mapping, len(labels) // len(ODD_WORDS)
        )


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


# -- failures ---------------------------------------------------------------------------------------------


def fail_times(monkeypatch, times, error):
    write = writer_module.PartWriter.write
    left = [times]

    def failing(self, *args):
        if left[0] > 0:
            left[0] -= 1
            raise error
        return write(self, *args)

    monkeypatch.setattr(writer_module.PartWriter, "write", failing)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("anything")])
def test_a_failure_costs_one_warning_and_an_epoch_of_the_run(tmp_path, monkeypatch, error):
    run = tmp_path / "run"
    reference = lt.LabelTracker("y", "ce")
    tracker = lt.LabelTracker("y", "ce", record_to=lt.RecordingOptions(run, flush_rows=1024))
    with pytest.warns(lt.LabelTrackWarning) as caught:
        for step in (1, 2, 3, 4):
            if step == 2:
                fail_times(monkeypatch, 1, error)
            for i in range(20):
                for one in (tracker, reference):
                    one.update(*batch(seed=100 * step + i))
            for one in (tracker, reference):
                one.end_epoch(step)
            tracker.flush()
    assert len(caught) == 1
    assert str(error) in str(caught[0].message)
    assert "Training and statistics go on" in str(caught[0].message)
    assert caught[0].filename == __file__
    tracker.close()
    assert same(tracker.history, reference.history)
    opened = lt.open_run(run)
    assert [(e.step, e.complete, e.rows + e.lost) for e in opened.epochs] == [
        (step, step != 2, 5120) for step in (1, 2, 3, 4)
    ]
    with pytest.warns(lt.LabelTrackWarning, match="'train 2'"):
        history = opened.recompute(progress=False)
    assert history.steps() == [1, 3, 4]
    assert same_entries(history, reference.history, [1, 3, 4])
    assert opened.info()["incomplete"] == [["train", 2]]


def same_entries(one, other, steps):
    return all(one.at(step).std.tobytes() == other.at(step).std.tobytes() for step in steps)


@pytest.mark.parametrize("failing", [1, 2])
def test_what_the_journal_could_not_take_it_says_later(tmp_path, monkeypatch, failing):
    epoch = 0

    def full(method):
        def fail(*args, **options):
            if epoch == failing:
                raise OSError(28, "No space left on device")
            return method(*args, **options)

        return fail

    first, second = (lt.RecordingOptions(tmp_path / "run", rank=rank, world_size=2) for rank in (0, 1))
    train(first, [1, 2]).close()
    tracker = lt.LabelTracker("y", "ce", record_to=second)
    monkeypatch.setattr(PartWriter, "__init__", full(PartWriter.__init__))
    monkeypatch.setattr(Journal, "append", full(Journal.append))
    with pytest.warns(lt.LabelTrackWarning, match="No space left"):
        for epoch in (1, 2):
            tracker.update([1] * 100, [1.0] * 100)
            tracker.end_epoch(epoch)
            tracker.flush()
        epoch = 3
        tracker.close()
    run = lt.open_run(tmp_path / "run")
    assert [(one.step, one.complete, one.lost) for one in run.epochs] == [
        (step, step != failing, 100 * (step == failing)) for step in (1, 2)
    ]
    assert f"step {failing}, session 1, process 1: 100 rows could not be recorded" in str(run.verify(progress=False))
    with pytest.warns(lt.LabelTrackWarning, match=f"left out: 'train {failing}'"):
        assert run.recompute(progress=False).steps("train") == [3 - failing]


def test_one_dataset_that_fails_at_the_end_leaves_no_trace_in_the_next_epoch(tmp_path, monkeypatch):
    tracker = lt.LabelTracker("y", "ce", record_to=tmp_path / "run")
    close = writer_module.PartWriter.close

    def failing(self, **options):
        if "ds_id=a" in str(self.path) and "epoch=1" in str(self.path):
            raise OSError(28, "No space left on device")
        return close(self, **options)

    monkeypatch.setattr(writer_module.PartWriter, "close", failing)
    with pytest.warns(lt.LabelTrackWarning, match="No space left"):
        for step in (1, 2):
            for ds_id in ("a", "b"):
                tracker.update(*batch(seed=step), ds_id=ds_id)
            tracker.end_epoch(step)
            tracker.flush()
    tracker.close()
    opened = lt.open_run(tmp_path / "run")
    assert [(epoch.step, epoch.complete, epoch.rows) for epoch in opened.epochs] == [(2, True, 512), (1, False, 0)]
    assert opened.samples(step=2, ds_id="b").num_rows == 256
    assert opened.samples(step=1, incomplete=True).num_rows == 512  # written and not closed
    assert tracker.history.steps() == [1, 2]


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


def test_a_journal_that_cannot_be_written_leaves_the_epoch_incomplete(tmp_path, monkeypatch):
    tracker = lt.LabelTracker("y", "ce", record_to=tmp_path / "run")
    append = Journal.append

    def failing(self, event, **said):
        if event == "epoch":
            raise OSError(28, "No space left on device")
        return append(self, event, **said)

    monkeypatch.setattr(Journal, "append", failing)
    with pytest.warns(lt.LabelTrackWarning, match="No space left"):
        train(None, [1], tracker=tracker)
        tracker.flush()
    tracker.close()
    opened = lt.open_run(tmp_path / "run")
    assert [(epoch.step, epoch.complete) for epoch in opened.epochs] == [(1, False)]
    left_out = pytest.warns(lt.LabelTrackWarning, match="did not end, or of which .*, are left out: 'train 1'")
    with left_out, pytest.warns(lt.LabelTrackWarning, match=r"256 rows are left out: .*no journal says that it ended"):
        assert opened.samples(step=1).num_rows == 0
    assert opened.samples(step=1, incomplete=True).num_rows == 256


def test_words_that_could_not_be_written_are_written_with_the_next_epoch(tmp_path, monkeypatch):
    tracker = lt.LabelTracker("y", "ce", record_to=tmp_path / "run")
    append = Journal.append
    left = [1]

    def failing(self, event, **said):
        if event == "words" and left[0]:
            left[0] -= 1
            raise OSError(28, "No space left on device")
        return append(self, event, **said)

    monkeypatch.setattr(Journal, "append", failing)
    with pytest.warns(lt.LabelTrackWarning, match="No space left"):
        for step in (1, 2):
            tracker.update(["a", "b", "c"], [1.0, 2.0, 3.0])
            tracker.end_epoch(step)
            tracker.flush()
    tracker.close()
    opened = lt.open_run(tmp_path / "run")
    assert [(epoch.step, epoch.complete) for epoch in opened.epochs] == [(1, False), (2, True)]
    assert opened.samples(step=2)["label"].to_pylist() == ["a", "b", "c"]


def test_a_folder_that_vanishes_is_not_made_anew(tmp_path):
    run = tmp_path / "run"
    tracker = train(run, [1])
    tracker.flush()
    shutil.rmtree(run)
    with pytest.warns(lt.LabelTrackWarning, match="was deleted"):
        train(None, [2, 3], tracker=tracker)
        tracker.flush()
    tracker.close()
    assert not run.exists()
    assert tracker.history.steps() == [1, 2, 3]


FULL = """
import json, resource, signal, sys, warnings
import numpy as np
import labeltrack as lt

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
for trial, limit in enumerate(json.loads(sys.argv[2])):
    recording = lt.RecordingOptions("%s/run%d" % (sys.argv[1], trial), flush_rows=1024, fsync="never")
    tracker = lt.LabelTracker("y", "ce", record_to=recording)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for step in (1, 2, 3):
            for i in range(10 if step != 2 else 100):
                tracker.update(np.full(256, i, np.int32), np.full(256, step, np.float32))
            if step == 1:
                tracker.flush()
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
            tracker.end_epoch(step)
            tracker.flush()
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        tracker.close()
    assert [int(tracker.history.at(s).count.sum()) for s in (1, 2, 3)] == [2560, 25600, 2560]
    print(len(caught), caught[0].message)
"""


def test_a_full_disk_tears_one_epoch(tmp_path):
    limits = np.random.default_rng(5).integers(30_000, 200_000, 10 if QUICK else 50).tolist()
    command = [sys.executable, "-c", FULL, tmp_path, json.dumps(limits)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    said = done.stdout.splitlines()
    assert len(said) == len(limits)
    for trial, limit in enumerate(limits):
        assert said[trial].startswith("1 recording to ")
        assert "File too large" in said[trial]
        check_full(tmp_path / f"run{trial}", limit)


def check_full(run, limit):
    opened = lt.open_run(run)
    assert [(e.step, e.complete, e.rows + e.lost) for e in opened.epochs] == [
        (1, True, 2560),
        (2, False, 25_600),
        (3, True, 2560),
    ]
    found = opened.samples(step=2, incomplete=True)
    rows = found.num_rows
    assert 0.8 * limit - 15_000 < 8 * rows < limit
    assert rows == opened.epochs[1].rows
    assert rows % 256 == 0
    assert set(found["value"].to_pylist()) == {2.0}
    np.testing.assert_array_equal(found["label"].to_numpy(), np.repeat(np.arange(100), 256)[:rows])
    verification = opened.verify(progress=False)
    assert [part.state for part in verification.parts] == ["intact", "torn", "intact"]
    with pytest.warns(lt.LabelTrackWarning, match="'train 2'"):
        assert opened.recompute(progress=False).steps() == [1, 3]
    with lt.LabelTracker("y", "ce", record_to=run) as tracker:
        train(None, [2], tracker=tracker)
    assert lt.open_run(run).recompute(progress=False).steps() == [1, 2, 3]


KILLED = """
import json, os, signal, sys, threading, time
import numpy as np, pyarrow, pyarrow.ipc, xxhash
import labeltrack as lt
from labeltrack.recording.part import PartWriter

write, written = PartWriter.write, [0]

def counted(self, labels, values, more=None):
    write(self, labels, values, more)
    written[0] += labels.size

PartWriter.write = counted
words = np.array(["w%d" % i for i in range(3000)])

def record(run, pipe):
    tracker = lt.LabelTracker("y", "ce", record_to=lt.RecordingOptions(run, flush_rows=1024, fsync="never"))
    def report():
        while True:
            os.write(pipe, b"%d\\n" % written[0])
            time.sleep(0.0005)
    threading.Thread(target=report, daemon=True).start()
    n = 0
    for step in range(1, 10_000):
        for i in range(40):
            rows = np.arange(n, n + 256)
            tracker.update(words[rows % 3000], rows.astype(np.float32))
            n += 256
            time.sleep(0.0002)
        tracker.end_epoch(step)

for trial, wait in enumerate(json.loads(sys.argv[2])):
    out, pipe = os.pipe()
    child = os.fork()
    if not child:
        record("%s/run%d" % (sys.argv[1], trial), pipe)
    os.close(pipe)
    with open(out) as lines:
        lines.readline()  # it is recording
        time.sleep(wait)
        os.kill(child, signal.SIGKILL)
        told = lines.read().split("\\n")[:-1]
    os.waitpid(child, 0)
    print(max(map(int, told), default=0))
"""


def test_killed_at_any_moment_every_row_that_was_flushed_is_there(tmp_path):
    waits = np.random.default_rng(3).uniform(0, 0.2, 20 if QUICK else 200).tolist()
    command = [sys.executable, "-c", KILLED, tmp_path, json.dumps(waits)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    flushed = [int(line) for line in done.stdout.split()]
    assert len(flushed) == len(waits)
    for trial, rows in enumerate(flushed):
        check_killed(tmp_path / f"run{trial}", rows)
        if trial % 10 == 0:
            check_resumed(tmp_path / f"run{trial}")


def check_killed(run, flushed):
    opened = lt.open_run(run)
    total = 0
    for epoch in sorted(opened.epochs, key=lambda epoch: epoch.step):
        table = opened.samples(step=epoch.step, incomplete=True)
        n = table.num_rows
        assert n == 40 * 256 if epoch.complete else n % 256 == 0
        expected = np.arange(total, total + n)
        np.testing.assert_array_equal(table["value"].to_numpy(), expected.astype(np.float32))
        assert table["label"].to_pylist() == [f"w{i % 3000}" for i in expected]
        total += n
    assert total >= flushed
    verification = opened.verify(progress=False)
    assert {part.state for part in verification.parts} <= {"intact", "torn"}
    assert verification.lost == 0


def check_resumed(run):
    opened = lt.open_run(run)
    rows = {epoch.step: opened.samples(step=epoch.step, incomplete=True).num_rows for epoch in opened.epochs}
    complete = [epoch.step for epoch in opened.epochs if epoch.complete]
    last = max(complete, default=0) + 1
    with lt.LabelTracker("y", "ce", record_to=run) as tracker:
        tracker.update(["w1", "new"], [1.0, 2.0])
        tracker.end_epoch(last)
    opened = lt.open_run(run)
    assert [epoch.step for epoch in opened.epochs if epoch.complete] == [*complete, last]
    torn = [part.name for part in opened.verify(progress=False).parts if part.state == "torn"]
    assert opened.repair() == torn
    assert not [part for part in opened.verify(progress=False).parts if part.state == "torn"]
    for step, n in rows.items():
        if step != last:
            assert opened.samples(step=step, incomplete=True).num_rows == n
    both = opened.samples(step=last, all_attempts=True)
    assert both.num_rows == 2 + rows.get(last, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", lt.LabelTrackWarning)  # a torn epoch behind the last
        assert opened.recompute(progress=False).at(last).labels.tolist() == ["new", "w1"]


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
