"""Damage of every kind: no row is wrong, lost rows are counted, torn files are repaired."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import warnings

import numpy as np
import pytest
from test_cli import invoke
from test_recorder import QUICK, batch, fail, same
from test_run import _run, recorded  # noqa: F401 (a fixture)

import labeltrack as lt
from labeltrack.recording.part import PartWriter, examine
from labeltrack.recording.storage import FileContent, LocalFolder

pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed (extra 'record')")


def rows_of(opened):
    """Return all readable rows by mode, dataset and step, and the warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = {}
        for epoch in opened.epochs:
            for ds_id in epoch.ds_ids:
                table = opened.samples([epoch.mode], epoch.step, [ds_id])
                found[epoch.mode, ds_id, epoch.step] = list(zip(*table.to_pydict().values(), strict=True))
    return found, [str(one.message) for one in caught]


def is_subsequence(some, all_of_them):
    rest = iter(all_of_them)
    return all(any(one == other for other in rest) for one in some)


DAMAGE = """
import faulthandler, json, os, shutil, sys, warnings
from pathlib import Path
import numpy as np
faulthandler.enable()
sys.path[:0] = sys.argv[4].split(os.pathsep)
from test_repair import is_subsequence, rows_of
import labeltrack as lt

original, copy, seed = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
truncations, flips = json.loads(sys.argv[5])
right, report = rows_of(lt.open_run(original))
assert not report
total = sum(map(len, right.values()))
names = sorted(str(p.relative_to(original)) for p in original.rglob("*") if p.is_file() and p.stat().st_size)
shutil.copytree(original, copy)
rng = np.random.default_rng(seed)
counts = {"noticed": 0, "unreadable": 0, "unnoticed": 0}

def one(name, content):
    path = copy / name
    path.write_bytes(content)
    try:
        opened = lt.open_run(copy)
    except (ValueError, OSError) as error:
        assert "run.json" in str(error) or "damaged" in str(error), error
        counts["unreadable"] += 1
    else:
        found, report = rows_of(opened)
        for key, rows in found.items():
            assert key in right, (name, key)
            assert rows == right[key] or is_subsequence(rows, right[key]), (name, key)
        verification = opened.verify(progress=False)
        lost = total - sum(map(len, found.values()))
        # A journal that ends with a whole line is that of a process that was killed, which is no damage; neither is
        # white space in the description.
        whole = name.startswith("journal") and content[-1:] in (b"", b"\\n") and not lost
        blank = name == "run.json" and content.split() == (original / name).read_bytes().split()
        noticed = not verification.ok or whole or blank
        counts["noticed" if noticed else "unnoticed"] += 1
        if not noticed:
            print("unnoticed:", name, len(content), (original / name).stat().st_size, file=sys.stderr)
        assert not lost or not verification.ok, name
        bad = [s for s in verification.parts if s.state not in ("intact", "writing")]
        assert lost <= verification.lost or verification.other or not lost, (name, lost, verification)
        assert not lost or report or not all(e.complete for e in opened.epochs), (name, report)
        assert all(s.message for s in bad)
        verification.to_dict(), str(verification)
    path.write_bytes((original / name).read_bytes())

sizes = np.array([(original / name).stat().st_size for name in names])
for i in range(truncations):
    name = names[rng.integers(len(names))]
    content = (original / name).read_bytes()
    one(name, content[: rng.integers(len(content))])
for i in range(flips):
    name = names[rng.integers(len(names))]
    content = bytearray((original / name).read_bytes())
    place = int(rng.integers(len(content)))
    if rng.random() < 0.5:
        content[place] ^= 1 << int(rng.integers(8))
    else:
        content[place] = int(rng.integers(256))
    if bytes(content) == (original / name).read_bytes():
        content[place] ^= 1
    one(name, bytes(content))
print(json.dumps(counts))
"""


def recorded_with_ids(run):
    """Record a run of two labels, two metrics and ids, in two sessions."""
    rng = np.random.default_rng(2)
    for session in range(2):
        options = lt.RecordingOptions(run, flush_rows=1024, fsync="never")
        with lt.TrackerCollection(("class", "site"), ["ce", "hit"], record_to=options, on_duplicate="count") as tracker:
            for step in (2 * session + 1, 2 * session + 2):
                for mode in ("train", "eval"):
                    for _ in range(3):
                        labels = rng.integers(0, 2 + 2**33 * (step == 3), 100), rng.choice(["a", "b", f"s{step}"], 100)
                        values = {"ce": rng.normal(size=100).astype(np.float32), "hit": rng.integers(0, 2, 100)}
                        ids = rng.integers(0, 2**40, 100)
                        ids = [f"i{number % 50}" for number in ids.tolist()] if mode == "eval" else ids
                        tracker.update(labels, values, ids=ids, mode=mode)
                    tracker.end_epoch(step, mode=mode)


