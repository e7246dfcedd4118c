"""Merging, memory and the first call: the right numbers, and what the command writes."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

if os.environ.get("LABELTRACK_REQUIRE_PEERS") != "1":
    pytest.importorskip("polars", reason="polars is not installed (extra: bench)")

import costs

LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read from /proc")


@LINUX
def test_the_command_writes_results_and_the_table(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- costs:begin --><!-- costs:end -->", encoding="utf-8")
    options = ["--scale", "0.05", "--rounds", "1", "--out", str(tmp_path / "costs.json")]
    results = costs.main([*options, "--render", "--page", str(page)])
    assert json.loads((tmp_path / "costs.json").read_text(encoding="utf-8")) == results
    assert 5 < results["memory"]["bytes_a_sample_held"] < 12  # eight, and what is rounded up to chunks and pages
    assert set(results["appends"]["slowest"]) == {"first", "second"}
    assert sum(line.startswith("| ") for line in page.read_text(encoding="utf-8").splitlines()) == 11


@pytest.mark.parametrize(("states", "labels"), [(50, 20), (3, 4000)])
def test_merging_is_checked_before_it_is_timed(states: int, labels: int) -> None:
    entry = costs.merges(states, labels, 1)
    assert (entry["states"], entry["labels"]) == (states, labels)
    assert entry["ratio"]["ratio"] > 0
