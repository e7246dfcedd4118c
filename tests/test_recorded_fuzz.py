"""Random trainings, three times over: what the tracker says, what its recorded run says, and plain Python lists.

A training updates, ends and replaces epochs in several modes, makes mistakes, saves checkpoints, and resumes from them
in another session that records to the same folder; some have two labels or metrics, or samples with ids.
`LABELTRACK_FUZZ` is how many trainings there are.
"""

from __future__ import annotations

import copy
import io
import math
import os
import pickle
from collections import defaultdict
from itertools import chain

import numpy as np
import pytest
from exact import expected

import labeltrack as lt

pytest.importorskip("pyarrow", reason="pyarrow is not installed (extra 'record')")

QUICK = os.environ.get("LABELTRACK_QUICK") == "1"
ROUNDS = int(os.environ.get("LABELTRACK_FUZZ", "20" if QUICK else "200"))
SHARES = 20  # of the trainings, a test each

WORDS = ["cat", "dog", "ä", "", "a b/c", "x" * 40, "\n", "日本"]
DRAWS = {
    "bool": lambda rng, n: rng.integers(0, 2, n).astype(bool),
    "uint8": lambda rng, n: rng.integers(0, 6, n).astype(np.uint8),
    "int32": lambda rng, n: rng.integers(-3, 4, n).astype(np.int32),
    "int64": lambda rng, n: rng.choice([-(2**62), 0, 3, 2**61 + 1], n),
    "uint64": lambda rng, n: rng.choice(np.array([0, 5, 2**63, 2**64 - 1], np.uint64), n),
    "float64": lambda rng, n: rng.choice([0.1, -0.5, 1e300, 0.0, math.inf], n),
    "float32": lambda rng, n: rng.choice(np.array([0.25, -0.5, 3.0], np.float32), n),
    "list": lambda rng, n: rng.choice(WORDS, n).tolist(),
    "str": lambda rng, n: rng.choice(WORDS[:5], n),
    "bytes": lambda rng, n: rng.choice([b"\xff", b"b", b""], n),
}
# Kinds that may stand beside each other in one epoch; the next one may have labels of another family.
FAMILIES = [["bool"], ["uint8", "int32", "int64"], ["uint64"], ["float64", "float32"], ["list", "str"], ["bytes"]]


def draw_values(rng, n):
    scale = 10.0 ** rng.integers(-20, 20)
    values = rng.normal(size=n) * scale
    if rng.random() < 0.2:
        values[rng.random(n) < 0.05] = rng.choice([math.inf, -math.inf, math.nan])
    return [
        values,
        values.astype(np.float32),
        rng.integers(-5, 5, n),
        rng.integers(0, 2, n).astype(bool),
    ][rng.choice(4, p=[0.4, 0.4, 0.1, 0.1])]


def as_double(values):
    return [float(value) for value in values.tolist()]


def reference(rows, policy):
    """Count, mean, std, min and max by label, by plain Python and rational arithmetic."""
    groups = defaultdict(list)
    for label, value in rows:
        groups[label].append(value)
    result = {}
    for label, values in sorted(groups.items()):
        kept = [value for value in values if not math.isnan(value)] if policy == "omit" else values
        if not kept:
            result[label] = (0, math.nan, math.nan, math.nan, math.nan)
        elif any(math.isnan(value) for value in kept):
            result[label] = (len(kept), math.nan, math.nan, math.nan, math.nan)
        elif any(math.isinf(value) for value in kept):
            low, high = min(kept), max(kept)
            mean = (
                math.nan if math.isinf(low) and math.isinf(high) and low != high else low if math.isinf(low) else high
            )
            result[label] = (len(kept), mean, math.nan, low, high)
        else:
            count, _, mean, std, low, high = expected(kept)
            result[label] = (count, mean, std, low, high)
    return result


def read(stats):
    return {row.label: (row.count, row.mean, row.std, row.min, row.max) for row in stats}


def assert_same(said, wanted, what):
    assert list(said) == list(wanted), what
    for label, row in wanted.items():
        np.testing.assert_array_equal(np.array(said[label], float), np.array(row, float), err_msg=f"{what}, {label!r}")


