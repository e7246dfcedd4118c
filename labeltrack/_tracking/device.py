"""Batches with tensors on a device: copied there, and recorded once their memory has arrived, so that nothing waits.

The host knows where each tensor goes, so `update` only enqueues copies into memory on the device. Once that is full,
or somebody reads, it is copied to the host as a whole, on a stream of its own, and the batches are recorded in the
order in which they came, as if they had come from the host (see `waiting`). How much memory is used follows from the
last batch of a load, so an interrupt leaves nothing half done.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from labeltrack._convert.arrays import aligned_shape, read_array
from labeltrack._labels.masks import read_mask
from labeltrack._labels.missing import read_labels
from labeltrack._tracking.ids import read_ids
from labeltrack._tracking.waiting import CHUNK, Batch, Intake, Load, Made, Waiting
from labeltrack.errors import counted

if TYPE_CHECKING:
    from labeltrack._tracking.streams import Key

_ALIGNED = 64  # bytes, a multiple of every dtype's size
_FORMS = 1 << 10  # of batches, that are remembered
_STREAMS = "Event", "Stream", "current_stream", "stream"


@dataclass(slots=True, eq=False)
class Staged(Load):
    """Batches that arrive together, and their memory by device; columns are where each starts, or what the host has."""

    names: Sequence[str] | None = None  # of several labels
    memories: dict[Any, Memory] = field(default_factory=dict)
    sent: bool = False  # then it takes no more batches
    what: str = "update() number {} with tensors on a device"
    process: int = field(default_factory=os.getpid)

    def gone(self, waiting: int) -> bool:
        """Return whether this is of another process; RuntimeError if batches wait there, `waiting` of them all."""
        if self.process == os.getpid():
            return False
        if self.batches:
            msg = (
                f"{counted(waiting, 'update')} with tensors on a device came before this process was forked, "
                "and only its parent can read them; read the tracker before forking, or reset() it here"
            )
            raise RuntimeError(msg)
        return True

    def used(self) -> dict[Any, int]:
        """Return how many bytes are used on each device."""
        return self.batches[-1].used if self.batches else {}

    def send(self) -> None:
        """Enqueue the copies to the host; may be repeated after an interrupt."""
        if not self.sent:
            used = self.used()
            for device, memory in self.memories.items():
                memory.send(used.get(device, 0))
            self.sent = True

    def arrived(self, *, wait: bool) -> bool:
        """Return whether all of it has arrived; with `wait`, once it has."""
        return not [memory for memory in self.memories.values() if not memory.arrived(wait=wait)]

    def alike(self) -> int:
        """Return how many batches from the first one are one of more samples: 256 take 2.4 us in many, 23 alone."""
        return Load.alike(self) if self.batches[0].plan.stacked else 1

    def samples(self, number: int) -> Made:
        """Return the samples of so many batches that are alike."""
        some = self.batches[:number]
        columns = [
            some[0].columns[i]
            if place is None
            else self.memories[place.device].read(place, [batch.columns[i] for batch in some])
            for i, place in enumerate(some[0].plan.places)
        ]
        return _parts_of(columns, self.names)


def _parts_of(columns: list[Any], names: Sequence[str] | None) -> Made:
    """Return labels, values of each metric, `where` and ids."""
    *columns, where, ids = columns
    if names is None:
        return columns[0], columns[1:], where, ids
    n = len(names)
    return dict(zip(names, columns[:n], strict=True)), columns[n:], where, ids


class Staging:
    """Takes batches in: at most `limit` bytes on each device, and on the host for each, or two batches."""

    def __init__(self, waiting: Waiting, names: Sequence[str] | None, limit: int) -> None:
        self._waiting = waiting
        self._names = names  # of several labels; None for one
        self._limit = limit
        self._sides: dict[Any, Any] = {}
        self._plans: dict[Any, Plan] = {}

    def take(self, columns: Sequence[Any], key: Key, intake: Intake) -> bool:
        """Enqueue copies of a batch; return whether it was taken, which devices without streams do not allow."""
        form = tuple([_form_of(column) for column in columns])
        plan = self._plans.get(form)
        if plan is None:
            plan = _plan_of(columns)
            if plan is None:
                return False
            self._check([_zeros_for(c, place) for c, place in zip(columns, plan.places, strict=True)], intake)
            if len(self._plans) >= _FORMS:
                self._plans.clear()
            self._plans[form] = plan
        for device in plan.sizes:
            _refuse_capture(device)
        if self._waiting.inbox.batches:
            self._waiting.deliver(intake)
        load = self._load(plan.sizes, intake)
        used = dict(load.used())
        for device in plan.sizes:
            load.memories[device].follow()
        kept = []
        for column, place in zip(columns, plan.places, strict=True):
            if place is None:
                kept.append(_own_copy(column))
            else:
                start = used.get(place.device, 0)
                load.memories[place.device].put(column, place, start)
                kept.append(start)
                used[place.device] = start + place.room
        self._waiting.numbers.setdefault(key, 0)
        self._waiting.seal(key)
        load.batches.append(Batch(key, plan, kept, used))
        return True

    def _check(self, columns: list[Any], intake: Intake) -> None:
        """Raise what shapes and dtypes alone tell of a batch; zeros stand for tensors on a device."""
        labels, values, where, ids = _parts_of(columns, self._names)
        first = intake.read_values(values)[0]
        read_mask(where, first)
        if ids is not None:
            read_ids(ids, first)
        for name, column in {"": labels}.items() if self._names is None else labels.items():
            try:
                aligned_shape(read_labels(column)[0], first)
            except (TypeError, ValueError) as error:
                msg = f"label {name!r}: {error}" if name else str(error)
                raise (TypeError if isinstance(error, TypeError) else ValueError)(msg) from error

    def _load(self, sizes: dict[Any, int], intake: Intake) -> Staged:
        """Return the load that takes a batch of so many bytes."""
        load = self._waiting.loads[-1] if self._waiting.loads else None
        if load is not None and load.process != os.getpid():
            self._waiting.deliver(intake)
            load = None
        if load is not None:
            used, memories = load.used(), load.memories
            fits = [d for d, size in sizes.items() if d not in memories or used.get(d, 0) + size <= memories[d].size]
            if load.sent or len(fits) < len(sizes):
                load.send()
                self._waiting.deliver(intake, wait=0)
                load = None
        fresh = Staged(names=self._names) if load is None else load
        for device, size in sizes.items():
            if device not in fresh.memories:
                fresh.memories[device] = self._memory(device, size, intake)
        if load is None:
            self._waiting.loads.append(fresh)
        return fresh

    def _memory(self, device: Any, size: int, intake: Intake) -> Memory:
        """Return memory that is free; wait for the oldest load if there is as much as allowed, and two are in use."""
        while True:
            free: list[Memory] = [memory for memory in self._waiting.free if memory.device == device]
            for memory in free:
                if memory.size >= size:
                    self._waiting.free.remove(memory)
                    return memory
            sizes = [memory.size for memory in free]
            sizes += [load.memories[device].size for load in self._waiting.loads if device in load.memories]
            fresh = max(size, min(CHUNK, self._limit // 2) // _ALIGNED * _ALIGNED)
            if len(sizes) < 2 or sum(sizes) + fresh <= self._limit:
                side = self._sides.get(device)
                if side is None:
                    side = self._sides[device] = getattr(torch, device.type).Stream(device)
                return Memory(device, fresh, side)
            if free:
                self._waiting.free.remove(free[0])
            else:
                self._waiting.deliver(intake, wait=1)


# -- memory -----------------------------------------------------------------------------------------------


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


def _refuse_capture(device: Any) -> None:
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


def _plan_of(columns: Sequence[Any]) -> Plan | None:
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
    room = max(1, -(-entries * dtype.itemsize // _ALIGNED)) * _ALIGNED
    return Place(column.device, dtype, array, tuple(column.shape), entries, room)


def _zeros_for(column: Any, place: Place | None) -> Any:
    """Return a column of the host, or zeros of the shape and dtype of one on a device."""
    if place is None:
        return column
    dtype = read_array(torch.empty(0, dtype=place.dtype, device="cpu"), "tensors on a device")[0].dtype
    return np.broadcast_to(np.zeros((), dtype), place.shape)


def _form_of(column: Any) -> Any:
    """Return what is known of a column without reading it."""
    if isinstance(column, torch.Tensor):
        return column.shape, column.dtype, column.device, column.layout, column.is_cpu
    shape = getattr(column, "shape", None)
    if shape is None:
        return type(column), len(column) if hasattr(column, "__len__") else None
    return type(column), tuple(shape), str(getattr(column, "dtype", ""))


def _own_copy(column: Any) -> Any:
    """Return a column of the host that its caller may change from now on."""
    if column is None:
        return None
    if isinstance(column, torch.Tensor):
        return column.detach().clone()
    if type(column) is list and column and isinstance(column[0], (str, bytes, int, float)):
        return list(column)
    if isinstance(column, (list, tuple)):
        return [_own_copy(item) for item in column]  # of tensors that require gradients, there is no deep copy
    return copy.deepcopy(column)
