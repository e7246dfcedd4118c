"""Comparisons: against scipy's own tests, sample by sample; verdicts, edges, tables and the choice of the test."""

from __future__ import annotations

import numpy as np
import pytest

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


def compared(labels, values, **options):
    sides = [lt.label_stats(*side) for side in zip(labels, values, strict=True)]
    return lt.compare(*sides, **options)


def recorded(path, steps, labels, *, mapping=None, mode="eval", metric="ce"):
    """Record a run of ``{step: values}``, and return it."""
    with lt.LabelTracker("y", metric, mapping, record_to=path) as tracker:
        for step, values in steps.items():
            tracker.update(labels[step] if isinstance(labels, dict) else labels, values, mode=mode)
            tracker.end_epoch(step, mode=mode)
    return lt.open_run(path)


def q_of(p):
    return stats.false_discovery_control(p)


# -- the tests are scipy's ----------------------------------------------------------------------------------


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


def test_values_between_zero_and_one_that_are_not_all_zeros_and_ones_are_no_shares():
    labels = np.repeat(np.arange(4), 50)
    sides = [RNG.integers(0, 2, 200).astype(float) for _ in range(2)]
    sides[0][[0, 1]] = 0.25, 0.75  # the sum is still whole
    sides[0][[60, 61]] = -1, 2
    sides[1][[110]] = 0.5
    assert compared([labels] * 2, sides).method.tolist() == ["Welch's t"] * 3 + ["Fisher's exact"]


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


# -- verdicts and edges -------------------------------------------------------------------------------------


@pytest.mark.parametrize("higher_is_worse", [True, False])
def test_worse_is_what_the_metric_says(higher_is_worse):
    labels = np.repeat(["down", "same", "up"], 200)
    before = RNG.normal(10, 1, 600)
    after = before + np.repeat([-2.0, 0.0, 2.0], 200)
    found = compared([labels, labels], [before, after], higher_is_worse=higher_is_worse)
    assert (found.worse(), found.better()) == ((["up"], ["down"]) if higher_is_worse else (["down"], ["up"]))
    assert found.labels[found.order()].tolist() == [*found.worse(), "same", *found.better()]
    assert found.relative == pytest.approx(found.difference / found.mean_before)


def test_the_largest_change_comes_first():
    labels = np.repeat(np.arange(4), 100)
    before = RNG.normal(10, 1, 400)
    after = before + np.repeat([1.0, 3.0, -1.0, -3.0], 100)
    found = compared([labels, labels], [before, after])
    assert (found.worse(), found.better()) == ([1, 0], [3, 2])


def test_few_samples_get_no_verdict_and_do_not_count_among_the_tested():
    labels = [np.repeat([0, 1, 2], [19, 200, 200]), np.repeat([0, 1, 2], [200, 200, 19])]
    values = [np.ones(419), np.full(419, 9.0)]
    values[0][labels[0] == 1] = values[1][labels[1] == 1] = RNG.normal(size=200)
    found = compared(labels, values)
    assert found.verdict.tolist() == ["too few", "no evidence", "too few"]
    assert np.isnan(found.p).tolist() == [True, False, True]
    assert found.q[1] == found.p[1]
    assert found.summary() == "none of 3 labels got worse (q < 0.05); no evidence for 1; too few samples for 2"


def test_labels_of_one_side_have_a_row():
    found = compared([np.repeat([1, 2], 30), np.repeat([2, 3], 30)], [np.arange(60.0), np.arange(60.0)])
    assert found.labels.tolist() == [1, 2, 3]
    assert (found.count_before.tolist(), found.count_after.tolist()) == ([30, 30, 0], [0, 30, 30])
    assert found.verdict[[0, 2]].tolist() == ["too few", "too few"]
    assert np.isnan(found.mean_before[2])
    assert np.isnan(found.difference[[0, 2]]).all()
    assert found.mean_after[2] == np.arange(30, 60).mean()


