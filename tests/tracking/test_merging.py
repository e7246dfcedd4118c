"""`LabelTracker.merge_state`: running epochs and histories of several trackers, exactly."""

from __future__ import annotations

import itertools
import math
import pickle
import warnings

import numpy as np
import pytest
from conftest import COMPILED
from exact import expected, expected_by_label, fingerprint, rows
from hypothesis import given, settings
from hypothesis import strategies as st
from test_interrupts import PLAIN, At, stride
from trackers import make

import labeltrack as lt

KINDS = {
    "int64": lambda labels: labels,
    "uint8": lambda labels: labels.astype(np.uint8),
    "huge": lambda labels: labels.astype(np.uint64) + np.uint64(2**63),
    "bool": lambda labels: labels % 2 == 0,
    "float": lambda labels: labels / 8,
    "str": lambda labels: [f"class {label}" for label in labels.tolist()],
    "bytes": lambda labels: np.array([b"%d" % label for label in labels.tolist()]),
}
STREAMS = [("train", ""), ("train", "a"), ("eval", "b")]


def plain(labels):
    return labels if isinstance(labels, list) else labels.tolist()


@settings(max_examples=60 if COMPILED else 20, deadline=None)
@given(st.data())
def test_merging_gives_what_one_tracker_has_of_all_samples(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    kind = KINDS[data.draw(st.sampled_from(list(KINDS)))]
    limits = st.sampled_from([1, 2000, 30_000, 2**28])
    trackers = [make(max_buffer_bytes=data.draw(limits)) for _ in range(data.draw(st.integers(2, 4)))]
    seen, now = {}, {}
    for tracker, part in zip(trackers, itertools.count(), strict=False):
        for step in range(data.draw(st.integers(1, 3))):
            for mode, ds_id in STREAMS:
                for n in rng.integers(0, 60, rng.integers(0, 3)).tolist():
                    labels = kind(rng.integers(10 * part, 10 * part + 15, n))
                    values = 10.0 ** rng.uniform(-30, 30, n)
                    tracker.update(labels, values, mode=mode, ds_id=ds_id)
                    if n:
                        found = now.setdefault((mode, ds_id, part), ([], []))
                        found[0].extend(plain(labels))
                        found[1].extend(values.tolist())
            if rng.random() < 0.6:
                for mode in ("train", "eval"):
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore", lt.LabelTrackWarning)
                        tracker.end_epoch(step, mode=mode)
                for key in [key for key in now if key[2] == part]:
                    target = seen.setdefault((*key[:2], step), ([], []))
                    for column, more in zip(target, now.pop(key), strict=True):
                        column.extend(more)
    before = [tracker.state_dict() for tracker in trackers[1:]]
    first, *others = trackers
    first.merge_state(others)
    assert [tracker.state_dict() for tracker in others] == before
    running = {}
    for (mode, _, _), (labels, values) in now.items():
        pooled = running.setdefault(mode, ([], []))
        pooled[0].extend(labels)
        pooled[1].extend(values)
    for tracker in (first, pickle.loads(pickle.dumps(first))):
        history = {key: rows(stats) for key, stats in tracker.history.items()}
        assert history == {key: expected_by_label(*samples) for key, samples in seen.items()}
        for mode in ("train", "eval"):
            assert rows(tracker.compute(mode)) == (expected_by_label(*running[mode]) if mode in running else {})
    first.update(kind(np.array([3, 3])), [1.0, 2.0], mode="eval", ds_id="b")  # and it goes on
    labels, values = running.get("eval", ([], []))
    wanted = expected_by_label([*labels, *plain(kind(np.array([3, 3])))], [*values, 1.0, 2.0])
    assert rows(first.end_epoch(99, mode="eval")) == wanted


def test_a_tracker_may_be_merged_with_itself():
    tracker = make()
    tracker.update([0, 1], [1.0, 2.0])
    tracker.end_epoch(1)
    tracker.update(["a"], [3.0])
    tracker.merge_state([tracker, tracker])
    assert rows(tracker.history.at(1)) == {0: expected([1.0] * 3), 1: expected([2.0] * 3)}
    assert rows(tracker.end_epoch(2)) == {"a": expected([3.0] * 3)}


def test_nothing_to_merge_changes_nothing():
    tracker = make()
    tracker.update([0], [1.0])
    before = tracker.state_dict()
    tracker.merge_state([])
    tracker.merge_state([make()])
    assert tracker.state_dict() == before


def test_inputs_go_on_by_themselves():
    first, second = make(), make()
    for tracker in (first, second):
        tracker.update([0, 1], [1.0, 2.0])
    first.merge_state([second])
    second.end_epoch(1)
    second.update([7, 7], [8.0, 8.0])  # into the memory that was copied
    assert rows(first.end_epoch(1)) == {0: expected([1.0] * 2), 1: expected([2.0] * 2)}
    assert rows(second.end_epoch(2)) == {7: expected([8.0, 8.0])}


# -- quantiles ------------------------------------------------------------------------------------------------


def samples(n, seed):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 5, n), rng.lognormal(0, 2, n)


