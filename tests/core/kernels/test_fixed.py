"""The extent of samples, against sorting, and where the pass stops. Runs compiled and as plain Python."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labeltrack._core.arrays import aligned_words, read_only
from labeltrack._core.fixed_point import FixedPoint
from labeltrack._core.kernels import FULL, fixed32, fixed63
from labeltrack._core.kernels import fixed as kernels


def extent(values, dtype=np.float64):
    counts = np.zeros(kernels.EXPONENTS, dtype=np.int32)
    found = kernels.extent(read_only(np.array(values, dtype=dtype)), counts)
    assert counts.sum() == len(values)
    return found


@given(
    st.lists(
        st.one_of(
            st.floats(width=32),
            st.floats(-8.0, 8.0, width=32),
            st.sampled_from([0.0, -0.0, 1.0, math.inf, -math.inf, math.nan, 2.0**-149]),
        ),
        max_size=200,
    ),
    st.integers(1, 70),
    st.sampled_from([np.float32, np.float64]),
)
def test_the_extent_is_that_of_sorted_magnitudes(values, times, dtype):
    values = [x for x in values for _ in range(times)][:300]  # so that one in 64 is one of several alike
    exponent, negative, finite = extent(values, dtype)
    numbers = [x for x in values if math.isfinite(x)]
    assert finite == len(numbers)
    if numbers:
        sizes = sorted(map(abs, numbers), reverse=True)
        assert exponent == math.frexp(sizes[len(sizes) // 64])[1]
    assert bool(negative) == any(x < 0 for x in numbers)


def test_the_extent_of_doubles_goes_to_both_ends():
    for values, expected in [
        ([1.7976931348623157e308, -1.0], (1024, True, 2)),
        ([2.0**-1022], (-1021, False, 1)),
        ([5e-324, 0.0], (-1022, False, 2)),
        ([0.0] * 127 + [5e-324], (0, False, 128)),
        ([0.0] * 125 + [5e-324] * 3, (-1022, False, 128)),
        ([0.0] * 125 + [5e-324, 1.0, 2.0], (-1022, False, 128)),
        ([0.0, -0.0], (0, False, 2)),
        ([math.nan, -math.inf], (0, False, 0)),
        ([], (0, False, 0)),
    ]:
        assert extent(values) == expected


def test_no_sum_of_a_row_is_ambiguous():
    n = kernels.MAX_COUNT
    assert n < 2**kernels.COUNT_BITS
    # What the shifts drop is known modulo 2**64.
    assert n * (2**kernels.SHIFT - 1) < 2**64
    assert FixedPoint.capacity == n


@pytest.mark.parametrize(("form", "words"), [(fixed32, 1), (fixed63, 2)])
def test_the_pass_stops_when_the_queue_is_full(form, words):
    samples = np.full(20_000, 0.5)
    samples[::40] = np.nan
    table, queue = aligned_words(8), kernels.Queue(np.zeros(600, dtype=np.int64), np.zeros(600))
    unit, batch = (
        kernels.Unit(2.0, False, 1, False),
        kernels.Batch(np.zeros(20_000, dtype=np.int64), samples, 0, 20_000, 0, 1),
    )
    position, n, status = form.reduce(batch, table, unit, kernels.new_scratch(words), queue, 0)
    assert status == FULL
    assert n == len(range(0, position, 40)) < 600
    assert table[form.COUNT] & kernels.MAX_COUNT == position - n
