"""Random parts of samples, beside all parts that there are."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import combinations

import numpy as np
import pytest
from conftest import COMPILED

from labeltrack._core.kernels.permutation import count_extreme

ROUNDS = 4000


@pytest.mark.parametrize("size", [1, 2, 4, 5])
def test_every_part_is_as_probable_as_any_other(size):
    groups = [np.array([1.0, 2.0, 3.0, 4.0, 10.0, -7.0]), np.array([0.5, 0.5, 2.5, -1.0, 4.0])]
    values, starts = np.concatenate(groups), np.array([0, 6, 11])
    least, most = np.array([5.0, 3.0]), np.array([5.0, 1.0])
    found = np.zeros((2, 2), dtype=np.int64)
    arguments = np.array([size, size]), least, most, np.array([1, 0]), ROUNDS, np.random.default_rng(1), found
    count_extreme(values, starts, *arguments)
    for k, group in enumerate(groups):
        sums = np.array([sum(part) for part in combinations(group.tolist(), size)])
        for seen, wanted in zip(found[:, k], ((sums >= least[k]).mean(), (sums <= most[k]).mean()), strict=True):
            assert abs(seen / ROUNDS - wanted) <= 5 * np.sqrt(wanted * (1 - wanted) / ROUNDS)
        assert sorted(values[starts[k] : starts[k + 1]]) == sorted(group)


def test_labels_that_are_not_looked_at_keep_their_order_and_counts():
    values, found = np.arange(6.0), np.zeros((2, 2), dtype=np.int64)
    sizes, limit = np.array([2, 2]), np.zeros(2)
    count_extreme(values, np.array([0, 3, 6]), sizes, limit, limit, np.array([1]), 10, np.random.default_rng(0), found)
    assert values[:3].tolist() == [0.0, 1.0, 2.0]
    assert found.tolist() == [[0, 10], [0, 0]]


FIRST = """
import numpy as np
from labeltrack._core.kernels.permutation import count_extreme

found, two = np.zeros((2, 1), dtype=np.int64), np.full(1, 2.0)
where = np.array([0, 4]), np.array([2]), two, two, np.array([0])
count_extreme(np.ones(4), *where, 9, np.random.default_rng(0), found)
assert found.tolist() == [[9], [9]]
"""


@pytest.mark.skipif(not COMPILED, reason="nothing is compiled")
def test_it_may_be_the_first_kernel_that_a_process_loads(tmp_path):
    for _ in range(2):  # compiled, then from the cache
        environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
        subprocess.run([sys.executable, "-c", FIRST], check=True, env=environment)
