"""Keys of several labels become one and come back, batch by batch, in any number of threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labeltrack._labels.codes import LabelDecoder
from labeltrack.recording.join import Join

WORDS = np.array(["b", "a", "c"], dtype=object)
# Dtype of the keys, what they mean, and keys.
SPACES = {
    "string": (np.int32, LabelDecoder("string", WORDS), st.integers(0, 2)),
    "bool": (np.uint8, LabelDecoder("bool"), st.integers(0, 1)),
    "small": (np.uint8, LabelDecoder("integer"), st.integers(0, 255)),
    "integer": (np.int32, LabelDecoder("integer"), st.integers(-(2**31), 2**31 - 1)),
    "wide": (np.int64, LabelDecoder("integer"), st.integers(-(2**63), 2**63 - 1)),
    "unsigned": (np.int64, LabelDecoder("unsigned"), st.integers(0, 2**63 - 1)),
    "float": (np.int64, LabelDecoder("float"), st.floats(allow_nan=False).map(lambda x: np.float64(x).view(np.int64))),
}


@given(st.data(), st.lists(st.sampled_from(sorted(SPACES)), min_size=1, max_size=5))
def test_combinations_come_back(data, kinds):
    dtypes, spaces, keys = zip(*(SPACES[kind] for kind in kinds), strict=True)
    names = [f"label {i}" for i in range(len(kinds))]
    wanted = [data.draw(st.none() | st.lists(some, max_size=5)) for some in keys]
    join = Join(
        names,
        [{np.dtype(dtype)} for dtype in dtypes],
        spaces,
        [None if w is None else np.array(w, np.int64) for w in wanted],
    )
    for _ in range(2):
        rows = data.draw(st.lists(st.tuples(*keys), min_size=1, max_size=20))
        columns = [np.array(column, dtype) for column, dtype in zip(zip(*rows, strict=True), dtypes, strict=True)]
        joined, values = join.chunk(columns, np.arange(len(rows), dtype=np.float32))
        kept = [
            i for i, row in enumerate(rows) if all(w is None or key in w for key, w in zip(row, wanted, strict=True))
        ]
        assert values.tolist() == kept
        found = join.decode(joined.astype(np.int64))
        assert found.dtype.names == tuple(names)
        for name, space, column in zip(names, spaces, columns, strict=True):
            np.testing.assert_array_equal(found[name], space.decode(column[kept].astype(np.int64)))
        distinct = {tuple(rows[i]) for i in kept}
        assert len(np.unique(joined)) == len(distinct)


def test_labels_beyond_those_of_the_first_batch_keep_combinations_apart():
    spaces, rng = [LabelDecoder("integer")] * 2, np.random.default_rng(0)
    join, joined, every = Join(["a", "b"], [{np.dtype(np.int32)}] * 2, spaces, [None, None]), [], []
    for low, high in ((5, 300), (0, 20), (-4, 9), (-(2**31), 2**31), (290, 400), (5, 300)):
        columns = [rng.integers(low, high, 500).astype(np.int32) for _ in range(2)]
        joined.append(join.chunk(columns, np.ones(500))[0].astype(np.int64))
        every += zip(*(column.tolist() for column in columns), strict=True)
    keys = np.concatenate(joined)
    assert join.decode(keys).tolist() == every
    assert len(set(keys.tolist())) == len(set(every))


@pytest.mark.parametrize("kinds", [("wide", "string"), ("integer", "integer", "integer")])
def test_threads_give_combinations_the_same_keys(kinds):
    dtypes, spaces, _ = zip(*(SPACES[kind] for kind in kinds), strict=True)
    join = Join(kinds[:1] + tuple("xy")[: len(kinds) - 1], [{np.dtype(d)} for d in dtypes], spaces, [None] * len(kinds))
    rng = np.random.default_rng(0)
    batches = [[rng.integers(0, 3, 5000).astype(dtype) for dtype in dtypes] for _ in range(40)]
    with ThreadPoolExecutor(4) as pool:
        chunks = list(pool.map(lambda columns: join.chunk(columns, np.zeros(5000)), batches))
    assert len(np.unique(np.concatenate([keys for keys, _ in chunks]))) == 3 ** len(kinds)
    for (keys, _), columns in zip(chunks, batches, strict=True):
        found = join.decode(keys)
        for name, space, column in zip(found.dtype.names, spaces, columns, strict=True):
            np.testing.assert_array_equal(found[name], space.decode(column.astype(np.int64)))


def test_dtypes_of_one_label_may_differ():
    dtypes = [{np.dtype("i4"), np.dtype("u1")}, {np.dtype("i8"), np.dtype("i4")}]
    join = Join(["x", "y"], dtypes, [LabelDecoder("integer")] * 2, [None] * 2)
    first, _ = join.chunk([np.array([3], np.int32), np.array([7], np.int32)], np.zeros(1))
    second, _ = join.chunk([np.array([3], np.uint8), np.array([7], np.int64)], np.zeros(1))
    assert first.tolist() == second.tolist()
    assert join.decode(first).tolist() == [(3, 7)]