@pytest.mark.parametrize("dtypes", [("i8", "f8"), ("u1", "f4"), ("U3", "f4")])
def test_quantiles_of_a_running_epoch_survive_where_there_is_room(dtypes):
    parts = [samples(500, seed) for seed in range(4)]
    trackers = [make(bounds="iqr") for _ in range(3)]
    for tracker, (labels, values) in zip([*trackers, trackers[0]], parts, strict=True):
        tracker.update(labels, values, ds_id="a")
        tracker.update(labels.astype(dtypes[0]) if dtypes[0] != "U3" else labels, values.astype(dtypes[1]), ds_id="b")
    trackers[0].merge_state(trackers[1:])
    stats = trackers[0].end_epoch(1)
    labels = np.concatenate([labels for labels, _ in parts for _ in "ab"])
    values = np.concatenate([x.astype(dtype) for _, x in parts for dtype in ("f8", dtypes[1])])
    for at, label in enumerate(np.unique(labels)):
        for fraction in (0.25, 0.5, 0.75):
            assert stats.quantile(fraction)[at] == np.quantile(values[labels == label], fraction)
    assert trackers[0].history.at(1, ds_id="a").quantiles == (0.25, 0.5, 0.75)


def test_samples_without_room_are_folded_with_a_warning_where_quantiles_were_asked_for():
    small, large = make(bounds="median", max_buffer_bytes=5000), make(bounds="median")
    labels, values = samples(2000, 1)
    large.update(labels, values)
    with pytest.warns(lt.LabelTrackWarning, match="no quantiles for this epoch") as caught:
        small.merge_state([large])
    assert [one.filename for one in caught] == [__file__]
    stats = small.end_epoch(1)
    assert fingerprint(stats) == fingerprint(lt.label_stats(labels, values))
    with pytest.raises(ValueError, match="max_buffer_bytes was full"):
        _ = stats.median


def test_memory_for_merged_samples_is_counted():
    labels, values = samples(1000, 1)
    one, other = make(max_buffer_bytes=24_000), make()
    one.update(labels[:10], values[:10])
    other.update(labels[10:], values[10:])
    one.merge_state([other])
    for tracker in (one, other):
        assert tracker.pending[("train", "")] in (1000, 990)
    one.update(*samples(3000, 2))
    every = [np.concatenate(columns) for columns in zip((labels, values), samples(3000, 2), strict=True)]
    assert fingerprint(one.end_epoch(1)) == fingerprint(lt.label_stats(*every))


def test_steps_that_only_one_tracker_has_keep_their_quantiles():
    first, second = make(bounds="median"), make(bounds="median")
    for tracker, steps in ((first, (1, 2)), (second, (2, 3))):
        for step in steps:
            for ds_id in "ab":
                tracker.update([0, 0, 0], [1.0, 2.0, 9.0], ds_id=ds_id)
            tracker.end_epoch(step)
    first.merge_state([second])
    history = first.history
    assert history.steps() == [1, 2, 3]
    for step in (1, 3):
        assert history.at(step).median.tolist() == history.at(step, ds_id="a").median.tolist() == [2.0]
    with pytest.raises(ValueError, match="quantiles cannot be merged"):
        _ = history.at(2).median
    assert history.at(2).count.tolist() == [12]


