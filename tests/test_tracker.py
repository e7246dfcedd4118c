"""`LabelTracker`: recording, ends of epochs, folding, choices, mistakes, checkpoints."""

from __future__ import annotations

import copy
import math
import pickle
import subprocess
import sys
import tracemalloc
import warnings

import numpy as np
import pytest
from conftest import COMPILED
from exact import expected, expected_by_label, fingerprint, rows
from hypothesis import given, settings
from hypothesis import strategies as st

import labeltrack as lt
from labeltrack._tracking import reducing
from labeltrack.stats import LabelStats


def make(**options):
    return lt.LabelTracker("y", "ce", **options)


def batches(count, size=64, seed=0, classes=5):
    rng = np.random.default_rng(seed)
    return [(rng.integers(0, classes, size), rng.lognormal(0, 2, size).astype(np.float32)) for _ in range(count)]


def exact(some):
    return expected_by_label(*(np.concatenate([batch[i] for batch in some]).tolist() for i in (0, 1)))


# -- recording --------------------------------------------------------------------------------------------


def test_an_epoch_gives_the_statistics_of_all_its_samples():
    tracker = make()
    some = batches(7)
    for labels, values in some:
        tracker.update(labels, values)
    stats = tracker.end_epoch(1)
    assert rows(stats) == exact(some)
    assert fingerprint(tracker.history.at(1)) == fingerprint(stats)


def test_every_epoch_starts_afresh_and_labels_may_appear_later():
    tracker = make()
    tracker.update([0, 1], [1.0, 2.0])
    assert rows(tracker.end_epoch(1)) == {0: expected([1.0]), 1: expected([2.0])}
    tracker.update([1, 7], [3.0, 4.0])
    assert rows(tracker.end_epoch(2)) == {1: expected([3.0]), 7: expected([4.0])}
    assert tracker.history.series(7)[0].tolist() == [2]


def test_modes_are_apart_and_datasets_are_pooled_but_kept():
    tracker = make()
    tracker.update([0], [1.0])
    tracker.update([0], [2.0], mode="eval", ds_id="a")
    tracker.update([0, 1], [4.0, 8.0], mode="eval", ds_id="b")
    assert rows(tracker.end_epoch(1)) == {0: expected([1.0])}
    assert rows(tracker.end_epoch(1, mode="eval")) == {0: expected([2.0, 4.0]), 1: expected([8.0])}
    assert rows(tracker.history.at(1, "eval", "a")) == {0: expected([2.0])}
    assert tracker.history.ds_ids == ["", "a", "b"]


def test_an_epoch_without_samples_is_empty_and_leaves_no_entry():
    tracker = make()
    assert len(tracker.end_epoch(1)) == 0
    assert len(tracker.history) == 0
    tracker.update([], [])
    assert len(tracker.end_epoch(1)) == 0
    assert len(tracker.history) == 0


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


@pytest.mark.parametrize(
    "kind",
    [list, np.array, lambda words: np.array(words, dtype=object), lambda words: np.array(words, dtype=np.bytes_)],
)
def test_strings_are_tracked_over_epochs(kind):
    tracker = make()
    for epoch, words in enumerate([["b", "a", "b"], ["c", "a"]], start=1):
        tracker.update(kind(words), np.arange(len(words)))
        names = [name if isinstance(name, str) else name.decode() for name in tracker.end_epoch(epoch).labels.tolist()]
        assert names == sorted(set(words))
    assert tracker.history.series(b"a" if tracker.history.at(1).labels.dtype.kind == "S" else "a")[1].tolist() == [
        1.0,
        1.0,
    ]


def test_floats_are_labels_too():
    tracker = make()
    tracker.update(np.array([0.5, -0.0, 0.0]), [1, 2, 4])
    assert rows(tracker.end_epoch(1)) == {0.0: expected([2.0, 4.0]), 0.5: expected([1.0])}


