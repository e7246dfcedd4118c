"""The look of the figures: settings that ignore the caller's, colours, axes, and the pieces that several forms draw."""

from __future__ import annotations

import io
import os
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from labeltrack._core.arrays import Floats, Integers, Mask
from labeltrack._tables import whole_file
from labeltrack.plot.data import shorten

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.backend_bases import RendererBase

    from labeltrack.plot.data import Scene, Track

# Okabe and Ito's colours, distinct under every kind of colour blindness, without the yellow (pale on white).
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
WORST, OTHERS, BEHIND = "#D55E00", "#4D6A80", "#D3D3D3"
INK, SOFT_INK, NOT_FINITE = "#222222", "#555555", "#D55E00"
STYLES: tuple[Any, ...] = ("-", (0, (3.2, 1.4)), (0, (1, 1.1)), (0, (4.5, 1.2, 1, 1.2)))
_MARKERS = tuple((shape, filled) for shape in "os^DvP<>*" for filled in (True, False))  # one per mode
MAX_MODES = len(STYLES) * len(_MARKERS)
TITLE_SIZE, SIZE, SMALL = 12.0, 9.0, 8.0
EXTREME = 1e290  # matplotlib's logarithmic scales do not reach the ends of the range of doubles
LOG_FROM = 20.0  # a log scale of a smaller ratio changes little
_MARGIN = 0.1  # inches at the right, where colours and texts would end at the edge of the picture
_CHARACTER = 0.078  # average width in inches at the normal size
_CROSS: dict[str, Any] = {"linestyle": "none", "marker": "x", "markersize": 5, "markeredgewidth": 1.4}

# All that decides the look, except "font.": the family may be what the user's names need.
_LOOKS = {
    *("axes", "figure", "grid", "hatch", "image", "legend", "lines", "mathtext", "patch", "path", "text"),
    *("xaxis", "xtick", "yaxis", "ytick"),
}
_STYLE: dict[str, Any] = {
    **{key: value for key, value in mpl.rcParamsDefault.items() if key.split(".")[0] in _LOOKS},
    "font.size": SIZE,
    "font.weight": "normal",
    "axes.axisbelow": True,
    "axes.edgecolor": SOFT_INK,
    "axes.labelcolor": INK,
    "axes.labelsize": SIZE,
    "axes.linewidth": 0.7,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": SOFT_INK,
    "axes.titlelocation": "left",
    "axes.titlesize": SIZE,
    "figure.dpi": 100,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.6,
    "hatch.linewidth": 0.5,
    "legend.fontsize": SMALL,
    "legend.frameon": False,
    "legend.handlelength": 2.6,
    "text.color": INK,
    "text.hinting": "none",  # makes letters equally wide at every resolution, so the layout is the same
    "xtick.color": SOFT_INK,
    "xtick.labelsize": SMALL,
    "ytick.color": SOFT_INK,
    "ytick.labelsize": SMALL,
}


def styled() -> Any:
    """Return a context with the matplotlib settings of these figures."""
    settings: Any = _STYLE
    return mpl.rc_context(settings)


class StyledFigure(Figure):
    """A figure that looks the same under any matplotlib settings of the caller."""

    def draw(self, renderer: RendererBase) -> None:
        """Draw in the style: ticks are made only now, and read the settings then."""
        with styled():
            super().draw(renderer)

    def savefig(self, fname: Any, *, transparent: bool | None = None, **kwargs: Any) -> None:
        """Save as PNG, SVG or PDF; an existing file is replaced once the new one is complete."""
        if not transparent:  # the caller's savefig.facecolor may be dark
            kwargs.setdefault("facecolor", self.get_facecolor())
        if not isinstance(fname, (str, os.PathLike)):
            super().savefig(fname, transparent=transparent, **kwargs)
            return
        path = Path(fname)
        ending = kwargs.pop("format", None) or path.suffix[1:]
        if not ending:  # as matplotlib does
            ending = mpl.rcParams["savefig.format"]
            path = path.with_name(f"{path.name.rstrip('.')}.{ending}")
        drawn = io.BytesIO()
        super().savefig(drawn, format=ending, transparent=transparent, **kwargs)
        with whole_file(path) as half:
            half.write_bytes(drawn.getvalue())  # a view that an error keeps alive crashes in Python 3.12.1


