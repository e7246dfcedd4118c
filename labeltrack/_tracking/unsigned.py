"""Labels above ``2**63 - 1`` and negative ones: which type holds all integers of a mode, if there is one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce

import numpy as np

from labeltrack._core.arrays import Array
from labeltrack._labels.codes import INTEGER, UNSIGNED, LabelDecoder
from labeltrack._labels.combination_codes import WHOLE, TupleDecoder, compatible, kinds_of, wider
from labeltrack._labels.combined import columns_of
from labeltrack._tracking.streams import Key, Snapshot, Stream


def one_type(kind: str, array: Array, key: Key, streams: Mapping[Key, Stream]) -> tuple[str, Array]:
    """Return kind and ``(N,)`` labels of a batch in the type that holds those of its mode; TypeError if none does."""
    own = streams.get(key)
    before = None if own is None or own.empty() else own.kind
    if kind == UNSIGNED and before != UNSIGNED and int(array.max()) < 2**63:
        kind, array = INTEGER, array.view(np.int64) if array.flags.c_contiguous else array.astype(np.int64)
    if kind in WHOLE and kind != before:
        others = check_signs(kind, Snapshot([(array,)], None, LabelDecoder(kind)), key[0], streams)
        for other in others:
            if kind == UNSIGNED and other.kind == INTEGER:  # later batches are checked then
                other.buffer.merge_in(other.buffer.merged, other.folded, UNSIGNED)
        if UNSIGNED in (before, kind) or (kind == INTEGER and UNSIGNED in [other.kind for other in others]):
            return UNSIGNED, array.astype(np.uint64)
    return kind, array


def check_signs(kind: str, batch: Snapshot, mode: str, streams: Mapping[Key, Stream]) -> list[Stream]:
    """Return what a mode has of kinds that go together with that of a batch; TypeError if no type holds all labels."""
    others = [stream for (of, _), stream in streams.items() if of == mode and stream.kind != kind]
    others = [stream for stream in others if not stream.empty() and compatible([kind, stream.kind])]
    for stream in others:
        stream.buffer.seal()  # other threads add none then
        check_common_type([(kind, batch), (stream.kind, stream.snapshot())])
    return others


def check_common_type(every: Sequence[tuple[str, Snapshot]], lost: str = "this batch was not recorded") -> str:
    """Return the kind that holds the labels of all samples, of kinds that are compatible.

    TypeError if there is none: some are negative, and others above ``2**63 - 1``.
    """
    kind = reduce(wider, (of for of, _ in every))
    for place, wide in enumerate(kinds_of(kind)):
        narrow = [samples for of, samples in every if kinds_of(of)[place] != UNSIGNED]
        if wide == UNSIGNED and any(_any_negative(samples, place) for samples in narrow):
            msg = f"labels above 2**63 - 1 and negative labels do not fit one type ({lost})"
            raise TypeError(msg)
    return kind


def _any_negative(samples: Snapshot, place: int) -> bool:
    """Return whether signed labels are negative somewhere, by their place among several."""
    decoder = samples.decoder
    folded = None if samples.folded is None else samples.folded.stats[0].labels
    if not isinstance(decoder, TupleDecoder):
        return bool(folded is not None and len(folded) and folded[0] < 0) or any(
            int(keys.min()) < 0 for keys, *_ in samples.rows
        )
    tables = [decoder.decode(np.unique(keys)) for keys, *_ in samples.rows] + ([] if folded is None else [folded])
    return any(bool((list(columns_of(table).values())[place] < 0).any()) for table in tables)
