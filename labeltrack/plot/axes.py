"""Axes: of steps, and of values, which are linear, logarithmic or cut: whichever lets most labels be read."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from labeltrack._core.arrays import Floats, Integers, Mask
from labeltrack.plot.style import EXTREME, LOG_FROM, SOFT_INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from labeltrack.bounds import Bound
    from labeltrack.plot.scene import Scene

_NARROW_SHARE = 0.08  # a typical label that fills less of a common axis than this cannot be read there
_FLAT_MEANS = 0.1  # nor can means that keep to less than this of an axis, for the sake of wide bands
_FLAT_SHARE = 0.05  # all steps but a few that fill less of an axis than this are flattened by these
_LEAST_STEPS = 4  # of fewer, none is a spike
_DECADES = 1e12  # values smaller than the largest by more than this are treated as zero


def integer_steps(axes: Axes, scene: Scene, bins: int, width: float) -> None:
    """Let the step axis, `width` inches wide, span the steps of every mode, with ticks at whole steps only."""
    first = min(int(track.steps[0]) for track in scene.tracks)
    last = max(int(track.steps[-1]) for track in scene.tracks)
    margin = 0.5 if first == last else 0.02 * (last - first)
    axes.set_xlim(first - margin, last + margin)
    digits = max(len(_step_text(first)), len(_step_text(last)))
    bins = max(1, min(bins, int(width / (0.075 * (digits + 2)))))
    axes.xaxis.set_major_locator(MaxNLocator(bins, integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(lambda step, _: _step_text(step))


def _step_text(step: float) -> str:
    return f"{step:.0f}" if abs(step) < 1e10 else f"{step:.6g}"


class LogAxis(NamedTuple):
    """What a logarithmic axis must hold; one of zeros or of both signs is linear around zero."""

    positive: bool
    smallest: float
    least: float
    largest: float

    def apply(self, axes: Axes) -> None:
        """Give a panel this axis."""
        if self.positive:
            axes.set_yscale("log", nonpositive="clip")
            ratio = (self.largest / self.least) ** 0.06
            axes.set_ylim(self.least / ratio, self.largest * ratio)
            subs = (1.0, 2.0, 5.0) if self.largest < 200 * self.least else (1.0,)
            axes.yaxis.set_major_locator(LogLocator(subs=subs))
        else:
            axes.set_yscale("symlog", linthresh=10.0 ** math.floor(math.log10(self.smallest)))
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())


class Cut(NamedTuple):
    """Where an axis ends that leaves out the spikes of a few steps, and where these end."""

    ends: tuple[float, float]
    reached: tuple[float, float]
    steps: Integers


class ValueAxis(NamedTuple):
    """The axis of a panel: logarithmic, cut, or linear over everything."""

    log: LogAxis | None = None
    cut: Cut | None = None

    @property
    def scale_note(self) -> str:
        """What the label of the axis adds."""
        if self.log is None:
            return ", axis cut" if self.cut else ""
        return ", log scale" if self.log.positive else ", log scale, linear at 0"

    def cut_note(self, scene: Scene) -> str:
        """What the description of a panel adds."""
        if self.cut is None:
            return ""
        (low, high), (lowest, highest) = self.cut.ends, self.cut.reached
        ends = [_number(end) for end, beyond in ((lowest, lowest < low), (highest, highest > high)) if beyond]
        at = [str(scene.origin + step) for step in self.cut.steps.tolist()]
        steps = f"{scene.x_label} {at[0]}" if len(at) == 1 else f"{len(at)} of the {scene.x_label}s"
        return f"; axis cut, {steps} reaches {' and '.join(ends)}"

    def apply(self, axes: Axes) -> None:
        """Give a panel this axis."""
        if self.log is not None:
            self.log.apply(axes)
        if self.cut is None:
            return
        (low, high), (lowest, highest) = self.cut.ends, self.cut.reached
        margin = 0.06 * (high - low)
        axes.set_ylim(low - margin, high + margin)
        strokes: dict[str, Any] = {"linestyle": "none", "marker": [(-1, -0.6), (1, 0.6)], "color": SOFT_INK}
        at = [0.96, 1.0] * (highest > high) + [0.0, 0.04] * (lowest < low)
        axes.plot([0] * len(at), at, **strokes, transform=axes.transAxes, clip_on=False, markersize=7, zorder=6)


def value_axis(scene: Scene, bound: Bound, banded: Any = slice(None), bare: Any = ()) -> ValueAxis:
    """Return the axis that suits the bands of some labels and the mere lines of others, each given by indices."""
    cut = _cut(scene, bound, banded, list(bare))
    log = _log_axis(scene, bound, cut, banded)
    return ValueAxis(log) if log is not None else ValueAxis(cut=cut)


def _number(value: float) -> str:
    text = f"{value:,.0f}" if 1000 <= abs(value) < 1e7 else f"{value:.3g}"
    return text.replace("-", "\u2212")


def _cut(scene: Scene, bound: Bound, banded: Any, bare: Any) -> Cut | None:
    """Return the cut that keeps a few steps from flattening all others; none where these have the last of a mode."""
    steps, places = np.unique(scene.steps, return_inverse=True)
    low, high = np.full(steps.size, np.inf), np.full(steps.size, -np.inf)
    band = scene.band(bound)
    values = np.concatenate([*band[:, banded], band[1, bare]]).T
    np.minimum.at(low, places, _extreme(values, np.fmin, np.inf))
    np.maximum.at(high, places, _extreme(values, np.fmax, -np.inf))
    there = low <= high
    steps, low, high = steps[there], low[there], high[there]
    if steps.size < _LEAST_STEPS:
        return None
    beyond = np.maximum(high - np.median(high), np.median(low) - low)
    usual = np.argsort(beyond, kind="stable")[: -max(1, steps.size // 10)]
    bottom, top = float(low[usual].min()), float(high[usual].max())
    room = max(top - bottom, 0.05 * max(abs(bottom), abs(top))) / _FLAT_SHARE
    spikes = (high > top + room) | (low < bottom - room)
    if not spikes.any() or not room or np.isin([track.steps[-1] for track in scene.tracks], steps[spikes]).any():
        return None
    ends = float(low[~spikes].min()), float(high[~spikes].max())
    return Cut(ends, (float(low.min()), float(high.max())), steps[spikes])


def _log_axis(scene: Scene, bound: Bound, cut: Cut | None, banded: Any) -> LogAxis | None:
    """Return the logarithmic axis that labels need which are far apart, or means within far wider bands; else None."""
    low, centres, high = scene.band(bound)
    sizes = np.abs(np.where(np.isfinite(centres) & (centres != 0), centres, np.nan))
    usual = _usual(scene, cut)
    tops = np.sort(_extreme(sizes[:, usual], np.fmax, 0.0))
    tops = tops[tops > 0]
    if not tops.size or not 1 / EXTREME < tops[-1] < EXTREME:
        return None
    apart = tops.size >= 2 and tops[tops.size // 3] <= tops[-1] / LOG_FROM
    sizes = sizes[np.isfinite(sizes)]
    largest = float(sizes.max())
    if not apart and not _flat_means(low[banded][:, usual], centres[banded][:, usual], high[banded][:, usual]):
        return None
    positive = bool(centres[np.isfinite(centres)].min() > 0) and sizes.min() >= largest / _DECADES
    smallest = float(sizes.min() if positive else max(np.percentile(sizes, 5), largest / _DECADES))
    low, high = low[banded], high[banded]
    edges = low[np.isfinite(low) & (low > 0)]
    least = max(smallest / 5, float(edges.min(initial=smallest)))  # a band that reaches zero ends where the panel does
    return LogAxis(positive, smallest, least, float(np.max(high[np.isfinite(high)], initial=largest)))


def _flat_means(low: Floats, centres: Floats, high: Floats) -> bool:
    """Return whether bands make nearly all means one line, though these are positive and far apart."""
    means = centres[np.isfinite(centres)]
    lowest, highest = _extreme(low, np.fmin, np.inf).min(), _extreme(high, np.fmax, -np.inf).max()
    if not means.size or lowest < 0 or means.min() <= 0 or means.max() < LOG_FROM * means.min():
        return False
    return bool(np.percentile(means, 95) < _FLAT_MEANS * highest)


def fits(scene: Scene, bound: Bound, axis: ValueAxis) -> bool:
    """Return whether the typical label is still readable on an axis that holds all of them."""
    if axis.log is not None and scene.is_single_step:
        return True  # the height of a dot says it all
    low, centres, high = scene.band(bound)[:, :, _usual(scene, axis.cut)]
    if axis.log is not None:
        with np.errstate(divide="ignore", invalid="ignore"):
            low = high = np.log10(np.abs(centres))
    lowest, highest = _extreme(low, np.fmin, np.inf), _extreme(high, np.fmax, -np.inf)
    there = lowest <= highest
    if not there.any():
        return True
    whole = float(highest[there].max() - lowest[there].min())
    typical = float(np.median(highest[there] - lowest[there]))
    return typical >= _NARROW_SHARE * whole


def _usual(scene: Scene, cut: Cut | None) -> Mask:
    """Return which of all steps are not cut."""
    return ~np.isin(scene.steps, () if cut is None else cut.steps)


def _extreme(matrix: Floats, of: Any, start: float) -> Floats:
    """Return each row's smallest or largest finite value, or `start` if it has none."""
    return np.asarray(of.reduce(np.where(np.isfinite(matrix), matrix, start), axis=1), dtype=np.float64)
