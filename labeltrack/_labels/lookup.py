"""Finding a label by its value or its display name."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from labeltrack._convert.floats import alias, plain_label
from labeltrack._convert.texts import text_array, written
from labeltrack.errors import missing_key

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    import numpy.typing as npt


def display_names(labels: npt.NDArray[Any], names: Mapping[Any, str]) -> npt.NDArray[np.str_]:
    """Return the ``(K,)`` display names of labels: those given, else the label as text."""
    plain: Any = written(labels)
    if not names:
        return plain  # type: ignore[no-any-return]
    aliases = {other: name for label, name in names.items() if (other := alias(label)) is not None}
    named = {**aliases, **names}
    return text_array([named.get(label, name) for label, name in zip(labels.tolist(), plain.tolist(), strict=True)])


class Lookup:
    """Positions of ``(K,)`` labels, by value or display name; a value takes precedence over a name."""

    def __init__(self, labels: npt.NDArray[Any], names: npt.NDArray[np.str_] | None) -> None:
        self._labels = labels
        self._names = names

    @cached_property
    def _positions(self) -> dict[Any, int]:
        names = [] if self._names is None else self._names.tolist()
        return {key: k for keys in (names, self._labels.tolist()) for k, key in enumerate(keys)}

    def find(self, label: Any) -> int | None:
        """Return the position of a label; None if there is no such label."""
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
            known = self._labels if self._names is None or not isinstance(label, str) else self._names
            raise missing_key(label, known.tolist(), "label")
        return found