class Training:
    """A tracker or a collection, the folder it records to, and lists of labels, values and id that it was given."""

    def __init__(self, seed, folder):
        self.rng = np.random.default_rng(seed)
        self.folder = folder
        self.small = self.rng.random() < 0.3  # memory for samples: they are folded into sums
        self.policy = str(self.rng.choice(["propagate", "omit"]))
        self.names = ("y", "z") if self.rng.random() < 0.3 else ("y",)
        self.metrics = ("ce", "hit") if self.rng.random() < 0.3 else ("ce",)
        self.ids = str(self.rng.choice(["none", "number", "text"], p=[0.6, 0.2, 0.2]))
        self.duplicates = str(self.rng.choice(["first", "count"]))
        self.families = {}
        self.running = defaultdict(list)  # of (mode, ds_id): rows since the last end
        self.history = {}  # of (mode, step): {ds_id: rows}
        self.recorded = {}  # likewise, of the newest attempt that ended in the run
        self.tracker = self.make()

    def make(self):
        kind, metric = (lt.LabelTracker, "ce") if len(self.metrics) == 1 else (lt.TrackerCollection, self.metrics)
        return kind(
            self.names if len(self.names) > 1 else "y",
            metric,
            nan_policy=self.policy,
            max_buffer_bytes=20_000 if self.small else 2**26,
            record_to=lt.RecordingOptions(self.folder, flush_rows=1024, fsync="never"),
            on_duplicate=self.duplicates,
        )

    def given(self, labels, values):
        """Return labels and values as this tracker takes them."""
        alone = len(self.names) == 1, len(self.metrics) == 1
        return (
            labels[0] if alone[0] else dict(zip(self.names, labels, strict=True)),
            values[0] if alone[1] else dict(zip(self.metrics, values, strict=True)),
        )

    def draw_ids(self, n):
        numbers = self.rng.integers(0, 5000, n).tolist()
        return {"none": None, "number": numbers, "text": [f"{k // 2}" + "\0" * (k % 2) for k in numbers]}[self.ids]

    def counting(self, rows, metric):
        """Return labels and values of one metric, of the samples that count in a dataset."""
        if self.ids != "none" and self.duplicates == "first":
            rows = {row[2]: row for row in reversed(rows)}.values()
        return [(label, values[metric]) for label, values, _ in rows]

    def update(self):
        rng = self.rng
        mode, ds_id = str(rng.choice(["train", "eval", "a/b"], p=[0.6, 0.3, 0.1])), str(rng.choice(["", "s", "ü/.."]))
        if not any(self.running[key] for key in self.running if key[0] == mode):
            self.families[mode] = [FAMILIES[rng.choice(len(FAMILIES))] for _ in self.names]
        n = int(rng.choice([0, 1, 30, 1200], p=[0.05, 0.2, 0.65, 0.1]))
        labels = [DRAWS[rng.choice(family)](rng, n) for family in self.families[mode]]
        values, ids = [draw_values(rng, n) for _ in self.metrics], self.draw_ids(n)
        self.tracker.update(*self.given(labels, values), mode=mode, ds_id=ds_id, ids=ids)
        columns = [column if isinstance(column, list) else column.tolist() for column in labels]
        labels = columns[0] if len(columns) == 1 else list(zip(*columns, strict=True))
        ids = [None] * n if ids is None else list(ids)
        self.running[mode, ds_id] += zip(labels, zip(*map(as_double, values), strict=True), ids, strict=True)

    def mistake(self):
        batch = self.given([[1, 2, 3]] * 2, [np.ones(self.rng.choice([1, 2, 4]))] * 2)
        with pytest.raises(ValueError, match=r"differ in length|single metric value"):
            self.tracker.update(*batch)

    def of_mode(self, mode):
        return {ds_id: rows for (of, ds_id), rows in self.running.items() if of == mode and rows}

    def end(self):
        modes = [mode for mode in ("train", "eval", "a/b") if self.of_mode(mode)]
        if not modes:
            return
        mode = str(self.rng.choice(modes))
        steps = [step for of, step in self.history if of == mode]
        replace = bool(steps) and self.rng.random() < 0.25
        step = int(self.rng.choice(steps)) if replace else max(steps, default=0) + int(self.rng.integers(1, 3))
        stats = self.tracker.end_epoch(step, mode=mode, replace=replace)
        rows = self.of_mode(mode)
        for place, metric in enumerate(self.metrics):
            of = stats if len(self.metrics) == 1 else stats[metric]
            every = chain(*(self.counting(some, place) for some in rows.values()))
            assert_same(read(of), reference(every, self.policy), f"{metric} that end_epoch({step}) returns")
        self.history[mode, step] = self.recorded[mode, step] = rows
        for ds_id in rows:
            del self.running[mode, ds_id]

    def reset(self):
        mode = self.rng.choice(["train", "eval"])
        self.tracker.reset(mode=str(mode))
        for key in [key for key in self.running if key[0] == mode]:
            del self.running[key]

    def resume(self):
        """Go on from a checkpoint, after some more training that is lost to the tracker, though not to the run."""
        while self.small and any(self.running.values()):
            self.end()  # folded samples could not be recorded again
        before = copy.deepcopy((self.running, self.history, self.families))
        state = self.tracker.state_dict()
        how = self.rng.choice(["as it is", "pickle", "copy"])
        if how == "pickle":
            file = io.BytesIO()
            pickle.dump(state, file)
        for _ in range(self.rng.integers(0, 6)):
            self.some()
        self.tracker.close()
        self.tracker = self.make()
        state = pickle.loads(file.getvalue()) if how == "pickle" else copy.deepcopy(state) if how == "copy" else state
        self.tracker.load_state_dict(state)
        self.running, self.history, self.families = before

    def some(self):
        do = [self.update, self.end, self.reset, self.mistake]
        do[self.rng.choice(4, p=[0.72, 0.22, 0.03, 0.03])]()

    def check(self):
        trackers = [self.tracker] if len(self.metrics) == 1 else self.tracker.values()
        for place, tracker in enumerate(trackers):
            self.check_history(tracker.history, self.history, place, "history")
        self.tracker.close()
        run = lt.open_run(self.folder)
        complete = {(epoch.mode, epoch.step) for epoch in run.epochs if epoch.complete}
        assert complete == set(self.recorded)
        if not complete:
            return
        for place, metric in enumerate(self.metrics):
            threads = int(self.rng.integers(1, 3))
            recomputed = run.recompute(metric=metric, progress=False, threads=threads, incomplete=True)
            self.check_history(recomputed, self.recorded, place, "recomputed")
        for (mode, step), rows in self.recorded.items():
            self.check_samples(run, mode, step, rows)
        verification = run.verify(progress=False)
        assert not [part for part in verification.parts if part.state not in ("intact", "torn", "writing")]

    def check_history(self, history, wanted, place, what):
        seen = {(mode, step): {} for mode, _, step in dict(history.items())}
        for (mode, ds_id, step), stats in history.items():
            seen[mode, step][ds_id] = read(stats)
        for key, rows in wanted.items():
            assert sorted(seen[key]) == sorted(rows)
            for ds_id in rows:
                expected_rows = reference(self.counting(rows[ds_id], place), self.policy)
                assert_same(seen[key][ds_id], expected_rows, f"{what}, {key}, {ds_id!r}, metric {place}")

    def check_samples(self, run, mode, step, rows):
        labels = self.names if len(self.names) > 1 else ["label"]
        values = self.metrics if len(self.metrics) > 1 else ["value"]
        ids = ["id"] if self.ids != "none" else []
        samples = run.samples(mode, step=step, columns=["ds_id", *labels, *values, *ids])
        by_ds_id = defaultdict(list)
        for ds_id, *row in zip(*(samples[name].to_pylist() for name in samples.column_names), strict=True):
            label = row[0] if len(labels) == 1 else tuple(row[: len(labels)])
            by_ds_id[ds_id].append((label, tuple(row[len(labels) :][: len(values)]), row[-1] if ids else None))
        assert sorted(by_ds_id) == sorted(rows)
        for ds_id, wanted in rows.items():
            # As text, which tells NaN from NaN no more than True from 1 or 0.0 from -0.0 apart.
            assert list(map(repr, by_ds_id[ds_id])) == list(map(repr, wanted)), (mode, step, ds_id)


@pytest.mark.parametrize("share", range(SHARES))
def test_a_training_is_recorded_as_it_is_tracked_and_as_plain_lists_say(tmp_path, share):
    for seed in range(share, ROUNDS, SHARES):
        training = Training(seed, tmp_path / f"run-{seed}")
        try:
            for _ in range(training.rng.integers(5, 40)):
                training.some()
                if training.rng.random() < 0.08:
                    training.resume()
            training.check()
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise
