"""From labels, values and a mask, of shapes that broadcast, to keys and values, one of each per sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from labeltrack._convert.arrays import aligned_shape, flat_pair, looks_multi_hot, missing_entries, read_array
from labeltrack._core.arrays import Array, Mask
from labeltrack._core.combine import combine, selected
from labeltrack._labels.codes import BYTES, STRING, LabelDecoder, integer_keys, label_kind, to_keys
from labeltrack._labels.combined import CombinedDecoder, kept_part, part_of
from labeltrack._labels.missing import LabelOptions, Missing, labelled, of_kind, read_labels

_MANY = 1 << 18


def read_mask(where: Any, values: Array) -> Mask | None:
    """Return which values count, in their shape; None for all. TypeError unless bool, ValueError for other shapes."""
    if where is None:
        return None
    mask, gone = read_array(where, "where")
    if gone is not None:
        raise missing_entries(int(gone.sum()), gone.size, "entries of where")
    if not mask.size:
        mask = mask.astype(np.bool_)  # an empty list is one of doubles
    if mask.dtype != np.bool_:
        msg = f"where must be boolean, got dtype {mask.dtype}; compare with a number, such as where=mask != 0"
        raise TypeError(msg)
    if mask.shape == values.shape:
        return mask
    if mask.size == values.size and all(array.shape[:1] == (array.size,) for array in (mask, values)):
        return mask.reshape(values.shape)  # (N,) and (N, 1)
    try:
        return np.broadcast_to(mask, values.shape)
    except ValueError:
        msg = f"where of shape {mask.shape} does not broadcast to values of shape {values.shape}"
        raise ValueError(msg) from None


def one_label(
    labels: tuple[Array, Mask | None], values: Array, mask: Mask | None, missing: Missing, *, threads: int | None = None
) -> tuple[Array, Array, LabelDecoder]:
    """Return ``(N,)`` keys and values of the samples that count, and the decoder; ValueError for missing labels."""
    keys, space, mask = _encode(labels, values, mask, missing, threads)
    return *flat(keys, values, mask, threads), space


def are_multi_hot(columns: Mapping[str, Any], values: Array) -> bool:
    """Return whether some of several labels are multi-hot, and no other one tells columns apart."""
    if values.ndim != 2:
        return False
    wide = [one for one in columns.values() if getattr(one, "shape", values.shape)[1:] == values.shape[1:]]
    return bool(wide) and all(looks_multi_hot(read_labels(one)[0], values) for one in wide)


def several_labels(
    columns: Mapping[str, Any],
    values: Array,
    mask: Mask | None,
    options: Mapping[str, LabelOptions],
    *,
    kinds: Mapping[str, str] | None = None,
    threads: int | None = None,
) -> tuple[Array, Array, CombinedDecoder, list[str]]:
    """Return the same for several labels, and which have no label of their mapping; `kinds` are for `read_labels`."""
    spaces, parts, shapes, unmatched = {}, [], [], []
    for name, labels in columns.items():
        _, missing, ignored = options[name]
        wanted = options[name].wanted
        try:
            read = read_labels(labels, None if kinds is None else kinds.get(name))
            keys, space, mask = _encode(read, values, mask, missing, threads, ignored)
        except (TypeError, ValueError) as error:
            msg = f"label {name!r}: {error}"
            raise (TypeError if isinstance(error, TypeError) else ValueError)(msg) from error
        if wanted is None:
            part = part_of(keys.reshape(-1), space)
        else:
            part, kept = kept_part(keys.reshape(-1), space, space.encode(wanted))
            if not kept.any():
                unmatched.append(name)
            mask = _both(mask, np.broadcast_to(kept.reshape(keys.shape), values.shape))
        spaces[name] = space
        parts.append(part)
        shapes.append(keys.shape)
    shape = np.broadcast_shapes(*shapes)
    parts = [
        part._replace(keys=_spread(part.keys.reshape(own), shape)) for part, own in zip(parts, shapes, strict=True)
    ]
    combined, form = combine(parts, threads=_sharing(parts[0].keys.shape[0], threads))
    return *flat(combined.reshape(shape), values, mask, threads), CombinedDecoder(spaces, form), unmatched


def _encode(
    labels: tuple[Array, Mask | None],
    values: Array,
    mask: Mask | None,
    missing: Missing,
    threads: int | None,
    ignored: Sequence[Any] = (),
) -> tuple[Array, LabelDecoder, Mask | None]:
    """Return the keys of labels, in a shape that broadcasts to that of the values, their decoder and the new mask."""
    array, gone = labels
    shape, every = aligned_shape(array, values), array.reshape(-1)
    mask = _unless_ignored(mask, labels, shape, values, ignored)
    if gone is not None:
        if missing == "label":
            every = labelled(every, gone.reshape(-1))
        else:
            there = np.broadcast_to(gone.reshape(shape), values.shape)
            number = int(np.count_nonzero(there if mask is None else there & mask))
            if number and missing == "error":
                raise missing_entries(number, values.size)
            mask = _both(mask, ~there)
    keys, space = to_keys(every, threads=threads)
    return keys.reshape(shape), space, mask


def counted(
    labels: tuple[Array, Mask | None], values: Array, mask: Mask | None, option: LabelOptions, kind: str | None = None
) -> tuple[Array, Array]:
    """Return ``(N,)`` labels and values of the samples that count; all missing, labels are taken as of a `kind`."""
    array, gone = labels
    shape = aligned_shape(array, values)
    mask = _unless_ignored(mask, labels, shape, values, option.ignored)
    if mask is not None:
        array = np.broadcast_to(array.reshape(shape), values.shape)[mask]
        gone = None if gone is None else np.broadcast_to(gone.reshape(shape), values.shape)[mask]
        values = values[mask]
    if gone is None or not gone.any():
        return flat_pair(array, values)
    if option.missing == "error":
        raise missing_entries(int(gone.sum()), gone.size)
    array, flat_values = flat_pair(array, values)
    gone, _ = flat_pair(gone, values)
    if option.missing == "skip":
        return array[~gone], flat_values[~gone]
    return labelled(of_kind(array, gone, kind), gone), flat_values


def _unless_ignored(
    mask: Mask | None, labels: tuple[Array, Mask | None], shape: tuple[int, ...], values: Array, ignored: Sequence[Any]
) -> Mask | None:
    """Return a mask of the values without those whose labels, that broadcast in some shape, are ignored."""
    return _both(mask, np.broadcast_to(~_ignored(*labels, ignored).reshape(shape), values.shape)) if ignored else mask


def _ignored(labels: Array, gone: Mask | None, ignored: Sequence[Any]) -> Mask:
    """Return which labels are among those to ignore; none that is missing is."""
    kind, found = label_kind(labels), np.zeros(labels.shape, dtype=np.bool_)
    if kind in (STRING, BYTES):
        for label in ignored:
            if isinstance(label, str if kind == STRING else bytes):
                # numpy drops zeros at the end of a text, unless both sides are objects.
                ends_in_zero = label[-1:] in ("\0", b"\0")
                found |= labels.astype(object) == np.array(label, dtype=object) if ends_in_zero else labels == label
    else:
        keys = integer_keys(labels.reshape(-1), kind).reshape(labels.shape)
        for key in LabelDecoder(kind).encode(ignored).tolist():
            found |= keys == key
    return found if gone is None else found & ~gone


def _both(mask: Mask | None, other: Mask) -> Mask:
    return other if mask is None else mask & other


def flat(keys: Array, values: Array, mask: Mask | None, threads: int | None) -> tuple[Array, Array]:
    """Return ``(N,)`` keys and values of the samples that count."""
    columns = _spread(keys, values.shape), np.ascontiguousarray(values).reshape(-1)
    if mask is None:
        return columns
    flat_keys, flat_values = selected(mask.reshape(-1), *columns, threads=_sharing(mask.size, threads))
    return flat_keys, flat_values


def _sharing(rows: int, threads: int | None) -> int | None:
    """Return how many threads share quick work on samples: one if starting others takes longer."""
    return threads if rows >= _MANY else 1


def _spread(keys: Array, shape: tuple[int, ...]) -> Array:
    return np.ascontiguousarray(np.broadcast_to(keys, shape)).reshape(-1)
