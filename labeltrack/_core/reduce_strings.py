"""Fixed-width strings, looked up in a dictionary; reduced piece by piece, so that codes stay in the cache."""

from __future__ import annotations

from threading import local
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from labeltrack._core.reduce import reduce_stream
from labeltrack._core.threads import all_at_once, default_threads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from labeltrack._core.accumulator import Accumulator
    from labeltrack._core.dictionary import Dictionary
    from labeltrack._core.reduce import Decoder

Array = npt.NDArray[Any]
Integers = npt.NDArray[np.int64]
Chunk = tuple[Array, Array]

# Rows of a piece. Half as many as the largest take 4 to 8 % longer.
_SMALLEST, _LARGEST = 1 << 16, 1 << 19
_LEARNT = 8  # one more word for so many is learnt on the way, at most, as far as tables are laid out for it
_SOME = 1 << 10  # samples by which tables are laid out; four times as many took 0.2 ms, as each is another cache line


class _Growing:
    """The way back from the codes of a dictionary, which may learn more words until the last row is read."""

    orderly = False

    def __init__(self, dictionary: Dictionary) -> None:
        self._dictionary = dictionary

    def decode(self, keys: Integers) -> Array:
        """Return the words of ``(K,)`` codes."""
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
        What `labeltrack._core.reduce.reduce_chunks` returns; None where there turn out to be too many words.
    """
    # Room for words that are learnt on the way: making a table wider takes 2 ms.
    room = dictionary.size + (dictionary.size // _LEARNT if dictionary.size > 64 else 0)
    found = _reduce_pieces(dictionary.encode, room, samples, _Growing(dictionary), threads)
    return found if dictionary.possible else None


def encode_words(dictionary: Dictionary, *, threads: int | None = None) -> npt.NDArray[np.int32] | None:
    """Return the ``(N,)`` codes of strings that are words of a dictionary; None where there are too many words."""
    rows = dictionary.rows
    threads = default_threads(rows) if threads is None else threads
    codes = np.empty(rows, dtype=np.int32)
    edges = [rows * t // threads for t in range(threads + 1)]

    def encode(start: int, stop: int) -> bool:
        return dictionary.encode(start, stop, codes[start:stop])

    return codes if all(all_at_once(encode, edges[:-1], edges[1:])) else None


def _reduce_pieces(
    encode: Callable[[int, int, Array], bool], size: int, samples: Array, space: Decoder, threads: int | None
) -> tuple[Array, Accumulator]:
    """Reduce samples piece by piece.

    Args:
        encode: Writes the keys of rows from a start to a stop, or returns that it cannot, which ends in vain.
        size: How many keys there are, as far as is known.
        samples: ``(N,)``.
        space: What the keys stand for.
        threads: How many threads share the work; None chooses by the number of samples.
    """
    rows = samples.shape[0]
    threads = default_threads(rows) if threads is None else threads
    mine = local()  # to each thread, the numbers of its piece: in the cache, as they are written over those before

    def load(piece: tuple[int, int]) -> Chunk | None:
        start, stop = piece
        if not hasattr(mine, "keys"):
            mine.keys = np.empty(min(rows, _LARGEST), dtype=np.int32)
        keys = mine.keys[: stop - start]
        return (keys, samples[start:stop]) if encode(start, stop, keys) else None

    layout = np.array([0, size - 1]), np.ascontiguousarray(samples[:: max(1, rows // _SOME)])
    return reduce_stream(_pieces(rows, threads), load, rows, space, threads=threads, layout=layout)


def _pieces(rows: int, threads: int) -> Iterator[tuple[int, int]]:
    """Yield where pieces of rows start and stop.

    Small ones first, as what was not in the samples is mostly found there; and to the end, so that threads are done at
    the same time.
    """
    start = number = 0
    while start < rows:
        share = _SMALLEST if number < threads else (rows - start) // (2 * threads)
        size = max(_SMALLEST, min(share, _LARGEST))
        stop = min(start + size, rows)
        yield start, stop
        start, number = stop, number + 1
