"""Several metrics and ids: the answers are compared before anything is timed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import collection

if TYPE_CHECKING:
    from pathlib import Path


def test_the_command_writes_results(tmp_path: Path) -> None:
    out = tmp_path / "collection.json"
    results = collection.main(["--samples", "2560", "--labels", "10", "--rounds", "1", "--out", str(out)])
    assert json.loads(out.read_text(encoding="utf-8")) == results
    assert [(case["what"], case["of"]) for case in results["cases"]] == [
        (what, of) for what in ("update", "end_epoch", "epoch") for of in ("two metrics", "ids")
    ]
    assert all(case["ratio"]["ratio"] > 0 for case in results["cases"])
