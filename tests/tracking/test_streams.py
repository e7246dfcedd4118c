"""Labels above 2**63 - 1 and negative ones in one epoch: the type that holds all of them, or an error."""

from __future__ import annotations

import numpy as np
import pytest
from exact import expected_by_label, rows
from trackers import make

import labeltrack as lt


def test_large_unsigned_labels_are_tracked_on_their_own():
    tracker = make()
    tracker.update(np.array([2**64 - 1, 3], dtype=np.uint64), [1, 2])
    tracker.update(np.array([3, 4]), [3, 4])
    assert rows(tracker.end_epoch(1)) == expected_by_label([2**64 - 1, 3, 3, 4], [1, 2, 3, 4])


@pytest.mark.parametrize("limit", [1, 2**20])
def test_a_huge_unsigned_label_may_come_after_small_ones(limit):
    tracker = make(max_buffer_bytes=limit)
    tracker.update(np.array([1, 2], dtype=np.uint64), [1.0, 2.0])
    tracker.update(np.array([3], dtype=np.int32), [5.0])
    tracker.update(np.array([2**63 + 5, 1], dtype=np.uint64), [3.0, 4.0])
    assert rows(tracker.end_epoch(1)) == expected_by_label([1, 2, 3, 2**63 + 5, 1], [1, 2, 5, 3, 4])


def test_negative_labels_after_huge_ones_are_refused():
    tracker = make()
    tracker.update(np.array([2**63], dtype=np.uint64), [1.0])
    with pytest.raises(TypeError, match="do not fit one type"):
        tracker.update([-1], [1.0])
    assert len(tracker.end_epoch(1)) == 1


def test_merged_labels_that_fit_no_one_type_are_kept_where_only_the_end_of_the_epoch_finds_them():
    tracker, other = make(), make()
    tracker.update(np.array([2**63], dtype=np.uint64), [1.0], ds_id="a")
    for label in (3, -1):
        other.update(np.array([label]), [2.0], ds_id="b")
    tracker.merge_state([other])
    for _ in range(2):
        with pytest.raises(TypeError, match="no 64-bit type holds both; pass labels as strings, or datasets"):
            tracker.end_epoch(1)
    assert "3 samples since" in repr(tracker)


@pytest.mark.parametrize("before", [0, 1, 3])
@pytest.mark.parametrize("kind", [np.array, list])
def test_a_later_batch_with_negative_labels_is_refused_if_another_dataset_has_huge_ones(before, kind, tmp_path):
    tracker, huge = make(record_to=tmp_path / "run"), np.array([2**63, 5], dtype=np.uint64)
    for i in range(5):
        if i == before:
            tracker.update(huge, np.array([1.0, 2.0]), ds_id="a")
        tracker.update(kind([3, 4]), np.array([3.0, float(i)]), ds_id="b")
    for _ in range(2):
        with pytest.raises(TypeError, match="do not fit one type"):
            tracker.update(kind([3, -1]), np.array([2.0, 2.0]), ds_id="b")
    tracker.update(kind([-1]), np.array([2.0]), ds_id="b", mode="eval")
    tracker.update([True], np.array([8.0]), ds_id="c")
    stats = tracker.end_epoch(1)
    assert dict(zip(stats.labels.tolist(), stats.count.tolist(), strict=True)) == {1: 1, 3: 5, 4: 5, 5: 1, 2**63: 1}
    assert tracker.history.at(1, "train", "b").labels.tolist() == [3, 4]
    tracker.update(kind([-1]), np.array([2.0]), ds_id="b")  # in another epoch they are alone
    for step, mode in ((2, "train"), (1, "eval")):
        assert tracker.end_epoch(step, mode=mode).labels.tolist() == [-1]
    tracker.close()
    recorded = lt.open_run(tmp_path / "run").recompute().at(1, "train")
    assert recorded.labels.tolist() == stats.labels.tolist()
    assert recorded.count.tolist() == stats.count.tolist()


@pytest.mark.parametrize("first", [np.array([2**63], dtype=np.uint64), np.array([-1])])
def test_negative_labels_of_one_dataset_and_huge_ones_of_another_are_refused_as_they_come(first):
    second = np.array([-1]) if first[0] > 0 else np.array([2**63], dtype=np.uint64)
    tracker = make()
    tracker.update(first, [1.0], ds_id="a")
    with pytest.raises(TypeError, match="do not fit one type"):
        tracker.update(second, [1.0], ds_id="b")
    tracker.update(np.array([3]), [2.0], ds_id="b")
    tracker.update(second, [1.0], mode="eval", ds_id="b")
    assert tracker.end_epoch(1).labels.tolist() == sorted([int(first[0]), 3])
    tracker.update(second, [1.0], ds_id="b")  # in another epoch they are alone
    assert len(tracker.end_epoch(2)) == 1
