"""Reports of recorded runs: what is compared, the samples shown, and what was recorded."""

from __future__ import annotations

import functools
import math
import re

import numpy as np
import pytest
from pages import column, data, record, verdict

import labeltrack as lt
from labeltrack.report import recorded, write_report

pytest.importorskip("pyarrow")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "report.html"


def test_one_planted_regression_among_200_labels_is_the_first_thing_said(tmp_path, path):
    write_report(record(tmp_path / "run", worse=123), path)
    sentence, tone = verdict(path)
    assert re.fullmatch(
        r"1 of 200 labels got worse from step 3 to step 4: 123 \(\+\d+\.?\d* %, q = \de-\d+\)\.", sentence
    )
    assert tone == "worse"
    found = data(path)
    assert found["names"][column(found["order"])[0]] == "123"


def test_with_no_regression_the_page_says_so(tmp_path, path):
    write_report(record(tmp_path / "run"), path)
    assert verdict(path)[0].startswith("None of 200 labels got worse from step 3 to step 4.")


def test_two_runs_are_compared_at_their_last_steps(tmp_path, path):
    first, second = (record(tmp_path / name, worse=worse) for name, worse in (("old", None), ("new", 5)))
    write_report([first, lt.open_run(second)], path)
    assert re.match("1 of 200 labels got worse from step 4 of old to step 4 of new: 5 ", verdict(path)[0])
    found = data(path)
    assert [(track["name"], track["shown"]) for track in found["tracks"]] == [("new, eval", True), ("old, eval", True)]
    write_report([first, second], path, against=2)
    assert "from step 2 of old to step 4 of new" in verdict(path)[0]
    (tmp_path / "other").mkdir()
    write_report([first, record(tmp_path / "other" / "old")], path)
    assert f"from step 4 of {first} to step 4 of {tmp_path}/other/old" in verdict(path)[0]


def test_the_distributions_are_those_of_the_samples(tmp_path, path):
    run = lt.open_run(record(tmp_path / "run", labels=3, samples=400, steps=2))
    write_report(run, path)
    found = data(path)["distribution"]
    columns = {name: column(packed) for name, packed in found["columns"].items()}
    bins = found["bins"]
    for side, step in (("before", 1), ("after", 2)):
        table = run.samples("eval", step)
        labels, values = table["label"].to_numpy(), table["value"].to_numpy().astype(np.float64)
        for k in range(3):
            low, high = columns["low"][k], columns["high"][k]
            own = values[labels == k]
            if columns["log"][k]:
                own, low, high = np.log(own), math.log(low), math.log(high)
            expected, _ = np.histogram(own, bins=bins, range=(low, high))
            counted = columns[side].reshape(3, bins)[k]
            assert counted.sum() == 400
            assert np.abs(np.cumsum(counted) - np.cumsum(expected)).max() <= 1  # a sample may lie on an edge


def test_without_scipy_the_distributions_are_those_of_their_labels(tmp_path, path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "scipy.special", None)
    with lt.LabelTracker("class", "loss", record_to=tmp_path / "run") as tracker:
        for step, labels in ((1, ["ant", "cow"]), (2, ["ant", "bee", "cow"])):
            tracker.update(labels, [float(ord(label[0])) for label in labels], mode="eval")
            tracker.end_epoch(step, mode="eval")
    write_report(tmp_path / "run", path)
    found = data(path)
    columns = {name: column(packed) for name, packed in found["distribution"]["columns"].items()}
    named = [found["names"][k] for k in columns["labels"]]
    assert dict(zip(named, columns["low"].tolist(), strict=True)) == {"ant": 97.0, "bee": 98.0, "cow": 99.0}


@pytest.mark.parametrize(
    ("names", "tail", "methods"),
    [
        ("c a d b", 0, ["paired t"]),
        ("", 0, ["paired t"]),
        ("", 1, ["Wilcoxon", "paired t"]),
        ("", 0, ["Welch's t"]),  # labels in another order
    ],
)
def test_samples_are_pairs_in_whatever_batches_they_came_if_labels_are_equal_in_equal_order(
    tmp_path, path, names, tail, methods
):
    stats = pytest.importorskip("scipy.stats")
    rng, count = np.random.default_rng(3), 600_000  # histograms show one in two, or all of two labels
    codes, base = rng.permutation(np.arange(count) % 4), rng.exponential(size=count)
    losses, order = [base + rng.normal(0.001 * step, 0.1, count) for step in (1, 2)], np.arange(count)
    losses[1] += np.where(codes % 2, tail * rng.standard_cauchy(count), 0)
    shuffled = methods == ["Welch's t"]
    mapping = {"B": "b", "D": "d"} if names else None
    with lt.LabelTracker("y", "loss", mapping, record_to=tmp_path) as tracker:
        for step, size in ((1, 70_000), (2, 41_003)):
            order[-9:] = order[-9:][::-1] if shuffled else order[-9:]
            for start in range(0, count, size):
                rows = order[start : start + size]
                labels = np.array(names.split())[codes[rows]] if names else codes[rows]
                tracker.update(labels, losses[step - 1][rows])
            tracker.end_epoch(step)
    write_report(tmp_path, path)
    found = data(path)
    assert found["methods"] == methods
    tests = {"Welch's t": functools.partial(stats.ttest_ind, equal_var=False), "paired t": stats.ttest_rel}
    tests["Wilcoxon"] = stats.wilcoxon
    for k, code in enumerate((3, 2) if names else range(4)):
        method = methods[column(found["rows"]["method"])[k]]
        p = tests[method](*(of[codes == code] for of in losses)).pvalue
        assert column(found["rows"]["p"])[k] == pytest.approx(p, rel=1e-6)
    for side in ("before", "after"):
        shown = column(found["distribution"]["columns"][side])
        assert shown.sum() == count / 2


