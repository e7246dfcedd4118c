"""Names of bounds and the bands they stand for."""

from __future__ import annotations

import numpy as np
import pytest
from exact import expected_by_label

import labeltrack as lt
from labeltrack.bounds import BOUNDS, resolve, resolve_all

LABELS = [0, 1, 0, 1, 1, 2]
VALUES = [0.5, 2.0, 1.5, 8.0, -1.0, 4.0]


@pytest.fixture(name="stats")
def _stats():
    return lt.label_stats(LABELS, VALUES)


def test_bands_are_mean_and_deviation_range_or_nothing(stats):
    wanted = expected_by_label(LABELS, VALUES).values()
    for name, band in {
        "std": [(mean - std, mean, mean + std) for _, _, mean, std, _, _ in wanted],
        "range": [(low, mean, high) for _, _, mean, _, low, high in wanted],
        None: [(mean, mean, mean) for _, _, mean, *_ in wanted],
    }.items():
        assert list(zip(*(side.tolist() for side in stats.bounds(name)), strict=True)) == band


def test_graph_keys_are_the_ones_users_of_fastestimator_know():
    keys = [bound.graph_key("ce") for bound in resolve_all([None, "std", "range"])]
    assert keys == ["ce", "ce ($\\mu \\pm \\sigma$)", "ce ($min, \\mu, max$)"]


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (None, [None]),
        ("std", ["std"]),
        (["std", "range"], ["std", "range"]),
        (("range", None, "range"), ["range", None]),
    ],
)
def test_bounds_are_a_name_or_several_without_repeats(given, names):
    assert [bound.name for bound in resolve_all(given)] == names


@pytest.mark.parametrize("given", ["sdt", ["std", "sdt"], 3, [["std"]], np.array([1])])
def test_an_unknown_bound_is_refused_with_those_there_are(given):
    with pytest.raises(ValueError, match=r"bounds: unknown option .*allowed are None, 'std', 'range'"):
        resolve_all(given)


def test_no_bounds_at_all_are_refused():
    with pytest.raises(ValueError, match="bounds: an empty iterable; allowed are None, 'std', 'range'"):
        resolve_all([])


def test_reading_an_unknown_bound_is_refused(stats):
    with pytest.raises(ValueError, match="unknown option 'iqd'"):
        stats.bounds("iqd")


def test_every_bound_describes_itself():
    assert all(resolve(name).description for name in BOUNDS)
