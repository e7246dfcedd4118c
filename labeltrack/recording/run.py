"""`open_run`: a recorded run, to look at, recompute, export and verify."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from labeltrack._core.quantiles import Samples
from labeltrack._labels.codes import LabelMapping, common_type
from labeltrack.bounds import needed_quantiles, resolve_all
from labeltrack.errors import LabelTrackWarning, NaNError, listing
from labeltrack.functional import check_threads, warn_never
from labeltrack.history import History
from labeltrack.recording import verify as _verify
from labeltrack.recording.choice import epochs_of, parts_of, unsaid, warn_damaged, warn_passed
from labeltrack.recording.index import Catalog
from labeltrack.recording.layout import DESCRIPTION, Description
from labeltrack.recording.progress import Progress
from labeltrack.recording.reader import Kept, reduce_sources, sources_of
from labeltrack.recording.relabel import Grouping
from labeltrack.recording.storage import storage_of
from labeltrack.stats import LabelStats, NanPolicy, check_nan_policy, merge_stats

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Hashable, Iterable, Mapping

    from labeltrack.bounds import BoundName
    from labeltrack.recording.index import Attempt, Epoch
    from labeltrack.recording.reader import Found

Engine = Literal["local", "dask"]
RECORDED: Literal["recorded"] = "recorded"


@dataclass(frozen=True)
class RecordedEpoch:
    """One epoch of one mode in a recorded run.

    Attributes:
        mode: Mode.
        step: Epoch or step; for one that did not end, the one it was expected to be.
        ds_ids: Datasets.
        rows: How many samples were recorded; for one that did not end, 0, as nobody counted them.
        complete: Whether it ended, and every sample of it was recorded.
        lost: How many samples could not be recorded.
        other_attempts: How many other attempts at it there are, interrupted ones or ones that were done again.
    """

    mode: str
    step: int
    ds_ids: tuple[str, ...]
    rows: int
    complete: bool
    lost: int
    other_attempts: int


def open_run(path: str | os.PathLike[str]) -> Run:
    """Open a recorded run.

    Nothing is read but its description and its journals.

    Args:
        path: Its folder, as it was given to ``record_to``; or any path that fsspec knows, such as ``s3://bucket/run``.

    Raises:
        FileNotFoundError: There is no recorded run.
        OSError: It cannot be read.
        DamagedRunError: Its description and all journals are damaged.
        ValueError: It is of a later version of the format.
        ImportError: xxhash is not installed (extra ``record``), or fsspec for paths with a protocol (extra ``dask``).

    Example:
        >>> import tempfile
        >>> import labeltrack as lt
        >>> folder = tempfile.mkdtemp()
        >>> with lt.LabelTracker("y", "ce", record_to=folder) as tracker:
        ...     tracker.update([0, 1, 1], [0.5, 2.0, 3.0])
        ...     _ = tracker.end_epoch(1)
        >>> run = lt.open_run(folder)
        >>> run.recompute(label_mapping={"one": 1}).at(1)["one"].mean
        2.5
    """
    return Run(path)


class Run:
    """A recorded run; see `open_run`.

    Attributes:
        path: Where it is.
        metric: Name of the metric.
        label: Name of the label.
        label_mapping: ``{display name: label value}`` that the run was tracked with, or None.
        bounds: Names of the bounds it was tracked with.
        nan_policy: What NaN samples did.
        missing: What samples without a label did. Under ``"label"``, theirs is ``"(missing)"`` among strings and
            ``-2**63`` among numbers.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._storage = storage_of(path)
        self.path = self._storage.root
        try:
            described = Description.read(self._storage)
            self._trouble = ""
            self._catalog = Catalog(self._storage, described.id)
        except (FileNotFoundError, ValueError) as error:
            # Every journal has a copy.
            try:
                self._catalog = Catalog(self._storage)
                described = Description.from_plain(self._catalog.description)
            except (OSError, ValueError):
                raise error from None
            self._trouble = str(error)
            if isinstance(error, FileNotFoundError):
                self._trouble = f"{DESCRIPTION} is missing; what a journal says is taken in its place"
        self._description = described
        self.metric = described.metric
        self.label = described.label
        self.label_mapping = None if described.label_mapping is None else dict(described.label_mapping)
        self.bounds = described.bounds
        self.nan_policy: NanPolicy = check_nan_policy(described.nan_policy)
        self.missing = described.missing

    # -- what is there ------------------------------------------------------------------------------------

    @property
    def epochs(self) -> list[RecordedEpoch]:
        """Every epoch, in the order in which they ended; those that did not end come last."""
        return [
            RecordedEpoch(
                mode=epoch.mode,
                step=epoch.step,
                ds_ids=tuple(epoch.ds_ids),
                rows=sum(segment.rows or 0 for attempt in epoch.attempts for segment in attempt.segments),
                complete=epoch.complete,
                lost=sum(attempt.lost for attempt in epoch.attempts),
                other_attempts=len(epoch.others),
            )
            for epoch in self._catalog.epochs
            if epoch.attempts
        ]

    def info(self) -> dict[str, Any]:
        """Return what the run is, as plain values.

        Returns:
            path, metric, label, label_mapping, bounds, nan_policy, missing, dtypes, labeltrack (the version that began
            it), created, sessions (launches), modes, ds_ids, epochs (complete ones), incomplete (mode and step of the
            others), rows, bytes (of all files of samples), and damage (what is wrong with description and journals,
            in words; `verify` looks at the samples too).
        """
        epochs = self.epochs
        names = [place.name for place in self._catalog.contents.places]
        return {
            "path": self.path,
            "metric": self.metric,
            "label": self.label,
            "label_mapping": self.label_mapping,
            "bounds": list(self.bounds),
            "nan_policy": self.nan_policy,
            "missing": self.missing,
            "dtypes": [list(pair) for pair in self._description.dtypes],
            "labeltrack": self._description.labeltrack,
            "created": self._description.created,
            "sessions": self._catalog.sessions,
            "modes": list(dict.fromkeys(epoch.mode for epoch in epochs)),
            "ds_ids": list(dict.fromkeys(ds_id for epoch in epochs for ds_id in epoch.ds_ids)),
            "epochs": sum(epoch.complete for epoch in epochs),
            "incomplete": [[epoch.mode, epoch.step] for epoch in epochs if not epoch.complete],
            "rows": sum(epoch.rows for epoch in epochs),
            "bytes": sum(self._storage.size(name) for name in names),
            "damage": self._damage(),
        }

    def _damage(self) -> list[str]:
        journals = [f"{name}: {text}" for name, texts in self._catalog.damage.items() for text in texts]
        return ([self._trouble] if self._trouble else []) + journals

    def __repr__(self) -> str:
        """Return what was tracked, and how much of it there is."""
        epochs = self.epochs
        rows = sum(epoch.rows for epoch in epochs)
        unfinished = sum(not epoch.complete for epoch in epochs)
        more = f", {unfinished} of them incomplete" if unfinished else ""
        return f"Run({self.path!r}): {self.metric!r} by {self.label!r}, {len(epochs)} epochs{more}, {rows} samples"

    # -- samples ------------------------------------------------------------------------------------------

    def samples(
        self,
        mode: str | Iterable[str] | None = None,
        ds_id: str | Iterable[str] | None = None,
        epoch: int | Iterable[int] | None = None,
        *,
        columns: Iterable[str] = ("label", "value"),
        incomplete: bool = False,
        all_attempts: bool = False,
    ) -> Any:
        """Return samples as an Arrow table.

        Args:
            mode: Modes: a name, several, ``"!name"`` for all but it, or None for all.
            ds_id: Dataset ids, likewise.
            epoch: Epochs or steps: one, several, or None for all.
            columns: Which ones of label, value, mode, ds_id, epoch, session, rank and attempt. Labels and values are
                the memory of the files; each other column takes 4 bytes a row.
            incomplete: Whether to return what there is of epochs, too, that did not end or of which samples could not
                be recorded.
            all_attempts: Whether to return everything that was recorded: `incomplete`, and attempts that do not count,
                as they were interrupted or done again.

        Returns:
            A pyarrow Table with a chunk for each batch that was written. Strings are dictionary-encoded. Nothing is
            copied, unless labels or values are of several types or labels are bools: no file may be cut while the table
            is in use.

        Raises:
            ImportError: pyarrow is not installed (extra ``record``).
            KeyError: There is no such epoch.
            ValueError: No such column, or labels of kinds that do not go together.

        Warns:
            LabelTrackWarning: Rows are damaged, or epochs are incomplete, and left out.
        """
        from labeltrack.recording.export import table  # noqa: PLC0415 (pyarrow is an extra)

        options = {"incomplete": incomplete, "all_attempts": all_attempts}
        chosen, taken, passed = parts_of(self._catalog, mode, ds_id, epoch, **options)
        result, found = table(self._storage, chosen, tuple(columns))
        warn_damaged(self.path, found, self._damage(), self._unsaid([] if all_attempts else taken, passed))
        warn_passed(taken, passed)
        return result

    def export(
        self,
        path: str | os.PathLike[str],
        mode: str | Iterable[str] | None = None,
        ds_id: str | Iterable[str] | None = None,
        epoch: int | Iterable[int] | None = None,
        *,
        columns: Iterable[str] = ("mode", "ds_id", "epoch", "label", "value"),
        incomplete: bool = False,
        all_attempts: bool = False,
        progress: bool = True,
    ) -> int:
        """Write samples to a file, batch by batch.

        Args:
            path: Ends in .parquet or .csv; a file that is there is replaced when everything is written.
            mode: See `samples`.
            ds_id: See `samples`.
            epoch: See `samples`.
            columns: Which columns; see `samples`.
            incomplete: See `samples`.
            all_attempts: See `samples`.
            progress: Whether to show a bar on stderr, if that is a terminal and it takes longer than a second.

        Returns:
            How many samples were written.

        Raises:
            ImportError: pyarrow is not installed (extra ``record``).
            KeyError: There is no such epoch.
            OSError: The file cannot be written.
            ValueError: Another ending, no such column, or labels of kinds that do not go together.

        Warns:
            LabelTrackWarning: Rows are damaged, or epochs are incomplete, and left out.
        """
        from labeltrack.recording.export import write  # noqa: PLC0415 (pyarrow is an extra)

        options = {"incomplete": incomplete, "all_attempts": all_attempts}
        chosen, taken, passed = parts_of(self._catalog, mode, ds_id, epoch, **options)
        total = sum(source.rows or 0 for _, _, source in chosen)
        with Progress("Writing", total, "samples", wanted=progress) as bar:
            rows, found = write(self._storage, chosen, tuple(columns), Path(path), bar.advance)
        warn_damaged(self.path, found, self._damage(), self._unsaid([] if all_attempts else taken, passed))
        warn_passed(taken, passed)
        return rows

    def _unsaid(self, taken: list[Epoch], passed: list[Epoch]) -> list[tuple[Attempt, int]]:
        """Return what is left out of epochs because a journal lacks that it ended."""
        left = [(epoch, epoch.others) for epoch in taken]
        left += [(epoch, (*epoch.attempts, *epoch.others)) for epoch in passed]
        return [one for epoch, attempts in left for one in unsaid(self._storage, epoch, attempts)]

    # -- recomputing --------------------------------------------------------------------------------------

    def recompute(
        self,
        bounds: BoundName | Iterable[BoundName] = RECORDED,
        label_mapping: Mapping[str, Any] | Literal["recorded"] | None = RECORDED,
        *,
        modes: str | Iterable[str] | None = None,
        group: Mapping[Any, Hashable] | Callable[[Any], Hashable] | None = None,
        rest: Hashable | None = None,
        nan_policy: NanPolicy | Literal["recorded"] = RECORDED,
        incomplete: bool = False,
        engine: Engine = "local",
        threads: int | None = None,
        progress: bool = True,
    ) -> History:
        """Compute the history from the samples.

        Without arguments it is that of the tracker that recorded the run, bit for bit.

        Args:
            bounds: Bounds that pictures of the history show; those of the run by default. For ``"iqr"``, ``"median"``
                and ``("quantile", low, high)``, the samples of an epoch have to fit into memory.
            label_mapping: ``{display name: label value}``; other labels are passed over. None keeps every label, and
                ``"recorded"`` is the mapping that the run was tracked with.
            modes: Modes: a name, several, ``"!name"`` for all but it, or None for all.
            group: From labels to new labels, such as coarse classes, as a mapping or a function. It is asked once for
                each label, not for each sample. Labels that a mapping does not have, or for which a function returns
                None, are left out. `label_mapping` then is of the new labels, and none by default.
            rest: New label of those that `group` would leave out.
            nan_policy: What NaN samples do; as in the run by default.
            incomplete: Whether to compute epochs, too, that did not end or of which samples could not be recorded.
            engine: ``"local"``: this process. ``"dask"``: the current `dask.distributed` client, or a local cluster
                if there is none. The same bits either way.
            threads: How many threads share the work of ``"local"``; None chooses by the number of samples.
            progress: Whether to show a bar on stderr, if that is a terminal and it takes longer than a second.

        Returns:
            The history, with the statistics of each mode, dataset and step.

        Raises:
            ImportError: Dask is not installed (extra ``dask``).
            KeyError: There is no such mode.
            TypeError: Labels of types that cannot be ordered among each other; or an argument of the wrong type.
            ValueError: An unknown option, NaN samples under ``"raise"``, or quantiles of a cluster.

        Warns:
            LabelTrackWarning: Rows are damaged, epochs are incomplete, no label of the mapping occurs, or some have no
                key in `group`.
        """
        resolved = resolve_all(self.bounds if bounds == RECORDED else bounds)
        names, fractions = tuple(bound.name for bound in resolved), needed_quantiles(resolved)
        policy = self.nan_policy if nan_policy == RECORDED else check_nan_policy(nan_policy)
        grouping = None if group is None else Grouping(group, rest)
        if rest is not None and grouping is None:
            msg = f"rest={rest!r} is the new label of what group leaves out; give group, too"
            raise ValueError(msg)
        given = (None if group is not None else self.label_mapping) if label_mapping == RECORDED else label_mapping
        mapping = None if given is None else LabelMapping(given)
        threads = check_threads(threads)
        if engine not in ("local", "dask"):
            msg = f"engine: unknown option {engine!r}; allowed are 'local', 'dask'"
            raise ValueError(msg)
        if engine == "dask" and fractions:
            msg = (
                "engine='dask' merges statistics of parts, and quantiles cannot be merged; use engine='local', or "
                "other bounds, such as bounds='std'"
            )
            raise ValueError(msg)
        taken, passed = epochs_of(self._catalog, modes, "modes", incomplete=incomplete)
        epochs = [epoch for epoch in taken if epoch.attempts]
        jobs = [
            [source for attempt in epoch.attempts for source in sources_of(self._catalog, attempt, ds_id)]
            for epoch in epochs
            for ds_id in epoch.ds_ids
        ]
        kept: list[Kept] = []

        def with_quantiles(stats: LabelStats, of: list[Kept]) -> LabelStats:
            if not fractions:
                return stats
            return stats.with_quantiles(_samples(stats, of, grouping, mapping), fractions, threads=threads)

        only = mapping if grouping is None else None
        total = sum(source.rows or 0 for job in jobs for source in job)
        with Progress("Recomputing", total, "samples", wanted=progress) as bar:
            if engine == "dask":
                from labeltrack.recording.dask import reduce_on_cluster  # noqa: PLC0415 (an extra)

                results = reduce_on_cluster(
                    self._storage, jobs, mapping=only, nan_policy=policy, missing=self.missing, on_rows=bar.advance
                )
            else:
                results = (
                    reduce_sources(
                        self._storage,
                        job,
                        mapping=only,
                        nan_policy=policy,
                        missing=self.missing,
                        threads=threads,
                        on_rows=bar.advance,
                        keep=kept if fractions else None,
                    )
                    for job in jobs
                )
            history = History(metric=self.metric, label=self.label, bounds=names)
            found: list[Found] = []
            for epoch in epochs:
                computed: dict[str, LabelStats] = {}
                of_epoch: list[Kept] = []
                for ds_id in epoch.ds_ids:
                    kept.clear()
                    stats, of_part = next(results)
                    found += of_part
                    final = stats if grouping is None else grouping.apply(stats, mapping)
                    _check(final, epoch, ds_id)
                    if len(final):
                        computed[ds_id] = with_quantiles(final, kept)
                        of_epoch += kept
                several = len(computed) > 1 and fractions  # merging gives all but quantiles
                pooled = with_quantiles(merge_stats(computed.values()), of_epoch) if several else None
                if computed:
                    history.add_all(epoch.step, computed, mode=epoch.mode, pooled=pooled)
        warn_damaged(self.path, found, self._damage(), self._unsaid(taken, passed))
        warn_passed(taken, passed)
        if grouping is not None and (left_out := grouping.left_out()):
            warnings.warn(left_out, LabelTrackWarning, stacklevel=2)
        if mapping is not None and total and not len(history):
            msg = f"no recorded sample has a label of label_mapping: it maps {listing(mapping.labels)}"
            warnings.warn(msg, LabelTrackWarning, stacklevel=2)
        if mapping is not None:
            warn_never(mapping, (stats for _, stats in history.items()), stacklevel=2)
        return history

    # -- health -------------------------------------------------------------------------------------------

    def verify(self, *, progress: bool = True) -> _verify.Verification:
        """Compare every checksum, of all attempts, and all that files and journals say of each other.

        Args:
            progress: Whether to show a bar on stderr, if that is a terminal and it takes longer than a second.

        Returns:
            What is intact, torn, corrupt, missing or still being written, file by file, with rows counted.
        """
        return _verify.verify(self._storage, self._catalog, self._trouble, progress=progress)

    def repair(self) -> list[str]:
        """Close parts that a crash left open, so that other programs can read them; write anew what was deleted.

        The rows that were complete are kept; the torn end behind them, which is no row, is cut off. Parts that a
        process is still writing, and parts in which a checksum does not agree, are left alone.

        A journal that is missing is written anew: epochs whose parts say that they ended count again. What no part says
        is not known any more: rows that could not be recorded, and what labels of strings or bytes were. A missing
        ``run.json`` is written from a journal.

        Returns:
            Names of the files that were closed or written anew.

        Raises:
            ImportError: pyarrow is not installed (extra ``record``).
            OSError: A file cannot be written; nothing is lost.
            ValueError: The run is not in a folder of this machine.
        """
        closed = _verify.repair(self._storage, self._catalog, self._description)
        self._trouble = "" if DESCRIPTION in closed else self._trouble
        self._catalog = Catalog(self._storage, self._description.id)
        return closed


def _samples(
    stats: LabelStats, kept: list[Kept], grouping: Grouping | None, mapping: LabelMapping | None
) -> list[Samples]:
    """Return samples with their places in statistics that were made of them."""
    found = []
    for one in kept:
        rows, labels = np.arange(one.labels.shape[0]), one.labels
        if grouping is not None:
            rows, labels = grouping.renamed(one.labels, mapping)
        if labels.size:
            known, sought = common_type([stats.labels, labels])
            found.append(Samples(one.chunks, one.space.keys(one.labels[rows]), np.searchsorted(known, sought)))
    return found


def _check(stats: LabelStats, epoch: Epoch, ds_id: str) -> None:
    try:
        stats.check_finite()
    except NaNError as error:
        of = f" of ds_id {ds_id!r}" if ds_id else ""
        msg = f"mode {epoch.mode!r}, step {epoch.step}{of}: {error}"
        raise NaNError(msg) from None
