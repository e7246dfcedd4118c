"""Several labels and masks: the answers are compared before anything is timed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import slices

if TYPE_CHECKING:
    from pathlib import Path


def test_the_command_writes_results(tmp_path: Path) -> None:
    out = tmp_path / "slices.json"
    results = slices.main(["--samples", "20000", "--rounds", "1", "--threads", "1", "--out", str(out)])
    assert json.loads(out.read_text(encoding="utf-8")) == results
    assert len({case["what"] for case in results["cases"]}) == len(results["cases"]) > 0
    assert all(case["ratio"]["ratio"] > 0 for case in results["cases"])
