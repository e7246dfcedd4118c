"""What a report shows: what it compares, and how that is tested."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from labeltrack._core.arrays import Array
from labeltrack._significance.choice import check_alpha, compare_stats
from labeltrack._version import __version__
from labeltrack.errors import counted
from labeltrack.stats import quiet

if TYPE_CHECKING:
    from labeltrack._significance.comparison import Comparison
    from labeltrack._significance.samples import Samples
    from labeltrack.stats import LabelStats


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
    """What a report shows."""

    title: str
    metric: str
    tracks: Sequence[Track]  # the first one is judged, the others are drawn beside it
    before: LabelStats | None  # to compare the last step of the first track with, if there is anything
    comparison: Comparison | None
    untested: str  # why there is no comparison
    higher_is_worse: bool
    band: str  # that curves have at first
    facts: Sequence[tuple[str, str]]  # what was recorded, as pairs of a name and a text
    sides: str = ""  # what is compared, such as ``"step 9 to step 10"``
    distribution: Distribution | None = None
    hardest: Hardest | None = None
    shown: Sequence[int] = (0,)  # tracks whose curves are drawn at first

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
    """Return what a report shows, with what was tested: the last step of the first track, with the samples of both.

    Names are those of the metric and of the label; `more` are further attributes.
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
