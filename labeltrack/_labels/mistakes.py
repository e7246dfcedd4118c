"""Warnings for labels and mappings that are probably a mistake."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from labeltrack.errors import LabelTrackWarning, listing

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from labeltrack._labels.codes import LabelMapping


def warn_nothing_mapped(mapping: LabelMapping, occurred: list[Any], *, stacklevel: int) -> None:
    """Warn that no sample has a label of the mapping."""
    msg = (
        f"no sample has a label of label_mapping: it maps {listing(mapping.labels)}, "
        f"but the labels that occurred are {listing(occurred)}"
    )
    warnings.warn(msg, LabelTrackWarning, stacklevel=stacklevel + 1)


def warn_never(mapping: LabelMapping, whole: Iterable[Collection[Any]], *, stacklevel: int) -> None:
    """Warn about labels of a mapping that occur in none of the statistics of a run, if others do."""
    every = list(whole)
    never = {label: name for label, name in mapping.names.items() if not any(label in stats for stats in every)}
    if never and any(len(stats) for stats in every):
        msg = (
            f"label_mapping has labels that never occurred: {listing(never)}, called {listing(never.values())}. "
            "Do they have the type of the labels?"
        )
        warnings.warn(msg, LabelTrackWarning, stacklevel=stacklevel + 1)


def warn_elsewhere(mode: str, pending: Mapping[tuple[str, str], int], *, stacklevel: int) -> None:
    """Warn if nothing was recorded in the mode that ends, and something in others."""
    counts: dict[str, int] = {}
    for (of, _), count in pending.items():
        counts[of] = counts.get(of, 0) + count
    if counts:
        there = ", ".join(f"mode {of!r} has {count:,}" for of, count in counts.items())
        msg = f"no samples were recorded in mode {mode!r} since its last epoch, but {there}: end_epoch(…, mode=…)?"
        warnings.warn(msg, LabelTrackWarning, stacklevel=stacklevel + 1)


def warn_multi_hot(*, stacklevel: int) -> None:
    """Warn that labels are grouped by 0 and 1 where columns were probably meant."""
    msg = (
        "two-dimensional labels contain only 0 and 1, and samples are grouped by these two values. If the labels are "
        "multi-hot, with a column for each class, group by column instead: "
        "label_stats(np.broadcast_to(np.arange(labels.shape[1]), labels.shape), values). "
        "If grouping by 0 and 1 is intended, pass labels.ravel() and values.ravel(), or a label_mapping"
    )
    warnings.warn(msg, LabelTrackWarning, stacklevel=stacklevel + 1)
