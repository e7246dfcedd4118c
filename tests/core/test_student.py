"""Quantiles of Student's t beside those of scipy."""

from __future__ import annotations

import numpy as np
import scipy.stats

from labeltrack._core.student import t_975


def test_quantiles_are_those_of_scipy():
    degrees = np.array([*range(1, 1200), 10**4, 10**6, 10**12])
    np.testing.assert_allclose(t_975(degrees), scipy.stats.t.ppf(0.975, degrees), rtol=1e-13)


def test_without_a_degree_of_freedom_there_is_no_quantile():
    found = t_975(np.array([0, 3, -1, 3]))
    assert np.isnan(found).tolist() == [True, False, True, False]
    assert found[1] == found[3]
    assert t_975(np.empty(0, dtype=np.int64)).shape == (0,)
