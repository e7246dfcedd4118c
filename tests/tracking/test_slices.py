"""A tracker of several labels per sample, against `label_stats` of all samples at once, bit for bit."""

from __future__ import annotations

import itertools
import math
import pickle
import sys
import threading
from collections import Counter

import numpy as np
import pytest
from combinations import alike, numbers, samples
from exact import expected_by_label, rows
from hypothesis import given
from hypothesis import strategies as st
from test_interrupts import At, stride

import labeltrack as lt

CLASSES, SITES = ["cat", "dog", "cat", "dog", "cat"], [1, 2, 1, 1, 3]
LOSSES = [0.5, 2.0, 1.5, 4.0, 8.0]


def make(label=("class", "site"), **options):
    return lt.LabelTracker(label, "ce", **options)


@pytest.fixture
def tracker():
    tracker = make()
    tracker.update((CLASSES[:2], SITES[:2]), LOSSES[:2])
    tracker.update({"site": SITES[2:], "class": CLASSES[2:]}, LOSSES[2:])
    return tracker


def some(column, places):
    return column[places] if isinstance(column, np.ndarray) else [column[i] for i in places]


def copied(tracker, way):
    """Return a tracker with the same state."""
    if way == "pickle":
        return pickle.loads(pickle.dumps(tracker))
    other = make(tracker.label, nan_policy=tracker.nan_policy, max_buffer_bytes=tracker.max_buffer_bytes)
    other.load_state_dict(tracker.state_dict())
    return other


# -- exact ------------------------------------------------------------------------------------------------


@given(samples, st.sampled_from(["propagate", "omit"]), st.sampled_from([1, 200, 2**20]), st.data())
def test_an_epoch_has_the_bits_of_all_samples_at_once_however_it_came_about(drawn, policy, memory, data):
    labels, values = drawn
    values = np.array(values)
    names = tuple(labels)
    trackers = [make(names, nan_policy=policy, max_buffer_bytes=memory) for _ in range(2)]
    order = data.draw(st.permutations(range(len(values))))
    edges = sorted(data.draw(st.sets(st.integers(1, len(values)), max_size=3)) | {0, len(values)})
    for start, stop in itertools.pairwise(edges):
        at, places = data.draw(st.integers(0, 1)), order[start:stop]
        columns, ds_id = (
            {name: some(column, places) for name, column in labels.items()},
            data.draw(st.sampled_from("ab")),
        )
        form = data.draw(st.sampled_from(["tuple", "mapping", "batch", "where"]))
        if form == "batch":
            trackers[at].update_batch({**columns, "ce": values[places]}, ds_id=ds_id)
        elif form == "where":
            mask = np.isin(np.arange(len(values)), places)
            trackers[at].update(labels, values, ds_id=ds_id, where=mask)
        else:
            trackers[at].update(tuple(columns.values()) if form == "tuple" else columns, values[places], ds_id=ds_id)
        trackers[at] = (
            copied(trackers[at], way) if (way := data.draw(st.sampled_from(["", "pickle", "state"]))) else trackers[at]
        )
    first, second = trackers
    first.merge_state([second])
    wanted = lt.label_stats(labels, values, nan_policy=policy)
    assert alike(first.compute(), wanted)
    assert alike(first.end_epoch(1), wanted)
    history = copied(first, "pickle").history
    assert alike(history.at(1), wanted)
    for name, column in labels.items():
        assert alike(history.by(name).at(1), lt.label_stats(column, values, nan_policy=policy))
    assert numbers(history.by().at(1)) == numbers(wanted.by())


WHOLE = {
    "?": lambda column: column > 1,
    "u1": lambda column: column.astype("u1"),
    "i4": lambda column: column.astype("i4"),
    "u8": lambda column: column.astype("u8"),
    "large": lambda column: column.astype("u8") + np.uint64(2**63),
}


