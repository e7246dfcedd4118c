"""From recorded parts to the course of each sample over the steps, in this process or on a Dask cluster."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from labeltrack._core.by_id import ByID, Chunk
from labeltrack.errors import counted
from labeltrack.recording.cluster import read_on_cluster
from labeltrack.recording.keys import Keys
from labeltrack.recording.reader import open_parts, read_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from labeltrack.recording.epochs import PartEntry
    from labeltrack.recording.reader import PartResult
    from labeltrack.recording.schema import Columns, OnDuplicate
    from labeltrack.recording.storage import Storage

Array = npt.NDArray[Any]
Integers = npt.NDArray[np.int64]
Step = tuple[int, tuple["PartEntry", ...]]
"""A step and its parts of one dataset, in order of processes."""


class Plan(NamedTuple):
    """What to read of each sample, and how.

    Attributes:
        columns: Columns of the run.
        metric: Place of the metric that statistics are of.
        hits: Place of the metric that says whether a sample is right, by 1 and 0; None if there is none.
        probability: Whether the metric may be a cross-entropy.
        on_duplicate: What to do with further samples of an id in a step.
        skip_nan: Whether NaN samples are ignored.
        threads: Number of threads; None chooses.
    """

    columns: Columns
    metric: int
    hits: int | None
    probability: bool
    on_duplicate: OnDuplicate | None = None
    skip_nan: bool = False
    threads: int | None = None


@dataclass
class Courses:
    """The course of each sample over some steps."""

    table: ByID
    ids: Keys
    labels: list[Keys]
    found: list[PartResult] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)

    @classmethod
    def empty(cls, plan: Plan) -> Courses:
        """Return the courses of no steps."""
        names = plan.columns.labels
        table = ByID(
            labels=len(names),
            probability=plan.probability,
            drop=plan.on_duplicate != "count",
            skip_nan=plan.skip_nan,
            threads=plan.threads,
        )
        return cls(table, Keys("ids"), [Keys("labels") if len(names) == 1 else Keys(f"labels {n!r}") for n in names])

    def read(self, storage: Storage, step: Step, plan: Plan, on_rows: Callable[[int], object]) -> None:
        """Add the samples of the next step.

        Raises:
            TypeError: Labels or ids have types that do not fit one column.
            ValueError: Samples have no ids.
        """
        number, parts = step
        self.steps.append(number)
        readers = open_parts(storage, parts, plan.columns)
        chunks = []
        for reader, rows in read_rows(readers):
            on_rows(rows.values[0].shape[0])
            if reader.ids is None or rows.ids is None:
                msg = (
                    f"the samples of {reader.entry.name} have no ids; choose a mode or steps in which all have, or "
                    "pass ids with every batch"
                )
                raise ValueError(msg)
            ids = self.ids.of(reader.ids, rows.ids)
            labels = [
                keys.of(column, one) for keys, column, one in zip(self.labels, reader.labels, rows.labels, strict=True)
            ]
            chunks.append(Chunk(ids, tuple(labels), rows.values[plan.metric], _right(rows.values, plan)))
        self.table.add_step(chunks)
        self.found += [reader.finish() for reader in readers]

    def repeated(self) -> str:
        """Return the message that ids occur more than once in a step; empty if none does."""
        again, example, _ = self.table.found()
        if example is None:
            return ""
        return (
            f"{counted(again, 'sample', 'have')} an id that another one has in the same step, such as "
            f"{self.ids.decode(np.array(example[:1])).tolist()[0]!r} in step {self.steps[example[1] - 1]}"
        )

    def merge(self, later: Courses) -> None:
        """Add the courses of later steps."""
        ids = self.ids.adopt(later.ids)
        labels = [mine.adopt(theirs) for mine, theirs in zip(self.labels, later.labels, strict=True)]
        self.table.merge(later.table, ids, labels)
        self.found += later.found
        self.steps += later.steps


def _right(values: Sequence[Array], plan: Plan) -> Array | None:
    """Return ``(N,)`` uint8, 1 where a sample is right; None if the metric does not say that after all."""
    if plan.hits is None or not _is_binary(values[plan.hits]):
        return None
    return values[plan.hits].astype(np.uint8)


def binary_metric(storage: Storage, steps: Sequence[Step], columns: Columns, among: Sequence[int]) -> int | None:
    """Return the first of some metrics that is 0 or 1 in all samples of the first batch that can be read."""
    for _, parts in steps:
        for _, rows in read_rows(open_parts(storage, parts, columns)):
            return next((place for place in among if _is_binary(rows.values[place])), None)
    return None


def _is_binary(values: Array) -> bool:
    return bool(((values == 0) | (values == 1)).all())


def read_courses(
    storage: Storage, steps: Sequence[Step], plan: Plan, engine: str, on_rows: Callable[[int], object]
) -> Courses:
    """Return the courses of the samples of one dataset over steps, in their order; see `Courses.read`."""
    courses = Courses.empty(plan)
    if engine == "local":
        for step in steps:
            courses.read(storage, step, plan, on_rows)
        return courses
    read = partial(_read, plan=plan._replace(threads=1))
    job = [(partial(read, number=number), parts) for number, parts in steps]
    with contextlib.closing(read_on_cluster(storage, [job], partial(_merged, plan=plan), on_rows)) as results:
        for result in results:
            courses.merge(result)
    return courses


def _read(storage: Storage, parts: Sequence[PartEntry], number: int, plan: Plan) -> Courses:
    """Read one step; runs on a worker."""
    courses = Courses.empty(plan)
    courses.read(storage, (number, tuple(parts)), plan, lambda _: None)
    return courses


def _merged(parts: list[Courses], plan: Plan) -> Courses:
    """Merge courses of consecutive steps; runs on a worker, where they must not change."""
    courses = Courses.empty(plan)
    for later in parts:
        courses.merge(later)
    return courses
