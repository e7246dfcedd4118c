"""Sinks of a tracker: called when an epoch has ended, with its result; they never stop training."""

from __future__ import annotations

import pickle
import warnings

import pytest

import labeltrack as lt


def fails(_result):
    msg = "no space left"
    raise OSError(msg)


def test_a_sink_gets_what_the_end_of_the_epoch_returns_once_it_is_in_the_history():
    found = []

    def sink(result):
        assert tracker.pending == {("eval", ""): 1}
        assert tracker.history is result.history
        assert result.history.at(result.step, result.mode).mean.tolist() == result.stats.mean.tolist()
        found.append(result)

    tracker = lt.LabelTracker("y", "ce", sinks=[sink, found.append])
    tracker.update([0, 1, 1], [0.5, 1.0, 2.0], ds_id="a")
    tracker.update([0], [1.5], ds_id="b")
    tracker.update([0], [1.5], mode="eval")
    stats = tracker.end_epoch(3)
    assert found[0] is found[1]
    assert (found[0].step, found[0].mode, found[0].metric, found[0].outputs) == (3, "train", "ce", "ce_by_y")
    assert found[0].stats is stats
    assert stats.mean.tolist() == [1.0, 1.5]
    assert sorted(found[0].history.datasets(3, "train")) == ["a", "b"]
    assert repr(found[0]) == "EpochResult(train/ce_by_y, step 3): 2 labels"


def test_a_sink_of_a_collection_is_called_for_each_metric():
    found = []
    collection = lt.TrackerCollection("y", ["ce", "hit"], outputs={"hit": "accuracy"}, sinks=[found.append])
    collection.update([0, 1], {"ce": [0.5, 2.0], "hit": [1, 0]})
    stats = collection.end_epoch(1)
    assert [(result.metric, result.outputs) for result in found] == [("ce", "ce_by_y"), ("hit", "accuracy")]
    assert [result.stats for result in found] == [stats["ce"], stats["hit"]]
    assert [result.history for result in found] == [collection["ce"].history, collection["hit"].history]


def test_an_epoch_without_samples_or_that_does_not_end_calls_no_sink():
    found = []
    tracker = lt.LabelTracker("y", "ce", nan_policy="raise", sinks=[found.append])
    tracker.end_epoch(1)
    tracker.update([0], [float("nan")])
    with pytest.raises(ValueError, match="NaN"):
        tracker.end_epoch(1)
    assert found == []


def test_a_sink_that_fails_warns_once_is_called_again_and_stops_neither_training_nor_other_sinks():
    found, calls = [], []

    def counted(result):
        calls.append(result.step)
        fails(result)

    tracker = lt.LabelTracker("y", "ce", sinks=[counted, found.append])
    for epoch in (1, 2, 3):
        tracker.update([0], [1.0])
        with warnings.catch_warnings(record=True) as given:
            warnings.simplefilter("always")
            tracker.end_epoch(epoch)
        messages = [str(each.message) for each in given]
        assert len(messages) == (epoch == 1)
    assert calls == [result.step for result in found] == tracker.history.steps("train") == [1, 2, 3]
    with pytest.warns(lt.LabelTrackWarning, match="counted at 'eval', step 1: OSError: no space left"):
        other = lt.LabelTracker("y", "ce", sinks=[counted])
        other.update([0], [1.0], mode="eval")
        other.end_epoch(1, mode="eval")


def test_warnings_that_are_errors_come_after_all_sinks():
    found = []
    tracker = lt.LabelTracker("y", "ce", sinks=[fails, found.append])
    tracker.update([0], [1.0])
    with pytest.raises(lt.LabelTrackWarning, match="fails at 'train', step 1"):
        tracker.end_epoch(1)
    assert len(found) == len(tracker.history) == 1


def test_an_interrupt_of_a_sink_leaves_an_epoch_that_has_ended():
    def interrupted(_result):
        raise KeyboardInterrupt

    tracker = lt.LabelTracker("y", "ce", sinks=[interrupted])
    tracker.update([0], [1.0])
    with pytest.raises(KeyboardInterrupt):
        tracker.end_epoch(1)
    assert (tracker.pending, tracker.history.steps("train")) == ({}, [1])
    tracker.sinks.clear()
    tracker.update([0], [1.0])
    assert tracker.end_epoch(2).count.tolist() == [1]


@pytest.mark.parametrize(
    "made", [lt.LabelTracker, lambda *names, **more: lt.TrackerCollection(names[0], ["ce"], **more)]
)
def test_a_copy_has_no_sinks_and_can_be_given_some(made):
    tracker = made("y", "ce", sinks=[lambda _result: None])  # which cannot be pickled
    values = [1.0] if isinstance(tracker, lt.LabelTracker) else {"ce": [1.0]}
    tracker.update([0], values)
    copy, found = pickle.loads(pickle.dumps(tracker)), []
    assert copy.sinks == []
    copy.sinks.append(found.append)
    copy.end_epoch(1)
    assert [result.step for result in found] == [1]


@pytest.mark.parametrize("sinks", [print, [print, "tensorboard"], 7])
def test_sinks_that_cannot_be_called_are_refused(sinks):
    with pytest.raises(TypeError, match=r"sinks must be a list of callables .* got"):
        lt.LabelTracker("y", "ce", sinks=sinks)
