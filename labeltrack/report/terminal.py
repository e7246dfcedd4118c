"""Terminal tables: the labels of an epoch, worst first, beside other modes and the best epoch of each."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from labeltrack._core.arrays import Integers
from labeltrack._filters import labels_named, single_mode
from labeltrack._tables import printable
from labeltrack.stats import STATISTICS

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from labeltrack.history import History
    from labeltrack.stats import LabelStats

_MARK = ">"  # ASCII: a terminal without colour may lack arrows, too
_MISSING = "-"
_SIGNIFICANT = 4
_SMALL, _LARGE = 1e-3, 1e7
_UNBOUNDED = 10_000
_NAMED = 10  # labels without samples in the caption


class _Column(NamedTuple):
    """A column of formatted numbers."""

    header: str
    cells: Sequence[str]
    footer: str


def history_table(
    history: History,
    *,
    mode: str | None = None,
    step: int | None = None,
    title: str | None = None,
    by: str | Iterable[str] = "mean",
    higher_is_worse: bool = True,
    limit: int | None = None,
) -> Table:
    r"""Return a table of one step, worst first, beside the other modes and the best step of every label.

    Args:
        history: What was recorded.
        mode: The mode to show; None for ``"eval"`` if there is such a mode, else for the only one.
        step: Which step; None for the last of the mode.
        title: Printed above the table; None for a description of its content.
        by: The statistic that ranks, and that other modes and steps are compared by: count, sum, mean, std, min or max.
            Or the name of one of several labels per sample, or several names: the table is then of these, by their
            means.
        higher_is_worse: True for a loss, False for an accuracy. A NaN is worst either way.
        limit: How many labels at most; None for all.

    Returns:
        A table to print with `show` or a rich ``Console``, with all labels together in the last row. Names are printed
        literally, never parsed as markup.

    Raises:
        KeyError: There is no such mode or step.
        ValueError: There is no such statistic, `limit` is not positive, or `mode` is None and it is not clear which.

    Example:
        >>> import labeltrack as lt
        >>> history = lt.History(metric="ce", label="y")
        >>> history.add(1, lt.label_stats([0, 1], [0.5, 2.0]), mode="eval")
        >>> [str(column.header) for column in history_table(history).columns]
        ['', 'y', 'count', 'mean', 'std', 'min', 'max', 'best\n(step)']
    """
    labels = labels_named(by, history.label_names)
    history, by = (history, str(by)) if labels is None else (history.by(*labels), "mean")
    mode = single_mode(history.modes, mode)
    step = max(history.steps(mode), default=0) if step is None else step  # no such mode: the next line says so
    stats = history.at(step, mode)
    if limit is not None and limit < 1:
        msg = f"limit must be at least 1, or None for all labels, got {limit}"
        raise ValueError(msg)
    places = stats.order(by, descending=higher_is_worse)[:limit]
    others = {of: history.at(step, of) for of in history.modes if of != mode and step in history.steps(of)}
    of_label = _best(history, mode, by, higher_is_worse=higher_is_worse)
    best = [of_label.get(value) for value in stats.labels[places].tolist()]  # None: it never had samples
    columns, write = _columns(stats, places, by, others)
    width = max((len(str(found[1])) for found in best if found is not None), default=0)
    cells = [_MISSING if found is None else f"{write(found[0])} ({found[1]:>{width}})" for found in best]
    columns.append(_Column("best\n(step)", cells, ""))
    if title is None:
        title = f"{history.metric} by {history.label}: {mode}, step {step}, worst {by} first"
    return _table(stats, places, columns, title=title, label=history.label)


def show(table: Table, console: Console | None = None) -> None:
    """Print a table; if the output is not a terminal, at its full width.

    On a terminal that is too narrow even for the numbers, lines wrap, and no number is cut.

    Args:
        table: From `history_table`.
        console: Where to print; None for standard output.
    """
    from rich.console import Console  # noqa: PLC0415 (takes 20 ms, which the HTML report need not spend)
    from rich.measure import Measurement  # noqa: PLC0415

    console = Console() if console is None else console
    needed = Measurement.get(console, console.options.update(max_width=_UNBOUNDED), table)
    before = console.width
    console.width = max(before, needed.minimum if console.is_terminal else needed.maximum)
    try:
        console.print(table, crop=False)
    finally:
        console.width = before


def _best(history: History, mode: str, by: str, *, higher_is_worse: bool) -> dict[Any, tuple[float, int]]:
    """Return the best value of every label and the first step at which it was reached, by label."""
    found: dict[Any, tuple[float, int]] = {}
    for step in history.steps(mode):
        stats = history.at(step, mode)
        here = stats.present
        for label, value in zip(stats.labels[here].tolist(), stats.column(by)[here].tolist(), strict=True):
            best, _ = found.get(label, (math.nan, step))
            if math.isnan(best) or (value < best if higher_is_worse else value > best):
                found[label] = value, step
    return found


def _columns(
    stats: LabelStats, places: Integers, by: str, compare: Mapping[str, LabelStats]
) -> tuple[list[_Column], Callable[[float], str]]:
    """Return the statistics and those to compare with, in equal decimals, and what writes further numbers of `by`."""
    total = stats.total()._asdict()
    in_unit = _writer([*stats.mean[places].tolist(), *stats.std[places].tolist()])
    write = _writer(stats.column(by)[places].tolist()) if by in ("count", "sum") else in_unit
    columns = []
    for name in dict.fromkeys((*STATISTICS, by)):
        own = str if name == "count" else write if name == "sum" else in_unit
        if name != "sum" or by == "sum":  # shown only if it ranks
            here = (stats.present | (name == "count"))[places].tolist()  # labels without samples have only a count
            values = zip(stats.column(name)[places].tolist(), here, strict=True)
            cells = [own(value) if there else _MISSING for value, there in values]
            columns.append(_Column(name, cells, own(total[name]) if name in total else ""))
    labels = stats.labels[places].tolist()
    for name, other in compare.items():
        column, here = other.column(by).tolist(), other.present.tolist()
        found = [other.index(label) if label in other else None for label in labels]
        cells = [_MISSING if k is None or not (here[k] or by == "count") else write(column[k]) for k in found]
        pooled = other.total()._asdict()
        columns.append(_Column(f"{name}\n{by}", cells, write(pooled[by]) if by in pooled else ""))
    return columns, write


def _writer(values: Iterable[float]) -> Callable[[float], str]:
    """Return what writes a table's numbers, with the decimals that give the largest four digits, or with exponents."""
    largest = max((abs(value) for value in values if math.isfinite(value)), default=0.0)
    exponent = math.floor(math.log10(largest)) if largest else 0
    decimals = min(max(_SIGNIFICANT - 1 - exponent, 0), _SIGNIFICANT)

    def write(value: float) -> str:
        if not math.isfinite(value):
            return str(value)
        if abs(value) >= _LARGE or (value and max(abs(value), largest) < _SMALL):
            return f"{value:.{_SIGNIFICANT - 1}e}"
        return f"{round(value, decimals) + 0.0:.{decimals}f}"  # adding zero turns -0.0 into 0.0

    return write


