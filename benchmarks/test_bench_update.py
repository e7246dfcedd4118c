"""A batch and an end of an epoch: the right numbers, and with ``--benchmark-enable`` how long they take."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest
from cases import check, exact_reference
from update import BATCH, KINDS, LISTS, Kind, appended, check_kind, main, run_update, tracked

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_benchmark.fixture import BenchmarkFixture

BATCHES = 8
REQUIRE_FRAMEWORKS = os.environ.get("LABELTRACK_REQUIRE_FRAMEWORKS") == "1"


def require(kind: Kind) -> None:
    """Skip if the framework is missing, unless the environment says that it must not be."""
    if kind.missing() and not REQUIRE_FRAMEWORKS:
        pytest.importorskip(kind.module, reason=f"{kind.module} is not installed (extra: frameworks)")


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_update(request: pytest.FixtureRequest, kind: Kind) -> None:
    require(kind)  # before the fixture, which complains if it is not used
    benchmark: BenchmarkFixture = request.getfixturevalue("benchmark")
    benchmark.group = f"{BATCHES} batches of {kind.size}"
    batches = kind.batches(BATCHES)
    check_kind(kind, BATCHES)
    record, end = tracked(batches)

    def empty() -> None:  # what a setup returns would be taken for arguments
        end()

    # One round an epoch, emptied off the clock: the buffers must not grow as long as the benchmark lasts.
    benchmark.pedantic(record, setup=empty, rounds=200)  # type: ignore[no-untyped-call]


def test_appending_in_python(benchmark: BenchmarkFixture) -> None:
    benchmark.group = f"{BATCHES} batches of {BATCH}"
    kind = next(kind for kind in KINDS if kind.name == LISTS)
    record, end = appended(kind.batches(BATCHES))
    check("appending", end(record()), exact_reference(*kind.samples(BATCHES)), rtol=0.0)
    benchmark.pedantic(record, rounds=200)  # type: ignore[no-untyped-call]


def test_end_epoch(benchmark: BenchmarkFixture) -> None:
    batches = KINDS[0].batches(BATCHES)
    check_kind(KINDS[0], BATCHES)
    record, end = tracked(batches)
    benchmark.pedantic(end, setup=record, rounds=50)  # type: ignore[no-untyped-call]


def test_a_missing_framework_is_named() -> None:
    results = run_update(8, 1, [*KINDS[:1], Kind("x", module="no_such_library")])
    assert results["missing"] == ["no_such_library"]
    assert "update(), x" not in results["update"]


def test_the_command_writes_results(tmp_path: Path) -> None:
    main(["--batches", "8", "--rounds", "2", "--out", str(tmp_path / "update.json")])
    results = json.loads((tmp_path / "update.json").read_text(encoding="utf-8"))
    assert results["batches"] == 8
    assert all(row["median_s"] > 0 for row in (results["update"] | results["end"]).values())