@given(st.lists(st.tuples(st.sampled_from(sorted(WHOLE)), st.sampled_from(sorted(WHOLE))), min_size=1, max_size=4))
def test_whole_numbers_of_all_types_go_together(kinds):
    tracker, parts = make(), []
    for i, (left, right) in enumerate(kinds):
        column = np.arange(i, i + 3)
        parts.append((WHOLE[left](column), WHOLE[right](column[::-1])))
        tracker.update(parts[-1], np.arange(3.0) + i)
    values = np.concatenate([np.arange(3.0) + i for i in range(len(kinds))])
    columns = [[int(label) for part in parts for label in part[place].tolist()] for place in range(2)]
    bools = [all(kind[place] == "?" for kind in kinds) for place in range(2)]
    columns = [list(map(bool, column)) if only else column for column, only in zip(columns, bools, strict=True)]
    wanted = lt.label_stats(dict(zip(("class", "site"), columns, strict=True)), values)
    assert alike(tracker.end_epoch(1), wanted)


@pytest.mark.parametrize("memory", [1, 2**20])
def test_negative_labels_and_those_beyond_63_bits_are_refused_label_by_label(memory):
    tracker = make(max_buffer_bytes=memory)
    tracker.update(([-1, 3], [2**63, 1]), [1.0, 2.0])
    tracker.update(([-2], [2**64 - 1]), [4.0])
    for labels in (([2**63], [2]), ([5], [-2])):
        with pytest.raises(TypeError, match=r"do not fit one type \(this batch was not recorded\)"):
            tracker.update(labels, [8.0])
        with pytest.raises(TypeError, match=r"do not fit one type \(this batch was not recorded\)"):
            tracker.update(labels, [8.0], ds_id="other")
        other = make()
        other.update(labels, [8.0])
        with pytest.raises(TypeError, match="nothing was merged"):
            tracker.merge_state([other])
    assert tracker.end_epoch(1).labels.tolist() == [(-2, 2**64 - 1), (-1, 2**63), (3, 1)]


@pytest.mark.parametrize("column", [np.int64, np.float64, np.uint8])
def test_columns_of_a_table_are_labels(column):
    table = np.random.default_rng(5).integers(0, 9, (300, 3)).astype(column)
    values, tracker = np.arange(300.0), make()
    for start in (0, 100, 200):
        rows = slice(start, start + 100)
        tracker.update((table[rows, 0], table[rows, 2]), values[rows])
    wanted = lt.label_stats({"class": table[:, 0], "site": table[:, 2]}, values)
    assert alike(tracker.end_epoch(1), wanted)


def test_large_batches_masks_and_broadcasting_have_the_same_bits():
    rng = np.random.default_rng(0)
    tracker, parts = make(), []
    for shape in ((3, 4), (90, 60), (2, 50), (70, 80)):
        columns = {"class": rng.choice(["web", "books"], (shape[0], 1)), "site": rng.integers(-3, 300, shape)}
        values, mask = rng.normal(size=shape).astype(np.float32), rng.random((1, shape[1])) < 0.7
        tracker.update(columns, values, where=mask)
        whole = np.broadcast_to(mask, shape)
        parts.append([np.broadcast_to(column, shape)[whole] for column in (*columns.values(), values)])
    *labels, values = (np.concatenate(column) for column in zip(*parts, strict=True))
    assert alike(tracker.end_epoch(1), lt.label_stats(dict(zip(tracker.label, labels, strict=True)), values))


def test_quantiles_are_those_of_all_samples():
    rng = np.random.default_rng(1)
    tracker = make(bounds=["iqr", "std"])
    columns, values = {"class": rng.choice(["a", "b"], 400), "site": rng.integers(0, 3, 400)}, rng.normal(size=400)
    for start in range(0, 400, 50):
        part = {name: column[start : start + 50] for name, column in columns.items()}
        tracker.update(part, values[start : start + 50], ds_id="ab"[start % 100 > 0])
    wanted = lt.label_stats(columns, values, quantiles=[0.25, 0.5, 0.75])
    assert tracker.end_epoch(1).quantile(0.25).tolist() == wanted.quantile(0.25).tolist()
    history = tracker.history
    assert history.at(1).median.tolist() == wanted.median.tolist()
    assert history.by("class", "site").at(1).median.tolist() == wanted.median.tolist()
    assert history.by("class", "site").bounds == ("iqr", "std")
    assert history.by("class").bounds == ("std",)
    history.by("class").plot()
    assert make(bounds="iqr").history.by().bounds == ("iqr",)


