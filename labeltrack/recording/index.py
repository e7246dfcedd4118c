"""What a recorded run holds: attempts at epochs, and which of them count.

An *attempt* is what one process recorded of one mode from one end of an epoch to the next. It is complete when the
journal says so, after all its parts were closed. A *session* is one launch of the training, of one process or several.
An epoch is complete in a session when every process that takes part in its mode has a complete attempt at it; of
several sessions the newest complete one counts, and nothing of one is ever mixed with another.
"""

from __future__ import annotations

import contextlib
import itertools
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from labeltrack._labels.codes import BYTES, STRING
from labeltrack.errors import listing
from labeltrack.recording.journal import Lines, read_journal
from labeltrack.recording.layout import Contents, Place, contents_of, folder_of, journal_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from labeltrack.recording.storage import Storage

Words = npt.NDArray[Any]
MOST_PROCESSES = 10**6
_Vocabularies = dict[int, tuple[str, list[Any]]]


@dataclass(frozen=True)
class Segment:
    """A part, and what the journal says of it.

    Attributes:
        name: Of the file, relative to the run.
        place: What the name says; None if the file is missing.
        ds_id: Dataset.
        rows: How many were written, by the journal; None if it says nothing.
        xxh3: Checksum of the file, by the journal; empty if it says nothing.
    """

    name: str
    place: Place | None
    ds_id: str
    rows: int | None = None
    xxh3: str = ""


@dataclass(frozen=True)
class Attempt:
    """What one process recorded of one mode from one end of an epoch to the next.

    Attributes:
        mode: Mode.
        step: Epoch or step; if it did not end, the one it was expected to be.
        session: Number of the launch.
        rank: Number of the process.
        number: Which attempt of that process in that mode.
        complete: Whether the journal says that it ended.
        dropped: Whether its samples were given up (`LabelTracker.reset`).
        line: Number of the line of the journal that says so; attempts that did not end have a high one.
        segments: Parts, by dataset in the order of the history.
        lost: Rows that could not be written, by the journal.
    """

    mode: str
    step: int
    session: int
    rank: int
    number: int
    complete: bool
    dropped: bool
    line: int
    segments: tuple[Segment, ...]
    lost: int = 0


@dataclass(frozen=True)
class Epoch:
    """One epoch of one mode.

    Attributes:
        mode: Mode.
        step: Epoch or step.
        ended: Whether it ended, for all its processes.
        attempts: Those that count, one a process.
        others: Those that do not: older ones, or torn ones.
        absent: Which processes of its launch are not there, in words; empty if all are.
        newer: The newest launch that ended it in some of its processes, where an older one counts; 0 if there is none.
        newer_absent: Which processes of that one are not there, in words.
    """

    mode: str
    step: int
    ended: bool
    attempts: tuple[Attempt, ...]
    others: tuple[Attempt, ...]
    absent: str = ""
    newer: int = 0
    newer_absent: str = ""

    @property
    def complete(self) -> bool:
        """Whether it ended, and no row of it was lost while recording."""
        return self.ended and not any(attempt.lost for attempt in self.attempts)

    @property
    def ds_ids(self) -> list[str]:
        """Datasets, in the order of the history."""
        return list(dict.fromkeys(segment.ds_id for attempt in self.attempts for segment in attempt.segments))


@dataclass
class _Writer:
    """What the journal of one process says."""

    lines: Lines
    world_size: int = 0  # 0: it does not say how many must be there
    run: str | None = None  # random texts that its parts repeat; None if it does not say
    writer: str | None = None
    rebuilt: bool = False
    closed: bool = False
    modes: set[str] = field(default_factory=set)
    last: dict[str, int] = field(default_factory=dict)  # highest step that ended, by mode


class _ForeignError(ValueError):
    """A journal is of another run."""


