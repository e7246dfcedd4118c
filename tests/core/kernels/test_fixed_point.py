"""Both fixed-point formats, against Python's integers and fractions. Runs compiled and as plain Python."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import pytest
from conftest import COMPILED
from exact import sums
from hypothesis import example, given
from hypothesis import strategies as st

from labeltrack._core.accumulator import Accumulator
from labeltrack._core.arrays import aligned_words, read_only
from labeltrack._core.fixed_point import FixedPoint
from labeltrack._core.kernels import DONE, FULL, OUTSIDE, UNSUITABLE, fixed32, fixed63
from labeltrack._core.kernels import fixed_point as kernels

WORD = 2**64 - 1


def signed(word):
    return word - 2**64 if word >> 63 else word


class Form(NamedTuple):
    """A format: its kernels, and the bits of its integers."""

    kernels: Any
    bits: int

    @property
    def most(self):
        return 2**self.bits - 1

    def bias(self, negative):
        return 2 ** (self.bits - 1) if negative else 0

    def words(self, u):
        """Return the words of a converted sample."""
        return [signed(u | (self.most - u) << 32)] if self.bits == 32 else [u, self.most - u]

    def row(self, us, times=1):
        """Return the words of a row by Python's integers, of samples that come some times over."""
        if not us:
            return [0] * self.kernels.WORDS
        count, least, most = len(us) * times, self.most - min(us), max(us)
        if self.bits == 32:
            packed = sum(y * y >> 43 for y in us) * times << 21 | count
            words = sum(us) * times, sum(y * y for y in us) * times, packed, most | least << 32
            return [signed(word & WORD) for word in words]
        parts = [[u * u & WORD for u in us], [u * u >> 64 for u in us], us]
        shifted = [sum(x >> 43 for x in part) * times << 21 for part in parts]
        shifted[0] += count
        return [*(signed(sum(part) * times & WORD) for part in parts), least, *map(signed, shifted), most]

    def table(self, *rows):
        table = aligned_words(len(rows) * self.kernels.WORDS)
        table[:] = [word for row in rows for word in row]
        return table


FORMS = [Form(fixed32, 32), Form(fixed63, 63)]
every_form = pytest.mark.parametrize("form", FORMS, ids=["fixed32", "fixed63"])


def unit_of(shift, *, negative, copies=1, finer=False):
    return kernels.Unit(2.0**shift, negative, copies, finer)


