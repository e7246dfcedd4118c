"""What else costs time or memory: merging states, samples that are held, labels, first calls, and the slowest append.

Run from the root of the repository::

    python benchmarks/costs.py --render
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from harness import compare, facts, measure, summary
from report import add_output, grid, machine, publish

import labeltrack as lt

if TYPE_CHECKING:
    from collections.abc import Sequence

OURS, POLARS = "merge_stats", "polars"


def merges(states: int, labels: int, rounds: int) -> dict[str, Any]:
    """Measure merging the statistics of parts, beside polars adding up plain partial sums.

    Args:
        states: How many parts.
        labels: Of each; about two thirds of all labels there are.
        rounds: How many.
    """
    import polars as pl  # noqa: PLC0415 (a peer, which may be missing)

    rng = np.random.default_rng(0)
    parts, frames = [], []
    for _ in range(states):
        keys = np.sort(rng.choice(labels * 3 // 2, labels, replace=False))
        values = rng.standard_exponential(labels)
        parts.append(lt.label_stats(keys, values))
        columns = {"label": keys, "n": np.ones(labels, dtype=np.int64), "sum": values, "squares": values * values}
        frames.append(pl.DataFrame(columns | {"min": values, "max": values}))

    def ours() -> lt.LabelStats:
        merged = lt.merge_stats(parts)
        _ = merged.std
        return merged

    sums = [pl.col(name).sum() for name in ("n", "sum", "squares")]

    def theirs() -> Any:
        together = pl.concat(frames).lazy()
        return together.group_by("label").agg(*sums, pl.col("min").min(), pl.col("max").max()).sort("label").collect()

    merged, added = ours(), theirs()
    np.testing.assert_array_equal(merged.count, added["n"].to_numpy())
    np.testing.assert_allclose(merged.sum, added["sum"].to_numpy(), rtol=1e-12)
    # Bit for bit what one pass over everything gives.
    whole = lt.label_stats(
        np.concatenate([f["label"].to_numpy() for f in frames]), np.concatenate([f["sum"] for f in frames])
    )
    for name in ("sum", "mean", "std", "min", "max"):
        np.testing.assert_array_equal(merged.column(name), whole.column(name))
    times = measure({OURS: ours, POLARS: theirs}, rounds)
    return {
        "states": states,
        "labels": labels,
        "times": {name: summary(seconds) for name, seconds in times.items()},
        "ratio": compare(times, OURS, [POLARS]),
    }


HELD = """
import sys, numpy as np, labeltrack as lt
def now(key):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(key))
def forget():
    open("/proc/self/clear_refs", "w").write("5")
samples, labels, threads = map(int, sys.argv[1:])
rng = np.random.default_rng(0)
label, value = rng.integers(0, labels, 1 << 16).astype(np.int32), rng.random(1 << 16, dtype=np.float32)
tracker = lt.LabelTracker("y", "ce", max_buffer_bytes=2**40)
tracker.update(label, value)
tracker.end_epoch(0)
before = now("VmRSS")
for start in range(0, samples, 1 << 16):
    tracker.update(label, value)
