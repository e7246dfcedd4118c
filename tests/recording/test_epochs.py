"""Which epochs count and which are read: sessions, processes, interrupted, repeated and incomplete epochs."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
from test_cli import invoke

import labeltrack as lt
from labeltrack.recording.epochs import RunIndex, read_vocabularies
from labeltrack.recording.layout import folder_of, journal_name, part_name
from labeltrack.recording.storage import LocalFolder

xxhash = pytest.importorskip("xxhash", reason="xxhash is not installed (extra 'record')")


class Folder:
    """A run that consists of file names and journal lines."""

    def __init__(self, path):
        self.path = path
        self.lines = {}

    def begin(self, session, rank=0, size=1):
        self.say(session, rank, "begin", session=session, rank=rank, world_size=size, run={})

    def say(self, session, rank, event, /, **fields):
        lines = self.lines.setdefault((session, rank), [])
        text = json.dumps({"seq": len(lines), "event": event, **fields}).encode()
        lines.append(f"{xxhash.xxh3_64_hexdigest(text)} ".encode() + text + b"\n")
        (self.path / journal_name(session, rank)).write_bytes(b"".join(lines))

    def part(self, session, rank, attempt, step, mode="train", ending=""):
        folder = self.path / folder_of(mode, "", step)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / (part_name(session, rank, attempt, 0) + ending)).touch()

    def end(self, session, rank, attempt, step, mode="train", lost=0):
        self.part(session, rank, attempt, step, mode)
        part = {"name": part_name(session, rank, attempt, 0), "rows": 5, "xxh3": ""}
        stream = {"ds_id": "", "rows": 5, "lost": lost, "parts": [part]}
        self.say(session, rank, "epoch", mode=mode, step=step, attempt=attempt, streams=[stream])

    def epochs(self):
        return {
            (epoch.mode, epoch.step): (
                epoch.complete,
                [(one.session, one.rank, one.number) for one in epoch.attempts],
                [(one.session, one.rank, one.number) for one in epoch.others],
            )
            for epoch in self.index().epochs
        }

    def index(self):
        return RunIndex(LocalFolder(self.path))


@pytest.fixture(name="folder")
def _folder(tmp_path):
    return Folder(tmp_path)


def test_the_newest_complete_attempt_counts(folder):
    folder.begin(1)
    folder.end(1, 0, 1, 1)
    folder.end(1, 0, 2, 2)
    folder.end(1, 0, 3, 1)  # done again
    folder.part(1, 0, 4, 2, ending=".open")  # torn
    folder.begin(2)
    folder.end(2, 0, 1, 2)
    folder.part(2, 0, 2, 3, ending=".open")
    assert folder.epochs() == {
        ("train", 1): (True, [(1, 0, 3)], [(1, 0, 1)]),
        ("train", 2): (True, [(2, 0, 1)], [(1, 0, 2), (1, 0, 4)]),
        ("train", 3): (False, [(2, 0, 2)], []),
    }
    assert [epoch.step for epoch in folder.index().epochs] == [1, 2, 3]
    assert folder.index().sessions == 2


def test_datasets_that_end_a_step_one_after_the_other_are_those_of_the_history(tmp_path):
    rng = np.random.default_rng(0)
    with lt.LabelTracker("y", "ce", record_to=tmp_path / "run") as tracker:
        for n in range(60):
            step, replace = int(rng.integers(1, 12)), bool(n % 3 == 0)
            there = set(tracker.history.datasets(step, "eval"))
            free = sorted({"a", "b", "c", "d"} - (set() if replace else there))
            for ds_id in rng.permutation(free)[: rng.integers(0, 3)].tolist():
                tracker.update(rng.integers(0, 3, 10), rng.random(10), mode="eval", ds_id=ds_id)
            tracker.end_epoch(step, mode="eval", replace=replace)
        tracker.update([0], [1.0], mode="eval", ds_id="a")
        tracker.end_epoch(99, mode="eval")
        tracker.update([0], [1.0], mode="eval", ds_id="a")
        with pytest.raises(ValueError, match="replace=True"):
            tracker.end_epoch(99, mode="eval")
        tracker.reset(mode="eval")
    run = lt.open_run(tmp_path / "run")
    again = run.recompute(progress=False)
    assert run.verify(progress=False).ok
    assert sorted(again.steps("eval")) == sorted(tracker.history.steps("eval"))
    for step in again.steps("eval"):
        one, other = (
            {of: each.sum.tolist() for of, each in h.datasets(step, "eval").items()} for h in (tracker.history, again)
        )
        assert one == other


def test_an_epoch_with_lost_rows_is_incomplete_but_counts(folder):
    folder.begin(1)
    folder.end(1, 0, 1, 1, lost=3)
    assert folder.epochs() == {("train", 1): (False, [(1, 0, 1)], [])}


def test_events_of_later_versions_are_ignored(folder):
    folder.begin(1)
    folder.say(1, 0, "weather", temperature=21)
    folder.end(1, 0, 1, 1)
    assert folder.epochs() == {("train", 1): (True, [(1, 0, 1)], [])}
    assert not folder.index().damage


def test_discarded_samples_do_not_count(folder):
    folder.begin(1)
    folder.part(1, 0, 1, 1)
    folder.say(1, 0, "reset", mode="train", attempt=1)
    assert folder.epochs() == {("train", 1): (False, [], [(1, 0, 1)])}
    folder.end(1, 0, 2, 1)
    assert folder.epochs() == {("train", 1): (True, [(1, 0, 2)], [(1, 0, 1)])}


def two_ranks(folder, session):
    for rank in (0, 1):
        folder.begin(session, rank, 2)
        folder.say(session, rank, "stream", mode="train", ds_id="")


def test_an_epoch_waits_for_every_process_that_takes_part(folder):
    two_ranks(folder, 1)
    folder.end(1, 0, 1, 1)
    assert folder.epochs()["train", 1][0] is False  # the other is still at it
    folder.end(1, 1, 1, 1)
    folder.end(1, 0, 1, 1, mode="eval")  # in which the other takes no part
    assert folder.epochs() == {
        ("train", 1): (True, [(1, 0, 1), (1, 1, 1)], []),
        ("eval", 1): (True, [(1, 0, 1)], []),
    }


@pytest.mark.parametrize("how", ["a later epoch", "an orderly end"])
def test_an_epoch_does_not_wait_for_a_process_that_skipped_it(folder, how):
    two_ranks(folder, 1)
    folder.end(1, 0, 1, 1)
    if how == "a later epoch":
        folder.end(1, 1, 1, 2)
    else:
        folder.say(1, 1, "end")
    assert folder.epochs()["train", 1] == (True, [(1, 0, 1)], [])


def test_sessions_are_not_mixed(folder):
    two_ranks(folder, 1)
    two_ranks(folder, 2)
    for rank in (0, 1):
        folder.end(1, rank, 1, 1)
    folder.end(2, 0, 1, 1)
    folder.part(2, 1, 1, 1, ending=".open")
    assert folder.epochs()["train", 1] == (True, [(1, 0, 1), (1, 1, 1)], [(2, 0, 1), (2, 1, 1)])


def test_files_that_the_journal_names_may_be_missing(folder):
    folder.begin(1)
    folder.end(1, 0, 1, 1)
    next(folder.path.glob("mode=train/**/*.arrow")).unlink()
    ((part,),) = [one.parts for epoch in folder.index().epochs for one in epoch.attempts]
    assert part.place is None
    assert part.name == "mode=train/ds_id=/epoch=1/part-0001-0000-00001-0000.arrow"


def test_words_must_continue_the_known_ones(folder):
    folder.begin(1)
    folder.say(1, 0, "words", vocabulary=1, kind="string", first=0, words=["a"])
    folder.say(1, 0, "words", vocabulary=2, kind="bytes", first=0, words=["ff00"])
    folder.say(1, 0, "words", vocabulary=1, kind="string", first=1, words=["b"])
    folder.say(1, 0, "words", vocabulary=1, kind="string", first=3, words=["d"])
    folder.say(1, 0, "words", vocabulary=1, kind="string", first=2, words=[3])
    folder.say(1, 0, "begin", session=2, rank=0, world_size=1, run={})
    index = folder.index()
    folder.part(1, 0, 1, 1)
    folder.part(9, 0, 1, 1)
    foreign, own = [part for epoch in folder.index().epochs for one in epoch.every_attempt for part in one.parts]
    expected = {"1": ["a", "b"], "2": [b"\xff\x00"]}
    assert {number: known.array.tolist() for number, known in own.words.items()} == expected
    assert foreign.words == {}
    (damage,) = index.damage.values()
    assert [text.partition(":")[0] for text in damage] == [f"line {i} makes no sense" for i in (4, 5, 6)]
    again = read_vocabularies(LocalFolder(folder.path), journal_name(1, 0))
    assert {number: known.array.tolist() for number, known in again.items()} == expected


# -- which epochs are read --------------------------------------------------------------------------------

pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed (extra 'record')")
pq = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed (extra 'record')")


def train(path, epochs, *, unfinished=None, start=0):
    """Record epochs of 100 samples whose values identify session and epoch."""
    with lt.LabelTracker("y", "ce", record_to=path) as tracker:
        for step in epochs:
            tracker.update(np.arange(100) % 3, np.full(100, start + step, np.float32))
            tracker.end_epoch(step, replace=True)
        if unfinished:
            tracker.update(np.zeros(unfinished, np.int64), np.ones(unfinished, np.float32))


def without_last(journal, event):
    """Cut a journal before the last line of an event."""
    lines = journal.read_bytes().splitlines(keepends=True)
    last = max(i for i, line in enumerate(lines) if b'"event": "%s"' % event.encode() in line)
    journal.write_bytes(b"".join(lines[:last]))


def with_warnings(action):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = action()
    return result, [str(one.message) for one in caught]


@pytest.fixture(name="unfinished")
def _unfinished(tmp_path):
    train(tmp_path / "run", [1, 2], unfinished=40)
    return tmp_path / "run"


def test_an_epoch_that_did_not_end_is_left_out_with_a_warning_unless_asked_for(unfinished):
    run = lt.open_run(unfinished)
    table, messages = with_warnings(run.samples)
    assert table.num_rows == 200
    assert len(messages) == 1
    assert "did not end" in messages[0]
    assert "'train 3'; incomplete=True" in messages[0]
    assert run.samples(step=[1, 2]).num_rows == 200  # nothing is left out, and nothing is messages
    table, messages = with_warnings(lambda: run.samples(step=3))
    assert (table.num_rows, len(messages)) == (0, 1)
    assert run.samples(incomplete=True).num_rows == 240
    assert run.samples(step=3, incomplete=True).num_rows == 40
    assert run.samples(all_attempts=True).num_rows == 240


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_an_export_has_the_epochs_that_a_recomputation_has(unfinished, tmp_path, ending):
    run = lt.open_run(unfinished)
    out = tmp_path / f"samples.{ending}"
    with pytest.warns(lt.LabelTrackWarning, match="'train 3'; incomplete=True"):
        assert run.export(out, progress=False) == 200
    assert run.export(out, incomplete=True, progress=False) == 240
    with pytest.warns(lt.LabelTrackWarning, match="'train 3'"):
        assert sum(stats.count.sum() for _, stats in run.recompute(progress=False).items()) == 200


def test_the_command_exports_unfinished_epochs_when_asked(unfinished, tmp_path):
    out = tmp_path / "samples.parquet"
    result = invoke("export", unfinished, "-o", out)
    assert result.stdout == f"200 samples written to {out}\n"
    assert "'train 3'; incomplete=True (--incomplete)" in result.stderr
    result = invoke("export", unfinished, "-o", out, "--incomplete")
    assert (result.stdout, result.stderr) == (f"240 samples written to {out}\n", "")
    assert pq.read_table(out)["step"].to_pylist()[-40:] == [3] * 40


def test_an_epoch_with_lost_samples_is_left_out_of_samples_and_recomputations(tmp_path):
    state = lt.LabelTracker("y", "ce", max_buffer_bytes=2000)
    state.update(np.arange(500) % 3, np.ones(500, np.float32))  # more than is kept: some exist as statistics only
    tracker = lt.LabelTracker("y", "ce", record_to=tmp_path / "run")
    with pytest.warns(lt.LabelTrackWarning, match="statistics only"):
        tracker.load_state_dict(state.state_dict())
        tracker.update([1], [1.0])
        tracker.flush()
        tracker.end_epoch(1)
    tracker.close()
    run = lt.open_run(tmp_path / "run")
    assert run.epochs[0].lost > 0
    for read in (run.samples, lambda: run.recompute(progress=False)):
        result, messages = with_warnings(read)
        assert len(result) == 0
        assert "samples could not be recorded, are left out: 'train 1'" in messages[0]


@pytest.mark.parametrize("how", ["cut", "flipped", "deleted"])
def test_a_warning_counts_the_rows_of_an_attempt_that_ended_but_has_no_journal(tmp_path, how):
    path = tmp_path / "run"
    train(path, [1, 2], start=0)
    train(path, [2], start=100)
    journal = path / "journal-0002-0000.log"
    if how == "cut":
        without_last(journal, "epoch")
    elif how == "flipped":
        content = journal.read_bytes()
        place = content.rindex(b'"event": "epoch"')
        journal.write_bytes(content[:place] + b"'" + content[place + 1 :])
    else:
        journal.unlink()
    run = lt.open_run(path)
    for read in (lambda: run.samples(step=2)["value"], lambda: run.recompute(progress=False).at(2).mean):
        values, messages = with_warnings(read)
        assert {float(value) for value in np.asarray(values)} == {2.0}  # those of the older attempt
        assert len(messages) == 1
        assert "100 rows are left out" in messages[0]
        assert "mode 'train', step 2, session 2, process 0: no journal says that it ended (100 rows)" in messages[0]
    everything, messages = with_warnings(lambda: run.samples(step=2, all_attempts=True))
    assert everything["value"].to_pylist() == [2.0] * 100 + [102.0] * 100
    assert "no journal says" not in "".join(messages)


def test_an_interrupted_repetition_of_an_epoch_is_not_damage(tmp_path):
    path = tmp_path / "run"
    train(path, [1, 2])
    train(path, [1], unfinished=30)  # stopped in epoch 2, of which the older attempt counts
    run = lt.open_run(path)
    assert run.samples().num_rows == 200
    assert run.recompute(progress=False).steps() == [1, 2]


@pytest.mark.parametrize(
    "steps",
    [
        [1_764_378_000_123_456_789, 1_764_378_001_123_456_789],  # time.time_ns()
        [2**63 - 2, 2**63 - 1],
        [-(2**63), -(2**63) + 1, 0],
    ],
)
def test_every_step_that_a_tracker_accepts_is_recorded_and_read(tmp_path, steps):
    path = tmp_path / "run"
    with lt.LabelTracker("y", "ce", record_to=path) as tracker:
        for step in steps:
            tracker.update([1, 2], [1.0, 2.0])
            tracker.flush()  # the part is begun where the next step is expected
            tracker.end_epoch(step)
        tracker.update([1, 2], [1.0, 2.0])
    run = lt.open_run(path)
    assert run.recompute(progress=False, incomplete=True).steps()[: len(steps)] == tracker.history.steps()
    for step in steps:
        table = run.samples(step=step, columns=["step", "value"])
        assert table.to_pydict() == {"step": [step] * 2, "value": [1.0, 2.0]}
    verification = run.verify(progress=False)
    assert all(part.state == "intact" for part in verification.parts)


@pytest.mark.parametrize("step", [2**63, -(2**63) - 1, 10**30])
def test_a_step_beyond_64_bits_is_refused_when_the_epoch_ends(tmp_path, step):
    with lt.LabelTracker("y", "ce", record_to=tmp_path / "run") as tracker:
        tracker.update([1, 2], [1.0, 2.0])
        with pytest.raises(ValueError, match=r"step must be from -2\*\*63 to 2\*\*63 - 1"):
            tracker.end_epoch(step)
        assert tracker.end_epoch(1).count.tolist() == [1, 1]
    assert lt.open_run(tmp_path / "run").samples().num_rows == 2