def test_a_batch_that_is_a_mapping_is_looked_up_by_the_names():
    tracker = make()
    tracker.update_batch({"y": [0, 1], "ce": [1.0, 2.0], "x": None}, mode="eval", ds_id="d")
    assert rows(tracker.end_epoch(1, mode="eval")) == {0: expected([1.0]), 1: expected([2.0])}
    assert tracker.history.ds_ids == ["d"]


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


# -- folding ----------------------------------------------------------------------------------------------


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


# -- choices ----------------------------------------------------------------------------------------------


def test_a_mapping_names_and_filters():
    tracker = make(label_mapping={"one": 1, "nine": 9})
    tracker.update([0, 1, 1], [1.0, 2.0, 4.0])
    stats = tracker.end_epoch(1)
    assert stats.names.tolist() == ["one"]
    assert rows(stats) == {1: expected([2.0, 4.0])}


@pytest.mark.parametrize("limit", [1, 2**20])
def test_a_mapping_of_which_nothing_occurs_warns_once_and_says_what_did_occur(limit):
    tracker = make(label_mapping={"cat": "cat"}, max_buffer_bytes=limit)
    tracker.update([0, 1], [1, 2])
    tracker.update([0, 1], [1, 2])
    with pytest.warns(lt.LabelTrackWarning, match="it maps 'cat'") as caught:
        tracker.end_epoch(1)
    assert caught[0].filename == __file__
    tracker.update([0, 1], [1, 2])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(tracker.end_epoch(2)) == 0
    assert len(tracker.history) == 0


def test_the_warning_lists_labels_also_of_samples_still_in_the_buffer():
    tracker = make(label_mapping={"cat": "cat"})
    tracker.update(["dog", "cow"], [1, 2])
    with pytest.warns(lt.LabelTrackWarning, match="occurred are 'dog', 'cow'|occurred are 'cow', 'dog'"):
        tracker.end_epoch(1)


def test_modes_and_datasets_that_are_not_chosen_are_ignored():
    tracker = make(mode="!test", ds_id=["a", ""])
    tracker.update([0], [1.0])
    tracker.update([0], [2.0], mode="test")
    tracker.update([0], [3.0], ds_id="b")
    assert rows(tracker.end_epoch(1)) == {0: expected([1.0])}
    assert len(tracker.end_epoch(1, mode="test")) == 0
    assert len(tracker.history) == 1


def test_names_and_outputs_are_kept():
    tracker = make(bounds=["range", None])
    assert tracker.outputs == "ce_by_y"
    assert make(outputs="z").outputs == "z"
    assert tracker.history.bounds == ("range", None)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"bounds": "sdt"}, ValueError, "bounds: unknown option 'sdt'; allowed are None, 'std', 'range'"),
        ({"mode": ["train", "!eval"]}, ValueError, "mode mixes"),
        ({"ds_id": ["a", "!b"]}, ValueError, "ds_id mixes"),
        ({"nan_policy": "drop"}, ValueError, "nan_policy: unknown option 'drop'"),
        ({"max_buffer_bytes": 0}, ValueError, "max_buffer_bytes must be a positive integer, got 0"),
        ({"max_buffer_bytes": True}, ValueError, "max_buffer_bytes must be a positive integer"),
        ({"label_mapping": {}}, ValueError, "label_mapping is empty"),
        ({"label_mapping": [("a", 0)]}, TypeError, "must be a dict"),
        ({"outputs": 3}, TypeError, "outputs must be a string, got int"),
    ],
)
def test_a_bad_option_is_refused_at_once(options, error, message):
    with pytest.raises(error, match=message):
        make(**options)


def test_label_and_metric_are_names():
    with pytest.raises(TypeError, match="label must be a string, got int"):
        lt.LabelTracker(0, "ce")
    with pytest.raises(TypeError, match="label must be a string, got int 0"):
        lt.LabelTracker([0, 1], "ce")
    with pytest.raises(TypeError, match=r"metric must be a string, got .*; for several metrics, see TrackerCollection"):
        lt.LabelTracker("y", ("ce", "correct"))


