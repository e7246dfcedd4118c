"""Checking all files of a recorded run, and repairing it: closing torn parts, rebuilding deleted journals.

Damage is found by what reads the files (`reader`, `part`); here it is put together.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from labeltrack.errors import counted, need
from labeltrack.recording.description import DESCRIPTION
from labeltrack.recording.epochs import RunIndex, read_vocabularies
from labeltrack.recording.journal import Journal
from labeltrack.recording.layout import contents_of, journal_name, size_of, writer_lock
from labeltrack.recording.part import OPEN, Part, PartWriter, examine, file_checksum
from labeltrack.recording.reader import PartReader, progress_bar
from labeltrack.recording.session import is_held
from labeltrack.recording.storage import EXHAUSTED, LocalFolder, sync_folder

if TYPE_CHECKING:
    from pathlib import Path

    from labeltrack.recording.description import Columns, Description
    from labeltrack.recording.epochs import Attempt, Epoch, PartEntry
    from labeltrack.recording.layout import Place
    from labeltrack.recording.storage import Storage

State = Literal["intact", "writing", "torn", "corrupt", "missing"]
_GOOD = ("intact", "writing")


@dataclass(frozen=True)
class PartReport:
    """The state of one part.

    Attributes:
        name: File name, relative to the run.
        state: ``"intact"``; ``"writing"``: a running process is writing it; ``"torn"``: it ends too early, as after a
            crash; ``"corrupt"``: bytes have changed; ``"missing"``.
        rows: Intact rows.
        lost: Damaged or missing rows, as far as their number is known.
        message: What is wrong; empty if nothing is.
    """

    name: str
    state: State
    rows: int
    lost: int
    message: str = ""


@dataclass(frozen=True)
class Verification:
    """The state of a run.

    Attributes:
        parts: Every file of samples.
        other: Other problems, one message each: a damaged, cut or missing description or journal, epochs that did not
            end or lack rows, and files that do not belong in the folder.
        unrecorded: Rows of the epochs that could not be written, according to the journals.
    """

    parts: tuple[PartReport, ...]
    other: tuple[str, ...] = ()
    unrecorded: int = 0

    @property
    def ok(self) -> bool:
        """Whether nothing is torn, corrupt, missing, lost or unfinished, except what a running process is writing."""
        return not self.other and all(part.state in _GOOD for part in self.parts)

    @property
    def rows(self) -> int:
        """Intact rows, in all attempts."""
        return sum(part.rows for part in self.parts)

    @property
    def lost(self) -> int:
        """Rows that are damaged or missing, or could not be recorded."""
        return sum(part.lost for part in self.parts) + self.unrecorded

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values."""
        parts = [asdict(part) for part in self.parts]
        return {"ok": self.ok, "rows": self.rows, "lost": self.lost, "parts": parts, "other": list(self.other)}

    def __str__(self) -> str:
        """Return one line per problem, and a summary."""
        bad = [part for part in self.parts if part.state not in _GOOD]
        lines = [f"{p.state}: {p.name}: {p.message} ({counted(p.rows, 'row')} intact, {p.lost:,} lost)" for p in bad]
        lines += [f"problem: {text}" for text in self.other]
        lines.append(f"{counted(len(self.parts), 'file')}, {counted(self.rows, 'row')} intact, {self.lost:,} lost")
        return "\n".join(lines)


def verify(index: RunIndex, columns: Columns, trouble: str = "", *, progress: bool = True) -> Verification:
    """Compare every checksum of a run; see `Run.verify`. `trouble` is what is wrong with its description."""
    every = _parts(index)
    sizes = {part.name: size_of(index.storage, part.name) for _, part in every if part.place is not None}
    reports = []
    with progress_bar("Verifying", sum(sizes.values()), "bytes", wanted=progress) as advance:
        for attempt, part in every:
            reports.append(_report(index, columns, attempt, part))
            advance(sizes.get(part.name, 0))
    other = [trouble] if trouble else []
    other += [f"{name}: {text}" for name, texts in index.damage.items() for text in texts]
    for (session, rank), name in index.contents.journals.items():
        if name in index.torn and not _is_live(index, session, rank):
            other.append(f"{name} ends within a line, as after a crash")
    rows = {report.name: report.rows for report in reports}
    other += [text for epoch in index.epochs for text in _problems(index, epoch, rows)]
    other += [text for (session, rank), text in index.gaps() if not _is_live(index, session, rank)]
    lost = sum(attempt.lost for epoch in index.epochs for attempt in epoch.attempts)
    return Verification(tuple(reports), tuple(other + index.contents.strange), lost)


