"""Bounds: the bands drawn around a mean or median, each a small piece of data with a name.

A bound defines how its band is computed from a `LabelStats`, and the key under which it is shown. Around the mean:
``"std"`` is ± the sample standard deviation (ddof=1), ``"range"`` the minimum and maximum, ``"sem"`` ± the standard
error, ``"ci95"`` the 95 % confidence interval, and ``None`` no band. Around the median: ``"iqr"`` is the quartiles,
``("quantile", 0.05, 0.95)`` these quantiles, and ``"median"`` no band. Bounds around the median need the samples, not
their sums: they are computed at the end of an epoch, and merged statistics do not have them.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Literal, Protocol

import numpy as np
import numpy.typing as npt

from labeltrack._core.student import t_975

Floats = npt.NDArray[np.float64]
Band = tuple[Floats, Floats, Floats]
"""``(low, centre, high)``, each ``(K,)`` float64."""
BoundName = str | tuple[str, float, float] | None
"""Name of a bound: None, a string, or ``("quantile", low, high)``."""


class Columns(Protocol):
    """What a band is computed from: ``(K,)`` columns of `labeltrack.LabelStats`."""

    @property
    def count(self) -> npt.NDArray[np.int64]: ...  # noqa: D102
    @property
    def mean(self) -> Floats: ...  # noqa: D102
    @property
    def std(self) -> Floats: ...  # noqa: D102
    @property
    def sem(self) -> Floats: ...  # noqa: D102
    @property
    def min(self) -> Floats: ...  # noqa: D102
    @property
    def max(self) -> Floats: ...  # noqa: D102
    def quantile(self, fraction: float, /) -> Floats: ...  # noqa: D102


class _Default(enum.Enum):
    TRACKER_BOUNDS = "the tracker's"

    def __repr__(self) -> str:
        return f"<{self.value}>"


TRACKER_BOUNDS: Final = _Default.TRACKER_BOUNDS
"""Default of figures: the bounds of the tracker. None means no band."""
TrackerBounds = Literal[_Default.TRACKER_BOUNDS]


@dataclass(frozen=True)
class Bound:
    """One kind of band.

    Attributes:
        name: Name in the API; None for the mean alone.
        key: Format of the graph key, with ``{metric}`` to fill in.
        description: What the band means, for captions.
        band: From statistics to ``(low, centre, high)``.
        quantiles: Fractions of the quantiles that it needs, ascending.
        wide: Whether it is a band, not a single line.
    """

    name: BoundName
    key: str
    description: str
    band: Callable[[Columns], Band]
    quantiles: tuple[float, ...] = ()
    wide: bool = True

    @property
    def text(self) -> str:
        """The name as text without spaces, as for a column of a table.

        Example:
            >>> resolve(("quantile", 0.05, 0.95)).text
            'quantile_0.05_0.95'
        """
        return "_".join(map(str, self.name)) if isinstance(self.name, tuple) else str(self.name).lower()

    def graph_key(self, metric: str) -> str:
        r"""Return the key of the metric with this bound.

        Example:
            >>> BOUNDS["range"].graph_key("ce")
            'ce ($min, \\mu, max$)'
        """
        return self.key.replace("{metric}", metric)


def _none(stats: Columns) -> Band:
    return stats.mean, stats.mean, stats.mean


def _around(mean: Floats, reach: Floats) -> Band:
    with np.errstate(over="ignore"):  # beyond the largest double
        return mean - reach, mean, mean + reach


def _std(stats: Columns) -> Band:
    return _around(stats.mean, stats.std)


def _range(stats: Columns) -> Band:
    return stats.min, stats.mean, stats.max


def _sem(stats: Columns) -> Band:
    return _around(stats.mean, stats.sem)


def _ci95(stats: Columns) -> Band:
    with np.errstate(over="ignore"):
        return _around(stats.mean, t_975(stats.count - 1) * stats.sem)


def _quantiles(fractions: tuple[float, float, float], stats: Columns) -> Band:
    low, centre, high = (stats.quantile(fraction) for fraction in fractions)
    return low, centre, high


def _of_quantiles(name: BoundName, key: str, description: str, low: float, high: float) -> Bound:
    used = tuple(sorted({low, 0.5, high}))
    return Bound(name, key, description, partial(_quantiles, (low, 0.5, high)), used, wide=low < high)


BOUNDS: dict[str | None, Bound] = {
    bound.name: bound  # type: ignore[misc]  # none of these is a tuple
    for bound in (
        Bound(None, "{metric}", "mean", _none, wide=False),
        Bound("std", "{metric} ($\\mu \\pm \\sigma$)", "mean ± one standard deviation", _std),
        Bound("range", "{metric} ($min, \\mu, max$)", "mean, from the smallest to the largest sample", _range),
        Bound("sem", "{metric} ($\\mu \\pm SE$)", "mean ± its standard error", _sem),
        Bound("ci95", "{metric} ($\\mu$, 95% CI)", "mean with its 95 % confidence interval", _ci95),
        _of_quantiles("median", "{metric} (median)", "median", 0.5, 0.5),
        _of_quantiles("iqr", "{metric} ($Q_1, Q_2, Q_3$)", "median, from the lower to the upper quartile", 0.25, 0.75),
    )
}
"""Every bound with a fixed name."""

QUANTILE = "quantile"
"""First item of the tuple that names a bound of two quantiles."""


def resolve(bound: Any) -> Bound:
    """Return the bound of a name.

    Args:
        bound: None, a string, or ``("quantile", low, high)`` with two numbers from 0 to 1.

    Raises:
        ValueError: The bound is unknown; the message lists the allowed ones.

    Example:
        >>> resolve("std").description
        'mean ± one standard deviation'
        >>> resolve(("quantile", 0.05, 0.95)).description
        'median, from the 5 % to the 95 % quantile'
    """
    if _is_quantile(bound):
        return _between(bound)
    try:
        return BOUNDS[bound]
    except (KeyError, TypeError):
        msg = f"bounds: unknown option {bound!r}; allowed are {_allowed()}, or an iterable of them"
        raise ValueError(msg) from None


def _allowed() -> str:
    return ", ".join([*(repr(name) for name in BOUNDS), "('quantile', low, high)"])


def _is_quantile(bound: Any) -> bool:
    """Return whether this is meant as a bound of two quantiles; after JSON it is a list."""
    return isinstance(bound, (tuple, list)) and len(bound) > 0 and isinstance(bound[0], str) and bound[0] == QUANTILE


def _between(bound: Any) -> Bound:
    """Return the bound of two quantiles."""
    try:
        _, low, high = (QUANTILE, *map(float, bound[1:]))
    except (TypeError, ValueError):
        low, high = 1.0, 0.0
    if not 0.0 <= low < high <= 1.0:
        msg = (
            f"bounds: {bound!r} is not a band; give its two quantiles, between 0 and 1 and the lower one first, "
            "such as ('quantile', 0.05, 0.95)"
        )
        raise ValueError(msg)
    low += 0.0  # -0.0 is 0.0
    said = [f"{100 * fraction:.10g}" for fraction in (low, high)]
    return _of_quantiles(
        (QUANTILE, low, high),
        f"{{metric}} ($Q_{{{said[0]}\\%}}, Q_{{50\\%}}, Q_{{{said[1]}\\%}}$)",
        f"median, from the {said[0]} % to the {said[1]} % quantile",
        low,
        high,
    )


def resolve_all(bounds: Any) -> tuple[Bound, ...]:
    """Return the bounds of a name, None, or an iterable of names and None, without repeats.

    Args:
        bounds: As given by the user; see `resolve`.

    Raises:
        ValueError: An unknown name, or an empty iterable.

    Example:
        >>> [bound.name for bound in resolve_all(["std", None])]
        ['std', None]
        >>> [bound.name for bound in resolve_all(("quantile", 0.1, 0.9))]
        [('quantile', 0.1, 0.9)]
    """
    if bounds is None or isinstance(bounds, str) or not isinstance(bounds, Iterable) or _is_quantile(bounds):
        return (resolve(bounds),)
    found = {bound.name: bound for bound in map(resolve, bounds)}
    if not found:
        msg = f"bounds: an empty iterable; allowed are {_allowed()}, or an iterable of them"
        raise ValueError(msg)
    return tuple(found.values())


def needed_quantiles(bounds: Iterable[Bound]) -> tuple[float, ...]:
    """Return the fractions of the quantiles that bounds need, ascending.

    Example:
        >>> needed_quantiles(resolve_all(["std", "iqr", "median"]))
        (0.25, 0.5, 0.75)
    """
    return tuple(sorted({fraction for bound in bounds for fraction in bound.quantiles}))
