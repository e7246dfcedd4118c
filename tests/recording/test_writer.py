"""Writing a run: what stands in its files, names, descriptors, and failures that training does not notice."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import subprocess
import sys
import warnings

import numpy as np
import pytest
import xxhash
from test_recorder import NO_SPACE, QUICK, batch, fail, same, train

import labeltrack as lt
from labeltrack.recording import writer as writer_module
from labeltrack.recording.description import Description
from labeltrack.recording.journal import Journal
from labeltrack.recording.part import PartWriter, examine
from labeltrack.recording.storage import FileContent

pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed (extra 'record')")


def parts(path):
    return sorted(str(p.relative_to(path)) for p in path.rglob("part-*"))


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
    append, write = Journal.append, PartWriter.write
    monkeypatch.setattr(
        Journal,
        "append",
        lambda self, event, *, sync, **said: (order.append((event, sync)), append(self, event, sync=sync, **said))[1],
    )
    monkeypatch.setattr(PartWriter, "write", lambda *args: (order.append(("rows", len(args[1][0]))), write(*args))[1])
    recording = lt.RecordingOptions(run, flush_rows=1024, fsync="never")
    with lt.LabelTracker("y", "ce", record_to=recording) as tracker:
        tracker.update(["a", "b"] * 512, np.zeros(1024))
        tracker.flush()
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
    sync = PartWriter.sync
    monkeypatch.setattr(PartWriter, "sync", lambda self: (synced.append("flush"), sync(self)))
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
        for i in range(10):
            tracker.update(*batch(1024), ds_id=f"{i}")
        tracker.flush()
        assert tracker.end_epoch(step).count.sum() == 10 * 1024

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


# -- failures ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [NO_SPACE, RuntimeError("anything")])
def test_a_failure_costs_one_warning_and_an_epoch_of_the_run(tmp_path, monkeypatch, error):
    run = tmp_path / "run"
    reference = lt.LabelTracker("y", "ce")
    tracker = lt.LabelTracker("y", "ce", record_to=lt.RecordingOptions(run, flush_rows=1024))
    with pytest.warns(lt.LabelTrackWarning) as caught:
        for step in (1, 2, 3, 4):
            if step == 2:
                fail(monkeypatch, PartWriter, "write", error=error, times=1)
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
    first, second = (lt.RecordingOptions(tmp_path / "run", rank=rank, world_size=2) for rank in (0, 1))
    train(first, [1, 2]).close()
    tracker = lt.LabelTracker("y", "ce", record_to=second)
    for owner, method in ((PartWriter, "__init__"), (Journal, "append")):
        fail(monkeypatch, owner, method, lambda *_arguments, **_options: epoch == failing)
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
    fail(monkeypatch, PartWriter, "close", lambda part, **_: "ds_id=a/epoch=1" in str(part.path))
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


def test_a_journal_that_cannot_be_written_leaves_the_epoch_incomplete(tmp_path, monkeypatch):
    tracker = lt.LabelTracker("y", "ce", record_to=tmp_path / "run")
    fail(monkeypatch, Journal, "append", lambda _, event, **_said: event == "epoch")
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
    fail(monkeypatch, Journal, "append", lambda _, event, **_said: event == "words", times=1)
    with pytest.warns(lt.LabelTrackWarning, match="No space left"):
        for step in (1, 2):
            tracker.update(["a", "b", "c"], [1.0, 2.0, 3.0])
            tracker.end_epoch(step)
            tracker.flush()
    tracker.close()
    opened = lt.open_run(tmp_path / "run")
    assert [(epoch.step, epoch.complete) for epoch in opened.epochs] == [(1, False), (2, True)]
    assert opened.samples(step=2)["label"].to_pylist() == ["a", "b", "c"]


def test_a_description_that_cannot_be_written_is_not_tried_again_for_every_part(tmp_path, monkeypatch):
    tries = []

    def write(self, root, *, replace=True):  # noqa: ARG001
        tries.append(root)
        raise NO_SPACE

    with lt.LabelTracker("y", "ce", record_to=tmp_path / "run") as tracker:
        monkeypatch.setattr(Description, "write", write)
        for step in range(5):
            tracker.update([1, 2], [1.0, 2.0])
            tracker.end_epoch(step)
    assert len(tries) == 1
    assert [epoch.complete for epoch in lt.open_run(tmp_path / "run").epochs] == [True] * 5


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


def test_a_folder_that_another_process_removes_as_it_is_empty_is_made_again(tmp_path, monkeypatch):
    first, second = (
        lt.LabelTracker("y", "ce", record_to=lt.RecordingOptions(tmp_path, rank=rank, world_size=2, launch="a"))
        for rank in (0, 1)
    )
    first.update([1, 2], [1.0, 2.0])
    first.flush()
    begin, move = PartWriter.__init__, writer_module.rename
    ends = [lambda: first.end_epoch(7), (tmp_path / "mode=train/ds_id=/epoch=9").rmdir]

    def end_first(self, path, *rest):
        if ends[1:] and "-0001-" in path.name:  # the second process has made epoch=1, which the first one leaves
            ends.pop(0)()
            first.flush()
        begin(self, path, *rest)

    def remove_first(path, target):
        if ends and target.parent.name == "epoch=9":
            ends.pop()()
        move(path, target)

    monkeypatch.setattr(PartWriter, "__init__", end_first)
    monkeypatch.setattr(writer_module, "rename", remove_first)
    second.update([1, 2], [3.0, 4.0])
    second.end_epoch(7)
    second.flush()
    for tracker in (first, second):
        tracker.update([1], [5.0])
        tracker.end_epoch(9)
        tracker.close()
    assert not ends
    run = lt.open_run(tmp_path)
    assert [(one.step, one.rows, one.complete, one.lost) for one in run.epochs] == [(7, 4, True, 0), (9, 2, True, 0)]
    assert sorted(run.samples(step=7)["value"].to_pylist()) == [1.0, 2.0, 3.0, 4.0]
    assert run.verify().ok


FULL = """
import json, resource, signal, sys, warnings
import numpy as np
import labeltrack as lt

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
compiled = lt.LabelTracker("y", "ce")  # before files are limited, as compiled code is kept in files, too
for step, batches in enumerate((10, 100)):
    for i in range(batches):
        compiled.update(np.full(256, i, np.int32), np.full(256, step, np.float32))
    compiled.end_epoch(step)
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

