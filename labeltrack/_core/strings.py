"""Fixed-width strings to codes: by a dictionary where names are few and occur often, else by hashing their rows."""

from __future__ import annotations

from functools import cache
from threading import Lock, local
from typing import TYPE_CHECKING, NamedTuple

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
_SAMPLES = 1 << 13, 1 << 14, 1 << 16  # rows that are sampled, more if there are many words: 0.3, 0.5 or 2.5 ms
_TIMES = 8  # average repeats of a word in the sample below which more rows are sampled
_MOST = 1 << 14  # words, with which the tables are some megabytes
_PLACES = 16  # of the table per word, so that nearly every word has a place of its own
_TRIES = 4  # sets of multipliers, of which the best is used
_SMALLEST, _LARGEST = 1 << 16, 1 << 19  # rows of a piece; half as many as the largest take 4 to 8 % longer
_LEARNT = 8  # tables have room for one new word in so many
_SOME = 1 << 10  # samples by which tables are laid out; four times as many took 0.2 ms, a cache miss each


def encode_strings(labels: Array) -> tuple[Codes, Integers]:
    """Return ``(N,)`` codes of fixed-width strings, in order of appearance, and where each code first appeared."""
    # In one thread: each would learn all words, and two took 1.0 to 1.2 times as long.
    rows = labels.shape[0]
    unit = 4 if labels.dtype.kind == "U" else 1
    width = max(labels.dtype.itemsize, unit)
    if width % 8 or labels.dtype.itemsize == 0:  # rows are compared in words of eight bytes
        width = -(-width // 8) * 8
        labels = labels.astype(f"{labels.dtype.kind}{width // unit}")
    words = read_only(np.ascontiguousarray(labels).view(np.uint64).reshape(-1))
    width //= 8
    codes, encode_rows = np.empty(rows, dtype=np.int32), kernels.strings.encode_rows
    capacity, n, position = min(_FIRST, 1 << max(4, rows.bit_length())), 0, 0
    known, first = np.empty(0, dtype=np.uint64), np.empty(0, dtype=np.int64)
    while True:
        # Coding the known rows in their order gives each the code that it has.
        table, varying = np.full(4 * capacity, -1, dtype=np.int32), np.zeros(1 + width, dtype=np.int64)
        before, known, seen = known, np.empty(capacity * width, dtype=np.uint64), first[:n]
        first = np.empty(capacity, dtype=np.int64)
        scratch = np.empty(n, dtype=np.int32)
        encode_rows(read_only(before), width, 0, n, table, known, varying, first, 0, scratch)
        first[:n] = seen
        position, n = encode_rows(words, width, position, rows, table, known, varying, first, n, codes)
        if position == rows:
            return codes, first[:n].copy()
        capacity *= 4


class _State(NamedTuple):
    table: Array
    known: Array
    numbers: npt.NDArray[np.uint64]


class Dictionary:
    """The words in ``(N,)`` fixed-width strings, those of a sample first; `possible` with many rows and few words."""

    orderly = False  # as a decoder of `reduce_stream`

    def __init__(self, labels: Array) -> None:
        self.rows = labels.shape[0]
        self.possible = self.rows >= _FEWEST and labels.dtype.itemsize > 0
        if not self.possible:
            return
        size = labels.dtype.itemsize
        native = np.ascontiguousarray(labels, dtype=labels.dtype.newbyteorder("="))
        if size % 4:  # rows are compared in words of eight bytes, or four
            native = native.astype(f"S{-(-size // 4) * 4}")
        self._word = np.dtype(np.uint64 if native.dtype.itemsize % 8 == 0 else np.uint32)
        if native.ctypes.data % self._word.itemsize:
            native = native.copy()
        self._labels = native
        self._dtype = labels.dtype
        self._lock = Lock()
        self._known = native[:0]
        nothing = np.empty(0, dtype=np.uint64)
        self._state = _State(nothing, nothing, nothing)
        for wanted in sorted({max(_SAMPLES[0], min(self.rows // 64, most)) for most in _SAMPLES}):
            some = native[:: max(1, self.rows // wanted)]
            found = some[encode_strings(some)[1]]
            if _TIMES * found.shape[0] <= some.shape[0]:
                break
        self.possible = 2 * found.shape[0] <= some.shape[0] and self._add(found)

    @property
    def size(self) -> int:
        return len(self._known)

    @property
    def words(self) -> Array:
        """``(C,)`` the word of each code, of the dtype of the labels."""
        return self._known.astype(self._dtype)

    def decode(self, keys: Integers) -> Array:
        """Return the words of codes; more of them may be learnt until the last row is read."""
        words: Array = self.words[keys]
        return words

    def encode(self, start: int, stop: int, codes: Array) -> bool:
        """Write the codes of rows to the front of `codes`, in any thread; return False if there are too many words."""
        if not self.possible:
            return False
        if self._look_up(self._labels, start, stop, codes) == 0:
            return True
        missing = np.flatnonzero(codes[: stop - start] < 0)
        rows = self._labels[start + missing]
        if not self._learn(rows):
            return False
        learnt = np.empty(missing.shape[0], dtype=np.int32)
        self._look_up(rows, 0, learnt.shape[0], learnt)
        codes[missing] = learnt
        return True

    def _look_up(self, rows: Array, start: int, stop: int, codes: Array) -> int:
        """Write the codes of some rows of an array, -1 for unknown ones; return how many these are."""
        width = rows.dtype.itemsize // self._word.itemsize
        words = read_only(rows.view(self._word))
        return int(kernels.strings.look_rows_up(words, width, start, stop, *self._state, start, codes))

    def _learn(self, rows: Array) -> bool:
        """Add the words of some rows, unless another thread has just done so; return False if it cannot."""
        new = rows[encode_strings(rows)[1]]
        with self._lock:
            codes = np.empty(new.shape[0], dtype=np.int32)
            self._look_up(new, 0, codes.shape[0], codes)
            new = new[codes < 0]
            if new.shape[0]:
                self.possible = self.possible and self._add(new)
            return self.possible

    def _add(self, new: Array) -> bool:
        """Add words, all of them new; return whether they can be distinguished quickly."""
        known = np.concatenate([self._known, new])
        if known.shape[0] > _MOST:
            return False
        module = kernels.strings
        words = read_only(known.view(self._word))
        width = words.shape[0] // known.shape[0]
        table, _, numbers = self._state
        if self.size and 2 * table.shape[0] >= _PLACES * known.shape[0]:  # the table has room for them
            table = table.copy()
            entered = module.enter_rows(_places(words[self.size * width :], width, numbers), self.size, table)
            if entered * 2 <= new.shape[0] + 4:
                self._known, self._state = known, _State(table, words, numbers)
                return True
        bits = max(8, (_PLACES * known.shape[0] - 1).bit_length())
        best: tuple[int, _State] | None = None
        for numbers in self._hashed(words.reshape(-1, width), bits):
            table = np.full(1 << bits, -1, dtype=np.int32)
            elsewhere = int(module.enter_rows(_places(words, width, numbers), 0, table))
            if best is None or elsewhere < best[0]:
                best = elsewhere, _State(table, words, numbers)
            if elsewhere == 0:
                break
        assert best is not None  # noqa: S101 (there is always a try)
        # Words that are equal in the hashed parts share a place; each is then compared with all before it.
        if best[0] * 4 > known.shape[0] + 4:
            return False
        # One assignment, as other threads may be reading; the codes that they know stay valid.
        self._known, self._state = known, best[1]
        return True

    def _hashed(self, rows: Array, bits: int) -> Iterator[npt.NDArray[np.uint64]]:
        """Yield what the place of a row depends on: the parts that differ most, and their multipliers."""
        most: int = kernels.strings.HASHED
        where: npt.NDArray[np.intp] = np.arange(rows.shape[1])
        if where.shape[0] > most:
            some = np.sort(rows[:: max(1, rows.shape[0] // 512)], axis=0)
            distinct = np.count_nonzero(some[1:] != some[:-1], axis=0)
            where = np.sort(np.argsort(distinct, kind="stable")[::-1][:most])
        for odd in _odd_numbers(_TRIES, most):
            numbers = np.zeros(2 * most + 1, dtype=np.uint64)
            numbers[: where.shape[0]] = where
            numbers[most : most + where.shape[0]] = odd[: where.shape[0]]
            numbers[2 * most] = 64 - bits
            yield numbers


def _places(words: Array, width: int, numbers: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Return the places of rows of so many words: the highest bits of sums of products, modulo 2**64."""
    most, rows = kernels.strings.HASHED, words.reshape(-1, width).astype(np.uint64)
    where, factors = numbers[:most].astype(np.int64), numbers[most:-1]
    places: npt.NDArray[np.uint64] = (rows[:, where] * factors).sum(axis=1, dtype=np.uint64) >> numbers[-1]
    return places


@cache
def _odd_numbers(tries: int, numbers: int) -> npt.NDArray[np.uint64]:
    """Return ``(tries, numbers)`` odd numbers, always the same; cached, as drawing them takes 0.2 ms."""
    drawn = np.random.default_rng(0).integers(0, 2**63, (tries, numbers), dtype=np.uint64)
    return drawn * np.uint64(2) + np.uint64(1)


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