def test_sides_without_common_labels_or_without_any_have_no_verdict():
    apart = compared([np.zeros(30, int), np.ones(30, int)], [np.ones(30), np.ones(30)])
    assert apart.verdict.tolist() == ["too few", "too few"]
    empty = lt.label_stats([], [])
    nothing = lt.compare(empty, empty)
    assert (len(nothing), nothing.worse(), nothing.better()) == (0, [], [])
    assert "none of 0 labels got worse" in repr(nothing)
    with pytest.raises(ValueError, match="no label to show"):
        nothing.plot()


@pytest.mark.parametrize(
    ("after", "p", "verdict"), [(2.0, 1.0, "no evidence"), (2.5, 0.0, "worse"), (1, 0.0, "better")]
)
def test_samples_that_are_all_one_number_differ_for_certain_or_not_at_all(tmp_path, after, p, verdict):
    labels = np.zeros(50, int)
    sides = [np.full(50, 2.0), np.full(50, after)]
    for found in (
        compared([labels, labels], sides),
        lt.compare(recorded(tmp_path / "run", dict(enumerate(sides)), labels)),
    ):
        assert (found.p[0], found.q[0], found.verdict[0]) == (p, p, verdict)
        assert found.low[0] == found.high[0] == found.difference[0] == after - 2.0


def test_a_change_from_zero_is_infinitely_large():
    labels = np.zeros(50, int)
    found = compared([labels, labels], [np.zeros(50), np.ones(50)])
    assert found.relative[0] == np.inf


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_label_that_is_no_longer_finite_is_worse(tmp_path, bad):
    labels = np.repeat([0, 1], 50)
    fine, broken = RNG.normal(size=100), RNG.normal(size=100)
    broken[60] = bad
    for sides, verdict in (((fine, broken), "worse"), ((broken, fine), "better"), ((broken, broken), "no evidence")):
        path = tmp_path / verdict
        for found in (compared([labels, labels], sides), lt.compare(recorded(path, dict(enumerate(sides)), labels))):
            assert found.verdict[1] == verdict
            assert found.method[1] == "not finite"
            assert np.isnan(found.p).tolist() == [False, True]


def test_nan_samples_that_are_left_out_are_left_out_of_pairs(tmp_path):
    labels = np.zeros(100, int)
    before, after = RNG.normal(size=100), RNG.normal(size=100)
    before[3] = after[7] = np.nan
    with lt.LabelTracker("y", "ce", nan_policy="omit", record_to=tmp_path) as tracker:
        for step, values in enumerate((before, after)):
            tracker.update(labels, values)
            tracker.end_epoch(step)
    found = lt.compare(lt.open_run(tmp_path))
    assert found.p[0] == pytest.approx(stats.ttest_rel(after, before, nan_policy="omit").pvalue)
    assert found.count_before[0] == found.count_after[0] == 99


def test_ten_thousand_labels_take_a_moment_and_have_the_same_results_as_few():
    count = 10_000
    labels = np.repeat(np.arange(count), 20)
    values = [RNG.exponential(size=labels.size).astype(np.float32) for _ in range(2)]
    found = compared([labels, labels], values)
    assert len(found) == count
    one = labels == 77
    alone = compared([labels[one], labels[one]], [side[one] for side in values])
    assert found.p[77] == alone.p[0]
    assert (found.q == q_of(found.p)).all()


def test_several_labels_per_sample_are_compared_by_combination():
    labels = {"class": np.tile(["cat", "dog"], 200), "site": np.repeat(["a", "b"], 200)}
    before = RNG.normal(size=400)
    worse = (labels["class"] == "dog") & (labels["site"] == "b")
    found = compared([labels, labels], [before, before + worse])
    assert found.worse() == [("dog", "b")]
    assert list(found.columns())[:3] == ["class", "site", "name"]
    assert found.difference[found.index(("dog", "b"))] == pytest.approx(1.0)


# -- what is compared ---------------------------------------------------------------------------------------


@pytest.fixture(name="history")
def _history():
    history = lt.History(metric="ce", label="class")
    labels = np.repeat(["cat", "dog"], 100)
    for step, shift in ((1, 0.0), (3, 0.0), (7, 3.0)):
        values = RNG.normal(5, 1, 200)
        values[labels == "dog"] += shift
        history.add(step, lt.label_stats(labels, values), mode="eval", ds_id="s")
    history.add(7, lt.label_stats(labels, np.ones(200)), mode="train")
    return history


