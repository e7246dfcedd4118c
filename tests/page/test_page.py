"""The report as a file: its verdict, its data, and what it makes of hostile names."""

from __future__ import annotations

import re

import numpy as np
import pytest
from pages import EVIL, column, data, history, verdict

import labeltrack as lt


@pytest.fixture
def path(tmp_path):
    return tmp_path / "report.html"


def test_the_verdict_names_the_label_that_got_worse(path):
    history(200, 5, worse=17).to_html(path)
    sentence, tone = verdict(path)
    assert re.fullmatch(
        r"1 of 200 labels got worse from step 4 to step 5: 17 \(\+\d\d\.?\d? %, q = \de-\d+\)\.", sentence
    )
    assert tone == "worse"
    found = data(path)
    first = column(found["order"])[0]
    assert found["names"][first] == "17"
    assert column(found["rows"]["verdict"])[first] == 0


def test_the_verdict_says_so_if_no_label_got_worse(path):
    stats = lt.label_stats(np.repeat(np.arange(50), 30), np.random.default_rng(1).normal(5, 1, 1500))
    same = lt.label_stats(np.repeat(np.arange(50), 30), np.random.default_rng(2).normal(5, 1, 1500))
    compared = lt.History(metric="loss")
    compared.add(1, stats)
    compared.add(2, same)
    compared.to_html(path)
    assert verdict(path) == ("None of 50 labels got worse from step 1 to step 2.", "")


def test_lower_may_be_worse(path):
    history(20, 2, samples=2000).to_html(path, higher_is_worse=False)
    assert verdict(path)[0].startswith("20 of 20 labels got worse from step 1 to step 2: ")
    assert verdict(path)[0].endswith("; and 15 more.")
    assert "q < 1e-99" in verdict(path)[0]
    history(20, 2, samples=2000).to_html(path)
    assert verdict(path) == ("None of 20 labels got worse from step 1 to step 2. 20 got better.", "better")


def test_the_step_to_compare_with_can_be_chosen(path):
    several = history(5, 6)
    for against, step in (("previous", 5), ("first", 1), (3, 3)):
        several.to_html(path, against=against)
        assert f"from step {step} to step 6" in verdict(path)[0]
        before = column(data(path)["rows"]["before"])
        assert np.array_equal(before, several.at(step).mean)
    with pytest.raises(KeyError, match="no earlier step 6"):
        several.to_html(path, against=6)
    with pytest.raises(ValueError, match="must be 'previous', 'first' or a step, got 'best'"):
        several.to_html(path, against="best")


def test_a_single_step_has_nothing_to_compare(path):
    once = lt.History(metric="loss")
    once.add(3, lt.label_stats([0, 1, 1], [0.5, 2.0, 3.0]), mode="train")
    once.to_html(path)
    assert verdict(path) == ("The worst of 2 labels is 1, with a mean of 2.5.", "")
    assert "only one step" in path.read_text("utf-8")
    found = data(path)
    assert "before" not in found["rows"]
    assert column(found["order"]).tolist() == [1, 0]
    nothing = lt.History()
    nothing.add(1, lt.label_stats([], []))
    nothing.to_html(path)
    assert verdict(path)[0] == "There are no samples."


def test_too_few_samples_are_said_to_be_too_few(path):
    history(4, 3, samples=5).to_html(path)
    assert verdict(path)[0] == "No label can be tested from step 2 to step 3: there are too few samples."
    assert "Too few samples to test: 4." in path.read_text("utf-8")


def test_without_scipy_nothing_is_tested(path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "scipy.special", None)
    history(4, 3, worse=2).to_html(path)
    assert re.match(r"The worst of 4 labels is \d, with a mean of [\d.]+; nothing was tested\.", verdict(path)[0])
    assert "labeltrack[stats]" in path.read_text("utf-8")
    found = data(path)
    assert "q" not in found["rows"]
    assert np.isfinite(column(found["rows"]["relative"])).all()


def test_the_numbers_of_the_table_are_those_of_the_history(path):
    several = history(7, 4, samples=25, modes=("eval", "train"), worse=3)
    several.to_html(path)
    found, compared = data(path), several.compare(3, 4)
    rows = {name: column(packed) for name, packed in found["rows"].items()}
    for name in ("low", "high", "g", "p", "q", "relative"):
        assert np.array_equal(rows[name], getattr(compared, name), equal_nan=True)
    for name in ("std", "min", "max"):
        assert np.array_equal(rows[name], getattr(several.at(4), name))
    assert np.array_equal(rows["after"], several.at(4).mean)
    assert rows["n"].tolist() == rows["n_before"].tolist() == [25] * 7
    assert [found["methods"][k] for k in rows["method"]] == compared.method.tolist()
    assert [track["name"] for track in found["tracks"]] == ["eval", "train"]
    assert [track["shown"] for track in found["tracks"]] == [True, False]


