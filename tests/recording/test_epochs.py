"""Which attempts count: sessions, processes, interrupted and repeated epochs, by their journals and names alone."""

from __future__ import annotations

import json

import pytest

from labeltrack.recording.epochs import RunIndex, read_vocabularies
from labeltrack.recording.layout import folder_of, journal_name, part_name
from labeltrack.recording.storage import LocalFolder

xxhash = pytest.importorskip("xxhash", reason="xxhash is not installed (extra 'record')")


class Folder:
    """A run that is made of names and lines."""

    def __init__(self, path):
        self.path = path
        self.lines = {}

    def begin(self, session, rank=0, size=1):
        self.say(session, rank, "begin", session=session, rank=rank, world_size=size, run={})

    def say(self, session, rank, event, /, **said):
        lines = self.lines.setdefault((session, rank), [])
        text = json.dumps({"seq": len(lines), "event": event, **said}).encode()
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


def test_an_epoch_with_lost_rows_is_not_complete_and_counts_still(folder):
    folder.begin(1)
    folder.end(1, 0, 1, 1, lost=3)
    assert folder.epochs() == {("train", 1): (False, [(1, 0, 1)], [])}


def test_samples_that_were_given_up_do_not_count(folder):
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
def test_a_process_that_left_an_epoch_out_is_not_waited_for(folder, how):
    two_ranks(folder, 1)
    folder.end(1, 0, 1, 1)
    if how == "a later epoch":
        folder.end(1, 1, 1, 2)
    else:
        folder.say(1, 1, "end")
    assert folder.epochs()["train", 1] == (True, [(1, 0, 1)], [])


def test_launches_are_not_mixed(folder):
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


def test_words_must_follow_each_other(folder):
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
    assert {number: known.tolist() for number, known in own.words.items()} == {"1": ["a", "b"], "2": [b"\xff\x00"]}
    assert foreign.words == {}
    (damage,) = index.damage.values()
    assert [text.partition(":")[0] for text in damage] == [f"line {i} makes no sense" for i in (4, 5, 6)]
    again = read_vocabularies(LocalFolder(folder.path), journal_name(1, 0))
    assert {number: known.tolist() for number, known in again.items()} == {"1": ["a", "b"], "2": [b"\xff\x00"]}
