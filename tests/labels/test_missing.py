"""Samples whose label is missing: an error, left out, or of a label of their own, for labels of every type alike."""

from __future__ import annotations

import math
import os
import pickle

import numpy as np
import pytest
from exact import expected_by_label, fingerprint, rows

import labeltrack as lt

NUMBER, NAME = -(2**63), "(missing)"
VALUES = [1.0, 2.0, 4.0, 8.0, 16.0]


def library(name):
    """Import a library; where all are required, a missing one is a failure and not a skipped test."""
    if os.environ.get("LABELTRACK_REQUIRE_FRAMEWORKS") == "1":
        return __import__(name)
    return pytest.importorskip(name, reason=f"{name} is not installed")


def of_numpy():
    nan = math.nan
    yield [7, None, 9, None, 7]
    yield [[7], [None], [9], [None], [7]]
    yield (7, nan, 9, None, 7)
    yield ["a", None, "b", None, "a"]
    yield ["a", nan, "b", None, "a"]
    yield [b"a", None, b"b", None, b"a"]
    yield [True, None, False, None, True]
    yield [0.5, None, 1.5, nan, 0.5]
    yield [0.5, nan, 1.5, nan, 0.5]
    yield np.array([0.5, nan, 1.5, nan, 0.5], np.float32)
    yield np.array([0.5, nan, 1.5, nan, 0.5])[:, None]
    yield np.array([2**53 + 1, None, 2**53, nan, 2**53 + 1], dtype=object)
    yield np.array(["a", None, "b", nan, "a"], dtype=object)
    yield np.ma.masked_array([7, 1, 9, 2, 7], [0, 1, 0, 1, 0])
    yield np.ma.masked_array(np.array([7, 1, 9, 2, 7], np.uint8), [0, 1, 0, 1, 0])
    yield np.ma.masked_array(["a", "x", "b", "x", "a"], [0, 1, 0, 1, 0])
    yield np.ma.masked_array([0.5, 1.0, 1.5, nan, 0.5], [0, 1, 0, 0, 0])
    yield np.ma.masked_array([[7], [1], [9], [2], [7]], [[0], [1], [0], [1], [0]])
    if hasattr(np.dtypes, "StringDType"):
        yield np.array(["a", None, "b", None, "a"], np.dtypes.StringDType(na_object=None))
        yield np.array(["a", nan, "b", nan, "a"], np.dtypes.StringDType(na_object=nan))


def of_pandas():
    pd, _ = library("pandas"), library("pyarrow")
    for dtype in ("object", "str", "string", "string[pyarrow]", "category"):
        yield pd.Series(["a", None, "b", None, "a"], dtype=dtype)
    for dtype in ("Int64", "UInt8", "float64", "Float64", "int64[pyarrow]", "category", "object"):
        yield pd.Series([7, None, 9, None, 7], dtype=dtype)
    for dtype in ("boolean", "bool[pyarrow]", "object"):
        yield pd.Series([True, None, False, None, True], dtype=dtype)
    yield pd.Series([2**53 + 1, None, 2**53, None, 2**53 + 1], dtype="Int64")
    yield pd.Categorical([2**53 + 1, None, 2**53, None, 2**53 + 1])
    yield pd.Index(["a", None, "b", None, "a"])
    yield pd.DataFrame({"y": pd.array([2**53 + 1, None, 2**53, None, 2**53 + 1], dtype="Int64")})
    yield [7, pd.NA, 9, None, 7]
    yield ["a", pd.NaT, "b", pd.NA, "a"]


def of_polars():
    pl = library("polars")
    for dtype in (pl.String, pl.Categorical, pl.Enum(["b", "a"])):
        yield pl.Series(["a", None, "b", None, "a"], dtype=dtype)
    for dtype in (pl.Int64, pl.UInt8, pl.Float32):
        yield pl.Series([7, None, 9, None, 7], dtype=dtype)
    yield pl.Series([True, None, False, None, True])
    yield pl.Series([2**53 + 1, None, 2**53, None, 2**53 + 1])
    yield pl.Series([0.5, None, 1.5, math.nan, 0.5])


def of_pyarrow():
    pa = library("pyarrow")
    yield pa.array(["a", None, "b", None, "a"])
    yield pa.array(["a", None, "b", None, "a"]).dictionary_encode()
    yield pa.chunked_array([["a", None], ["b", None, "a"]])
    yield pa.DictionaryArray.from_arrays(pa.array([0, 1, 2, None, 0]), pa.array([2**53 + 1, None, 2**53]))
    yield pa.array([True, None, False, None, True])
    yield pa.array([2**53 + 1, None, 2**53, None, 2**53 + 1])
    yield pa.table({"y": [7, None, 9, None, 7]})


