"""Names of bounds and the bands they stand for."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from exact import expected_by_label

import labeltrack as lt
from labeltrack.bounds import BOUNDS, needed_quantiles, resolve, resolve_all, t_975

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
    assert [BOUNDS[name].graph_key("ce") for name in ("sem", "ci95")] == ["ce ($\\mu \\pm SE$)", "ce ($\\mu$, 95% CI)"]


def test_standard_errors_and_confidence_intervals_are_those_of_scipy():
    rng = np.random.default_rng(0)
    counts = [2, 3, 4, 11, 100, 501, 502, 3000]
    labels = np.repeat(np.arange(len(counts)), counts)
    values = rng.gamma(2.0, 3.0, labels.size)
    stats = lt.label_stats(labels, values)
    groups = [values[labels == k] for k in range(len(counts))]
    np.testing.assert_allclose(stats.sem, [scipy.stats.sem(group) for group in groups], rtol=1e-14)
    wanted = [
        scipy.stats.t.interval(0.95, n - 1, loc=group.mean(), scale=scipy.stats.sem(group))
        for n, group in zip(counts, groups, strict=True)
    ]
    low, centre, high = stats.bounds("ci95")
    np.testing.assert_allclose(np.column_stack([low, high]), wanted, rtol=1e-12)
    low, _, high = stats.bounds("sem")
    np.testing.assert_array_equal(centre, stats.mean)
    np.testing.assert_array_equal([low, high], [stats.mean - stats.sem, stats.mean + stats.sem])


def test_one_sample_says_nothing_about_the_error_of_its_mean():
    stats = lt.label_stats([0, 1, 1, 2, 2], [1.0, 2.0, 2.0, np.nan, 1.0])
    assert np.isnan(stats.sem).tolist() == [True, False, True]
    low, centre, high = stats.bounds("ci95")
    assert (np.isnan(low[0]), centre[0], np.isnan(high[0])) == (True, 1.0, True)
    assert (low[1], high[1]) == (2.0, 2.0)
    assert np.isnan([low[2], centre[2], high[2]]).all()


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
    with pytest.raises(ValueError, match=r"bounds: unknown option .*allowed are None, 'std', 'range', 'sem', 'ci95'"):
        resolve_all(given)


def test_bands_of_quantiles_are_numpys():
    rng = np.random.default_rng(0)
    labels, values = rng.integers(0, 5, 2000), rng.normal(size=2000)
    stats = lt.label_stats(labels, values, quantiles=[0.05, 0.25, 0.5, 0.75, 0.95])
    for name, fractions in {
        "median": (0.5, 0.5, 0.5),
        "iqr": (0.25, 0.5, 0.75),
        ("quantile", 0.05, 0.95): (0.05, 0.5, 0.95),
    }.items():
        wanted = np.array([np.quantile(values[labels == k], fractions) for k in range(5)])
        np.testing.assert_array_equal(np.array(stats.bounds(name)).T, wanted)
    np.testing.assert_array_equal(stats.median, stats.bounds("median")[1])


def test_bounds_of_quantiles_say_what_they_take_and_what_they_are():
    found = resolve_all(["std", "iqr", "median", ("quantile", 0.05, 0.5), ["quantile", 0, 1]])
    assert [bound.name for bound in found[3:]] == [("quantile", 0.05, 0.5), ("quantile", 0.0, 1.0)]
    assert needed_quantiles(found) == (0.0, 0.05, 0.25, 0.5, 0.75, 1.0)
    assert [bound.text for bound in found] == ["std", "iqr", "median", "quantile_0.05_0.5", "quantile_0.0_1.0"]
    assert [bound.wide for bound in found] == [True, True, False, True, True]
    assert resolve(None).text == "none"
    assert found[3].description == "median, from the 5 % to the 50 % quantile"
    assert [bound.graph_key("ce") for bound in found[1:4]] == [
        "ce ($Q_1, Q_2, Q_3$)",
        "ce (median)",
        "ce ($Q_{5\\%}, Q_{50\\%}, Q_{50\\%}$)",
    ]
    assert [bound.name for bound in resolve_all(("quantile", 0.1, 0.9))] == [("quantile", 0.1, 0.9)]


@pytest.mark.parametrize(
    "given",
    [
        ("quantile",),
        ("quantile", 0.5),
        ("quantile", 0.9, 0.1),
        ("quantile", 0.5, 0.5),
        ("quantile", -0.1, 0.5),
        ("quantile", 5, 95),
        ("quantile", 0.1, float("nan")),
        ("quantile", 0.1, 0.5, 0.9),
        ("quantile", "a", "b"),
        [("quantile", None, 0.5)],
    ],
)
def test_a_band_of_quantiles_that_is_none_is_explained(given):
    with pytest.raises(ValueError, match=r"is not a band; give its two quantiles.*such as \('quantile', 0.05, 0.95\)"):
        resolve_all(given)


def test_no_bounds_at_all_are_refused():
    with pytest.raises(ValueError, match="bounds: an empty iterable; allowed are None, 'std', 'range'"):
        resolve_all([])


def test_reading_an_unknown_bound_is_refused(stats):
    with pytest.raises(ValueError, match="unknown option 'iqd'"):
        stats.bounds("iqd")


def test_every_bound_describes_itself():
    assert all(resolve(name).description for name in BOUNDS)


def test_quantiles_of_student_are_those_of_scipy():
    degrees = np.array([*range(1, 1200), 10**4, 10**6, 10**12])
    np.testing.assert_allclose(t_975(degrees), scipy.stats.t.ppf(0.975, degrees), rtol=1e-13)


def test_without_a_degree_of_freedom_there_is_no_quantile():
    found = t_975(np.array([0, 3, -1, 3]))
    assert np.isnan(found).tolist() == [True, False, True, False]
    assert found[1] == found[3]
    assert t_975(np.empty(0, dtype=np.int64)).shape == (0,)
