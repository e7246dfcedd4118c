"""Combinations of several labels that come batch by batch: each gets a code, as a word does.

The kind of combinations names those of their labels, such as ``"(integer, string)"``. A code stands for one key per
label; the kind says what that stands for, so codes of one kind mean nothing under another.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from labeltrack._convert.arrays import QUICK, aligned_shape
from labeltrack._convert.objects import text_array
from labeltrack._core import kernels
from labeltrack._core.arrays import Array, Codes, Integers, Mask, read_only
from labeltrack._core.combine import PairTable
from labeltrack._core.key_tables import Hash
from labeltrack._labels.codes import (
    BOOL,
    BYTES,
    FLOAT,
    INTEGER,
    READ_AS_IS,
    STRING,
    UNSIGNED,
    LabelDecoder,
    Vocabulary,
    integer_keys,
    label_kind,
)
from labeltrack._labels.combined import columns_of, combinations
from labeltrack._labels.masks import flat, several_labels
from labeltrack._labels.missing import LabelOptions, read_labels

COMBINED = "combined"  # the key of the vocabulary of combinations, for labels of any kinds
IDS = "ids"  # the key of the vocabulary of ids of samples
WHOLE = {BOOL, INTEGER, UNSIGNED}  # kinds of labels that one 64-bit type may hold together
_AT_ONCE = 1 << 15  # rows whose labels wait for codes: fewer are coded at less speed, more leave the cache
_ARRAY = np.ndarray
_BITS = 31  # of what stands for a key in a pair
_SMALL = 1 << 30  # keys below stand for themselves; others are numbered from there on

Vocabularies = dict[str, Vocabulary]


def several(kind: str) -> bool:
    return kind.startswith("(")


def kinds_of(kind: str) -> list[str]:
    return kind[1:-1].split(", ") if several(kind) else [kind]


def kind_of(kinds: Iterable[str]) -> str:
    return f"({', '.join(kinds)})"


def compatible(kinds: Iterable[str]) -> bool:
    """Return whether labels of several kinds can be in one epoch."""
    return all(len(set(column)) == 1 or set(column) <= WHOLE for column in zip(*map(kinds_of, kinds), strict=True))


def wider(kind: str, other: str) -> str:
    """Return the kind that holds labels of two kinds that are compatible."""
    if kind == other:
        return kind
    if several(kind):
        return kind_of(wider(*pair) for pair in zip(kinds_of(kind), kinds_of(other), strict=True))
    return UNSIGNED if UNSIGNED in (kind, other) else INTEGER


class KeyTuples:
    """Tuples of `width` 64-bit keys, each with an int32 code in order of appearance.

    The first two keys are a pair, its code and the third are the next, and so on; each different pair is hashed.
    """

    def __init__(self, width: int) -> None:
        self._numbers = [Hash() for _ in range(width)]  # of keys that are large or negative, by place
        self._pairs = [Hash() for _ in range(max(1, width - 1))]

    def __len__(self) -> int:
        return self._pairs[-1].size

    def codes_of(self, columns: Sequence[Array]) -> Codes:
        """Return the ``(N,)`` codes of columns of keys (uint8, int32 or int64), adding those that are new."""
        return self._pairs[-1].codes_of(self.joined(columns))

    def keys(self, codes: Integers) -> list[Integers]:
        return self.split(self._pairs[-1].keys[codes])

    def joined(self, columns: Sequence[Array]) -> Integers:
        """Return the ``(N,)`` last pair of each tuple, below ``2**62``."""
        pairs = np.empty(columns[0].shape[0], dtype=np.int64)
        self._add(0, columns[0], 1 << _BITS if len(columns) > 1 else 1, pairs)
        for place in range(1, len(columns)):
            if place > 1:
                np.left_shift(self._pairs[place - 2].codes_of(pairs), _BITS, out=pairs, dtype=np.int64)
            self._add(place, columns[place], 1, pairs)
        return pairs

    def _add(self, place: int, keys: Array, factor: int, pairs: Integers) -> None:
        """Add what stands for ``(N,)`` keys, times `factor`, to ``(N,)`` pairs, or set these at the first place."""
        add, rows, first = kernels.combine.add_offsets, keys.shape[0], place == 0
        given = read_only(np.ascontiguousarray(keys))
        if not rows or 0 <= keys[0] < _SMALL:
            if add(given, 0, rows, 0, _SMALL, factor, first, pairs):
                return
            if not first:  # some are large or negative: take out what was added
                add(given, 0, rows, 0, _SMALL, -factor, first, pairs)
        numbers, found = self._numbers[place], given.astype(np.int64, copy=False)
        others = found.view(np.uint64) >= _SMALL
        if np.count_nonzero(others) == rows:  # `all` takes 1 us longer
            add(read_only(numbers.codes_of(found)), 0, rows, -_SMALL, 1 << _BITS, factor, first, pairs)
            return
        found = found.copy()
        found[others] = numbers.codes_of(found[others]).astype(np.int64) + _SMALL
        add(read_only(found), 0, rows, 0, 1 << _BITS, factor, first, pairs)

    def split(self, pairs: Integers) -> list[Integers]:
        """Return the ``(K,)`` keys at each place of what `joined` returned."""
        found: list[Integers] = []
        for place in reversed(range(1, len(self._numbers))):
            pairs, last = pairs >> _BITS, pairs & ((1 << _BITS) - 1)
            found.append(last)
            if place > 1:
                pairs = self._pairs[place - 2].keys[pairs]
        columns = [pairs, *reversed(found)]
        for numbers, column in zip(self._numbers, columns, strict=True):
            others = np.flatnonzero(column >= _SMALL)
            column[others] = numbers.keys[column[others] - _SMALL]
        return columns


class Combinations(Vocabulary):
    """Combinations seen so far, each with an int32 code in order of appearance."""

    def __init__(self, names: Sequence[str], state: Mapping[str, Any] | None = None) -> None:
        """Begin with those of what `state` returned; TypeError if that is damaged, or of another number of labels."""
        self.names = tuple(names)
        words: Any = [{} for _ in names] if state is None else state["words"]
        self._words = [{kind: Vocabulary(kind, of.get(kind, ())) for kind in (STRING, BYTES)} for of in words]
        self._tuples = KeyTuples(len(self.names))
        self._table, self._entered = PairTable(), 0  # of two labels whose keys are small; how many are in it
        if state is not None:
            if not len(self._words) == len(state["keys"]) == len(self.names):
                msg = f"expected combinations of {len(self.names)} labels, got {len(state['keys'])}"
                raise TypeError(msg)
            keys = list(map(np.asarray, state["keys"]))
            if {(column.dtype, column.shape) for column in keys} != {(np.dtype(np.int64), (keys[0].size,))}:
                msg = f"expected keys of {len(keys)} labels as columns of int64"
                raise TypeError(msg)
            if self._tuples.codes_of(keys).size != len(self):
                msg = "combinations occur twice"
                raise TypeError(msg)

    def state(self) -> Any:
        keys = np.array(self._tuples.keys(np.arange(len(self))))
        return {"keys": keys, "words": [{kind: of.words for kind, of in words.items()} for words in self._words]}

    def __len__(self) -> int:
        return len(self._tuples)

    def encode(self, labels: Any) -> Codes:
        """Return the ``(N,)`` codes of combinations in a structured array, adding those that are new."""
        columns = list(columns_of(labels).values())
        return self.encode_columns(columns, list(map(label_kind, columns)))

    def encode_columns(self, columns: Sequence[Array | list[str]], kinds: Sequence[str]) -> Codes:
        """Return the ``(N,)`` codes of labels, none missing; columns of strings may be codes from `memory_of`."""
        keys = [_keys(*each) for each in zip(self._words, columns, kinds, strict=True)]
        if len(keys) != 2 or FLOAT in kinds:
            return self._tuples.codes_of(keys)
        codes = self._table.look_up(*keys)
        if codes is None:
            codes, start = self._tuples.codes_of(keys), self._entered
            if start < len(self):
                fresh = np.arange(start, len(self))
                first, second = self._tuples.keys(fresh)
                self._table.enter(first, second, fresh)
                self._entered = start + fresh.size
        return codes

    def memory_of(self, labels: Any, kinds: Sequence[str]) -> list[Any] | None:
        """Return the memory of each name's labels, or the codes of a list of strings; None or KeyError for others."""
        if type(labels) is dict:
            labels = [labels[name] for name in self.names]
        elif type(labels) is not tuple or len(labels) != len(self.names):
            return None
        found = []
        for words, kind, column in zip(self._words, kinds, labels, strict=True):
            if kind == STRING:
                found.append(words[STRING].known(column) if type(column) is list else None)
            else:
                read = QUICK[type(column)]
                found.append(column if read is None else read(column))
        return found

    def decode(self, codes: Integers, kind: str) -> Array:
        return combinations({name: _labels(words, keys, of) for name, words, keys, of in self._parts(codes, kind)})

    def wanted(self, codes: Integers, kind: str, labels: Mapping[str, Sequence[Any]]) -> Integers:
        """Return those codes of combinations of a kind, and perhaps some of others, that have labels to keep."""
        here = np.ones(codes.shape[0], dtype=np.bool_)
        for name, words, keys, of in self._parts(codes, kind):
            if name in labels:
                decoder = words[of].decoder(of) if of in words else LabelDecoder(of)
                here &= np.isin(keys, _flipped(decoder.encode(labels[name]), of))
        return codes[here]

    def _parts(self, codes: Integers, kind: str) -> Iterable[tuple[str, Vocabularies, Integers, str]]:
        """Return name, words, ``(K,)`` keys and kind of each label."""
        return zip(self.names, self._words, self._tuples.keys(codes), kinds_of(kind), strict=True)

    def decoder(self, kind: str) -> LabelDecoder:
        return TupleDecoder(self, kind)


