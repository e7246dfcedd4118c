"""A dictionary of fixed-width strings: the code of a row is looked up, and the whole row compared.

It suits names of classes: there are few of them, and each occurs many times.
"""

from __future__ import annotations

from functools import cache
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from labeltrack._core import kernels
from labeltrack._core.arrays import read_only
from labeltrack._core.estimates import spread_out
from labeltrack._core.strings import NEIGHBOURS, encode_strings

if TYPE_CHECKING:
    from collections.abc import Iterator

Array = npt.NDArray[Any]


class _State(NamedTuple):
    """What rows are looked up in; see `labeltrack._core.kernels.dictionary.look_rows_up`."""

    table: Array
    moves: Array
    known: Array
    numbers: npt.NDArray[np.uint64]


_FEWEST = 1 << 14  # rows from which a dictionary pays; making it takes 0.4 ms
_SAMPLES = 1 << 13, 1 << 14, 1 << 16  # rows that are sampled, more if there are many words: 0.3, 0.5 or 2.5 ms
_TIMES = 8  # average repeats of a word in the sample below which more rows are sampled
_MOST = 1 << 14  # words, with which the tables are some megabytes
_PLACES = 4  # of the table per word, so that nearly every word has a place of its own
_SHARED = 3  # binary logarithm of the places of the table per move
_TRIES = 4  # sets of multipliers, of which the best is used


class Dictionary:
    """The words that occur in an array of strings, and their codes, in order of appearance.

    It starts with those of a sample of rows; others are learnt when they occur. It is not `possible` if there are few
    rows, too many words, or nearly as many words as rows.

    Args:
        labels: ``(N,)`` dtype ``U`` or ``S``.

    Example:
        >>> dictionary = Dictionary(np.array(["dog", "cat", "dog", "cow"] * 5000))
        >>> codes = np.empty(4, dtype=np.int32)
        >>> dictionary.encode(0, 4, codes), codes, dictionary.words
        (True, array([0, 1, 0, 2], dtype=int32), array(['dog', 'cat', 'cow'], dtype='<U3'))
    """

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
        self._state = _State(nothing, nothing, nothing, nothing)
        for wanted in sorted({max(_SAMPLES[0], min(self.rows // 64, most)) for most in _SAMPLES}):
            some = spread_out(native, -(-self.rows // wanted), NEIGHBOURS)
            found = some[encode_strings(some, threads=1)[1]]
            if _TIMES * found.shape[0] <= some.shape[0]:
                break
        self.possible = 2 * found.shape[0] <= some.shape[0] and self._add(found)

    @property
    def size(self) -> int:
        """How many words there are."""
        return len(self._known)

    @property
    def words(self) -> Array:
        """``(C,)`` the word of each code, of the dtype of the labels."""
        return self._known.astype(self._dtype)

    def encode(self, start: int, stop: int, codes: Array) -> bool:
        """Write the codes of rows from `start` to before `stop` to the front of `codes`; return False if it cannot.

        Any thread may call it.
        """
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
        return int(kernels.dictionary.look_rows_up(words, width, start, stop, *self._state, start, codes))

    def _learn(self, rows: Array) -> bool:
        """Add the words of some rows, unless another thread has just done so; return False if it cannot."""
        new = rows[encode_strings(rows, threads=1)[1]]
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
        module = kernels.dictionary
        words = read_only(known.view(self._word))
        width = words.shape[0] // known.shape[0]
        table, moves, _, numbers = self._state
        if self.size and 2 * table.shape[0] >= _PLACES * known.shape[0]:  # the table has room for them
            table = table.copy()
            entered = module.enter_rows(words, width, self.size, known.shape[0], table, moves, numbers)
            if entered * 2 <= new.shape[0] + 4:
                self._known, self._state = known, _State(table, moves, words, numbers)
                return True
        bits = max(8, (_PLACES * known.shape[0] - 1).bit_length())
        best: tuple[int, _State] | None = None
        for numbers in self._hashed(words.reshape(-1, width), bits):
            table = np.full(1 << bits, -1, dtype=np.int32)
            moves = np.zeros(1 << min(bits - _SHARED, module.MOVED), dtype=np.uint16)
            elsewhere = int(module.arrange_rows(words, width, table, moves, numbers))
            if best is None or elsewhere < best[0]:
                best = elsewhere, _State(table, moves, words, numbers)
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
        most: int = kernels.dictionary.HASHED
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


@cache
def _odd_numbers(tries: int, numbers: int) -> npt.NDArray[np.uint64]:
    """Return ``(tries, numbers)`` odd numbers, always the same; cached, as drawing them takes 0.2 ms."""
    drawn = np.random.default_rng(0).integers(0, 2**63, (tries, numbers), dtype=np.uint64)
    return drawn * np.uint64(2) + np.uint64(1)
