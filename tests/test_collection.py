"""`TrackerCollection`: each metric beside a tracker of its own, which must have the same bits."""

from __future__ import annotations

import itertools
import pickle
import threading
import warnings
from collections import UserDict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import labeltrack as lt

METRICS = ("ce", "correct", "margin")
NUMBERS = ("count", "sum", "mean", "std", "min", "max")


def collection_of(metrics=METRICS, label="y", **options):
    return lt.TrackerCollection(label, metrics, **options)


def trackers_of(metrics=METRICS, label="y", **options):
    return {metric: lt.LabelTracker(label, metric, **options) for metric in metrics}


def same(stats, other):
    assert stats.labels.dtype == other.labels.dtype
    assert stats.labels.tolist() == other.labels.tolist()
    assert stats.names.tolist() == other.names.tolist()
    for name in NUMBERS:
        np.testing.assert_array_equal(getattr(stats, name), getattr(other, name))
    assert stats.quantiles == other.quantiles
    for fraction in stats.quantiles:
        np.testing.assert_array_equal(stats.quantile(fraction), other.quantile(fraction))


def all_same(collection, trackers):
    """Compare histories, and running epochs, with those of a tracker for each metric."""
    for metric, tracker in trackers.items():
        history = collection[metric].history
        assert (history.metric, history.label) == (tracker.history.metric, tracker.history.label)
        assert [key for key, _ in history.items()] == [key for key, _ in tracker.history.items()]
        for (_, stats), (_, other) in zip(history.items(), tracker.history.items(), strict=True):
            same(stats, other)
        # Samples that a mapping leaves out count until they are folded, which is at different times.
        assert tracker.pending.keys() == collection.pending.keys()
        assert collection.label_mapping is not None or tracker.pending == collection.pending
        for mode in {mode for mode, _ in tracker.pending}:
            same(collection.compute(mode)[metric], tracker.compute(mode))


def batch_of(rng, size, kind="int", dtype=np.float32):
    numbers = rng.integers(0, 9, size)
    labels = {
        "int": lambda: numbers,
        "narrow": lambda: numbers.astype(np.uint8),
        "strings": lambda: [f"class {n}" for n in numbers.tolist()],
        "float": lambda: numbers / 8,
        "lists": numbers.tolist,
    }[kind]()
    values = 10.0 ** rng.uniform(-20, 20, size)
    return labels, {"ce": values.astype(dtype), "correct": values > 1, "margin": (-values).astype(np.float64)}


