"""`LabelTracker`: epochs, modes, choices, mappings, mistakes in arguments, checkpoints."""

from __future__ import annotations

import math
import pickle
import subprocess
import sys
import warnings

import numpy as np
import pytest
from exact import expected, expected_by_label, fingerprint, rows
from trackers import batches, exact, make

import labeltrack as lt

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
        ({"version": 99}, ValueError, "version 99 cannot be read, expected 4; use the labeltrack that saved"),
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


@pytest.mark.parametrize("key", ["label", "history", "words", "streams", "order", "warned"])
def test_a_state_that_lacks_something_is_refused_and_changes_nothing(key):
    tracker = make()
    tracker.update([0], [1.0])
    state = tracker.state_dict()
    lacking = {name: part for name, part in state.items() if name != key}
    with pytest.raises(TypeError, match=rf"expected the state_dict\(\) of a LabelTracker, .*KeyError '{key}'"):
        tracker.load_state_dict(lacking)
    assert tracker.state_dict() == state


def test_a_state_with_a_damaged_part_is_refused_and_changes_nothing():
    tracker = make()
    tracker.update([0], [1.0])
    state = tracker.state_dict()
    (stream,) = state["streams"]
    lacking = {name: part for name, part in stream.items() if name != "missed"}
    for damage in ({"order": 7}, {"streams": [lacking]}):
        with pytest.raises(TypeError, match=r"expected the state_dict\(\) of a LabelTracker, but it cannot be read"):
            tracker.load_state_dict(state | damage)
    assert tracker.state_dict() == state


def test_a_state_with_damaged_combinations_is_refused_and_changes_nothing():
    tracker = lt.LabelTracker(("a", "b"), "ce")
    tracker.update(([1, 2, 3], ["x", "y", "x"]), [1.0, 2.0, 3.0])
    state = tracker.state_dict()
    whole = state["words"]["combined"]
    words, first, second = whole["words"], [1, 2, 3], [0, 1, 0]
    tracker.load_state_dict(state | {"words": state["words"] | {"combined": {"words": words, "keys": [first, second]}}})
    damages = [{"words": [words[0], words[1] | {"string": [None, "y"]}]}]
    wrong = [[first], [first, [0, 1]], [first, [0.0, 1.5, 0.0]], [first, ["x", "y", "x"]], [[1, 2, 1], second], [1, 2]]
    damages += [{"keys": keys} for keys in wrong]
    for combined in (None, *({**whole, **damage} for damage in damages)):
        with pytest.raises(TypeError, match=r"expected the state_dict\(\) of a LabelTracker, but it cannot be read"):
            tracker.load_state_dict(state | {"words": state["words"] | {"combined": combined}})
    assert tracker.compute().mean.tolist() == [1.0, 2.0, 3.0]


def test_the_repr_says_what_is_recorded():
    tracker = make()
    tracker.update([0, 1], [1, 2])
    assert repr(tracker) == (
        "LabelTracker(label='y', metric='ce', bounds=('std',)): 0 entries in the history, 2 samples since"
    )


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


# -- what is pending --------------------------------------------------------------------------------------


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
