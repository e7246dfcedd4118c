"""Small multiples: a panel for each label, worst first."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from labeltrack.plot import style as look
from labeltrack.plot.axes import ValueAxis, fits, value_axis
from labeltrack.plot.data import shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from labeltrack.bounds import Bound
    from labeltrack.plot.data import Scene


def multiples(scene: Scene, heading: str) -> Figure:
    """Draw a small panel for each label, the worst in colour; a block of panels for each bound."""
    n = len(scene.names)
    columns = _columns(n)
    rows = math.ceil(n / columns)
    height = (1.25 * rows + 0.6) * len(scene.bounds) + 0.8
    figure = look.new_figure(max(6.0, 1.75 * columns + 0.6), height, heading)
    blocks = figure.subfigures(len(scene.bounds), 1, squeeze=False)[:, 0]
    drawn = [_block(block, scene, bound, rows, columns) for block, bound in zip(blocks, scene.bounds, strict=True)]
    odd, behind = (any(found) for found in zip(*drawn, strict=True))
    entries = look.mode_entries(scene, markers=scene.is_single_step or look.has_many_modes(scene))
    if behind:
        of = f" in {scene.ranked_by.mode}" if len(scene.tracks) > 1 else ""
        entries.append((Line2D([], [], color=look.BEHIND), f"the other labels{of}"))
    few = len(_emphasised(scene))
    worst = "highlighted" if scene.marked.size else "the worst" if few == 1 else f"the {few} worst"
    entries.append((Patch(color=look.WORST), worst))
    if odd:
        entries.append(look.not_finite_entry())
    look.legend(figure, entries)
    return figure


def _columns(n: int) -> int:
    """Return how many columns n panels take: about square, with few places left empty."""
    if n <= 3:
        return n
    around = range(3, 7) if n <= 42 else range(7, 11)
    shape = 4 / 3  # panels are wider than tall, pages are not much
    return min(around, key=lambda columns: (-n % columns) + abs(math.log(columns * columns / n / shape)) * 1.5)


def _emphasised(scene: Scene) -> set[int]:
    """Return the labels to draw in colour: those to highlight, or else the worst few."""
    few = max(1, round(len(scene.names) / 6) + 1)
    return set((scene.marked if scene.marked.size else scene.order[:few]).tolist())


def _block(block: Any, scene: Scene, bound: Bound, rows: int, columns: int) -> tuple[bool, bool]:
    """Draw the panels of one bound; return whether any mean is not finite, and whether other labels are behind."""
    n = len(scene.names)
    common = next((axis for axis in (value_axis(scene, bound), ValueAxis()) if fits(scene, bound, axis)), None)
    # Other labels are drawn behind where they can be compared, and are lines at all.
    behind = common is not None and n > 1 and scene.ranked_by.steps.size > 1
    grid = block.subplots(rows, columns, sharex=True, sharey=common is not None, squeeze=False)
    emphasised = _emphasised(scene)
    odd = cut = False
    for place, axes in enumerate(grid.flat):
        if place >= n:
            axes.remove()
            continue
        k = int(scene.order[place])
        if behind:
            look.draw_behind(axes, scene.ranked_by.steps, scene.ranked_by.bands[bound.name][1])
        odd |= _panel(axes, scene, bound, k, worst=k in emphasised)
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


def _panel(axes: Axes, scene: Scene, bound: Bound, k: int, *, worst: bool) -> bool:
    """Draw the panel of label `k`; return whether any of its means is not finite."""
    colour = look.WORST if worst else look.OTHERS
    odd = False
    alpha = look.band_alpha(len(scene.tracks))
    for mode, (track, offset) in enumerate(zip(scene.tracks, look.dodge(scene, 1)[:, 0], strict=True)):
        steps, band = track.steps + offset, track.bands[bound.name][:, k]
        width, every = 1.5 * look.emphasis(scene, track), look.marker_interval(scene, track, 0, 4)
        look.draw_course(axes, steps, band, colour=colour, mode=mode, width=width, alpha=alpha, every=every)
        odd |= look.draw_not_finite(axes, steps, band[1], track.present[k], colour)
    if not any(track.present[k].any() for track in scene.tracks):
        axes.text(0.5, 0.5, "no samples", transform=axes.transAxes, ha="center", va="center", color=look.SOFT_INK)
    look.integer_steps(axes, scene, 4, 1.4)
    axes.tick_params(length=2, pad=2)
    axes.grid(visible=True)
    ink, weight = (look.darker(colour), "bold") if worst else (look.INK, "normal")
    looks: dict[str, Any] = {"fontsize": look.SMALL, "color": ink, "fontweight": weight, "pad": 3}
    axes.set_title(shorten(scene.names[k], 24), **looks, parse_math=False)
    return odd