@pytest.mark.parametrize("limit", [20_000, 2**28])
@pytest.mark.filterwarnings("ignore:no quantiles for this epoch")
def test_merging_one_after_the_other_gives_the_same_as_at_once(limit):
    def fill(seed):
        tracker = make(bounds="median", max_buffer_bytes=limit if seed == 0 else 2**28)
        tracker.update(*samples(300, seed))
        return tracker

    at_once, step_by_step = fill(0), fill(0)
    others = [fill(seed) for seed in (1, 2, 3, 4)]
    at_once.merge_state(others)
    for other in others:
        step_by_step.merge_state([other])
    assert step_by_step.pending == at_once.pending == {("train", ""): 1500}
    stats, same = step_by_step.end_epoch(1), at_once.end_epoch(1)
    every = [np.concatenate(columns) for columns in zip(*(samples(300, seed) for seed in range(5)), strict=True)]
    assert stats.quantiles == same.quantiles == ((0.5,) if limit == 2**28 else ())
    wanted = lt.label_stats(*every, quantiles=stats.quantiles)
    assert fingerprint(stats) == fingerprint(same) == fingerprint(wanted)


# -- what does not go together --------------------------------------------------------------------------------


def unchanged(tracker, others, error, match):
    before = [one.state_dict() for one in (tracker, *others)]
    with pytest.raises(error, match=match):
        tracker.merge_state(others)
    assert [one.state_dict() for one in (tracker, *others)] == before
    tracker.update([0], [1.0], mode="test")
    assert tracker.end_epoch(1, mode="test").count.tolist() == [1]


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"label": "z"}, "number 1: its label is 'z', and 'y' here"),
        ({"metric": "acc"}, "number 1: its metric is 'acc', and 'ce' here"),
        ({"label_mapping": {"cat": 2}}, r"number 1: its label_mapping is \{'cat': 2\}, and \{'cat': 0\} here"),
        ({"label_mapping": None}, "its label_mapping is None"),
        ({"nan_policy": "omit"}, "its nan_policy is 'omit', and 'propagate' here"),
        ({"missing": "skip"}, "its missing is 'skip', and 'error' here"),
    ],
)
def test_trackers_of_something_else_are_not_merged(options, match):
    given = {"label": "y", "metric": "ce", "label_mapping": {"cat": 0}}
    same, other = lt.LabelTracker(**given), lt.LabelTracker(**given | options)
    same.update([0], [1.0])
    unchanged(lt.LabelTracker(**given), [same, other], ValueError, match)


def test_only_trackers_are_merged():
    with pytest.raises(TypeError, match=r"expected trackers to merge, or their states, got list \(number 1\)"):
        make().merge_state([make(), [make()]])
    with pytest.raises(TypeError, match=r"expected trackers to merge, such as \[tracker\], got LabelTracker"):
        make().merge_state(make())


@pytest.mark.parametrize("limit", [1, 2**20])
@pytest.mark.parametrize(
    ("own", "other", "ds_id", "match"),
    [
        ([1], ["a"], "", "have integer and string labels in mode 'train'"),
        ([1], ["a"], "elsewhere", "have integer and string labels in mode 'train'"),
        ([0.5], [1], "", "have float and integer labels"),
        ([-1], np.array([2**63], np.uint64), "", r"labels above 2\*\*63 - 1 and negative labels"),
        (np.array([2**63], np.uint64), [-1], "", r"labels above 2\*\*63 - 1 and negative labels"),
    ],
)
def test_labels_of_one_mode_have_to_be_of_one_type(own, other, ds_id, match, limit):
    first, second = make(max_buffer_bytes=limit), make(max_buffer_bytes=limit)
    first.update(own, [1.0])
    second.update(["fine"], [1.0], mode="eval")
    second.update(other, [1.0], ds_id=ds_id)
    unchanged(first, [second], TypeError, match)


def test_epochs_of_different_types_under_one_step_are_not_merged():
    first, second = make(), make()
    first.update([1], [1.0])
    second.update(["a"], [1.0])
    for tracker in (first, second):
        tracker.end_epoch(5)
    unchanged(first, [second], TypeError, "cannot put")


