"""`compare`: which labels changed between two steps, histories or recorded runs, and whether it is more than noise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from labeltrack._filters import single_mode
from labeltrack._significance.choice import Method, Samples, compare_stats, merged_labels
from labeltrack._significance.comparison import Comparison
from labeltrack.errors import missing_key
from labeltrack.functional import label_stats
from labeltrack.history import History
from labeltrack.recording.run import Run
from labeltrack.stats import LabelStats

if TYPE_CHECKING:
    from collections.abc import Sequence

Array = npt.NDArray[Any]
Integers = npt.NDArray[np.int64]

__all__ = ["Comparison", "compare"]


def compare(
    a: LabelStats | History | Run,
    b: LabelStats | History | Run | None = None,
    *,
    mode: str | None = None,
    steps: int | Sequence[int] | None = None,
    ds_id: str | None = None,
    higher_is_worse: bool = True,
    alpha: float = 0.05,
    method: Method = "auto",
) -> Comparison:
    """Compare two sides, label by label: what changed, and whether it is more than noise.

    The test is the best that the data allow, for each label, and `Comparison.method` names it:

    - the same samples on both sides, which is so where two recorded epochs have equal labels in equal order: paired t,
      or Wilcoxon's signed ranks where the differences are skewed;
    - else Welch's t from the exact moments; where sizes differ and samples are so skewed that it would see changes that
      are none, Mann and Whitney's ranks of recorded samples, or no test if there are only statistics.

    A verdict needs 20 samples on each side and `q` below `alpha`. After a test by ranks, it also needs that ranks and
    means changed in one direction. A label whose mean is no longer finite is worse without a test.

    Args:
        a: Before: statistics, a history or a recorded run.
        b: After; None for another step of `a`.
        mode: Mode, of histories and runs; None for ``"eval"`` if there is such a mode, else for the only one.
        steps: Step before and after, or one for both; None for the last of each, or the last two of `a` alone.
        ds_id: Dataset, of histories and runs; None pools all of them.
        higher_is_worse: True for a loss, False for an accuracy.
        alpha: Limit of q, the share of false alarms among the labels with a verdict.
        method: ``"auto"``, or one test for all labels: ``"welch"``, ``"paired-t"``, ``"wilcoxon"`` or
            ``"mann-whitney"``.

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
    before, after = _sides(a, b, mode, steps, ds_id)
    if after.name == before.name == "":
        before, after = before._replace(name="before"), after._replace(name="after")
    if None not in (before.metric, after.metric) and before.metric != after.metric:
        msg = f"cannot compare {before.metric!r} with {after.metric!r}: both sides must have the same metric"
        raise ValueError(msg)
    same = before.source == after.source and before.mode is not None
    named = [side.name if same else f"{side.source} {side.name}".strip() for side in (before, after)]
    title = " → ".join(named)
    return compare_stats(
        before.stats,
        after.stats,
        _samples(before, after),
        title=f"{before.mode}, {title}" if same else title,
        metric=after.metric or before.metric or "metric",
        higher_is_worse=higher_is_worse,
        alpha=alpha,
        method=method,
    )


class _Side(NamedTuple):
    """One side: its statistics, its samples if there are any, and what they are of."""

    stats: LabelStats
    table: Any = None  # of Arrow, with label and value
    metric: str | None = None
    source: str = ""
    mode: str | None = None
    name: str = ""


