"""Which recorded samples are pairs: those of the same ids, else those whose labels have the same order."""

from __future__ import annotations

import numpy as np
import pytest
from sides import recorded

import labeltrack as lt

stats = pytest.importorskip("scipy.stats", reason="scipy is not installed (extra 'stats')")

RNG = np.random.default_rng()


@pytest.fixture(autouse=True)
def _seeded():
    RNG.bit_generator.state = np.random.default_rng(11).bit_generator.state


def test_samples_in_another_order_are_not_taken_for_pairs(tmp_path):
    labels = {1: np.repeat([0, 1], 50), 2: np.tile([0, 1], 50)}
    steps = {1: RNG.normal(size=100), 2: RNG.normal(size=100)}
    run = recorded(tmp_path / "run", steps, labels)
    assert lt.compare(run).method.tolist() == ["Welch's t"] * 2
    with pytest.raises(ValueError, match="needs the same samples on both sides"):
        lt.compare(run, method="paired-t")


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