def test_steps_of_a_history_are_compared(history):
    for found in (history.compare(3, 7), lt.compare(history), lt.compare(history, steps=7)):
        assert found.worse() == ["dog"]
        assert found.title == "eval, step 3 → step 7"
        assert found.mean_before[1] == history.at(3)["dog"].mean
    assert history.compare(1, 3, "eval", "s").worse() == []
    assert lt.compare(history, steps=(7, 3)).better() == ["dog"]
    assert lt.compare(history, history, steps=3).p.tolist() == [1.0, 1.0]
    assert "s" in history.compare(1, 3, ds_id="s").title


def test_two_recorded_runs_are_compared_at_their_last_steps(tmp_path):
    labels = np.repeat(["cat", "dog"], 100)
    values = [RNG.normal(5, 1, 200) for _ in range(3)]
    old = recorded(tmp_path / "old", {1: values[0], 2: values[1]}, labels)
    new = recorded(tmp_path / "new", {1: values[1] + (labels == "cat")}, labels)
    found = lt.compare(old, new)
    assert found.worse() == ["cat"]
    assert (found.mean_before == lt.label_stats(labels, values[1]).mean).all()
    assert found.title == f"{old.path} step 2 → {new.path} step 1"
    assert lt.compare(old, new, steps=1).mean_before.tolist() == lt.label_stats(labels, values[0]).mean.tolist()


@pytest.mark.parametrize(
    "labels",
    [
        [3, 1, 2],
        [-(2**62), 2**62, 5],
        np.array([-128, 127, 3], dtype=np.int8),
        ["b", "a", "c"],
        [True, False, True],
        [0.5, 0.1, 0.3],
        [b"x", b"y", b"z"],
    ],
)
def test_labels_of_any_type_find_their_samples(tmp_path, labels):
    labels = np.tile(np.array(labels), 100)
    steps = {1: RNG.normal(size=300), 2: RNG.normal(size=300)}
    found = lt.compare(recorded(tmp_path / "run", steps, labels))
    for k, label in enumerate(found.labels.tolist()):
        old, new = (steps[step][labels == label] for step in (1, 2))
        assert found.p[k] == pytest.approx(stats.ttest_rel(new, old).pvalue, rel=1e-9)


def test_integers_that_no_double_holds_find_their_samples_though_one_side_is_unsigned(tmp_path):
    signed = np.repeat(np.array([2**62, 2**62 + 1]), 30)
    unsigned = np.repeat(np.array([2**62 + 1, 2**63 + 5, 2**62], dtype=np.uint64), 30)
    values = [RNG.exponential(size=60), RNG.exponential(size=90)]
    sides = [
        recorded(tmp_path / str(labels.dtype), {1: of}, labels)
        for labels, of in zip((signed, unsigned), values, strict=True)
    ]
    found = lt.compare(*sides, method="mann-whitney")
    assert found.labels.tolist() == [2**62, 2**62 + 1, 2**63 + 5]
    assert found.count_before.tolist() == [30, 30, 0]
    for k, label in enumerate((2**62, 2**62 + 1)):
        old, new = values[0][signed == label], values[1][unsigned == np.uint64(label)]
        assert found.p[k] == pytest.approx(stats.mannwhitneyu(new, old).pvalue, rel=1e-9)


def test_labels_that_the_mapping_ignores_are_not_compared(tmp_path):
    labels = np.tile([0, 1, 2], 50)
    steps = {1: RNG.normal(size=150), 2: RNG.normal(size=150)}
    found = lt.compare(recorded(tmp_path / "run", steps, labels, mapping={"one": 1}))
    assert (found.labels.tolist(), found.names.tolist()) == ([1], ["one"])
    old, new = (steps[step][labels == 1] for step in (1, 2))
    assert found.p[0] == pytest.approx(stats.ttest_rel(new, old).pvalue, rel=1e-9)


