"""Measure another version of labeltrack beside this one, in interleaved rounds, on the workloads of training.

Each version runs in a process of its own; both get the same data, give the same answers to the last bit, and take turns
in a random order. Run from the root of the repository::

    python benchmarks/compare.py main~3               # a git revision
    python benchmarks/compare.py ../elsewhere --threads 1 --only zipf
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from cases import STRING, WORDS, Case
from harness import facts, measure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

HERE = Path(__file__).resolve().parent
LABELS = (2, 10, 100, 1_000, 100_000, 1_000_000)
LOSSES = ("exponential", "gamma", "lognormal 1", "lognormal 2", "hits")
BATCH = 256
UPDATES = 2_000  # batches a round
SLEPT = 0.2  # seconds of something else before a cold call
ELSEWHERE = 200 * 2**20  # bytes that it touches


@dataclass(frozen=True)
class Workload:
    """What is measured: a call on some data.

    Attributes:
        case: The data.
        call: ``"stats"``: `label_stats`; ``"quantiles"``: with three quantiles; ``"epoch"``: `end_epoch` of a tracker
            that was given lists of `str`; ``"update"``: `LabelTracker.update` of batches of 256.
        threads: How many; None leaves it to the library.
        cold: Whether another program's work lies between two calls, as between two ends of an epoch.
    """

    case: Case
    call: str = "stats"
    threads: int | None = 1
    cold: bool = False

    def __str__(self) -> str:
        """Return it in words."""
        threads = "default threads" if self.threads is None else f"{self.threads} threads"
        return f"{self.call}: {self.case}; {threads}, {'cold' if self.cold else 'warm'}"


def workloads(sizes: Sequence[int], threads: Sequence[int | None]) -> Iterator[Workload]:
    """Yield everything that is measured."""
    cases: dict[Case, str] = {}
    for n in sizes:
        labels = [k for k in LABELS if k <= n]
        cases |= {Case(n, k, order=order): "stats" for k in labels for order in ("uniform", "zipf")}
        cases |= {Case(n, k, dtype): "stats" for dtype, k in (("int32", 1000), ("uint8", 10), ("uint8", 100))}
        cases |= {Case(n, k, losses=losses): "stats" for k in (10, 1000, 100_000) if k <= n for losses in LOSSES[1:]}
        cases |= {Case(n, k, value_dtype="float64"): "stats" for k in (10, 1000, 100_000) if k <= n}
        strings = min(n, 2_000_000)
        cases |= {Case(strings, k, dtype): "stats" for k in (10, 1000) for dtype in (STRING, WORDS)}
        cases[Case(min(n, 1_000_000), 100, WORDS)] = "epoch"
        cases |= {Case(n, k, order="zipf"): "quantiles" for k in (10, 100, 10_000) if k <= n}
    for case, call in cases.items():
        for number in threads:
            if call != "epoch" or number is None or len(threads) == 1:
                yield from (Workload(case, call, number, cold) for cold in (False, True))
    for dtype in ("int64", "int32", WORDS):
        yield Workload(Case(BATCH * UPDATES, 10, dtype), "update", None)


# -- what a version does, in a process of its own ---------------------------------------------------------


def _call(workload: Workload) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Return what is to be called off the clock before, and what on it."""
    import labeltrack as lt  # noqa: PLC0415 (of the version that is measured)

    labels, values = workload.case.data()
    if workload.call in ("stats", "quantiles"):
        more: dict[str, Any] = {"quantiles": (0.25, 0.5, 0.75)} if workload.call == "quantiles" else {}
        return lambda: None, lambda: _read(lt.label_stats(labels, values, threads=workload.threads, **more))
    tracker = lt.LabelTracker("y", "ce", max_buffer_bytes=2**30)
    given = labels.tolist() if labels.dtype.kind == "U" else labels
    batches = [(given[i : i + BATCH], values[i : i + BATCH]) for i in range(0, len(values), BATCH)]

    def update() -> None:
        for some, numbers in batches:
            tracker.update(some, numbers)

    def end() -> Any:
        return _read(tracker.end_epoch(1, replace=bool(len(tracker.history))))

    if workload.call == "epoch":
        return update, end
    update()
    end()
    return tracker.reset, update


def _read(stats: Any) -> Any:
    """Return statistics after reading them, as some are rounded only then."""
    assert len(stats.count) == len(stats.mean) == len(stats.std) == len(stats.min) == len(stats.max)
    return stats


def _digest(stats: Any) -> str:
    """Return a checksum of every bit of a table, none if it is none."""
    if stats is None:
        return ""
    columns = [stats.labels, stats.count, stats.sum, stats.mean, stats.std, stats.min, stats.max]
    columns += [stats.quantile(q) for q in getattr(stats, "quantiles", ())]
    return hashlib.sha256(b"".join(np.ascontiguousarray(column).tobytes() for column in columns)).hexdigest()


