"""The progress bar: on a terminal, after a second, and only if wanted."""

from __future__ import annotations

import io
import sys
import threading

import pytest

from labeltrack.recording import reader
from labeltrack.recording.reader import Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def shown(monkeypatch, patience, stream, **options):
    monkeypatch.setattr(reader, "PATIENCE", patience)
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    with Progress("Reading", 1000, "rows", **options) as bar:
        threads = [threading.Thread(target=bar.advance, args=(100,)) for _ in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return stream.getvalue(), bar


def test_a_bar_counts_what_all_threads_have_done(monkeypatch):
    text, bar = shown(monkeypatch, -1, Terminal())
    assert "Reading" in text
    assert "100%" in text
    assert "of 1,000 rows" in text
    assert bar._done == 1000


@pytest.mark.parametrize(
    ("patience", "stream", "options"),
    [(-1, io.StringIO(), {}), (60, Terminal(), {}), (-1, Terminal(), {"wanted": False})],
)
def test_no_bar_is_shown_without_a_terminal_or_if_quick_or_unwanted(monkeypatch, patience, stream, options):
    assert shown(monkeypatch, patience, stream, **options)[0] == ""
