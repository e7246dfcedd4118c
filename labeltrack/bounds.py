"""Bounds: the bands drawn around a mean or median, each a small piece of data with a name.

A bound defines how its band is computed from a `LabelStats`, and the key under which it is shown. Around the mean:
``"std"`` is ± the sample standard deviation (ddof=1), ``"range"`` the minimum and maximum, ``"sem"`` ± the standard
error, ``"ci95"`` the 95 % confidence interval, and ``None`` no band. Around the median: ``"iqr"`` is the quartiles,
``("quantile", 0.05, 0.95)`` these quantiles, and ``"median"`` no band. Bounds around the median need the samples, not
their sums: they are computed at the end of an epoch, and merged statistics do not have them.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache, partial
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from labeltrack._core.arrays import Floats, Integers

if TYPE_CHECKING:
    from labeltrack._columns import ExactColumns

Band = tuple[Floats, Floats, Floats]
"""``(low, centre, high)``, each ``(K,)`` float64."""
BoundName = str | tuple[str, float, float] | None
"""Name of a bound: None, a string, or ``("quantile", low, high)``."""


class Default(enum.Enum):
    """Defaults of arguments that stand for what a tracker or a run has, where None means nothing."""

    TRACKER_BOUNDS = "the tracker's"
    RECORDED = "as recorded"

    def __repr__(self) -> str:
        return f"<{self.value}>"


TRACKER_BOUNDS: Final = Default.TRACKER_BOUNDS
"""Default of figures: the bounds of the tracker. None means no band."""
TrackerBounds = Literal[Default.TRACKER_BOUNDS]


@dataclass(frozen=True)
class Bound:
    """One kind of band."""

    name: BoundName
    key: str  # of graphs, with ``{metric}`` to fill in
    description: str  # for captions
    band: Callable[[ExactColumns], Band]
    quantiles: tuple[float, ...] = ()  # fractions of those that it needs, ascending
    wide: bool = True  # whether it is a band, not a single line

    @property
    def text(self) -> str:
        """The name as text without spaces, as for a column of a table: ``quantile_0.05_0.95``."""
        return "_".join(map(str, self.name)) if isinstance(self.name, tuple) else str(self.name).lower()

    def graph_key(self, metric: str) -> str:
        """Return the key of the metric with this bound."""
        return self.key.replace("{metric}", metric)


def _around(spread: str, stats: ExactColumns) -> Band:
    with np.errstate(over="ignore"):  # beyond the largest double
        reach = t_975(stats.count - 1) * stats.sem if spread == "ci95" else getattr(stats, spread)
        return stats.mean - reach, stats.mean, stats.mean + reach


def _quantiles(fractions: tuple[float, float, float], stats: ExactColumns) -> Band:
    low, centre, high = map(stats.quantile, fractions)
    return low, centre, high


def _of_quantiles(name: BoundName, key: str, description: str, low: float, high: float) -> Bound:
    used = tuple(sorted({low, 0.5, high}))
    return Bound(name, key, description, partial(_quantiles, (low, 0.5, high)), used, wide=low < high)


BOUNDS: dict[str | None, Bound] = {
    bound.name: bound  # type: ignore[misc]  # none of these is a tuple
    for bound in (
        Bound(None, "{metric}", "mean", attrgetter("mean", "mean", "mean"), wide=False),
        Bound("std", "{metric} ($\\mu \\pm \\sigma$)", "mean ± one standard deviation", partial(_around, "std")),
        Bound(
            "range",
            "{metric} ($min, \\mu, max$)",
            "mean, from the smallest to the largest sample",
            attrgetter("min", "mean", "max"),
        ),
        Bound("sem", "{metric} ($\\mu \\pm SE$)", "mean ± its standard error", partial(_around, "sem")),
        Bound("ci95", "{metric} ($\\mu$, 95% CI)", "mean with its 95 % confidence interval", partial(_around, "ci95")),
        _of_quantiles("median", "{metric} (median)", "median", 0.5, 0.5),
        _of_quantiles("iqr", "{metric} ($Q_1, Q_2, Q_3$)", "median, from the lower to the upper quartile", 0.25, 0.75),
    )
}
"""Every bound with a fixed name."""

QUANTILE = "quantile"  # first item of the tuple that names a bound of two quantiles


def resolve(bound: Any) -> Bound:
    """Return the bound of a name, or raise a ValueError that lists the allowed ones."""
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
    """Return the bounds of a name, None, or a non-empty iterable of names and None, without repeats."""
    if bounds is None or isinstance(bounds, str) or not isinstance(bounds, Iterable) or _is_quantile(bounds):
        return (resolve(bounds),)
    found = {bound.name: bound for bound in map(resolve, bounds)}
    if not found:
        msg = f"bounds: an empty iterable; allowed are {_allowed()}, or an iterable of them"
        raise ValueError(msg)
    return tuple(found.values())


def needed_quantiles(bounds: Iterable[Bound]) -> tuple[float, ...]:
    """Return the fractions of the quantiles that bounds need, ascending."""
    return tuple(sorted({fraction for bound in bounds for fraction in bound.quantiles}))


# -- quantiles of Student's t distribution ------------------------------------------------------------------

_NORMAL = 1.959963984540054  # the 0.975 quantile of the normal distribution
_MOST = 500  # degrees of freedom up to which the distribution function is solved; beyond, the expansion is as good


def t_975(degrees: Integers) -> Floats:
    """Return 0.975 quantiles of Student's t distribution, to about 14 digits; NaN without degrees of freedom.

    Sources are M. Abramowitz and I. A. Stegun, *Handbook of Mathematical Functions*: the distribution function is a
    finite sum (26.7.3 and 26.7.4), solved by Newton's method; for many degrees of freedom, five terms of the expansion
    in the quantile of the normal distribution (26.7.5) are off by less than one part in 10**13.
    """
    n = degrees.astype(np.float64)
    found = np.where(n >= 1, _expansion(np.maximum(n, 1.0)), np.nan)
    small = (n >= 1) & (n <= _MOST)
    distinct, places = np.unique(n[small], return_inverse=True)
    found[small] = np.array([_solved(int(one)) for one in distinct.tolist()], dtype=np.float64)[places]
    return found


def _expansion(n: Any) -> Any:
    x = _NORMAL
    terms = (
        (x**3 + x) / 4,
        (5 * x**5 + 16 * x**3 + 3 * x) / 96,
        (3 * x**7 + 19 * x**5 + 17 * x**3 - 15 * x) / 384,
        (79 * x**9 + 776 * x**7 + 1482 * x**5 - 1920 * x**3 - 945 * x) / 92160,
    )
    return x + sum(term / n**k for k, term in enumerate(terms, 1))


@cache
def _solved(n: int) -> float:
    if n == 1:
        return math.tan(math.pi * 0.475)
    t = float(_expansion(n)) if n > 2 else 4.3
    at_zero = math.lgamma((n + 1) / 2) - math.lgamma(n / 2) - 0.5 * math.log(n * math.pi)  # log of the density
    for _ in range(50):
        density = math.exp(at_zero - (n + 1) / 2 * math.log1p(t * t / n))
        step = (_within(t, n) - 0.95) / (2.0 * density)
        t -= step
        if abs(step) <= 1e-15 * t:
            break
    return t


def _within(t: float, n: int) -> float:
    """Return the probability of lying between -t and t."""
    theta = math.atan2(t, math.sqrt(n))
    sine, cosine = math.sin(theta), math.cos(theta)
    odd = n % 2
    term, terms = (cosine, [cosine]) if odd else (1.0, [1.0])
    for k in range(3 if odd else 2, n - 1, 2):
        term *= (k - 1) / k * cosine * cosine
        terms.append(term)
    total = sine * math.fsum(terms)
    return 2.0 / math.pi * (theta + total) if odd else total
