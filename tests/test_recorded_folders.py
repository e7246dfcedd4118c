"""Folders of runs: moved, replaced or emptied while they record, with files of other runs, and after a kill."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings

import pytest
from test_recorder import batch, fail, same, train

import labeltrack as lt
from labeltrack.recording import writer as writer_module
from labeltrack.recording.journal import Journal

pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed (extra 'record')")


def contents(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }


def told(action):
    """Return what labeltrack warned about."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", lt.LabelTrackWarning)
        action()
    return "\n".join(str(one.message) for one in caught if one.category is lt.LabelTrackWarning)


# -- a folder that is moved or replaced -------------------------------------------------------------------


def moved(run):
    run.rename(run.with_name("old"))


def replaced_by_a_new_run(run):
    moved(run)
    train(run, [1, 2], seed=500).close()


def replaced_by_a_run_at_work(run):
    moved(run)
    tracker = lt.LabelTracker("y", "ce", record_to=lt.RecordingOptions(run, flush_rows=1024))
    for i in range(10):
        tracker.update(*batch(seed=i))
    tracker.flush()
    return tracker


def replaced_by_its_copy(run):
    shutil.copytree(run, run.with_name("copy"))
    moved(run)
    run.with_name("copy").rename(run)


def deleted_and_begun_anew(run):
    shutil.rmtree(run)
    train(run, [1, 2], seed=500).close()


@pytest.mark.parametrize(
    "change", [moved, replaced_by_a_new_run, replaced_by_a_run_at_work, replaced_by_its_copy, deleted_and_begun_anew]
)
@pytest.mark.parametrize("when", ["between epochs", "while a part is open"])
def test_a_folder_that_is_not_the_one_any_more_is_told_and_nothing_in_it_is_touched(tmp_path, change, when):
    run = tmp_path / "run"
    tracker = lt.LabelTracker("y", "ce", record_to=lt.RecordingOptions(run, flush_rows=1024))
    train(None, [1, 2], tracker=tracker)
    if when == "while a part is open":
        for i in range(10):
            tracker.update(*batch(seed=i))
    tracker.flush()
    other = change(run)
    before = contents(run) if run.exists() else None
    message = told(lambda: (train(None, [3, 4], tracker=tracker), tracker.flush(), tracker.close()))
    assert "was deleted, moved or replaced" in message
    assert "Training and statistics go on" in message
    assert tracker.history.steps() == [1, 2, 3, 4]
    assert (contents(run) if run.exists() else None) == before
    if other is not None:
        live = other.end_epoch(1)
        other.close()
        assert lt.open_run(run).recompute(progress=False).at(1).count.tolist() == live.count.tolist()
    if change is not deleted_and_begun_anew:
        assert [epoch.step for epoch in lt.open_run(tmp_path / "old").epochs if epoch.complete] == [1, 2]
    if before and change is not replaced_by_its_copy and other is None:
        assert lt.open_run(run).verify(progress=False).ok


def test_a_folder_that_is_moved_back_goes_on(tmp_path):
    run = tmp_path / "run"
    tracker = train(run, [1])
    tracker.flush()
    moved(run)
    assert "moved" in told(lambda: (train(None, [2], tracker=tracker), tracker.flush()))
    (tmp_path / "old").rename(run)
    train(None, [3], tracker=tracker)
    tracker.close()
    assert [epoch.step for epoch in lt.open_run(run).epochs if epoch.complete] == [1, 3]


