"""Tensors in: whatever a training loop holds becomes a checked one-dimensional numpy array, in at most one copy.

No framework is imported here. An object is recognised by the module its type lives in, or by the protocol it
offers (``__array__``, DLPack).
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Callable

Array = npt.NDArray[Any]

QUICK: dict[type, Callable[[Any], Any] | None] = {np.ndarray: None}
"""Types whose memory can be read as it is (None), or after this call. Frameworks are added when first met."""

FLOAT32 = np.dtype(np.float32)
FLOAT64 = np.dtype(np.float64)

_WRONG_VALUES = (
    "The metric must be one number per sample. If it was averaged over the batch, ask for the unreduced one: "
    'reduction="none" in PyTorch and Keras losses, average_loss=False in FastEstimator.'
)


def to_numpy(data: Any, what: str) -> Array:
    """Return any array-like as a numpy array, without a copy where the memory can be shared.

    Args:
        data: numpy, list or tuple, Python or numpy scalar, torch tensor (any device, also with
            ``requires_grad``), TensorFlow eager tensor, JAX array, pandas or polars series, or anything
            with ``__array__`` or DLPack.
        what: Name of the argument, for error messages.

    Returns:
        An array of any shape. bfloat16 comes back as float32.

    Raises:
        TypeError: `data` is none of these, or holds objects that are not all strings or all numbers.
        ValueError: `data` is a ragged list or a masked array with masked entries.

    Example:
        >>> to_numpy([3, 1], "labels")
        array([3, 1])
    """
    kind = type(data)
    if kind is np.ndarray:
        array: Array = data
    elif (framework := kind.__module__.partition(".")[0]) == "torch":
        array = _from_torch(data, what)
        if kind is sys.modules["torch"].Tensor:
            QUICK[kind] = _memory_of_torch
    elif framework == "tensorflow" and kind.__name__ == "EagerTensor":
        array = data.numpy()
        QUICK[kind] = None
    elif framework == "jaxlib" and hasattr(data, "__array__"):
        array = np.asarray(data)
        QUICK[kind] = np.asarray  # its memory is as good, but names its format in a way that memoryviews do not compare
    elif isinstance(data, np.ma.MaskedArray):
        if np.ma.is_masked(data):
            msg = f"{what} is a masked array with masked entries; drop them first, for example with .compressed()"
            raise ValueError(msg)
        array = np.asarray(data)
    elif isinstance(data, (list, tuple, range)):
        array = _from_list(data, what)
    elif isinstance(data, (bool, int, float, str, bytes, np.generic)):
        array = np.asarray(data)
    else:
        array = _from_protocol(data, what)
    if array.dtype.kind == "O":
        array = _from_objects(array, what)
    elif array.dtype.kind == "V" and array.dtype.name == "bfloat16":
        array = array.astype(np.float32)
    elif array.dtype.kind == "T":  # numpy's variable-width StringDType
        width = int(np.strings.str_len(array).max()) if array.size else 1
        array = array.astype(f"U{max(width, 1)}")
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    return array


def _from_torch(tensor: Any, what: str) -> Array:
    if not hasattr(tensor, "detach"):
        msg = f"{what} must be a torch.Tensor, got {type(tensor).__module__}.{type(tensor).__qualname__}"
        raise TypeError(msg)
    if tensor.requires_grad:
        tensor = tensor.detach()
    if not tensor.is_cpu:
        tensor = tensor.cpu()
    if tensor.dtype is sys.modules["torch"].bfloat16:  # which numpy does not have
        tensor = tensor.float()
    array: Array = tensor.numpy()
    return array


def _memory_of_torch(tensor: Any) -> Array:
    """Return a tensor's memory, or raise TypeError if this is not the CPU's."""
    array: Array = (tensor.detach() if tensor.requires_grad else tensor).numpy()
    return array


def _from_list(data: Any, what: str) -> Array:
    kinds = set(map(type, data))
    for text in (str, bytes):
        others = {k for k in kinds if not issubclass(k, text)}
        if others and others != kinds:
            # numpy would turn [1, "a"] into two strings without a word.
            names = ", ".join(sorted(k.__name__ for k in others))
            msg = f"{what} mixes {'strings' if text is str else 'bytes'} with {names}; pass one type"
            raise TypeError(msg)
    try:
        array: Array = np.asarray(data)
    except OverflowError as error:
        msg = f"{what} holds an integer beyond 64 bits ({error})"
        raise ValueError(msg) from error
    except ValueError as error:
        msg = f"{what} is a list whose items differ in length; pass one flat list or an array ({error})"
        raise ValueError(msg) from error
    if array.dtype.kind in "fO" and kinds <= {int, bool} and array.size and kinds:
        # numpy makes doubles of integers that fit neither int64 nor uint64 together, and mixes neighbours up.
        msg = f"{what} holds integers that no one 64-bit type holds; pass fewer bits, or strings"
        raise ValueError(msg)
    return array


def _from_protocol(data: Any, what: str) -> Array:
    for name in ("to_numpy", "numpy"):  # pandas and polars; TensorFlow
        convert = getattr(data, name, None)
        if callable(convert):
            return np.asarray(convert())
    if hasattr(data, "__array__") or _has_buffer(data):
        return np.asarray(data)
    if hasattr(data, "__dlpack__"):
        return np.from_dlpack(data)
    msg = (
        f"{what} must be an array (numpy, torch, TensorFlow eager, JAX, pandas, polars, or anything with __array__ "
        f"or DLPack) or a list, got {type(data).__module__}.{type(data).__qualname__}"
    )
    raise TypeError(msg)


def _has_buffer(data: Any) -> bool:
    try:
        memoryview(data)
    except TypeError:
        return False
    return True


def _from_objects(array: Array, what: str) -> Array:
    """Turn an object array of strings or bytes into fixed width, one of numbers into numbers; refuse all else."""
    kinds = set(map(type, array.ravel().tolist()))
    if kinds <= {str, np.str_}:
        return array.astype(np.str_)
    if kinds <= {bytes, np.bytes_}:
        return array.astype(np.bytes_)
    if kinds <= {int, float, bool} or all(issubclass(k, (np.number, np.bool_)) for k in kinds):
        tight = np.array(array.tolist())
        if tight.dtype.kind in "biuf":
            return tight
    names = ", ".join(sorted(k.__name__ for k in kinds)[:5])
    msg = f"{what} holds Python objects ({names}); expected all numbers or all strings"
    raise TypeError(msg)


def to_values(data: Any) -> Array:
    """Return a metric as float32 or float64, of whatever shape it came in.

    float32 and float64 are kept; float16 and bfloat16 become float32; bool, integers and longer floats become
    float64.

    Args:
        data: Any array-like of real numbers.

    Returns:
        A float32 or float64 array.

    Raises:
        TypeError: `data` is not of real numbers.

    Example:
        >>> to_values([True, False]).dtype
        dtype('float64')
    """
    array = to_numpy(data, "values")
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
    """Check that labels and values belong together and flatten both.

    Args:
        labels: ``(N,)``, ``(N, 1)`` or the very shape of `values`.
        values: ``(N,)``, ``(N, 1)`` or the very shape of `labels`.

    Returns:
        Labels and values, each ``(N,)``.

    Raises:
        ValueError: The shapes do not belong together; the message says which common mistake it looks like.

    Example:
        >>> flat_pair(np.zeros((2, 1)), np.zeros(2))[0].shape
        (2,)
    """
    if labels.shape == values.shape:
        return labels.reshape(-1), values.reshape(-1)
    n, m = labels.size, values.size
    label_column = labels.ndim <= 1 or n == labels.shape[0]
    value_column = values.ndim <= 1 or m == values.shape[0]
    if label_column and value_column and n == m:
        return labels.reshape(-1), values.reshape(-1)
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
        msg = f"labels and values differ in length: {n} labels, {m} values. {_WRONG_VALUES}"
    else:
        msg = (
            f"labels of shape {labels.shape} do not fit values of shape {values.shape}; expected (N,) or (N, 1) for "
            "both, or one and the same shape for both (per-pixel maps)"
        )
    raise ValueError(msg)


def cast(samples: npt.NDArray[Any], dtype: npt.DTypeLike, *, copy: bool = True) -> npt.NDArray[Any]:
    """Return samples as other floats, without the warning that numpy has where one is a signalling NaN."""
    if samples.dtype == dtype and not copy:
        return samples  # what is appended batch by batch takes no memory for the context below
    with np.errstate(invalid="ignore"):
        return samples.astype(dtype, copy=copy)
