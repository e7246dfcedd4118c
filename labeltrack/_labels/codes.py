"""Labels to the integer keys that kernels group by, and back: integers themselves, bits of floats, codes of words."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any

import numpy as np

from labeltrack._convert.arrays import to_numpy
from labeltrack._convert.objects import is_wide, text_array, value_of
from labeltrack._core.arrays import Array, Codes, Integers, sorted_unique
from labeltrack._core.strings import Dictionary, encode_strings, encode_words
from labeltrack._labels.lookup import alias, as_doubles, plain_label

BOOL, INTEGER, UNSIGNED, FLOAT, STRING, BYTES = "bool", "integer", "unsigned", "float", "string", "bytes"
_KINDS = {"b": BOOL, "i": INTEGER, "u": INTEGER, "f": FLOAT, "U": STRING, "S": BYTES}

MISSING_NUMBER, MISSING_NAME = -(2**63), "(missing)"
"""The label of samples without one under ``missing="label"``: a number or a string."""

READ_AS_IS = {np.dtype(np.uint8), np.dtype(np.int32), np.dtype(np.int64)}
_LARGEST = int(np.finfo(np.float64).max)


def label_kind(labels: Array) -> str:
    """Return which kind of labels an array holds, objects only str or only bytes; TypeError if they have no order."""
    dtype = labels.dtype
    kind = _KINDS.get(dtype.kind)
    if dtype.kind == "O" and labels.size:
        first = labels.flat[0]
        kind = STRING if isinstance(first, str) else BYTES if isinstance(first, bytes) else None
    if kind is None or (dtype.itemsize > 8 and dtype.kind == "f"):
        msg = f"labels must be integers, bools, floats or strings, got dtype {dtype}"
        if dtype.kind in "mM":
            msg += "; convert dates to text, for example with .astype('datetime64[D]').astype(str)"
        raise TypeError(msg)
    return UNSIGNED if dtype == np.uint64 else kind


def key_dtype(kind: str, given: Any = np.uint8) -> np.dtype[Any]:
    """Return the dtype of the keys of a kind of labels; integers keep the given one, by default the narrowest."""
    fixed: dict[str, Any] = {BOOL: np.uint8, STRING: np.int32, BYTES: np.int32, FLOAT: np.int64, UNSIGNED: np.int64}
    dtype: np.dtype[Any] = np.dtype(fixed.get(kind, given))
    return dtype


def integer_keys(labels: Array, kind: str) -> Array:
    """Return ``(N,)`` numbers, not NaN, as uint8, int32 or int64 keys, views if possible; floats as bits of doubles."""
    if kind == FLOAT:
        return as_doubles(labels).view(np.int64)
    dtype = labels.dtype
    if dtype in READ_AS_IS:
        return labels
    if kind == BOOL:
        return labels.view(np.uint8)
    if kind == UNSIGNED:
        return labels.view(np.int64)
    return labels.astype(np.int32 if dtype.itemsize <= 2 else np.int64)


def as_stored(keys: Array, kind: str) -> Array:
    """Return keys as the labels they stand for, where Arrow has a type for these."""
    if kind == FLOAT:
        return keys.view(np.float64)
    if kind == UNSIGNED:
        return keys.view(np.uint64) if keys.dtype.itemsize == 8 else keys.astype(np.uint64)
    return keys


class LabelDecoder:
    """Turns the keys of one kind of labels back into labels, and labels into keys.

    The ``(V,)`` `vocabulary` has the labels of codes; of objects, only those that are decoded become fixed-width, as a
    long word would widen all. With `narrow`, keys are those of float16 or float32 as doubles, not as `as_doubles`.
    """

    def __init__(self, kind: str, vocabulary: Array | None = None, *, narrow: np.dtype[Any] | None = None) -> None:
        self.kind = kind
        self.vocabulary = vocabulary
        self.orderly = kind in (BOOL, INTEGER)  # whether labels are in the order of their keys
        self._narrow = narrow

    def decode(self, keys: Integers) -> Array:
        """Return the labels of keys: bool, int64, uint64 (only where int64 does not hold them), float64 or text."""
        if self.vocabulary is not None:
            words: Array = self.vocabulary[keys]
            if words.dtype == object:
                return text_array(words.tolist(), str if self.kind == STRING else bytes)
            return words
        if self.kind == FLOAT:
            doubles = keys.view(np.float64)
            return doubles if self._narrow is None else as_doubles(doubles.astype(self._narrow))
        if self.kind == BOOL:
            return keys.astype(np.bool_)
        if self.kind == UNSIGNED and keys.size and int(keys.min()) < 0:
            return keys.view(np.uint64)
        return keys

    def keys(self, labels: Array) -> Integers:
        """Return the keys of ``(K,)`` labels that `decode` gave."""
        if self.vocabulary is not None:
            return self.encode(labels.tolist())
        if self._narrow is not None:
            with np.errstate(over="ignore", under="ignore"):
                return labels.astype(self._narrow).astype(np.float64).view(np.int64)
        if self.kind in (FLOAT, UNSIGNED):
            return labels.view(np.int64)
        return labels.astype(np.int64, copy=False)

    def encode(self, labels: Sequence[Any]) -> Integers:
        """Return the keys of those labels that this kind can represent; others are left out."""
        if self.vocabulary is not None:
            place = {word: code for code, word in enumerate(self.vocabulary.tolist())}
            return np.array([place[label] for label in labels if label in place], dtype=np.int64)
        numbers = [label for label in labels if isinstance(label, (bool, int, float))]
        if self.kind == FLOAT:
            numbers += [other for x in numbers if (other := alias(x)) is not None]
            held = [x for x in numbers if not isinstance(x, int) or (abs(x) <= _LARGEST and x == float(x))]
            doubles = np.array(held, dtype=np.float64) + 0.0
            keys = self.keys(doubles)
            return np.array(list(dict.fromkeys(keys[self.decode(keys) == doubles].tolist())), dtype=np.int64)
        lowest, highest = (0, 2**64 - 1) if self.kind == UNSIGNED else (-(2**63), 2**63 - 1)
        whole = [int(x) for x in numbers if x == x and abs(x) < 2**64 and x == int(x)]  # noqa: PLR0124 (NaN)
        whole = [x for x in whole if lowest <= x <= highest]
        if self.kind == UNSIGNED:
            return np.array(whole, dtype=np.uint64).view(np.int64)
        return np.array(whole, dtype=np.int64)


class Vocabulary:
    """Strings, or bytes, seen so far, each with an int32 code in order of appearance."""

    def __init__(self, kind: str, words: Iterable[Any] = ()) -> None:
        self._type: type = str if kind == STRING else bytes
        self.words: list[Any] = list(words)
        if strange := {type(word).__name__ for word in self.words if not isinstance(word, self._type)}:
            msg = f"expected {self._type.__name__}, got {' and '.join(sorted(strange))}"
            raise TypeError(msg)
        # As the four bytes of an int32: joining these makes an array of codes in half the time.
        self._codes = {word: _four_bytes(code) for code, word in enumerate(self.words)}
        self._numbered = len(self.words)

    def encode(self, labels: Array | list[Any] | tuple[Any, ...]) -> Codes:
        """Return the ``(N,)`` codes of labels, adding the words that are new."""
        if isinstance(labels, np.ndarray) and labels.size > 4096 and labels.dtype != object:
            codes, words = encode_strings(labels)
            return self._lookup(words.tolist())[codes]
        return self._lookup(labels.tolist() if isinstance(labels, np.ndarray) else labels)

    def _lookup(self, words: Sequence[Any]) -> Codes:
        if not words:
            return np.empty(0, dtype=np.int32)
        if len(words) == 1:
            return self._lookup([words[0], words[0]])[:1]
        codes = self.known(words)
        if codes is None:
            self._number()
            try:
                new = [word for word in dict.fromkeys(words) if word not in self._codes]  # distinct words, not samples
            except TypeError:
                msg = "labels contain objects that are neither strings nor numbers, such as lists"
                raise TypeError(msg) from None
            strange = {type(word).__name__ for word in new if not isinstance(word, self._type)}
            if strange:
                msg = f"labels mix {self._type.__name__} with {', '.join(sorted(strange))}; pass one type"
                raise TypeError(msg) from None
            # One step, then codes by position: an interrupt in between, or another call, changes no code.
            self.words += new
            self._number()
            codes = self._codes_of(words)
        return codes

    def _number(self) -> None:
        for code in range(self._numbered, len(self.words)):
            self._codes.setdefault(self.words[code], _four_bytes(code))
            self._numbered = code + 1

    def known(self, words: Sequence[Any]) -> Codes | None:
        """Return the ``(N,)`` codes of at least two words, or None if some are new; adds nothing."""
        try:
            return self._codes_of(words)
        except (KeyError, TypeError):
            return None

    def _codes_of(self, words: Sequence[Any]) -> Codes:
        # One C loop, where a comprehension takes a third longer. For one key it gives no tuple.
        return np.frombuffer(b"".join(itemgetter(*words)(self._codes)), dtype=np.int32)

    def state(self) -> Any:
        return self.words

    def decoder(self, kind: str) -> LabelDecoder:
        return LabelDecoder(kind, np.array(self.words, dtype=object))


def _four_bytes(code: int) -> bytes:
    return code.to_bytes(4, sys.byteorder)


def to_keys(
    labels: Array, dictionary: Dictionary | None = None, *, threads: int | None = None
) -> tuple[Array, LabelDecoder]:
    """Return ``(N,)`` labels as keys, contiguous, and their decoder; `dictionary` is what is known of text already."""
    kind = label_kind(labels)
    if kind in (STRING, BYTES) and (labels.dtype.kind == "O" or not labels.dtype.itemsize):
        words = Vocabulary(kind)
        return words.encode(labels), words.decoder(kind)
    if kind == FLOAT and labels.dtype.itemsize < 8:
        return integer_keys(labels.astype(np.float64), kind), LabelDecoder(kind, narrow=labels.dtype)
    if kind not in (STRING, BYTES):
        return np.ascontiguousarray(integer_keys(labels, kind)), LabelDecoder(kind)
    dictionary = Dictionary(labels) if dictionary is None else dictionary
    codes = encode_words(dictionary, threads=threads) if dictionary.possible else None
    codes, known = encode_strings(labels) if codes is None else (codes, dictionary.words)
    return codes, LabelDecoder(kind, known)


def read_mapping(mapping: Any) -> dict[Any, str]:
    """Return the display names by label of ``{display name: label value}``, checked."""
    if not isinstance(mapping, Mapping):
        msg = f"label_mapping must be a dict {{display name: label value}}, got {type(mapping).__name__}"
        raise TypeError(msg)
    if not mapping:
        msg = "label_mapping is empty, so nothing would be tracked; pass None to track every label"
        raise ValueError(msg)
    names: dict[Any, str] = {}
    for name, raw in mapping.items():
        if not isinstance(name, str):
            msg = (
                f"label_mapping must be {{display name: label value}}; the name {name!r} is not a string"
                " (is the mapping the wrong way round?)"
            )
            raise TypeError(msg)
        label = plain_label(raw)
        if not isinstance(label, (bool, int, float, str, bytes)):
            msg = f"label_mapping[{name!r}] must be a number or a string, got {type(raw).__name__}"
            raise TypeError(msg)
        if label in names:
            msg = f"label_mapping gives label {label!r} two names: {names[label]!r} and {name!r}"
            raise ValueError(msg)
        names[label] = value_of(name)
    return names


def label_array(labels: Any) -> Array:
    array = to_numpy(labels, "labels")
    label_kind(array)
    return array


def table_labels(labels: list[Any]) -> Array:
    """Return labels, in the order given, with the dtype that they have in statistics."""
    array = label_array(labels) if labels else np.empty(0, dtype=np.int64)
    kind = label_kind(array)
    if kind == FLOAT:
        return as_doubles(array)
    wide = {INTEGER: np.int64, UNSIGNED: np.uint64, BOOL: np.bool_}.get(kind)
    return array if wide is None else array.astype(wide)


def union(parts: Sequence[Array]) -> tuple[Array, list[Integers]]:
    """Return the sorted union of sorted, distinct labels, and each part's places in it; TypeError for mixed kinds."""
    parts = common_type(parts)
    if all(part.shape == parts[0].shape and np.array_equal(part, parts[0]) for part in parts[1:]):
        together = parts[0].copy()
    elif parts[0].dtype.kind in "iu" and (dense := _dense_union(parts)) is not None:
        return dense
    else:
        together = sorted_unique(np.concatenate(parts))
    return together, [np.searchsorted(together, part) for part in parts]


