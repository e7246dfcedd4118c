"""The tests of a comparison, beside scipy's own functions of the samples, and their choice."""

from __future__ import annotations

import sys
from fractions import Fraction
from math import comb

import numpy as np
import pytest
from sides import compared, recorded

import labeltrack as lt

stats = pytest.importorskip("scipy.stats", reason="scipy is not installed (extra 'stats')")

RNG = np.random.default_rng()


@pytest.fixture(autouse=True)
def _seeded():
    RNG.bit_generator.state = np.random.default_rng(11).bit_generator.state


def two_sides(sizes, *, shift=1.0, draw=RNG.exponential):
    """Return labels and values before and after, of as many labels as there are pairs of sizes."""
    labels = [np.repeat(np.arange(len(sizes)), [pair[side] for pair in sizes]) for side in (0, 1)]
    return labels, [draw(size=labels[0].size), draw(size=labels[1].size) * shift]


def q_of(p):
    return stats.false_discovery_control(p)


def test_welch_from_exact_moments_is_what_scipy_computes_from_moments_and_from_samples():
    labels, values = two_sides([(40 + k, 41 + k) for k in range(50)])
    found = compared(labels, values)
    before, after = (lt.label_stats(*side) for side in zip(labels, values, strict=True))
    sides = (after.mean, after.std, after.count, before.mean, before.std, before.count)
    wanted = stats.ttest_ind_from_stats(*sides, equal_var=False).pvalue
    assert (found.p == wanted).all()
    assert set(found.method) == {"Welch's t"}
    for k in range(50):
        old, new = (side[labels[i] == k] for i, side in enumerate(values))
        direct = stats.ttest_ind(new, old, equal_var=False)
        assert found.p[k] == pytest.approx(direct.pvalue, rel=1e-9)
        interval = direct.confidence_interval()
        assert (found.low[k], found.high[k]) == pytest.approx((interval.low, interval.high), rel=1e-9)
    assert (found.q == q_of(found.p)).all()


@pytest.mark.parametrize("unit", [2.0**-900, 2.0**900])
def test_samples_of_any_magnitude_are_compared_alike(tmp_path, unit):
    labels, values = two_sides([(40, 41), (100, 30)], shift=1.4)
    found, same = (compared(labels, [side * of for side in values]) for of in (unit, 1.0))
    np.testing.assert_array_equal(found.p, same.p)
    np.testing.assert_array_equal(found.low, same.low * unit)
    assert found.g == pytest.approx(same.g, rel=1e-12)
    largest = max(side.max() for side in values)
    runs = [
        recorded(tmp_path / name, dict(enumerate(side * (of / largest) for side in values)), dict(enumerate(labels)))
        for name, of in (("large", 2.0**1023), ("usual", 1.0))
    ]
    found, same = (lt.compare(run, method="permutation").p for run in runs)
    assert (found == same).all()


def test_the_effect_size_is_the_difference_in_pooled_standard_deviations_corrected_for_small_samples():
    labels, values = two_sides([(25, 30)], shift=1.5)
    found = compared(labels, values)
    old, new = values
    pooled = np.sqrt((24 * old.var(ddof=1) + 29 * new.var(ddof=1)) / 53)
    corrected = (new.mean() - old.mean()) / pooled * (1 - 3 / (4 * 53 - 1))  # the usual approximation
    assert found.g[0] == pytest.approx(corrected, rel=1e-4)


def test_the_same_samples_are_compared_in_pairs(tmp_path):
    labels = np.repeat(np.arange(3), 100)
    before = RNG.exponential(size=300) + 0.1
    after = before * (1.05 + 0.02 * RNG.normal(size=300))
    after[labels == 2] = before[labels == 2] + RNG.normal(size=100)
    run = recorded(tmp_path / "run", {1: before, 2: after}, labels)
    found = lt.compare(run)
    assert set(found.method) <= {"paired t", "Wilcoxon"}
    for k in range(3):
        old, new = before[labels == k], after[labels == k]
        if found.method[k] == "paired t":
            wanted = stats.ttest_rel(new, old)
            interval = wanted.confidence_interval()
            assert (found.low[k], found.high[k]) == pytest.approx((interval.low, interval.high), rel=1e-9)
        else:
            wanted = stats.wilcoxon(new - old)
        assert found.p[k] == pytest.approx(wanted.pvalue, rel=1e-9)
    assert found.worse()[:2] in ([0, 1], [1, 0])
    assert not lt.compare(run.recompute(progress=False)).worse()  # Welch's t does not see 5 %


