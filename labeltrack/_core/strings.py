"""Fixed-width strings to codes: known words first where names are few and occur often, else in order of appearance."""

from __future__ import annotations

from functools import cache
from threading import Lock, local
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from labeltrack._core import kernels
from labeltrack._core.arrays import Array, Codes, Integers, read_only
from labeltrack._core.reduce import reduce_stream
from labeltrack._core.threads import all_at_once, default_threads, edges_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from labeltrack._core.accumulator import Accumulator

_FIRST = 1 << 11  # codes that there is room for at first, if there are as many rows
_FEWEST = 1 << 14  # rows from which a dictionary pays; making it takes 0.4 ms
_MOST = 1 << 14  # words of a dictionary, with which its table is a megabyte
_SAMPLES = 1 << 13, 2 * _MOST  # fewest and most rows that are sampled; twice as many took some percent longer
_PLACES = 16  # of such a table per word, so that nearly every word has a place of its own
_TRIES, _DISPLACED = 4, 256  # tables that are tried if one in so many words has another place in the first
_SMALLEST, _LARGEST = 1 << 16, 1 << 19  # rows of a piece; half as many as the largest take 4 to 8 % longer
_LEARNT = 8  # tables have room for one new word in so many
_SOME = 1 << 10  # samples by which tables are laid out; four times as many took 0.2 ms, a cache miss each


class _Table:
    """Different rows of strings, with codes in order of appearance. None may be looked up while others are learnt."""

    def __init__(self, words: Array, room: int, places: int = 4, number: int = 0) -> None:
        """Make a table of words, all different and of a type that `_whole` returns, with room for so many.

        It has at least so many places per word; tables of another number have words at other places.
        """
        self._dtype, self._word, self._per_word, self.number = words.dtype, _word_of(words.dtype), places, number
        self._width = words.dtype.itemsize // self._word.itemsize
        self._enter(words, room)

    def _enter(self, words: Array, room: int) -> None:
        capacity = 1 << max(4, (room - 1).bit_length())
        bits = (capacity * self._per_word - 1).bit_length()
        self._places = np.full(1 << bits, -1, dtype=np.int32)
        self._known, self.size = np.empty(capacity * self._width, dtype=self._word), 0
        most = max(kernels.strings.UNROLLED, self._width)
        self._hashed = np.zeros((3, 1 + most), dtype=np.uint64)
        self._hashed[1, 0], self._hashed[1, 1:] = 64 - bits, _odd_numbers(most + _TRIES)[self.number :][:most]
        self.encode(words, 0, words.shape[0], np.empty(words.shape[0], dtype=np.int32), learn=True)

    @property
    def displaced(self) -> int:
        """How many words are not at the place that depends on them."""
        return int(self._hashed[2, 0])

    @property
    def words(self) -> Array:
        return self._known[: self.size * self._width].view(self._dtype)

    def encode(self, rows: Array, start: int, stop: int, codes: Array, *, learn: bool = False) -> bool:
        """Write codes to the front of `codes`, -1 for unknown rows unless learnt; return whether there are some."""
        words, position, unknown = read_only(rows.view(self._word)), start, False
        more = bool(self._hashed[0, 0] > kernels.strings.UNROLLED)
        encode_rows = kernels.strings.encoder(self._dtype.itemsize, learn=learn, more=more)
        while position < stop:
            state = self._places, self._known, self._hashed, self.size
            args = self._width, position, stop, *state, codes[position - start :]
            position, size, unknown = encode_rows(words, *args)
            if learn:
                self.size = size
            if position < stop:
                self._enter(self.words, 4 * size)
        return bool(unknown)


