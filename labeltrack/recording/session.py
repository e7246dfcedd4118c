"""Joining a run: as which process of which launch, and locks so that no other process is the same."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import platform
import secrets
import sys
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labeltrack.errors import RunInUseError
from labeltrack.recording.description import DESCRIPTION, Description
from labeltrack.recording.journal import Journal, read_journal
from labeltrack.recording.layout import LOCK, contents_of, journal_name, writer_lock
from labeltrack.recording.storage import LocalFolder, sync_folder

if TYPE_CHECKING:
    from labeltrack.recording.options import RecordingOptions

PATIENCE = 2.0  # seconds to wait for the first line of another process's journal
_UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}  # errors of a file system without locks
_LOCKS: weakref.WeakSet[Lock] = weakref.WeakSet()


class Membership:
    """A process's membership in a run, until it leaves or ends."""

    def __init__(self, options: RecordingOptions, description: Description) -> None:
        self.root = Path(options.path).absolute()
        self.rank, self._size = options.rank or 0, options.world_size or 1
        self.writer = secrets.token_hex(8)  # the same in the journal and all parts of this process
        self.notes: list[str] = []  # warnings that do not keep the run from being recorded
        self._duplicates = description.duplicates
        self._lock = Lock(self.root / writer_lock(self.rank))
        sync = options.fsync != "never"
        self.root.mkdir(parents=True, exist_ok=True)
        with locked(self.root / LOCK):
            try:
                self.description = self._described(description)
                self._lock_rank()
                launch, host = (_hashed(self.description, text) for text in (options.launch or "", _boot()))
                first = {"rank": self.rank, "world_size": self._size, "launch": launch, "host": host}
                first |= {"writer": self.writer, "run": self.description.plain()}
                self.session, self.journal = self._begin(first, sync=sync)
            except BaseException:
                self._lock.release()
                raise
        if sync:
            sync_folder(self.root)

    def note_dtypes(self, *types: str) -> None:
        """Add the types of the columns of samples to `run.json`."""
        if types not in self.description.dtypes:
            self.description = replace(self.description, dtypes=(*self.description.dtypes, types))  # tried once
            with contextlib.suppress(OSError, ValueError):  # only for information, and must not cost a row
                self.ensure_present()
                self._change(lambda old: {"dtypes": tuple(dict.fromkeys((*old.dtypes, types)))})

    def note_ids(self) -> bool:
        """Say in `run.json` that samples have ids; return whether this process did not know."""
        if self.description.ids:
            return False
        self._change(lambda old: {} if old.ids else {"ids": True, "duplicates": self._duplicates})
        return True

    def _change(self, changes: Callable[[Description], dict[str, Any]]) -> None:
        """Change `run.json`, which another process may have changed, too."""
        with locked(self.root / LOCK):
            before = Description.read(LocalFolder(self.root))
            after = replace(before, **changes(before))
            if after != before:
                after.write(self.root)
            self.description = after

    def ensure_present(self) -> None:
        """Restore deleted files; FileNotFoundError if the folder was deleted, moved or replaced."""
        if self.journal.ensure_present():
            self.notes.append(f"{self.journal.path} was deleted during recording and has been restored")
        if not (self.root / DESCRIPTION).exists():
            with contextlib.suppress(FileExistsError):
                self.description.write(self.root, replace=False)
                self.notes.append(f"{self.root / DESCRIPTION} was deleted during recording and has been restored")

    def identity(self) -> dict[str, str]:
        """Return what the parts of this process say about it."""
        process = {"session": str(self.session), "rank": str(self.rank)}
        return {**process, "run": self.description.id, "writer": self.writer}

    def leave(self) -> None:
        """Close the journal and release the lock."""
        with contextlib.suppress(OSError):  # the folder may have been moved after everything was recorded
            self.ensure_present()
        self.journal.close(sync=False)
        self._lock.release()

    def _lock_rank(self) -> None:
        if not self._lock.acquire(wait=False):
            raise self._busy(self.rank)
        if not self._lock.works and self._size > 1:
            self.notes.append(
                f"the file system of {self.root} has no locks, so that nothing keeps two processes from recording as "
                f"the same number of {self._size}, and a launch is only recognised by what labeltrack.RecordingOptions("
                "launch=...) says, or what launchers set; give each launch its own, or record to another disk"
            )

    def _described(self, description: Description) -> Description:
        """Write `run.json`, or check that the existing one describes the same."""
        if not (self.root / DESCRIPTION).exists():
            others = [path.name for path in self.root.iterdir() if not path.name.startswith(".")]
            fresh = replace(description, id=secrets.token_hex(16)) if not others else self._described_by_a_journal()
            if fresh is None:
                msg = (
                    f"{self.root} is not empty, and there is no recorded run in it (no {DESCRIPTION}); "
                    "record to a folder of its own"
                )
                raise ValueError(msg)
            # Without locks, another process may write it at this moment; the first one's counts.
            with contextlib.suppress(FileExistsError):
                fresh.write(self.root, replace=False)
                if others:
                    self.notes.append(f"{self.root / DESCRIPTION} was missing and has been restored from a journal")
        before = Description.read(LocalFolder(self.root))
        same = ["metric", "label", "label_mapping", "nan_policy", "missing"]
        for name in [*same, "duplicates"] if before.ids else same:
            if (old := getattr(before, name)) != (new := getattr(description, name)):
                what = "on_duplicate" if name == "duplicates" else name
                msg = (
                    f"{self.root} is a run of {what} {old!r}, and this is {what} {new!r}; "
                    "continue with the same, or record to another folder"
                )
                raise ValueError(msg)
        after = replace(before, bounds=description.bounds, duplicates=description.duplicates)
        if after != before:
            after.write(self.root)
        return after

    def _described_by_a_journal(self) -> Description | None:
        """Return the description of a run that lacks `run.json`, from a journal."""
        storage = LocalFolder(self.root)
        for name in sorted(contents_of(storage).journals.values(), reverse=True):
            with contextlib.suppress(OSError, ValueError), storage.open(name) as file:
                said = [line["run"] for line in read_journal(file).lines if "run" in line]
                return Description.from_plain(said[-1] if said else None)
        return Description.read(storage) if (self.root / DESCRIPTION).exists() else None

    def _begin(self, first: dict[str, Any], *, sync: bool) -> tuple[int, Journal]:
        """Begin the journal of this process; return the number of its launch, and the journal."""
        least = 1
        while True:
            session = max(least, self._launch(first))
            try:
                journal = Journal(self.root / journal_name(session, self.rank))
            except FileExistsError:
                if self._lock.works:
                    raise
                least = session + 1  # a process of the same rank just began: this is another launch
                continue
            journal.append("begin", sync=sync, session=session, **first)
            return session, journal

    def _launch(self, first: dict[str, Any]) -> int:
        """Return the number of this launch: the newest one, if its other processes belong to it, or a new one."""
        contents = contents_of(LocalFolder(self.root))
        # Processes of a launch need not overlap in time. If this rank has recorded in the newest one, or a process of
        # it died, this is another launch, even with the same name.
        known = {*contents.journals, *((place.session, place.rank) for place in contents.places)}
        newest = max((session for session, _ in known), default=0)
        joins = newest > 0 and (newest, self.rank) not in known
        for session, rank in sorted(known):
            if session == newest and rank != self.rank:
                its, alive, died = self._look_at(contents.journals.get((session, rank)), rank, first["host"])
                alike = all(its.get(key, first[key]) == first[key] for key in ("world_size", "launch"))
                if alive and not alike:
                    raise self._busy(rank, its.get("world_size"))
                joins = joins and (alive or (alike and not died and "launch" in its))
        return newest if joins else newest + 1

    def _look_at(self, journal: str | None, rank: int, host: str) -> tuple[dict[str, Any], bool, bool]:
        """Return the first line of another process's journal, and whether it is alive, or died without an end."""
        alive = is_held(self.root / writer_lock(rank))
        lines: list[dict[str, Any]] = []
        patience = time.monotonic() + (0 if self._lock.works else PATIENCE)
        while journal is not None and not lines:  # without locks, it may be about to write its first line
            with LocalFolder(self.root).open(journal) as file:
                lines = read_journal(file).lines
            if time.monotonic() > patience:
                break
            time.sleep(0.01)
        first = lines[0] if lines else {}
        ended = bool(lines) and lines[-1]["event"] == "end"
        seen = self._lock.works and first.get("host", host) == host  # locks may only work within one machine
        return first, alive, not alive and not ended and (seen or not first)

    def _busy(self, rank: int, size: Any = None) -> RunInUseError:
        of = f" of {size}" if size is not None else ""
        msg = (
            f"another process is recording to {self.root} as number {rank}{of}, and this is number {self.rank} of "
            f"{self._size}. Record to another folder; or, if both belong to one training, give each a rank of its own "
            "(RANK and WORLD_SIZE) and all the same launch (see labeltrack.RecordingOptions)"
        )
        return RunInUseError(msg)


