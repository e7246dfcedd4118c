"""Quantiles beside peers: everybody's answer, and what the command writes."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    from pathlib import Path

if os.environ.get("LABELTRACK_REQUIRE_PEERS") != "1":
    for peer in ("polars", "duckdb", "pandas", "pyarrow"):
        pytest.importorskip(peer, reason=f"{peer} is not installed (extra: bench)")

import quantiles
from cases import Case


def test_the_command_writes_results_and_the_table(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("a <!-- quantiles:begin --> b <!-- quantiles:end --> c", encoding="utf-8")
    options = ["--samples", "3000", "--labels", "5", "40", "--rounds", "2", "--out", str(tmp_path / "q.json")]
    results = quantiles.main([*options, "--render", "--page", str(page)])
    assert json.loads((tmp_path / "q.json").read_text(encoding="utf-8")) == results
    assert [(case["labels"], case["values"]) for case in results["cases"]] == [
        (labels, values) for values in ("float32", "float64") for labels in (5, 40)
    ]
    lines = page.read_text(encoding="utf-8").splitlines()
    assert sum(line.startswith("| ") for line in lines) == 6
    assert lines[-1].endswith("c")


@pytest.mark.parametrize("name", ["polars", "labeltrack"])
def test_nobody_is_timed_when_an_answer_is_wrong(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right = getattr(quantiles, name)

    def wrong(*arguments: object, **options: object) -> object:
        run = right(*arguments, **options)
        return lambda: run() * (1 + 1e-5)

    monkeypatch.setattr(quantiles, name, wrong)
    monkeypatch.setattr(quantiles, "measure", lambda *_: pytest.fail("timed"))
    with pytest.raises(AssertionError, match=name):
        quantiles.run_case(Case(1000, 3, "int32"), 1)


def test_labels_without_samples_are_left_out_by_everybody() -> None:
    labels, values = np.array([0, 5, 5, 9]), np.array([1.0, 2.0, 4.0, 8.0])
    for contestant in (quantiles.labeltrack, quantiles.polars, quantiles.duckdb, quantiles.pandas):
        assert contestant(labels, values)().tolist() == [[1.0, 2.5, 8.0], [1.0, 3.0, 8.0], [1.0, 3.5, 8.0]]