@pytest.mark.parametrize("limit", [1, 2**20])
def test_kinds_that_one_type_holds_are_merged(limit):
    trackers = [make(max_buffer_bytes=limit) for _ in range(3)]
    huge = 2**63 + 1
    for tracker, labels in zip(
        trackers, ([True, False], np.array([huge, 3], np.uint64), np.array([3, 1])), strict=True
    ):
        tracker.update(labels, [1.0, 2.0])
    trackers[0].merge_state(trackers[1:])
    assert rows(trackers[0].end_epoch(1)) == expected_by_label([1, 0, huge, 3, 3, 1], [1.0, 2.0] * 3)


def test_an_empty_stream_takes_labels_of_any_type():
    first, second = make(), make()
    first.update([1], [1.0])
    first.end_epoch(1)
    second.update(["a", "b"], [1.0, 2.0])
    first.merge_state([second])
    first.update(["b"], [4.0])
    assert rows(first.end_epoch(2)) == {"a": expected([1.0]), "b": expected([2.0, 4.0])}


# -- states -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("limit", [1, 2**20])
@pytest.mark.parametrize("samples", [True, False])
def test_a_state_is_merged_like_the_tracker_that_it_is_of(kind, limit, samples):
    rng = np.random.default_rng(7)
    trackers = [make(max_buffer_bytes=limit) for _ in range(3)]
    for tracker, first in zip(trackers, (0, 5, 40), strict=True):
        for step in (1, 2):
            for mode, ds_id in STREAMS:
                labels = KINDS[kind](rng.integers(first, first + 9, 50))
                tracker.update(labels, rng.lognormal(0, 9, 50), mode=mode, ds_id=ds_id)
            if step == 1:
                tracker.end_epoch(1)
    by_states, by_trackers = make(max_buffer_bytes=limit), make(max_buffer_bytes=limit)
    by_trackers.merge_state(trackers)
    by_states.merge_state(tracker.state_dict(samples=samples) for tracker in trackers)
    for tracker in (by_states, by_trackers):
        for mode in ("train", "eval"):
            tracker.end_epoch(2, mode=mode)
    found, wanted = ({key: fingerprint(stats) for key, stats in of.history.items()} for of in (by_states, by_trackers))
    assert found == wanted
    assert len(found) == 5


def test_a_state_may_leave_out_modes_the_history_and_samples():
    tracker = make(bounds="iqr")
    tracker.update([0], [1.0])
    tracker.end_epoch(1)
    tracker.update([0] * 100_000, np.arange(100_000.0))
    tracker.update([3], [4.0], mode="eval", ds_id="b")
    sums = tracker.state_dict(mode="train", history=False, samples=False)
    assert len(pickle.dumps(sums)) < 2000
    other = make()
    other.merge_state([sums])
    assert len(other.history) == 0
    assert other.pending == {("train", ""): 100_000}
    assert rows(other.compute()) == rows(tracker.compute())
    whole = make(bounds="iqr")
    whole.merge_state([tracker.state_dict(history=False)])
    assert whole.pending == tracker.pending
    assert whole.compute().median.tolist() == [49_999.5]


@pytest.mark.parametrize("keep_order", [True, False])
def test_the_sums_of_a_state_keep_the_order_of_labels(keep_order):
    tracker, other = make(keep_order=keep_order), make(keep_order=True)
    tracker.update(["b", "c", "a"], [1.0, 2.0, 3.0])
    other.merge_state([tracker.state_dict(samples=False)])
    other.end_epoch(1)
    assert other.labels_in_order == (["b", "c", "a"] if keep_order else ["a", "b", "c"])


@pytest.mark.parametrize("change", [{"version": 99}, {"metric": "loss"}, {"streams": [{}]}, {"history": None}])
def test_a_state_that_cannot_be_read_is_not_merged(change):
    first, second = make(), make()
    second.update([0, 1], [1.0, 2.0])
    with pytest.raises((TypeError, ValueError), match=r"state|history"):
        first.merge_state([second.state_dict(), second.state_dict() | change])
    assert first.state_dict() == make().state_dict()


def test_states_are_taken_one_by_one_and_nothing_is_merged_if_that_fails():
    first = make()
    first.update([0], [1.0])

    def states():
        yield first.state_dict()
        msg = "no more"
        raise OSError(msg)

    before = first.state_dict()
    with pytest.raises(OSError, match="no more"):
        first.merge_state(states())
    assert first.state_dict() == before


