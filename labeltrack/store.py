"""The folder of a recorded run: its description, and where its parts lie.

::

    run.json                                       what was tracked, and in which version of the format
    mode=train/ds_id=/epoch=3/part-….arrow         samples (see `_parts`)

Names are percent-encoded, so that a mode or dataset may be called anything and stays within the folder; other programs
read them as Hive partitions. Nothing here follows a link, runs what it reads, or believes a size it is told.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import re
import stat
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from labeltrack._labels import LabelMapping
from labeltrack.bounds import resolve_all

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

FORMAT, VERSION = "labeltrack run", 1
DESCRIPTION = "run.json"
LARGEST_DESCRIPTION = 16 * 2**20  # bytes; a mapping of 100 000 labels takes 3 MB
PART = re.compile(r"part-[0-9a-z-]{1,60}\.arrow(\.open)?")
MOST_ENTRIES = 1_000_000  # of a folder


@dataclass(frozen=True)
class Description:
    """What `run.json` says.

    Attributes:
        metric: Name of the metric.
        label: Name of the label.
        label_mapping: ``{display name: label value}``, or None.
        bounds: Names of the bounds.
        labeltrack: Version of labeltrack that began the run.
        created: When it began, UTC, ISO 8601.
    """

    metric: str
    label: str
    label_mapping: Mapping[str, Any] | None = None
    bounds: tuple[str | None, ...] = ("std",)
    labeltrack: str = ""
    created: str = field(default_factory=lambda: dt.datetime.now(dt.UTC).isoformat(timespec="seconds"))

    def write(self, folder: Path) -> None:
        """Write it into a folder, in place of what is there, at once or not at all.

        Raises:
            OSError: It cannot be written; what was there stays.
        """
        mapping = None if self.label_mapping is None else [[n, _to_json(v)] for n, v in self.label_mapping.items()]
        plain = {
            "format": FORMAT,
            "version": VERSION,
            "metric": self.metric,
            "label": self.label,
            "label_mapping": mapping,
            "bounds": list(self.bounds),
            "labeltrack": self.labeltrack,
            "created": self.created,
        }
        write_at_once(folder / DESCRIPTION, json.dumps(plain, indent=1) + "\n")

    @classmethod
    def read(cls, folder: Path) -> Description:
        """Read it.

        Raises:
            FileNotFoundError: There is no run in that folder.
            ValueError: It is not what labeltrack wrote, or of a later version.
        """
        path = folder / DESCRIPTION
        try:
            text = _read(path, LARGEST_DESCRIPTION)
        except FileNotFoundError:
            msg = f"no recorded run in {folder}: it has no {DESCRIPTION}"
            raise FileNotFoundError(msg) from None
        try:
            plain = json.loads(text)
        except (ValueError, RecursionError):
            msg = f"{path} is damaged: it is not JSON"
            raise ValueError(msg) from None
        if not isinstance(plain, dict) or plain.get("format") != FORMAT:
            msg = f"{path} is no description of a recorded run"
            raise ValueError(msg)
        version = plain.get("version")
        if not isinstance(version, int) or version > VERSION:
            msg = f"{path} is of version {version!r} of the format, this labeltrack reads up to {VERSION}; update it"
            raise ValueError(msg)
        try:
            return cls._checked(plain)
        except (KeyError, TypeError, ValueError) as error:
            msg = f"{path} is damaged: {error}"
            raise ValueError(msg) from None

    @classmethod
    def _checked(cls, plain: dict[str, Any]) -> Description:
        texts = {name: plain[name] for name in ("metric", "label", "labeltrack", "created")}
        for name, text in texts.items():
            if not isinstance(text, str):
                msg = f"{name} must be a string, not {type(text).__name__}"
                raise TypeError(msg)
        mapping = plain["label_mapping"]
        if mapping is not None:
            pairs = [(name, _from_json(value)) for name, value in mapping]
            mapping = dict(pairs)
            LabelMapping(mapping)
            if len(mapping) < len(pairs):
                msg = "label_mapping has a name twice"
                raise ValueError(msg)
        bounds = tuple(bound.name for bound in resolve_all(plain["bounds"]))
        return cls(label_mapping=mapping, bounds=bounds, **texts)


def _to_json(label: Any) -> Any:
    plain = label.item() if hasattr(label, "item") else label
    return {"bytes": plain.hex()} if isinstance(plain, bytes) else plain


def _from_json(value: Any) -> Any:
    return bytes.fromhex(value["bytes"]) if isinstance(value, dict) else value


def write_at_once(path: Path, text: str) -> None:
    """Write a file so that at any moment, also after a crash, the old or the new text is there.

    Raises:
        OSError: It cannot be written; what was there stays.
    """
    fd, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Have the names of files that were made or renamed written to disk."""
    if os.name != "posix":
        return
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _read(path: Path, most: int) -> str:
    """Return the text of a regular file of no more than so many bytes; links and pipes are refused."""
    fd = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    with os.fdopen(fd, "rb") as file:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            msg = f"{path} is no regular file"
            raise ValueError(msg)
        if status.st_size > most:
            msg = f"{path} has {status.st_size} bytes, more than the {most} there may be"
            raise ValueError(msg)
        try:
            return file.read(most + 1).decode("utf-8")
        except UnicodeDecodeError:
            msg = f"{path} is damaged: it is not UTF-8"
            raise ValueError(msg) from None