class Catalog:
    """What the files of a run say of each other.

    Args:
        storage: Where they are.
        run: Random text that identifies it, from its description; empty if nobody knows.

    Attributes:
        contents: The files.
        epochs: Every epoch, complete ones first, in the order in which they ended.
        damage: What is wrong with the journals, in words, by name.
        torn: Names of journals that end within a line.
        sessions: How many launches there were.

    Raises:
        OSError: The folder cannot be read.
        ValueError: There are more files than a run can have.
    """

    def __init__(self, storage: Storage, run: str = "") -> None:
        self.contents: Contents = contents_of(storage)
        self.damage: dict[str, list[str]] = {}
        self.torn: list[str] = []
        self._writers: dict[tuple[int, int], _Writer] = {}
        self._words: dict[tuple[int, int], dict[str, Words]] = {}
        self._ended: dict[tuple[int, int, str, int], dict[str, Any]] = {}
        self._dropped: set[tuple[int, int, str, int]] = set()
        self.description: Any = None
        self._run = run
        for key, name in sorted(self.contents.journals.items()):
            self._read(storage, key, name)
        sessions = {session for session, _ in self._writers}
        self.sessions = len(sessions)
        self._absent = {session: self._absence(session) for session in sessions}
        self.epochs = self._epochs(self._attempts())

    def words_of(self, session: int, rank: int) -> dict[str, Words]:
        """Return the vocabularies of a process: the ``(V,)`` words that codes stand for, by number as text."""
        return self._words.get((session, rank), {})

    def size_of(self, session: int) -> int:
        """Return of how many processes a launch is; 0 if nobody says."""
        return max((writer.world_size for (of, _), writer in self._writers.items() if of == session), default=0)

    def identity_of(self, session: int, rank: int) -> dict[str, str]:
        """Return what the parts of a process say of the run and of the process; texts that it does not have are empty.

        Without its journal, "run" is what those say that have it at all.
        """
        said = self._writers.get((session, rank))
        if said is None or said.run is None:
            return {"run": self._run} if self._run else {}
        return {"run": said.run, "writer": said.writer or ""}

    # -- journals -----------------------------------------------------------------------------------------

    def _read(self, storage: Storage, key: tuple[int, int], name: str) -> None:
        with storage.open(name) as file:
            lines = read_journal(file)
        writer = self._writers[key] = _Writer(lines)
        damage = list(lines.damage)
        words: _Vocabularies = {}
        for line in lines.lines:
            try:
                self._take(key, writer, line, words)
            except _ForeignError as error:
                del self._writers[key]
                damage = [str(error)]
                break
            except (KeyError, TypeError, ValueError) as error:
                damage.append(f"line {line['seq']} cannot be understood: {type(error).__name__} {error}")
        self._words[key] = _arrays(words)
        if damage:
            self.damage[name] = damage
        if lines.torn:
            self.torn.append(name)

    def _take(self, key: tuple[int, int], writer: _Writer, line: dict[str, Any], words: _Vocabularies) -> None:
        """Take in one line."""
        event = line["event"]
        if event == "begin":
            if (line["session"], line["rank"]) != key:
                msg = f"it is of session {line['session']}, process {line['rank']}"
                raise ValueError(msg)
            run = str(line["run"].get("id", ""))
            if run and self._run and run != self._run:
                msg = "it is the journal of another run, and not used"
                raise _ForeignError(msg)
            self._run = self._run or run
            if "writer" in line:
                writer.world_size = min(int(line["world_size"]), MOST_PROCESSES)
            writer.rebuilt = bool(line.get("rebuilt"))
            writer.run, writer.writer = run, str(line.get("writer", ""))
            self.description = line["run"]
        elif event == "stream":
            writer.modes.add(str(line["mode"]))
        elif event == "words":
            _learn(line, words)
        elif event == "epoch":
            mode, step = str(line["mode"]), int(line["step"])
            _check_streams(line["streams"])
            self._ended[*key, mode, int(line["attempt"])] = {**line, "mode": mode, "step": step}
            writer.modes.add(mode)
            writer.last[mode] = max(step, writer.last.get(mode, step))
        elif event == "reset":
            self._dropped.add((*key, str(line["mode"]), int(line["attempt"])))
        elif event == "end":
            writer.closed = True

    # -- attempts -----------------------------------------------------------------------------------------

    def _attempts(self) -> list[Attempt]:
        places = {(p.mode, p.ds_id, p.epoch, p.closed_name.rpartition("/")[2]): p for p in self.contents.places}
        attempts = []
        for (session, rank, mode, number), line in self._ended.items():
            segments = []
            for stream in line["streams"]:
                folder = folder_of(mode, stream["ds_id"], line["step"])
                for part in stream["parts"]:
                    place = places.pop((mode, stream["ds_id"], line["step"], part["name"]), None)
                    name = f"{folder}/{part['name']}" if place is None else place.name
                    segments.append(Segment(name, place, stream["ds_id"], part["rows"], part["xxh3"]))
            lost = sum(stream["lost"] for stream in line["streams"])
            attempts.append(
                Attempt(
                    *(mode, line["step"], session, rank, number),
                    complete=True,
                    dropped=False,
                    line=line["seq"],
                    segments=tuple(segments),
                    lost=lost,
                )
            )
        rest: dict[tuple[str, int, int, int, int], list[Segment]] = defaultdict(list)
        for place in places.values():
            key = (place.mode, place.epoch, place.session, place.rank, place.attempt)
            rest[key].append(Segment(place.name, place, place.ds_id))
        for (mode, step, session, rank, number), found in rest.items():
            dropped = (session, rank, mode, number) in self._dropped
            attempts.append(
                Attempt(
                    *(mode, step, session, rank, number),
                    complete=False,
                    dropped=dropped,
                    line=2**62,
                    segments=tuple(found),
                )
            )
        return attempts

    def gaps(self) -> list[tuple[tuple[int, int], str]]:
        """Return what must have been there and is not, in words, with the session and rank it is of."""
        attempts = [one for epoch in self.epochs for one in (*epoch.attempts, *epoch.others)]
        numbers: dict[tuple[int, int, str], set[int]] = defaultdict(set)
        for session, rank, mode, number in [(a.session, a.rank, a.mode, a.number) for a in attempts] + [*self._dropped]:
            numbers[session, rank, mode].add(number)
        found = [] if self.contents.journals or attempts else [((0, 0), "there is neither a journal nor a part")]
        for session, rank in sorted({(a.session, a.rank) for a in attempts} - self._writers.keys()):
            text = f"{journal_name(session, rank)} is missing, so that nothing says which of its epochs ended"
            found.append(((session, rank), text))
        sessions = {session for session, _ in self._writers} | {attempt.session for attempt in attempts}
        found += [((0, 0), f"nothing is left of session {missing}") for missing in _between(sessions, 1)]
        for (session, rank, mode), have in sorted(numbers.items()):
            of = f"session {session}, process {rank} at mode {mode!r}"
            found += [((session, rank), f"nothing is left of attempt {number} of {of}") for number in _between(have, 1)]
        done = {(attempt.session, attempt.mode) for attempt in attempts if attempt.complete}
        for (session, rank), writer in sorted(self._writers.items()):
            if writer.rebuilt:
                text = "was written anew from the parts that were there; what else it had said is not known"
                found.append(((session, rank), f"{journal_name(session, rank)} {text}"))
            for mode in sorted(writer.modes):
                if (session, rank, mode) not in numbers and not any(m == mode and s > session for s, m in done):
                    text = f"nothing is left of the samples that session {session}, process {rank} had of mode {mode!r}"
                    found.append(((session, rank), text))
        for attempt in attempts:
            if not attempt.complete:
                found += [((attempt.session, attempt.rank), text) for text in _missing_parts(attempt)]
        return found

    def _epochs(self, attempts: list[Attempt]) -> list[Epoch]:
        by_epoch: dict[tuple[str, int], list[Attempt]] = defaultdict(list)
        for attempt in attempts:
            by_epoch[attempt.mode, attempt.step].append(attempt)
        epochs = []
        for (mode, step), found in by_epoch.items():
            found.sort(key=lambda a: (a.session, a.rank, a.number))
            counting, ended = self._counting(mode, step, [attempt for attempt in found if not attempt.dropped])
            others = tuple(attempt for attempt in found if attempt not in counting)
            session = counting[0].session if counting else 0
            newer = max((one.session for one in others if one.complete and one.session > session > 0), default=0)
            absent = [self._absent.get(of, "") for of in (session, newer)]
            epochs.append(Epoch(mode, step, ended, tuple(counting), others, absent[0], newer, absent[1]))

        def when(epoch: Epoch) -> tuple[Any, ...]:
            ended = [attempt for attempt in epoch.attempts if attempt.complete]
            if not ended:
                return (1, 0, 0, epoch.mode, epoch.step)
            return (0, ended[0].session, ended[0].line, epoch.mode, epoch.step)

        return sorted(epochs, key=when)

    def _counting(self, mode: str, step: int, attempts: list[Attempt]) -> tuple[list[Attempt], bool]:
        """Return the attempts that count, and whether the epoch ended for all processes."""
        sessions = sorted({attempt.session for attempt in attempts}, reverse=True)
        newest: list[Attempt] = []
        for session in sessions:
            best: dict[int, Attempt] = {}
            for attempt in attempts:
                if attempt.session == session:
                    before = best.get(attempt.rank)
                    if before is None or (attempt.complete, attempt.number) > (before.complete, before.number):
                        best[attempt.rank] = attempt
            ended = not self._absent.get(session) and all(attempt.complete for attempt in best.values())
            ended = ended and not any(
                of == session and rank not in best and self._is_awaited(writer, mode, step)
                for (of, rank), writer in self._writers.items()
            )
            counting = [best[rank] for rank in sorted(best)]
            if ended:
                return counting, True
            newest = newest or counting
        return newest, False

    def _absence(self, session: int) -> str:
        """Return which processes of a launch never began to record, or have no journal, in words."""
        there = {rank for of, rank in self._writers if of == session}
        size = self.size_of(session)
        missing = [rank for rank in range(size) if rank not in there]
        return (
            f"session {session} is of {size} processes, and there is no journal of number {listing(missing, 5)} (to "
            "record in one of many, say Recording(path, rank=0, world_size=1))"
            if missing
            else ""
        )

    @staticmethod
    def _is_awaited(writer: _Writer, mode: str, step: int) -> bool:
        """Return whether a process that has nothing of an epoch should have: it crashed before, or is still at it.

        A process may leave a mode out altogether (evaluation on the first one alone), or an epoch of it.
        """
        return mode in writer.modes and not writer.closed and writer.last.get(mode, step - 1) < step


