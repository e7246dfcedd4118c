"""The FastEstimator trace: the answers of the original, and with ``--benchmark-enable`` how long both take."""

from __future__ import annotations

import importlib.util
import json
import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_benchmark.fixture import BenchmarkFixture

if importlib.util.find_spec("fastestimator") is None and os.environ.get("LABELTRACK_REQUIRE_FASTESTIMATOR") != "1":
    pytest.skip("FastEstimator is not installed: `nox -s fastestimator` does that", allow_module_level=True)

from fastestimator_trace import KINDS, OURS, THEIRS, TRACES, Run, batches, main

BATCHES = 8


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [THEIRS, OURS])
def test_on_batch_end(benchmark: BenchmarkFixture, kind: str, name: str) -> None:
    benchmark.group = f"{BATCHES} batches of {kind}"
    data = batches(kind, BATCHES)
    run = Run(TRACES[name], data)
    assert run.contents() == Run(TRACES[THEIRS], data).contents()
    benchmark.pedantic(run.record, setup=run.forget, rounds=50)  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("name", [THEIRS, OURS])
def test_on_epoch_end(benchmark: BenchmarkFixture, name: str) -> None:
    data = batches("numpy", BATCHES)
    run = Run(TRACES[name], data)
    assert run.contents() == Run(TRACES[THEIRS], data).contents()
    benchmark.pedantic(run.end, setup=run.record, rounds=20)  # type: ignore[no-untyped-call]


def test_the_command_writes_results_and_the_table(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- fastestimator:begin -->\n<!-- fastestimator:end -->\nafter\n", encoding="utf-8")
    out = tmp_path / "results.json"
    main(["--batches", "8", "--rounds", "2", "--out", str(out), "--render", "--page", str(page)])
    results = json.loads(out.read_text(encoding="utf-8"))
    assert set(results["kinds"]) == set(KINDS)
    text = page.read_text(encoding="utf-8")
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert all(f"| {kind} |" in text for kind in KINDS)
