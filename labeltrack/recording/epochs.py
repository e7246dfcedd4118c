"""The epochs of a recorded run, put together from its journals and file names, and selected by mode and step.

An *attempt* is what one process recorded of one mode from one end of an epoch to the next. It is complete if the
journal says so, after all its parts were closed. A *session* is one launch of the training. An epoch is complete in a
session when every process that takes part in its mode has a complete attempt at it. The newest session in which an
epoch is complete counts; sessions are never mixed.
"""

from __future__ import annotations

import contextlib
import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from labeltrack._filters import Selection, check_step
from labeltrack.errors import listing, missing_key
from labeltrack.recording.journal import read_journal
from labeltrack.recording.keys import Words
from labeltrack.recording.layout import Contents, Place, contents_of, folder_of, journal_name
from labeltrack.recording.part import OPEN

if TYPE_CHECKING:
    from labeltrack.recording.storage import Storage

MOST_PROCESSES = 10**6
_NO_LINE = 2**62  # sorts attempts without a journal line last


@dataclass(frozen=True)
class PartEntry:
    """A part of an attempt, with everything that reading it takes, so that it can be sent to another machine."""

    name: str  # of the file, relative to the run
    place: Place | None  # None: the file is missing
    about: tuple[str, str, int, int, int, int]  # mode, ds_id, step, session, process, attempt
    rows: int | None  # according to the journal; None: it does not say
    xxh3: str  # of the whole file, according to the journal; empty: it does not say
    metadata: tuple[tuple[str, str], ...]  # that the file must have
    journal: str  # of the process that wrote it
    words: dict[str, Words] = field(compare=False)  # what codes stand for, by number of the vocabulary

    @property
    def ds_id(self) -> str:
        """Dataset."""
        return self.about[1]


@dataclass(frozen=True)
class Attempt:
    """What one process recorded of one mode from one end of an epoch to the next."""

    mode: str
    step: int  # the expected one if the epoch did not end
    session: int
    rank: int
    number: int  # counts the attempts of this process in this mode
    parts: tuple[PartEntry, ...]  # by dataset in the order of the history
    complete: bool = False  # the journal says that the epoch ended
    adds: bool = False  # other datasets to the attempt before, which counts, too
    dropped: bool = False  # the samples were discarded by `LabelTracker.reset`
    lost: int = 0  # rows that could not be written
    line: int = _NO_LINE  # of the journal, where the epoch ended

    def __str__(self) -> str:
        return f"mode {self.mode!r}, step {self.step}, session {self.session}, process {self.rank}"


@dataclass(frozen=True)
class RecordedEpoch:
    """One epoch of one mode in a recorded run.

    Attributes:
        mode: Mode.
        step: Step, such as the number of the epoch; if it did not end, the expected one.
        ds_ids: Datasets.
        rows: Number of recorded samples; 0 if the epoch did not end, as they were not counted.
        complete: Whether it ended and every sample was recorded.
        lost: Number of samples that could not be recorded.
        other_attempts: Number of other attempts, which were interrupted or repeated.
    """

    mode: str
    step: int
    ds_ids: tuple[str, ...]
    rows: int
    complete: bool
    lost: int
    other_attempts: int


