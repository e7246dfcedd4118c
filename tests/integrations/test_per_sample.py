"""What makes samples of the batches of a Hugging Face trainer: many at once are as one by one."""

from __future__ import annotations

import importlib.util
import math
import os
import tracemalloc

import numpy as np
import pytest
from exact import expected_by_label, rows

import labeltrack as lt

MISSING = [name for name in ("torch", "transformers") if importlib.util.find_spec(name) is None]
if MISSING and os.environ.get("LABELTRACK_REQUIRE_INTEGRATIONS") != "1":
    pytest.skip(f"{MISSING[0]} is not installed: `nox -s frameworks` does that", allow_module_level=True)


@pytest.fixture
def makers():
    from labeltrack.integrations import _per_sample

    return _per_sample


def test_labels_of_tokens_masks_and_batches_that_all_count_go_together(makers):
    import torch

    values = torch.tensor([1.0, 2.0, 0.0])
    kinds = {
        "tokens": (torch.tensor([5, 6, -100]), [1.0, 2.0]),
        "mask": (torch.tensor([True, True, False]), [1.0, 2.0]),
        "all": (None, [1.0, 2.0, 0.0]),
    }
    for names in (["tokens"] * 2 + ["mask"] * 2, ["all", "all", "mask", "tokens"], ["mask", "tokens", "all", "mask"]):
        tracker, found = lt.LabelTracker("d", "ce"), []
        for name in names:
            tracker.update_later(({"d": ["a"]}, values, kinds[name][0]), makers.Values(("d",), None))
            found += kinds[name][1]
        assert rows(tracker.compute()) == expected_by_label(["a"] * len(found), found)


def test_sequences_of_any_lengths_go_together(makers):
    import torch

    rng = np.random.default_rng(0)
    tracker, found = lt.LabelTracker(("d", "k"), "ce"), {"d": [], "k": [], "value": []}
    for n, length in ((3, 4), (3, 4), (2, 7), (1, 1), (5, 1), (4, 6), (4, 6)):
        lists = {"d": rng.choice(["a", "bc"], n).tolist(), "k": rng.integers(0, 2, n).tolist()}
        values, target = (
            torch.from_numpy(rng.exponential(size=(n, length))),
            torch.from_numpy(rng.integers(0, 9, (n, length))),
        )
        target[target < 3] = -100
        tracker.update_later((lists, values.flatten(), target.flatten()), makers.Values(("d", "k"), None))
        for i in range(n):
            kept = values[i][target[i] >= 3].tolist()
            found["value"] += kept
            for name in lists:
                found[name] += [lists[name][i]] * len(kept)
    stats = tracker.compute()
    for name in ("d", "k"):
        assert rows(stats.by(name)) == expected_by_label(found[name], found["value"])


@pytest.mark.parametrize("lengths", [[2, 2, 2], [2, 3, 300]], ids=["alike", "several"])
@pytest.mark.parametrize(
    "labels", [["a", "a\0", "b"], [1, 2**63, 2**63 + 1], ["x" * 20_000, "y"]], ids=["NUL", "huge", "wide"]
)
def test_labels_of_tokens_are_kept_as_they_are(makers, labels, lengths):
    import torch

    tracker = lt.LabelTracker("d", "ce")
    tracemalloc.start()
    try:
        for length in lengths:
            values = torch.ones(len(labels) * length)
            tracker.update_later(({"d": labels}, values, None), makers.Values(("d",), None))
        stats = tracker.compute()
        assert tracemalloc.get_traced_memory()[1] < 40e6
    finally:
        tracemalloc.stop()
    assert dict(zip(stats.labels.tolist(), stats.count.tolist(), strict=True)) == dict.fromkeys(labels, sum(lengths))


def test_a_missing_label_among_those_of_tokens_is_an_error(makers):
    import torch

    tracker = lt.LabelTracker("d", "ce")
    with pytest.raises(ValueError, match="1 of 2 labels are missing"):
        tracker.update_later(({"d": ["a", math.nan]}, torch.ones(6), None), makers.Values(("d",), None))


@pytest.mark.parametrize("tokens", [1, 2])
def test_labels_of_several_types_are_those_of_each_batch_alone(makers, tokens):
    import torch

    def tracked(labels, missing, **options):
        tracker, told = lt.LabelTracker("d", "ce", missing=missing), []
        for label in labels:
            tracker.update_later(({"d": [label], **options}, torch.ones(tokens), None), make)
        for _ in range(2):
            try:
                stats = tracker.compute()
            except (TypeError, ValueError) as error:
                told.append(error)
        return dict(zip(stats.labels.tolist(), (stats.count // tokens).tolist(), strict=True)), told

    make = makers.Values(("d",), None)
    found, told = tracked(["a", "b", math.nan, 7, "a"], "skip")
    assert found == {"a": 2, "b": 1}
    assert [type(error) for error in told] == [TypeError]
    assert "number 4 in" in str(told[0])
    found, told = tracked(["a", "b", math.nan, "a"], "error")
    assert found == {"a": 2, "b": 1}
    assert [type(error) for error in told] == [ValueError]
    assert "number 3 in" in str(told[0])
    found, _ = tracked([1, 3, math.nan, 3], "skip")
    assert [(type(label), label, n) for label, n in found.items()] == [(int, 1, 1), (int, 3, 2)]
    assert tracked([5, 1, 2**63 + 5, 2**63 + 6], "error") == ({1: 1, 5: 1, 2**63 + 5: 1, 2**63 + 6: 1}, [])


def test_values_of_several_dtypes_are_not_rounded(makers):
    import torch

    tracker, make = lt.LabelTracker("d", "ce"), makers.Values(("d",), None)
    for value in (torch.tensor([1.5]), torch.tensor([1.5]), torch.tensor([2**24 + 1])):
        tracker.update_later(({"d": ["a"]}, value, None), make)
    assert rows(tracker.compute()) == expected_by_label(["a"] * 3, [1.5, 1.5, float(2**24 + 1)])


def test_classes_beyond_the_logits_are_told_and_the_others_are_recorded(makers):
    import torch

    tracker, make = lt.LabelTracker("d", "ce"), makers.Classes(("d",), None)
    for target in (0, 1, 4, 1):
        tracker.update_later(({"d": ["a"]}, torch.zeros(1, 2), torch.tensor([target])), make)
    with pytest.raises(ValueError, match=r"out of bounds.*number 3 in"):
        tracker.compute()
    assert rows(tracker.compute()) == expected_by_label(["a"] * 3, [float(np.float32(math.log(2)))] * 3)