def both(collection, trackers, labels, values, **options):
    collection.update(labels, values, **options)
    for metric, tracker in trackers.items():
        tracker.update(labels, values[metric], **options)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_every_metric_has_the_statistics_of_a_tracker_of_its_own(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    kinds = data.draw(st.sampled_from([["int", "narrow", "lists"], ["strings"], ["float"]]))
    options = {
        "max_buffer_bytes": data.draw(st.sampled_from([100, 5000, 2**28])),
        "label_mapping": data.draw(st.sampled_from([None, {"two": 2, "never": 77}])) if "int" in kinds else None,
        "nan_policy": data.draw(st.sampled_from(["propagate", "omit"])),
    }
    collection, trackers = collection_of(**options), trackers_of(**options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for step in range(data.draw(st.integers(1, 3))):
            for mode, ds_id in itertools.product(("train", "eval"), ("", "a")):
                for n in rng.integers(0, 60, rng.integers(0, 4)).tolist():
                    labels, values = batch_of(rng, n, data.draw(st.sampled_from(kinds)))
                    if n and rng.random() < 0.2:
                        values["ce"][0] = np.nan
                    where = rng.random(n) < 0.8 if rng.random() < 0.3 else None
                    both(collection, trackers, labels, values, mode=mode, ds_id=ds_id, where=where)
            all_same(collection, trackers)
            ended = collection.end_epoch(step)
            assert list(ended) == list(METRICS)
            for metric, tracker in trackers.items():
                same(ended[metric], tracker.end_epoch(step))
    all_same(collection, trackers)


@pytest.mark.parametrize("metric", ["ce", "correct"])
def test_masked_values_are_refused_in_any_batch(metric):
    collection, plain = collection_of(["ce", "correct"]), np.ones(3, np.float32)
    for _ in range(2):
        values = {"ce": plain, "correct": plain, metric: np.ma.MaskedArray(plain, mask=[True, False, False])}
        with pytest.raises(ValueError, match=f"metric '{metric}': values is a masked array"):
            collection.update(np.arange(3), values)
        collection.update(np.arange(3), {"ce": plain, "correct": plain})
    assert collection.end_epoch(1)["ce"].count.tolist() == [2, 2, 2]


def test_a_nan_of_one_metric_leaves_the_others_as_they_are():
    for policy, count in (("propagate", 2), ("omit", 1)):
        collection = collection_of(["ce", "correct"], nan_policy=policy)
        collection.update([0, 0], {"ce": [np.nan, 1.0], "correct": [1, 0]})
        stats = collection.end_epoch(1)
        assert (stats["ce"].count.tolist(), stats["correct"].count.tolist()) == ([count], [2])
        assert stats["correct"].mean.tolist() == [0.5]
    collection = collection_of(["ce", "correct"], nan_policy="raise")
    collection.update([0, 0], {"ce": [np.nan, 1.0], "correct": [1, 0]})
    for call in (collection.compute, lambda: collection.end_epoch(1)):
        with pytest.raises(ValueError, match="metric 'ce': 1 NaN samples"):
            call()
    assert not any(len(collection[metric].history) for metric in collection)


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({"ce": [1.0, 2.0]}, KeyError, "no metric in the batch: 'correct'.*There are: 'ce'"),
        ({"correct": [1, 0]}, KeyError, "no metric in the batch: 'ce'"),
        (
            {"ce": [1.0, 2.0], "correct": [1, 0], "mse": [1, 1]},
            KeyError,
            "does not track: 'mse'; it tracks 'ce', 'correct'",
        ),
        ({"ce": [1.0, 2.0], "corect": [1, 0]}, KeyError, "no metric in the batch: 'correct'. Did you mean 'corect'"),
        ([1.0, 2.0], TypeError, "values must be a mapping of metrics, {'ce': …, 'correct': …}, got list"),
        (np.ones(2), TypeError, "got ndarray"),
        (1.0, TypeError, "got float"),
        (
            {"ce": [1.0, 2.0], "correct": [1]},
            ValueError,
            r"metric 'correct' has values of shape \(1,\), and 'ce' of shape \(2,\)",
        ),
        ({"ce": 1.0, "correct": [1, 0]}, ValueError, "every sample needs a value of each metric"),
        ({"ce": [1.0, 2.0], "correct": ["a", "b"]}, TypeError, "metric 'correct': values must be real numbers"),
        ({"ce": [1.0, 2.0, 3.0], "correct": [1, 0, 1]}, ValueError, "differ in length"),
    ],
)
def test_a_batch_without_all_metrics_is_refused_and_left_out(values, error, message):
    collection = collection_of(["ce", "correct"])
    for _ in range(2):  # the first batch, and one after another
        for labels in ([0, 1], np.array([0, 1])):
            with pytest.raises(error, match=message):
                collection.update(labels, values)
        collection.update(np.array([0, 1]), {"ce": np.ones(2, np.float32), "correct": np.ones(2, np.float32)})
    assert collection.end_epoch(1)["ce"].count.tolist() == [2, 2]


@pytest.mark.parametrize(
    ("metrics", "error", "message"),
    [
        ([], ValueError, "metrics must be one name or several different ones, got none"),
        (["ce", "ce"], ValueError, "different"),
        ("ce", TypeError, r"metrics must be names, such as \['ce'\]"),
        (["ce", 3], TypeError, "metric must be a string"),
    ],
)
def test_wrong_names_of_metrics_are_refused(metrics, error, message):
    with pytest.raises(error, match=message):
        collection_of(metrics)


