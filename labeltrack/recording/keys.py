"""What the numbers in columns of labels and ids stand for: words of a part, keys of all parts, ids that are new.

Codes of combinations of several labels become a column per label when they are written, and these one key when read.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from labeltrack._core.arrays import Array, Codes, Integers, Mask, read_only
from labeltrack._core.combine import Combined, Part, combined, selected
from labeltrack._core.key_tables import Hash, Slots
from labeltrack._labels.codes import BOOL, BYTES, FLOAT, INTEGER, STRING, UNSIGNED, LabelDecoder, Vocabulary
from labeltrack._labels.combination_codes import KeyTuples, compatible, kinds_of, wider
from labeltrack._labels.combined import columns_of, combinations

if TYPE_CHECKING:
    from labeltrack._labels.combination_codes import Combinations

_ALWAYS, _PER_ID = 1 << 20, 8  # ids that are marked in a table, which takes a tenth of the time of hashing them
DTYPES = {STRING: "i4", BYTES: "i4", FLOAT: "f8", UNSIGNED: "u8", BOOL: "u1"}  # label dtypes by kind; integers vary
_NEW = -1
_NARROW = np.iinfo(np.int32)
_NEAR = 2**22  # keys that lie close together: 4 million samples of 1,000 and 20 labels take 20 instead of 57 ms
_FEW = 128  # labels for more of which there is no room: all of few occur in the first batch


class Words:
    """The words of a vocabulary, by code; joined until they are needed, as there may be as many as ids of samples."""

    def __init__(self, kind: str) -> None:
        if kind not in (STRING, BYTES):
            msg = f"words of kind {kind!r}"
            raise ValueError(msg)
        self.kind = kind
        self._blocks: list[tuple[Any, Array]] = []  # words one after the other, and the edges between them
        self._size = 0
        self._array: Array | None = None

    def __len__(self) -> int:
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

    def up_to(self, size: int) -> Words:
        """Return the same words, of which no more than some have codes."""
        if size >= self._size:
            return self  # with the array that is known
        some = copy.copy(self)
        some._size = size  # noqa: SLF001 (a copy)
        return some

    @property
    def array(self) -> Array:
        """All of them, ``(V,)`` objects."""
        if self._array is None:
            words = [text[start:end] for text, edges in self._blocks for start, end in pairwise(edges.tolist())]
            self._array = np.array([*words, None], dtype=object)[:-1]  # an array of strings alone would be no objects
        return self._array


class Column(NamedTuple):
    """What a column of labels or ids of a part is."""

    kind: str
    stored: np.dtype[Any]  # in the file
    number: str = ""  # of the vocabulary; empty if there is none
    words: Words | None = None  # the vocabulary, if they are codes

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

    def bare(self) -> Column:
        """Return the column without its words."""
        return self if self.words is None else self._replace(words=Words(self.kind))

    def among(self, words: Mapping[str, Words]) -> Column:
        """Return the column with the words it has among some vocabularies, if it has any."""
        return self if self.words is None else self._replace(words=words[self.number])

    def has(self, codes: Array) -> bool:
        """Return whether ``(N,)`` codes are all codes of words, if they have to be."""
        return self.words is None or not codes.size or 0 <= int(codes.min()) <= int(codes.max()) < len(self.words)


@dataclass
class Keys:
    """What keys of labels or ids of all parts stand for: codes of the first vocabulary stay, others are translated."""

    what: str  # for messages
    kind: str = ""
    words: Array | None = None
    _codes: dict[Any, int] = field(default_factory=dict)  # of words, once there are several vocabularies
    _known: dict[Words, Integers | None] = field(default_factory=dict)  # what their codes are called; None: the same

    def of(self, column: Column, keys: Array) -> Array:
        """Return ``(N,)`` labels or ids of a part as keys; TypeError if earlier ones do not fit the same column."""
        self._accept(column.kind)
        if column.words is None:
            return column.keys(keys)
        if column.words not in self._known:
            self._known[column.words] = self._translation(column.words.array)
        names = self._known[column.words]
        return keys if names is None else names[keys]

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


class Distinct:
    """Finds the first sample of each id among batches that come one after the other."""

    def __init__(self) -> None:
        # By kind of ids: what they stand for, their slots, and where each slot first occurred in its batch.
        self._seen: dict[str, tuple[Keys, Slots, Codes]] = {}

    def first(self, ids: Integers, column: Column) -> Mask | None:
        """Return which of ``(N,)`` ids did not occur before; None if all of them."""
        nothing = Keys("ids"), Slots(_ALWAYS, _PER_ID), np.empty(0, dtype=np.int32)
        keys, slots, table = self._seen.get(column.kind, nothing)
        before = slots.size
        found = slots.of([keys.of(column, ids)])[0].astype(np.intp)  # once, instead of whenever it is an index
        if slots.size > table.shape[0]:
            more = max(slots.size, 2 * table.shape[0]) - table.shape[0]
            table = np.append(table, np.full(more, _NEW, dtype=np.int32))
        self._seen[column.kind] = keys, slots, table
        if slots.hashed and slots.size - before == ids.size:
            table[before : slots.size] = 0
            return None
        new: Mask = table[found] == _NEW
        places = np.flatnonzero(new)
        fresh = found[places]
        table[fresh[::-1]] = places[::-1]  # of equal ones, the last to be written is the first
        new[places] = table[fresh] == places
        return None if new.all() else new


class Split:
    """Splits the codes of combinations, to which another thread may add."""

    def __init__(self, combinations: Combinations) -> None:
        self._combinations = combinations
        self._tables: dict[str, tuple[Mask, list[Array]]] = {}  # by kind: which codes are known, and their labels
        self._words: dict[tuple[int, str], Vocabulary] = {}

    def columns(self, codes: Codes, kind: str) -> list[tuple[Array, str, Vocabulary | None]]:
        """Return ``(N,)`` labels, or codes of them, by label, of which kind they are, and what they are codes of."""
        kinds = kinds_of(kind)
        words = [
            self._words.setdefault((place, one), Vocabulary(one)) if one in (STRING, BYTES) else None
            for place, one in enumerate(kinds)
        ]
        none = np.zeros(0, dtype=np.bool_), [np.zeros(0, dtype=DTYPES.get(one, "i4")) for one in kinds]
        known, columns = self._tables.get(kind, none)
        short = len(self._combinations) - known.shape[0]
        if short > 0:
            known, *columns = (np.pad(one, (0, max(short, one.shape[0]))) for one in (known, *columns))
        here = known[codes]
        if not here.all():
            fresh = np.unique(codes[~here])
            labels = columns_of(self._combinations.decode(fresh.astype(np.int64), kind))
            for place, (own, column) in enumerate(zip(words, labels.values(), strict=True)):
                found = column if own is None else own.encode(column)
                # Integers become 64 bits wide once one of them takes more than 32.
                if columns[place].dtype == np.int32 and not _NARROW.min <= found.min() <= found.max() <= _NARROW.max:
                    columns[place] = columns[place].astype(np.int64)
                columns[place][fresh] = found
            known[fresh] = True
        self._tables[kind] = known, columns
        return list(zip([column[codes] for column in columns], kinds, words, strict=True))


class Join:
    """Joins the keys of several labels into one, in any threads; `wanted` are the keys to keep of each, None for all.

    Labels in the range of those of the first batch make numbers in a mixed radix, which lie close together; others, and
    all if that range is large, make negative numbers.
    """

    def __init__(self, names: Sequence[str], spaces: Sequence[LabelDecoder], wanted: Sequence[Integers | None]) -> None:
        self._names, self._spaces = tuple(names), list(spaces)
        self._wanted = [None if keys is None else Hash(keys) for keys in wanted]
        self._tuples = KeyTuples(len(self._names))
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
        joined, values = selected(mask, joined, values, threads=1)
        return joined, values

    def _joined(self, keys: Sequence[Array]) -> Array:
        near = self._form(keys)
        found = None if near is None else combined(near, threads=1)
        if found is not None:
            return found
        with self._lock:
            joined = -1 - self._tuples.joined(keys)
        if near is not None:
            here = np.ones(keys[0].shape[0], dtype=np.bool_)
            for column, low, size in zip(keys, near.lows, near.sizes, strict=True):
                here &= (column >= low) & (column < low + size)
            found = combined(near._replace(parts=tuple(Part(column[here]) for column in keys)), threads=1)
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

    def decode(self, keys: Integers) -> Array:
        """Return the ``(K,)`` combinations of joined keys."""
        far, keys = keys < 0, keys.astype(np.int64, copy=False)
        columns = [np.empty(keys.shape[0], dtype=np.int64) for _ in self._names]
        if not far.all():
            form = Combined(tuple(map(Part, columns)), self._lows, self._sizes)
            for column, labels in zip(columns, form.split(keys[~far]), strict=True):
                column[~far] = labels
        for column, labels in zip(columns, self._tuples.split(-1 - keys[far]), strict=True):
            column[far] = labels
        decoded = [space.decode(column) for space, column in zip(self._spaces, columns, strict=True)]
        return combinations(dict(zip(self._names, decoded, strict=True)))


def _range(keys: Array) -> tuple[int, int]:
    """Return the smallest key of a label that lies close, and how many do; there is room for some more."""
    low, high = int(keys.min()), int(keys.max())
    more = high - low >> 4 if high - low > _FEW else 0
    low = 0 if 0 <= low <= high - low else low - more
    return low, high + more + 1 - low