def _problems(index: RunIndex, epoch: Epoch, rows: Mapping[str, int]) -> Iterator[str]:
    """Yield the problems of an epoch other than damaged parts."""
    for attempt, n in ended_without_journal(index, epoch, epoch.every_attempt):
        yield f"{attempt}: it ended, with {counted(n, 'row')}, but no journal says so"
    for attempt in epoch.attempts:
        if attempt.lost:
            yield f"{attempt}: {counted(attempt.lost, 'row')} could not be recorded"
    if epoch.newer and not _is_live(index, epoch.newer):
        yield epoch.older_session_message()
    live = any(_is_live(index, attempt.session) for attempt in epoch.attempts)
    if epoch.ended or not epoch.attempts or live:
        return
    intact = sum(rows[part.name] for attempt in epoch.attempts for part in attempt.parts)
    absent = f"; {epoch.absent}" if epoch.absent else ""
    yield f"mode {epoch.mode!r}, step {epoch.step} did not end; {intact} of its rows are intact{absent}"


def ended_without_journal(index: RunIndex, epoch: Epoch, attempts: Iterable[Attempt]) -> list[tuple[Attempt, int]]:
    """Return the attempts at an epoch that ended according to their parts but not to a journal, each with its rows."""
    # First the last batch of an attempt says that the epoch ended, then the journal. Without the latter, the journal
    # was damaged or cut, and an older attempt counts instead, or none.
    counting = {(one.session, one.rank): one.number for one in epoch.attempts if one.complete}
    since = max((session for session, _ in counting), default=0)
    found = []
    for attempt in attempts:
        older = attempt.session < since or attempt.number < counting.get((attempt.session, attempt.rank), 0)
        if attempt.complete or attempt.dropped or older or _is_being_written(index, attempt):
            continue
        batches = []
        for part in attempt.parts:
            try:
                if part.place is not None:
                    batches += examine(index.storage.content(part.name), check=False).batches
            except OSError as error:  # reading the part reports it
                if error.errno in EXHAUSTED:
                    raise
        if any("step" in batch.metadata for batch in batches):
            found.append((attempt, sum(batch.rows for batch in batches)))
    if found:  # a process that is no longer alive may have written its journal after that was read
        later = [one for each in RunIndex(index.storage, index.run).epochs for one in each.every_attempt]
        said = {_number(one) for one in later if one.complete or one.dropped}
        found = [(one, rows) for one, rows in found if _number(one) not in said]
    return found


def _number(attempt: Attempt) -> tuple[str, int, int, int]:
    return attempt.mode, attempt.session, attempt.rank, attempt.number


def _parts(index: RunIndex) -> list[tuple[Attempt, PartEntry]]:
    return [(one, part) for epoch in index.epochs for one in epoch.every_attempt for part in one.parts]


def _report(index: RunIndex, columns: Columns, attempt: Attempt, part: PartEntry) -> PartReport:
    live = _is_being_written(index, attempt)
    reader = PartReader(index.storage, part, columns)
    batches = reader.batches()
    if live:  # words are written before the codes that use them, but perhaps after the journal was read
        batches = iter([*batches])
        with contextlib.suppress(OSError):
            reader.learn(read_vocabularies(index.storage, part.journal))
    for batch in batches:
        reader.rows(batch)
    found = reader.finish()
    state: State = "intact"
    message = found.message
    if part.place is None:
        state = "missing"
    elif not message and part.xxh3 and file_checksum(reader.part.data) != part.xxh3:
        state = "corrupt"
        message = "bytes outside the samples have changed; labeltrack reads every row, other programs may not"
    elif live and not size_of(index.storage, part.name) and _is_elsewhere(index.storage, part.place):
        state, message = "writing", "it was moved, as its epoch has ended since"
    elif message and not found.torn:
        state = "corrupt"
    elif message or not reader.part.closed or reader.name.endswith(OPEN):
        state = "writing" if live else "torn"
        message = message or f"it was {'closed but not renamed' if reader.part.closed else 'not closed'}"
    return PartReport(part.name, state, found.rows, found.lost, message)


def _is_elsewhere(storage: Storage, place: Place) -> bool:
    """Return whether a part is in the folder of another epoch by now."""
    return any(
        replace(one, name=place.name, epoch=place.epoch, is_open=place.is_open) == place
        for one in contents_of(storage).places
    )


def _is_being_written(index: RunIndex, attempt: Attempt) -> bool:
    return not attempt.complete and _is_live(index, attempt.session, attempt.rank)


def _is_live(index: RunIndex, session: int, rank: int | None = None) -> bool:
    """Return whether a process of a session, or any of them, is recording at this moment."""
    journals, storage = index.contents.journals, index.storage
    if session != max((of for of, _ in journals), default=0) or not isinstance(storage, LocalFolder):
        return False
    ranks = [of for newest, of in journals if newest == session] if rank is None else [rank]
    return any(is_held(storage.path / writer_lock(one)) for one in ranks)


# -- repairing --------------------------------------------------------------------------------------------