def test_a_collection_is_a_mapping_of_its_metrics():
    collection = collection_of(["ce", "correct"], outputs={"ce": "loss"}, bounds="range", label_mapping={"cat": 0})
    assert list(collection) == list(collection.metrics) == ["ce", "correct"]
    assert len(collection) == 2
    assert "ce" in collection
    assert "mse" not in collection
    assert [3] not in collection
    metric = collection["ce"]
    assert dict(collection.items())["ce"] is metric
    assert (metric.metric, metric.label, metric.outputs) == ("ce", "y", "loss")
    assert collection["correct"].outputs == "correct_by_y"
    with pytest.raises(KeyError, match=r"no metric of the collection: 'corect'\. Did you mean 'correct'"):
        collection["corect"]
    with pytest.raises(KeyError, match="no metric of the collection: 'mse'"):
        collection_of(["ce"], outputs={"mse": "x"})
    collection.update([0, 1], {"ce": [1.0, 2.0], "correct": [1, 0]})
    same(metric.compute(), collection.compute()["ce"])
    collection.end_epoch(1)
    assert repr(metric) == "TrackedMetric(label='y', metric='ce'): 1 entry in the history"
    assert repr(collection).startswith(
        "TrackerCollection(label='y', metrics=('ce', 'correct'), bounds=('range',)): 1 entry"
    )
    assert collection == collection
    assert collection != collection_of(["ce", "correct"])
    assert collection != UserDict(collection)
    assert len({collection, collection}) == 1
    with pytest.raises(AttributeError):
        metric.nan_policy = "omit"


def test_a_collection_of_one_metric_is_like_a_tracker():
    rng = np.random.default_rng(0)
    collection, trackers = collection_of(["ce"]), trackers_of(["ce"])
    for kind in ("int", "int", "int", "lists", "narrow"):
        labels, values = batch_of(rng, 40, kind)
        both(collection, trackers, labels, {"ce": values["ce"]})
    all_same(collection, trackers)


def test_values_may_have_any_shape_that_labels_broadcast_to():
    collection, trackers = collection_of(["ce", "correct"]), trackers_of(["ce", "correct"])
    rng = np.random.default_rng(0)
    tokens = {"ce": rng.normal(size=(4, 6)), "correct": rng.integers(0, 2, (4, 6))}
    both(collection, trackers, np.arange(4).reshape(4, 1), tokens, where=rng.random((4, 6)) < 0.5)
    column = {"ce": rng.normal(size=(5, 1)), "correct": rng.integers(0, 2, 5)}
    collection.update(np.arange(5), column)
    for metric, tracker in trackers.items():
        tracker.update(np.arange(5), column[metric])
    all_same(collection, trackers)


def test_labels_may_be_several_be_ignored_or_be_missing():
    for options in ({"ignore_label": -100}, {"missing": "skip"}, {"missing": "label"}):
        collection, trackers = collection_of(["ce", "correct"], **options), trackers_of(["ce", "correct"], **options)
        for _ in range(2):
            missing = [None, 1, 2] if "missing" in options else [-100, 1, 2]
            both(collection, trackers, missing, {"ce": [1.0, 2.0, 3.0], "correct": [0, 1, 1]})
        all_same(collection, trackers)
    label = ("y", "site")
    collection, trackers = collection_of(["ce", "correct"], label), trackers_of(["ce", "correct"], label)
    both(collection, trackers, {"y": [0, 1, 1], "site": ["a", "b", "b"]}, {"ce": [1.0, 2.0, 3.0], "correct": [0, 1, 1]})
    stats = collection.end_epoch(1)["correct"]
    same(stats, trackers["correct"].end_epoch(1))
    assert collection["correct"].outputs == "correct_by_y_and_site"


