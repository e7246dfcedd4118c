"""Ids of samples: what they may be, and duplicates, beside a dict that keeps the first sample of each id."""

from __future__ import annotations

import pickle
import threading
import warnings
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import labeltrack as lt
from labeltrack._tracking.ids import repeated

KINDS = {
    "dense": lambda ids: ids,
    "far apart": lambda ids: ids * 1_000_003 - 2**40,
    "strings": lambda ids: np.array([f"sample {i}" for i in ids.tolist()]),
}


def tracker_of(**options):
    return lt.LabelTracker("y", "ce", **{"on_duplicate": "first"} | options)


def first_of_each(samples):
    """Return labels and values of the first sample of each id."""
    found = {}
    for label, value, key in samples:
        found.setdefault(key, (label, value))
    return list(found.values())


def exact(samples):
    """Return count, sum, minimum and maximum per label, by rational arithmetic."""
    groups = {}
    for label, value in samples:
        groups.setdefault(label, []).append(value)
    return {
        label: (len(values), float(sum(map(Fraction, values))), min(values), max(values))
        for label, values in sorted(groups.items())
    }


def seen(stats):
    columns = stats.count, stats.sum, stats.min, stats.max
    return {
        label: tuple(row) for label, *row in zip(stats.labels.tolist(), *(c.tolist() for c in columns), strict=True)
    }


def same(stats, other):
    assert stats.labels.tolist() == other.labels.tolist()
    for name in ("count", "sum", "mean", "std", "min", "max"):
        np.testing.assert_array_equal(getattr(stats, name), getattr(other, name))


def random_batches(seed, kind, batches=20, size=50, ids=400):
    """Yield batches of samples some of which have an id that occurred before, with another value."""
    rng = np.random.default_rng(seed)
    for _ in range(batches):
        keys = rng.integers(0, ids, size)
        yield keys % 5, rng.normal(size=size).astype(np.float32), KINDS[kind](keys)


def record(tracker, batches, **where):
    samples = []
    for labels, values, ids in batches:
        tracker.update(labels, values, ids=ids, **where)
        samples += zip(labels.tolist(), values.tolist(), ids.tolist(), strict=True)
    return samples


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("limit", [2**28, 2**13, 2**11, 100], ids=["all", "folded", "folded often", "larger batches"])
def test_only_the_first_sample_of_each_id_counts(kind, limit):
    tracker = tracker_of(max_buffer_bytes=limit)
    samples = record(tracker, random_batches(0, kind))
    wanted = exact(first_of_each(samples))
    assert seen(tracker.compute()) == wanted
    assert seen(tracker.end_epoch(1)) == wanted
    again = record(tracker, random_batches(1, kind))  # every epoch begins anew
    assert seen(tracker.end_epoch(2)) == exact(first_of_each(again))


@pytest.mark.parametrize("kind", KINDS)
def test_every_sample_counts_if_that_is_asked_for(kind):
    for limit in (2**28, 2**12):
        tracker = tracker_of(on_duplicate="count", max_buffer_bytes=limit)
        samples = record(tracker, random_batches(0, kind))
        assert seen(tracker.end_epoch(1)) == exact([(label, value) for label, value, _ in samples])


@pytest.mark.parametrize("limit", [2**28, 2**11])
def test_by_default_the_first_counts_and_there_is_one_warning(limit):
    tracker = lt.LabelTracker("y", "ce", max_buffer_bytes=limit)
    samples = record(tracker, random_batches(0, "strings"))
    with pytest.warns(lt.LabelTrackWarning, match=r"samples have an id that occurred before.*'sample ") as told:
        stats = tracker.compute()
    assert len(told) == 1
    number = len(samples) - len(first_of_each(samples))
    assert str(told[0].message).startswith(f"in mode 'train', {number} samples have")
    assert seen(stats) == exact(first_of_each(samples))
    same(tracker.end_epoch(1), stats)


@pytest.mark.parametrize("limit", [2**28, 2**11])
def test_duplicates_may_be_an_error_that_keeps_the_samples(limit):
    tracker = tracker_of(on_duplicate="error", max_buffer_bytes=limit)
    samples = record(tracker, random_batches(0, "dense"))
    number = len(samples) - len(first_of_each(samples))
    for call in (tracker.compute, lambda: tracker.end_epoch(1)):
        with pytest.raises(ValueError, match=f"{number} samples have an id that occurred before"):
            call()
    assert tracker.history.steps() == []
    tracker.reset()
    tracker.update([0, 1], [1.0, 2.0], ids=[3, 4])
    assert tracker.end_epoch(1).sum.tolist() == [1.0, 2.0]


