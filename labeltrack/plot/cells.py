"""What heatmaps and grids share: cells in colour, the scale of their colours, the legend."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from matplotlib.colors import AsinhNorm, ListedColormap, LogNorm, Normalize
from matplotlib.patches import Patch

from labeltrack.plot import style as look

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from labeltrack.plot.data import Booleans, Floats, Integers

ALL_NAMED = 110  # with more rows than this, rows are not tall enough for names
ENLARGED = 25
_SKEWED_FROM = 3.0  # ratio of the whole range to that between the 2nd and the 98th percentile


class Quantity(NamedTuple):
    """What one group of panels shows, a matrix for each mode."""

    title: str
    bar_label: str
    matrices: list[Floats]
    cmap: str


def colours(*, higher_is_worse: bool) -> str:
    """Return the colour map of means: worst is the bright end either way."""
    return "viridis" if higher_is_worse else "viridis_r"


def colour_bar(block: Any, image: Any, group: list[Axes], extend: str, label: str) -> None:
    """Draw the colour bar of a group of panels below them."""
    bar = block.colorbar(image, ax=group, location="bottom", extend=extend, aspect=28, pad=0.02, fraction=0.05)
    bar.set_label(label, fontsize=look.SMALL, parse_math=False)
    bar.outline.set_visible(False)


def cell_legend(figure: Figure, *, gaps: bool, odd: bool) -> None:
    """Explain cells without samples, and those that are not finite, if there are any."""
    entries: list[tuple[Artist, str]] = []
    if gaps:
        entries.append((Patch(facecolor="white", edgecolor="#999999", hatch="//////", linewidth=0.5), "no samples"))
    if odd:
        entries.append((Patch(color=look.NOT_FINITE), "NaN or infinite"))
    if entries:
        look.legend(figure, entries)


def tick_ranks(n: int) -> Integers:
    """Return some of the ranks from 1 to n, at round numbers."""
    every = next(i for base in range(12) for i in (10**base, 2 * 10**base, 5 * 10**base) if n / i <= 8)
    return np.unique(np.concatenate([[1], np.arange(every, n + 1, every)]))


def draw_cells(axes: Axes, matrix: Floats, present: Booleans, norm: Normalize, cmap: str) -> Any:
    """Draw one heatmap: hatched where there are no samples, in a colour of its own where the value is not finite."""
    axes.patch.set(facecolor="white", edgecolor="#BBBBBB", hatch="//////", linewidth=0)
    finite = np.isfinite(matrix)
    if isinstance(norm, LogNorm):  # it would leave out values that have no logarithm
        matrix = np.maximum(matrix, norm.vmin or 0.0)
    image = axes.imshow(np.ma.masked_array(matrix, ~finite), norm=norm, cmap=cmap, aspect="auto")
    odd = present & ~finite
    if odd.any():
        marks = np.ma.masked_array(np.ones(matrix.shape), ~odd)
        axes.imshow(marks, cmap=ListedColormap([look.NOT_FINITE]), aspect="auto", interpolation="nearest")
    for spine in axes.spines.values():
        spine.set_visible(False)
    return image


def scale(values: Floats) -> tuple[Normalize, str, str]:
    """Return the colour scale of some values, which ends of its bar are open, and what its label must add."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return Normalize(0.0, 1.0), "neither", ""
    low, high = float(finite.min()), float(finite.max())
    if low == high:
        pad = abs(low) * 0.01 or 1.0
        return Normalize(low - pad, high + pad), "neither", ""
    near, middle, far = (float(x) for x in np.percentile(finite, [2, 50, 98]))
    span = far - near
    # The worst labels are outliers that one wants to see, so a scale that holds them all is better than clipping.
    wide = near > 0 and far / near >= look.LOG_FROM and middle - near < span / 4
    skewed = high - low >= _SKEWED_FROM * span
    if wide or (skewed and low > 0 and high / low >= look.LOG_FROM):
        bottom = max(low, near / 2) if near > 0 else low
        if low < bottom:
            return LogNorm(bottom, high), "min", "\nlog scale, what is below its end as one colour"
        return LogNorm(bottom, high), "neither", "\nlog scale"
    if not skewed:
        return Normalize(low, high), "neither", ""
    if max(abs(near), abs(far)) <= 2 * span:  # around zero
        norm = AsinhNorm(max(abs(near), abs(far)) / 2, low, high)
        return norm, "neither", "\nlinear about 0, logarithmic further out"
    pad = 0.5 * span or 0.05 * abs(near)
    bottom, top = max(low, near - pad), min(high, far + pad)
    extend = "both" if low < bottom and top < high else "min" if low < bottom else "max"
    return Normalize(bottom, top), extend, "\noutliers beyond the ends as one colour"
