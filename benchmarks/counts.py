"""Count instructions and cache misses a sample, where the clock alone does not say what bounds the kernels.

Takes valgrind, which simulates caches of the first and second level, and half a minute a run. Run from the root of the
repository::

    python benchmarks/counts.py --render
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from harness import facts
from report import add_output, grid, publish

if TYPE_CHECKING:
    from collections.abc import Sequence

CASES = [("float32", labels) for labels in (10, 1_000, 100_000, 1_000_000)]
CASES += [("float64", labels) for labels in (10, 1_000, 100_000)]
FIRST, SECOND = "32768,8,64", "1048576,8,64"  # bytes, ways, bytes of a line
COUNTED = {
    "instructions": r"I +refs: +([0-9,]+)",
    "reads and writes": r"D +refs: +([0-9,]+)",
    "first level misses": r"D1 +misses: +([0-9,]+)",
    "second level misses": r"LLd misses: +([0-9,]+)",
}
# valgrind knows no AVX-512, and numba compiles for what it finds.
TARGET = {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx2,+fma,+bmi,+bmi2", "PYTHONHASHSEED": "0"}

SCRIPT = """
import sys, numpy as np
from labeltrack._core.accumulator import Accumulator
folder, size, samples = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
labels, values = (np.load(f"{folder}/{name}.npy", mmap_mode="r")[:samples] for name in ("labels", "values"))
Accumulator(size).add(np.asarray(labels), np.asarray(values))
"""


def parse(text: str) -> dict[str, int]:
    """Return the counts that cachegrind printed.

    Raises:
        ValueError: One is missing.

    Example:
        >>> parse("I   refs: 1,200 D   refs: 30 (1) D1  misses: 4 ( LLd misses: 2 (")["instructions"]
        1200
    """
    found = {}
    for name, pattern in COUNTED.items():
        match = re.search(pattern, text)
        if match is None:
            msg = f"no {name} in what valgrind printed: {text[-500:]}"
            raise ValueError(msg)
        found[name] = int(match[1].replace(",", ""))
    return found


def count(folder: Path, labels: int, samples: int) -> dict[str, int]:
    """Run a pass over samples under valgrind."""
    command = [sys.executable, "-c", SCRIPT, str(folder), str(labels), str(samples)]
    environment = {**os.environ, **TARGET, "NUMBA_CACHE_DIR": str(folder.parent / "cache")}
    subprocess.run(command, check=True, env=environment)  # noqa: S603 (compiles, which would take minutes under valgrind)
    tool = ["valgrind", "--tool=cachegrind", "--cache-sim=yes", f"--D1={FIRST}", f"--LL={SECOND}"]
    tool.append(f"--cachegrind-out-file={os.devnull}")
    done = subprocess.run([*tool, *command], check=True, env=environment, capture_output=True, text=True)  # noqa: S603 (this Python, and code of ours)
    return parse(done.stderr)


def run_case(parent: Path, values: str, labels: int, samples: int) -> dict[str, Any]:
    """Return what a sample costs: the difference of two passes, of which one has twice as many."""
    folder = parent / f"{values}-{labels}"
    folder.mkdir()
    rng = np.random.default_rng(0)
    np.save(folder / "labels.npy", rng.integers(0, labels, 2 * samples, dtype=np.int32))
    np.save(folder / "values.npy", rng.standard_exponential(2 * samples, dtype=np.dtype(values)))
    one, two = (count(folder, labels, n) for n in (samples, 2 * samples))
    return {"values": values, "labels": labels, "a sample": {name: (two[name] - one[name]) / samples for name in one}}


def markdown(results: dict[str, Any]) -> str:
    """Return the results as a table."""
    rows = [
        [case["values"], f"{case['labels']:,}", *(f"{figure:.2f}" for figure in case["a sample"].values())]
        for case in results["cases"]
    ]
    return "\n".join(grid(["values", "labels", *COUNTED], rows))


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Count; return the results."""
    parser = argparse.ArgumentParser(description="Count instructions and cache misses a sample.")
    parser.add_argument("--samples", type=int, default=4_000_000)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    add_output(parser, "counts", "dev/experiments.md")
    options = parser.parse_args(arguments)
    if shutil.which("valgrind") is None:
        parser.error("valgrind is not installed")
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(options.processes) as pool:
        cases = list(pool.map(lambda case: run_case(Path(folder), case[0], case[1], options.samples), CASES))
    results = {"schema": 1, "facts": facts(["labeltrack", "numpy", "numba"]), "cases": cases}
    publish(results, markdown(results), options)
    return results


if __name__ == "__main__":
    main()