def test_samples_that_change_while_a_report_is_made_are_an_error(tmp_path, path, monkeypatch):
    rng = np.random.default_rng(0)
    with lt.LabelTracker("y", "loss", record_to=tmp_path / "run") as tracker:
        for step in (1, 2):
            tracker.update(np.arange(100) % 2, rng.exponential(size=100))
            tracker.end_epoch(step)
    content = recorded.Content

    def after_a_loss(*args, **options):
        for part in (tmp_path / "run").rglob("*.arrow"):
            part.unlink()
        return content(*args, **options)

    monkeypatch.setattr(recorded, "Content", after_a_loss)
    with pytest.raises(OSError, match="changed while they were read"):
        write_report(tmp_path / "run", path)
    assert not path.exists()


def test_samples_whose_range_no_double_holds_are_counted_in_the_right_bins(tmp_path, path):
    rng, sides = np.random.default_rng(0), []
    with lt.LabelTracker("y", "loss", record_to=tmp_path / "run") as tracker:
        for step in (1, 2):
            sides.append(np.append(rng.uniform(-1, 1, 198), [-1.0, 1.0]))
            tracker.update(np.zeros(200, int), np.ldexp(sides[-1], 1023), mode="eval")
            tracker.end_epoch(step, mode="eval")
    write_report(tmp_path / "run", path)
    found = data(path)["distribution"]
    for name, values in zip(("before", "after"), sides, strict=True):
        expected, _ = np.histogram(values, bins=found["bins"], range=(-1, 1))
        assert column(found["columns"][name]).tolist() == expected.tolist()


def test_samples_with_a_long_tail_have_logarithmic_bins_and_constant_ones_a_single_bin(tmp_path, path):
    tail = np.exp(np.linspace(-8, 6, 200))
    with lt.LabelTracker("y", "loss", record_to=tmp_path / "run") as tracker:
        for step in (1, 2):
            tracker.update(np.repeat([0, 1, 2], 200), np.concatenate([tail, np.full(200, 2.0), [np.inf] * 200]))
            tracker.end_epoch(step)
    write_report(tmp_path / "run", path)
    found = data(path)["distribution"]
    columns = {name: column(packed) for name, packed in found["columns"].items()}
    assert columns["labels"].tolist() == [0, 1]
    assert columns["log"].tolist() == [1, 0]
    counted = columns["after"].reshape(2, found["bins"])
    assert counted[0].min() >= 5
    assert counted[1].tolist() == [200] + [0] * (found["bins"] - 1)


def test_the_hardest_samples_are_shown_with_their_ids(tmp_path, path):
    with lt.LabelTracker("y", "loss", record_to=tmp_path / "run", label_mapping={"cat": 0, "dog": 1}) as tracker:
        for step, values in ((1, [1.0, 2.0, 3.0]), (2, [4.0, 9.0, 0.5])):
            tracker.update([0, 1, 1], values, ids=["a.png", "<b>.png", "c.png"])
            tracker.end_epoch(step)
    write_report(tmp_path / "run", path)
    assert data(path)["hardest"] == {
        "note": "The samples with the worst loss in step 2 of train.",
        "head": ["id", "y", "step 1", "step 2"],
        "rows": [["<b>.png", "dog", "2", "9"], ["a.png", "cat", "1", "4"], ["c.png", "dog", "3", "0.5"]],
    }
    write_report([tmp_path / "run"] * 2, path, higher_is_worse=False)
    assert [row[0] for row in data(path)["hardest"]["rows"]] == ["c.png", "a.png", "<b>.png"]


def test_the_hardest_samples_are_those_of_the_last_step_with_their_values_before(tmp_path, path):
    with lt.LabelTracker("y", "loss", record_to=tmp_path / "run") as tracker:
        tracker.update([0] * 40, np.r_[np.full(39, 1.0), 99.0], ids=np.arange(40))
        tracker.end_epoch(1)
        tracker.update([0] * 40, np.r_[np.full(39, 2.0), 3.0], ids=np.r_[np.arange(39), 77])
        tracker.end_epoch(2)
    write_report(tmp_path / "run", path)
    rows = data(path)["hardest"]["rows"]
    assert rows == [["77", "0", "-", "3"], *[[str(k), "0", "1", "2"] for k in range(19)]]


