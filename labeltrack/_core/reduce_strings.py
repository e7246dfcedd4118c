"""Fixed-width strings, looked up in a dictionary and reduced piece by piece, so that codes stay in the cache."""

from __future__ import annotations

from threading import local
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from labeltrack._core.reduce import reduce_stream
from labeltrack._core.threads import default_threads

if TYPE_CHECKING:
    from collections.abc import Iterator

    from labeltrack._core.accumulator import Accumulator
    from labeltrack._core.strings import Dictionary

Array = npt.NDArray[Any]

_SMALLEST, _LARGEST = 1 << 16, 1 << 19  # rows of a piece; half as many as the largest take 4 to 8 % longer
_LEARNT = 8  # tables have room for one new word in so many
_SOME = 1 << 10  # samples by which tables are laid out; four times as many took 0.2 ms, a cache miss each


class _Decoder:
    """Decodes the codes of a dictionary, which may learn more words until the last row is read."""

    orderly = False

    def __init__(self, dictionary: Dictionary) -> None:
        self._dictionary = dictionary

    def decode(self, keys: npt.NDArray[np.int64]) -> Array:
        words: Array = self._dictionary.words[keys]
        return words


def reduce_words(
    dictionary: Dictionary, samples: Array, *, threads: int | None = None
) -> tuple[Array, Accumulator] | None:
    """Reduce samples of strings that are words of a dictionary.

    Args:
        dictionary: Of the ``(N,)`` strings; it must be `possible`.
        samples: ``(N,)`` float32 or float64, contiguous.
        threads: How many threads share the work; None chooses by the number of samples.

    Returns:
        What `labeltrack._core.reduce.reduce_stream` returns; None if there are too many words.
    """
    rows = samples.shape[0]
    threads = default_threads(rows) if threads is None else threads
    mine = local()  # a buffer of codes for each thread, which stays in the cache

    def load(piece: tuple[int, int]) -> tuple[Array, Array] | None:
        start, stop = piece
        if not hasattr(mine, "keys"):
            mine.keys = np.empty(min(rows, _LARGEST), dtype=np.int32)
        keys = mine.keys[: stop - start]
        return (keys, samples[start:stop]) if dictionary.encode(start, stop, keys) else None

    # Room for words that are learnt later: making a table wider takes 2 ms.
    room = dictionary.size + (dictionary.size // _LEARNT if dictionary.size > 64 else 0)
    layout = np.array([0, room - 1]), np.ascontiguousarray(samples[:: max(1, rows // _SOME)])
    pieces = _pieces(rows, threads)
    found = reduce_stream(pieces, load, rows, _Decoder(dictionary), threads=threads, layout=layout)
    return found if dictionary.possible else None


def _pieces(rows: int, threads: int) -> Iterator[tuple[int, int]]:
    """Yield where pieces start and stop: small ones first, which find most of the unknown words, and at the end."""
    start = number = 0
    while start < rows:
        share = _SMALLEST if number < threads else (rows - start) // (2 * threads)
        stop = min(start + max(_SMALLEST, min(share, _LARGEST)), rows)
        yield start, stop
        start, number = stop, number + 1
