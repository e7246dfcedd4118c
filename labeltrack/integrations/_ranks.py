"""How ranks of distributed PyTorch send each other what they have recorded: exact sums as bytes, errors included."""

from __future__ import annotations

import hashlib
import marshal
import weakref
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import distributed

import labeltrack

if TYPE_CHECKING:
    from labeltrack.integrations._shared import Tracker

_CHUNK = 16 * 2**20  # bytes of one message
_ARGUMENTS = ("label", "label_mapping", "bounds", "nan_policy", "missing", "ignore_label", "on_duplicate")
_GROUPS: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()  # on gloo, by the group that they are beside


class Exchange:
    """The states of the trackers of a group, sent to all its ranks."""

    def __init__(self, group: Any) -> None:
        self._group = group
        self.rank = distributed.get_rank(group)
        self.ranks = distributed.get_world_size(group)
        self.failed = False  # to take what was received
        if self.rank < 0:
            msg = "this process is not in the group that it is to be synchronised with"
            raise ValueError(msg)

    @classmethod
    def of(cls, group: Any) -> Exchange | None:
        """Return that of a group; None if there is no other rank."""
        if not (distributed.is_available() and distributed.is_initialized()):
            return None
        exchange = cls(_on_cpu(group))
        return exchange if exchange.ranks > 1 else None

    def merge(self, tracker: Tracker, mode: str | None, target: Tracker) -> None:
        """Add what the other ranks have recorded in a mode, as `tracker` has on this one, to a tracker."""
        states = self.states(tracker, mode)
        try:
            target.merge_state(map(_unpacked, states), place=self.rank)
        except BaseException:
            self.failed = True
            for _ in states:  # the others are still sending
                pass
            raise

    def states(self, tracker: Tracker, mode: str | None) -> Iterator[torch.Tensor]:
        """Yield the packed states of the other ranks; return once all ranks took all. RuntimeError if one failed."""
        own, sizes = self._agree(tracker, mode)
        for rank, size in enumerate(sizes):
            if rank == self.rank:
                self._send(own)
                own = b""
            else:
                yield self._receive(rank, size)
        taken = [bool(status) for (status,) in self._all(int(self.failed))]
        if any(taken) and not self.failed:
            msg = f"labeltrack could not synchronise: {_listed(taken)} could not take what the others sent"
            raise RuntimeError(msg)

    def _agree(self, tracker: Tracker, mode: str | None) -> tuple[bytes, list[int]]:
        """Return the packed state of this rank and the sizes of all; first as samples, if quantiles are needed."""
        samples = True
        failure: BaseException | None = None
        alike = room = 0
        while True:
            try:
                alike = _digest(tracker, mode)
                resolved = labeltrack.bounds.resolve_all(tracker.bounds)
                room = tracker.max_buffer_bytes // 4
                waiting = sum(n for (of, _), n in tracker.pending.items() if mode in (None, of))
                samples = samples and bool(labeltrack.bounds.needed_quantiles(resolved)) and 8 * waiting <= room
                data = _packed(tracker.state_dict(mode=mode, history=False, samples=samples))
            except BaseException as error:  # noqa: BLE001 (it is raised below, once the others know)
                failure, samples, data = error, False, _packed(f"{type(error).__name__}: {error}")
            rows = self._all(int(failure is not None), len(data), alike, int(samples), room)
            if any(row[0] for row in rows):
                self._raise(failure, data, rows)
            if len({row[2] for row in rows}) > 1:
                other = [row[2] != rows[0][2] for row in rows]
                names = ", ".join(arguments_of(tracker))
                msg = (
                    f"labeltrack cannot synchronise: mode or arguments ({names}) differ on {_listed(other)} and rank 0"
                )
                raise ValueError(msg)
            fits = sum(row[1] for row in rows) <= min(row[4] for row in rows)
            if not any(row[3] for row in rows) or (all(row[3] for row in rows) and fits):
                return data, [row[1] for row in rows]
            samples = False

    def _raise(self, failure: BaseException | None, data: bytes, rows: list[list[int]]) -> None:
        """Raise what failed on this rank, or else what failed on another one."""
        reasons = []
        for rank, (status, size, *_) in enumerate(rows):
            if status and rank == self.rank:
                self._send(data)
            elif status:
                reasons.append(f"rank {rank}: {_unpacked(self._receive(rank, size))}")
        if failure is not None:
            raise failure
        msg = f"labeltrack could not synchronise, as another rank raised an error ({'; '.join(reasons)})"
        raise RuntimeError(msg)

    def _all(self, *numbers: int) -> list[list[int]]:
        """Return the numbers of all ranks."""
        own = torch.tensor(numbers, dtype=torch.int64)
        every = [torch.empty_like(own) for _ in range(self.ranks)]
        self._call(distributed.all_gather, every, own)
        return [row.tolist() for row in every]

    def _send(self, data: bytes) -> None:
        """Send bytes to all other ranks; through a buffer, as a tensor of read-only memory warns."""
        buffer = torch.empty(min(len(data), _CHUNK), dtype=torch.uint8)
        for start in range(0, len(data), _CHUNK):
            message = buffer[: len(data) - start]
            memoryview(message.numpy())[:] = memoryview(data)[start : start + _CHUNK]
            self._broadcast(self.rank, message)

    def _receive(self, rank: int, size: int) -> torch.Tensor:
        """Return what another rank sends."""
        data = torch.empty(size, dtype=torch.uint8)
        for message in data.split(_CHUNK):
            self._broadcast(rank, message)
        return data

    def _broadcast(self, rank: int, message: torch.Tensor) -> None:
        self._call(distributed.broadcast, message, distributed.get_global_rank(self._group, rank))

    def _call(self, collective: Callable[..., Any], *arguments: Any) -> None:
        try:
            collective(*arguments, group=self._group)
        except RuntimeError as error:
            msg = (
                f"labeltrack could not synchronise rank {self.rank}: another process ended, or did not call sync() "
                "within the timeout of its group; every rank has to call it once per epoch, also one without samples"
            )
            raise RuntimeError(msg) from error


