"""What a tracker holds of one mode and dataset between two ends of an epoch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from labeltrack._labels import BOOL, INTEGER, UNSIGNED

if TYPE_CHECKING:
    from labeltrack._buffers import SampleBuffer
    from labeltrack.recorder import Lane
    from labeltrack.stats import LabelStats

Array = npt.NDArray[Any]

WHOLE = {BOOL, INTEGER, UNSIGNED}
"""Kinds of labels that one 64-bit type may hold together."""


@dataclass
class Stream:
    """The samples of one mode and dataset since the last end of an epoch."""

    kind: str
    buffer: SampleBuffer
    folded: LabelStats | None = None
    lane: Lane | None = None  # of the recorder, if there is one

    def empty(self) -> bool:
        """Return whether nothing was recorded since."""
        return self.folded is None and not len(self.buffer)


def whole_numbers(kind: str, array: Array, stream: Stream | None) -> tuple[str, Array]:
    """Bring uint64 labels and signed ones together, as far as one 64-bit type holds them all.

    Args:
        kind: Kind of this batch.
        array: Its ``(N,)`` labels.
        stream: What was recorded before.

    Returns:
        The kind to record the batch under, and its labels.

    Raises:
        TypeError: No one type holds the labels of the epoch.
    """
    before = None if stream is None or stream.empty() else stream.kind
    if kind == UNSIGNED and before != UNSIGNED and (not array.size or int(array.max()) < 2**63):
        return INTEGER, array.view(np.int64) if array.flags.c_contiguous else array.astype(np.int64)
    if kind in WHOLE and before in WHOLE and (kind == UNSIGNED) != (before == UNSIGNED):
        negative = _any_negative(stream) if kind == UNSIGNED else array.size and int(array.min()) < 0
        if negative:
            msg = "labels above 2**63 - 1 and negative labels do not fit one type (this batch was not recorded)"
            raise TypeError(msg)
        return UNSIGNED, array.astype(np.uint64)
    return kind, array


def _any_negative(stream: Stream | None) -> bool:
    """Return whether signed labels recorded so far are negative somewhere."""
    if stream is None:
        return False
    folded = stream.folded is not None and len(stream.folded) and stream.folded.labels[0] < 0
    return bool(folded) or any(int(keys.min()) < 0 for keys, _ in stream.buffer.filled())
