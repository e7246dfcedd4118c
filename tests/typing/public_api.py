"""The types that users see, checked by mypy and never run as a test."""

from __future__ import annotations

from typing import Any, assert_type

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

import labeltrack as lt

stats = lt.label_stats([0, 1], [0.5, 1.0], label_mapping={"cat": 0}, nan_policy="omit", threads=2)
assert_type(stats, lt.LabelStats)
assert_type(stats.count, npt.NDArray[np.int64])
assert_type(stats.mean, npt.NDArray[np.float64])
assert_type(stats.names, npt.NDArray[np.str_])
assert_type(stats[0], lt.LabelRow)
assert_type(stats[0].mean, float)
assert_type(len(stats), int)
assert_type(stats.merge(stats), lt.LabelStats)
assert_type(lt.merge_stats([stats]), lt.LabelStats)
pairs = lt.label_stats({"class": [0], "site": ["a"]}, [1.0], label_mapping=({"cat": 0}, None), where=[True])
assert_type(pairs.by("class"), lt.LabelStats)
assert_type(pairs.label_names, tuple[str, ...])
lt.label_stats(([0], ["a"]), [1.0], missing={"label_0": "skip"}, label_mapping={"label_1": {"A": "a"}})
low, centre, high = stats.bounds("range")
assert_type(low, npt.NDArray[np.float64])

tracker = lt.LabelTracker("y", "ce", bounds=["std", None], mode="!eval", nan_policy="raise")
tracker.update([0], [1.0], mode="train", ds_id="a")
assert_type(tracker.end_epoch(1), lt.LabelStats)
assert_type(tracker.end_epoch(1, replace=True), lt.LabelStats)
assert_type(tracker.compute("eval"), lt.LabelStats)


def sink(result: lt.EpochResult) -> None:
    """Take the result of an epoch."""
    assert_type(result.stats, lt.LabelStats)
    assert_type(result.history, lt.History)


lt.LabelTracker("y", "ce", sinks=[sink, print])
assert_type(tracker.merge_state([lt.LabelTracker("y", "ce")]), None)
assert_type(tracker.pending, dict[tuple[str, str], int])
assert_type(tracker.labels_in_order, list[Any])
assert_type(tracker.history, lt.History)
assert_type(next(tracker.history.items()), tuple[tuple[str, str, int], lt.LabelStats])
assert_type(tracker.state_dict(), dict[str, Any])
assert_type(tracker.history.at(1), lt.LabelStats)
assert_type(tracker.history.worst(5), list[Any])
assert_type(tracker.history.pooled(steps=range(1, 3)), lt.LabelStats)
assert_type(tracker.history.pooled("eval", slice(-5, None), "site-a"), lt.LabelStats)
assert_type(tracker.history.by("class", "site"), lt.History)
assert_type(tracker.history.plot(), Figure)
assert_type(tracker.history.plot(bounds=None, modes="train", labels=[0]), Figure)

slices = lt.LabelTracker(
    ("class", "site"), "ce", ({"cat": 0}, None), missing={"site": "skip"}, ignore_label=[-100, None]
)
slices.update(([0], ["a"]), [1.0], where=[True])
slices.update({"class": [0], "site": ["a"]}, [1.0])
slices.update_batch({"class": [0], "site": ["a"], "ce": [1.0]}, where=[True])

collection = lt.TrackerCollection("y", ["ce", "correct"], outputs={"ce": "loss"}, on_duplicate="first")
collection.update([0], {"ce": [1.0], "correct": [True]}, ids=["a"], where=[True])
collection.update_batch({"y": [0], "ce": [1.0], "correct": [True]}, ids=[3])
assert_type(collection.end_epoch(1), dict[str, lt.LabelStats])
assert_type(collection.compute("eval"), dict[str, lt.LabelStats])
assert_type(collection["ce"], lt.TrackedMetric)
assert_type(collection["ce"].history, lt.History)
assert_type(collection["ce"].compute(), lt.LabelStats)
assert_type(list(collection), list[str])
assert_type(collection.metrics, tuple[str, ...])
assert_type(collection.merge_state([collection, collection.state_dict()], place=1), None)
with lt.LabelTracker("y", "ce", on_duplicate="error") as identified:
    identified.update([0], [1.0], ids=np.arange(1))

changes = lt.compare(stats, stats, higher_is_worse=False, alpha=0.01, method="welch")
assert_type(changes, lt.Comparison)
assert_type(tracker.history.compare(3, 7, mode="eval"), lt.Comparison)
assert_type(tracker.history.alarms("eval", against=1)[0].step, int)
assert_type(changes.q, npt.NDArray[np.float64])
assert_type(changes.verdict, npt.NDArray[np.str_])
assert_type(changes.worse(), list[Any])
assert_type(changes.plot(["cat"]), Figure)

recording = lt.RecordingOptions("runs/exp1", flush_rows=2**20, fsync="flush", rank=0, world_size=2)
with lt.LabelTracker("y", "ce", record_to=recording) as recorded:
    assert_type(recorded, lt.LabelTracker)
    assert_type(recorded.flush(), None)
run = lt.open_run("runs/exp1")
assert_type(run, lt.Run)
assert_type(run.info(), dict[str, Any])
assert_type(run.epochs[0].complete, bool)
assert_type(run.recompute(), lt.History)
assert_type(run.recompute(["std"], {"cat": 3}, modes="!eval", engine="dask", threads=2, progress=False), lt.History)
assert_type(run.recompute(label_mapping=None, group={1: "a"}, nan_policy="omit", incomplete=True), lt.History)
assert_type(run.recompute(group=lambda label: label // 10), lt.History)
assert_type(run.export("samples.parquet", "train", step=[1, 2]), int)
assert_type(lt.compare(run, steps=(3, 7), metric="ce"), lt.Comparison)
dynamics = run.dynamics("train", "ce", step=range(3), correct=False, on_duplicate="first", engine="dask")
assert_type(dynamics, lt.Dynamics)
assert_type(dynamics.mean, npt.NDArray[np.float64])
assert_type(dynamics.forgetting, npt.NDArray[np.int64] | None)
assert_type(dynamics.hardest(3, "cat", by="last"), lt.Dynamics)
assert_type(run.hardest(3, 7, step=2, mode="eval", nan_policy="omit"), lt.Dynamics)
assert_type(run.verify().ok, bool)
assert_type(run.verify().parts[0].lost, int)
assert_type(run.repair(), list[str])

lt.compare(run, run, method="anova")  # type: ignore[arg-type]
run.recompute(engine="spark")  # type: ignore[arg-type]
run.dynamics(on_duplicate="last")  # type: ignore[arg-type]
lt.RecordingOptions("runs/exp1", fsync="always")  # type: ignore[arg-type]
lt.label_stats([0], [1.0], nan_policy="ignore")  # type: ignore[arg-type]
