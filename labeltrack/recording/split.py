"""Codes of combinations become one column per label, as the labels themselves or as codes of words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from labeltrack._labels.codes import BOOL, BYTES, FLOAT, STRING, UNSIGNED, Vocabulary
from labeltrack._labels.combined import columns_of
from labeltrack._labels.tuples import kinds_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from labeltrack._labels.tuples import Combinations

Array = npt.NDArray[Any]

_DTYPES: dict[str, Any] = {BOOL: np.uint8, FLOAT: np.float64, UNSIGNED: np.uint64}
_NARROW = np.iinfo(np.int32)


class Split:
    """Splits the codes of combinations, to which another thread may add.

    Args:
        combinations: What codes stand for.
    """

    def __init__(self, combinations: Combinations) -> None:
        self._combinations = combinations
        self._tables: dict[str, _Table] = {}
        self._words: dict[tuple[int, str], Vocabulary] = {}

    def columns(self, codes: npt.NDArray[np.int32], kind: str) -> list[tuple[Array, str, Vocabulary | None]]:
        """Return ``(N,)`` labels, or codes of them, by label, of which kind they are, and what they are codes of.

        Args:
            codes: ``(N,)`` of combinations.
            kind: Kind of the combinations.
        """
        kinds = kinds_of(kind)
        words = [self._vocabulary(place, one) for place, one in enumerate(kinds)]
        if kind not in self._tables:
            self._tables[kind] = _Table(self._combinations, kind, words)
        return list(zip(self._tables[kind].look_up(codes), kinds, words, strict=True))

    def _vocabulary(self, place: int, kind: str) -> Vocabulary | None:
        if kind not in (STRING, BYTES):
            return None
        if (place, kind) not in self._words:
            self._words[place, kind] = Vocabulary(kind)
        return self._words[place, kind]


class _Table:
    """The labels of combinations of one kind, by code; those that are needed are decoded once."""

    def __init__(self, combinations: Combinations, kind: str, words: Sequence[Vocabulary | None]) -> None:
        self._combinations, self._kind, self._words = combinations, kind, words
        self._known = np.zeros(0, dtype=np.bool_)
        self._columns = [np.empty(0, dtype=_DTYPES.get(one, np.int32)) for one in kinds_of(kind)]

    def look_up(self, codes: npt.NDArray[np.int32]) -> list[Array]:
        size, have = len(self._combinations), self._known.shape[0]
        if size > have:
            more = max(size, 2 * have) - have
            self._known = np.append(self._known, np.zeros(more, dtype=np.bool_))
            self._columns = [np.append(column, np.zeros(more, dtype=column.dtype)) for column in self._columns]
        known = self._known[codes]
        if not known.all():
            fresh = np.unique(codes[~known])
            labels = columns_of(self._combinations.decode(fresh.astype(np.int64), self._kind))
            for place, column in enumerate(labels.values()):
                self._enter(place, fresh, column)
            self._known[fresh] = True
        return [column[codes] for column in self._columns]

    def _enter(self, place: int, codes: npt.NDArray[np.int32], labels: Array) -> None:
        """Enter the labels of codes at one place; integers become 64 bits wide once one of them takes more than 32."""
        words, column = self._words[place], self._columns[place]
        if words is not None:
            labels = words.encode(labels)
        elif column.dtype == np.int32 and not _NARROW.min <= labels.min() <= labels.max() <= _NARROW.max:
            column = self._columns[place] = column.astype(np.int64)
        column[codes] = labels
