"""Columns that hand their rows on: every row once and in order, memory reused only when it is done with."""

from __future__ import annotations

import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labeltrack.recording.recorder import HandedOnBuffer

I32, I64, F32, F64 = np.dtype(np.int32), np.dtype(np.int64), np.dtype(np.float32), np.dtype(np.float64)


class Reader:
    """A sink that is done with rows when it is told so, and reads them only then."""

    def __init__(self):
        self.waiting = []
        self.read = []

    def __call__(self, chunk, stop, _kind):
        self.waiting.append((chunk, stop))

    def sizes(self):
        """Return how many rows each of those waiting adds."""
        before, found = {}, []
        for chunk, stop in self.waiting:
            found.append(stop - before.get(id(chunk), chunk.done))
            before[id(chunk)] = stop
        return found

    def work(self, n=None):
        for _ in range(len(self.waiting) if n is None else min(n, len(self.waiting))):
            read(*self.waiting.pop(0), lambda labels, values: self.read.append((labels.tolist(), values.tolist())))

    def rows(self):
        return [label for labels, _ in self.read for label in labels], [v for _, values in self.read for v in values]


def read(chunk, stop, use):
    """Do what a sink has to have done."""
    if stop > chunk.done:
        use(chunk.labels[chunk.done : stop], chunk.values[chunk.done : stop])
        chunk.done = stop


def append(buffer, start, n, label=I32, value=F32, budget=None):
    rows = np.arange(start, start + n)
    keys, values = rows.astype(label), rows.astype(value)
    return buffer.try_append(keys, values) or buffer.append(keys, values, budget)


def test_memory_that_is_written_late_is_filled_before_there_is_more():
    sink = Reader()
    buffer = HandedOnBuffer(I32, F32, sink, 1024)
    assert append(buffer, 0, 10)
    buffer.hand_on()
    buffer.clear()
    sink.work()
    assert append(buffer, 10, 10)  # to the memory of the rows that were written meanwhile
    assert append(buffer, 20, 10**6)
    assert [row for keys, _ in buffer.rows() for row in keys.tolist()] == list(range(10, 20 + 10**6))


@given(
    st.lists(
        st.tuples(
            st.integers(0, 3000),
            st.sampled_from([I32, I64]),
            st.sampled_from([F32, F64]),
            st.sampled_from(["go on", "go on", "work", "work a little", "end"]),
        ),
        max_size=20,
    ),
    st.sampled_from([1, 100, 1024]),
)
def test_every_row_is_handed_on_once_and_in_order(batches, at_a_time):
    sink = Reader()
    buffer = HandedOnBuffer(I32, F32, sink, at_a_time)
    total = here = 0
    for n, label, value, then in batches:
        assert append(buffer, total, n, label, value)
        total, here = total + n, here + n
        assert len(buffer) == here
        if then == "end":
            assert [x for keys, _ in buffer.rows() for x in keys.tolist()] == list(range(total - here, total))
            buffer.hand_on()
            buffer.clear()
            here = 0
        elif then != "go on":
            sink.work(None if then == "work" else 1)
    buffer.hand_on()
    sink.work()
    assert sink.rows() == (list(range(total)), list(range(total)))


def test_rows_are_handed_on_so_many_at_a_time():
    sink = Reader()
    buffer = HandedOnBuffer(I32, F32, sink, 1024)
    for i in range(40):
        append(buffer, 100 * i, 100)
    sizes = sink.sizes()
    assert len(sizes) == 3
    assert all(1024 <= size < 1024 + 100 for size in sizes)
    buffer.hand_on()
    buffer.hand_on()
    sink.work()
    assert sink.rows()[0] == list(range(4000))


def test_what_is_handed_on_is_no_copy_and_is_not_written_over():
    sink = Reader()
    buffer = HandedOnBuffer(I32, F32, sink, 64)
    for epoch in range(3):
        append(buffer, 1000 * epoch, 500)
        column = buffer.rows()[0][0]
        buffer.hand_on()
        assert np.shares_memory(sink.waiting[-1][0].labels, column)
        buffer.clear()
    sink.work()
    assert sink.rows()[0] == [x for epoch in range(3) for x in range(1000 * epoch, 1000 * epoch + 500)]


def test_from_the_second_epoch_on_no_memory_is_taken_if_the_sink_keeps_up():
    buffer = HandedOnBuffer(I32, F32, lambda chunk, stop, _kind: setattr(chunk, "done", stop), 1024)
    keys, values = np.zeros(256, I32), np.zeros(256, F32)

    def epoch():
        for _ in range(200):
            if not buffer.try_append(keys, values):
                buffer.append(keys, values)
        buffer.hand_on()
        buffer.clear()

    epoch()
    size = buffer.nbytes
    tracemalloc.start()
    try:
        epoch()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert buffer.nbytes == size
    assert peak < size // 20


