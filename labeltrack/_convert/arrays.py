"""Any array-like becomes a checked numpy array; no framework is imported, as types tell their modules."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from labeltrack._convert.objects import Read, columns_of, read_column, read_columns, read_items, read_list, with_gaps
from labeltrack._core.arrays import Array
from labeltrack.errors import counted

QUICK: dict[type, Callable[[Any], Any] | None] = {np.ndarray: None}
"""Types whose memory can be read directly (None), or after this call; frameworks are added on first use."""

TENSORS: dict[type, Any] = {}
"""torch's, once there is one, with its bfloat16, which numpy does not have."""

FLOAT32 = np.dtype(np.float32)
FLOAT64 = np.dtype(np.float64)

_WRONG_VALUES = (
    "The metric must be one number per sample. If it was averaged over the batch, ask for the unreduced one: "
    'reduction="none" in PyTorch and Keras losses, average_loss=False in FastEstimator.'
)


def to_numpy(data: Any, what: str) -> Array:
    """Return any array-like as a numpy array of any shape as `read_array` does; ValueError if entries are missing."""
    array, gone = read_array(data, what)
    if gone is not None:
        raise missing_entries(int(gone.sum()), gone.size, what)
    return array


def missing_entries(missing: int, samples: int, what: str = "labels") -> ValueError:
    way = "leave those samples out"
    if what == "labels":
        way += " with missing='skip', or give them a label of their own with missing='label'"
    return ValueError(f"{missing} of {samples} {what} are missing (None, NaN, NA or null); {way}")


def read_array(data: Any, what: str) -> Read:
    """Return any array-like as a numpy array of any shape, without a copy if possible, and a mask of missing entries.

    The mask is None without any; NaN in arrays of floats is left to the caller. Text is as by `text_array`, bfloat16
    becomes float32. TypeError for anything else, ValueError for ragged lists and integers that no dtype represents.
    """
    kind = type(data)
    gone = None
    if kind is np.ndarray:
        array: Array = data
    elif (framework := kind.__module__.partition(".")[0]) == "torch" or _is_tensor(data):
        array = _from_torch(data, what)
        if kind is sys.modules["torch"].Tensor:
            QUICK[kind] = _memory_of_torch
            TENSORS[kind] = sys.modules["torch"].bfloat16
    elif framework == "tensorflow" and kind.__name__ == "EagerTensor":
        array = data.numpy()
        QUICK[kind] = None
    elif framework == "jaxlib" and hasattr(data, "__array__"):
        array = np.asarray(data)
        QUICK[kind] = np.asarray  # its own buffer has a format that memoryviews cannot compare
    elif isinstance(data, np.ma.MaskedArray):
        mask = np.ma.getmaskarray(data)
        array, gone = with_gaps(np.asarray(data)[~mask], mask, what)
    elif isinstance(data, (list, tuple, range)):
        array, gone = read_list(data, what, read_array)
    elif isinstance(data, (bool, int, float, str, bytes, np.generic)):
        array, gone = read_items([data], what)
        array = array.reshape(())
    else:
        array, gone = _from_protocol(data, what)
    if array.dtype.kind in "OT" and gone is None and not isinstance(data, (list, tuple, str, bytes)):
        # Objects not inspected yet, or numpy's variable-width StringDType.
        shape = array.shape
        array, gone = read_items(array.ravel().tolist(), what)
        array, gone = array.reshape(shape), None if gone is None else gone.reshape(shape)
    elif array.dtype.kind == "V" and array.dtype.name == "bfloat16":
        array = _widened(array.astype(np.float32), what)
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    return array, gone