def of_tensors():
    torch = library("torch")
    yield torch.tensor([0.5, math.nan, 1.5, math.nan, 0.5])


SOURCES = {"numpy": of_numpy, "pandas": of_pandas, "polars": of_polars, "pyarrow": of_pyarrow, "torch": of_tensors}
LEFT = {  # what the first, third and last entry may be
    "a": ["a", "b", "a"],
    b"a": [b"a", b"b", b"a"],
    7: [7, 9, 7],
    True: [True, False, True],
    0.5: [0.5, 1.5, 0.5],
    2**53 + 1: [2**53 + 1, 2**53, 2**53 + 1],
}


def first_of(labels):
    """Return the first label that is not missing, as a plain value, by what the skipping statistics have."""
    stats = lt.label_stats(labels, VALUES, missing="skip")
    found = stats.labels.tolist()
    return next(key for key, left in LEFT.items() if sorted(set(left)) == found)


def tracked(labels, missing, times=2):
    tracker = lt.LabelTracker("y", "ce", missing=missing)
    for _ in range(times):
        tracker.update(labels, VALUES)
    return tracker.end_epoch(1)


@pytest.mark.parametrize("source", SOURCES)
def test_missing_labels_are_an_error_that_says_how_many_and_what_to_do(source):
    for labels in SOURCES[source]():
        tracker = lt.LabelTracker("y", "ce")
        for call in (lt.label_stats, tracker.update):
            with pytest.raises(ValueError, match=r"2 of 5 labels are missing .*missing='skip'.*missing='label'"):
                call(labels, VALUES)
        assert len(tracker.end_epoch(1)) == 0


@pytest.mark.parametrize("source", SOURCES)
def test_skipped_samples_leave_the_others_as_they_are(source):
    for labels in SOURCES[source]():
        left = LEFT[first_of(labels)]
        assert rows(lt.label_stats(labels, VALUES, missing="skip")) == expected_by_label(left, [1, 4, 16])
        assert rows(tracked(labels, "skip")) == expected_by_label(left * 2, [1, 4, 16] * 2)


@pytest.mark.parametrize("source", SOURCES)
def test_missing_labels_have_a_label_of_their_own(source):
    for labels in SOURCES[source]():
        a, b, _ = LEFT[first_of(labels)]
        own = NAME if isinstance(a, str) else NAME.encode() if isinstance(a, bytes) else NUMBER
        full = [a, own, b, own, a]
        for stats, times in ((lt.label_stats(labels, VALUES, missing="label"), 1), (tracked(labels, "label"), 2)):
            assert rows(stats) == expected_by_label(full * times, VALUES * times)
            assert stats.labels.tolist() == sorted(set(full))
            assert stats.names[stats.labels.tolist().index(own)] == NAME
            assert stats[NAME] == stats[own]
            assert stats[own].sum == 10.0 * times


@pytest.mark.parametrize(
    "labels", [[None, None], [math.nan, math.nan], np.ma.masked_array([1, 2], [1, 1]), [[None], [None]]]
)
def test_labels_that_are_all_missing_are_no_samples_or_of_one_label(labels):
    assert len(lt.label_stats(labels, [1, 2], missing="skip")) == 0
    assert lt.label_stats(labels, [1, 2], missing="label").names.tolist() == [NAME]
    for before in (["a", "b"], [1, 2], [1.5, 2.5], [True, False], [b"a", b"b"]):
        tracker = lt.LabelTracker("y", "ce", missing="label")
        tracker.update(before, [1, 2])
        tracker.update(labels, [4, 8])
        tracker.update(before, [1, 2])
        own = NAME if isinstance(before[0], str) else NAME.encode() if isinstance(before[0], bytes) else NUMBER
        stats = tracker.end_epoch(1)
        assert rows(stats) == expected_by_label([*before, own, own, *before], [1, 2, 4, 8, 1, 2])
        assert stats[NAME].label == own


