"""Runs whose samples have ids, for tests."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

import labeltrack as lt


class Rows(NamedTuple):
    """Samples of one step, mode and dataset."""

    labels: list
    metrics: tuple  # values of each
    ids: list
    step: int = 1
    mode: str = "train"
    ds_id: str = ""


def record(folder, rows, metrics=("ce", "correct"), *, label="y", label_mapping=None, on_duplicate="first", **options):
    """Record samples, in order of steps, and open the run."""
    recording = lt.RecordingOptions(folder, flush_rows=1024, fsync="never", **options)
    given = {"label_mapping": label_mapping, "record_to": recording, "on_duplicate": on_duplicate}
    if len(metrics) == 1:
        tracker = lt.LabelTracker(label, metrics[0], **given)
    else:
        tracker = lt.TrackerCollection(label, metrics, **given)
    with tracker:
        for step in sorted({one.step for one in rows}):
            of_step = [one for one in rows if one.step == step]
            for one in of_step:
                columns = [np.array(column, np.float32) for column in one.metrics]
                values = columns[0] if len(metrics) == 1 else dict(zip(metrics, columns, strict=True))
                tracker.update(one.labels, values, mode=one.mode, ds_id=one.ds_id, ids=one.ids)
            for mode in dict.fromkeys(one.mode for one in of_step):
                tracker.end_epoch(step, mode=mode)
    return lt.open_run(folder)


def random_rows(n, epochs, *, seed=0, order=0, text=False, **more):
    """Return samples of n ids, in a random order in each epoch, and their ids, labels and values as matrices."""
    rng, orders = np.random.default_rng(seed), np.random.default_rng(order)
    losses = rng.gamma(1.0, size=(n, epochs)).astype(np.float32)
    right = rng.random((n, epochs)) < 0.6
    labels, numbers = rng.integers(0, 5, n), np.sort(rng.choice(100 * n, n, replace=False))
    ids = np.sort(np.array([f"sample {i}" for i in numbers])) if text else numbers
    rows = [
        Rows(labels[o].tolist(), (losses[o, e], right[o, e]), ids[o].tolist(), step=e, **more)
        for e in range(epochs)
        for o in [orders.permutation(n)]
    ]
    return rows, ids, labels, losses, right