def _hashed(description: Description, text: str) -> str:
    """Return a text in a form that compares within a run and reveals nothing; empty if it is empty."""
    return hashlib.sha256(f"{description.id} {text}".encode("utf-8", "surrogatepass")).hexdigest()[:16] if text else ""


def _boot() -> str:
    """Return an identifier that all processes of a machine share, those in containers included."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return platform.node()


# -- locks ------------------------------------------------------------------------------------------------


class Lock:
    """A lock on a file, which the system releases when the process ends, however it ends."""

    def __init__(self, path: Path) -> None:
        self.works = True  # whether the file system has locks, as far as is known
        self._path, self._fd = path, -1
        _LOCKS.add(self)

    def acquire(self, *, wait: bool) -> bool:
        """Take the lock, making the file if there is none; on a file system without locks, everybody gets it."""
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
        taken: bool | None = False
        try:
            taken = _take(self._fd, wait=wait)
        finally:
            if taken is False:
                self.release()
        self.works = taken is not None
        return taken is not False

    def release(self) -> None:
        """Release it; may be called again."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def is_held(path: Path) -> bool:
    """Return whether any process holds the lock on a file."""
    lock = Lock(path)
    held = path.exists() and not lock.acquire(wait=False)
    lock.release()
    return held


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock within the block, waiting for it first."""
    lock = Lock(path)
    lock.acquire(wait=True)
    try:
        yield
    finally:
        lock.release()


def _take(fd: int, *, wait: bool) -> bool | None:
    """Lock an open file and return whether that worked; None if there are no locks."""
    if sys.platform == "win32":  # pragma: no cover
        import msvcrt  # noqa: PLC0415

        try:
            msvcrt.locking(fd, msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
    import fcntl  # noqa: PLC0415

    try:
        fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        return None
    return True


def _let_go() -> None:  # pragma: no cover (in a forked process, where nothing is measured)
    for lock in _LOCKS:  # of the parent, which they would outlive
        lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)