def folder_of(mode: str, ds_id: str, epoch: int) -> Path:
    """Return where the parts of an epoch lie, relative to the run.

    Example:
        >>> folder_of("train", "a/b", 3).as_posix()
        'mode=train/ds_id=a%2Fb/epoch=3'
    """
    return Path(f"mode={quote(mode, safe='')}", f"ds_id={quote(ds_id, safe='')}", f"epoch={epoch}")


@dataclass(frozen=True)
class Place:
    """Where a part lies.

    Attributes:
        path: The file.
        mode: Mode, by the name of its folder.
        ds_id: Dataset, likewise.
        epoch: Epoch or step, likewise.
        is_open: Whether its name says that it was not closed.
    """

    path: Path
    mode: str
    ds_id: str
    epoch: int
    is_open: bool


def parts_of(folder: Path) -> tuple[list[Place], list[str]]:
    """Find the parts of a run.

    Args:
        folder: Of the run.

    Returns:
        The parts, by mode, dataset, epoch and name; and what else lies where only parts belong, or is no plain file
        or folder, in words.

    Raises:
        ValueError: A folder has more than a million entries.
    """
    strange: list[str] = []
    places = []
    for mode, in_mode in _subfolders(folder, "mode", strange, rest=False):
        for ds_id, in_ds in _subfolders(in_mode, "ds_id", strange):
            for epoch, in_epoch in _subfolders(in_ds, "epoch", strange):
                if not re.fullmatch(r"-?[0-9]{1,18}", epoch):
                    strange.append(f"{in_epoch} is no epoch")
                    continue
                for entry in _entries(in_epoch):
                    named = PART.fullmatch(entry.name)
                    if named is None or not entry.is_file(follow_symlinks=False):
                        strange.append(f"{entry.path} is no part")
                        continue
                    places.append(Place(Path(entry.path), mode, ds_id, int(epoch), named[1] is not None))
    return sorted(places, key=lambda p: (p.mode, p.ds_id, p.epoch, p.path.name)), strange


def _subfolders(folder: Path, key: str, strange: list[str], *, rest: bool = True) -> Iterator[tuple[str, Path]]:
    """Yield name and path of the folders called ``key=name``; note what else there is."""
    for entry in _entries(folder):
        if entry.name.startswith(f"{key}=") and entry.is_dir(follow_symlinks=False):
            name = unquote(entry.name.removeprefix(f"{key}="), errors="surrogateescape")
            if f"{key}={quote(name, safe='')}" == entry.name:
                yield name, Path(entry.path)
                continue
        if rest or entry.name.startswith(f"{key}="):
            strange.append(f"{entry.path} is no folder of one {key}")


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        found = []
        for entry in entries:
            found.append(entry)
            if len(found) > MOST_ENTRIES:
                msg = f"{folder} has more than {MOST_ENTRIES:,} entries; that is no recorded run"
                raise ValueError(msg)
    return sorted(found, key=lambda entry: entry.name)
