"""Recomputing the statistics of recorded epochs, in this process or on a Dask cluster.

On a cluster, one task reads one part, or all of an epoch and dataset if samples have ids, where the run is stored; one
whose worker dies is repeated elsewhere. As merging is exact, order and number of workers do not change a bit.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from labeltrack._core import quantiles
from labeltrack._labels.codes import LabelMapping, common_type
from labeltrack._labels.combined import by_label, union
from labeltrack.errors import NaNError, listing, need, warn, warn_never, warn_no_combination
from labeltrack.recording.epochs import read_vocabularies
from labeltrack.recording.reader import Progress
from labeltrack.recording.reduce import Reduced, Rules, reduce_parts
from labeltrack.recording.storage import LocalFolder, storage_of
from labeltrack.stats import merge_stats

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

    from labeltrack.history import History
    from labeltrack.recording.epochs import Epoch, PartEntry
    from labeltrack.recording.reader import PartResult
    from labeltrack.recording.reduce import Samples
    from labeltrack.recording.regroup import Grouping, Groupings
    from labeltrack.recording.storage import Storage
    from labeltrack.stats import LabelStats

Array = npt.NDArray[Any]
Integers = npt.NDArray[np.int64]
Engine = Literal["local", "dask"]
FAN_IN = 8  # partial statistics that one task merges


def check_engine(engine: Any) -> None:
    """Raise a ValueError for an unknown engine."""
    if engine not in get_args(Engine):
        msg = f"engine: unknown option {engine!r}; allowed are 'local', 'dask'"
        raise ValueError(msg)


@dataclass(frozen=True)
class Recomputation:
    """What to compute from the samples, and where; ValueError if the engine cannot."""

    rules: Rules  # for recorded labels
    grouping: Grouping | Groupings | None  # None keeps the recorded labels
    new: Mapped  # new labels to keep, and their names
    fractions: tuple[float, ...]  # quantiles
    engine: Engine
    threads: int | None

    def __post_init__(self) -> None:
        """Check the engine."""
        check_engine(self.engine)
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
            contextlib.closing(self._results(storage, jobs, bar.advance)) as results,
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
        self, storage: Storage, jobs: Sequence[Sequence[PartEntry]], on_rows: Callable[[int], object]
    ) -> Generator[Reduced, None, None]:
        if self.engine == "dask":
            return _reduce_on_cluster(storage, jobs, self.rules, on_rows)
        keep = bool(self.fractions)
        return (
            reduce_parts(storage, job, self.rules, threads=self.threads, on_rows=on_rows, keep=keep) for job in jobs
        )

    def _finished(self, reduced: Reduced, where: str, ds_id: str) -> LabelStats:
        """Return the statistics by new label, with quantiles."""
        stats = reduced.stats if self.grouping is None else self.grouping.apply(reduced.stats, self.new.given)
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
            keys, labels = one.keys, one.labels
            if self.grouping is not None:
                rows, labels = self.grouping.new_labels(one.labels, self.new.given)
                keys = keys[rows]
            if labels.size:
                parts.append(quantiles.Samples(one.chunks, keys, _places(stats.labels, labels)))
        return stats._with_quantiles(parts, self.fractions, threads=self.threads)


def _places(known: Array, labels: Array) -> Integers:
    """Return where ``(N,)`` labels, or combinations, are among all of them."""
    if known.dtype.names is not None:
        return union([known, labels])[1][1]
    known, labels = common_type([known, labels])
    return np.searchsorted(known, labels)


@dataclass(frozen=True)
class Mapped:
    """Labels to keep, and their names.

    Args:
        names: Names of several labels; empty for one.
        each: The mapping of each; None keeps every label.
    """

    names: tuple[str, ...]
    each: tuple[LabelMapping | None, ...]

    @classmethod
    def of(cls, label_mapping: Any, names: tuple[str, ...]) -> Mapped:
        """Return what a `label_mapping` of one label, or of several, says."""
        if not names:
            given = [label_mapping]
        elif label_mapping is None:
            given = [None] * len(names)
        else:
            given = list(by_label(label_mapping, names, "label_mapping").values())
        return cls(names, tuple(None if one is None else LabelMapping(one) for one in given))

    @property
    def given(self) -> Any:
        """The mapping of one label, or those of several, as groupings take them."""
        return self.each if self.names else self.each[0]

    def warn(self, history: History, *, read: bool) -> None:
        """Warn about labels that never occurred; `read` says whether there were samples."""
        mapped = {name: one for name, one in zip(self.names or ("",), self.each, strict=True) if one is not None}
        if mapped and read and not len(history):
            if self.names:
                warn_no_combination({name: one.labels for name, one in mapped.items()}, [])
            else:
                msg = f"no recorded sample has a label of label_mapping, which maps {listing(mapped[''].labels)}"
                warn(msg)
        every = [stats for _, stats in history.items()]
        for name, one in mapped.items():
            warn_never(one.names, [stats.by(name) for stats in every] if self.names else every)


# -- on a cluster -----------------------------------------------------------------------------------------


def _reduce_on_cluster(
    storage: Storage, jobs: Sequence[Sequence[PartEntry]], rules: Rules, on_rows: Callable[[int], object]
) -> Generator[Reduced, None, None]:
    """Yield the statistics of each job's parts."""
    root = root_of(storage)
    with cluster_client() as client:
        futures = []
        for parts in jobs:
            level = []
            # To find samples of one id, one task has to read all parts.
            for some in [parts] if rules.distinct and rules.columns.ids else [[part] for part in parts]:
                # Workers look up words themselves: data that is sent once is lost with the worker that received it.
                bare = [(replace(part, words={}), bool(part.words)) for part in some]
                leaf = client.submit(_reduce, root, bare, rules, pure=False)
                rows = sum(part.rows or 0 for part in some)
                leaf.add_done_callback(lambda _, rows=rows: on_rows(rows))
                level.append(leaf)
            while len(level) > 1:
                groups = [level[i : i + FAN_IN] for i in range(0, len(level), FAN_IN)]
                level = [client.submit(_merge, group, pure=False) if len(group) > 1 else group[0] for group in groups]
            futures += level
        try:
            yield from (future.result() for future in futures)
        finally:
            client.cancel(futures)


def root_of(storage: Storage) -> str:
    """Return where a run is, for other machines."""
    return str(storage.path.absolute()) if isinstance(storage, LocalFolder) else storage.root


@contextlib.contextmanager
def cluster_client() -> Iterator[Any]:
    """Yield the current client, or one of a local cluster that is closed afterwards."""
    distributed = need("distributed", 'engine="dask"', "dask")
    try:
        current = distributed.default_client()
    except ValueError:  # there is none
        with (
            distributed.LocalCluster(dashboard_address=":0", threads_per_worker=1) as cluster,
            distributed.Client(cluster) as client,
        ):
            yield client
    else:
        yield current


def _reduce(root: str, parts: list[tuple[PartEntry, bool]], rules: Rules) -> Reduced:
    """Reduce parts, and say of each whether it has words; runs on a worker."""
    whole = [replace(part, words=vocabularies(root, part.journal)) if words else part for part, words in parts]
    return reduce_parts(storage_of(root), whole, rules, threads=1)


@lru_cache(maxsize=4)
def vocabularies(root: str, journal: str) -> dict[str, Any]:
    """Return the words of a journal by number of the vocabulary; on a worker, kept for the next part."""
    return read_vocabularies(storage_of(root), journal)


def _merge(results: list[Reduced]) -> Reduced:
    """Merge results; runs on a worker."""
    return Reduced(merge_stats([one.stats for one in results]), [part for one in results for part in one.found], [])
