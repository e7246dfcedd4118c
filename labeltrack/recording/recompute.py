"""Recomputing the statistics of recorded epochs, in this process or on a Dask cluster."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from labeltrack._core import quantiles
from labeltrack._labels.codes import common_type
from labeltrack.errors import NaNError
from labeltrack.recording.progress import Progress
from labeltrack.recording.reader import reduce_parts
from labeltrack.stats import merge_stats

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from labeltrack._labels.codes import LabelMapping
    from labeltrack.history import History
    from labeltrack.recording.epochs import Epoch, PartEntry
    from labeltrack.recording.reader import PartResult, Reduced, Rules, Samples
    from labeltrack.recording.regroup import Grouping
    from labeltrack.recording.storage import Storage
    from labeltrack.stats import LabelStats

Engine = Literal["local", "dask"]


@dataclass(frozen=True)
class Recomputation:
    """What to compute from the samples, and where; ValueError if the engine cannot."""

    rules: Rules  # for recorded labels
    grouping: Grouping | None = None  # None keeps the recorded labels
    new_mapping: LabelMapping | None = None  # new labels to keep, and their names; None keeps all
    fractions: tuple[float, ...] = ()  # quantiles
    engine: Engine = "local"
    threads: int | None = None

    def __post_init__(self) -> None:
        """Check the engine."""
        if self.engine not in get_args(Engine):
            msg = f"engine: unknown option {self.engine!r}; allowed are 'local', 'dask'"
            raise ValueError(msg)
        if self.engine == "dask" and self.fractions:
            msg = (
                "engine='dask' merges statistics of parts, and quantiles cannot be merged; use engine='local', or "
                "other bounds, such as bounds='std'"
            )
            raise ValueError(msg)

    def run(self, storage: Storage, epochs: Sequence[Epoch], history: History, *, progress: bool) -> list[PartResult]:
        """Add the statistics of epochs to a history; return what was read from each part."""
        jobs = [
            [part for attempt in epoch.attempts for part in attempt.parts if part.ds_id == ds_id]
            for epoch in epochs
            for ds_id in epoch.ds_ids
        ]
        found: list[PartResult] = []
        total = sum(part.rows or 0 for job in jobs for part in job)
        with (
            Progress("Recomputing", total, "samples", wanted=progress) as bar,
            contextlib.closing(self._results(storage, jobs, bar)) as results,
        ):
            for epoch in epochs:
                stats: dict[str, LabelStats] = {}
                samples: list[Samples] = []
                for ds_id in epoch.ds_ids:
                    reduced = next(results)
                    found += reduced.found
                    finished = self._finished(reduced, f"mode {epoch.mode!r}, step {epoch.step}", ds_id)
                    if len(finished):
                        stats[ds_id] = finished
                        samples += reduced.samples
                if stats:
                    merges = len(stats) == 1 or not self.fractions  # merging gives everything except quantiles
                    pooled = None if merges else self._with_quantiles(merge_stats(stats.values()), samples)
                    history.add_all(epoch.step, stats, mode=epoch.mode, pooled=pooled)
        return found

    def _results(
        self, storage: Storage, jobs: Sequence[Sequence[PartEntry]], bar: Progress
    ) -> Generator[Reduced, None, None]:
        if self.engine == "dask":
            from labeltrack.recording.dask import reduce_on_cluster  # noqa: PLC0415 (an extra)

            return reduce_on_cluster(storage, jobs, self.rules, on_rows=bar.advance)
        keep = bool(self.fractions)
        return (
            reduce_parts(storage, job, self.rules, threads=self.threads, on_rows=bar.advance, keep=keep) for job in jobs
        )

    def _finished(self, reduced: Reduced, where: str, ds_id: str) -> LabelStats:
        """Return the statistics by new label, with quantiles."""
        stats = reduced.stats if self.grouping is None else self.grouping.apply(reduced.stats, self.new_mapping)
        try:
            stats._check_finite()
        except NaNError as error:
            of = f" of ds_id {ds_id!r}" if ds_id else ""
            msg = f"{where}{of}: {error}"
            raise NaNError(msg) from None
        return self._with_quantiles(stats, reduced.samples)

    def _with_quantiles(self, stats: LabelStats, samples: Sequence[Samples]) -> LabelStats:
        if not self.fractions or not len(stats):
            return stats
        parts = []
        for one in samples:
            rows, labels = np.arange(one.labels.shape[0]), one.labels
            if self.grouping is not None:
                rows, labels = self.grouping.new_labels(one.labels, self.new_mapping)
            if labels.size:
                known, sought = common_type([stats.labels, labels])
                keys = one.space.keys(one.labels[rows])
                parts.append(quantiles.Samples(one.chunks, keys, np.searchsorted(known, sought)))
        return stats._with_quantiles(parts, self.fractions, threads=self.threads)