def _sides(a: Any, b: Any, mode: str | None, steps: Any, ds_id: str | None) -> tuple[_Side, _Side]:
    for side in (a,) if b is None else (a, b):
        if not isinstance(side, (LabelStats, History, Run)):
            msg = f"compare() expects LabelStats, histories or recorded runs, got {type(side).__name__}"
            raise TypeError(msg)
    if b is None and isinstance(a, LabelStats):
        msg = "compare() got one LabelStats; pass the statistics after, too"
        raise TypeError(msg)
    pair = [steps, steps] if steps is None or np.ndim(steps) == 0 else list(steps)
    if len(pair) != 2:
        msg = f"steps must be one step for both sides, or that before and that after, got {steps!r}"
        raise ValueError(msg)
    if b is None and (steps is None or np.ndim(steps) == 0):
        known = _steps_of(a, single_mode(_modes_of(a), mode))
        earlier = [step for step in known if steps is None or step < steps]
        last = earlier.pop() if steps is None and earlier else steps
        if last is None or not earlier:
            msg = f"there is no step to compare with: {_named(a)} has {known or 'none'}"
            raise ValueError(msg)
        pair = [earlier[-1], last]
    return _side(a, mode, pair[0], ds_id), _side(a if b is None else b, mode, pair[1], ds_id)


def _named(side: History | Run) -> str:
    return side.path if isinstance(side, Run) else "the history"


def _modes_of(side: History | Run) -> list[str]:
    return side.modes if isinstance(side, History) else [epoch.mode for epoch in side.epochs]


def _steps_of(side: History | Run, mode: str) -> list[int]:
    """Return the steps of a mode, ascending; of a run those that are complete."""
    if isinstance(side, History):
        return side.steps(mode)
    return sorted(epoch.step for epoch in side.epochs if epoch.mode == mode and epoch.complete)


def _side(side: LabelStats | History | Run, mode: str | None, step: int | None, ds_id: str | None) -> _Side:
    if isinstance(side, LabelStats):
        return _Side(side)
    mode = single_mode(_modes_of(side), mode)
    known = _steps_of(side, mode)
    if step is None and known:
        step = known[-1]
    if step not in known:
        raise missing_key(step, known, f"{'complete ' if isinstance(side, Run) else ''}step in mode {mode!r}:")
    name = f"step {step}" + (f" of {ds_id}" if ds_id else "")
    if isinstance(side, History):
        return _Side(side.at(step, mode, ds_id), None, side.metric, "", mode, name)
    table, stats = recorded(side, mode, step, ds_id)
    return _Side(stats, table, side.metric, side.path, mode, name)


def recorded(run: Run, mode: str, step: int, ds_id: str | None = None) -> tuple[Any, LabelStats]:
    """Return the samples of one recorded epoch as an Arrow table, and their statistics."""
    table = run.samples(mode, step, ds_id)
    stats = label_stats(
        table["label"],
        table["value"],
        label_mapping=run.label_mapping,
        nan_policy=run.nan_policy,
        missing="label" if run.missing == "label" else "error",
    )
    return table, stats


# -- samples ----------------------------------------------------------------------------------------------


def _samples(before: _Side, after: _Side) -> Samples | None:
    """Return the samples of both sides, if both have them."""
    if before.table is None or after.table is None:
        return None
    labels, *_ = merged_labels(before.stats, after.stats)
    codes, values = [], []
    for side in (before, after):
        positions = _positions(side.table["label"], labels)
        kept = positions >= 0
        column = side.table["value"].to_numpy()
        codes.append(positions if kept.all() else positions[kept])
        values.append(column if kept.all() else column[kept])
    paired = codes[0].shape == codes[1].shape and bool((codes[0] == codes[1]).all())
    return Samples((codes[0], codes[1]), (values[0], values[1]), paired)


def _positions(column: Any, labels: Array) -> Integers:
    """Return the ``(N,)`` position of each sample's label among sorted labels; -1 if it is none of them."""
    column = column.unify_dictionaries().combine_chunks()
    if hasattr(column, "dictionary"):
        known = {label: k for k, label in enumerate(labels.tolist())}
        words = [known.get(word, -1) for word in column.dictionary.to_pylist()]
        codes: Integers = column.indices.to_numpy()
        return np.array([*words, -1], dtype=np.int64)[codes]
    keys = column.to_numpy(zero_copy_only=False)
    places = np.minimum(np.searchsorted(labels, keys), max(len(labels) - 1, 0))
    return np.where(labels[places] == keys, places, -1) if len(labels) else np.full(len(keys), -1)
