"""Lines: all labels in one panel for each bound, each named where its line ends."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.lines import Line2D

from labeltrack._core.arrays import Floats, Integers
from labeltrack.plot import style as look
from labeltrack.plot.axes import value_axis
from labeltrack.plot.data import shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from labeltrack.bounds import Bound
    from labeltrack.plot.axes import ValueAxis
    from labeltrack.plot.data import Scene, Track

COLOURED = len(look.PALETTE)
_MARKED_STEPS = 12  # each step is marked by a dot where there are no more than this
_EDGED_LABELS = 4  # the edges of more bands than this are clutter
_NAME_LENGTH = 30
_PANEL_HEIGHT = 3.3


def lines(scene: Scene, heading: str) -> Figure:
    """Draw the highlighted or else the worst labels in colour and the others in grey; a panel for each bound."""
    bounds = scene.bounds
    figure = look.new_figure(8.0, _PANEL_HEIGHT * len(bounds) + 0.9, heading)
    panels = figure.subplots(len(bounds), 1, sharex=True, squeeze=False)[:, 0]
    # Colours go by label, not by rank, so that a label keeps its colour from one figure to the next.
    coloured = np.sort(scene.marked if scene.marked.size else scene.order[:COLOURED])
    rest = np.setdiff1d(scene.order, coloured)
    worst = f"; the {coloured.size} worst in colour" if rest.size and not scene.marked.size else ""
    odd = False
    for axes, bound in zip(panels, bounds, strict=True):
        axis = value_axis(scene, bound, coloured, rest)
        odd |= _panel(axes, scene, bound, axis, coloured, rest)
        axes.set_title(f"{bound.description}{worst}{axis.cut_note(scene)}", parse_math=False)
        axes.set_ylabel(f"{scene.value_label}{axis.scale_note}", parse_math=False)
    panels[-1].set_xlabel(scene.step_label, parse_math=False)
    entries = look.mode_entries(scene, markers=any(_marker_interval(scene, track) for track in scene.tracks))
    if rest.size:
        banded = any(bound.wide for bound in bounds)
        entries.append((Line2D([], [], color=look.BEHIND), f"{rest.size} other labels{', without band' * banded}"))
    if odd:
        entries.append(look.not_finite_entry())
    look.legend(figure, entries)
    return figure


def _panel(axes: Axes, scene: Scene, bound: Bound, axis: ValueAxis, coloured: Integers, rest: Integers) -> bool:
    """Draw one panel; return whether any mean is not finite."""
    odd = False
    ends = np.full((coloured.size, 2), np.nan)
    peaks = np.full(coloured.size, -np.inf)
    dodge = look.dodge(scene, coloured.size)
    edges = len(scene.tracks) > 1 and not look.has_many_modes(scene) and coloured.size <= _EDGED_LABELS
    alpha = look.band_alpha(len(scene.tracks) * coloured.size)
    for i, track in enumerate(scene.tracks):
        band = track.bands[bound.name]
        _, centre, high = band
        look.draw_behind(axes, track.steps, centre[rest], style=look.line_style(i))
        width, every = 1.7 * look.emphasis(scene, track), _marker_interval(scene, track)
        options: dict[str, Any] = {"mode": i, "width": width, "every": every}
        for j, (k, colour) in enumerate(zip(coloured.tolist(), look.PALETTE, strict=False)):
            steps = track.steps + dodge[i, j]
            drawn = look.draw_course(axes, steps, band[:, k], colour=colour, alpha=alpha, edges=edges, **options)
            odd |= look.draw_not_finite(axes, steps, centre[k], track.present[k], colour)
            if drawn:
                last = np.flatnonzero(np.isfinite(centre[k]))[-1]
                if not steps[last] < ends[j, 0]:  # the name goes to the line that reaches furthest
                    ends[j] = steps[last], centre[k, last]
                peaks[j] = np.fmax(peaks[j], high[k, last] if np.isfinite(high[k, last]) else centre[k, last])
    look.integer_steps(axes, scene, 10, 5.5)
    axes.grid(visible=True)
    axes.margins(y=0.06)
    axis.apply(axes)
    names = [scene.names[k] for k in coloured.tolist()]
    has_samples = np.any([track.present.any(axis=1) for track in scene.tracks], axis=0)[coloured]
    notes = ["(no finite mean)" if there else "(no samples)" for there in has_samples.tolist()]
    if scene.is_single_step:
        _name_columns(axes, int(scene.tracks[0].steps[0]) + dodge.mean(axis=0), peaks, names, notes)
    else:
        _name_ends(axes, ends, names, notes)
    return odd


def _marker_interval(scene: Scene, track: Track) -> int:
    return look.marker_interval(scene, track, _MARKED_STEPS, 8)


def _heights(axes: Axes) -> Any:
    """Return the transformation from data to fractions of the panel, which exists before the panel has a size."""
    return axes.transScale + axes.transLimits


def _name_ends(axes: Axes, ends: Floats, names: list[str], notes: list[str]) -> None:
    """Write each name at the right, as near to the ``(n, 2)`` end of its line as others allow; if NaN, at the top."""
    axes.set_ylim(axes.get_ylim())  # names stand at fixed heights, so the limits must stay
    ends[:, 1] = np.clip(ends[:, 1], *axes.get_ylim())  # a line may end beyond an axis that is cut
    there = np.isfinite(ends[:, 1])
    wanted = np.ones(len(names))
    wanted[there] = _heights(axes).transform(ends[there])[:, 1]
    heights = _spread(wanted, 1.45 * look.SIZE / 72 / (_PANEL_HEIGHT - 0.6))
    looks: dict[str, Any] = {"transform": axes.transAxes, "fontsize": look.SIZE, "va": "center", "parse_math": False}
    arrow = {"arrowstyle": "-", "alpha": 0.6, "linewidth": 0.8, "shrinkA": 0, "shrinkB": 4}
    free: dict[str, Any] = {"textcoords": "axes fraction", "annotation_clip": False}
    for end, height, name, note, colour in zip(
        ends.tolist(), heights.tolist(), names, notes, look.PALETTE, strict=False
    ):
        finite = math.isfinite(end[1])
        if finite:
            axes.annotate("", end, (1.022, height), arrowprops={**arrow, "color": colour}, **free)
        text = shorten(name, _NAME_LENGTH) + ("" if finite else f" {note}")
        axes.text(1.03, height, text, color=look.darker(colour), **looks)


def _name_columns(axes: Axes, x: Floats, peaks: Floats, names: list[str], notes: list[str]) -> None:
    """Write each name above the peak of its label at x, in the middle if that is -inf: labels stand side by side."""
    middle, top = _heights(axes).inverted().transform([[0.0, 0.5], [0.0, 1.08]])[:, 1]
    axes.set_ylim(top=top)
    looks: dict[str, Any] = {"textcoords": "offset points", "ha": "center", "va": "bottom", "fontsize": look.SIZE}
    for at, peak, name, note, colour in zip(x.tolist(), peaks.tolist(), names, notes, look.PALETTE, strict=False):
        finite = math.isfinite(peak)
        text = shorten(name, 72 // len(names)) + ("" if finite else f"\n{note}")
        made = axes.annotate(text, (at, peak if finite else middle), (0, 5), color=look.darker(colour), **looks)
        made.set_parse_math(False)


def _spread(wanted: Floats, gap: float) -> Floats:
    """Return heights at least `gap` apart, in the same order, near the wanted ones, as isotonic regression does."""
    order = np.argsort(wanted, kind="stable")
    runs: list[tuple[float, int]] = []  # where the middle of each run wants to be, and its length
    for y in wanted[order].tolist():
        middle, n = y, 1
        while runs and runs[-1][0] + gap * (runs[-1][1] + n) / 2 > middle:
            before, m = runs.pop()
            middle, n = (before * m + middle * n) / (m + n), m + n
        runs.append((middle, n))
    heights = np.empty_like(wanted)
    heights[order] = np.concatenate([middle + gap * (np.arange(n) - (n - 1) / 2) for middle, n in runs])
    return heights
