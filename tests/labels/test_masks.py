"""`where=` and labels that broadcast: the same as leaving samples out, and repeating labels, beforehand."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from conftest import COMPILED
from exact import fingerprint
from hypothesis import given
from hypothesis import strategies as st

import labeltrack as lt

KINDS = {
    "i8": np.int64,
    "i4": np.int32,
    "u1": np.uint8,
    "bool": np.bool_,
    "f4": np.float32,
    "U3": np.str_,
    "S3": np.bytes_,
    "object": object,
}


def labels_of(kind, numbers):
    if kind == "object":
        array = np.empty(len(numbers), dtype=object)
        array[:] = [f"word {number}" for number in numbers]
        return array
    return np.array(numbers).astype(KINDS[kind])


@given(
    st.sampled_from(sorted(KINDS)),
    st.lists(st.tuples(st.integers(0, 3), st.floats(width=32), st.booleans()), min_size=1, max_size=60),
    st.sampled_from([np.float32, np.float64, np.float16, np.int8]),
    st.sampled_from([None, 1, 3]),
)
def test_a_mask_does_what_leaving_samples_out_does(kind, samples, dtype, threads):
    numbers, values, mask = (list(column) for column in zip(*samples, strict=True))
    labels, mask = labels_of(kind, numbers), np.array(mask)
    with np.errstate(all="ignore"):
        values = np.nan_to_num(np.array(values), nan=3).astype(dtype) if dtype == np.int8 else np.array(values, dtype)
    for policy in ("propagate", "omit"):
        got = lt.label_stats(labels, values, where=mask, nan_policy=policy, threads=threads)
        wanted = lt.label_stats(labels[mask], values[mask], nan_policy=policy)
        assert got.labels.tolist() == wanted.labels.tolist()
        assert fingerprint(got)[2:] == fingerprint(wanted)[2:]


@pytest.mark.parametrize("threads", [1, 2, None])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("kind", ["i8", "u1", "U3"])
def test_a_mask_of_many_samples_does_so_too(kind, share, threads):
    rng = np.random.default_rng(0)
    n = 300_000 if COMPILED else 3_000
    labels, values = labels_of(kind, rng.integers(0, 200, n)), rng.normal(size=n).astype(np.float32)
    mask = rng.random(n) < share
    got = lt.label_stats(labels, values, where=mask, threads=threads, quantiles=[0.3])
    wanted = lt.label_stats(labels[mask], values[mask], quantiles=[0.3])
    assert fingerprint(got) == fingerprint(wanted)


def test_what_is_masked_does_not_matter():
    labels, mask = [0, 1, 0, 1], [True, True, False, False]
    stats = lt.label_stats(labels, [1.0, 2.0, math.nan, math.inf], where=mask, nan_policy="raise")
    assert stats.mean.tolist() == [1.0, 2.0]
    for missing in ("error", "skip"):
        stats = lt.label_stats(["a", "b", None, None], [1.0, 2.0, 4.0, 8.0], where=mask, missing=missing)
        assert stats.sum.tolist() == [1.0, 2.0]
    stats = lt.label_stats([None, 1.0, math.nan, 1.0], [1.0, 2.0, 4.0, 8.0], where=mask, missing="label")
    assert stats.names.tolist() == ["(missing)", "1.0"]
    assert stats.count.tolist() == [1, 1]
    with pytest.raises(ValueError, match="1 of 4 labels are missing"):
        lt.label_stats([None, 1, None, None], [1.0, 2.0, 4.0, 8.0], where=mask)


def test_mappings_see_only_what_is_not_masked():
    labels, values = np.array([3, 5, -100, 7]), [1.0, 2.0, 4.0, 8.0]
    stats = lt.label_stats(labels, values, where=labels != -100, label_mapping={"three": 3, "ignored": -100})
    assert stats.names.tolist() == ["three"]
    with pytest.warns(lt.LabelTrackWarning, match=r"it maps -100, but the labels that occurred are 3, 5, 7$"):
        lt.label_stats(labels, values, where=labels != -100, label_mapping={"ignored": -100})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(lt.label_stats(labels, values, where=False, label_mapping={"three": 3})) == 0


@pytest.mark.parametrize("shape", [(3, 4), (3, 1), (1, 4), (4,), (1, 1), ()])
def test_masks_broadcast_as_in_numpy(shape):
    rng = np.random.default_rng(1)
    labels, values = rng.integers(0, 3, (3, 4)), rng.normal(size=(3, 4))
    mask = rng.random(shape) < 0.7
    whole = np.broadcast_to(mask, values.shape)
    assert fingerprint(lt.label_stats(labels, values, where=mask)) == fingerprint(
        lt.label_stats(labels[whole], values[whole])
    )


@pytest.mark.parametrize(("values", "mask"), [((3,), (3, 1)), ((3, 1), (3,))])
def test_columns_of_masks_fit_columns_of_values(values, mask):
    flags = np.array([True, False, True]).reshape(mask)
    assert lt.label_stats([0, 1, 2], np.arange(3.0).reshape(values), where=flags).labels.tolist() == [0, 2]


@pytest.mark.parametrize(
    ("where", "error", "message"),
    [
        (
            [1, 0, 1],
            TypeError,
            "where must be boolean, got dtype int64; compare with a number, such as where=mask != 0",
        ),
        (["a", "b", "c"], TypeError, "where must be boolean"),
        ([True, None, True], ValueError, "1 of 3 entries of where are missing"),
        ([True, False], ValueError, r"where of shape \(2,\) does not broadcast to values of shape \(3,\)"),
        (np.ones((2, 3), dtype=bool), ValueError, r"where of shape \(2, 3\) does not broadcast"),
        ("mask", TypeError, "where must be boolean"),
    ],
)
def test_masks_of_other_types_and_shapes_are_refused(where, error, message):
    with pytest.raises(error, match=message):
        lt.label_stats([0, 1, 2], [1.0, 2.0, 3.0], where=where)


def test_masks_of_torch_are_read():
    torch = pytest.importorskip("torch")
    labels = torch.tensor([[3, 4, -100], [5, -100, -100]])
    losses = torch.tensor([[1.0, 2.0, 0.0], [4.0, 0.0, 0.0]], requires_grad=True)
    stats = lt.label_stats({"domain": [["web"], ["books"]], "token": labels}, losses, where=labels != -100)
    assert {row.label: row.sum for row in stats} == {("books", 5): 4.0, ("web", 3): 1.0, ("web", 4): 2.0}
    assert stats.by("domain").count.tolist() == [1, 2]


# -- labels that broadcast --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("shape", [(4, 1, 1), (1, 5, 1), (4, 1, 3), (1, 1, 1), (4, 5, 3)])
def test_labels_of_length_one_are_repeated(kind, shape):
    rng = np.random.default_rng(2)
    values = rng.normal(size=(4, 5, 3))
    labels = labels_of(kind, rng.integers(0, 3, math.prod(shape)).tolist()).reshape(shape)
    whole, mask = np.broadcast_to(labels, values.shape), rng.random(values.shape) < 0.5
    for options in ({}, {"where": mask}):
        flags = options.get("where", np.ones(values.shape, dtype=bool))
        got, wanted = lt.label_stats(labels, values, **options), lt.label_stats(whole[flags], values[flags])
        assert got.labels.tolist() == wanted.labels.tolist()
        assert fingerprint(got)[2:] == fingerprint(wanted)[2:]


def test_missing_labels_are_repeated_too():
    values = np.arange(6.0).reshape(2, 3)
    with pytest.raises(ValueError, match="3 of 6 labels are missing"):
        lt.label_stats([["a"], [None]], values)
    assert lt.label_stats([["a"], [None]], values, missing="skip").count.tolist() == [3]
    assert lt.label_stats([["a"], [None]], values, missing="label").count.tolist() == [3, 3]


def test_a_tracker_repeats_labels_too():
    rng, tracker = np.random.default_rng(4), lt.LabelTracker("domain", "loss")
    batches = [(rng.choice(["web", "books"], (4, 1)), rng.normal(size=(4, 7))) for _ in range(3)]
    for domains, losses in batches:
        tracker.update(domains, losses)
    labels, values = (np.concatenate(columns) for columns in zip(*batches, strict=True))
    assert (
        fingerprint(tracker.end_epoch(1))[1:] == fingerprint(lt.label_stats(np.repeat(labels, 7), values.ravel()))[1:]
    )


def test_several_labels_broadcast_each_on_its_own():
    rng = np.random.default_rng(3)
    values = rng.normal(size=(6, 8)).astype(np.float32)
    domain, hard = rng.choice(["web", "books"], (6, 1)), rng.integers(0, 2, (6, 1))
    position, token = np.arange(8).reshape(1, 8) // 4, rng.integers(0, 5, (6, 8))
    mask = rng.random((6, 8)) < 0.6
    for columns in ({"domain": domain, "hard": hard}, {"domain": domain, "position": position, "token": token}):
        whole = {name: np.broadcast_to(column, values.shape)[mask] for name, column in columns.items()}
        got, wanted = lt.label_stats(columns, values, where=mask), lt.label_stats(whole, values[mask])
        assert fingerprint(got) == fingerprint(wanted)
        mapped = lt.label_stats(columns, values, where=mask, label_mapping={"domain": {"Web": "web"}})
        assert mapped.by("domain").count.tolist() == [int((whole["domain"] == "web").sum())]


@pytest.mark.parametrize("shape", [(3,), (4,), (1, 3), (4, 3, 1), (2, 1)])
def test_labels_whose_dimensions_are_not_clear_are_refused(shape):
    with pytest.raises(ValueError, match=r"expected \(N,\) or \(N, 1\)|differ in length"):
        lt.label_stats(np.zeros(shape, dtype=int), np.zeros((3, 4)))


@pytest.mark.parametrize("ignored", ["\0", "a\0", "", "a", "a\0b"])
@pytest.mark.parametrize("convert", [list, lambda labels: np.array(labels, dtype=object), np.array])
def test_texts_that_differ_in_zeros_at_their_end_are_different_labels_to_ignore(ignored, convert):
    labels = convert(["\0", "a\0", "", "a", "a\0b"])
    tracker = lt.LabelTracker("y", "ce", ignore_label=ignored)
    tracker.update(labels, [1.0, 2.0, 4.0, 8.0, 16.0])
    values = zip(labels, [1.0, 2.0, 4.0, 8.0, 16.0], strict=True)
    assert tracker.compute().sum.sum() == sum(value for label, value in values if str(label) != ignored)
