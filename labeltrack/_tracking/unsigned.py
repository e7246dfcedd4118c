"""Labels that are whole numbers, of types that hold them all: unsigned ones of 64 bits, and signed ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from labeltrack._labels.codes import INTEGER, UNSIGNED
from labeltrack._labels.combination_codes import WHOLE, TupleDecoder, kinds_of
from labeltrack._labels.combined import columns_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from labeltrack._tracking.streams import Snapshot, Stream

Array = npt.NDArray[Any]

NO_TYPE = "labels above 2**63 - 1 and negative labels do not fit one type (this batch was not recorded)"


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
        if kind == UNSIGNED and stream is not None:
            stream.buffer.seal()  # other threads add none then
            negative = any_negative(stream.snapshot(), 0)
        else:
            negative = bool(array.size) and int(array.min()) < 0
        if negative:
            raise TypeError(NO_TYPE)
        return UNSIGNED, array.astype(np.uint64)
    return kind, array


def no_common_type(kind: str, every: Iterable[tuple[str, Snapshot]]) -> bool:
    """Return whether no 64-bit type holds some labels: some are negative, and others above ``2**63 - 1``.

    Args:
        kind: The kind that is wide enough for all.
        every: Samples, and their kind.
    """
    every = list(every)
    for place, wide in enumerate(kinds_of(kind)):
        narrow = [samples for of, samples in every if kinds_of(of)[place] != UNSIGNED]
        if wide == UNSIGNED and any(any_negative(samples, place) for samples in narrow):
            return True
    return False


def any_negative(samples: Snapshot, place: int) -> bool:
    """Return whether signed labels are negative somewhere, by their place among several."""
    decoder = samples.decoder
    folded = None if samples.folded is None else samples.folded.stats[0].labels
    if not isinstance(decoder, TupleDecoder):
        return bool(folded is not None and len(folded) and folded[0] < 0) or any(
            int(keys.min()) < 0 for keys, *_ in samples.rows
        )
    tables = [decoder.decode(np.unique(keys)) for keys, *_ in samples.rows] + ([] if folded is None else [folded])
    return any(bool((list(columns_of(table).values())[place] < 0).any()) for table in tables)
