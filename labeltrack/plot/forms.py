"""The three forms of a picture: lines, small multiples and a heatmap."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.colors import AsinhNorm, ListedColormap, LogNorm, Normalize
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from labeltrack.plot import scales
from labeltrack.plot import style as look
from labeltrack.plot.data import shorten
from labeltrack.plot.style import draw_course, draw_not_finite, line_style, styled

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from labeltrack.bounds import Bound
    from labeltrack.plot.data import Array, Floats, Integers, Scene, Track

# -- lines ------------------------------------------------------------------------------------------------

_COLOURED = len(look.PALETTE)
_MARKED_STEPS = 20  # up to so many steps each is marked by a dot
_EDGED_LABELS = 4  # the edges of more bands than this are clutter
_NAME_LENGTH = 30
_PANEL_HEIGHT = 3.3


def lines(scene: Scene, heading: str) -> Figure:
    """Draw all labels into one panel for each bound, each named where its line ends."""
    with styled():
        bounds = scene.bounds
        figure = look.new_figure(8.0, _PANEL_HEIGHT * len(bounds) + 0.9, heading)
        panels = figure.subplots(len(bounds), 1, sharex=True, squeeze=False)[:, 0]
        # Colours go by label, not by rank, so that a label keeps its colour from one picture to the next.
        coloured = np.sort(scene.order[:_COLOURED])
        rest = np.sort(scene.order[_COLOURED:])
        odd = False
        for axes, bound in zip(panels, bounds, strict=True):
            odd |= _lines_panel(axes, scene, bound, coloured, rest)
            axes.set_title(bound.description)
            axes.set_ylabel(f"{scene.value_label}{scales.NOTES[axes.get_yscale()]}", parse_math=False)
        panels[-1].set_xlabel(scene.step_label, parse_math=False)
        entries = look.mode_entries(scene, markers=any(_marked(scene, track) for track in scene.tracks))
        if rest.size:
            entries.append((Line2D([], [], color=look.BEHIND), f"{rest.size} other labels, without band"))
        if odd:
            entries.append(look.not_finite_entry())
        look.legend(figure, entries)
    return figure


def _lines_panel(axes: Axes, scene: Scene, bound: Bound, coloured: Integers, rest: Integers) -> bool:
    """Draw one panel; return whether any mean is not finite."""
    odd = False
    ends = np.full((coloured.size, 2), np.nan)
    peaks = np.full(coloured.size, -np.inf)
    absent = ~np.any([track.present.any(axis=1) for track in scene.tracks], axis=0)[coloured]
    notes = ["(no samples)" if none else "(no finite mean)" for none in absent.tolist()]
    dodge = _dodge(scene, coloured.size)
    for i, track in enumerate(scene.tracks):
        band = track.bands[bound.name]
        _draw_behind(axes, track.steps, band[1][rest], style=line_style(i))
        for j, k in enumerate(coloured.tolist()):
            steps = track.steps + dodge[i, j]
            row = (band[0][k], band[1][k], band[2][k])
            drawn = draw_course(
                axes,
                steps,
                row,
                colour=look.PALETTE[j],
                mode=i,
                width=1.7,
                alpha=0.16 if len(scene.tracks) == 1 else 0.04 if look.many_modes(scene) else 0.1,
                markers=_marked(scene, track),
                edges=len(scene.tracks) > 1 and not look.many_modes(scene) and coloured.size <= _EDGED_LABELS,
            )
            odd |= draw_not_finite(axes, steps, row[1], track.present[k], look.PALETTE[j])
            if drawn:
                last = np.flatnonzero(np.isfinite(row[1]))[-1]
                if not steps[last] < ends[j, 0]:  # the name goes to the line that reaches furthest
                    ends[j] = steps[last], row[1][last]
                peaks[j] = np.fmax(peaks[j], row[2][last] if np.isfinite(row[2][last]) else row[1][last])
    look.integer_steps(axes, scene, 10, 5.5)
    axes.grid(visible=True)
    axes.margins(y=0.06)
    scales.use(axes, scales.magnitudes_of(scene, bound))
    names = [scene.names[k] for k in coloured.tolist()]
    if look.single_step(scene):
        _name_columns(axes, int(scene.tracks[0].steps[0]) + dodge.mean(axis=0), peaks, names, notes)
    else:
        _name_ends(axes, ends, names, notes)
    return odd


def _marked(scene: Scene, track: Track) -> int:
    return look.marked_steps(scene, track, _MARKED_STEPS, 8)


def _dodge(scene: Scene, n: int) -> Floats:
    """Return ``(modes, n)`` how far each course is moved sideways: at a single step all would hide each other."""
    shape = (len(scene.tracks), n)
    if not look.single_step(scene) or shape == (1, 1):
        return np.zeros(shape)
    # Labels side by side, the modes of a label next to each other.
    places = np.arange(n)[None, :] + np.linspace(-0.15, 0.15, shape[0])[:, None] * (shape[0] > 1)
    return np.asarray(0.7 * ((places + 0.5) / n - 0.5), dtype=np.float64)


def _draw_behind(axes: Axes, at: Integers, centres: Floats, style: Any = "-") -> None:
    """Draw ``(K, S)`` means or medians as thin grey lines, all in one artist."""
    if centres.shape[0] == 0:
        return
    centres = np.where(np.isfinite(centres), centres, np.nan)
    steps = np.broadcast_to(at.astype(np.float64), centres.shape)
    behind = LineCollection(
        list(np.stack([steps, centres], axis=2)), colors=look.BEHIND, linewidths=0.7, linestyles=style, zorder=0.5
    )
    axes.add_collection(behind)
    axes.autoscale_view()


def _heights(axes: Axes) -> Any:
    """Return the transformation from data to shares of the panel, which is there before the panel has a size."""
    return axes.transScale + axes.transLimits


def _name_ends(axes: Axes, ends: Floats, names: list[str], notes: list[str]) -> None:
    """Write each name at the right of the panel, as near to the end of its line as the other names let it.

    Args:
        axes: Panel, its limits final.
        ends: ``(n, 2)`` where the lines end; NaN for a label without any finite value.
        names: n names.
        notes: What to add where there is no finite value.
    """
    axes.set_ylim(axes.get_ylim())  # the names stand at fixed heights, so the limits must stay
    there = np.isfinite(ends[:, 1])
    wanted = np.ones(len(names))
    wanted[there] = _heights(axes).transform(ends[there])[:, 1]
    gap = 1.45 * look.SIZE / 72 / (_PANEL_HEIGHT - 0.6)
    heights = _spread(wanted, gap)
    rows = zip(ends.tolist(), heights.tolist(), names, notes, look.PALETTE, strict=False)
    for (x, y), height, name, note, colour in rows:
        if math.isfinite(y):
            axes.annotate(
                "",
                (x, y),
                (1.022, height),
                textcoords="axes fraction",
                arrowprops={
                    "arrowstyle": "-",
                    "color": colour,
                    "alpha": 0.6,
                    "linewidth": 0.8,
                    "shrinkA": 0,
                    "shrinkB": 4,
                },
                annotation_clip=False,
            )
        axes.text(
            1.03,
            height,
            shorten(name, _NAME_LENGTH) + ("" if math.isfinite(y) else f" {note}"),
            transform=axes.transAxes,
            color=_darker(colour),
            fontsize=look.SIZE,
            va="center",
            parse_math=False,
        )


def _name_columns(axes: Axes, x: Floats, peaks: Floats, names: list[str], notes: list[str]) -> None:
    """Write each name above what is drawn of its label; at a single step the labels stand side by side.

    Args:
        axes: Panel.
        x: ``(n,)`` where the labels stand.
        peaks: ``(n,)`` their highest points; -inf for a label without any finite value.
        names: n names.
        notes: What to add where there is no finite value.
    """
    middle, top = _heights(axes).inverted().transform([[0.0, 0.5], [0.0, 1.08]])[:, 1]
    axes.set_ylim(top=top)
    for at, peak, name, note, colour in zip(x.tolist(), peaks.tolist(), names, notes, look.PALETTE, strict=False):
        text = axes.annotate(
            shorten(name, 72 // len(names)) + ("" if math.isfinite(peak) else f"\n{note}"),
            (at, peak if math.isfinite(peak) else middle),
            (0, 5),
            textcoords="offset points",
            ha="center",
            va="bottom",
            color=_darker(colour),
            fontsize=look.SIZE,
        )
        text.set_parse_math(False)


def _spread(wanted: Floats, gap: float) -> Floats:
    """Return heights at least `gap` apart, in the same order, as near to the wanted ones as a simple rule gets.

    Runs of names that collide are centred on where they wanted to be, as in isotonic regression.

    Example:
        >>> _spread(np.array([0.5, 0.5, 0.9]), 0.1).round(2).tolist()
        [0.45, 0.55, 0.9]
    """
    order = np.argsort(wanted, kind="stable")
    runs: list[tuple[float, int]] = []  # of each run: where its middle wants to be, and its length
    for y in wanted[order].tolist():
        middle, n = y, 1
        while runs and runs[-1][0] + gap * (runs[-1][1] + n) / 2 > middle:
            before, m = runs.pop()
            middle, n = (before * m + middle * n) / (m + n), m + n
        runs.append((middle, n))
    placed = np.concatenate([middle + gap * (np.arange(n) - (n - 1) / 2) for middle, n in runs])
    heights = np.empty_like(placed)
    heights[order] = placed
    return heights


def _darker(colour: str) -> tuple[float, ...]:
    """Return the colour dark enough to be read as text on white."""
    return tuple(int(colour[i : i + 2], 16) / 255 * 0.72 for i in (1, 3, 5))


# -- small multiples --------------------------------------------------------------------------------------


def multiples(scene: Scene, heading: str) -> Figure:
    """Draw a small panel for each label, worst first; a block of panels for each bound."""
    n = len(scene.names)
    columns = _columns(n)
    rows = math.ceil(n / columns)
    with styled():
        height = (1.25 * rows + 0.6) * len(scene.bounds) + 0.8
        figure = look.new_figure(max(6.0, 1.75 * columns + 0.6), height, heading)
        blocks = figure.subfigures(len(scene.bounds), 1, squeeze=False)[:, 0]
        odd = behind = False
        for block, bound in zip(blocks, scene.bounds, strict=True):
            block_odd, shared = _block(block, scene, bound, rows, columns)
            odd, behind = odd or block_odd, behind or shared
        entries = look.mode_entries(scene, markers=look.single_step(scene) or look.many_modes(scene))
        if behind:
            last = scene.tracks[-1].mode
            of = f" in {last}" if len(scene.tracks) > 1 else ""
            entries.append((Line2D([], [], color=look.BEHIND), f"the other labels{of}"))
        entries.append((Patch(color=look.WORST), "the worst" if _emphasised(n) == 1 else f"the {_emphasised(n)} worst"))
        if odd:
            entries.append(look.not_finite_entry())
        look.legend(figure, entries)
    return figure


def _columns(n: int) -> int:
    """Return into how many columns n panels go: about square, with few places left empty.

    Example:
        >>> [_columns(n) for n in (1, 7, 9, 10, 12, 30, 39)]
        [1, 4, 3, 5, 4, 6, 5]
    """
    if n <= 3:
        return n
    around = range(3, 7) if n <= 42 else range(7, 11)
    shape = 4 / 3  # panels are wider than tall, pages are not much
    return min(around, key=lambda columns: (-n % columns) + abs(math.log(columns * columns / n / shape)) * 1.5)


def _emphasised(n: int) -> int:
    return min(n, max(1, round(n / 6) + 1))


def _block(block: Any, scene: Scene, bound: Bound, rows: int, columns: int) -> tuple[bool, bool]:
    """Draw the panels of one bound; return whether any mean is not finite, and whether the others are behind."""
    n = len(scene.names)
    magnitudes = scales.magnitudes_of(scene, bound)
    if magnitudes is not None and not scales.fits_one_axis(scene, bound, logarithmic=True):
        magnitudes = None
    shared = magnitudes is not None or scales.fits_one_axis(scene, bound)
    grid = block.subplots(rows, columns, sharex=True, sharey=shared, squeeze=False)
    odd = False
    for place, axes in enumerate(grid.flat):
        if place >= n:
            axes.remove()
            continue
        k = int(scene.order[place])
        odd |= _small_panel(axes, scene, bound, k, worst=place < _emphasised(n), shared=shared)
        if magnitudes is None:
            axes.yaxis.set_major_locator(MaxNLocator(4))
        scales.use(axes, magnitudes)
        if place + columns >= n:  # nothing below it
            axes.tick_params(labelbottom=True)
    scale = "" if shared else "; each panel has its own scale"
    look.subtitle(block, f"{bound.description}; {scene.ranking}{scale}")
    block.supxlabel(scene.step_label, fontsize=look.SIZE, parse_math=False)
    block.supylabel(f"{scene.value_label}{scales.NOTES[grid[0, 0].get_yscale()]}", fontsize=look.SIZE, parse_math=False)
    return odd, _courses_behind(scene, shared=shared)


def _courses_behind(scene: Scene, *, shared: bool) -> bool:
    """Return whether the other labels are drawn behind each: where they can be compared, and are lines at all."""
    return shared and len(scene.names) > 1 and scene.tracks[-1].steps.size > 1


def _small_panel(axes: Axes, scene: Scene, bound: Bound, k: int, *, worst: bool, shared: bool) -> bool:
    """Draw the panel of label `k`; return whether any of its means is not finite."""
    colour = look.WORST if worst else look.OTHERS
    odd = False
    if _courses_behind(scene, shared=shared):
        _draw_behind(axes, scene.tracks[-1].steps, scene.tracks[-1].bands[bound.name][1])
    dodge = _dodge(scene, 1)
    for i, track in enumerate(scene.tracks):
        steps = track.steps + dodge[i, 0]
        low, centre, high = (edge[k] for edge in track.bands[bound.name])
        draw_course(
            axes,
            steps,
            (low, centre, high),
            colour=colour,
            mode=i,
            width=1.3,
            alpha=0.2 if len(scene.tracks) == 1 else 0.05 if look.many_modes(scene) else 0.15,
            markers=look.marked_steps(scene, track, 0, 4),
        )
        odd |= draw_not_finite(axes, steps, centre, track.present[k], colour)
    if not any(track.present[k].any() for track in scene.tracks):
        axes.text(0.5, 0.5, "no samples", transform=axes.transAxes, ha="center", va="center", color=look.SOFT_INK)
    look.integer_steps(axes, scene, 4, 1.4)
    axes.tick_params(length=2, pad=2)
    axes.grid(visible=True)
    axes.set_title(
        shorten(scene.names[k], 24),
        fontsize=look.SMALL,
        color=_darker(colour) if worst else look.INK,
        fontweight="bold" if worst else "normal",
        pad=3,
        parse_math=False,
    )
    return odd


# -- heatmap ----------------------------------------------------------------------------------------------

_ALL_NAMED = 110  # up to so many rows each is tall enough for a name
_ENLARGED = 25
_ROW = 0.098  # inches, for names of 6.5 points
_SKEWED_FROM = 3.0  # ratio of the whole range to that between the 2nd and the 98th percentile


@dataclass(frozen=True)
class _Quantity:
    """What one group of heatmaps shows: `matrices` one for each mode."""

    title: str
    bar_label: str
    matrices: list[Floats]
    cmap: str


def heatmap(scene: Scene, heading: str) -> Figure:
    """Draw labels × steps as colour: the mean, and half the width of the band of each bound; a panel for each mode."""
    n = len(scene.names)
    quantities = _quantities(scene)
    tracks = scene.tracks
    with styled():
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
        gaps = odd = False
        for q, quantity in enumerate(quantities):
            group = grid[:, q * len(tracks) : (q + 1) * len(tracks)]
            found = _group(block, group, rows, scene, quantity)
            gaps, odd = gaps or found[0], odd or found[1]
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
    order = scene.order
    # Worst is the bright end either way.
    cmap = "viridis" if scene.higher_is_worse else "viridis_r"
    found = [_Quantity("mean", f"mean {scene.value_label}", [track.mean[order] for track in scene.tracks], cmap)]
    around = next((bound for bound in scene.bounds if bound.quantiles), None)
    if around is not None:
        medians = [track.bands[around.name][1][order] for track in scene.tracks]
        found.append(_Quantity("median", f"median {scene.value_label}", medians, cmap))
    for bound in scene.bounds:
        if not bound.wide:
            continue
        halves = []
        for track in scene.tracks:
            low, _, high = track.bands[bound.name]
            with np.errstate(invalid="ignore", over="ignore"):  # infinite minus infinite: shown as not finite
                halves.append((high[order] - low[order]) / 2)
        found.append(
            _Quantity(
                f"{bound.text.replace('_', ' ')}, half the band",
                f"half the width of the band\n({bound.description})",
                halves,
                "cividis",
            )
        )
    return found


def _group(block: Any, group: Array, rows: list[slice], scene: Scene, quantity: _Quantity) -> tuple[bool, bool]:
    """Draw one quantity, a column of panels a mode, and its colour bar; return whether there are gaps and NaN."""
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


def _draw_cells(axes: Axes, matrix: Floats, present: Array, norm: Normalize, cmap: str) -> Any:
    """Draw one heatmap: hatched where there are no samples, in a colour of its own where the value is not finite."""
    axes.patch.set(facecolor="white", edgecolor="#BBBBBB", hatch="//////", linewidth=0)
    finite = np.isfinite(matrix)
    if isinstance(norm, LogNorm):  # it would leave out what has no logarithm
        matrix = np.maximum(matrix, norm.vmin or 0.0)
    image = axes.imshow(np.ma.masked_array(matrix, ~finite), norm=norm, cmap=cmap, aspect="auto")
    odd = present & ~finite
    if odd.any():
        marks = np.ma.masked_array(np.ones(matrix.shape), ~odd)
        axes.imshow(marks, cmap=ListedColormap([look.NOT_FINITE]), aspect="auto", interpolation="nearest")
    for spine in axes.spines.values():
        spine.set_visible(False)
    return image


def _scale(values: Floats) -> tuple[Normalize, Any, str]:
    """Return the colour scale of some values, which ends of the bar are open, and what its label must add."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return Normalize(0.0, 1.0), "neither", ""
    low, high = float(finite.min()), float(finite.max())
    if low == high:
        pad = abs(low) * 0.01 or 1.0
        return Normalize(low - pad, high + pad), "neither", ""
    near, middle, far = (float(x) for x in np.percentile(finite, [2, 50, 98]))
    span = far - near
    # Worst labels are the outliers that one wants to see, so a scale that holds them all is better than clipping.
    wide = near > 0 and far / near >= scales.LOG_FROM and middle - near < span / 4
    skewed = high - low >= _SKEWED_FROM * span
    if wide or (skewed and low > 0 and high / low >= scales.LOG_FROM):
        bottom = max(low, near / 2) if near > 0 else low
        note = "\nlog scale" + (", what is below its end as one colour" if low < bottom else "")
        return LogNorm(bottom, high), "min" if low < bottom else "neither", note
    if not skewed:
        return Normalize(low, high), "neither", ""
    if max(abs(near), abs(far)) <= 2 * span:  # about zero
        return (
            AsinhNorm(max(abs(near), abs(far)) / 2, low, high),
            "neither",
            "\nlinear about 0, logarithmic further out",
        )
    pad = 0.5 * span or 0.05 * abs(near)
    bottom, top = max(low, near - pad), min(high, far + pad)
    extend = "both" if low < bottom and top < high else "min" if low < bottom else "max"
    return Normalize(bottom, top), extend, "\noutliers beyond the ends as one colour"


def _step_ticks(axes: Axes, steps: Integers, width: float, *, labelled: bool) -> None:
    """Write some of the steps below the columns; columns are drawn equally wide even where steps are not."""
    most = max(1, min(8, int(width / (0.08 * (max(len(str(step)) for step in steps.tolist()) + 1)))))
    places = np.arange(0, steps.size, -(-steps.size // most))
    evenly = np.unique(np.diff(steps)).size <= 1
    for every in (digit * 10**power for power in range(19) for digit in (1, 2, 5)):
        # Round steps are easier to read than the first, the sixth, the eleventh …
        round_ones = np.flatnonzero(steps % every == 0)
        if round_ones.size <= most:
            places = round_ones if evenly and round_ones.size > 1 else places
            break
    axes.set_xticks(places, [str(step) for step in steps[places].tolist()] if labelled else [])
    axes.tick_params(length=2, pad=2)


def _name_rows(first: Array, rows: list[slice], names: list[str]) -> None:
    """Name the rows of the left panels, and take the ticks off the others."""
    figure = first[0].figure
    for axes in figure.axes:
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
