"""The ``missing`` option: samples without a label raise, are skipped, or get a label of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, cast, get_args

import numpy as np

from labeltrack._convert.arrays import read_array
from labeltrack._core.arrays import Array
from labeltrack._labels.codes import BYTES, FLOAT, MISSING_NAME, MISSING_NUMBER, label_kind
from labeltrack._labels.lookup import as_doubles
from labeltrack.errors import check_option

Missing = Literal["error", "skip", "label"]

_LABELS = (MISSING_NUMBER, MISSING_NAME, MISSING_NAME.encode())
_DTYPES: dict[str, Any] = {"string": "U1", "bytes": "S1", FLOAT: np.float64}


class LabelOptions(NamedTuple):
    mapping: dict[Any, str] | None = None  # display names by label
    missing: Missing = "error"
    ignored: tuple[Any, ...] = ()

    @property
    def shown(self) -> dict[Any, str] | None:
        """The display names of labels, that of missing ones included; None if they have none."""
        return self.mapping if self.missing != "label" else {MISSING_NUMBER: MISSING_NAME, **(self.mapping or {})}

    @property
    def wanted(self) -> list[Any] | None:
        """The labels to keep: those of the mapping, and that of samples without one; None keeps all."""
        if self.mapping is None:
            return None
        absent = (label for label in _LABELS if self.missing == "label" and label not in self.mapping)
        return [*self.mapping, *absent]


def check_missing(missing: Any, mapping: Mapping[Any, str] | None = None) -> Missing:
    """Return the option for missing labels; ValueError if it is none, or another label has the name of missing ones."""
    check_option("missing", missing, get_args(Missing))
    if missing == "label" and mapping is not None and mapping.get(MISSING_NUMBER) != MISSING_NAME:
        taken = [label for label, name in mapping.items() if name == MISSING_NAME and label not in _LABELS]
        if taken:
            msg = f"label_mapping calls label {taken[0]!r} {MISSING_NAME!r}, as missing='label' calls the missing ones"
            raise ValueError(msg)
    return cast("Missing", missing)


def read_labels(labels: Any, kind: str | None = None) -> tuple[Array, Array | None]:
    """Return any array-like of labels, checked, and which are missing; all missing, they are of that `kind`."""
    array, gone = read_array(labels, "labels")
    if gone is not None:
        array = of_kind(array, gone, kind)
    if label_kind(array) == FLOAT:
        bad = np.isnan(array)
        if bad.any():
            gone = bad if gone is None else bad | gone
    return array, gone


def of_kind(labels: Array, gone: Array, kind: str | None) -> Array:
    """Return labels; those that are all missing, which `gone` says, as of a kind."""
    return labels if kind is None or not gone.all() else np.zeros(gone.shape, _DTYPES.get(kind, np.int64))


def labelled(labels: Array, gone: Array) -> Array:
    """Give the missing ones among ``(N,)`` labels a label of their own."""
    name: Any = MISSING_NAME.encode() if label_kind(labels) == BYTES else MISSING_NAME
    if labels.dtype.kind == "O":
        labels = labels.copy()
    elif labels.dtype.kind in "US":
        labels = labels.astype(np.promote_types(labels.dtype, np.array(name).dtype))
    elif labels.dtype.kind == "f":
        name, labels = float(MISSING_NUMBER), as_doubles(labels)
    else:
        if labels.dtype == np.uint64 and int(labels.max(where=~gone, initial=0)) >= 2**63:
            msg = "labels above 2**63 - 1 leave no number for missing ones; use missing='skip', or pass strings"
            raise ValueError(msg)
        name, labels = MISSING_NUMBER, labels.astype(np.int64)
    labels[gone] = name
    return labels
