"""Batches of all kinds: what is recorded, what is refused, and what happens when memory is full."""

from __future__ import annotations

import math
import sys
import tracemalloc

import numpy as np
import pytest
from conftest import COMPILED
from exact import expected_by_label, fingerprint, rows
from hypothesis import given, settings
from hypothesis import strategies as st
from trackers import batches, exact, make

import labeltrack as lt
from labeltrack._tracking import reducing


def test_dtypes_may_widen_and_narrow_within_an_epoch():
    tracker = make()
    parts = [
        (np.array([1, 0], dtype=np.int8), np.array([0.1, 0.2], dtype=np.float32)),
        (np.array([True, False]), np.array([0.1, 0.2], dtype=np.float64)),
        (np.array([2**40, 1]), np.array([0.3, 0.4], dtype=np.float16)),
        (np.array([200, 1], dtype=np.uint8), np.array([7, 8])),
        (np.array([3, 1], dtype=np.uint64), np.array([7, 8], dtype=np.float32)),
    ]
    for labels, values in parts:
        tracker.update(labels, values)
    everything = expected_by_label(
        [int(x) for labels, _ in parts for x in labels], [float(x) for _, values in parts for x in values]
    )
    assert rows(tracker.end_epoch(1)) == everything


def test_labels_stay_bool_while_they_are():
    tracker = make()
    tracker.update(np.array([True, False]), [1, 2])
    assert tracker.end_epoch(1).labels.tolist() == [False, True]


@pytest.mark.parametrize("limit", [1, 100, 1000, 2**14, 2**17])
def test_folding_changes_no_bit(limit):
    some = batches(60, size=100)
    wide = [(labels.astype(np.int64) * 2**33, values.astype(np.float64) / 3) for labels, values in some[:20]]
    wanted, tracker = make(), make(max_buffer_bytes=limit)
    for labels, values in some + wide:
        wanted.update(labels, values)
        tracker.update(labels, values)
        assert sum(stream.buffer.nbytes for stream in tracker._streams.values()) <= limit
    assert fingerprint(tracker.end_epoch(1)) == fingerprint(wanted.end_epoch(1))


def test_the_limit_is_shared_by_all_modes():
    tracker = make(max_buffer_bytes=2**16)
    for labels, values in batches(100):
        for mode in ("train", "eval", "test"):
            tracker.update(labels, values, mode=mode)
    assert sum(stream.buffer.nbytes for stream in tracker._streams.values()) <= 2**16
    for mode in ("train", "eval", "test"):
        assert rows(tracker.end_epoch(1, mode=mode)) == exact(batches(100))


def test_a_mode_that_starts_late_gets_its_share_of_the_memory(monkeypatch):
    tracker = make(max_buffer_bytes=2**17)
    some = batches(400)
    reductions = []
    reduce = reducing.reduce_columns
    monkeypatch.setattr(reducing, "reduce_columns", lambda *args, **more: reductions.append(1) or reduce(*args, **more))
    for mode in ("train", "eval"):
        for labels, values in some:
            tracker.update(labels, values, mode=mode)
    # 400 batches of 64 take 300 KB a mode: a handful of folds each, not one for each batch.
    assert len(reductions) < 20
    for mode in ("train", "eval"):
        assert rows(tracker.end_epoch(1, mode=mode)) == exact(some)
        tracker.update(*some[0], mode=mode)
    assert sum(stream.buffer.nbytes for stream in tracker._streams.values()) <= 2**17


@settings(max_examples=50 if COMPILED else 15)
@given(st.data())
def test_neither_batches_nor_folds_nor_order_show_in_the_result(data):
    n = data.draw(st.integers(1, 200))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    labels, values = rng.integers(0, 4, n), 10.0 ** rng.uniform(-30, 30, n)
    wanted = fingerprint(lt.label_stats(labels, values))
    order = rng.permutation(n)
    tracker = make(max_buffer_bytes=data.draw(st.sampled_from([1, 320, 1600, 2**20])))
    cuts = sorted(data.draw(st.lists(st.integers(0, n), max_size=6)))
    for part in np.split(order, cuts):
        tracker.update(labels[part], values[part])
    assert fingerprint(tracker.end_epoch(1)) == wanted


