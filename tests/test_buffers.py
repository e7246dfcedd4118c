"""Growable columns: growth, widening, budgets, and no allocation once warm."""

from __future__ import annotations

import threading
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labeltrack._buffers import FIRST_ROWS, LARGEST_ROWS, SampleBuffer

I32, I64, F32, F64 = np.dtype(np.int32), np.dtype(np.int64), np.dtype(np.float32), np.dtype(np.float64)


def together(buffer):
    pairs = buffer.rows()
    return [x for keys, _ in pairs for x in keys.tolist()], [x for _, values in pairs for x in values.tolist()]


@given(
    st.lists(
        st.tuples(st.integers(0, 3 * FIRST_ROWS), st.sampled_from([I32, I64]), st.sampled_from([F32, F64])), max_size=8
    )
)
def test_every_row_comes_out_in_order_whatever_the_batches(batches):
    buffer = SampleBuffer(I32, F32)
    wanted = []
    for n, label_dtype, value_dtype in batches:
        start = len(wanted)
        rows = np.arange(start, start + n)
        wanted.extend(rows.tolist())
        keys, values = rows.astype(label_dtype), rows.astype(value_dtype)
        assert buffer.try_append(keys, values) or buffer.append(keys, values)
    assert together(buffer) == (wanted, wanted)
    assert len(buffer) == len(wanted)


def test_the_common_batch_is_appended_only_if_it_fits_as_it_is():
    buffer = SampleBuffer(I32, F32)
    keys, values = np.zeros(8, I32), np.zeros(8, F32)
    assert not buffer.try_append(keys, values)  # no room yet
    assert buffer.append(keys, values)
    assert buffer.try_append(keys, values)
    for bad_keys, bad_values in [
        (keys.astype(I64), values),
        (keys, values.astype(F64)),
        (keys[:3], values),
        (keys.reshape(2, 4), values.reshape(2, 4)),
        (np.zeros(FIRST_ROWS, I32), np.zeros(FIRST_ROWS, F32)),
    ]:
        assert not buffer.try_append(bad_keys, bad_values)
    assert len(buffer) == 16


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda a: a[::2], id="strided"),
        pytest.param(lambda a: a[::-1], id="backwards"),
        pytest.param(lambda a: np.lib.stride_tricks.as_strided(a, strides=(0,)), id="one row repeated"),
    ],
)
def test_rows_that_lie_apart_are_appended_as_they_are(make):
    keys, values = np.arange(16, dtype=I32), np.arange(16, dtype=F32) / 8
    buffer = SampleBuffer(I32, F32)
    buffer.append(keys, values)
    assert buffer.try_append(make(keys), make(values))
    assert together(buffer) == ([*keys.tolist(), *make(keys).tolist()], [*values.tolist(), *make(values).tolist()])


@pytest.mark.parametrize(
    ("keys", "values"),
    [
        pytest.param(np.zeros((8, 1), I32), np.zeros((8, 1), F32), id="columns"),
        pytest.param(np.zeros((1, 8), I32), np.zeros((1, 8), F32), id="rows"),
        pytest.param(np.zeros((), I32), np.zeros((), F32), id="scalars"),
        pytest.param(np.zeros(8, ">i4"), np.zeros(8, F32), id="the other byte order"),
        pytest.param(np.zeros(8, I32), np.zeros(8, ">f4"), id="values of the other byte order"),
        pytest.param(np.zeros(8, np.uint32), np.zeros(8, F32), id="as wide but unsigned"),
        pytest.param(np.zeros(8, F32), np.zeros(8, F32), id="as wide but real"),
        pytest.param(np.zeros(8, "M8[s]"), np.zeros(8, F32), id="dates"),
        pytest.param(np.zeros(8, I32), np.zeros(8, object), id="objects"),
        pytest.param(np.zeros(8, I32), None, id="nothing"),
        pytest.param(np.zeros(8, I32), np.zeros(7, F32), id="values too few"),
        pytest.param(np.zeros(8, I32), np.zeros(9, F32), id="values too many"),
    ],
)
def test_rows_of_another_form_are_not_appended_as_they_are(keys, values):
    buffer = SampleBuffer(I32, F32)
    buffer.append(np.ones(8, I32), np.ones(8, F32))
    assert not buffer.try_append(keys, values)
    assert together(buffer) == ([1] * 8, [1.0] * 8)


