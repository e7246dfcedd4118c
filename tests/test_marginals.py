"""What `by()` gives is bit for bit what tracking each label alone gives, however the statistics came about."""

from __future__ import annotations

import itertools
import os

import numpy as np
import pytest
from combinations import alike, numbers, samples
from conftest import COMPILED
from hypothesis import given, settings
from hypothesis import strategies as st

import labeltrack as lt

SIDE = 1000 if COMPILED and not os.environ.get("LABELTRACK_QUICK") else 20


def assert_marginals(history, labels, values, *, pairs=True):
    """See that the last step has the marginals of some samples, by each label, by each two, and by none."""
    step = history.steps()[-1]
    for name, column in labels.items():
        assert alike(history.by(name).at(step), lt.label_stats(column, values))
    for names in itertools.combinations(labels, 2) if pairs else ():
        assert alike(history.by(*names).at(step), lt.label_stats({name: labels[name] for name in names}, values))
    assert numbers(history.by().at(step)) == numbers(lt.label_stats(np.zeros(len(values)), values))


def recorded(path, labels, values, sizes, **options):
    """Record samples in two datasets, batch by batch; return the tracker."""
    pytest.importorskip("pyarrow")
    pytest.importorskip("xxhash")
    recording = lt.RecordingOptions(path, fsync="never")
    with lt.LabelTracker(tuple(labels), "ce", record_to=recording, **options) as tracker:
        start = 0
        for i, size in enumerate(sizes):
            some = tuple(column[start : start + size] for column in labels.values())
            tracker.update(some, values[start : start + size], ds_id="ab"[i % 2])
            start += size
        tracker.update(tuple(column[start:] for column in labels.values()), values[start:], ds_id="a")
        tracker.end_epoch(1)
    return tracker


@settings(max_examples=25)
@given(samples, st.lists(st.integers(1, 20), max_size=3), st.sampled_from([1, 200, 2**20]))
def test_marginals_of_recorded_runs_are_those_of_each_label_alone(tmp_path_factory, drawn, sizes, memory):
    labels, values = drawn
    sizes = [size for i, size in enumerate(sizes) if sum(sizes[: i + 1]) < len(values)]
    path = tmp_path_factory.mktemp("marginals") / "run"
    tracker = recorded(path, labels, values, sizes, max_buffer_bytes=memory)
    assert_marginals(tracker.history, labels, values)
    assert_marginals(lt.open_run(path).recompute(progress=False), labels, values)


def crossed():
    """Return samples of three labels: ``SIDE**2`` combinations of the first two, each of which occurs, in any order."""
    rng = np.random.default_rng(7)
    order = rng.permutation(np.concatenate([np.arange(SIDE**2), rng.integers(0, SIDE**2, SIDE**2 // 4)]))
    words = np.array(["red", "green", "blue"])
    labels = {"user": order // SIDE, "item": (order % SIDE).astype(np.uint8 if SIDE < 256 else np.int32)}
    labels["colour"] = words[order % 3]
    return labels, (rng.standard_exponential(order.size) * 10.0 ** rng.integers(-9, 9, order.size)).astype(np.float32)


@pytest.fixture(scope="module", name="many")
def _many():
    return crossed()


def test_a_million_combinations_have_exact_marginals_merged_and_folded(many):
    labels, values = many
    trackers = [lt.LabelTracker(tuple(labels), "ce", max_buffer_bytes=size) for size in (2**28, 2**20)]
    for i, start in enumerate(range(0, values.size, 65_536)):
        batch = slice(start, start + 65_536)
        trackers[i % 2].update({name: column[batch] for name, column in labels.items()}, values[batch])
    trackers[0].merge_state(trackers[1:])
    stats = trackers[0].end_epoch(1)
    assert len(stats) == SIDE**2
    assert_marginals(trackers[0].history, labels, values)


def test_a_million_combinations_have_exact_marginals_recorded_and_on_dask(many, tmp_path):
    distributed = pytest.importorskip("distributed", reason="distributed is not installed (extra 'dask')")
    labels, values = many
    tracker = recorded(tmp_path / "run", labels, values, [values.size // 3] * 2)
    live = tracker.history.at(1)
    run = lt.open_run(tmp_path / "run")
    assert alike(run.recompute(progress=False).at(1), live)
    assert_marginals(run.recompute(progress=False), labels, values, pairs=False)
    with (
        distributed.LocalCluster(n_workers=1, threads_per_worker=2, dashboard_address=":0") as cluster,
        distributed.Client(cluster),
    ):
        history = run.recompute(engine="dask", progress=False)
    assert alike(history.at(1), live)
    assert_marginals(history, labels, values, pairs=False)