# -- mistakes ---------------------------------------------------------------------------------------------

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


@pytest.mark.parametrize(("key", "what"), [("y", "label"), ("ce", "metric")])
def test_a_missing_key_lists_those_that_are_there(key, what):
    batch = {"y": [0], "ce": [1.0], "x": 0}
    del batch[key]
    with pytest.raises(KeyError, match=f"no {what} key in the batch: '{key}'.*There are: .*'x'"):
        make().update_batch(batch)


@pytest.mark.parametrize("where", [{"mode": 1}, {"ds_id": None}, {"mode": ["train"]}])
def test_modes_and_datasets_are_named_by_strings(where):
    with pytest.raises(TypeError, match="must be a string, got"):
        make().update([0], [1.0], **where)


def test_nan_under_raise_stop_the_epoch_and_lose_nothing():
    tracker = make(nan_policy="raise")
    tracker.update([0, 3, 3], [1.0, math.nan, 2.0])
    with pytest.raises(ValueError, match=r"1 NaN samples under nan_policy='raise', by label \(how many\): 3 \(1\)"):
        tracker.end_epoch(1)
    assert len(tracker.history) == 0
    tracker.nan_policy = "omit"
    assert rows(tracker.end_epoch(1)) == {0: expected([1.0]), 3: expected([2.0])}


def test_the_policy_of_the_moment_reads_samples_that_were_folded_under_another():
    tracker = make(nan_policy="raise", max_buffer_bytes=1)
    tracker.update([3, 3], [math.nan, 2.0])
    tracker.nan_policy = "omit"
    tracker.update([3], [4.0])
    assert tracker.end_epoch(1)[3].mean == 3.0


def test_samples_can_be_forgotten():
    tracker = make()
    tracker.update([0], [1.0])
    tracker.update([0], [1.0], mode="eval")
    tracker.reset(mode="train")
    with pytest.warns(lt.LabelTrackWarning, match="no samples were recorded in mode 'train'.*mode 'eval' has 1"):
        assert len(tracker.end_epoch(1)) == 0
    tracker.reset()
    assert len(tracker.end_epoch(1, mode="eval")) == 0


def test_datasets_of_one_mode_have_labels_of_one_type():
    tracker = make()
    tracker.update(["a"], [1.0], ds_id="A")
    with pytest.raises(TypeError, match="were string labels so far in this epoch and are integer labels now"):
        tracker.update([1], [1.0], ds_id="B")
    tracker.update([1], [1.0], mode="eval", ds_id="B")
    assert len(tracker.end_epoch(1)) == 1


@pytest.mark.parametrize("policy", ["propagate", "omit"])
def test_other_policies_act_on_the_epoch(policy):
    tracker = make(nan_policy=policy)
    tracker.update([3, 3], [math.nan, 2.0])
    mean = tracker.end_epoch(1)[3].mean
    assert mean == 2.0 if policy == "omit" else math.isnan(mean)


def test_a_step_that_is_taken_is_refused_and_the_samples_stay():
    tracker = make()
    tracker.update([0], [1.0])
    tracker.end_epoch(1)
    tracker.update([0], [2.0])
    with pytest.raises(ValueError, match="step 1 of mode 'train' is already in the history"):
        tracker.end_epoch(1)
    with pytest.raises(TypeError, match="step must be an integer"):
        tracker.end_epoch("two")
    assert tracker.end_epoch(2)[0].mean == 2.0


# -- the hot path -----------------------------------------------------------------------------------------


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


# -- checkpoints ------------------------------------------------------------------------------------------


def half_way(tracker):
    for labels, values in batches(10):
        tracker.update(labels, values)
        tracker.update(labels, values, mode="eval", ds_id="a")
    tracker.end_epoch(1)
    for labels, values in batches(5, seed=1):
        tracker.update(labels, values)
        tracker.update(labels, values, mode="test", ds_id="words")