def _is_tensor(data: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(data, getattr(torch, "Tensor", ()))


def _from_torch(tensor: Any, what: str) -> Array:  # pragma: no cover (tested where torch is)
    if not hasattr(tensor, "detach"):
        msg = f"{what} must be a torch.Tensor, got {type(tensor).__module__}.{type(tensor).__qualname__}"
        raise TypeError(msg)
    with _converting(tensor, what):
        if tensor.requires_grad:
            tensor = tensor.detach()
        if not tensor.is_cpu:
            tensor = tensor.cpu()
        if tensor.dtype is sys.modules["torch"].bfloat16:  # which numpy does not have
            return _widened(tensor.float().numpy(), what)
        array: Array = tensor.numpy()
    return array


def _widened(array: Array, what: str) -> Array:
    """Check what was bfloat16: labels must be multiples of an eighth, as it has only two or three digits."""
    some = 8 * array[np.isfinite(array)]
    if what == "labels" and bool((some != np.rint(some)).any()):
        msg = (
            "labels are bfloat16, which cannot represent most fractions (0.1 becomes 0.100097656); convert them to "
            "integers, strings or float32 instead"
        )
        raise TypeError(msg)
    return array


def _memory_of_torch(tensor: Any) -> Array:  # pragma: no cover (tested where torch is)
    """Return a tensor's memory, of bfloat16 a copy as float32; raise TypeError if it is not on the CPU."""
    tensor = tensor.detach() if tensor.requires_grad else tensor
    try:
        array: Array = tensor.numpy()
    except TypeError:
        if not tensor.is_cpu or tensor.dtype is not TENSORS[type(tensor)]:
            raise
        array = tensor.float().numpy()
    return array


@contextmanager
def _converting(data: Any, what: str) -> Iterator[None]:
    """Turn any error that another library raises on conversion into a TypeError that names the type."""
    try:
        yield
    except Exception as error:
        kind = f"{type(data).__module__}.{type(data).__qualname__}"
        msg = f"{what}: {kind} does not become a numpy array ({error}); convert it first"
        raise TypeError(msg) from error


def _from_protocol(data: Any, what: str) -> Read:
    with _converting(data, what):
        columns, column = columns_of(data), read_column(data)
        array = _by_protocol(data) if not columns and column is None else None
    if columns:
        return read_columns(columns, what, read_array)
    if column is not None:
        return with_gaps(*column, what) if column[1].any() else (column[0], None)
    if array is not None:
        return array, None
    msg = (
        f"{what} must be an array (numpy, torch, TensorFlow eager, JAX, pandas, polars, pyarrow, or anything with "
        f"__array__ or DLPack) or a list, got {type(data).__module__}.{type(data).__qualname__}"
    )
    raise TypeError(msg)


def _by_protocol(data: Any) -> Array | None:
    for name in ("to_numpy", "numpy"):  # plain columns of pandas; TensorFlow
        convert = getattr(data, name, None)
        if callable(convert):
            return np.asarray(convert())
    if hasattr(data, "__array__") or _has_buffer(data):
        return np.asarray(data)
    return np.from_dlpack(data) if hasattr(data, "__dlpack__") else None


def _has_buffer(data: Any) -> bool:
    try:
        memoryview(data)
    except TypeError:
        return False
    return True


def to_values(data: Any) -> Array:
    """Return real numbers, of any shape, as float32 or, if integers, bools or longer, float64; missing ones as NaN."""
    array, gone = read_array(data, "values")
    if gone is not None:
        if isinstance(data, np.ma.MaskedArray):
            msg = "values is a masked array with masked entries; drop them first, for example with .compressed()"
            raise ValueError(msg)
        if gone.all():
            return np.full(gone.shape, np.nan)
        if array.dtype.kind in "biuf":
            array = np.where(gone, np.nan, array)
    dtype = array.dtype
    if dtype in (FLOAT32, FLOAT64):
        return array
    if dtype.kind == "f":
        return array.astype(FLOAT32 if dtype.itemsize == 2 else FLOAT64)
    if dtype.kind in "biu":
        return array.astype(FLOAT64)
    msg = f"values must be real numbers, got dtype {dtype}"
    raise TypeError(msg)


def flat_pair(labels: Array, values: Array) -> tuple[Array, Array]:
    """Return labels and values, each ``(N,)``; the shape of labels is one that `aligned_shape` takes."""
    shape = aligned_shape(labels, values)
    if shape != values.shape:
        labels = np.broadcast_to(labels.reshape(shape), values.shape)
    return labels.reshape(-1), values.reshape(-1)


def aligned_shape(labels: Array, values: Array) -> tuple[int, ...]:
    """Return the shape in which labels broadcast to that of values; if none, ValueError names the likely mistake.

    Labels are ``(N,)`` or ``(N, 1)`` for as many values in either of these shapes; or have as many dimensions as
    `values`, each of the same length or 1, such as ``(N, 1)`` for values of shape ``(N, T)``. Fewer dimensions would
    not say which.
    """
    if labels.shape == values.shape:
        return labels.shape
    n, m = labels.size, values.size
    label_column = labels.ndim <= 1 or n == labels.shape[0]
    value_column = values.ndim <= 1 or m == values.shape[0]
    if label_column and value_column and n == m:
        return values.shape
    if labels.ndim == values.ndim > 1 and all(a in (1, b) for a, b in zip(labels.shape, values.shape, strict=True)):
        return labels.shape
    if m == 1 and n > 1:
        msg = (
            f"got a single metric value for {n} labels (labels {labels.shape}, values {values.shape}). {_WRONG_VALUES}"
        )
    elif labels.ndim == 2 and labels.shape[0] == m and value_column:
        msg = (
            f"labels of shape {labels.shape} with values of shape {values.shape} look one-hot encoded; "
            "pass class indices, for example labels.argmax(axis=1)"
        )
    elif value_column and label_column:
        msg = f"labels and values differ in length: {counted(n, 'label')}, {counted(m, 'value')}. {_WRONG_VALUES}"
    else:
        msg = (
            f"labels of shape {labels.shape} do not match values of shape {values.shape}; expected (N,) or (N, 1) for "
            "both, the same shape for both (per-pixel maps), or labels of as many dimensions, some of length 1, "
            "such as (N, 1) for (N, T) values"
        )
    raise ValueError(msg)


def looks_multi_hot(labels: Array, values: Array) -> bool:
    """Return whether labels are a table of zeros and ones, with a value for each."""
    if labels.ndim != 2 or labels.shape != values.shape or min(labels.shape) < 2 or labels.dtype.kind not in "biuf":
        return False
    some = labels[:: -(-labels.shape[0] // 8)]  # where most other tables have another label already
    both = all(np.all((part == 0) | (part == 1)) for part in (some, labels))
    return bool(both and labels.any() and not labels.all())
