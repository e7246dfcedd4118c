"""What is measured: the data of each case and the answers that it must give."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Case:
    """One point on the axes of the suite.

    Attributes:
        samples: Number of samples.
        labels: Number of labels; they are the integers from 0 on, in random order.
        label_dtype: Dtype of the labels.
        value_dtype: Dtype of the values.
    """

    samples: int
    labels: int
    label_dtype: str = "int64"
    value_dtype: str = "float32"

    def data(self, seed: int = 0) -> tuple[Array, Array]:
        """Return ``(N,)`` labels and ``(N,)`` values.

        The values are exponentially distributed: positive, skewed, some close to zero, as a per-sample loss is.
        """
        rng = np.random.default_rng(seed)
        labels = rng.integers(0, self.labels, self.samples, dtype=self.label_dtype)
        # Drawn in their own precision: float64 values that are float32 in disguise would flatter.
        return labels, rng.standard_exponential(self.samples, dtype=np.dtype(self.value_dtype))

    def __str__(self) -> str:
        """Return the case in words."""
        return f"{self.samples:,} samples, {self.labels:,} labels, {self.label_dtype}, {self.value_dtype}"


@dataclass(frozen=True, eq=False)
class Answer:
    """One row for each label that occurs, sorted by label; every column ``(K,)``."""

    labels: Array
    count: Array
    mean: Array
    std: Array
    min: Array
    max: Array

    def occurring(self) -> Answer:
        """Return the answer without the rows of labels that have no samples."""
        keep = np.asarray(self.count) > 0
        return self if keep.all() else Answer(*(np.asarray(getattr(self, f.name))[keep] for f in fields(self)))


def reference(labels: Array, values: Array) -> Answer:
    """Return the answer by two passes of plain float64 numpy, which shares no code with what is measured.

    Sums in float64 are off by about ``N / 2**53``, far less than any tolerance used here.
    """
    size = int(labels.max()) + 1 if labels.size else 0
    wide = values.astype(np.float64)
    count = np.bincount(labels, minlength=size)
    low, high = np.full(size, np.inf), np.full(size, -np.inf)
    np.minimum.at(low, labels, wide)
    np.maximum.at(high, labels, wide)
    with np.errstate(invalid="ignore"):  # labels without samples; they are dropped
        mean = np.bincount(labels, weights=wide, minlength=size) / count
    deviation = wide - mean[labels]
    squares = np.bincount(labels, weights=deviation * deviation, minlength=size)
    std = np.sqrt(squares / np.maximum(count - 1, 1))
    return Answer(np.arange(size), count, mean, std, low, high).occurring()


def exact_reference(labels: Array, values: Array) -> Answer:
    """Return the answer by the standard library's rational arithmetic, rounded once; for small arrays."""
    found = np.unique(labels)
    rows = []
    for label in found.tolist():
        samples = values[labels == label].astype(np.float64).tolist()
        std = statistics.stdev(samples) if len(samples) > 1 else 0.0
        rows.append((label, len(samples), statistics.mean(samples), std, min(samples), max(samples)))
    return Answer(*(np.array(column) for column in zip(*rows, strict=True)))


def check(name: str, answer: Answer, expected: Answer, rtol: float) -> float:
    """Assert that an answer is right.

    Args:
        name: Whose answer it is, for the message.
        answer: What was computed.
        expected: What is right.
        rtol: Largest error allowed of mean and standard deviation, as a part of the mean or of the standard deviation,
            whichever is larger: peers lose digits to cancellation where samples lie close together, which is for the
            returned error to tell, not for an assertion. The other columns must be equal. With 0.0 every
            column must be, bit for bit.

    Returns:
        The largest error of mean and standard deviation relative to themselves.

    Raises:
        AssertionError: The answer is wrong.
    """
    for column in ("labels", "count", "min", "max"):
        got, right = np.asarray(getattr(answer, column)), getattr(expected, column)
        assert np.array_equal(got, right), f"{name}: {column} is wrong"
    worst = 0.0
    scale = np.maximum(np.abs(expected.mean), expected.std)
    for column in ("mean", "std"):
        # One sample has no standard deviation: peers call it NaN or null, labeltrack 0.0.
        judged = np.full(scale.shape, fill_value=True) if column == "mean" or rtol == 0.0 else expected.count > 1
        got, right = np.asarray(getattr(answer, column), dtype=np.float64)[judged], getattr(expected, column)[judged]
        error = np.abs(got - right)
        assert not np.isnan(error).any(), f"{name}: {column} has NaN where there is a number"
        allowed = rtol * scale[judged]
        assert (error <= allowed).all(), f"{name}: {column} is off by {error.max():.2g}, allowed is {rtol:.2g} of it"
        # Where 0.0 is right, the error is taken as it is.
        worst = max(worst, float((error / np.where(right == 0.0, 1.0, np.abs(right))).max(initial=0.0)))
    return worst
