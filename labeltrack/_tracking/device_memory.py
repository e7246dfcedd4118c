"""Memory on a device for the columns of batches, and on the host, where it arrives; and where columns go in it."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from labeltrack._convert.arrays import read_array

if TYPE_CHECKING:
    from collections.abc import Sequence

ALIGNED = 64  # bytes, a multiple of every dtype's size
_STREAMS = "Event", "Stream", "current_stream", "stream"


class Place(NamedTuple):
    """What a tensor takes: `room` bytes on a device, of which those of its entries are used."""

    device: Any
    dtype: Any
    array: Any  # numpy's dtype; None if it has none
    shape: tuple[int, ...]
    entries: int
    room: int


class Plan(NamedTuple):
    """Where batches of one form go."""

    places: tuple[Place | None, ...]  # of the columns; None for those of the host
    sizes: dict[Any, int]  # bytes on each device
    stacked: bool  # whether several batches, one after the other, are a batch of more samples


class Memory:
    """Memory on a device, and as much on the host: `size` bytes of either."""

    def __init__(self, device: Any, size: int, side: Any) -> None:
        self.device = device
        self.size = size
        self._module = getattr(torch, device.type)
        self._side = side  # the stream that copies to the host
        with torch.inference_mode(False):  # else it could not be written to outside of it
            self._data = torch.empty(size, dtype=torch.uint8, device=device)
            self._host = _pinned(size)
        self._read = self._host.numpy()
        self._typed: dict[Any, Any] = {}
        self._event = self._module.Event()
        self._stream = self._module.current_stream(device)  # the last one that wrote

    def follow(self) -> None:
        """Let the present stream write after the one before."""
        now = self._module.current_stream(self.device)
        if now != self._stream:
            now.wait_stream(self._stream)
            self._data.record_stream(now)
            self._stream = now

    def put(self, tensor: Any, place: Place, start: int) -> None:
        """Enqueue a copy of a tensor to a place that starts there."""
        typed = self._typed.get(place.dtype)
        if typed is None:
            with torch.inference_mode(False):
                typed = self._typed[place.dtype] = self._data.view(place.dtype)
        first = start // place.dtype.itemsize
        typed[first : first + place.entries].view(place.shape).copy_(tensor.detach())

    def send(self, used: int) -> None:
        """Enqueue the copy to the host."""
        self._side.wait_stream(self._stream)
        with self._module.stream(self._side):
            self._host[:used].copy_(self._data[:used], non_blocking=True)
            self._event.record(self._side)

    def arrived(self, *, wait: bool) -> bool:
        """Return whether the copy has arrived; with `wait`, once it has."""
        if not self._event.query():
            if not wait:
                return False
            self._event.synchronize()
        return True

    def read(self, place: Place, starts: list[int]) -> Any:
        """Return what has arrived in places that start there, one after the other: an array or a tensor."""
        if place.array is None:
            size = place.entries * place.dtype.itemsize
            some = [self._host[start : start + size].view(place.dtype).view(place.shape) for start in starts]
            return some[0] if len(some) == 1 else torch.cat(some)
        arrays = [np.ndarray(place.shape, place.array, self._read, start) for start in starts]
        return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def refuse_capture(device: Any) -> None:
    """Raise RuntimeError if a graph is being captured on a device, where nothing may be allocated or looked up."""
    if getattr(getattr(torch, device.type), "is_current_stream_capturing", bool)():
        msg = (
            "update() was called while a graph is captured, and replays of the graph would not call it; call it after "
            "each replay, with the tensors that the graph writes to (this batch was not recorded)"
        )
        raise RuntimeError(msg)


def _pinned(size: int) -> Any:
    """Return memory on the host that devices copy to in the background, if there are some."""
    try:
        return torch.empty(size, dtype=torch.uint8, device="cpu", pin_memory=True)
    except RuntimeError:
        return torch.empty(size, dtype=torch.uint8, device="cpu")


def plan_of(columns: Sequence[Any]) -> Plan | None:
    """Return where the columns of a batch go; None if they cannot."""
    places = tuple(map(_place, columns))
    sizes: dict[Any, int] = {}
    shapes = []
    for column, place in zip(columns, places, strict=True):
        if place is not None:
            module = getattr(torch, place.device.type, None)
            if column.layout is not torch.strided or not all(hasattr(module, name) for name in _STREAMS):
                return None
            sizes[place.device] = sizes.get(place.device, 0) + place.room
            shapes.append(place.shape)
    alone = [column for column, place in zip(columns, places, strict=True) if place is None and column is not None]
    alike = len({len(shape) for shape in shapes}) == len({shape[:1] for shape in shapes}) == 1
    return Plan(places, sizes, stacked=alike and shapes[0] != () and not alone)


def _place(column: Any) -> Place | None:
    """Return what a tensor takes; None for a column of the host."""
    if not isinstance(column, torch.Tensor) or column.is_cpu:
        return None
    dtype, entries = column.dtype, column.numel()
    try:
        array = torch.empty(0, dtype=dtype, device="cpu").numpy().dtype
    except TypeError:
        array = None
    # A tensor without entries takes some, so that there is an end to their number.
    room = max(1, -(-entries * dtype.itemsize // ALIGNED)) * ALIGNED
    return Place(column.device, dtype, array, tuple(column.shape), entries, room)


def zeros_for(column: Any, place: Place | None) -> Any:
    """Return a column of the host, or zeros of the shape and dtype of one on a device."""
    if place is None:
        return column
    dtype = read_array(torch.empty(0, dtype=place.dtype, device="cpu"), "tensors on a device")[0].dtype
    return np.broadcast_to(np.zeros((), dtype), place.shape)


def form_of(column: Any) -> Any:
    """Return what is known of a column without reading it."""
    if isinstance(column, torch.Tensor):
        return column.shape, column.dtype, column.device, column.layout, column.is_cpu
    shape = getattr(column, "shape", None)
    if shape is None:
        return type(column), len(column) if hasattr(column, "__len__") else None
    return type(column), tuple(shape), str(getattr(column, "dtype", ""))


def own_copy(column: Any) -> Any:
    """Return a column of the host that its caller may change from now on."""
    if column is None:
        return None
    if isinstance(column, torch.Tensor):
        return column.detach().clone()
    if type(column) is list and column and isinstance(column[0], (str, bytes, int, float)):
        return list(column)
    if isinstance(column, (list, tuple)):
        return [own_copy(item) for item in column]  # of tensors that require gradients, there is no deep copy
    return copy.deepcopy(column)
