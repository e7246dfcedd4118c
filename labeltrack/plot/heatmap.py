"""Heatmap: a row for each label, worst at the top, and a column for each step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from matplotlib.colors import AsinhNorm, ListedColormap, LogNorm, Normalize
from matplotlib.patches import Patch

from labeltrack.plot import style as look
from labeltrack.plot.data import shorten

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from labeltrack.plot.data import Array, Booleans, Floats, Integers, Scene, Track

_ALL_NAMED = 110  # with more rows than this, rows are not tall enough for names
_ENLARGED = 25
_ROW = 0.098  # inches, for names of 6.5 points
_SKEWED_FROM = 3.0  # ratio of the whole range to that between the 2nd and the 98th percentile


class _Quantity(NamedTuple):
    """What one group of heatmaps shows, a matrix for each mode."""

    title: str
    bar_label: str
    matrices: list[Floats]
    cmap: str


def heatmap(scene: Scene, heading: str) -> Figure:
    """Draw labels × steps as colour: the mean, and half the width of the band of each bound; a panel for each mode."""
    n = len(scene.names)
    quantities = _quantities(scene)
    tracks = scene.tracks
    names = [shorten(scene.names[k], 26) for k in scene.order[: _ENLARGED if n > _ALL_NAMED else n].tolist()]
    margin = 0.9 + 0.055 * max(map(len, names))
    widths = [_panel_width(track) for track in tracks]
    height = max(3.2, _ROW * n) + 2.3 if n <= _ALL_NAMED else 9.2
    figure = look.new_figure(max(6.0, margin + sum(widths) * len(quantities)), height, heading)
    (block,) = figure.subfigures(1, 1, squeeze=False)[0]
    rows = [slice(0, n)] if n <= _ALL_NAMED else [slice(0, _ENLARGED), slice(0, n)]
    grid = block.subplots(
        len(rows),
        len(tracks) * len(quantities),
        squeeze=False,
        width_ratios=widths * len(quantities),
        height_ratios=[1.0] if len(rows) == 1 else [3.0, 4.2],
    )
    counted = f"; {scene.step_label}" if scene.origin else ""
    look.subtitle(block, f"labels {scene.ranking}{counted}")
    groups = np.split(grid, len(quantities), axis=1)
    drawn = [_group(block, group, rows, scene, what) for group, what in zip(groups, quantities, strict=True)]
    gaps, odd = (any(found) for found in zip(*drawn, strict=True))
    _name_rows(grid[:, 0], rows, names)
    entries: list[tuple[Artist, str]] = []
    if gaps:
        entries.append((Patch(facecolor="white", edgecolor="#999999", hatch="//////", linewidth=0.5), "no samples"))
    if odd:
        entries.append((Patch(color=look.NOT_FINITE), "NaN or infinite"))
    if entries:
        look.legend(figure, entries)
    return figure


def _panel_width(track: Track) -> float:
    return float(np.clip(0.13 * track.steps.size, 1.5, 3.2))


def _quantities(scene: Scene) -> list[_Quantity]:
    """Return what is drawn: the mean, and the median if a bound has it, then half the width of each band."""
    order, tracks = scene.order, scene.tracks
    cmap = "viridis" if scene.higher_is_worse else "viridis_r"  # worst is the bright end either way
    found = [_Quantity("mean", f"mean {scene.value_label}", [track.mean[order] for track in tracks], cmap)]
    around = next((bound for bound in scene.bounds if bound.quantiles), None)
    if around is not None:
        medians = [track.bands[around.name][1][order] for track in tracks]
        found.append(_Quantity("median", f"median {scene.value_label}", medians, cmap))
    for bound in scene.bounds:
        if bound.wide:
            edges = [track.bands[bound.name] for track in tracks]
            with np.errstate(invalid="ignore", over="ignore"):  # infinite minus infinite: drawn as not finite
                halves = [(high[order] - low[order]) / 2 for low, _, high in edges]
            title = f"{bound.text.replace('_', ' ')}, half the band"
            found.append(_Quantity(title, f"half the width of the band\n({bound.description})", halves, "cividis"))
    return found


def _group(block: Any, group: Array, rows: list[slice], scene: Scene, quantity: _Quantity) -> tuple[bool, bool]:
    """Draw one quantity, a column of panels per mode, and its colour bar; return whether there are gaps and NaN."""
    norm, extend, note = _scale(np.concatenate([matrix.ravel() for matrix in quantity.matrices]))
    image: Any = None
    gaps = odd = False
    for column, (track, matrix) in enumerate(zip(scene.tracks, quantity.matrices, strict=True)):
        present = track.present[scene.order]
        gaps |= not present.all()
        odd |= bool((present & ~np.isfinite(matrix)).any())
        for axes, part in zip(group[:, column], rows, strict=True):
            image = _draw_cells(axes, matrix[part], present[part], norm, quantity.cmap)
            _step_ticks(axes, track.steps, _panel_width(track), labelled=axes is group[-1, column])
        group[0, column].set_title(f"{shorten(track.mode, 18)}\n{quantity.title}", color=look.INK, parse_math=False)
        group[-1, column].set_xlabel(scene.x_label, parse_math=False)
    bar = block.colorbar(
        image, ax=list(group[-1]), location="bottom", extend=extend, aspect=28, pad=0.02, fraction=0.05
    )
    bar.set_label(f"{quantity.bar_label}{note}", fontsize=look.SMALL, parse_math=False)
    bar.outline.set_visible(False)
    return gaps, odd


def _draw_cells(axes: Axes, matrix: Floats, present: Booleans, norm: Normalize, cmap: str) -> Any:
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


def _scale(values: Floats) -> tuple[Normalize, str, str]:
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


def _name_rows(first: Array, rows: list[slice], names: list[str]) -> None:
    """Name the rows of the left panels, and remove the ticks of the others."""
    for axes in first[0].figure.axes:
        if axes.images and axes not in first.tolist():
            axes.set_yticks([])
    first[0].set_yticks(range(len(names)), names, parse_math=False, fontsize=6.5)
    first[0].tick_params(axis="y", length=0)
    if len(rows) == 1:
        return
    n = rows[1].stop
    first[0].set_ylabel(f"the {len(names)} worst")
    first[1].set_ylabel(f"all {n} labels, by rank")
    every = next(i for base in range(12) for i in (10**base, 2 * 10**base, 5 * 10**base) if n / i <= 8)
    ranks = np.unique(np.concatenate([[1], np.arange(every, n + 1, every)]))
    first[1].set_yticks(ranks - 1, [str(rank) for rank in ranks.tolist()])
