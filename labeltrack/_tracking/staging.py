"""Batches with tensors on a device: copied there, and recorded once their memory has arrived, so that nothing waits.

The host knows where each tensor goes, so `update` only enqueues copies into memory on the device. Once that is full,
or somebody reads, it is copied to the host as a whole, on a stream of its own, and the batches are recorded in the
order in which they came, as if they had come from the host. A batch is in with the assignment that adds it to a list;
how much memory is used follows from the last one of it, so an interrupt leaves nothing half done.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

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
from labeltrack.errors import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from labeltrack._tracking.lock import ChangeLock
    from labeltrack._tracking.streams import Key, Stream

CHUNK = 1 << 20
"""Bytes after which batches are recorded: longer ones save little, and hold up one step for longer."""
_FORMS = 1 << 10  # of batches, that are remembered


class Intake(Protocol):
    """What records batches."""

    def append(self, labels: Any, values: Sequence[Any], key: Key, where: Any = None, ids: Any = None) -> None:
        """Record a batch."""

    def read_values(self, values: Sequence[Any]) -> list[npt.NDArray[Any]]:
        """Return the values of each metric, checked."""


class Batch(NamedTuple):
    """A batch of which some columns are on a device.

    Attributes:
        key: Mode and dataset.
        number: Its number in the epoch, from 1, among such batches.
        plan: Where it is.
        columns: Labels, values of each metric, `where` and ids: where each starts, or what the host has.
        used: Bytes of the memory on each device that are used with this batch.
    """

    key: Key
    number: int
    plan: Plan
    columns: list[Any]
    used: dict[Any, int]


@dataclass(slots=True, eq=False)
class Load:
    """Batches that arrive together, with their memory by device."""

    memories: dict[Any, Memory] = field(default_factory=dict)
    batches: list[Batch] = field(default_factory=list)
    sent: bool = False
    process: int = field(default_factory=os.getpid)

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
        key, _, plan, *_ = self.batches[0]
        number = 1
        if plan.stacked:
            while number < len(self.batches) and self.batches[number].plan is plan and self.batches[number].key == key:
                number += 1
        return number

    def columns(self, number: int) -> list[Any]:
        """Return the columns of so many batches that are alike."""
        some = self.batches[:number]
        return [
            some[0].columns[i]
            if place is None
            else self.memories[place.device].read(place, [batch.columns[i] for batch in some])
            for i, place in enumerate(some[0].plan.places)
        ]


class Staging:
    """Batches that wait on a device.

    Args:
        streams: Where they go.
        lock: That of the tracker, which the caller holds.
        names: Names of several labels; None for one.
        limit: Bytes on each device, and on the host for each, unless two batches take more.

    Attributes:
        loads: Those that wait, in the order in which they came; the last one may take more batches.
    """

    def __init__(self, streams: dict[Key, Stream], lock: ChangeLock, names: Sequence[str] | None, limit: int) -> None:
        self.loads: list[Load] = []
        self._streams = streams
        self._lock = lock  # `deliver` is one of the methods that change a tracker
        self._names = names
        self._limit = limit
        self._free: list[Memory] = []
        self._sides: dict[Any, Any] = {}
        self._plans: dict[Any, Plan] = {}
        self._numbers: dict[Key, int] = {}
        self._begun: tuple[Batch, int, int] | None = None  # rows there were, and how many batches from this one on
        self._most = 1 << 30  # batches to record at once: fewer after a mistake, one of which is in one of them
        self._errors: list[Exception] = []

    def __len__(self) -> int:
        """Return the number of batches that wait."""
        return sum([len(load.batches) for load in self.loads])

    def waits(self, mode: str) -> bool:
        """Return whether batches of a mode wait."""
        if mode not in {of for of, _ in self._numbers}:
            return False
        return bool([batch for load in self.loads for batch in load.batches if batch.key[0] == mode])

    # -- taking batches in ------------------------------------------------------------------------------

    def take(self, columns: Sequence[Any], key: Key, intake: Intake) -> bool:
        """Enqueue copies of a batch.

        Args:
            columns: Labels, values of each metric, `where` and ids.
            key: Mode and dataset.
            intake: Records earlier batches, for which there is no memory any more.

        Returns:
            Whether it was taken. Batches are not if they are on a device without streams, or are no plain tensors.

        Raises:
            RuntimeError: A graph is being captured.
            TypeError: A column has the wrong dtype; or see `deliver`, for an earlier batch.
            ValueError: Shapes do not match; or likewise. The batch was not taken in any case.
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
        number = self._numbers.get(key, 0) + 1
        self._numbers[key] = number
        self._seal(key)
        load.batches.append(Batch(key, number, plan, kept, used))
        return True

    def _parts(self, columns: list[Any]) -> tuple[Any, list[Any], Any, Any]:
        """Return labels, values of each metric, `where` and ids."""
        *columns, where, ids = columns
        if self._names is None:
            return columns[0], columns[1:], where, ids
        n = len(self._names)
        return dict(zip(self._names, columns[:n], strict=True)), columns[n:], where, ids

    def _check(self, columns: list[Any], intake: Intake) -> None:
        """Raise what shapes and dtypes alone tell of a batch; zeros stand for tensors on a device."""
        labels, values, where, ids = self._parts(columns)
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

    def _seal(self, key: Key) -> None:
        """Have later batches from the host come here first, so that they do not overtake."""
        stream = self._streams.get(key)
        if stream is not None:
            stream.buffer.seal()

    def _load(self, sizes: dict[Any, int], intake: Intake) -> Load:
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
        fresh = Load() if load is None else load
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

    # -- recording them ---------------------------------------------------------------------------------

    def deliver(self, intake: Intake, *, wait: int | None = None) -> None:
        """Record batches, in the order in which they came.

        Args:
            intake: Records them.
            wait: For how many loads to wait; None for all, the last one included. Others are recorded if they have
                arrived.

        Raises:
            RuntimeError: They wait in another process, which has forked.
            TypeError: A batch could not be recorded, for what it contains; all others were.
            ValueError: Likewise.
        """
        try:
            while self.loads:
                load = self.loads[0]
                if load.process != os.getpid():
                    if not load.batches:
                        self.loads.pop(0)
                        continue
                    msg = (
                        f"{counted(len(self), 'update')} with tensors on a device came before this process was forked, "
                        "and only its parent can read them; read the tracker before forking, or reset() it here"
                    )
                    raise RuntimeError(msg)
                if not (load.sent or wait is None):
                    break
                load.send()
                if not load.arrived(wait=wait is None or wait > 0):
                    break
                while load.batches:
                    del load.batches[: self._record(load, intake)]
                self.loads.pop(0)
                self._free += load.memories.values()
                wait = None if wait is None else wait - 1
        finally:
            for key in dict.fromkeys(batch.key for load in self.loads for batch in load.batches):
                self._seal(key)
        errors, self._errors = self._errors, []
        if errors:
            others = f" ({counted(len(errors) - 1, 'further update')} likewise)" if len(errors) > 1 else ""
            msg = f"{errors[0]}{others}"
            raise (TypeError if isinstance(errors[0], TypeError) else ValueError)(msg) from errors[0]

    def _record(self, load: Load, intake: Intake) -> int:
        """Record batches from the first one on; return how many these were."""
        first = load.batches[0]
        self._seal(first.key)  # other threads add none then
        rows = _rows(self._streams.get(first.key))
        if self._begun is not None and self._begun[0] is first and self._begun[1] != rows:
            return self._begun[2]  # they are in: an interrupt came before they were taken from the list
        number = min(load.alike(), self._most)
        self._begun = first, rows, number
        try:
            labels, values, where, ids = self._parts(load.columns(number))
            intake.append(labels, values, first.key, where, ids)
        except (TypeError, ValueError) as error:
            if number > 1:
                self._most = number // 2
                return 0
            self._errors.append(_late(error, first))
        else:
            self._most = max(self._most, 2 * number)
        return number

    def drop(self, mode: str | None) -> None:
        """Forget the batches of a mode, or of all, and how many there were."""
        for load in self.loads:
            load.batches[:] = [batch for batch in load.batches if mode not in (None, batch.key[0])]
        self._numbers = {key: n for key, n in self._numbers.items() if mode not in (None, key[0])}


def _rows(stream: Stream | None) -> int:
    """Return how many rows have ever come into a stream in this epoch."""
    if stream is None:
        return 0
    return len(stream.buffer) + (0 if stream.folded is None else stream.folded.rows)


def _late(error: Exception, batch: Batch) -> Exception:
    """Return an error about what a batch contains."""
    mode, ds_id = batch.key
    of = f"mode {mode!r}" + (f" and dataset {ds_id!r}" if ds_id else "")
    msg = (
        f"{error}. This is update() number {batch.number} with tensors on a device in {of} since the last end of an "
        "epoch; what they contain is known only now"
    )
    return (TypeError if isinstance(error, TypeError) else ValueError)(msg)
