"""Combinations of several labels that come batch by batch: each gets a code, as a word does.

The kind of combinations names those of their labels, such as ``"(integer, string)"``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from labeltrack._convert.arrays import aligned_shape
from labeltrack._convert.objects import text_array
from labeltrack._core.combine import numbered
from labeltrack._labels.codes import (
    BOOL,
    BYTES,
    FLOAT,
    INTEGER,
    STRING,
    UNSIGNED,
    LabelDecoder,
    Vocabulary,
    label_kind,
)
from labeltrack._labels.combined import columns_of, combinations
from labeltrack._labels.lookup import alias, as_doubles
from labeltrack._labels.missing import read_labels
from labeltrack._labels.samples import several_labels

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from labeltrack._labels.samples import LabelOptions, Mask

Array = npt.NDArray[Any]
Integers = npt.NDArray[np.int64]

COMBINED = "combined"
"""The key of the vocabulary of combinations, for labels of any kinds."""
IDS = "ids"
"""The key of the vocabulary of ids of samples."""
WHOLE = {BOOL, INTEGER, UNSIGNED}
"""Kinds of labels that one 64-bit type may hold together."""
_FEW = 1 << 12  # samples whose labels become tuples at once: of 256, this takes 50 us instead of 250

Vocabularies = dict[str, Vocabulary]


def several(kind: str) -> bool:
    """Return whether this is a kind of combinations."""
    return kind.startswith("(")


def kinds_of(kind: str) -> list[str]:
    """Return the kind of each label."""
    return kind[1:-1].split(", ") if several(kind) else [kind]


def kind_of(kinds: Iterable[str]) -> str:
    """Return the kind of combinations of labels of some kinds."""
    return f"({', '.join(kinds)})"


def compatible(kinds: Iterable[str]) -> bool:
    """Return whether labels of several kinds can be in one epoch."""
    return all(len(set(column)) == 1 or set(column) <= WHOLE for column in zip(*map(kinds_of, kinds), strict=True))


def wider(kind: str, other: str) -> str:
    """Return the kind that holds labels of two kinds that are compatible."""
    if several(kind):
        return kind_of(wider(*pair) for pair in zip(kinds_of(kind), kinds_of(other), strict=True))
    return kind if kind == other else UNSIGNED if UNSIGNED in (kind, other) else INTEGER


class Combinations(Vocabulary):
    """Combinations seen so far, as tuples, each with an int32 code in order of appearance.

    Args:
        names: Names of the labels.
        words: The first combinations.
    """

    def __init__(self, names: Sequence[str], words: Iterable[tuple[Any, ...]] = ()) -> None:
        super().__init__(COMBINED, words)
        self._type = tuple
        self.names = tuple(names)

    def decoder(self, kind: str) -> LabelDecoder:
        """Return the decoder of the codes so far."""
        return TupleDecoder(self.names, kind, np.fromiter(self.words, dtype=object, count=len(self.words)))


class TupleDecoder(LabelDecoder):
    """Turns the codes of combinations back into structured arrays, and combinations into codes.

    Args:
        names: Names of the labels.
        kind: Kind of the combinations.
        vocabulary: ``(V,)`` the combination of each code, as tuples.
    """

    def __init__(self, names: Sequence[str], kind: str, vocabulary: Array) -> None:
        super().__init__(kind, vocabulary)
        self._names = tuple(names)

    def decode(self, keys: Integers) -> Array:
        """Return the combinations of keys as a structured array."""
        assert self.vocabulary is not None  # noqa: S101 (given above)
        rows = self.vocabulary[keys].tolist()
        return combinations(
            {
                name: _column([row[place] for row in rows], kind)
                for place, (name, kind) in enumerate(zip(self._names, kinds_of(self.kind), strict=True))
            }
        )

    def wanted(self, labels: Mapping[str, Sequence[Any]]) -> Integers:
        """Return the keys of the combinations that have one of some labels in each of some fields."""
        assert self.vocabulary is not None  # noqa: S101 (given above)
        here = np.ones(self.vocabulary.shape[0], dtype=np.bool_)
        for place, (name, kind) in enumerate(zip(self._names, kinds_of(self.kind), strict=True)):
            if name in labels:
                kept = set(labels[name])
                if kind == FLOAT:
                    kept |= {other for label in labels[name] if (other := alias(label)) is not None}
                here &= np.array([word[place] in kept for word in self.vocabulary.tolist()], dtype=np.bool_)
        return np.flatnonzero(here)


def _column(labels: list[Any], kind: str) -> Array:
    """Return labels of a kind with the dtype that they have in statistics."""
    if kind in (STRING, BYTES):
        return text_array(labels, str if kind == STRING else bytes)
    if kind == UNSIGNED:
        return np.array(labels, dtype=np.uint64 if labels and max(labels) >= 2**63 else np.int64)
    return np.array(labels, dtype={BOOL: np.bool_, FLOAT: np.float64}.get(kind, np.int64))


def vocabularies(names: Sequence[str] | None, words: Mapping[str, Iterable[Any]] | None = None) -> Vocabularies:
    """Return what the keys of labels that are no numbers, and of ids that are none, stand for.

    Args:
        names: Names of several labels per sample; None for one.
        words: The first words, by kind.
    """
    words = words or {}
    ids = {IDS: Vocabulary(STRING, words.get(IDS, ()))}
    if names is not None:
        return {COMBINED: Combinations(names, words.get(COMBINED, ()))} | ids
    return {kind: Vocabulary(kind, words.get(kind, ())) for kind in (STRING, BYTES)} | ids


def words_of(words: Mapping[str, Vocabulary], kind: str) -> Vocabulary | None:
    """Return what the keys of a kind of labels stand for; None for numbers."""
    return words.get(COMBINED if several(kind) else kind)


# -- batches ----------------------------------------------------------------------------------------------


def encode_batch(
    columns: Mapping[str, Any],
    values: Array,
    mask: Mask | None,
    options: Mapping[str, LabelOptions],
    words: Combinations,
    kinds: Mapping[str, str] | None = None,
) -> tuple[npt.NDArray[np.int32], Array, str]:
    """Return ``(N,)`` codes and values of the samples of a batch that count, and the kind of their combinations.

    Args:
        columns: Labels by name, in the order of `words`.
        values: float32 or float64.
        mask: From `read_mask`.
        options: Those of each label; mappings are left to those who decode.
        words: Gets the combinations that are new.
        kinds: Of which kind labels are that are missing in all of the batch.

    Raises:
        TypeError: Labels of an unsupported type.
        ValueError: The shapes do not match, or labels are missing under ``"error"`` where the mask is set.
    """
    plain = {name: option._replace(mapping=None) for name, option in options.items()}
    if mask is None and values.size <= _FEW and not any(option.ignored for option in plain.values()):
        arrays = [array for column in columns.values() if (array := _aligned(column, values)) is not None]
        if len(arrays) == len(columns):
            rows = list(zip(*(array.tolist() for array in arrays), strict=True))
            return words.encode(rows), values.reshape(-1), kind_of(map(_narrow_kind, arrays))
    keys, flat, space, _ = several_labels(columns, values, mask, plain, kinds=kinds)
    if not flat.size:
        return np.empty(0, dtype=np.int32), flat, ""
    part = numbered(keys)
    assert part.ranks is not None  # noqa: S101 (of numbered keys)
    assert part.known is not None  # noqa: S101 (likewise)
    table = space.decode(part.known)
    codes = words.encode(table.tolist())[part.ranks][part.keys]
    return codes, flat, kind_of(map(label_kind, columns_of(table).values()))


def _aligned(labels: Any, values: Array) -> Array | None:
    """Return the ``(N,)`` labels of as many values; None if some are missing, have to be repeated, or are wrong."""
    try:
        array, gone = read_labels(labels)
        if gone is not None or not array.size or aligned_shape(array, values) != values.shape:
            return None
    except (TypeError, ValueError):
        return None  # the general path raises the error
    flat = array.reshape(-1)
    return as_doubles(flat) if label_kind(flat) == FLOAT else flat


def _narrow_kind(labels: Array) -> str:
    """Return the kind of ``(N,)`` labels, that of integers if these hold them."""
    kind = label_kind(labels)
    return INTEGER if kind == UNSIGNED and int(labels.max()) < 2**63 else kind
