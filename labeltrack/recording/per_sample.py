"""What a recorded run says of each sample: `Run.dynamics` and `Run.hardest`, in this process or on a Dask cluster."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import numpy as np

from labeltrack._convert.objects import text_array
from labeltrack._core.arrays import Array
from labeltrack._core.by_id import ByID, Chunk
from labeltrack._filters import single_mode
from labeltrack._labels.codes import common_type
from labeltrack._labels.combined import combinations
from labeltrack._labels.options import Labels
from labeltrack._nan_policy import check_finite, check_nan_policy
from labeltrack.errors import check_option, counted, missing_key, warn
from labeltrack.recording.description import ON_DUPLICATE
from labeltrack.recording.dynamics import Dynamics
from labeltrack.recording.keys import Column, Keys
from labeltrack.recording.reader import Engine, open_parts, progress_bar, read_on_cluster, read_rows
from labeltrack.stats import LabelStats

if TYPE_CHECKING:
    from labeltrack._core.by_id import Statistics
    from labeltrack._nan_policy import NanPolicy
    from labeltrack.recording.description import Columns, Description, OnDuplicate
    from labeltrack.recording.epochs import Epoch, PartEntry, RunIndex
    from labeltrack.recording.reader import PartResult
    from labeltrack.recording.storage import Storage

Step = tuple[int, "Sequence[PartEntry]"]
"""A step and its parts of one dataset, in order of processes."""


class PerSample:
    """The part of `Run` that needs ids of samples."""

    path: str
    metrics: tuple[str, ...]
    _storage: Storage
    _description: Description
    _index: RunIndex

    def _warn(self, found: Sequence[PartResult], taken: Sequence[Epoch], left_out: Sequence[Epoch]) -> None:
        raise NotImplementedError

    def dynamics(
        self,
        mode: str | None = None,
        metric: str | None = None,
        *,
        step: int | Iterable[int] | None = None,
        ds_id: str | Iterable[str] | None = None,
        correct: str | Literal[False] | None = None,
        on_duplicate: OnDuplicate | None = None,
        nan_policy: NanPolicy | None = None,
        incomplete: bool = False,
        engine: Engine = "local",
        progress: bool = True,
    ) -> Dynamics:
        """Return how the metric of each sample went over the steps: one row for each id.

        The samples of the run must have ids: ``tracker.update(labels, values, ids=ids)``. Samples of all labels are in
        the table, also of those that the `label_mapping` of the run leaves out.

        Args:
            mode: Mode; None for ``"eval"``, or the only one there is.
            metric: Name of the metric; None for the first one that was recorded.
            step: Steps: one, several, or None for all. They are read in ascending order.
            ds_id: Dataset ids: a name, several, ``"!name"`` for all others, or None for all. Ids of different datasets
                are different samples.
            correct: Name of the metric that is 1 where a sample is right and 0 where it is wrong. None for the first
                one that has these values alone, beginning with `metric`; False for none.
            on_duplicate: What to do with samples whose id occurred before in the same step and dataset, as with
                samplers that pad the last batch: ``"first"``: only the first one counts, in order of processes and of
                arrival. ``"count"``: all of them count. ``"error"``: raise. None does what the tracker did: unless that
                was ``"count"``, it warns and does as ``"first"``.
            nan_policy: What NaN samples do: ``"propagate"``, ``"omit"`` or ``"raise"``; None does what the run did.
            incomplete: Whether to include epochs that did not end, or of which samples could not be recorded.
            engine: ``"local"``: this process. ``"dask"``: the current `dask.distributed` client, or a local cluster if
                there is none, with one task per step. The result is the same, bit for bit.
            progress: Whether to show a progress bar on stderr, if that is a terminal and it takes more than a second.

        Returns:
            The table: the same, bit for bit, for any order of the samples within a step.

        Raises:
            ImportError: Dask is not installed (extra ``dask``).
            KeyError: There is no such mode, metric, step or dataset.
            TypeError: Ids or labels have types that do not fit one column.
            ValueError: The run has no ids, an unknown option, ids that occur twice under ``"error"``, a metric
                `correct` with other values than 0 and 1, or NaN samples under ``"raise"``.

        Warns:
            LabelTrackWarning: Damaged rows or incomplete epochs are left out, ids occur more than once in a step, or
                ids have other labels than before.

        Example:
            >>> import tempfile
            >>> import labeltrack as lt
            >>> folder = tempfile.mkdtemp()
            >>> with lt.LabelTracker("y", "ce", record_to=folder) as tracker:
            ...     for epoch, losses in enumerate([[0.5, 2.0, 3.0], [0.25, 2.5, 1.0]]):
            ...         tracker.update([0, 1, 1], losses, ids=[10, 11, 12])
            ...         _ = tracker.end_epoch(epoch)
            >>> dynamics = lt.open_run(folder).dynamics()
            >>> dynamics.ids, dynamics.mean, dynamics.last
            (array([10, 11, 12]), array([0.375, 2.25 , 2.   ]), array([0.25, 2.5 , 1.  ]))
        """
        if not self._description.ids:
            msg = (
                f"{self.path} has no ids of samples; record them with tracker.update(labels, values, ids=ids), one "
                "integer or string per sample that is the same in every epoch"
            )
            raise ValueError(msg)
        check_option("engine", engine, get_args(Engine))
        check_option("on_duplicate", on_duplicate, ON_DUPLICATE)
        if on_duplicate is None and self._description.duplicates == "count":
            on_duplicate = "count"
        policy = check_nan_policy(self._description.nan_policy if nan_policy is None else nan_policy)
        mapped = Labels(self._description.label, self._description.label_mapping).mappings
        chosen = single_mode((epoch.mode for epoch in self._index.epochs), mode, "recorded mode")
        taken, left_out = self._index.select([chosen], step, "mode", incomplete=incomplete)
        jobs = self._jobs(taken, ds_id)
        plan = self._plan(list(jobs.values()), metric, correct)
        plan = plan._replace(on_duplicate=on_duplicate, skip_nan=policy == "omit")
        total = sum(part.rows or 0 for job in jobs.values() for _, parts in job for part in parts)
        with progress_bar("Reading", total, "samples", wanted=progress) as advance:
            read = [_read_courses(self._storage, job, plan, engine, advance) for job in jobs.values()]
        self._warn([part for one in read for part in one.found], taken, left_out)
        _warn_of(read, on_duplicate)
        columns = _joined([_columns(one, policy) for one in read], list(jobs), self._description.names)
        if correct and columns["ids"].size and columns["forgetting"] is None:
            msg = f"correct={correct!r} must be a metric that is 0 or 1 for each sample, and it has other values"
            raise ValueError(msg)
        return Dynamics(
            **columns,
            metric=self.metrics[plan.metric],
            correct=None if columns["forgetting"] is None or plan.hits is None else self.metrics[plan.hits],
            mode=chosen,
            steps=tuple(sorted({number for job in jobs.values() for number, _ in job})),
            names={name or "label": mapping for name, mapping in mapped.items()},
        )

    def hardest(
        self,
        k: int = 10,
        label: Any = None,
        step: int | Iterable[int] | None = None,
        *,
        mode: str | None = None,
        metric: str | None = None,
        by: str = "mean",
        higher_is_worse: bool = True,
        **options: Any,
    ) -> Dynamics:
        """Return the k worst samples with their ids, labels and values, the worst first.

        Args:
            k: How many.
            label: See `Dynamics.hardest`.
            step: Steps that count: one, several, or None for all.
            mode: See `dynamics`.
            metric: See `dynamics`.
            by: What they are ranked by: ``"mean"`` over the steps that count, or another column of `Dynamics`.
            higher_is_worse: Whether high values are bad, as for a loss.
            **options: Further options of `dynamics`.

        Returns:
            At most k rows of what `dynamics` returns.

        Raises:
            KeyError: There is no such label, mode, metric or step.
            ValueError: There is no such column, k is no positive number, or as for `dynamics`.

        Example:
            >>> import tempfile
            >>> import labeltrack as lt
            >>> folder = tempfile.mkdtemp()
            >>> with lt.LabelTracker("y", "ce", record_to=folder) as tracker:
            ...     tracker.update([0, 1, 1], [0.5, 2.0, 3.0], ids=["a", "b", "c"])
            ...     _ = tracker.end_epoch(1)
            >>> worst = lt.open_run(folder).hardest(2)
            >>> worst.ids.tolist(), worst.labels.tolist(), worst.mean.tolist()
            (['c', 'b'], [1, 1], [3.0, 2.0])
        """
        dynamics = self.dynamics(mode, metric, step=step, **options)
        return dynamics.hardest(k, label, by=by, higher_is_worse=higher_is_worse)

    def _place(self, metric: str | None) -> int:
        """Return the place of a metric; of the first one for None."""
        if metric is not None and metric not in self.metrics:
            raise missing_key(metric, self.metrics, "recorded metric")
        return 0 if metric is None else self.metrics.index(metric)

    def _plan(self, jobs: Sequence[Sequence[Step]], metric: str | None, correct: str | Literal[False] | None) -> Plan:
        """Return which columns are read, without options."""
        columns, first = self._description.columns, self._place(metric)
        among = [] if correct is False else [self._place(correct)]
        if correct is None:  # any, beginning with the one that statistics are of
            among = sorted(range(len(self.metrics)), key=lambda one: one != first)
        found = (_binary_metric(self._storage, job, columns, among) for job in jobs if among)
        hits = next((one for one in found if one is not None), None)
        return Plan(columns, first, hits, hits != first)

    def _jobs(self, epochs: Sequence[Epoch], ds_id: Any) -> dict[str, list[Step]]:
        """Return the steps of each dataset, ascending, with their parts in order of processes."""
        wanted = self._index.select_datasets(ds_id)
        jobs: dict[str, list[Step]] = defaultdict(list)
        for epoch in sorted(epochs, key=lambda epoch: epoch.step):
            for name in sorted(epoch.ds_ids):
                if name in wanted:
                    jobs[name].append((epoch.step, epoch.parts(name)))
        return dict(sorted(jobs.items())) or {"": []}


def _warn_of(read: Sequence[Courses], on_duplicate: OnDuplicate | None) -> None:
    """Warn about ids that occur more than once in a step, or raise, as an option says, and warn about labels."""
    found = [one.table.found() for one in read]
    again = [one.again for one in found if one.again]
    if again and on_duplicate in (None, "error"):
        message = next(one.repeated() for one in read if one.table.found().again)
        if on_duplicate == "error":
            raise ValueError(message)
        more = f", and {sum(again[1:])} in other datasets" if again[1:] else ""
        warn(
            f"{message}{more}; only the first sample of each id counts, which on_duplicate='first' does "
            "without this warning; 'count' counts all of them"
        )
    relabelled = sum(one.relabelled for one in found)
    if relabelled:
        warn(
            f"{counted(relabelled, 'sample', 'have')} another label than the id had when it first occurred, which is "
            "the one that counts; ids should mean the same sample in all steps"
        )


def _columns(courses: Courses, policy: NanPolicy) -> dict[str, Any]:
    """Return the columns of `Dynamics`; those that do not apply are None."""
    course = courses.table.result()
    ids = courses.ids.decode(course.ids)
    labels = [keys.decode(found) for keys, found in zip(courses.labels, course.labels, strict=True)]
    values, rows = _statistics(course.values, ids, policy, ("count", "mean", "std", "min", "max"))
    found: dict[str, Any] = {"ids": ids, "labels": labels, **values, "first": course.ends[0], "last": course.ends[1]}
    found |= dict.fromkeys(("confidence", "variability", "forgetting", "ever_correct", "correctness"))
    if course.probability is not None:
        probability, _ = _statistics(course.probability, ids, policy, ("count", "mean", "std"))
        n = np.maximum(probability["count"], 1)
        found["confidence"] = probability["mean"]
        found["variability"] = probability["std"] * np.sqrt((n - 1) / n)
    if course.hits is not None:
        found["forgetting"], right = course.hits
        found["ever_correct"], found["correctness"] = right > 0, right / rows
    if (ids[1:] > ids[:-1]).all():
        return found
    order = np.argsort(ids, kind="stable")
    found["labels"] = [one[order] for one in labels]
    return {name: one[order] if isinstance(one, np.ndarray) else one for name, one in found.items()}


def _statistics(
    parts: Statistics, ids: Array, policy: NanPolicy, names: Sequence[str]
) -> tuple[dict[str, Array], Array]:
    """Return some statistics of each id, and how many values it has, NaN included."""
    columns = {name: np.empty(ids.shape[0], np.int64 if name == "count" else np.float64) for name in names}
    rows = np.empty(ids.shape[0], dtype=np.int64)
    if policy == "raise":
        parts = iter(whole := list(parts))
        nan = [some.nonfinite[:, 0] for _, some in whole]
        check_finite(np.concatenate(nan) if nan else rows, lambda: ids.astype(np.str_))
    for place, some in parts:
        stats = LabelStats(ids[place], some, nan_policy=policy)
        for name, column in columns.items():
            column[place] = getattr(stats, name)
        rows[place] = stats.count
        if policy == "omit" and not some.all_finite():
            rows[place] += some.nonfinite[:, 0]
    return columns, rows


def _joined(parts: Sequence[dict[str, Any]], ds_ids: Sequence[str], names: Sequence[str]) -> dict[str, Any]:
    """Return the columns of several datasets together, and those of labels that have names as one."""
    there = [place for place, part in enumerate(parts) if part["ids"].size] or [0]
    several = len(ds_ids) > 1
    parts, ds_ids = [parts[place] for place in there], [ds_ids[place] for place in there]
    found: dict[str, Any] = {}
    for name in parts[0]:
        each = [part[name] for part in parts]
        if name == "labels":
            columns = [np.concatenate(common_type(column)) for column in zip(*each, strict=True)]
            found[name] = combinations(dict(zip(names, columns, strict=True))) if names else columns[0]
        elif any(one is None for one in each):
            found[name] = None
        else:
            found[name] = np.concatenate(common_type(each) if name == "ids" else each) if each[1:] else each[0]
    if several:
        lengths = [len(part["ids"]) for part in parts]
        found["ds_ids"] = np.repeat(text_array(ds_ids), lengths)
    return found


# -- from parts to the course of each sample ------------------------------------------------------------------


class Plan(NamedTuple):
    """What to read of each sample, and how."""

    columns: Columns
    metric: int  # place of the one that statistics are of
    hits: int | None  # place of the metric that says whether a sample is right, by 1 and 0
    probability: bool  # whether the metric may be a cross-entropy
    on_duplicate: OnDuplicate | None = None
    skip_nan: bool = False


class Piece(NamedTuple):
    """Samples of a batch, and what the numbers in its columns of labels and ids are."""

    part: str
    labels: list[Column]
    ids: Column
    chunk: Chunk  # labels and ids are those of the part


Found = tuple[list[Piece], list["PartResult"]]


class Courses:
    """The course of each sample over some steps."""

    def __init__(self, plan: Plan) -> None:
        names, drop = plan.columns.labels, plan.on_duplicate != "count"
        self.table = ByID(labels=len(names), probability=plan.probability, drop=drop, skip_nan=plan.skip_nan)
        self.ids = Keys("ids")
        self.labels = [Keys("labels" if len(names) == 1 else f"labels {name!r}") for name in names]
        self.found: list[PartResult] = []
        self.steps: list[int] = []

    def add(self, step: Step, pieces: Sequence[Piece], found: Sequence[PartResult]) -> None:
        """Add the samples of the next step; TypeError if types do not fit a column."""
        number, parts = step
        words = {part.name: part.words for part in parts}
        chunks = []
        for part, columns, ids, chunk in pieces:
            of = words[part]
            keys = [self.ids.of(ids.among(of), chunk.ids)]
            for mine, column, labels in zip(self.labels, columns, chunk.labels, strict=True):
                keys.append(mine.of(column.among(of), labels))
            chunks.append(Chunk(keys[0], tuple(keys[1:]), chunk.values, chunk.hits))
        self.table.add_step(chunks)
        self.steps.append(number)
        self.found += found

    def repeated(self) -> str:
        """Return the message that ids occur more than once in a step; empty if none does."""
        again, example, _ = self.table.found()
        if example is None:
            return ""
        return (
            f"{counted(again, 'sample', 'have')} an id that another one has in the same step, such as "
            f"{self.ids.decode(np.array(example[:1])).tolist()[0]!r} in step {self.steps[example[1] - 1]}"
        )


def _binary_metric(storage: Storage, steps: Sequence[Step], columns: Columns, among: Sequence[int]) -> int | None:
    """Return the first of some metrics that is 0 or 1 in all samples of the first batch that can be read."""
    for _, parts in steps:
        for _, rows in read_rows(open_parts(storage, parts, columns)):
            return next((place for place in among if _is_binary(rows.values[place])), None)
    return None


def _is_binary(values: Array) -> bool:
    return bool(((values == 0) | (values == 1)).all())


def _read_courses(
    storage: Storage, steps: Sequence[Step], plan: Plan, engine: str, on_rows: Callable[[int], object]
) -> Courses:
    """Return the courses of the samples of one dataset over steps, in their order."""
    courses = Courses(plan)
    if engine == "local":
        results = (_pieces(storage, parts, plan, on_rows) for _, parts in steps)
    else:
        results = read_on_cluster(storage, [[parts] for _, parts in steps], partial(_bare_pieces, plan=plan), on_rows)
    with contextlib.closing(results):
        for step in steps:
            courses.add(step, *next(results))
    return courses


def _pieces(
    storage: Storage, parts: Sequence[PartEntry], plan: Plan, on_rows: Callable[[int], object] = lambda _: None
) -> Found:
    """Return the samples of a step, and what was read of each part; ValueError if they have no ids."""
    readers = open_parts(storage, parts, plan.columns)
    pieces = []
    for reader, rows in read_rows(readers):
        on_rows(rows.values[0].shape[0])
        if reader.ids is None or rows.ids is None:
            msg = (
                f"the samples of {reader.entry.name} have no ids; choose a mode or steps in which all have, or "
                "pass ids with every batch"
            )
            raise ValueError(msg)
        right = None  # ``(N,)`` uint8, 1 where a sample is right, unless the metric does not say that after all
        if plan.hits is not None and _is_binary(rows.values[plan.hits]):
            right = rows.values[plan.hits].astype(np.uint8)
        chunk = Chunk(rows.ids, tuple(rows.labels), rows.values[plan.metric], right)
        pieces.append(Piece(reader.entry.name, reader.labels, reader.ids, chunk))
    return pieces, [reader.finish() for reader in readers]


def _bare_pieces(storage: Storage, parts: Sequence[PartEntry], plan: Plan) -> Found:
    """Do as `_pieces` on a worker, and keep vocabularies there; see `Column.among`."""
    pieces, found = _pieces(storage, parts, plan)
    return [one._replace(labels=[of.bare() for of in one.labels], ids=one.ids.bare()) for one in pieces], found
