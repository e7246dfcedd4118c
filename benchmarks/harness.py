"""How it is measured: interleaved rounds, medians, ratios within a round, and the facts that a reader needs."""

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

FEWEST = 3
"""Rounds of everybody."""
_REST = 0.01
"""Seconds between one run and the next. The threads of OpenMP, which numba's parallel loops use, keep turning for some
milliseconds after their work is done: what came right after them on two cores took twice as long."""


def measure(
    runs: Mapping[str, Callable[[], Any]],
    rounds: int,
    before: Mapping[str, Callable[[], Any]] | None = None,
    seed: int = 0,
    rest: float = _REST,
    slow: Collection[str] = (),
) -> Times:
    """Time everything once a round, round after round, so that a noisy neighbour hits all alike.

    The order is shuffled anew in every round: what follows whom (warm caches, a clock that has been slowed down) then
    favours nobody, and each run begins when the threads of the one before have come to rest. The garbage collector
    rests while the clock runs.

    Args:
        runs: What to time, by name. Call each once before, so that nothing is compiled on the clock.
        rounds: How often.
        before: What to call right before, off the clock, by name; for those that use up what they work on.
        seed: Of the shuffling.
        rest: Seconds between runs; none where nobody has threads, as caches are cold after it.
        slow: Who takes part in the first `FEWEST` rounds alone.

    Returns:
        Seconds by name, one for each round that it took part in.
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
        ``ratio``, to the rival ``to`` of the smallest median: the median over the rounds of the ratio within a round,
        which load that comes and goes over minutes does not touch; and its quartiles.

        ``ratio_best``, to the rival ``to_best`` of the fastest round: of the fastest rounds of both, the nearest to a
        quiet machine there is. Where a neighbour takes a core now and then, this is the one to believe: a library
        that waits for all its threads loses far more by it than one that has only one.
    """
    names = list(rivals)
    if not names:
        return None
    rival = min(names, key=lambda name: float(np.median(times[name])))
    quiet = min(names, key=lambda name: min(times[name]))
    both = min(len(times[rival]), len(times[ours]))  # one that is slow is not in all rounds
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
    """Return who took half as long again, in the median round, as in the best: the medians say little then."""
    return [name for name, seconds in times.items() if float(np.median(seconds)) > 1.5 * min(seconds)]


def facts(distributions: Iterable[str]) -> dict[str, Any]:
    """Return what a reader needs to judge the figures, and nothing that says whose machine it was."""
    return {
        "python": platform.python_version(),
        "system": platform.system(),
        "cpu": _cpu_model(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        # Close to 0 on a quiet machine; a load of its own before the first round means neighbours.
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
