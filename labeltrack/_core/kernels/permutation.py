"""Compiled: where a part of each label's samples lies among random parts of the same size."""

from __future__ import annotations

from labeltrack._core.kernels.intrinsics import _jit


@_jit
def count_extreme(values, starts, sizes, least, most, labels, rounds, rng, found):
    """Count how many random parts of a label's samples have a sum of at least `least`, and of at most `most`.

    The values of each label, from `starts` on, are reordered. The numbers are added to ``(2, K)`` int64 `found`.
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
