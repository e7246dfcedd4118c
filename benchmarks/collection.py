"""A collection of two metrics, and a tracker with ids, beside a tracker of one metric without: one epoch each.

Run from the root of the repository::

    python benchmarks/collection.py
"""

from __future__ import annotations

import argparse
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from harness import compare, facts, measure, summary
from report import add_output, publish

import labeltrack as lt

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

BATCH = 256
DIFFERENT = 16  # batches, again and again: those of a training loop were computed just before, and are in the cache
METRICS = ("ce", "correct")
WAYS = ("one metric", "two metrics", "ids")


class Epochs:
    """Trackers that are given the same epoch again and again.

    Args:
        samples: How many, a multiple of `BATCH`.
        labels: How many different labels.
    """

    def __init__(self, samples: int, labels: int) -> None:
        rng = np.random.default_rng(0)
        number, shape = samples // BATCH, (DIFFERENT, BATCH)
        losses, hits = rng.standard_exponential(shape), rng.random(shape) < 0.7
        columns = rng.integers(0, labels, shape), losses.astype(np.float32), hits.astype(np.float32)
        pairs = [dict(zip(METRICS, pair, strict=True)) for pair in zip(*columns[1:], strict=True)]
        repeats = number // DIFFERENT + 1
        self.labels, self.losses, self.hits, self.both = (([*some] * repeats)[:number] for some in (*columns, pairs))
        self.ids = [*rng.permutation(samples).reshape(number, BATCH)]
        self.one, self.other, self.identified = (lt.LabelTracker("y", metric) for metric in (*METRICS, "ce"))
        self.two = lt.TrackerCollection("y", METRICS)
        self._step = 0

    def record(self, which: str) -> None:
        """Record the batches of an epoch."""
        if which == "two metrics":
            update = self.two.update
            for labels, values in zip(self.labels, self.both, strict=True):
                update(labels, values)
        elif which == "ids":
            identified = self.identified.update
            for labels, losses, ids in zip(self.labels, self.losses, self.ids, strict=True):
                identified(labels, losses, ids=ids)
        else:
            first = (self.other if which == "other" else self.one).update
            for labels, losses in zip(self.labels, self.hits if which == "other" else self.losses, strict=True):
                first(labels, losses)

    def end(self, which: str) -> list[lt.LabelStats]:
        """End the epoch; return the statistics of each metric."""
        self._step += 1
        if which == "two metrics":
            return list(self.two.end_epoch(self._step).values())
        tracker = {"ids": self.identified, "other": self.other}.get(which, self.one)
        return [tracker.end_epoch(self._step)]

    def check(self) -> None:
        """Compare the answers."""
        found = {}
        for which in ("one metric", "other", "two metrics", "ids"):
            self.record(which)
            found[which] = self.end(which)
        first, second = found["two metrics"]
        pairs = (first, found["one metric"][0]), (second, found["other"][0]), (found["ids"][0], found["one metric"][0])
        for stats, wanted in pairs:
            for name in ("labels", "count", "sum", "mean", "std", "min", "max"):
                np.testing.assert_array_equal(getattr(stats, name), getattr(wanted, name))

    def reset(self) -> None:
        """Forget all samples."""
        for tracker in (self.one, self.other, self.identified, self.two):
            tracker.reset()


def measured(samples: int, labels: int, rounds: int) -> list[dict[str, Any]]:
    """Return the times of updates, of ends of epochs and of both, and the ratios to those of one metric."""
    epochs = Epochs(samples, labels)
    epochs.check()

    def whole(which: str) -> None:
        epochs.record(which)
        epochs.end(which)

    calls = {  # and what to call before, off the clock
        "update": (epochs.record, epochs.end),
        "end_epoch": (epochs.end, epochs.record),
        "epoch": (whole, None),
    }
    rows = []
    for what, (call, first) in calls.items():
        epochs.reset()
        runs: dict[str, Callable[[], Any]] = {which: partial(call, which) for which in WAYS}
        before: dict[str, Callable[[], Any]] = {} if first is None else {which: partial(first, which) for which in WAYS}
        times = measure(runs, rounds, before, rest=0.0)
        for which in WAYS[1:]:
            row = {"samples": samples, "labels": labels, "what": what, "of": which}
            row["times"] = {name: summary(times[name]) for name in (WAYS[0], which)}
            rows.append(row | {"ratio": compare(times, WAYS[0], [which])})
    return rows


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Run the benchmark; return the results."""
    parser = argparse.ArgumentParser(description="Measure several metrics of the same samples, and ids.")
    parser.add_argument("--samples", type=int, nargs="+", default=[100 * BATCH, 4000 * BATCH])
    parser.add_argument("--labels", type=int, nargs="+", default=[10, 1000])
    parser.add_argument("--rounds", type=int, default=25)
    add_output(parser, "collection", None)
    options = parser.parse_args(arguments)
    results: dict[str, Any] = {"facts": facts(["numpy", "numba"]), "cases": []}
    lines = ["samples | labels | what | of | time / that of one metric: median | best"]
    for samples in options.samples:
        for labels in options.labels:
            for row in measured(samples, labels, options.rounds):
                results["cases"].append(row)
                ratio = row["ratio"]
                lines.append(
                    f"{samples:,} | {labels:,} | {row['what']} | {row['of']} | {ratio['ratio']:.2f} | "
                    f"{ratio['ratio_best']:.2f}"
                )
    publish(results, "\n".join(lines), options)
    return results


if __name__ == "__main__":
    main()