def _dense_union(parts: Sequence[Array]) -> tuple[Array, list[Integers]] | None:
    """Do as `union` for integers that lie close together, None for others: four times as fast as sorting them."""
    full = [part for part in parts if part.size]
    low, high = min(int(part[0]) for part in full), max(int(part[-1]) for part in full)
    span = high - low + 1
    if span > 4 * sum(part.size for part in full):
        return None
    first = parts[0].dtype.type(low)
    here = np.zeros(span, dtype=np.bool_)
    places = [(part - first).astype(np.int64, copy=False) for part in parts]
    for place in places:
        here[place] = True
    found = np.flatnonzero(here)
    slots = np.cumsum(here, dtype=np.int64) - 1
    return found.astype(parts[0].dtype) + first, [slots[place] for place in places]


def common_type(parts: Sequence[Array]) -> list[Array]:
    """Cast label arrays to one dtype that holds every label; empty ones do not count."""
    full = [part for part in parts if part.size]
    kinds = {label_kind(part) for part in full}
    if len(kinds) == 1 and any(map(is_wide, full)):
        return [part.astype(object) for part in parts]
    numeric = {BOOL, INTEGER, UNSIGNED, FLOAT}
    if len(kinds) > 1 and not kinds <= numeric:
        msg = f"cannot put {' and '.join(sorted(kinds))} labels into one table; convert one of them"
        raise TypeError(msg)
    if UNSIGNED in kinds and INTEGER in kinds:
        # uint64 arrays hold a label beyond int64 by construction; a common type exists without negative labels.
        if any(part.min() < 0 for part in full if part.dtype.kind == "i"):
            msg = (
                "cannot put labels above 2**63 - 1 and negative labels into one table, as no 64-bit type holds both; "
                "pass labels as strings, or datasets that have such labels under modes of their own"
            )
            raise TypeError(msg)
        target = np.dtype(np.uint64)
    else:
        target = np.result_type(*[part.dtype for part in full]) if full else parts[0].dtype
    if FLOAT in kinds and kinds & {INTEGER, UNSIGNED}:
        for part in full:
            whole = part[1:] if int(part[0]) == MISSING_NUMBER else part  # which is a double, too
            if whole.dtype.kind in "iu" and whole.size and (int(whole.max()) > 2**53 or int(whole.min()) < -(2**53)):
                msg = "cannot put integer labels beyond 2**53 and float labels into one table without merging some"
                raise TypeError(msg)
    return [part.astype(target) for part in parts]
