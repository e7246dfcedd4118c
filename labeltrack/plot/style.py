"""The look of the figures: settings that ignore the caller's, colours, titles and legends."""

from __future__ import annotations

import io
import os
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from labeltrack._tables import whole_file
from labeltrack.plot.scene import shorten

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.backend_bases import RendererBase

# Okabe and Ito's colours, distinct under every kind of colour blindness, without the yellow (pale on white).
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
WORST, OTHERS, BEHIND = "#D55E00", "#4D6A80", "#D3D3D3"
INK, SOFT_INK, NOT_FINITE = "#222222", "#555555", "#D55E00"
TITLE_SIZE, SIZE, SMALL = 12.0, 9.0, 8.0
EXTREME = 1e290  # matplotlib's logarithmic scales do not reach the ends of the range of doubles
LOG_FROM = 20.0  # a log scale of a smaller ratio changes little
_MARGIN = 0.1  # inches at the right, where colours and texts would end at the edge of the picture
_CHARACTER = 0.078  # average width in inches at the normal size

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
    "axes.linewidth": 0.7,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": SOFT_INK,
    "axes.titlelocation": "left",
    "axes.titlesize": SIZE,
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