def test_an_id_that_comes_twice_in_the_last_step_alone_has_no_value_before(tmp_path, path):
    with lt.LabelTracker("y", "loss", record_to=tmp_path / "run", on_duplicate="count") as tracker:
        tracker.update([0, 0], [1.0, 2.0], ids=["a", "b"])
        tracker.end_epoch(1)
        tracker.update([0, 0, 0], [5.0, 6.0, 3.0], ids=["new", "new", "a"])
        tracker.end_epoch(2)
    write_report(tmp_path / "run", path)
    assert data(path)["hardest"]["rows"] == [["new", "0", "-", "6"], ["a", "0", "1", "3"]]


def test_the_values_before_are_those_of_the_same_dataset(tmp_path, path):
    with lt.LabelTracker("y", "loss", record_to=tmp_path / "run") as tracker:
        tracker.update([0], [1.0], ids=[7], ds_id="a")
        tracker.end_epoch(1)
        for ds_id, value in (("b", 5.0), ("a", 4.0)):
            tracker.update([0], [value], ids=[7], ds_id=ds_id)
        tracker.end_epoch(2)
    write_report(tmp_path / "run", path)
    assert data(path)["hardest"]["rows"] == [["7", "0", "-", "5"], ["7", "0", "1", "4"]]


def test_the_hardest_samples_of_several_labels_have_their_names(tmp_path, path):
    mapping = {"class": {"cat": 0, "dog": 1}, "site": {"farm": 5}}
    with lt.LabelTracker(("class", "site"), "loss", record_to=tmp_path / "run", label_mapping=mapping) as tracker:
        tracker.update(([0, 1], [5, 5]), [1.0, 2.0], ids=[7, 8])
        tracker.end_epoch(1)
    write_report(tmp_path / "run", path)
    assert data(path)["hardest"]["rows"] == [["8", "dog, farm", "2"], ["7", "cat, farm", "1"]]


def test_a_run_of_a_single_step_has_nothing_to_compare(tmp_path, path):
    write_report(record(tmp_path / "run", labels=3, steps=1), path)
    assert re.fullmatch(r"The worst of 3 labels is \d, with a mean of [\d.]+\.", verdict(path)[0])
    assert data(path)["distribution"] is None


def test_several_labels_and_metrics(tmp_path, path):
    rng = np.random.default_rng(0)
    with lt.TrackerCollection(("class", "site"), ["loss", "correct"], record_to=tmp_path / "run") as trackers:
        for step in (1, 2):
            y, site = rng.integers(0, 3, 600), rng.choice(["a", "b"], 600)
            trackers.update((y, site), {"loss": rng.exponential(size=600), "correct": rng.integers(0, 2, 600)})
            trackers.end_epoch(step)
    run = lt.open_run(tmp_path / "run")
    write_report(run, path)
    found = data(path)
    assert found["metric"] == "loss"
    assert column(found["distribution"]["columns"]["labels"]).tolist() == list(range(6))
    assert np.array_equal(column(found["rows"]["after"]), run.recompute(metric="loss").at(2).mean)
    write_report(run, path, metric="correct", higher_is_worse=False)
    assert np.array_equal(column(data(path)["rows"]["after"]), run.recompute(metric="correct").at(2).mean)
    with pytest.raises(KeyError, match="accuracy"):
        write_report(run, path, metric="accuracy")


def test_the_page_says_what_was_recorded_and_what_was_lost(tmp_path, path):
    tracker = lt.LabelTracker("y", "loss", record_to=tmp_path / "run")
    for step in (1, 2):
        tracker.update([0, 1], [0.5, 2.0])
        tracker.end_epoch(step)
    tracker.update([0], [1.0])
    tracker.close()
    with pytest.warns(lt.LabelTrackWarning, match="did not end"):
        write_report(tmp_path / "run", path)
    facts = dict(re.findall("<dt>(.*?)</dt><dd>(.*?)</dd>", path.read_text("utf-8")))
    assert facts["run"] == str(tmp_path / "run")
    assert facts["samples"].startswith("4 in 2 complete epochs")
    assert facts["lost"] == "nothing"
    assert facts["left out"] == "epochs that did not end: train 3"
    assert facts["this page"].startswith(f"labeltrack {lt.__version__}, numpy {np.__version__}, Python 3.")


def test_mistakes_are_said(tmp_path, path):
    with lt.LabelTracker("y", "loss", record_to=tmp_path / "run") as tracker:
        tracker.update([0], [1.0])
    with pytest.raises(ValueError, match="at least one recorded run"):
        write_report([], path)
    with pytest.raises(ValueError, match="no complete epoch"), pytest.warns(lt.LabelTrackWarning):
        write_report(tmp_path / "run", path, mode="train")
    assert not path.exists()
