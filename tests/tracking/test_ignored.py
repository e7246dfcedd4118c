"""Samples that a tracker ignores: those outside of `where=`, and those of `ignore_label=`."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
from exact import fingerprint
from hypothesis import given
from hypothesis import strategies as st

import labeltrack as lt

KINDS = {
    "i8": np.array,
    "u1": lambda numbers: np.array(numbers, dtype=np.uint8),
    "huge": lambda numbers: np.array(numbers, dtype=np.uint64) + np.uint64(2**63),
    "bool": lambda numbers: np.array(numbers) > 1,
    "f4": lambda numbers: np.array(numbers, dtype=np.float32) / 10,
    "words": lambda numbers: [f"word {number}" for number in numbers],
    "U": lambda numbers: np.array([f"word {number}" for number in numbers]),
    "S": lambda numbers: np.array([b"%d" % number for number in numbers]),
    "long": lambda numbers: ["x" * 200 + str(number) for number in numbers],
}


def make(**options):
    return lt.LabelTracker("y", "ce", **options)


def listed(labels):
    """Return labels as statistics have them."""
    if isinstance(labels, np.ndarray) and labels.dtype == np.float32:
        return [float(str(label)) for label in labels]
    return list(labels) if isinstance(labels, list) else labels.tolist()


batches = st.lists(
    st.lists(st.tuples(st.integers(0, 3), st.floats(width=32), st.booleans()), min_size=1, max_size=20), max_size=4
)


def same(tracker, labels, values, policy="propagate"):
    """Compare an epoch with `label_stats` of the samples that count; both may be without any."""
    got = tracker.end_epoch(1)
    if not labels:
        return not len(got)
    wanted = lt.label_stats(labels, values, nan_policy=policy)
    assert got.labels.tolist() == wanted.labels.tolist()
    assert fingerprint(got)[2:] == fingerprint(wanted)[2:]
    return True


@given(st.sampled_from(sorted(KINDS)), batches, st.sampled_from(["propagate", "omit"]), st.sampled_from([1, 2**20]))
def test_a_mask_does_what_leaving_samples_out_does(kind, given_, policy, memory):
    tracker, kept, numbers = make(nan_policy=policy, max_buffer_bytes=memory), [], []
    for batch in given_:
        labels, values, mask = (list(column) for column in zip(*batch, strict=True))
        labels, values = KINDS[kind](labels), np.array(values, dtype=np.float32)
        tracker.update(labels, values, where=mask)
        tracker.update_batch({"y": labels, "ce": values}, where=~np.array(mask))
        tracker.update(labels, values)
        kept += listed(labels) * 2
        numbers += values.tolist() * 2
    assert same(tracker, kept, np.array(numbers, dtype=np.float32), policy)


@given(st.sampled_from(sorted(KINDS)), batches, st.sets(st.integers(0, 3), max_size=2))
def test_labels_to_ignore_do_what_leaving_them_out_does(kind, given_, gone):
    every = listed(KINDS[kind]([0, 1, 2, 3]))
    ignored = [every[i] for i in gone]
    tracker, kept, numbers = make(ignore_label=ignored), [], []
    for batch in given_:
        labels, values, mask = (list(column) for column in zip(*batch, strict=True))
        labels, values = KINDS[kind](labels), np.array(values, dtype=np.float32)
        tracker.update(labels, values, where=mask)
        tracker.update(labels, values)
        for label, value, inside in zip(listed(labels), values.tolist(), mask, strict=True):
            if label not in ignored:
                kept += [label] * (1 + inside)
                numbers += [value] * (1 + inside)
    assert tracker.pending == ({("train", ""): len(kept)} if kept else {})
    assert same(pickle.loads(pickle.dumps(tracker)), kept, np.array(numbers, dtype=np.float32))


def test_what_is_masked_does_not_matter():
    tracker = make(nan_policy="raise")
    tracker.update([0, None, 1, None], [1.0, math.nan, 2.0, math.inf], where=[True, False, True, False])
    tracker.update(np.array([3.0, math.nan]), [1.0, math.nan], where=[False, False], mode="eval")
    tracker.update(["a", None], [1.0, 2.0], where=[True, False], mode="eval")  # the kind of what is masked neither
    with pytest.raises(ValueError, match="1 of 2 labels are missing"):
        tracker.update([1, None, None], [4.0, 8.0, 16.0], where=[True, True, False])
    assert tracker.pending == {("train", ""): 2, ("eval", ""): 1}
    assert tracker.end_epoch(1).sum.tolist() == [1.0, 2.0]
    assert tracker.end_epoch(1, mode="eval").labels.tolist() == ["a"]


@pytest.mark.parametrize("missing", ["skip", "label"])
def test_missing_labels_inside_of_a_mask_are_treated_as_ever(missing):
    tracker = make(missing=missing)
    tracker.update([[1], [None]], np.arange(6.0).reshape(2, 3), where=np.arange(3) < 2)
    wanted = lt.label_stats([1, 1, None, None], [0.0, 1.0, 3.0, 4.0], missing=missing)
    assert fingerprint(tracker.end_epoch(1)) == fingerprint(wanted)


def test_padded_tokens_of_documents():
    rng, tracker, ignoring = np.random.default_rng(0), make(), make(ignore_label=-100)
    kept, numbers = [], []
    for _ in range(3):
        tokens, losses = rng.integers(-2, 5, (4, 7)), rng.normal(size=(4, 7)).astype(np.float32)
        tokens[tokens < 0] = -100
        domains = rng.choice(["web", "books"], (4, 1))
        tracker.update(domains, losses, where=tokens != -100)
        ignoring.update(tokens, losses)
        kept += np.repeat(domains, 7, axis=1)[tokens != -100].tolist()
        numbers += losses[tokens != -100].tolist()
    assert same(tracker, kept, np.array(numbers, dtype=np.float32))
    assert -100 not in ignoring.compute()
    assert ignoring.pending == {("train", ""): len(kept)}


def test_batches_with_a_mask_and_without_one_go_together():
    rng, tracker = np.random.default_rng(1), make()
    labels, values = rng.integers(0, 9, 3000), rng.normal(size=3000).astype(np.float32)
    inside = np.ones(3000, dtype=bool)
    for start in range(0, 3000, 100):
        part = slice(start, start + 100)
        if start % 300 == 0:
            inside[part] = rng.random(100) < 0.5
        tracker.update(labels[part], values[part], **({"where": inside[part]} if start % 300 == 0 else {}))
    assert fingerprint(tracker.end_epoch(1)) == fingerprint(lt.label_stats(labels[inside], values[inside]))


@pytest.mark.parametrize("ignored", [None, math.nan, np.float32("nan")], ids=str)
def test_labels_that_are_missing_can_be_ignored_among_others(ignored):
    tracker = make(ignore_label=[255, ignored])
    tracker.update([255, None, 3], [1.0, 2.0, 4.0])
    tracker.update(np.array([math.nan, 255.0, 4.0]), [1.0, 2.0, 4.0], mode="eval")
    other = pickle.loads(pickle.dumps(tracker))
    assert tracker.ignore_label == other.ignore_label == (255, None)
    tracker.merge_state([other])
    assert tracker.end_epoch(1).count.tolist() == [2]
    assert tracker.end_epoch(1, mode="eval").labels.tolist() == [4.0]


def test_a_missing_label_is_no_label_to_ignore():
    for zero in (0, 255):
        with pytest.raises(ValueError, match="1 of 2 labels are missing"):
            make(ignore_label=zero).update([1, zero, None], [1.0, 2.0, 4.0])
    only = make(ignore_label=math.nan)
    only.update([None, 1], [1.0, 2.0])
    assert only.end_epoch(1).labels.tolist() == [1]


def test_labels_of_other_types_are_not_ignored():
    tracker = make(ignore_label=["3", 2**70, 0.5, b"x", True])
    tracker.update([3, 0, 1], [1.0, 2.0, 4.0])
    tracker.update(["3", "x", "0.5"], [1.0, 2.0, 4.0], mode="eval")
    assert tracker.end_epoch(1).labels.tolist() == [0, 3]
    assert tracker.end_epoch(1, mode="eval").labels.tolist() == ["0.5", "x"]


def test_what_is_ignored_is_not_recorded(tmp_path):
    pytest.importorskip("pyarrow")
    pytest.importorskip("xxhash")
    with make(ignore_label=-100, record_to=tmp_path / "run") as tracker:
        tracker.update([1, -100, 2], [1.0, 2.0, 4.0])
        tracker.update([1, 7, 2], [1.0, 2.0, 4.0], where=[True, False, True])
        stats = tracker.end_epoch(1)
    run = lt.open_run(tmp_path / "run")
    assert run.samples("train", 1)["label"].to_pylist() == [1, 2, 1, 2]
    assert fingerprint(run.recompute().at(1)) == fingerprint(stats)


def test_masks_of_torch_are_read():
    torch = pytest.importorskip("torch")
    tokens = torch.tensor([[3, 4, -100], [5, -100, -100]])
    losses = torch.tensor([[1.0, 2.0, 0.0], [4.0, 0.0, 0.0]], requires_grad=True)
    tracker = make()
    for _ in range(2):
        tracker.update(tokens, losses, where=tokens != -100)
    assert tracker.end_epoch(1).sum.tolist() == [2.0, 4.0, 8.0]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"ignore_label": [None], "missing": "label"},
            ValueError,
            "ignores samples without a label, and missing='label'",
        ),
        ({"ignore_label": 3, "label_mapping": {"x": 3}}, ValueError, "label 3 is both in label_mapping and in ignore"),
        ({"ignore_label": [[3]]}, TypeError, r"numbers or strings, got \[3\]"),
        ({"ignore_label": {"y": 3}}, TypeError, "numbers or strings, got {'y': 3}"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        make(**options)


@pytest.mark.parametrize(
    ("where", "error", "message"),
    [
        ([1, 0], TypeError, "where must be boolean"),
        ([True, None], ValueError, "1 of 2 entries of where are missing"),
        ([True] * 3, ValueError, "does not broadcast"),
    ],
)
def test_masks_that_do_not_fit_are_refused_and_nothing_is_recorded(where, error, message):
    tracker = make()
    for _ in range(2):
        with pytest.raises(error, match=message):
            tracker.update(np.array([1, 2]), np.array([1.0, 2.0]), where=where)
        assert sum(tracker.pending.values()) in (0, 2)
        tracker.update(np.array([1, 2]), np.array([1.0, 2.0]))
    assert tracker.end_epoch(1).count.tolist() == [2, 2]


def test_trackers_that_ignore_other_labels_are_not_merged():
    with pytest.raises(ValueError, match=r"its ignore_label is \(\), and \(-100,\) here"):
        make(ignore_label=-100).merge_state([make()])
