"""The simulations, small: false alarms at their level, and power as that of scipy and statsmodels."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import significance

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("scipy", reason="scipy is not installed (extra 'stats')")
LABELS = 200
# Of a share of 5 % among so many labels, with room for three standard errors.
MOST = 0.05 + 3 * (0.05 * 0.95 / LABELS) ** 0.5


def test_what_is_chosen_holds_its_level_where_one_test_for_all_does_not() -> None:
    rows = list(significance.unpaired(LABELS))
    for row in rows:
        for how in ("chosen from moments", "chosen from samples"):
            assert row[how]["p < 0.05"] <= MOST, row
            assert row[how]["p < 0.001"] <= 0.015
        assert row["chosen from samples"]["tested"] == 1
    for how in ("chosen from moments", "chosen from samples"):  # each row has a verdict in one case of twenty
        assert sum(row[how]["verdicts"] > 0 for row in rows) <= len(rows) / 6
    worst = max(rows, key=lambda row: row["Welch's t"]["p < 0.05"])
    assert (worst["before"], worst["after"], worst["samples"]) == (20, 1000, "lognormal, σ = 1.5")
    assert worst["Welch's t"]["p < 0.05"] > 0.15
    assert worst["chosen from moments"]["tested"] == 0


def test_a_permutation_test_seldom_takes_another_spread_for_another_mean() -> None:
    for row in significance.reshaped(LABELS):
        assert row["permutation"] <= 0.2, row
        assert row["mann-whitney"] >= 0.3


def test_pairs_hold_the_level() -> None:
    rows = list(significance.paired(LABELS))
    for row in rows:
        for how in ("paired t", "Wilcoxon", "chosen"):
            assert row[how]["p < 0.05"] <= MOST, row
    assert sum(row["chosen"]["verdicts"] > 0 for row in rows) <= 2


def test_alarms_hold_the_level_at_any_look_where_a_repeated_test_does_not() -> None:
    rows = list(significance.looks(LABELS, 50))
    for row in rows:
        assert row["anytime p"] <= MOST, row
        assert row["Welch's t"] > 0.2
    assert sum(row["alarms"] > 0 for row in rows) <= 2


def test_power_is_that_of_the_functions_that_are_chosen(tmp_path: Path) -> None:
    pytest.importorskip("statsmodels", reason="statsmodels is not installed")
    out = tmp_path / "significance.json"
    results = significance.main(["--labels", "60", "--looks", "3", "--out", str(out)])
    assert json.loads(out.read_text(encoding="utf-8")) == results
    assert results["q beside statsmodels"] < 1e-12
    for row in results["power"]:
        assert row["scipy ttest_ind"] == row["statsmodels ttest_ind"]
        if set(row["methods"]) == {"Fisher's exact"}:
            assert row["chosen from samples"] == row["chosen from moments"] == row["scipy fisher_exact"]
        if set(row["methods"]) == {"McNemar's exact"}:
            assert row["chosen from samples"] == row["scipy binomtest"]
        if set(row["methods"]) == {"Welch's t"}:
            assert row["chosen from samples"] == row["chosen from moments"] == row["scipy ttest_ind"]
        if "pairs" in row["change"] and "hits" not in row["samples"]:
            assert row["chosen from samples"] > 0.4
            assert row["scipy ttest_ind"] < 0.05
