"""``labeltrack check``: exit codes, what a log shows, JSON and JUnit reports."""

from __future__ import annotations

import json
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from test_cli import invoke, refusal

import labeltrack as lt

pytest.importorskip("scipy", reason="scipy is not installed (extra 'stats')")
pytest.importorskip("pyarrow", reason="pyarrow is not installed (extra 'record')")

NAMES = np.array([f"label {k:03d}" for k in range(200)])


def record(path, steps, mode="eval"):
    """Record ``{step: (labels, values)}``."""
    with lt.LabelTracker("domain", "loss", record_to=path) as tracker:
        for step, (labels, values) in steps.items():
            tracker.update(labels, values, mode=mode)
            tracker.end_epoch(step, mode=mode)
    return path


@pytest.fixture(scope="module", name="planted")
def _planted(tmp_path_factory):
    """Record 200 labels of 500 samples; from step 2 to 3, label 123 gets 10 % worse, and label 7 gets 4 % worse."""
    rng = np.random.default_rng(3)
    labels = np.repeat(NAMES, 500)
    base = rng.gamma(4.0, 0.25, labels.size)
    steps = {step: (labels, base * (1 + 0.1 * rng.normal(size=labels.size))) for step in (1, 2, 3)}
    steps[3][1][labels == NAMES[123]] *= 1.1
    steps[3][1][labels == NAMES[7]] *= 1.04
    return record(tmp_path_factory.mktemp("check") / "run", steps)


def test_a_planted_regression_is_found_and_nothing_else(planted):
    result = invoke("check", planted, "--max-regression", "5%")
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert lines[0] == "loss, eval, step 2 → step 3"
    assert lines[1] == "FAILED: 1 of 200 labels got worse by more than 5 % (q < 0.05); 1 got worse by less"
    assert lines[2].split() == ["label", "before", "after", "change", "q", "samples", "test"]
    assert lines[3].startswith("label 123")
    assert lines[3].rstrip().endswith("paired t")
    assert len(lines) == 4


def test_without_a_margin_every_significant_change_counts(planted):
    result = invoke("check", planted)
    assert result.exit_code == 1
    assert "FAILED: 2 of 200 labels got worse (q < 0.05)" in result.stdout


@pytest.mark.parametrize("options", [("--step", "2"), ("--max-regression", "0.2"), ("--lower-is-worse",)])
def test_without_a_regression_the_exit_code_is_0(planted, options):
    result = invoke("check", planted, *options)
    assert result.exit_code == 0, result.output
    assert "PASSED: none of 200 labels got worse" in result.stdout


def test_the_step_to_compare_with_is_chosen(planted):
    for options, title in (
        (("--against", "first"), "step 1 → step 3"),
        (("--against", "1"), "step 1 → step 3"),
        (("--against", "3", "--step", "2"), "step 3 → step 2"),
    ):
        found = invoke("check", planted, *options)
        assert title in found.stdout.splitlines()[0]


def test_a_baseline_is_another_run(tmp_path):
    rng = np.random.default_rng(4)
    labels = np.repeat(NAMES[:2], 300)
    worse = rng.normal(1, 0.1, 600) + (labels == NAMES[1])
    old = record(tmp_path / "old", {1: (labels, worse), 9: (labels, rng.normal(1, 0.1, 600))})
    new = record(tmp_path / "new", {1: (labels, worse)})
    result = invoke("check", new, "--baseline", old, "--max-regression", "50%")
    assert result.exit_code == 1
    assert result.stdout.splitlines()[0] == f"loss, {old} step 9 → {new} step 1"
    assert "label 001" in result.stdout
    assert invoke("check", new, "--baseline", old, "--against", "first").exit_code == 0


def test_json_has_every_label(planted):
    result = invoke("check", planted, "--max-regression", "5%", "--json")
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert found["passed"] is False
    assert (found["before"]["step"], found["after"]["step"], found["mode"]) == (2, 3, "eval")
    assert [row["label"] for row in found["failed"]] == [NAMES[123]]
    wanted = lt.compare(lt.open_run(planted))
    assert [row["q"] for row in found["labels"]] == wanted.q.tolist()
    assert [row["verdict"] for row in found["labels"]] == wanted.verdict.tolist()