def superseded(epoch: Epoch) -> str:
    """Return that an older launch counts in place of one that did not end an epoch as a whole, in words."""
    absent = f"; {epoch.newer_absent}" if epoch.newer_absent else ""
    return (
        f"mode {epoch.mode!r}, epoch {epoch.step} is that of session {epoch.attempts[0].session}, as not all processes "
        f"of session {epoch.newer} ended it{absent}"
    )


def _missing_parts(attempt: Attempt) -> Iterator[str]:
    """Yield what lacks between the parts of an attempt that no journal lists."""
    have: dict[str, set[int]] = defaultdict(set)
    for segment in attempt.segments:
        if segment.place is not None:
            have[segment.ds_id].add(segment.place.index)
    for ds_id, known in have.items():
        for index in _between(known, 0):
            yield f"{describe(attempt)}: part {index} of ds_id {ds_id!r} is missing"


def _between(numbers: set[int], first: int) -> list[str]:
    """Return which numbers lack, from the first one on, in words."""
    ordered = [first - 1, *sorted(numbers)]
    pairs = [(low + 1, high - 1) for low, high in itertools.pairwise(ordered) if high > low + 1]
    return [str(low) if low == high else f"{low} to {high}" for low, high in pairs]


def describe(attempt: Attempt) -> str:
    """Return which attempt it is, in words."""
    return f"mode {attempt.mode!r}, epoch {attempt.step}, session {attempt.session}, process {attempt.rank}"