# -- options ----------------------------------------------------------------------------------------------


def test_mappings_are_given_label_by_label():
    options = {"label_mapping": {"site": {"north": 1, "south": 3, "east": 9}}}
    tracker = make(**options)
    for i in range(5):
        tracker.update((CLASSES[i : i + 1], SITES[i : i + 1]), LOSSES[i : i + 1])
    assert tracker.pending == {("train", ""): 5}
    stats = tracker.end_epoch(1)
    wanted = lt.label_stats({"class": CLASSES, "site": SITES}, LOSSES, **options)
    assert alike(stats, wanted)
    assert stats["cat", "north"].sum == 2.0
    assert alike(stats.with_absent(), wanted.with_absent())
    assert alike(pickle.loads(pickle.dumps(tracker)).history.at(1), wanted)
    with pytest.warns(lt.LabelTrackWarning, match="never occurred: 9, called 'east'"):
        tracker.check_mapping()


def test_mappings_of_floats_take_either_precision():
    rates = np.array([0.1, 0.25, 1 / 3], dtype=np.float32)
    for mapped in (0.1, np.float32(0.1), float(np.float32(0.1))):
        tracker = make(("rate",), label_mapping=({"low": mapped},))
        tracker.update((rates,), [1.0, 2.0, 4.0])
        wanted = lt.label_stats({"rate": rates}, [1.0, 2.0, 4.0], label_mapping=({"low": mapped},))
        assert alike(tracker.end_epoch(1), wanted)
        assert wanted.count.tolist() == [1]


@pytest.mark.parametrize("memory", [1, 2**20])
def test_mappings_of_which_nothing_occurs_warn_once(memory):
    tracker = make(label_mapping={"site": {"one": "1"}}, max_buffer_bytes=memory)
    tracker.update((CLASSES, SITES), LOSSES)
    with pytest.warns(lt.LabelTrackWarning, match=r"'site': '1'; none has one of 'site'"):
        assert len(tracker.end_epoch(1)) == 0
    tracker.update((CLASSES, SITES), LOSSES)
    assert tracker.end_epoch(2).label_names == ("class", "site")


def test_missing_labels_are_treated_label_by_label():
    classes, sites = [None, None, "cat", "dog", None], [1.0, math.nan, math.nan, 2.0, 1.0]
    with pytest.raises(ValueError, match="label 'class': 3 of 5 labels are missing"):
        make().update((classes, sites), LOSSES)
    for missing in ("skip", "label", {"class": "label", "site": "skip"}, ("skip", "label")):
        tracker = make(missing=missing)
        for i in (3, 0, 1, 2, 4):  # some batches have no label at all
            tracker.update((classes[i : i + 1], sites[i : i + 1]), LOSSES[i : i + 1])
        wanted = lt.label_stats(
            {"class": classes, "site": sites},
            LOSSES,
            missing=missing if isinstance(missing, (str, dict)) else dict(zip(tracker.label, missing, strict=True)),
        )
        assert alike(pickle.loads(pickle.dumps(tracker)).end_epoch(1), wanted)
        assert alike(tracker.end_epoch(1), wanted)


def test_labels_to_ignore_are_for_all_labels_or_one():
    labels = {"class": [0, -100, 2, 3], "site": [5, 5, -100, 7]}
    tracker = make(ignore_label=-100)
    tracker.update(labels, LOSSES[:4])
    assert tracker.end_epoch(1).labels.tolist() == [(0, 5), (3, 7)]
    tracker = make(ignore_label={"site": [-100, 7]})
    tracker.update(labels, LOSSES[:4])
    assert pickle.loads(pickle.dumps(tracker)).ignore_label == {"class": (), "site": (-100, 7)}
    assert tracker.end_epoch(1).labels.tolist() == [(-100, 5), (0, 5)]