@dataclass(frozen=True)
class Epoch:
    """One epoch of one mode."""

    mode: str
    step: int
    ended: bool  # in all its processes
    attempts: tuple[Attempt, ...]  # those that count, by process
    others: tuple[Attempt, ...]  # superseded and interrupted ones
    absent: str = ""  # message about processes of its session without a journal
    newer: int = 0  # the newest session in which only some processes ended it; 0: there is none
    newer_absent: str = ""  # likewise, of that session

    @property
    def complete(self) -> bool:
        """Whether it ended and every row was recorded."""
        return self.ended and not any(attempt.lost for attempt in self.attempts)

    @property
    def every_attempt(self) -> tuple[Attempt, ...]:
        """The attempts that count, then the others."""
        return *self.attempts, *self.others

    @property
    def ds_ids(self) -> list[str]:
        """Datasets, in the order of the history."""
        return list(dict.fromkeys(part.ds_id for attempt in self.attempts for part in attempt.parts))

    def parts(self, ds_id: str) -> list[PartEntry]:
        """Return the parts of a dataset that count, in order of processes."""
        return [part for attempt in self.attempts for part in attempt.parts if part.ds_id == ds_id]

    def recorded(self) -> RecordedEpoch:
        """Return what users see of it."""
        return RecordedEpoch(
            mode=self.mode,
            step=self.step,
            ds_ids=tuple(self.ds_ids),
            rows=sum(part.rows or 0 for attempt in self.attempts for part in attempt.parts),
            complete=self.complete,
            lost=sum(attempt.lost for attempt in self.attempts),
            other_attempts=len(self.others),
        )

    def older_session_message(self) -> str:
        """Return the message that an older session counts, as the newer one did not end the epoch everywhere."""
        return (
            f"mode {self.mode!r}, step {self.step} is taken from session {self.attempts[0].session}, because not all "
            f"processes of session {self.newer} ended it{self.newer_absent and f'; {self.newer_absent}'}"
        )


@dataclass
class _Process:
    """What the journal of one process says."""

    world_size: int = 0  # 0: unknown
    run: str | None = None  # random identifiers that its parts repeat; None: unknown
    writer: str = ""
    rebuilt: bool = False
    closed: bool = False
    modes: set[str] = field(default_factory=set)
    last: dict[str, int] = field(default_factory=dict)  # highest step that ended, by mode
    vocabularies: dict[str, Words] = field(default_factory=dict)  # by number

    def add_words(self, line: dict[str, Any]) -> None:
        """Add the words of a line; KeyError, TypeError or ValueError if they do not continue the known ones."""
        kind, number = str(line["kind"]), str(line["vocabulary"])
        known = self.vocabularies.get(number) or Words(kind)
        if line["first"] != len(known) or kind != known.kind:
            msg = f"it has words from code {line['first']} on, and {len(known)} are known"
            raise ValueError(msg)
        known.add(line["words"])
        self.vocabularies[number] = known

    def is_awaited(self, mode: str, step: int) -> bool:
        """Return whether it should have an attempt at an epoch: it crashed before that, or is still at work."""
        # It may leave out a mode altogether (evaluation on the first process alone), or an epoch of it.
        return mode in self.modes and not self.closed and self.last.get(mode, step - 1) < step


class _ForeignError(ValueError):
    """A journal belongs to another run."""


