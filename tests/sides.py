"""What tests of comparisons share: two sides, as statistics or as a recorded run."""

from __future__ import annotations

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
