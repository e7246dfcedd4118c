"""What is compared: steps, histories and recorded runs, by labels of any kind; mistakes."""

from __future__ import annotations

import numpy as np
import pytest
from sides import history_of_dogs, recorded

import labeltrack as lt

stats = pytest.importorskip("scipy.stats", reason="scipy is not installed (extra 'stats')")

RNG = np.random.default_rng()


@pytest.fixture(autouse=True)
def _seeded():
    RNG.bit_generator.state = np.random.default_rng(11).bit_generator.state


# -- what is compared ---------------------------------------------------------------------------------------


@pytest.fixture(name="history")
def _history():
    return history_of_dogs()


def test_steps_of_a_history_are_compared(history):
    for found in (history.compare(3, 7), lt.compare(history), lt.compare(history, steps=7)):
        assert found.worse() == ["dog"]
        assert found.title == "eval, step 3 → step 7"
        assert found.mean_before[1] == history.at(3)["dog"].mean
    assert history.compare(1, 3, "eval", "s").worse() == []
    assert lt.compare(history, steps=(7, 3)).better() == ["dog"]
    assert lt.compare(history, history, steps=3).p.tolist() == [1.0, 1.0]
    assert "s" in history.compare(1, 3, ds_id="s").title


def test_the_title_tells_sides_apart_that_have_no_name(history, tmp_path):
    run = recorded(tmp_path / "run", {1: RNG.normal(size=200)}, np.repeat(["cat", "dog"], 100))
    assert lt.compare(history, history_of_dogs()).title == "eval, step 7 before → step 7 after"
    assert lt.compare(history.at(3), history.at(7)).title == "before → after"
    same = history.at(3)
    assert lt.compare(same, same).title == "before → after"
    assert lt.compare(history, history, steps=(3, 7)).title == "eval, step 3 → step 7"
    assert lt.compare(run, history, mode="eval").title == f"{run.path} step 1 → step 7 after"
    assert lt.compare(history.at(3), run).title == f"before → {run.path} step 1"


def test_a_mode_that_is_not_there_is_named(history, tmp_path):
    run = recorded(tmp_path / "run", {1: RNG.normal(size=200)}, np.repeat(["cat", "dog"], 100))
    with pytest.raises(KeyError, match=r"no mode in the history: 'evil'\. Did you mean 'eval'"):
        lt.compare(history, mode="evil")
    with pytest.raises(KeyError, match=f"no mode in {run.path}: 'test'"):
        lt.compare(run, history, mode="test")


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


# -- several labels, several metrics ------------------------------------------------------------------------


def test_labels_that_differ_in_zeros_at_their_end_have_names_of_their_own():
    sides = [lt.label_stats(["a"] * 30 + ["a\0"] * 30, RNG.normal(size=60)) for _ in range(2)]
    assert lt.compare(*sides).names.tolist() == ["a", "a\0"]


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
