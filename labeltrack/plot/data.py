"""What a picture shows, as arrays: the history of the chosen modes and labels, ranked worst first. No matplotlib."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from labeltrack._convert.floats import alias, plain_label
from labeltrack._convert.texts import written
from labeltrack._labels.codes import union
from labeltrack._tables.render import portable
from labeltrack.bounds import resolve_all
from labeltrack.errors import missing_key

if TYPE_CHECKING:
    from labeltrack.bounds import Band, Bound, BoundName
    from labeltrack.history import History
    from labeltrack.stats import LabelStats

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Booleans = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Track:
    """One mode of a history.

    Attributes:
        mode: Its name.
        steps: ``(S,)`` steps recorded in it, ascending, counted from the origin of the scene.
        present: ``(K, S)`` whether the label occurred at the step.
        mean: ``(K, S)`` means, NaN where the label did not occur.
        bands: By name of bound, ``(low, centre, high)``, each ``(K, S)``, NaN where the label did not occur.
    """

    mode: str
    steps: Integers
    present: Booleans
    mean: Floats
    bands: dict[BoundName, Band]


@dataclass(frozen=True)
class Scene:
    """Everything that a form needs to draw.

    Attributes:
        metric: Name of the metric.
        label: Name of the label.
        x_label: What a step is.
        origin: What steps are counted from: 0, unless they are long numbers that only differ at the end.
        units: Unit of the metric; None for none.
        names: Display names of the K labels, in order of labels (or as the user listed them).
        tracks: The modes.
        bounds: The bounds.
        order: ``(K,)`` places of the labels, worst first.
        higher_is_worse: Whether a large mean is a bad one.
    """

    metric: str
    label: str
    x_label: str
    origin: int
    units: str | None
    names: list[str]
    tracks: tuple[Track, ...]
    bounds: tuple[Bound, ...]
    order: Integers
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
        track = self.tracks[-1]
        of = f" in mode {track.mode}" if len(self.tracks) > 1 else ""
        return f"worst first by the mean{of} at {self.x_label} {self.origin + int(track.steps[-1])}"


def collect(
    history: History,
    *,
    bounds: Any,
    modes: Any,
    labels: Any,
    x_label: str,
    units: str | None,
    higher_is_worse: bool,
) -> Scene:
    """Read a history into arrays; see `labeltrack.plot.plot_history` for the arguments and the errors."""
    resolved = resolve_all(bounds)
    if not len(history):
        msg = "the history is empty, so there is nothing to plot; call end_epoch() after at least one update() first"
        raise ValueError(msg)
    shown = _modes(history, modes)
    steps = {mode: history.steps(mode) for mode in shown}
    read = [history.at(step, mode) for mode in shown for step in steps[mode]]
    known, slots = _together([stats.labels for stats in read])
    if not known.size:
        msg = (
            f"the history has no labels in {_of_modes(shown)}, so there is nothing to plot; "
            "was update() called, and does label_mapping keep any label that occurs?"
        )
        raise ValueError(msg)
    names = _names(read, slots, known.size)
    kept = None if labels is None else _choose(labels, known, names, shown)
    origin = _origin([step for of_mode in steps.values() for step in (of_mode[0], of_mode[-1])])
    tracks, at = [], 0
    for mode in shown:
        here = slice(at, at + len(steps[mode]))
        tracks.append(
            _track(mode, [step - origin for step in steps[mode]], read[here], slots[here], known.size, resolved, kept)
        )
        at = here.stop
    return Scene(
        metric=history.metric,
        label=history.label,
        x_label=x_label,
        origin=origin,
        units=units,
        names=names if kept is None else [names[k] for k in kept],
        tracks=tuple(tracks),
        bounds=resolved,
        order=rank(tracks[-1], higher_is_worse=higher_is_worse),
        higher_is_worse=higher_is_worse,
    )


def _origin(ends: list[int]) -> int:
    """Return what steps are counted from; doubles, which are what is drawn, do not tell long numbers apart."""
    digits = max(len(str(abs(step))) for step in ends)
    short = len(str(max(ends) - min(ends))) <= digits - 4
    return min(ends) if digits > 9 and short else 0


def rank(track: Track, *, higher_is_worse: bool) -> Integers:
    """Return the places of the labels, worst first, by each one's mean at the last step at which it occurred.

    A NaN is worst, as in `History.worst`; labels that never occurred in this mode come last; ties keep their order.
    """
    last = track.present.shape[1] - 1 - np.argmax(track.present[:, ::-1], axis=1)
    means = track.mean[np.arange(last.size), last]
    ranked = -means if higher_is_worse else means
    return np.lexsort((ranked, ~np.isnan(ranked), ~track.present.any(axis=1))).astype(np.int64)


def shorten(name: str, limit: int) -> str:
    """Return a name on one line, its middle left out if it is longer than `limit` characters.

    The ends stay because that is where paths and numbered names differ.

    Example:
        >>> shorten("domain/books/english/fiction", 16), shorten("cat", 16)
        ('domain/b…fiction', 'cat')
    """
    line = "".join(char if char.isprintable() else " " for char in portable([name])[0]) or "(no name)"
    if len(line) <= limit:
        return line
    tail = (limit - 1) // 2
    return f"{line[: limit - 1 - tail]}…{line[-tail:]}"


def _modes(history: History, modes: Any) -> list[str]:
    """Return the modes to show, checked."""
    known = history.modes
    if modes is None:
        return known
    wanted = [modes] if isinstance(modes, str) or not isinstance(modes, Iterable) else list(dict.fromkeys(modes))
    if not wanted:
        msg = "modes is an empty iterable, so nothing would be drawn; pass None for every mode"
        raise ValueError(msg)
    for mode in wanted:
        if mode not in known:
            raise missing_key(mode, known, "mode")
    return [known[known.index(mode)] for mode in wanted]  # which are plain strings


def _of_modes(modes: list[str]) -> str:
    return f"mode {modes[0]!r}" if len(modes) == 1 else f"modes {', '.join(map(repr, modes))}"


def _together(parts: list[Array]) -> tuple[Array, list[Integers]]:
    """Return the union of label arrays and the place of each part's labels in it."""
    try:
        return union(parts)
    except TypeError:  # strings in one epoch, numbers in another: told apart by how they are written
        return union([written(part) for part in parts])


