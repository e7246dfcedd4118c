"""The journal: lines come back, damage is found, what cannot be written leaves nothing behind."""

from __future__ import annotations

import io
import json
import os
import shutil

import pytest

from labeltrack.recording import journal as _journal
from labeltrack.recording.journal import Journal, read_journal

xxhash = pytest.importorskip("xxhash", reason="xxhash is not installed (extra 'record')")


def written(path, n=5):
    journal = Journal(path)
    for i in range(n):
        journal.append("thing", sync=i == 2, number=i, text="ä\n")
    journal.close(sync=True)
    journal.close(sync=True)
    return path.read_bytes()


def lines(content):
    return read_journal(io.BytesIO(content))


def test_lines_come_back(tmp_path):
    content = written(tmp_path / "journal")
    found = lines(content)
    assert [(line["seq"], line["event"], line["number"], line["text"]) for line in found.lines] == [
        (i, "thing", i, "ä\n") for i in range(5)
    ]
    assert (found.torn, found.damage) == (False, [])
    for raw in content.splitlines():
        assert raw[:16].decode() == xxhash.xxh3_64_hexdigest(raw[17:])
    with pytest.raises(FileExistsError):
        Journal(tmp_path / "journal")


def test_a_line_that_is_cut_off_is_torn_and_no_damage(tmp_path):
    content = written(tmp_path / "journal")
    ends = [i + 1 for i, byte in enumerate(content) if byte == ord("\n")]
    for size in range(len(content)):
        found = lines(content[:size])
        assert len(found.lines) == sum(end <= size for end in ends)
        assert found.torn is (size not in (0, *ends))
        assert found.damage == []


def test_a_changed_byte_costs_its_line_and_is_told_of(tmp_path):
    content = written(tmp_path / "journal")
    whole = lines(content).lines
    for place in range(len(content)):
        changed = bytearray(content)
        changed[place] ^= 1
        found = lines(bytes(changed))
        assert all(line in whole for line in found.lines)
        assert len(found.lines) >= 3
        assert found.damage or found.torn


def test_missing_and_repeated_lines_are_told_of(tmp_path):
    first, second, third, *_ = written(tmp_path / "journal").splitlines(keepends=True)
    assert lines(first + third).damage == ["lines 1 to 1 are missing"]
    again = lines(first + second + first)
    assert again.damage == ["line 0 is there a second time"]
    assert len(again.lines) == 2


@pytest.mark.parametrize(
    "text", ["[]", "{}", '{"seq": "0", "event": "x"}', '{"seq": 0, "event": 1}', "{", "[" * 100_000]
)
def test_a_line_that_is_no_line_of_a_journal_is_damage(text):
    raw = text.encode()
    found = lines(f"{xxhash.xxh3_64_hexdigest(raw)} ".encode() + raw + b"\n")
    assert found.lines == []
    assert len(found.damage) == 1


def test_noise_is_given_up_soon(monkeypatch):
    assert len(lines(b"noise\n" * 10_000).damage) == _journal.MOST_DAMAGE + 1
    monkeypatch.setattr(_journal, "LARGEST_LINE", 100)
    assert lines(b"x" * 1000).damage == ["a line of more than 100 bytes after 0 lines"]


def test_a_line_that_cannot_be_written_leaves_nothing_behind(tmp_path, monkeypatch):
    path = tmp_path / "journal"
    journal = Journal(path)
    journal.append("first", sync=False)
    write = os.write

    def half(fd, data):
        write(fd, bytes(data)[:7])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", half)
    with pytest.raises(OSError, match="No space left"):
        journal.append("second", sync=False)
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, bytes(data)[:7]))  # a few at a time
    journal.append("third", sync=True)
    journal.close(sync=False)
    found = lines(path.read_bytes())
    assert [(line["seq"], line["event"]) for line in found.lines] == [(0, "first"), (1, "third")]
    assert (found.torn, found.damage) == (False, [])
    assert json.loads(path.read_bytes().splitlines()[1][17:])["event"] == "third"


def test_a_journal_that_was_deleted_is_written_anew_with_all_its_lines(tmp_path):
    journal = Journal(tmp_path / "journal")
    for i in range(3):
        journal.append("x", sync=False, i=i)
    (tmp_path / "journal").unlink()
    journal.append("x", sync=False, i=3)
    assert not journal.ensure_present()
    (tmp_path / "journal").unlink()
    assert journal.ensure_present()
    journal.append("x", sync=False, i=4)
    journal.close(sync=False)
    found = lines((tmp_path / "journal").read_bytes())
    assert ([line["i"] for line in found.lines], found.damage) == ([0, 1, 2, 3, 4], [])


@pytest.mark.parametrize("how", ["deleted", "moved", "replaced", "its folder was moved", "its folder was replaced"])
def test_a_journal_that_is_not_where_it_was_is_told_of(tmp_path, how):
    path = tmp_path / "run" / "journal"
    path.parent.mkdir()
    journal = Journal(path)
    if how == "deleted":
        shutil.rmtree(path.parent)
    elif how == "moved":
        path.rename(tmp_path / "elsewhere")
    elif how == "replaced":
        path.unlink()
        path.write_text("another's")
    else:
        path.parent.rename(tmp_path / "old")
        if how == "its folder was replaced":
            path.parent.mkdir()
            path.write_text("another's")
    with pytest.raises(FileNotFoundError, match="journal was deleted, moved or replaced"):
        journal.ensure_present()
    assert not path.exists() or path.read_text() == "another's"
    journal.close(sync=False)
