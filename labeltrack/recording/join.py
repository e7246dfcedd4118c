"""Columns of labels of recorded samples become one key per combination, batch by batch, and back."""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from labeltrack._core.arrays import read_only
from labeltrack._core.hash_index import Hash
from labeltrack._core.masks import selected
from labeltrack._labels.combined import combinations

if TYPE_CHECKING:
    from collections.abc import Sequence

    from labeltrack._labels.codes import LabelDecoder

Array = npt.NDArray[Any]
Integers = npt.NDArray[np.int64]

_CODES = 2**31  # numbers that occur, at most
_LARGEST = 2**63


class _Digit(NamedTuple):
    """What becomes a digit of the key: the label itself from `low` on, or a number in order of appearance."""

    low: int
    size: int
    numbers: Hash | None = None  # of labels, or of keys of all labels before, if they take too many bits


class Join:
    """Joins the keys of several labels into one, a number in a mixed radix; may be used by several threads.

    Args:
        names: Names of the labels.
        dtypes: Dtypes of the keys of each label, which mean the same in all.
        spaces: What the keys of each label mean.
        wanted: Keys to keep of each label; None for all.
    """

    def __init__(
        self,
        names: Sequence[str],
        dtypes: Sequence[set[np.dtype[Any]]],
        spaces: Sequence[LabelDecoder],
        wanted: Sequence[Integers | None],
    ) -> None:
        self._names, self._spaces = tuple(names), list(spaces)
        self._wanted = [None if keys is None else Hash(keys) for keys in wanted]
        self._digits = [_digit(*pair) for pair in zip(dtypes, spaces, strict=True)]
        self._before: list[Hash | None] = [None]  # numbers of the keys of all labels before, where there is no room
        size = self._digits[0].size
        for digit in self._digits[1:]:
            self._before.append(Hash(np.empty(0, dtype=np.int64)) if size * digit.size > _LARGEST else None)
            size = (size if self._before[-1] is None else _CODES) * digit.size
        self._lock = Lock()

    def chunk(self, keys: Sequence[Array], values: Array) -> tuple[Array, Array]:
        """Return the ``(M,)`` joined keys and values of those of ``(N,)`` samples that have labels to keep."""
        joined = self._digit(self._digits[0], keys[0])
        for before, digit, column in zip(self._before[1:], self._digits[1:], keys[1:], strict=True):
            if before is not None:
                joined = self._number(before, joined)
            joined = joined * digit.size + self._digit(digit, column)
        mask: Any = None
        for wanted, column in zip(self._wanted, keys, strict=True):
            if wanted is not None:
                found = np.empty(column.shape[0], dtype=np.int32)
                wanted.encode(read_only(column), 0, column.shape[0], found, frozen=True)
                mask = found < wanted.size if mask is None else mask & (found < wanted.size)
        if mask is None:
            return joined, values
        kept_keys, kept_values = selected(mask, joined, values, threads=1)
        return kept_keys, kept_values

    def decode(self, keys: Integers) -> Array:
        """Return the ``(K,)`` combinations of joined keys."""
        columns = {}
        for i in range(len(self._digits) - 1, -1, -1):
            (low, size, numbers), before = self._digits[i], self._before[i]
            keys, digits = np.divmod(keys, size) if i else (keys, keys)
            labels = digits + low if numbers is None else numbers.keys[digits]
            columns[self._names[i]] = self._spaces[i].decode(labels)
            if before is not None:
                keys = before.keys[keys]
        return combinations({name: columns[name] for name in self._names})

    def _digit(self, digit: _Digit, column: Array) -> Integers:
        if digit.numbers is not None:
            return self._number(digit.numbers, column)
        return column.astype(np.int64) - digit.low

    def _number(self, numbers: Hash, keys: Array) -> Integers:
        codes = np.empty(keys.shape[0], dtype=np.int32)
        with self._lock:
            numbers.encode(read_only(keys), 0, keys.shape[0], codes, frozen=False)
        return codes.astype(np.int64)


def _digit(dtypes: set[np.dtype[Any]], space: LabelDecoder) -> _Digit:
    """Return the digit of labels of some dtypes."""
    if space.vocabulary is not None:
        return _Digit(0, max(1, len(space.vocabulary)))
    if max(dtype.itemsize for dtype in dtypes) > 4:
        return _Digit(0, _CODES, Hash(np.empty(0, dtype=np.int64)))
    small = dtypes == {np.dtype(np.uint8)}
    return _Digit(0, 2**8) if small else _Digit(-(2**31), 2**32)
