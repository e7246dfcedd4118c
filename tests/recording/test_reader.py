"""Malicious input is refused or counted as damage, within a second and in little memory; progress is shown."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import struct
import subprocess
import sys
import threading
import warnings

import pytest
import xxhash
from test_run import _run  # noqa: F401 (a fixture)

import labeltrack as lt
from labeltrack.recording import journal as _journal
from labeltrack.recording import reader
from labeltrack.recording.part import examine
from labeltrack.recording.reader import progress_bar
from labeltrack.recording.storage import FileContent

pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed (extra 'record')")


READ = """
try:
    run = lt.open_run(path)
    for epoch in run.epochs:
        run.samples(epoch.mode, step=epoch.step)
    run.recompute(progress=False, incomplete=True, threads=1)
    verification = run.verify(progress=False)
    print("bad" if not verification.ok else "good", verification.rows)
    print(str(verification)[:2000])
except (ValueError, OSError, KeyError, TypeError) as error:
    print("refused", type(error).__name__, str(error)[:500].strip())
"""
LIMITED = """
import json, resource, sys, time, warnings
import labeltrack as lt, labeltrack.recording.run, labeltrack.recording.export, pyarrow, xxhash
warnings.simplefilter("ignore")
lt.label_stats([1], [1.0])
for line in sys.stdin:
    path, read = json.loads(line)
    pages = int(open("/proc/self/statm").read().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * 4096 + 100 * 2**20, resource.RLIM_INFINITY))
    start = time.process_time()
    exec(read)
    print("seconds", time.process_time() - start, flush=True)