@pytest.mark.parametrize(("method", "name"), [("paired-t", "paired t"), ("wilcoxon", "Wilcoxon")])
def test_a_test_of_pairs_can_be_chosen(tmp_path, method, name):
    labels = np.tile(["a", "b"], 40)
    steps = {1: RNG.exponential(size=80), 2: RNG.exponential(size=80)}
    found = lt.compare(recorded(tmp_path / "run", steps, labels), method=method)
    assert found.method.tolist() == [name] * 2
    for k, label in enumerate("ab"):
        old, new = (steps[step][labels == label] for step in (1, 2))
        wanted = stats.ttest_rel(new, old) if method == "paired-t" else stats.wilcoxon(new - old)
        assert found.p[k] == pytest.approx(wanted.pvalue, rel=1e-9)


CHANGES = {
    "any": lambda d: d,
    "one-sided": np.abs,
    "ties": lambda d: 2 * np.round(2 * d) + 1,
    "ties and zeros": np.round,
    "zeros": lambda d: np.where(RNG.random(d.size) < 0.2, 0.0, d),
    "one zero": lambda d: np.append(d[1:], -0.0),
    "all zeros": np.zeros_like,
    "one number": lambda d: np.full_like(d, -3.0),
    "huge or tiny": lambda d: np.ldexp(d, RNG.integers(-1000, 1000)),
}


def test_signed_ranks_are_those_of_wilcoxon_in_scipy_with_and_without_ties_and_zeros(tmp_path):
    sizes = np.where(np.arange(900) % 2, RNG.integers(20, 60, 900), RNG.integers(20, 2001, 900))
    changes = [of(RNG.lognormal(size=n) - RNG.choice([0.5, 1.0])) for n in sizes[::9] for of in CHANGES.values()]
    order = RNG.permutation(sum(map(len, changes)))
    labels = np.repeat(np.arange(900), [len(change) for change in changes])[order]
    after = np.concatenate(changes)[order]
    found = lt.compare(recorded(tmp_path / "run", {1: np.zeros(after.size), 2: after}, labels), method="wilcoxon")
    wanted = [stats.wilcoxon(change) if change.any() else None for change in changes]
    p = [1.0 if of is None else of.pvalue for of in wanted]
    np.testing.assert_allclose(found.p, p, rtol=1e-13)


def test_only_distributions_are_taken_from_scipy_as_all_of_its_statistics_take_long_to_import(tmp_path, monkeypatch):
    labels, after = np.repeat(np.arange(6), 30), RNG.lognormal(sigma=3, size=180)
    monkeypatch.setitem(sys.modules, "scipy.stats", None)
    run = recorded(tmp_path / "run", {1: np.zeros(180), 2: np.where(labels < 3, after, after > 1)}, labels)
    assert {"Wilcoxon", "McNemar's exact"} <= set(lt.compare(run).method)
    for method in ("auto", "welch", "mann-whitney", "permutation"):
        lt.compare(run, method=method)
    assert set(compared([labels] * 2, [after > 1] * 2).method) == {"Fisher's exact"}


def test_skewed_samples_of_different_sizes_are_compared_by_permutation_if_there_are_samples(tmp_path):
    labels = {1: np.repeat(np.arange(8), [400] * 7 + [300]), 2: np.repeat(np.arange(8), [25] * 7 + [300])}
    steps = {step: RNG.lognormal(sigma=1.5, size=of.size) for step, of in labels.items()}
    steps[2][:50] *= 3
    run = recorded(tmp_path / "run", steps, labels)
    found = lt.compare(run, steps=(1, 2))
    assert found.method.tolist() == ["permutation"] * 7 + ["Welch's t"]
    backwards = lt.compare(run, steps=(2, 1))  # the smaller side is before

    def difference(x, y, axis):
        return x.mean(axis) - y.mean(axis)

    for k in range(7):
        sides = [steps[step][labels[step] == k] for step in (2, 1)]
        wanted = stats.permutation_test(sides, difference, vectorized=True, n_resamples=4999, batch=1000, rng=k).pvalue
        for p in (found.p[k], backwards.p[k]):  # the numbers of permutations give each p to about a third
            assert abs(p - wanted) < 0.1 * wanted + 5 * np.sqrt(wanted / 499)
    assert found.p[0] == lt.compare(run, steps=(1, 2)).p[0]
    assert np.isnan([found.low[0], found.high[0]]).all()
    alone = lt.compare(run.recompute(progress=False), steps=(1, 2))
    assert alone.method[0] == "too skewed for moments alone: record the run"
    assert np.isnan(alone.p[0])
    assert alone.verdict[0] == "no evidence"