def _flipped(keys: Array, kind: str) -> Array:
    """Return keys, those of floats with their bits flipped: then none is small, not even 0.0, and all are numbered."""
    return ~keys if kind == FLOAT else keys


def _keys(words: Vocabularies, labels: Array | list[str], kind: str) -> Array:
    """Return labels, or codes of strings, as keys."""
    if kind not in words:
        return _flipped(integer_keys(np.asarray(labels), kind), kind)
    coded = isinstance(labels, np.ndarray) and labels.dtype == np.int32
    return np.asarray(labels) if coded else words[kind].encode(labels)


def _labels(words: Vocabularies, keys: Integers, kind: str) -> Array:
    """Return the labels of ``(K,)`` keys."""
    if kind not in words:
        return LabelDecoder(kind).decode(_flipped(keys, kind))
    known = words[kind].words
    used, places = np.unique(keys, return_inverse=True)  # combinations share words
    return text_array([known[i] for i in used.tolist()], str if kind == STRING else bytes)[places]


class Uncoded:
    """Labels that wait for their codes: a column of integers, or of codes of strings, per label; see `write`."""

    def __init__(
        self, words: Combinations | None = None, kinds: Sequence[str] = (), dtypes: Sequence[np.dtype[Any]] = ()
    ) -> None:
        self.like = (*kinds, *dtypes)
        self._words, self._kinds = words, kinds
        self._columns: list[Any] = [np.empty(_AT_ONCE, dtype) for dtype in dtypes]
        self._views: tuple[Any, ...] = tuple([memoryview(column) for column in self._columns])
        self._number = len(self._views)
        # What comes with `update` is a tuple: integers there are no codes of strings.
        self._given: Any = None if words is None else list if STRING in kinds else tuple

    def memory_of(self, labels: Any) -> Any:
        """Return what `Combinations.memory_of` does, as `write` takes it."""
        found = None if self._words is None else self._words.memory_of(labels, self._kinds)
        return None if found is None else self._given(found)

    def write(self, labels: Any, start: int, end: int) -> None:
        """Keep the labels of some rows, as they came or from `memory_of`; TypeError or ValueError for any others."""
        if type(labels) is not self._given:
            raise TypeError
        if len(labels) != self._number or end > _AT_ONCE:  # where a view would take fewer rows
            raise ValueError
        place = 0
        for view in self._views:
            column = labels[place]
            if type(column) is not _ARRAY and type(column) not in QUICK:
                raise TypeError
            view[start:end] = column
            place += 1  # noqa: SIM113 (`enumerate` takes longer)

    def codes(self, rows: int) -> Codes:
        assert self._words is not None  # noqa: S101 (or no labels would wait)
        return self._words.encode_columns([column[:rows] for column in self._columns], self._kinds)


