"""Measure the FastEstimator trace beside the original one: batches of an epoch, and its end.

Run from the root of the repository, where FastEstimator is installed (extra ``fastestimator``)::

    python benchmarks/fastestimator_trace.py --render
"""

from __future__ import annotations

import argparse
import warnings
from collections import ChainMap
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
from cases import Case
from harness import compare, disturbed, facts, measure, summary
from report import DISTURBED, add_output, grid, machine, publish

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # those of what FastEstimator imports
    import torch

    # FastEstimator was written for torch 2.3; later samplers take no data source.
    torch.utils.data.Sampler.__init__ = lambda self, data_source=None: None  # noqa: ARG005
    import tensorflow as tf
    from fastestimator.trace.xai import LabelTracker as Original
    from fastestimator.util import Data

    from labeltrack.integrations.fastestimator import LabelTracker

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

BATCH = 256
LABELS = 10
KINDS: dict[str, Callable[[Any], Any]] = {"numpy": np.copy, "torch": torch.from_numpy, "tensorflow": tf.constant}
OURS, THEIRS, FLOOR = "labeltrack", "the original", "lookup and copy"
TRACES = {THEIRS: Original, OURS: LabelTracker}


def batches(kind: str, number: int) -> list[Any]:
    """Return different batches of 256 samples, int64 labels and float32 values, as traces are given them."""
    labels, values = Case(number * BATCH, LABELS).data()
    make = KINDS[kind]
    return [
        # The predictions of a network lie over the batch that it was given.
        Data(ChainMap({"ce": make(v)}, {"x": None, "y": make(y)}))
        for y, v in zip(labels.reshape(number, BATCH), values.reshape(number, BATCH), strict=True)
    ]


class Run:
    """A trace and the epochs it is given.

    Args:
        cls: Class of the trace.
        data: The batches of every epoch.
    """

    def __init__(self, cls: Any, data: list[Any]) -> None:
        self.data = data
        self.trace = cls("y", "ce")
        self.trace.system = SimpleNamespace(mode="eval", ds_id="", global_step=0)
        self.record()
        self.end()  # from its second epoch on a trace has all its memory, and what is compiled is compiled

    def record(self) -> None:
        """Give the trace every batch."""
        on_batch_end = self.trace.on_batch_end
        for data in self.data:
            on_batch_end(data)

    def end(self) -> None:
        """End the epoch."""
        self.trace.system.global_step += 1
        self.trace.on_epoch_end(Data())

    def forget(self) -> None:
        """Forget the samples of the epoch without the work of ending it."""
        if isinstance(self.trace, Original):
            self.trace.points = []
        else:
            self.trace._tracker.reset()  # noqa: SLF001 (ending it is what is measured elsewhere)

    def contents(self) -> list[Any]:
        """Return everything in the summaries."""
        return [
            (summary.name, key, step, value.as_tuple())
            for summary in self.trace.label_summaries.values()
            for key, steps in summary.history["eval"].items()
            for step, value in steps.items()
        ]


def floor(data: list[Any]) -> Callable[[], None]:
    """Return a function that looks up labels and values in every batch and copies their memory, and nothing else."""
    columns: list[Any] = [np.zeros((len(data), BATCH), dtype) for dtype in (np.int64, np.float32)]
    rows = [[memoryview(row) for row in column] for column in columns]

    def copy() -> None:
        for batch, labels, values in zip(data, *rows, strict=True):
            for key, row in (("y", labels), ("ce", values)):
                found = batch[key]
                row[:] = found.numpy() if type(found) is torch.Tensor else found

    return copy


def run_trace(number: int, rounds: int) -> dict[str, Any]:
    """Check that both traces say the same, then time them over epochs of `number` batches.

    Returns:
        Seconds a batch, and seconds of an end of an epoch, by kind of batch and trace.

    Raises:
        AssertionError: The summaries differ.
    """
    results: dict[str, Any] = {
        "schema": 1,
        "facts": facts(("labeltrack", "fastestimator", "numpy", "numba", "tensorflow-cpu", "torch")),
        "batch": BATCH,
        "batches": number,
        "labels": LABELS,
        "rounds": rounds,
        "kinds": {},
    }
    for kind in KINDS:
        data = batches(kind, number)
        both = {name: Run(cls, data) for name, cls in TRACES.items()}
        assert both[OURS].contents() == both[THEIRS].contents(), f"{kind}: the summaries differ"
        of_batch = measure(
            {name: run.record for name, run in both.items()} | {FLOOR: floor(data)},
            rounds,
            {name: run.forget for name, run in both.items()},
        )
        for run in both.values():
            run.forget()
        of_epoch = measure(
            {name: run.end for name, run in both.items()}, rounds, {name: run.record for name, run in both.items()}
        )
        row = {}
        for what, times, unit in (("on_batch_end", of_batch, number), ("on_epoch_end", of_epoch, 1)):
            row[what] = {
                "seconds": {name: summary([s / unit for s in seconds]) for name, seconds in times.items()},
                "ratio": compare(times, OURS, [THEIRS]),
                "disturbed": disturbed(times),
            }
        results["kinds"][kind] = row
    return results


def markdown(results: dict[str, Any]) -> str:
    """Return the table of docs/fastestimator.md."""
    head = ["batches", "`on_batch_end`: original", "labeltrack", "ratio"]
    head += ["`on_epoch_end`: original", "labeltrack", "ratio"]
    rows = []
    for kind, row in results["kinds"].items():
        cells = [kind]
        for what, factor, unit in (("on_batch_end", 1e6, "µs"), ("on_epoch_end", 1e3, "ms")):
            entry = row[what]
            for name in (THEIRS, OURS):
                mark = " ~" if name in entry["disturbed"] else ""
                cells.append(f"{entry['seconds'][name]['median_s'] * factor:.1f} {unit}{mark}")
            cells.append(f"{entry['ratio']['ratio']:,.{0 if entry['ratio']['ratio'] > 100 else 1}f}")
        rows.append(cells)
    samples = results["batches"] * results["batch"]
    lines = [
        *grid(head, rows),
        "",
        f"Epochs of {samples:,} samples in batches of {results['batch']}, {results['labels']} labels, both on",
        f"the same batches; medians of {results['rounds']} interleaved rounds, ratios within a round;",
        machine(results),
    ]
    if any(row[what]["disturbed"] for row in results["kinds"].values() for what in row):
        lines.append(f"{DISTURBED}; other programs were running.")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Run the benchmark; return the results."""
    parser = argparse.ArgumentParser(description="Compare the FastEstimator trace with the original.")
    parser.add_argument("--batches", type=int, default=3907, help="of 256 samples, in an epoch")
    parser.add_argument("--rounds", type=int, default=9)
    add_output(parser, "fastestimator", "fastestimator.md")
    options = parser.parse_args(arguments)
    if options.batches < 1 or options.rounds < 1:
        parser.error("batches and rounds must be positive")
    results = run_trace(options.batches, options.rounds)
    publish(results, markdown(results), options)
    return results


if __name__ == "__main__":
    main()
