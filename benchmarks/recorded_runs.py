"""Measure what recording costs the training loop, and how fast a recorded run is recomputed, beside peers on its files.

Run from the root of the repository::

    python benchmarks/recorded_runs.py --render
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pyarrow.dataset
from harness import compare, disturbed, facts, measure, summary
from report import add_output, grid, machine, publish

import labeltrack as lt

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

BATCH = 256
OFF, ON = "not recording", "recording"
LIVE, RECOMPUTE = "kernel on arrays in memory", "recompute"
POLARS, DUCKDB = "polars.scan_ipc", "duckdb"


# -- what recording costs ---------------------------------------------------------------------------------


def per_batch(folder: Path, batches: int, rounds: int, labels: int) -> dict[str, Any]:
    """Measure the median of `update()` on a batch of 256, with and without recording, in interleaved rounds.

    Args:
        folder: Where to record.
        batches: In a round, which is an epoch.
        rounds: How many.
        labels: How many there are.

    Returns:
        Nanoseconds a batch: median and mean of each, and what recording adds in the median round.
    """
    rng = np.random.default_rng(0)
    label = rng.integers(0, labels, BATCH).astype(np.int32)
    value = rng.random(BATCH, dtype=np.float32)
    trackers = {
        OFF: lt.LabelTracker("y", "ce"),
        ON: lt.LabelTracker("y", "ce", record_to=lt.RecordingOptions(folder / "cost", fsync="never")),
    }
    medians: dict[str, list[float]] = {name: [] for name in trackers}
    means: dict[str, list[float]] = {name: [] for name in trackers}
    for step in range(rounds + 1):
        for name, tracker in trackers.items():
            took = np.empty(batches, np.int64)
            update, clock = tracker.update, time.perf_counter_ns
            for i in range(batches):
                start = clock()
                update(label, value)
                took[i] = clock() - start
            tracker.end_epoch(step)
            tracker.flush()
            if step:  # in the first one, memory grows
                medians[name].append(float(np.median(took)))
                means[name].append(float(np.mean(took)))
    trackers[ON].close()
    counts = lt.open_run(folder / "cost").recompute(progress=False).at(rounds).count
    if int(counts.sum()) != batches * BATCH:
        msg = "the run does not have what was recorded"
        raise AssertionError(msg)
    return {
        "median_ns": {name: float(np.median(some)) for name, some in medians.items()},
        "mean_ns": {name: float(np.median(some)) for name, some in means.items()},
        "added_median_ns": float(np.median(np.subtract(medians[ON], medians[OFF]))),
        "added_mean_ns": float(np.median(np.subtract(means[ON], means[OFF]))),
    }


def sustained(folder: Path, rows: int, rounds: int) -> dict[str, Any]:
    """Measure how many rows per second go to the page cache, from the first `update()` to the last byte written.

    Args:
        folder: Where to record.
        rows: In a round.
        rounds: How many.
    """
    rng = np.random.default_rng(0)
    label = rng.integers(0, 1000, BATCH).astype(np.int32)
    value = rng.random(BATCH, dtype=np.float32)
    tracker = lt.LabelTracker("y", "ce", record_to=lt.RecordingOptions(folder / "sustained", fsync="never"))
    took = []
    for step in range(rounds + 1):
        start = time.perf_counter()
        for _ in range(rows // BATCH):
            tracker.update(label, value)
        tracker.flush()
        took.append(time.perf_counter() - start)
        tracker.end_epoch(step)
        tracker.flush()
        for part in folder.rglob(
            "*.arrow"
        ):  # or the system begins to write old rounds to disk in the middle of new ones
            part.unlink()
    tracker.close()
    shutil.rmtree(folder / "sustained")
    return {"rows": rows, "million_rows_per_s": rows / float(np.median(took[1:])) / 1e6}


# -- recomputing ------------------------------------------------------------------------------------------


def make_run(
    folder: Path, rows: int, labels: int, flush_rows: int
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Record a run of one epoch, and return its samples."""
    rng = np.random.default_rng(0)
    label = rng.integers(0, labels, rows).astype(np.int32)
    value = rng.random(rows, dtype=np.float32)
    recording = lt.RecordingOptions(folder, flush_rows=flush_rows, fsync="never")
    with lt.LabelTracker("y", "ce", record_to=recording) as tracker:
        for start in range(0, rows, 4096):
            tracker.update(label[start : start + 4096], value[start : start + 4096])
        tracker.end_epoch(1)
    return label, value


def _polars(files: list[Path]) -> Any:
    column = pl.col("value").cast(pl.Float64)
    parts = [column.count().alias("count"), column.sum().alias("sum"), column.mean().alias("mean")]
    parts += [column.std().alias("std"), column.min().alias("min"), column.max().alias("max")]
    return pl.scan_ipc(files).group_by("label").agg(parts).sort("label").collect()


