"""The look of the pictures: a figure that ignores the caller's settings, colours, and pieces that every form uses."""

from __future__ import annotations

import io
import os
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from labeltrack._tables.files import whole_file
from labeltrack.plot.data import shorten

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.backend_bases import RendererBase

    from labeltrack.plot.data import Floats, Scene, Track

# Okabe and Ito's colours, told apart under every kind of colour blindness, without the yellow (pale on white).
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
WORST, OTHERS, BEHIND = "#D55E00", "#4D6A80", "#D3D3D3"
INK, SOFT_INK, NOT_FINITE = "#222222", "#555555", "#D55E00"
STYLES: tuple[Any, ...] = ("-", (0, (3.2, 1.4)), (0, (1, 1.1)), (0, (4.5, 1.2, 1, 1.2)))
_FEW_MODES = len(STYLES)  # with more of them lines have markers, too
_MARKERS = tuple((shape, filled) for shape in "os^DvP<>*" for filled in (True, False))  # of each mode
MOST_MODES = len(STYLES) * len(_MARKERS)
TITLE_SIZE, SIZE, SMALL = 12.0, 9.0, 8.0
_CHARACTER = 0.078  # inches, of the normal size, on average

# Whatever decides the look. "font." is left out: the family may be what the user's names need.
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
    "text.hinting": "none",  # letters are as wide as they are at any resolution, so the layout is the same at each
    "xtick.color": SOFT_INK,
    "xtick.labelsize": SMALL,
    "ytick.color": SOFT_INK,
    "ytick.labelsize": SMALL,
}


def styled() -> Any:
    """Return a context in which matplotlib's settings are those of these pictures."""
    settings: Any = _STYLE
    return mpl.rc_context(settings)


class Picture(Figure):
    """A figure that looks the same whatever the caller's matplotlib settings are.

    Ticks, and with them some settings, are made only when a figure is drawn; hence the style is needed there too.
    """

    def draw(self, renderer: RendererBase) -> None:
        """Draw in the style."""
        with styled():
            super().draw(renderer)

    def savefig(self, fname: Any, *, transparent: bool | None = None, **kwargs: Any) -> None:
        """Save as PNG, SVG or PDF; a file that is there is replaced when all is written, and stays if that fails.

        Raises:
            OSError: The file cannot be written.
        """
        if not transparent:  # a dark savefig.facecolor of the caller would hide the writing
            kwargs.setdefault("facecolor", self.get_facecolor())
        if not isinstance(fname, (str, os.PathLike)):
            super().savefig(fname, transparent=transparent, **kwargs)
            return
        path = Path(fname)
        ending = kwargs.pop("format", None) or path.suffix[1:]
        if not ending:  # as matplotlib does
            ending = mpl.rcParams["savefig.format"]
            path = path.with_name(f"{path.name.rstrip('.')}.{ending}")
        if ending.lower() == "pgf":  # puts images beside the file, by its name
            super().savefig(path, format=ending, transparent=transparent, **kwargs)
            return
        drawn = io.BytesIO()
        super().savefig(drawn, format=ending, transparent=transparent, **kwargs)
        with whole_file(path) as half:
            half.write_bytes(drawn.getbuffer())


def new_figure(width: float, height: float, heading: str) -> Picture:
    """Return an empty figure of a size in inches with its title at the left."""
    figure = Picture(figsize=(width, height), layout="constrained")
    lines = heading.split("\n")
    text = "\n".join(shorten(line, max(20, int(width * 9.5))) for line in lines)
    figure.suptitle(text, x=0.012, ha="left", fontsize=TITLE_SIZE, fontweight="bold", parse_math=False)
    return figure