@pytest.mark.parametrize(("seed", "version"), [(0, 1), (1, 1), (2, 1), (3, 1), (4, 1), (5, 2)])
def test_no_truncation_and_no_flipped_byte_gives_a_wrong_row(tmp_path, seed, version):
    if version == 1:
        recorded(tmp_path / "run", n=3)
    else:
        recorded_with_ids(tmp_path / "run")
    rounds = [400, 1000] if version == 1 else [500, 1000]
    rounds = [number // (10 if version == 1 else 20) for number in rounds] if QUICK else rounds
    command = [
        *(sys.executable, "-c", DAMAGE, str(tmp_path / "run"), str(tmp_path / "copy"), str(seed)),
        *(os.pathsep.join(sys.path), json.dumps(rounds)),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    counts = json.loads(done.stdout)
    assert sum(counts.values()) == sum(rounds)
    assert counts["unnoticed"] == 0, done.stderr


def test_a_damaged_batch_loses_only_its_own_rows(tmp_path):
    recorded(tmp_path / "run", steps=[1], n=12)
    (name,) = (tmp_path / "run").glob("mode=train/**/*.arrow")
    content = bytearray(name.read_bytes())
    content[len(content) // 2] ^= 4
    name.write_bytes(content)
    opened = lt.open_run(tmp_path / "run")
    match = r"1,216 rows are left out: .*checksum of batch 2 does not agree \(1,216 rows lost, 3,584 intact\)"
    with pytest.warns(lt.LabelTrackWarning, match=match):
        history = opened.recompute(modes="train", progress=False)
    assert history.at(1).count.sum() == 3584
    verification = opened.verify(progress=False)
    bad = [part for part in verification.parts if part.state != "intact"]
    assert [(s.state, s.rows, s.lost) for s in bad] == [("corrupt", 3584, 1216)]
    assert (verification.ok, verification.lost, verification.rows) == (False, 1216, 3589)
    assert "corrupt: mode=train" in str(verification)
    assert opened.repair() == []


def test_a_damaged_footer_is_found_though_every_row_is_there(run, tmp_path):
    shutil.copytree(run[0], tmp_path / "run")
    name = next((tmp_path / "run").glob("mode=train/**/*.arrow"))
    content = bytearray(name.read_bytes())
    content[-100] ^= 1
    name.write_bytes(content)
    opened = lt.open_run(tmp_path / "run")
    assert same(opened.recompute(progress=False), run[1].history)
    (bad,) = [s for s in opened.verify(progress=False).parts if s.state != "intact"]
    assert (bad.state, bad.lost) == ("corrupt", 0)
    assert "other programs may not" in bad.message


def test_missing_and_misplaced_files_are_found(run, tmp_path):
    shutil.copytree(run[0], tmp_path / "run")
    first, second = sorted((tmp_path / "run").glob("mode=train/**/*.arrow"))
    second.unlink()
    opened = lt.open_run(tmp_path / "run")
    with pytest.warns(lt.LabelTrackWarning, match=r"the file is missing \(1,600 rows lost"):
        assert opened.recompute(modes="train", progress=False).steps() == [1]
    states = [part.state for part in opened.verify(progress=False).parts]
    assert states.count("missing") == 1
    shutil.copy(first, second)  # as if it were of the other epoch
    with pytest.warns(lt.LabelTrackWarning, match="its metadata says attempt '1', but its path '2'"):
        assert lt.open_run(tmp_path / "run").recompute(modes="train", progress=False).steps() == [1]


def test_without_its_description_or_journal_a_run_still_has_its_rows(run, tmp_path):
    shutil.copytree(run[0], tmp_path / "run")
    (tmp_path / "run" / "run.json").write_text("{", encoding="utf-8")
    opened = lt.open_run(tmp_path / "run")
    with pytest.warns(lt.LabelTrackWarning, match=r"run\.json is damaged"):
        assert same(opened.recompute(progress=False), run[1].history)
    assert not opened.verify(progress=False).ok
    shutil.copy(run[0] / "run.json", tmp_path / "run" / "run.json")
    (tmp_path / "run" / "journal-0001-0000.log").unlink()
    opened = lt.open_run(tmp_path / "run")
    assert not any(epoch.complete for epoch in opened.epochs)
    with pytest.warns(lt.LabelTrackWarning) as caught:
        assert opened.samples("train").num_rows == 0
    report = " ".join(str(one.message) for one in caught)
    assert "3,200 rows are left out" in report
    assert "'train 1', 'train 2'; incomplete=True" in report
    assert opened.samples("train", incomplete=True).num_rows == 3200
    with pytest.warns(lt.LabelTrackWarning, match="the journal does not say what they stand for"):
        assert opened.samples("eval", incomplete=True).num_rows == 0


# -- what is known beyond the files -----------------------------------------------------------------------


def done_again(path, steps, *, unfinished=0):
    """Record epochs in a new session."""
    with lt.LabelTracker("y", "ce", record_to=path) as tracker:
        for step in steps:
            tracker.update(*batch(400, seed=step))
            tracker.end_epoch(step, replace=True)
        if unfinished:
            tracker.update(*batch(unfinished))


def verified(path):
    """Verify with the library and the command, which must agree."""
    found = lt.open_run(path).verify(progress=False)
    result = invoke("verify", path, "--json")
    assert json.loads(result.stdout) == json.loads(json.dumps(found.to_dict() | {"repaired": []}))
    assert result.exit_code == (0 if found.ok else 1)
    return found


def test_repeated_epochs_and_a_running_process_are_not_problems(tmp_path):
    done_again(tmp_path / "run", [1, 2], unfinished=300)
    done_again(tmp_path / "run", [2, 3])
    assert verified(tmp_path / "run").ok
    with lt.LabelTracker("y", "ce", record_to=tmp_path / "run") as tracker:
        tracker.update(*batch(300))
        tracker.flush()
        assert verified(tmp_path / "run").ok  # at work
        tracker.reset()
    assert verified(tmp_path / "run").ok  # and given up


@pytest.mark.parametrize("step", [1, 5])
def test_what_a_process_has_recorded_since_a_run_was_opened_is_no_damage(tmp_path, step):
    def left_out():
        with pytest.warns(lt.LabelTrackWarning) as told:
            run.samples()
            run.recompute(progress=False)
        return {str(one.message) for one in told}

    with lt.LabelTracker("y", "ce", record_to=lt.RecordingOptions(tmp_path / "run", flush_rows=1024)) as tracker:
        tracker.update(["a", "b"], [1.0, 2.0], ids=["i", "j"])
        tracker.flush()
        run = lt.open_run(tmp_path / "run")
        tracker.update(["c", "a"], [3.0, 4.0], ids=["k", "l"])
        tracker.flush()
        report = run.verify(progress=False)
        assert (report.ok, [(one.state, one.rows, one.lost) for one in report.parts]) == (True, [("writing", 4, 0)])
        (before,) = left_out()
        assert "damaged" not in before
        tracker.end_epoch(step)
        tracker.flush()
        assert run.verify(progress=False).ok
        assert left_out() == {before}
    assert left_out() == {before}
    assert lt.open_run(tmp_path / "run").verify(progress=False).ok


def test_rows_that_the_journal_reports_as_lost_are_counted(tmp_path, monkeypatch):
    fail(monkeypatch, PartWriter, "write", lambda part, columns, *_: part.seq == 1 and columns[0].size)
    recording = lt.RecordingOptions(tmp_path / "run", flush_rows=1024, fsync="never")
    tracker = lt.LabelTracker("y", "ce", record_to=recording)
    with pytest.warns(lt.LabelTrackWarning, match="No space left"):
        tracker.update(*batch(2500))
        tracker.end_epoch(1)
        tracker.flush()
        tracker.close()
    (epoch,) = lt.open_run(tmp_path / "run").epochs
    found = verified(tmp_path / "run")
    assert 0 < epoch.lost == found.lost == 2500 - found.rows
    assert f"mode 'train', step 1, session 1, process 0: {epoch.lost} rows could not be recorded" in str(found)
    assert f"{found.rows:,} rows intact, {epoch.lost:,} lost" in str(found)


def test_an_epoch_that_never_ended_is_reported_with_its_rows(tmp_path):
    done_again(tmp_path / "run", [1], unfinished=300)
    found = verified(tmp_path / "run")
    assert found.other == ("mode 'train', step 2 did not end; 300 of its rows are intact",)


@pytest.mark.parametrize("kept", range(20))
def test_a_journal_cut_at_any_line_is_reported_if_that_loses_an_epoch(run, tmp_path, kept):
    shutil.copytree(run[0], tmp_path / "run")
    journal = tmp_path / "run" / "journal-0001-0000.log"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:kept]))
    if kept < len(lines) - 1:  # the last one says that the process ended, which one that was killed does not say
        assert not verified(tmp_path / "run").ok
    ended = sum(b'"event": "epoch"' in line for line in lines[:kept])
    assert sum(epoch.complete for epoch in lt.open_run(tmp_path / "run").epochs) == ended