CODED = Uncoded()  # where no labels wait: they are keys or codes when they come


def uncoded(labels: Any, words: Combinations, kind: str, now: Uncoded) -> Uncoded:
    """Return where batches wait that are like one with these labels; `CODED` if they are coded as they come."""
    kinds = kinds_of(kind)
    if not {INTEGER, STRING}.issuperset(kinds):
        return CODED
    try:
        columns = [np.asarray(column) for column in words.memory_of(labels, kinds) or ()]
    except (KeyError, TypeError, ValueError, RuntimeError, BufferError):
        return CODED
    dtypes = [column.dtype for column in columns]
    if not columns or not READ_AS_IS.issuperset(dtypes):
        return CODED
    return now if now.like == (*kinds, *dtypes) else Uncoded(words, kinds, dtypes)


class TupleDecoder(LabelDecoder):
    """Turns the `size` codes of combinations so far back into structured arrays, and combinations into codes."""

    def __init__(self, words: Combinations, kind: str) -> None:
        super().__init__(kind)
        self._words, self.size = words, len(words)

    def decode(self, keys: Integers) -> Array:
        return self._words.decode(keys, self.kind)

    def keys(self, labels: Array) -> Integers:
        return self._words.encode(labels).astype(np.int64)

    def wanted(self, labels: Mapping[str, Sequence[Any]]) -> Integers:
        return self._words.wanted(np.arange(self.size), self.kind, labels)


