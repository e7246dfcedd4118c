"""What of a run is intact, file by file; closing what a crash left open, and writing anew what was deleted."""

from __future__ import annotations

import contextlib
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from labeltrack.errors import need
from labeltrack.recording.choice import unsaid
from labeltrack.recording.index import Catalog, describe, superseded
from labeltrack.recording.journal import Journal
from labeltrack.recording.layout import DESCRIPTION, journal_name, sync_folder, writer_lock
from labeltrack.recording.locks import is_held
from labeltrack.recording.part import OPEN, PartWriter, examine, file_checksum
from labeltrack.recording.progress import Progress
from labeltrack.recording.reader import Opened, source_of
from labeltrack.recording.storage import LocalFolder

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from labeltrack.recording.index import Attempt, Epoch, Segment
    from labeltrack.recording.layout import Description
    from labeltrack.recording.storage import Storage

State = Literal["intact", "writing", "torn", "corrupt", "missing"]


@dataclass(frozen=True)
class SegmentReport:
    """What is intact of one file.

    Attributes:
        name: Of the file, relative to the run.
        state: ``"intact"``; ``"writing"``, by a process that lives; ``"torn"``: it ends too early, as after a crash;
            ``"corrupt"``: bytes have changed; ``"missing"``.
        rows: Intact rows.
        lost: Rows that are damaged or gone, as far as anybody knows how many there were.
        message: What is wrong, in words; empty if nothing is.
    """

    name: str
    state: State
    rows: int
    lost: int
    message: str = ""


@dataclass(frozen=True)
class Verification:
    """What is intact of a run: the sum of all that is known.

    Attributes:
        segments: Every file of samples.
        other: What else is wrong, in words: description and journals that are damaged, cut or missing, epochs that did
            not end or lack rows, and what does not belong in the folder.
        unrecorded: Rows of the epochs that could not be written, by the journals.
    """

    segments: tuple[SegmentReport, ...]
    other: tuple[str, ...] = field(default=())
    unrecorded: int = 0

    @property
    def ok(self) -> bool:
        """Whether nothing is torn, corrupt, missing, lost or unfinished, but for what a living process is at."""
        return not self.other and all(segment.state in ("intact", "writing") for segment in self.segments)

    @property
    def rows(self) -> int:
        """Intact rows, those of all attempts."""
        return sum(segment.rows for segment in self.segments)

    @property
    def lost(self) -> int:
        """Rows that are damaged or gone, or could not be recorded."""
        return sum(segment.lost for segment in self.segments) + self.unrecorded

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {
            "ok": self.ok,
            "rows": self.rows,
            "lost": self.lost,
            "segments": [asdict(segment) for segment in self.segments],
            "other": list(self.other),
        }

    def __str__(self) -> str:
        """Return a line for everything that is wrong, and one for the whole."""
        bad = [segment for segment in self.segments if segment.state not in ("intact", "writing")]
        lines = [f"{s.state}: {s.name}: {s.message} ({s.rows} rows intact, {s.lost} lost)" for s in bad]
        lines += [f"wrong: {text}" for text in self.other]
        whole = f"{len(self.segments)} files, {self.rows} rows intact, {self.lost} lost"
        return "\n".join([*lines, whole])


def verify(storage: Storage, catalog: Catalog, trouble: str = "", *, progress: bool = True) -> Verification:
    """Compare every checksum of a run.

    Args:
        storage: Where it is.
        catalog: What its files say of each other.
        trouble: What is wrong with its description.
        progress: Whether to show a bar.
    """
    every = list(_segments(catalog))
    sizes = {s.name: storage.size(s.name) for _, s in every if s.place is not None}
    reports = []
    with Progress("Verifying", sum(sizes.values()), "bytes", wanted=progress) as bar:
        for attempt, segment in every:
            reports.append(_report(storage, catalog, attempt, segment))
            bar.advance(sizes.get(segment.name, 0))
    other = [trouble] if trouble else []
    other += [f"{name}: {text}" for name, texts in catalog.damage.items() for text in texts]
    other += [f"{name} ends within a line, as after a crash" for name in catalog.torn if not _is_written(storage, name)]
    rows = {report.name: report.rows for report in reports}
    other += [text for epoch in catalog.epochs for text in _lacking(storage, catalog, epoch, rows)]
    other += [text for (session, rank), text in catalog.gaps() if not _is_live(storage, catalog, session, rank)]
    lost = sum(attempt.lost for epoch in catalog.epochs for attempt in epoch.attempts)
    return Verification(tuple(reports), tuple(other + catalog.contents.strange), lost)