def test_the_order_in_which_combinations_appear_is_kept():
    for memory in (1, 2**20):
        tracker = make(keep_order=True, max_buffer_bytes=memory)
        tracker.update((CLASSES[::-1], SITES[::-1]), LOSSES)
        tracker.end_epoch(1)
        assert tracker.labels_in_order == [("cat", 3), ("dog", 1), ("cat", 1), ("dog", 2)]


def test_results_and_histories_are_called_by_all_labels(tracker):
    assert tracker.outputs == "ce_by_class_and_site"
    assert tracker.history.label == "class and site"
    tracker.end_epoch(1)
    assert repr(tracker.history).startswith("History of 'ce' by 'class and site': 1 entry")
    assert tracker.history.by("site", "class").label == "site and class"
    assert tracker.history.by().label == "all"
    assert make(["class"]).outputs == "ce_by_class"
    assert make(("class",)).label == ("class",)


def test_datasets_and_modes_stay_apart(tracker):
    tracker.update((CLASSES, SITES), LOSSES, mode="eval", ds_id="a")
    tracker.update((SITES, CLASSES), LOSSES, mode="test")  # of other kinds
    for mode in ("train", "eval", "test"):
        tracker.end_epoch(1, mode=mode)
    history = tracker.history.by("class")
    assert [key for key, _ in history.items()] == [key for key, _ in tracker.history.items()]
    assert rows(history.at(1, "eval", "a")) == expected_by_label(CLASSES, LOSSES)
    assert rows(history.at(1, "test")) == expected_by_label(SITES, LOSSES)
    with pytest.raises(KeyError, match="no label called 'clas'"):
        tracker.history.by("clas")


def test_histories_of_combinations_can_be_read_and_drawn(tracker):
    tracker.end_epoch(1)
    assert tracker.history.worst(1) == [("cat", 3)]
    assert tracker.history.by("class").worst(1) == ["cat"]
    assert tracker.history.series("cat, 1", "sum")[1].tolist() == [2.0]
    assert tracker.history.columns()["site"].tolist() == [1, 3, 1, 2]
    figure = tracker.history.plot(bounds=None)
    assert "class and site" in str([text.get_text() for text in figure.findobj(lambda a: hasattr(a, "get_text"))])
    tracker.history.by().plot()


# -- mistakes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("label", "error", "message"),
    [
        ((), ValueError, "label must be a name, or several different ones"),
        (("class", "class"), ValueError, "label must be a name, or several different ones"),
        (("", "class"), ValueError, "label must be a name, or several different ones, none of them empty"),
        (("class", 1), TypeError, "label must be a string, got int 1"),
        (("class", "count"), ValueError, "a label cannot be called 'count'"),
        ({"class": 0}, TypeError, "label must be a string, got dict"),
    ],
)
def test_names_that_are_none_are_refused(label, error, message):
    with pytest.raises(error, match=message):
        make(label)


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        (CLASSES, ValueError, r"labels must have one for each of 2 labels \(class, site\), got 5"),
        (
            np.array(SITES),
            TypeError,
            r"be a mapping \{'class': …, 'site': …\} or a tuple, got one array of shape \(5,\)",
        ),
        ({"class": CLASSES, "sites": SITES}, KeyError, r"no label in the labels: 'site'\. Did you mean 'sites'"),
        ((CLASSES, SITES[:2]), ValueError, "label 'site': labels and values differ in length"),
        ((CLASSES, np.array([1j] * 5)), TypeError, "label 'site': labels must be integers"),
        (
            (SITES, SITES),
            TypeError,
            r"were \(string, integer\) labels so far in this epoch and are \(integer, integer\)",
        ),
    ],
)
def test_batches_that_do_not_fit_are_refused_as_a_whole(tracker, labels, error, message):
    with pytest.raises(error, match=message):
        tracker.update(labels, LOSSES)
    assert tracker.pending == {("train", ""): 5}


def test_trackers_of_other_labels_are_not_merged_or_loaded(tracker):
    with pytest.raises(ValueError, match="its label is"):
        tracker.merge_state([make("class")])
    with pytest.raises(ValueError, match=r"state of label \('class', 'site'\) cannot be loaded"):
        make("class").load_state_dict(tracker.state_dict())
    with pytest.raises(KeyError, match="no label key in the batch: 'site'"):
        tracker.update_batch({"class": CLASSES, "ce": LOSSES})
    tracker.update((CLASSES, SITES), LOSSES)
    other = make()
    other.update((SITES, SITES), LOSSES)
    with pytest.raises(TypeError, match=r"\(integer, integer\) and \(string, integer\) labels in mode 'train'"):
        tracker.merge_state([other])


