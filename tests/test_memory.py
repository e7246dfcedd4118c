"""Memory that goes from one table to the next is as good as new, and nobody else's."""

from __future__ import annotations

import gc

import numpy as np
import pytest
from conftest import COMPILED

import labeltrack as lt
from labeltrack import _memory
from labeltrack._accumulate import ROW, Accumulator
from labeltrack._memory import aligned_words, spared_words
from labeltrack._threads import all_at_once


@pytest.fixture(autouse=True)
def nothing_kept():
    """Begin without memory that was kept, nor garbage of other tests that may give some back at any time."""
    gc.collect()
    gc.disable()
    _memory._KEPT.clear()
    yield
    _memory._KEPT.clear()
    gc.enable()


@pytest.mark.parametrize("words", [1, 100, _memory._LEAST, _memory._MOST, 2 * _memory._MOST])
def test_words_are_zero_and_begin_on_a_cache_line(words):
    for make in (aligned_words, spared_words):
        memory = make(words)
        assert memory.shape == (words,)
        assert not memory.any()
        assert memory.ctypes.data % 64 == 0


def there(memory):
    return memory.ctypes.data


def test_memory_is_used_again_when_the_last_view_is_gone_and_is_zero():
    memory = spared_words(_memory._LEAST)
    memory[:] = 7
    place, view = there(memory), memory[5:].view(np.float64).reshape(-1, 1)
    del memory
    assert not _memory._KEPT
    other = spared_words(_memory._LEAST)
    assert not np.may_share_memory(other, view)
    assert np.all(view.view(np.int64) == 7)
    del view
    assert len(_memory._KEPT) == 1
    larger = spared_words(_memory._LEAST + 8)  # another size
    again = spared_words(_memory._LEAST)
    assert there(again) == place
    assert not any(words.any() for words in (again, larger, other))
    assert not any(np.may_share_memory(again, words) for words in (larger, other))


def test_memory_that_need_not_be_zero_is_that_of_before():
    memory = spared_words(_memory._LEAST, zero=False)
    memory[:] = 7
    del memory
    assert np.all(spared_words(_memory._LEAST, zero=False) == 7)


def test_little_memory_is_kept_and_neither_small_nor_large_one():
    for words in (1, _memory._LEAST - 1, _memory._MOST + 1):
        for zero in (True, False):
            assert spared_words(words, zero=zero).shape == (words,)
    assert not _memory._KEPT
    many = [spared_words(_memory._LEAST) for _ in range(20)]
    assert len({there(memory) for memory in many}) == 20
    del many
    assert len(_memory._KEPT) == _memory._KEPT.maxlen == 8


def test_counts_hold_no_memory_of_other_statistics():
    stats = lt.label_stats(np.arange(5000), np.ones(5000))
    assert not np.may_share_memory(stats.count, stats.mean)
    assert stats.count.base is None or stats.count.base.nbytes == stats.count.nbytes


def test_memory_is_kept_when_a_cycle_is_found():
    cycle = [spared_words(_memory._LEAST)]
    cycle.append(cycle)
    del cycle
    gc.collect()
    assert len(_memory._KEPT) == 1


def test_threads_never_share_what_was_kept():
    def work(mark):
        for _ in range(300):
            memory = spared_words(_memory._LEAST)
            assert not memory[::64].any()
            memory[::64] = mark
            assert (memory[::64] == mark).all()

    all_at_once(work, list(range(1, 5)))


def test_statistics_that_are_looked_at_stay_when_their_result_is_gone():
    rng = np.random.default_rng(0)
    size, rows = 3000, 9000
    labels = np.sort(rng.integers(0, size, rows).astype(np.int32))
    labels[:size] = np.arange(size)
    columns, expected = [], []
    for _ in range(4):
        values = rng.integers(1, 2000, rows).astype(np.float32)
        columns.append(lt.label_stats(labels, values).max)  # and nothing else of it
        largest = np.zeros(size)
        np.maximum.at(largest, labels, values)
        expected.append(largest)
    assert _memory._KEPT
    for column, largest in zip(columns, expected, strict=True):
        assert np.array_equal(column, largest)


def test_what_was_absorbed_leaves_its_memory_to_the_next_table_alone():
    rng = np.random.default_rng(0)
    size, rows = 3000, 9000

    def filled(of=None):
        part = Accumulator(size) if of is None else of.alike()
        slots = rng.integers(0, size, rows).astype(np.int32)
        samples = rng.integers(1, 2000, rows).astype(np.float32)
        samples[::50] *= np.float32(2.0**-22)  # what goes to the second rows
        if of is None:
            part.suggest(samples[1:], rows)
        part.add(slots, samples)
        return part, np.bincount(slots, minlength=size), np.bincount(slots, samples.astype(np.float64), minlength=size)

    whole, counts, sums = filled()
    for _ in range(3):
        part, more, added = filled(whole)
        counts, sums = counts + more, sums + added
        memory = {there(part._roads[0]._words), there(part._roads[0].second)}
        whole.absorb(part)
        del part
        assert {there(kept) for kept in _memory._KEPT} == memory  # the same each time
    whole.release()
    assert not any(np.may_share_memory(kept, whole.rows) for kept in _memory._KEPT)
    assert np.array_equal(whole.counts[::ROW], counts)
    assert np.array_equal([float(whole.exact(slot)[1]) for slot in range(size)], sums)


@pytest.mark.parametrize("size", [3000, 9000, 20_000])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_results_stay_what_they_are_while_others_are_made(size, threads):
    rng = np.random.default_rng(size)
    rows = (6 if COMPILED else 2) * size
    found, expected = [], []
    for _ in range(5 if COMPILED else 3):
        labels = rng.integers(0, size, rows).astype(np.int32)
        values = rng.integers(1, 2000, rows).astype(np.float32)
        values[::50] *= np.float32(2.0**-22)  # what goes to the second rows
        found.append(lt.label_stats(labels, values, threads=threads))
        expected.append(
            (
                np.bincount(labels, minlength=size),
                np.bincount(labels, values.astype(np.float64), minlength=size),  # exact: 35 bits
            )
        )
    merged = lt.merge_stats(found)  # which reads their states once more
    for stats, (counts, sums) in zip([merged, *found], [np.sum(expected, axis=0), *expected], strict=True):
        seen = counts > 0
        assert np.array_equal(stats.count, counts[seen])
        assert np.array_equal(stats.sum, sums[seen])


def test_epochs_of_a_tracker_stay_what_they_are():
    rng = np.random.default_rng(0)
    tracker = lt.LabelTracker(label="y", metric="loss")
    sums = []
    for epoch in range(1, 5):
        labels = rng.integers(0, 5000, 40_000)
        values = rng.integers(1, 2000, 40_000).astype(np.float32)
        values[::50] *= np.float32(2.0**-22)
        tracker.update(labels, values)
        tracker.end_epoch(epoch)
        sums.append(np.bincount(labels, values.astype(np.float64), minlength=5000)[np.unique(labels)])
    for epoch, expected in enumerate(sums, 1):
        (stats,) = (stats for key, stats in tracker.history.items() if key[-1] == epoch)
        assert np.array_equal(stats.sum, expected)
