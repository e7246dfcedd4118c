"""Heatmap: a row for each label, worst at the top, and a column for each step. Grids share its cells in colour."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from matplotlib.colors import AsinhNorm, ListedColormap, LogNorm, Normalize
from matplotlib.patches import Patch

from labeltrack._core.arrays import Array, Floats, Integers, Mask
from labeltrack.plot import style as look
from labeltrack.plot.scene import shorten

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from labeltrack.bounds import Bound
    from labeltrack.plot.scene import Scene

ALL_NAMED = 110  # with more rows than this, rows are not tall enough for names
ENLARGED = 25
_ROW = 0.098  # inches, for names of 6.5 points
_SKEWED_FROM = 3.0  # ratio of the whole range to that between the 2nd and the 98th percentile


def heatmap(scene: Scene, heading: str) -> Figure:
    """Draw labels × steps as colour: the mean, and half the width of the band of each bound; a panel for each mode."""
    n, quantities = len(scene.names), _quantities(scene)
    whole, marked = np.arange(n), np.flatnonzero(np.isin(scene.order, scene.marked))
    enlarged = np.sort(np.concatenate([marked, np.setdiff1d(whole, marked)])[:ENLARGED])
    parts = [whole] if n <= ALL_NAMED else [enlarged, whole]
    names = [shorten(scene.names[k], 26) for k in scene.order[parts[0]].tolist()]
    margin = 0.9 + 0.055 * max(map(len, names))
    widths = [float(np.clip(0.13 * track.steps.size, 1.5, 3.2)) for track in scene.tracks]
    height = max(3.2, _ROW * n) + 2.3 if n <= ALL_NAMED else 9.2
    figure = look.new_figure(max(6.0, margin + sum(widths) * len(quantities)), height, heading)
    counted = f"; {scene.step_label}" if scene.origin else ""
    modes = {track.mode: track.present[scene.order] for track in scene.tracks}
    groups = draw_groups(figure, f"labels {scene.ranking}{counted}", parts, modes, quantities, widths)
    for group, _ in groups:
        for column, track, width in zip(group.T, scene.tracks, widths, strict=True):
            for axes in column:
                _step_ticks(axes, track.steps, width, labelled=axes is column[-1])
            column[-1].set_xlabel(scene.x_label, parse_math=False)
    first = groups[0][0]
    said = ["highlighted and the worst" if marked.size else f"the {len(names)} worst", f"all {n} labels, by rank"]
    name_rows(first, names, said if len(parts) > 1 else [""], n, 0)
    for text, place in zip(first[0, 0].get_yticklabels(), parts[0].tolist(), strict=True):
        if place in marked:
            text.set(color=look.darker(look.WORST), fontweight="bold")
    return figure


def _quantities(scene: Scene) -> list[Quantity]:
    """Return what is drawn: the mean, and the median if a bound has it, then half the width of each band."""
    shown = [("mean", [track.mean for track in scene.tracks])]
    around = next((bound.name for bound in scene.bounds if bound.quantiles), None)
    if around is not None:
        shown.append(("median", [track.bands[around][1] for track in scene.tracks]))
    worse, order = scene.higher_is_worse, scene.order
    found = [
        centres(what, scene.value_label, [of[order] for of in each], higher_is_worse=worse) for what, each in shown
    ]
    for bound in (bound for bound in scene.bounds if bound.wide):
        edges = [track.bands[bound.name][:, order] for track in scene.tracks]
        with np.errstate(invalid="ignore", over="ignore"):  # infinite minus infinite: drawn as not finite
            found.append(halves(bound, [(high - low) / 2 for low, _, high in edges]))
    return found


def _step_ticks(axes: Axes, steps: Integers, width: float, *, labelled: bool) -> None:
    """Name some of the columns by their steps; columns are equally wide even where steps are not equally far apart."""
    most = max(1, min(8, int(width / (0.08 * (max(len(str(step)) for step in steps.tolist()) + 1)))))
    places = np.arange(0, steps.size, -(-steps.size // most))
    evenly = np.unique(np.diff(steps)).size <= 1
    for every in (digit * 10**power for power in range(19) for digit in (1, 2, 5)):
        round_ones = np.flatnonzero(steps % every == 0)  # easier to read than the first, sixth, eleventh …
        if round_ones.size <= most:
            places = round_ones if evenly and round_ones.size > 1 else places
            break
    axes.set_xticks(places, [str(step) for step in steps[places].tolist()] if labelled else [])
    axes.tick_params(length=2, pad=2)


# -- shared with grids -----------------------------------------------------------------------------------------


class Quantity(NamedTuple):
    """What one group of panels shows, a matrix for each mode."""

    title: str
    bar_label: str
    matrices: list[Floats]
    cmap: str


def centres(what: str, value_label: str, matrices: list[Floats], *, higher_is_worse: bool) -> Quantity:
    """Return means or medians; worst is the bright end either way."""
    return Quantity(what, f"{what} {value_label}", matrices, "viridis" if higher_is_worse else "viridis_r")


def halves(bound: Bound, matrices: list[Floats]) -> Quantity:
    """Return half the width of a band."""
    title = f"{bound.text.replace('_', ' ')}, half the band"
    return Quantity(title, f"half the width of the band\n({bound.description})", matrices, "cividis")


def draw_groups(
    figure: Figure, note: str, parts: list[Any], modes: dict[str, Mask], quantities: list[Quantity], widths: Any
) -> list[tuple[Array, Any]]:
    """Draw a group of panels for each quantity; return its axes, a row per part and a column per mode, and an image."""
    (block,) = figure.subfigures(1, 1, squeeze=False)[0]
    look.subtitle(block, note)
    ratios = {"width_ratios": widths * len(quantities), "height_ratios": [3.0, 4.2][-len(parts) :]}
    axes = block.subplots(len(parts), len(modes) * len(quantities), squeeze=False, **ratios)
    groups = []
    odd = False
    for group, quantity in zip(np.split(axes, len(quantities), axis=1), quantities, strict=True):
        norm, extend, scale_note = scale(np.concatenate([matrix.ravel() for matrix in quantity.matrices]))
        image: Any = None
        for column, ((mode, present), matrix) in enumerate(zip(modes.items(), quantity.matrices, strict=True)):
            odd |= bool((present & ~np.isfinite(matrix)).any())
            for panel, part in zip(group[:, column], parts, strict=True):
                image = draw_cells(panel, matrix[part], present[part], norm, quantity.cmap)
                panel.set(xticks=[], yticks=[])
            group[0, column].set_title(f"{shorten(mode, 18)}\n{quantity.title}", color=look.INK, parse_math=False)
        looks = {"location": "bottom", "aspect": 28, "pad": 0.02, "fraction": 0.05}
        bar = block.colorbar(image, ax=list(group[-1]), extend=extend, **looks)
        bar.set_label(f"{quantity.bar_label}{scale_note}", fontsize=look.SMALL, parse_math=False)
        bar.outline.set_visible(False)
        groups.append((group, image))
    entries: list[tuple[Artist, str]] = []
    if not all(present.all() for present in modes.values()):
        entries.append((Patch(facecolor="white", edgecolor="#999999", hatch="//////", linewidth=0.5), "no samples"))
    if odd:
        entries.append((Patch(color=look.NOT_FINITE), "NaN or infinite"))
    if entries:
        look.legend(figure, entries)
    return groups


def name_rows(group: Array, names: list[str], said: list[str], n: int, first: int) -> None:
    """Name the rows of the upper left panel, and number some of the n rows of the lower one, from `first` on."""
    for axes, label in zip(group[:, 0], said, strict=True):
        axes.set_ylabel(label, parse_math=False)
    group[0, 0].set_yticks(range(len(names)), names, parse_math=False, fontsize=6.5)
    group[0, 0].tick_params(axis="y", length=0)
    if len(group) > 1:
        ranks = tick_ranks(n)
        group[1, 0].set_yticks(ranks - 1 + first, [str(rank) for rank in ranks.tolist()])


def tick_ranks(n: int) -> Integers:
    """Return some of the ranks from 1 to n, at round numbers."""
    every = next(i for base in range(12) for i in (10**base, 2 * 10**base, 5 * 10**base) if n / i <= 8)
    return np.unique(np.concatenate([[1], np.arange(every, n + 1, every)]))


def draw_cells(axes: Axes, matrix: Floats, present: Mask, norm: Normalize, cmap: str) -> Any:
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
    least = 1 / look.EXTREME
    wide = near > least and far / near >= look.LOG_FROM and middle - near < span / 4
    skewed = high - low >= _SKEWED_FROM * span
    if high < look.EXTREME and (wide or (skewed and low > least and high / low >= look.LOG_FROM)):
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
