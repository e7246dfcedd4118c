"""The table of a recorded run by sample id, beside polars and pandas on the same rows.

Run from the root of the repository::

    python benchmarks/dynamics.py
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from harness import compare, facts, measure, summary
from report import add_output, grid, machine, publish

import labeltrack as lt

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

LABELS = 1000
BATCH = 8192
OURS, READ, STATS, POLARS, PANDAS = "labeltrack", "reading", "label_stats by epoch", "polars", "pandas"


def make_run(folder: Path, n: int, epochs: int) -> lt.Run:
    """Record losses and hits of n samples, in another order in each epoch."""
    rng = np.random.default_rng(0)
    label = rng.integers(0, LABELS, n).astype(np.int32)
    options = lt.RecordingOptions(folder, fsync="never")
    with lt.TrackerCollection("y", metrics=["ce", "correct"], record_to=options) as tracker:
        for epoch in range(epochs):
            ids = rng.permutation(n)
            for start in range(0, n, BATCH):
                batch = ids[start : start + BATCH]
                loss = rng.standard_exponential(batch.size, dtype=np.float32)
                hit = (loss < np.log(2)).astype(np.float32)
                tracker.update(label[batch], {"ce": loss, "correct": hit}, ids=batch)
            tracker.end_epoch(epoch)
    return lt.open_run(folder)


def _polars(files: Sequence[Path]) -> pl.DataFrame:
    loss, hit = pl.col("ce").cast(pl.Float64), pl.col("correct").cast(pl.Float64)
    p = (-loss).exp()
    columns = {
        "label": pl.col("y").first(),
        "count": loss.count(),
        "mean": loss.mean(),
        "std": loss.std(),
        "min": loss.min(),
        "max": loss.max(),
        "first": loss.first(),
        "last": loss.last(),
        "confidence": p.mean(),
        "variability": p.std(ddof=0),
        "forgetting": ((hit.shift(1) == 1) & (hit == 0)).sum(),
        "correctness": hit.mean(),
    }
    table = pl.scan_ipc(files).rename({"label": "y"}, strict=False)
    return table.group_by("id").agg(**columns).sort("id").collect()


def _pandas(files: Sequence[Path]) -> Any:
    table = pl.scan_ipc(files).rename({"label": "y"}, strict=False).collect().to_pandas()
    table = table.astype({"ce": np.float64, "correct": np.float64})
    table["p"] = np.exp(-table["ce"])
    by_id = table.groupby("id", sort=True)
    before = by_id["correct"].shift(1)
    table["forgotten"] = (before == 1) & (table["correct"] == 0)
    found = by_id["ce"].agg(["count", "mean", "std", "min", "max", "first", "last"])
    return found.assign(
        label=by_id["y"].first(),
        confidence=by_id["p"].mean(),
        variability=by_id["p"].std(ddof=0),
        forgetting=table.groupby("id", sort=True)["forgotten"].sum(),
        correctness=by_id["correct"].mean(),
    )


def checked(ours: lt.Dynamics, table: Any, name: str) -> None:
    """Raise an AssertionError unless a peer has the same numbers, apart from rounding."""
    for column, found in ours.columns().items():
        if column in table and column != "id":
            # float32 probabilities of float32 losses
            rtol, atol = (1e-5, 1e-6) if column in ("confidence", "variability") else (1e-9, 1e-9)
            np.testing.assert_allclose(np.asarray(table[column], float), found, rtol, atol, err_msg=f"{name}: {column}")


def measured(folder: Path, n: int, epochs: int, rounds: int, *, pandas: bool) -> dict[str, Any]:
    """Return the times of all, whose answers are compared before."""
    run = make_run(folder, n, epochs)
    files = sorted(folder.glob("mode=train/**/*.arrow"), key=lambda path: int(path.parent.name.partition("=")[2]))
    tables = [run.samples(step=step) for step in range(epochs)]
    rows = [tuple(table[name].to_numpy() for name in ("id", "ce")) for table in tables]
    del tables
    runs: dict[str, Callable[[], Any]] = {
        OURS: lambda: run.dynamics(progress=False),
        READ: lambda: [run.samples(step=step).num_rows for step in range(epochs)],
        STATS: lambda: [lt.label_stats(ids, losses).mean for ids, losses in rows],
        POLARS: lambda: _polars(files),
    }
    ours = run.dynamics(progress=False)
    everything = lt.label_stats(*(np.concatenate(column) for column in zip(*rows, strict=True)))
    np.testing.assert_array_equal(ours.mean, everything.mean)
    np.testing.assert_array_equal(ours.std, everything.std)
    del everything
    checked(ours, _polars(files), POLARS)
    if pandas:
        runs[PANDAS] = lambda: _pandas(files)
        checked(ours, _pandas(files), PANDAS)
    times = measure(runs, rounds)
    return {
        "ids": n,
        "epochs": epochs,
        "times": {name: summary(seconds) for name, seconds in times.items()},
        "million_rows_per_s": {name: n * epochs / float(np.median(each)) / 1e6 for name, each in times.items()},
        "ratio": compare(times, OURS, [name for name in runs if name in (POLARS, PANDAS)]),
    }


def markdown(results: dict[str, Any]) -> str:
    """Return the results as a table."""
    rows = []
    for case in results["cases"]:
        speeds = case["million_rows_per_s"]
        cells = [f"{speeds[name]:.1f}" if name in speeds else "–" for name in (OURS, POLARS, PANDAS, READ, STATS)]
        rows.append([f"{case['ids']:,} × {case['epochs']}", *cells, f"{case['ratio']['ratio']:.1f}"])
    head = ["ids × epochs", OURS, POLARS, PANDAS, READ, STATS, "× the best peer"]
    notes = [
        "Million rows per second, medians of interleaved rounds, from a warm page cache. The peers compare no",
        "checksums and sum in plain float64. For scale: reading all columns, which compares them; and `label_stats` of",
        "ids and losses in memory, once per epoch, which has the statistics of the losses alone.",
        machine(results),
    ]
    return "\n".join([*grid(head, rows), "", *notes])


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Run the benchmark; return the results."""
    parser = argparse.ArgumentParser(description="Measure the table by sample id.")
    parser.add_argument("--ids", type=int, nargs="+", default=[50_000, 1_000_000, 10_000_000])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--most-pandas", type=int, default=1_000_000, help="ids up to which pandas takes part")
    parser.add_argument("--folder", type=Path, default=None, help="where to record; a temporary folder by default")
    add_output(parser, "dynamics", None)
    options = parser.parse_args(arguments)
    versions = facts(["labeltrack", "numpy", "numba", "polars", "pandas", "pyarrow"])
    results: dict[str, Any] = {"facts": versions, "cases": []}
    for n in options.ids:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            case = measured(Path(folder), n, options.epochs, options.rounds, pandas=n <= options.most_pandas)
            results["cases"].append(case)
    publish(results, markdown(results), options)
    return results


if __name__ == "__main__":
    main()