def _lacking(storage: Storage, catalog: Catalog, epoch: Epoch, rows: Mapping[str, int]) -> Iterator[str]:
    """Yield what an epoch lacks, beyond the files that belong to it."""
    for attempt, n in unsaid(storage, epoch, (*epoch.attempts, *epoch.others)):
        yield f"{describe(attempt)}: it ended, with {n} rows, and no journal says so"
    for attempt in epoch.attempts:
        if attempt.lost:
            yield f"{describe(attempt)}: {attempt.lost} rows could not be recorded"
    if epoch.newer and not _is_live(storage, catalog, epoch.newer):
        yield superseded(epoch)
    alive = any(_is_live(storage, catalog, attempt.session) for attempt in epoch.attempts)
    if epoch.ended or not epoch.attempts or alive:
        return
    intact = sum(rows[segment.name] for attempt in epoch.attempts for segment in attempt.segments)
    absent = f"; {epoch.absent}" if epoch.absent else ""
    yield f"mode {epoch.mode!r}, epoch {epoch.step} did not end; {intact} rows of it are intact{absent}"


def _segments(catalog: Catalog) -> Iterator[tuple[Attempt, Segment]]:
    for epoch in catalog.epochs:
        for attempt in (*epoch.attempts, *epoch.others):
            for segment in attempt.segments:
                yield attempt, segment


def _report(storage: Storage, catalog: Catalog, attempt: Attempt, segment: Segment) -> SegmentReport:
    opened = Opened(storage, source_of(catalog, attempt, segment))
    for batch in opened.batches():
        opened.columns(batch)
    found = opened.finish()
    state: State = "intact"
    message = found.message
    if segment.place is None:
        state = "missing"
    elif not message and segment.xxh3 and file_checksum(opened.part.data) != segment.xxh3:
        state = "corrupt"
        message = "bytes beside the samples have changed; labeltrack reads every row, other programs may not"
    elif message and not found.torn:
        state = "corrupt"
    elif message or not opened.part.closed:
        state = "writing" if _is_written_by(storage, catalog, attempt) else "torn"
        message = message or "it was not closed"
    elif segment.place.is_open:
        state, message = "torn", "it was closed and not renamed"
    return SegmentReport(segment.name, state, found.rows, found.lost, message)


def _is_written_by(storage: Storage, catalog: Catalog, attempt: Attempt) -> bool:
    """Return whether a process is at work on an attempt at this moment."""
    return not attempt.complete and _is_live(storage, catalog, attempt.session, attempt.rank)


def _is_live(storage: Storage, catalog: Catalog, session: int, rank: int | None = None) -> bool:
    """Return whether a process of a launch is recording at this moment."""
    journals = catalog.contents.journals
    if session != max((of for of, _ in journals), default=0) or not isinstance(storage, LocalFolder):
        return False
    ranks = [of for newest, of in journals if newest == session] if rank is None else [rank]
    return any(is_held(storage.path / writer_lock(one)) for one in ranks)


def _is_written(storage: Storage, journal: str) -> bool:
    rank = int(journal.removesuffix(".log").rpartition("-")[2])
    return isinstance(storage, LocalFolder) and is_held(storage.path / writer_lock(rank))


def repair(storage: Storage, catalog: Catalog, description: Description) -> list[str]:
    """Close parts that a crash left open, and write anew what was deleted; see `Run.repair`."""
    need("pyarrow")
    if not isinstance(storage, LocalFolder):
        msg = f"only a run in a folder of this machine can be repaired, and this is {storage.root}"
        raise ValueError(msg)  # noqa: TRY004 (it is the place that is wrong)
    closed = []
    for attempt, segment in _segments(catalog):
        if segment.place is None or not segment.place.is_open or _is_written_by(storage, catalog, attempt):
            continue
        if _report(storage, catalog, attempt, segment).state == "torn":
            _close(storage.path, Opened(storage, source_of(catalog, attempt, segment)))
            closed.append(segment.name)
    with contextlib.suppress(FileExistsError):
        description.write(storage.path, replace=False)
        closed.append(DESCRIPTION)
    return closed + _write_journals(storage, Catalog(storage, description.id), description)