# -- options --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1, 2**20])
def test_mappings_nan_and_missing_labels_act_on_the_whole(limit):
    options = {"label_mapping": {"cat": 0, "dog": 1}, "nan_policy": "omit", "missing": "label"}
    trackers = [make(max_buffer_bytes=limit, **options) for _ in range(2)]
    trackers[0].update([0, 5, None], [1.0, 2.0, 3.0])
    trackers[1].update([1, 0, None, 7], [math.nan, 4.0, 5.0, 6.0])
    trackers[0].merge_state(trackers[1:])
    stats = trackers[0].end_epoch(1)
    assert {row.name: (row.count, row.sum) for row in stats} == {
        "(missing)": (2, 8.0),
        "cat": (2, 5.0),
        "dog": (0, 0.0),
    }


@pytest.mark.parametrize("limits", list(itertools.product([1, 2**20], repeat=2)))
def test_labels_that_nobody_mapped_are_named_in_the_warning(limits):
    trackers = [make(label_mapping={"cat": "cat"}, max_buffer_bytes=limit) for limit in limits]
    trackers[1].update(["dog"], [1.0])
    trackers[0].merge_state(trackers[1:])
    with pytest.warns(lt.LabelTrackWarning, match="the labels that occurred are 'dog'"):
        trackers[0].end_epoch(1)


@pytest.mark.parametrize("limits", list(itertools.product([1, 2**20], repeat=2)))
@pytest.mark.parametrize("kept", [True, False])
def test_labels_of_others_come_after_those_here(limits, kept):
    first, second = (
        make(max_buffer_bytes=limit, keep_order=keep) for limit, keep in zip(limits, (True, kept), strict=True)
    )
    for tracker, labels in ((first, [9, 4]), (second, [7, 4, 2])):
        tracker.update(labels, np.ones(len(labels)))
        tracker.end_epoch(1)
    first.update([30, 20, 4], np.ones(3), ds_id="b")
    second.update([60, 50, 20], np.ones(3), ds_id="b")
    second.update([40], [1.0], ds_id="a")
    first.merge_state([second])
    assert first.labels_in_order == [9, 4, *([7, 2] if kept else [2, 7])]
    first.end_epoch(2)
    folded = [60, 50] if kept or limits[1] > 1 else [50, 60]
    assert first.labels_in_order[4:] == [30, 20, *folded, 40]


# -- interrupts -----------------------------------------------------------------------------------------------


def test_an_interrupt_at_any_line_merges_everything_or_nothing():
    def fill(tracker, labels):
        tracker.update(labels, [1.0, 2.0])
        tracker.end_epoch(1)
        tracker.update(labels, [3.0, 4.0])
        tracker.update(labels, [5.0, 6.0], mode="eval", ds_id=labels[0])

    def columns(tracker):
        epochs = {key: rows(stats) for key, stats in tracker.history.items()}
        return epochs, rows(tracker.compute()), rows(tracker.compute("eval")), tracker.pending

    other = make()
    fill(other, ["b", "c"])
    raised = seen = 0
    for n in itertools.count(0, stride(29, 3)):
        tracker, whole = make(), make()
        for one in (tracker, whole):
            fill(one, ["a", "b"])
        before = columns(tracker)
        whole.merge_state([other])
        with At(n) as at:
            tracker.merge_state([other])
        after = columns(tracker)
        assert after in (before, columns(whole))
        seen += after == before
        raised += at.raised
        if not at.raised:
            break
    assert after != before
    assert raised > seen > 3 or PLAIN


# -- recorded runs --------------------------------------------------------------------------------------------


def test_samples_of_trackers_that_do_not_record_are_missing_in_the_run(tmp_path):
    pytest.importorskip("pyarrow", reason="pyarrow is not installed (extra 'record')")
    with make(record_to=tmp_path / "run") as tracker:
        other = make()
        tracker.update([0, 1], [1.0, 2.0])
        other.update([1, 2, 2], [4.0, 5.0, 6.0])
        other.update([8], [9.0], ds_id="b")
        with pytest.warns(lt.LabelTrackWarning, match="3 samples are not recorded; .* merge_state"):
            tracker.merge_state([other])
        tracker.update([1], [3.0])
        tracker.merge_state([other])
        assert rows(tracker.end_epoch(1)) == expected_by_label(
            [0, 1, 1, 2, 2, 8, 1, 2, 2, 8, 1], [1, 2, 4, 5, 6, 9, 4, 5, 6, 9, 3]
        )
        tracker.update([5], [1.0])
        tracker.end_epoch(2)
    first, second = lt.open_run(tmp_path / "run").epochs
    assert (first.rows, first.complete, second.rows, second.complete) == (3, False, 1, True)
    assert first.lost == 8


