"""The different labels of one of several labels per sample, of any type, each with a code."""

from __future__ import annotations

from typing import Any

import numpy as np

from labeltrack._convert.objects import text_array
from labeltrack._core import kernels
from labeltrack._core.arrays import Array, Codes, Integers, Mask, read_only
from labeltrack._core.hash_index import Hash
from labeltrack._labels.codes import BOOL, BYTES, FLOAT, INTEGER, STRING, UNSIGNED, Vocabulary, integer_keys

LABEL_BITS = 31
_BITS = 28  # of the number of a label among those of its sort; the others say which sort it is
_SMALL, _WHOLE, _HIGH, _FLOAT, _STRING, _BYTES = range(6)
_KINDS = INTEGER, INTEGER, UNSIGNED, FLOAT, STRING, BYTES  # of labels of each sort
_SORTS: dict[str, tuple[int, ...]] = {FLOAT: (_FLOAT,), STRING: (_STRING,), BYTES: (_BYTES,)}
_SORTS |= {INTEGER: (_SMALL, _WHOLE), UNSIGNED: (_SMALL, _WHOLE, _HIGH)}


class LabelCodes:
    """Codes below ``2**31``. Integers from 0 to ``2**28 - 1`` are their own; all others are numbered as they appear."""

    def __init__(self) -> None:
        self._numbers = {sort: Hash() for sort in (_WHOLE, _HIGH, _FLOAT)}
        self._words = {_STRING: Vocabulary(STRING), _BYTES: Vocabulary(BYTES)}

    def add(self, labels: Array | list[str], kind: str, factor: int, keys: Integers, *, first: bool) -> None:
        """Add the codes of ``(N,)`` labels of a kind, times `factor`, to ``(N,)`` keys, or set these if `first`.

        None is missing; lists have only strings, which may also be what `known` returned.
        """
        add, rows = kernels.combine.add_offsets, keys.shape[0]
        if kind in (STRING, BYTES):
            sort = _STRING if kind == STRING else _BYTES
            known = isinstance(labels, np.ndarray) and labels.dtype == np.int32
            codes: Array = np.asarray(labels) if known else self._words[sort].encode(labels)
        elif kind == FLOAT:
            sort, codes = _FLOAT, self._numbers[_FLOAT].codes_of(integer_keys(np.asarray(labels), kind))
        else:
            sort, codes = _SMALL, np.ascontiguousarray(integer_keys(np.asarray(labels), kind))
            if add(read_only(codes), 0, rows, 0, 1 << _BITS, factor, first, keys):
                return
            if not first:  # some are larger or negative: take out what was added
                add(read_only(codes), 0, rows, 0, 1 << _BITS, -factor, first, keys)
            codes = self._codes_of_whole(codes, high=kind == UNSIGNED)
        add(read_only(codes), 0, rows, -(sort << _BITS), 1 << LABEL_BITS, factor, first, keys)

    def known(self, words: Any) -> Codes | None:
        """Return what stands for a list of strings in `add`; None if it is none, or some are new."""
        return self._words[_STRING].known(words) if type(words) is list else None

    def _codes_of_whole(self, keys: Array, *, high: bool) -> Integers:
        """Return the codes of integers, of which negative ones stand for those above ``2**63 - 1`` if `high` is set."""
        codes = keys.astype(np.int64)
        large = codes >= 1 << _BITS
        for sort, there in ((_WHOLE, large if high else large | (codes < 0)), (_HIGH, codes < 0)):
            if (sort == _WHOLE or high) and there.any():
                codes[there] = (sort << _BITS) + self._numbers[sort].codes_of(codes[there]).astype(np.int64)
        return codes

    def decode(self, codes: Integers, kind: str) -> Array:
        """Return the labels of ``(K,)`` codes of a kind, with the dtype that they have in statistics."""
        sorts, numbers = codes >> _BITS, codes & ((1 << _BITS) - 1)
        if kind in (STRING, BYTES):
            words = self._words[_STRING if kind == STRING else _BYTES].words
            used, places = np.unique(numbers, return_inverse=True)
            return text_array([words[i] for i in used.tolist()], str if kind == STRING else bytes)[places]
        if kind == FLOAT:
            doubles: Array = self._numbers[_FLOAT].keys[numbers].view(np.float64)
            return doubles
        for sort in (_WHOLE, _HIGH):
            there = sorts == sort
            if there.any():
                numbers[there] = self._numbers[sort].keys[numbers[there]]
        if kind == BOOL:
            return numbers.astype(np.bool_)
        return numbers.view(np.uint64) if (sorts == _HIGH).any() else numbers

    def values(self, codes: Integers) -> list[Any]:
        """Return the labels of ``(K,)`` codes of any kinds, as Python values; bools as integers."""
        found, sorts = np.empty(codes.shape[0], dtype=object), codes >> _BITS
        for sort, kind in enumerate(_KINDS):
            there = sorts == sort
            if there.any():
                found[there] = np.array([*self.decode(codes[there], kind).tolist(), None], dtype=object)[:-1]
        return found.tolist()

    def encode_values(self, values: list[Any]) -> Integers:
        """Return the codes of labels given as Python values of any types; new ones get a code."""
        codes = np.empty(len(values), dtype=np.int64)
        sorts = np.array([_sort_of(value) for value in values], dtype=np.int64)
        dtypes = np.int64, np.uint64, np.float64, object, object
        for sort, (kind, dtype) in enumerate(zip(_KINDS[_WHOLE:], dtypes, strict=True), _WHOLE):
            there = np.flatnonzero(sorts == sort)
            if there.size:
                some = np.array([values[i] for i in there.tolist()], dtype=dtype)
                found = np.empty(there.size, dtype=np.int64)
                self.add(some, kind, 1, found, first=True)
                codes[there] = found
        return codes


def of_kind(codes: Integers, kind: str) -> Mask:
    """Return which of ``(K,)`` codes are of labels that are of a kind, or that labels of this kind go together with."""
    return codes <= 1 if kind == BOOL else np.isin(codes >> _BITS, _SORTS[kind])


def _sort_of(value: Any) -> int:
    """Return the sort of a label; for all integers that 64 bits with a sign hold, that of large ones."""
    if isinstance(value, int):
        return _WHOLE if value < 2**63 else _HIGH
    for sort, of in ((_FLOAT, float), (_STRING, str), (_BYTES, bytes)):
        if isinstance(value, of):
            return sort
    msg = f"expected a label that is a number or text, got {type(value).__name__} {value!r}"
    raise TypeError(msg)
