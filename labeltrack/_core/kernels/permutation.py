"""Compiled: where a part of each label's samples lies among random parts of the same size."""

from __future__ import annotations

from typing import Any

from labeltrack._core.kernels.intrinsics import _jit


@_jit
def count_extreme(
    values: Any, starts: Any, sizes: Any, least: Any, most: Any, labels: Any, rounds: int, rng: Any, found: Any
) -> None:
    """Count how many random parts of a label's samples have a sum of at least `least`, and of at most `most`.

    Args:
        values: ``(N,)`` float64, those of each label side by side; reordered in place.
        starts: ``(K + 1,)`` int64: where the samples of each label begin.
        sizes: ``(K,)`` int64: how many samples a part of each label has.
        least: ``(K,)`` float64.
        most: ``(K,)`` float64.
        labels: ``(L,)`` int64: the labels to look at.
        rounds: How many parts to draw of each.
        rng: A `numpy.random.Generator`.
        found: ``(2, K)`` int64, to which the numbers are added.
    """
    for k in labels:
        start, size = starts[k], starts[k + 1] - starts[k]
        for _ in range(rounds):
            total = 0.0
            for i in range(sizes[k]):
                j = start + i + int(rng.random() * (size - i))
                value = values[j]
                values[j], values[start + i] = values[start + i], value
                total += value
            found[0, k] += total >= least[k]
            found[1, k] += total <= most[k]
