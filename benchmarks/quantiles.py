"""Quantiles by label, beside what a user would pick instead.

Run from the root of the repository::

    python benchmarks/quantiles.py --render
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

import numpy as np
from cases import Array, Case
from harness import compare, disturbed, facts, measure, summary
from report import add_output, grid, machine, publish

import labeltrack as lt

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

FRACTIONS = (0.25, 0.5, 0.75)
OURS, OURS_SINGLE, WITHOUT = "labeltrack", "labeltrack, 1 thread", "labeltrack, without quantiles"
ADDED = "what quantiles add"
PEERS = ("polars", "duckdb", "pandas")
EVERYTHING = "polars, all statistics"


def labeltrack(labels: Array, values: Array, threads: int | None = None) -> Callable[[], Array]:
    """Return what computes all statistics and the quantiles; its answer is ``(Q, K)``."""

    def run() -> Array:
        stats = lt.label_stats(labels, values, threads=threads, quantiles=FRACTIONS)
        return np.array([stats.quantile(fraction) for fraction in FRACTIONS])

    return run


def polars(labels: Array, values: Array, *, everything: bool = False) -> Callable[[], Array]:
    """Return what computes quantiles alone, or with all the statistics that labeltrack gives, as polars does it."""
    import polars as pl  # noqa: PLC0415 (a peer, which may be missing)

    frame = pl.DataFrame({"label": labels, "value": values}).lazy()
    column = pl.col("value")
    wanted = [column.quantile(q, "linear").alias(f"q{q}") for q in FRACTIONS]
    if everything:
        double = column.cast(pl.Float64)
        wanted += [double.count().alias("n"), double.sum().alias("sum"), double.mean().alias("mean")]
        wanted += [double.std().alias("std"), column.min().alias("min"), column.max().alias("max")]

    def run() -> Array:
        found = frame.group_by("label").agg(wanted).sort("label").collect()
        table: Array = found.select([f"q{q}" for q in FRACTIONS]).to_numpy().T
        return table

    return run


def pandas(labels: Array, values: Array) -> Callable[[], Array]:
    """Return what computes quantiles alone, with pandas."""
    import pandas as pd  # noqa: PLC0415 (a peer, which may be missing)

    frame = pd.DataFrame({"label": labels, "value": values})

    def run() -> Array:
        found = frame.groupby("label")["value"].quantile(list(FRACTIONS))
        table: Array = found.to_numpy().reshape(-1, len(FRACTIONS)).T
        return table

    return run


def duckdb(labels: Array, values: Array) -> Callable[[], Array]:
    """Return what computes quantiles alone, with duckdb."""
    import duckdb as db  # noqa: PLC0415 (a peer, which may be missing)
    import pyarrow as pa  # noqa: PLC0415 (a peer, which may be missing)

    connection = db.connect()
    connection.register("samples", pa.table({"label": labels, "value": values}))
    asked = ", ".join(map(str, FRACTIONS))
    query = f"select quantile_cont(value, [{asked}]) as q from samples group by label order by label"  # noqa: S608 (numbers of ours)

    def run() -> Array:
        found: Array = np.stack(connection.execute(query).fetchnumpy()["q"]).T
        return found

    return run


def run_case(case: Case, rounds: int) -> dict[str, Any]:
    """Check everybody's answer, then time everybody.

    Raises:
        AssertionError: An answer is wrong; ours must be numpy's bit for bit.
    """
    labels, values = case.data()
    runs: dict[str, Callable[[], Array]] = {
        OURS: labeltrack(labels, values),
        OURS_SINGLE: labeltrack(labels, values, threads=1),
    }
    runs |= {"polars": polars(labels, values), "duckdb": duckdb(labels, values), "pandas": pandas(labels, values)}
    runs[EVERYTHING] = polars(labels, values, everything=True)
    occurring = np.unique(labels)
    some = np.unique(np.linspace(0, occurring.size - 1, 30).astype(int))
    doubles = values.astype(np.float64)
    wanted = np.array([np.quantile(doubles[labels == occurring[k]], FRACTIONS) for k in some]).T
    for name, run in runs.items():
        found = run()
        if found.shape != (len(FRACTIONS), occurring.size):
            msg = f"{name}: an answer of shape {found.shape}"
            raise AssertionError(msg)
        if name in (OURS, OURS_SINGLE):
            np.testing.assert_array_equal(found[:, some], wanted, name)
        else:  # in the precision of the values
            np.testing.assert_allclose(found[:, some], wanted, rtol=1e-6, err_msg=name)
    _ = lt.label_stats(labels, values)
    times = measure({**runs, WITHOUT: lambda: lt.label_stats(labels, values).std}, rounds)
    times[ADDED] = [max(whole - part, 1e-9) for whole, part in zip(times[OURS], times[WITHOUT], strict=True)]
    return {
        "samples": case.samples,
        "labels": case.labels,
        "values": case.value_dtype,
        "times": {name: summary(seconds) for name, seconds in times.items()},
        "ratios": {
            "1 thread": compare(times, OURS_SINGLE, PEERS),
            "default threads": compare(times, OURS, PEERS),
            "added": compare(times, ADDED, PEERS),
            "same statistics": compare(times, OURS, [EVERYTHING]),
        },
        "disturbed": disturbed(times),
    }


def markdown(results: dict[str, Any]) -> str:
    """Return the results as a table: million samples per second, and the ratio to the best peer."""
    cases = results["cases"]
    names = [OURS, OURS_SINGLE, *PEERS]
    rows = []
    for case in cases:
        speeds = [f"{case['samples'] / case['times'][name]['median_s'] / 1e6:.0f}" for name in names]
        ratio = f"{case['ratios']['default threads']['ratio']:.1f}"
        rows.append([f"{case['labels']:,}, {case['values']}", *speeds, ratio])
    lines = [
        *grid(["labels, values", *names, "labeltrack / best peer"], rows),
        "",
        f"Quartiles and median by label, {cases[0]['samples']:,} samples, in millions per second. labeltrack computes",
        "all its other statistics in that time, too; the others compute nothing else. Medians of interleaved rounds;",
        machine(results),
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Run the benchmark; return the results."""
    parser = argparse.ArgumentParser(description="Compare quantiles by label with what a user would pick instead.")
    parser.add_argument("--samples", type=int, default=10_000_000)
    parser.add_argument("--labels", type=int, nargs="+", default=[10, 1_000, 100_000])
    parser.add_argument("--rounds", type=int, default=7)
    add_output(parser, "quantiles")
    options = parser.parse_args(arguments)
    results: dict[str, Any] = {
        "schema": 1,
        "facts": facts(["labeltrack", "numpy", "numba", *PEERS]),
        "cases": [
            run_case(Case(options.samples, labels, "int32", values), options.rounds)
            for values in ("float32", "float64")
            for labels in options.labels
        ],
    }
    publish(results, markdown(results), options)
    return results


if __name__ == "__main__":
    main()
