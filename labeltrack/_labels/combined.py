"""Several labels per sample: reading them, encoding them together, and tables of their combinations.

Combinations are structured arrays with one field per label, sorted by the first label, then the next.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np

from labeltrack._convert.objects import tight
from labeltrack._core.arrays import Array, Integers, Mask, order_of, sorted_unique
from labeltrack._core.combine import Combined, Part, combine, numbered, ranked
from labeltrack._core.key_tables import Hash
from labeltrack._labels import codes
from labeltrack._labels.codes import (
    MISSING_NAME,
    MISSING_NUMBER,
    UNSIGNED,
    LabelDecoder,
    common_type,
    table_labels,
    to_keys,
)
from labeltrack.errors import listing

_TAKEN = ("step", "mode", "ds_id", "name", "count", "sum", "mean", "std", "min", "max", "median")
"""Names of the other columns of tables."""

_MOST_ABSENT = 1_000_000
"""Combinations of mapped labels that `mapped_combinations` returns; a million take ten seconds as rows."""


def separate_labels(labels: Any) -> dict[str, Any] | None:
    """Return several labels by name, those of a tuple as ``"label_0"`` and so on; None for one. Names are checked."""
    if isinstance(labels, tuple) and labels and all(map(_is_column, labels)):
        return {f"label_{i}": column for i, column in enumerate(labels)}
    if not isinstance(labels, Mapping) or hasattr(labels, "shape"):  # some sparse matrices are mappings
        return None
    if not labels:
        msg = "labels is an empty mapping; expected {name of the label: labels}"
        raise ValueError(msg)
    strange = [name for name in labels if not isinstance(name, str) or not name]
    if strange:
        msg = f"labels must be {{name of the label: labels}}, with a string as name, got {strange[0]!r}"
        raise TypeError(msg)
    taken = [name for name in labels if name in _TAKEN or _names_quantile(name)]
    if taken:
        msg = f"a label cannot be called {taken[0]!r}, like another column of tables; these are {listing(_TAKEN)}"
        raise ValueError(msg)
    return {str(name): column for name, column in labels.items()}


def _names_quantile(name: str) -> bool:
    """Return whether this is how tables call a quantile, such as ``"q0.25"``."""
    try:
        return name == f"q{float(name[1:])!r}"
    except ValueError:
        return False


def _is_column(item: Any) -> bool:
    """Return whether an item of a tuple has the labels of all samples, not that of one."""
    return not isinstance(item, (str, bytes)) and hasattr(item, "__len__") and getattr(item, "ndim", 1) > 0


def by_label(option: Any, names: Iterable[str], what: str) -> dict[str, Any]:
    """Return an option for each label, given as a mapping or a tuple; None where it leaves one out."""
    names = list(names)
    if isinstance(option, Mapping):
        strange = [name for name in option if name not in names]
        if strange:
            msg = f"{what} must have one for each label, by its name: there is no label {strange[0]!r}, but "
            raise ValueError(msg + listing(names))
        return {name: option.get(name) for name in names}
    if not isinstance(option, (tuple, list)):
        expected = f"{{{', '.join(f'{name!r}: …' for name in names)}}}"
        # Arrays by shape: `update` has made one of a tensor by then.
        got = f"one array of shape {tuple(option.shape)}" if hasattr(option, "dtype") else type(option).__name__
        msg = f"{what} must be a mapping {expected} or a tuple, got {got}"
        raise TypeError(msg)
    if len(option) != len(names):
        msg = f"{what} must have one for each of {len(names)} labels ({', '.join(names)}), got {len(option)}"
        raise ValueError(msg)
    return dict(zip(names, option, strict=True))


class CombinedDecoder:
    """Turns combined keys, which ascend as these do, into ``(K,)`` combinations, by a decoder of each label."""

    orderly = True

    def __init__(self, spaces: Mapping[str, LabelDecoder], form: Combined) -> None:
        self._spaces, self._form = dict(spaces), form

    def decode(self, keys: Integers) -> Array:
        parts = self._form.split(keys)
        return combinations(
            {name: self._spaces[name].decode(part) for name, part in zip(self._spaces, parts, strict=True)}
        )


def part_of(keys: Array, space: LabelDecoder) -> Part:
    """Return the keys of one label as a part of combined keys."""
    if space.vocabulary is not None:
        return ranked(keys, np.arange(len(space.vocabulary)), space.decode)
    if space.orderly or (space.kind == UNSIGNED and not (keys.size and int(keys.min()) < 0)):
        return Part(keys)
    return numbered(keys, space.decode)


def kept_part(keys: Array, space: LabelDecoder, wanted: Integers) -> tuple[Part, Mask]:
    """Return `part_of` for the wanted keys alone, and a mask of the samples that have one of them."""
    index, found = Hash(wanted), np.empty(keys.shape[0], dtype=np.int32)
    index.encode(keys, 0, keys.shape[0], found, frozen=True)
    part = ranked(found, index.keys, space.decode)
    assert part.ranks is not None  # noqa: S101 (codes have ranks)
    return part._replace(ranks=np.append(part.ranks, 0)), found < index.size  # the last for all other samples


def combinations(columns: Mapping[str, Array]) -> Array:
    columns = {name: tight(column) for name, column in columns.items()}
    rows = len(next(iter(columns.values())))
    table = np.empty(rows, dtype=[(name, column.dtype) for name, column in columns.items()])
    for name, column in columns.items():
        table[name] = column
    return table


def columns_of(table: Array) -> dict[str, Array]:
    """Return the labels of a structured array by name; empty for one label."""
    return {name: table[name] for name in table.dtype.names or ()}


def grouped(columns: Mapping[str, Array]) -> tuple[Array, Integers]:
    """Return the different combinations of ``(N,)`` labels, sorted, and the ``(N,)`` place of each sample's."""
    keys, decoder = _combined(columns)
    found = sorted_unique(keys)
    return decoder.decode(found.astype(np.int64)), np.searchsorted(found, keys)


