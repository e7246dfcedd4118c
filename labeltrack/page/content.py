"""What a report shows: what it compares, and how that is tested."""

from __future__ import annotations

import platform
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from labeltrack._significance.choice import check_alpha, compare_stats
from labeltrack._version import __version__
from labeltrack.errors import counted
from labeltrack.stats import quiet

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from labeltrack._significance.comparison import Comparison
    from labeltrack._significance.samples import Samples
    from labeltrack.stats import LabelStats

Array = npt.NDArray[Any]


class Track(NamedTuple):
    """The statistics of one mode of one run, step by step."""

    name: str
    looks: Sequence[tuple[int, LabelStats]]  # ascending


class Distribution(NamedTuple):
    """Histograms of the samples of D labels, before and after."""

    labels: Array  # ``(D,)`` of the comparison
    low: Array  # ``(D,)`` float64 edges
    high: Array
    log: Array  # ``(D,)`` bool: bins are equally wide on a logarithmic axis
    before: Array  # ``(D, bins)`` counts
    after: Array
    every: int  # one in how many samples was counted


class Hardest(NamedTuple):
    """A table of samples."""

    note: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Content:
    """What a report shows.

    Attributes:
        title: What the page is about.
        metric: Name of the metric.
        label: Name of the label.
        tracks: The first one is judged, the others are drawn beside it.
        before: Statistics to compare the last step of the first track with; None if there is nothing to compare with.
        sides: What is compared, such as ``"step 9 → step 10"``.
        comparison: The tests; None if there are none, and then `untested` says why.
        untested: Why there are no tests.
        higher_is_worse: True for a loss, False for an accuracy.
        band: The band that curves have at first.
        facts: What was recorded, as pairs of a name and a text.
        distribution: Samples before and after.
        hardest: The hardest samples.
    """

    title: str
    metric: str
    label: str
    tracks: Sequence[Track]
    before: LabelStats | None = None
    sides: str = ""
    comparison: Comparison | None = None
    untested: str = ""
    higher_is_worse: bool = True
    band: str = "std"
    facts: Sequence[tuple[str, str]] = ()
    distribution: Distribution | None = None
    hardest: Hardest | None = None
    shown: Sequence[int] = field(default=(0,))  # tracks whose curves are drawn at first

    @property
    def after(self) -> LabelStats:
        """The statistics that are judged."""
        return quiet(self.tracks[0].looks[-1][1])


def judged(
    tracks: Sequence[Track],
    names: tuple[str, str],
    before: LabelStats | None,
    samples: Samples | None = None,
    *,
    title: str | None,
    bounds: Iterable[Any],
    higher_is_worse: bool,
    alpha: float,
    facts: Sequence[tuple[str, str]] = (),
    **more: Any,
) -> Content:
    """Return what a report shows, with what was tested.

    Args:
        tracks: The last step of the first one is judged.
        names: Names of the metric and of the label.
        before: Statistics to compare it with; None if there are none.
        samples: The samples of both, if they were recorded.
        title: Title; None for these names.
        bounds: Bounds that the history shows; curves have the first of these that the page has.
        higher_is_worse: True for a loss, False for an accuracy.
        alpha: Limit of q.
        facts: What was recorded.
        more: Further attributes.
    """
    check_alpha(alpha)
    metric, label = names
    comparison, untested = None, ""
    if before is None:
        untested = "There is only one step, so there is nothing to compare."
    else:
        options: dict[str, Any] = {"metric": metric, "higher_is_worse": higher_is_worse, "alpha": alpha}
        try:
            comparison = compare_stats(quiet(before), quiet(tracks[0].looks[-1][1]), samples, **options)
        except ImportError as error:  # scipy is an extra
            untested = f"Nothing was tested: {error}"
    drawn = [*bounds]
    versions = f"labeltrack {__version__}, numpy {np.__version__}, Python {platform.python_version()}"
    return Content(
        title=f"{metric} by {label}: {tracks[0].name}" if title is None else title,
        metric=metric,
        label=label,
        tracks=tracks,
        before=before,
        comparison=comparison,
        untested=untested,
        higher_is_worse=higher_is_worse,
        # Narrow bands, which show changes, unless a history has none.
        band="none" if drawn == [None] else "range" if drawn == ["range"] else "sem",
        facts=[*_counts(tracks), *facts, ("this page", versions)],
        **more,
    )


def _counts(tracks: Sequence[Track]) -> list[tuple[str, str]]:
    """Return how much each track has."""
    facts = []
    for track in tracks:
        samples = sum(int(quiet(stats).count.sum()) for _, stats in track.looks)
        labels = max(len(stats) for _, stats in track.looks)
        first, last = track.looks[0][0], track.looks[-1][0]
        steps = f"step {first}" if first == last else f"{len(track.looks):,} steps, {first} to {last}"
        facts.append((track.name, f"{steps}; {counted(samples, 'sample')}; up to {counted(labels, 'label')} per step"))
    return facts
