"""What the numbers in columns of labels and ids stand for: words of a part, keys of all parts, ids that are new."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from labeltrack._core.hash_index import Slots
from labeltrack._labels.codes import BOOL, BYTES, FLOAT, INTEGER, STRING, UNSIGNED, LabelDecoder
from labeltrack._labels.combination_codes import compatible, wider

if TYPE_CHECKING:
    from collections.abc import Sequence

Array = npt.NDArray[Any]
Integers = npt.NDArray[np.int64]

_ALWAYS, _PER_ID = 1 << 20, 8  # ids that are marked in a table, which takes a tenth of the time of hashing them
DTYPES = {STRING: "i4", BYTES: "i4", FLOAT: "f8", UNSIGNED: "u8", BOOL: "u1"}  # label dtypes by kind; integers vary
_NEW = -1


class Words:
    """The words of a vocabulary, by code; joined until they are needed, as there may be as many as ids of samples.

    Args:
        kind: ``"string"`` or ``"bytes"``.

    Raises:
        ValueError: It is another kind.

    Example:
        >>> words = Words("string")
        >>> words.add(["cat", "dog"])
        >>> len(words), words.array.tolist()
        (2, ['cat', 'dog'])
    """

    def __init__(self, kind: str) -> None:
        if kind not in (STRING, BYTES):
            msg = f"words of kind {kind!r}"
            raise ValueError(msg)
        self.kind = kind
        self._blocks: list[tuple[Any, Array]] = []  # words one after the other, and the edges between them
        self._size = 0
        self._array: Array | None = None

    def __len__(self) -> int:
        """Return how many there are."""
        return self._size

    def add(self, words: Sequence[Any]) -> None:
        """Add words; TypeError if they are not all strings, or bytes in hexadecimal."""
        if self.kind == STRING and not all(isinstance(word, str) for word in words):
            msg = "words must be strings"
            raise TypeError(msg)
        plain: Any = words if self.kind == STRING else [bytes.fromhex(word) for word in words]
        edges = np.fromiter(accumulate(map(len, plain), initial=0), np.int64, len(plain) + 1)
        self._blocks.append((("" if self.kind == STRING else b"").join(plain), edges))
        self._size += len(plain)
        self._array = None

    @property
    def array(self) -> Array:
        """All of them, ``(V,)`` objects."""
        if self._array is None:
            words = [text[start:end] for text, edges in self._blocks for start, end in pairwise(edges.tolist())]
            self._array = np.array([*words, None], dtype=object)[:-1]  # an array of strings alone would be no objects
        return self._array


class Column(NamedTuple):
    """What a column of labels or ids of a part is.

    Attributes:
        kind: Kind of the labels or ids.
        stored: Dtype in the file.
        number: Number of the vocabulary; empty if there is none.
        words: The vocabulary, if they are codes.
    """

    kind: str
    stored: np.dtype[Any]
    number: str = ""
    words: Words | None = None

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype as it is read."""
        return np.dtype(DTYPES.get(self.kind, self.stored))

    def space(self) -> LabelDecoder:
        """Return what its keys stand for."""
        return LabelDecoder(self.kind, None if self.words is None else self.words.array)

    def keys(self, labels: Array) -> Array:
        """Return ``(N,)`` labels as keys."""
        return labels.view(np.int64) if self.kind in (FLOAT, UNSIGNED) else labels

    def has(self, codes: Array) -> bool:
        """Return whether ``(N,)`` codes are all codes of words, if they have to be."""
        return self.words is None or not codes.size or 0 <= int(codes.min()) <= int(codes.max()) < len(self.words)


@dataclass
class Keys:
    """What keys of labels or ids of all parts that were read stand for.

    Codes of words differ between processes: those of the first vocabulary are kept, others are translated.
    """

    what: str  # for messages
    kind: str = ""
    words: Array | None = None
    _codes: dict[Any, int] = field(default_factory=dict)  # of words, once there are several vocabularies
    _known: dict[Words, Integers | None] = field(default_factory=dict)  # what their codes are called; None: the same

    def of(self, column: Column, keys: Array) -> Array:
        """Return ``(N,)`` labels or ids of a part as keys.

        Raises:
            TypeError: Their type and that of earlier ones do not fit one column.
        """
        self._accept(column.kind)
        if column.words is None:
            return column.keys(keys)
        if column.words not in self._known:
            self._known[column.words] = self._translation(column.words.array)
        names = self._known[column.words]
        return keys if names is None else names[keys]

    def adopt(self, other: Keys) -> Integers | None:
        """Return what the keys of another are called here, by key; None if they are the same."""
        if other.kind:
            self._accept(other.kind)
        return None if other.words is None else self._translation(other.words)

    def _accept(self, kind: str) -> None:
        before = self.kind or kind
        if not compatible([before, kind]):
            kinds = " and ".join(sorted([before, kind]))
            msg = f"{self.what} are of several types, {kinds}; select steps with one, with step="
            raise TypeError(msg)
        self.kind = wider(before, kind)

    def _translation(self, words: Array) -> Integers | None:
        if self.words is None:
            self.words = words
            return None
        if not self._codes:
            self._codes = {word: code for code, word in enumerate(self.words.tolist())}
        names = [self._codes.setdefault(word, len(self._codes)) for word in words.tolist()]
        if len(self._codes) > self.words.shape[0]:
            self.words = np.array([*self._codes, None], dtype=object)[:-1]  # a list of one string would be no object
        return np.array(names, dtype=np.int64)

    def decode(self, keys: Integers) -> Array:
        """Return the labels or ids of keys."""
        return LabelDecoder(self.kind or INTEGER, self.words).decode(keys)

    def __getstate__(self) -> dict[str, Any]:
        """Return the state for pickle, without what belongs to this process."""
        return {**self.__dict__, "_known": {}}


class Distinct:
    """Finds the first sample of each id among batches that come one after the other."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[Keys, _Seen]] = {}  # by kind of ids

    def first(self, ids: Integers, column: Column) -> npt.NDArray[np.bool_] | None:
        """Return which of ``(N,)`` ids did not occur before; None if all of them."""
        keys, seen = self._seen.setdefault(column.kind, (Keys("ids"), _Seen()))
        return seen.first(keys.of(column, ids))


class _Seen:
    """Integers that occurred."""

    def __init__(self) -> None:
        self._slots = Slots(_ALWAYS, _PER_ID)
        self._table = np.empty(0, dtype=np.int32)  # where each slot first occurred in its batch

    def first(self, ids: Integers) -> npt.NDArray[np.bool_] | None:
        """Return which of ``(N,)`` integers did not occur before; None if all of them."""
        before = self._slots.size
        slots = self._slots.of([ids])[0].astype(np.intp)  # once, instead of whenever it is an index
        if self._slots.size > self._table.shape[0]:
            more = max(self._slots.size, 2 * self._table.shape[0]) - self._table.shape[0]
            self._table = np.append(self._table, np.full(more, _NEW, dtype=np.int32))
        if self._slots.hashed and self._slots.size - before == ids.size:
            self._table[before : self._slots.size] = 0
            return None
        new: npt.NDArray[np.bool_] = self._table[slots] == _NEW
        places = np.flatnonzero(new)
        fresh = slots[places]
        self._table[fresh[::-1]] = places[::-1]  # of equal ones, the last to be written is the first
        new[places] = self._table[fresh] == places
        return None if new.all() else new
