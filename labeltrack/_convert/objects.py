"""Lists, objects and columns of other libraries: as an array that holds each item exactly, and what is missing."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from labeltrack._convert.texts import text_array

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]
Read = tuple[Array, Mask | None]
"""An array, and which of its entries are missing; None where none is."""

_PLAIN = {int, float, bool, complex, str, bytes, np.str_, np.bytes_}
_GAPS = (("isna", "dropna"), ("is_null", "drop_nulls"), ("is_null", "drop_null"))  # pandas, polars, pyarrow


def value_of(item: Any) -> Any:
    """Return a number or text as exactly what it is as a plain Python value, whatever its class makes of it.

    An enum of strings, for one, is another text to `str` and to numpy.

    Example:
        >>> value_of(np.float32(0.5)), value_of(True), value_of(None)
        (0.5, True, None)
    """
    if isinstance(item, (np.datetime64, np.timedelta64)):
        return item  # numpy would make numbers of some
    if isinstance(item, str):
        return str.__getitem__(item, slice(None))  # numpy's own text has NULs at its end that its `item()` has not
    if isinstance(item, bytes):
        return bytes.__getitem__(item, slice(None))
    if isinstance(item, np.generic):
        return item.item()
    if isinstance(item, int) and not isinstance(item, bool):
        return int.__index__(item)
    if isinstance(item, float):
        return float.__float__(item)
    return item


def read_list(data: Sequence[Any], what: str, read: Callable[[Any, str], Read]) -> Read:
    """Return a list as an array.

    Args:
        data: Numbers, text, lists of these, or arrays of one shape.
        what: Name of the argument, for error messages.
        read: What reads an array that is an item.

    Raises:
        TypeError: The items are not all numbers, all strings or all bytes.
        ValueError: The items differ in length, or are integers that no one type holds beside the others.
    """
    shape, items = [len(data)], data
    while (kinds := set(map(type, items))) and kinds <= {list, tuple}:
        if len(set(map(len, items))) > 1:
            raise _ragged(what)
        shape.append(len(items[0]))
        items = list(chain.from_iterable(items))
    if any(map(_holds_many, kinds)):
        return _stacked([read(item, what) for item in items], tuple(shape), what)
    array, gone = read_items(items, what, kinds)
    return array.reshape(shape), None if gone is None else gone.reshape(shape)


def _holds_many(kind: type) -> bool:
    """Return whether objects of a type hold several items, or one as an array of no dimensions."""
    if issubclass(kind, (list, tuple, range)):
        return True
    array = hasattr(kind, "__array__") or hasattr(kind, "__dlpack__")
    return array and not issubclass(kind, np.generic) and kind is not np.ma.core.MaskedConstant


def _ragged(what: str) -> ValueError:
    return ValueError(f"{what} is a list whose items differ in length; pass one flat list or an array")


def _stacked(parts: list[Read], shape: tuple[int, ...], what: str) -> Read:
    """Return arrays of one shape as one."""
    arrays = [array for array, _ in parts]
    inner = arrays[0].shape
    if any(array.shape != inner for array in arrays):
        raise _ragged(what)
    if len({array.dtype for array in arrays}) == 1:
        together, gone = np.array(arrays), None
    else:
        together, gone = read_items(list(chain.from_iterable(array.ravel().tolist() for array in arrays)), what)
    together = together.reshape(shape + inner)
    if any(mask is not None for _, mask in parts):
        masks = [np.zeros(inner, np.bool_) if mask is None else mask for _, mask in parts]
        before = np.array(masks).reshape(together.shape)
        gone = before if gone is None else before | gone.reshape(together.shape)
    return together, None if gone is None else gone.reshape(together.shape)


def read_items(items: Sequence[Any], what: str, kinds: set[type] | None = None) -> Read:
    """Return ``(N,)`` Python objects as an array, and which are missing.

    Args:
        items: Numbers, strings or bytes, and None, NaN or another library's word for what is missing.
        what: Name of the argument, for error messages.
        kinds: Their types, if these are known.

    Raises:
        TypeError: They are not all numbers, all strings or all bytes.
        ValueError: They are integers that no one type holds beside the others.
    """
    kinds = set(map(type, items)) if kinds is None else kinds
    only = next(iter(kinds)) if len(kinds) == 1 else None
    if not kinds or only in _PLAIN or (only is not None and issubclass(only, np.generic)):
        texts = [text for text in (str, bytes) if only is not None and issubclass(only, text)]
        return text_array(items, *texts) if texts else _exact(items, what), None
    gone = np.fromiter(map(is_missing, items), np.bool_, len(items))
    left = [item for item, missing in zip(items, gone.tolist(), strict=True) if not missing] if gone.any() else items
    return with_gaps(_of_one_kind(left, what), gone, what)


def _of_one_kind(items: Sequence[Any], what: str) -> Array:
    """Return ``(N,)`` objects, of which none is missing, as an array."""
    kinds = set(map(type, items))
    for text in (str, bytes):
        others = {kind for kind in kinds if not issubclass(kind, text)}
        if not others:
            return text_array(items if kinds == {text} else [value_of(item) for item in items], text)
        if others != kinds:
            # numpy would turn [1, "a"] into two strings without a word.
            names = ", ".join(sorted(kind.__name__ for kind in others))
            msg = f"{what} mixes {'strings' if text is str else 'bytes'} with {names}; pass one type"
            raise TypeError(msg)
    strange = sorted(kind.__name__ for kind in kinds if not _is_number(kind))
    if strange:
        way = "float" if what == "values" else "str"
        msg = (
            f"{what} holds Python objects ({', '.join(strange[:5])}); expected all numbers or all strings: "
            f"convert them, for example with {way}(...) for each item of a list, or .astype({way}) of a column"
        )
        raise TypeError(msg)
    return _exact([value_of(item) for item in items], what)


def _exact(items: Sequence[Any], what: str) -> Array:
    """Return ``(N,)`` numbers as an array, or raise ValueError where it would not hold each label."""
    try:
        array: Array = np.asarray(items)
        if what == "values" and array.dtype.kind == "O":
            array = array.astype(np.float64)
    except OverflowError as error:
        msg = f"{what} holds an integer beyond 64 bits ({error})"
        raise ValueError(msg) from error
    if what == "values" or array.dtype.kind not in "fO" or not (whole := [x for x in items if isinstance(x, int)]):
        return array
    if len(whole) == len(items) and min(whole) >= 0 and max(whole) < 2**64:
        return np.array(whole, dtype=np.uint64)
    if len(whole) == len(items) or array.dtype.kind == "O" or any(x != float(x) for x in whole):
        # numpy makes doubles of integers that fit neither int64 nor uint64 together, and mixes neighbours up.
        msg = f"{what} holds integers that no one 64-bit type holds beside the others; pass fewer bits, or strings"
        raise ValueError(msg)
    return array


def _is_number(kind: type) -> bool:
    return issubclass(kind, (int, float, np.integer, np.floating, np.bool_)) and not issubclass(kind, np.timedelta64)


def is_missing(item: Any) -> bool:
    """Return whether an object says that there is nothing: None, NaN, and pandas' and numpy's words for it."""
    if item is None or item is np.ma.masked:
        return True
    if isinstance(item, (float, np.floating, np.datetime64, np.timedelta64)):
        return bool(item != item)  # noqa: PLR0124 (NaN and NaT)
    return type(item).__name__ in ("NAType", "NaTType") and type(item).__module__.startswith("pandas.")


def with_gaps(rest: Array, gone: Mask, what: str) -> Read:
    """Return an array of which some entries are missing.

    Args:
        rest: ``(M,)`` entries that are not.
        gone: Mask with M entries that are False, of any shape.
        what: Name of the argument, for error messages.
    """
    if rest.dtype.kind in "OT" and not rest.size:
        rest = np.empty(0, "U1")  # of no type; text can be anything
    elif rest.dtype.kind in "OT":
        rest, more = read_items(rest.tolist(), what)
        if more is not None:
            rest, gone = rest[~more], gone.copy()
            gone[~gone] = more
    if not gone.any():
        return rest.reshape(gone.shape), None
    whole = np.zeros(gone.shape, rest.dtype)
    whole[~gone] = rest
    if rest.dtype.kind == "O":
        whole[gone] = rest[0]  # text, as the others
    return whole, gone


def read_column(data: Any) -> tuple[Array, Mask] | None:
    """Return the entries of a column of pandas, polars or pyarrow that are there, and which are not.

    With missing entries among them, they make doubles of integers, which mixes up neighbours beyond 2**53.

    Returns:
        ``(M,)`` entries and the ``(N,)`` mask for `with_gaps`, or None if it is no such column.
    """
    if getattr(data, "ndim", 1) != 1 or isinstance(getattr(data, "dtype", None), np.dtype):
        return None
    for is_gone, drop in _GAPS:
        if hasattr(data, is_gone) and hasattr(data, drop):
            if hasattr(getattr(data, "type", None), "index_type"):
                data = data.cast(data.type.value_type)  # nulls may be in the dictionary, too
            gone = np.asarray(getattr(data, is_gone)()).astype(np.bool_)
            there = getattr(data, drop)() if gone.any() else data
            # pyarrow's own word for it copies only if it is told to, and polars' array has text of fixed width.
            array = np.asarray(there if hasattr(there, "type") else there.to_numpy())
            if not array.size and array.dtype.kind == "O":  # earlier pandas forgets of what type nothing is
                array = array.astype(getattr(getattr(data, "dtype", None), "numpy_dtype", np.object_))
            return array, gone
    return None


def columns_of(data: Any) -> list[Any] | None:
    """Return the columns of a table of pandas, polars or pyarrow, None if it is none."""
    if hasattr(data, "iloc") and hasattr(data, "items") and data.ndim == 2:
        return [column for _, column in data.items()]
    for name in ("get_columns", "itercolumns"):
        if hasattr(data, name):
            return list(getattr(data, name)())
    return None


def read_columns(columns: list[Any], what: str, read: Callable[[Any, str], Read]) -> Read:
    """Return columns as the ``(N, C)`` array of their table; see `read_list`."""
    array, gone = _stacked([read(column, what) for column in columns], (len(columns),), what)
    return array.T, None if gone is None else gone.T
