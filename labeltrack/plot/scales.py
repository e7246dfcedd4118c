"""Linear or logarithmic: which axis lets most labels be read."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from matplotlib.ticker import LogLocator, NullFormatter

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from labeltrack.bounds import Bound
    from labeltrack.plot.data import Floats, Scene

LOG_FROM = 20.0  # a log scale of a smaller ratio changes little
NOTES = {"linear": "", "log": ", log scale", "symlog": ", log scale, linear at 0"}
_NARROW_SHARE = 0.08  # a typical label that fills less of a common axis than this cannot be read there
_EXTREME = 1e290  # matplotlib's logarithmic axes do not reach the ends of the range of doubles
_DECADES = 1e12  # values smaller than the largest by more than this are treated as zero


class LogAxis(NamedTuple):
    """What a logarithmic axis must hold; one of zeros or of both signs is linear around zero."""

    positive: bool
    smallest: float
    least: float
    largest: float


def log_axis(scene: Scene, bound: Bound) -> LogAxis | None:
    """Return the logarithmic axis that a bound needs; None where most labels can be read on a linear one."""
    bands = [track.bands[bound.name] for track in scene.tracks]
    low, centres, high = (np.concatenate(edges, axis=1) for edges in zip(*bands, strict=True))
    sizes = np.abs(np.where(np.isfinite(centres) & (centres != 0), centres, np.nan))
    tops = np.sort(_extreme(sizes, np.fmax, 0.0))
    tops = tops[tops > 0]
    if tops.size < 2 or tops[tops.size // 3] > tops[-1] / LOG_FROM or not 1 / _EXTREME < tops[-1] < _EXTREME:
        return None
    sizes = sizes[np.isfinite(sizes)]
    positive = bool(centres[np.isfinite(centres)].min() > 0) and sizes.min() >= tops[-1] / _DECADES
    smallest = float(sizes.min() if positive else max(np.percentile(sizes, 5), tops[-1] / _DECADES))
    edges = low[np.isfinite(low) & (low > 0)]
    least = max(smallest / 5, float(edges.min(initial=smallest)))  # a band that reaches zero ends where the panel does
    return LogAxis(positive, smallest, least, float(np.max(high[np.isfinite(high)], initial=tops[-1])))


def use(axes: Axes, needed: LogAxis | None) -> None:
    """Give a panel the logarithmic axis that it needs, if any."""
    if needed is None:
        return
    if needed.positive:
        axes.set_yscale("log", nonpositive="clip")
        ratio = (needed.largest / needed.least) ** 0.06
        axes.set_ylim(needed.least / ratio, needed.largest * ratio)
        subs = (1.0, 2.0, 5.0) if needed.largest < 200 * needed.least else (1.0,)
        axes.yaxis.set_major_locator(LogLocator(subs=subs))
    else:
        axes.set_yscale("symlog", linthresh=10.0 ** math.floor(math.log10(needed.smallest)))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())


def fits_one_axis(scene: Scene, bound: Bound, *, logarithmic: bool = False) -> bool:
    """Return whether the typical label is still readable on an axis that holds all of them."""
    if logarithmic and scene.is_single_step:
        return True  # the height of a dot says it all
    lows, highs = [], []
    for track in scene.tracks:
        low, centre, high = track.bands[bound.name]
        if logarithmic:
            with np.errstate(divide="ignore", invalid="ignore"):
                low = high = np.log10(np.abs(centre))
        lows.append(_extreme(low, np.fmin, np.inf))
        highs.append(_extreme(high, np.fmax, -np.inf))
    lowest, highest = np.min(lows, axis=0), np.max(highs, axis=0)
    there = lowest <= highest
    if not there.any():
        return True
    whole = float(highest[there].max() - lowest[there].min())
    typical = float(np.median(highest[there] - lowest[there]))
    return typical >= _NARROW_SHARE * whole


def _extreme(matrix: Floats, of: Any, start: float) -> Floats:
    """Return each row's smallest or largest finite value, or `start` if it has none."""
    return np.asarray(of.reduce(np.where(np.isfinite(matrix), matrix, start), axis=1), dtype=np.float64)