def test_any_deleted_file_is_reported(tmp_path):
    done_again(tmp_path / "original", [1, 2])
    done_again(tmp_path / "original", [2, 3], unfinished=40)
    done_again(tmp_path / "original", [4, 3])
    assert verified(tmp_path / "original").ok
    names = [path.relative_to(tmp_path / "original") for path in (tmp_path / "original").rglob("*") if path.is_file()]
    names = [name for name in names if name.name[0] != "." and name.name != "run.json"]
    assert len(names) == 3 + 7
    for i, name in enumerate(names):
        shutil.copytree(tmp_path / "original", tmp_path / str(i))
        (tmp_path / str(i) / name).unlink()
        unfinished = name.name == "part-0002-0000-00003-0000.arrow"  # of which nothing else says that it was there
        assert verified(tmp_path / str(i)).ok == unfinished, name


def test_sessions_and_attempts_of_which_nothing_is_left_are_reported(tmp_path):
    done_again(tmp_path / "run", [1, 2])
    done_again(tmp_path / "run", [2, 3])
    done_again(tmp_path / "run", [4])
    for path in [*(tmp_path / "run").glob("**/*-0002-0000*")]:
        path.unlink()
    found = verified(tmp_path / "run")
    assert found.other == ("nothing is left of session 2",)
    done_again(tmp_path / "other", [1, 2, 3])
    journal = tmp_path / "other" / "journal-0001-0000.log"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(line for line in lines if b'"step": 2' not in line))
    next((tmp_path / "other").glob("**/epoch=2/*.arrow")).unlink()
    assert "nothing is left of attempt 2 of session 1, process 0 in mode 'train'" in verified(tmp_path / "other").other


