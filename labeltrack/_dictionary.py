"""A dictionary of fixed-width strings: the code of a row is looked up, and the whole row compared.

Names of classes that are words have no characters in common that could be left out, and too many that could occur.
There are few of them, though, and each occurs again and again.
"""

from __future__ import annotations

from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from labeltrack._compiled import dictionary_kernels, read_only
from labeltrack._strings import encode_strings, sample_rows

Array = npt.NDArray[Any]
_State = tuple[Array, Array, npt.NDArray[np.uint64]]

_FEWEST = 1 << 14  # rows for which it pays to look for words: half a millisecond
_SAMPLE, _LARGEST_SAMPLE = 1 << 13, 1 << 16  # rows that are looked at first: one in 64, but no fewer and no more
_MOST = 1 << 14  # words, with which the tables are some megabytes
_PLACES = 8  # of the table, for each word: one in twenty is not in the place where it is looked for first
_TRIES = 4  # sets of numbers that words are multiplied with, of which the best is taken


class Dictionary:
    """The words that occur in an array of strings, and their codes, in order of appearance.

    It begins with those of some rows from all over the array; others are learnt when they turn up. It is not `possible`
    where there are few rows, or nearly as many words as rows, or too many of them.

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
        """Whether it is worth going on, as far as is known."""
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
        self._width = native.dtype.itemsize // self._word.itemsize
        self._rows = read_only(native.view(self._word))
        self._lock = Lock()
        self._known = native[:0]
        self._state: _State = (np.empty(0, dtype=np.int32), self._rows[:0], np.empty(0, dtype=np.uint64))
        some = sample_rows(native, max(_SAMPLE, min(self.rows // 64, _LARGEST_SAMPLE)))
        found = some[encode_strings(some, threads=1)[1]]
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
        """Write the codes of some rows, in any thread; return whether that was possible.

        Args:
            start: First row.
            stop: One past the last.
            codes: ``(>= stop - start,)`` int32, written from index 0.
        """
        look_up = dictionary_kernels().look_rows_up
        if not self.possible:
            return False
        if look_up(self._rows, self._width, start, stop, *self._state, start, codes) == 0:
            return True
        missing = np.flatnonzero(codes[: stop - start] < 0)
        rows = self._labels[start + missing]
        if not self._learn(rows):
            return False
        learnt = np.empty(missing.shape[0], dtype=np.int32)
        look_up(read_only(rows.view(self._word)), self._width, 0, learnt.shape[0], *self._state, 0, learnt)
        codes[missing] = learnt
        return True

    def _learn(self, rows: Array) -> bool:
        """Add the words of some rows, unless another thread has just done so; return whether that was possible."""
        new = rows[encode_strings(rows, threads=1)[1]]
        with self._lock:
            codes = np.empty(new.shape[0], dtype=np.int32)
            words = read_only(new.view(self._word))
            dictionary_kernels().look_rows_up(words, self._width, 0, codes.shape[0], *self._state, 0, codes)
            new = new[codes < 0]
            if new.shape[0]:
                self.possible = self.possible and self._add(new)
            return self.possible

    def _add(self, new: Array) -> bool:
        """Add words, all of them new; return whether they can be told apart quickly."""
        known = np.concatenate([self._known, new])
        if known.shape[0] > _MOST:
            return False
        words = read_only(known.view(self._word))
        table, _, numbers = self._state
        if self.size and 2 * table.shape[0] >= _PLACES * known.shape[0]:  # a few more, in the table that there is
            table = table.copy()
            entered = dictionary_kernels().enter_rows(words, self._width, self.size, known.shape[0], table, numbers)
            if entered * 2 <= new.shape[0] + 4:
                self._known, self._state = known, (table, words, numbers)
                return True
        bits = max(8, (_PLACES * known.shape[0] - 1).bit_length())
        hashed = self._hashed(words.reshape(-1, self._width), bits)
        best: tuple[int, Array, Array] | None = None
        for numbers in hashed:
            table = np.full(1 << bits, -1, dtype=np.int32)
            elsewhere = dictionary_kernels().enter_rows(words, self._width, 0, known.shape[0], table, numbers)
            if best is None or elsewhere < best[0]:
                best = int(elsewhere), table, numbers
            if elsewhere == 0:
                break
        assert best is not None  # noqa: S101 (there is always a try)
        # Words that do not differ where it is looked share a place; each is then compared with all before it.
        if best[0] * 4 > known.shape[0] + 4:
            return False
        # At once, as other threads may be reading: codes that they know stay what they are.
        self._known, self._state = known, (best[1], words, best[2])
        return True

    def _hashed(self, rows: Array, bits: int) -> list[npt.NDArray[np.uint64]]:
        """Return what the place of a row depends on: the parts that differ most, and what they are multiplied with."""
        most: int = dictionary_kernels().HASHED
        some = rows[:: max(1, rows.shape[0] // 512)]
        distinct = [np.unique(column).shape[0] for column in some.T]
        where = np.argsort(distinct, kind="stable")[::-1][:most]
        rng = np.random.default_rng(0)
        tries = []
        for _ in range(_TRIES):
            numbers = np.zeros(2 * most + 1, dtype=np.uint64)
            numbers[: where.shape[0]] = where
            odd = rng.integers(0, 2**63, where.shape[0], dtype=np.uint64) * np.uint64(2) + np.uint64(1)
            numbers[most : most + where.shape[0]] = odd
            numbers[2 * most] = 64 - bits
            tries.append(numbers)
        return tries