def words_in(storage: Storage, journal: str) -> dict[str, Words]:
    """Return the vocabularies in a journal: the ``(V,)`` words that codes stand for, by number as text."""
    words: _Vocabularies = {}
    with storage.open(journal) as file:
        for line in read_journal(file).lines:
            if line["event"] == "words":
                with contextlib.suppress(KeyError, TypeError, ValueError):  # which the catalog tells of
                    _learn(line, words)
    return _arrays(words)


def _learn(line: dict[str, Any], words: _Vocabularies) -> None:
    """Take in a line with words.

    Raises:
        ValueError: They do not follow those before.
    """
    kind, known = words.setdefault(line["vocabulary"], (str(line["kind"]), []))
    if line["first"] != len(known) or kind not in (STRING, BYTES) or kind != line["kind"]:
        msg = f"words from code {line['first']} on, {len(known)} are known"
        raise ValueError(msg)
    known += [bytes.fromhex(word) if kind == BYTES else _text(word) for word in line["words"]]


def _arrays(words: _Vocabularies) -> dict[str, Words]:
    return {str(number): np.array(known, dtype=object) for number, (_, known) in words.items()}


def _text(word: Any) -> str:
    if not isinstance(word, str):
        msg = f"a word of type {type(word).__name__}"
        raise TypeError(msg)
    return word


def _check_streams(streams: Any) -> None:
    """See that streams of an epoch are what they should be.

    Raises:
        KeyError: Something is missing.
        TypeError: Something is of another type.
    """
    for stream in streams:
        numbers = [stream["rows"], stream["lost"], *(part["rows"] for part in stream["parts"])]
        texts = [stream["ds_id"], *(part[key] for part in stream["parts"] for key in ("name", "xxh3"))]
        if not all(type(n) is int and n >= 0 for n in numbers) or not all(isinstance(text, str) for text in texts):
            msg = "numbers or names that are none"
            raise TypeError(msg)
