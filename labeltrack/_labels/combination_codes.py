"""Combinations of several labels that come batch by batch: each gets a code, as a word does.

The kind of combinations names those of their labels, such as ``"(integer, string)"``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from labeltrack._convert.arrays import QUICK, aligned_shape
from labeltrack._core import kernels
from labeltrack._core.arrays import Array, Codes, Integers, Mask, read_only
from labeltrack._core.combine import PairTable, numbered
from labeltrack._core.hash_index import Hash
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
from labeltrack._labels.combination_parts import LABEL_BITS, LabelCodes, of_kind
from labeltrack._labels.combined import columns_of, combinations, grouped, union
from labeltrack._labels.lookup import alias
from labeltrack._labels.missing import LabelOptions, read_labels
from labeltrack._labels.samples import flat, several_labels

COMBINED = "combined"  # the key of the vocabulary of combinations, for labels of any kinds
IDS = "ids"  # the key of the vocabulary of ids of samples
WHOLE = {BOOL, INTEGER, UNSIGNED}  # kinds of labels that one 64-bit type may hold together
_AT_ONCE = 1 << 15  # rows whose labels wait for codes: fewer are coded at less speed, more leave the cache
_ARRAY = np.ndarray
_SECOND = 1 << 32  # what the first code of a pair is multiplied by

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


class Combinations(Vocabulary):
    """Combinations seen so far, each with an int32 code in order of appearance; the first may be given as tuples.

    Labels have codes; that of the first is paired with that of the second, the code of the pair with that of the third,
    and so on, and each different pair is a key. Tuples are made only of combinations that are read.
    """

    def __init__(self, names: Sequence[str], words: Iterable[tuple[Any, ...]] = ()) -> None:
        self.names = tuple(names)
        self._labels = [LabelCodes() for _ in self.names]
        self._pairs = [Hash() for _ in self.names[1:]] or [Hash()]
        self._table, self._entered = PairTable(), 0  # of two labels that are integers; how many are in it
        self._made: list[tuple[Any, ...]] = []
        self.encode(list(words))

    def __len__(self) -> int:
        return self._pairs[-1].size

    @property
    def words(self) -> list[tuple[Any, ...]]:  # type: ignore[override]  # an attribute there
        """The combinations as tuples; a list that grows with each call."""
        start, stop = len(self._made), len(self)
        if start < stop:
            parts = self._split(np.arange(start, stop))
            columns = [labels.values(codes) for labels, codes in zip(self._labels, parts, strict=True)]
            self._made[start:stop] = zip(*columns, strict=True)  # another thread may have done the same
        return self._made

    def encode(self, labels: Any) -> Codes:
        """Return the ``(N,)`` codes of combinations given as tuples, adding those that are new."""
        odd = [row for row in labels if not isinstance(row, tuple) or len(row) != len(self.names)]
        if odd:
            msg = f"expected tuples of {len(self.names)} labels, got {odd[0]!r}"
            raise TypeError(msg)
        columns = [list(column) for column in zip(*labels, strict=True)] or [[] for _ in self.names]
        return self._paired([of.encode_values(column) for of, column in zip(self._labels, columns, strict=True)])

    def encode_columns(self, columns: Sequence[Array | list[str]], kinds: Sequence[str]) -> Codes:
        """Return the ``(N,)`` codes of combinations of some kinds of labels, adding those that are new.

        No label is missing; lists have only strings. Columns of strings may also be codes, from `LabelCodes.known`.
        """
        if len(columns) != 2 or not WHOLE.issuperset(kinds):
            return self._paired(columns, kinds)
        keys = [integer_keys(np.asarray(column), kind) for column, kind in zip(columns, kinds, strict=True)]
        codes = self._table.look_up(keys[0], keys[1])
        if codes is None:
            codes, start = self._paired(columns, kinds), self._entered
            fresh = np.arange(start, len(self))
            if fresh.size:
                first, second = self._split(fresh)
                self._table.enter(first, second, fresh)
                self._entered = start + fresh.size
        return codes

    def memory_of(self, labels: Any, kinds: Sequence[str]) -> list[Any] | None:
        """Return the memory of labels of each name; of lists of strings their codes, or None; None for other types.

        KeyError if one is missing, or of another type than the tensors of earlier batches; see `QUICK` for others.
        """
        if type(labels) is dict:
            labels = [labels[name] for name in self.names]
        elif type(labels) is not tuple or len(labels) != len(self.names):
            return None
        found = []
        for of, kind, column in zip(self._labels, kinds, labels, strict=True):
            if kind == STRING:
                found.append(of.known(column))
            else:
                read = QUICK[type(column)]
                found.append(column if read is None else read(column))
        return found

    def _paired(self, columns: Sequence[Array | list[str]], kinds: Sequence[str] | None = None) -> Codes:
        """Return the codes of combinations of labels of some kinds, or of codes of labels."""
        add, rows = kernels.combine.add_offsets, len(columns[0])
        keys, codes = np.empty(rows, dtype=np.int64), np.empty(0, dtype=np.int32)
        for place, column in enumerate(columns):
            factor = _SECOND if place == 0 and len(columns) > 1 else 1
            if kinds is not None:
                self._labels[place].add(column, kinds[place], factor, keys, first=place == 0)
            else:
                add(read_only(np.asarray(column)), 0, rows, 0, 1 << LABEL_BITS, factor, place == 0, keys)
            if place or len(columns) == 1:
                codes = self._pairs[max(place - 1, 0)].codes_of(keys)
            if 0 < place < len(columns) - 1:
                add(read_only(codes), 0, rows, 0, 1 << LABEL_BITS, _SECOND, True, keys)
        return codes

    def _split(self, codes: Integers) -> list[Integers]:
        found: list[Integers] = []
        for pairs in reversed(self._pairs):
            codes, last = np.divmod(pairs.keys[codes], _SECOND)
            found.append(last)
        return [codes, *reversed(found)] if len(self.names) > 1 else found

    def decode(self, codes: Integers, kind: str) -> Array:
        parts = zip(self.names, self._labels, self._split(codes), kinds_of(kind), strict=True)
        return combinations({name: labels.decode(part, of) for name, labels, part, of in parts})

    def wanted(self, codes: Integers, kind: str, labels: Mapping[str, Sequence[Any]]) -> Integers:
        """Return those codes of combinations of a kind that have one of some labels in each of some fields."""
        here = np.ones(codes.shape[0], dtype=np.bool_)
        for name, of, part, own in zip(self.names, self._labels, self._split(codes), kinds_of(kind), strict=True):
            here &= of_kind(part, own)
            if name in labels:
                kept = set(labels[name])
                if own == FLOAT:
                    kept |= {other for label in labels[name] if (other := alias(label)) is not None}
                different, places = np.unique(part[here], return_inverse=True)
                good = np.array([value in kept for value in of.decode(different, own).tolist()], dtype=np.bool_)
                here[here] = good[places]
        return codes[here]

    def decoder(self, kind: str) -> LabelDecoder:
        return TupleDecoder(self, kind)


class Uncoded:
    """Labels of combinations that wait for their codes: columns of integers or of codes of strings, one per label.

    `words` gets the combinations that are new; None if no labels wait. Kinds and dtypes, of those that kernels read,
    are `like`.
    """

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
        """Keep the labels of rows from `start` to `end`, from `memory_of`; or as they came, if all are integers.

        TypeError if they are neither, or one is of a type whose memory does not say all, such as a masked array;
        ValueError without room, for more or fewer rows or labels, or other dtypes.
        """
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
        """Return the keys of ``(K,)`` combinations that `decode` gave."""
        every = self.wanted({})
        (_, known), order = grouped(columns_of(self.decode(every))), np.empty(every.shape[0], dtype=np.int64)
        order[known] = every
        return order[union([self.decode(order), labels])[1][1]]

    def wanted(self, labels: Mapping[str, Sequence[Any]]) -> Integers:
        return self._words.wanted(np.arange(self.size), self.kind, labels)


def vocabularies(names: Sequence[str] | None, words: Mapping[str, Iterable[Any]] | None = None) -> Vocabularies:
    """Return what keys of labels and ids that are no numbers stand for; `names` are those of several labels."""
    words = words or {}
    ids = {IDS: Vocabulary(STRING, words.get(IDS, ()))}
    if names is not None:
        return {COMBINED: Combinations(names, words.get(COMBINED, ()))} | ids
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
    """Return ``(N,)`` codes and values of the samples of a batch that count, and the kind of their combinations.

    `words` gets those that are new. Mappings of `options` are left to those who decode. `kinds` are taken on by labels
    that are all missing. TypeError for labels of an unsupported type; ValueError if shapes do not match, or labels are
    missing under ``"error"`` where the mask is set.
    """
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
    part = numbered(keys)
    assert part.ranks is not None  # noqa: S101 (of numbered keys)
    assert part.known is not None  # noqa: S101 (likewise)
    table = columns_of(space.decode(part.known))
    found = list(map(label_kind, table.values()))
    codes = words.encode_columns(list(table.values()), found)[part.ranks][part.keys]
    return codes, kept, kind_of(found)


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
