"""Lines: all labels in one panel for each bound, each named where its line ends; or small multiples, worst first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from labeltrack._core.arrays import Floats, Integers, Mask
from labeltrack.plot import style as look
from labeltrack.plot.axes import ValueAxis, fits, integer_steps, value_axis
from labeltrack.plot.scene import shorten

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from labeltrack.bounds import Bound
    from labeltrack.plot.scene import Scene, Track

COLOURED = len(look.PALETTE)
_STYLES: tuple[Any, ...] = ("-", (0, (3.2, 1.4)), (0, (1, 1.1)), (0, (4.5, 1.2, 1, 1.2)))
_MARKERS = tuple((shape, filled) for shape in "os^DvP<>*" for filled in (True, False))  # one per mode
MAX_MODES = len(_STYLES) * len(_MARKERS)
_LINES_MARKED, _MULTIPLES_MARKED = (12, 8), (0, 4)  # steps: all of no more than the first, else about the second
_EDGED_LABELS = 4  # the edges of more bands than this are clutter
_NAME_LENGTH = 30
_PANEL_HEIGHT = 3.3
_CROSS: dict[str, Any] = {"linestyle": "none", "marker": "x", "markersize": 5, "markeredgewidth": 1.4}


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
    banded = any(bound.wide for bound in bounds)
    others = (Line2D([], [], color=look.BEHIND), f"{rest.size} other labels{', without band' * banded}")
    _explain(figure, scene, [others] if rest.size else [], odd=odd, marks=_LINES_MARKED)
    return figure


def _panel(axes: Axes, scene: Scene, bound: Bound, axis: ValueAxis, coloured: Integers, rest: Integers) -> bool:
    """Draw all labels in one panel; return whether any mean is not finite."""
    odd = False
    ends = np.full((coloured.size, 2), np.nan)
    peaks = np.full(coloured.size, -np.inf)
    dodge = _dodge(scene, coloured.size)
    edges = len(scene.tracks) > 1 and not _has_many_modes(scene) and coloured.size <= _EDGED_LABELS
    alpha = _band_alpha(len(scene.tracks) * coloured.size)
    looks: dict[str, Any] = {"alpha": alpha, "edges": edges, "width": 1.7, "marks": _LINES_MARKED}
    for i, track in enumerate(scene.tracks):
        _, centre, high = track.bands[bound.name]
        _draw_behind(axes, track.steps, centre[rest], style=_line_style(i))
        for j, (k, colour) in enumerate(zip(coloured.tolist(), look.PALETTE, strict=False)):
            steps = track.steps + dodge[i, j]
            odd |= _draw_course(axes, scene, i, k, bound, steps=steps, colour=colour, **looks)
            finite = np.flatnonzero(np.isfinite(centre[k]))
            if finite.size:
                last = finite[-1]
                if not steps[last] < ends[j, 0]:  # the name goes to the line that reaches furthest
                    ends[j] = steps[last], centre[k, last]
                peaks[j] = np.fmax(peaks[j], high[k, last] if np.isfinite(high[k, last]) else centre[k, last])
    integer_steps(axes, scene, 10, 5.5)
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


# -- small multiples ----------------------------------------------------------------------------------------


def multiples(scene: Scene, heading: str) -> Figure:
    """Draw a small panel for each label, the highlighted or worst in colour; a block of panels for each bound."""
    n = len(scene.names)
    columns = _columns(n)
    rows = math.ceil(n / columns)
    height = (1.25 * rows + 0.6) * len(scene.bounds) + 0.8
    figure = look.new_figure(max(6.0, 1.75 * columns + 0.6), height, heading)
    blocks = figure.subfigures(len(scene.bounds), 1, squeeze=False)[:, 0]
    emphasised = scene.marked if scene.marked.size else scene.order[: max(1, round(n / 6) + 1)]
    drawn = [
        _block(block, scene, bound, emphasised, rows, columns)
        for block, bound in zip(blocks, scene.bounds, strict=True)
    ]
    odd, behind = (any(found) for found in zip(*drawn, strict=True))
    of = f" in {scene.ranked_by.mode}" if len(scene.tracks) > 1 else ""
    few = emphasised.size
    worst = "highlighted" if scene.marked.size else "the worst" if few == 1 else f"the {few} worst"
    others: list[tuple[Artist, str]]
    others = [(Line2D([], [], color=look.BEHIND), f"the other labels{of}")] if behind else []
    _explain(figure, scene, [*others, (Patch(color=look.WORST), worst)], odd=odd, marks=_MULTIPLES_MARKED)
    return figure


def _columns(n: int) -> int:
    """Return how many columns n panels take: about square, with few places left empty."""
    if n <= 3:
        return n
    around = range(3, 7) if n <= 42 else range(7, 11)
    shape = 4 / 3  # panels are wider than tall, pages are not much
    return min(around, key=lambda columns: (-n % columns) + abs(math.log(columns * columns / n / shape)) * 1.5)


def _block(block: Any, scene: Scene, bound: Bound, emphasised: Integers, rows: int, columns: int) -> tuple[bool, bool]:
    """Draw the panels of one bound; return whether any mean is not finite, and whether other labels are behind."""
    n = len(scene.names)
    common = next((axis for axis in (value_axis(scene, bound), ValueAxis()) if fits(scene, bound, axis)), None)
    # Other labels are drawn behind where they can be compared, and are lines at all.
    behind = common is not None and n > 1 and scene.ranked_by.steps.size > 1
    grid = block.subplots(rows, columns, sharex=True, sharey=common is not None, squeeze=False)
    odd = cut = False
    for place, axes in enumerate(grid.flat):
        if place >= n:
            axes.remove()
            continue
        k = int(scene.order[place])
        if behind:
            _draw_behind(axes, scene.ranked_by.steps, scene.ranked_by.bands[bound.name][1])
        odd |= _small_panel(axes, scene, bound, k, worst=k in emphasised)
        axis = value_axis(scene, bound, [k]) if common is None else common
        cut |= axis.cut is not None
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axis.apply(axes)
        if place + columns >= n:  # nothing below it
            axes.tick_params(labelbottom=True)
    if common is None:
        note, scale = f"; each panel has its own scale{', cut where few steps would flatten the others' * cut}", ""
    else:
        note, scale = common.cut_note(scene), common.scale_note
    look.subtitle(block, f"{bound.description}; {scene.ranking}{note}")
    block.supxlabel(scene.step_label, fontsize=look.SIZE, parse_math=False)
    block.supylabel(f"{scene.value_label}{scale}", fontsize=look.SIZE, parse_math=False)
    return odd, behind


def _small_panel(axes: Axes, scene: Scene, bound: Bound, k: int, *, worst: bool) -> bool:
    """Draw the panel of one label; return whether any of its means is not finite."""
    colour = look.WORST if worst else look.OTHERS
    looks: dict[str, Any] = {"alpha": _band_alpha(len(scene.tracks)), "width": 1.5, "marks": _MULTIPLES_MARKED}
    odd = False
    for i, (track, offset) in enumerate(zip(scene.tracks, _dodge(scene, 1)[:, 0], strict=True)):
        odd |= _draw_course(axes, scene, i, k, bound, steps=track.steps + offset, colour=colour, **looks)
    if not any(track.present[k].any() for track in scene.tracks):
        axes.text(0.5, 0.5, "no samples", transform=axes.transAxes, ha="center", va="center", color=look.SOFT_INK)
    integer_steps(axes, scene, 4, 1.4)
    axes.tick_params(length=2, pad=2)
    axes.grid(visible=True)
    ink, weight = (look.darker(colour), "bold") if worst else (look.INK, "normal")
    title: dict[str, Any] = {"fontsize": look.SMALL, "color": ink, "fontweight": weight, "pad": 3}
    axes.set_title(shorten(scene.names[k], 24), **title, parse_math=False)
    return odd


# -- courses ------------------------------------------------------------------------------------------------


def _draw_course(
    axes: Axes,
    scene: Scene,
    mode: int,
    k: int,
    bound: Bound,
    *,
    steps: Floats,
    colour: str,
    width: float,
    alpha: float,
    marks: tuple[int, int],
    edges: bool = False,
) -> bool:
    """Draw the line of label k in a mode with its band at ``(S,)`` steps; return whether any mean is not finite."""
    track, style = scene.tracks[mode], _line_style(mode)
    width *= _emphasis(scene, track)
    low, centre, high = track.bands[bound.name][:, k]
    with np.errstate(invalid="ignore"):  # infinite minus infinite
        inside = np.isfinite(low) & np.isfinite(high) & np.isfinite(centre) & (high != low)
    finite = np.isfinite(centre)
    if inside.any():
        drawn_low, drawn_high = (np.where(inside, edge, np.nan) for edge in (low, high))
        axes.fill_between(steps, drawn_low, drawn_high, where=inside.tolist(), color=colour, alpha=alpha, linewidth=0)
        at = _isolated(inside)  # a band of one step has no area
        if at.any():
            axes.vlines(steps[at], low[at], high[at], color=colour, alpha=min(1.0, 3 * alpha), linewidth=2.2 * width)
        for edge in (drawn_low, drawn_high) if edges else ():
            axes.plot(steps, edge, color=colour, linestyle=style, linewidth=0.7, alpha=0.45)
    axes.plot(steps, np.where(finite, centre, np.nan), color=colour, linestyle=style, linewidth=width)
    marked, every = _isolated(finite), _marker_interval(scene, track, marks)
    if every:
        marked |= finite & (np.arange(finite.size) % every == mode * 7 % every)  # modes at different steps
    if marked.any():
        axes.plot(steps[marked], centre[marked], color=colour, linestyle="none", **_marker(mode, 2.5 * width))
    odd = track.present[k] & ~finite
    if odd.any():  # at the upper edge
        looks: dict[str, Any] = {"transform": axes.get_xaxis_transform(), "clip_on": False, "zorder": 5, **_CROSS}
        axes.plot(steps[odd], np.ones(int(odd.sum())), color=colour, **looks)
    return bool(odd.any())


def _draw_behind(axes: Axes, at: Integers, centres: Floats, style: Any = "-") -> None:
    """Draw ``(K, S)`` means or medians as thin grey lines, all in one artist."""
    if centres.shape[0] == 0:
        return
    centres = np.where(np.isfinite(centres), centres, np.nan)
    courses = list(np.stack([np.broadcast_to(at.astype(np.float64), centres.shape), centres], axis=2))
    alpha = float(np.clip(40 / len(courses), 0.12, 1.0))  # hundreds of lines show where most of them are
    looks = {"colors": look.BEHIND, "alpha": alpha, "linewidths": 0.7, "linestyles": style, "zorder": 0.5}
    axes.add_collection(LineCollection(courses, **looks))
    axes.autoscale_view()


def _isolated(there: Mask) -> Mask:
    """Return where something is there, but not at either neighbour."""
    padded = np.concatenate([[False], there, [False]])
    alone: Mask = there & ~(padded[:-2] | padded[2:])
    return alone


def _band_alpha(bands: int) -> float:
    """Return how opaque each of some bands in one panel is, so that lines can be seen through all of them."""
    return float(np.clip(0.6 / bands, 0.03, 0.16))


def _dodge(scene: Scene, n: int) -> Floats:
    """Return ``(modes, n)`` offsets along the step axis: at a single step, labels and modes stand side by side."""
    shape = (len(scene.tracks), n)
    if not scene.is_single_step or shape == (1, 1):
        return np.zeros(shape)
    places = np.arange(n)[None, :] + np.linspace(-0.15, 0.15, shape[0])[:, None] * (shape[0] > 1)
    return np.asarray(0.7 * ((places + 0.5) / n - 0.5), dtype=np.float64)


# -- how modes are told apart -------------------------------------------------------------------------------


def _has_many_modes(scene: Scene) -> bool:
    """Return whether there are more modes than line styles, so that lines need markers, too."""
    return len(scene.tracks) > len(_STYLES)


def _line_style(mode: int) -> Any:
    """Return the dashes of the mode of an index; no two of `MAX_MODES` share both dashes and marker."""
    return _STYLES[(mode + mode // len(_MARKERS)) % len(_STYLES)]


def _emphasis(scene: Scene, track: Track) -> float:
    """Return the relative width of the lines of a mode: those that rank are thicker, which grey print keeps."""
    return 1.0 if track is scene.ranked_by else 0.7


def _marker(mode: int, size: float) -> dict[str, Any]:
    """Return the marker of the mode of an index, as properties of a line."""
    shape, filled = _MARKERS[mode % len(_MARKERS)]
    hollow = {} if filled else {"markerfacecolor": "white"}
    return {"marker": shape, "markersize": size, "markeredgewidth": 1.0, **hollow}


def _marker_interval(scene: Scene, track: Track, marks: tuple[int, int]) -> int:
    """Return n to mark every nth step: all of few, else about some if there are many modes, else none (0)."""
    few, some = marks
    if track.steps.size <= few:
        return 1
    return -(-track.steps.size // some) if _has_many_modes(scene) else 0


def _explain(
    figure: Figure, scene: Scene, others: Sequence[tuple[Artist, str]], *, odd: bool, marks: tuple[int, int]
) -> None:
    """Put the legend below: line style of each mode, and its marker if steps are marked; others; what crosses are."""
    marked = scene.is_single_step or any(_marker_interval(scene, track, marks) for track in scene.tracks)
    entries: list[tuple[Artist, str]] = []
    for i, track in enumerate(scene.tracks):
        looks = {"linestyle": _line_style(i), "linewidth": 1.7 * _emphasis(scene, track)}
        looks |= _marker(i, 4.0) if marked else {}
        entries.append((Line2D([], [], color=look.SOFT_INK, **looks), track.mode))
    entries += others
    if odd:
        entries.append((Line2D([], [], color=look.SOFT_INK, **_CROSS), "mean is NaN or infinite"))
    look.legend(figure, entries)
