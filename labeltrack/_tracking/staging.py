"""Batches with tensors on a device: copied there, and recorded once their memory has arrived, so that nothing waits.

The host knows where each tensor goes, so `update` only enqueues copies into memory on the device. Once that is full,
or somebody reads, it is copied to the host as a whole, on a stream of its own, and the batches are recorded in the
order in which they came, as if they had come from the host. How much memory is used follows from the last
batch of a load, so an interrupt leaves nothing half done.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from labeltrack._convert.arrays import aligned_shape
from labeltrack._labels.missing import read_labels
from labeltrack._labels.samples import read_mask
from labeltrack._tracking.device_memory import (
    ALIGNED,
    Memory,
    Plan,
    form_of,
    own_copy,
    plan_of,
    refuse_capture,
    zeros_for,
)
from labeltrack._tracking.ids import read_ids
from labeltrack._tracking.waiting import CHUNK, Batch, Load, Made, Waiting
from labeltrack.errors import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from labeltrack._tracking.lock import ChangeLock
    from labeltrack._tracking.streams import Key, Stream
    from labeltrack._tracking.waiting import Intake


_FORMS = 1 << 10  # of batches, that are remembered


@dataclass(slots=True, eq=False)
class Staged(Load):
    """Batches that arrive together, with their memory by device.

    The columns of a batch are where each starts, or what the host has; used are bytes on each device.
    """

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
        """Return how many batches from the first one on are a batch of more samples.

        Recording batches of 256 samples one by one took 23 us each, and 2.4 together.
        """
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
        return parts_of(columns, self.names)


def parts_of(columns: list[Any], names: Sequence[str] | None) -> Made:
    """Return labels, values of each metric, `where` and ids."""
    *columns, where, ids = columns
    if names is None:
        return columns[0], columns[1:], where, ids
    n = len(names)
    return dict(zip(names, columns[:n], strict=True)), columns[n:], where, ids


class Staging(Waiting):
    """Batches that wait, also on devices: at most `limit` bytes on each, and on the host for each, or two batches."""

    def __init__(
        self,
        streams: dict[Key, Stream],
        lock: ChangeLock,
        names: Sequence[str] | None,
        limit: int,
        before: Waiting | None,
    ) -> None:
        super().__init__(streams, lock)
        vars(self).update({} if before is None else vars(before))
        self.loads: list[Staged] = []  # on devices, as they came; the last one may take more batches
        self._names = names
        self._limit = limit
        self._free: list[Memory] = []
        self._sides: dict[Any, Any] = {}
        self._plans: dict[Any, Plan] = {}

    # -- taking batches in ------------------------------------------------------------------------------

    def take(self, columns: Sequence[Any], key: Key, intake: Intake) -> bool:
        """Enqueue copies of a batch; return whether it was taken, which devices without streams do not allow.

        RuntimeError if a graph is being captured, TypeError or ValueError for dtypes and shapes: it was not taken then.
        """
        form = tuple([form_of(column) for column in columns])
        plan = self._plans.get(form)
        if plan is None:
            plan = plan_of(columns)
            if plan is None:
                return False
            self._check([zeros_for(c, place) for c, place in zip(columns, plan.places, strict=True)], intake)
            if len(self._plans) >= _FORMS:
                self._plans.clear()
            self._plans[form] = plan
        for device in plan.sizes:
            refuse_capture(device)
        if self.inbox.batches:
            self.deliver(intake)
        load = self._load(plan.sizes, intake)
        used = dict(load.used())
        for device in plan.sizes:
            load.memories[device].follow()
        kept = []
        for column, place in zip(columns, plan.places, strict=True):
            if place is None:
                kept.append(own_copy(column))
            else:
                start = used.get(place.device, 0)
                load.memories[place.device].put(column, place, start)
                kept.append(start)
                used[place.device] = start + place.room
        self._numbers.setdefault(key, 0)
        self._seal(key)
        load.batches.append(Batch(key, plan, kept, used))
        return True

    def _check(self, columns: list[Any], intake: Intake) -> None:
        """Raise what shapes and dtypes alone tell of a batch; zeros stand for tensors on a device."""
        labels, values, where, ids = parts_of(columns, self._names)
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
        load = self.loads[-1] if self.loads else None
        if load is not None and load.process != os.getpid():
            self.deliver(intake)
            load = None
        if load is not None:
            used, memories = load.used(), load.memories
            fits = [d for d, size in sizes.items() if d not in memories or used.get(d, 0) + size <= memories[d].size]
            if load.sent or len(fits) < len(sizes):
                load.send()
                self.deliver(intake, wait=0)
                load = None
        fresh = Staged(names=self._names) if load is None else load
        for device, size in sizes.items():
            if device not in fresh.memories:
                fresh.memories[device] = self._memory(device, size, intake)
        if load is None:
            self.loads.append(fresh)
        return fresh

    def _memory(self, device: Any, size: int, intake: Intake) -> Memory:
        """Return memory that is free; wait for the oldest load if there is as much as allowed, and two are in use."""
        while True:
            free = [memory for memory in self._free if memory.device == device]
            for memory in free:
                if memory.size >= size:
                    self._free.remove(memory)
                    return memory
            sizes = [memory.size for memory in free]
            sizes += [load.memories[device].size for load in self.loads if device in load.memories]
            fresh = max(size, min(CHUNK, self._limit // 2) // ALIGNED * ALIGNED)
            if len(sizes) < 2 or sum(sizes) + fresh <= self._limit:
                side = self._sides.get(device)
                if side is None:
                    side = self._sides[device] = getattr(torch, device.type).Stream(device)
                return Memory(device, fresh, side)
            if free:
                self._free.remove(free[0])
            else:
                self.deliver(intake, wait=1)

    def all_loads(self) -> list[Load]:
        """Return all loads, in the order in which they are recorded."""
        return [self.inbox, *self.loads]

    def _deliver(self, intake: Intake, wait: int | None) -> None:
        super()._deliver(intake, wait)
        while self.loads:
            load = self.loads[0]
            if load.gone(len(self)):
                self.loads.pop(0)
                continue
            if not (load.sent or wait is None):
                break
            load.send()
            if not load.arrived(wait=wait is None or wait > 0):
                break
            self._empty(load, intake)
            self.loads.pop(0)
            self._free += load.memories.values()
            wait = None if wait is None else wait - 1
