"""What a report compares, and how it is tested."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING, Any

import numpy as np

from labeltrack._significance.choice import check_alpha, compare_stats
from labeltrack._version import __version__
from labeltrack.errors import counted, missing_key
from labeltrack.page.content import Content, quiet

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from labeltrack._significance.comparison import Comparison
    from labeltrack._significance.samples import Samples
    from labeltrack.page.content import Track
    from labeltrack.stats import LabelStats


def judged(
    tracks: Sequence[Track],
    names: tuple[str, str],
    *,
    title: str | None,
    against: int | str,
    bounds: Iterable[Any],
    higher_is_worse: bool,
    alpha: float,
) -> Content:
    """Return the report of one history; see `labeltrack.History.to_html`.

    Args:
        tracks: Its modes; the first one is judged.
        names: Names of the metric and of the label.
        title: Title; None for these names.
        against: What the last step is compared with.
        bounds: Bounds that the history shows; curves have the first of these that the page has.
        higher_is_worse: True for a loss, False for an accuracy.
        alpha: Limit of q.
    """
    check_alpha(alpha)
    metric, label = names
    looks = dict(tracks[0].looks)
    last, at = tracks[0].looks[-1][0], compared_step(list(looks), against)
    before = None if at is None else looks[at]
    comparison, untested = None, "There is only one step, so there is nothing to compare."
    if before is not None:
        comparison, untested = tested(
            before, looks[last], None, metric=metric, higher_is_worse=higher_is_worse, alpha=alpha
        )
    return Content(
        title=f"{metric} by {label}: {tracks[0].name}" if title is None else title,
        metric=metric,
        label=label,
        tracks=tracks,
        before=before,
        sides="" if at is None else f"step {at} to step {last}",
        comparison=comparison,
        untested=untested,
        higher_is_worse=higher_is_worse,
        band=first_band(bounds),
        facts=[*counts(tracks), *versions()],
    )


def compared_step(steps: Sequence[int], against: int | str) -> int | None:
    """Return the step to compare the last one with; None if there is no other.

    Raises:
        KeyError: There is no such step.
        ValueError: `against` is neither a step nor one of the words.
    """
    if isinstance(against, str) and against not in ("previous", "first"):
        msg = f"against: must be 'previous', 'first' or a step, got {against!r}"
        raise ValueError(msg)
    earlier = steps[:-1]
    if not isinstance(against, str):
        if against not in earlier:
            raise missing_key(against, list(earlier), "earlier step")
        return int(against)
    if not earlier:
        return None
    return earlier[0 if against == "first" else -1]


def tested(
    before: LabelStats, after: LabelStats, samples: Samples | None, *, metric: str, higher_is_worse: bool, alpha: float
) -> tuple[Comparison | None, str]:
    """Return the comparison of two sides, or why there is none."""
    try:
        found = compare_stats(
            quiet(before), quiet(after), samples, metric=metric, higher_is_worse=higher_is_worse, alpha=alpha
        )
    except ImportError as error:  # scipy is an extra
        return None, f"Nothing was tested: {error}"
    return found, ""


def first_band(bounds: Iterable[Any]) -> str:
    """Return the band that curves have at first: narrow ones, which show changes, unless a history has none."""
    names = [*bounds]
    return "none" if names == [None] else "range" if names == ["range"] else "sem"


def counts(tracks: Sequence[Track]) -> list[tuple[str, str]]:
    """Return how much each track has."""
    facts = []
    for track in tracks:
        samples = sum(int(quiet(stats).count.sum()) for _, stats in track.looks)
        labels = max(len(stats) for _, stats in track.looks)
        first, last = track.looks[0][0], track.looks[-1][0]
        steps = f"step {first}" if first == last else f"{len(track.looks):,} steps, {first} to {last}"
        facts.append((track.name, f"{steps}; {counted(samples, 'sample')}; up to {counted(labels, 'label')} per step"))
    return facts


def versions() -> list[tuple[str, str]]:
    """Return the versions that made the report."""
    text = f"labeltrack {__version__}, numpy {np.__version__}, Python {platform.python_version()}"
    return [("this page", text)]