def test_samples_in_another_order_are_not_taken_for_pairs(tmp_path):
    labels = {1: np.repeat([0, 1], 50), 2: np.tile([0, 1], 50)}
    steps = {1: RNG.normal(size=100), 2: RNG.normal(size=100)}
    run = recorded(tmp_path / "run", steps, labels)
    assert lt.compare(run).method.tolist() == ["Welch's t"] * 2
    with pytest.raises(ValueError, match="needs the same samples on both sides"):
        lt.compare(run, method="paired-t")


# -- ids, several labels, several metrics -------------------------------------------------------------------


def with_ids(path, steps, **options):
    """Record ``{step: (labels, values, ids)}``, and return the run."""
    with lt.LabelTracker("y", "ce", record_to=path, **options) as tracker:
        for step, (labels, values, ids) in steps.items():
            tracker.update(labels, values, ids=ids, mode="eval")
            tracker.end_epoch(step, mode="eval")
    return lt.open_run(path)


@pytest.mark.parametrize("text", [False, True])
def test_samples_in_another_order_are_pairs_by_their_ids(tmp_path, text):
    ids = np.array([f"sample {k}" for k in range(200)]) if text else np.arange(200) * 3 - 50
    labels = np.arange(200) % 2
    values = [RNG.normal(size=200) for _ in range(2)]
    order = RNG.permutation(200)
    steps = {1: (labels, values[0], ids), 2: (labels[order], values[1][order], ids[order])}
    found = lt.compare(with_ids(tmp_path / "run", steps))
    for k in (0, 1):
        old, new = (side[labels == k] for side in values)
        assert found.method[k] == "paired t"
        assert found.p[k] == pytest.approx(stats.ttest_rel(new, old).pvalue, rel=1e-9)


def test_ids_of_two_runs_find_each_other(tmp_path):
    ids = np.array([str(k) for k in range(120)])
    values = [RNG.normal(size=120) for _ in range(2)]
    labels = np.repeat(["a", "b"], 60)
    old = with_ids(tmp_path / "old", {1: (labels, values[0], ids)})
    new = with_ids(tmp_path / "new", {1: (labels[::-1], values[1][::-1], ids[::-1])})
    found = lt.compare(old, new)
    assert found.method.tolist() == ["paired t"] * 2
    assert found.p[0] == pytest.approx(stats.ttest_rel(values[1][:60], values[0][:60]).pvalue, rel=1e-9)


def test_labels_with_too_few_pairs_are_compared_as_unrelated_samples(tmp_path):
    others = np.concatenate([np.arange(95), np.arange(500, 505), np.arange(100, 150), np.arange(600, 650)])
    ids = [np.arange(200), others]
    labels = np.repeat([0, 1], 100)  # 95 and 50 of 100 are on both sides
    values = [RNG.normal(size=200) for _ in range(2)]
    steps = {step: (labels, values[step], ids[step]) for step in (0, 1)}
    run = with_ids(tmp_path / "run", steps)
    found = lt.compare(run)
    assert found.method.tolist() == ["paired t", "Welch's t"]
    assert found.p[0] == pytest.approx(stats.ttest_rel(values[1][:95], values[0][:95]).pvalue, rel=1e-9)
    wanted = stats.ttest_ind(values[1][100:], values[0][100:], equal_var=False).pvalue
    assert found.p[1] == pytest.approx(wanted, rel=1e-9)
    assert lt.compare(run, method="wilcoxon").method.tolist() == ["Wilcoxon", "no pairs"]


def test_samples_whose_label_changed_are_no_pairs(tmp_path):
    ids, labels = np.arange(100), np.repeat([0, 1], 50)
    other = np.where(ids < 3, 1, labels)
    values = [RNG.normal(size=100) for _ in range(2)]
    found = lt.compare(with_ids(tmp_path / "run", {1: (labels, values[0], ids), 2: (other, values[1], ids)}))
    assert found.count_after.tolist() == [47, 53]
    for k, rows in ((0, slice(3, 50)), (1, slice(50, 100))):
        assert found.p[k] == pytest.approx(stats.ttest_rel(values[1][rows], values[0][rows]).pvalue, rel=1e-9)