def _duckdb(files: list[Path]) -> Any:
    import duckdb  # noqa: PLC0415

    connection = duckdb.connect()
    connection.register("recorded", pyarrow.dataset.dataset([str(file) for file in files], format="ipc"))
    query = (
        "select label, count(*), sum(value::double), avg(value::double), stddev_samp(value::double) as std, "
        "min(value), max(value) from recorded group by label order by label"
    )
    return connection.execute(query).fetchnumpy()


def recomputed(folder: Path, rows: int, labels: int, rounds: int, flush_rows: int) -> dict[str, Any]:
    """Measure recomputing a run from a warm page cache, beside the kernel on arrays and peers on the same files.

    Args:
        folder: Where to record it.
        rows: How many.
        labels: How many there are.
        rounds: How many.
        flush_rows: Rows of a batch.
    """
    label, value = make_run(folder / "run", rows, labels, flush_rows)
    files = sorted((folder / "run").glob("mode=train/**/*.arrow"))
    run = lt.open_run(folder / "run")
    live = lt.label_stats(label, value)
    stats = run.recompute(progress=False).at(1)
    for name in ("count", "sum", "mean", "std", "min", "max"):
        if stats.column(name).tobytes() != live.column(name).tobytes():
            msg = f"{name} of the recomputed run differs"
            raise AssertionError(msg)
    table, found = _polars(files), _duckdb(files)
    np.testing.assert_allclose(table["std"].to_numpy(), live.std, rtol=1e-6)
    np.testing.assert_array_equal(table["count"].to_numpy(), live.count)
    np.testing.assert_allclose(found["std"], live.std, rtol=1e-6)
    runs: dict[str, Callable[[], Any]] = {}
    for threads in (1, 2):
        runs[f"{LIVE}, {_threads(threads)}"] = partial(lt.label_stats, label, value, threads=threads)
        runs[f"{RECOMPUTE}, {_threads(threads)}"] = partial(run.recompute, threads=threads, progress=False)
    runs[POLARS] = partial(_polars, files)
    runs[DUCKDB] = partial(_duckdb, files)
    times = measure(runs, rounds)
    ratios = {}
    for threads in (1, 2):
        name = _threads(threads)
        of_kernel = compare(times, f"{RECOMPUTE}, {name}", [f"{LIVE}, {name}"])
        ratios[f"of the kernel, {name}"] = of_kernel
        ratios[f"of the best peer, {name}"] = compare(times, f"{RECOMPUTE}, {name}", [POLARS, DUCKDB])
    return {
        "rows": rows,
        "labels": labels,
        "flush_rows": flush_rows,
        "times": {name: summary(seconds) for name, seconds in times.items()},
        "million_rows_per_s": {name: rows / float(np.median(seconds)) / 1e6 for name, seconds in times.items()},
        "ratios": ratios,
        "disturbed": disturbed(times),
    }


def _threads(n: int) -> str:
    return "1 thread" if n == 1 else f"{n} threads"


# -- the command ------------------------------------------------------------------------------------------


def markdown(results: dict[str, Any]) -> str:
    """Return the results as docs/performance.md has them."""
    run, cost = results["recompute"], results["cost"]
    rows = []
    for name, speed in run["million_rows_per_s"].items():
        of, _, threads = name.partition(", ")
        ratios = ["", ""]
        if of == RECOMPUTE:
            kernel, peer = (run["ratios"][f"of the {what}, {threads}"]["ratio"] for what in ("kernel", "best peer"))
            ratios = [f"{kernel:.2f}", f"{peer:.1f}"]
        rows.append([name, f"{speed:.0f}", *ratios])
    recording = (
        f"Recording adds {cost['added_median_ns'] / 1000:.2f} µs to the median `update()` of 256 samples (mean: "
        f"{cost['added_mean_ns'] / 1000:.2f} µs), and sustains "
        f"{results['sustained']['million_rows_per_s']:.0f} million rows per second in batches of 256."
    )
    lines = [
        *grid(["", "million rows/s", "share of the kernel's speed", "× the best peer"], rows),
        "",
        f"A run of {run['rows']:,} rows (int32 labels, float32 values) with {run['labels']:,} labels, from a warm page",
        "cache. labeltrack compares every checksum; the peers compare none, and use plain float64. Medians of",
        f"interleaved rounds; {machine(results)}",
        "",
        recording,
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure, print, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--rows", type=int, default=100_000_000)
    parser.add_argument("--labels", type=int, default=1000)
    parser.add_argument("--batches", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--flush-rows", type=int, default=lt.RecordingOptions("").flush_rows)
    parser.add_argument("--folder", type=Path, default=None, help="where to record; a temporary folder by default")
    add_output(parser, "recorded_runs")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        folder = Path(temporary)
        results: dict[str, Any] = {
            "facts": facts(["labeltrack", "numpy", "numba", "pyarrow", "xxhash", "polars", "duckdb"]),
            "cost": per_batch(folder, options.batches, options.rounds, options.labels),
            "sustained": sustained(folder, min(options.rows, 50_000_000), min(options.rounds, 5)),
            "recompute": recomputed(folder, options.rows, options.labels, options.rounds, options.flush_rows),
        }
    publish(results, markdown(results), options)
    return results


if __name__ == "__main__":
    main()
