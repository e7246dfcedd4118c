"""`open_run`: a recorded run, to inspect, recompute, export and verify."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from labeltrack._core.threads import check_threads
from labeltrack._labels.options import ONLY, Labels
from labeltrack._nan_policy import NanPolicy, check_nan_policy
from labeltrack.bounds import TRACKER_BOUNDS, Default, needed_quantiles, resolve_all
from labeltrack.errors import counted, listing, warn
from labeltrack.history import History, joined
from labeltrack.recording import repair as _repair
from labeltrack.recording.description import DESCRIPTION, Description
from labeltrack.recording.epochs import RecordedEpoch, RunIndex
from labeltrack.recording.layout import size_of
from labeltrack.recording.per_sample import PerSample
from labeltrack.recording.reader import open_parts, progress_bar, read_rows
from labeltrack.recording.recompute import Recomputation, Rules
from labeltrack.recording.regroup import Grouping, grouping_of
from labeltrack.recording.storage import storage_of

if TYPE_CHECKING:
    import os

    from labeltrack.bounds import BoundName, TrackerBounds
    from labeltrack.recording.epochs import Epoch, PartEntry
    from labeltrack.recording.reader import Engine, PartReader, PartResult, Rows


_Names = str | Iterable[str] | None


def open_run(path: str | os.PathLike[str]) -> Run:
    """Open a recorded run; only its description and its journals are read.

    Args:
        path: Its folder, as passed to ``record_to``; or any path that fsspec supports, such as ``s3://bucket/run``.

    Raises:
        FileNotFoundError: There is no recorded run.
        OSError: It cannot be read.
        DamagedRunError: Its description and all journals are damaged.
        ValueError: It is in a later version of the format.
        ImportError: xxhash is not installed (extra ``record``), or fsspec for paths with a protocol (extra ``dask``).

    Example:
        >>> import tempfile
        >>> import labeltrack as lt
        >>> folder = tempfile.mkdtemp()
        >>> with lt.LabelTracker("y", "ce", record_to=folder) as tracker:
        ...     tracker.update([0, 1, 1], [0.5, 2.0, 3.0])
        ...     _ = tracker.end_epoch(1)
        >>> run = lt.open_run(folder)
        >>> run.recompute(label_mapping={"one": 1}).at(1, "train")["one"].mean
        2.5
        >>> run.samples("train", step=1)["value"].to_pylist()
        [0.5, 2.0, 3.0]
        >>> run.verify().ok
        True
    """
    return Run(path)


class Run(PerSample):
    """A recorded run; see `open_run`.

    Attributes:
        path: Where it is.
        metrics: Names of the metrics.
        metric: Name of the metric; of several, all names in one text.
        label: Name of the label; of several labels per sample, a tuple of names.
        label_mapping: ``{display name: label value}`` that the run was tracked with, or None. With several labels,
            ``{name of the label: mapping or None}``.
        bounds: Names of the bounds it was tracked with.
        nan_policy: What NaN samples did.
        missing: What samples without a label did. Under ``"label"``, their label is ``"(missing)"`` among strings and
            ``-2**63`` among numbers. With several labels for which it differs, ``{name of the label: option}``.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._storage = storage_of(path)
        self.path = self._storage.root
        self._trouble = ""  # what is wrong with the description
        try:
            self._description = Description.read(self._storage)
            self._index = RunIndex(self._storage, self._description.id)
        except (FileNotFoundError, ValueError) as error:
            try:  # every journal has a copy
                self._index = RunIndex(self._storage)
                self._description = Description.from_plain(self._index.description)
            except (OSError, ValueError):
                raise error from None
            self._trouble = str(error)
            if isinstance(error, FileNotFoundError):
                self._trouble = f"{DESCRIPTION} is missing; the copy in a journal is used instead"
        described = self._description
        self.metrics, self.metric = described.metrics, joined(described.metrics)
        self.label, self.missing, self.bounds = described.label, described.missing, described.bounds
        self.label_mapping = None if described.label_mapping is None else dict(described.label_mapping)
        self.nan_policy: NanPolicy = check_nan_policy(described.nan_policy)

    # -- what is there ------------------------------------------------------------------------------------

    @property
    def epochs(self) -> list[RecordedEpoch]:
        """Every epoch, in the order in which they ended; those that did not end come last."""
        return [epoch.recorded() for epoch in self._index.epochs if epoch.attempts]

    def info(self) -> dict[str, Any]:
        """Return a description of the run as plain values.

        Returns:
            path, metric, metrics, label, ids (whether samples have them), duplicates (``"first"`` or ``"count"``: which
            samples of one id count), label_mapping, bounds, nan_policy, missing, dtypes, labeltrack (the version that
            began it), created, sessions (launches), modes, ds_ids, epochs (number of complete ones), incomplete (mode
            and step of the others), by_epoch (`epochs` as dicts), rows, bytes (of all files of samples), and damage
            (messages about description and journals; `verify` checks the samples, too).
        """
        epochs = self.epochs
        return {
            "path": self.path,
            "metric": self.metric,
            "metrics": list(self.metrics),
            "ids": self._description.ids,
            "duplicates": self._description.duplicates,
            "label": self.label if isinstance(self.label, str) else list(self.label),
            "label_mapping": self.label_mapping,
            "bounds": [list(bound) if isinstance(bound, tuple) else bound for bound in self.bounds],
            "nan_policy": self.nan_policy,
            "missing": self.missing,
            "dtypes": [list(pair) for pair in self._description.dtypes],
            "labeltrack": self._description.labeltrack,
            "created": self._description.created,
            "sessions": self._index.sessions,
            "modes": list(dict.fromkeys(epoch.mode for epoch in epochs)),
            "ds_ids": list(dict.fromkeys(ds_id for epoch in epochs for ds_id in epoch.ds_ids)),
            "epochs": sum(epoch.complete for epoch in epochs),
            "incomplete": [[epoch.mode, epoch.step] for epoch in epochs if not epoch.complete],
            "by_epoch": [{**asdict(epoch), "ds_ids": list(epoch.ds_ids)} for epoch in epochs],
            "rows": sum(epoch.rows for epoch in epochs),
            "bytes": sum(size_of(self._storage, place.name) for place in self._index.contents.places),
            "damage": self._damage(),
        }

    def _damage(self) -> list[str]:
        journals = [f"{name}: {text}" for name, texts in self._index.damage.items() for text in texts]
        return ([self._trouble] if self._trouble else []) + journals

    def __repr__(self) -> str:
        """Return what was tracked, and how much of it there is."""
        epochs = self.epochs
        unfinished = sum(not epoch.complete for epoch in epochs)
        more = f", {unfinished} of them incomplete" if unfinished else ""
        size = f"{counted(len(epochs), 'epoch')}{more}, {counted(sum(epoch.rows for epoch in epochs), 'sample')}"
        return f"Run({self.path!r}): {self.metric!r} by {self.label!r}, {size}"

    # -- samples ------------------------------------------------------------------------------------------

    def samples(
        self,
        mode: _Names = None,
        step: int | Iterable[int] | None = None,
        ds_id: _Names = None,
        *,
        columns: Iterable[str] | None = None,
        incomplete: bool = False,
        all_attempts: bool = False,
        copy: bool = False,
    ) -> Any:
        """Return samples as an Arrow table.

        Args:
            mode: Modes: a name, several, ``"!name"`` for all others, or None for all.
            step: Steps: one, several, or None for all.
            ds_id: Dataset ids, as for modes.
            columns: Names of columns. Samples have ``label``, or a column per label with its name; ``value``, or a
                column per metric with its name; and ``id``, if they have ids. By default all of these, which share the
                memory of the files. There are also mode, ds_id, step, session, rank and attempt, which take 4 bytes per
                row.
            incomplete: Whether to include the available samples of epochs that did not end, or of which samples could
                not be recorded.
            all_attempts: Whether to include everything that was recorded: `incomplete`, and attempts that were
                interrupted or repeated.
            copy: Whether the table has memory of its own. Otherwise it shares that of the files, which must not be
                truncated while it is in use, unless columns have several types or labels are bools.

        Returns:
            A pyarrow Table with one chunk per recorded batch, samples whose id occurs again included. Strings are
            dictionary-encoded.

        Raises:
            ImportError: pyarrow is not installed (extra ``record``).
            KeyError: There is no such mode, step or dataset.
            ValueError: There is no such column, or labels have types that do not fit one column.

        Warns:
            LabelTrackWarning: Damaged rows or incomplete epochs are left out.
        """
        from labeltrack.recording.export import table  # noqa: PLC0415 (pyarrow is an extra)

        chosen, taken, left_out = self._parts(mode, step, ds_id, incomplete=incomplete, all_attempts=all_attempts)
        result, found = table(self._storage, chosen, self._description.columns, columns, mapped=not copy)
        self._warn(found, [] if all_attempts else taken, left_out)
        return result

    def export(
        self,
        path: str | os.PathLike[str],
        mode: _Names = None,
        step: int | Iterable[int] | None = None,
        ds_id: _Names = None,
        *,
        columns: Iterable[str] | None = None,
        incomplete: bool = False,
        all_attempts: bool = False,
        progress: bool = True,
    ) -> int:
        """Write samples to a file, batch by batch.

        Args:
            path: A name that ends in .parquet or .csv; an existing file is replaced once everything is written.
            mode: See `samples`.
            step: See `samples`.
            ds_id: See `samples`.
            columns: See `samples`; None: mode, ds_id, step, and all that samples have.
            incomplete: See `samples`.
            all_attempts: See `samples`.
            progress: Whether to show a progress bar on stderr, if that is a terminal and it takes more than a second.

        Returns:
            The number of samples written.

        Raises:
            ImportError: pyarrow is not installed (extra ``record``).
            KeyError: There is no such mode, step or dataset.
            OSError: The file cannot be written.
            ValueError: The name has another ending, there is no such column, or labels have types that do not fit one.

        Warns:
            LabelTrackWarning: Damaged rows or incomplete epochs are left out.
        """
        from labeltrack.recording.export import write  # noqa: PLC0415 (pyarrow is an extra)

        chosen, taken, left_out = self._parts(mode, step, ds_id, incomplete=incomplete, all_attempts=all_attempts)
        total = sum(part.rows or 0 for part in chosen)
        with progress_bar("Writing", total, "samples", wanted=progress) as advance:
            rows, found = write(self._storage, chosen, self._description.columns, columns, Path(path), advance)
        self._warn(found, [] if all_attempts else taken, left_out)
        return rows

    def _parts(
        self, mode: Any, step: Any, ds_id: Any, *, incomplete: bool, all_attempts: bool
    ) -> tuple[list[PartEntry], list[Epoch], list[Epoch]]:
        """Return the selected parts, their epochs, and the epochs that are left out."""
        taken, left_out = self._index.select(mode, step, "mode", incomplete=incomplete or all_attempts)
        ds_ids = self._index.select_datasets(ds_id)
        attempts = [one for epoch in taken for one in (epoch.every_attempt if all_attempts else epoch.attempts)]
        return [part for attempt in attempts for part in attempt.parts if part.ds_id in ds_ids], taken, left_out

    def _batches(self, mode: str, step: int) -> Iterator[tuple[PartReader, Rows]]:
        """Return the samples of an epoch that are intact, batch by batch, with what reads them."""
        parts, *_ = self._parts(mode, step, None, incomplete=False, all_attempts=False)
        return read_rows(open_parts(self._storage, parts, self._description.columns))

    def _warn(self, found: Sequence[PartResult], taken: Sequence[Epoch], left_out: Sequence[Epoch]) -> None:
        """Warn about damage, about epochs that are left out, and about those taken from an older session."""
        bad = [part for part in found if part.message and (part.lost or not part.torn)]
        unlisted = [
            pair
            for epoch, attempts in [(e, e.others) for e in taken] + [(e, e.every_attempt) for e in left_out]
            for pair in _repair.ended_without_journal(self._index, epoch, attempts)
        ]
        if bad or unlisted or self._damage():
            lost = sum(part.lost for part in bad) + sum(rows for _, rows in unlisted)
            texts = [f"{p.name}: {p.message} ({counted(p.lost, 'row')} lost, {p.rows:,} intact)" for p in bad]
            texts += [f"{one}: no journal says that it ended ({counted(rows, 'row')})" for one, rows in unlisted]
            shown = listing([*self._damage(), *texts], 3)
            msg = f"{self.path} is damaged; {counted(lost, 'row', 'are')} left out: {shown}. See run.verify()"
            warn(msg)
        older = [epoch.older_session_message() for epoch in taken if epoch.newer]
        if older:
            more = f", and {len(older) - 3} more epochs" if len(older) > 3 else ""
            warn(", ".join(older[:3]) + more)
        if left_out:
            names = listing([f"{epoch.mode} {epoch.step}" for epoch in left_out], 5)
            absent = "".join(f"; {text}" for text in sorted({epoch.absent for epoch in left_out} - {""}))
            msg = (
                f"epochs that did not end, or of which samples could not be recorded, are left out: {names}; "
                f"incomplete=True (--incomplete) includes what there is of them{absent}"
            )
            warn(msg)

    # -- recomputing --------------------------------------------------------------------------------------

    def recompute(
        self,
        bounds: BoundName | Iterable[BoundName] | TrackerBounds = TRACKER_BOUNDS,
        label_mapping: Mapping[str, Any] | Literal[Default.RECORDED] | None = Default.RECORDED,
        *,
        metric: str | None = None,
        modes: _Names = None,
        group: Mapping[Any, Any] | Callable[[Any], Hashable] | None = None,
        rest: Any = None,
        nan_policy: NanPolicy | None = None,
        incomplete: bool = False,
        engine: Engine = "local",
        threads: int | None = None,
        progress: bool = True,
    ) -> History:
        """Compute the history from the samples.

        Without arguments, the result is the history of the tracker that recorded the run, bit for bit. Of a run of
        several metrics, name one: ``{name: run.recompute(metric=name) for name in run.metrics}`` has all histories.

        Args:
            bounds: Bounds that plots of the history show; by default those of the run. For ``"iqr"``, ``"median"`` and
                ``("quantile", low, high)``, the samples of an epoch must fit into memory.
            label_mapping: ``{display name: label value}``; other labels are ignored. None keeps every label. By
                default, the mapping that the run was tracked with, or None with `group`. With several labels, one
                mapping or None for each, as ``{name of the label: mapping}`` or a tuple.
            metric: Name of the metric, of which there may be several; see `metrics`. None if there is one.
            modes: Modes: a name, several, ``"!name"`` for all others, or None for all.
            group: New labels by label, such as coarse classes, as a mapping or a function, which is called once per
                label and epoch. Labels that are not in the mapping, or whose new label is None, are left out. In a
                mapping, the key None stands for samples without a label. `label_mapping` then applies to new labels.
                With several labels, ``{name of the label: mapping or function}`` for some of them; or a function of the
                combination, a tuple, that returns one new label.
            rest: New label of those that `group` would leave out. With several labels, that of each label in `group`;
                or ``{name of the label: new label}``.
            nan_policy: What NaN samples do: ``"propagate"``, ``"omit"`` or ``"raise"``; None does what the run did.
            incomplete: Whether to include epochs that did not end, or of which samples could not be recorded.
            engine: ``"local"``: this process. ``"dask"``: the current `dask.distributed` client, or a local cluster
                if there is none. The result is the same, bit for bit.
            threads: How many threads ``"local"`` uses; None chooses by the number of samples.
            progress: Whether to show a progress bar on stderr, if that is a terminal and it takes more than a second.

        Returns:
            The history, with the statistics of each mode, dataset and step.

        Raises:
            ImportError: Dask is not installed (extra ``dask``).
            KeyError: There is no such mode or metric.
            TypeError: The labels cannot be ordered, or an argument has the wrong type.
            ValueError: An unknown option, NaN samples under ``"raise"``, quantiles on a cluster, no `metric` where
                there are several, or keys of `group` for the same label, such as 0.1 in two precisions, that disagree.

        Warns:
            LabelTrackWarning: Damaged rows or incomplete epochs are left out, a label of the mapping does not occur, or
                labels have no key in `group`.
        """
        resolved = resolve_all(self.bounds if bounds is TRACKER_BOUNDS else bounds)
        if metric is None and len(self.metrics) > 1:
            msg = f"the run has several metrics; pass metric=… (--metric), one of {listing(self.metrics)}"
            raise ValueError(msg)
        described, place = self._description, self._place(metric)
        grouping = grouping_of(described, group, rest)
        if label_mapping is Default.RECORDED:
            label_mapping = self.label_mapping if grouping is None else None
        if grouping is None:
            labels = new = Labels(described.label, label_mapping, described.missing)
        else:
            labels = Labels(described.label, None, described.missing)
            new = Labels(ONLY if isinstance(grouping, Grouping) else described.label, label_mapping)
        policy = check_nan_policy(self.nan_policy if nan_policy is None else nan_policy)
        rules = Rules(replace(described, label_mapping=None), place, labels, policy)
        quantiles, threads = needed_quantiles(resolved), check_threads(threads)
        recomputation = Recomputation(rules, grouping, new, quantiles, engine, threads)
        taken, left_out = self._index.select(modes, None, "modes", incomplete=incomplete)
        epochs = [epoch for epoch in taken if epoch.attempts]
        label = joined((self.label,) if isinstance(self.label, str) else self.label)
        history = History(metric=self.metrics[place], label=label, bounds=tuple(bound.name for bound in resolved))
        found = recomputation.run(self._storage, epochs, history, progress=progress)
        self._warn(found, taken, left_out)
        if grouping is not None and (text := grouping.left_out()):
            warn(text)
        if new.mapped and not len(history) and any(part.rows for part in found):
            new.warn_nothing([])
        new.warn_never(stats for _, stats in history.items())
        return history

    # -- health -------------------------------------------------------------------------------------------

    def verify(self, *, progress: bool = True) -> _repair.Verification:
        """Compare every checksum, of all attempts, and check that files and journals agree.

        Args:
            progress: Whether to show a progress bar on stderr, if that is a terminal and it takes more than a second.

        Returns:
            What is intact, torn, corrupt, missing or still being written, file by file, with numbers of rows.
        """
        return _repair.verify(self._index, self._description.columns, self._trouble, progress=progress)

    def repair(self) -> list[str]:
        """Close parts that a crash left open, so that other programs can read them, and rebuild deleted files.

        Complete rows are kept; the torn end behind them, which is less than a row, is cut off. Parts that a process is
        still writing, and parts with a wrong checksum, are left alone.

        A missing journal is rebuilt: epochs whose parts say that they ended count again. What no part says stays
        unknown: rows that could not be recorded, and what string or bytes labels were. Its parts are rewritten, as
        only the journal had the checksums of their footers. A missing ``run.json`` is written from a journal.

        Returns:
            Names of the files that were closed or rebuilt.

        Raises:
            ImportError: pyarrow is not installed (extra ``record``).
            OSError: A file cannot be written; nothing is lost.
            ValueError: The run is not in a local folder.
        """
        repaired = _repair.repair(self._index, self._description)
        self._trouble = "" if DESCRIPTION in repaired else self._trouble
        self._index = RunIndex(self._storage, self._description.id)
        return repaired
