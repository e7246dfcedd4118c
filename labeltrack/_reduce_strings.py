"""Fixed-width strings, numbered and reduced piece by piece: the numbers never leave the cache."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from labeltrack._labels import Keyspace
from labeltrack._reduce import reduce_stream

if TYPE_CHECKING:
    from labeltrack._accumulate import Accumulator
    from labeltrack._alphabets import Numbering

Array = npt.NDArray[Any]
Chunk = tuple[Array, Array]

_PIECE = 1 << 17  # rows; a multiple of the blocks that are numbered at a time
_MOST = 3 << 14  # numbers for which each thread may have a table, dense whatever is laid out around it
_SOME = 1 << 12  # samples by which tables are laid out


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
    rows = numbering.rows
    while numbering.possible and numbering.alphabets.size <= _MOST:
        alphabets = numbering.alphabets

        def load(start: int) -> Chunk | None:
            stop = min(start + _PIECE, rows)
            keys = np.empty(stop - start, dtype=np.int32)
            return (keys, samples[start:stop]) if numbering.number(start, stop, keys, origin=start) else None

        some = np.ascontiguousarray(samples[:: max(1, rows // _SOME)])
        layout = np.array([0, alphabets.size - 1]), some
        space = Keyspace(kind, alphabets=alphabets)
        found = reduce_stream(iter(range(0, rows, _PIECE)), load, rows, space, threads=threads, layout=layout)
        if numbering.settle():
            return found
    return None
