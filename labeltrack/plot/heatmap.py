"""Heatmap: a row for each label, worst at the top, and a column for each step."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from labeltrack.plot import style as look
from labeltrack.plot.cells import ALL_NAMED, ENLARGED, Quantity, centres, draw_groups, halves, name_rows
from labeltrack.plot.data import shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from labeltrack.plot.data import Integers, Scene, Track

_ROW = 0.098  # inches, for names of 6.5 points


def heatmap(scene: Scene, heading: str) -> Figure:
    """Draw labels × steps as colour: the mean, and half the width of the band of each bound; a panel for each mode."""
    n = len(scene.names)
    quantities = _quantities(scene)
    whole, marked = np.arange(n), np.flatnonzero(np.isin(scene.order, scene.marked))
    enlarged = np.sort(np.concatenate([marked, np.setdiff1d(whole, marked)])[:ENLARGED])
    parts = [whole] if n <= ALL_NAMED else [enlarged, whole]
    names = [shorten(scene.names[k], 26) for k in scene.order[parts[0]].tolist()]
    margin = 0.9 + 0.055 * max(map(len, names))
    widths = [_panel_width(track) for track in scene.tracks]
    height = max(3.2, _ROW * n) + 2.3 if n <= ALL_NAMED else 9.2
    figure = look.new_figure(max(6.0, margin + sum(widths) * len(quantities)), height, heading)
    counted = f"; {scene.step_label}" if scene.origin else ""
    modes = {track.mode: track.present[scene.order] for track in scene.tracks}
    groups = draw_groups(figure, f"labels {scene.ranking}{counted}", parts, modes, quantities, widths)
    for group, _ in groups:
        for column, track in zip(group.T, scene.tracks, strict=True):
            for axes in column:
                _step_ticks(axes, track.steps, _panel_width(track), labelled=axes is column[-1])
            column[-1].set_xlabel(scene.x_label, parse_math=False)
    first = groups[0][0]
    said = ["highlighted and the worst" if marked.size else f"the {len(names)} worst", f"all {n} labels, by rank"]
    name_rows(first, names, said if len(parts) > 1 else [""], n, 0)
    for text, place in zip(first[0, 0].get_yticklabels(), parts[0].tolist(), strict=True):
        if place in marked:
            text.set(color=look.darker(look.WORST), fontweight="bold")
    return figure


def _panel_width(track: Track) -> float:
    return float(np.clip(0.13 * track.steps.size, 1.5, 3.2))


def _quantities(scene: Scene) -> list[Quantity]:
    """Return what is drawn: the mean, and the median if a bound has it, then half the width of each band."""
    order, tracks = scene.order, scene.tracks
    worse = scene.higher_is_worse
    found = [centres("mean", scene.value_label, [track.mean[order] for track in tracks], higher_is_worse=worse)]
    around = next((bound for bound in scene.bounds if bound.quantiles), None)
    if around is not None:
        medians = [track.bands[around.name][1][order] for track in tracks]
        found.append(centres("median", scene.value_label, medians, higher_is_worse=worse))
    for bound in scene.bounds:
        if bound.wide:
            edges = [track.bands[bound.name] for track in tracks]
            with np.errstate(invalid="ignore", over="ignore"):  # infinite minus infinite: drawn as not finite
                found.append(halves(bound, [(high[order] - low[order]) / 2 for low, _, high in edges]))
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
