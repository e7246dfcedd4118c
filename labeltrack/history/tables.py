"""Tables of all that a history holds."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from labeltrack._convert.objects import text_array, written
from labeltrack._labels.codes import common_type
from labeltrack._tables import Table
from labeltrack.errors import listing
from labeltrack.history.entries import Entries
from labeltrack.stats import STATISTICS

Array = npt.NDArray[Any]


class Tables(Entries, Table):
    """Statistics as tables, with one row for each step, mode, dataset and label."""

    def columns(self) -> dict[str, Array]:
        """Return the whole history as a dict of equally long arrays, one row for each step, dataset and label.

        Columns are step, mode, ds_id, label (or one for each of several labels), name, count, sum, mean, std, min and
        max, and the quantiles that any step has, as ``"q0.25"``, NaN where another does not have them; rows are sorted
        by mode (as first recorded), step and dataset.

        Raises:
            ValueError: Some steps have other labels than others.
        """
        place = {mode: i for i, mode in enumerate(self.modes)}
        keys = sorted(self._entries, key=lambda key: (place[key[0]], key[2], key[1]))
        parts = [self._entries[key] for key in keys]
        lengths = np.array([len(part) for part in parts], dtype=np.int64)
        columns: dict[str, Array] = {
            "step": np.repeat(np.array([key[2] for key in keys], dtype=np.int64), lengths),
            "mode": np.repeat(text_array([key[0] for key in keys]), lengths),
            "ds_id": np.repeat(text_array([key[1] for key in keys]), lengths),
        }
        tables = [part.columns() for part in parts]
        heads = {part.label_names or ("label",) for part in parts} or {("label",)}
        if len(heads) > 1:
            msg = f"there is no table of steps with different labels: {' and '.join(map(listing, sorted(heads)))}"
            raise ValueError(msg)
        for name in (*heads.pop(), "name", *STATISTICS):
            columns[name] = _concatenated([table[name] for table in tables], name)
        for name in [f"q{fraction!r}" for fraction in sorted({one for part in parts for one in part.quantiles})]:
            columns[name] = np.concatenate([table.get(name, np.full(len(table["name"]), np.nan)) for table in tables])
        return columns


def _concatenated(parts: list[Array], name: str) -> Array:
    """Concatenate a column of all entries; labels of different types become strings."""
    if not parts:
        return np.empty(0, dtype=np.str_ if name == "name" else np.int64 if name in ("label", "count") else np.float64)
    if name not in ("name", *STATISTICS):
        try:
            parts = common_type(parts)
        except TypeError:  # strings in one epoch, numbers in another; or numbers that no one type holds exactly
            parts = [written(part) for part in parts]
    return np.concatenate(parts)
