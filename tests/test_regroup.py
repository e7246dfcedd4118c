"""New labels for old ones: as if the samples had had them, to the last bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import labeltrack as lt
from labeltrack._labels import LabelMapping
from labeltrack._regroup import Grouping

SAMPLES = st.lists(st.tuples(st.integers(-5, 5), st.floats(width=32)), min_size=1, max_size=60)


@given(SAMPLES, st.sampled_from([int, str, float, bool, lambda label: str(label).encode()]))
def test_it_is_as_if_the_samples_had_the_new_labels(samples, kind):
    labels, values = np.array([label for label, _ in samples]), np.array([value for _, value in samples])
    new = [kind(label % 3) for label in labels.tolist()]
    grouped = Grouping(lambda label: kind(label % 3)).apply(lt.label_stats(labels, values))
    direct = lt.label_stats(np.array(new), values)
    assert grouped.labels.tolist() == direct.labels.tolist()
    assert grouped.labels.dtype.kind == direct.labels.dtype.kind
    for name in ("count", "sum", "mean", "std", "min", "max"):
        assert grouped.column(name).tobytes() == direct.column(name).tobytes()


def test_labels_that_are_passed_over_and_named():
    stats = lt.label_stats([1, 2, 3, 4], [1.0, 2.0, 3.0, 4.0])
    assert Grouping({1: "a", 2: "a", 3: np.str_("b")}).apply(stats).labels.tolist() == ["a", "b"]
    named = Grouping({1: 7, 2: 7, 3: np.int64(8), 4: 9}).apply(stats, LabelMapping({"seven": 7, "eight": 8}))
    assert [(row.name, row.count, row.sum) for row in named] == [("seven", 2, 3.0), ("eight", 1, 3.0)]
    assert len(Grouping({}).apply(stats)) == 0


@pytest.mark.parametrize("gone", [None, float("nan"), np.float32("nan")])
def test_a_new_label_that_is_missing_passes_the_old_one_over(gone):
    stats = lt.label_stats([1, 2, 3], [1.0, 2.0, 4.0])
    for group in ({1: 7.5, 2: gone, 3: 7.5}, {1: 7.5, 2: gone, 3: 7.5}.get):
        assert [(row.label, row.sum) for row in Grouping(group).apply(stats)] == [(7.5, 5.0)]


@pytest.mark.parametrize("labels", [[1, None, 3], ["1", None, "3"], [1.0, None, 3.0]])
def test_the_label_of_missing_ones_has_its_name_in_a_mapping(labels):
    stats = lt.label_stats(labels, [1.0, 2.0, 4.0], missing="label")
    group = {labels[0]: "some", "(missing)": "none", labels[2]: "some"}
    assert [(row.name, row.sum) for row in Grouping(group).apply(stats)] == [("none", 2.0), ("some", 5.0)]


def test_new_labels_that_no_one_type_holds_are_refused():
    with pytest.raises(ValueError, match="64-bit"):
        Grouping({1: 2**53 + 1, 2: 0.5}).apply(lt.label_stats([1, 2], [1.0, 2.0]))


@pytest.mark.parametrize(
    ("group", "message"),
    [
        (lambda label: (label,), "it gives tuple"),
        (lambda label: "a" if label == 1 else 2, "it gives float, str"),
        (lambda label: b"a" if label == 1 else "a", "it gives bytes, str"),
    ],
)
def test_new_labels_must_be_of_one_kind(group, message):
    with pytest.raises(TypeError, match=message):
        Grouping(group).apply(lt.label_stats([1, 2], [1.0, 2.0]))
