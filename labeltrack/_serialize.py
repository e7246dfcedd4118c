"""States that anything can save: built-in values alone, such as ``torch.load`` takes by default."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

_DTYPE, _SHAPE, _DATA = "dtype", "shape", "data"
_PLAIN: frozenset[type] = frozenset({str, bytes, int, float, bool, type(None)})
_STRINGS = "USTO"  # objects are str or bytes
# Of which others may be a subclass, such as enums; and what makes one of it.
_BARE: tuple[tuple[type, Callable[[Any], Any]], ...] = ((str, str.__str__), (bytes, bytes), (int, int), (float, float))


def plain(value: Any) -> Any:
    r"""Return a value made of dicts, lists, tuples, arrays and scalars without its arrays and subclasses.

    Arrays become a dict of dtype, shape and bytes; those of strings have a list, which takes no more room for one that
    is longer than the others.

    Example:
        >>> plain({"a": np.array([1], dtype="<i2"), "b": np.float64(0.5)})
        {'a': {'dtype': '<i2', 'shape': [1], 'data': b'\x01\x00'}, 'b': 0.5}
    """
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
    if isinstance(value, np.generic):
        return value.item()
    for base, bare in _BARE:
        if isinstance(value, base):
            return bare(value)
    msg = f"a state cannot hold {type(value).__name__} {value!r}"
    raise TypeError(msg)


def with_arrays(value: Any) -> Any:
    """Return what `plain` was given, with arrays of their own memory.

    Raises:
        TypeError: It is not from there.
        ValueError: Likewise.
    """
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