MISTAKES = {
    "a scalar metric": (([0, 1], 0.5), ValueError, r'reduction="none"'),
    "one-hot labels": ((np.eye(2, 3), [1.0, 2.0]), ValueError, r"one-hot"),
    "unequal lengths": (([0, 1], [1.0, 2.0, 3.0]), ValueError, "2 labels, 3 values"),
    "labels without order": ((np.array([1j, 2]), [1.0, 2.0]), TypeError, "got dtype complex128"),
    "values that are strings": (([0, 1], ["a", "b"]), TypeError, "values must be real numbers"),
    "labels that are NaN": (
        ([0.5, math.nan], [1.0, 2.0]),
        ValueError,
        r"1 of 2 labels are missing \(None, NaN.*missing='skip'",
    ),
    "strings and bytes": ((["a", b"\xff"], [1.0, 2.0]), TypeError, "mix"),
    "lists as labels": ((["a", ["b"]], [1.0, 2.0]), ValueError, "items differ in length"),
    "mixed labels": ((["a", 1], [1.0, 2.0]), TypeError, "mix"),
    "other labels than before": (
        (["a", "b"], [1.0, 2.0]),
        TypeError,
        "were integer labels so far .* string labels now",
    ),
    "labels that fit no one type": (
        (np.array([2**63, 1], dtype=np.uint64), [1.0, 2.0]),
        TypeError,
        r"labels above 2\*\*63 - 1 and negative",
    ),
}


# For these, the error in an epoch of integers is another one.
_TOLD_FIRST = ("labels that are NaN", "mixed labels", "strings and bytes", "lists as labels")


@pytest.mark.parametrize("name", [name for name in MISTAKES if name not in _TOLD_FIRST])
def test_a_batch_with_a_mistake_is_explained_and_leaves_no_trace(name):
    batch, error, message = MISTAKES[name]
    tracker, untouched = make(), make()
    for one in (tracker, untouched):
        one.update([0, -1], [1.0, 2.0])
    with pytest.raises(error, match=message):
        tracker.update(*batch)
    for one in (tracker, untouched):
        one.update([3], [4.0])
    assert fingerprint(tracker.end_epoch(1)) == fingerprint(untouched.end_epoch(1))


@pytest.mark.parametrize("name", [name for name in MISTAKES if not name.endswith(("before", "one type"))])
def test_a_first_batch_with_a_mistake_leaves_no_trace(name):
    batch, error, message = MISTAKES[name]
    tracker = make()
    with pytest.raises(error, match=message):
        tracker.update(*batch)
    assert len(tracker.end_epoch(1)) == 0
    assert tracker.state_dict() == make().state_dict()


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.float32])
def test_numbers_are_not_taken_for_the_codes_of_strings(dtype):
    """Codes are integers, too, and columns of them take an array of that dtype."""
    tracker = make()
    values = np.array([1.0, 2.0], dtype=np.float32)
    tracker.update(["a", "b"], values)
    stream = tracker._streams["train", ""]
    for labels in (np.array([1, 0], dtype=dtype), np.array([0, 1], dtype=stream.buffer.dtypes[0])):
        with pytest.raises(TypeError, match="were string labels so far"):
            tracker.update(labels, values)
    stats = tracker.end_epoch(1)
    assert dict(zip(stats.names, stats.count.tolist(), strict=True)) == {"a": 1, "b": 1}


@pytest.mark.parametrize(
    ("before", "first", "second"),
    [
        (np.array([1, 2]), ["x", "y"], np.array([1, 2])),
        (np.array([1, 2]), ["x", "y"], [1, 2]),
        (np.array([1, 2]), ["x", "y"], np.array([1, 2], dtype=np.int16)),
        (["x", "y"], np.array([1, 2]), ["x", "y"]),
    ],
)
def test_each_epoch_compares_the_labels_of_datasets_anew(before, first, second):
    """The second dataset goes on as it did in the epoch before, which the first one does not."""
    tracker = make()
    values = np.array([1.0, 2.0], dtype=np.float32)
    for ds_id in ("a", "b"):
        tracker.update(before, values, ds_id=ds_id)
    tracker.end_epoch(1)
    tracker.update(first, values, ds_id="a")
    with pytest.raises(TypeError, match="labels so far in this epoch"):
        tracker.update(second, values, ds_id="b")
    assert tracker.end_epoch(2).count.tolist() == [1, 1]


def test_strings_that_are_all_known_give_the_result_of_new_ones():
    quick, slow = make(), make()
    batches = [["b", "a", "b"], ["a", "b", "b"], ["a", "c", "a"], ["c"], ["d", "b"], [], ["b", "c", "a", "a"]]
    values = np.random.default_rng(0).normal(size=100).astype(np.float32)
    for epoch in (1, 2):
        done = 0
        for batch in batches:
            here = values[done : done + len(batch)]
            quick.update(batch, here)
            slow.update(np.array(batch, dtype="U1"), here.astype(np.float64))
            done += len(batch)
        assert fingerprint(quick.end_epoch(epoch)) == fingerprint(slow.end_epoch(epoch))


