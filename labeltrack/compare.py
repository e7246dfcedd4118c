"""`compare`: which labels changed between two steps, histories or recorded runs, and whether it is more than noise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from labeltrack._filters import compared_step, single_mode
from labeltrack._labels.combined import union
from labeltrack._significance.choice import Method, compare_stats
from labeltrack._significance.comparison import Comparison
from labeltrack._significance.pairs import Columns, both, distinct
from labeltrack.errors import listing, missing_key
from labeltrack.functional import label_stats
from labeltrack.history import History
from labeltrack.recording.run import Run
from labeltrack.stats import LabelStats

__all__ = ["Comparison", "compare"]


def compare(
    a: LabelStats | History | Run,
    b: LabelStats | History | Run | None = None,
    *,
    mode: str | None = None,
    steps: int | Sequence[int] | None = None,
    ds_id: str | None = None,
    metric: str | None = None,
    higher_is_worse: bool = True,
    alpha: float = 0.05,
    method: Method = "auto",
) -> Comparison:
    """Compare two sides, label by label: what changed, and whether it is more than noise.

    The test is the best that the data allow, for each label, and `Comparison.method` names it:

    - the same samples on both sides, which recorded epochs have where ids are the same, or without ids on a side where
      labels are equal in equal order: paired t, Wilcoxon's signed ranks where the differences are skewed, or McNemar's
      exact test where all samples are 0 or 1;
    - else Fisher's exact test where all samples are 0 or 1, which exact moments prove;
    - else Welch's t from the exact moments; where sizes differ and samples are so skewed that it would see changes that
      are none, a permutation test of recorded samples, or no test if there are only statistics.

    A verdict needs 20 samples on each side and `q` below `alpha`. After a test by ranks, it also needs that ranks and
    means changed in one direction. A label whose mean is no longer finite is worse without a test.

    Of samples with ids, the first one of each id counts, as in `Run.recompute`; all of them if the tracker had
    ``on_duplicate="count"``. Pairs are made of the first ones in either case, and of samples with an id if both sides
    have ids. If a side has none, all samples of both sides are pairs where labels are equal in equal order.

    Args:
        a: Before: statistics, a history or a recorded run.
        b: After; None for another step of `a`.
        mode: Mode, of histories and runs; None for ``"eval"`` if there is such a mode, else for the only one.
        steps: Step before and after, or one for both; None for the last of each, or the last two of `a` alone.
        ds_id: Dataset, of histories and runs; None pools all of them.
        metric: Name of the metric, of runs that have several.
        higher_is_worse: True for a loss, False for an accuracy.
        alpha: Limit of q, the share of false alarms among the labels with a verdict.
        method: ``"auto"``, or one test for all labels: ``"welch"``, ``"permutation"``, ``"mann-whitney"``,
            ``"paired-t"`` or ``"wilcoxon"``.

    Returns:
        A row for each label of either side.

    Raises:
        ImportError: scipy is not installed (extra ``stats``), or pyarrow for recorded runs (extra ``record``).
        KeyError: There is no such mode, dataset or step.
        TypeError: A side is something else, or the labels of both cannot be ordered among each other.
        ValueError: The sides have different metrics, there is only one step to compare, an unknown method or one that
            needs other samples, or `alpha` is not between 0 and 1.

    Warns:
        LabelTrackWarning: Damaged rows of a recorded run are left out.

    Example:
        >>> import labeltrack as lt
        >>> losses = [0.5 + 0.01 * i for i in range(40)]
        >>> before = lt.label_stats(["cat"] * 40 + ["dog"] * 40, losses + losses)
        >>> after = lt.label_stats(["cat"] * 40 + ["dog"] * 40, losses + [loss + 0.25 for loss in losses])
        >>> changes = lt.compare(before, after)
        >>> changes.worse(), changes.verdict.tolist()
        (['dog'], ['no evidence', 'worse'])
    """
    before, after = _sides(a, b, mode, steps, ds_id, metric)
    if b is not None and (b is not a or not before.name):  # sides without a name of their own
        before, after = (
            side if side.source else side._replace(name=f"{side.name} {when}".strip())
            for side, when in ((before, "before"), (after, "after"))
        )
    if None not in (before.metric, after.metric) and before.metric != after.metric:
        msg = f"cannot compare {before.metric!r} with {after.metric!r}: both sides must have the same metric"
        raise ValueError(msg)
    samples = None
    if before.columns is not None and after.columns is not None:
        samples = both(before.columns, after.columns, union([before.stats.labels, after.stats.labels])[0])
    same = before.source == after.source and before.mode is not None
    title = " → ".join(side.name if same else f"{side.source} {side.name}".strip() for side in (before, after))
    return compare_stats(
        before.stats,
        after.stats,
        samples,
        title=f"{before.mode}, {title}" if same else title,
        metric=after.metric or before.metric or "metric",
        higher_is_worse=higher_is_worse,
        alpha=alpha,
        method=method,
    )


class _Side(NamedTuple):
    """One side: its statistics, its samples if there are any, and what they are of."""

    stats: LabelStats
    columns: Columns | None = None
    metric: str | None = None
    source: str = ""
    mode: str | None = None
    name: str = ""


def _sides(a: Any, b: Any, mode: str | None, steps: Any, ds_id: str | None, metric: str | None) -> tuple[_Side, _Side]:
    for side in (a,) if b is None else (a, b):
        if not isinstance(side, (LabelStats, History, Run)):
            msg = f"compare() expects LabelStats, histories or recorded runs, got {type(side).__name__}"
            raise TypeError(msg)
    if b is None and isinstance(a, LabelStats):
        msg = "compare() got one LabelStats; pass the statistics after, too"
        raise TypeError(msg)
    single = steps is None or np.ndim(steps) == 0
    pair = [steps, steps] if single else list(steps)
    if len(pair) != 2:
        msg = f"steps must be one step for both sides, or that before and that after, got {steps!r}"
        raise ValueError(msg)
    if b is None and single:
        known = steps_of(a, mode_of(a, mode))
        last = known[-1] if steps is None and known else steps
        before = compared_step([step for step in known if step < last])
        if before is None:
            msg = f"there is no step to compare with: {_named(a)} has {known or 'none'}"
            raise ValueError(msg)
        pair = [before, last]
    return _side(a, mode, pair[0], ds_id, metric), _side(a if b is None else b, mode, pair[1], ds_id, metric)


def _named(side: History | Run) -> str:
    return side.path if isinstance(side, Run) else "the history"


def mode_of(side: History | Run, mode: str | None) -> str:
    """Return the mode that is meant, which must be there."""
    modes = side.modes if isinstance(side, History) else (epoch.mode for epoch in side.epochs)
    return single_mode(modes, mode, f"mode in {_named(side)}:")


def steps_of(side: History | Run, mode: str) -> list[int]:
    """Return the steps of a mode, ascending; of a run those that are complete."""
    if isinstance(side, History):
        return side.steps(mode)
    return sorted(epoch.step for epoch in side.epochs if epoch.mode == mode and epoch.complete)


def _side(
    side: LabelStats | History | Run, mode: str | None, step: int | None, ds_id: str | None, metric: str | None
) -> _Side:
    if isinstance(side, LabelStats):
        return _Side(side)
    mode = mode_of(side, mode)
    known = steps_of(side, mode)
    if step is None and known:
        step = known[-1]
    if step not in known:
        raise missing_key(step, known, f"{'complete ' if isinstance(side, Run) else ''}step in mode {mode!r}:")
    name = f"step {step}" + (f" of {ds_id}" if ds_id else "")
    if isinstance(side, History):
        return _Side(side.at(step, mode, ds_id), None, side.metric, "", mode, name)
    columns, stats = recorded(side, mode, step, ds_id, metric)
    return _Side(stats, columns, metric or side.metric, side.path, mode, name)


def recorded(
    run: Run, mode: str, step: int, ds_id: str | None = None, metric: str | None = None
) -> tuple[Columns, LabelStats]:
    """Return the samples of one recorded epoch that count, and their statistics."""
    columns, names = samples_of(run, mode, step, ds_id, metric), run._description.names  # noqa: SLF001 (as below)
    missing: Any = run.missing
    stats = label_stats(
        dict(zip(names, columns.labels, strict=True)) if names else columns.labels[0],
        columns.values,
        label_mapping=run.label_mapping,
        nan_policy=run.nan_policy,
        missing={name: _kept(of) for name, of in missing.items()} if isinstance(missing, dict) else _kept(missing),
    )
    return columns, stats


def samples_of(run: Run, mode: str, step: int, ds_id: str | None = None, metric: str | None = None) -> Columns:
    """Return the samples of one recorded epoch that count: the first of each id, unless the tracker counted all."""
    metrics, described = run.metrics, run._description  # noqa: SLF001 (`info` looks at every file)
    if metric not in ({None, *metrics} if len(metrics) == 1 else metrics):
        got = "" if metric is None else f", got {metric!r}"
        msg = f"the run has the metrics {listing(metrics)}; pass one as metric (--metric){got}"
        raise ValueError(msg)
    value, labels = "value" if len(metrics) == 1 else str(metric), described.names or ("label",)
    ids = ["id", *(["ds_id"] if ds_id is None else [])] if described.ids else []
    table = run.samples(mode, step, ds_id, columns=[*labels, value, *ids], copy=True)
    if ids and table["id"].null_count == table.num_rows:
        ids = []
    columns = Columns([table[name] for name in labels], table[value], [table[name] for name in ids])
    return columns if described.duplicates == "count" else distinct(columns)


def _kept(missing: str) -> Any:
    """Return the option for missing labels of recorded samples: those that were skipped are not there."""
    return "label" if missing == "label" else "error"