def the_rest(tracker):
    for labels, values in batches(5, seed=2):
        tracker.update(labels, values)
    for mode in ("train", "eval", "test"):
        tracker.end_epoch(2, mode=mode)


@pytest.mark.parametrize("limit", [2**28, 2000])
def test_a_tracker_restored_in_the_middle_of_an_epoch_goes_on_to_the_same_bits(limit):
    options = {"label_mapping": {"zero": 0, "two": 2, "four": 4}, "bounds": ["std", "range"], "max_buffer_bytes": limit}
    whole = make(**options)
    half_way(whole)
    by_pickle = pickle.loads(pickle.dumps(whole))
    by_state = make(**options)
    by_state.load_state_dict(pickle.loads(pickle.dumps(whole.state_dict())))
    for tracker in (whole, by_pickle, by_state):
        the_rest(tracker)
    for tracker in (by_pickle, by_state):
        assert fingerprint(tracker.history) == fingerprint(whole.history)
        assert tracker.history.bounds == ("std", "range")
    assert by_pickle.label_mapping == whole.label_mapping


def test_a_tracker_of_strings_is_restored():
    whole = make()
    whole.update(["a", "b"], [1, 2])
    again = make()
    again.load_state_dict(whole.state_dict())
    for tracker in (whole, again):
        tracker.update(["c", "a"], [3, 4])
    assert fingerprint(again.end_epoch(1)) == fingerprint(whole.end_epoch(1))


def test_a_state_is_not_changed_by_going_on():
    tracker = make()
    tracker.update([0], [1.0])
    state = tracker.state_dict()
    tracker.update([0], [5.0])
    tracker.end_epoch(1)
    again = make()
    again.load_state_dict(state)
    again.update([0], [3.0])
    assert again.end_epoch(1)[0].mean == 2.0


CONTINUE = """
import pathlib, pickle, sys
import numpy as np
sys.path.insert(0, sys.argv[3])
from test_tracker import the_rest
if sys.argv[4] == "pickle":
    tracker = pickle.loads(pathlib.Path(sys.argv[1]).read_bytes())
else:
    import labeltrack as lt
    tracker = lt.LabelTracker("y", "ce")
    tracker.load_state_dict(pickle.loads(pathlib.Path(sys.argv[1]).read_bytes()))
the_rest(tracker)
pathlib.Path(sys.argv[2]).write_bytes(pickle.dumps(tracker.history.columns()))
"""


@pytest.mark.parametrize("how", ["pickle", "state"])
def test_a_fresh_process_goes_on_to_the_same_bits(how, tmp_path):
    tracker = make()
    half_way(tracker)
    saved, result = tmp_path / "saved", tmp_path / "result"
    saved.write_bytes(pickle.dumps(tracker if how == "pickle" else tracker.state_dict()))
    here = str(__file__).rpartition("/")[0]
    subprocess.run([sys.executable, "-c", CONTINUE, saved, result, here, how], check=True)
    the_rest(tracker)
    columns = pickle.loads(result.read_bytes())
    assert {k: v.tobytes() for k, v in columns.items()} == {
        k: v.tobytes() for k, v in tracker.history.columns().items()
    }


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"version": 99}, ValueError, "version 99 cannot be read, expected 3; use the labeltrack that saved"),
        ({"metric": "acc"}, ValueError, "state of metric 'acc' cannot be loaded into a tracker of 'ce'"),
        ({"label": "z"}, ValueError, "state of label 'z'"),
    ],
)
def test_a_state_of_another_tracker_is_refused_and_changes_nothing(change, error, message):
    tracker = make()
    tracker.update([0], [1.0])
    with pytest.raises(error, match=message):
        tracker.load_state_dict(make().state_dict() | change)
    assert tracker.end_epoch(1)[0].mean == 1.0


@pytest.mark.parametrize(("state", "kind"), [({"model": 1}, "dict"), (None, "NoneType"), ([], "list")])
def test_what_is_no_state_is_refused(state, kind):
    with pytest.raises(
        TypeError, match=rf"expected the state_dict\(\) of a LabelTracker, got {kind} without a version"
    ):
        make().load_state_dict(state)