def test_a_description_alone_is_not_an_intact_run(tmp_path):
    done_again(tmp_path / "run", [1])
    shutil.rmtree(tmp_path / "run" / "mode=train")
    (tmp_path / "run" / "journal-0001-0000.log").unlink()
    assert verified(tmp_path / "run").other == ("there is neither a journal nor a part",)


def test_samples_that_were_never_written_are_missed(tmp_path):
    code = (
        "import os, sys, labeltrack as lt\n"
        "tracker = lt.LabelTracker('y', 'ce', record_to=sys.argv[1])\n"
        "tracker.update([1, 2], [1.0, 2.0])\n"
        "tracker.flush() if sys.argv[2] == 'flush' else tracker._recorder.flush()\n"
        "os._exit(0)\n"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "run", "keep"], check=True)
    found = verified(tmp_path / "run")
    assert found.other == ("nothing is left of the samples of session 1, process 0 in mode 'train'",)
    done_again(tmp_path / "run", [1])
    assert verified(tmp_path / "run").ok


def test_a_large_gap_between_numbers_takes_one_line(tmp_path):
    done_again(tmp_path / "run", [1])
    part = next((tmp_path / "run").glob("**/*.arrow"))
    shutil.copy(part, part.with_name("part-999999999-0000-999999999-999999999.arrow"))
    report = str(verified(tmp_path / "run"))
    assert "nothing is left of session 2 to 999999998" in report
    assert "nothing is left of attempt 1 to 999999998 of session 999999999" in report
    assert "part 0 to 999999998 of ds_id '' is missing" in report


def complete_rows(opened):
    """Return the values of every complete epoch."""
    return {
        (epoch.mode, epoch.step, ds_id): opened.samples([epoch.mode], epoch.step, [ds_id])["value"].to_pylist()
        for epoch in opened.epochs
        if epoch.complete
        for ds_id in epoch.ds_ids
    }


