"""The accumulator against rational arithmetic: named cases, generated data, merging, state."""

from __future__ import annotations

import math
import pickle
from fractions import Fraction

import numpy as np
import pytest
from conftest import COMPILED
from exact import expected, hard_cases, read
from hypothesis import given
from hypothesis import strategies as st

from labeltrack._core import fixed_point as _fixed
from labeltrack._core.accumulator import ROW, Accumulator

finite = st.floats(allow_nan=False, allow_infinity=False)
CASES = {name: x.astype(np.float32) if x.dtype == np.float16 else x for name, x in hard_cases().items()}
CASES = {name: x if x.dtype.kind == "f" else x.astype(np.float64) for name, x in CASES.items()}


def filled(values, slots=None, size=1):
    accumulator = Accumulator(size)
    labels = np.zeros(len(values), dtype=np.int32) if slots is None else np.asarray(slots, dtype=np.int32)
    assert accumulator.add(labels, np.asarray(values)) == len(values)
    return accumulator


@pytest.mark.parametrize("name", CASES)
def test_every_statistic_of_a_named_case_is_the_exact_value_rounded_once(name):
    assert read(filled(CASES[name])) == expected(CASES[name])


@pytest.mark.parametrize("name", CASES)
def test_the_sums_themselves_are_exact_on_a_named_case(name):
    numbers = [Fraction(float(x)) for x in CASES[name]]
    assert filled(CASES[name]).exact(0) == (len(numbers), sum(numbers), sum(x * x for x in numbers))


@given(st.lists(finite, min_size=1, max_size=30))
def test_float64_statistics_are_exact_over_the_whole_range_of_doubles(values):
    assert read(filled(np.array(values))) == expected(values)


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), min_size=1, max_size=30))
def test_float32_statistics_are_exact_over_the_whole_range_of_floats(values):
    assert read(filled(np.array(values, dtype=np.float32))) == expected(values)


@given(st.lists(st.integers(-4, 4), min_size=1, max_size=20), st.sampled_from([1e8, 1e15, 0.1, 1e-130, 1e144, 2.0**53]))
def test_values_a_few_units_in_the_last_place_apart_cancel_exactly(steps, centre):
    values = centre + np.array(steps) * math.ulp(centre)
    assert read(filled(values)) == expected(values)


@given(st.lists(st.tuples(st.integers(0, 3), finite), min_size=1, max_size=40), st.randoms())
def test_merging_equals_adding_regardless_of_order_and_cut(pairs, random):
    whole = filled([v for _, v in pairs], [s for s, _ in pairs], size=4)
    random.shuffle(pairs)
    cut = random.randint(0, len(pairs))
    merged = Accumulator(6)
    for part in (pairs[cut:], pairs[:cut]):
        slots = np.array([s for s, _ in part], dtype=np.int32)
        one = Accumulator(4)
        one.add(slots, np.array([v for _, v in part], dtype=np.float64))
        merged.merge(one, np.array([5, 0, 3, 2]))
    for slot, place in enumerate([5, 0, 3, 2]):
        assert merged.exact(place) == whole.exact(slot)
    expected_totals, totals = whole.totals(), merged.totals()
    for a, b in zip(expected_totals, totals, strict=True):
        assert a.tobytes() == b[[5, 0, 3, 2]].tobytes()


def test_merging_reads_the_other_and_aliases_nothing():
    other = filled(CASES["lognormal, sigma 4"])
    before = other.exact(0)
    target = Accumulator(1)
    target.merge(other, np.array([0]))
    target.add(np.zeros(1, dtype=np.int32), np.ones(1))
    assert other.exact(0) == before
    assert not np.shares_memory(target.rows, other.rows)
    assert not np.shares_memory(target.values, other.values)


def test_merging_empty_accumulators_gives_an_empty_one():
    both = Accumulator(2)
    both.merge(Accumulator(2), np.array([0, 1]))
    assert both.occupied().size == 0
    assert math.isnan(both.totals().mean[0])


def test_many_overflow_terms_are_folded_back_on_the_way():
    rng = np.random.default_rng(5)
    n = 60_000 if COMPILED else 24_000
    values = 10.0 ** rng.uniform(-140, 130, n)
    slots = rng.integers(0, 3, n).astype(np.int32)
    accumulator = filled(values, slots, size=3)
    assert accumulator.keys.size < 100_000
    for slot in range(3):
        numbers = [Fraction(x) for x in values[slots == slot].tolist()]
        assert accumulator.exact(slot) == (len(numbers), sum(numbers), sum(x * x for x in numbers))
        assert read(accumulator, slot) == expected(values[slots == slot])
    assert accumulator.keys.size < 200  # folded back, what is left is short


def test_overflow_terms_of_many_merges_are_folded_back_on_the_way():
    rng = np.random.default_rng(6)
    size = 2000
    total = Accumulator(size)
    values = [10.0 ** rng.uniform(-100, 100, size) for _ in range(12)]
    everyone = np.arange(size)
    for one in values:
        total.merge(filled(one, everyone, size), everyone)
    for slot in range(0, size, 97):
        assert total.exact(slot)[1] == sum(Fraction(float(one[slot])) for one in values)


def test_nan_and_infinities_are_counted_apart_and_never_summed():
    values = np.array([1.0, math.nan, math.inf, 2.0, -math.inf, math.inf, math.nan, math.nan])
    for dtype in (np.float32, np.float64):
        accumulator = filled(values.astype(dtype))
        assert accumulator.nonfinite.tolist() == [[3, 2, 1]]
        assert read(accumulator) == expected([1.0, 2.0])