def test_equal_samples_are_no_change_by_permutation_also_where_rounding_makes_their_sum_no_zero(tmp_path):
    labels = {1: np.repeat(np.arange(9), 30), 2: np.repeat(np.arange(9), 5000)}
    numbers = RNG.lognormal(size=9)
    steps = {step: numbers[of] for step, of in labels.items()}
    steps[2][:3] *= 1.1  # three samples of 5,030 are larger, and are rarely drawn
    for chosen in ((1, 2), (2, 1)):
        found = lt.compare(recorded(tmp_path / str(chosen), steps, labels), steps=chosen, method="permutation")
        assert (found.p == 1).all(), found


def test_a_large_change_of_one_label_among_many_is_found_by_permutation(tmp_path):
    count = 100
    labels = {1: np.repeat(np.arange(count), 100), 2: np.repeat(np.arange(count), 25)}
    steps = {step: RNG.lognormal(sigma=1.5, size=of.size) for step, of in labels.items()}
    steps[2][labels[2] == 7] *= 30
    found = lt.compare(recorded(tmp_path / "run", steps, labels), method="permutation")
    assert set(found.method) == {"permutation"}
    assert found.worse() == [7]
    assert found.q[7] < 0.01
    assert np.mean(found.p < 0.05) < 0.1


def test_the_ranks_of_mann_and_whitney_are_those_of_scipy_with_and_without_ties(tmp_path):
    sizes = [RNG.integers(20, 60, 30) for _ in range(2)]
    labels = {step: RNG.permutation(np.repeat(np.arange(30), sizes[step])) for step in (0, 1)}
    steps = {step: RNG.lognormal(size=of.size) for step, of in labels.items()}
    for step, of in labels.items():
        steps[step][of >= 10] = RNG.integers(0, 5, (of >= 10).sum())
        steps[step][of == 29] = 3.0  # all are equal
    found = lt.compare(recorded(tmp_path / "run", steps, labels), method="mann-whitney")
    assert set(found.method) == {"Mann-Whitney"}
    for k in range(30):
        old, new = (steps[step][labels[step] == k] for step in (0, 1))
        wanted = stats.mannwhitneyu(new, old).pvalue if k < 29 else 1.0
        assert found.p[k] == pytest.approx(wanted, rel=1e-13)


def test_ranks_and_means_that_disagree_are_no_evidence(tmp_path):
    labels = {1: np.zeros(2000, int), 2: np.zeros(200, int)}
    before = RNG.lognormal(sigma=1.5, size=2000)
    after = 0.5 * RNG.lognormal(sigma=1.5, size=200)
    after[0] = 1000.0  # most samples got better, and the mean much worse
    found = lt.compare(recorded(tmp_path / "run", {1: before, 2: after}, labels), method="mann-whitney")
    assert found.difference[0] > 0
    assert found.q[0] < 0.05
    assert found.verdict[0] == "no evidence"


