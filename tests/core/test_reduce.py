"""Choice of table, slices over threads, and that none of it shows in the result."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from conftest import COMPILED
from exact import expected_by_label
from hypothesis import given
from hypothesis import strategies as st

from labeltrack._core import key_tables
from labeltrack._core import partition as _partition
from labeltrack._core import reduce as _reduce
from labeltrack._core.key_tables import KeyTable
from labeltrack._core.reduce import reduce_columns
from labeltrack._labels.codes import LabelDecoder

N = 20_000 if COMPILED else 3_000


def by_label(labels, accumulator):
    columns = accumulator.totals()
    return {label: tuple(column[k].item() for column in columns) for k, label in enumerate(labels.tolist())}


def reduce_one_metric(chunks, decoder, **options):
    labels, (accumulator,) = reduce_columns(chunks, decoder, **options)
    return labels, accumulator


def reduced(keys, samples, **options):
    return by_label(*reduce_one_metric([(np.asarray(keys), np.asarray(samples))], LabelDecoder("integer"), **options))


@pytest.mark.parametrize(
    "keys",
    [
        np.random.default_rng(0).integers(0, 10, N).astype(np.uint8),
        np.random.default_rng(1).integers(-500, 500, N).astype(np.int32),
        np.sort(np.random.default_rng(2).integers(0, 300, N)),
        np.random.default_rng(3).integers(2**62, 2**62 + 40, N),
        np.random.default_rng(4).integers(-(2**63), 2**63 - 1, 500)[np.random.default_rng(5).integers(0, 500, N)],
        np.concatenate([np.zeros(N - 3, dtype=np.int64), [2**63 - 1, -(2**63), 0]]),
        np.random.default_rng(6).integers(0, 2**40, N),
    ],
    ids=["bytes", "negative", "sorted", "far from zero", "sparse", "the two ends", "nearly all different"],
)
@pytest.mark.parametrize("threads", [1, 3])
def test_every_spread_of_labels_is_grouped_exactly(keys, threads):
    samples = np.random.default_rng(7).normal(size=N).astype(np.float32)
    assert reduced(keys, samples, threads=threads) == expected_by_label(keys.tolist(), samples)


@pytest.mark.parametrize("labels", [200, 1000, 2000])
def test_a_rare_label_at_the_end_of_the_range_does_not_make_the_table_grow(labels, monkeypatch):
    # With few samples a label, the looked-at ones seldom have the first and the last.
    monkeypatch.setattr(_reduce, "_LAID_OUT", 1)
    monkeypatch.setattr(_reduce, "_SAMPLE", 1 << 12)
    n = 1 << 14
    keys = np.random.default_rng(11).integers(1, labels - 1, n)
    keys[[n // 3 + 1, n // 2 + 1]] = 0, labels - 1  # where nobody looks
    widened = []
    widen = KeyTable._widen
    monkeypatch.setattr(KeyTable, "_widen", lambda self, keys: (widened.append(keys), widen(self, keys))[1])
    samples = np.random.default_rng(12).random(n, dtype=np.float32)
    assert reduced(keys, samples, threads=1) == expected_by_label(keys.tolist(), samples)
    (some,) = widened
    assert not np.isin([0, labels - 1], some).any()


@pytest.mark.parametrize("n", [1, 3, 4095, 4096, 70_000])
@pytest.mark.parametrize("cuts", [[], [1], [1000, 3000]])
def test_what_is_looked_at_comes_from_all_over(n, cuts):
    keys = np.arange(n, dtype=np.int32) // 20
    chunks = [(piece, piece) for piece in np.split(keys, cuts) if piece.size]
    some, spread = _reduce._some(chunks, n)
    assert spread == keys[-1]
    assert (some.min(), some.max()) == (0, keys[-1])
    assert np.diff(np.unique(some)).max(initial=0) <= 2 + 2 * n // 20 // 256
    assert np.unique(some).shape[0] >= min(keys[-1] + 1, 1000)


@given(
    st.lists(
        st.tuples(
            st.one_of(st.integers(-3, 3), st.sampled_from([2**40, -(2**50), 2**63 - 1, -(2**63)])),
            st.floats(allow_nan=False, allow_infinity=False),
        ),
        min_size=1,
        max_size=60,
    ),
    st.lists(st.integers(0, 60), max_size=4),
    st.integers(1, 4),
)
def test_neither_chunks_nor_threads_nor_the_table_show_in_the_result(pairs, cuts, threads):
    keys = np.array([key for key, _ in pairs])
    samples = np.array([value for _, value in pairs])
    edges = [0, *sorted(min(cut, len(pairs)) for cut in cuts), len(pairs)]
    chunks = [(keys[a:b], samples[a:b]) for a, b in itertools.pairwise(edges)]
    got = by_label(*reduce_one_metric(chunks, LabelDecoder("integer"), threads=threads))
    assert got == expected_by_label(keys.tolist(), samples)


def test_chunks_may_differ_in_dtype():
    chunks = [
        (np.array([1, 2], dtype=np.int32), np.array([0.1, 0.2], dtype=np.float32)),
        (np.array([2, 2**40]), np.array([0.1, 0.2])),
        (np.array([7], dtype=np.uint8), np.array([1.0])),
    ]
    keys = [k for pair in chunks for k in pair[0].tolist()]
    values = [float(v) for pair in chunks for v in pair[1]]
    assert by_label(*reduce_one_metric(chunks, LabelDecoder("integer"))) == expected_by_label(keys, values)


def test_wanted_keys_alone_are_kept():
    keys = np.arange(N) % 50
    samples = np.arange(N, dtype=np.float64)
    wanted = np.array([3, 49, 1000])
    full = expected_by_label(keys.tolist(), samples)
    assert reduced(keys, samples, wanted=wanted, threads=2) == {k: full[k] for k in (3, 49)}
    assert reduced(keys, samples, wanted=np.empty(0, dtype=np.int64)) == {}


def test_no_samples_give_no_labels():
    labels, accumulator = reduce_one_metric([], LabelDecoder("integer"))
    assert labels.size == accumulator.size == 0
    assert reduced(np.empty(0, dtype=np.int32), np.empty(0), threads=2) == {}


@pytest.mark.skipif(not COMPILED, reason="nothing is compiled")
def test_read_only_and_unaligned_arrays_compile_nothing_new():
    from labeltrack import _kernels as kernels

    def aligned_or_not(array, shift):
        memory = np.empty(array.nbytes + 8, dtype=np.uint8)
        moved = memory[shift : shift + array.nbytes].view(array.dtype)
        moved[:] = array
        return moved

    keys, samples = np.arange(10), np.ones(10)
    reduced(keys, samples)
    before = len(kernels.add_exactly.signatures)
    frozen = samples.copy()
    frozen.flags.writeable = False
    for one in (frozen, aligned_or_not(samples, 1), aligned_or_not(samples, 0)):
        assert reduced(aligned_or_not(keys, 3), one) == reduced(keys, samples)
    assert len(kernels.add_exactly.signatures) == before


@pytest.fixture(name="_many")
def _many_fixture(monkeypatch):
    """Share the labels between threads already where they are few."""
    monkeypatch.setattr(_reduce, "_MANY", 100)
    monkeypatch.setattr(_reduce, "_PER_SLOT", 1 / 64)


@pytest.mark.parametrize("apart", [1, 2**40])
def test_threads_with_few_samples_per_label_are_not_started(apart, monkeypatch):
    joined = []
    monkeypatch.setattr(_reduce, "_MANY", 100)
    monkeypatch.setattr(KeyTable, "absorb", lambda *args: joined.append(args) or True)
    keys, values = np.arange(3_000) % 500 * apart, np.ones(3_000)
    labels, accumulator = reduce_one_metric([(keys, values)], LabelDecoder("integer"), threads=2)
    assert not joined
    assert (labels == np.arange(500) * apart).all()
    assert (accumulator.totals().count == 6).all()


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("sizes", [[], [0], [700], [0, 700, 0, 500, 900], [300] * 9])
def test_chunks_of_a_stream_are_loaded_once_and_tables_are_laid_out_alike(threads, sizes, monkeypatch):
    joined, absorbed, loaded = KeyTable.absorb, [], []
    monkeypatch.setattr(KeyTable, "absorb", lambda *args: absorbed.append(joined(*args)) or absorbed[-1])
    rng = np.random.default_rng(12)
    pieces = [(rng.integers(-40, 300, n), rng.normal(size=n).astype(np.float32)) for n in sizes]

    def load(place):
        loaded.append(place)
        return [pieces[place]]

    options = {"samples": sum(sizes), "decoder": LabelDecoder("integer"), "threads": threads}
    found = by_label(*_reduce.reduce_stream(iter(range(len(sizes))), load, **options))
    labels, values = (
        (np.concatenate([np.empty(0), *column]) for column in zip(*pieces, strict=True)) if sizes else ([], [])
    )
    assert found == expected_by_label(list(map(int, labels)), np.array(values, dtype=np.float32))
    assert sorted(loaded) == list(range(len(sizes)))
    assert all(absorbed)


@pytest.mark.usefixtures("_many")
@pytest.mark.parametrize("threads", [1, 2, 3, 9])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("order", ["random", "sorted", "skewed", "gaps"])
@pytest.mark.parametrize("share", [False, True], ids=["labels", "samples"])
def test_many_labels_are_shared_out_and_give_the_same(threads, dtype, order, share, monkeypatch):
    rng = np.random.default_rng(8)
    n = 9_000 if COMPILED or threads == 1 else 3_000
    keys = rng.integers(-200, 300, n)
    if order == "sorted":
        keys.sort()
    elif order == "skewed":
        keys = np.where(rng.random(n) < 0.8, 7, keys)
    elif order == "gaps":
        keys *= 3
    values = rng.normal(size=n).astype(dtype)
    values[::1000] = 1e-30
    values[5] = np.inf
    monkeypatch.setattr(_reduce, "_SHARED", 1 << 17 if share else 100)
    monkeypatch.setattr(_partition, "_BUCKET", 4)
    monkeypatch.setattr(_partition, "_ROUND", n // 3)
    ranges, joined = _reduce.reduce_by_range, KeyTable.absorb
    taken, absorbed = [], []
    monkeypatch.setattr(_reduce, "reduce_by_range", lambda *args: taken.append(args) or ranges(*args))
    monkeypatch.setattr(KeyTable, "absorb", lambda *args: absorbed.append(joined(*args)) or absorbed[-1])
    chunks = [(keys[: n // 3], values[: n // 3]), (keys[n // 3 :].astype(np.int32), values[n // 3 :])]
    labels, accumulator = reduce_one_metric(chunks, LabelDecoder("integer"), threads=threads)
    assert len(taken) == 1 - share
    assert absorbed == [True] * (threads - 1) * share
    finite = np.isfinite(values)
    assert by_label(labels, accumulator) == expected_by_label(keys[finite].tolist(), values[finite])
    assert accumulator.nonfinite.sum() == 1
    assert accumulator.nonfinite[np.searchsorted(labels, keys[5]), 1] == 1


@pytest.mark.usefixtures("_many")
def test_labels_far_apart_or_a_single_stray_one_are_not_shared(monkeypatch):
    monkeypatch.setattr(_reduce, "reduce_by_range", None)  # calling it would fail
    rng = np.random.default_rng(9)
    samples = np.ones(N, dtype=np.float32)
    for keys in (rng.integers(0, 2**40, N), np.concatenate([np.arange(N - 1) % 5, [2 * N - 1]])):
        assert reduced(keys, samples, threads=2) == expected_by_label(keys.tolist(), samples)


@pytest.mark.usefixtures("_many")
@pytest.mark.parametrize("threads", [2, 3])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_hashed_tables_of_threads_are_united(threads, dtype, monkeypatch):
    monkeypatch.setattr(key_tables, "_SMALL_SPAN", 16)
    monkeypatch.setattr(_reduce, "_PIECE", 100)
    joined, absorbed = KeyTable.absorb, []
    monkeypatch.setattr(KeyTable, "absorb", lambda *args: absorbed.append(joined(*args)) or absorbed[-1])
    rng = np.random.default_rng(10)
    n = 30_000 if COMPILED else 6_000
    spread = rng.integers(-(2**62), 2**62, 2500)
    keys = np.concatenate([spread[rng.integers(0, 2500, n)], spread[[0, 1, 0]]])
    values = np.concatenate([rng.normal(size=n), [1e30, 1e-30, np.nan]]).astype(dtype)
    labels, accumulator = reduce_one_metric([(keys, values)], LabelDecoder("integer"), threads=threads)
    finite = np.isfinite(values)
    assert by_label(labels, accumulator) == expected_by_label(keys[finite].tolist(), values[finite])
    assert accumulator.nonfinite.sum() == n + 3 - finite.sum()
    assert absorbed == [True] * (threads - 1)


def test_every_piece_is_taken_by_one_thread(monkeypatch):
    monkeypatch.setattr(_reduce, "_PIECE", 64)
    add, sizes = KeyTable.add, []
    monkeypatch.setattr(
        KeyTable, "add", lambda self, keys, samples: sizes.append(keys.shape[0]) or add(self, keys, samples)
    )
    keys, values = np.arange(5000) % 7, np.random.default_rng(11).random(5000)
    assert reduced(keys, values, threads=3) == expected_by_label(keys.tolist(), values)
    assert sum(sizes) == 5000
    assert len(sizes) == 3 * _reduce._TURNS


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("way", ["dense", "growing", "hashed", "wanted", "by range"])
def test_each_of_several_columns_is_reduced_exactly(way, threads, monkeypatch):
    monkeypatch.setattr(_reduce, "_PIECE", 100)
    rng, n = np.random.default_rng(14), 9_000 if COMPILED else 3_000
    keys = np.sort(rng.integers(-200, 300, n))
    if way == "hashed":
        keys = rng.integers(-(2**62), 2**62, 400)[keys + 200 - 100]
    elif way == "by range":
        monkeypatch.setattr(_reduce, "_SHARED", 100)
        monkeypatch.setattr(_partition, "_BUCKET", 4)
    if way != "growing":
        keys = rng.permutation(keys)
    wanted = np.unique(keys)[::3] if way == "wanted" else None
    columns = [
        rng.standard_exponential(n).astype(np.float32),
        rng.normal(size=n),
        rng.integers(0, 2, n).astype(np.float32),
    ]
    columns[1][:3] = np.inf
    part = n // 3
    chunks = [(keys[:part], *(c[:part] for c in columns)), (keys[part:], *(c[part:] for c in columns))]
    labels, found = reduce_columns(chunks, LabelDecoder("integer"), columns=3, wanted=wanted, threads=threads)
    kept = np.isin(keys, keys if wanted is None else wanted)
    assert labels.tolist() == np.unique(keys[kept]).tolist()
    for values, accumulator in zip(columns, found, strict=True):
        some = kept & np.isfinite(values)
        assert by_label(labels, accumulator) == expected_by_label(keys[some].tolist(), values[some])
        assert accumulator.nonfinite.sum() == kept[~np.isfinite(values)].sum()