def test_an_id_may_occur_in_each_mode_and_dataset():
    tracker = tracker_of(on_duplicate="error")
    for mode in ("train", "eval"):
        for ds_id in ("a", "b"):
            tracker.update([0, 1], [1.0, 2.0], ids=[5, 6], mode=mode, ds_id=ds_id)
        assert tracker.end_epoch(1, mode=mode).count.tolist() == [2, 2]


@pytest.mark.parametrize(
    ("ids", "error", "message"),
    [
        ([1, 2], ValueError, r"ids of shape \(2,\) do not match values of shape \(3,\)"),
        (np.zeros((3, 3), int), ValueError, "every sample needs an id"),
        ([1.0, 2.0, 3.0], TypeError, "ids must be integers or strings, got dtype float64"),
        ([True, False, True], TypeError, "got dtype bool"),
        ([b"a", b"b", b"c"], TypeError, "got bytes"),
        ([1, None, 3], ValueError, "1 of 3 ids are missing"),
        (["a", None, "c"], ValueError, "1 of 3 ids are missing"),
        (["a", 2, "c"], TypeError, "ids"),
        (np.array([1, 2, 2**63], np.uint64), ValueError, r"ids above 2\*\*63 - 1"),
        (np.array(["2026-01-01"] * 3, "datetime64[D]"), TypeError, "dtype datetime64"),
    ],
)
def test_ids_that_are_none_are_refused_and_the_batch_is_left_out(ids, error, message):
    tracker = tracker_of()
    for before in (False, True):  # the first batch of an epoch, and one like the one before
        if before:
            tracker.update([0, 1, 1], [1.0, 2.0, 3.0], ids=[7, 8, 9])
        with pytest.raises(error, match=message):
            tracker.update([0, 1, 1], [1.0, 2.0, 3.0], ids=ids)
    assert tracker.end_epoch(1).count.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("first", "then", "error", "message"),
    [
        ([1, 2], None, ValueError, "have no ids now, and those before in this epoch had"),
        (None, [1, 2], ValueError, "have ids now, and those before in this epoch had none"),
        (["a", "b"], [1, 2], TypeError, "ids of mode 'train' are integers now, and were strings before"),
        ([1, 2], ["a", "b"], TypeError, "ids of mode 'train' are strings now, and were integers before"),
    ],
)
def test_all_samples_of_an_epoch_have_ids_of_one_kind_or_none(first, then, error, message):
    tracker = tracker_of()
    labels, values = np.array([0, 1]), np.array([1.0, 2.0], np.float32)
    as_arrays = [None if ids is None else np.array(ids) for ids in (first, then)]
    for one, other in ((first, then), as_arrays):
        tracker.update(labels, values, ids=one)
        with pytest.raises(error, match=message):
            tracker.update(labels, values, ids=other)
        with pytest.raises(error, match=message):
            tracker.update([0, 1], [1.0, 2.0], ids=other)
        assert tracker.pending == {("train", ""): 2}
        tracker.reset()
        tracker.update(labels, values, ids=other)  # an epoch without samples has none of another kind
        assert tracker.compute().count.tolist() == [1, 1]
        tracker.reset()


def test_ids_are_masked_like_their_samples():
    tracker = tracker_of(on_duplicate="error", ignore_label=-100, missing="skip")
    values = np.arange(6.0).reshape(2, 3)
    labels = [[0, 1, -100], [1, None, 0]]
    ids = np.array([[1, 2, 9], [3, 9, 9]], dtype=object)
    ids[1, 2] = None
    tracker.update(labels, values, ids=ids, where=[[True, True, True], [True, True, False]])
    assert tracker.compute().sum.tolist() == [0.0, 4.0]
    tracker.update(np.array([[0], [1]]), values, ids=np.arange(10, 16).reshape(2, 3))  # labels broadcast
    assert tracker.end_epoch(1).count.tolist() == [4, 5]
    tracker.update([-100], [1.0], ids=["a"])  # no sample is left, whose kind of id would count
    tracker.update([1], [1.0], ids=[1])
    assert tracker.end_epoch(2).count.tolist() == [1]


@pytest.mark.parametrize("ids", [np.arange(3, dtype=np.uint8), np.arange(3, dtype=np.int16), (0, 1, 2), range(3)])
def test_ids_are_integers_of_any_type(ids):
    tracker = tracker_of(on_duplicate="error")
    tracker.update([0, 1, 1], [1.0, 2.0, 3.0], ids=ids)
    with pytest.raises(ValueError, match="occurred before"):
        tracker.update([0], [1.0], ids=[2]) or tracker.compute()


