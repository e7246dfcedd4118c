"""Figures of a history: lines, small multiples or a heatmap, by the number of labels; a grid of two labels per sample.

Figures are built without pyplot: nothing is registered or shown, no display is needed, and the caller's matplotlib
settings are neither changed nor followed, except the font family, which may be what makes names readable.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from labeltrack.bounds import TRACKER_BOUNDS, resolve_all
from labeltrack.errors import check_option
from labeltrack.plot.grid import plot_grid
from labeltrack.plot.heatmap import heatmap
from labeltrack.plot.lines import COLOURED, MAX_MODES, lines, multiples
from labeltrack.plot.scene import collect
from labeltrack.plot.style import styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from labeltrack.bounds import BoundName, TrackerBounds
    from labeltrack.plot.scene import Plottable

__all__ = ["plot_grid", "plot_history"]

_KINDS = {"lines": lines, "multiples": multiples, "heatmap": heatmap}
_MULTIPLES_FROM = 7  # more bands than this in one panel hide each other
_HEATMAP_FROM = 40  # more panels than this are smaller than a stamp
_MAX_PANELS = 200  # a panel takes about 20 ms to lay out


def plot_history(
    history: Plottable,
    *,
    kind: str = "auto",
    bounds: BoundName | Iterable[BoundName] | TrackerBounds = TRACKER_BOUNDS,
    modes: str | Iterable[str] | None = None,
    labels: Any = None,
    highlight: Any = None,
    top: int | None = None,
    title: str | None = None,
    x_label: str = "step",
    units: str | None = None,
    higher_is_worse: bool = True,
) -> Figure:
    """Draw a metric of every label over the steps.

    Up to 6 labels are **lines**: one line per label with its band, named where it ends, and one panel per bound.
    7 to 39 are **multiples**: one small panel per label, worst first, the worst few in colour, the other labels in
    light grey behind. From 40 on it is a **heatmap**: one row per label, worst at the top, one column per step, the
    mean as colour. A heatmap cannot show a band, so for each bound a second heatmap shows half the width of the band.
    Beyond 110 labels the worst 25 are also shown enlarged, with their names.

    `highlight` draws some labels in colour above the others in grey: as lines, unless there are more than 6 to
    highlight or another kind is asked for. `top` draws only the worst few.

    Two labels per sample with 7 or more combinations are a **grid** of the last step, see `plot_grid`. Any other number
    of labels is drawn as combinations, and ``history.by("class")`` has one label by itself.

    The axis is logarithmic where most labels would look flat because others are at least 20 times as large, or all
    means because bands are far wider. It is cut, and says so, where a few steps would flatten all others, as an early
    spike does; the last step of a mode never is.

    Modes differ in line style, beyond 4 of them also in markers; in a heatmap each has a panel. Worst is judged by the
    mean in the last of `modes`; if they are left out, in ``"eval"``, or the last if there is none. It is judged at the
    last step, or at the label's own last step if it does not occur at that one.
    Means that are NaN, infinite or beyond 1e300 are marked. Datasets are pooled. Lines break where a label is absent.

    Args:
        history: A `labeltrack.History`.
        kind: ``"lines"``, ``"multiples"``, ``"heatmap"`` or ``"grid"``; ``"auto"`` chooses by the number of labels.
            Lines of more than 6 labels show the worst 6 in colour and the others in grey.
        bounds: ``"std"``, ``"range"``, ``"sem"``, ``"ci95"`` or None (no band); around the median, ``"iqr"``,
            ``("quantile", low, high)`` or ``"median"``, if the quantiles were computed; or several of them. By default
            the bounds of the tracker that made the history.
        modes: Modes to draw, one or several; None for all.
        labels: Label values or display names to draw, one or several; None for all.
        highlight: Label values or display names to draw in colour, one or several, whether or not `labels` and `top`
            have them; None for the worst few. In a heatmap their names are bold; beyond 110 rows, they are enlarged.
        top: Draw only this many labels, the worst at the last step; None for all.
        title: Title; None for "metric by label".
        x_label: What a step is called, such as "epoch".
        units: Unit of the metric, such as "nats".
        higher_is_worse: True for a loss, False for an accuracy.

    Returns:
        A matplotlib Figure that is not registered with pyplot. ``figure.savefig(path)`` writes PNG, SVG or PDF.

    Raises:
        ValueError: An empty history, an unknown bound or kind, too many labels for ``"multiples"``, too many modes or
            highlighted labels to tell apart, `top` below 1, or `top` or `highlight` for a grid.
        KeyError: There is no such mode or label, nor a label called so; the message names the nearest.

    Example:
        >>> import labeltrack as lt
        >>> history = lt.History(metric="ce", label="y")
        >>> history.add(1, lt.label_stats([0, 1, 1], [0.5, 2.0, 3.0]), mode="train")
        >>> history.add(2, lt.label_stats([0, 1, 1], [0.25, 2.0, 1.0]), mode="train")
        >>> figure = plot_history(history, bounds=["std", "range"], units="nats")
        >>> [axes.get_title(loc="left") for axes in figure.axes]
        ['mean ± one standard deviation', 'mean, from the smallest to the largest sample']
    """
    check_option("kind", kind, ("auto", *_KINDS, "grid"))
    all_labels = labels is None and highlight is None and top is None
    if kind == "grid" and not (highlight is None and top is None):
        msg = "kind='grid' draws every combination, without highlight= and top=; choose combinations with labels="
        raise ValueError(msg)
    options: dict[str, Any] = {"modes": modes, "labels": labels, "x_label": x_label, "units": units}
    options["higher_is_worse"] = higher_is_worse
    if kind == "grid" or (kind == "auto" and all_labels and _suits_grid(history)):
        return plot_grid(history, bounds=None if bounds is TRACKER_BOUNDS else bounds, title=title, **options)
    resolved = resolve_all(history.bounds if bounds is TRACKER_BOUNDS else bounds)
    scene = collect(history, resolved, highlight=highlight, top=top, **options)
    n, marked = len(scene.names), scene.marked.size
    if kind == "auto":
        as_lines = n < _MULTIPLES_FROM or 0 < marked <= COLOURED
        kind = "lines" if as_lines else "multiples" if n < _HEATMAP_FROM else "heatmap"
    panels = n * len(scene.bounds)
    if kind == "lines" and marked > COLOURED:
        has = f"kind='lines' has colours for {COLOURED} labels, and highlight= has {marked}"
        msg = f"{has}; use kind='heatmap', or fewer"
        raise ValueError(msg)
    if kind == "multiples" and panels > _MAX_PANELS:
        msg = (
            f"kind='multiples' draws a panel for each label and bound, and {panels} are too many (at most "
            f"{_MAX_PANELS}); choose labels with labels=, the worst with top=20, or use kind='heatmap'"
        )
        raise ValueError(msg)
    if kind != "heatmap" and len(scene.tracks) > MAX_MODES:
        said = f"{len(scene.tracks)} modes in one panel cannot be told apart (at most {MAX_MODES} can)"
        msg = f"{said}; choose some with modes="
        raise ValueError(msg)
    with styled():
        return _KINDS[kind](scene, f"{scene.metric} by {scene.label}" if title is None else title)


def _suits_grid(history: Plottable) -> bool:
    """Return whether there are two labels per sample, and too many combinations for lines."""
    if len(history.label_names) != 2:
        return False
    return any(len(history.at(history.steps(mode)[-1], mode)) >= _MULTIPLES_FROM for mode in history.modes)