@pytest.mark.parametrize(("before", "after"), [(40, 40), (20, 1000), (700, 33), (300, 400)])
def test_zeros_and_ones_are_compared_by_the_exact_test_of_fisher(before, after):
    hits = [RNG.integers(0, n, 20) for n in (before, after)]
    for side, n in zip(hits, (before, after), strict=True):
        side[:4] = [0, n, n, n - 1]
    hits[0][3] = before - 1
    labels = [np.repeat(np.arange(20), n) for n in (before, after)]
    values = [np.concatenate([np.arange(n) < k for k in side]) for side, n in zip(hits, (before, after), strict=True)]
    found = compared(labels, values, higher_is_worse=False)
    assert set(found.method) == {"Fisher's exact"}
    for k, (old, new) in enumerate(zip(*hits, strict=True)):
        table = [[old, before - old], [new, after - new]]
        assert found.p[k] == pytest.approx(stats.fisher_exact(table).pvalue, rel=1e-9)
        assert found.low[k] <= found.difference[k] <= found.high[k]
        shares = [(old + 1) / (before + 2), (new + 1) / (after + 2)]  # Agresti and Caffo
        error = np.sqrt(sum(s * (1 - s) / (n + 2) for s, n in zip(shares, (before, after), strict=True)))
        reach = stats.norm.ppf(0.975) * error
        wanted = max(shares[1] - shares[0] - reach, -1), min(shares[1] - shares[0] + reach, 1)
        assert (found.low[k], found.high[k]) == pytest.approx(wanted)


@pytest.mark.parametrize(("before", "after"), [(30, 20), (61, 300), (1500, 700)])
def test_the_exact_test_of_fisher_is_what_rational_arithmetic_gives(before, after):
    hits = [np.sort(RNG.integers(0, n + 1, 8)) for n in (before, after)]
    labels = [np.repeat(np.arange(8), n) for n in (before, after)]
    values = [np.concatenate([np.arange(n) < k for k in side]) for side, n in zip(hits, (before, after), strict=True)]
    found = compared(labels, values)
    for k, (old, new) in enumerate(zip(*(side.tolist() for side in hits), strict=True)):
        tables = [comb(after, x) * comb(before, old + new - x) for x in range(min(after, old + new) + 1)]
        wanted = Fraction(sum(one for one in tables if one <= tables[new]), comb(before + after, old + new))
        assert found.p[k] == pytest.approx(float(wanted), rel=1e-12)


def test_of_two_tables_that_are_equally_and_most_probable_either_is_no_change():
    for ones in ((28, 35), (27, 36)):
        hits = [np.arange(n) < k for n, k in zip((34, 44), ones, strict=True)]
        assert compared([np.zeros(34), np.zeros(44)], hits).p == pytest.approx([1.0], rel=1e-12)


def test_values_between_zero_and_one_that_are_not_all_zeros_and_ones_are_no_shares():
    labels = np.repeat(np.arange(4), 50)
    sides = [RNG.integers(0, 2, 200).astype(float) for _ in range(2)]
    sides[0][[0, 1]] = 0.25, 0.75  # the sum is still whole
    sides[0][[60, 61]] = -1, 2
    sides[1][[110]] = 0.5
    assert compared([labels] * 2, sides).method.tolist() == ["Welch's t"] * 3 + ["Fisher's exact"]
    found = compared([labels] * 2, [np.full(200, 0.001), np.full(200, 0.004)])  # sums that are nearly whole
    assert found.method.tolist() == ["Welch's t"] * 4
    assert found.worse() == [0, 1, 2, 3]


def test_pairs_of_zeros_and_ones_are_compared_by_the_exact_test_of_mcnemar(tmp_path):
    labels = np.repeat(np.arange(6), 80)
    before = RNG.random(480) < 0.8
    after = np.where(RNG.random(480) < 0.1 + 0.1 * labels, RNG.random(480) < 0.6, before)
    after[labels == 0] = before[labels == 0]
    found = lt.compare(recorded(tmp_path / "run", {1: before, 2: after}, labels), higher_is_worse=False)
    assert set(found.method) == {"McNemar's exact"}
    assert found.p[0] == 1
    for k in range(6):
        change = after[labels == k].astype(int) - before[labels == k]
        up, down = int((change > 0).sum()), int((change < 0).sum())
        if k:
            assert found.p[k] == pytest.approx(stats.binomtest(up, up + down).pvalue, rel=1e-12)
        n = 82  # Agresti and Min add half a pair to each of the four kinds
        reach = stats.norm.ppf(0.975) * np.sqrt(up + down + 1 - (up - down) ** 2 / n) / n
        assert (found.low[k], found.high[k]) == pytest.approx(((up - down) / n - reach, (up - down) / n + reach))