def _names(read: list[LabelStats], slots: list[Integers], n: int) -> list[str]:
    """Return the display name of every label."""
    names = np.empty(n, dtype=object)
    named = np.zeros(n, dtype=bool)
    for stats, places in zip(read, slots, strict=True):
        new = ~named[places]
        if new.any():  # names of an epoch are made on demand, and most epochs bring no new label
            names[places[new]] = stats.names[new].tolist()
            named[places] = True
    return [str(name) for name in names]


def _choose(labels: Any, known: Array, names: list[str], modes: list[str]) -> list[int]:
    """Return the places of the labels that the user lists, by value or display name."""
    wanted = [labels] if isinstance(labels, (str, bytes)) or not isinstance(labels, Iterable) else list(labels)
    if not wanted:
        msg = "labels is an empty iterable, so nothing would be drawn; pass None for every label"
        raise ValueError(msg)
    places: dict[Any, int] = {name: k for k, name in enumerate(names)}
    places.update({label: k for k, label in enumerate(known.tolist())})  # a label wins over a name
    found = []
    for label in wanted:
        value = plain_label(label)
        try:
            near = alias(value, widened=True)
            found.append(places[near if near in places and value not in places else value])
        except (KeyError, TypeError):  # a TypeError: not hashable, so no label
            listed = known.tolist()
            other = [name for name, value in zip(names, listed, strict=True) if name != str(value)]
            raise missing_key(label, [*listed, *other], f"label in {_of_modes(modes)}:") from None
    return list(dict.fromkeys(found))


def _track(
    mode: str,
    steps: list[int],
    read: list[LabelStats],
    slots: list[Integers],
    n: int,
    bounds: tuple[Bound, ...],
    kept: list[int] | None,
) -> Track:
    """Scatter the statistics of a mode into matrices, one row a label, one column a step."""
    shape = (n, len(steps))
    present = np.zeros(shape, dtype=bool)
    mean = np.full(shape, np.nan)
    bands: dict[BoundName, Band] = {
        bound.name: (np.full(shape, np.nan), np.full(shape, np.nan), np.full(shape, np.nan)) for bound in bounds
    }
    for column, (stats, places) in enumerate(zip(read, slots, strict=True)):
        present[places, column] = stats.present
        mean[places, column] = stats.mean
        for bound in bounds:
            with np.errstate(over="ignore", invalid="ignore"):  # mean ± std of infinite samples: shown as not finite
                edges = bound.band(stats)
            for matrix, edge in zip(bands[bound.name], edges, strict=True):
                matrix[places, column] = edge
    if kept is not None:
        present, mean = present[kept], mean[kept]
        bands = {name: (low[kept], centre[kept], high[kept]) for name, (low, centre, high) in bands.items()}
    return Track(mode, np.array(steps, dtype=np.int64), present, mean, bands)
