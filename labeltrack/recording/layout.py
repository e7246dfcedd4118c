"""The folder of a recorded run, and the names of its files.

::

    run.json                                       what was tracked (see `description`)
    journal-0001-0000.log                          what happened (see `journal`), one file per launch and process
    mode=train/ds_id=/epoch=3/part-….arrow         samples (see `part`)

Names are percent-encoded, so that modes and datasets can have any name and stay within the folder; other programs read
them as Hive partitions.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import accumulate, takewhile
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from labeltrack.recording.part import OPEN, Part
from labeltrack.recording.storage import EXHAUSTED

if TYPE_CHECKING:
    from labeltrack.recording.storage import Storage

LAST_STEP = 2**63 - 1
LONGEST_NAME = 255  # bytes; what file systems allow
SHORTENED_NAME = 120  # without its hash
SHORTENED = "+"  # does not occur in names that are only percent-encoded
LOCK = ".lock"  # held while a process joins the run

_PART = re.compile(
    r"(mode=[^/]*)/(ds_id=[^/]*)/epoch=(-?[0-9]{1,19})/"
    r"part-([0-9]{4,9})-([0-9]{4,9})-([0-9]{5,9})-([0-9]{4,9})\.arrow(\.open)?"
)
_JOURNAL = re.compile(r"journal-([0-9]{4,9})-([0-9]{4,9})\.log")


def folder_of(mode: str, ds_id: str, epoch: int) -> str:
    """Return the folder of the parts of an epoch, relative to the run, such as ``mode=train/ds_id=a%2Fb/epoch=3``."""
    return f"{_folder('mode', mode)}/{_folder('ds_id', ds_id)}/epoch={epoch}"


@functools.lru_cache(maxsize=4096)  # runs have many epochs of few modes and datasets
def _folder(key: str, name: str) -> str:
    """Return the name of a folder: percent-encoded; if too long, shortened, with a plus sign and a hash."""
    whole = f"{key}={quote(name, safe='', errors='surrogatepass')}"
    if len(whole) <= LONGEST_NAME:
        return whole
    room = SHORTENED_NAME - len(key) - len("=")
    lengths = accumulate(len(quote(char, safe="", errors="surrogatepass")) for char in name)
    kept = sum(1 for _ in takewhile(lambda length: length <= room, lengths))
    hashed = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    return f"{key}={quote(name[:kept], safe='', errors='surrogatepass')}+{hashed}"


def part_name(session: int, rank: int, attempt: int, index: int) -> str:
    """Return the name of a part: launch, process, attempt at the epoch, and number within that."""
    return f"part-{session:04d}-{rank:04d}-{attempt:05d}-{index:04d}.arrow"


def journal_name(session: int, rank: int) -> str:
    """Return the name of the journal of a process."""
    return f"journal-{session:04d}-{rank:04d}.log"


def writer_lock(rank: int) -> str:
    """Return the name of the file that a process locks while it records."""
    return f".writer-{rank:04d}.lock"


@dataclass(frozen=True)
class Place:
    """What the name of a part says."""

    name: str  # relative to the run
    mode: str
    ds_id: str
    epoch: int
    session: int  # number of the launch that wrote it
    rank: int  # number of the process within the launch
    attempt: int  # counts the attempts of the process in this mode
    index: int  # number within the attempt and dataset
    is_open: bool  # it was not closed


@dataclass
class Contents:
    """The files of a run."""

    places: list[Place] = field(default_factory=list)  # parts, sorted by mode, dataset, epoch and name
    journals: dict[tuple[int, int], str] = field(default_factory=dict)  # names by session and rank
    strange: list[str] = field(default_factory=list)  # messages about anything else where only parts belong


def contents_of(storage: Storage) -> Contents:
    """Find the files of a run; OSError if a folder cannot be read, ValueError if it has more than a million entries."""
    names, strange = storage.names()
    found = Contents(strange=strange)
    whole: dict[str, str] = {}  # modes and datasets by the shortened names of their folders
    for name in names:
        if SHORTENED in name and _PART.fullmatch(name):
            _learn(storage, name, whole)
    for name in names:
        if "/" not in name:
            if journal := _JOURNAL.fullmatch(name):
                found.journals[int(journal[1]), int(journal[2])] = name
            continue  # at the top, any file is allowed
        if (place := _place(name, whole)) is None:
            found.strange.append(f"{name} is no part")
        else:
            found.places.append(place)
    found.places.sort(key=lambda p: (p.mode, p.ds_id, p.epoch, p.name))
    return found


def size_of(storage: Storage, name: str) -> int:
    """Return the bytes of a part, which may have been closed and renamed since it was listed; 0 if it is gone."""
    for one in (name, name.removesuffix(OPEN)):
        with contextlib.suppress(FileNotFoundError):
            return storage.size(one)
    return 0


def begin_part(storage: Storage, name: str) -> tuple[Part, bool]:
    """Return a part by its first bytes, and whether these are all of them; OSError if they cannot be read."""
    head, whole = storage.head(name)
    part = Part(head)
    if part.schema is None and not whole:  # long names do not fit into the first bytes
        part, whole = Part(storage.content(name)), True
    return part, whole


def _learn(storage: Storage, name: str, whole: dict[str, str]) -> None:
    """Add the full names of a part's shortened folders, from its metadata."""
    shortened = [folder for folder in name.split("/")[:-1] if SHORTENED in folder and folder not in whole]
    if shortened:
        try:
            said = begin_part(storage, name)[0].metadata
        except OSError as error:
            if error.errno in EXHAUSTED:
                raise
            return
        whole.update({_folder(key, said[key]): said[key] for key in ("mode", "ds_id") if key in said})


def _place(name: str, whole: Mapping[str, str]) -> Place | None:
    """Return what the name of a part says; None if labeltrack gives no such name."""
    found = _PART.fullmatch(name)
    if found is None:
        return None
    try:
        mode, ds_id = (
            whole[folder] if SHORTENED in folder else unquote(folder.partition("=")[2], errors="surrogatepass")
            for folder in found.group(1, 2)
        )
    except (KeyError, UnicodeDecodeError):
        return None  # nothing tells the full name
    epoch, session, rank, attempt, index = map(int, found.group(3, 4, 5, 6, 7))
    if not -LAST_STEP - 1 <= epoch <= LAST_STEP or folder_of(mode, ds_id, epoch) != name.rpartition("/")[0]:
        return None  # not as labeltrack encodes it
    return Place(name, mode, ds_id, epoch, session, rank, attempt, index, found[8] is not None)