def test_a_sink_that_is_slow_makes_appending_wait_only_when_all_memory_is_its():
    gate, started = threading.Event(), threading.Event()
    rows = []

    def slow(labels, values):
        started.set()
        gate.wait(10)
        rows.extend(zip(labels.tolist(), values.tolist(), strict=True))

    with ThreadPoolExecutor(1) as thread:
        buffer = HandedOnBuffer(I32, F32, lambda chunk, stop, _kind: thread.submit(read, chunk, stop, slow), 100)
        budget = 8 * 1000
        for epoch in range(2):  # as much as there is memory for
            assert append(buffer, 500 * epoch, 500, budget=lambda: min(4000, budget - buffer.nbytes))
            buffer.hand_on()
            buffer.clear()
        assert started.wait(10)
        assert not rows
        threading.Timer(0.2, gate.set).start()
        assert append(buffer, 1000, 500, budget=lambda: budget - buffer.nbytes)  # waits for what is being read
        assert gate.is_set()
        assert buffer.nbytes <= budget
        buffer.hand_on()
    assert rows == [(i, float(i)) for i in range(1500)]


def test_a_sink_that_fails_holds_no_memory():
    def fail(chunk, stop, _kind):
        chunk.done = stop

    buffer = HandedOnBuffer(I32, F32, fail, 100)
    for epoch in range(3):
        append(buffer, epoch, 1000)
        buffer.hand_on()
        buffer.clear()
    buffer.wait()
    buffer.shrink(0)
    assert buffer.nbytes == 0


def test_memory_is_given_back_when_it_is_done_with():
    with ThreadPoolExecutor(1) as thread:
        nothing = lambda *_rows: None  # noqa: E731
        buffer = HandedOnBuffer(I32, F32, lambda chunk, stop, _kind: thread.submit(read, chunk, stop, nothing), 100)
        append(buffer, 0, 10_000)
        buffer.hand_on()
        buffer.clear()
        buffer.shrink(0)
        assert buffer.nbytes == 0
        assert append(buffer, 0, 10)


def test_a_batch_over_the_budget_changes_nothing_when_nothing_is_waited_for():
    sink = Reader()
    buffer = HandedOnBuffer(I32, F32, sink, 100)
    assert append(buffer, 0, 100, budget=lambda: 800)
    assert not buffer.append(np.zeros(1, I32), np.zeros(1, F32), lambda: 0)
    assert (len(buffer), buffer.nbytes) == (100, 800)


@pytest.mark.parametrize("wide", [(I64, F32), (I32, F64)])
def test_columns_widen_while_rows_are_still_read(wide):
    sink = Reader()
    buffer = HandedOnBuffer(I32, F32, sink, 10)
    append(buffer, 0, 25)
    append(buffer, 25, 25, *wide)
    buffer.hand_on()
    buffer.clear()
    append(buffer, 50, 25)
    buffer.hand_on()
    sink.work()
    assert sink.rows()[0] == list(range(75))
    assert buffer.dtypes == wide


def test_further_columns_are_handed_on_with_the_rows():
    given = []
    buffer = HandedOnBuffer(I32, F32, lambda chunk, stop, _kind: given.append((chunk, stop)), 10, more=(F64, I64))
    rows = np.arange(25)
    for some in np.array_split(rows, 5):
        columns = some.astype(I32), some.astype(F32), (some.astype(F64), some)
        assert buffer.try_append(*columns[:2], more=columns[2]) or buffer.append(*columns[:2], more=columns[2])
    buffer.hand_on()
    last = {id(chunk): (chunk, stop) for chunk, stop in given}.values()
    for column in zip(*((*(c[:stop] for c in chunk.columns),) for chunk, stop in last), strict=True):
        assert np.concatenate(column).tolist() == rows.tolist()


def test_a_batch_that_is_folded_is_handed_on_with_its_further_columns():
    given = []

    def sink(chunk, stop, _kind):
        given.append([column[:stop].tolist() for column in chunk.columns])
        chunk.done = stop

    buffer = HandedOnBuffer(I32, F32, sink, 10, more=(I64,))
    buffer.fold_in(None, (np.arange(3, dtype=I32), np.arange(3, dtype=F32), np.arange(7, 10)), "")
    assert given == [[[0, 1, 2], [0.0, 1.0, 2.0], [7, 8, 9]]]
    assert buffer.empty()
