"""Fixed-width strings to codes, in compiled code, by the bytes of their rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from labeltrack._core import kernels
from labeltrack._core.arrays import read_only
from labeltrack._core.threads import all_at_once, default_threads

Array = npt.NDArray[Any]
Integers = npt.NDArray[np.int64]

_FIRST = 1 << 11  # codes that there is room for at first, if there are as many rows
_ALONE = 1 << 15  # rows that one thread codes before others join in, who know only what it has seen
_NEIGHBOURS = 4  # rows of a sample that lie next to each other
_TOGETHER = 1 << 20  # rows that all code at a time, before those that were new to them are looked at


def encode_strings(labels: Array, *, threads: int | None = None) -> tuple[npt.NDArray[np.int32], Integers]:
    """Code fixed-width strings.

    Args:
        labels: ``(N,)`` dtype ``U`` or ``S``.
        threads: How many threads share the work; None chooses by the number of labels.

    Returns:
        ``(N,)`` codes in order of appearance, and for each code the index where it first appeared.

    Example:
        >>> encode_strings(np.array(["b", "a", "b"]))
        (array([0, 1, 0], dtype=int32), array([0, 1]))
    """
    unit = 4 if labels.dtype.kind == "U" else 1
    width = max(labels.dtype.itemsize, unit)
    if width % 8 or labels.dtype.itemsize == 0:  # rows are compared in words of eight bytes
        width = -(-width // 8) * 8
        labels = labels.astype(f"{labels.dtype.kind}{width // unit}")
    words = read_only(np.ascontiguousarray(labels).view(np.uint64).reshape(-1))
    coder = _Coder(words, width // 8, labels.shape[0])
    threads = default_threads(labels.shape[0]) if threads is None else threads
    if threads == 1:
        coder.code(0, coder.rows)
    else:
        coder.code_together(threads)
    return coder.codes, coder.first[: coder.n].copy()


def sample_rows(labels: Array, wanted: int) -> Array:
    """Return about so many labels from all over ``(N,)`` ones, all if there are no more.

    Some lie next to each other: what takes the time is memory that has not been read yet.
    """
    if labels.shape[0] <= wanted:
        return labels
    step = -(-labels.shape[0] // wanted) * _NEIGHBOURS
    return labels[: labels.shape[0] // step * step].reshape(-1, step)[:, :_NEIGHBOURS].reshape(-1)


class _Coder:
    """Codes of rows, and what is known of them so far.

    Args:
        words: ``(N * width,)`` uint64.
        width: Words of a row.
        rows: N.
    """

    def __init__(self, words: Array, width: int, rows: int) -> None:
        self.words = words
        self.width = width
        self.rows = rows
        self.codes = np.empty(rows, dtype=np.int32)
        self.n = 0
        self._make_room(min(_FIRST, 1 << max(4, (rows - 1).bit_length())))

    def _make_room(self, capacity: int) -> None:
        self._table = np.full(4 * capacity, -1, dtype=np.int32)
        self._known = np.empty(capacity * self.width, dtype=np.uint64)
        self._varying = np.zeros(1 + self.width, dtype=np.int64)
        self.first = np.empty(capacity, dtype=np.int64)

    def _grow(self) -> None:
        """Make room for more codes. Coding the known rows in their order gives each the code it has."""
        known, first, n = read_only(self._known), self.first, self.n
        self._make_room(4 * first.shape[0])
        state = (self._table, self._known, self._varying, self.first)
        module, codes = kernels.strings, np.empty(n, dtype=np.int32)
        module.encode_rows(known, self.width, 0, n, module.ALL_ROWS, *state, 0, codes)
        self.first[:n] = first[:n]

    def _run(self, start: int, stop: int, mode: int) -> tuple[int, int, int]:
        state = (self._table, self._known, self._varying, self.first)
        found: tuple[int, int, int] = kernels.strings.encode_rows(
            self.words, self.width, start, stop, mode, *state, self.n, self.codes
        )
        return found

    def code(self, start: int, stop: int, *, missing: bool = False) -> int:
        """Code rows; return how many codes are new.

        Args:
            start: The first of them.
            stop: One past the last.
            missing: Whether to code those alone that have no code yet.
        """
        before = self.n
        mode = kernels.strings.MISSING_ROWS if missing else kernels.strings.ALL_ROWS
        while True:
            start, self.n, _ = self._run(start, stop, mode)
            if start == stop:
                return self.n - before
            self._grow()

    def code_together(self, threads: int) -> None:
        """Code all rows, in several threads where hardly any label is new."""
        position, alone = 0, True
        while position < self.rows:
            if alone:
                stop = min(position + _ALONE, self.rows)
                alone = self.code(position, stop) * 64 > stop - position
            else:
                stop = min(position + _TOGETHER, self.rows)
                edges = [position + (stop - position) * t // threads for t in range(threads + 1)]
                known = [kernels.strings.KNOWN_ROWS] * threads
                unknown = sum(found[2] for found in all_at_once(self._run, edges[:-1], edges[1:], known))
                if unknown:
                    self.code(position, stop, missing=True)
                alone = unknown * 16 > stop - position
            position = stop