def test_batches_without_samples_are_of_no_kind(tracker):
    before = tracker.compute()
    tracker.update(([], []), [])
    tracker.update((CLASSES, SITES), LOSSES, where=False)
    assert alike(tracker.compute(), before)
    assert len(make().end_epoch(1)) == 0


# -- labels that wait for their codes ---------------------------------------------------------------------

INTEGERS = {np.uint8: (0, 255), np.int32: (-3, 200_000), np.int64: (-(2**62), 2**62)}
reading = st.sampled_from(["", "compute", "state", "pickle", "flush", "end"])


@given(st.lists(st.sampled_from([*sorted(INTEGERS, key=str), str]), min_size=1, max_size=3), st.data())
def test_batches_of_integers_and_words_are_all_there_whatever_reads_them_in_between(dtypes, data):
    names = tuple("abc"[: len(dtypes)])
    tracker, given_labels, given_values, ended = make(names), [], [], 0
    few = st.integers(0, 5)
    for step in range(data.draw(st.integers(1, 12))):
        rows = data.draw(st.integers(0, 4) | st.just(40_000))
        seed = data.draw(st.integers(0, 100))
        rng = np.random.default_rng(seed)
        wide = data.draw(st.booleans())
        columns = []
        for dtype in dtypes:
            bounds = INTEGERS[np.int32 if dtype is str else dtype] if wide else (0, data.draw(few) + 1)
            numbers = rng.integers(*bounds, rows)
            columns.append([f"{number}" for number in numbers] if dtype is str else numbers.astype(dtype))
        values = rng.standard_exponential(rows).astype(np.float32)
        tuples = data.draw(st.booleans())
        tracker.update(tuple(columns) if tuples else dict(zip(names, columns, strict=True)), values)
        given_labels.append(columns)
        given_values.append(values)
        match data.draw(reading):
            case "pickle" | "state" as way:
                tracker = copied(tracker, way)
            case "flush":
                tracker.flush()
            case "end" if sum(map(len, given_values)):
                ended, wanted = step + 1, expected(names, given_labels, given_values)
                assert alike(tracker.end_epoch(ended), wanted)
                given_labels, given_values = [], []
            case "compute" if sum(map(len, given_values)):
                assert alike(tracker.compute(), expected(names, given_labels, given_values))
    assert sum(tracker.pending.values()) == sum(map(len, given_values))
    if sum(map(len, given_values)):
        assert alike(tracker.end_epoch(99), expected(names, given_labels, given_values))


def expected(names, labels, values):
    columns = [
        [*itertools.chain(*column)] if isinstance(column[0], list) else np.concatenate(column)
        for column in zip(*labels, strict=True)
    ]
    return lt.label_stats(dict(zip(names, columns, strict=True)), np.concatenate(values))


def test_batches_that_do_not_fit_those_that_wait_are_refused_or_coded_at_once():
    tracker, labels, values = make(), np.arange(8), np.arange(8.0)
    for _ in range(3):
        tracker.update((labels, labels % 2), values)
    for wrong in ((labels,), (labels, labels, labels), (), (labels, labels[:3]), np.stack([labels, labels % 2])):
        with pytest.raises((TypeError, ValueError, KeyError)):
            tracker.update(wrong, values)
    assert tracker.pending == {("train", ""): 24}
    tracker.update((labels.astype(np.int16), (labels % 2).tolist()), values)
    tracker.update((labels.astype(np.uint64) + np.uint64(2**63), labels % 2), values)
    tracker.update((labels, labels % 2), values)
    every = [int(x) for x in labels] * 4 + [int(x) + 2**63 for x in labels] + [int(x) for x in labels]
    wanted = lt.label_stats({"class": np.array(every, np.uint64), "site": np.tile(labels % 2, 6)}, np.tile(values, 6))
    assert alike(tracker.end_epoch(1), wanted)


