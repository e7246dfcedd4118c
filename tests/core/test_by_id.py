"""The course of each sample, against numpy and plain loops on matrices of samples and epochs."""

from __future__ import annotations

import math
import statistics
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import COMPILED
from hypothesis import given
from hypothesis import strategies as st

from labeltrack._core import by_id
from labeltrack._core.accumulator import Accumulator
from labeltrack._core.by_id import ByID, Chunk


def chunks_of(order, ids, values, hits=None, labels=None, pieces=3):
    """Return rows in some order, in several chunks."""
    labels = np.zeros(len(ids), np.int32) if labels is None else labels
    return [
        Chunk(ids[part], (labels[part],), values[part], None if hits is None else hits[part])
        for part in np.array_split(order, pieces)
    ]


def course(steps, **options):
    table = ByID(**options)
    for step in steps:
        table.add_step(step)
    return result(table)


def result(table):
    """Return what a table knows, by ascending id."""
    found = table.result()
    order = np.argsort(found.ids, kind="stable")
    probability = None if found.probability is None else statistics_of(found.probability, order)
    return SimpleNamespace(
        ids=found.ids[order],
        labels=[column[order] for column in found.labels],
        ends=[column[order] for column in found.ends],
        values=statistics_of(found.values, order),
        probability=probability,
        hits=None if found.hits is None else [column[order] for column in found.hits],
    )


def statistics_of(parts, order):
    """Return the statistics of finite values, and how many are not finite, in some order."""
    whole = Accumulator(order.shape[0])
    for place, part in parts:
        whole.merge(part, np.arange(place.start, place.stop))
    columns = {name: column[order] for name, column in whole.totals()._asdict().items() if name != "sum"}
    return SimpleNamespace(columns=columns, nonfinite=whole.nonfinite[order])


def columns(found):
    """Return every column as bytes, by name."""
    arrays = {"ids": found.ids, "first": found.ends[0], "last": found.ends[1], **found.values.columns}
    arrays |= {f"label {i}": column for i, column in enumerate(found.labels)}
    if found.probability is not None:
        arrays |= {f"p {name}": column for name, column in found.probability.columns.items()}
    if found.hits is not None:
        arrays |= {"forgetting": found.hits[0], "hits": found.hits[1]}
    return {name: np.ascontiguousarray(array).tobytes() for name, array in arrays.items()}


def forgotten(course):
    """Return how often something right was wrong the next time."""
    events, before = 0, False
    for now in course:
        if before and not now:
            events += 1
        before = now
    return events


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("spread", ["dense", "sparse"])
def test_statistics_equal_those_of_the_rows_of_a_matrix(spread, dtype, threads, monkeypatch):
    monkeypatch.setattr(by_id, "default_threads", lambda *_: threads)
    rng = np.random.default_rng(0)
    n, epochs = 700, 9
    ids = np.arange(n) + 40 if spread == "dense" else np.unique(rng.integers(-(2**62), 2**62, n))
    n = ids.size
    matrix = rng.gamma(2.0, size=(n, epochs)).astype(dtype)
    right = (rng.random((n, epochs)) < 0.6).astype(np.uint8)
    labels = rng.integers(-5, 5, n)
    steps = [chunks_of(rng.permutation(n), ids, matrix[:, e], right[:, e], labels) for e in range(epochs)]
    found = course(steps)
    assert found.ids.tolist() == ids.tolist()
    assert found.labels[0].tolist() == labels.tolist()
    assert found.values.columns["count"].tolist() == [epochs] * n
    exact = [[Fraction(x) for x in row] for row in matrix.tolist()]
    assert found.values.columns["mean"].tolist() == [float(sum(row) / epochs) for row in exact]
    assert found.values.columns["std"].tolist() == [statistics.stdev(row) for row in exact]
    for name, column in {"min": matrix.min(axis=1), "max": matrix.max(axis=1)}.items():
        assert found.values.columns[name].tolist() == column.tolist()
    assert [end.tolist() for end in found.ends] == [matrix[:, 0].tolist(), matrix[:, -1].tolist()]
    probability = [[Fraction(x) for x in row] for row in np.exp(-matrix).tolist()]
    assert found.probability.columns["mean"].tolist() == [float(sum(row) / epochs) for row in probability]
    assert found.probability.columns["std"].tolist() == [statistics.stdev(row) for row in probability]
    assert found.hits[0].tolist() == [forgotten(row) for row in right.tolist()]
    assert found.hits[1].tolist() == right.sum(axis=1).tolist()


RUNS = st.lists(  # steps: {id: (value, right)}
    st.dictionaries(
        st.integers(-3, 5) | st.sampled_from([-(2**63), 2**63 - 1, 10**6]),
        st.tuples(st.floats(0, width=32), st.booleans()),
        max_size=8,
    ),
    max_size=5,
)


