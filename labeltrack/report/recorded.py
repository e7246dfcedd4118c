"""The HTML report of recorded runs, with their samples."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from labeltrack._core.arrays import Array
from labeltrack._filters import compared_step, single_mode
from labeltrack._labels.combined import union
from labeltrack._significance.comparison import check_alpha
from labeltrack._significance.pairs import both, in_order, places_of
from labeltrack._tables import check_ending, printable
from labeltrack.compare import samples_of
from labeltrack.errors import counted, missing_key
from labeltrack.history import joined
from labeltrack.page import Content, Track, write_page
from labeltrack.recording.run import Run, open_run

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from labeltrack._significance.p_values import Side
    from labeltrack._significance.pairs import Samples
    from labeltrack.history import History
    from labeltrack.recording.dynamics import Dynamics
    from labeltrack.stats import LabelStats

_BINS = 32
_COUNTED = 500_000  # samples of each side in histograms, about: they need no more
_DRAWN = 1000  # labels with a histogram
_HARDEST = 20  # samples
_LONG_TAIL = 10.0  # largest sample over the mean from which bins are logarithmic


class _Side(NamedTuple):
    """An epoch of a run."""

    run: Run
    name: str
    mode: str
    step: int
    stats: LabelStats


class _Source(NamedTuple):
    """A run: what it is called, the mode of it that is judged, and its history."""

    run: Run
    name: str
    mode: str
    history: History

    def side(self, step: int) -> _Side:
        """Return one epoch."""
        return _Side(self.run, self.name, self.mode, step, self.history.at(step, self.mode))

    def track(self, mode: str, name: str) -> Track:
        """Return one mode, step by step."""
        return Track(name, [(step, self.history.at(step, mode)) for step in self.history.steps(mode)])


def write_report(
    runs: Run | str | os.PathLike[str] | Iterable[Run | str | os.PathLike[str]],
    path: str | os.PathLike[str],
    *,
    mode: str | None = None,
    metric: str | None = None,
    against: int | str = "previous",
    higher_is_worse: bool = True,
    alpha: float = 0.05,
    title: str | None = None,
    progress: bool = True,
) -> None:
    """Write a report of recorded runs: one HTML file with the verdict, tables, curves and distributions of samples.

    Of one run, the last step is compared with an earlier one; of several, that of the last run with that of the first.

    Args:
        runs: A recorded run or several, or their folders, the one to judge last.
        path: A name that ends in .html; an existing file is replaced on success.
        mode: Mode that is judged; None for ``"eval"`` if there is such a mode, else for the only one.
        metric: Metric to judge; None for the first.
        against: What the last step is compared with: ``"previous"``, ``"first"`` or a step. With several runs, it is
            compared with the last step of the first run, or with the step of it that is given here.
        higher_is_worse: True for a loss, False for an accuracy.
        alpha: Limit of q for a verdict.
        title: Title of the page; None for metric and runs.
        progress: Whether to show a progress bar on stderr, if that is a terminal and it takes more than a second.

    Raises:
        ImportError: pyarrow is not installed (extra ``record``).
        KeyError: There is no such mode, metric or step.
        OSError: A run cannot be read, or the file not be written; an existing one stays.
        ValueError: There is no complete epoch, `alpha` is not between 0 and 1, it is not clear which mode is meant, or
            the name has another ending.

    Warns:
        LabelTrackWarning: Damaged rows or incomplete epochs are left out.

    Example:
        >>> import tempfile, pathlib
        >>> import labeltrack as lt
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> with lt.LabelTracker("animal", "ce", record_to=folder / "run") as tracker:
        ...     for step, shift in ((1, 0.0), (2, 0.25)):
        ...         losses = [0.5 + 0.01 * i for i in range(40)] + [1.0 + 0.01 * i + shift for i in range(40)]
        ...         tracker.update(["cat"] * 40 + ["dog"] * 40, losses)
        ...         _ = tracker.end_epoch(step)
        >>> write_report(folder / "run", folder / "report.html")
        >>> "1 of 2 labels got worse" in (folder / "report.html").read_text(encoding="utf-8")
        True
    """
    path = Path(path)
    check_ending(path, (".html", ".htm"))
    check_alpha(alpha)
    sources = _read(runs, mode, metric, progress=progress)
    metric, label, several = sources[-1].history.metric, sources[-1].history.label, len(sources) > 1
    before, after = _sides(sources, against)
    samples = None if before is None else _samples(before, after, metric)
    sides = "" if before is None else _named(before, after)
    content = Content(
        metric,
        label,
        _tracks(sources),
        None if before is None else before.stats,
        title=title or f"{metric} by {label}: {', '.join(source.name for source in sources)}",
        bounds=after.run.bounds,
        higher_is_worse=higher_is_worse,
        alpha=alpha,
        facts=[fact for source in sources for fact in _facts(source.run, f"{source.name}: " * several)],
        sides=sides,
        samples=samples,
        hardest=_hardest(before, after, metric, higher_is_worse=higher_is_worse),
        distribution=None if before is None or samples is None else _distribution(before, after, samples, sides),
        shown=tuple(range(len(sources))),
    )
    write_page(content, path)


def _read(runs: Any, mode: str | None, metric: str | None, *, progress: bool) -> list[_Source]:
    """Return the runs with their histories: of one run all modes, of several the one that is judged."""
    several = [runs] if isinstance(runs, (Run, str, os.PathLike)) else list(runs)
    opened = [run if isinstance(run, Run) else open_run(run) for run in several]
    if not opened:
        msg = "a report needs at least one recorded run"
        raise ValueError(msg)
    metric = opened[-1].metrics[0] if metric is None else metric
    for run in opened:
        if metric not in run.metrics:
            raise missing_key(metric, run.metrics, f"metric in {run.path}:")
    modes = [single_mode((epoch.mode for epoch in run.epochs), mode) for run in opened]
    names = [run.path.rstrip("/").rpartition("/")[2] for run in opened]
    names = names if len(set(names)) == len(opened) else [run.path for run in opened]
    options: dict[str, Any] = {"bounds": None, "metric": metric, "progress": progress}
    return [
        _Source(run, name, of, run.recompute(modes=of if len(opened) > 1 else None, **options))
        for run, name, of in zip(opened, names, modes, strict=True)
    ]


def _sides(sources: list[_Source], against: int | str) -> tuple[_Side | None, _Side]:
    """Return what is compared."""
    for run, _, mode, history in sources:
        if mode not in history.modes:
            msg = f"{run.path} has no complete epoch in mode {mode!r}"
            raise ValueError(msg)
    first, last = sources[0], sources[-1]
    steps = first.history.steps(first.mode)
    at = compared_step(steps if len(sources) > 1 else steps[:-1], against)
    return None if at is None else first.side(at), last.side(last.history.steps(last.mode)[-1])


def _named(before: _Side, after: _Side) -> str:
    of, to = ("", "") if before.run is after.run else (f" of {before.name}", f" of {after.name}")
    return f"step {before.step}{of} to step {after.step}{to}"


def _samples(before: _Side, after: _Side, metric: str) -> Samples:
    """Return the samples of both sides."""
    labels, sides = union([before.stats.labels, after.stats.labels])[0], (before, after)

    @functools.cache
    def load() -> Samples:
        old, new = (samples_of(side.run, side.mode, side.step, metric=metric) for side in sides)
        return both(old, new, labels)

    rows, others = (int(side.stats.count.sum()) for side in sides)
    for run in (before.run, after.run):
        if rows != others or run._description.ids or not isinstance(run.label, str):  # noqa: SLF001 (see `_hardest`)
            return load()
    parts = [functools.partial(_parts, side, metric, labels) for side in sides]
    return in_order(parts, labels, rows, -(-rows // _COUNTED) or 1, load) or load()


def _parts(side: _Side, metric: str, labels: Array) -> Iterator[Side]:
    """Yield positions of labels and samples of an epoch, batch by batch."""
    known = {label: k for k, label in enumerate(labels.tolist())}
    table = functools.cache(lambda words: np.array([known.get(word, -1) for word in words.array.tolist()]))
    place = side.run.metrics.index(metric)
    for reader, rows in side.run._batches(side.mode, side.step):  # noqa: SLF001 (it is nothing for users)
        words, keys, values = reader.labels[0].words, rows.labels[0], rows.values[place]
        codes = places_of(keys, labels) if words is None else table(words)[keys]
        kept = slice(None) if codes is keys or codes.min(initial=0) >= 0 else codes >= 0
        yield codes[kept], values[kept]


def _hardest(before: _Side | None, after: _Side, metric: str, *, higher_is_worse: bool) -> dict[str, Any] | None:
    """Return the table of the worst samples of the last step, if they have ids."""
    if not after.run._description.ids:  # noqa: SLF001 (`info` looks at every file)
        return None
    looks = [after] if before is None or before.run is not after.run else [before, after]
    tables = [side.run.dynamics(side.mode, metric, step=side.step, correct=False, progress=False) for side in looks]
    found = tables[-1].hardest(_HARDEST, by="last", higher_is_worse=higher_is_worse)
    stats, labels = after.stats, found.labels.tolist()
    labels = [stats.names[stats.index(label)] if label in stats else label for label in labels]
    columns = [_last_of(*one, found, after) for one in zip(tables, looks, strict=True)]
    head = ["id", joined(after.run.label), *(f"step {side.step}" for side in looks)]
    return {
        "note": f"The samples with the worst {metric} in step {after.step} of {after.mode}.",
        "head": [*map(printable, head)],
        "rows": [
            [printable(str(cell)) for cell in row] for row in zip(found.ids.tolist(), labels, *columns, strict=True)
        ],
    }


def _last_of(table: Dynamics, side: _Side, found: Dynamics, at: _Side) -> list[str]:
    """Return the last values on one side of the samples that were found on another."""
    datasets, shown = _datasets(table, side), []
    for name, ds_id in zip(found.ids.tolist(), _datasets(found, at).tolist(), strict=True):
        values = [table.last[k] for k in np.flatnonzero(table.ids == name) if datasets[k] == ds_id]
        shown.append(f"{values[0]:.6g}" if values else "-")
    return shown


def _datasets(table: Dynamics, side: _Side) -> Array:
    """Return the dataset of each sample, or the only one there is for all."""
    if table.ds_ids.size:
        return table.ds_ids
    there = [epoch.ds_ids for epoch in side.run.epochs if (epoch.mode, epoch.step) == (side.mode, side.step)]
    return np.broadcast_to(np.array(there[0][:1]), len(table))


def _tracks(sources: list[_Source]) -> list[Track]:
    """Return the judged mode first, then the others: of the same run, or that mode of the other runs."""
    if len(sources) > 1:
        return [source.track(source.mode, f"{source.name}, {source.mode}") for source in reversed(sources)]
    (only,) = sources
    return [only.track(mode, mode) for mode in [only.mode, *(of for of in only.history.modes if of != only.mode)]]


def _facts(run: Run, of: str) -> list[tuple[str, str]]:
    """Return what was recorded and what was lost."""
    info = run.info()
    sessions, epochs = info["sessions"], info["by_epoch"]
    lost = sum(epoch["lost"] for epoch in epochs)
    unfinished = ", ".join(f"{mode} {step}" for mode, step in info["incomplete"])
    recorded = f"{info['created']} by labeltrack {info['labeltrack']}, in {counted(sessions, 'session')}"
    samples = f"{info['rows']:,} in {counted(info['epochs'], 'complete epoch')}, {info['bytes'] / 1e6:,.1f} MB"
    facts = [
        (f"{of}run", info["path"]),
        (f"{of}recorded", recorded),
        (f"{of}samples", samples),
        (f"{of}lost", f"{counted(lost, 'sample')} could not be recorded" if lost else "nothing"),
    ]
    facts += [(f"{of}left out", f"epochs that did not end: {unfinished}")] if unfinished else []
    return facts + [(f"{of}damaged", text) for text in info["damage"]]


def _distribution(before: _Side, after: _Side, samples: Samples, sides: str) -> dict[str, Any]:
    """Count the samples of each label in equal bins, of their logarithms where the largest is far off."""
    labels, places = union([before.stats.labels, after.stats.labels])
    size = labels.shape[0]
    low, high = np.full(size, np.inf), np.full(size, -np.inf)
    count, mean = np.zeros(size), np.zeros(size)
    for side, at in zip((before, after), places, strict=True):
        low[at], high[at] = np.fmin(low[at], side.stats.min), np.fmax(high[at], side.stats.max)
        count[at] += side.stats.count
        mean[at] = np.fmax(mean[at], side.stats.mean)
    usable = np.flatnonzero(np.isfinite(low) & np.isfinite(high) & (count > 0))
    chosen = np.sort(usable[np.argsort(-count[usable], kind="stable")][:_DRAWN])
    rows = np.full(size, -1)
    rows[chosen] = np.arange(chosen.size)
    log = (low > 0) & (high / _LONG_TAIL > mean)
    with np.errstate(all="ignore"):
        start, end = (np.where(log, np.log(edge), edge) / 2 for edge in (low, high))
        width = (end - start) / _BINS  # halves: the difference may be more than a double holds

    def counted_in_bins(codes: Array, values: Array) -> Array:
        kept = (rows[codes] >= 0) & np.isfinite(values)
        codes, values = codes[kept], values[kept].astype(np.float64)
        values[log[codes]] = np.log(values[log[codes]])
        with np.errstate(all="ignore"):
            at = (values / 2 - start[codes]) / width[codes]
        at = np.fmin(np.fmax(at, 0), _BINS - 1)  # NaN where all samples are one number
        return np.bincount(rows[codes] * _BINS + at.astype(np.int64), minlength=chosen.size * _BINS)

    step = -(-max(map(len, samples.codes)) // _COUNTED) or 1
    every = step * samples.spacing
    old, new = (
        counted_in_bins(codes[::step], values[::step])
        for codes, values in zip(samples.codes, samples.values, strict=True)
    )
    edges = {"labels": chosen, "low": low[chosen], "high": high[chosen], "log": log[chosen].astype(np.uint8)}
    return {
        "bins": _BINS,
        "note": "" if every == 1 else f" (one in {every} samples was counted)",
        "sides": printable(sides),
        "columns": {**edges, "before": old, "after": new},
    }
