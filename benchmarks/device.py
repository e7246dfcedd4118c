"""Measure what tensors on a GPU cost the training loop, and count what waits for the GPU.

Run from the root of the repository, on a machine with a GPU that CUDA or ROCm drives::

    python benchmarks/device.py
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import time
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from cases import Answer, Case, check, exact_reference
from harness import disturbed, facts, measure, summary
from report import add_output, grid, machine, publish

import labeltrack as lt

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

LABELS = 10
NOTHING, DIRECT, COPIED = "the step alone", "update()", "update() of .cpu()"


class Training:
    """Steps of a given length, with labels and losses on a device that are there once a step is done.

    Args:
        device: Such as ``"cuda"``.
        seconds: How long a step takes.
        steps: How many there are in an epoch.
        batch: Samples in each.
    """

    def __init__(self, device: str, seconds: float, steps: int, batch: int) -> None:
        self._torch = importlib.import_module("torch")
        self._device = device
        self.labels, self.values = Case(steps * batch, LABELS, "int64", "float32").data()
        self._batches = [
            tuple(self._torch.from_numpy(column).to(device) for column in columns)
            for columns in zip(self.labels.reshape(steps, batch), self.values.reshape(steps, batch), strict=True)
        ]
        size = 2048 if device == "cuda" else 64
        self._weights = self._torch.randn(size, size, device=device) / size**0.5
        self._state = self._weights
        self._repeats = 1
        self._step()  # what is allocated and chosen on first use
        while self._seconds() < seconds:
            self._repeats *= 2
        self._repeats = max(1, round(self._repeats * seconds / self._seconds()))

    def _seconds(self) -> float:
        self._wait()
        start = time.perf_counter()
        self._step()
        self._wait()
        return time.perf_counter() - start

    def _step(self) -> None:
        for _ in range(self._repeats):
            self._state = self._torch.tanh(self._state @ self._weights)

    def _wait(self) -> None:
        getattr(self._torch, self._device).synchronize()

    def epoch(self, update: Callable[[Any, Any], None] | None) -> None:
        """Train one epoch; give labels and losses of every step to `update`."""
        for labels, values in self._batches:
            self._step()
            losses = values + 0 * self._state[0, 0]  # the step has to be done
            if update is not None:
                update(labels, losses)
        self._wait()

    def synchronisations(self, update: Callable[[Any, Any], None] | None) -> int | None:
        """Return how many times a step of an epoch waits for the GPU; None without one."""
        if self._device != "cuda":
            return None
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            self._torch.cuda.set_sync_debug_mode("warn")
            try:
                for labels, values in self._batches:
                    self._step()
                    if update is not None:
                        update(labels, values)
            finally:
                self._torch.cuda.set_sync_debug_mode("default")
        self._wait()
        return sum("synchronizing" in str(warning.message) for warning in caught)


def run_device(device: str, steps: int, rounds: int, seconds: float, batch: int) -> dict[str, Any]:
    """Check the answers, then time epochs with and without a tracker.

    Returns:
        Seconds per step by contestant, seconds that `update` takes on the host, and synchronisations per epoch.
    """
    training = Training(device, seconds, steps, batch)
    trackers = {name: lt.LabelTracker(label="y", metric="ce") for name in (DIRECT, COPIED)}
    updates: dict[str, Callable[[Any, Any], None] | None] = {
        NOTHING: None,
        DIRECT: trackers[DIRECT].update,
        COPIED: lambda labels, values: trackers[COPIED].update(labels.cpu(), values.cpu()),
    }
    for name, tracker in trackers.items():
        for epoch in (1, 2):  # from its second epoch on a tracker has all its memory
            training.epoch(updates[name])
            stats = tracker.end_epoch(epoch)
        answer = Answer(stats.labels, stats.count, stats.mean, stats.std, stats.min, stats.max)
        check(name, answer, exact_reference(training.labels, training.values), rtol=0.0)
    counts = {name: training.synchronisations(update) for name, update in updates.items()}
    runs = {name: (lambda update=update: training.epoch(update)) for name, update in updates.items()}
    before = {name: tracker.reset for name, tracker in trackers.items()}
    times = {name: [s / steps for s in some] for name, some in measure(runs, rounds, before, rest=0.0).items()}
    host: list[float] = []

    def timed(labels: Any, values: Any) -> None:
        start = time.perf_counter()
        trackers[DIRECT].update(labels, values)
        host.append(time.perf_counter() - start)

    trackers[DIRECT].reset()
    training.epoch(timed)
    alone = np.array(times[NOTHING])
    return {
        "schema": 1,
        "facts": facts(("labeltrack", "numpy", "torch")) | {"device": _name(device)},
        "steps": steps,
        "batch": batch,
        "labels": LABELS,
        "rounds": rounds,
        "step": {name: summary(some) for name, some in times.items()},
        "overhead": {name: float(np.median(np.array(times[name]) / alone)) - 1 for name in trackers},
        "synchronisations": counts,
        "host": {"median_s": float(np.median(host)), "longest_s": max(host)},
        "disturbed": disturbed(times),
    }


def _name(device: str) -> str:
    name: str = importlib.import_module("torch").cuda.get_device_name() if device == "cuda" else device
    return name


def markdown(results: dict[str, Any]) -> str:
    """Return milliseconds per step, what a tracker adds, and synchronisations per epoch."""
    rows = []
    for name, row in results["step"].items():
        mark = " ~" if name in results["disturbed"] else ""
        added = f"{100 * results['overhead'][name]:.2f} %" if name in results["overhead"] else ""
        count = results["synchronisations"][name]
        cells = [f"{row['median_s'] * 1e3:.3f} ms", added, "" if count is None else str(count)]
        rows.append([name + mark, *cells])
    host = ", ".join(f"{name.removesuffix('_s')} {seconds * 1e6:.0f} µs" for name, seconds in results["host"].items())
    scope = (
        f"{results['steps']} steps of {results['batch']} samples, {results['labels']} labels; {DIRECT} takes the host "
        f"{host}; {results['facts']['device']}; {machine(results)}"
    )
    return "\n".join([*grid(["", "a step", "added", "synchronisations"], rows), "", scope])


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Run the benchmark, if there is a GPU; return the results."""
    parser = argparse.ArgumentParser(description="Measure what tensors on a GPU cost the training loop.")
    parser.add_argument("--steps", type=int, default=500, help="in an epoch")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--batch", type=int, default=256, help="samples in a step")
    parser.add_argument("--milliseconds", type=float, default=10.0, help="that a step takes")
    parser.add_argument("--device", default="cuda", help="cpu: to see whether this runs")
    add_output(parser, "device", None)
    options = parser.parse_args(arguments)
    if options.steps < 2 or options.rounds < 1:
        parser.error("at least two steps and one round")
    if options.device == "cuda" and not _has_gpu():
        print("there is no GPU that torch can use, so nothing is measured")
        return {"missing": ["cuda"]}
    results = run_device(options.device, options.steps, options.rounds, options.milliseconds / 1e3, options.batch)
    publish(results, markdown(results), options)
    return results


def _has_gpu() -> bool:
    if importlib.util.find_spec("torch") is None:
        return False
    return bool(importlib.import_module("torch").cuda.is_available())


if __name__ == "__main__":
    main()
