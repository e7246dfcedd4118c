"""What a comparison says of each label: verdicts, edges and tables."""

from __future__ import annotations

import numpy as np
import pytest
from sides import compared, history_of_dogs, recorded

import labeltrack as lt

stats = pytest.importorskip("scipy.stats", reason="scipy is not installed (extra 'stats')")

RNG = np.random.default_rng()


@pytest.fixture(autouse=True)
def _seeded():
    RNG.bit_generator.state = np.random.default_rng(11).bit_generator.state


def q_of(p):
    return stats.false_discovery_control(p)


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
    assert "%" not in "".join(line for line in repr(found).splitlines() if "too few" in line)


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


@pytest.mark.parametrize("method", ["auto", "welch", "permutation", "paired-t", "wilcoxon"])
def test_samples_near_the_largest_double_are_tested_as_smaller_ones_are(tmp_path, method):
    labels, shift = np.repeat([0, 1, 2, 3], 60), np.repeat([0, 40, -40, 0], 60)
    sides = [RNG.normal(size=240) - shift / 2, RNG.exponential(size=240) + shift / 2]
    top = 1024 - np.frexp(np.abs(sides).max())[1]
    small, large = ([np.ldexp(side, top - down) for side in sides] for down in (600, 0))
    for k, of in enumerate((small, large)):
        recorded(tmp_path / str(k), dict(enumerate(of)), labels)
    expected, found = (lt.compare(lt.open_run(tmp_path / str(k)), method=method) for k in (0, 1))
    for name in ("p", "q", "g", "relative", "verdict", "method"):
        assert getattr(found, name).tolist() == getattr(expected, name).tolist()
    assert found.verdict[1:3].tolist() == ["worse", "better"]
    assert np.isinf(found.difference).tolist() == [False, True, True, False]
    assert "inf" not in repr(found)
    if method == "welch":
        reference = [
            stats.ttest_ind(b, a, equal_var=False) for a, b in zip(*(np.split(side, 4) for side in sides), strict=True)
        ]
        np.testing.assert_allclose(found.p, [one.pvalue for one in reference], rtol=1e-9)
        ends = np.ldexp([reference[k].confidence_interval() for k in (0, 3)], top)
        np.testing.assert_allclose(np.stack([found.low, found.high], 1)[[0, 3]], ends, rtol=1e-9)


def test_a_standard_deviation_that_no_double_holds_is_no_evidence():
    labels, halves = np.zeros(60, int), np.tile([1.79e308, -1.79e308], 30)
    for sides in ((halves, halves / 4), (halves / 4, halves)):
        found = compared([labels, labels], sides)
        assert (found.verdict[0], found.method[0]) == ("no evidence", "standard deviation beyond the largest double")
        assert np.isnan([found.p[0], found.q[0], found.g[0]]).all()


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


# -- looks --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["auto", "mann-whitney"])
def test_a_step_whose_samples_are_lost_is_compared_as_one_without(tmp_path, method):
    run = recorded(tmp_path, {1: RNG.exponential(size=100), 2: RNG.exponential(size=100)}, ["a", "b"] * 50)
    max(tmp_path.rglob("*.arrow")).unlink()
    with pytest.warns(lt.LabelTrackWarning, match="100 rows are left out"):
        found = lt.compare(run, method=method)
    assert found.verdict.tolist() == ["too few"] * 2
    assert found.count_after.tolist() == [0, 0]


@pytest.fixture(name="history")
def _history():
    return history_of_dogs()


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