def _write_journals(storage: LocalFolder, catalog: Catalog, description: Description) -> list[str]:
    """Write journals that are missing anew, as far as parts say what was in them."""
    lost: dict[tuple[int, int], list[Attempt]] = {}
    for epoch in catalog.epochs:
        for attempt in (*epoch.attempts, *epoch.others):
            key = attempt.session, attempt.rank
            if key not in catalog.contents.journals and not _is_live(storage, catalog, *key):
                lost.setdefault(key, []).append(attempt)
    written = []
    for (session, rank), attempts in sorted(lost.items()):
        attempts.sort(key=lambda one: (one.number, one.mode))
        keys = [(one.mode, one.number) for one in attempts]
        said: dict[str, str] = {}
        lines = []
        for attempt in attempts:
            streams = _streams_of(storage, attempt, description, said)
            if keys.count((attempt.mode, attempt.number)) > 1:
                continue  # it broke off while its parts were moved
            if streams:
                of_epoch = {"mode": attempt.mode, "step": attempt.step, "attempt": attempt.number}
                lines.append({**of_epoch, "streams": streams})
        if not lines:
            continue
        known = {"world_size": catalog.size_of(session), "launch": "", "host": "", "writer": said.get("writer", "")}
        journal = Journal(storage.path / journal_name(session, rank))
        run = replace(description, id=said.get("run", "")).plain()
        of = {"session": session, "rank": rank, "world_size": 1, "rebuilt": True}
        journal.append("begin", sync=False, **of | (known if known["writer"] else {}), run=run)
        for line in lines:
            journal.append("epoch", sync=False, **line)
        journal.close(sync=True)
        written.append(journal.path.name)
    return written


def _streams_of(
    storage: LocalFolder, attempt: Attempt, description: Description, said: dict[str, str]
) -> list[dict[str, Any]]:
    """Return what the journal would say of an attempt that ended, by its parts; nothing if these do not say so.

    Args:
        storage: Where they are.
        attempt: Which one.
        description: Of the run.
        said: What the parts of the process say of it; the first one decides.
    """
    streams: dict[str, list[dict[str, Any]]] = {}
    ended: dict[str, bool] = {}
    for segment in sorted(attempt.segments, key=lambda one: one.name):
        if segment.place is None:
            return []
        content = storage.content(segment.name)
        part = examine(segment.name, content)
        who = {key: part.metadata.get(key, "") for key in ("run", "writer")}
        parts = streams.setdefault(segment.ds_id, [])
        place = segment.place
        whole = part.closed and not part.damage and not place.is_open
        if not whole or place.index != len(parts) or who["run"] not in ("", description.id):
            return []
        if (said or who) != who:
            return []
        said.update(who)
        name = place.name.rpartition("/")[2]
        parts.append({"name": name, "rows": part.rows, "xxh3": file_checksum(content)})
        ended[segment.ds_id] = part.batches[-1:] != [] and part.batches[-1].metadata.get("step") == str(attempt.step)
    if not all(ended.values()):
        return []
    return [
        {"ds_id": ds_id, "parts": parts, "rows": sum(part["rows"] for part in parts), "lost": 0}
        for ds_id, parts in streams.items()
    ]


def _close(root: Path, opened: Opened) -> None:
    """Write the whole rows of a torn part into a closed one, and put that in its place."""
    torn = root / opened.source.name
    schema = opened.part.schema
    if schema is None or not opened.kind:  # there is not a single row in it
        torn.unlink()
        return
    target = torn.with_name(torn.name.removesuffix(OPEN))
    half = target.with_name(f".{target.name}")
    half.with_name(half.name + OPEN).unlink(missing_ok=True)  # of a repair that was interrupted
    metadata = {key: text for key, text in opened.part.metadata.items() if key != "hash"}
    writer = PartWriter(half, opened.label_dtype, schema.dtypes["value"], metadata)
    try:
        for batch in opened.batches():
            columns = opened.columns(batch)
            if columns is not None:
                known = ("seq", "rows", "xxh3", "about", "pad")
                writer.write(*columns, {k: text for k, text in batch.metadata.items() if k not in known})
        writer.close(sync=True)
    except BaseException:
        writer.abandon()
        writer.open_path.unlink()
        raise
    writer.open_path.replace(target)
    torn.unlink()
    sync_folder(target.parent)