def test_labels_that_are_all_missing_are_of_the_type_that_the_others_have():
    for mapping, ds_id, mode in ((None, "b", "train"), (None, "", "eval"), ({"five": 5, "six": 6}, "", "train")):
        tracker = lt.LabelTracker("y", "ce", mapping, missing="label")
        if mapping is None:
            tracker.update([5, 6], [1.0, 2.0], mode="train")
        tracker.update([None], [4.0], mode=mode, ds_id=ds_id)
        tracker.update([5], [8.0], mode=mode, ds_id=ds_id)
        stats = tracker.end_epoch(1, mode=mode)
        assert stats[NUMBER].sum == 4.0
        assert stats[5].max == 8.0
    typed = lt.LabelTracker("y", "ce", missing="label")
    typed.update(["a"], [1.0], mode="eval")
    typed.update(np.ma.masked_array([0], [1]), [2.0])
    typed.update([7], [4.0])
    assert rows(typed.end_epoch(1)) == expected_by_label([NUMBER, 7], [2.0, 4.0])
    typed.update(["a"], [1.0])
    typed.reset()
    typed.update(np.ma.masked_array([0], [1]), [2.0])
    typed.update([7], [4.0])
    assert rows(typed.end_epoch(2)) == expected_by_label([NUMBER, 7], [2.0, 4.0])
    untyped = lt.LabelTracker("y", "ce", missing="label")
    untyped.update([None], [1.0])
    with pytest.raises(TypeError, match="were string labels so far"):
        untyped.update([7], [1.0])


@pytest.mark.parametrize("source", ["pandas", "polars", "pyarrow"])
def test_a_typed_column_without_any_label_keeps_its_type(source):
    pd, pl, pa = library("pandas"), library("polars"), library("pyarrow")
    for number, text in {
        "pandas": [(pd.array([None, None], dtype="Int64"), pd.Series([None, None], dtype="string"))],
        "polars": [(pl.Series([None, None], dtype=pl.Int8), pl.Series([None, None], dtype=pl.String))],
        "pyarrow": [(pa.array([None, None], pa.int32()), pa.array([None, None], pa.string()))],
    }[source]:
        assert lt.label_stats(number, [1, 2], missing="label").labels.tolist() == [NUMBER]
        assert lt.label_stats(text, [1, 2], missing="label").labels.tolist() == [NAME]


def test_an_unknown_option_is_refused_with_those_there_are():
    for call in (lambda: lt.label_stats([0], [1], missing="drop"), lambda: lt.LabelTracker("y", "ce", missing=None)):
        with pytest.raises(ValueError, match=r"missing: unknown option .*; allowed are 'error', 'skip', 'label'"):
            call()


# -- mappings ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("times", [1, 20_000])
def test_a_mapping_keeps_the_label_of_missing_ones_beside_its_own(times):
    for labels, kept in (
        (["a", None, "b"], "a"),
        ([7, None, 9], 7),
        ([0.5, None, 1.5], 0.5),
        ([True, None, False], True),
    ):
        stats = lt.label_stats(labels * times, [1, 2, 4] * times, label_mapping={"kept": kept}, missing="label")
        assert {row.name: row.sum for row in stats} == {"kept": 1.0 * times, NAME: 2.0 * times}
        stats = lt.label_stats(labels * times, [1, 2, 4] * times, label_mapping={"kept": kept}, missing="skip")
        assert {row.name: row.sum for row in stats} == {"kept": 1.0 * times}


def test_a_mapping_may_call_the_missing_ones_something_else():
    stats = lt.label_stats([7, None], [1, 2], label_mapping={"seven": 7, "nobody knows": NUMBER}, missing="label")
    assert stats.names.tolist() == ["nobody knows", "seven"]
    stats = lt.label_stats(["x", None], [1, 2], label_mapping={"nobody knows": NAME}, missing="label")
    assert stats.names.tolist() == ["nobody knows"]


def test_a_mapping_that_calls_another_label_missing_is_refused():
    mapping = {NAME: 5, "six": 6}
    assert lt.label_stats([5, None], [1, 2], label_mapping=mapping, missing="skip").names.tolist() == [NAME]
    for call in (lt.label_stats, lambda *_, **options: lt.LabelTracker("y", "ce", **options)):
        with pytest.raises(ValueError, match="label_mapping calls label 5 '\\(missing\\)'"):
            call([5, None], [1, 2], label_mapping=mapping, missing="label")


# -- numbers ----------------------------------------------------------------------------------------------


def test_the_smallest_integer_is_a_label_like_others_unless_missing_ones_have_a_label():
    for missing in ("error", "skip"):
        stats = lt.label_stats([NUMBER, 1], [1, 2], missing=missing)
        assert stats.names.tolist() == [str(NUMBER), "1"]


def test_the_largest_integers_leave_no_number_for_missing_ones():
    labels = np.ma.masked_array(np.array([2**63, 5, 1], np.uint64), [0, 0, 1])
    assert lt.label_stats(labels, [1, 2, 4], missing="skip").labels.tolist() == [5, 2**63]
    with pytest.raises(ValueError, match="leave no number for missing ones"):
        lt.label_stats(labels, [1, 2, 4], missing="label")
    tracker = lt.LabelTracker("y", "ce", missing="label")
    tracker.update(np.array([2**63], np.uint64), [1.0])
    with pytest.raises(TypeError, match="do not fit one type"):
        tracker.update([None, 5], [1.0, 2.0])
    assert rows(tracker.end_epoch(1)) == expected_by_label([2**63], [1.0])