def steps_of(run, order=lambda items: items):
    return [
        [
            Chunk(np.array([key], np.int64), (np.array([key & 3]),), np.array([value], np.float32), np.uint8([right]))
            for key, (value, right) in order(list(step.items()))
        ]
        for step in run
    ]


@given(RUNS, st.randoms(use_true_random=False))
def test_the_order_within_a_step_changes_no_bit(run, random):
    whole = columns(course(steps_of(run)))
    assert columns(course(steps_of(run, lambda items: random.sample(items, len(items))))) == whole


@given(RUNS)
def test_courses_equal_those_of_a_plain_loop(run):
    found = course(steps_of(run))
    ids = sorted({key for step in run for key in step})
    assert found.ids.tolist() == ids
    seen = [[step[key] for step in run if key in step] for key in ids]
    assert found.values.columns["count"].tolist() == [sum(math.isfinite(value) for value, _ in one) for one in seen]
    assert found.ends[0].tolist() == [one[0][0] for one in seen]
    assert found.ends[1].tolist() == [one[-1][0] for one in seen]
    assert (found.hits is None) == (not ids)
    if ids:
        assert found.hits[0].tolist() == [forgotten([right for _, right in one]) for one in seen]
        assert found.hits[1].tolist() == [sum(right for _, right in one) for one in seen]


def test_ids_that_come_later_and_further_away_keep_what_was_there():
    rng = np.random.default_rng(1)
    table, everything = ByID(labels=2), {}
    for low, high in [(10, 20), (0, 70_000), (150_000, 900_000), (-5, 0), (2**60, 2**60 + 9)]:
        ids = np.arange(low, high, dtype=np.int64)[rng.permutation(high - low)][:3000]
        values = rng.random(ids.size)
        table.add_step([Chunk(ids, (ids % 7, ids % 5), values)])
        for key, value in zip(ids.tolist(), values.tolist(), strict=True):
            everything.setdefault(key, []).append(value)
    found = result(table)
    assert found.ids.tolist() == sorted(everything)
    expected = [everything[key] for key in sorted(everything)]
    assert found.values.columns["count"].tolist() == [len(one) for one in expected]
    assert found.ends[1].tolist() == [one[-1] for one in expected]
    assert found.values.columns["max"].tolist() == [max(one) for one in expected]
    assert found.hits is None
    for labels, base in zip(found.labels, (7, 5), strict=True):
        assert labels.tolist() == [key % base for key in sorted(everything)]


@pytest.mark.skipif(not COMPILED, reason="a million rows take minutes in interpreted kernels")
def test_ids_that_ascend_by_leaps_are_apart():
    ids = np.append(np.arange(2**16), [2**power for power in range(17, 40)])
    steps = [
        [Chunk(some, (np.zeros(len(some), np.int32),), np.full(len(some), 2.0), None)]
        for some in np.split(ids, np.arange(2**16, len(ids)))
    ]
    found = course([*steps, steps[-1]])
    assert found.ids.tolist() == ids.tolist()
    assert found.values.columns["count"].tolist() == [1] * (len(ids) - 1) + [2]


@pytest.mark.skipif(not COMPILED, reason="a million rows take minutes in interpreted kernels")
def test_several_blocks_of_slots_have_what_belongs_to_each():
    rng = np.random.default_rng(2)
    n = (1 << 19) + 1000
    values = rng.random((2, n), dtype=np.float32)
    orders = [rng.permutation(n) for _ in values]
    found = course([Chunk(o, (o % 10,), step[o])] for o, step in zip(orders, values, strict=True))
    np.testing.assert_array_equal(found.ends, values)
    np.testing.assert_array_equal(found.values.columns["count"], np.full(n, 2))
    np.testing.assert_array_equal(found.values.columns["mean"], values.astype(np.float64).mean(axis=0))
    np.testing.assert_array_equal(found.labels[0], np.arange(n) % 10)


ROWS = [Chunk(np.array([7, 8, 7, 9, 7]), (np.array([1, 2, 3, 4, 1]),), np.array([1.0, 2.0, 3.0, 4.0, 5.0]))]


def test_the_first_row_of_an_id_counts_in_each_step():
    table = ByID()
    table.add_step(ROWS)
    assert table.found() == (2, (7, 1), 0)
    table.add_step(ROWS)
    table.add_step(ROWS)
    assert table.found() == (6, (7, 1), 0)
    found = result(table)
    assert found.values.columns["count"].tolist() == [3, 3, 3]
    assert found.values.columns["max"].tolist() == [1.0, 2.0, 4.0]