def test_junit_has_a_test_per_label(tmp_path):
    rng = np.random.default_rng(5)
    labels = np.repeat(["fine", "rare", '<bad "&\x00\x1b[31m'], [100, 5, 100])
    before = rng.normal(1, 0.1, 205)
    run = record(tmp_path / "run", {1: (labels, before), 2: (labels, before + (labels == labels[-1]))})
    out = tmp_path / "report.xml"
    result = invoke("check", run, "--junit", out, "--max-regression", "5%")
    assert result.exit_code == 1
    assert "\x1b" not in result.stdout
    assert "Not tested, fewer than 20 samples: 1 (rare)" in result.stdout
    suite = ET.parse(out).getroot()  # noqa: S314 (it is our own)
    assert (suite.tag, suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("testsuite", "3", "1", "1")
    by_name = {case.get("name"): [child.tag for child in case] for case in suite}
    bad = r'<bad "&\x00\x1b[31m'
    assert by_name == {"fine": ["system-out"], "rare": ["skipped"], bad: ["failure"]}
    assert "by more than 5 %" in suite.find(".//failure").get("message")


def test_a_label_whose_loss_is_nan_fails(tmp_path):
    labels = np.repeat([0, 1], 50)
    values = np.ones(100)
    broken = np.where(np.arange(100) == 70, np.nan, values)
    run = record(tmp_path / "run", {1: (labels, values), 2: (labels, broken)})
    result = invoke("check", run, "--max-regression", "50%")
    assert result.exit_code == 1
    assert "FAILED: 1 of 2 labels" in result.stdout
    assert result.stdout.splitlines()[3].split()[0] == "1"


def test_a_check_of_all_steps_is_that_of_the_alarms(tmp_path):
    rng = np.random.default_rng(8)
    labels = np.repeat(["fine", "gone bad", "bad once", "rare"], [200, 200, 200, 5])
    steps = {}
    for step in range(1, 13):
        values = rng.normal(1, 0.3, labels.size)
        values[(labels == "gone bad") & (step > 6)] += 0.2
        values[(labels == "bad once") & (step == 9)] += 0.5
        steps[step] = (labels, values)
    run = record(tmp_path / "run", steps)
    result = invoke("check", run, "--anytime", "--max-regression", "10%", "--json", "--junit", tmp_path / "report.xml")
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert [row["label"] for row in found["failed"]] == ["gone bad"]  # the other one is fine again
    alarms = {alarm.label: alarm for alarm in lt.open_run(run).recompute(progress=False).alarms()}
    assert set(alarms) == {"gone bad", "bad once"}
    by_label = {row["label"]: row for row in found["labels"]}
    assert by_label["gone bad"]["q"] == pytest.approx(alarms["gone bad"].q)
    assert by_label["gone bad"]["mean_after"] == alarms["gone bad"].mean
    assert {label: row["verdict"] for label, row in by_label.items()} == {
        "bad once": "worse",
        "fine": "no evidence",
        "gone bad": "worse",
        "rare": "too few",
    }
    text = invoke("check", run, "--anytime", "--step", "6")
    assert text.exit_code == 0
    assert text.stdout.splitlines()[0] == "loss, eval, step 1 → step 6"
    assert "Not tested, fewer than 20 samples: 1 (rare)" in text.stdout
    assert invoke("check", run, "--anytime", "--against", "9").exit_code == 0


def test_one_of_several_metrics_is_checked(tmp_path):
    labels = np.repeat(["cat", "dog"], 100)
    with lt.TrackerCollection("animal", ["loss", "hit"], record_to=tmp_path) as trackers:
        for step in (1, 2):
            loss = np.where((labels == "dog") & (step == 2), 2.0, 1.0)
            trackers.update(labels, {"loss": loss, "hit": np.ones(200)}, mode="eval")
            trackers.end_epoch(step, mode="eval")
    assert invoke("check", tmp_path, "--metric", "loss").exit_code == 1
    assert invoke("check", tmp_path, "--metric", "hit", "--lower-is-worse").exit_code == 0
    assert "pass one as metric (--metric)" in refusal(invoke("check", tmp_path))
    watched = invoke("watch", tmp_path, "--metric", "loss", "--interval", "0.01", "--idle", "0.01")
    assert "worse: dog (+100.0%)" in watched.stdout


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--max-regression", "much"), "--max-regression must be a share such as 5% or 0.05, got 'much'"),
        (("--max-regression", "-1%"), "must be a share"),
        (("--max-regression", "50"), "--max-regression 50 is 5000%; write 50% or 5000%, as it is meant"),
        (("--against", "best"), "against: must be 'previous', 'first' or a step, got 'best'"),
        (("--against", "7"), "no complete step in mode 'eval': 7"),
        (("--step", "1"), "no complete epoch of mode 'eval' before step 1 to compare with; use --baseline RUN"),
        (("--mode", "test"), "run: 'test'. There are: 'eval'"),
        (("--anytime", "--baseline", "nowhere"), "it goes neither with --baseline nor with previous"),
        (("--against", "3"), "step 3 is the one to check; --against must be another"),
        (("--anytime", "--step", "1", "--against", "2"), "there is no step after 2 up to 1 in mode 'eval'"),
        (("--q", "5"), "alpha must be between 0 and 1, got 5"),
        (("--baseline", "nowhere"), "nowhere"),
    ],
)
def test_a_mistake_is_one_line(planted, options, said):
    assert said in refusal(invoke("check", planted, *options))