def test_samples_are_added_from_a_start_to_a_stop():
    accumulator = Accumulator(1)
    assert accumulator.add(np.zeros(5, dtype=np.uint8), np.arange(5.0), 1, 3) == 3
    assert read(accumulator)[:2] == (2, 3.0)


def test_adding_reports_where_a_label_lies_outside():
    accumulator = Accumulator(2)
    assert accumulator.add(np.array([11, 10, 12]), np.arange(3.0), low=10) == 2
    assert accumulator.totals().sum.tolist() == [1.0, 0.0]


def test_a_slot_is_read_by_its_own_overflow_terms_alone(monkeypatch):
    # Tiny samples leave every slot in doubt; reading them all must not look at all terms for each.
    size = 300
    values = np.repeat(10.0 ** np.random.default_rng(11).uniform(-300, -200, size), 3) * np.tile([1.0, 1.5, 1.1], size)
    accumulator = filled(values, np.repeat(np.arange(size), 3), size)
    accumulator.fold_back()
    touched = []
    convert = Fraction.__new__
    monkeypatch.setattr("labeltrack._core.rounding.Fraction", lambda *a: touched.append(1) or convert(Fraction, *a))
    totals = accumulator.totals()
    assert len(touched) < 60 * size
    monkeypatch.undo()
    for slot in range(0, size, 37):
        assert tuple(c[slot].item() for c in totals) == expected(values[3 * slot : 3 * slot + 3])


def test_taking_slots_keeps_their_overflow_terms():
    values = 10.0 ** np.random.default_rng(8).uniform(-140, 150, 300)
    accumulator = filled(values, np.arange(300) % 3, size=3)
    taken = accumulator.take(np.array([2, 0]))
    assert taken.exact(0) == accumulator.exact(2)
    assert taken.exact(1) == accumulator.exact(0)
    copy = accumulator.take(np.arange(3))
    accumulator.add(np.zeros(1, dtype=np.int32), np.ones(1))
    assert copy.exact(0) != accumulator.exact(0)


def test_adding_after_reading_is_exact():
    values = CASES["1e-140 to 1e150"]
    accumulator = filled(values[:200])
    read(accumulator)
    accumulator.add(np.zeros(300, dtype=np.int32), values[200:])
    assert read(accumulator) == expected(values)


def test_pickling_keeps_the_exact_state():
    accumulator = filled(CASES["1e-140 to 1e150"])
    again = pickle.loads(pickle.dumps(accumulator))
    assert again.exact(0) == accumulator.exact(0)
    again.add(np.zeros(1, dtype=np.int32), np.ones(1))
    assert again.exact(0)[0] == accumulator.exact(0)[0] + 1


def test_every_row_lies_on_a_cache_line():
    for size in (1, 3, 1000):
        assert Accumulator(size).rows.ctypes.data % (ROW * 8) == 0


def test_the_smallest_of_two_zeros_does_not_depend_on_their_order():
    for values in ([0.0, -0.0], [-0.0, 0.0], [-0.0]):
        low, high = read(filled(np.array(values)))[4:]
        assert (math.copysign(1, low), math.copysign(1, high)) == (1.0, 1.0)


def test_a_sum_beyond_the_largest_double_is_infinite_while_the_mean_is_exact():
    values = np.array([1.5e308, 1.5e308, 1e308])
    count, total, mean, std, *_ = read(filled(values))
    assert (count, total) == (3, math.inf)
    assert mean == expected(values)[2]
    assert std == expected(values)[3]


_FORMS = ["alike", "few labels", "many magnitudes", "doubles", "doubles of four units"]


@pytest.mark.parametrize("case", [*_FORMS, "other unit", "too many", "one has doubles", "nothing"])
def test_absorbing_equals_adding_regardless_of_the_format(case, monkeypatch):
    rng = np.random.default_rng(11)
    size, n = 4 if case == "few labels" else 20, 9000
    values = [rng.random(n).astype(np.float32) for _ in range(2)]
    values[1][::300] = 1e-20  # queued
    values[0][7] = np.nan
    if case == "many magnitudes":  # too many for 32 bits
        values = [v * np.exp(rng.uniform(-6, 0, n)).astype(np.float32) for v in values]
    elif case == "other unit":
        values[1] *= np.float32(2.0**20)
    elif case == "too many":
        monkeypatch.setattr(_fixed.Fixed32, "capacity", 700)
    elif case.startswith("doubles"):
        values = [v * 1.1 + rng.random(n) for v in values]
        if case == "doubles of four units":
            values = [v * np.exp(rng.uniform(-20, 0, n)) for v in values]
    elif case == "one has doubles":
        values[0] = values[0] * 1.1
    elif case == "nothing":
        values[0] = values[0][:0]
    slots = [rng.integers(0, size, v.size).astype(np.int32) for v in values]
    parts = [Accumulator(size), Accumulator(size)]
    for part, where, what in zip(parts, slots, values, strict=True):
        if case in _FORMS:
            part.suggest(np.concatenate(values)[::10], n)
        assert part.add(where, what) == what.size
    form = {"alike": 0, "few labels": 0, "many magnitudes": 1}.get(case)
    form = 1 if case.startswith("doubles") else form
    if form is not None:
        tables = [part._formats[form] for part in parts]
        assert tables[0].scale == tables[1].scale > 0
        assert [table.held > 0 for table in tables] == [True, True]
    whole, parts = parts[0], parts[1:]
    whole.absorb(parts[0])
    together, places = np.concatenate(values), np.concatenate(slots)
    finite = np.isfinite(together)
    for slot in range(size):
        numbers = [Fraction(float(x)) for x in together[finite & (places == slot)]]
        assert whole.exact(slot) == (len(numbers), sum(numbers), sum(x * x for x in numbers))
    assert whole.nonfinite.sum() == (~finite).sum()
