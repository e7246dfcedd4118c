"""Several labels per sample beside one label with as many values, and masks beside leaving samples out beforehand.

Run from the root of the repository::

    python benchmarks/slices.py
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

import numpy as np
from harness import compare, facts, measure, summary
from report import add_output, publish

import labeltrack as lt

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

LEFT, RIGHT = 1000, 20
SHARES = (0.1, 0.5, 0.9)
BATCHES = (256, 4096, 65_536)


def measured(runs: dict[str, Callable[[], lt.LabelStats]], rounds: int) -> dict[str, Any]:
    """Return the times of calls that must have the same result; how fast the first is, the second being 1."""
    one, other = (stats() for stats in runs.values())
    for name in ("count", "sum", "std", "min", "max"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    times = measure(runs, rounds, rest=0.0)
    first, second = runs
    return {"times": {name: summary(each) for name, each in times.items()}, "ratio": compare(times, first, [second])}


def cases(n: int, threads: int) -> dict[str, dict[str, Callable[[], lt.LabelStats]]]:
    """Return pairs of calls on so many samples that give the same."""
    rng = np.random.default_rng(0)
    left, right = rng.integers(0, LEFT, n), rng.integers(0, RIGHT, n)
    values, one = rng.standard_exponential(n).astype(np.float32), left * RIGHT + right

    def stats(labels: Any, values: Any, **more: Any) -> lt.LabelStats:
        found = lt.label_stats(labels, values, threads=threads, **more)
        _ = found.mean
        return found

    def masked(share: float) -> dict[str, Callable[[], lt.LabelStats]]:
        mask = rng.random(n) < share
        return {
            "where": lambda: stats(left, values, where=mask),
            "index": lambda: stats(left[mask], values[mask]),
        }

    def tracked(labels: Any, name: Any, size: int) -> Callable[[], lt.LabelStats]:
        tracker = lt.LabelTracker(label=name, metric="loss", max_buffer_bytes=2**30)
        parts = [slice(start, start + size) for start in range(0, n, size)]
        several = isinstance(labels, tuple)
        some = [tuple(each[part] for each in labels) if several else labels[part] for part in parts]
        batches = list(zip(some, (values[part] for part in parts), strict=True))

        def epoch() -> lt.LabelStats:
            for batch in batches:
                tracker.update(*batch)
            found = tracker.end_epoch(1, replace=True)
            _ = found.mean
            return found

        return epoch

    def words(places: Any, number: int) -> Any:
        return np.array([f"{i:05}" for i in range(number)], dtype=object)[places].tolist()

    texts = words(left, LEFT), words(right, RIGHT)
    two = {"two": lambda: stats({"left": left, "right": right}, values), "one": lambda: stats(one, values)}
    return (
        {f"{LEFT} × {RIGHT} labels, one label": two}
        | {
            f"tracker, batches of {size}": {
                "two": tracked((left, right), ("left", "right"), size),
                "one": tracked(one, "both", size),
            }
            for size in BATCHES
        }
        | {
            f"tracker, lists of str, batches of {BATCHES[0]}": {
                "two": tracked(texts, ("left", "right"), BATCHES[0]),
                "one": tracked(words(one, LEFT * RIGHT), "both", BATCHES[0]),
            }
        }
        | {f"mask of {share:.0%}, boolean indexing": masked(share) for share in SHARES}
    )


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Run the benchmark; return the results."""
    parser = argparse.ArgumentParser(description="Measure several labels per sample, and masks.")
    parser.add_argument("--samples", type=int, nargs="+", default=[100_000, 1_000_000, 6_000_000])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=15)
    add_output(parser, "slices", None)
    options = parser.parse_args(arguments)
    results: dict[str, Any] = {"facts": facts(["numpy", "numba"]), "cases": []}
    lines = ["samples | threads | what | ratio of the medians | of the best"]
    for n in options.samples:
        for threads in options.threads:
            for what, runs in cases(n, threads).items():
                row = {"samples": n, "threads": threads, "what": what} | measured(runs, options.rounds)
                results["cases"].append(row)
                ratio = row["ratio"]
                lines.append(f"{n:,} | {threads} | {what} | {ratio['ratio']:.2f} | {ratio['ratio_best']:.2f}")
    publish(results, "\n".join(lines), options)
    return results


if __name__ == "__main__":
    main()