"""


@pytest.fixture(scope="module", name="reader")
def _reader():
    """A process with little memory that reads runs, one after the other."""
    command = [sys.executable, "-c", LIMITED]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.stdin.close()
    assert process.returncode == 0


@pytest.fixture(name="examined")
def _examined(reader):
    def examined(path):
        """Read a run in little memory and little time; return what was printed."""
        print(json.dumps([str(path), READ]), file=reader.stdin, flush=True)
        text = []
        while not (line := reader.stdout.readline()).startswith("seconds "):
            assert line, "the process has ended"
            text.append(line.rstrip("\n"))
        assert float(line.split()[1]) < 20  # what is declared would take minutes
        with contextlib.redirect_stdout(io.StringIO()) as out, warnings.catch_warnings(action="ignore"):
            exec(READ, {"lt": lt, "path": path})  # noqa: S102 (the same in this process)
        assert out.getvalue().strip().split("\n") == text
        return "\n".join(text)

    return examined


def signed(description):
    plain = json.dumps(description, sort_keys=True).encode()
    return json.dumps(description | {"xxh3": xxhash.xxh3_64_hexdigest(plain)})


def line(**fields):
    text = json.dumps(fields).encode()
    return f"{xxhash.xxh3_64_hexdigest(text)} ".encode() + text + b"\n"


@pytest.fixture(name="copy")
def _copy(run, tmp_path):
    shutil.copytree(run[0], tmp_path / "run")
    return tmp_path / "run"


def described(path):
    plain = json.loads((path / "run.json").read_text())
    plain.pop("xxh3")
    return plain


def test_an_intact_run_is_read_within_the_limits_of_these_tests(copy, examined):
    assert examined(copy).startswith("good 3210")


def test_a_description_of_absurd_size_is_refused(copy, examined):
    (copy / "journal-0001-0000.log").unlink()
    with (copy / "run.json").open("r+b") as file:
        file.truncate(10 * 2**30)
    assert "refused DamagedRunError" in examined(copy)


@pytest.mark.parametrize(
    "changes",
    [
        {"metric": ["x"] * 1000},
        {"label_mapping": [["a", {"bytes": "0" * 10**6}]] * 3},
        {"dtypes": [[1, 2, 3]]},
        {"version": 10**400},
        {"bounds": [["std"]]},
    ],
)
def test_a_description_that_makes_no_sense_is_refused(copy, changes, examined):
    (copy / "journal-0001-0000.log").unlink()
    (copy / "run.json").write_text(signed(described(copy) | changes), encoding="utf-8")
    assert (
        "refused ValueError" in examined(copy) if "version" in changes else "refused DamagedRunError" in examined(copy)
    )


def test_deep_nesting_is_refused(copy, examined):
    (copy / "run.json").write_text("[" * 10**6, encoding="utf-8")
    journal = copy / "journal-0001-0000.log"
    text = b'{"seq": 0, "event": ' + b"[" * 10**6 + b"]" * 10**6 + b"}"
    journal.write_bytes(f"{xxhash.xxh3_64_hexdigest(text)} ".encode() + text + b"\n")
    assert "refused DamagedRunError" in examined(copy)


def test_a_journal_cannot_refer_to_files_outside_the_folder(copy, tmp_path, examined):
    outside = tmp_path / "mode=train" / "ds_id=" / "epoch=1"
    outside.mkdir(parents=True)
    inside = next(copy.glob("mode=train/ds_id=/epoch=1/*.arrow"))
    shutil.move(inside, outside / inside.name)
    journal = copy / "journal-0001-0000.log"
    for name in (f"../../../../mode=train/ds_id=/epoch=1/{inside.name}", str(outside / inside.name)):
        begin = json.loads(journal.read_bytes().splitlines()[0][17:])
        part = {"name": name, "rows": 1600, "xxh3": ""}
        stream = {"ds_id": "", "rows": 1600, "lost": 0, "parts": [part]}
        journal.write_bytes(
            line(**begin) + line(seq=1, event="epoch", mode="train", step=1, attempt=1, streams=[stream])
        )
        report = examined(copy)
        assert report.startswith("bad")
        assert "missing" in report


@pytest.mark.parametrize(
    "streams",
    [
        3,
        [3],
        [{}],
        [{"ds_id": 3, "rows": 1, "lost": 0, "parts": []}],
        [{"ds_id": "", "rows": -1, "lost": 0, "parts": []}],
    ],
)
def test_a_journal_that_makes_no_sense_is_damage(copy, streams, examined):
    journal = copy / "journal-0001-0000.log"
    before = journal.read_bytes()
    seq = len(before.splitlines())
    journal.write_bytes(before + line(seq=seq, event="epoch", mode="train", step=9, attempt=9, streams=streams))
    report = examined(copy)
    assert report.startswith("bad")
    assert "makes no sense" in report


def test_a_journal_of_nothing_but_noise_is_damage(copy, examined):
    with (copy / "journal-0002-0000.log").open("wb") as file:
        file.truncate(10 * 2**30)  # takes no room
    (copy / "journal-0003-0000.log").write_bytes(b"\n" * 10**6)
    report = examined(copy)
    assert report.startswith("bad")
    assert f"more than {_journal.LARGEST_LINE} bytes" in report


def test_pipes_and_links_are_not_opened(copy, tmp_path, examined):
    first, second = sorted(copy.glob("mode=train/**/*.arrow"))
    shutil.move(first, tmp_path / "secret")
    first.symlink_to(tmp_path / "secret")
    second.unlink()
    os.mkfifo(second)
    report = examined(copy)
    assert report.startswith("bad")
    assert report.count("missing") >= 2
    for name in ("run.json", "journal-0001-0000.log"):
        (copy / name).unlink()
        os.mkfifo(copy / name)
    assert "refused" in examined(copy)


@pytest.mark.parametrize("rows", [2**62, 10 * 2**30 // 8, -5])
def test_a_small_file_that_declares_gigabytes_is_damage(copy, rows, examined):
    name = next(copy.glob("mode=train/**/*.arrow"))
    content = name.read_bytes()
    first = examine(FileContent(name)).batches[0].rows
    changed = content.replace(struct.pack("<q", first), struct.pack("<q", rows))
    assert changed != content
    name.write_bytes(changed)
    report = examined(copy)
    assert report.startswith("bad")
    assert "1,600 lost" in report


def test_a_file_of_nested_columns_is_damage(copy, examined):
    name = next(copy.glob("mode=train/**/*.arrow"))
    nested = pa.int32()
    for _ in range(60):
        nested = pa.struct([("x", nested)])
    table = pa.table({"label": pa.array([None], nested), "value": pa.array([1.0], pa.float32())})
    with pa.OSFile(str(name), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    report = examined(copy)
    assert report.startswith("bad")
    assert "is not one of plain numbers" in report


def test_codes_without_words_are_damage(copy, examined):
    journal = copy / "journal-0001-0000.log"
    changed = []
    for raw in journal.read_bytes().splitlines():
        fields = json.loads(raw[17:])
        if fields["event"] == "words":
            fields["words"] = fields["words"][:1]
        changed.append(line(**fields))
    journal.write_bytes(b"".join(changed))
    report = examined(copy)
    assert report.startswith("bad")
    assert "codes for which the journal has no words" in report


class Terminal(io.StringIO):
    def isatty(self):
        return True


def shown(monkeypatch, patience, stream, **options):
    monkeypatch.setattr(reader, "PATIENCE", patience)
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    with progress_bar("Reading", 1000, "rows", **options) as advance:
        threads = [threading.Thread(target=advance, args=(100,)) for _ in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return stream.getvalue()


def test_a_bar_counts_what_all_threads_have_done(monkeypatch):
    text = shown(monkeypatch, -1, Terminal())
    assert "Reading" in text
    assert "100%" in text
    assert "of 1,000 rows" in text


@pytest.mark.parametrize(
    ("patience", "stream", "options"),
    [(-1, io.StringIO(), {}), (60, Terminal(), {}), (-1, Terminal(), {"wanted": False})],
)
def test_no_bar_is_shown_without_a_terminal_or_if_quick_or_unwanted(monkeypatch, patience, stream, options):
    assert shown(monkeypatch, patience, stream, **options) == ""
