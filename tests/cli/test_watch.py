"""``labeltrack watch``: it follows a run that another process records, whatever happens to that process."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from test_cli import COLOURS, ENTRY, invoke, plain, refusal

import labeltrack as lt
from labeltrack.cli.watch import Watched

pytest.importorskip("pyarrow", reason="pyarrow is not installed (extra 'record')")
pytest.importorskip("scipy", reason="scipy is not installed (extra 'stats')")

RECORDER = """
import sys
import numpy as np
import labeltrack as lt

path, first, last, killed = sys.argv[1], *map(int, sys.argv[2:])
labels = np.tile(["cat", "dog"], 100)
options = lt.RecordingOptions(path, flush_rows=1024)
with lt.LabelTracker("animal", "loss", record_to=options) as tracker:
    for step in range(first, last + 1):
        rng = np.random.default_rng(step)
        for _ in range(5):
            tracker.update(labels, rng.normal(step * (labels == "dog"), 0.1), mode="eval")
        if step == killed:
            tracker.flush()
            print("half of", step, flush=True)
            sys.stdin.readline()
        tracker.end_epoch(step, mode="eval")
        print("ended", step, flush=True)
        sys.stdin.readline()
"""
ENVIRONMENT = {name: value for name, value in os.environ.items() if name not in COLOURS} | {"PYTHONIOENCODING": "utf-8"}


@pytest.fixture(name="start")
def _start():
    """Return what starts processes that are killed at the end at the latest."""
    started = []

    def start(*command, **options):
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "encoding": "utf-8"}
        started.append(subprocess.Popen([*map(str, command)], **{**pipes, "env": ENVIRONMENT} | options))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def recorder(start, path, first, last, killed=0):
    return start(sys.executable, "-c", RECORDER, path, first, last, killed)


def go_on(process, said):
    """Let a recorder go on to the next stop, and check what that is."""
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.stdout.readline().strip() == said


def read_until(stream, text):
    lines = []
    while not (lines and text in lines[-1]):
        lines.append(stream.readline())
        assert lines[-1], f"{text!r} did not come after {lines}"
    return lines


def test_it_follows_a_run_through_a_killed_writer_and_disturbs_nothing(start, tmp_path):
    path = tmp_path / "run"
    writer = recorder(start, path, 1, 9, killed=3)
    assert writer.stdout.readline().strip() == "ended 1"
    watcher = start(*ENTRY["module"], "watch", path, "--interval", 0.05, "--idle", 60)
    first = "".join(read_until(watcher.stdout, "step 1, worst mean first"))
    assert str(path) in first
    go_on(writer, "ended 2")
    shown = read_until(watcher.stdout, "since step 1")
    assert any("step 2, worst mean first" in line for line in shown)
    assert "worse: dog (+" in shown[-1]
    go_on(writer, "half of 3")
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    time.sleep(0.3)
    assert watcher.poll() is None
    second = recorder(start, path, 3, 4)  # the epoch is repeated
    assert second.stdout.readline().strip() == "ended 3"
    read_until(watcher.stdout, "since step 2")
    go_on(second, "ended 4")
    last = read_until(watcher.stdout, "since step 3")
    go_on(second, "")
    assert second.wait() == 0
    mean = re.search(r"^> +dog +500 +(\S+)", "".join(last), re.MULTILINE)[1]
    watcher.send_signal(signal.SIGINT)
    assert watcher.wait(20) == 0
    run = lt.open_run(path)
    history = run.recompute(progress=False)
    assert history.steps("eval") == [1, 2, 3, 4]
    assert float(mean) == pytest.approx(history.at(4)["dog"].mean, abs=1e-3)
    labels = np.tile(["cat", "dog"], 100)
    for step in (1, 2, 3, 4):
        rng = np.random.default_rng(step)
        values = [rng.normal(step * (labels == "dog"), 0.1) for _ in range(5)]
        wanted = lt.label_stats(np.tile(labels, 5), np.concatenate(values))
        assert history.at(step).mean.tolist() == wanted.mean.tolist()


def test_in_a_terminal_it_draws_in_place_and_ends_with_an_interrupt(start, tmp_path):
    path = tmp_path / "run"
    writer = recorder(start, path, 1, 2)
    assert writer.stdout.readline().strip() == "ended 1"
    ours, theirs = pty.openpty()
    terminal = {"stdin": theirs, "stdout": theirs, "stderr": theirs, "env": ENVIRONMENT | {"TERM": "xterm"}}
    watcher = start(*ENTRY["module"], "watch", path, "--interval", 0.05, **terminal)
    os.close(theirs)
    seen = ""

    def read(until):
        nonlocal seen
        limit = time.monotonic() + 60
        while until not in plain(seen):
            assert time.monotonic() < limit, seen
            if select.select([ours], [], [], 1)[0]:
                seen += os.read(ours, 65536).decode()

    read("step 1, worst mean first")
    go_on(writer, "ended 2")
    read("since step 1")
    assert re.search(r"\x1b\[\d*A", seen)  # the cursor goes up, to draw over what was there
    watcher.send_signal(signal.SIGINT)
    with contextlib.suppress(OSError):  # when its end of the terminal is closed
        while select.select([ours], [], [], 20)[0]:
            os.read(ours, 65536)
    assert watcher.wait(20) == 0
    os.close(ours)


def record(path, steps, **options):
    with lt.LabelTracker("y", "loss", record_to=path, **options) as tracker:
        for step in steps:
            for mode in ("train", "eval"):
                tracker.update([0] * 30 + [1] * 30, np.arange(60) % 30 + step, mode=mode)
                tracker.end_epoch(step, mode=mode)
    return path


def test_it_stops_when_nothing_was_written_for_long(tmp_path):
    path = record(tmp_path / "run", [1, 2])
    begun = time.monotonic()
    result = invoke("watch", path, "--interval", "0.01", "--idle", "0.3")
    assert result.exit_code == 0, result.output
    assert 0.1 < time.monotonic() - begun < 60
    assert "eval, step 2, worst mean first" in result.stdout
    assert result.stdout.count("worst mean first") == 1  # nothing was new


def test_changes_are_those_of_the_same_samples(tmp_path):
    path = record(tmp_path / "run", [1, 2])
    result = invoke("watch", path, "--interval", "0.01", "--idle", "0.01")
    assert "since step 1: worse: 0 (+6.5%), 1 (+6.5%)" in result.stdout
    assert lt.open_run(path).recompute(progress=False).compare(1, 2).worse() == []  # statistics do not show it
    again = record(tmp_path / "again", [2])
    with lt.LabelTracker("y", "loss", record_to=again) as tracker:
        tracker.update([0] * 30 + [1] * 30, np.arange(60) % 30 + 2, mode="eval")
        tracker.end_epoch(3, mode="eval")
    result = invoke("watch", again, "--interval", "0.01", "--idle", "0.01")
    assert "since step 2: no label changed by more than noise" in result.stdout


def test_a_label_whose_loss_is_no_longer_a_number_is_worse_by_no_percentage(tmp_path):
    with lt.LabelTracker("y", "loss", record_to=tmp_path / "run") as tracker:
        for step, value in ((1, 1.0), (2, np.nan)):
            tracker.update(["cat"] * 30 + ["dog"] * 30, np.r_[np.full(30, value), np.arange(30.0)], mode="eval")
            tracker.end_epoch(step, mode="eval")
    result = invoke("watch", tmp_path / "run", "--interval", "0.01", "--idle", "0.01")
    assert "since step 1: worse: cat\n" in result.stdout
    assert "nan%" not in result.stdout


def test_a_report_is_renewed_at_each_epoch(tmp_path):
    path, page = record(tmp_path / "run", [1]), tmp_path / "page.html"
    watched = Watched(str(path), None, by="mean", limit=3, higher_is_worse=True)
    assert watched.look()
    watched.report(page)
    first = page.read_text()
    record(path, [2])
    result = invoke("watch", path, "--interval", "0.01", "--idle", "0.01", "--html", page)
    assert result.exit_code == 0, result.output
    assert page.read_text() != first
    assert "must end in .html" in refusal(invoke("watch", path, "--html", tmp_path / "page.pdf"))


def test_before_any_epoch_it_says_so(tmp_path):
    with lt.LabelTracker("y", "loss", record_to=tmp_path) as tracker:
        tracker.update([0], [1.0])
        tracker.flush()
        watched = Watched(str(tmp_path), None, by="mean", limit=3, higher_is_worse=True)
        assert not watched.look()
        assert "no epoch has ended yet" in str(watched.shown())
        assert "train 1 not ended" in str(watched.shown())


def test_a_mode_is_awaited_and_eval_is_shown_once_it_is_there(tmp_path):
    with lt.LabelTracker("y", "loss", record_to=tmp_path) as tracker:
        tracker.update([0], [1.0])
        tracker.end_epoch(1)
        tracker.flush()
        watched = Watched(str(tmp_path), None, by="mean", limit=3, higher_is_worse=True)
        awaiting = Watched(str(tmp_path), "eval", by="mean", limit=3, higher_is_worse=True)
        assert (watched.look(), awaiting.look()) == (True, False)
        assert "train, step 1" in str(watched.shown().renderables[1].title)
        assert "no epoch of mode 'eval' has ended yet" in str(awaiting.shown())
        tracker.update([0], [1.0], mode="test")
        tracker.end_epoch(1, mode="test")
        tracker.flush()
        assert not watched.look()
        tracker.update([0], [1.0], mode="eval")
        tracker.end_epoch(1, mode="eval")
        tracker.flush()
        assert (watched.look(), awaiting.look()) == (True, True)
        assert "eval, step 1" in str(watched.shown().renderables[1].title)


def test_a_run_that_cannot_be_read_for_a_moment_is_not_the_end(tmp_path):
    path = record(tmp_path / "run", [1])
    watched = Watched(str(path), "eval", by="mean", limit=3, higher_is_worse=True)
    assert watched.look()
    path.rename(tmp_path / "away")
    assert not watched.look()
    assert "cannot be read now" in str(watched.shown().renderables[0])
    (tmp_path / "away").rename(path)
    assert not watched.look()
    record(path, [2])
    assert watched.look()
    assert "cannot be read" not in str(watched.shown().renderables[0])


def test_samples_that_cannot_be_read_for_a_moment_are_read_later(tmp_path, monkeypatch):
    path = record(tmp_path / "run", [1])
    watched = Watched(str(path), "eval", by="mean", limit=3, higher_is_worse=True)
    assert watched.look()
    record(path, [2])
    with monkeypatch.context() as patched:
        patched.setattr(lt.Run, "samples", away)
        assert not watched.look()
    assert "cannot be read now: the disk is away" in str(watched.shown().renderables[0])
    assert watched.look()
    assert "eval, step 2" in str(watched.shown().renderables[1].title)
    assert "cannot be read" not in str(watched.shown().renderables[0])


def away(*_args, **_options):
    msg = "the disk is away"
    raise OSError(msg)


def test_an_epoch_that_is_repeated_is_read_again(tmp_path):
    path = record(tmp_path / "run", [1])
    watched = Watched(str(path), None, by="mean", limit=3, higher_is_worse=True)
    assert watched.look()
    with lt.LabelTracker("y", "loss", record_to=path) as tracker:
        tracker.update([7] * 30, np.ones(30), mode="eval")
        tracker.end_epoch(1, mode="eval")
    assert watched.look()
    assert "7" in {str(cell) for cell in watched.shown().renderables[1].columns[1].cells}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--by", "middle"), "unknown statistic 'middle'"),
        (("--interval", "0"), "--interval and -k must be positive"),
        (("-k", "0"), "--interval and -k must be positive"),
    ],
)
def test_a_mistake_is_one_line(tmp_path, options, said):
    path = record(tmp_path / "run", [1])
    assert said in refusal(invoke("watch", path, *options))
    assert "no recorded run" in refusal(invoke("watch", tmp_path / "nowhere"))