@pytest.mark.parametrize("key", ["label", "history", "words", "streams", "order"])
def test_a_state_that_lacks_something_is_refused_and_changes_nothing(key):
    tracker = make()
    tracker.update([0], [1.0])
    state = tracker.state_dict()
    lacking = {name: part for name, part in state.items() if name != key}
    with pytest.raises(TypeError, match=rf"expected the state_dict\(\) of a LabelTracker, .*KeyError '{key}'"):
        tracker.load_state_dict(lacking)
    assert tracker.state_dict() == state


def test_the_repr_says_what_is_recorded():
    tracker = make()
    tracker.update([0, 1], [1, 2])
    assert repr(tracker) == (
        "LabelTracker(label='y', metric='ce', bounds=('std',)): 0 entries in the history, 2 samples since"
    )


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


def test_an_epoch_done_again_replaces_the_one_before_it():
    tracker = lt.LabelTracker(label="y", metric="ce")
    tracker.update([0, 1], [1.0, 2.0])
    tracker.end_epoch(3)
    tracker.update([0, 1], [4.0, 8.0])
    with pytest.raises(ValueError, match="already in the history"):
        tracker.end_epoch(3)
    again = tracker.end_epoch(3, replace=True)
    assert again.mean.tolist() == tracker.history.at(3).mean.tolist() == [4.0, 8.0]
    assert tracker.history.steps() == [3]


# -- quantiles --------------------------------------------------------------------------------------------

QUARTILES = [0.25, 0.5, 0.75]


def filled(bounds, **options):
    """Return a tracker of an epoch of two datasets and a train, and the samples by dataset."""
    rng = np.random.default_rng(3)
    tracker = make(bounds=bounds, **options)
    samples = {}
    for ds_id, dtype, labels in (("a", np.int32, 5), ("b", np.uint64, 7), ("", np.int64, 3)):
        keys, values = rng.integers(0, labels, 900).astype(dtype), rng.normal(size=900).astype(np.float32)
        samples[ds_id] = (keys.astype(np.int64), values.astype(np.float64))
        for i in range(0, 900, 100):
            tracker.update(keys[i : i + 100], values[i : i + 100], mode="eval" if ds_id else "train", ds_id=ds_id)
    return tracker, samples


def quartiles_of(labels, values):
    return np.array([np.quantile(values[labels == k], QUARTILES) for k in np.unique(labels)]).T


def pooled(samples):
    return tuple(np.concatenate([samples[ds_id][i] for ds_id in ("a", "b")]) for i in (0, 1))


def test_quantiles_are_of_each_dataset_and_of_all_together():
    tracker, samples = filled("iqr")
    together = tracker.end_epoch(1, mode="eval")
    train = tracker.end_epoch(1)
    np.testing.assert_array_equal(train.bounds("iqr"), quartiles_of(*samples[""]))
    np.testing.assert_array_equal(together.bounds("iqr"), quartiles_of(*pooled(samples)))
    history = tracker.history
    np.testing.assert_array_equal(history.at(1, "eval").bounds("iqr"), quartiles_of(*pooled(samples)))
    for ds_id in ("a", "b"):
        np.testing.assert_array_equal(history.at(1, "eval", ds_id).bounds("iqr"), quartiles_of(*samples[ds_id]))
    assert history.series(2, "median", "eval")[1] == np.median(pooled(samples)[1][pooled(samples)[0] == 2])
    assert history.series(2, "q0.25", "eval", "a")[1] == quartiles_of(*samples["a"])[0, 2]
    worst = history.worst(1, by="median", mode="eval")
    assert worst == [int(np.argmax(quartiles_of(*pooled(samples))[1]))]
    assert list(history.columns())[-3:] == ["q0.25", "q0.5", "q0.75"]
    assert history.plot(bounds=["iqr", "median"]).axes