def _table(stats: LabelStats, places: Integers, columns: list[_Column], *, title: str, label: str) -> Table:
    """Build the table; the first row is the worst."""
    from rich import box  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    names = [printable(name) for name in stats.names[places].tolist()]
    hidden = len(stats) - len(names)
    absent = [printable(name) for name in stats.names[~stats.present].tolist()]
    notes = [f"and {hidden} more {'label' if hidden == 1 else 'labels'}"] if hidden else []
    if absent:
        notes.append(f"without samples: {', '.join(absent[:_NAMED])}{', …' if len(absent) > _NAMED else ''}")
    looks: dict[str, Any] = {"show_edge": False, "show_footer": True, "footer_style": "dim"}
    looks |= {"title_justify": "left", "caption_justify": "left"}
    table = Table(
        title=Text(printable(title), style="bold"),
        caption=Text("; ".join(notes)) if notes else None,
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        **looks,
    )
    # A truncated number is a wrong number: only long names are folded.
    table.add_column("", min_width=len(_MARK), no_wrap=True)
    least = min(12, max(map(len, names), default=1))
    table.add_column(Text(printable(label)), Text("all"), overflow="fold", vertical="bottom", min_width=least)
    for head, column, foot in columns:
        least = max(map(len, (*head.splitlines(), foot, *column)))
        table.add_column(Text(head), Text(foot), justify="right", no_wrap=True, min_width=least)
    for row, name in enumerate(names):
        cells = [Text(column.cells[row]) for column in columns]
        table.add_row(Text(_MARK if row == 0 else ""), Text(name), *cells, style="bold red" if row == 0 else None)
    return table
