"""How to measure: interleaved rounds, medians, ratios within a round, and what a reader must know of the machine."""

from __future__ import annotations

import gc
import importlib.metadata
import os
import platform
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

Times = dict[str, list[float]]

FEWEST = 3  # rounds that slow ones take part in
# Seconds between runs. Threads of OpenMP, which numba's parallel loops use, spin for some milliseconds after their
# work: on two cores the next run took twice as long.
_REST = 0.01


def measure(
    runs: Mapping[str, Callable[[], Any]],
    rounds: int,
    before: Mapping[str, Callable[[], Any]] | None = None,
    seed: int = 0,
    rest: float = _REST,
    slow: Collection[str] = (),
) -> Times:
    """Time everything once per round, in an order shuffled anew, so that noise and neighbours affect all alike.

    The garbage collector is off.

    Args:
        runs: What to time, by name. Call each once before, so that nothing is compiled on the clock.
        rounds: How many.
        before: By name, what to call right before, off the clock, for runs that use up what they work on.
        seed: For the shuffling.
        rest: Seconds between runs; 0 if nobody has threads, because caches are cold after it.
        slow: Names that take part in the first `FEWEST` rounds only.

    Returns:
        Seconds by name, one for each round.
    """
    names = list(runs)
    rng = np.random.default_rng(seed)
    times: Times = {name: [] for name in names}
    enabled = gc.isenabled()
    gc.disable()
    try:
        for number in range(rounds):
            for i in rng.permutation(len(names)).tolist():
                if number >= FEWEST and names[i] in slow:
                    continue
                run = runs[names[i]]
                if before and names[i] in before:
                    before[names[i]]()
                time.sleep(rest)
                start = time.perf_counter()
                result = run()
                times[names[i]].append(time.perf_counter() - start)
                del result  # freeing it is not on the clock of the next
            gc.collect()
    finally:
        if enabled:
            gc.enable()
    return times


def summary(seconds: list[float]) -> dict[str, float]:
    """Return median, quartiles and best of the rounds."""
    low, median, high = np.quantile(seconds, (0.25, 0.5, 0.75)).tolist()
    return {"median_s": median, "quartile_low_s": low, "quartile_high_s": high, "best_s": min(seconds)}


def compare(times: Times, ours: str, rivals: Iterable[str]) -> dict[str, Any] | None:
    """Return how many times as fast `ours` is as the fastest of its rivals, None if there are none.

    Returns:
        ``ratio``, to the rival ``to`` with the smallest median: the median of the ratios within a round, which is
        robust against load that changes over minutes; and its quartiles. ``ratio_best``, to the rival ``to_best`` with
        the fastest round: the ratio of the fastest rounds. It is fairer to libraries that wait for all their threads,
        which lose most when another program takes a core.
    """
    names = list(rivals)
    if not names:
        return None
    rival = min(names, key=lambda name: float(np.median(times[name])))
    quiet = min(names, key=lambda name: min(times[name]))
    both = min(len(times[rival]), len(times[ours]))  # slow ones are not in all rounds
    within = np.array(times[rival][:both]) / np.array(times[ours][:both])
    low, median, high = np.quantile(within, (0.25, 0.5, 0.75)).tolist()
    return {
        "of": ours,
        "to": rival,
        "ratio": median,
        "quartile_low": low,
        "quartile_high": high,
        "to_best": quiet,
        "ratio_best": min(times[quiet]) / min(times[ours]),
    }


def disturbed(times: Times) -> list[str]:
    """Return whose median round took more than 1.5 times as long as the best one, so that the median says little."""
    return [name for name, seconds in times.items() if float(np.median(seconds)) > 1.5 * min(seconds)]


def facts(distributions: Iterable[str]) -> dict[str, Any]:
    """Return what a reader needs to judge the figures, but nothing that identifies the machine."""
    return {
        "python": platform.python_version(),
        "system": platform.system(),
        "cpu": _cpu_model(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        # Close to 0 on a quiet machine.
        "load_before": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "versions": {name: _version(name) for name in distributions},
    }


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
