"""Display names, and finding a label by value or name: a float is one label regardless of the precision it came in."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from labeltrack._convert.objects import text_array, value_of, written
from labeltrack._core.arrays import Array, Floats
from labeltrack.errors import missing_key

_MOST = 22  # powers of ten up to this one are exact doubles
_WHOLE = 2.0**53  # above it, not every integer is a double


def as_doubles(labels: Array) -> Floats:
    """Return ``(N,)`` float16, float32 or float64 labels as doubles, narrow ones as their shortest decimal.

    The nearest float32 to 0.1 differs from the nearest double; as labels, both are 0.1. Multiples of an eighth below
    2**53 are kept.
    """
    doubles = labels.astype(np.float64) + 0.0
    if labels.dtype.itemsize >= 8:
        return doubles
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        large = np.flatnonzero((np.abs(doubles) >= _WHOLE) & np.isfinite(doubles))
        doubles[large] = [float(str(label)) for label in labels[large]]
        left = np.flatnonzero((np.rint(8 * doubles) != 8 * doubles) & (np.abs(doubles) < _WHOLE))
        exact = doubles[left]
        for places in range(1, _MOST + 1):
            if not left.size:
                return doubles
            power = 10.0**places
            decimal = np.rint(exact * power) / power
            alike = decimal.astype(labels.dtype) == exact
            doubles[left[alike]] = decimal[alike]
            left, exact = left[~alike], exact[~alike]
    doubles[left] = [float(str(label)) for label in labels[left]]
    return doubles


def alias(label: Any, *, widened: bool = False) -> float | None:
    """Return under which other number a float label may be known, None if there is none.

    A float32 converted to double, with all its digits, is the label that `as_doubles` makes of the float32; for that
    decimal, `widened` returns the converted one.
    """
    if not isinstance(label, float) or not math.isfinite(label) or _is_kept(label):
        return None
    with np.errstate(over="ignore", under="ignore"):
        single = np.array([label], dtype=np.float32)
    decimal, exact = float(as_doubles(single)[0]), float(single[0])
    if not exact or not math.isfinite(exact) or _is_kept(exact):
        return None
    if decimal == label:
        return exact if widened else None
    digits = len(repr(label).partition("e")[0].replace(".", "").strip("-0"))
    return decimal if exact == label or digits >= 15 else None


def _is_kept(label: float) -> bool:
    return abs(label) < _WHOLE and (8 * label).is_integer()


def plain_label(item: Any) -> Any:
    """Return a label as a plain Python value; narrow floats as by `as_doubles`."""
    if isinstance(item, (np.float32, np.float16)):
        return float(as_doubles(np.array([item]))[0])
    return value_of(item)


def display_names(labels: Array, names: Mapping[Any, str]) -> npt.NDArray[np.str_]:
    """Return the ``(K,)`` display names of labels: given ones, else text; of combinations joined as in CSV files."""
    if labels.dtype.names is not None:
        fields = [_names_of_field(labels, name, names) for name in labels.dtype.names]
        return text_array([", ".join(row) for row in zip(*fields, strict=True)])
    plain: Any = written(labels)
    if not names:
        return plain  # type: ignore[no-any-return]
    aliases = {other: name for label, name in names.items() if (other := alias(label)) is not None}
    named = {**aliases, **names}
    return text_array([named.get(label, name) for label, name in zip(labels.tolist(), plain.tolist(), strict=True)])


def _names_of_field(labels: Array, field: str, names: Mapping[Any, str]) -> list[str]:
    mine = {label: name for (of, label), name in names.items() if of == field}
    found: list[str] = display_names(labels[field], mine).tolist()
    together = "".join(found)
    if "," in together or '"' in together:
        found = ['"' + name.replace('"', '""') + '"' if "," in name or '"' in name else name for name in found]
    return found


class Lookup:
    """Positions of ``(K,)`` labels, by value or display name; a value takes precedence over a name."""

    def __init__(self, labels: Array, names: npt.NDArray[np.str_] | None, mapped: Collection[Any] = ()) -> None:
        self._labels = labels
        self._names = names
        self._mapped = mapped  # labels with a name, whether they are among these or not: none is that of another label

    @cached_property
    def _positions(self) -> dict[Any, int]:
        names = [] if self._names is None else self._names.tolist()
        named = {name: k for k, name in enumerate(names) if name not in self._mapped}
        return named | {label: k for k, label in enumerate(self._labels.tolist())}

    def find(self, label: Any) -> int | None:
        wanted = plain_label(label)
        try:
            found = self._positions.get(wanted)
            if found is None and self._labels.dtype.kind == "f":
                found = self._positions.get(alias(wanted, widened=True))
        except TypeError:  # not hashable, so no label
            return None
        return found

    def index(self, label: Any) -> int:
        """Return the position of a label, or raise KeyError naming the nearest labels."""
        found = self.find(label)
        if found is None:
            by_value = self._names is None or not isinstance(label, str) or label in self._mapped
            known: Any = self._labels if by_value else self._names
            raise missing_key(label, known.tolist(), "label")
        return found


class CombinedLookup(Lookup):
    """Positions of ``(K,)`` combinations, as tuples of values or display names, or by the name of the combination."""

    def __init__(self, labels: Array, names: Callable[[], npt.NDArray[np.str_]], given: Mapping[Any, str]) -> None:
        super().__init__(labels, None)
        self._named = names  # returns them, as there may be millions
        self._given = given  # by ``(name of the label, label)``

    def find(self, label: Any) -> int | None:
        fields = self._labels.dtype.names or ()
        if isinstance(label, str):
            return next(iter(np.flatnonzero(self._named() == label).tolist()), None)
        if not isinstance(label, tuple) or len(label) != len(fields):
            return None
        try:
            for combination in product(*map(self._meant, fields, label)):
                if combination in self._positions:
                    return self._positions[combination]
        except TypeError:  # not hashable, so no label
            return None
        return None

    def _meant(self, field: str, label: Any) -> list[Any]:
        """Return which labels of a field are meant, the likeliest first."""
        value = plain_label(label)
        found = [value]
        if (field, value) not in self._given:
            found += [one for (of, one), name in self._given.items() if of == field and name == value]
        if self._labels.dtype[field].kind == "f":
            found += [other for one in found if (other := alias(one, widened=True)) is not None]
        return found
