"""How many threads, and slices that make up the whole."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest
from conftest import COMPILED
from exact import fingerprint

from labeltrack import label_stats
from labeltrack._core import threads as _threads
from labeltrack._core.threads import all_at_once, default_threads, in_slices


def test_threads_are_worth_it_only_for_many_samples(monkeypatch):
    monkeypatch.setattr(_threads.os, "sched_getaffinity", lambda _pid: set(range(8)), raising=False)
    assert default_threads(1000) == 1
    assert default_threads(3 << 19) == 3
    assert default_threads(3 << 19, 1 << 20) == 1
    assert default_threads(10**9) == 8
    monkeypatch.delattr(_threads.os, "sched_getaffinity")
    monkeypatch.setattr(_threads.os, "cpu_count", lambda: None)
    assert default_threads(10**9) == 1


@pytest.mark.parametrize("size", [0, 1, 100, 1000, 1001])
def test_slices_make_up_the_whole(monkeypatch, size):
    monkeypatch.setattr(_threads, "_SLOTS_PER_THREAD", 100)
    monkeypatch.setattr(_threads, "available", lambda: 3)
    slices = []
    in_slices(size, lambda start, stop: slices.append((start, stop)))
    assert sorted(i for start, stop in slices for i in range(start, stop)) == list(range(size))
    assert len(slices) == max(1, min(3, size // 100))


def test_an_error_in_a_slice_comes_out(monkeypatch):
    monkeypatch.setattr(_threads, "_SLOTS_PER_THREAD", 1)
    monkeypatch.setattr(_threads, "available", lambda: 2)

    def fail(start: int, _stop: int) -> None:
        if start:
            raise MemoryError

    with pytest.raises(MemoryError):
        in_slices(10, fail)


def test_threads_at_work_together_make_no_more_of_them(monkeypatch):
    monkeypatch.setattr(_threads, "_SLOTS_PER_THREAD", 1)
    monkeypatch.setattr(_threads, "available", lambda: 2)
    slices = []

    def work(number):
        in_slices(10, lambda start, stop: slices.append((number, start, stop)))

    all_at_once(work, [0, 1, 2])
    assert sorted(slices) == [(0, 0, 10), (1, 0, 10), (2, 0, 10)]
    slices.clear()
    all_at_once(work, [0])  # alone, it may
    work(1)  # and so may what comes after
    assert sorted(slices) == [(0, 0, 5), (0, 5, 10), (1, 0, 5), (1, 5, 10)]


@pytest.fixture
def few(monkeypatch):
    """Let the system have no more than one thread to give."""
    before, given = threading.Thread.start, []

    def start(thread):
        if given:
            msg = "can't start new thread"
            raise RuntimeError(msg)
        given.append(thread)
        before(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    return given


def test_where_there_are_no_more_threads_the_others_do_all_the_work(few):
    assert all_at_once(lambda a, b: a * b, range(5), range(5)) == [0, 1, 4, 9, 16]
    assert len(few) == 1


def test_statistics_and_quantiles_are_the_same_where_no_thread_can_be_started(few):
    rng, n = np.random.default_rng(0), 20_000 if COMPILED else 4_000
    for labels in (
        rng.integers(0, 7, n),
        rng.integers(0, 2**62, n),
        rng.permutation(2 * n)[:n],
        rng.integers(0, 99, n).astype(str),
        rng.choice(np.array([secrets.token_hex(9) for _ in range(50)]), n),
    ):
        values = rng.normal(size=n)
        alone = label_stats(labels, values, threads=1, quantiles=[0.5])
        assert fingerprint(label_stats(labels, values, threads=4, quantiles=[0.5])) == fingerprint(alone)
    assert few


def test_as_many_threads_as_anybody_asks_for_are_not_made():
    labels, values = np.arange(1000) % 7, np.arange(1000.0)
    found = label_stats(labels, values, threads=10**9, quantiles=[0.5])
    assert fingerprint(found) == fingerprint(label_stats(labels, values, threads=1, quantiles=[0.5]))


NO_THREAD = """
import os, resource, sys
import numpy as np
import labeltrack as lt
labels, values = np.arange(20_000) % 7, np.arange(20_000.0)
alone = lt.label_stats(labels, values, threads=1).sum  # now: another user may not be able to import what that needs
if not os.getuid():
    os.setuid(65534)  # limits are not for root
resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
assert (lt.label_stats(labels, values, threads=3).sum == alone).all()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a limit that Linux has")
def test_a_real_limit_of_the_system_is_no_error(tmp_path):
    with tempfile.TemporaryDirectory() as kept:
        Path(kept).chmod(0o777)  # another user compiles what is not compiled yet
        environment = os.environ | {"NUMBA_CACHE_DIR": kept}
        command = [sys.executable, "-c", NO_THREAD]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
