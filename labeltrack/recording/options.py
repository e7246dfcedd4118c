"""Options of recording."""

from __future__ import annotations

import operator
import os
from dataclasses import dataclass
from typing import Any, Literal, get_args

from labeltrack.errors import check_option

Fsync = Literal["never", "epoch", "flush"]
Durable = Literal["later", "epoch"]


@dataclass(frozen=True)
class RecordingOptions:
    """Where and how a tracker records, for ``record_to``.

    Args:
        path: Folder of the run. It is made if it does not exist; a run that is in it is continued.
        flush_rows: Number of samples of a mode and dataset that are written at a time, from 1,024 to 1,048,576. A
            crash loses at most as many per mode and dataset. As an interrupted epoch is repeated anyway in most cases,
            the default favours reading: with 65,536, `Run.recompute` takes a third longer on two threads.
        fsync: When to wait for the disk. ``"never"``: the operating system decides when to write, so samples survive a
            crash of the process but not of the machine. ``"epoch"``: when an epoch ends. ``"flush"``: at every write.
            A background thread waits, not training, unless `durable` says otherwise.
        rank: Number of this process, if several record one run; by default the environment variable ``RANK``, or 0.
        world_size: Number of processes that record; by default ``WORLD_SIZE``, or 1. All of them must take part: an
            epoch is incomplete if one never started. To record in one process only, pass
            ``RecordingOptions(path, rank=0, world_size=1)`` there, and no `record_to` in the others.
        launch: Any text that all processes of one launch of the training share, and the next launch does not. By
            default ``TORCHELASTIC_RUN_ID``, ``MASTER_ADDR`` and ``MASTER_PORT``, or ``SLURM_JOB_ID`` and
            ``SLURM_STEP_ID``, whichever is set first. Launches with the same text, or none, are told apart by
            processes that have recorded before or died.
        durable: When a finished epoch survives ``kill -9``. ``"later"``: some milliseconds after
            `LabelTracker.end_epoch` returned, or when `LabelTracker.flush` has. ``"epoch"``: `LabelTracker.end_epoch`
            waits for that, and for the disk unless `fsync` is ``"never"``.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An unknown option, or a number out of range.

    Example:
        >>> RecordingOptions("runs/exp1", flush_rows=2**20, fsync="flush").world_size
        1
    """

    path: str | os.PathLike[str]
    flush_rows: int = 262_144
    fsync: Fsync = "epoch"
    rank: int | None = None
    world_size: int | None = None
    launch: str | None = None
    durable: Durable = "later"

    def __post_init__(self) -> None:
        path: Any = self.path
        if not isinstance(path, (str, os.PathLike)) or not isinstance(os.fspath(path), str):
            msg = f"a run is recorded to a folder, given as a string or path, got {type(self.path).__name__}"
            raise TypeError(msg)
        if "://" in os.fspath(self.path):
            msg = f"a run is recorded to a folder of this machine, got {self.path}; copy it there afterwards"
            raise ValueError(msg)
        check_option("fsync", self.fsync, get_args(Fsync))
        check_option("durable", self.durable, get_args(Durable))
        launch: Any = self.launch
        if not isinstance(launch, str | None):
            msg = f"launch must be a string, got {type(launch).__name__} {launch!r}"
            raise TypeError(msg)
        if launch is None:
            object.__setattr__(self, "launch", _launch_of_environment())
        object.__setattr__(self, "flush_rows", _number("flush_rows", self.flush_rows, 2**10, 2**20))
        size = _number("world_size", self.world_size, 1, 10**6, default=1)
        object.__setattr__(self, "world_size", size)
        object.__setattr__(self, "rank", _number("rank", self.rank, 0, size - 1, default=0))


def _launch_of_environment() -> str:
    """Return what launchers set to the same in all processes of a launch; empty if there is nothing."""
    said = os.environ.get
    elastic = said("TORCHELASTIC_RUN_ID", "")
    if elastic not in ("", "none"):  # "none" without a rendezvous
        return f"torchelastic {elastic}"
    if said("MASTER_ADDR"):
        return f"master {said('MASTER_ADDR')}:{said('MASTER_PORT', '')}"
    return f"slurm {said('SLURM_JOB_ID')}.{said('SLURM_STEP_ID', '')}" if said("SLURM_JOB_ID") else ""


def _number(what: str, given: Any, least: int, most: int, *, default: int | None = None) -> int:
    """Return what was given; for None what launchers such as torchrun set in the environment, or else the default."""
    if given is None and default is not None:
        text = os.environ.get(what.upper(), "")
        given = int(text) if text.isdecimal() else default
    try:
        number = operator.index(given)
    except TypeError:
        number = least - 1
    if isinstance(given, bool) or not least <= number <= most:
        msg = f"{what} must be an integer from {least} to {most}, got {given!r}"
        raise ValueError(msg)
    return number