class RunIndex:
    """The epochs of a run, by its journals and names of files; OSError or ValueError if these cannot be read."""

    def __init__(self, storage: Storage, run: str = "") -> None:
        self.storage = storage
        self.contents: Contents = contents_of(storage)
        self.damage: dict[str, list[str]] = {}  # of journals, by name
        self.torn: list[str] = []  # names of journals that end within a line
        self.description: Any = None  # the copy in the last journal, unchecked
        self.run = run  # its random identifier, from the description; empty if unknown
        self._processes: dict[tuple[int, int], _Process] = {}
        self._ended: dict[tuple[int, int, str, int], dict[str, Any]] = {}
        self._dropped: set[tuple[int, int, str, int]] = set()
        for key, name in sorted(self.contents.journals.items()):
            self._read(storage, key, name)
        ended = ((line["mode"], line["step"], of) for line in self._ended.values() for of in line["streams"])
        named = {f"{folder_of(mode, of['ds_id'], step)}/{p['name']}" for mode, step, of in ended for p in of["parts"]}
        if not named <= {place.name for place in self.contents.places}:  # closed by a process since they were listed
            self.contents.places = contents_of(storage).places
        sessions = {session for session, _ in self._processes}
        self.sessions = len(sessions)
        self._absent = {session: self._absence(session) for session in sessions}
        self.epochs = self._epochs(self._attempts())  # complete ones first, in the order in which they ended

    def world_size(self, session: int) -> int:
        """Return the number of processes of a session; 0 if unknown."""
        return max((process.world_size for (of, _), process in self._processes.items() if of == session), default=0)

    def select(self, modes: Any, steps: Any, what: str, *, incomplete: bool) -> tuple[list[Epoch], list[Epoch]]:
        """Return the selected epochs, and those that are left out because they are incomplete; see `Run.samples`."""
        selection = _selection(modes, {epoch.mode for epoch in self.epochs}, what, "recorded mode")
        chosen = [epoch for epoch in self.epochs if epoch.mode in selection and (epoch.attempts or incomplete)]
        if steps is not None:
            wanted = {check_step(step) for step in (steps if isinstance(steps, Iterable) else [steps])}
            there = {epoch.step for epoch in chosen}
            if wanted - there:
                raise missing_key(min(wanted - there), sorted(there), "recorded step")
            chosen = [epoch for epoch in chosen if epoch.step in wanted]
        left_out = [] if incomplete else [epoch for epoch in chosen if not epoch.complete]
        return [epoch for epoch in chosen if incomplete or epoch.complete], left_out

    def select_datasets(self, ds_id: Any) -> Selection:
        """Return the selected datasets; see `Run.samples`."""
        known = {part.ds_id for epoch in self.epochs for attempt in epoch.every_attempt for part in attempt.parts}
        return _selection(ds_id, known, "ds_id", "recorded ds_id")

    # -- journals -----------------------------------------------------------------------------------------

    def _read(self, storage: Storage, key: tuple[int, int], name: str) -> None:
        with storage.open(name) as file:
            lines = read_journal(file)
        process = self._processes[key] = _Process()
        damage = list(lines.damage)
        for line in lines.lines:
            try:
                self._apply(key, process, line)
            except _ForeignError as error:
                del self._processes[key]
                damage = [str(error)]
                break
            except (KeyError, TypeError, ValueError) as error:
                damage.append(f"line {line['seq']} makes no sense: {type(error).__name__} {error}")
        if damage:
            self.damage[name] = damage
        if lines.torn:
            self.torn.append(name)

    def _apply(self, key: tuple[int, int], process: _Process, line: dict[str, Any]) -> None:
        """Apply one line of a journal."""
        event = line["event"]
        if event == "begin":
            if (line["session"], line["rank"]) != key:
                msg = f"it belongs to session {line['session']}, process {line['rank']}"
                raise ValueError(msg)
            run = str(line["run"].get("id", ""))
            if run and self.run and run != self.run:
                msg = "the journal belongs to another run and is ignored"
                raise _ForeignError(msg)
            self.run = self.run or run
            if "writer" in line:
                process.world_size = min(int(line["world_size"]), MOST_PROCESSES)
            process.rebuilt = bool(line.get("rebuilt"))
            process.run, process.writer = run, str(line.get("writer", ""))
            self._describe(line["run"])
        elif event == "run":
            self._describe(line["run"])
        elif event == "stream":
            process.modes.add(str(line["mode"]))
        elif event == "words":
            process.add_words(line)
        elif event == "epoch":
            mode, step = str(line["mode"]), int(line["step"])
            _check_streams(line["streams"])
            self._ended[*key, mode, int(line["attempt"])] = {**line, "mode": mode, "step": step}
            process.modes.add(mode)
            process.last[mode] = max(step, process.last.get(mode, step))
        elif event == "reset":
            self._dropped.add((*key, str(line["mode"]), int(line["attempt"])))
        elif event == "end":
            process.closed = True

    def _describe(self, said: Any) -> None:
        """Keep a copy of the description: the last one of the highest version, as versions never decrease."""
        if not isinstance(said, dict):
            msg = "it has no copy of run.json"
            raise TypeError(msg)
        if self.description is None or _version(said) >= _version(self.description):
            self.description = said

    # -- attempts -----------------------------------------------------------------------------------------

    def _attempts(self) -> list[Attempt]:
        places = {place.name.removesuffix(OPEN): place for place in self.contents.places}
        attempts = []
        for (session, rank, mode, number), line in self._ended.items():
            parts = []
            for stream in line["streams"]:
                folder = folder_of(mode, stream["ds_id"], line["step"])
                about = (mode, stream["ds_id"], line["step"], session, rank, number)
                for part in stream["parts"]:
                    place = places.pop(name := f"{folder}/{part['name']}", None)
                    name = name if place is None else place.name
                    parts.append(self._entry(name, place, about, part["rows"], part["xxh3"]))
            lost, adds = sum(stream["lost"] for stream in line["streams"]), line.get("adds") is True
            head = (mode, line["step"], session, rank, number)
            attempts.append(Attempt(*head, tuple(parts), True, adds, lost=lost, line=line["seq"]))
        unlisted: dict[tuple[str, int, int, int, int], list[PartEntry]] = defaultdict(list)
        for place in places.values():
            head = (place.mode, place.epoch, place.session, place.rank, place.attempt)
            unlisted[head].append(self._entry(place.name, place, (place.mode, place.ds_id, *head[1:])))
        for (mode, step, session, rank, number), found in unlisted.items():
            dropped = (session, rank, mode, number) in self._dropped
            attempts.append(Attempt(mode, step, session, rank, number, tuple(found), dropped=dropped))
        return attempts

    def _entry(self, name: str, place: Place | None, about: Any, rows: int | None = None, xxh3: str = "") -> PartEntry:
        mode, ds_id, _, session, rank, attempt = about
        metadata = {"mode": mode, "ds_id": ds_id, "session": str(session), "rank": str(rank), "attempt": str(attempt)}
        metadata |= {} if place is None else {"index": str(place.index)}
        process = self._processes.get((session, rank), _Process())
        if process.run is not None:
            metadata |= {"run": process.run, "writer": process.writer}
        elif self.run:  # without a journal, parts are compared with the run alone
            metadata["run"] = self.run
        journal = journal_name(session, rank)
        return PartEntry(name, place, about, rows, xxh3, tuple(metadata.items()), journal, process.vocabularies)

    def gaps(self) -> Iterator[tuple[tuple[int, int], str]]:
        """Yield messages about what must have existed and is missing, each with its session and rank."""
        attempts = [attempt for epoch in self.epochs for attempt in epoch.every_attempt]
        numbers: dict[tuple[int, int, str], set[int]] = defaultdict(set)
        for session, rank, mode, number in [(a.session, a.rank, a.mode, a.number) for a in attempts] + [*self._dropped]:
            numbers[session, rank, mode].add(number)
        if not self.contents.journals and not attempts:
            yield (0, 0), "there is neither a journal nor a part"
        for of in sorted({(a.session, a.rank) for a in attempts} - self._processes.keys()):
            yield of, f"{journal_name(*of)} is missing, so which of its epochs ended is unknown"
        for one in _between({session for session, _ in self._processes} | {a.session for a in attempts}, 1):
            yield (0, 0), f"nothing is left of session {one}"
        for (session, rank, mode), known in sorted(numbers.items()):
            for one in _between(known, 1):
                where = f"session {session}, process {rank} in mode {mode!r}"
                yield (session, rank), f"nothing is left of attempt {one} of {where}"
        done = {(attempt.session, attempt.mode) for attempt in attempts if attempt.complete}
        for of, process in sorted(self._processes.items()):
            if process.rebuilt:
                text = "was rebuilt from the parts that were left; anything else it had recorded is unknown"
                yield of, f"{journal_name(*of)} {text}"
            for mode in sorted(process.modes):
                if (*of, mode) not in numbers and not any(m == mode and session > of[0] for session, m in done):
                    yield of, f"nothing is left of the samples of session {of[0]}, process {of[1]} in mode {mode!r}"
        for attempt in attempts:
            have: dict[str, set[int]] = defaultdict(set)  # of attempts whose parts no journal lists
            for part in attempt.parts:
                if part.place is not None and not attempt.complete:
                    have[part.ds_id].add(part.place.index)
            for ds_id, known in have.items():
                for one in _between(known, 0):
                    yield (attempt.session, attempt.rank), f"{attempt}: part {one} of ds_id {ds_id!r} is missing"

    # -- epochs -------------------------------------------------------------------------------------------

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
            absent, newer_absent = (self._absent.get(of, "") for of in (session, newer))
            first = next((attempt for attempt in counting if attempt.complete), None)
            when = (1, 0, 0) if first is None else (0, first.session, first.line)
            epoch = Epoch(mode, step, ended, tuple(counting), others, absent, newer, newer_absent)
            epochs.append(((*when, mode, step), epoch))
        return [epoch for _, epoch in sorted(epochs, key=lambda pair: pair[0])]

    def _counting(self, mode: str, step: int, attempts: list[Attempt]) -> tuple[list[Attempt], bool]:
        """Return the attempts that count, and whether the epoch ended in all processes."""
        newest: list[Attempt] = []
        attempts = sorted(attempts, key=lambda a: (a.complete, a.number))
        for session in sorted({attempt.session for attempt in attempts}, reverse=True):
            best: dict[int, list[Attempt]] = {}
            for one in (attempt for attempt in attempts if attempt.session == session):
                best[one.rank] = [*(each for each in best.get(one.rank, ()) if one.adds and each.complete), one]
            counting = [one for rank in sorted(best) for one in best[rank]]
            others = [one for (of, rank), one in self._processes.items() if of == session and rank not in best]
            awaited = any(process.is_awaited(mode, step) for process in others)
            if not self._absent.get(session) and not awaited and all(attempt.complete for attempt in counting):
                return counting, True
            newest = newest or counting
        return newest, False

    def _absence(self, session: int) -> str:
        """Return a message about the processes of a session that have no journal."""
        size = self.world_size(session)
        missing = [rank for rank in range(size) if (session, rank) not in self._processes]
        if not missing:
            return ""
        return (
            f"session {session} has {size} processes, and there is no journal of process {listing(missing, 5)} (to "
            "record in only one of several processes, use RecordingOptions(path, rank=0, world_size=1))"
        )


