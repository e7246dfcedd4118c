"""Labels that are floats: 0.1 is one label, in half, single and double precision."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import labeltrack as lt
from labeltrack._labels.lookup import alias, as_doubles

NARROW = [np.float16, np.float32]
VALUES = [1.0, 2.0, 3.0, 4.0]


def fraction_labels(dtype):
    return np.array([0.1, 0.2, 0.1, 2.5], dtype=dtype)


@pytest.mark.parametrize("dtype", NARROW)
def test_floats_of_fewer_bits_become_decimals_that_lead_back_to_them_in_the_same_order(dtype):
    bits = {np.float16: np.uint16, np.float32: np.uint32}[dtype]
    some = np.random.default_rng(0).integers(0, np.iinfo(bits).max, 20_000, dtype=bits).view(dtype)
    labels = np.unique(some[np.isfinite(some)])
    doubles = as_doubles(labels)
    assert np.array_equal(doubles.astype(dtype), labels)
    assert (np.diff(doubles) > 0).all()


@given(st.integers(-99_999, 99_999), st.integers(1, 6))
def test_a_decimal_of_few_digits_is_the_label_that_was_written(number, places):
    label = number / 10**places
    assert as_doubles(np.array([label], dtype=np.float32)).tolist() == [label]
    single = float(np.float32(label))
    assert label == single or alias(single) == label


@pytest.mark.parametrize("label", [0.0, 3.0, 0.125, 1234567.25, 16777216.0, 123456792.0, -2.5])
def test_multiples_of_an_eighth_are_exactly_what_they_are(label):
    assert as_doubles(np.array([label], dtype=np.float32)).tolist() == [label]
    assert alias(label) is None


@pytest.mark.parametrize("label", [1e30, -3e20, 1e16])
def test_numbers_beyond_all_integers_are_decimals_as_fractions_are(label):
    stats = lt.label_stats(np.array([label, 2], np.float32), [1.0, 2.0], label_mapping={"large": label, "two": 2})
    assert sorted(stats.names) == ["large", "two"]
    assert stats[label].mean == 1.0
    assert alias(float(np.float32(label))) in (label, None)


def test_labels_of_bfloat16_are_taken_where_they_are_exact_and_refused_elsewhere():
    torch = pytest.importorskip("torch")
    exact = torch.tensor([1.0, 2.5, 1.0], dtype=torch.bfloat16)
    assert lt.label_stats(exact, [1.0, 2.0, 3.0]).labels.tolist() == [1.0, 2.5]
    with pytest.raises(TypeError, match="bfloat16"):
        lt.label_stats(torch.tensor([0.1, 2.0], dtype=torch.bfloat16), [1.0, 2.0])


@pytest.mark.parametrize(
    "label", [0.1, 170_000.1234, 0.25, 1e300, 1e-60, 2.9999999999999996, float("inf"), 3, "a", None]
)
def test_what_is_written_shortly_stands_for_nothing_else(label):
    assert alias(label) is None


@pytest.mark.parametrize("dtype", [*NARROW, np.float64])
@pytest.mark.parametrize("form", [np.asarray, list])
def test_a_label_is_found_by_the_number_that_was_written(dtype, form):
    labels = form(fraction_labels(dtype))
    stats = lt.label_stats(labels, VALUES, quantiles=[0.5])
    assert stats.labels.tolist() == [0.1, 0.2, 2.5]
    assert stats.names.tolist() == ["0.1", "0.2", "2.5"]
    assert stats[0.1].mean == stats[dtype(0.1)].mean == 2.0
    assert stats.median.tolist() == [2.0, 2.0, 4.0]
    assert 0.10001 not in stats
    chosen = lt.label_stats(labels, VALUES, label_mapping={"low": 0.1, "high": dtype(2.5), "more": 7}, quantiles=[0.5])
    assert chosen.names.tolist() == ["low", "high"]
    assert chosen["low"].mean == chosen[0.1].mean == chosen.median[0] == 2.0


@pytest.mark.parametrize("key", [0.1, np.float32(0.1), float(np.float32(0.1))])
def test_the_label_of_a_tensor_is_found_as_a_python_number_of_it(key):
    stats = lt.label_stats(fraction_labels(np.float32), VALUES, label_mapping={"low": key})
    assert stats["low"].mean == stats[key].mean == 2.0
    history = lt.History()
    history.add(1, stats)
    assert history.series(key)[1].tolist() == [2.0]
    history.plot(labels=[key])


def test_a_quotient_is_found_as_what_it_is_in_single_precision():
    stats = lt.label_stats(np.array([1 / 3, 2 / 3], dtype=np.float32), [1.0, 2.0], label_mapping={"third": 1 / 3})
    assert stats["third"].mean == stats[1 / 3].mean == 1.0
    assert len(stats) == len(stats.with_absent()) == 1


def test_doubles_that_differ_stay_apart():
    near = [0.1, float(np.float32(0.1)), 170_000.12, 170_000.1234, 0.3, 0.1 + 0.2]
    stats = lt.label_stats(near, np.arange(6.0))
    assert stats.labels.tolist() == sorted(near)
    assert [stats[label].mean for label in near] == list(range(6))
    assert lt.label_stats(near, np.arange(6.0), label_mapping={"a": 170_000.1234})["a"].mean == 3.0


def test_statistics_and_epochs_of_several_precisions_have_a_label_once(tmp_path):
    with lt.LabelTracker("y", "ce", bounds="iqr", record_to=tmp_path / "run") as tracker:
        for epoch, order in enumerate(
            [(np.float32, np.float64), (np.float64, np.float16), (np.float32, np.float32)], 1
        ):
            for dtype in order:
                tracker.update(fraction_labels(dtype), VALUES)
            if epoch == 2:
                again = lt.LabelTracker("y", "ce", bounds="iqr")
                again.load_state_dict(pickle.loads(pickle.dumps(tracker.state_dict())))
                assert again.end_epoch(2).labels.tolist() == [0.1, 0.2, 2.5]
            stats = tracker.end_epoch(epoch)
            assert stats.labels.tolist() == [0.1, 0.2, 2.5]
            assert stats.count.tolist() == [4, 2, 2]
            assert stats.quantile(0.5).tolist() == [2.0, 2.0, 4.0]
    recomputed = lt.open_run(tmp_path / "run").recompute(progress=False)
    assert recomputed.columns()["label"].tolist() == tracker.history.columns()["label"].tolist()
    parts = [lt.label_stats(fraction_labels(dtype), VALUES) for dtype in (*NARROW, np.float64)]
    assert lt.merge_stats(parts).count.tolist() == [6, 3, 3]
    missing = lt.label_stats(np.array([0.1, np.nan], dtype=np.float32), [1.0, 2.0], missing="label")
    assert missing[0.1].count == missing["(missing)"].count == 1


@pytest.mark.parametrize("keys", [{0.1: "low", 2.5: "high"}, {np.float32(0.1): "low", np.float32(2.5): "high"}])
def test_groups_of_floats_match_in_every_precision(keys, tmp_path):
    with lt.LabelTracker("y", "ce", record_to=tmp_path / "run") as tracker:
        tracker.update(fraction_labels(np.float32), VALUES)
        tracker.end_epoch(1)
    run = lt.open_run(tmp_path / "run")
    stats = run.recompute(group=keys, rest="rest", progress=False).at(1)
    assert stats["low"].count == 2
    assert stats["high"].count == stats["rest"].count == 1


def test_labels_recorded_as_doubles_of_single_precision_are_still_found(tmp_path):
    """As versions before recorded them."""
    with lt.LabelTracker("y", "ce", record_to=tmp_path / "run") as tracker:
        tracker.update(fraction_labels(np.float32).astype(np.float64), VALUES)
        tracker.end_epoch(1)
    history = lt.open_run(tmp_path / "run").recompute(progress=False)
    assert history.at(1)[0.1].count == 2
    assert json.dumps(history.at(1).labels.tolist()[0]) == "0.10000000149011612"


def test_labels_of_a_mapping_that_never_occur_are_told_once(tmp_path):
    mapping = {"low": 0.1, "text": "0.1", "none": 7}
    tracker = lt.LabelTracker("y", "ce", label_mapping=mapping, record_to=tmp_path / "run")
    for epoch in (1, 2):
        tracker.update(fraction_labels(np.float32), VALUES)
        tracker.end_epoch(epoch)
    with pytest.warns(lt.LabelTrackWarning, match=r"never occurred: '0.1', 7, called 'text', 'none'") as told:
        tracker.close()
    assert len(told) == 1
    tracker.close()  # no warning again
    with pytest.warns(lt.LabelTrackWarning, match="never occurred: '0.1', 7"):
        lt.open_run(tmp_path / "run").recompute(progress=False)


def test_a_mapping_of_which_every_label_occurs_in_some_epoch_is_not_told_of():
    with lt.LabelTracker("y", "ce", label_mapping={"a": 1, "b": 2}) as tracker:
        for epoch in (1, 2):
            tracker.update([epoch], [0.5])
            tracker.end_epoch(epoch)


def test_a_label_that_does_not_occur_is_not_taken_for_another_one_of_that_name():
    mapping = {"1": "0", "2": "1"}  # digits by position
    with lt.LabelTracker("y", "ce", label_mapping=mapping) as tracker:
        tracker.update(["0", "1"], [10.0, 20.0])
        tracker.end_epoch(1)
        tracker.update(["0"], [11.0])
        stats = tracker.end_epoch(2)
    steps, means = tracker.history.series("1")
    assert (steps.tolist(), means.tolist()) == ([1], [20.0])
    assert (stats["0"].mean, "1" in stats, "2" in stats) == (11.0, False, False)
    with pytest.raises(KeyError, match=r"no label '1'\. There are: '0'"):
        stats["1"]
    assert [(row.label, row.count) for row in stats.with_absent()] == [("0", 1), ("1", 0)]
    pairs = lt.label_stats({"digit": ["0"], "site": ["a"]}, [1.0], label_mapping=(mapping, None))
    assert (pairs["0", "a"].mean, ("1", "a") in pairs) == (1.0, False)