def test_integers_and_floats_with_missing_ones_are_merged():
    whole = lt.label_stats([1, None], [1, 2], missing="label")
    real = lt.label_stats([0.5, None], [4, 8], missing="label")
    for merged in (whole.merge(real), real.merge(whole)):
        assert rows(merged) == expected_by_label([1, NUMBER, 0.5, NUMBER], [1, 2, 4, 8])
        assert merged.names.tolist() == [NAME, "0.5", "1.0"]
    with pytest.raises(TypeError, match="beyond 2"):
        lt.label_stats([2**53 + 1, None], [1, 2], missing="label").merge(real)


# -- trackers and runs ------------------------------------------------------------------------------------


def batches(rng, kind):
    """Return batches of labels with missing ones here and there, and the labels that they are to become."""
    made = []
    for _ in range(12):
        n = int(rng.integers(1, 40))
        own = {"string": NAME, "bytes": NAME.encode()}.get(kind, NUMBER)
        pool = {
            "string": ["a", "b", "longer"],
            "bytes": [b"a", b"b"],
            "integer": [-5, 0, 2**53 + 1],
            "float": [-0.5, 2.0, 1e300],
            "bool": [True, False],
        }[kind]
        full = [pool[i] for i in rng.integers(0, len(pool), n)]
        gone = rng.random(n) < rng.choice([0.0, 0.3])
        labels = [None if missing else label for label, missing in zip(full, gone, strict=True)]
        made.append((labels, rng.normal(size=n), [own if x is None else x for x in labels]))
    return made


@pytest.mark.parametrize("kind", ["string", "bytes", "integer", "float", "bool"])
@pytest.mark.parametrize("missing", ["skip", "label"])
def test_recorded_live_and_restored_statistics_are_those_of_a_plain_loop(tmp_path, kind, missing):
    library("pyarrow")
    library("xxhash")
    rng = np.random.default_rng(len(kind) * 7 + len(missing))
    path = tmp_path / "run"
    mapping = {
        "string": {"A": "a"},
        "bytes": {"A": b"a"},
        "integer": {"zero": 0},
        "float": {"two": 2},
        "bool": {"yes": True},
    }
    tracker = lt.LabelTracker("y", "ce", missing=missing, bounds=["std", "iqr"], record_to=path)
    small = lt.LabelTracker("y", "ce", missing=missing, max_buffer_bytes=600)
    named = lt.LabelTracker("y", "ce", missing=missing, label_mapping=mapping[kind])
    wanted = {}
    for epoch in (1, 2):
        labels, values = [], []
        for batch, losses, full in batches(rng, kind):
            tracker.update(batch, losses)
            small.update(batch, losses)
            named.update(batch, losses)
            keep = [missing == "label" or x is not None for x in batch]
            labels += [x for x, kept in zip(full, keep, strict=True) if kept]
            values += losses[keep].tolist()
        copy = pickle.loads(pickle.dumps(small))
        wanted[epoch] = expected_by_label(labels, values)
        live = tracker.end_epoch(epoch)
        assert rows(live) == wanted[epoch]
        assert rows(small.end_epoch(epoch)) == rows(copy.end_epoch(epoch)) == wanted[epoch]
        assert copy.missing == missing
        ((name, label),) = mapping[kind].items()
        stats = named.end_epoch(epoch)
        assert stats[name].count == wanted[epoch][label][0]
        assert set(stats.names.tolist()) == {name} | ({NAME} if missing == "label" else set())
    tracker.close()
    run = lt.open_run(path)
    assert run.missing == run.info()["missing"] == missing
    again = run.recompute(bounds=["std", "iqr"], progress=False)
    for epoch in (1, 2):
        assert fingerprint(again.at(epoch, mode="train")) == fingerprint(tracker.history.at(epoch, mode="train"))
    ((name, label),) = mapping[kind].items()
    mapped = run.recompute("std", label_mapping=mapping[kind], progress=False).at(2, mode="train")
    assert fingerprint(mapped) == fingerprint(named.history.at(2, mode="train"))
    assert run.verify(progress=False).ok
    assert run.samples(step=1).num_rows == sum(row[0] for row in wanted[1].values())