def vocabularies(names: Sequence[str] | None, words: Mapping[str, Any] | None = None) -> Vocabularies:
    """Return what keys of labels and ids that are no numbers stand for; `names` are those of several labels."""
    words = words or {}
    ids = {IDS: Vocabulary(STRING, words.get(IDS, ()))}
    if names is not None:
        return {COMBINED: Combinations(names, dict(words[COMBINED]) if COMBINED in words else None)} | ids
    return {kind: Vocabulary(kind, words.get(kind, ())) for kind in (STRING, BYTES)} | ids


def words_of(words: Mapping[str, Vocabulary], kind: str) -> Vocabulary | None:
    """Return what the keys of a kind of labels stand for; None for numbers."""
    return words.get(COMBINED if several(kind) else kind)


def encode_batch(
    columns: Mapping[str, Any],
    values: Array,
    mask: Mask | None,
    options: Mapping[str, LabelOptions],
    words: Combinations,
    kinds: Mapping[str, str] | None = None,
) -> tuple[Codes, Array, str]:
    """Return ``(N,)`` codes and values of the samples that count, and their kind; mappings of `options` are ignored."""
    if (mask is None or mask.any()) and values.size and not any(option.ignored for option in options.values()):
        read = [aligned for column in columns.values() if (aligned := _aligned(column, values)) is not None]
        arrays, known, shapes = [*zip(*read, strict=True)] or ((), (), ())
        if len(read) == len(columns) and len(set(shapes)) == 1 and (mask is None or UNSIGNED not in known):
            codes = words.encode_columns(arrays, known).reshape(shapes[0])  # of (N, 1) labels, before they are repeated
            return *flat(codes, values, mask, None), kind_of(known)
    plain = {name: option._replace(mapping=None) for name, option in options.items()}
    keys, kept, space, _ = several_labels(columns, values, mask, plain, kinds=kinds)
    if not kept.size:
        return np.empty(0, dtype=np.int32), kept, ""
    index = Hash()
    places = index.codes_of(keys)
    table = space.decode(index.keys)
    return words.encode(table)[places], kept, kind_of(map(label_kind, columns_of(table).values()))


def _aligned(labels: Any, values: Array) -> tuple[Array | list[str], str, tuple[int, ...]] | None:
    """Return flat labels, their kind, integers if possible, and `aligned_shape`; None if some are missing or wrong."""
    if type(labels) is list and values.shape == (len(labels),) and set(map(type, labels)) == {str}:
        return labels, STRING, values.shape
    try:
        array, gone = read_labels(labels)
        if gone is not None or not array.size:
            return None
        shape = aligned_shape(array, values)
    except (TypeError, ValueError):
        return None  # the general path raises the error
    kind, array = label_kind(array), array.reshape(-1)
    return array, INTEGER if kind == UNSIGNED and int(array.max()) < 2**63 else kind, shape