def _version(said: dict[str, Any]) -> int:
    return version if isinstance(version := said.get("version"), int) else 0


def _selection(names: Any, known: set[str], argument: str, what: str) -> Selection:
    names = list(names) if isinstance(names, Iterable) and not isinstance(names, str) else names
    selection = Selection(names, argument)
    for name in [] if names is None else [names] if isinstance(names, str) else names:
        if not name.startswith("!") and name not in known:
            raise missing_key(name, sorted(known), what)
    return selection


def _between(numbers: set[int], first: int) -> list[str]:
    """Return the gaps in some numbers, from the first number on, written as ``"2"`` or ``"2 to 5"``."""
    pairs = [(a + 1, b - 1) for a, b in itertools.pairwise([first - 1, *sorted(numbers)]) if b > a + 1]
    return [str(low) if low == high else f"{low} to {high}" for low, high in pairs]


def read_vocabularies(storage: Storage, journal: str) -> dict[str, Words]:
    """Return the words in a journal, as `PartEntry.words` has them."""
    process = _Process()
    with storage.open(journal) as file:
        for line in read_journal(file).lines:
            if line["event"] == "words":
                with contextlib.suppress(KeyError, TypeError, ValueError):  # `RunIndex` reports it
                    process.add_words(line)
    return process.vocabularies


def _check_streams(streams: Any) -> None:
    """Raise a KeyError or TypeError unless the streams of an epoch have what they should."""
    for stream in streams:
        numbers = [stream["rows"], stream["lost"], *(part["rows"] for part in stream["parts"])]
        texts = [stream["ds_id"], *(part[key] for part in stream["parts"] for key in ("name", "xxh3"))]
        if not all(type(n) is int and n >= 0 for n in numbers) or not all(isinstance(text, str) for text in texts):
            msg = "rows must be counts, and names strings"
            raise TypeError(msg)