def test_ids_belong_to_the_samples_of_all_metrics():
    options = {"on_duplicate": "first"}
    for limit in (2**28, 2**11):
        collection = collection_of(max_buffer_bytes=limit, **options)
        trackers = trackers_of(max_buffer_bytes=limit, **options)
        rng = np.random.default_rng(0)
        for _ in range(20):
            labels, values = batch_of(rng, 40)
            both(collection, trackers, labels, values, ids=rng.integers(0, 500, 40))
        all_same(collection, trackers)


def test_batches_are_looked_up_by_names():
    collection = collection_of(["ce", "correct"])
    collection.update_batch({"y": [0, 1], "ce": [1.0, 2.0], "correct": [1, 0], "other": 3})
    assert collection.end_epoch(1)["ce"].sum.tolist() == [1.0, 2.0]
    with pytest.raises(KeyError, match="no metric key in the batch: 'correct'"):
        collection.update_batch({"y": [0, 1], "ce": [1.0, 2.0]})
    with pytest.raises(KeyError, match="no label key in the batch: 'y'"):
        collection.update_batch({"ce": [1.0, 2.0], "correct": [1, 0]})


def test_a_step_is_entered_for_all_metrics_or_for_none():
    collection = collection_of(["ce", "correct"])
    for value in (1.0, 2.0):
        collection.update([0], {"ce": [value], "correct": [value]})
        if value == 1.0:
            collection.end_epoch(1)
    with pytest.raises(ValueError, match="step 1"):
        collection.end_epoch(1)
    assert [collection[metric].history.at(1).sum.tolist() for metric in collection] == [[1.0], [1.0]]
    collection.end_epoch(1, replace=True)
    assert [collection[metric].history.at(1).sum.tolist() for metric in collection] == [[2.0], [2.0]]
    assert collection.end_epoch(2)["ce"].count.tolist() == []


def test_quantiles_are_those_of_each_metric():
    options = {"bounds": "iqr"}
    collection, trackers = collection_of(**options), trackers_of(**options)
    rng = np.random.default_rng(3)
    for ds_id in ("a", "b"):
        labels, values = batch_of(rng, 70)
        both(collection, trackers, labels, values, ds_id=ds_id)
    ended = collection.end_epoch(1)
    for metric, tracker in trackers.items():
        same(ended[metric], tracker.end_epoch(1))
        same(collection[metric].history.at(1), tracker.history.at(1))


def test_the_order_of_labels_is_kept_once():
    collection = collection_of(["ce", "correct"], keep_order=True)
    collection.update(["dog", "cat"], {"ce": [1.0, 2.0], "correct": [1, 0]})
    collection.end_epoch(1)
    assert collection.labels_in_order == ["dog", "cat"]
    collection.update(["dog"], {"ce": [1.0], "correct": [1]})
    collection.reset()
    assert collection.pending == {}


@pytest.mark.parametrize("way", ["pickle", "state"])
@pytest.mark.parametrize("limit", [2**28, 3000])
def test_what_is_saved_goes_on_to_the_same_bits(way, limit):
    options = {"max_buffer_bytes": limit, "on_duplicate": "first"}
    collection, trackers = collection_of(**options), trackers_of(**options)
    rng = np.random.default_rng(0)
    for step in range(2):
        for number in range(9):
            labels, values = batch_of(rng, 30, "strings")
            ids = [f"{i}" for i in rng.integers(0, 200, 30).tolist()]
            both(collection, trackers, labels, values, ids=ids)
            if number == 4:
                if way == "pickle":
                    collection = pickle.loads(pickle.dumps(collection))
                else:
                    state = collection.state_dict()
                    collection = collection_of(**options)
                    collection.load_state_dict(state)
        all_same(collection, trackers)
        for stats, tracker in zip(collection.end_epoch(step).values(), trackers.values(), strict=True):
            same(stats, tracker.end_epoch(step))