@pytest.mark.filterwarnings("ignore::labeltrack.LabelTrackWarning")
@pytest.mark.parametrize("seed", range(3 if QUICK else 20))
def test_rows_that_count_never_vanish_or_change_unreported(tmp_path, seed):
    rng = np.random.default_rng(seed)
    for session in range(int(rng.integers(1, 4))):
        with lt.LabelTracker("y", "ce", record_to=lt.RecordingOptions(tmp_path / "run", fsync="never")) as tracker:
            for step in range(1, int(rng.integers(2, 5))):
                for mode, labels in (("train", [1, 2]), ("eval", ["cat", "dog"])):
                    for ds_id in ("", "b")[: int(rng.integers(3))]:
                        tracker.update(labels * 50, np.full(100, 10.0 * session + step), mode=mode, ds_id=ds_id)
                    tracker.end_epoch(step, mode=mode, replace=True)
    right = complete_rows(lt.open_run(tmp_path / "run"))
    assert lt.open_run(tmp_path / "run").verify(progress=False).ok
    files = [path.relative_to(tmp_path / "run") for path in (tmp_path / "run").rglob("*") if path.is_file()]
    files = [path for path in files if path.name[0] != "." and path.name != "run.json"]
    for i in range(20):
        copy = tmp_path / f"copy{i}"
        shutil.copytree(tmp_path / "run", copy)
        # Not journals and parts together: what only the end of a journal knows may vanish without a trace.
        kind = ".log" if rng.random() < 0.5 else ".arrow"
        some = [path for path in files if path.suffix == kind]
        for path in some and rng.choice(some, min(len(some), int(rng.integers(1, 3))), replace=False):
            content = (copy / path).read_bytes()
            lines = content.splitlines(keepends=True)
            if rng.random() < 0.5:
                (copy / path).unlink()
            elif path.suffix == ".log":
                (copy / path).write_bytes(b"".join(lines[: rng.integers(len(lines))]))
            else:
                (copy / path).write_bytes(content[: rng.integers(len(content))])
        opened = lt.open_run(copy)
        assert complete_rows(opened) == right or not opened.verify(progress=False).ok, (seed, i)


# -- single parts -----------------------------------------------------------------------------------------


@pytest.fixture(name="copy")
def _copy(run, tmp_path):
    shutil.copytree(run[0], tmp_path / "run")
    return tmp_path / "run"


def first_part(path):
    return min(path.glob("mode=train/**/*.arrow"))


def left_open(path, content):
    """Give a part the name and the bytes that a crash left."""
    part = first_part(path)
    part.rename(part.with_name(part.name + ".open"))
    part = part.with_name(part.name + ".open")
    part.write_bytes(content)
    return part


def bad_parts(path):
    return [(part.state, part.message) for part in verified(path).parts if part.state != "intact"]


def test_a_journal_cut_within_a_line_is_reported(copy):
    journal = copy / "journal-0001-0000.log"
    journal.write_bytes(journal.read_bytes()[:-10])
    assert verified(copy).other == ("journal-0001-0000.log ends within a line, as after a crash",)


def test_a_closed_part_that_was_not_renamed_is_repaired(copy):
    content = first_part(copy).read_bytes()
    part = left_open(copy, content)
    assert bad_parts(copy) == [("torn", "it was closed but not renamed")]
    assert lt.open_run(copy).repair() == [str(part.relative_to(copy))]
    assert verified(copy).rows == 3210
    assert not part.exists()


def test_an_open_part_with_a_wrong_checksum_is_not_repaired(copy):
    content = bytearray(first_part(copy).read_bytes())
    content[examine(FileContent(first_part(copy))).batches[0].columns[1] + 3] ^= 1
    part = left_open(copy, content)
    assert [state for state, _ in bad_parts(copy)] == ["corrupt"]
    assert lt.open_run(copy).repair() == []
    assert part.read_bytes() == content