def test_the_first_sample_of_an_id_counts(tmp_path):
    ids, labels = np.arange(40), np.zeros(40, int)
    values = [RNG.normal(size=40) for _ in range(2)]
    twice = np.concatenate([values[1], [99.0] * 3]), np.concatenate([ids, [5, 6, 7]])
    steps = {1: (labels, values[0], ids), 2: (np.zeros(43, int), *twice)}
    found = lt.compare(with_ids(tmp_path / "run", steps, on_duplicate="first"))
    assert found.count_after[0] == 40
    assert found.p[0] == pytest.approx(stats.ttest_rel(values[1], values[0]).pvalue, rel=1e-9)


def test_all_samples_of_an_id_count_if_the_tracker_counted_them_and_the_first_ones_are_pairs(tmp_path):
    ids, labels = np.tile(np.arange(40), 2), np.zeros(80, int)
    values = [RNG.normal(size=80) for _ in range(2)]
    run = with_ids(tmp_path / "run", {1: (labels, values[0], ids), 2: (labels, values[1], ids)}, on_duplicate="count")
    found = lt.compare(run)
    assert (found.count_before[0], found.count_after[0]) == (80, 80)
    assert found.mean_after[0] == run.recompute(progress=False).at(2)[0].mean
    assert found.method[0] == "paired t"
    assert found.p[0] == pytest.approx(stats.ttest_rel(values[1][:40], values[0][:40]).pvalue, rel=1e-9)


def test_ids_that_differ_in_zeros_at_their_end_are_different_samples(tmp_path):
    ids = [f"{k}" + zeros for k in range(30) for zeros in ("", "\0", "\0\0")]
    values, labels = [RNG.normal(size=90) for _ in range(2)], np.zeros(90, int)
    found = lt.compare(with_ids(tmp_path / "run", {step: (labels, values[step], ids) for step in (0, 1)}))
    assert (found.count_before[0], found.method[0]) == (90, "paired t")
    assert found.p[0] == pytest.approx(stats.ttest_rel(values[1], values[0]).pvalue, rel=1e-9)


def test_labels_that_differ_in_zeros_at_their_end_have_names_of_their_own():
    sides = [lt.label_stats(["a"] * 30 + ["a\0"] * 30, RNG.normal(size=60)) for _ in range(2)]
    assert lt.compare(*sides).names.tolist() == ["a", "a\0"]


@pytest.mark.parametrize("text", [False, True])
def test_samples_without_ids_are_no_pairs(tmp_path, text):
    ids = np.array([f"sample {k}" for k in range(60)]) if text else np.arange(60)
    values = {(step, ds_id): RNG.normal(size=60) for step in (1, 2, 3) for ds_id in "ab"}
    labels = {"a": np.zeros(60, int), "b": np.ones(60, int)}
    with lt.LabelTracker("y", "ce", record_to=tmp_path) as tracker:
        for (step, ds_id), some in values.items():
            more = {"ids": ids} if step > 1 and ds_id == "a" else {}
            tracker.update(labels[ds_id], some, ds_id=ds_id, **more)
            if ds_id == "b":
                tracker.end_epoch(step)
    run = lt.open_run(tmp_path)
    found = lt.compare(run)
    assert found.method.tolist() == ["paired t", "Welch's t"]
    assert found.p[0] == pytest.approx(stats.ttest_rel(values[3, "a"], values[2, "a"]).pvalue, rel=1e-9)
    wanted = stats.ttest_ind(values[3, "b"], values[2, "b"], equal_var=False).pvalue
    assert found.p[1] == pytest.approx(wanted, rel=1e-9)
    assert lt.compare(run, steps=(1, 2)).count_before.tolist() == [60, 60]


