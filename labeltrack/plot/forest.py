"""Forest plot: the change of every label with its confidence interval, worst first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.lines import Line2D

from labeltrack._core.arrays import Integers
from labeltrack.plot import style as look
from labeltrack.plot.scene import drawable, shorten

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST = 40  # labels that are shown unless some are chosen
_ROW = 0.21  # inches
_VERDICTS = {  # colour, marker, and words of the legend
    "worse": (look.WORST, "o", "worse"),
    "better": (look.PALETTE[0], "D", "better"),
    "no evidence": (look.OTHERS, "s", "no evidence of a change"),
    "too few": ("#9A9A9A", "x", "too few samples"),
}


def forest(changes: Any, places: Integers, title: str | None) -> Figure:
    """Draw the labels at some places of a `labeltrack.Comparison`, the first at the top."""
    if not places.size:
        msg = "there is no label to show: neither side of the comparison has any"
        raise ValueError(msg)
    hidden = len(changes.names) - places.size
    more = f"; {hidden} more {'label is' if hidden == 1 else 'labels are'} not shown" if hidden else ""
    with look.styled():
        heading = f"Change of {changes.metric}: {changes.title}" if title is None else title
        figure = look.new_figure(8.0, 1.5 + _ROW * max(places.size, 3), heading)
        block: Any = figure.subfigures(1, 1)
        look.subtitle(block, f"{changes.summary()}{more}")
        axes = block.subplots()
        used = [verdict for verdict in _VERDICTS if verdict in changes.verdict[places]]
        for verdict in used:
            _draw(axes, changes, places, verdict)
        _name_rows(axes, changes, places)
        _limit(axes, changes, places)
        axes.axvline(0, color=look.SOFT_INK, linewidth=0.8, zorder=1)
        worse = "right" if changes.higher_is_worse else "left"
        axes.set_xlabel(f"difference of means, with 95 % confidence interval ({worse} is worse)", parse_math=False)
        entries: list[tuple[Artist, str]] = [
            (Line2D([], [], color=colour, marker=marker, linestyle="none", markersize=5), words)
            for colour, marker, words in map(_VERDICTS.__getitem__, used)
        ]
        look.legend(figure, entries)
        return figure


def _draw(axes: Axes, changes: Any, places: Integers, verdict: str) -> None:
    """Draw the labels of one verdict; those whose test has no interval are hollow."""
    colour, marker, _ = _VERDICTS[verdict]
    rows = np.flatnonzero(changes.verdict[places] == verdict)
    of = places[rows]
    low, high, centre = (drawable(column[of]) for column in (changes.low, changes.high, changes.difference))
    bounded = np.isfinite(low) & np.isfinite(high)
    axes.hlines(rows[bounded], low[bounded], high[bounded], color=colour, linewidth=1.4)
    looks: dict[str, Any] = {"color": colour, "linestyle": "none", "marker": marker, "markersize": 5}
    for chosen, face in ((bounded, colour), (~bounded & np.isfinite(centre), "white")):
        axes.plot(centre[chosen], rows[chosen], **looks, markerfacecolor=face)


def _limit(axes: Axes, changes: Any, places: Integers) -> None:
    """Fit the axis to the labels that were tested, if there are any: means of few samples may be far away."""
    tested = places[np.isfinite(changes.q[places])]
    ends = np.concatenate([side[tested] for side in (changes.low, changes.high, changes.difference)] + [np.zeros(1)])
    ends = ends[np.isfinite(drawable(ends))]
    margin = 0.04 * float(np.ptp(ends))
    if margin > 0:
        axes.set_xlim(ends.min() - margin, ends.max() + margin)


def _name_rows(axes: Axes, changes: Any, places: Integers) -> None:
    """Write the names at the left, and relative change and q at the right."""
    names = [shorten(name, 30) for name in changes.names[places].tolist()]
    axes.set_yticks(np.arange(places.size), names)
    axes.set_ylim(places.size - 0.4, -0.6)
    axes.grid(visible=True, axis="x")
    axes.tick_params(axis="y", length=0)
    for row, (k, tick) in enumerate(zip(places.tolist(), axes.get_yticklabels(), strict=True)):
        verdict = str(changes.verdict[k])
        tick.set_parse_math(False)
        tick.set_fontweight("bold" if verdict == "worse" else "normal")
        relative, q = float(changes.relative[k]), float(changes.q[k])
        texts = [f"{relative:+.1%}" if np.isfinite(relative) else "", f"q = {q:.2g}" if np.isfinite(q) else ""]
        for x, text in zip((1.1, 1.26), texts, strict=True):
            axes.text(x, row, text, transform=axes.get_yaxis_transform(), va="center", ha="right", fontsize=look.SMALL)
