"""Measure the group-by, write the results as JSON and show them.

Run from the root of the repository::

    python benchmarks/run.py --render
    python benchmarks/run.py --axis labels --most-labels 100000 --rounds 5
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from group_by import axes, present, run_case
from harness import facts
from report import figure, markdown, rewrite, summary, table

if TYPE_CHECKING:
    from collections.abc import Sequence

HERE = Path(__file__).resolve().parent
AXES = tuple(axes(1))
DISTRIBUTIONS = (
    "labeltrack",
    "numpy",
    "numba",
    "polars",
    "duckdb",
    "pandas",
    "pyarrow",
    "numpy_groupies",
    "numbagg",
    "torch",
    "torchmetrics",
)


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Run the benchmark; return the results."""
    parser = argparse.ArgumentParser(description="Compare labeltrack with what a user would pick instead.")
    parser.add_argument("--samples", type=int, default=10_000_000, help="on all axes but that of sizes")
    parser.add_argument("--rounds", type=int, default=9, help="at most, of each case")
    parser.add_argument("--seconds", type=float, default=25.0, help="about how long a case may take")
    parser.add_argument("--axis", choices=AXES, nargs="+", default=list(AXES), help="which axes")
    parser.add_argument("--most-labels", type=int, help="leave out cases with more labels")
    parser.add_argument("--most-samples", type=int, help="leave out cases with more samples")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "group_by.json")
    parser.add_argument("--render", action="store_true", help="also write tables and figure, and the README's")
    parser.add_argument("--again", action="store_true", help="do not measure, render what was measured before")
    parser.add_argument("--readme", type=Path, default=HERE.parent / "README.md", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    limits = (options.samples, options.rounds, options.most_labels or 1, options.most_samples or 1)
    if min(limits) < 1:
        parser.error("samples, rounds and limits must be positive")
    if options.again:
        results: dict[str, Any] = json.loads(options.out.read_text(encoding="utf-8"))
    else:
        results = _measured(options)
    print(table(results))
    if options.render:
        options.out.with_suffix(".md").write_text(markdown(results) + "\n", encoding="utf-8")
        figure(results, options.out.with_suffix(".png"))
        shown = [case for case in results["cases"] if case["axis"] == "labels"] or results["cases"]
        rewrite(options.readme, summary(results | {"cases": shown}))
    return results


def _measured(options: argparse.Namespace) -> dict[str, Any]:
    """Measure the cases of the axes; keep the results after each."""
    contestants, missing = present()
    if missing:
        print(f"not installed, so not measured: {', '.join(missing)}")
    results: dict[str, Any] = {"schema": 2, "facts": facts(DISTRIBUTIONS), "missing": missing, "cases": []}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    for axis, cases in axes(options.samples, options.most_labels, options.most_samples).items():
        for case in cases if axis in options.axis else []:
            print(f"{case} …", flush=True)
            entry = run_case(case, options.rounds, contestants, options.seconds)
            results["cases"].append({"axis": axis, **entry})
            options.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return results


if __name__ == "__main__":
    main()
