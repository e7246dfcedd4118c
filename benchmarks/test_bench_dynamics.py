"""The table by sample id: the answers are compared with those of peers before anything is timed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import dynamics

if TYPE_CHECKING:
    from pathlib import Path


def test_the_command_writes_results(tmp_path: Path) -> None:
    out = tmp_path / "dynamics.json"
    results = dynamics.main(["--ids", "3000", "--epochs", "3", "--rounds", "1", "--out", str(out)])
    assert json.loads(out.read_text(encoding="utf-8")) == results
    (case,) = results["cases"]
    assert set(case["times"]) == {dynamics.OURS, dynamics.READ, dynamics.STATS, dynamics.POLARS, dynamics.PANDAS}
    assert case["ratio"]["ratio"] > 0
