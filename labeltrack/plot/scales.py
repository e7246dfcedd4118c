"""Linear or logarithmic: which axis lets most labels be read."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.ticker import LogLocator, NullFormatter

from labeltrack.plot.style import single_step

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from labeltrack.bounds import Bound
    from labeltrack.plot.data import Floats, Scene

LOG_FROM = 20.0
"""A log scale of a smaller ratio changes little."""

_NARROW_SHARE = 0.08  # a typical label that fills less of a common axis than this cannot be read there
NOTES = {"linear": "", "log": ", log scale", "symlog": ", log scale, linear at 0"}
_EXTREME = 1e290  # matplotlib's logarithmic axes do not go to the ends of what doubles hold
_DECADES = 1e12  # what is smaller than the largest by more than this is as good as zero


@dataclass(frozen=True)
class Magnitudes:
    """What a logarithmic axis must hold: means or medians that are zero or of both signs have none that is plain."""

    plain: bool
    smallest: float
    least: float
    largest: float


def magnitudes_of(scene: Scene, bound: Bound) -> Magnitudes | None:
    """Return what a logarithmic axis must hold; None where most labels can be read on a linear one."""
    bands = [track.bands[bound.name] for track in scene.tracks]
    centres = np.concatenate([centre for _, centre, _ in bands], axis=1)
    sizes = np.abs(np.where(np.isfinite(centres) & (centres != 0), centres, np.nan))
    tops = np.sort(_extreme(sizes, np.fmax, 0.0))
    tops = tops[tops > 0]
    if tops.size < 2 or tops[tops.size // 3] > tops[-1] / LOG_FROM or not 1 / _EXTREME < tops[-1] < _EXTREME:
        return None
    sizes = sizes[np.isfinite(sizes)]
    plain = bool(np.nanmin(np.where(np.isfinite(centres), centres, np.nan)) > 0) and sizes.min() >= tops[-1] / _DECADES
    smallest = float(sizes.min() if plain else max(np.percentile(sizes, 5), tops[-1] / _DECADES))
    low, high = (np.concatenate([band[i] for band in bands], axis=1) for i in (0, 2))
    edges = low[np.isfinite(low) & (low > 0)]
    least = max(smallest / 5, float(edges.min(initial=smallest)))  # a band that reaches zero ends where the panel does
    return Magnitudes(plain, smallest, least, float(np.max(high[np.isfinite(high)], initial=tops[-1])))


def use(axes: Axes, magnitudes: Magnitudes | None) -> None:
    """Give a panel a logarithmic axis, if it must have one."""
    if magnitudes is None:
        return
    if magnitudes.plain:
        axes.set_yscale("log", nonpositive="clip")
        ratio = (magnitudes.largest / magnitudes.least) ** 0.06
        axes.set_ylim(magnitudes.least / ratio, magnitudes.largest * ratio)
        subs = (1.0, 2.0, 5.0) if magnitudes.largest < 200 * magnitudes.least else (1.0,)
        axes.yaxis.set_major_locator(LogLocator(subs=subs))
    else:
        axes.set_yscale("symlog", linthresh=10.0 ** math.floor(math.log10(magnitudes.smallest)))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())


def fits_one_axis(scene: Scene, bound: Bound, *, logarithmic: bool = False) -> bool:
    """Return whether the typical label is still readable on an axis that holds all of them."""
    if logarithmic and single_step(scene):
        return True  # where a dot is says it all
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