@pytest.mark.parametrize("how", [lambda t: pickle.loads(pickle.dumps(t)), copy.deepcopy])
def test_quantiles_survive_a_copy_and_the_samples_of_the_epoch_too(how):
    tracker, samples = filled(["std", ("quantile", 0.25, 0.75)])
    tracker.end_epoch(1, mode="eval")
    other = how(tracker)
    assert other.bounds == ("std", ("quantile", 0.25, 0.75))
    wanted = quartiles_of(*pooled(samples))
    np.testing.assert_array_equal(other.history.at(1, "eval").bounds(("quantile", 0.25, 0.75)), wanted)
    np.testing.assert_array_equal(other.end_epoch(1).bounds(other.bounds[1]), quartiles_of(*samples[""]))


def test_strings_and_a_mapping_have_quantiles():
    tracker = make(bounds="median", label_mapping={"Cat": "cat", "Dog": "dog"})
    for _ in range(3):
        tracker.update(["cat", "eel", "dog", "cat"], [1.0, 9.0, 5.0, 2.0])
    stats = tracker.end_epoch(1)
    assert dict(zip(stats.names.tolist(), stats.median.tolist(), strict=True)) == {"Cat": 1.5, "Dog": 5.0}


def test_samples_that_were_folded_have_no_quantiles_and_all_else():
    _, samples = filled("std")
    small = make(bounds="iqr", max_buffer_bytes=2_000)
    keys, values = samples["a"]
    with pytest.warns(
        lt.LabelTrackWarning, match=r"no quantiles for this epoch: max_buffer_bytes was full.*\(it is 2,000\)"
    ) as told:
        for i in range(0, 900, 100):
            small.update(keys[i : i + 100], values[i : i + 100])
    assert len(told) == 1
    assert told[0].filename == __file__
    stats = small.end_epoch(1)
    assert fingerprint(stats) == fingerprint(lt.label_stats(keys, values))
    for read in (lambda: stats.median, lambda: stats.bounds("iqr"), small.history.plot):
        with pytest.raises(ValueError, match=r"Raise max_buffer_bytes to the size of an epoch; or record the run"):
            read()
    assert small.history.plot(bounds="std").axes
    small.update(keys[:50], values[:50])  # the next epoch is short enough
    np.testing.assert_array_equal(small.end_epoch(2).bounds("iqr"), quartiles_of(keys[:50], values[:50]))
    columns = small.history.columns()
    assert np.isnan(columns["q0.5"][columns["step"] == 1]).all()
    assert not np.isnan(columns["q0.5"][columns["step"] == 2]).any()


def test_a_batch_beyond_all_memory_has_no_quantiles_either():
    tracker = make(bounds="median", max_buffer_bytes=100)
    with pytest.warns(lt.LabelTrackWarning, match="no quantiles for this epoch"):
        tracker.update(np.arange(1000), np.ones(1000))
    with pytest.raises(ValueError, match="max_buffer_bytes was full"):
        tracker.end_epoch(1).bounds("median")


def test_nobody_pays_for_quantiles_who_does_not_ask(monkeypatch):
    monkeypatch.setattr(LabelStats, "_with_quantiles", lambda *_: pytest.fail("computed"))
    tracker, _ = filled(["std", "range", None])
    assert tracker.end_epoch(1).quantiles == ()


def test_another_dataset_makes_the_quantiles_of_all_together_unknown():
    tracker, _ = filled("median")
    tracker.end_epoch(1, mode="eval")
    history = tracker.history
    history.add(1, lt.label_stats([0], [1.0], quantiles=[0.5]), mode="eval", ds_id="c")
    with pytest.raises(ValueError, match="these statistics were merged, and quantiles cannot be merged"):
        history.at(1, "eval").bounds("median")
    assert history.at(1, "eval", "c").median.tolist() == [1.0]


# -- multi-hot labels -------------------------------------------------------------------------------------


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


# -- what is pending, and in which order labels appeared ----------------------------------------------------