def new_figure(width: float, height: float, heading: str) -> StyledFigure:
    """Return an empty figure of a size in inches with its title at the left."""
    layout = ConstrainedLayoutEngine(rect=(0, 0, 1 - _MARGIN / width, 1))
    figure = StyledFigure(figsize=(width, height), layout=layout)
    text = "\n".join(shorten(line, max(20, int(width * 9.5))) for line in heading.split("\n"))
    figure.suptitle(text, x=0.012, ha="left", fontsize=TITLE_SIZE, fontweight="bold", parse_math=False)
    return figure


# -- axes and words -----------------------------------------------------------------------------------------


def integer_steps(axes: Axes, scene: Scene, bins: int, width: float) -> None:
    """Let the step axis, `width` inches wide, span the steps of every mode, with ticks at whole steps only."""
    first = min(int(track.steps[0]) for track in scene.tracks)
    last = max(int(track.steps[-1]) for track in scene.tracks)
    margin = 0.5 if first == last else 0.02 * (last - first)
    axes.set_xlim(first - margin, last + margin)
    digits = max(len(_step_text(first)), len(_step_text(last)))
    bins = max(1, min(bins, int(width / (0.075 * (digits + 2)))))
    axes.xaxis.set_major_locator(MaxNLocator(bins, integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(lambda step, _: _step_text(step))


def _step_text(step: float) -> str:
    return f"{step:.0f}" if abs(step) < 1e10 else f"{step:.6g}"


def subtitle(block: Any, text: str) -> None:
    """Write a smaller line above a block of panels, wrapped at the width of the figure."""
    width = block.figure.get_figwidth()
    lines = textwrap.wrap(shorten(text, 400), max(20, int(width / _CHARACTER)))
    block.suptitle("\n".join(lines), x=0.012, ha="left", fontsize=SIZE, color=SOFT_INK, parse_math=False)


def darker(colour: str) -> tuple[float, ...]:
    """Return the colour dark enough for text on white."""
    return tuple(int(colour[i : i + 2], 16) / 255 * 0.72 for i in (1, 3, 5))


def legend(figure: Figure, entries: Sequence[tuple[Artist, str]]) -> None:
    """Put a legend below everything else of the figure."""
    words = [shorten(text, 40) for _, text in entries]
    width = figure.get_figwidth()
    needed = [0.6 + _CHARACTER * len(text) for text in words]
    # The texts are set afterwards: matplotlib leaves out those that begin with "_" and reads "$" as a formula.
    made = figure.legend(
        [handle for handle, _ in entries],
        ["x"] * len(entries),
        loc="outside lower left",
        ncols=len(entries) if sum(needed) <= width else max(1, int(width / max(needed))),
        columnspacing=2.0,
        borderaxespad=0.3,
    )
    for text, word in zip(made.get_texts(), words, strict=True):
        text.set_parse_math(False)
        text.set_text(word)


def mode_entries(scene: Scene, *, markers: bool) -> list[tuple[Artist, str]]:
    """Return a legend entry for each mode: its line style, and its marker if steps are marked."""
    found: list[tuple[Artist, str]] = []
    for i, track in enumerate(scene.tracks):
        looks = marker(i, 4.0) if markers else {}
        width = 1.7 * emphasis(scene, track)
        found.append((Line2D([], [], color=SOFT_INK, linestyle=line_style(i), linewidth=width, **looks), track.mode))
    return found


def not_finite_entry() -> tuple[Artist, str]:
    """Return the legend entry of `draw_not_finite`."""
    return Line2D([], [], color=SOFT_INK, **_CROSS), "mean is NaN or infinite"


# -- how modes are told apart -------------------------------------------------------------------------------


def has_many_modes(scene: Scene) -> bool:
    """Return whether there are more modes than line styles, so that lines need markers, too."""
    return len(scene.tracks) > len(STYLES)


def line_style(mode: int) -> Any:
    """Return the dashes of the mode of an index; no two of `MAX_MODES` share both dashes and marker."""
    return STYLES[(mode + mode // len(_MARKERS)) % len(STYLES)]


def emphasis(scene: Scene, track: Track) -> float:
    """Return the relative width of the lines of a mode: those that rank are thicker, which grey print keeps."""
    return 1.0 if track is scene.ranked_by else 0.7


def band_alpha(bands: int) -> float:
    """Return how opaque each of some bands in one panel is, so that lines can be seen through all of them."""
    return float(np.clip(0.6 / bands, 0.03, 0.16))


def marker(mode: int, size: float) -> dict[str, Any]:
    """Return the marker of the mode of an index, as properties of a line."""
    shape, filled = _MARKERS[mode % len(_MARKERS)]
    hollow = {} if filled else {"markerfacecolor": "white"}
    return {"marker": shape, "markersize": size, "markeredgewidth": 1.0, **hollow}


def marker_interval(scene: Scene, track: Track, few: int, some: int) -> int:
    """Return n to mark every nth step: all of up to `few`, else about `some` if there are many modes, else none (0)."""
    if track.steps.size <= few:
        return 1
    return -(-track.steps.size // some) if has_many_modes(scene) else 0


def dodge(scene: Scene, n: int) -> Floats:
    """Return ``(modes, n)`` offsets along the step axis: at a single step, labels and modes stand side by side."""
    shape = (len(scene.tracks), n)
    if not scene.is_single_step or shape == (1, 1):
        return np.zeros(shape)
    places = np.arange(n)[None, :] + np.linspace(-0.15, 0.15, shape[0])[:, None] * (shape[0] > 1)
    return np.asarray(0.7 * ((places + 0.5) / n - 0.5), dtype=np.float64)


# -- courses ------------------------------------------------------------------------------------------------


def draw_course(
    axes: Axes,
    steps: Floats,
    band: Floats,
    *,
    colour: str,
    mode: int,
    width: float,
    alpha: float,
    every: int,
    edges: bool = False,
) -> bool:
    """Draw one line at ``(S,)`` steps with its ``(3, S)`` band; return whether it has any finite value.

    The index of the mode decides line style and marker. Every nth step is marked, and those without neighbours.
    """
    low, centre, high = band
    style = line_style(mode)
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
    marked = _isolated(finite)
    if every:
        marked |= finite & (np.arange(finite.size) % every == mode * 7 % every)  # modes at different steps
    if marked.any():
        axes.plot(steps[marked], centre[marked], color=colour, linestyle="none", **marker(mode, 2.5 * width))
    return bool(finite.any())


def draw_behind(axes: Axes, at: Integers, centres: Floats, style: Any = "-") -> None:
    """Draw ``(K, S)`` means or medians as thin grey lines, all in one artist."""
    if centres.shape[0] == 0:
        return
    centres = np.where(np.isfinite(centres), centres, np.nan)
    lines = list(np.stack([np.broadcast_to(at.astype(np.float64), centres.shape), centres], axis=2))
    alpha = float(np.clip(40 / len(lines), 0.12, 1.0))  # hundreds of lines show where most of them are
    looks = {"colors": BEHIND, "alpha": alpha, "linewidths": 0.7, "linestyles": style, "zorder": 0.5}
    axes.add_collection(LineCollection(lines, **looks))
    axes.autoscale_view()


def draw_not_finite(axes: Axes, steps: Floats, centre: Floats, present: Mask, colour: str) -> bool:
    """Mark at the upper edge the steps with samples but without a finite mean; return whether there are any."""
    at = present & ~np.isfinite(centre)
    if at.any():
        looks: dict[str, Any] = {"transform": axes.get_xaxis_transform(), "clip_on": False, "zorder": 5, **_CROSS}
        axes.plot(steps[at], np.ones(int(at.sum())), color=colour, **looks)
    return bool(at.any())


def _isolated(there: Mask) -> Mask:
    """Return where something is there, but not at either neighbour."""
    padded = np.concatenate([[False], there, [False]])
    alone: Mask = there & ~(padded[:-2] | padded[2:])
    return alone