def in_order_of_labels(table: Array) -> tuple[Array, Integers]:
    """Return ``(K,)`` combinations that are all different in the order of their labels, and the place each was at."""
    order = order_of(_combined(columns_of(table))[0])
    return table[order], order


def _combined(columns: Mapping[str, Array]) -> tuple[Array, CombinedDecoder]:
    spaces, parts = {}, []
    for name, column in columns.items():
        keys, spaces[name] = to_keys(column)
        parts.append(part_of(keys, spaces[name]))
    combined, form = combine(parts)
    return combined, CombinedDecoder(spaces, form)


def union(parts: Sequence[Array]) -> tuple[Array, list[Integers]]:
    """Merge sorted arrays of labels, or of combinations of the same labels; see `labeltrack._labels.codes.union`."""
    names = parts[0].dtype.names
    others = {part.dtype.names for part in parts} - {names}
    if others:
        kinds = [listing(each) if each else "one label" for each in (names, *others)]
        msg = f"cannot put statistics by {' and by '.join(kinds)} into one table; use by() to have the same labels"
        raise TypeError(msg)
    if names is None:
        return codes.union(parts)
    together, places = grouped({name: np.concatenate(_of_one_type([part[name] for part in parts])) for name in names})
    return together, np.split(places, np.cumsum([part.shape[0] for part in parts])[:-1])


def mapped_combinations(table: Array, names: Mapping[Any, str]) -> Iterable[tuple[Any, ...]]:
    """Return all combinations of labels with a name, and of those that occur where none has; none if none has."""
    fields = columns_of(table)
    mapped: dict[str, list[Any]] = {name: [] for name in fields}
    for (field, label), name in names.items():
        if (label, name) != (MISSING_NUMBER, MISSING_NAME):  # whose absence is the normal case
            mapped[field].append(label)
    if not any(mapped.values()):
        return ()
    sides = [mapped[name] or sorted_unique(column).tolist() for name, column in fields.items()]
    number = math.prod(map(len, sides))
    if number > _MOST_ABSENT:
        sizes = " × ".join(f"{len(side):,} of {name!r}" for name, side in zip(fields, sides, strict=True))
        msg = (
            f"with_absent() would make {number:,} rows, one for every combination of {sizes}, and makes at most "
            f"{_MOST_ABSENT:,}; take fewer labels first, such as with by()"
        )
        raise ValueError(msg)
    return product(*sides)


def _of_one_type(columns: Sequence[Array]) -> Sequence[Array]:
    if len({column.dtype for column in columns}) == 1:
        return columns
    dtype = common_type([sorted_unique(column) for column in columns])[0].dtype
    return [column.astype(dtype) for column in columns]


def combination_table(rows: Sequence[Sequence[Any]], like: Array) -> Array:
    """Return tuples of labels, in the order given, as a table with the names of another; TypeError for others."""
    names = like.dtype.names or ()
    odd = [row for row in rows if not isinstance(row, tuple) or len(row) != len(names)]
    if odd:
        msg = f"expected tuples of {len(names)} labels ({listing(names)}), got {odd[0]!r}"
        raise TypeError(msg)
    return combinations(
        {name: table_labels(list(column)) for name, column in zip(names, zip(*rows, strict=True), strict=True)}
    )