def test_ids_of_several_datasets_are_kept_apart(tmp_path):
    values = {(step, ds_id): RNG.normal(size=60) for step in (1, 2) for ds_id in "ab"}
    with lt.LabelTracker("y", "ce", record_to=tmp_path) as tracker:
        for step, datasets in ((1, "ab"), (2, "ba")):
            for ds_id in datasets:
                tracker.update(np.zeros(60, int), values[step, ds_id], ids=np.arange(60), ds_id=ds_id)
            tracker.end_epoch(step)
    run = lt.open_run(tmp_path)
    old, new = (np.concatenate([values[step, ds_id] for ds_id in "ab"]) for step in (1, 2))
    assert lt.compare(run).p[0] == pytest.approx(stats.ttest_rel(new, old).pvalue, rel=1e-9)
    alone = stats.ttest_rel(values[2, "b"], values[1, "b"]).pvalue
    assert lt.compare(run, ds_id="b").p[0] == pytest.approx(alone, rel=1e-9)


def test_one_of_several_metrics_by_several_labels_is_compared(tmp_path):
    first, second = np.tile(["cat", "dog"], 100), np.repeat([1, 2], 100)
    losses, hits = [RNG.normal(size=200) for _ in range(2)], [RNG.integers(0, 2, 200) for _ in range(2)]
    losses[1][(first == "dog") & (second == 2)] += 3
    with lt.TrackerCollection(("class", "site"), ["ce", "hit"], record_to=tmp_path) as trackers:
        for step in (0, 1):
            trackers.update((first, second), {"ce": losses[step], "hit": hits[step]}, mode="eval")
            trackers.end_epoch(step, mode="eval")
    run = lt.open_run(tmp_path)
    found = lt.compare(run, metric="ce")
    assert found.worse() == [("dog", 2)]
    assert set(found.method) <= {"paired t", "Wilcoxon"}
    chosen = lt.compare(run, metric="ce", method="paired-t")
    for k, (label, site) in enumerate(found.labels.tolist()):
        rows = (first == label) & (second == site)
        assert chosen.p[k] == pytest.approx(stats.ttest_rel(losses[1][rows], losses[0][rows]).pvalue, rel=1e-9)
    assert lt.compare(run, metric="hit", higher_is_worse=False).metric == "hit"
    with pytest.raises(ValueError, match=r"has the metrics 'ce', 'hit'; pass one as metric \(--metric\)$"):
        lt.compare(run)
    with pytest.raises(ValueError, match="got 'loss'"):
        lt.compare(run, metric="loss")


@pytest.mark.parametrize("mapping", [None, {"class": {"C": "cat"}}])
def test_one_label_that_is_given_as_the_only_one_of_several_is_compared(tmp_path, mapping):
    labels, losses = np.tile(["cat", "dog"], 50), [RNG.normal(size=100) for _ in range(2)]
    with lt.LabelTracker(("class",), "ce", mapping, record_to=tmp_path) as tracker:
        for step in (0, 1):
            tracker.update((labels,), losses[step], ids=np.arange(100))
            tracker.end_epoch(step)
    run = lt.open_run(tmp_path)
    found = lt.compare(run, method="paired-t")
    assert found.labels.tolist() == tracker.history.compare(0, 1).labels.tolist() == [("cat",), ("dog",)][: len(found)]
    assert found.p[0] == pytest.approx(stats.ttest_rel(*(of[labels == "cat"] for of in losses)).pvalue, rel=1e-9)
    assert run.hardest(1, {"class": "C" if mapping else "cat"}).labels.tolist() == [("cat",)]


