"""The data map: how many samples there are of each variability and confidence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.colors import LogNorm, Normalize
from matplotlib.ticker import MaxNLocator

from labeltrack._core.arrays import Array, Floats
from labeltrack.plot import style as look

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDEST = 0.5  # the largest standard deviation of numbers from 0 to 1
_FEWEST, _MOST = 25, 120  # cells down the axis of confidence
# No sample is where the first and the last stand: its variability is at most sqrt(confidence * (1 - confidence)).
_REGIONS = (
    ("easy to learn", 0.2, 0.97, "left"),
    ("ambiguous", 0.49, 0.5, "right"),
    ("hard to learn", 0.2, 0.03, "left"),
)


def plot_datamap(
    variability: Array, confidence: Array, forgetting: Array | None = None, *, title: str, subtitle: str
) -> Figure:
    """Draw ``(K,)`` samples (Swayamdipta et al., 2020); colour is their number, or the mean of `forgetting`."""
    known = np.isfinite(variability) & np.isfinite(confidence)
    if not known.any():
        msg = "there is nothing to draw: no sample has a variability and a confidence that are numbers"
        raise ValueError(msg)
    left_out = known.size - int(np.count_nonzero(known))
    counts, sums = _cells(variability[known], confidence[known], None if forgetting is None else forgetting[known])
    with look.styled():
        figure = look.new_figure(7.2, 5.6, title)
        (block,) = figure.subfigures(1, 1, squeeze=False)[0]
        axes = block.subplots()
        look.subtitle(block, subtitle + (f"; {left_out:,} with NaN are left out" if left_out else ""))
        _draw(block, axes, counts, sums)
    return figure


def _cells(variability: Floats, confidence: Floats, weights: Array | None) -> tuple[Floats, Array | None]:
    """Return the number of samples in each cell, and the sum of their weights; fewer samples have larger cells."""
    down = int(np.clip(2 * variability.size ** (1 / 3), _FEWEST, _MOST))
    across = down * 3 // 4
    column = np.minimum((variability * (across / _WIDEST)).astype(np.int64), across - 1)
    row = np.minimum((confidence * down).astype(np.int64), down - 1)
    place = row * across + column
    counts = np.bincount(place, minlength=down * across).reshape(down, across).astype(np.float64)
    if weights is None:
        return counts, None
    sums: Array = np.bincount(place, weights, minlength=down * across).reshape(counts.shape)
    return counts, sums


def _draw(block: Any, axes: Axes, counts: Floats, sums: Array | None) -> None:
    shown = counts if sums is None else sums / np.maximum(counts, 1)
    top = float(shown.max())
    norm: Normalize = LogNorm(1, max(10.0, top)) if sums is None else Normalize(0, max(1.0, top))
    looks: dict[str, Any] = {"cmap": "viridis", "origin": "lower", "aspect": "auto", "interpolation": "nearest"}
    image = axes.imshow(np.ma.masked_array(shown, counts == 0), norm=norm, extent=(0.0, _WIDEST, 0.0, 1.0), **looks)
    axes.set_xlabel("variability (standard deviation of the probability of the right label)")
    axes.set_ylabel("confidence (its mean)")
    for text, x, y, side in _REGIONS:
        axes.annotate(text, (x, y), ha=side, va="center", fontsize=look.SMALL, color=look.SOFT_INK)
    bar = block.colorbar(image, ax=axes, aspect=28, pad=0.02)
    if sums is None:
        bar.set_label("number of samples, log scale", fontsize=look.SMALL)
        bar.ax.yaxis.set_major_formatter(lambda number, _: f"{number:,.0f}")
    else:
        bar.set_label("forgetting events, mean", fontsize=look.SMALL)
        bar.ax.yaxis.set_major_locator(MaxNLocator(6))
    bar.outline.set_visible(False)
