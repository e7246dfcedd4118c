"""Grid: one of two labels per sample down, the other across, the mean of each combination as colour."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from labeltrack._core.arrays import Array, Floats, Integers, Mask
from labeltrack.bounds import resolve_all
from labeltrack.errors import listing
from labeltrack.plot import style as look
from labeltrack.plot.heatmap import ALL_NAMED, ENLARGED, centres, draw_groups, halves, name_rows, tick_ranks
from labeltrack.plot.scene import choose_labels, choose_modes, drawable, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from labeltrack.bounds import Bound, BoundName
    from labeltrack.plot.scene import Plottable
    from labeltrack.stats import LabelStats

_MOST = 4_000_000  # cells
_COLUMNS = 60  # more columns than this become rows if there are fewer of these
_CHARACTER = 0.058  # inches, at 6.5 points
_LINE = 0.1


class _Side(NamedTuple):
    """One of the labels: its name, and the display names of its values, worst first after that of all together."""

    label: str
    names: list[str]
    places: dict[Any, int]  # by label value


class _Layout(NamedTuple):
    """Which rows are drawn, all of them, or the worst enlarged and then all; and what fits where."""

    parts: list[slice]
    size: tuple[float, float]  # of the figure, in inches
    down: list[str]
    across: list[str]
    upright: bool
    both: bool  # whether cells have room for a mean and a number of samples
    room: int  # how many characters fit into a cell
    font: float  # of the texts in cells, in points


def plot_grid(
    history: Plottable,
    *,
    by: Iterable[str] | None = None,
    step: int | None = None,
    bounds: BoundName | Iterable[BoundName] = None,
    modes: str | Iterable[str] | None = None,
    labels: Any = None,
    title: str | None = None,
    x_label: str = "step",
    units: str | None = None,
    higher_is_worse: bool = True,
) -> Figure:
    """Draw two labels per sample against each other at one step, the mean of each combination as colour.

    The first label is down and the second across, unless that has more than 60 values and the first fewer. Both are
    worst first by their own means, which are the first column and row. Where they fit, cells have the mean and the
    number of samples, or the number alone. Combinations without samples are hatched. Beyond 110 rows the worst 25 are
    also shown enlarged.

    Args:
        history: A `labeltrack.History` of several labels per sample.
        by: The names of the two labels, rows first; None if there are only two.
        step: Which step; None for the last of the mode.
        bounds: Bounds of which further grids show half the width of the band; not those around the median, as medians
            of one label cannot be computed from those of combinations.
        modes: Modes to draw, one or several; None for ``"eval"`` if there is such a mode, else for the last.
        labels: Combinations to draw, as tuples or display names; None for all.
        title: Title; None for "metric by label and label".
        x_label: What a step is called, such as "epoch".
        units: Unit of the metric, such as "nats".
        higher_is_worse: True for a loss, False for an accuracy.

    Returns:
        A matplotlib Figure that is not registered with pyplot.

    Raises:
        ValueError: An empty history, no two labels, an unknown bound or one around the median, or too many cells.
        KeyError: There is no such mode, step or label; the message names the nearest.

    Example:
        >>> import labeltrack as lt
        >>> history = lt.History(metric="ce")
        >>> history.add(1, lt.label_stats({"class": [0, 1, 1], "site": ["a", "a", "b"]}, [0.5, 2.0, 3.0]))
        >>> figure = plot_grid(history, units="nats")
        >>> [text.get_text() for text in figure.axes[0].get_yticklabels()]
        ['all', '1', '0']
    """
    names = history.label_names if by is None else tuple([by] if isinstance(by, str) else by)
    if len(names) != 2 or names[0] == names[1]:
        what = listing(names) if names else "one label per sample"
        msg = f"a grid has two labels per sample, one down and one across, got {what}; name two with by="
        raise ValueError(msg)
    resolved = resolve_all(bounds)
    if any(bound.quantiles for bound in resolved):
        msg = f"a grid shows means, not medians; got bounds={bounds!r}"
        raise ValueError(msg)
    shown, top = choose_modes(history.modes, modes)
    if modes is None:
        shown, top = [shown[top]], 0
    steps = [history.steps(mode)[-1] if step is None else step for mode in shown]
    read = [history.at(at, mode) for at, mode in zip(steps, shown, strict=True)]
    if labels is not None:
        read = [_only(stats, labels, shown) for stats in read]
    rows, columns = _sides(read, names, top, higher_is_worse=higher_is_worse)
    wide = [bound for bound in resolved if bound.wide]
    panels = [_panel(stats, rows, columns, wide) for stats in read]
    value_label = f"{history.metric} ({units})" if units else history.metric
    exact = [[numbers[i] for _, _, numbers in panels] for i in range(1 + len(wide))]
    drawn = [[drawable(matrix) for matrix in matrices] for matrices in exact]
    quantities = [centres("mean", value_label, drawn[0], higher_is_worse=higher_is_worse)]
    quantities += [halves(bound, matrices) for bound, matrices in zip(wide, drawn[1:], strict=True)]
    with look.styled():
        layout = _layout(rows, columns, len(panels) * len(quantities))
        heading = f"{history.metric} by {rows.label} and {columns.label}" if title is None else title
        figure = look.new_figure(*layout.size, heading)
        of = f" in mode {shown[top]}" if len(shown) > 1 else ""
        at = ", ".join(dict.fromkeys(f"{x_label} {at}" for at in steps))
        numbers = "; numbers of samples in the cells" if layout.room and not layout.both else ""
        note = f"{at}; worst first by the mean{of}, from the top and from the left{numbers}"
        present = {mode: there for mode, (_, there, _) in zip(shown, panels, strict=True)}
        groups = draw_groups(figure, note, layout.parts, present, quantities, [1.0] * len(panels))
        for (group, image), matrices in zip(groups, exact, strict=True):
            for axes in group.flat:  # between each label by itself and the combinations
                axes.axhline(0.5, color="white", linewidth=2.0)
                axes.axvline(0.5, color="white", linewidth=2.0)
            for axes, (count, _, _), matrix in zip(group[0], panels, matrices, strict=True):
                _write(axes, image, matrix[layout.parts[0]], count[layout.parts[0]], layout)
            for axes in group[-1]:
                _name_columns(axes, columns, layout)
        n = len(rows.names) - 1
        said = [f"{shorten(rows.label, 20)}: the {ENLARGED} worst", f"all {n}, by rank"]
        name_rows(groups[0][0], layout.down, said if len(layout.parts) > 1 else [shorten(rows.label, 30)], n, 1)
        return figure


def _only(stats: LabelStats, labels: Any, modes: list[str]) -> LabelStats:
    """Return the statistics of the combinations that the user lists."""
    kept = np.array(choose_labels(labels, stats.labels, stats.names.tolist(), modes), dtype=np.int64)
    return stats._regrouped(stats.labels[kept], kept, np.arange(kept.size), names=stats._names)


def _sides(read: list[LabelStats], by: Sequence[str], top: int, *, higher_is_worse: bool) -> tuple[_Side, _Side]:
    """Return the labels of rows and columns, ranked by their means over all of the other one."""
    rows, columns = (
        _side([stats.by(name) for stats in read], name, top, higher_is_worse=higher_is_worse) for name in by
    )
    r, c = len(rows.names), len(columns.names)
    if r == 1:
        msg = "there are no labels at that step, so there is nothing to draw"
        raise ValueError(msg)
    if r * c > _MOST:
        msg = f"{r - 1:,} × {c - 1:,} cells are too many to draw; choose combinations with labels=, or a label with by="
        raise ValueError(msg)
    return (columns, rows) if c > max(r, _COLUMNS) else (rows, columns)


def _side(alone: list[LabelStats], name: str, top: int, *, higher_is_worse: bool) -> _Side:
    shown: dict[Any, str] = {}
    for stats in [alone[top], *alone]:
        order = stats.order("mean", descending=higher_is_worse)
        for value, text in zip(stats.labels[order].tolist(), stats.names[order].tolist(), strict=True):
            shown.setdefault(value, text)
    return _Side(name, ["all", *shown.values()], {value: i for i, value in enumerate(shown, start=1)})


def _panel(stats: LabelStats, rows: _Side, columns: _Side, bounds: list[Bound]) -> tuple[Integers, Mask, list[Floats]]:
    """Return ``(R, C)`` counts, presence, and means and half the bands; the first row and column are of all labels."""
    both = stats.by(rows.label, columns.label)
    down, across = stats.by(rows.label), stats.by(columns.label)
    shape = len(rows.names), len(columns.names)
    count, present = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.bool_)
    numbers = np.full((1 + len(bounds), *shape), np.nan)
    for part, i, j in (
        (both, _places(rows, both.labels[rows.label]), _places(columns, both.labels[columns.label])),
        (down, _places(rows, down.labels), [0] * len(down)),
        (across, [0] * len(across), _places(columns, across.labels)),
        (stats.by(), [0], [0]),
    ):
        count[i, j], present[i, j] = part.count, part.present
        with np.errstate(invalid="ignore", over="ignore"):  # infinite minus infinite: drawn as not finite
            halves = [(high - low) / 2 for low, _, high in (bound.band(part) for bound in bounds)]
        for matrix, values in zip(numbers, [part.mean, *halves], strict=True):
            matrix[i, j] = values
    return count, present, list(numbers)


def _places(side: _Side, labels: Array) -> list[int]:
    return [side.places[value] for value in labels.tolist()]


def _layout(rows: _Side, columns: _Side, panels: int) -> _Layout:
    """Choose sizes: cells as large as fit, so that counts can be read where there are few."""
    r, c = len(rows.names), len(columns.names)
    parts = [slice(0, r)] if r <= ALL_NAMED else [slice(0, ENLARGED + 1), slice(0, r)]
    down = [shorten(name, 26) for name in rows.names[: parts[0].stop]]
    across = [shorten(name, 20) for name in columns.names] if c <= ALL_NAMED else []
    width = max(1.5, min(11.0, c * float(np.clip(10.0 / c, 0.125, 0.75))))
    height = max(1.0, r * float(np.clip(7.0 / r, 0.105, 0.42))) if len(parts) == 1 else 7.0
    longest = _CHARACTER * max(map(len, across), default=0)
    upright = longest > width / c - 0.04
    margin = 0.6 + _CHARACTER * max(map(len, down))
    size = max(4.2, margin + (width + 0.2) * panels), height + 2.0 + (longest if upright else 0.0)
    enlarged = height if len(parts) == 1 else height * 3.0 / 7.2
    wide, tall = width / c, enlarged / parts[0].stop
    both = wide >= 0.42 and tall >= 0.25
    font = 6.5 if both else 5.5
    room = 0 if tall < _LINE or wide < 0.13 else int((wide - 0.03) / (_CHARACTER * font / 6.5))
    return _Layout(parts, size, down, across, upright, both, room, font)


def _write(axes: Axes, image: Any, matrix: Floats, count: Integers, layout: _Layout) -> None:
    """Write value and number of samples into the cells, or the number alone, where they fit."""
    if not layout.room:
        return
    coloured = np.isfinite(drawable(matrix))
    for (i, j), value in np.ndenumerate(matrix):
        text = _short(int(count[i, j]))
        if not count[i, j] or len(text) > layout.room:
            continue
        red, green, blue, _ = image.cmap(image.norm(value)) if coloured[i, j] else (1.0, 1.0, 1.0, 1.0)
        ink = "white" if 0.3 * red + 0.59 * green + 0.11 * blue < 0.5 else look.INK
        text = f"{value:.3g}\nn {text}" if layout.both else text
        axes.text(j, i, text, ha="center", va="center", fontsize=layout.font, color=ink, parse_math=False)


def _short(n: int) -> str:
    """Return a number of samples in at most four characters, such as 999, 1.2k or 100M."""
    for unit, name in ((1, ""), (1000, "k"), (10**6, "M"), (10**9, "G")):
        if n < 999.5 * unit:
            return f"{n / unit:.1f}{name}" if unit > 1 and n < 9.95 * unit else f"{n / unit:.0f}{name}"
    return f"{n:.0e}"


def _name_columns(axes: Axes, columns: _Side, layout: _Layout) -> None:
    if not layout.across:
        axes.set_xlabel(f"{shorten(columns.label, 20)}: all {len(columns.names) - 1}, by rank", parse_math=False)
        ranks = tick_ranks(len(columns.names) - 1)
        axes.set_xticks(ranks, list(map(str, ranks.tolist())))
        return
    axes.set_xlabel(shorten(columns.label, 30), parse_math=False)
    turned: dict[str, Any] = {"rotation": 90} if layout.upright else {}
    axes.set_xticks(range(len(layout.across)), layout.across, parse_math=False, fontsize=6.5, **turned)
    axes.tick_params(axis="x", length=0)
