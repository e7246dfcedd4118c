"""What tests of comparisons share: two sides, as statistics or as a recorded run."""

from __future__ import annotations

import numpy as np

import labeltrack as lt


def compared(labels, values, **options):
    sides = [lt.label_stats(*side) for side in zip(labels, values, strict=True)]
    return lt.compare(*sides, **options)


def recorded(path, steps, labels, *, mapping=None, mode="eval", metric="ce"):
    """Record a run of ``{step: values}``, and return it."""
    with lt.LabelTracker("y", metric, mapping, record_to=path) as tracker:
        for step, values in steps.items():
            tracker.update(labels[step] if isinstance(labels, dict) else labels, values, mode=mode)
            tracker.end_epoch(step, mode=mode)
    return lt.open_run(path)


def history_of_dogs():
    """Return a history of three steps, of which the last is worse for dogs."""
    history, rng = lt.History(metric="ce", label="class"), np.random.default_rng(11)
    labels = np.repeat(["cat", "dog"], 100)
    for step, shift in ((1, 0.0), (3, 0.0), (7, 3.0)):
        values = rng.normal(5, 1, 200)
        values[labels == "dog"] += shift
        history.add(step, lt.label_stats(labels, values), mode="eval", ds_id="s")
    history.add(7, lt.label_stats(labels, np.ones(200)), mode="train")
    return history
