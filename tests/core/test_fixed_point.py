"""Fixed-point formats: exact like the readable pass, and used only where they pay."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from conftest import COMPILED
from exact import expected, hard_cases, read, sums
from hypothesis import given, settings
from hypothesis import strategies as st

from labeltrack._core import accumulator as _accumulate
from labeltrack._core import fixed_point as _fixed
from labeltrack._core.accumulator import Accumulator
from labeltrack._core.fixed_point import Fixed32, Fixed63
from labeltrack._core.kernels import DONE

CASES = {name: x for name, x in hard_cases().items() if x.dtype in (np.float32, np.float64)}


@pytest.fixture(name="_eager")
def _eager_fixture(monkeypatch):
    """Try fixed point on any number of samples."""
    monkeypatch.setattr(_fixed, "LEAST", 1)


@pytest.fixture(name="only")
def _only_fixture(monkeypatch):
    """Return a function that allows one format alone."""

    def only(form):
        for other in {Fixed32, Fixed63} - {form}:
            monkeypatch.setattr(other, "_worth_it", lambda _road, _samples: False)

    return only


def held(accumulator):
    """Return an upper bound of the samples that a label has in each table."""
    return tuple(form.held for form in accumulator._formats)


@pytest.mark.usefixtures("_eager")
@pytest.mark.parametrize("form", [None, Fixed63])
@pytest.mark.parametrize("name", CASES)
def test_every_hard_case_is_exact_in_fixed_point_too(name, form, only):
    if form is not None:
        only(form)
    values = CASES[name]
    accumulator = Accumulator(3)
    slots = (np.arange(values.size) % 3).astype(np.int32)
    for some in np.array_split(np.arange(values.size), 5):
        assert accumulator.add(slots[some], values[some]) == some.size
    for slot in range(min(3, values.size)):
        assert accumulator.exact(slot) == sums(values[slots == slot])
        assert read(accumulator, slot) == expected(values[slots == slot])


@pytest.mark.usefixtures("_eager")
@pytest.mark.parametrize("form", range(2))
@settings(suppress_health_check=list(__import__("hypothesis").HealthCheck))
@given(
    st.lists(
        st.tuples(
            st.integers(0, 2),
            st.one_of(
                st.integers(-64, 64).map(lambda k: k / 16),
                st.floats(width=32),
            ),
        ),
        min_size=1,
        max_size=60,
    )
)
def test_samples_that_fit_and_samples_that_do_not_may_come_in_any_mixture(form, pairs):
    slots = np.array([slot for slot, _ in pairs], dtype=np.int32)
    values = np.array([value for _, value in pairs], dtype=np.float32)
    accumulator = Accumulator(3)
    accumulator._formats[form].scale = 2.0**20  # as chosen by earlier samples
    accumulator.add(slots, values)
    for slot in range(3):
        mine = values[slots == slot]
        assert accumulator.exact(slot) == sums(mine[np.isfinite(mine)])
        assert accumulator.nonfinite[slot].sum() == (~np.isfinite(mine)).sum()


def long_run(rng, n):
    values = rng.exponential(1, n).astype(np.float32)
    values[rng.integers(0, n, n // 200)] *= np.float32(1e-6)  # too fine
    values[rng.integers(0, n, n // 300)] = 1e9  # too large
    values[rng.integers(0, n, 5)] = np.nan
    return values


@pytest.mark.parametrize("form", [Fixed32, Fixed63])
def test_a_long_run_with_strays_is_exact_and_uses_this_format(form, only):
    only(form)
    rng = np.random.default_rng(1)
    n = 30_000 if COMPILED else 6_000
    values, slots = long_run(rng, n), rng.integers(0, 5, n).astype(np.int32)
    accumulator = Accumulator(5)
    accumulator.add(slots, values)
    assert held(accumulator)[[Fixed32, Fixed63].index(form)] > n * 0.9
    for slot in range(5):
        mine = values[slots == slot]
        assert accumulator.exact(slot) == sums(mine[np.isfinite(mine)])
        assert read(accumulator, slot) == expected(mine[np.isfinite(mine)])


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64])
@pytest.mark.parametrize("stray", [0.25, 1e-7])
@pytest.mark.parametrize("form", [Fixed32, Fixed63])
def test_a_label_outside_the_table_stops_this_format(dtype, stray, form, only):
    only(form)
    n = 5000
    slots = np.zeros(n, dtype=dtype)
    slots[4100] = 9
    values = np.full(n, 0.25, dtype=np.float32)
    values[4100] = stray  # whether it fits or not
    accumulator = Accumulator(2)
    assert accumulator.add(slots, values) == 4100
    assert accumulator.exact(0)[0] == 4100


FORMATS = [Fixed32, Fixed63]


@pytest.mark.parametrize("form", [Fixed32, Fixed63])
def test_the_table_is_flushed_before_it_can_overflow(monkeypatch, form, only):
    only(form)
    monkeypatch.setattr(form, "capacity", 3000)
    values = np.full(10_000, 0.75, dtype=np.float32)
    accumulator = Accumulator(1)
    accumulator.add(np.zeros(10_000, dtype=np.int32), values)
    assert 0 < max(held(accumulator)) <= 3000
    assert accumulator.exact(0) == sums(values)


@pytest.mark.parametrize("form", [Fixed32, Fixed63])
def test_the_table_is_not_flushed_where_no_label_can_have_many_samples(monkeypatch, form, only):
    only(form)
    monkeypatch.setattr(form, "capacity", 300)
    slots = np.arange(10_000, dtype=np.int32) % 100
    values = np.full(10_000, 0.75, dtype=np.float32)
    accumulator = Accumulator(100)
    for _ in range(2):
        accumulator.add(slots, values, most=100)
    assert max(held(accumulator)) == 200
    assert accumulator.exact(7) == sums(np.full(200, 0.75))


@pytest.mark.parametrize("outliers", [False, True])
@pytest.mark.parametrize("form", [Fixed32, Fixed63])
def test_a_table_is_added_to_the_rows_of_another_accumulator(form, outliers, only):
    only(form)
    size, crowded = 2000, 1900
    slots = np.concatenate([np.arange(size), np.full(1000, crowded)] * 4).astype(np.int32)
    values = np.random.default_rng(4).random(slots.size).astype(np.float32 if form is not Fixed63 else np.float64)
    if outliers:
        values[::100] = 2.0**-24 + 2.0**-40  # queued by one format
    whole, other = Accumulator(size), Accumulator(size)
    for accumulator in (whole, other):
        accumulator.suggest(values[::10], slots.size)
        assert accumulator.add(slots, values) == slots.size
        assert accumulator._formats[[Fixed32, Fixed63].index(form)].held
    whole.absorb(other)
    for slot in (0, 1, 3, 4, 999, 1000, 1500, 1899, 1900, 1901, 1999):
        mine = np.tile(values[slots == slot], 2)
        assert whole.exact(slot) == sums(mine)
        assert whole.rows[8 * slot + 6 : 8 * slot + 8].tolist() == [mine.min(), mine.max()]
    assert int(whole.counts[::8].sum()) == 2 * slots.size


@pytest.mark.parametrize("form", [Fixed32, Fixed63])
def test_samples_of_another_magnitude_lead_to_another_unit(form, only):
    only(form)
    accumulator = Accumulator(1)
    slots = np.zeros(60_000 if COMPILED else 21_000, dtype=np.int32)
    large = np.full(5000, 1e6, dtype=np.float32)
    small = np.random.default_rng(2).random(slots.size).astype(np.float32) * np.float32(1e-9)
    accumulator.add(slots[:5000], large)
    first = accumulator._formats[FORMATS.index(form)].scale
    accumulator.add(slots, small)
    assert accumulator._formats[FORMATS.index(form)].scale > first
    assert accumulator.exact(0) == sums([*large, *small])


@pytest.mark.parametrize(
    ("values", "form"),
    [
        (np.full(5000, np.nan, dtype=np.float32), None),
        (np.random.default_rng(3).normal(size=5000).astype(np.float32), 0),
        (np.random.default_rng(3).normal(size=5000), 1),  # 53 bits each
        (np.random.default_rng(3).lognormal(0, 2, 5000).astype(np.float32), 1),
        (np.random.default_rng(3).lognormal(0, 5, 5000).astype(np.float32), 1),
        (np.exp(np.random.default_rng(3).uniform(-15, 0, 5000)), 1),
        (np.full(5000, 1e300), None),
        (np.full(5000, 1e-300), None),
        (10.0 ** np.random.default_rng(4).uniform(-40, 38, 5000).astype(np.float32), None),
    ],
    ids=[
        "only NaN",
        "floats",
        "doubles",
        "some magnitudes",
        "more",
        "doubles of some",
        "huge",
        "tiny",
        "every magnitude",
    ],
)
def test_samples_use_the_first_format_that_suits(values, form):
    accumulator = Accumulator(1)
    accumulator.add(np.zeros(values.size, dtype=np.int32), values)
    assert [i for i, samples in enumerate(held(accumulator)) if samples] == ([] if form is None else [form])
    assert accumulator.exact(0) == sums(values[np.isfinite(values)])


def test_a_unit_is_dropped_when_samples_become_small():
    rng = np.random.default_rng(12)
    n = 60_000 if COMPILED else 9_000
    values = rng.random(n).astype(np.float32)
    values[n // 2 :] *= np.exp(rng.uniform(-20, 0, n - n // 2)).astype(np.float32)
    slots = rng.integers(0, 30, n).astype(np.int32)
    accumulator = Accumulator(30)
    assert accumulator.add(slots, values) == n
    assert 0 < accumulator._formats[0].held < n or accumulator._formats[0].scale == 0.0
    exact_by_slot(accumulator, values, slots)


def test_zeros_and_ones_suit_in_either_precision():
    for dtype in (np.float32, np.float64):
        values = (np.arange(5000) % 3 == 0).astype(dtype)
        accumulator = Accumulator(1)
        accumulator.add(np.zeros(5000, dtype=np.int32), values)
        assert held(accumulator) == (5000, 0)
        assert read(accumulator) == expected(values)


def test_few_samples_or_many_labels_do_not_try():
    samples = np.ones(5000, dtype=np.float32)
    for form in (Fixed32, Fixed63):
        few = form(1)
        assert (few.plan(samples, 0, 100, 100), few.scale) == (100, 0.0)
        many = form(20_000)
        assert (many.plan(samples, 0, 5000, 5000), many.scale) == (5000, 0.0)
    huge = Fixed63(1 << 23)
    assert (huge.plan(np.ones(1 << 23), 0, 1 << 23, 1 << 23), huge.scale) == (1 << 23, 0.0)


def test_retries_become_rarer_while_nothing_suits_and_frequent_again_after_success():
    form = Fixed32(1)
    samples = np.random.default_rng(5).normal(size=200_000)
    position, reaches = 0, []
    while position < samples.size:
        reach = form.plan(samples, position, samples.size, samples.size)
        reaches.append(reach - position)
        position = reach
    assert reaches[:3] == [1 << 14, 1 << 15, 1 << 16]
    assert form._patience > 1 << 14
    form.record(1 << 20, 1 << 20, DONE)
    assert form._patience == 1 << 14


def exact_by_slot(accumulator, values, slots):
    assert accumulator.occupied().tolist() == np.unique(slots).tolist()
    for slot in np.unique(slots).tolist():
        mine = values[slots == slot]
        assert accumulator.exact(slot) == sums(mine[np.isfinite(mine)])
        assert accumulator.nonfinite[slot].sum() == (~np.isfinite(mine)).sum()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("order", ["random", "sorted", "one label", "runs"])
@pytest.mark.parametrize("size", [2, 40, 9000])
@pytest.mark.parametrize("form", [None, Fixed63])
def test_tables_of_every_size_and_orders_of_every_kind_are_exact(dtype, order, size, form, only):
    if form is not None:
        only(form)
    rng = np.random.default_rng(6)
    n = 12_000
    values = long_run(rng, n).astype(dtype) * dtype(1.0 if dtype == np.float32 else 1.1)
    slots = rng.integers(0, size, n).astype(np.int32)
    if order == "sorted":
        slots.sort()
    elif order == "one label":
        slots[:] = size - 1
    elif order == "runs":
        slots = np.repeat(slots[: n // 25], 25)[:n]
    n = slots.size
    values = values[:n]
    accumulator = Accumulator(size)
    for fixed in accumulator._formats:
        fixed._seen = 1 << 20  # as if enough had come to look for a unit
    assert accumulator.add(slots[: n // 2], values[: n // 2]) == n // 2
    assert accumulator.add(slots, values, n // 2) == n
    if form is None:
        assert (accumulator._formats[0].held > 0) == (dtype == np.float32)
    elif dtype == np.float32 or form is Fixed63:
        assert accumulator._formats[FORMATS.index(form)].held > 0
    exact_by_slot(accumulator, values, slots)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("at", [4100, 4101, 4999])
@pytest.mark.parametrize("form", [None, Fixed63])
def test_a_label_outside_a_table_beyond_the_cache_stops_the_pass(dtype, at, form, only):
    if form is not None:
        only(form)
    labels = np.arange(5000) % 9000
    labels[at] = 9000
    values = np.random.default_rng(8).random(5000).astype(dtype)
    accumulator = Accumulator(9000)
    for fixed in accumulator._formats:
        fixed._seen = 1 << 20  # as if enough had come to look for a unit
    assert accumulator.add(labels, values) == at
    assert sum(held(accumulator)) == at
    exact_by_slot(accumulator, values[:at], labels[:at])


@pytest.mark.parametrize("form", [Fixed32, Fixed63])
def test_what_must_not_be_too_many_are_the_samples_of_one_label(monkeypatch, form, only):
    only(form)
    monkeypatch.setattr(form, "capacity", 1000)
    values = np.random.default_rng(9).random(8000)
    if form is not Fixed63:
        values = values.astype(np.float32)
    accumulator = Accumulator(100)
    slots = np.arange(8000, dtype=np.int32) % 100
    accumulator.add(slots, values)
    fixed = accumulator._formats[FORMATS.index(form)]
    assert accumulator._rows is None  # not flushed: no label has more than 80
    assert 80 <= fixed.held <= 1000
    accumulator.add(np.zeros(3000, dtype=np.int32), values[:3000])
    assert accumulator._rows is not None
    exact_by_slot(accumulator, np.concatenate([values, values[:3000]]), np.append(slots, [0] * 3000))


@pytest.mark.parametrize("size", [1, 20_000])
@pytest.mark.parametrize("form", [Fixed32, Fixed63])
def test_nothing_is_lost_where_many_samples_are_queued(monkeypatch, size, form, only):
    only(form)
    monkeypatch.setattr(_accumulate, "_BLOCK", 1 << 12)
    monkeypatch.setattr(_accumulate, "_LARGEST_QUEUE", 1 << 14)
    rng = np.random.default_rng(10)
    n = 1_000_000 if COMPILED else 20_000
    if not COMPILED:
        monkeypatch.setattr(_accumulate, "_QUEUE", 1 << 10)
        monkeypatch.setattr(_accumulate, "_LARGEST_QUEUE", 1 << 10)
    values = rng.random(n).astype(np.float32)
    values[::40] *= np.float32(2.0**-30)
    slots = rng.integers(0, size, n).astype(np.int32)
    accumulator = Accumulator(size)
    accumulator.add(slots, values)
    totals = accumulator.totals()
    mantissas, exponents = np.frexp(values)
    integers = (mantissas * 2**24).astype(np.int64)
    whole = sum(int(integers[exponents == e].sum()) * Fraction(2) ** (e - 24) for e in np.unique(exponents).tolist())
    assert sum(accumulator.exact(slot)[1] for slot in range(size)) == whole
    assert totals.count.tolist() == np.bincount(slots, minlength=size).tolist()
    assert np.nanmin(totals.min) == values.min()


def test_small_doubles_after_large_floats_do_not_underflow():
    accumulator = Accumulator(1)
    slots = np.zeros(5000, dtype=np.int32)
    large, small = np.full(5000, 2.0**100, dtype=np.float32), np.full(5000, 2.0**-1060)
    accumulator.add(slots, large)
    accumulator.add(slots, small)
    assert accumulator.exact(0) == sums([*large, *small])
    assert read(accumulator) == expected([*large, *small])


def test_a_unit_is_suggested_by_samples_from_all_over_those_that_are_given():
    rng = np.random.default_rng(0)
    small, large = np.full(1024, 2.0**-30), rng.integers(1 << 20, 1 << 21, 3072) / 2.0**21
    samples = np.concatenate([small, large]).astype(np.float32)
    table = Fixed32(100)
    table.suggest(samples, 10**6)
    assert table.unfit(samples, table.scale) == 0


@pytest.mark.usefixtures("_eager")
def test_signalling_nans_are_counted_without_a_warning():
    values = np.full(64, 1.5, dtype=np.float32)
    values.view(np.uint32)[::8] = 0x7F800001
    accumulator = Accumulator(1)
    accumulator.add(np.zeros(64, dtype=np.int32), values)
    assert accumulator.nonfinite[0].tolist() == [8, 0, 0]
    assert accumulator.exact(0) == sums(values[~np.isnan(values)])
