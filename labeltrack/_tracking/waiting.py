"""Batches that wait to be recorded, in the order in which they came: once there are many, or somebody reads.

Those of `update_later` wait with functions that make samples of them; those with tensors on a device, until these have
arrived, which `device` sends.

A batch is in with the assignment that adds it to a list, and out with the one that removes it; whether it was recorded
before an interrupt between is seen by the number of rows of its stream. So each is recorded once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from labeltrack.errors import counted

if TYPE_CHECKING:
    from labeltrack._tracking.lock import ChangeLock
    from labeltrack._tracking.streams import Key, Stream

CHUNK = 1 << 20
"""Bytes after which batches are recorded: longer ones save little, and hold up one step for longer."""
_BATCHES = 64  # likewise, of those that their callers keep

Made = tuple[Any, list[Any], Any, Any]
"""Labels, values of each metric, `where` and ids."""


Intake = Any
"""What records batches: an `intake.Intake`."""


class Batch(NamedTuple):
    """A batch that waits."""

    key: Key
    plan: Any  # what makes samples of it
    columns: Any  # what that takes
    used: Any  # bytes that are used with this batch


class Begun(NamedTuple):
    """Batches whose recording has begun."""

    first: Batch
    rows: int  # that its stream had
    size: int  # how many batches they are
    number: int  # of the first one in the epoch, from 1, among batches of its mode and dataset that waited


@dataclass(slots=True, eq=False)
class Load:
    """Batches that are recorded together: those that their callers keep, with functions that make samples of them."""

    batches: list[Batch] = field(default_factory=list)
    what: str = "update_later() number {}"  # for errors

    def alike(self) -> int:
        """Return how many batches from the first one on are a batch of more samples."""
        key, plan, *_ = self.batches[0]
        number = 1
        while number < len(self.batches) and self.batches[number].key == key and self.batches[number].plan == plan:
            number += 1
        return number

    def samples(self, number: int) -> Made:
        """Return the samples of so many batches that are alike."""
        try:
            made = self.batches[0].plan([batch.columns for batch in self.batches[:number]])
            return made["labels"], [made["values"]], made.get("where"), made.get("ids")
        except (LookupError, RuntimeError) as error:  # as PyTorch raises if shapes differ
            msg = f"{type(error).__name__}: {error}"
            raise ValueError(msg) from error


class Waiting:
    """Batches that wait."""

    def __init__(self, streams: dict[Key, Stream], lock: ChangeLock) -> None:
        self.inbox = Load()  # always the same, so that `at_once` needs no lock
        self.loads: list[Any] = []  # on devices, as they came, of `device`; the last one may take more batches
        self.free: list[Any] = []  # memory of loads that are recorded
        self._streams = streams
        self._lock = lock  # `deliver` is one of the methods that change a tracker
        self.numbers: dict[Key, int] = {}  # of the last batch in this epoch that waits no more
        self.errors: dict[tuple[Key, int], Exception] = {}  # that `tell` is to raise, by number of the batch, too
        self._begun: Begun | None = None
        self._most = 1 << 30  # batches to record at once: fewer after a mistake, one of which is in one of them

    def all_loads(self) -> list[Load]:
        """Return all loads, in the order in which they are recorded."""
        return [self.inbox, *self.loads]

    def __len__(self) -> int:
        """Return the number of batches that wait."""
        return sum([len(load.batches) for load in self.all_loads()])

    def waits(self, mode: str) -> bool:
        """Return whether batches of a mode wait."""
        if mode not in {of for of, _ in self.numbers}:
            return False
        return bool([batch for load in self.all_loads() for batch in load.batches if batch.key[0] == mode])

    def later(
        self, batch: Any, make: Callable[[list[Any]], dict[str, Any]], key: Key, nbytes: int, intake: Intake
    ) -> None:
        """Keep a batch; record all if there are many. It is kept if this raises TypeError or ValueError."""
        batches = self.inbox.batches
        if len(self) > len(batches):
            self.deliver(intake)  # what is on a device came before
        first = not self.numbers.setdefault(key, 0)
        self.seal(key)
        used = (batches[-1].used if batches else 0) + nbytes
        batches.append(Batch(key, make, batch, used))
        if first or used >= CHUNK or len(batches) >= _BATCHES:  # most mistakes are in the first one
            self.deliver(intake)
        self.tell()

    def at_once(self, batch: Any, make: Callable[[list[Any]], dict[str, Any]], key: Key, nbytes: int) -> bool:
        """Keep a batch like the one before, which still waits, without a lock; return whether it was one."""
        # To append is one step. With the lock it took 38 us after a step of training, which leaves code out of caches.
        batches = self.inbox.batches
        try:
            before = batches[-1]
        except IndexError:
            return False
        used = before.used + nbytes
        if before.plan != make or before.key != key or used >= CHUNK or len(batches) >= _BATCHES - 1:
            return False
        batches.append(Batch(key, make, batch, used))
        return True

    def seal(self, key: Key) -> None:
        """Have later batches from the host come here first, so that they do not overtake."""
        stream = self._streams.get(key)
        if stream is not None:
            stream.buffer.seal()

    # -- recording them ---------------------------------------------------------------------------------

    def deliver(self, intake: Intake, *, wait: int | None = None) -> None:
        """Record batches in order, waiting for `wait` loads or, with None, all; RuntimeError in a forked process."""
        try:
            self._empty(self.inbox, intake)
            while self.loads:  # pragma: no cover (tested where torch is)
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
                self.free += load.memories.values()
                wait = None if wait is None else wait - 1
        finally:
            for key in dict.fromkeys(batch.key for load in self.all_loads() for batch in load.batches):
                self.seal(key)

    def tell(self) -> None:
        """Raise, once, TypeError or ValueError if batches could not be recorded for what they contain."""
        if not self.errors:
            return
        first, *more = self.errors.values()
        msg = str(first) + (f" ({counted(len(more), 'further update')} likewise)" if more else "")
        try:
            raise (TypeError if isinstance(first, TypeError) else ValueError)(msg) from first
        except (TypeError, ValueError):
            self.errors = {}  # not before: an interrupt may come instead
            raise

    def _record(self, load: Load, intake: Intake) -> None:
        """Record batches from the first one on, and take them from the list."""
        first = load.batches[0]
        begun = None if self._begun is None or self._begun.first is not first else self._begun
        self.seal(first.key)  # other threads add none then
        rows = _rows(self._streams.get(first.key))
        if begun is None or begun.rows == rows:  # else they are in: an interrupt came before they left the list
            number = self.numbers.get(first.key, 0) + 1 if begun is None else begun.number
            begun = self._begun = Begun(first, rows, min(load.alike(), self._most), number)
            try:
                labels, values, where, ids = load.samples(begun.size)
                intake.append(labels, values, first.key, where, ids)
            except (TypeError, ValueError) as error:
                if begun.size > 1:
                    self._most = begun.size // 2
                    return
                self.errors[first.key, number] = _late(error, first.key, load.what.format(number))
            else:
                self._most = max(self._most, 2 * begun.size)
        self.numbers[first.key] = begun.number + begun.size - 1
        del load.batches[: begun.size]
        self._begun = None

    def _empty(self, load: Load, intake: Intake) -> None:
        """Record the batches of a load."""
        while load.batches:
            self._record(load, intake)

    def begin(self, mode: str | None, *, drop: bool) -> None:
        """Begin to number the batches of a mode, or of all, anew; drop those that wait, or leave them."""
        for load in self.all_loads() if drop else ():
            for place in reversed(range(len(load.batches))):  # one by one: other threads may append
                if mode in (None, load.batches[place].key[0]):
                    del load.batches[place]
        if drop:
            self.errors = {of: error for of, error in self.errors.items() if mode not in (None, of[0][0])}
        self.numbers |= {key: 0 for key in self.numbers if mode in (None, key[0])}


def _rows(stream: Stream | None) -> int:
    """Return how many rows have ever come into a stream in this epoch."""
    if stream is None:
        return 0
    return len(stream.buffer) + (0 if stream.folded is None else stream.folded.rows)


def _late(error: Exception, key: Key, which: str) -> Exception:
    """Return an error about what a batch contains."""
    mode, ds_id = key
    of = f"mode {mode!r}" + (f" and dataset {ds_id!r}" if ds_id else "")
    msg = f"{error}. This is {which} in {of} since the last end of an epoch; what it contains is known only now"
    return (TypeError if isinstance(error, TypeError) else ValueError)(msg)
