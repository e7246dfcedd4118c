"""The pass itself, called directly: where it stops, and that nothing is lost. Runs as plain Python too."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from labeltrack import _kernels as kernels
from labeltrack._core.accumulator import Accumulator
from labeltrack._core.kernels import DONE, FULL, NONFINITE, OUTSIDE, ROW


def _table(size):
    accumulator = Accumulator(size)
    return accumulator.rows, accumulator.counts, accumulator.nonfinite


@pytest.mark.parametrize("label", [-1, 3, 2**31 - 1, -(2**31)])
def test_a_label_outside_the_table_stops_the_pass_and_writes_nothing(label):
    guarded = np.full(5 * ROW, 7.0)
    rows = guarded[ROW : 4 * ROW]  # a row of guards before and after a table of three
    rows[:] = _table(3)[0]
    labels = np.array([0, 2, label, 1])
    samples = np.ones(4)
    keys, values = np.empty(8, dtype=np.int64), np.empty(8)
    nonfinite = np.zeros((3, 3), dtype=np.int64)
    position, n, status = kernels.add_exactly(
        labels, samples, 0, 4, 0, 3, rows, rows.view(np.int64), nonfinite, keys, values, 0
    )
    assert (position, n, status) == (2, 0, OUTSIDE)
    assert rows.view(np.int64)[::ROW].tolist() == [1, 0, 1]
    assert (guarded[:ROW] == 7.0).all()
    assert (guarded[-ROW:] == 7.0).all()


def test_the_pass_stops_when_the_terms_are_full_and_loses_nothing():
    rows, counts, nonfinite = _table(1)
    values = np.array([1e30, 1e-30, 1e10, 1e-10, 1.0, 1e25] * 4)
    labels = np.zeros(values.size, dtype=np.int64)
    term_keys, term_values = np.empty(5, dtype=np.int64), np.empty(5)
    overflow = {0: Fraction(0), 1: Fraction(0)}
    position, calls, statuses = 0, 0, set()
    while position < values.size:
        position, n, status = kernels.add_exactly(
            labels, values, position, values.size, 0, 1, rows, counts, nonfinite, term_keys, term_values, 0
        )
        for key, value in zip(term_keys[:n].tolist(), term_values[:n].tolist(), strict=True):
            overflow[key] += Fraction(value)
        statuses.add(status)
        calls += 1
    assert calls > 1
    assert statuses <= {FULL, DONE}
    exact = [Fraction(float(v)) for v in values]
    assert Fraction(rows[1]) + Fraction(rows[2]) + overflow[0] == sum(exact)
    assert sum(map(Fraction, rows[3:6].tolist())) + overflow[1] == sum(x * x for x in exact)


def test_unusual_samples_stop_the_pass_when_the_terms_are_full():
    scales = {0: 0, 1: 0, 2: 600, 3: 1200, 4: -1200}
    for samples in (np.array([1.5e200, -1e-200, 1e300, 3e-310] * 3), np.array([1e38, -1e38, 1e38] * 4)):
        rows, counts, nonfinite = _table(1)
        term_keys, term_values = np.empty(6, dtype=np.int64), np.empty(6)
        total, squares = Fraction(0), Fraction(0)
        position = 0
        labels = np.zeros(samples.size, dtype=np.int64)
        while position < samples.size:
            position, n, status = kernels.add_exactly(
                labels,
                samples,
                position,
                samples.size,
                0,
                1,
                rows,
                counts,
                nonfinite,
                term_keys,
                term_values,
                0,
            )
            assert status == FULL or position == samples.size
            for key, value in zip(term_keys[:n].tolist(), term_values[:n].tolist(), strict=True):
                part = Fraction(value) * Fraction(2) ** scales[key]
                total, squares = (total + part, squares) if key in (0, 2) else (total, squares + part)
        exact = [Fraction(float(v)) for v in samples]
        assert total + Fraction(rows[1]) + Fraction(rows[2]) == sum(exact)
        assert squares + sum(map(Fraction, rows[3:6].tolist())) == sum(x * x for x in exact)
        assert (counts[0], rows[6], rows[7]) == (samples.size, samples.min(), samples.max())


def test_the_pass_stops_before_a_sample_that_cannot_be_counted():
    rows, counts, nonfinite = _table(1)
    labels, samples = np.zeros(3, dtype=np.int64), np.array([1.0, np.nan, np.inf])
    terms = np.empty(8, dtype=np.int64), np.empty(8)
    state = (samples, 0, 3, 0, 1, rows, counts)
    assert kernels.add_exactly(labels, *state, nonfinite[:0], *terms, 0) == (1, 0, NONFINITE)
    assert kernels.add_exactly(labels, samples, 1, *state[2:], nonfinite, *terms, 0) == (3, 0, DONE)
    assert counts[0] == 1
    assert nonfinite.tolist() == [[1, 1, 0]]