def test_batches_may_name_their_ids():
    tracker = tracker_of()
    batch = {"y": [0, 1], "ce": [1.0, 2.0], "index": [4, 4]}
    tracker.update_batch(batch, ids=batch["index"])
    assert tracker.end_epoch(1).labels.tolist() == [0]


def test_samples_of_several_labels_have_ids():
    tracker = lt.LabelTracker(("y", "site"), "ce", on_duplicate="first", max_buffer_bytes=100)
    for value in (1.0, 2.0):
        tracker.update(([0, 1], ["a", "b"]), [value, value], ids=["x", f"y{value}"])
    stats = tracker.end_epoch(1)
    assert {tuple(label): count for label, count in zip(stats.labels.tolist(), stats.count.tolist(), strict=True)} == {
        (0, "a"): 1,
        (1, "b"): 2,
    }


def test_quantiles_and_nan_are_those_of_the_first_samples():
    tracker = tracker_of(bounds="iqr", nan_policy="raise")
    values = [1.0, 5.0, 2.0, 9.0]
    tracker.update([0] * 5, [*values, np.nan], ids=[1, 2, 3, 4, 1])
    assert tracker.end_epoch(1).quantile(0.5).tolist() == [np.median(values)]


@given(
    st.lists(st.lists(st.one_of(st.integers(-3, 9), st.integers(-(2**63), 2**63 - 1)), max_size=9), max_size=5),
)
def test_ids_that_occurred_before_are_found_exactly(columns):
    before, wanted = set(), []
    for column in columns:
        wanted.append([])
        for key in column:
            wanted[-1].append(key in before)
            before.add(key)
    found = repeated([np.array(column, dtype=np.int64) for column in columns])
    if found is None:
        assert not any(map(any, wanted))
    else:
        assert [mask.tolist() for mask in found] == wanted
        assert any(map(any, wanted))


# -- saved states, other trackers, threads ------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("limit", [2**28, 2**11])
@pytest.mark.parametrize("way", ["pickle", "state"])
def test_ids_are_part_of_the_state(kind, limit, way):
    tracker = tracker_of(max_buffer_bytes=limit)
    batches = list(random_batches(0, kind))
    samples = record(tracker, batches[:10])
    if way == "pickle":
        other = pickle.loads(pickle.dumps(tracker))
    else:
        other = tracker_of(max_buffer_bytes=limit)
        other.load_state_dict(tracker.state_dict())
    same(other.compute(), tracker.compute())
    samples += record(other, batches[10:])
    assert seen(other.end_epoch(1)) == exact(first_of_each(samples))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("limit", [2**28, 2**12], ids=["all", "folded"])
@pytest.mark.parametrize("as_state", [False, True, "sums"], ids=["tracker", "state", "sums"])
def test_samples_of_several_trackers_count_once(kind, limit, as_state):
    """As with a sampler that gives each rank some samples of others."""
    trackers = [tracker_of(max_buffer_bytes=limit), tracker_of(), tracker_of()]
    samples = []
    for number, tracker in enumerate(trackers):
        samples += record(tracker, random_batches(number, kind, batches=3))
    others = trackers[1:]
    if as_state:
        others = [tracker.state_dict(samples=as_state != "sums", history=False) for tracker in others]
    trackers[0].merge_state(others)
    wanted = exact(first_of_each(samples))
    assert seen(trackers[0].compute()) == wanted
    samples += record(trackers[0], random_batches(9, kind, batches=2))
    assert seen(trackers[0].end_epoch(1)) == exact(first_of_each(samples))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("limits", [(2**28,) * 3, (2**12,) * 3, (2**12, 2**28, 2**28)], ids=["all", "no room", "some"])
def test_ranks_that_merge_all_others_count_the_same_samples(kind, limits):
    trackers, samples = [tracker_of(max_buffer_bytes=limit, bounds="iqr") for limit in limits], []
    for number, tracker in enumerate(trackers):
        samples += record(tracker, random_batches(number, kind, batches=2))
    states = [tracker.state_dict() for tracker in trackers]
    wanted = exact(first_of_each(samples))
    for rank, tracker in enumerate(trackers):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of quantiles
            tracker.merge_state([*states[:rank], *states[rank + 1 :]], place=rank)
            assert seen(tracker.compute()) == wanted
            copy = pickle.loads(pickle.dumps(tracker))
            assert seen(copy.compute()) == wanted
            if limits[rank] == 2**28:
                assert copy.compute().quantiles
            more = record(copy, random_batches(7, kind, batches=1))
            assert seen(copy.end_epoch(1)) == exact(first_of_each([*samples, *more]))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(6))