def _something_else() -> None:
    """Do what a training does between two ends of an epoch: touch other memory, and leave the threads asleep."""
    other = np.ones(ELSEWHERE // 8)
    other += 1.0
    del other
    time.sleep(SLEPT)


def serve() -> None:
    """Answer orders from standard input, a line each, until it ends."""
    before: Callable[[], Any] | None = None
    run: Callable[[], Any] | None = None
    cold = False
    for line in sys.stdin:
        order = json.loads(line)
        if "workload" in order:
            said = order["workload"]
            workload = Workload(Case(**said.pop("case")), **said)
            before = run = None  # gives the memory of the last one back
            gc.collect()
            (before, run), cold = _call(workload), workload.cold
            before()
            answer: Any = _digest(run())
        else:
            assert before is not None
            assert run is not None
            before()
            if cold:
                _something_else()
            gc.disable()
            start = time.perf_counter()
            result = run()
            answer = time.perf_counter() - start
            gc.enable()
            del result
        print(json.dumps(answer), flush=True)


# -- both side by side ------------------------------------------------------------------------------------


class Version:
    """A version of labeltrack in a process of its own.

    Args:
        folder: Where the package lies.
    """

    def __init__(self, folder: Path) -> None:
        code = f"import sys; sys.path[:0] = {[str(folder), str(HERE)]!r}; import compare; compare.serve()"
        command = [sys.executable, "-c", code]
        environment = os.environ | {"PYTHONHASHSEED": "0"}
        self._process = subprocess.Popen(  # noqa: S603 (our own code)
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def ask(self, order: dict[str, Any]) -> Any:
        """Return the answer to an order."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            msg = f"the process of a version ended with {self._process.wait()}"
            raise RuntimeError(msg)
        return json.loads(line)

    def close(self) -> None:
        """End the process."""
        with self._process:
            pass


def measured(old: Version, new: Version, workload: Workload, rounds: int, seconds: float) -> dict[str, Any]:
    """Return the times of a workload, in the same rounds, and the median of their ratios.

    Raises:
        AssertionError: The versions disagree about the answer.
    """
    said = {"workload": asdict(workload)}
    answers = [version.ask(said) for version in (old, new)]
    assert answers[0] == answers[1], f"{workload}: the versions disagree"
    once = time.perf_counter()
    for version in (old, new):
        version.ask({})
    rounds = max(5, min(rounds, int(seconds / (time.perf_counter() - once))))
    timed: dict[str, list[float]] = {"old": [], "new": []}
    runs = {
        "old": lambda: timed["old"].append(old.ask({})),
        "new": lambda: timed["new"].append(new.ask({})),
    }
    measure(runs, rounds, rest=0.0)
    ratios = np.array(timed["old"]) / np.array(timed["new"])
    low, median, high = np.quantile(ratios, (0.25, 0.5, 0.75)).tolist()
    return {
        "workload": str(workload),
        "old_ms": 1e3 * float(np.median(timed["old"])),
        "new_ms": 1e3 * float(np.median(timed["new"])),
        "ratio": median,
        "quartiles": [low, high],
        "ratio_best": min(timed["old"]) / min(timed["new"]),
        "rounds": rounds,
    }


def folder_of(version: str, scratch: Path) -> Path:
    """Return the folder of a version: the one that was named, or a copy of a git revision."""
    if Path(version, "labeltrack").is_dir():
        return Path(version).resolve()
    command = ["git", "-C", str(HERE.parent), "archive", version, "labeltrack"]
    archive = subprocess.run(command, check=True, capture_output=True).stdout  # noqa: S603 (the caller's own words)
    with tarfile.open(fileobj=BytesIO(archive)) as files:
        files.extractall(scratch, filter="data")
    return scratch


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Run the benchmark; return the results."""
    parser = argparse.ArgumentParser(description="Compare another version of labeltrack with this one.")
    parser.add_argument("old", help="a git revision, or a folder with a package labeltrack")
    parser.add_argument("--new", default=str(HERE.parent), help="likewise; by default this one")
    parser.add_argument("--samples", type=int, nargs="+", default=[100_000, 1_000_000, 10_000_000])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="0 leaves it to the library")
    parser.add_argument("--only", nargs="+", default=[], help="workloads whose words have all of these in them")
    parser.add_argument("--rounds", type=int, default=25, help="at most, of each workload")
    parser.add_argument("--seconds", type=float, default=4.0, help="about how long a workload may take")
    parser.add_argument("--out", type=Path, help="where to write the results, as JSON")
    options = parser.parse_args(arguments)
    chosen = [
        workload
        for workload in workloads(options.samples, [number or None for number in options.threads])
        if all(word in str(workload) for word in options.only)
    ]
    results: dict[str, Any] = {"facts": facts(["numpy", "numba"]), "workloads": []}
    print("workload | old, ms | new, ms | old / new | quartiles | of the best rounds")
    with tempfile.TemporaryDirectory() as scratch:
        folders = [Path(scratch, name) for name in ("old", "new")]
        old, new = (Version(folder_of(name, at)) for name, at in zip((options.old, options.new), folders, strict=True))
        try:
            for workload in chosen:
                row = measured(old, new, workload, options.rounds, options.seconds)
                results["workloads"].append(row)
                times = f"{row['old_ms']:.3f} | {row['new_ms']:.3f} | {row['ratio']:.2f}"
                low, high = row["quartiles"]
                print(f"{workload} | {times} | {low:.2f} to {high:.2f} | {row['ratio_best']:.2f}", flush=True)
        finally:
            old.close()
            new.close()
    if options.out:
        options.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return results


if __name__ == "__main__":
    main()
