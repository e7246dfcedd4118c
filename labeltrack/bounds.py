"""Bounds: the bands drawn around a mean, each a small piece of data with a name.

A bound says how its band is computed from a `LabelStats`, and under which key it is shown. ``"std"`` is
``mean - std .. mean + std`` with the sample standard deviation (ddof=1), ``"range"`` is ``min .. max``, ``"sem"`` is
the mean ∓ its standard error, ``"ci95"`` the interval of 95 % confidence of the mean, and ``None`` is no band at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from labeltrack._student import t_975

if TYPE_CHECKING:
    from labeltrack.stats import LabelStats

Floats = npt.NDArray[np.float64]
Band = tuple[Floats, Floats, Floats]
"""``(low, centre, high)``, each ``(K,)`` float64."""


@dataclass(frozen=True)
class Bound:
    """One kind of band.

    Attributes:
        name: What users call it; None for no band.
        key: Format of the graph key, with ``{metric}`` to fill in.
        description: What the band means, for captions.
        band: From statistics to ``(low, centre, high)``.
    """

    name: str | None
    key: str
    description: str
    band: Callable[[LabelStats], Band]

    def graph_key(self, metric: str) -> str:
        r"""Return the key of the metric with this bound.

        Example:
            >>> BOUNDS["range"].graph_key("ce")
            'ce ($min, \\mu, max$)'
        """
        return self.key.replace("{metric}", metric)


def _none(stats: LabelStats) -> Band:
    return stats.mean, stats.mean, stats.mean


def _std(stats: LabelStats) -> Band:
    return stats.mean - stats.std, stats.mean, stats.mean + stats.std


def _range(stats: LabelStats) -> Band:
    return stats.min, stats.mean, stats.max


def _sem(stats: LabelStats) -> Band:
    error = stats.sem
    return stats.mean - error, stats.mean, stats.mean + error


def _ci95(stats: LabelStats) -> Band:
    reach = t_975(stats.count - 1) * stats.sem
    return stats.mean - reach, stats.mean, stats.mean + reach


BOUNDS: dict[str | None, Bound] = {
    bound.name: bound
    for bound in (
        Bound(None, "{metric}", "mean", _none),
        Bound("std", "{metric} ($\\mu \\pm \\sigma$)", "mean ± one standard deviation", _std),
        Bound("range", "{metric} ($min, \\mu, max$)", "mean, from the smallest to the largest sample", _range),
        Bound("sem", "{metric} ($\\mu \\pm SE$)", "mean ± its standard error", _sem),
        Bound("ci95", "{metric} ($\\mu$, 95% CI)", "mean with its 95 % confidence interval", _ci95),
    )
}
"""Every bound by name."""


def resolve(bound: Any) -> Bound:
    """Return the bound of a name.

    Args:
        bound: None or a name.

    Raises:
        ValueError: There is no such bound; the message lists those there are.

    Example:
        >>> resolve("std").description
        'mean ± one standard deviation'
    """
    try:
        return BOUNDS[bound]
    except (KeyError, TypeError):
        allowed = ", ".join(repr(name) for name in BOUNDS)
        msg = f"bounds: unknown option {bound!r}; allowed are {allowed}, or an iterable of them"
        raise ValueError(msg) from None


def resolve_all(bounds: Any) -> tuple[Bound, ...]:
    """Return the bounds of a name, None, or an iterable of names and None, without repeats.

    Args:
        bounds: What the user gave.

    Raises:
        ValueError: An unknown name, or an empty iterable.

    Example:
        >>> [bound.name for bound in resolve_all(["std", None])]
        ['std', None]
    """
    if bounds is None or isinstance(bounds, str):
        return (resolve(bounds),)
    if not isinstance(bounds, Iterable):
        return (resolve(bounds),)  # raises
    found = tuple(dict.fromkeys(resolve(bound) for bound in bounds))
    if not found:
        allowed = ", ".join(repr(name) for name in BOUNDS)
        msg = f"bounds: an empty iterable; allowed are {allowed}, or an iterable of them"
        raise ValueError(msg)
    return found