def test_a_folder_that_is_moved_when_all_is_recorded_is_complete(tmp_path):
    tracker = train(tmp_path / "run", [1, 2])
    tracker.flush()
    moved(tmp_path / "run")
    tracker.close()
    assert same(lt.open_run(tmp_path / "old").recompute(progress=False), tracker.history)
    assert lt.open_run(tmp_path / "old").verify(progress=False).ok


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("expected", [True, False])
def test_a_part_never_takes_the_place_of_another_file(tmp_path, monkeypatch, links, expected):
    if not links:  # as on file systems where a file has one name
        fail(monkeypatch, os, "link", error=PermissionError(1, "not permitted"))
    run = tmp_path / "run"
    tracker = train(run, [1])
    step = 2 if expected else 7
    tracker.update(*batch(seed=2))
    tracker.flush()
    folder = run / "mode=train" / "ds_id=" / f"epoch={step}"
    folder.mkdir(parents=True, exist_ok=True)
    mine = folder / "part-0001-0000-00002-0000.arrow"
    mine.write_text("somebody's")
    assert "exists" in told(lambda: (tracker.end_epoch(step), tracker.flush()))
    train(None, [8], tracker=tracker)
    tracker.close()
    assert mine.read_text() == "somebody's"
    assert [epoch.step for epoch in lt.open_run(run).epochs if epoch.complete] == [1, 8]


def test_a_session_whose_journals_were_deleted_is_not_recorded_over(tmp_path):
    run = tmp_path / "run"
    for launch in (1, 2):
        train(run, [1, 2], seed=100 * launch).close()
    (run / "journal-0002-0000.log").unlink()
    before = contents(run)
    tracker = train(run, [1, 2, 3], seed=300)
    tracker.close()
    assert {name: sum_ for name, sum_ in contents(run).items() if name in before and "run.json" not in name} == {
        name: sum_ for name, sum_ in before.items() if "run.json" not in name
    }
    assert same(lt.open_run(run).recompute(progress=False), tracker.history)


# -- files of another run ---------------------------------------------------------------------------------


def recorded(run, seed, *, words=False):
    """Record three epochs of two datasets."""
    with lt.LabelTracker("y", "ce", record_to=lt.RecordingOptions(run, flush_rows=1024, fsync="never")) as tracker:
        for step in (1, 2, 3):
            for ds_id in ("", "b"):
                labels, values = batch(2000, seed=seed + step)
                tracker.update([f"word {i}" for i in labels] if words else labels, values, ds_id=ds_id)
            tracker.end_epoch(step)
    return tracker


@pytest.mark.parametrize("words", [False, True])
@pytest.mark.parametrize("copied", [False, True])
def test_a_part_of_another_run_or_of_a_copy_that_went_on_is_not_read(tmp_path, words, copied):
    run, other = tmp_path / "run", tmp_path / "other"
    if copied:
        train(run, [1]).close()
        shutil.copytree(run, other)
    for seed, folder in enumerate((run, other)):
        recorded(folder, 100 * seed, words=words)
    names = sorted(str(path.relative_to(run)) for path in run.rglob(f"part-000{2 if copied else 1}*"))
    assert len(names) == 6
    assert lt.open_run(run).verify(progress=False).ok
    for name in names:
        content = (run / name).read_bytes()
        shutil.copyfile(other / name, run / name)
        opened = lt.open_run(run)
        message = told(lambda opened=opened: opened.recompute(progress=False))
        assert f"{name}: it is a part of another run, or of another recording of this run (2,000 rows lost" in message
        assert told(lambda opened=opened: opened.samples())
        verification = opened.verify(progress=False)
        assert [(s.name, s.state, s.rows, s.lost) for s in verification.parts if s.state != "intact"] == [
            (name, "corrupt", 0, 2000)
        ]
        (run / name).write_bytes(content)
    assert lt.open_run(run).verify(progress=False).ok


def test_parts_of_one_attempt_that_change_places_are_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(writer_module, "LARGEST_PART", 5000)
    run = tmp_path / "run"
    with lt.LabelTracker("y", "ce", record_to=lt.RecordingOptions(run, flush_rows=1024)) as tracker:
        for i in range(16):
            tracker.update(*batch(seed=i))
        tracker.end_epoch(1)
    first, second, *_ = sorted(run.rglob("part-*"))
    shutil.copyfile(first, second)
    message = told(lambda: lt.open_run(run).recompute(progress=False))
    assert "its metadata says index '0', but its path '1'" in message
    assert not lt.open_run(run).verify(progress=False).ok


