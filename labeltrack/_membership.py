"""Taking part in a recorded run: which launch this is, as which process, and that no other process is the same."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labeltrack._journal import Journal, read_journal
from labeltrack._locks import Lock, is_held, locked
from labeltrack._storage import LocalFolder
from labeltrack.store import (
    DESCRIPTION,
    LOCK,
    Contents,
    Description,
    contents_of,
    journal_name,
    sync_folder,
    writer_lock,
)

if TYPE_CHECKING:
    from labeltrack.recording import Recording


class Membership:
    """The part that a process takes in a run, from now on until it leaves or ends.

    Args:
        recording: Where.
        description: What is tracked.

    Attributes:
        root: The folder.
        rank: Number of this process.
        session: Number of this launch.
        journal: Its journal.
        description: Of the run.

    Raises:
        OSError: The folder cannot be made or written to.
        RuntimeError: Another process records this run.
        ValueError: There is something else in the folder, or a run of something else.
    """

    def __init__(self, recording: Recording, description: Description) -> None:
        self.root = Path(recording.path).absolute()
        self.rank, self._size = recording.rank or 0, recording.world_size or 1
        self._lock = Lock(self.root / writer_lock(self.rank))
        sync = recording.fsync != "never"
        self.root.mkdir(parents=True, exist_ok=True)
        with locked(self.root / LOCK):
            try:
                self.description = self._agree(description)
                self._own()
                self.session = self._launch(contents_of(LocalFolder(self.root)))
                self.journal = Journal(self.root / journal_name(self.session, self.rank))
                self.journal.append(
                    "begin",
                    sync=sync,
                    session=self.session,
                    rank=self.rank,
                    world_size=self._size,
                    run=self.description.plain(),
                )
            except BaseException:
                self._lock.release()
                raise
        if sync:
            sync_folder(self.root)

    def note_dtypes(self, label: str, value: str) -> None:
        """Have `run.json` say that labels and values of such types were recorded."""
        if (label, value) in self.description.dtypes:
            return
        # It is for information, and not worth a single row.
        with contextlib.suppress(OSError, ValueError), locked(self.root / LOCK):
            before = Description.read(LocalFolder(self.root))
            self.description = replace(before, dtypes=tuple(dict.fromkeys((*before.dtypes, (label, value)))))
            if self.description != before:
                self.description.write(self.root)

    def leave(self) -> None:
        """Close the journal, and let others record as this process."""
        self.journal.close(sync=False)
        self._lock.release()

    def _own(self) -> None:
        """See to it that no other process records as the same rank."""
        if not self._lock.acquire(wait=False):
            raise self._busy(self.rank)

    def _agree(self, description: Description) -> Description:
        """Write `run.json`, or see that the one that is there is of the same thing."""
        if not (self.root / DESCRIPTION).exists():
            others = [path.name for path in self.root.iterdir() if not path.name.startswith(".")]
            if others:
                msg = (
                    f"{self.root} is not empty, and there is no recorded run in it (no {DESCRIPTION}); "
                    "record to a folder of its own"
                )
                raise ValueError(msg)
            description.write(self.root)
            return description
        before = Description.read(LocalFolder(self.root))
        for name in ("metric", "label", "label_mapping", "nan_policy", "missing"):
            old, new = getattr(before, name), getattr(description, name)
            if old != new:
                msg = (
                    f"{self.root} is a run of {name} {old!r}, and this is {name} {new!r}; "
                    "go on with the same, or record to another folder"
                )
                raise ValueError(msg)
        after = replace(before, bounds=description.bounds)
        if after != before:
            after.write(self.root)
        return after

    def _launch(self, contents: Contents) -> int:
        """Return the number of this launch: that of the processes that run already, or a new one."""
        journals = contents.journals
        newest = max((session for session, _ in journals), default=0)
        others = [rank for session, rank in journals if session == newest and rank != self.rank]
        living = [rank for rank in others if is_held(self.root / writer_lock(rank))]
        if not living:
            return newest + 1
        with (self.root / journals[newest, living[0]]).open("rb") as file:
            lines = read_journal(file).lines
        size = lines[0].get("world_size") if lines else None
        if size != self._size:
            raise self._busy(living[0], size)
        return newest if (newest, self.rank) not in journals else newest + 1

    def _busy(self, rank: int, size: Any = None) -> RuntimeError:
        of = f" of {size}" if size is not None else ""
        msg = (
            f"another process is recording to {self.root} as number {rank}{of}, and this is number {self.rank} of "
            f"{self._size}. Record to another folder; or, if both belong to one training, give each a rank of its own "
            "(RANK and WORLD_SIZE, or labeltrack.Recording)"
        )
        return RuntimeError(msg)
