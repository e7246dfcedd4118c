"""Ids of samples: read, coded as integers, and duplicates among them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from labeltrack._convert.arrays import missing_entries, read_array
from labeltrack._core.arrays import Array, Integers, Mask
from labeltrack._labels.codes import INTEGER, STRING
from labeltrack.errors import listing

if TYPE_CHECKING:
    from labeltrack._buffers import Rows
    from labeltrack.recording.description import Ids

_DENSE = 4  # a table of so many places per id takes less time than sorting
_SHOWN = 10  # duplicates that messages name
_EVERY = "pass ids with every batch of an epoch or with none"


class BatchIds(NamedTuple):
    """The ids of a batch."""

    kind: str  # "integer" or "string"
    ids: Array  # (N,) int64, or objects that are strings
    gone: Mask | None  # which are missing

    def taken(self, places: Integers | None) -> Array:
        """Return the ids of some samples, by their places; of all if None. ValueError if some are missing."""
        gone = self.gone if places is None or self.gone is None else self.gone[places]
        if gone is not None and gone.any():
            raise missing_entries(int(gone.sum()), gone.size, "ids")
        return self.ids if places is None else self.ids[places]


def read_ids(ids: Any, values: Array) -> BatchIds:
    """Return the ids of a batch, checked; TypeError or ValueError if they are no ids, or not one for each value."""
    gone = None
    if type(ids) is list and ids and set(map(type, ids)) == {str}:
        array: Array = np.array(ids, dtype=object)
    else:
        array, gone = read_array(ids, "ids")
    columns = all(each.ndim <= 1 or each.size == each.shape[0] for each in (array, values))
    if array.shape != values.shape and not (columns and array.size == values.size):
        msg = (
            f"ids of shape {array.shape} do not match values of shape {values.shape}: every sample needs an id "
            "(this batch was not recorded)"
        )
        raise ValueError(msg)
    flat, gone = array.reshape(-1), None if gone is None else gone.reshape(-1)
    kind = flat.dtype.kind
    if not flat.size or (gone is not None and gone.all()):
        return BatchIds(INTEGER, np.zeros(flat.size, np.int64), gone)
    if kind == "U" or (kind == "O" and isinstance(flat[0], str)):
        return BatchIds(STRING, flat.astype(object, copy=False), gone)
    if kind not in "iu":
        what = {"S": "bytes", "O": "bytes"}.get(kind, f"dtype {flat.dtype}")
        msg = f"ids must be integers or strings, got {what}; convert them first (this batch was not recorded)"
        raise TypeError(msg)
    if flat.dtype == np.uint64 and int(flat.max()) >= 2**63:
        msg = "ids above 2**63 - 1 do not fit; pass them as strings (this batch was not recorded)"
        raise ValueError(msg)
    return BatchIds(INTEGER, flat.astype(np.int64, copy=False), gone)


def check_alike(mode: str, before: Ids | None, now: str | None, what: str = "this batch was not recorded") -> None:
    """Raise TypeError if ids of an epoch are of two kinds, ValueError if only some of its samples have ids."""
    kind = None if before is None else before.kind
    if (kind is None) is not (now is None):
        ids, past = ("ids", "had none") if kind is None else ("no ids", "had")
        msg = f"samples of mode {mode!r} have {ids} now, and those before in this epoch {past}; {_EVERY} ({what})"
        raise ValueError(msg)
    if kind != now:
        msg = f"ids of mode {mode!r} are {now}s now, and were {kind}s before in this epoch; pass one type ({what})"
        raise TypeError(msg)


# -- duplicates -------------------------------------------------------------------------------------------


class Duplicates(NamedTuple):
    """How many samples have an id that occurred before in the same epoch, mode and dataset, and ids of some."""

    number: int = 0
    some: tuple[int, ...] = ()  # as integers

    def and_(self, other: Duplicates) -> Duplicates:
        """Return both together."""
        return Duplicates(self.number + other.number, (*self.some, *other.some)[:_SHOWN])

    def shown(self, ids: Ids) -> str:
        """Return some of the ids as text."""
        distinct = list(dict.fromkeys(self.some))
        return listing(distinct if ids.words is None else [ids.words.words[code] for code in distinct])


class Seen(NamedTuple):
    """``(S,)`` different ids of samples that were folded, and what was left out."""

    ids: Integers
    duplicates: Duplicates


def distinct(rows: Sequence[Rows], seen: Seen | None = None) -> tuple[list[Rows], Duplicates]:
    """Return rows without those whose id, the last column, occurred before, or in `seen`; and what was left out."""
    before = [] if seen is None else [seen.ids]
    masks = repeated([*before, *(columns[-1] for columns in rows)])
    if masks is None:
        return list(rows), Duplicates()
    kept, some, number = [], [], 0
    for columns, mask in zip(rows, masks[len(before) :], strict=True):
        kept.append(tuple(column[~mask] for column in columns) if mask.any() else columns)
        some += columns[-1][mask][:_SHOWN].tolist()
        number += int(np.count_nonzero(mask))
    return kept, Duplicates(number, tuple(some[:_SHOWN]))


def repeated(columns: Sequence[Integers]) -> list[Mask] | None:
    """Return, for columns of ids, which occurred before, in the same column or an earlier one; None if none did."""
    sizes = [column.shape[0] for column in columns]
    full = [column for column in columns if column.shape[0]]
    if sum(sizes) < 2:
        return None
    low, high = min(int(column.min()) for column in full), max(int(column.max()) for column in full)
    if high - low < _DENSE * sum(sizes):  # a million ids take 3 ms so, and 15 otherwise: half as long as np.unique
        here = np.zeros(high - low + 1, dtype=np.bool_)
        for column in full:
            here[column - low] = True
        if int(np.count_nonzero(here)) == sum(sizes):
            return None
        together = np.concatenate(full) - low
        often = np.bincount(together)[together] > 1
    else:
        together = np.concatenate(full)
        ordered = np.sort(together)
        again = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
        if not again.size:
            return None
        often = again[np.minimum(np.searchsorted(again, together), again.size - 1)] == together
    places = np.flatnonzero(often)
    order = np.argsort(together[places], kind="stable")
    ids = together[places][order]
    later = np.zeros(places.shape[0], dtype=np.bool_)
    later[order[1:]] = ids[1:] == ids[:-1]
    found = np.zeros(sum(sizes), dtype=np.bool_)
    found[places[later]] = True
    return np.split(found, np.cumsum(sizes)[:-1])