@pytest.mark.parametrize("limit", [1, 2**20])
def test_pending_samples_are_counted_by_mode_and_dataset(limit):
    tracker = make(max_buffer_bytes=limit)
    assert tracker.pending == {}
    tracker.update([0, 1], [1.0, 2.0])
    tracker.update([0], [1.0])
    tracker.update(["a"], [1.0], mode="eval", ds_id="x")
    assert tracker.pending == {("train", ""): 3, ("eval", "x"): 1}
    tracker.end_epoch(1)
    assert tracker.pending == {("eval", "x"): 1}
    tracker.reset()
    assert tracker.pending == {}


def words(labels):
    return [f"class {label}" for label in labels.tolist()]


@pytest.mark.parametrize("limit", [1, 3000, 2**20])
@pytest.mark.parametrize("kind", [np.copy, words, lambda labels: labels / 2, lambda labels: labels % 2 == 0])
@pytest.mark.parametrize("mapped", [False, True])
def test_labels_are_in_the_order_in_which_they_first_appeared(limit, kind, mapped):
    rng = np.random.default_rng(limit)
    chosen = {str(label) for label in list(kind(np.arange(60)))[::2]}
    mapping = {str(label): label for label in kind(np.arange(60)) if str(label) in chosen} if mapped else None
    tracker = make(max_buffer_bytes=limit, keep_order=True, label_mapping=mapping)
    seen = {}
    for step in range(1, 6):
        first = {}
        for ds_id in rng.permutation(["a", "b", "c"]).tolist():
            for size in rng.integers(1, 400, 3).tolist():
                labels = kind(rng.permutation(rng.integers(0, 12 * step, size)))
                tracker.update(labels, np.ones(size), ds_id=ds_id)
                first.setdefault(ds_id, []).extend(labels if isinstance(labels, list) else labels.tolist())
        if step == 2:
            tracker = pickle.loads(pickle.dumps(tracker))
        if step == 4:
            tracker.reset()
            continue
        tracker.end_epoch(step)
        seen.update(dict.fromkeys(x for some in first.values() for x in some if mapping is None or str(x) in chosen))
        assert tracker.labels_in_order == list(seen)


def test_a_batch_that_was_refused_does_not_begin_a_dataset():
    tracker = make(keep_order=True)
    with pytest.raises(ValueError, match="differ in length"):
        tracker.update([9, 8], [1.0, 2.0, 3.0], ds_id="a")
    tracker.update([3], [1.0], ds_id="b")
    tracker.update([2], [1.0], ds_id="a")
    assert tracker.labels_in_order == []
    tracker.end_epoch(1)
    assert tracker.labels_in_order == [3, 2]


def test_the_order_of_labels_is_known_only_to_those_who_ask_for_it():
    plain, ordered = make(), make(keep_order=True)
    plain.update([7, 3], [1.0, 2.0])
    plain.end_epoch(1)
    with pytest.raises(ValueError, match="keep_order=True"):
        _ = plain.labels_in_order
    plain.update([9, 1], [1.0, 2.0])
    ordered.load_state_dict(plain.state_dict())
    assert ordered.labels_in_order == [3, 7]  # of the history, where the order is unknown
    ordered.end_epoch(2)
    assert ordered.labels_in_order == [3, 7, 9, 1]


def test_labels_folded_before_anybody_asked_for_the_order_are_not_left_out():
    plain, ordered = make(max_buffer_bytes=1), make(keep_order=True)
    plain.update([5, 3], [1.0, 2.0])
    ordered.load_state_dict(plain.state_dict())
    ordered.update([9, 3], [1.0, 2.0])
    ordered.end_epoch(1)
    assert sorted(ordered.labels_in_order) == [3, 5, 9]


def test_labels_of_a_mapping_that_never_occurred_are_warned_of_once():
    tracker = make(label_mapping={"zero": 0, "ninety": 90})
    tracker.check_mapping()  # no epoch has ended: nothing to warn about yet
    tracker.update([0], [1.0])
    tracker.end_epoch(1)
    with pytest.warns(lt.LabelTrackWarning, match="never occurred: 90, called 'ninety'") as caught:
        tracker.check_mapping()
        tracker.close()
    assert [one.filename for one in caught] == [__file__]


