"""Alarms over many looks at a run, whose chance of being false does not grow with the number of looks."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from labeltrack._core.arrays import Array, Floats, Integers
from labeltrack._labels.combined import union
from labeltrack._significance.choice import FEWEST, MOST_SKEW, compare_stats
from labeltrack._significance.comparison import NO_EVIDENCE, TOO_FEW, WORSE, Comparison, check_alpha
from labeltrack._significance.p_values import (
    adjusted,
    change,
    moments,
    scipy_special,
    skew_error,
    together,
    units,
    welch,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from labeltrack._significance.p_values import Moments
    from labeltrack.stats import LabelStats


_RHO = 7.9  # t ρ² where the sequence for α = 0.05 is narrowest: -2 log(α) + log(1 - 2 log(α))


class Alarm(NamedTuple):
    """A label that got worse.

    Attributes:
        label: Label value.
        name: Display name.
        step: The first step at which that was certain enough.
        mean_before: Mean at the step that is compared with.
        mean: Mean at the last step at which the label has samples.
        difference: ``mean - mean_before``.
        p: Anytime-valid p-value: the smallest so far, and valid at any number of looks.
        q: p after Benjamini and Hochberg across the labels.
    """

    label: Any
    name: str
    step: int
    mean_before: float
    mean: float
    difference: float
    p: float
    q: float


def find_alarms(
    reference: LabelStats, looks: Sequence[tuple[int, LabelStats]], *, higher_is_worse: bool, alpha: float
) -> list[Alarm]:
    """Return the labels that got worse since a step, the largest change first; see `labeltrack.History.alarms`."""
    check_alpha(alpha)
    labels, (places, *others) = union([reference.labels, *(stats.labels for _, stats in looks)])
    names = dict(zip(places.tolist(), reference.names.tolist(), strict=True))
    old, last = moments(reference, places, len(labels)), np.full(len(labels), np.nan)
    step, q = np.zeros(len(labels), dtype=np.int64), np.ones(len(labels))
    p = np.full(len(labels), np.nan)
    found_p = anytime_p(old, looks, others, higher_is_worse=higher_is_worse)
    for (at, stats), here, p in zip(looks, others, found_p, strict=True):
        names.update(zip(here.tolist(), stats.names.tolist(), strict=True))
        last[here[stats.present]] = stats.mean[stats.present]
        before, q = q, np.nan_to_num(adjusted(p), nan=1.0)
        step[(q < alpha) & ~(before < alpha)] = at
    difference, _ = change(old.mean, last)
    bad = difference if higher_is_worse else -difference
    order = np.lexsort([-bad, ~np.isnan(bad)])
    columns = step, old.mean, last, difference, p, q
    return [
        Alarm(labels[k : k + 1].tolist()[0], names[k], *(column[k].item() for column in columns))
        for k in order[q[order] < alpha].tolist()
    ]


def compare_looks(
    reference: LabelStats, looks: Sequence[tuple[int, LabelStats]], *, higher_is_worse: bool, alpha: float, **about: str
) -> Comparison:
    """Compare a step with the last of some looks, with the anytime-valid p-values of all of them; see `find_alarms`."""
    options: Any = {"higher_is_worse": higher_is_worse, "alpha": alpha, **about}
    found = compare_stats(reference, looks[-1][1], **options)
    labels, (places, *others) = union([reference.labels, *(stats.labels for _, stats in looks)])
    *_, p = anytime_p(moments(reference, places, len(labels)), looks, others, higher_is_worse=higher_is_worse)
    p = p[union([labels, found.labels])[1][1]]
    q, untested = adjusted(p), np.isnan(p)
    verdict = np.where(q < alpha, WORSE, np.where(untested, TOO_FEW, NO_EVIDENCE))
    method = np.where(untested, found.method, "anytime-valid, of all steps since")
    none = np.full(len(found), np.nan)
    return replace(found, p=p, q=q, verdict=verdict, method=method, low=none, high=none.copy())


def anytime_p(
    old: Moments, looks: Sequence[tuple[int, LabelStats]], places: Sequence[Integers], *, higher_is_worse: bool
) -> Iterator[Floats]:
    """Yield ``(K,)`` anytime-valid p-values that labels got worse after each look: the smaller of two, NaN without any.

    - All samples since the reference, by the asymptotic confidence sequence of Waudby-Smith, Arbour, Sinha, Kennedy and
      Ramdas (Time-uniform central limit theory and asymptotic confidence sequences, Annals of Statistics 52, 2024),
      whose half-width at time t is ``std · sqrt(2 (t ρ² + 1) / (t² ρ²) · log(sqrt(t ρ² + 1) / α))``; p is the α at
      which it just does not contain 0. Time is information, ``1 / variance`` of the difference of means, so that std is
      1: its score is a Brownian motion in it, although all looks share the reference. This sees changes that last.
    - The samples of look k alone, by Welch's t, with ``1 / (k (k + 1))`` of α, which sum to 1. This sees sudden ones.

    Both are two-sided: p is doubled for two chances, and halved for one direction.
    """
    size, sign = old.count.shape[0], 1.0 if higher_is_worse else -1.0
    later = (moments(stats, here, size) for (_, stats), here in zip(looks, places, strict=True))
    scale = units(itertools.chain([old], later))
    old = old.scaled(scale)
    running, rho, seen = np.full(size, np.nan), np.full(size, np.nan), np.zeros(size, dtype=np.int64)
    since: Moments | None = None
    for (_, stats), here in zip(looks, places, strict=True):
        now = moments(stats, here, size).scaled(scale)
        since = now if since is None else together(since, now)
        enough = (old.count >= FEWEST) & (now.count >= FEWEST)
        broken = enough & ~np.isnan(old.mean - old.std) & np.isnan(now.mean - now.std)  # std may overflow
        seen[enough] += 1
        with np.errstate(all="ignore"):
            p_now = _worse(old, now, enough, sign) * seen * (seen + 1.0)
            p_since = _worse(old, since, enough, sign)
            information = 1 / (old.std**2 / old.count + since.std**2 / since.count)
            rho = np.where(np.isnan(rho) & enough, _RHO / information, rho)  # narrowest where looks begin
            growth = information * rho
            z = -scipy_special().ndtri(p_since / 2)
            p_since = np.sqrt(growth + 1) * np.exp(-(z**2) / 2 * growth / (growth + 1))
        p = np.where(broken, 0.0, np.minimum(1.0, np.fmin(p_now, p_since)))
        running = np.where(enough, np.fmin(running, p), running)
        yield running


def _worse(old: Moments, new: Moments, enough: Array, sign: float) -> Floats:
    """Return Welch's p-values of worse labels; 1 for the others, and where the test does not hold its level."""
    with np.errstate(invalid="ignore"):
        sure = enough & (sign * (new.mean - old.mean) > 0) & ~(skew_error(old, new) > MOST_SKEW)
    p = np.ones(enough.shape[0])
    p[sure] = welch(old.at(sure), new.at(sure)).p
    return p
