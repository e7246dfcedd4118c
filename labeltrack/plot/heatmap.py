"""Heatmap: a row for each label, worst at the top, and a column for each step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from labeltrack.plot import style as look
from labeltrack.plot.cells import (
    ALL_NAMED,
    ENLARGED,
    Quantity,
    cell_legend,
    colour_bar,
    colours,
    draw_cells,
    scale,
    tick_ranks,
)
from labeltrack.plot.data import shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from labeltrack.plot.data import Array, Integers, Scene, Track

_ROW = 0.098  # inches, for names of 6.5 points


def heatmap(scene: Scene, heading: str) -> Figure:
    """Draw labels × steps as colour: the mean, and half the width of the band of each bound; a panel for each mode."""
    n = len(scene.names)
    quantities = _quantities(scene)
    tracks = scene.tracks
    names = [shorten(scene.names[k], 26) for k in scene.order[: ENLARGED if n > ALL_NAMED else n].tolist()]
    margin = 0.9 + 0.055 * max(map(len, names))
    widths = [_panel_width(track) for track in tracks]
    height = max(3.2, _ROW * n) + 2.3 if n <= ALL_NAMED else 9.2
    figure = look.new_figure(max(6.0, margin + sum(widths) * len(quantities)), height, heading)
    (block,) = figure.subfigures(1, 1, squeeze=False)[0]
    rows = [slice(0, n)] if n <= ALL_NAMED else [slice(0, ENLARGED), slice(0, n)]
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
    cell_legend(figure, gaps=gaps, odd=odd)
    return figure


def _panel_width(track: Track) -> float:
    return float(np.clip(0.13 * track.steps.size, 1.5, 3.2))


def _quantities(scene: Scene) -> list[Quantity]:
    """Return what is drawn: the mean, and the median if a bound has it, then half the width of each band."""
    order, tracks = scene.order, scene.tracks
    cmap = colours(higher_is_worse=scene.higher_is_worse)
    found = [Quantity("mean", f"mean {scene.value_label}", [track.mean[order] for track in tracks], cmap)]
    around = next((bound for bound in scene.bounds if bound.quantiles), None)
    if around is not None:
        medians = [track.bands[around.name][1][order] for track in tracks]
        found.append(Quantity("median", f"median {scene.value_label}", medians, cmap))
    for bound in scene.bounds:
        if bound.wide:
            edges = [track.bands[bound.name] for track in tracks]
            with np.errstate(invalid="ignore", over="ignore"):  # infinite minus infinite: drawn as not finite
                halves = [(high[order] - low[order]) / 2 for low, _, high in edges]
            title = f"{bound.text.replace('_', ' ')}, half the band"
            found.append(Quantity(title, f"half the width of the band\n({bound.description})", halves, "cividis"))
    return found


def _group(block: Any, group: Array, rows: list[slice], scene: Scene, quantity: Quantity) -> tuple[bool, bool]:
    """Draw one quantity, a column of panels per mode, and its colour bar; return whether there are gaps and NaN."""
    norm, extend, note = scale(np.concatenate([matrix.ravel() for matrix in quantity.matrices]))
    image: Any = None
    gaps = odd = False
    for column, (track, matrix) in enumerate(zip(scene.tracks, quantity.matrices, strict=True)):
        present = track.present[scene.order]
        gaps |= not present.all()
        odd |= bool((present & ~np.isfinite(matrix)).any())
        for axes, part in zip(group[:, column], rows, strict=True):
            image = draw_cells(axes, matrix[part], present[part], norm, quantity.cmap)
            _step_ticks(axes, track.steps, _panel_width(track), labelled=axes is group[-1, column])
        group[0, column].set_title(f"{shorten(track.mode, 18)}\n{quantity.title}", color=look.INK, parse_math=False)
        group[-1, column].set_xlabel(scene.x_label, parse_math=False)
    colour_bar(block, image, list(group[-1]), extend, f"{quantity.bar_label}{note}")
    return gaps, odd


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
    ranks = tick_ranks(n)
    first[1].set_yticks(ranks - 1, [str(rank) for rank in ranks.tolist()])
