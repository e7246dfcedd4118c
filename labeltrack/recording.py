"""`Recording`: where and how a tracker records."""

from __future__ import annotations

import operator
import os
from dataclasses import dataclass
from typing import Any, Literal, get_args

Fsync = Literal["never", "epoch", "flush"]


@dataclass(frozen=True)
class Recording:
    """Where and how a tracker records: what ``record_to`` takes when a path is not enough.

    Args:
        path: Folder of the run. Made if it is not there; if there is a run in it, that run goes on.
        flush_rows: Samples of a mode and dataset that are written at a time, 1024 to 1,048,576: what a crash costs at
            most, per mode and dataset. An epoch that crashed is done again in most cases, so that the default favours
            reading: with 65,536 rows at a time, `Run.recompute` takes a third longer on two threads.
        fsync: When to wait for the disk. ``"never"``: the operating system writes when it likes, which a crash of the
            process survives, and a crash of the machine does not. ``"epoch"``: when an epoch ends. ``"flush"``: at
            every write. It is a thread in the background that waits.
        rank: Number of this process, if several record one run; by default the environment variable ``RANK``, or 0.
        world_size: How many processes there are; by default ``WORLD_SIZE``, or 1.

    Raises:
        TypeError: An argument of the wrong type.
        ValueError: An unknown option, or a number out of its limits.

    Example:
        >>> Recording("runs/exp1", flush_rows=2**20, fsync="flush").world_size
        1
    """

    path: str | os.PathLike[str]
    flush_rows: int = 262_144
    fsync: Fsync = "epoch"
    rank: int | None = None
    world_size: int | None = None

    def __post_init__(self) -> None:
        """Check the arguments."""
        path: Any = self.path
        if not isinstance(path, (str, os.PathLike)) or not isinstance(os.fspath(path), str):
            msg = f"a run is recorded to a folder, given as a string or path, got {type(self.path).__name__}"
            raise TypeError(msg)
        if "://" in os.fspath(self.path):
            msg = f"a run is recorded to a folder of this machine, got {self.path}; copy it there afterwards"
            raise ValueError(msg)
        if self.fsync not in get_args(Fsync):
            msg = f"fsync: unknown option {self.fsync!r}; allowed are {', '.join(map(repr, get_args(Fsync)))}"
            raise ValueError(msg)
        object.__setattr__(self, "flush_rows", _number("flush_rows", self.flush_rows, 2**10, 2**20))
        size = _number("world_size", _of_environment("WORLD_SIZE", self.world_size, 1), 1, 10**6)
        rank = _number("rank", _of_environment("RANK", self.rank, 0), 0, size - 1)
        object.__setattr__(self, "world_size", size)
        object.__setattr__(self, "rank", rank)


def _of_environment(name: str, given: Any, default: int) -> Any:
    """Return what was given, else the environment variable that launchers such as torchrun set."""
    if given is not None:
        return given
    text = os.environ.get(name, "")
    return int(text) if text.isdecimal() else default


def _number(what: str, given: Any, least: int, most: int) -> int:
    try:
        number = operator.index(given)
    except TypeError:
        number = least - 1
    if isinstance(given, bool) or not least <= number <= most:
        msg = f"{what} must be an integer from {least} to {most}, got {given!r}"
        raise ValueError(msg)
    return number