def test_unmapped_labels_that_a_saved_state_lacks_are_not_called_none():
    tracker, again = (make(label_mapping={"ninety": 90}, max_buffer_bytes=1) for _ in range(2))
    tracker.update([0], [1.0])
    again.load_state_dict(tracker.state_dict())
    with pytest.warns(lt.LabelTrackWarning, match="it maps 90, but only other labels occurred"):
        again.end_epoch(1)


def test_a_restored_tracker_repeats_no_warning_about_its_mapping():
    tracker = make(label_mapping={"ninety": 90})
    tracker.update([0], [1.0])
    with pytest.warns(lt.LabelTrackWarning, match="it maps 90"):
        tracker.end_epoch(1)
    again = make(label_mapping={"ninety": 90})
    again.load_state_dict(tracker.state_dict())
    again.update([0], [1.0])
    assert len(again.end_epoch(2)) == 0


# -- the running epoch ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1, 3000, 2**20])
@pytest.mark.parametrize("kind", [np.copy, words, lambda labels: labels / 2])
@pytest.mark.parametrize("options", [{}, {"bounds": "iqr"}, {"nan_policy": "omit"}])
@pytest.mark.filterwarnings("ignore:no quantiles for this epoch")
def test_a_running_epoch_can_be_looked_at_without_a_change(limit, kind, options):
    looked, plain = (make(max_buffer_bytes=limit, **options) for _ in "ab")
    rng = np.random.default_rng(limit)
    parts = []
    for batch in range(12):
        labels, values = kind(rng.integers(0, 7, 50)), rng.lognormal(0, 2, 50)
        parts.append((labels, values))
        for tracker in (looked, plain):
            tracker.update(labels, values, ds_id="ab"[batch % 2])
        before = looked.state_dict()
        stats = looked.compute()
        assert looked.state_dict() == before
        every = [x for labels, _ in parts for x in (labels if isinstance(labels, list) else labels.tolist())]
        assert rows(stats) == expected_by_label(every, np.concatenate([values for _, values in parts]).tolist())
    last, ended = looked.compute(), looked.end_epoch(1)
    assert fingerprint(last) == fingerprint(ended) == fingerprint(plain.end_epoch(1))
    assert last.quantiles == ended.quantiles
    for fraction in last.quantiles:
        np.testing.assert_array_equal(last.quantile(fraction), ended.quantile(fraction))
    assert bool(last.quantiles) == ("bounds" in options and limit == 2**20)
    assert len(looked.compute()) == 0


def test_a_look_at_a_mode_without_samples_is_empty_without_a_warning():
    tracker = make()
    tracker.update([0], [1.0])
    assert len(tracker.compute("eval")) == len(make().compute()) == 0
    assert tracker.compute().labels.tolist() == [0]
    with pytest.raises(TypeError, match="mode must be a string"):
        tracker.compute(1)


def test_nan_under_raise_are_an_error_of_a_look_too_and_stay():
    tracker = make(nan_policy="raise")
    tracker.update([0, 3, 3], [1.0, math.nan, 2.0])
    for _ in range(2):
        with pytest.raises(ValueError, match=r"1 NaN samples under nan_policy='raise', by label \(how many\): 3 \(1\)"):
            tracker.compute()
    assert tracker.pending == {("train", ""): 3}


def test_a_mapping_of_which_nothing_occurs_is_warned_of_by_the_first_look():
    tracker = make(label_mapping={"cat": "cat"})
    tracker.update(["dog"], [1.0])
    with pytest.warns(lt.LabelTrackWarning, match="it maps 'cat', but the labels that occurred are 'dog'") as caught:
        assert len(tracker.compute()) == 0
    assert [one.filename for one in caught] == [__file__]
    assert len(tracker.compute()) == len(tracker.end_epoch(1)) == 0
