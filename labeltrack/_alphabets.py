"""Fixed-width strings as numbers: the characters of the positions that vary are digits in a mixed radix.

Names of classes share most of their characters: ``"class 000042"`` is the number 42 where a thousand such labels
occur. A number takes a few look-ups, where a hash table has to compare whole rows; numbers of neighbours are
neighbours, so that a dense table holds them; and they are ordered as the strings are.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from labeltrack._compiled import read_only, string_kernels
from labeltrack._strings import sample_rows
from labeltrack._threads import all_at_once, default_threads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

Array = npt.NDArray[Any]
Integers = npt.NDArray[np.int64]

_FEWEST = 1 << 14  # rows for which it pays to look for alphabets: a fifth of a millisecond
_GLANCE = 1 << 9  # rows that are looked at first
_SAMPLE = 1 << 12  # rows that are looked at then: four times as many take 0.9 instead of 0.3 ms
_SAMPLE_BYTES = 1 << 20
_STEP = 1 << 18  # rows after which a thread asks whether another one gave up
STEP_UNIT = 64
"""Rows are numbered in blocks of so many, or a fourth (`labeltrack._string_kernels.BLOCK`, only imported on use)."""
_LARGEST = 2**53
_UNKNOWN = -(2**56)  # a step that no sum of the others makes positive; a hundred of them do not wrap
_WIDEST = 100  # positions that may vary


def number_strings(
    labels: Array, *, threads: int | None = None, numbering: Numbering | None = None
) -> tuple[Array, Alphabets] | None:
    """Number fixed-width strings.

    Args:
        labels: ``(N,)`` dtype ``U`` or ``S``.
        threads: How many threads share the work; None chooses by the number of labels.
        numbering: One of these labels that was tried before, to go on with.

    Returns:
        ``(N,)`` numbers, int32 or int64, and what they mean. None if they cannot be numbered; see `Numbering`.

    Example:
        >>> keys, alphabets = number_strings(np.array(["bob", "rob"] * 9000))
        >>> keys[:3], alphabets.decode(np.array([0, 1]))
        (array([0, 1, 0], dtype=int32), array(['bob', 'rob'], dtype='<U3'))
    """
    numbering = Numbering(labels) if numbering is None else numbering
    rows = numbering.rows
    threads = default_threads(rows) if threads is None else threads
    while numbering.possible:
        keys: Array = np.empty(rows, dtype=numbering.dtype)
        number = numbering.number

        def part(start: int, stop: int, keys: Array = keys, number: Callable[..., bool] = number) -> None:
            """Number the rows of a thread, until it or another one is stuck."""
            for position in range(start, stop, _STEP):
                if not number(position, min(position + _STEP, stop), keys):
                    break

        edges = [rows // STEP_UNIT * t // threads * STEP_UNIT for t in range(threads)] + [rows]
        all_at_once(part, edges[:-1], edges[1:])
        if numbering.settle():
            return keys, numbering.alphabets
    return None


class Numbering:
    """An attempt to number the strings of an array.

    It is in vain where there are few labels, or more different ones than can be numbered in this way, or where
    characters turn up again and again that did not occur before. Call `number` for all rows while it is `possible`,
    until `settle` says that nothing was missing.

    Args:
        labels: ``(N,)`` dtype ``U`` or ``S``.
    """

    def __init__(self, labels: Array) -> None:
        self.rows = labels.shape[0]
        self.possible = self.rows >= _FEWEST and labels.dtype.itemsize > 0
        """Whether there is a chance, as far as is known."""
        if not self.possible:
            return
        native = np.ascontiguousarray(labels, dtype=labels.dtype.newbyteorder("="))
        if native.ctypes.data % 8:  # blocks are read in words of eight bytes
            native = native.copy()
        self.alphabets = Alphabets(native.dtype)
        self._grid = self.alphabets.characters(native)
        self._tried = 0
        whole = native.nbytes // 8 * 8
        self._chars = read_only(self._grid.reshape(-1))
        self._words = read_only(self._grid.reshape(-1).view(np.uint8)[:whole].view(np.uint64))
        wanted = max(64, min(_SAMPLE, _SAMPLE_BYTES // native.dtype.itemsize))
        # A few first, which show that words have too many characters: 0.15 instead of 0.4 ms.
        some = (self.alphabets.characters(sample_rows(native, rows)) for rows in (min(wanted, _GLANCE), wanted))
        self._learn(some)

    @property
    def dtype(self) -> type:
        """The type of numbers, int32 where it holds them."""
        return np.int32 if self.alphabets.size <= 2**31 else np.int64

    def _learn(self, samples: Iterable[Array]) -> None:
        """Learn the characters of some rows."""
        # What was in vain costs little more than doing it twice: a piece is read again up to where it ended.
        self.possible = all(self.alphabets.learn(rows) for rows in samples) and self._tried <= self.rows
        self._known = self.alphabets.tables() if self.possible else ()
        self._stuck: list[int] = []
        self._read: list[int] = []

    def number(self, start: int, stop: int, keys: Array, *, origin: int = 0) -> bool:
        """Number some rows, in any thread; return whether all of their characters are known.

        Args:
            start: First row, a multiple of `STEP_UNIT`.
            stop: One past the last; a multiple of it, or N.
            keys: ``(>= stop - origin,)`` int32 or int64, written to.
            origin: The row whose number comes first in `keys`.
        """
        if self._stuck:  # in this thread or another one
            return False
        reached = int(
            string_kernels().number_rows(
                self._words, self._chars, self._grid.shape[1], start, stop, *self._known, origin, keys
            )
        )
        self._read.append(reached - start)
        if reached < stop:
            self._stuck.append(reached)
        return reached == stop

    def settle(self) -> bool:
        """Return whether all rows were numbered; if not, learn the characters that were missing."""
        if not self._stuck:
            return True
        self._tried += sum(self._read)
        # The block where it ended, at least, as else it would end there again.
        some = max(STEP_UNIT, _SAMPLE)
        self._learn([self._grid[row : row + some] for row in self._stuck])
        return False


def _any_bits(rows: Array) -> Array:
    """Return the bits that are set in any of ``(N, W)`` rows, which are overwritten; numpy's loop has W steps."""
    n = rows.shape[0]
    while n > 1:
        half = n // 2
        rows[:half] |= rows[n - half : n]
        n -= half
    bits: Array = rows[0]
    return bits


