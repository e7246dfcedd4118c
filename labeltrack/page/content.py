"""What a report shows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Sequence

    from labeltrack._significance.comparison import Comparison
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


def quiet(stats: LabelStats) -> LabelStats:
    """Return statistics that can be shown even if there are NaN samples under ``"raise"``."""
    return stats.with_nan_policy("propagate") if stats.nan_policy == "raise" else stats
