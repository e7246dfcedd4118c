"""Locks: one process has one at a time, and none when it is gone, however it went."""

from __future__ import annotations

import errno
import fcntl
import subprocess
import sys
import threading
import time

import pytest

from labeltrack.recording.locks import Lock, is_held, locked

HOLDER = (
    "import sys, time; from pathlib import Path; from labeltrack.recording.locks import Lock; "
    "print(Lock(Path(sys.argv[1])).acquire(wait=False), flush=True); time.sleep(60)"
)


def test_a_lock_of_another_process_is_seen_until_it_is_killed(tmp_path):
    path = tmp_path / "lock"
    assert not is_held(path)
    assert not path.exists()
    code = HOLDER.replace("print(Lock(Path(sys.argv[1]))", "lock = Lock(Path(sys.argv[1])); print(lock")
    with subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "True\n"
        assert is_held(path)
        assert not Lock(path).acquire(wait=False)
        holder.kill()
    assert not is_held(path)
    with locked(path):
        assert is_held(path)
    assert not is_held(path)


def test_waiting_for_a_lock(tmp_path):
    first, order = Lock(tmp_path / "lock"), []
    first.acquire(wait=True)

    def second():
        with locked(tmp_path / "lock"):
            order.append("second")

    thread = threading.Thread(target=second)
    thread.start()
    time.sleep(0.1)
    order.append("first")
    first.release()
    first.release()
    thread.join()
    assert order == ["first", "second"]


def test_a_file_system_without_locks_lets_everybody_in(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(number, "of the file system")

    monkeypatch.setattr(fcntl, "flock", refuse)
    number = errno.ENOLCK
    lock = Lock(tmp_path / "lock")
    assert lock.acquire(wait=False)
    assert not is_held(tmp_path / "lock")
    lock.release()
    number = errno.EIO
    with pytest.raises(OSError, match="of the file system"):
        lock.acquire(wait=False)
    with pytest.raises(OSError, match="No such file"):
        Lock(tmp_path / "no" / "lock").acquire(wait=True)