held = now("VmRSS") - before
big = rng.integers(0, labels, 4 * labels).astype(np.int32)
ones = rng.random(big.size, dtype=np.float32)
lt.label_stats(big[:70000], ones[:70000], threads=threads)
before = now("VmRSS")
forget()
stats = lt.label_stats(big, ones, threads=threads)
peak = now("VmHWM") - before
print(held, peak, len(stats))
"""


def memory(samples: int, labels: int) -> dict[str, Any]:
    """Measure the bytes that a sample takes while it is held, and what a reduction takes a label beyond the samples."""
    found: dict[str, Any] = {"samples": samples, "labels": labels}
    for threads in (1, 2):
        command = [sys.executable, "-c", HELD, str(samples), str(labels), str(threads)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 (this Python, and code of ours)
        held, peak, occurring = map(int, done.stdout.split())
        found["bytes_a_sample_held"] = held / samples
        found[f"peak_bytes_a_label, {threads} threads"] = peak / occurring
    return found


FIRST = """
import time
start = time.perf_counter()
import numpy as np, labeltrack as lt
imported = time.perf_counter()
rng = np.random.default_rng(0)
label, value = rng.integers(0, 1000, {samples}).astype(np.int32), rng.random({samples}, dtype=np.float32)
ready = time.perf_counter()
stats = lt.label_stats(label, value)
stats.std
done = time.perf_counter()
print(imported - start, done - ready)
"""


def cold_start(samples: int, rounds: int) -> dict[str, Any]:
    """Measure import and first result of a fresh process, with and without compiled kernels in the cache."""
    times: dict[str, list[float]] = {"with the cache": [], "without": []}
    with tempfile.TemporaryDirectory() as folder:
        for i in range(rounds):
            environment = {**os.environ, "NUMBA_CACHE_DIR": str(Path(folder) / str(i))}
            for name in ("without", "with the cache"):
                command = [sys.executable, "-c", FIRST.format(samples=samples)]
                done = subprocess.run(  # noqa: S603 (this Python, and code of ours)
                    command, capture_output=True, text=True, check=True, env=environment
                )
                times[name].append(sum(map(float, done.stdout.split())))
    return {"samples": samples, "times": {name: summary(seconds) for name, seconds in times.items()}}


APPENDS = """
import time, numpy as np, labeltrack as lt
rng = np.random.default_rng(0)
label, value = rng.integers(0, 1000, 1 << 20).astype(np.int32), rng.random(1 << 20, dtype=np.float32)
batches = [(label[i : i + 256], value[i : i + 256]) for i in range(0, 1 << 20, 256)]
tracker = lt.LabelTracker("y", "ce", max_buffer_bytes=2**40)
for epoch in range(2):
    seconds = np.zeros({samples} // 256)
    for i in range(seconds.size):
        batch = batches[i % len(batches)]
        start = time.perf_counter()
        tracker.update(*batch)
        seconds[i] = time.perf_counter() - start
    print(seconds.max())
    tracker.end_epoch(epoch)
"""


def appends(samples: int, rounds: int) -> dict[str, Any]:
    """Measure the slowest `update` of the first two epochs of a process, in batches of 256."""
    slowest: dict[str, list[float]] = {"first": [], "second": []}
    for _ in range(rounds):
        command = [sys.executable, "-c", APPENDS.format(samples=samples)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 (this Python, and code of ours)
        for epoch, line in zip(slowest, done.stdout.splitlines(), strict=True):
            slowest[epoch].append(float(line))
    return {"samples": samples, "slowest": {epoch: summary(seconds) for epoch, seconds in slowest.items()}}


def flat(sizes: Sequence[int], rounds: int) -> dict[str, Any]:
    """Measure what a sample costs on one thread, one reduction right after the other."""
    rng = np.random.default_rng(0)
    label = rng.integers(0, 1000, max(sizes)).astype(np.int32)
    value = rng.standard_exponential(max(sizes), dtype=np.float32)
    seconds: dict[int, list[float]] = {size: [] for size in sizes}
    for _ in range(rounds):
        for size in sizes:
            for turn in range(1 + max(2, min(50, max(sizes) // size))):
                start = time.perf_counter()
                _ = lt.label_stats(label[:size], value[:size], threads=1).std
                if turn:  # the first brings the samples into the caches that hold them
                    seconds[size].append((time.perf_counter() - start) / size)
    return {str(size): summary(found) for size, found in seconds.items()}


def markdown(results: dict[str, Any]) -> str:
    """Return the results as a table."""
    rows = []
    for entry in results["merges"]:
        took, ratio = entry["times"][OURS]["median_s"] * 1e3, entry["ratio"]["ratio"]
        figure = f"{took:.0f} ms; {ratio:.1f} times as fast as polars, which adds rounded partial sums"
        rows.append([f"merging {entry['states']:,} states of {entry['labels']:,} labels", figure])
    held = results["memory"]
    peaks = [held[f"peak_bytes_a_label, {threads} threads"] for threads in (1, 2)]
    what = "memory per sample until the epoch ends, int32 labels and float32 values"
    rows.append([what, f"{held['bytes_a_sample_held']:.1f} bytes"])
    what = f"peak memory while reducing to {held['labels']:,} labels, besides the samples"
    rows.append([what, f"{peaks[0]:.0f} bytes per label on one thread, {peaks[1]:.0f} on two"])
    start, appended = results["cold_start"], results["appends"]
    what = f"import and first result in a fresh process, {start['samples']:,} samples"
    rows += [[f"{what}, {name}", f"{seconds['median_s']:.2f} s"] for name, seconds in start["times"].items()]
    what = f"slowest `update` of {appended['samples']:,} samples in batches of 256"
    rows += [
        [f"{what}, {epoch} epoch", f"{each['median_s'] * 1e3:.1f} ms"] for epoch, each in appended["slowest"].items()
    ]
    sizes = " / ".join(f"{int(size):,}" for size in results["flat"])
    each = " / ".join(f"{row['median_s'] * 1e9:.2f}" for row in results["flat"].values())
    rows.append([f"time per sample for {sizes} samples, one thread, back to back", f"{each} ns"])
    return "\n".join([*grid(["what", "figure"], rows, text=2), "", machine(results)])


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Run the benchmarks; return the results."""
    parser = argparse.ArgumentParser(description="Measure merging, memory and the first call of a process.")
    parser.add_argument("--scale", type=float, default=1.0, help="of all sizes")
    parser.add_argument("--rounds", type=int, default=7)
    add_output(parser, "costs")
    options = parser.parse_args(arguments)

    def scaled(number: int) -> int:
        return max(2, int(number * options.scale))

    results: dict[str, Any] = {
        "schema": 1,
        "facts": facts(["labeltrack", "numpy", "numba", "polars"]),
        "merges": [
            merges(scaled(1000), 1000, options.rounds),
            merges(16, scaled(1_000_000), options.rounds),
        ],
        "memory": memory(scaled(20_000_000), scaled(1_000_000)),
        "cold_start": cold_start(scaled(1_000_000), options.rounds),
        "flat": flat([scaled(10**power) for power in (6, 7, 8)], options.rounds),
        "appends": appends(scaled(100_000_000), options.rounds),
    }
    publish(results, markdown(results), options)
    return results


if __name__ == "__main__":
    main()
