"""Quantiles at the end of an epoch, and the order in which labels appeared."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from exact import fingerprint
from trackers import make

import labeltrack as lt
from labeltrack.stats import LabelStats

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