def test_a_repair_that_fails_leaves_the_torn_part(copy, monkeypatch):
    content = first_part(copy).read_bytes()
    part = left_open(copy, content[: len(content) * 4 // 5])
    opened = lt.open_run(copy)
    fail(monkeypatch, PartWriter, "write", times=1)
    with pytest.raises(OSError, match="No space left"):
        opened.repair()
    assert list(part.parent.iterdir()) == [part]
    assert opened.repair() == [str(part.relative_to(copy))]
    assert verified(copy).lost > 0


def test_a_part_that_vanishes_after_the_run_was_opened_is_reported(tmp_path):
    done_again(tmp_path / "run", [1], unfinished=300)
    opened = lt.open_run(tmp_path / "run")
    for part in (tmp_path / "run").glob("mode=train/**/epoch=2/*"):
        part.rename(tmp_path / "elsewhere")
        part.mkdir()
    (bad,) = [part for part in opened.verify(progress=False).parts if part.state != "intact"]
    assert (bad.state, bad.rows) == ("corrupt", 0)
    assert bad.message.startswith("it cannot be read: ")


def test_too_many_open_files_are_an_error_and_not_damage(copy, monkeypatch):
    done_again(copy, [3], unfinished=300)
    opened = lt.open_run(copy)
    exhausted = OSError(errno.EMFILE, "Too many open files")
    fail(monkeypatch, LocalFolder, "content", error=exhausted)
    for read in (opened.samples, lambda: opened.recompute(progress=False), lambda: opened.verify(progress=False)):
        with pytest.raises(OSError, match="Too many open files"):
            read()
    monkeypatch.undo()
    assert opened.samples(step=3).num_rows == 400  # the last epoch is left out, which is asked of its part
    fail(monkeypatch, LocalFolder, "content", error=exhausted)
    with pytest.raises(OSError, match="Too many open files"):
        opened.samples(step=opened.epochs[-1].step)  # it is left out, and asked whether it ended


def test_a_part_whose_labels_are_not_of_the_kind_that_it_says_is_refused(copy):
    path = first_part(copy)
    part = examine(FileContent(path))
    path.unlink()
    metadata = {key: text for key, text in part.metadata.items() if key != "hash"} | {"kind": "float"}
    writer = PartWriter(path, {"label": "i4", "value": "f4"}, metadata)
    for one in part.batches:
        writer.write(part.read(one)[0])
    writer.close(sync=False)
    writer.open_path.rename(path)
    assert bad_parts(copy) == [("corrupt", "it has 'float' labels in a column of type i4")]


def test_a_journal_of_which_no_epoch_had_ended_is_not_rebuilt(tmp_path):
    done_again(tmp_path / "run", [], unfinished=300)
    (tmp_path / "run" / "journal-0001-0000.log").unlink()
    assert lt.open_run(tmp_path / "run").repair() == []


def test_a_journal_is_not_rebuilt_from_damaged_parts(copy):
    for part in copy.glob("mode=*/**/*.arrow"):
        part.write_bytes(part.read_bytes()[: part.stat().st_size // 2])
    (copy / "journal-0001-0000.log").unlink()
    assert lt.open_run(copy).repair() == []


@pytest.mark.parametrize("damage", [lambda content: content[:-20], lambda content: content[:-100] + bytes(1) * 100])
def test_a_damaged_footer_is_written_anew_where_no_journal_has_the_checksum_of_its_file(tmp_path, damage):
    done_again(tmp_path / "run", [1, 2])
    before = lt.open_run(tmp_path / "run").samples(columns=["label", "value", "step"]).to_pydict()
    path = first_part(tmp_path / "run")
    path.write_bytes(damage(path.read_bytes()))
    (tmp_path / "run" / "journal-0001-0000.log").unlink()
    opened = lt.open_run(tmp_path / "run")
    assert opened.repair() == ["journal-0001-0000.log"]
    assert {part.state for part in verified(tmp_path / "run").parts} == {"intact"}
    assert opened.samples(columns=["label", "value", "step"]).to_pydict() == before
    with pa.ipc.open_file(path) as file:
        assert file.read_all()["value"].to_pylist() == before["value"][:400]
    assert sorted(one.suffix for one in path.parent.iterdir()) == [".arrow"]


def test_a_rebuilt_journal_knows_datasets_that_ended_one_step_one_after_the_other(tmp_path):
    with lt.LabelTracker("y", "ce", record_to=tmp_path / "run") as tracker:
        for step, ds_id, replace in (
            (1, "a", False),
            (1, "b", False),
            (1, "c", False),
            (2, "a", False),
            (2, "b", True),
        ):
            tracker.update([0, 1], [step, 2.0], mode="eval", ds_id=ds_id)
            tracker.end_epoch(step, mode="eval", replace=replace)
    (tmp_path / "run" / "journal-0001-0000.log").unlink()
    run = lt.open_run(tmp_path / "run")
    assert run.repair() == ["journal-0001-0000.log"]
    again = run.recompute(progress=False)
    assert [list(again.datasets(step, "eval")) for step in (1, 2)] == [["a", "b", "c"], ["b"]]