def test_memory_that_is_no_array_is_appended_if_it_has_as_many_rows_as_the_batch_before():
    buffer = SampleBuffer(I32, F32)
    buffer.append(np.ones(FIRST_ROWS - 12, I32), np.ones(FIRST_ROWS - 12, F32))
    buffer.append(np.ones(8, I32), np.ones(8, F32))
    eight = memoryview(np.arange(8, dtype=I32)), memoryview(np.arange(8, dtype=F32))
    four = memoryview(np.arange(4, dtype=I32)), memoryview(np.arange(4, dtype=F32))
    assert not buffer.try_append(*eight)  # no room for more than four
    assert not buffer.try_append(*four)  # fits what is left, and is not eight rows
    assert len(buffer) == FIRST_ROWS - 4
    buffer.append(np.arange(4, dtype=I32), np.arange(4, dtype=F32))
    assert len(buffer) == FIRST_ROWS
    buffer.clear()
    assert not buffer.try_append(*four)  # the first batch has to be looked at
    buffer.append(np.zeros(4, I32), np.zeros(4, F32))
    assert buffer.try_append(*four)
    assert together(buffer) == ([0] * 4 + [0, 1, 2, 3], [0.0] * 4 + [0.0, 1.0, 2.0, 3.0])


def test_growing_moves_no_row_that_is_there():
    buffer = SampleBuffer(I64, F64)
    buffer.append(np.zeros(10, I64), np.zeros(10))
    before = buffer.rows()[0][0].ctypes.data
    buffer.append(np.zeros(5 * FIRST_ROWS, I64), np.zeros(5 * FIRST_ROWS))
    assert buffer.rows()[0][0].ctypes.data == before


def test_capacity_doubles_up_to_a_limit():
    buffer = SampleBuffer(np.dtype(np.uint8), F32)
    while len(buffer) < 3 * LARGEST_ROWS:
        buffer.append(np.zeros(FIRST_ROWS * 4, np.uint8), np.zeros(FIRST_ROWS * 4, F32))
    sizes = [keys.shape[0] for keys, _ in buffer.rows()]
    assert sizes[1] >= sizes[0]
    assert max(sizes) <= LARGEST_ROWS
    assert len(sizes) < 14


def test_a_wider_batch_widens_the_columns_and_keeps_the_rows():
    buffer = SampleBuffer(I32, F32)
    buffer.append(np.array([1], I32), np.array([0.1], F32))
    buffer.append(np.array([2**40]), np.array([0.1]))
    buffer.append(np.array([3], I32), np.array([0.5], F32))
    keys, values = together(buffer)
    assert keys == [1, 2**40, 3]
    assert values == [float(np.float32(0.1)), 0.1, 0.5]
    assert buffer.dtypes == (I64, F64)
    buffer.clear()
    assert all(chunk.labels.dtype == I64 and chunk.values.dtype == F64 for chunk in buffer._held.chunks)


def test_a_batch_over_the_budget_changes_nothing():
    buffer = SampleBuffer(I32, F32)
    assert buffer.append(np.zeros(100, I32), np.zeros(100, F32), budget=lambda: 800)
    size = buffer.nbytes
    assert not buffer.append(np.zeros(1, I32), np.zeros(1, F32), budget=lambda: 0)
    assert not buffer.append(np.zeros(1), np.zeros(1), budget=lambda: 7)
    assert (len(buffer), buffer.nbytes, buffer.dtypes[0]) == (100, size, I32)
    assert buffer.append(np.zeros(1, I32), np.zeros(1, F32), budget=lambda: 8)
    assert buffer.nbytes == 808


def test_an_empty_buffer_gives_memory_back():
    buffer = SampleBuffer(I32, F32)
    for _ in range(4):
        buffer.append(np.zeros(LARGEST_ROWS, I32), np.zeros(LARGEST_ROWS, F32))
    buffer.clear()
    half = buffer.nbytes // 2
    buffer.shrink(half)
    assert 0 < buffer.nbytes <= half
    assert buffer.nbytes == sum(column.nbytes for chunk in buffer._held.chunks for column in chunk.columns)
    buffer.shrink(0)
    assert buffer.nbytes == 0
    assert buffer.append(np.array([1], I32), np.array([2.0], F32))
    assert together(buffer) == ([1], [2.0])


def test_running_out_of_memory_changes_nothing(monkeypatch):
    buffer = SampleBuffer(I32, F32)
    buffer.append(np.ones(5, I32), np.ones(5, F32))

    def fail(*_args):
        raise MemoryError

    monkeypatch.setattr("labeltrack._buffers.np.empty", fail)
    with pytest.raises(MemoryError):
        buffer.append(np.zeros(2 * FIRST_ROWS, I32), np.zeros(2 * FIRST_ROWS, F32))
    assert len(buffer) == 5
    assert together(buffer) == ([1] * 5, [1.0] * 5)


def test_emptying_keeps_the_memory_and_filling_again_takes_none():
    buffer = SampleBuffer(I32, F32)
    keys, values = np.arange(256, dtype=I32), np.arange(256, dtype=F32)

    def epoch():
        for _ in range(200):
            if not buffer.try_append(keys, values):
                buffer.append(keys, values)

    epoch()
    size, chunks = buffer.nbytes, len(buffer.rows())
    buffer.clear()
    epoch()
    assert len(buffer.rows()) < chunks  # small ones became one
    first = [k.ctypes.data for k, _ in buffer.rows()]
    buffer.clear()
    assert len(buffer) == 0
    tracemalloc.start()
    try:
        epoch()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < min(column.nbytes for column, _ in buffer.rows())  # no column is allocated; views come and go
    assert buffer.nbytes == size
    assert [k.ctypes.data for k, _ in buffer.rows()] == first