def test_mistakes_are_named(history, tmp_path):
    row = lt.label_stats([0], [1.0])
    with pytest.raises(TypeError, match="expects LabelStats, histories or recorded runs, got int"):
        lt.compare(row, 3)
    with pytest.raises(TypeError, match="got one LabelStats"):
        lt.compare(row)
    with pytest.raises(ValueError, match="steps must be one step for both sides"):
        lt.compare(history, steps=(1, 2, 3))
    with pytest.raises(KeyError, match="no step in mode 'eval': 4"):
        lt.compare(history, steps=(1, 4))
    with pytest.raises(ValueError, match="no step to compare with"):
        lt.compare(history, steps=1)
    with pytest.raises(ValueError, match="no step to compare with"):
        lt.compare(history, mode="train")
    with pytest.raises(ValueError, match="method: unknown option 't'"):
        lt.compare(row, row, method="t")
    for method in ("permutation", "mann-whitney"):
        with pytest.raises(ValueError, match=f"'{method}' needs the samples"):
            lt.compare(row, row, method=method)
    with pytest.raises(ValueError, match="alpha must be between 0 and 1"):
        history.compare(1, 3, alpha=5)
    one = recorded(tmp_path / "one", {1: np.ones(3)}, [0, 1, 2])
    other = recorded(tmp_path / "other", {1: np.ones(3)}, [0, 1, 2], metric="accuracy")
    with pytest.raises(ValueError, match="cannot compare 'ce' with 'accuracy'"):
        lt.compare(one, other)
    with pytest.raises(KeyError, match="no complete step in mode 'eval': 5"):
        lt.compare(one, steps=(1, 5))


def test_without_scipy_the_error_says_what_to_install(monkeypatch, history):
    monkeypatch.setitem(__import__("sys").modules, "scipy.special", None)
    with pytest.raises(ImportError, match=r'pip install "labeltrack\[stats\]"'):
        history.compare(3, 7)


# -- looks --------------------------------------------------------------------------------------------------


def test_a_comparison_is_an_arrow_table_and_read_only(history):
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed (extra 'arrow')")
    found = history.compare(3, 7)
    table = pa.table(found)
    assert table.column_names == list(found.columns())
    assert table["label"].to_pylist() == ["cat", "dog"]
    assert table["q"].to_pylist() == found.q.tolist()
    assert table["verdict"].to_pylist() == ["no evidence", "worse"]
    with pytest.raises(ValueError, match="read-only"):
        found.p[0] = 1


def test_labels_are_inert_in_html():
    labels = np.repeat(['<b onclick="x()">&\n', "\u202eabc"], 30)
    shown = compared([labels, labels], [np.ones(60), np.ones(60)])._repr_html_()
    assert "<b" not in shown
    assert "&lt;b onclick=&quot;x()&quot;&gt;&amp;" in shown


def test_the_text_shows_the_worst_first(history):
    lines = repr(history.compare(3, 7)).splitlines()
    assert lines[0] == "ce, eval, step 3 → step 7: 1 of 2 labels got worse (q < 0.05); no evidence for 1"
    assert [line.split()[0] for line in lines[2:]] == ["dog", "cat"]
    assert lines[2].split()[-1] == "worse"


def test_the_forest_plot_shows_intervals_worst_first(history):
    found = history.compare(3, 7)
    axes = found.plot().axes[0]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["dog", "cat"]
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the first row is at the top
    drawn = {float(line[0][1]): (line[0][0], line[1][0]) for c in axes.collections for line in c.get_segments()}
    assert drawn == {0.0: (found.low[1], found.high[1]), 1.0: (found.low[0], found.high[0])}
    chosen = found.plot(["cat"], title="x").axes[0]
    assert [tick.get_text() for tick in chosen.get_yticklabels()] == ["cat"]
    with pytest.raises(KeyError, match="no label 'catt'"):
        found.plot(["catt"])


def test_labels_of_few_samples_do_not_flatten_the_forest_plot():
    labels = np.repeat([0, 1], [200, 3])
    values = [RNG.normal(size=203), RNG.normal(size=203) + np.repeat([0.0, 1000.0], [200, 3])]
    found = compared([labels, labels], values)
    assert found.plot().axes[0].get_xlim()[1] < 2 * found.high[0] + 1


def test_the_forest_plot_shows_forty_labels_and_says_how_many_more(tmp_path):
    labels = {1: np.repeat(np.arange(60), 60), 2: np.repeat(np.arange(60), 30)}
    steps = {step: RNG.lognormal(sigma=1.5, size=of.size) for step, of in labels.items()}
    found = lt.compare(recorded(tmp_path / "run", steps, labels))
    figure = found.plot()
    assert len(figure.axes[0].get_yticks()) == 40
    assert "20 more labels are not shown" in figure.subfigs[0]._suptitle.get_text().replace("\n", " ")
