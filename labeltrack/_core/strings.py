"""Fixed-width strings to codes, by hashing the bytes of their rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from labeltrack._core import kernels
from labeltrack._core.arrays import read_only
from labeltrack._core.estimates import estimated_labels, spread_out
from labeltrack._core.threads import all_at_once, default_threads, edges_of

Array = npt.NDArray[Any]
Integers = npt.NDArray[np.int64]

_FIRST = 1 << 11  # codes that there is room for at first, if there are as many rows
_SAMPLE = 1 << 14  # rows by which it is decided whether threads share them
_LEAST_REPEATS = 8  # rows per word for which they do
NEIGHBOURS = 4  # adjacent rows in each place that is sampled


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
    rows = labels.shape[0]
    unit = 4 if labels.dtype.kind == "U" else 1
    width = max(labels.dtype.itemsize, unit)
    if width % 8 or labels.dtype.itemsize == 0:  # rows are compared in words of eight bytes
        width = -(-width // 8) * 8
        labels = labels.astype(f"{labels.dtype.kind}{width // unit}")
    words = read_only(np.ascontiguousarray(labels).view(np.uint64).reshape(-1))
    threads = default_threads(rows) if threads is None else threads
    codes = np.empty(rows, dtype=np.int32)
    if threads > 1:
        # Each thread learns all words: with a million of them in two million rows, two took twice as long as one.
        some, _ = encode_strings(spread_out(labels, -(-rows // _SAMPLE), NEIGHBOURS), threads=1)
        threads = threads if _LEAST_REPEATS * estimated_labels(some)[0] <= rows else 1
    edges = edges_of(rows, threads)
    firsts = all_at_once(lambda a, b: _encode(words, width // 8, a, b, codes), edges[:-1], edges[1:])
    if threads == 1:
        return codes, firsts[0]
    # The codes of each thread become codes of all: its words are coded after those of the threads before.
    first = np.concatenate(firsts)
    whole = np.empty(first.shape[0], dtype=np.int32)
    distinct = read_only(words.reshape(rows, width // 8)[first].reshape(-1))
    together = _encode(distinct, width // 8, 0, first.shape[0], whole)
    parts = np.split(whole, np.cumsum([part.shape[0] for part in firsts])[:-1])

    def translate(start: int, stop: int, part: npt.NDArray[np.int32]) -> None:
        codes[start:stop] = part.take(codes[start:stop])

    all_at_once(translate, edges[1:-1], edges[2:], parts[1:])  # the first thread's are right already
    return codes, first[together]


def _encode(words: Array, width: int, start: int, stop: int, codes: npt.NDArray[np.int32]) -> Integers:
    """Write the codes of some rows; return where each code first appeared."""
    capacity, n, position = min(_FIRST, 1 << max(4, (stop - start).bit_length())), 0, start
    known, first = np.empty(0, dtype=np.uint64), np.empty(0, dtype=np.int64)
    while True:
        # Coding the known rows in their order gives each the code that it has.
        table, varying = np.full(4 * capacity, -1, dtype=np.int32), np.zeros(1 + width, dtype=np.int64)
        before, known, seen = known, np.empty(capacity * width, dtype=np.uint64), first[:n]
        first = np.empty(capacity, dtype=np.int64)
        scratch = np.empty(n, dtype=np.int32)
        kernels.strings.encode_rows(read_only(before), width, 0, n, table, known, varying, first, 0, scratch)
        first[:n] = seen
        position, n = kernels.strings.encode_rows(words, width, position, stop, table, known, varying, first, n, codes)
        if position == stop:
            return first[:n].copy()
        capacity *= 4