def repair(index: RunIndex, description: Description) -> list[str]:
    """Close torn parts and rebuild deleted files; see `Run.repair`."""
    need("pyarrow")
    storage = index.storage
    if not isinstance(storage, LocalFolder):
        msg = f"only a run in a local folder can be repaired, got {storage.root}"
        raise ValueError(msg)  # noqa: TRY004 (it is the place that is wrong)
    repaired = []
    for attempt, part in _parts(index):
        if part.place is None or not part.place.is_open or _is_being_written(index, attempt):
            continue
        if _report(index, description.columns, attempt, part).state == "torn":
            _rewrite(storage.path / part.name, Part(storage.content(part.name)))
            repaired.append(part.name)
    with contextlib.suppress(FileExistsError):
        description.write(storage.path, replace=False)
        repaired.append(DESCRIPTION)
    return repaired + _rebuild_journals(storage, RunIndex(storage, description.id), description)


def _rebuild_journals(storage: LocalFolder, index: RunIndex, description: Description) -> list[str]:
    """Write missing journals, as far as parts tell what was in them; return their names."""
    lost: dict[tuple[int, int], list[Attempt]] = {}
    for attempt in dict.fromkeys(attempt for attempt, _ in _parts(index)):
        key = attempt.session, attempt.rank
        if key not in index.contents.journals and not _is_live(index, *key):
            lost.setdefault(key, []).append(attempt)
    written = []
    for (session, rank), attempts in sorted(lost.items()):
        attempts.sort(key=lambda one: (one.number, one.mode))
        keys = [(one.mode, one.number) for one in attempts]
        identity: dict[str, str] = {}
        found = [_epoch_line(storage, attempt, description, identity) for attempt in attempts]
        # The same attempt twice: a crash while its parts were moved to the step that it ended with.
        lines = [line for line, key in zip(found, keys, strict=True) if line and keys.count(key) == 1]
        if not lines:
            continue
        begin: dict[str, Any] = {"session": session, "rank": rank, "world_size": 1, "rebuilt": True}
        if identity["writer"]:
            size = index.world_size(session)
            begin |= {"world_size": size, "launch": "", "host": "", "writer": identity["writer"]}
        journal = Journal(storage.path / journal_name(session, rank))
        journal.append("begin", sync=False, **begin, run=replace(description, id=identity["run"]).plain())
        for line in lines:
            journal.append("epoch", sync=False, **line)
        journal.close(sync=True)
        written.append(journal.path.name)
    return written


def _epoch_line(
    storage: LocalFolder, attempt: Attempt, description: Description, identity: dict[str, str]
) -> dict[str, Any]:
    """Return what the journal said of an attempt and its datasets, from its parts; empty unless they say it ended."""
    streams: dict[str, dict[str, Part]] = {}
    ended: dict[str, bool] = {}
    adds = False
    for entry in sorted(attempt.parts, key=lambda one: one.name):
        part = examine(storage.content(entry.name))
        found = {key: part.metadata.get(key, "") for key in ("run", "writer")}
        parts = streams.setdefault(entry.ds_id, {})
        next_name = entry.place is not None and (entry.place.is_open, entry.place.index) == (False, len(parts))
        whole = next_name and part.closed and not part.damage
        if not whole or found["run"] not in ("", description.id) or (identity or found) != found:
            return {}
        identity.update(found)  # the same in all parts of a process
        parts[entry.name] = part
        last = part.batches[-1].metadata if part.batches else {}
        ended[entry.ds_id], adds = last.get("step") == str(attempt.step), last.get("adds") == "true"
    if not all(ended.values()):
        return {}
    said = []
    for ds_id, parts in streams.items():
        listed: list[dict[str, Any]] = [  # rewritten, as only the journal would tell of damaged footers
            {"name": name.rpartition("/")[2], "rows": part.rows, "xxh3": _rewrite(storage.path / name, part)}
            for name, part in parts.items()
        ]
        said.append({"ds_id": ds_id, "parts": listed, "rows": sum(one["rows"] for one in listed), "lost": 0})
    line = {"mode": attempt.mode, "step": attempt.step, "attempt": attempt.number, "streams": said}
    return line | ({"adds": True} if adds else {})


def _rewrite(path: Path, part: Part) -> str:
    """Replace a part by a closed one with its intact rows; return its checksum."""
    if part.schema is None:  # it has not a single row
        path.unlink()
        return ""
    target = path.with_name(path.name.removesuffix(OPEN))
    half = target.with_name(f".{target.name}")
    half.with_name(half.name + OPEN).unlink(missing_ok=True)  # of an interrupted repair
    metadata = {key: text for key, text in part.metadata.items() if key != "hash"}
    writer = PartWriter(half, part.schema.dtypes, metadata)
    try:
        for batch in part.walk(check=False):
            columns, agrees = part.read(batch)
            if agrees:
                known = ("seq", "rows", "xxh3", "about", "pad")
                writer.write(columns, {k: text for k, text in batch.metadata.items() if k not in known})
        writer.close(sync=True)
    except BaseException:
        writer.abandon()
        writer.open_path.unlink()
        raise
    writer.open_path.replace(target)
    if path != target:
        path.unlink()
    sync_folder(target.parent)
    return writer.checksum