def test_a_journal_of_another_run_is_not_read(tmp_path):
    run, other = tmp_path / "run", tmp_path / "other"
    for seed, folder in enumerate((run, other)):
        recorded(folder, 100 * seed)
    shutil.copyfile(other / "journal-0001-0000.log", run / "journal-0001-0000.log")
    opened = lt.open_run(run)
    assert "the journal belongs to another run" in str(opened.verify(progress=False))
    assert [epoch.complete for epoch in opened.epochs] == [False] * 3
    assert "the journal belongs to another run" in told(lambda: opened.recompute(progress=False))


def test_a_description_of_another_run_is_told(tmp_path):
    run, other = tmp_path / "run", tmp_path / "other"
    for seed, folder in enumerate((run, other)):
        recorded(folder, 100 * seed)
    shutil.copyfile(other / "run.json", run / "run.json")
    opened = lt.open_run(run)
    assert "the journal belongs to another run" in str(opened.verify(progress=False))
    assert "the journal belongs to another run" in told(lambda: opened.recompute(progress=False))


# -- what is deleted --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["run.json", "journal-0001-0000.log"])
def test_what_is_deleted_while_a_run_is_recorded_is_written_anew_and_told(tmp_path, name):
    run = tmp_path / "run"
    tracker = train(run, [1])
    tracker.update(["a", "b"], [1.0, 2.0], mode="eval")
    tracker.end_epoch(1, mode="eval")
    tracker.flush()
    (run / name).unlink()
    message = told(lambda: (train(None, [2, 3], tracker=tracker), tracker.close()))
    assert f"{name} was deleted" in message
    assert "restored" in message
    assert same(lt.open_run(run).recompute(progress=False), tracker.history)
    assert lt.open_run(run).verify(progress=False).ok


def test_a_run_without_its_description_is_read_from_a_journal_and_told(tmp_path):
    run = tmp_path / "run"
    tracker = train(run, [1, 2])
    tracker.close()
    (run / "run.json").unlink()
    opened = lt.open_run(run)
    assert opened.metric == "ce"
    message = told(lambda: opened.recompute(progress=False))
    assert "run.json is missing; the copy in a journal is used instead" in message
    assert not opened.verify(progress=False).ok
    with pytest.warns(
        lt.LabelTrackWarning, match=r"run\.json was missing and has been restored from a journal"
    ) as caught:
        again = lt.LabelTracker("y", "ce", record_to=run)
    assert caught[0].filename == __file__
    again.load_state_dict(tracker.state_dict())
    train(None, [3], tracker=again).close()
    assert lt.open_run(run).verify(progress=False).ok
    assert same(lt.open_run(run).recompute(progress=False), again.history)


# -- what a crash costs -----------------------------------------------------------------------------------

