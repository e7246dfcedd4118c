"""Combinations of several labels: their codes become a column per label when written, these a key when read."""

from __future__ import annotations

import math
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from labeltrack._core.arrays import read_only
from labeltrack._core.combine import Combined, Part, combined, selected
from labeltrack._core.hash_index import Hash
from labeltrack._labels.codes import BYTES, INTEGER, STRING, Vocabulary
from labeltrack._labels.combination_codes import kinds_of
from labeltrack._labels.combination_parts import LABEL_BITS, LabelCodes
from labeltrack._labels.combined import columns_of, combinations
from labeltrack.recording.keys import DTYPES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from labeltrack._labels.codes import LabelDecoder
    from labeltrack._labels.combination_codes import Combinations

Array = npt.NDArray[Any]
Integers = npt.NDArray[np.int64]

_NARROW = np.iinfo(np.int32)
_NEAR = 2**22  # keys that lie close together: 4 million samples of 1,000 and 20 labels take 20 instead of 57 ms
_FEW = 128  # labels for more of which there is no room: all of few occur in the first batch


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
        """Return ``(N,)`` labels, or codes of them, by label, of which kind they are, and what they are codes of."""
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
        self._columns = [np.empty(0, dtype=DTYPES.get(one, "i4")) for one in kinds_of(kind)]

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


class Join:
    """Joins the keys of several labels into one, a number in a mixed radix; may be used by several threads.

    The keys of combinations whose labels are in the range of those of the first batch lie close together and are not
    negative; all others have negative keys, for which labels may be any.

    Args:
        names: Names of the labels.
        spaces: What the keys of each label mean.
        wanted: Keys to keep of each label; None for all.
    """

    def __init__(self, names: Sequence[str], spaces: Sequence[LabelDecoder], wanted: Sequence[Integers | None]) -> None:
        self._names, self._spaces = tuple(names), list(spaces)
        self._wanted = [None if keys is None else Hash(keys) for keys in wanted]
        self._codes = [LabelCodes() for _ in names]
        self._before = [Hash() for _ in names[2:]]  # keys of all labels before one, from the third on
        self._lows: tuple[int, ...] = ()
        self._sizes: tuple[int, ...] = ()
        self._lock = Lock()

    def chunk(self, keys: Sequence[Array], values: Array) -> tuple[Array, Array]:
        """Return the ``(M,)`` joined keys and values of those of ``(N,)`` samples that have labels to keep."""
        joined = self._joined(keys)
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

    def _joined(self, keys: Sequence[Array]) -> Array:
        near = self._form(keys)
        if near is None:
            return -1 - self._far(keys)
        found = combined(near, threads=1)
        if found is not None:
            return found
        here = np.ones(keys[0].shape[0], dtype=np.bool_)
        for column, low, size in zip(keys, near.lows, near.sizes, strict=True):
            here &= (column >= low) & (column < low + size)
        joined = -1 - self._far(keys)
        inside = near._replace(parts=tuple(Part(column[here]) for column in keys))
        found = combined(inside, threads=1)
        assert found is not None  # noqa: S101 (all are in the range)
        joined[here] = found
        return joined

    def _form(self, keys: Sequence[Array]) -> Combined | None:
        """Return how to combine keys in the range of those of the first batch; None if that is too large."""
        with self._lock:
            if not self._lows and keys[0].size:
                self._lows, self._sizes = zip(*map(_range, keys), strict=True)
        near = math.prod(self._sizes) <= _NEAR and keys[0].size
        return Combined(tuple(map(Part, keys)), self._lows, self._sizes) if near else None

    def _far(self, keys: Sequence[Array]) -> Integers:
        """Return keys that any labels have, from 0 on."""
        joined = np.empty(keys[0].shape[0], dtype=np.int64)
        with self._lock:
            for place, (codes, column) in enumerate(zip(self._codes, keys, strict=True)):
                if place > 1:
                    joined = self._before[place - 2].codes_of(joined).astype(np.int64)
                if place:
                    joined <<= LABEL_BITS
                codes.add(column, INTEGER, 1, joined, first=place == 0)
        return joined

    def decode(self, keys: Integers) -> Array:
        """Return the ``(K,)`` combinations of joined keys."""
        far, keys = keys < 0, keys.astype(np.int64, copy=False)
        columns = [np.empty(keys.shape[0], dtype=np.int64) for _ in self._names]
        if not far.all():
            form = Combined(tuple(map(Part, columns)), self._lows, self._sizes)
            for column, labels in zip(columns, form.split(keys[~far]), strict=True):
                column[~far] = labels
        for column, labels in zip(columns, self._from_far(-1 - keys[far]), strict=True):
            column[far] = labels
        decoded = [space.decode(column) for space, column in zip(self._spaces, columns, strict=True)]
        return combinations(dict(zip(self._names, decoded, strict=True)))

    def _from_far(self, keys: Integers) -> list[Integers]:
        """Return the keys of each label that `_far` has joined."""
        found: list[Integers] = []
        for place in range(len(self._codes) - 1, 0, -1):
            keys, last = keys >> LABEL_BITS, keys & ((1 << LABEL_BITS) - 1)
            found.append(last)
            if place > 1:
                keys = self._before[place - 2].keys[keys]
        pairs = zip(self._codes, (keys, *reversed(found)), strict=True)
        return [codes.decode(part, INTEGER) for codes, part in pairs]


def _range(keys: Array) -> tuple[int, int]:
    """Return the smallest key of a label that lies close, and how many do; there is room for some more."""
    low, high = int(keys.min()), int(keys.max())
    more = high - low >> 4 if high - low > _FEW else 0
    low = 0 if 0 <= low <= high - low else low - more
    return low, high + more + 1 - low