def test_samples_of_trackers_that_record_are_in_their_run(tmp_path):
    pytest.importorskip("pyarrow", reason="pyarrow is not installed (extra 'record')")
    with (
        make(record_to=tmp_path / "a", max_buffer_bytes=2**16) as first,
        make(record_to=tmp_path / "b", max_buffer_bytes=2**16) as second,
    ):
        for n in range(1, 30):
            first.update(*samples(300, n))
            second.update(*samples(300, 100 + n))
        first.merge_state([second])
        merged, alone = first.end_epoch(1), second.end_epoch(1)
    assert merged.count.sum() == 2 * alone.count.sum() == 2 * 29 * 300
    for name, seeds in (("a", range(1, 30)), ("b", range(101, 130))):
        (epoch,) = lt.open_run(tmp_path / name).epochs
        assert (epoch.rows, epoch.complete) == (29 * 300, True)
        every = [np.concatenate(columns) for columns in zip(*(samples(300, n) for n in seeds), strict=True)]
        recomputed = lt.open_run(tmp_path / name).recompute(progress=False)
        assert fingerprint(recomputed.at(1)) == fingerprint(lt.label_stats(*every))


def test_samples_of_a_state_are_missing_in_the_run_only_if_nobody_recorded_them(tmp_path):
    pytest.importorskip("pyarrow", reason="pyarrow is not installed (extra 'record')")
    plain = make()
    plain.update([4, 5], [1.0, 2.0])
    with make(record_to=tmp_path / "a") as first, make(record_to=tmp_path / "b") as second:
        first.update([0, 1], [1.0, 2.0])
        second.update([1], [4.0])
        for samples in (True, False):
            first.merge_state([second.state_dict(samples=samples)])
        with pytest.warns(lt.LabelTrackWarning, match="2 samples are not recorded; .* merge_state"):
            first.merge_state([plain.state_dict(samples=False)])
        first.merge_state([plain.state_dict()])
        assert first.end_epoch(1).count.sum() == 8
    (epoch,) = lt.open_run(tmp_path / "a").epochs
    assert (epoch.rows, epoch.lost) == (2, 4)


def test_merged_samples_are_not_recorded_by_a_copy_that_goes_on(tmp_path):
    pytest.importorskip("pyarrow", reason="pyarrow is not installed (extra 'record')")
    first, second = make(), make()
    first.update([0, 1], [1.0, 2.0])
    second.update([1], [4.0])
    first.merge_state([second])
    with make(record_to=tmp_path / "run") as tracker:
        with pytest.warns(lt.LabelTrackWarning, match="in mode 'train', 1 sample is not recorded"):
            tracker.load_state_dict(first.state_dict())
            tracker.flush()
        assert rows(tracker.end_epoch(1)) == expected_by_label([0, 1, 1], [1.0, 2.0, 4.0])
    (epoch,) = lt.open_run(tmp_path / "run").epochs
    assert (epoch.rows, epoch.complete) == (2, False)


@pytest.mark.parametrize("label", ["y", ("y", "z")])
def test_trackers_with_nan_in_their_mapping_are_merged_after_pickle(label):
    mapping = {"none": float("nan"), "one": 1.0}
    mapping = mapping if label == "y" else {"y": mapping}
    trackers = [lt.LabelTracker(label, "ce", mapping, missing="label") for _ in range(2)]
    labels = [1.0, float("nan")]
    trackers[1] = pickle.loads(pickle.dumps(trackers[1]))
    for tracker in trackers:
        tracker.update(labels if label == "y" else (labels, [1, 1]), [1.0, 2.0])
    trackers[0].merge_state(trackers[1:])
    assert trackers[0].compute().count.tolist() == [2, 2]
    other = lt.LabelTracker("y", "ce", {"none": float("nan"), "one": 2.0}, missing="label")
    if label == "y":
        with pytest.raises(ValueError, match="its label_mapping is"):
            trackers[0].merge_state([other])
