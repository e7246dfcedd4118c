"""What tracking costs in frameworks: the numbers are compared with the model's before anything is timed."""

from __future__ import annotations

import importlib.util
import json
import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

if importlib.util.find_spec("transformers") is None and os.environ.get("LABELTRACK_REQUIRE_INTEGRATIONS") != "1":
    pytest.skip("the frameworks are not installed: `nox -s frameworks` does that", allow_module_level=True)

import frameworks

pytestmark = pytest.mark.filterwarnings("ignore::Warning")


def test_the_command_writes_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frameworks, "CASES", {name: (of, 8) for name, (of, _) in frameworks.CASES.items()})
    out = tmp_path / "frameworks.json"
    results = frameworks.main(["--steps", "3", "--rounds", "1", "--labels", "1000", "--out", str(out)])
    assert json.loads(out.read_text(encoding="utf-8")) == results
    assert [case["case"] for case in results["cases"]] == list(frameworks.CASES)
    assert all(case[clock]["ratio"]["median"] > 0 for case in results["cases"] for clock in frameworks.CLOCKS)
    assert results["sync"]["same"]["median_s"] > 0