# -- further columns --------------------------------------------------------------------------------------


def batch(start, rows, dtypes):
    """Return columns that hold the numbers from `start` on."""
    labels, values, *more = (np.arange(start, start + rows).astype(dtype) for dtype in dtypes)
    return labels, values, tuple(more)


def appended(buffer, labels, values, more):
    return buffer.try_append(labels, values, more=more) or buffer.append(labels, values, more=more)


@given(
    st.lists(
        st.tuples(
            st.integers(0, 3 * FIRST_ROWS),
            st.sampled_from([I32, I64]),
            *[st.sampled_from([F32, F64]) for _ in range(2)],
        ),
        max_size=6,
    )
)
def test_further_columns_come_out_in_order_whatever_the_batches(batches):
    buffer, rows = SampleBuffer(I32, F32, more=(F32, I64)), 0
    for n, label, value, more in batches:
        assert appended(buffer, *batch(rows, n, (label, value, more, I64)))
        rows += n
    columns = [np.concatenate(column) for column in zip(*buffer.rows(), strict=True)] or [np.empty(0)] * 4
    assert all(column.tolist() == list(range(rows)) for column in columns)
    assert len(buffer) == rows


def test_a_further_column_that_does_not_fit_leaves_the_whole_batch_out():
    buffer = SampleBuffer(I32, F32, more=(F64, I64))
    labels, values, (other, ids) = batch(0, 8, (I32, F32, F64, I64))
    assert buffer.append(labels, values, more=(other, ids))
    for more in [(other.astype(F32), ids), (other, ids.astype(I32)), (other, ids[:3]), (other,), (other, ids, ids), ()]:
        assert not buffer.try_append(labels, values, more=more)
    assert not SampleBuffer(I32, F32).try_append(labels, values, more=(other,))
    assert len(buffer) == 8
    assert buffer.try_append(labels, values, more=(other, ids))
    assert [column.tolist() for column in buffer.rows()[0]] == [[*range(8)] * 2] * 4


def test_rows_of_several_columns_are_appended_by_several_threads():
    buffer, each = SampleBuffer(I64, F64, more=(F64, I64)), 2000
    appended(buffer, *batch(0, 4, (I64, F64, F64, I64)))
    lock = threading.Lock()

    def work(number):
        for start in range(4 + number * each, 4 + (number + 1) * each, 4):
            columns = batch(start, 4, (I64, F64, F64, I64))
            if not buffer.try_append(*columns[:2], more=columns[2]):
                with lock:
                    buffer.append(*columns[:2], more=columns[2])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    columns = [np.concatenate(column) for column in zip(*buffer.rows(), strict=True)]
    assert sorted(columns[0].tolist()) == list(range(4 + 4 * each))
    assert all(column.tolist() == columns[0].tolist() for column in columns)


def test_memory_of_further_columns_counts_and_is_reused():
    buffer = SampleBuffer(I32, F32, more=(F32, I64))
    assert not buffer.append(*batch(0, 10, (I32, F32))[:2], lambda: 199, more=batch(0, 10, (I32, F32, F32, I64))[2])
    assert buffer.append(*batch(0, 10, (I32, F32))[:2], lambda: 200, more=batch(0, 10, (I32, F32, F32, I64))[2])
    assert buffer.nbytes == 200
    before = [column.ctypes.data for column in buffer.rows()[0]]
    buffer.clear()
    assert appended(buffer, *batch(3, 10, (I32, F32, F32, I64)))
    assert [column.ctypes.data for column in buffer.rows()[0]] == before
    merged = tuple(np.arange(5).astype(dtype) for dtype in (I32, F32, F32, I64))
    buffer.merge_in(((10, merged),), None, "")
    assert len(buffer) == 15
    assert buffer.rows()[-1] is merged
    assert buffer.nbytes == 200 + 5 * 20


def test_merged_rows_stand_where_they_came():
    buffer = SampleBuffer(I32, F32)
    labels, values = np.arange(5000, dtype=I32), np.arange(5000, dtype=F32)
    for start, stop in ((0, 100), (100, 2000), (2000, 5000)):  # in several chunks
        assert buffer.append(labels[start:stop], values[start:stop])
    assert len(buffer.rows()) > 1
    places = [0, 0, 7, 7, 100, 1024, 4999, 5000, 5000]
    merged = tuple((np.array([-1 - i], I32), np.array([-1 - i], F32)) for i in range(len(places)))
    buffer.merge_in(tuple(zip(places, merged, strict=True)), None, "")
    for column in zip(*buffer.rows(), strict=True):
        assert np.concatenate(column).tolist() == np.insert(values, places, [-1 - i for i in range(9)]).tolist()