def _on_cpu(group: Any) -> Any:
    """Return a group of the same ranks that sends what is in CPU memory."""
    group = distributed.group.WORLD if group is None else group
    if distributed.get_rank(group) < 0 or "cpu:" in distributed.get_backend_config(group):
        return group
    if group not in _GROUPS:
        ranks = distributed.get_process_group_ranks(group)
        local = group is not distributed.group.WORLD
        _GROUPS[group] = distributed.new_group(ranks, backend="gloo", use_local_synchronization=local)
    return _GROUPS[group]


def arguments_of(tracker: Tracker) -> dict[str, Any]:
    """Return the arguments that all ranks share."""
    metric = "metrics" if isinstance(tracker, labeltrack.TrackerCollection) else "metric"
    return {name: getattr(tracker, name) for name in (metric, *_ARGUMENTS)}


def _digest(tracker: Tracker, mode: str | None) -> int:
    """Return a number that is equal on ranks with the same arguments."""
    arguments = _sorted(arguments_of(tracker))
    text = repr([labeltrack.__version__, mode, arguments])
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:7], "little")


def _sorted(value: Any) -> Any:
    """Return a mapping as a list that does not depend on the order of its items."""
    if isinstance(value, dict):
        return sorted(((key, _sorted(item)) for key, item in value.items()), key=repr)
    return value


def _listed(ranks: list[bool]) -> str:
    """Return the ranks that are marked."""
    some = [str(rank) for rank, marked in enumerate(ranks) if marked]
    return f"rank{'s' * (len(some) > 1)} {', '.join(some)}"


def _packed(value: Any) -> bytes:
    """Return a value made of dicts, lists, tuples, bytes, strings and numbers as bytes."""
    try:
        return marshal.dumps(value, 4)
    except ValueError as error:
        msg = "a rank cannot send more than 2 GiB in one array: 33 million labels, or 268 million samples with ids"
        raise ValueError(msg) from error


def _unpacked(data: torch.Tensor) -> Any:
    """Return the value that another rank has packed."""
    return marshal.loads(memoryview(data.numpy()))  # noqa: S302 (which makes plain values alone, unlike pickle)
