"""Statistics by label as a metric of torchmetrics: what somebody who knows that library well would write.

It has none of its own. A `torchmetrics.MeanMetric` and its like for each label, fed with ``values[labels == k]``, take
a pass over the samples for each label: 20 times as long with a hundred of them. The states here are what
`torchmetrics.classification` has, a tensor of one entry a label.
"""

from __future__ import annotations

from typing import Any

import torch
import torchmetrics


class LabelMetric(torchmetrics.Metric):  # type: ignore[misc]  # is Any where torch is not installed
    """Count, mean, sample standard deviation, minimum and maximum by label, in float64 but for the extremes.

    Args:
        size: Number of labels, which are 0 … K−1.
    """

    full_state_update = False
    count: Any
    total: Any
    squares: Any
    low: Any
    high: Any

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.add_state("count", torch.zeros(size, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("total", torch.zeros(size, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("squares", torch.zeros(size, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("low", torch.full((size,), torch.inf), dist_reduce_fx="min")
        self.add_state("high", torch.full((size,), -torch.inf), dist_reduce_fx="max")

    def update(self, labels: Any, values: Any) -> None:
        """Add ``(N,)`` labels and ``(N,)`` values."""
        wide = values.double()
        # bincount sums weights in float64, and takes two thirds of the time of index_add_.
        self.count += torch.bincount(labels, minlength=self.size)
        self.total += torch.bincount(labels, weights=wide, minlength=self.size)
        self.squares += torch.bincount(labels, weights=wide * wide, minlength=self.size)
        places = labels.long()
        if self.low.dtype != values.dtype:
            self.low, self.high = self.low.to(values.dtype), self.high.to(values.dtype)
        self.low.scatter_reduce_(0, places, values, "amin")
        self.high.scatter_reduce_(0, places, values, "amax")

    def compute(self) -> tuple[Any, ...]:
        """Return count, mean, std, min and max, each ``(K,)``."""
        mean = self.total / self.count
        spread = (self.squares - self.total * mean).clamp(min=0.0) / (self.count - 1).clamp(min=1)
        return self.count, mean, spread.sqrt(), self.low, self.high