def test_a_run_goes_on_with_the_same_rule_alone(tmp_path):
    library("pyarrow")
    library("xxhash")
    lt.LabelTracker("y", "ce", missing="skip", record_to=tmp_path / "run").close()
    with pytest.raises(ValueError, match="is a run of missing 'skip', and this is missing 'error'"):
        lt.LabelTracker("y", "ce", record_to=tmp_path / "run")


def test_a_cluster_and_a_grouping_see_the_label_of_missing_ones(tmp_path):
    library("pyarrow")
    library("xxhash")
    with lt.LabelTracker("y", "ce", missing="label", label_mapping={"two": 2}, record_to=tmp_path / "run") as tracker:
        tracker.update([1, None, 2], [1.0, 2.0, 4.0])
        live = tracker.end_epoch(1)
    run = lt.open_run(tmp_path / "run")
    assert live.names.tolist() == [NAME, "two"]
    grouped = run.recompute(group=lambda label: "none" if label == NUMBER else "some", progress=False)
    assert {row.name: row.sum for row in grouped.at(1, mode="train")} == {"none": 2.0, "some": 5.0}
    pytest.importorskip("distributed")
    on_cluster = run.recompute(engine="dask", progress=False).at(1, mode="train")
    assert fingerprint(on_cluster) == fingerprint(live)


def test_batches_that_are_empty_when_the_missing_are_gone_are_no_samples():
    tracker = lt.LabelTracker("y", "ce", missing="skip")
    tracker.update([None], [1.0])
    tracker.update(["a", "b"], [1.0, 2.0])
    tracker.update([None, None], [1.0, 5.0])
    assert rows(tracker.end_epoch(1)) == expected_by_label(["a", "b"], [1.0, 2.0])


def test_pixels_without_a_label_are_told_by_their_place():
    labels = np.ma.masked_array(np.arange(12).reshape(3, 2, 2) % 4, np.arange(12).reshape(3, 2, 2) % 3 == 0)
    values = np.arange(12.0).reshape(3, 2, 2)
    pairs = [(int(i % 4), float(i)) for i in range(12) if i % 3]
    assert rows(lt.label_stats(labels, values, missing="skip")) == expected_by_label(*zip(*pairs, strict=True))


@pytest.mark.parametrize("ids", [None, np.arange(6).reshape(3, 2)])
@pytest.mark.parametrize("missing", ["skip", "label"])
@pytest.mark.parametrize("labels", [[["a"], [None], ["b"]], [["a", None]], [[0.5], [math.nan], [1.5]]])
def test_a_missing_label_that_stands_for_several_values_is_missing_for_each(labels, missing, ids):
    values = np.arange(6.0).reshape(3, 2)
    gap = NAME if isinstance(labels[0][0], str) else NUMBER
    column = np.broadcast_to(np.array(labels, dtype=object), (3, 2)).ravel().tolist()
    column = [gap if label is None or label != label else label for label in column]
    wanted = expected_by_label(column, values.ravel())
    if missing == "skip":
        del wanted[gap]
    tracker = lt.LabelTracker("y", "ce", missing=missing)
    tracker.update(labels, values, ids=ids)
    both = lt.TrackerCollection("y", ["ce", "hit"], missing=missing)
    both.update(labels, {"ce": values, "hit": values}, ids=ids)
    found = tracker.end_epoch(1), both.end_epoch(1)["hit"], lt.label_stats(labels, values, missing=missing)
    assert [rows(stats) for stats in found] == [wanted] * 3


def test_shapes_are_checked_before_samples_are_left_out():
    for missing in ("skip", "label"):
        with pytest.raises(ValueError, match="3 labels, 2 values"):
            lt.label_stats([1, None, 2], [1.0, 2.0], missing=missing)


def test_numbers_after_missing_labels_alone_are_refused_with_the_way_out():
    pandas = pytest.importorskip("pandas")
    tracker = lt.LabelTracker("y", "ce", missing="label")
    tracker.update([None, None], [1.0, 2.0])
    with pytest.raises(TypeError, match=r"string labels so far.*missing labels alone count as strings: .* Int64"):
        tracker.update([1, 2], [1.0, 2.0])
    tracker = lt.LabelTracker("y", "ce", missing="label")
    tracker.update(pandas.array([None, None], dtype="Int64"), [1.0, 2.0])
    tracker.update([1, 2], [1.0, 2.0])
    assert tracker.end_epoch(1).names.tolist() == ["(missing)", "1", "2"]
    tracker = lt.LabelTracker("y", "ce", missing="label")
    tracker.update([None] * 5000, np.zeros(5000))
    tracker.update(["cat"] * 5000, np.zeros(5000))
    with pytest.raises(TypeError, match=r"string labels so far in this epoch and are integer labels now; convert them"):
        tracker.update([1, 2], [1.0, 2.0])
