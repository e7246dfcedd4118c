"""Recorded samples with ids: what is recomputed is the history of the tracker, which counts the first one of each."""

from __future__ import annotations

import numpy as np
import pytest

import labeltrack as lt

METRICS = ("ce", "correct")
KINDS = {
    "integers": lambda ids: ids,
    "strings": lambda ids: np.array([f"sample {i}" for i in ids.tolist()]),
}


def collection_of(path, metrics=METRICS, label="y", **options):
    options = {"on_duplicate": "first"} | options
    return lt.TrackerCollection(label, metrics, record_to=path, **options)


def train(collection, seed=0, kind="integers", steps=3, end=True, several=False):
    """Record epochs in which some ids occur again, with other values."""
    rng = np.random.default_rng(seed)
    for step in range(steps):
        for ds_id in ("", "a"):
            for size in (30, 50, 5000 if step == 1 else 3):
                ids = rng.integers(0, 2 * size, size)
                labels = [f"class {i % 7}" for i in ids.tolist()]
                values = {"ce": rng.normal(size=size).astype(np.float32), "correct": rng.integers(0, 2, size)}
                both = (labels, rng.integers(0, 2, size)) if several else labels
                where = None if size == 3 else rng.random(size) < 0.9
                collection.update(both, values, ids=KINDS[kind](ids), ds_id=ds_id, where=where)
        if end:
            collection.end_epoch(step)


def same_histories(history, other):
    assert [key for key, _ in history.items()] == [key for key, _ in other.items()]
    for (_, stats), (_, wanted) in zip(history.items(), other.items(), strict=True):
        assert stats.labels.tolist() == wanted.labels.tolist()
        for name in ("count", "sum", "mean", "std", "min", "max"):
            np.testing.assert_array_equal(getattr(stats, name), getattr(wanted, name))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("several", [False, True], ids=["one label", "several labels"])
@pytest.mark.parametrize("option", ["first", "count"])
def test_every_history_is_recomputed_from_what_was_recorded(tmp_path, kind, several, option):
    label = ("y", "site") if several else "y"
    options = lt.RecordingOptions(tmp_path / "run", flush_rows=1024)
    with collection_of(options, label=label, on_duplicate=option) as collection:
        train(collection, kind=kind, several=several)
    run = lt.open_run(tmp_path / "run")
    assert run.metrics == METRICS
    assert run.verify().ok
    for metric in METRICS:
        same_histories(run.recompute(metric=metric), collection[metric].history)
        same_histories(run.recompute(metric=metric, threads=2), collection[metric].history)
    recorded = run.samples("train", 1).num_rows  # all of them
    counted = collection["ce"].history.at(1).count.sum()
    assert recorded == counted if option == "count" else recorded > counted


def test_quantiles_are_those_of_the_samples_that_count(tmp_path):
    with collection_of(tmp_path / "run", bounds="iqr") as collection:
        train(collection)
    history = lt.open_run(tmp_path / "run").recompute(metric="ce")
    same_histories(history, collection["ce"].history)
    for step in range(3):
        np.testing.assert_array_equal(history.at(step).quantile(0.25), collection["ce"].history.at(step).quantile(0.25))


@pytest.mark.parametrize("kind", KINDS)
def test_of_several_processes_the_first_one_counts(tmp_path, kind):
    ranks = []
    for rank in range(2):
        options = lt.RecordingOptions(tmp_path / "run", rank=rank, world_size=2, launch="one")
        ranks.append(collection_of(options, ["ce"]))
    for seed, rank in enumerate(ranks):
        rng = np.random.default_rng(seed)
        for _ in range(3):
            ids = rng.integers(0, 300, 60)
            labels = [f"class {i % 7}" for i in ids.tolist()]
            rank.update(labels, {"ce": rng.normal(size=60)}, ids=KINDS[kind](ids))
    together = collection_of(None, ["ce"])
    together.merge_state([rank.state_dict() for rank in ranks])
    together.end_epoch(1)
    for rank in ranks:
        rank.end_epoch(1)
        rank.close()
    same_histories(lt.open_run(tmp_path / "run").recompute(), together["ce"].history)


def test_a_cluster_counts_the_same_samples(tmp_path):
    distributed = pytest.importorskip("distributed")
    options = lt.RecordingOptions(tmp_path / "run", flush_rows=1024)
    with collection_of(options) as collection:
        train(collection, kind="strings")
    with (
        distributed.LocalCluster(n_workers=1, processes=False, dashboard_address=":0") as cluster,
        distributed.Client(cluster),
    ):
        history = lt.open_run(tmp_path / "run").recompute(metric="correct", engine="dask")
    same_histories(history, collection["correct"].history)
