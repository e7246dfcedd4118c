"""Recorded runs: the right numbers, and what the command writes."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import numpy as np
import pytest

import labeltrack as lt

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_benchmark.fixture import BenchmarkFixture

if os.environ.get("LABELTRACK_REQUIRE_PEERS") != "1":
    for peer in ("polars", "duckdb", "pyarrow", "xxhash"):
        pytest.importorskip(peer, reason=f"{peer} is not installed (extras: bench, record)")

from recorded_runs import BATCH, main, make_run  # (after the peers, which it imports)


def test_recording(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    label, value = np.arange(BATCH, dtype=np.int32), np.ones(BATCH, np.float32)
    with lt.LabelTracker("y", "ce", record_to=lt.RecordingOptions(tmp_path / "run", fsync="never")) as tracker:
        benchmark(tracker.update, label, value)
        tracker.end_epoch(1)
    assert set(lt.open_run(tmp_path / "run").recompute(progress=False).at(1).mean.tolist()) == {1.0}


def test_recomputing(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    label, value = make_run(tmp_path / "run", 100_000, 10, 65_536)
    run = lt.open_run(tmp_path / "run")
    history = benchmark(run.recompute, progress=False)
    assert history.at(1).std.tobytes() == lt.label_stats(label, value).std.tobytes()


def test_the_command_writes_results(tmp_path: Path) -> None:
    out = tmp_path / "recorded.json"
    options = ["--rows", "20000", "--labels", "7", "--batches", "10", "--rounds", "2", "--folder", str(tmp_path)]
    results = main([*options, "--out", str(out)])
    assert json.loads(out.read_text(encoding="utf-8")) == results
    assert all(speed > 0 for speed in results["recompute"]["million_rows_per_s"].values())
    assert [path.name for path in tmp_path.iterdir()] == ["recorded.json"]
