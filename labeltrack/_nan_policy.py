"""The ``nan_policy`` option: how NaN and infinite samples, which are counted apart, enter statistics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, cast, get_args

import numpy as np
import numpy.typing as npt

from labeltrack._core.arrays import Integers
from labeltrack._core.rounding import Totals
from labeltrack.errors import NaNError, check_option

NanPolicy = Literal["propagate", "omit", "raise"]


def check_nan_policy(policy: Any) -> NanPolicy:
    """Return the policy, or raise ValueError listing the allowed ones."""
    check_option("nan_policy", policy, get_args(NanPolicy))
    return cast("NanPolicy", policy)


def check_finite(nan: Integers, names: Callable[[], npt.NDArray[np.str_]]) -> None:
    """Raise NaNError if any label has NaN samples; `nan` and `names()` are ``(K,)``."""
    where = np.flatnonzero(nan)
    if where.size:
        found = ", ".join(f"{names()[k]} ({nan[k]})" for k in where[:10].tolist())
        more = f", … ({where.size} labels in all)" if where.size > 10 else ""
        msg = (
            f"{int(nan.sum())} NaN samples under nan_policy='raise', by label (how many): {found}{more}. "
            "Use nan_policy='omit' to ignore them, or 'propagate' to make the statistics of their labels NaN"
        )
        raise NaNError(msg)


def with_nonfinite(finite: Totals, nonfinite: Integers, policy: NanPolicy) -> Totals:
    """Return the statistics of all samples, from those of the finite ones and ``(K, 3)`` counts of NaN, inf, -inf."""
    nan, up, down = nonfinite.T
    count, total, mean, std, low, high = finite
    count = count + up + down
    if up.any() or down.any():
        either, both = (up + down) > 0, (up > 0) & (down > 0)
        infinite = np.where(both, np.nan, np.where(up > 0, np.inf, -np.inf))
        total, mean = np.where(either, infinite, total), np.where(either, infinite, mean)
        std = np.where(either, np.nan, std)
        low = np.where(down > 0, -np.inf, np.where((up > 0) & np.isnan(low), np.inf, low))
        high = np.where(up > 0, np.inf, np.where((down > 0) & np.isnan(high), -np.inf, high))
    if policy == "propagate" and nan.any():
        count = count + nan
        total, mean, std, low, high = (np.where(nan > 0, np.nan, x) for x in (total, mean, std, low, high))
    return Totals(count, total, mean, std, low, high)