@pytest.mark.parametrize("labels", [[1, 2], ["a", "b"], [True, False], [0.5, 1.5]])
def test_a_batch_of_no_samples_goes_with_labels_of_every_kind(labels):
    tracker = make()
    for empty in ([], (), np.array([]), np.zeros((0, 1), dtype=np.int64), np.array([], dtype="U3")):
        tracker.update(empty, [])
        tracker.update(empty, [], where=empty)
        tracker.update(labels, [1.0, 2.0])
        tracker.update(empty, np.zeros(0, dtype=np.float32), ds_id="other")
    with pytest.raises(ValueError, match="differ in length"):
        tracker.update([], [1.0])
    assert tracker.end_epoch(1).count.tolist() == [5, 5]


def test_known_strings_and_values_that_differ_in_length_are_refused():
    tracker = make()
    tracker.update(["a", "b"], np.ones(2))
    with pytest.raises(ValueError, match="differ in length"):
        tracker.update(["a", "b"], np.ones(3))
    with pytest.raises(TypeError, match="mix"):
        tracker.update(["a", 1], np.ones(2))
    assert tracker.end_epoch(1).count.tolist() == [1, 1]


def test_datasets_of_one_mode_have_labels_of_one_type():
    tracker = make()
    tracker.update(["a"], [1.0], ds_id="A")
    with pytest.raises(TypeError, match="were string labels so far in this epoch and are integer labels now"):
        tracker.update([1], [1.0], ds_id="B")
    tracker.update([1], [1.0], mode="eval", ds_id="B")
    assert len(tracker.end_epoch(1)) == 1


def test_from_the_second_epoch_on_updating_allocates_nothing():
    tracker = make()
    some = batches(300, size=256)

    def epoch():
        for labels, values in some:
            tracker.update(labels, values)

    epoch()
    tracker.end_epoch(1)
    tracker.update(*some[0])  # the streams exist, the first chunk is open
    tracker.end_epoch(2)
    size = sum(stream.buffer.nbytes for stream in tracker._streams.values())
    measures = sys.gettrace()  # what measures coverage allocates
    sys.settrace(None)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        epoch()
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        sys.settrace(measures)
    assert 300 * 256 * 12 > 900_000  # what the samples take
    assert peak - before < 4000  # a few views and integers at a time
    assert after - before < 2000
    assert sum(stream.buffer.nbytes for stream in tracker._streams.values()) == size


def test_a_batch_like_the_one_before_is_refused_for_the_same_mistakes_as_a_first_one():
    tracker = lt.LabelTracker(label="y", metric="ce")
    labels, values = np.array([1, 2, 2], dtype=np.uint8), np.array([1.0, 2.0, 4.0], dtype=np.float32)
    tracker.update(labels, values)
    tracker.update(labels, values)
    masked = np.ma.masked_array(values, mask=[False, True, False])
    for bad_labels, bad_values in [
        (labels, masked),
        (np.ma.masked_array(labels, mask=[True, False, False]), values),
        (b"abc", values),
        (labels, values[:2]),
        (labels[:2], values),
        (labels, None),
        (labels, np.float32(1.0)),
    ]:
        with pytest.raises((TypeError, ValueError)):
            tracker.update(bad_labels, bad_values)
    with pytest.raises(TypeError, match="mode must be a string"):
        tracker.update(labels, values, mode=["train"])
    assert rows(tracker.end_epoch(1)) == expected_by_label([1, 2, 2] * 2, [1.0, 2.0, 4.0] * 2)


def test_batches_of_changing_size_are_recorded_whole():
    tracker = lt.LabelTracker(label="y", metric="ce")
    labels, values = [], []
    for n in [5, 5, 0, 7, 1, 5000, 3, 3]:
        labels.append(np.arange(n) % 3)
        values.append(np.arange(n) / 8)
        tracker.update(labels[-1], values[-1])
    expected = expected_by_label(np.concatenate(labels).tolist(), np.concatenate(values).tolist())
    assert rows(tracker.end_epoch(1)) == expected


def test_labels_that_look_multi_hot_are_told_once_where_update_was_called():
    masks, values = np.eye(4, 3, dtype=int), np.arange(12.0).reshape(4, 3)
    tracker = make()
    with pytest.warns(lt.LabelTrackWarning, match="multi-hot") as caught:
        for _ in range(3):
            tracker.update(masks, values)
    assert [one.filename for one in caught] == [__file__]
    assert rows(tracker.end_epoch(1)) == expected_by_label(np.tile(masks.ravel(), 3), np.tile(values.ravel(), 3))
    mapped = make(label_mapping={"background": 0, "object": 1})
    mapped.update(masks, values)
    mapped.update(masks[None], values[None])
