"""Lists, objects, text and columns of other libraries as arrays that hold each item exactly, with a mask of gaps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import numpy as np

from labeltrack._core.arrays import Array, Mask

Read = tuple[Array, Mask | None]  # an array, and a mask of its missing entries; None without any

_PLAIN = {int, float, bool, complex, str, bytes, np.str_, np.bytes_}
_GAPS = (("isna", "dropna"), ("is_null", "drop_nulls"), ("is_null", "drop_null"))  # pandas, polars, pyarrow


def value_of(item: Any) -> Any:
    """Return a number or text as a plain Python value, ignoring what its class overrides, such as enums of strings."""
    if isinstance(item, (np.datetime64, np.timedelta64)):
        return item  # `item()` turns some into numbers
    if isinstance(item, str):
        return str.__getitem__(item, slice(None))  # `item()` of numpy's str strips NULs at the end
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
    """Return numbers, text, arrays (which `read` reads), or nested lists of these, as an array; see `read_array`."""
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
    """Return whether objects of a type are containers, arrays without dimensions included."""
    if issubclass(kind, (list, tuple, range)):
        return True
    array = hasattr(kind, "__array__") or hasattr(kind, "__dlpack__")
    return array and not issubclass(kind, np.generic) and kind is not np.ma.core.MaskedConstant


def _ragged(what: str) -> ValueError:
    return ValueError(f"{what} is a list whose items differ in length; pass one flat list or an array")


def _stacked(parts: list[Read], shape: tuple[int, ...], what: str) -> Read:
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
    """Return ``(N,)`` Python objects as an array, and which are missing; errors as of `read_list`."""
    kinds = set(map(type, items)) if kinds is None else kinds
    only = next(iter(kinds)) if len(kinds) == 1 else None
    if not kinds or only in _PLAIN or (only is not None and issubclass(only, np.generic)):
        texts = [text for text in (str, bytes) if only is not None and issubclass(only, text)]
        return text_array(items, *texts) if texts else _exact(items, what), None
    gone = np.fromiter(map(is_missing, items), np.bool_, len(items))
    left = [item for item, missing in zip(items, gone.tolist(), strict=True) if not missing] if gone.any() else items
    return with_gaps(_of_one_kind(left, what), gone, what)


def _of_one_kind(items: Sequence[Any], what: str) -> Array:
    kinds = set(map(type, items))
    for text in (str, bytes):
        others = {kind for kind in kinds if not issubclass(kind, text)}
        if not others:
            return text_array(items if kinds == {text} else [value_of(item) for item in items], text)
        if others != kinds:
            # numpy would silently turn [1, "a"] into two strings.
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
    """Return ``(N,)`` numbers as an array, or raise ValueError if it would not represent each label exactly."""
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
        # numpy converts integers that fit neither int64 nor uint64 to doubles, which merges neighbours.
        msg = f"{what} holds integers that no 64-bit dtype represents with the others; pass smaller ones, or strings"
        raise ValueError(msg)
    return array


def _is_number(kind: type) -> bool:
    return issubclass(kind, (int, float, np.integer, np.floating, np.bool_)) and not issubclass(kind, np.timedelta64)


def is_missing(item: Any) -> bool:
    """Return whether an object stands for a missing value: None, NaN, NaT, NA or masked."""
    if item is None or item is np.ma.masked:
        return True
    if isinstance(item, (float, np.floating, np.datetime64, np.timedelta64)):
        return bool(item != item)  # noqa: PLR0124 (NaN and NaT)
    return type(item).__name__ in ("NAType", "NaTType") and type(item).__module__.startswith("pandas.")


def with_gaps(rest: Array, gone: Mask, what: str) -> Read:
    """Return ``(M,)`` entries where `gone`, of any shape, is False in an array, and the mask of all missing ones."""
    if rest.dtype.kind in "OT" and not rest.size:
        rest = np.empty(0, "U1")  # of unknown type, as text can be anything
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
    """Return the ``(M,)`` entries of a column of pandas, polars or pyarrow and the ``(N,)`` mask of gaps, or None."""
    if getattr(data, "ndim", 1) != 1 or isinstance(getattr(data, "dtype", None), np.dtype):
        return None
    for is_gone, drop in _GAPS:
        if hasattr(data, is_gone) and hasattr(data, drop):
            if hasattr(getattr(data, "type", None), "index_type"):
                data = data.cast(data.type.value_type)  # nulls may be in the dictionary, too
            gone = np.asarray(getattr(data, is_gone)()).astype(np.bool_)
            # First, as these libraries convert integers with gaps to doubles, which merges those beyond 2**53.
            there = getattr(data, drop)() if gone.any() else data
            # to_numpy() of pyarrow refuses to copy by default; np.asarray() of polars makes text of fixed width.
            array = np.asarray(there if hasattr(there, "type") else there.to_numpy())
            if not array.size and array.dtype.kind == "O":  # earlier pandas loses the dtype of an empty column
                array = array.astype(getattr(getattr(data, "dtype", None), "numpy_dtype", np.object_))
            return array, gone
    return None


def columns_of(data: Any) -> list[Any] | None:
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


# -- text -------------------------------------------------------------------------------------------------

WIDEST = 128  # most characters of text in arrays of fixed width, where each entry takes as much memory as the longest


def text_array(words: Sequence[Any], kind: type[str | bytes] = str) -> Array:
    """Return ``(N,)`` strings or bytes, of fixed width; objects if one is long or ends in NUL, which numpy strips."""
    kind = (bytes if isinstance(words[0], bytes) else str) if len(words) else kind
    longest = max(map(len, words), default=0)
    nul: Any = b"\0" if kind is bytes else "\0"
    # One search in the joined text, as testing each word takes twice as long.
    if longest <= WIDEST and not (nul in kind().join(words) and any(word[-1:] == nul for word in words)):
        return np.array(words, dtype=f"{'S' if kind is bytes else 'U'}{max(longest, 1)}")
    array = np.empty(len(words), dtype=object)
    array[:] = [kind.__getitem__(word, slice(None)) for word in words]  # as plain str or bytes, not a subclass
    return array


def tight(texts: Array) -> Array:
    """Return ``(N,)`` texts, of any width or objects, as `text_array` stores them; other arrays unchanged."""
    if texts.dtype.kind == "O":
        return text_array(texts.tolist())
    if not is_wide(texts):
        return texts
    longest = int(np.char.str_len(texts).max(initial=1))
    return texts.astype(f"{texts.dtype.kind}{longest}" if longest <= WIDEST else object)


def is_wide(texts: Array) -> bool:
    return texts.dtype.kind == "O" or (
        texts.dtype.kind in "US" and texts.dtype.itemsize > WIDEST * (4 if texts.dtype.kind == "U" else 1)
    )


def written(labels: Array) -> Array:
    """Return ``(K,)`` labels of any kind as text."""
    if labels.dtype.kind in "OS":
        words = labels.tolist()
        return text_array([w.decode("utf-8", "backslashreplace") if isinstance(w, bytes) else w for w in words])
    return labels.astype(np.str_)
