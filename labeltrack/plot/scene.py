"""What a figure shows, as arrays: the history of the chosen modes and labels, ranked worst first. No matplotlib."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from labeltrack._convert.objects import written
from labeltrack._core.arrays import Array, Floats, Integers, Mask
from labeltrack._filters import step_origin
from labeltrack._labels.combined import union
from labeltrack._labels.lookup import alias, plain_label
from labeltrack._tables import portable
from labeltrack.errors import missing_key

if TYPE_CHECKING:
    from labeltrack.bounds import Bound, BoundName
    from labeltrack.stats import LabelStats


class Plottable(Protocol):
    """What the figures read of a `labeltrack.History`."""

    metric: str
    label: str
    bounds: tuple[BoundName, ...]

    @property
    def modes(self) -> list[str]: ...  # noqa: D102
    @property
    def label_names(self) -> tuple[str, ...]: ...  # noqa: D102
    def steps(self, mode: str, /) -> list[int]: ...  # noqa: D102
    def at(self, step: int, mode: str, /) -> LabelStats: ...  # noqa: D102


_LARGEST = 1e300
"""Larger numbers are drawn as infinite: no double holds the length of an axis from end to end, and matplotlib 3.9
takes 1e7 times the length of a scale of colours."""


@dataclass(frozen=True)
class Track:
    """One mode of a history, K labels by S steps; numbers are NaN where a label does not occur."""

    mode: str
    steps: Integers  # (S,) ascending, counted from the origin of the scene
    present: Mask  # (K, S) whether the label occurs at the step
    mean: Floats  # (K, S)
    bands: dict[BoundName, Floats]  # (3, K, S): low, centre, high


@dataclass(frozen=True)
class Scene:
    """Everything that is needed to draw."""

    metric: str
    label: str
    x_label: str  # what a step is
    origin: int  # what steps are counted from: 0, unless they are long numbers that differ only in their last digits
    units: str | None
    names: list[str]  # of the K labels, in order of labels or as the user listed them
    tracks: tuple[Track, ...]
    bounds: tuple[Bound, ...]
    ranked_by: Track  # the one of the tracks that ranks the labels
    order: Integers  # (K,) indices of the labels, worst first
    marked: Integers  # indices of the labels to highlight, worst first
    higher_is_worse: bool

    @property
    def value_label(self) -> str:
        """The metric with its unit."""
        return f"{self.metric} ({self.units})" if self.units else self.metric

    @property
    def step_label(self) -> str:
        """What a step is, and what steps are counted from."""
        return f"{self.x_label}, counted from {self.origin}" if self.origin else self.x_label

    @property
    def ranking(self) -> str:
        """How the labels were ranked, in words."""
        track = self.ranked_by
        of = f" in mode {track.mode}" if len(self.tracks) > 1 else ""
        return f"worst first by the mean{of} at {self.x_label} {self.origin + int(track.steps[-1])}"

    @property
    def is_single_step(self) -> bool:
        """Whether all modes together have only one step."""
        return bool((self.steps == self.steps[0]).all())

    @property
    def steps(self) -> Integers:
        """The steps of all modes, one after the other."""
        return np.concatenate([track.steps for track in self.tracks])

    def band(self, bound: Bound) -> Floats:
        """Return low, centre, high of all labels at `steps`."""
        return np.concatenate([track.bands[bound.name] for track in self.tracks], axis=2)


def collect(
    history: Plottable,
    bounds: tuple[Bound, ...],
    *,
    modes: Any,
    labels: Any,
    highlight: Any,
    top: Any,
    x_label: str,
    units: str | None,
    higher_is_worse: bool,
) -> Scene:
    """Read a history into arrays; see `labeltrack.plot.plot_history` for the arguments and the errors."""
    try:
        top = None if top is None else operator.index(top)
    except TypeError:
        msg = f"top: must be a whole number of labels to show, or None for all, got {type(top).__name__} {top!r}"
        raise TypeError(msg) from None
    if top is not None and top < 1:
        msg = f"top: must be at least 1, got {top!r}"
        raise ValueError(msg)
    shown, ranks_by = choose_modes(history.modes, modes)
    steps = {mode: history.steps(mode) for mode in shown}
    read = [history.at(step, mode) for mode in shown for step in steps[mode]]
    try:
        known, slots = union([stats.labels for stats in read])
    except TypeError:  # strings in one epoch, numbers in another: compared as text
        known, slots = union([written(stats.labels) for stats in read])
    if not known.size:
        msg = (
            f"the history has no labels in {_quote_modes(shown)}, so there is nothing to plot; "
            "was update() called, and does label_mapping keep any label that occurs?"
        )
        raise ValueError(msg)
    names = _names(read, slots, known.size)
    origin = step_origin([step for of_mode in steps.values() for step in (of_mode[0], of_mode[-1])])
    columns = zip(read, slots, strict=True)
    tracks = [_track(mode, np.array(steps[mode]) - origin, columns, known.size, bounds) for mode in shown]
    order = _rank(tracks[ranks_by], higher_is_worse=higher_is_worse)
    marked = [] if highlight is None else choose_labels(highlight, known, names, shown, "highlight")
    kept = list(range(known.size)) if labels is None else choose_labels(labels, known, names, shown)
    if top is not None:
        worst = set(order[np.isin(order, kept)][:top].tolist())
        kept = [k for k in kept if k in worst]
    kept = list(dict.fromkeys([*kept, *marked]))
    tracks = [_only(track, kept) for track in tracks]
    order = _rank(tracks[ranks_by], higher_is_worse=higher_is_worse)
    return Scene(
        metric=history.metric,
        label=history.label,
        x_label=x_label,
        origin=origin,
        units=units,
        names=[names[k] for k in kept],
        tracks=tuple(tracks),
        bounds=bounds,
        ranked_by=tracks[ranks_by],
        order=order,
        marked=order[np.isin(order, [kept.index(k) for k in marked])],
        higher_is_worse=higher_is_worse,
    )


def shorten(name: str, limit: int) -> str:
    """Return a name on one line, its middle left out if it is longer than `limit`: paths differ at their ends."""
    line = "".join(char if char.isprintable() else " " for char in portable([name])[0]) or "(no name)"
    if len(line) <= limit:
        return line
    tail = (limit - 1) // 2
    return f"{line[: limit - 1 - tail]}…{line[-tail:]}"


def _rank(track: Track, *, higher_is_worse: bool) -> Integers:
    """Rank labels worst first: NaN, then by their last mean, then labels without samples; ties keep their order."""
    last = track.present.shape[1] - 1 - np.argmax(track.present[:, ::-1], axis=1)
    means = track.mean[np.arange(last.size), last]
    means = -means if higher_is_worse else means
    return np.lexsort((means, ~np.isnan(means), ~track.present.any(axis=1))).astype(np.int64)


def _listed(choice: Any, option: str, rest: str) -> list[Any]:
    """Return one choice or an iterable of them as a list."""
    listed = [choice] if isinstance(choice, (str, bytes)) or not isinstance(choice, Iterable) else list(choice)
    if not listed:
        msg = f"{option} is an empty iterable, {rest}"
        raise ValueError(msg)
    return listed


def choose_modes(known: list[str], modes: Any) -> tuple[list[str], int]:
    """Return the modes that the user lists, all for None, and which of them ranks: the last, or for None ``"eval"``."""
    if not known:
        msg = "the history is empty, so there is nothing to plot; call end_epoch() after at least one update() first"
        raise ValueError(msg)
    empty = "so nothing would be drawn; pass None for every mode"
    wanted = known if modes is None else list(dict.fromkeys(_listed(modes, "modes", empty)))
    for mode in wanted:
        if mode not in known:
            raise missing_key(mode, known, "mode")
    shown = [known[known.index(mode)] for mode in wanted]  # plain strings, where an enum compares equal to one
    return shown, shown.index("eval") if modes is None and "eval" in shown else len(shown) - 1


def _quote_modes(modes: list[str]) -> str:
    return f"mode{'s' * (len(modes) > 1)} {', '.join(map(repr, modes))}"


def drawable(numbers: Floats) -> Floats:
    """Return numbers, infinite where no axis holds them."""
    return np.where(np.abs(numbers) > _LARGEST, np.copysign(np.inf, numbers), numbers)


def _names(read: list[LabelStats], slots: list[Integers], n: int) -> list[str]:
    """Return the display name of every label."""
    names = np.empty(n, dtype=object)
    named = np.zeros(n, dtype=bool)
    for stats, places in zip(read, slots, strict=True):
        new = ~named[places]
        if new.any():  # an epoch's names are made on demand, and most epochs bring no new label
            names[places[new]] = stats.names[new].tolist()
            named[places] = True
    return [str(name) for name in names]


def choose_labels(labels: Any, known: Array, names: list[str], modes: list[str], option: str = "labels") -> list[int]:
    """Return the indices of the labels that the user lists, by value or display name; a value wins over a name."""
    values = known.tolist()
    if known.dtype.names is not None and isinstance(labels, tuple) and labels in values:
        labels = [labels]  # one combination of several labels
    empty = "so nothing would be drawn; pass None for every label"
    if option == "highlight":
        empty = "so nothing would be highlighted; pass None for the figure's own choice"
    places: dict[Any, int] = {name: k for k, name in enumerate(names)} | {value: k for k, value in enumerate(values)}
    found = []
    for label in _listed(labels, option, empty):
        value = plain_label(label)
        try:
            near = alias(value, widened=True)
            found.append(places[near if near in places and value not in places else value])
        except (KeyError, TypeError):  # TypeError: not hashable, so not a label
            other = [name for name, value in zip(names, values, strict=True) if name != str(value)]
            raise missing_key(label, [*values, *other], f"label in {_quote_modes(modes)}:") from None
    return list(dict.fromkeys(found))


def _track(
    mode: str, steps: Integers, columns: Iterator[tuple[LabelStats, Integers]], n: int, bounds: tuple[Bound, ...]
) -> Track:
    """Scatter the statistics of the next columns into matrices, a row per label and a column per step."""
    present = np.zeros((n, steps.size), dtype=bool)
    numbers = np.full((1 + 3 * len(bounds), n, steps.size), np.nan)  # the mean, then low, centre, high of each bound
    for column, (stats, places) in zip(range(steps.size), columns, strict=False):
        present[places, column] = stats.present
        with np.errstate(over="ignore", invalid="ignore"):  # mean ± std of infinite samples: drawn as not finite
            edges = [edge for bound in bounds for edge in bound.band(stats)]
        for matrix, values in zip(numbers, [stats.mean, *edges], strict=True):
            matrix[places, column] = values
    numbers = drawable(numbers)
    bands = {bound.name: numbers[3 * i + 1 : 3 * i + 4] for i, bound in enumerate(bounds)}
    return Track(mode, steps, present, numbers[0], bands)


def _only(track: Track, kept: list[int]) -> Track:
    """Return the course of some of the labels."""
    bands = {name: band[:, kept] for name, band in track.bands.items()}
    return replace(track, present=track.present[kept], mean=track.mean[kept], bands=bands)
