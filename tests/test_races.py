"""Samples that somebody writes to while they are reduced: values may be wrong then, memory must not be."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from conftest import COMPILED

RACE = """
import mmap, os, signal, sys, time, warnings
import numpy as np
import labeltrack as lt
warnings.simplefilter("ignore")
seconds, N = float(sys.argv[1]), int(sys.argv[2])
rng = np.random.default_rng(0)
memory = mmap.mmap(-1, 16 * N)
labels, values = np.frombuffer(memory, np.int64, N), np.frombuffer(memory, np.float64, N, offset=8 * N)
CASES = [(many, dtype) for many in (10, 1000, 200_000) for dtype in (np.float32, np.float64)]
def reduce(many, dtype, number):
    labels[:] = rng.integers(0, many, N)
    values[:] = rng.random(N)
    given = values if dtype is np.float64 else values.view(np.float32)[:N]
    try:
        stats = lt.label_stats(labels, given, threads=1 + number % 2, quantiles=[0.5] if number % 3 else ())
        stats.merge(stats)
    except (ValueError, MemoryError, OverflowError):
        pass
for number, case in enumerate(3 * CASES):
    reduce(*case, number)  # compiled, before anybody writes
parent = os.getpid()
child = os.fork()
if not child:
    good, places = rng.integers(0, 10, 600), rng.permutation(N // 600) * 600
    while os.getppid() == parent:  # a label far away, for a moment, is most likely to come after it was looked at
        for at in places.tolist():
            here = labels[at : at + 600]
            here[:] = 2**40
            here[:] = good
    os._exit(0)
end, number = time.monotonic() + seconds, 0
while time.monotonic() < end:
    for case in CASES:
        reduce(*case, number)
        number += 1
os.kill(child, signal.SIGKILL)
os.waitpid(child, 0)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="takes memory that two processes share, and a fork")
def test_labels_that_another_process_writes_to_do_not_end_this_one(tmp_path):
    command = [sys.executable, "-c", RACE, "4", "300000" if COMPILED else "1200"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}  # this package, which is compiled already
    options = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True, "timeout": 300}
    done = subprocess.run(command, check=False, cwd=tmp_path, env=environment, **options)
    assert done.returncode == 0, done.stderr[-2000:]
