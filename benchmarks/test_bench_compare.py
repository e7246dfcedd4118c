"""Two versions side by side: the same answers, and every workload once."""

from __future__ import annotations

import json
from pathlib import Path

import compare
import pytest

ROOT = Path(__file__).resolve().parent.parent


def test_a_version_beside_itself_gives_the_same_bits_on_every_workload(tmp_path: Path) -> None:
    out = tmp_path / "compare.json"
    options = ["--samples", "3000", "--threads", "1", "--seconds", "0", "--only", "warm", "--out", str(out)]
    results = compare.main([str(ROOT), *options])
    assert json.loads(out.read_text(encoding="utf-8")) == results
    calls = {row["workload"].partition(":")[0] for row in results["workloads"]}
    assert calls == {"stats", "quantiles", "epoch", "update"}
    assert all(row["ratio"] > 0 and row["rounds"] == 5 for row in results["workloads"])


def test_versions_that_disagree_are_not_timed(tmp_path: Path) -> None:
    (tmp_path / "labeltrack").mkdir()
    (tmp_path / "labeltrack" / "__init__.py").write_text(
        "import sys\n"
        f"sys.path[0] = {str(ROOT)!r}\n"
        "del sys.modules['labeltrack']\n"
        "import labeltrack\n"
        "right = labeltrack.label_stats\n"
        "labeltrack.label_stats = lambda labels, values, **more: right(labels, values + 1, **more)\n",
        encoding="utf-8",
    )
    with pytest.raises(AssertionError, match="the versions disagree"):
        compare.main([str(tmp_path), "--samples", "3000", "--threads", "1", "--only", "warm", "gamma"])