def _word_of(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the type of the words in which rows of strings are compared."""
    return np.dtype(np.uint32 if dtype.itemsize % 8 else np.uint64)


def _whole(labels: Array) -> Array:
    """Return ``(N,)`` fixed-width strings whose rows in memory are whole words, aligned."""
    size = labels.dtype.itemsize
    rows = np.ascontiguousarray(labels, dtype=labels.dtype.newbyteorder("="))
    if size % 4 or not size:
        rows = rows.astype(f"S{max(4, -(-size // 4) * 4)}")
    return rows.copy() if rows.ctypes.data % _word_of(rows.dtype).itemsize else rows


@cache
def _odd_numbers(numbers: int) -> npt.NDArray[np.uint64]:
    """Return odd numbers, always the same; cached, as drawing them takes 0.2 ms."""
    return np.random.default_rng(0).integers(0, 2**63, numbers, dtype=np.uint64) * np.uint64(2) + np.uint64(1)


def encode_strings(labels: Array) -> tuple[Codes, Array]:
    """Return ``(N,)`` codes of fixed-width strings, in order of appearance, and the ``(C,)`` words they stand for."""
    # In one thread: each would learn all words, and two took 1.0 to 1.2 times as long.
    rows, codes = _whole(labels), np.empty(labels.shape[0], dtype=np.int32)
    table = _Table(rows[:0], min(_FIRST, rows.shape[0]))
    table.encode(rows, 0, rows.shape[0], codes, learn=True)
    return codes, table.words.astype(labels.dtype)


class Dictionary:
    """The words in ``(N,)`` fixed-width strings, those of a sample first; `possible` with many rows and few words."""

    orderly = False  # as a decoder of `reduce_stream`

    def __init__(self, labels: Array) -> None:
        self.rows = labels.shape[0]
        self.possible = self.rows >= _FEWEST and labels.dtype.itemsize > 0
        if not self.possible:
            return
        self._labels, self._dtype, self._lock = _whole(labels), labels.dtype, Lock()
        some = self._labels[:: max(1, self.rows // min(max(_SAMPLES[0], self.rows // 64), _SAMPLES[1]))]
        found = encode_strings(some)[1]
        self.possible = found.shape[0] <= min(_MOST, some.shape[0] // 2)
        if self.possible:
            self._table = _Table(found, found.shape[0], _PLACES)
            for number in range(1, _TRIES if _DISPLACED * self._table.displaced > self.size else 0):
                other = _Table(found, found.shape[0], _PLACES, number)
                self._table = min(self._table, other, key=lambda table: table.displaced)

    @property
    def size(self) -> int:
        return self._table.size

    @property
    def words(self) -> Array:
        """``(C,)`` the word of each code, of the dtype of the labels."""
        return self._table.words.astype(self._dtype)

    def decode(self, keys: Integers) -> Array:
        """Return the words of codes; more of them may be learnt until the last row is read."""
        words: Array = self.words[keys]
        return words

    def encode(self, start: int, stop: int, codes: Array) -> bool:
        """Write the codes of rows to the front of `codes`, in any thread; return False if there are too many words."""
        if not self.possible or not self._table.encode(self._labels, start, stop, codes):
            return self.possible
        missing = np.flatnonzero(codes[: stop - start] < 0)
        rows, learnt = self._labels[start + missing], np.empty(missing.shape[0], dtype=np.int32)
        with self._lock:
            # Another table, as other threads may be reading this one; the codes that they know stay valid.
            table = _Table(self._table.words, 2 * self.size, _PLACES, self._table.number)
            table.encode(rows, 0, rows.shape[0], learnt, learn=True)
            if table.size > _MOST:
                self.possible = False
            else:
                self._table = table
        codes[missing] = learnt
        return self.possible


def encode_words(dictionary: Dictionary, *, threads: int | None = None) -> Codes | None:
    """Return the ``(N,)`` codes of strings that are words of a dictionary; None if there are too many words."""
    rows = dictionary.rows
    threads = default_threads(rows) if threads is None else threads
    codes = np.empty(rows, dtype=np.int32)
    edges = edges_of(rows, threads)

    def encode(start: int, stop: int) -> bool:
        return dictionary.encode(start, stop, codes[start:stop])

    return codes if all(all_at_once(encode, edges[:-1], edges[1:])) else None


def reduce_words(
    dictionary: Dictionary, samples: Array, *, threads: int | None = None
) -> tuple[Array, Accumulator] | None:
    """Reduce samples of the strings of a `possible` dictionary as `reduce_stream` does; None with too many words."""
    rows = samples.shape[0]
    threads = default_threads(rows) if threads is None else threads
    mine = local()  # a buffer of codes for each thread, which stays in the cache

    def load(piece: tuple[int, int]) -> list[tuple[Array, ...]]:
        start, stop = piece
        if not hasattr(mine, "keys"):
            mine.keys = np.empty(min(rows, _LARGEST), dtype=np.int32)
        keys = mine.keys[: stop - start]
        return [(keys, samples[start:stop])] if dictionary.encode(start, stop, keys) else []

    # Room for words that are learnt later: making a table wider takes 2 ms.
    room = dictionary.size + (dictionary.size // _LEARNT if dictionary.size > 64 else 0)
    layout = np.array([0, room - 1]), np.ascontiguousarray(samples[:: max(1, rows // _SOME)])
    pieces = _pieces(rows, threads)
    found = reduce_stream(pieces, load, rows, dictionary, threads=threads, layout=layout)
    return found if dictionary.possible else None


def _pieces(rows: int, threads: int) -> Iterator[tuple[int, int]]:
    """Yield where pieces start and stop: small ones first, which find most of the unknown words, and at the end."""
    start = number = 0
    while start < rows:
        share = _SMALLEST if number < threads else (rows - start) // (2 * threads)
        stop = min(start + max(_SMALLEST, min(share, _LARGEST)), rows)
        yield start, stop
        start, number = stop, number + 1