def test_all_rows_of_an_id_count_if_repetitions_do():
    table = ByID(drop=False)
    table.add_step(ROWS)
    assert table.found() == (2, (7, 1), 1)
    found = result(table)
    assert found.values.columns["count"].tolist() == [3, 1, 1]
    assert found.values.columns["max"].tolist() == [5.0, 2.0, 4.0]
    assert found.labels[0].tolist() == [1, 2, 4]


def test_other_labels_of_known_ids_are_counted():
    table = ByID()
    changed = [Chunk(np.array([8, 9]), (np.array([0, 4]),), np.array([1.0, 1.0]))]
    table.add_step(ROWS)
    table.add_step(changed)
    assert table.found().relabelled == 1
    table.add_step(changed)
    assert table.found().relabelled == 2
    assert result(table).labels[0].tolist() == [1, 2, 4]


def test_what_waits_is_not_lost_where_types_or_hits_differ():
    def step(*dtypes):
        return [
            Chunk(np.array([1, 2 + i]), (np.array([0, 0]),), np.array([0.1, 0.2], dtype), np.uint8([1, 0]))
            for i, dtype in enumerate(dtypes)
        ]

    table = ByID()
    table.add_step(step(np.float64, np.float32))
    table.add_step(step(np.float32, np.float64))
    found = result(table)
    assert table.found().again == 2
    assert [end.tolist() for end in found.ends] == [
        [0.1, 0.2, float(np.float32(0.2))],
        [float(np.float32(0.1)), float(np.float32(0.2)), 0.2],
    ]
    assert found.values.columns["count"].tolist() == [2, 2, 2]
    assert found.hits[1].tolist() == [2, 0, 0]
    table = ByID()
    table.add_step([*step(np.float32), step(np.float32)[0]._replace(hits=None)])
    assert result(table).hits is None


def test_more_rows_than_wait_at_a_time_are_added(monkeypatch):
    monkeypatch.setattr(by_id, "_ROUND", 8)
    monkeypatch.setattr(by_id, "default_threads", lambda *_: 2)
    rng = np.random.default_rng(3)
    ids, values = rng.integers(0, 3, (5, 20)), rng.random((5, 20))
    table = ByID(drop=False)
    for step in range(5):
        table.add_step(chunks_of(np.arange(20), ids[step], values[step], np.uint8(values[step] > 0.5)))
    found = result(table)
    every = [values[ids == key] for key in range(3)]
    assert found.values.columns["count"].tolist() == [one.size for one in every]
    assert found.values.columns["mean"].tolist() == [statistics.mean(one.tolist()) for one in every]
    assert [end.tolist() for end in found.ends] == [[one[0] for one in every], [one[-1] for one in every]]
    assert found.hits[0].tolist() == [forgotten((one > 0.5).tolist()) for one in every]


def test_steps_without_hits_leave_none_to_the_others():
    with_hits = [Chunk(np.array([1]), (np.array([0]),), np.array([0.5]), np.uint8([1]))]
    for steps in ([with_hits, ROWS], [ROWS, with_hits]):
        found = course(steps)
        assert found.hits is None
        assert found.ids.tolist() == [1, 7, 8, 9]


def test_nan_is_counted_apart_and_may_be_ignored():
    rows = [[Chunk(np.array([1, 2]), (np.array([0, 0]),), np.array(pair))] for pair in ([np.nan, 1.0], [3.0, np.nan])]
    kept = course(rows)
    np.testing.assert_array_equal(kept.ends, [[np.nan, 1.0], [3.0, np.nan]])
    assert kept.values.nonfinite.tolist() == [[1, 0, 0], [1, 0, 0]]
    ignored = course(rows, skip_nan=True)
    assert [end.tolist() for end in ignored.ends] == [[3.0, 1.0], [3.0, 1.0]]
    only = course(rows[:1], skip_nan=True)
    np.testing.assert_array_equal(only.ends, [[np.nan, 1.0], [np.nan, 1.0]])


def test_values_below_zero_have_no_probability_but_what_rounding_leaves_does():
    negative = Chunk(np.array([1]), (np.array([0]),), np.array([-1.0]))
    tiny = negative._replace(values=np.array([-1e-6]))
    assert course([[tiny], [negative]]).probability is None
    beside_nan = Chunk(np.array([1, 2]), (np.array([0, 0]),), np.array([-1.0, np.nan]))
    assert course([[beside_nan]]).probability is None
    assert course([[tiny]]).probability.columns["mean"].tolist() == [1.0]
    assert course([[tiny]], probability=False).probability is None


def test_nothing_is_a_table_without_rows():
    for steps in ([], [[]], [[Chunk(np.empty(0, np.int64), (np.empty(0, np.int64),), np.empty(0))]]):
        found = course(steps)
        assert found.ids.tolist() == found.values.columns["mean"].tolist() == found.labels[0].tolist() == []
