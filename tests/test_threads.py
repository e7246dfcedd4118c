"""How many threads, and slices that make up the whole."""

from __future__ import annotations

import pytest

from labeltrack import _threads
from labeltrack._threads import all_at_once, default_threads, in_slices


def test_threads_are_worth_it_only_for_many_samples(monkeypatch):
    monkeypatch.setattr(_threads.os, "sched_getaffinity", lambda _pid: set(range(8)), raising=False)
    assert default_threads(1000) == 1
    assert default_threads(3 << 19) == 3
    assert default_threads(10**9) == 8
    monkeypatch.delattr(_threads.os, "sched_getaffinity")
    monkeypatch.setattr(_threads.os, "cpu_count", lambda: None)
    assert default_threads(10**9) == 1


@pytest.mark.parametrize("size", [0, 1, 100, 1000, 1001])
def test_slices_make_up_the_whole(monkeypatch, size):
    monkeypatch.setattr(_threads, "_SLOTS_A_THREAD", 100)
    monkeypatch.setattr(_threads, "available", lambda: 3)
    slices = []
    in_slices(size, lambda start, stop: slices.append((start, stop)))
    assert sorted(i for start, stop in slices for i in range(start, stop)) == list(range(size))
    assert len(slices) == max(1, min(3, size // 100))


def test_an_error_in_a_slice_comes_out(monkeypatch):
    monkeypatch.setattr(_threads, "_SLOTS_A_THREAD", 1)
    monkeypatch.setattr(_threads, "available", lambda: 2)

    def fail(start: int, _stop: int) -> None:
        if start:
            raise MemoryError

    with pytest.raises(MemoryError):
        in_slices(10, fail)


def test_threads_at_work_together_make_no_more_of_them(monkeypatch):
    monkeypatch.setattr(_threads, "_SLOTS_A_THREAD", 1)
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