def test_integers_among_words_that_wait_are_not_taken_for_their_codes():
    tracker, sites, values = make(), np.arange(2, dtype=np.int32), np.ones(2)
    for _ in range(3):
        tracker.update((["cat", "dog"], sites), values)
        tracker.update({"site": sites, "class": ["dog", "dog"]}, values)
    for wrong in (sites, [0, 1], ["cat", 1], [b"cat", b"dog"]):
        for labels in ((wrong, sites), {"class": wrong, "site": sites}):
            with pytest.raises(TypeError):
                tracker.update(labels, values)
    for wrong in (["cat"], ["cat"] * 3, []):
        with pytest.raises(ValueError, match="length"):
            tracker.update((wrong, sites), values)
    tracker.update((["cat", "fox"], sites), values)
    tracker.update((np.array(["cat", "fox"]), sites), values)
    found = tracker.end_epoch(1)
    assert dict(zip(map(tuple, found.labels.tolist()), found.count.tolist(), strict=True)) == {
        ("cat", 0): 5,
        ("dog", 0): 3,
        ("dog", 1): 6,
        ("fox", 1): 2,
    }


def test_fewer_labels_than_values_are_refused_however_many_rows_wait():
    size = 2048
    for number in range(1, 100):
        for labels in (0, size):
            tracker = make()
            for _ in range(number):
                tracker.update((np.arange(size), np.arange(size) % 2), np.ones(size, np.float32))
            with pytest.raises(ValueError, match="differ in length"):
                tracker.update((np.arange(labels), np.arange(labels) % 2), np.ones(size + 64, np.float32))
            assert tracker.pending == {("train", ""): number * size}


def test_what_is_missing_in_a_masked_array_is_missing_in_any_batch():
    labels, values = np.arange(8), np.ones(8, np.float32)
    masked = np.ma.MaskedArray(labels, mask=labels < 4)
    for missing, count in (("error", 8), ("skip", 12)):
        tracker = make(missing=missing)
        tracker.update((labels, labels % 2), values)
        if missing == "error":
            with pytest.raises(ValueError, match="4 of 8 labels are missing"):
                tracker.update((masked, labels % 2), values)
        else:
            tracker.update((masked, labels % 2), values)
        assert tracker.compute().count.sum() == count


def test_a_signal_handler_reads_all_batches_so_far_at_any_line_of_update():
    rng, total, seen = np.random.default_rng(0), 0, 0

    def trace(frame, event, _):
        nonlocal left
        if "labeltrack" not in frame.f_code.co_filename or "kernels" in frame.f_code.co_filename:
            return None
        left -= event == "line"
        if left == 0:
            left = -1
            sys.settrace(None)
            stats.append(tracker.compute())
            sys.settrace(trace)
        return trace

    tracker, every = make(), []
    for n in range(1, 150, stride(4, 1)):
        stats = []
        columns = tuple(rng.integers(0, 2 * n, 20_000) for _ in range(2))
        left, before = n, sys.gettrace()
        sys.settrace(trace)
        try:
            tracker.update(columns, np.ones(20_000))
        finally:
            sys.settrace(before)
        every.append(columns)
        for each in stats:
            assert each.count.sum() in (total, total + 20_000)
            seen += 1
        total += 20_000
        if len(every) == 5:
            pairs = zip(*(np.concatenate(column).tolist() for column in zip(*every, strict=True)), strict=True)
            found = tracker.end_epoch(n)
            assert dict(zip(map(tuple, found.labels.tolist()), found.count, strict=True)) == Counter(pairs)
            total, every = 0, []
    assert seen > 20


