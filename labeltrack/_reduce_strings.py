"""Fixed-width strings, numbered or looked up and reduced piece by piece: the numbers stay in the cache."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from labeltrack._labels import Keyspace
from labeltrack._reduce import reduce_stream

if TYPE_CHECKING:
    from collections.abc import Callable

    from labeltrack._accumulate import Accumulator
    from labeltrack._alphabets import Numbering
    from labeltrack._dictionary import Dictionary

Array = npt.NDArray[Any]
Integers = npt.NDArray[np.int64]
Chunk = tuple[Array, Array]

_PIECE = 1 << 18  # rows, a multiple of the blocks that are numbered at a time; half as many take 3 % longer
_FEW = 16  # pieces; where there are fewer, they are half as large, so that threads are done at the same time
_MOST = 3 << 14  # numbers for which each thread may have a table, dense whatever is laid out around it
_SOME = 1 << 10  # samples by which tables are laid out; four times as many took 0.2 ms, as each is another cache line


def reduce_strings(
    numbering: Numbering, samples: Array, kind: str, *, threads: int | None = None
) -> tuple[Array, Accumulator] | None:
    """Reduce samples of strings that can be numbered, if there are not too many different ones.

    Numbering all of them first takes memory for the numbers, which are written and read again: a quarter of all that is
    moved where strings have twelve characters.

    Args:
        numbering: Of the ``(N,)`` strings. It can be gone on with if this returns None.
        samples: ``(N,)`` float32 or float64, contiguous.
        kind: Kind of the labels.
        threads: How many threads share the work; None chooses by the number of samples.

    Returns:
        What `labeltrack._reduce.reduce_chunks` returns; None where the strings are to be numbered first, or hashed.
    """
    while numbering.possible and numbering.alphabets.size <= _MOST:
        alphabets = numbering.alphabets

        def number(start: int, stop: int, keys: Array) -> bool:
            return numbering.number(start, stop, keys, origin=start)

        found = _reduce_pieces(number, alphabets.size, samples, Keyspace(kind, alphabets=alphabets), threads)
        if numbering.settle():
            return found
    return None


class _Growing(Keyspace):
    """The way back from the codes of a dictionary, which may learn more words until the last row is read."""

    def __init__(self, kind: str, dictionary: Dictionary) -> None:
        super().__init__(kind)
        self._dictionary = dictionary

    def decode(self, keys: Integers) -> Array:
        """Return the words of ``(K,)`` codes."""
        words: Array = self._dictionary.words[keys]
        return words


def reduce_words(
    dictionary: Dictionary, samples: Array, kind: str, *, threads: int | None = None
) -> tuple[Array, Accumulator] | None:
    """Reduce samples of strings that are words of a dictionary.

    Args:
        dictionary: Of the ``(N,)`` strings; it must be `possible`.
        samples: ``(N,)`` float32 or float64, contiguous.
        kind: Kind of the labels.
        threads: How many threads share the work; None chooses by the number of samples.

    Returns:
        What `labeltrack._reduce.reduce_chunks` returns; None where there turn out to be too many words.
    """
    found = _reduce_pieces(dictionary.encode, dictionary.size, samples, _Growing(kind, dictionary), threads)
    return found if dictionary.possible else None


def _reduce_pieces(
    encode: Callable[[int, int, Array], bool], size: int, samples: Array, space: Keyspace, threads: int | None
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
    piece = _PIECE if rows >= _FEW * _PIECE else _PIECE // 2

    def load(start: int) -> Chunk | None:
        stop = min(start + piece, rows)
        keys = np.empty(stop - start, dtype=np.int32)
        return (keys, samples[start:stop]) if encode(start, stop, keys) else None

    layout = np.array([0, size - 1]), np.ascontiguousarray(samples[:: max(1, rows // _SOME)])
    return reduce_stream(iter(range(0, rows, piece)), load, rows, space, threads=threads, layout=layout)