class Alphabets:
    """The characters that occur at each position of fixed-width strings.

    Args:
        dtype: Of the strings, ``U`` or ``S``, native.
    """

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self._dtype = dtype
        self._char = np.dtype(np.uint32 if dtype.kind == "U" else np.uint8)
        self._width = dtype.itemsize // self._char.itemsize
        self._row = np.empty(0, dtype=self._char)
        self._alphabets: dict[int, Array] = {}  # of the positions that vary

    @property
    def size(self) -> int:
        """How many strings these alphabets make."""
        return math.prod(len(alphabet) for alphabet in self._alphabets.values())

    def characters(self, labels: Array) -> Array:
        """Return ``(N,)`` contiguous strings as ``(N, W)`` characters."""
        grid: Array = labels.view(self._char).reshape(labels.shape[0], self._width)
        return grid

    def learn(self, rows: Array) -> bool:
        """Add the characters of ``(N, W)`` rows; return whether all known characters can be numbered.

        They can if those of a position that varies differ in their lowest byte alone, as those of one script mostly
        do, and if there are not too many combinations.
        """
        if not self._row.size:
            self._row = rows[0].copy()
        different = _any_bits(rows ^ self._row)
        if (different > 255).any():
            return False
        columns = np.flatnonzero(different)
        if columns.shape[0] > _WIDEST:
            return False
        places = (rows[:, columns] & 255) + 256 * np.arange(columns.shape[0])
        found = np.bincount(places.reshape(-1), minlength=256 * columns.shape[0]).reshape(-1, 256)
        if math.prod(np.count_nonzero(found, axis=1).tolist()) > _LARGEST:
            return False  # without making alphabets of them: 60 instead of 160 us for words of twelve letters
        for low, j in zip(found, columns.tolist(), strict=True):
            low[self._alphabets.get(j, self._row[j : j + 1]) & 255] = 1
            self._alphabets[j] = (np.flatnonzero(low) | (int(self._row[j]) & ~255)).astype(self._char)
        self._alphabets = dict(sorted(self._alphabets.items()))
        return len(self._alphabets) <= _WIDEST and self.size <= _LARGEST

    def _strides(self) -> list[tuple[int, Array, int]]:
        """Return the positions that vary, their alphabets, and what each place in one counts."""
        strides = []
        stride = 1
        for j, alphabet in reversed(self._alphabets.items()):
            strides.append((j, alphabet, stride))
            stride *= len(alphabet)
        return strides

    def tables(self) -> tuple[Array, ...]:
        """Return what the kernel has to know: see `labeltrack._string_kernels.number_rows`."""
        kernels = string_kernels()
        strides = self._strides()
        places = max(1, len(strides))
        positions, steps = np.zeros(places, dtype=np.int64), np.zeros((places, 256), dtype=np.int64)
        row, mask = self._row.copy(), np.full(self._width, -1).astype(self._char)
        for place, (j, alphabet, stride) in enumerate(strides):
            positions[place] = j
            steps[place] = _UNKNOWN
            steps[place, alphabet & 255] = np.arange(len(alphabet)) * stride
            mask[j] &= ~np.array(255, dtype=self._char)
        block = kernels.BLOCK // self._char.itemsize
        base_chars, mask_chars = np.tile(row, block), np.tile(mask, block)
        words = base_chars.view(np.uint64), mask_chars.view(np.uint64)
        return (*words, base_chars, mask_chars, positions, steps.reshape(-1))

    def decode(self, keys: Integers) -> Array:
        """Return the strings of ``(K,)`` numbers."""
        rows = np.tile(self._row, (keys.shape[0], 1))
        for j, alphabet, stride in self._strides():
            rows[:, j] = alphabet[keys // stride % len(alphabet)]
        labels: Array = rows.view(self._dtype).reshape(-1)
        return labels

    def encode(self, labels: Array) -> tuple[Integers, npt.NDArray[np.bool_]]:
        """Return the numbers of labels.

        Args:
            labels: ``(K,)`` of the same kind, and any width.

        Returns:
            ``(K,)`` numbers, and which labels have one: the others hold characters that did not occur.
        """
        rows = self.characters(np.ascontiguousarray(labels.astype(self._dtype)))
        numbers = np.zeros(labels.shape[0], dtype=np.int64)
        for j, alphabet, stride in self._strides():
            numbers += np.searchsorted(alphabet, rows[:, j]).clip(max=len(alphabet) - 1) * stride
        return numbers, np.asarray(self.decode(numbers) == labels)