def reduce(form, labels, samples, size, shift, *, copies=1, finer=False, negative=True):
    """Return the position reached, the table, what is queued, and why the pass stopped."""
    table = aligned_words((4 if finer else copies) * size * form.kernels.WORDS)
    queue, scratch = (np.zeros(8192, dtype=np.int64), np.zeros(8192)), kernels.new_scratch(form.bits // 31)
    unit = unit_of(shift, negative=negative, copies=copies, finer=finer)
    batch = kernels.Batch(labels, samples, 0, len(samples), 0, size, np.empty(kernels.BLOCK, labels.dtype))
    position, n, status = form.kernels.reduce(batch, table, unit, scratch, kernels.Queue(*queue), 0)
    assert scratch.lines.ctypes.data % 64 == 0
    assert scratch.block.size >= kernels.BLOCK
    assert not scratch.lines.any()
    return position, table, (queue[0][:n], queue[1][:n]), status


def flushed(form, table, size, shift, *, negative, finer=False, fresh=False):
    """Return an accumulator with the sums of a table."""
    accumulator = Accumulator(size)
    keys, values = np.empty(64 * size, dtype=np.int64), np.empty(64 * size)
    number = table.shape[0] // form.kernels.WORDS
    if fresh:  # the table is the beginning of the memory of the rows
        memory = np.append(table, np.full(8 * size - table.shape[0], -1))
        accumulator._rows, table = memory.view(np.float64), memory[: table.shape[0]]
    unit, state = unit_of(shift, negative=negative, finer=finer), (accumulator.rows, accumulator.counts)
    row, n = form.kernels.flush(table, unit, 0, number, fresh, *state, keys, values)
    assert row == number
    accumulator.keys, accumulator.values, accumulator._folded = keys[:n], values[:n], False
    return accumulator


# -- choosing a unit --------------------------------------------------------------------------------------------------


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


# -- rows -------------------------------------------------------------------------------------------------------------


def test_no_sum_of_a_row_overflows_or_is_ambiguous():
    n = kernels.MAX_COUNT
    assert n < 2**kernels.COUNT_BITS
    # What the shifts drop is known modulo 2**64.
    assert n * (2**kernels.SHIFT - 1) < 2**64
    assert n * (WORD >> kernels.SHIFT) < 2 ** (64 - kernels.COUNT_BITS)
    assert n * (2**32 - 1) < 2**63
    assert FixedPoint.capacity == n


integers = st.one_of(st.integers(0, 2**63 - 1), st.sampled_from([0, 1, 2**31, 2**62, 2**63 - 1]))


@every_form
@given(st.lists(integers, min_size=1, max_size=40))
def test_a_row_is_the_sum_that_python_has(form, us):
    # The nearest doubles, as the samples of one label, in turn and in runs.
    numbers = np.array([u >> 63 - form.bits for u in us], dtype=np.float64)
    samples = np.minimum(numbers, 2.0**form.bits - 2.0 ** max(form.bits - 53, 0))
    us, labels = [int(x) for x in samples], np.zeros(len(us), dtype=np.int32)
    for copies in (1, 4):
        _, table, *_ = reduce(form, labels, samples, 1, 0, copies=copies, negative=False)
        assert table.reshape(copies, -1).tolist() == [form.row(us[turn::copies]) for turn in range(copies)]
    _, table, *_ = reduce(form, np.repeat(labels, 80), np.repeat(samples, 80), 1, 0, negative=False)
    assert table.tolist() == form.row(us, 80)


@every_form
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(
    st.lists(st.one_of(st.floats(), integers.map(lambda n: n / 2**60), integers.map(lambda n: -n / 2**51)), min_size=1),
    st.sampled_from([0, 20, 31, 40, 60, 100]),
    st.booleans(),
    st.booleans(),
)
@example(values=[2.208415776070488e-12], shift=60, negative=True, finer=True)  # 2**21.3 units, and half a finest one
@example(values=[(2.0**53 - 1) / 2**91, -(2.0**52 + 1) / 2**90], shift=60, negative=True, finer=True)
def test_conversion_keeps_integers_and_nothing_else(form, dtype, values, shift, negative, finer):
    finer &= form.bits == 63
    with np.errstate(over="ignore"):
        samples = np.array(values, dtype=dtype)
    m, size = len(values), len(form.words(0))
    words, offsets = np.full(m * size, 7, dtype=np.int64), np.zeros(m, dtype=np.uint64)
    form.kernels.convert(samples, 0, m, unit_of(shift, negative=negative, finer=finer), 1, words, offsets)
    bias = form.bias(negative)
    for v, mine, offset in zip(samples.tolist(), words.reshape(m, size).tolist(), offsets.tolist(), strict=True):
        scaled = Fraction(v) * 2**shift * 2 ** (fixed63.FINER_BITS * offset) if math.isfinite(v) else None
        if scaled is None or scaled.denominator != 1 or not -bias <= scaled <= form.most - bias:
            assert mine == [0] * size
        else:
            assert mine == form.words(int(scaled) + bias) != [0] * size
        # One of the four units holds every double that is not too large and not too small: the last of 53 bits is worth
        # at least 2**-30 from 2**22 on, which is one in the finest unit.
        if finer and negative and (v == 0.0 or 2.0**22 <= abs(v) * 2.0**shift < 2.0**62):
            assert any(mine)


# -- flushing ---------------------------------------------------------------------------------------------------------


@every_form
@given(
    st.lists(integers, min_size=1, max_size=20),
    st.integers(1, kernels.MAX_COUNT // 20),
    st.booleans(),
    st.booleans(),
    st.integers(0, 300),
)
def test_flushing_is_exact_up_to_the_largest_count(form, us, times, negative, fresh, shift):
    us, shift = [u >> 63 - form.bits for u in us], min(shift, 100 if form.bits == 32 else 300)
    table = form.table(form.row([]), form.row(us, times))
    accumulator = flushed(form, table, 2, shift, negative=negative, fresh=fresh)
    numbers = [Fraction(u - form.bias(negative), 2**shift) for u in us]
    assert accumulator.exact(1) == (len(us) * times, times * sum(numbers), times * sum(x * x for x in numbers))
    assert accumulator.exact(0) == (0, 0, 0)
    assert accumulator.rows[:8].tolist() == Accumulator(1).rows.tolist()
    totals = accumulator.totals()
    assert (totals.min[1], totals.max[1]) == (float(min(numbers)), float(max(numbers)))
    assert fresh or not table.any()


@every_form
@pytest.mark.parametrize("negative", [False, True])
def test_the_most_samples_of_the_most_are_flushed_exactly(form, negative):
    n = kernels.MAX_COUNT
    for u in (0, 1, 2**31 - 1, form.bias(True), form.most):
        x = Fraction(u - form.bias(negative))
        table = form.table(form.row([u], n))
        assert flushed(form, table, 1, 0, negative=negative).exact(0) == (n, n * x, n * x * x)


@every_form
def test_flushing_stops_when_the_terms_are_full_and_resumes(form):
    u = form.bias(True) + 12345
    table = form.table(*[form.row([u])] * 3)
    accumulator = Accumulator(3)
    for slot in range(3):
        accumulator.rows[slot * 8 + 1 : slot * 8 + 6] = [1e100, 1e60, 1e100, 1e60, 1e20]
        accumulator.counts[slot * 8] = 5
    overflow, row, calls = [Fraction(0)] * 2, 0, 0
    keys, values = np.empty(7, dtype=np.int64), np.empty(7)
    while row < 3:
        state = accumulator.rows, accumulator.counts, keys, values
        row, n = form.kernels.flush(table, unit_of(90, negative=False), row, 3, False, *state)
        for key, value in zip(keys[:n].tolist(), values[:n].tolist(), strict=True):
            overflow[key % 8] += Fraction(value)
        calls += 1
    assert calls > 1
    x, words = Fraction(u, 2**90), accumulator.rows.reshape(3, 8)
    total = Fraction(1e100) + Fraction(1e60) + x
    assert sum(map(Fraction, words[:, 1:3].ravel().tolist())) + overflow[0] == 3 * total
    squares = Fraction(1e100) + Fraction(1e60) + Fraction(1e20) + x * x
    assert sum(map(Fraction, words[:, 3:6].ravel().tolist())) + overflow[1] == 3 * squares


# -- the loop ---------------------------------------------------------------------------------------------------------


@every_form
@pytest.mark.parametrize("way", ["near", "far", "few", "few, runs", "runs", "finer"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("negative", [False, True])
def test_every_loop_is_exact_and_queues_what_it_rejects(form, way, dtype, negative):
    rng, finer = np.random.default_rng(1), way == "finer" and form.bits == 63
    n = 9000 if COMPILED else 900
    size = 3 if "few" in way else form.kernels._FAR + 1 if way == "far" else 40
    if form.bits == 32:
        samples, shift = rng.integers(-2000 if negative else 0, 2000, n).astype(dtype) / dtype(1024), 20
    else:
        samples, shift = (rng.normal(size=n) if negative else rng.random(n)).astype(dtype), 58
    if finer:
        samples *= np.exp(rng.uniform(-12, 0, n)).astype(dtype)
    samples[::197] = 2.0**-120
    samples[5::231] = 2.0**40
    samples[::333] = np.nan
    samples[1::333] = -np.inf
    labels = rng.integers(0, size, n).astype(np.int32)
    if "runs" in way:
        labels.sort()
    copies = 4 if "few" in way else 1
    position, table, (slots, queued_samples), status = reduce(
        form, labels, samples, size, shift, copies=copies, finer=finer, negative=negative
    )
    assert (position, status) == (n, DONE)
    accumulator = flushed(form, table, size, shift, negative=negative, finer=finer)
    totals = accumulator.totals()
    for slot in np.unique(labels).tolist():
        mine, queued = samples[labels == slot], queued_samples[slots == slot]
        held = mine[np.isfinite(mine)].tolist()
        assert 2.0**-120 in queued or 2.0**-120 not in held
        for value in queued[np.isfinite(queued)].tolist():
            held.remove(value)
        assert (~np.isfinite(queued)).sum() == (~np.isfinite(mine)).sum()
        assert accumulator.exact(slot) == sums(held)
        if held:
            assert (totals.min[slot], totals.max[slot]) == (min(held), max(held))
    assert totals.count.sum() + slots.size == n
    assert 0 < slots.size < 0.1 * n


@every_form
@pytest.mark.parametrize("copies", [1, 4])
def test_a_rejected_sample_that_is_the_first_of_its_label_leaves_nothing(form, copies):
    samples = np.zeros(8)
    samples[3] = np.nan
    labels = np.array([0, 0, 0, 1, 2, 2, 2, 2], dtype=np.int32)
    _, table, (slots, _), _ = reduce(form, labels, samples, 3, 10, negative=False, copies=copies)
    assert slots.tolist() == [1]
    assert not table.reshape(copies, 3, -1)[:, 1].any()


@every_form
@pytest.mark.parametrize("copies", [1, 4])
@pytest.mark.parametrize("at", [0, 1, 190, 191, 192, 300])
@pytest.mark.parametrize("stray", [False, True])
def test_a_label_outside_the_table_ends_the_pass_before_it(form, at, copies, stray):
    labels = np.zeros(400, dtype=np.int64)
    labels[at] = 2
    samples = np.arange(400) * 0.5
    if stray:
        samples[at] = np.nan
    samples[at + 1] = np.nan
    position, table, (slots, _), status = reduce(form, labels, samples, 2, 1, negative=False, copies=copies)
    assert (position, slots.size, status) == (at, 0, OUTSIDE)
    assert flushed(form, table, 2, 1, negative=False).exact(0) == sums(samples[:at])


@every_form
def test_the_pass_stops_where_too_many_samples_are_rejected(form):
    samples = np.full(20_000, 0.5)
    samples[::5] = 2.0**-120
    position, _, (slots, _), status = reduce(form, np.zeros(20_000, dtype=np.int32), samples, 1, 20)
    assert status == UNSUITABLE
    assert position < 2000
    assert slots.size == len(range(0, position, 5))


@every_form
def test_the_pass_stops_when_the_queue_is_full(form):
    samples = np.full(20_000, 0.5)
    samples[::40] = np.nan
    table, queue = aligned_words(8), kernels.Queue(np.zeros(600, dtype=np.int64), np.zeros(600))
    labels = np.zeros(20_000, dtype=np.int64)
    batch = kernels.Batch(labels, samples, 0, 20_000, 0, 1, np.empty(kernels.BLOCK, labels.dtype))
    state = table, unit_of(1, negative=False), kernels.new_scratch(form.bits // 31), queue, 0
    position, n, status = form.kernels.reduce(batch, *state)
    assert status == FULL
    assert n == len(range(0, position, 40)) < 600
    assert table[form.kernels.COUNT] & kernels.MAX_COUNT == position - n
