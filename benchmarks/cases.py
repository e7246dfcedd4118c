"""What is measured: the data of each case and the answers that it must give."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


SPARSE, STRING, WORDS = "sparse int64", "string", "words"
"""Labels that are no small integers: int64 spread over their whole range, and fixed-width strings, ``class 000042`` and
words of three to twelve letters."""


@dataclass(frozen=True)
class Case:
    """One point on the axes of the suite.

    Attributes:
        samples: Number of samples.
        labels: Number of labels.
        label_dtype: Dtype of the labels, the integers from 0 on; or `SPARSE`, `STRING` or `WORDS`.
        value_dtype: Dtype of the values.
        order: ``"uniform"``: each label as likely as the others, in random order; ``"zipf"``: label k has a part of
            1 / (k + 1); ``"sorted"``: uniform, all samples of a label one after the other; ``"one"``: all samples have
            one label of them.
        losses: How the values are distributed: ``"exponential"``, ``"gamma"`` (shape 2), ``"lognormal 1"`` and
            ``"lognormal 2"`` (sigma), or ``"hits"``: zeros and ones.
    """

    samples: int
    labels: int
    label_dtype: str = "int64"
    value_dtype: str = "float32"
    order: str = "uniform"
    losses: str = "exponential"

    @property
    def dense(self) -> bool:
        """Whether the labels are 0 … K−1, as some can only take them."""
        return self.label_dtype not in (SPARSE, STRING, WORDS)

    def data(self, seed: int = 0) -> tuple[Array, Array]:
        """Return ``(N,)`` labels and ``(N,)`` values.

        By default the values are exponentially distributed: positive, skewed, some close to zero, as a per-sample loss
        is.
        """
        rng = np.random.default_rng(seed)
        codes = self._codes(rng)
        # Drawn in their own precision: float64 values that are float32 in disguise would flatter.
        values = self._losses(rng, np.dtype(self.value_dtype))
        if self.label_dtype == SPARSE:
            # Multiplied with an odd number modulo 2**64: as many different labels, anywhere.
            spread = codes.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
            return spread.view(np.int64), values
        if self.label_dtype == STRING:
            return np.array([f"class {k:06d}" for k in range(self.labels)])[codes], values
        if self.label_dtype == WORDS:
            return _words(self.labels)[codes], values
        return codes, values

    def _losses(self, rng: np.random.Generator, dtype: np.dtype[Any]) -> Array:
        if self.losses == "exponential":
            return rng.standard_exponential(self.samples, dtype=dtype)
        if self.losses == "gamma":
            return rng.standard_gamma(2.0, self.samples, dtype=dtype)
        if self.losses == "hits":
            return rng.integers(0, 2, self.samples).astype(dtype)
        return rng.lognormal(0.0, float(self.losses.split()[1]), self.samples).astype(dtype)

    def _codes(self, rng: np.random.Generator) -> Array:
        dtype = self.label_dtype if self.dense else "int64"
        if self.order == "one":
            return np.full(self.samples, self.labels // 2, dtype=dtype)
        if self.order == "zipf":
            part = np.cumsum(1.0 / np.arange(1, self.labels + 1))
            ranks: Array = np.searchsorted(part, rng.random(self.samples) * part[-1]).astype(dtype)
            return ranks
        codes: Array = rng.integers(0, self.labels, self.samples, dtype=dtype)
        return np.sort(codes) if self.order == "sorted" else codes

    def __str__(self) -> str:
        """Return the case in words."""
        return (
            f"{self.samples:,} samples, {self.labels:,} labels ({self.order}), {self.label_dtype}, {self.value_dtype}"
            + ("" if self.losses == "exponential" else f", {self.losses}")
        )


def _words(count: int) -> Array:
    """Return so many different words of three to twelve letters, sorted."""
    rng = np.random.default_rng(count)
    words: set[str] = set()
    while len(words) < count:
        words.add("".join(map(chr, rng.integers(ord("a"), ord("z") + 1, rng.integers(3, 13)).tolist())))
    return np.array(sorted(words), dtype="U12")


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
    found = None
    if labels.dtype.kind == "U" or (labels.size and not 0 <= labels.min() <= labels.max() <= 100 * labels.size):
        found, labels = np.unique(labels, return_inverse=True)
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
    return Answer(np.arange(size) if found is None else found, count, mean, std, low, high).occurring()


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
        lost = np.isnan(error)
        # The textbook formula makes negative variances where the samples of a label lie close together.
        assert lost.mean() <= 0.001 * (rtol >= 1e-2), f"{name}: {column} has NaN where there is a number"
        error[lost] = 0.0
        allowed = rtol * scale[judged]
        assert (error <= allowed).all(), f"{name}: {column} is off by {error.max():.2g}, allowed is {rtol:.2g} of it"
        # Where 0.0 is right, the error is taken as it is.
        worst = max(worst, float((error / np.where(right == 0.0, 1.0, np.abs(right))).max(initial=0.0)))
    return worst
