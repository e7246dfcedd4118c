"""Measure what a batch costs the training loop, and what the end of an epoch does.

Run from the root of the repository::

    python benchmarks/update.py
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import statistics
from collections import defaultdict
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from cases import Answer, Array, Case, check, exact_reference
from harness import compare, disturbed, facts, measure, summary
from report import add_output, grid, machine, publish

import labeltrack as lt

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

BATCH = 256
LABELS = 10
PLAIN = "numpy, int64, float32"
LISTS = "lists"
TORCH = "torch, int64, float32"

Batch = tuple[Any, Any]
Store = dict[Any, list[Any]]


@dataclass(frozen=True)
class Kind:
    """One way in which batches come.

    Attributes:
        name: Unique name.
        label_dtype: Dtype of the labels before they are made what they are.
        value_dtype: Dtype of the values, likewise.
        labels: Makes of a ``(size,)`` array what the loop has; None: it has the array.
        values: Likewise.
        module: What it takes, apart from numpy.
        size: Samples of a batch.
    """

    name: str
    label_dtype: str = "int64"
    value_dtype: str = "float32"
    labels: Callable[[Any], Any] | None = None
    values: Callable[[Any], Any] | None = None
    module: str = "numpy"
    size: int = BATCH

    def missing(self) -> bool:
        """Return whether the library is not installed."""
        return importlib.util.find_spec(self.module) is None

    def samples(self, number: int) -> tuple[Array, Array]:
        """Return the labels and values of so many batches, one after the other, as numpy arrays."""
        return Case(number * self.size, LABELS, self.label_dtype, self.value_dtype).data()

    def batches(self, number: int) -> list[Batch]:
        """Return different batches."""
        labels, values = self.samples(number)
        pairs = zip(labels.reshape(number, self.size), values.reshape(number, self.size), strict=True)
        return [
            (self.labels(one) if self.labels else one.copy(), self.values(other) if self.values else other.copy())
            for one, other in pairs
        ]


def _torch(array: Any) -> Any:
    return importlib.import_module("torch").from_numpy(array.copy())


def _with_gradient(array: Any) -> Any:
    return _torch(array).requires_grad_()


def _to_list(array: Any) -> Any:
    return array.tolist()


def _to_words(array: Any) -> list[str]:
    return [f"class {label}" for label in array.tolist()]


KINDS = (
    Kind(PLAIN),
    Kind("numpy, int32, float32", "int32"),
    Kind("numpy, int64, float64", value_dtype="float64"),
    Kind(LISTS, labels=_to_list, values=_to_list),
    Kind("list of str, numpy", labels=_to_words),
    Kind(TORCH, labels=_torch, values=_torch, module="torch"),
    Kind("torch, requires_grad", labels=_torch, values=_with_gradient, module="torch"),
    *(Kind(f"numpy, int64, float32, batches of {size}", size=size) for size in (32, 4096)),
    *(
        Kind(f"torch, int64, float32, batches of {size}", labels=_torch, values=_torch, module="torch", size=size)
        for size in (32, 4096)
    ),
)


def tracked(
    batches: Sequence[Batch], *, growing: bool = False
) -> tuple[Callable[[], None], Callable[[], lt.LabelStats]]:
    """Return what records all batches, and what ends the epoch.

    Args:
        batches: Of one epoch.
        growing: Whether every call is the first epoch of a new tracker, whose buffers have yet to grow.
    """
    tracker = lt.LabelTracker(label="y", metric="ce")
    epoch = 0

    def record() -> None:
        update = (lt.LabelTracker(label="y", metric="ce") if growing else tracker).update
        for labels, values in batches:
            update(labels, values)

    def end() -> lt.LabelStats:
        nonlocal epoch
        epoch += 1
        return tracker.end_epoch(epoch)

    if not growing:  # from its second epoch on a tracker has all its memory
        record()
        end()
    return record, end


def appended(batches: Sequence[Batch]) -> tuple[Callable[[], Store], Callable[[Store], Answer]]:
    """Return the pure Python way: a list for each label, and the standard library at the end.

    It is what a trace does that loops over the samples of a batch. Batches of lists spare it the boxing of numpy
    scalars and are the fastest food for it.
    """

    def record() -> Store:
        store: Store = defaultdict(list)
        for labels, values in batches:
            for label, value in zip(labels, values):  # noqa: B905 (strict= would be slower than what is compared)
                store[label].append(value)
        return store

    def end(store: Store) -> Answer:
        rows = [(k, len(v), statistics.mean(v), statistics.stdev(v), min(v), max(v)) for k, v in sorted(store.items())]
        return Answer(*(np.array(column) for column in zip(*rows, strict=True)))

    return record, end


def accumulated(batches: Sequence[Batch]) -> tuple[Callable[[], Any], Callable[[Any], Answer]]:
    """Return the way of torchmetrics: states of one entry a label, which each batch is added to."""
    module = importlib.import_module("torch_metric")

    def record() -> Any:
        metric = module.LabelMetric(LABELS)
        for labels, values in batches:
            metric.update(labels, values)
        return metric

    def end(metric: Any) -> Answer:
        return Answer(np.arange(LABELS), *(column.numpy() for column in metric.compute()))

    return record, end


def check_kind(kind: Kind, number: int = 8) -> None:
    """Assert that a tracker fed with batches of this kind equals the standard library bit for bit.

    Raises:
        AssertionError: It does not.
    """
    labels, values = kind.samples(number)
    record, end = tracked(kind.batches(number))
    record()
    stats = end()
    named = np.array([int(str(name).removeprefix("class ")) for name in stats.names])
    answer = Answer(named, stats.count, stats.mean, stats.std, stats.min, stats.max)
    check(kind.name, answer, exact_reference(labels, values), rtol=0.0)


def run_update(number: int, rounds: int, kinds: Sequence[Kind] = KINDS) -> dict[str, Any]:
    """Check every kind of batch, then time everybody over an epoch of `number` batches.

    Returns:
        Seconds a batch by contestant, and those of an end of an epoch.
    """
    entered = [kind for kind in kinds if not kind.missing()]
    runs: dict[str, Callable[[], Any]] = {}
    before: dict[str, Callable[[], Any]] = {}
    ends: dict[str, Callable[[], Any]] = {}
    for kind in entered:
        batches = kind.batches(number)
        check_kind(kind)
        record, end = tracked(batches)
        runs[f"update(), {kind.name}"] = record
        before[f"update(), {kind.name}"] = end  # empties the buffers, off the clock
        if kind.name == PLAIN:
            runs[f"update(), {kind.name}, first epoch"] = tracked(batches, growing=True)[0]
            refill, ends["end_epoch()"] = tracked(batches)
            before["end_epoch()"] = refill
        if kind.name == TORCH and importlib.util.find_spec("torchmetrics") is not None:
            accumulate, compute = accumulated(batches)
            check("torchmetrics", compute(accumulate()), exact_reference(*kind.samples(number)), rtol=1e-6)
            runs[f"torchmetrics, {kind.name}"] = accumulate
        if kind.name in (PLAIN, LISTS):
            append, evaluate = appended(batches)
            runs[f"appending in Python, {kind.name}"] = append
            if kind.name == LISTS:
                ends["statistics.mean and .stdev"] = partial(evaluate, append())
    times = {name: [s / number for s in seconds] for name, seconds in measure(runs, rounds, before, rest=0.0).items()}
    # The standard library takes seconds for what takes labeltrack a millisecond, so there are fewer rounds.
    end_times = measure(ends, max(3, rounds // 10), before)
    return {
        "schema": 1,
        "facts": facts(("labeltrack", "numpy", "numba", "torch", "torchmetrics")),
        "batch": BATCH,
        "batches": number,
        "labels": LABELS,
        "rounds": rounds,
        "missing": sorted({kind.module for kind in kinds if kind.missing()}),
        "update": {name: summary(seconds) for name, seconds in times.items()},
        "end": {name: summary(seconds) for name, seconds in end_times.items()},
        "ratios": {
            "appending_to_update": compare(times, f"update(), {PLAIN}", [n for n in times if n.startswith("append")]),
            "torchmetrics_to_update": compare(
                times, f"update(), {TORCH}", [n for n in times if n.startswith("torchmetrics")]
            ),
            "statistics_to_end_epoch": compare(end_times, "end_epoch()", [n for n in ends if n.startswith("stat")]),
        },
        "disturbed": disturbed(times) + disturbed(end_times),
    }


def markdown(results: dict[str, Any]) -> str:
    """Return microseconds per batch, and milliseconds per end of an epoch."""
    rows = []
    for key, factor, unit in (("update", 1e6, "µs"), ("end", 1e3, "ms")):
        for name, row in results[key].items():
            mark = " ~" if name in results["disturbed"] else ""
            rows.append([name + mark, *(f"{row[which] * factor:.2f} {unit}" for which in ("median_s", "best_s"))])
    ratios = filter(None, results["ratios"].values())
    rows += [[f"{each['of']} / {each['to']}", f"{each['ratio']:.1f}×", f"{each['ratio_best']:.1f}×"] for each in ratios]
    scope = f"Batches of {results['batch']} unless stated, {results['labels']} labels; end of an epoch of"
    samples = results["batches"] * results["batch"]
    return "\n".join([*grid(["", "median", "best"], rows), "", f"{scope} {samples:,} samples; {machine(results)}"])


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Run the benchmark; return the results."""
    parser = argparse.ArgumentParser(description="Measure what a batch costs the training loop.")
    parser.add_argument("--batches", type=int, default=400, help="of 256 samples, in an epoch")
    parser.add_argument("--rounds", type=int, default=51)
    add_output(parser, "update", None)
    options = parser.parse_args(arguments)
    if options.batches < 8 or options.rounds < 1:
        parser.error("at least 8 batches and one round")
    results = run_update(options.batches, options.rounds)
    if results["missing"]:
        print(f"not installed, so not measured: {', '.join(results['missing'])}")
    publish(results, markdown(results), options)
    return results


if __name__ == "__main__":
    main()