KILLED = """
import os, signal, sys
import numpy as np
import labeltrack as lt
tracker = lt.LabelTracker("y", "ce", record_to=lt.RecordingOptions(sys.argv[1], fsync=sys.argv[2], durable=sys.argv[3]))
lt.label_stats([1], [1.0])
for step in range(1, int(sys.argv[4]) + 1):
    tracker.update(np.arange(20_000, dtype=np.int32) % 7, np.full(20_000, step, np.float32))
    tracker.end_epoch(step)
if sys.argv[3] == "later":
    tracker.flush()
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize(("fsync", "durable"), [("epoch", "epoch"), ("never", "epoch"), ("epoch", "later")])
def test_an_epoch_that_is_durable_survives_a_kill(tmp_path, fsync, durable):
    for steps in (1, 3):
        run = tmp_path / f"run-{steps}"
        command = [sys.executable, "-c", KILLED, run, fsync, durable, str(steps)]
        assert subprocess.run(command, check=False, timeout=300).returncode == -signal.SIGKILL
        opened = lt.open_run(run)
        assert [(epoch.step, epoch.rows, epoch.complete) for epoch in opened.epochs] == [
            (step, 20_000, True) for step in range(1, steps + 1)
        ]
        assert opened.verify(progress=False).ok


def test_the_end_of_an_epoch_waits_for_its_rows_only_if_asked_to(tmp_path, monkeypatch):
    append = Journal.append
    done = []

    def slow(self, event, **said):
        if event == "epoch":
            time.sleep(0.3)
        append(self, event, **said)
        done.append(event)

    monkeypatch.setattr(Journal, "append", slow)
    for durable in ("later", "epoch"):
        recording = lt.RecordingOptions(tmp_path / durable, durable=durable)
        with lt.LabelTracker("y", "ce", record_to=recording) as tracker:
            tracker.update(*batch())
            done.clear()
            tracker.end_epoch(1)
            assert ("epoch" in done) == (durable == "epoch")


@pytest.mark.parametrize("size", [1, 2])
def test_journals_that_are_missing_are_written_anew_by_a_repair(tmp_path, size):
    run = tmp_path / "run"
    trackers = [
        lt.LabelTracker("y", "ce", record_to=lt.RecordingOptions(run, flush_rows=1024, rank=rank, world_size=size))
        for rank in range(size)
    ]
    for rank, tracker in enumerate(trackers):
        for step in (1, 2):
            for ds_id in ("", "b"):
                tracker.update(*batch(3000, seed=10 * step + rank), ds_id=ds_id)
            tracker.end_epoch(step)
        tracker.update(*batch(seed=5))
        tracker.reset()
        tracker.update(*batch(seed=6))
        tracker.end_epoch(2, replace=True)
        tracker.update(*batch(seed=rank))  # does not end
        tracker.close()
    opened = lt.open_run(run)
    with pytest.warns(lt.LabelTrackWarning, match="left out"):
        before = opened.recompute(progress=False)
    for rank in range(size):
        (run / f"journal-0001-{rank:04d}.log").unlink()
        opened = lt.open_run(run)
        assert not opened.verify(progress=False).ok
        assert opened.repair() == [f"journal-0001-{rank:04d}.log"]
        with pytest.warns(lt.LabelTrackWarning, match="did not end"):
            assert same(opened.recompute(progress=False), before)
        assert opened.repair() == []
        assert f"journal-0001-{rank:04d}.log was rebuilt from the parts" in str(opened.verify(progress=False))
    (run / "run.json").unlink()
    opened = lt.open_run(run)
    assert opened.repair() == ["run.json"]
    assert not opened.info()["damage"]
    assert [(epoch.step, epoch.complete) for epoch in opened.epochs] == [(1, True), (2, True), (3, False)]


def test_a_repair_takes_nothing_for_ended_that_may_not_have(tmp_path):
    run = tmp_path / "run"
    recorded(run, 0)
    (run / "journal-0001-0000.log").unlink()
    part = run / "mode=train" / "ds_id=b" / "epoch=2" / "part-0001-0000-00002-0000.arrow"
    part.rename(f"{part}.open")
    os.truncate(f"{part}.open", part.with_name(part.name + ".open").stat().st_size // 2)
    (run / "mode=train" / "ds_id=" / "epoch=3" / "part-0001-0000-00003-0000.arrow").rename(tmp_path / "gone")
    opened = lt.open_run(run)
    assert opened.repair() == [str(part.relative_to(run)) + ".open", "journal-0001-0000.log"]
    assert [(epoch.step, epoch.complete) for epoch in opened.epochs] == [(1, True), (3, True), (2, False)]
    words = tmp_path / "words"
    recorded(words, 0, words=True)
    (words / "journal-0001-0000.log").unlink()
    opened = lt.open_run(words)
    opened.repair()
    assert "the journal does not say what they stand for" in told(lambda: opened.recompute(progress=False))
    assert not opened.verify(progress=False).ok
