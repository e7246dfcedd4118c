"""What is compared: steps, histories and recorded runs, by ids and labels of any kind; mistakes."""

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