@pytest.mark.parametrize("scale", [1.0, 1e-9, 1e9, 1e-60, 1e200])
def test_the_numbers_of_curves_are_right_to_six_digits(path, scale):
    rng = np.random.default_rng(3)
    several = lt.History()
    for step in (1, 2, 5):
        several.add(step, lt.label_stats(np.repeat(np.arange(40), 5), scale * rng.lognormal(0, 3, 200)))
    several.to_html(path)
    track = data(path)["tracks"][0]
    assert track["steps"] == ["1", "2", "5"]
    for name in ("mean", "std", "min", "max"):
        shown = column(track["columns"][name]).reshape(40, 3)
        for k, step in enumerate((1, 2, 5)):
            exact = getattr(several.at(step), name)
            assert [f"{value:.5e}" for value in shown[:, k].tolist()] == [f"{value:.5e}" for value in exact.tolist()]


@pytest.mark.parametrize("steps", [[2**62 + 1, 2**62 + 2, 2**62 + 4], [-(2**63), 0, 2**63 - 1]])
def test_steps_that_doubles_do_not_hold_are_exact(path, steps):
    several = lt.History()
    for step in steps:
        several.add(step, lt.label_stats([0] * 30, np.arange(30.0) + step % 7), mode="eval")
    several.to_html(path)
    found = data(path)
    assert [int(step) for step in found["tracks"][0]["steps"]] == steps
    assert f"from step {steps[1]} to step {steps[2]}." in verdict(path)[0]
    assert f"3 steps, {steps[0]} to {steps[2]}" in path.read_text("utf-8")


def test_labels_that_come_and_go_have_gaps(path):
    several = lt.History()
    several.add(1, lt.label_stats(["a"] * 30 + ["b"] * 30, np.arange(60.0)), mode="eval")
    several.add(2, lt.label_stats(["b"] * 30 + ["c"] * 30, np.arange(60.0)), mode="eval")
    several.add(2, lt.label_stats(["d"], [1.0]), mode="train")
    several.to_html(path)
    found = data(path)
    assert found["names"] == ["a", "b", "c", "d"]
    track = found["tracks"][0]["columns"]
    assert column(track["count"]).reshape(4, 2).tolist() == [[30, 0], [30, 30], [0, 30], [0, 0]]
    assert np.isnan(column(track["mean"]).reshape(4, 2)).tolist() == [
        [False, True],
        [False] * 2,
        [True, False],
        [True] * 2,
    ]
    assert sorted(column(found["order"]).tolist()) == [0, 1, 2, 3]
    assert column(found["rows"]["verdict"]).tolist()[3] == 3


def test_numbers_that_are_not_finite_are_no_problem(path):
    several = lt.History()
    for step, last in ((1, 1.0), (2, np.nan)):
        values = np.arange(60.0)
        values[-1] = last
        several.add(step, lt.label_stats(np.repeat([0, 1], 30), values))
    several.to_html(path)
    assert verdict(path)[0] == "1 of 2 labels got worse from step 1 to step 2: 1 (not finite)."


def test_names_are_text_whatever_they_contain(path):
    history(5, 3, mapping=EVIL, worse=1).to_html(path, title="<i>title</i> & </title>")
    text = path.read_text("utf-8")
    assert len(re.findall("<script", text)) == 2
    assert "<b>bold" not in text
    assert "<img" not in text
    assert "<title>&lt;i&gt;title&lt;/i&gt; &amp; &lt;/title&gt;</title>" in text
    names = data(path)["names"]
    assert names[0] == "<b>bold</b> & \"quotes\" 'single'"
    assert names[1] == "</script><script>document.title = 'changed'</script>\\nnew line"
    assert names[2] == "قطة سوداء \\u202e reversed"
    assert names[4] == "{{data}} \\u003c <!-- "


def test_a_thousand_labels_and_a_hundred_steps_are_small(path):
    history(1000, 100, samples=3).to_html(path)
    assert path.stat().st_size < 2.5e6
    history(1000, 100, samples=3, modes=("eval", "train")).to_html(path)
    assert path.stat().st_size < 2.5e6


def test_nothing_is_loaded_from_elsewhere(path):
    history(3, 2).to_html(path)
    text = path.read_text("utf-8")
    assert not re.search(r"(src|href)=\"(?!data:,)", text)
    assert "url(" not in text
    assert "@import" not in text
    assert "default-src 'none'" in text


def test_what_is_wrong_is_said_before_anything_is_written(path):
    several = history(3, 2)
    for wrong, error, message in (
        ({"mode": "test"}, KeyError, "test"),
        ({"ds_id": "x"}, KeyError, "x"),
        ({"alpha": 2}, ValueError, "alpha must be between 0 and 1"),
    ):
        with pytest.raises(error, match=message):
            several.to_html(path, **wrong)
    with pytest.raises(ValueError, match=r"must end in \.html, \.htm"):
        several.to_html(path.with_suffix(".pdf"))
    assert not path.exists()