def integer_steps(axes: Axes, scene: Scene, bins: int, room: float) -> None:
    """Let the step axis, so many inches wide, show whole steps only, and all the steps of every mode."""
    first = min(int(track.steps[0]) for track in scene.tracks)
    last = max(int(track.steps[-1]) for track in scene.tracks)
    margin = 0.5 if first == last else 0.02 * (last - first)
    axes.set_xlim(first - margin, last + margin)
    digits = max(len(_step(first)), len(_step(last)))
    bins = max(1, min(bins, int(room / (0.075 * (digits + 2)))))
    axes.xaxis.set_major_locator(MaxNLocator(bins, integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(lambda step, _: _step(step))


def _step(step: float) -> str:
    """Return a step as it is written below an axis."""
    return f"{step:.0f}" if abs(step) < 1e10 else f"{step:.6g}"


def single_step(scene: Scene) -> bool:
    """Return whether all the modes together have one step only."""
    return len({step for track in scene.tracks for step in track.steps.tolist()}) == 1


def draw_course(
    axes: Axes,
    steps: Floats,
    band: tuple[Floats, Floats, Floats],
    *,
    colour: str,
    mode: int,
    width: float,
    alpha: float,
    markers: int,
    edges: bool = False,
) -> bool:
    """Draw one line with its band; `steps` and the three of `band` are ``(S,)``, NaN where there is nothing.

    Args:
        axes: Panel.
        steps: Where.
        band: ``(low, centre, high)``.
        colour: Of everything.
        mode: Place of the mode, which decides line style and marker.
        width: Of the line, in points.
        alpha: Of the band.
        markers: Every which step is marked, 0 for none; steps without neighbours always are.
        edges: Whether the edges of the band are drawn in the style of the mode.

    Returns:
        Whether there is any finite value.
    """
    low, centre, high = band
    style = line_style(mode)
    with np.errstate(invalid="ignore"):  # infinite minus infinite
        inside = np.isfinite(low) & np.isfinite(high) & np.isfinite(centre) & (high != low)
    finite = np.isfinite(centre)
    alone = _alone(finite)
    if inside.any():
        axes.fill_between(
            steps,
            np.where(inside, low, np.nan),
            np.where(inside, high, np.nan),
            where=inside.tolist(),
            color=colour,
            alpha=alpha,
            linewidth=0,
        )
        # A band of one step has no area.
        at = inside & _alone(inside)
        if at.any():
            axes.vlines(steps[at], low[at], high[at], color=colour, alpha=min(1.0, 3 * alpha), linewidth=2.2 * width)
        if edges:
            for edge in (low, high):
                axes.plot(
                    steps, np.where(inside, edge, np.nan), color=colour, linestyle=style, linewidth=0.7, alpha=0.45
                )
    axes.plot(steps, np.where(finite, centre, np.nan), color=colour, linestyle=style, linewidth=width)
    marked = finite & alone
    if markers:
        marked |= finite & (np.arange(finite.size) % markers == mode * 7 % markers)  # not all modes at the same steps
    if marked.any():
        axes.plot(steps[marked], centre[marked], color=colour, linestyle="none", **marker(mode, 2.5 * width))
    return bool(finite.any())


def line_style(mode: int) -> Any:
    """Return how the line of a mode is broken; together with its marker there are no two alike."""
    return STYLES[(mode + mode // len(_MARKERS)) % len(STYLES)]


def marked_steps(scene: Scene, track: Track, few: int, some: int) -> int:
    """Return every which step is marked: each of up to a few, some if modes are not told apart by lines alone."""
    if track.steps.size <= few:
        return 1
    return -(-track.steps.size // some) if many_modes(scene) else 0


def many_modes(scene: Scene) -> bool:
    """Return whether there are more modes than styles of lines."""
    return len(scene.tracks) > _FEW_MODES


def marker(mode: int, size: float) -> dict[str, Any]:
    """Return how the steps of a mode are marked, as properties of a line."""
    shape, filled = _MARKERS[mode % len(_MARKERS)]
    return {"marker": shape, "markersize": size, "markeredgewidth": 1.0} | (
        {} if filled else {"markerfacecolor": "white"}
    )


def draw_not_finite(axes: Axes, steps: Floats, centre: Floats, present: Any, colour: str) -> bool:
    """Mark at the upper edge the steps with samples but without a finite mean; return whether there are any."""
    at = np.asarray(present) & ~np.isfinite(centre)
    if at.any():
        top = np.ones(int(at.sum()))
        axes.plot(
            steps[at],
            top,
            transform=axes.get_xaxis_transform(),
            color=colour,
            linestyle="none",
            marker="x",
            markersize=5,
            markeredgewidth=1.4,
            clip_on=False,
            zorder=5,
        )
    return bool(at.any())


def _alone(there: Any) -> Any:
    """Return where neither neighbour is there."""
    before = np.concatenate([[False], there[:-1]])
    after = np.concatenate([there[1:], [False]])
    return ~before & ~after


def subtitle(block: Any, text: str) -> None:
    """Write a smaller line above a block of panels, broken where the figure ends."""
    width = block.figure.get_figwidth()
    lines = textwrap.wrap(shorten(text, 400), max(20, int(width / _CHARACTER)))
    block.suptitle("\n".join(lines), x=0.012, ha="left", fontsize=SIZE, color=SOFT_INK, parse_math=False)


def legend(figure: Figure, entries: Sequence[tuple[Artist, str]]) -> None:
    """Put a legend below everything else of the figure; its words are taken literally."""
    words = [shorten(text, 40) for _, text in entries]
    room = figure.get_figwidth()
    needed = [0.6 + _CHARACTER * len(text) for text in words]
    # Names that begin with an underscore would be left out, and dollar signs would start a formula.
    made = figure.legend(
        [handle for handle, _ in entries],
        ["x"] * len(entries),
        loc="outside lower left",
        ncols=len(entries) if sum(needed) <= room else max(1, int(room / max(needed))),
        columnspacing=2.0,
        borderaxespad=0.3,
    )
    for text, word in zip(made.get_texts(), words, strict=True):
        text.set_parse_math(False)
        text.set_text(word)


def mode_entries(scene: Scene, *, markers: bool) -> list[tuple[Artist, str]]:
    """Return a legend entry for the line style of each mode, with its marker if steps are marked."""
    found: list[tuple[Artist, str]] = []
    for i, track in enumerate(scene.tracks):
        looks = marker(i, 4.0) if markers else {}
        found.append((Line2D([], [], color=SOFT_INK, linestyle=line_style(i), linewidth=1.6, **looks), track.mode))
    return found


def not_finite_entry() -> tuple[Artist, str]:
    """Return the legend entry of the marks at the upper edge."""
    handle = Line2D([], [], color=SOFT_INK, linestyle="none", marker="x", markersize=5, markeredgewidth=1.4)
    return handle, "mean is NaN or infinite"