def test_states_of_other_metrics_are_refused():
    collection = collection_of(["ce", "correct"])
    collection.update([0], {"ce": [1.0], "correct": [1]})
    for other in (collection_of(["ce", "mse"]), collection_of(["correct", "ce"]), lt.LabelTracker("y", "ce")):
        with pytest.raises(ValueError, match=r"cannot be loaded|cannot be read"):
            other.load_state_dict(collection.state_dict())
    with pytest.raises(ValueError, match="state of metric 'ce' cannot be loaded into a tracker of"):
        collection.load_state_dict(lt.LabelTracker("y", "ce").state_dict())
    with pytest.raises(ValueError, match="its metrics is"):
        collection.merge_state([collection_of(["ce", "mse"])])
    with pytest.raises(TypeError, match="or their states, got LabelTracker"):
        collection.merge_state([lt.LabelTracker("y", "ce")])
    with pytest.raises(TypeError, match="got TrackerCollection"):
        lt.LabelTracker("y", "ce").merge_state([collection])
    assert collection.end_epoch(1)["ce"].sum.tolist() == [1.0]


@pytest.mark.parametrize("limit", [2**28, 2000])
@pytest.mark.parametrize("sums", [False, True])
def test_merging_gives_what_merging_a_tracker_for_each_metric_gives(limit, sums):
    rng = np.random.default_rng(0)
    collections = [collection_of(max_buffer_bytes=limit) for _ in range(3)]
    several = [trackers_of(max_buffer_bytes=limit) for _ in range(3)]
    for collection, trackers in zip(collections, several, strict=True):
        for number in range(6):
            labels, values = batch_of(rng, 40, "strings")
            both(collection, trackers, labels, values, mode="train" if number % 2 else "eval")
        collection.end_epoch(1, mode="eval")
        for tracker in trackers.values():
            tracker.end_epoch(1, mode="eval")
    others = [other.state_dict(samples=False) if sums else other for other in collections[1:]]
    collections[0].merge_state(others)
    for metric, tracker in several[0].items():
        tracker.merge_state([trackers[metric] for trackers in several[1:]])
    all_same(collections[0], several[0])


def test_batches_of_several_threads_are_whole():
    collection, each = collection_of(["ce", "double"]), 400

    def work(number):
        for start in range(number * each, (number + 1) * each):
            values = np.arange(4.0) + 4 * start
            collection.update(np.arange(4), {"ce": values, "double": 2 * values})

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for _, values, double in collection._streams["train", ""].buffer.rows():
        assert (double == 2 * values).all()
    stats = collection.end_epoch(1)
    assert stats["ce"].count.tolist() == [4 * each] * 4
    assert stats["double"].sum.tolist() == (2 * stats["ce"].sum).tolist()


def test_labels_are_kept_once():
    collection = collection_of(["ce", "correct"])
    rng = np.random.default_rng(0)
    for _ in range(300):
        collection.update(
            rng.integers(0, 9, 256), {"ce": np.ones(256, np.float32), "correct": np.ones(256, np.float32)}
        )
    ((labels, *values),) = [
        [np.concatenate(column) for column in zip(*stream.buffer.rows(), strict=True)]
        for stream in collection._streams.values()
    ]
    assert labels.shape == values[0].shape == (300 * 256,)
    assert len(values) == 2


@pytest.mark.parametrize("first", [None, np.arange(3)])
def test_all_batches_of_an_epoch_have_ids_or_none(first):
    collection, values = collection_of(["ce", "correct"]), {"ce": np.ones(3), "correct": np.zeros(3)}
    then = np.arange(3, 6) if first is None else None
    for _ in range(2):
        collection.update(np.arange(3), values, ids=first)
        with pytest.raises(ValueError, match="pass ids with every batch of an epoch or with none"):
            collection.update(np.arange(3), values, ids=then)
        collection.reset()
    collection.update(np.arange(3), values, ids=then)
    assert collection.end_epoch(1)["ce"].count.tolist() == [1, 1, 1]


def test_a_collection_says_where_its_histories_are():
    collection = collection_of(["ce", "correct"])
    with pytest.raises(AttributeError, match=r"for each metric, such as collection\['ce'\]\.history"):
        _ = collection.history