def counted(self, columns, more=None):
    write(self, columns, more)
    written[0] += columns[0].size

PartWriter.write = counted
words = np.array(["w%d" % i for i in range(3000)])

def record(run, pipe, version):
    options = lt.RecordingOptions(run, flush_rows=1024, fsync="never")
    if version == 1:
        tracker = lt.LabelTracker("y", "ce", record_to=options)
    else:
        tracker = lt.TrackerCollection(("y", "site"), ["ce", "hit"], record_to=options, on_duplicate="count")
    def report():
        while True:
            os.write(pipe, b"%d\\n" % written[0])
            time.sleep(0.0005)
    threading.Thread(target=report, daemon=True).start()
    n = 0
    for step in range(1, 10_000):
        for i in range(40):
            rows = np.arange(n, n + 256)
            y, ce = words[rows % 3000], rows.astype(np.float32)
            if version == 1:
                tracker.update(y, ce)
            else:
                tracker.update((y, rows % 7), {"ce": ce, "hit": rows % 2}, ids=["i%d" % i for i in rows.tolist()])
            n += 256
            time.sleep(0.0002)
        tracker.end_epoch(step)

warm = lt.LabelTracker(("y", "site"), "ce")  # compiled code is loaded once, not in every process
warm.update((["a"], [1]), [1.0], ids=["x"])
warm.end_epoch(1)
for trial, wait in enumerate(json.loads(sys.argv[2])):
    out, pipe = os.pipe()
    child = os.fork()
    if not child:
        record("%s/run%d" % (sys.argv[1], trial), pipe, int(sys.argv[3]))
    os.close(pipe)
    with open(out) as lines:
        lines.readline()  # it is recording
        time.sleep(wait)
        os.kill(child, signal.SIGKILL)
        told = lines.read().split("\\n")[:-1]
    os.waitpid(child, 0)
    print(max(map(int, told), default=0))
"""


@pytest.mark.parametrize("version", [1, 2])
def test_killed_at_any_moment_every_row_that_was_flushed_is_there(tmp_path, version):
    longest, trials = (0.2 if version == 1 else 0.1), (20 if QUICK else 200)
    waits = np.random.default_rng(3).uniform(0, longest, trials).tolist()
    command = [sys.executable, "-c", KILLED, tmp_path, json.dumps(waits), str(version)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    flushed = [int(line) for line in done.stdout.split()]
    assert len(flushed) == len(waits)
    for trial, rows in enumerate(flushed):
        check_killed(tmp_path / f"run{trial}", rows, version)
        if trial % 10 == 0 and version == 1:
            check_resumed(tmp_path / f"run{trial}")


def check_killed(run, flushed, version):
    opened = lt.open_run(run)
    total = 0
    label, value = ("label", "value") if version == 1 else ("y", "ce")
    for epoch in sorted(opened.epochs, key=lambda epoch: epoch.step):
        table = opened.samples(step=epoch.step, incomplete=True)
        n = table.num_rows
        assert n == 40 * 256 if epoch.complete else n % 256 == 0
        expected = np.arange(total, total + n)
        np.testing.assert_array_equal(table[value].to_numpy(), expected.astype(np.float32))
        assert table[label].to_pylist() == [f"w{i % 3000}" for i in expected]
        if version == 2 and n:
            np.testing.assert_array_equal(table["site"].to_numpy(), expected % 7)
            np.testing.assert_array_equal(table["hit"].to_numpy(), expected % 2)
            assert table["id"].to_pylist() == [f"i{i}" for i in expected]
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


def test_a_file_where_a_folder_belongs_stops_the_recording_of_its_epoch_alone(tmp_path):
    tracker = lt.LabelTracker("y", "ce", record_to=tmp_path)
    (tmp_path / "mode=train/ds_id=").mkdir(parents=True)
    (tmp_path / "mode=train/ds_id=/epoch=1").write_text("")
    tracker.update([0], [1.0])
    with pytest.warns(lt.LabelTrackWarning, match="recording to .* failed: .*epoch=1"):
        tracker.end_epoch(1)
        tracker.flush()
    tracker.update([0], [2.0])
    assert tracker.end_epoch(2).mean.tolist() == [2.0]
    tracker.close()
    run = lt.open_run(tmp_path)
    assert run.samples(step=2)["value"].to_pylist() == [2.0]