def test_samples_count_in_the_order_in_which_they_came_also_between_trackers_that_were_merged(kind, seed):
    rng = np.random.default_rng(seed)
    tracker, samples = tracker_of(max_buffer_bytes=2 ** int(rng.choice([13, 28]))), []
    for number in range(12):
        if rng.random() < 0.4:
            other = tracker_of()
            theirs = record(other, random_batches(100 + number, kind, batches=2))
            early = rng.random() < 0.3 and tracker.max_buffer_bytes == 2**28  # sums always come first
            tracker.merge_state([other], place=int(early))
            samples = [*theirs, *samples] if early else [*samples, *theirs]
        else:
            samples += record(tracker, random_batches(number, kind, batches=int(rng.choice([1, 8]))))
        if rng.random() < 0.3:
            tracker = pickle.loads(pickle.dumps(tracker))
        assert seen(tracker.compute()) == exact(first_of_each(samples))
    assert seen(tracker.end_epoch(1)) == exact(first_of_each(samples))


def test_duplicates_that_were_folded_in_two_trackers_are_told_of():
    one, other = (tracker_of(max_buffer_bytes=200) for _ in range(2))
    for tracker in (one, other):
        for start in range(0, 40, 10):
            tracker.update(np.zeros(10, int), np.ones(10), ids=np.arange(start, start + 10))
    with pytest.warns(lt.LabelTrackWarning, match="40 samples are in the statistics of several of the trackers"):
        one.merge_state([other])


def test_trackers_with_ids_are_not_merged_with_others():
    one, other = tracker_of(), tracker_of()
    one.update([0], [1.0], ids=[1])
    other.update([0], [1.0])
    with pytest.raises(ValueError, match=r"have no ids now, .* \(nothing was merged\)"):
        one.merge_state([other])
    with pytest.raises(ValueError, match="have ids now"):
        other.merge_state([one])
    third = tracker_of()
    third.update([0], [1.0], ids=["a"])
    with pytest.raises(TypeError, match="ids of mode 'train' are strings now"):
        one.merge_state([third])
    with pytest.raises(ValueError, match="its on_duplicate is 'count'"):
        one.merge_state([tracker_of(on_duplicate="count")])
    assert one.end_epoch(1).count.tolist() == [1]


def test_trackers_that_count_all_are_merged_whatever_their_ids():
    one, other = (tracker_of(on_duplicate="count") for _ in range(2))
    for tracker in (one, other):
        tracker.update([0, 1], [1.0, 2.0], ids=[1, 1])
    one.merge_state([other, other.state_dict(samples=False)])
    assert one.end_epoch(1).count.tolist() == [3, 3]


def test_ids_of_several_threads_stay_with_their_samples():
    tracker, each = tracker_of(on_duplicate="error"), 300

    def work(number):
        for batch in range(each):
            ids = np.arange(4) + 4 * (number * each + batch)
            tracker.update(ids % 7, ids.astype(np.float64), ids=ids)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rows = tracker._streams["train", ""].buffer.rows()
    for labels, values, ids in rows:
        assert (labels == ids % 7).all()
        assert (values == ids).all()
    ids = np.arange(16 * each)
    same(tracker.end_epoch(1), lt.label_stats(ids % 7, ids.astype(np.float64)))


def test_an_unknown_option_for_duplicates_is_refused():
    with pytest.raises(ValueError, match="on_duplicate: unknown option 'last'; allowed are 'first', 'count', 'error'"):
        tracker_of(on_duplicate="last")


def test_without_duplicates_nothing_is_said():
    tracker = lt.LabelTracker("y", "ce", max_buffer_bytes=2**12)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for start in range(0, 4000, 100):
            tracker.update(np.arange(100) % 3, np.ones(100), ids=np.arange(start, start + 100))
        assert tracker.end_epoch(1).count.sum() == 4000


@pytest.mark.parametrize("limits", [(2**28, 2**28), (900, 2**28), (100, 100)], ids=["all", "no room", "folded"])
def test_the_order_of_labels_is_that_of_the_samples_that_count(limits):
    one, other = (tracker_of(keep_order=True, max_buffer_bytes=limit) for limit in limits)
    for start in range(0, 40, 10):
        one.update(["c", "a"] * 5, np.ones(10), ids=np.arange(start, start + 10))
        other.update(["c", "d", "b", "a", "d"] * 2, np.ones(10), ids=np.arange(start, start + 10) + 100)
    one.merge_state([other])
    stats = one.end_epoch(1)
    assert dict(zip(stats.labels.tolist(), stats.count.tolist(), strict=True)) == {"a": 28, "b": 8, "c": 28, "d": 16}
    assert one.labels_in_order == ["c", "a", "d", "b"]
