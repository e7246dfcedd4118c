"""States that anything can save: built-in values alone, such as ``torch.load`` takes by default."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from labeltrack._convert.objects import value_of

_DTYPE, _SHAPE, _DATA = "dtype", "shape", "data"
_PLAIN: frozenset[type] = frozenset({str, bytes, int, float, bool, type(None)})
_STRINGS = "USTO"  # objects are str or bytes


def plain(value: Any) -> Any:
    """Return a value without its arrays, which become a dict of dtype, shape and bytes or strings, and subclasses."""
    if isinstance(value, bytes) and not value:
        value = np.array(b"")  # as torch.save writes empty bytes, torch.load refuses them
    if type(value) in _PLAIN:
        return value
    if isinstance(value, np.ndarray):
        kind = value.dtype.kind
        data: Any = value.ravel().tolist() if kind in _STRINGS else value.tobytes() or []
        if kind == "S":
            data = [item.decode("latin-1") for item in data]
        elif kind == "O":
            data = plain(data)
        return {_DTYPE: "T" if kind == "T" else value.dtype.str, _SHAPE: list(value.shape), _DATA: data}
    if isinstance(value, Mapping):
        return {plain(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value] if isinstance(value, list) else tuple(map(plain, value))
    bare = value_of(value)  # of a subclass, such as an enum
    if type(bare) in _PLAIN:
        return bare
    msg = f"a state cannot hold {type(value).__name__} {value!r}"
    raise TypeError(msg)


def with_arrays(value: Any) -> Any:
    """Return what `plain` was given, with arrays of their own memory; TypeError or ValueError for anything else."""
    if isinstance(value, Mapping):
        if value.keys() == {_DTYPE, _SHAPE, _DATA}:
            dtype, data = np.dtype(value[_DTYPE]), value[_DATA]
            if dtype.kind == "S":
                data = [item.encode("latin-1") for item in data]
            elif dtype.kind == "O":
                data = with_arrays(data)
            by_value = dtype.kind in _STRINGS or not data
            array = np.array(data, dtype) if by_value else np.frombuffer(bytearray(data), dtype)
            return array.reshape(value[_SHAPE]) if value[_SHAPE] else array.item()
        return {key: with_arrays(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(with_arrays, value))
    return value