@pytest.mark.parametrize("recorded", [False, True])
def test_threads_read_what_others_record(tmp_path, recorded):
    tracker = make(record_to=tmp_path / "run" if recorded else None)
    counts, labels = [], [np.arange(256) % 7, np.arange(256) % 3]

    def work():
        for _ in range(300):
            tracker.update(tuple(labels), np.ones(256))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        counts.append(int(tracker.compute().count.sum()))
        tracker.flush()
    assert counts == sorted(counts)
    assert not any(count % 256 for count in counts)
    stats = tracker.end_epoch(1)
    tracker.close()
    wanted = Counter(zip(*(column.tolist() for column in labels), strict=True))
    assert dict(zip(stats.labels.tolist(), stats.count.tolist(), strict=True)) == {
        k: 600 * n for k, n in wanted.items()
    }
    if recorded:
        assert alike(lt.open_run(tmp_path / "run").recompute(progress=False).at(1), stats)


def test_labels_of_documents_are_repeated_for_their_tokens():
    rng = np.random.default_rng(0)
    losses, mask = rng.standard_exponential((6, 50)), rng.random((6, 50)) < 0.7
    sites, classes = np.array(["b", "a", "b", "c", "a", "b"])[:, None], rng.integers(0, 2, (6, 1))
    for where in (None, mask):
        here = np.broadcast_to(True if where is None else where, losses.shape)
        whole = [np.broadcast_to(each, losses.shape)[here] for each in (classes, sites)]
        two, one = make(), lt.LabelTracker("site", "ce")
        for _ in range(2):
            two.update((classes, sites), losses, where=where)
            one.update(sites, losses, where=where)
        labels, values = [np.tile(each, 2) for each in whole], np.tile(losses[here], 2)
        assert alike(two.end_epoch(1), lt.label_stats(dict(zip(("class", "site"), labels, strict=True)), values))
        assert alike(one.end_epoch(1), lt.label_stats(labels[1], values))
    with pytest.raises(ValueError, match="do not match"):
        one.update(sites[:4], losses)
    one.update(sites, losses, where=False)
    assert not one.pending


# -- interrupts and threads -------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [3, 5000])
def test_an_interrupt_at_any_line_leaves_all_of_a_batch_of_integers_or_nothing(size):
    tracker, total, many = make(), 0, 0
    for n in itertools.count(0, stride(11, 3)):
        labels = np.arange(n, n + size) % 300, np.arange(size) % 7
        with At(n) as at:
            for _ in range(8):  # so that waiting labels are coded
                many += not at.raised
                tracker.update(labels, np.ones(size))
            tracker.compute()
        count = tracker.pending["train", ""] if tracker.pending else 0
        assert count % size == 0
        assert total <= count <= total + 8 * size
        assert at.raised or count == total + 8 * size
        assert (stats := tracker.compute()).count.sum() == count
        assert len(set(stats.labels.tolist())) == len(stats)
        total = count
        if total > 100_000:
            assert tracker.end_epoch(n).count.sum() == total
            total = 0
        if not at.raised:
            break
    assert many > 100


@pytest.mark.parametrize("size", [3, 5000])
def test_an_interrupt_at_any_line_of_update_leaves_all_of_the_batch_or_nothing(size):
    tracker = make()
    tracker.update((["a"], [0]), [1.0])
    total = 1
    for n in itertools.count(0, stride(11, 3)):
        labels = [f"new {n} {i % 3}" for i in range(size)], np.arange(n, n + size) % 7
        with At(n) as at:
            tracker.update(labels, np.ones(size))
        count = tracker.pending["train", ""]
        assert count in (total, total + size)
        assert at.raised or count == total + size
        stats = tracker.compute()
        assert stats.count.sum() == count
        mine = [row.label for row in stats if row.label[0].startswith(f"new {n} ")]
        assert len(mine) == (0 if count == total else len(set(zip(*map(list, labels), strict=True))))
        total = count
        if not at.raised:
            break
    assert n > 3


def test_batches_of_several_threads_are_all_recorded():
    tracker = make()

    def work(name):
        for i in range(50):
            tracker.update(([name] * 3, [i % 5, i % 7, i]), [1.0, 2.0, 4.0])

    threads = [threading.Thread(target=work, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stats = tracker.end_epoch(1)
    sites = [site for i in range(50) for site in (i % 5, i % 7, i)]
    wanted = expected_by_label(sites, [1.0, 2.0, 4.0] * 50)
    assert rows(stats) == {(name, site): row for name in "abc" for site, row in wanted.items()}
