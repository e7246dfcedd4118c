"""Measure the group-by, write the results as JSON and show them.

Run from the root of the repository::

    python benchmarks/run.py --samples 10000000 --rounds 7 --render
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from group_by import LABELS, default_cases, present, run_case
from harness import facts
from report import markdown, rewrite, table
from rich.console import Console

if TYPE_CHECKING:
    from collections.abc import Sequence

HERE = Path(__file__).resolve().parent
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
)


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Run the benchmark; return the results."""
    parser = argparse.ArgumentParser(description="Compare labeltrack with what a user would pick instead.")
    parser.add_argument("--samples", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--labels", type=int, nargs="+", default=list(LABELS), help="numbers of labels")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "group_by.json")
    parser.add_argument("--render", action="store_true", help="also rewrite the table in the README")
    parser.add_argument("--readme", type=Path, default=HERE.parent / "README.md", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.samples < 1 or options.rounds < 1 or min(options.labels) < 1:
        parser.error("samples, rounds and labels must be positive")
    console = Console()
    contestants, missing = present()
    if missing:
        console.print(f"[bold red]not installed, so not measured: {', '.join(missing)}")
    results: dict[str, Any] = {
        "schema": 1,
        "facts": facts(DISTRIBUTIONS),
        "rounds": options.rounds,
        "missing": missing,
        "cases": [],
    }
    for case in default_cases(options.samples, options.labels):
        console.print(f"{case} …")
        results["cases"].append(run_case(case, options.rounds, contestants))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    console.print(table(results))
    if options.render:
        rewrite(options.readme, markdown(results))
    return results


if __name__ == "__main__":
    main()
