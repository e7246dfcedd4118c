"""Sinks: the results of epochs in TensorBoard, Weights & Biases, MLflow, Trackio, Aim, Comet, DVCLive and JSON lines.

A sink is a callable that takes a `labeltrack.EpochResult`; a tracker calls it when an epoch has ended:
``LabelTracker("class", "ce", sinks=[TensorBoardSink(writer)])``. Those here write the mean of each label as a scalar
``{mode}/{metric}_by_{label}/{name}``, a table of all statistics, and a figure now and then. Beyond 50 labels, scalars
are those of the worst labels, and ``macro_mean``, ``macro_min``, ``macro_q25``, ``macro_median``, ``macro_q75`` and
``macro_max`` of the means of all. Options are those of `LoggerSink`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

import labeltrack

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "AimSink",
    "CometSink",
    "DVCLiveSink",
    "JsonlSink",
    "LoggerSink",
    "MLflowSink",
    "Report",
    "ScalarsSink",
    "TensorBoardSink",
    "TrackioSink",
    "WandbSink",
]

_ACROSS = tuple(f"macro_{name}" for name in ("mean", "min", "q25", "median", "q75", "max"))
_QUARTILES = (0.25, 0.5, 0.75)
_RESERVED = {(name,): name for name in (*_ACROSS, "table", "figure")}  # no label is a tuple of one


@dataclass(frozen=True)
class Report:
    """What a logger gets of an epoch.

    Attributes:
        step: The epoch or step.
        key: ``"{mode}/{metric}_by_{label}"``.
        scalars: Numbers by their whole names, such as ``"eval/ce_by_class/cat"``.
        table: Columns by name, as lists of built-in values; the worst label is in the first row.
        figure: All epochs so far; None except every so many epochs.
    """

    step: int
    key: str
    scalars: dict[str, float]
    table: dict[str, list[Any]]
    figure: Figure | None = None

    @property
    def rows(self) -> list[list[Any]]:
        """The rows of the table."""
        return [list(row) for row in zip(*self.table.values(), strict=True)]

    @property
    def markdown(self) -> str:
        """The table as Markdown."""
        lines = [list(self.table), ["---"] * len(self.table), *self.rows]
        return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)

    @property
    def csv(self) -> str:
        """The table as CSV."""
        lines = [list(self.table), *self.rows]
        quoted = ([f'"{text.replace(chr(34), 2 * chr(34))}"' for text in map(str, line)] for line in lines)
        return "\n".join(map(",".join, quoted)) + "\n"


class LoggerSink(ABC):
    """What sinks for loggers share: which numbers are written, and their names.

    A subclass has `write`, and the characters that its logger refuses.

    Args:
        max_scalars: How many labels at most get scalars of their own.
        worst: How many of the worst labels of an epoch get them if there are more labels. They keep them in all epochs
            that follow, so that their curves have no holes; beyond `max_scalars` of them, new ones are in the table
            alone.
        figure_every: A figure is drawn in the first epoch and in every so many; 0 for none.
        max_rows: How many labels at most are in the table, the worst ones.
        higher_is_worse: True for a loss, False for an accuracy.
        summary: Whether there are scalars of all labels together even if each label has its own.

    Raises:
        ValueError: A negative number.
    """

    forbidden: ClassVar[str] = r"[/\\]"
    """What names of labels, metrics and modes may not contain: a regular expression for a character."""
    longest: ClassVar[int] = 250
    """Bytes of a whole key of three such names, which is the limit of MLflow; longer names are cut."""

    def __init__(
        self,
        *,
        max_scalars: int = 50,
        worst: int = 10,
        figure_every: int = 10,
        max_rows: int = 1000,
        higher_is_worse: bool = True,
        summary: bool = False,
    ) -> None:
        numbers = {"max_scalars": max_scalars, "worst": worst, "figure_every": figure_every, "max_rows": max_rows}
        for name, number in numbers.items():
            if number < 0:
                msg = f"{name} must not be negative, got {number}"
                raise ValueError(msg)
        self.max_scalars, self.worst, self.figure_every, self.max_rows = max_scalars, worst, figure_every, max_rows
        self.higher_is_worse, self.summary = higher_is_worse, summary
        self._forbidden = re.compile(self.forbidden)
        self._names: dict[str, dict[Any, str]] = {}  # by group of names and what they are made of
        self._shown: dict[str, dict[Any, str]] = {}  # labels with scalars, by key
        self._epochs: dict[str, int] = {}

    @abstractmethod
    def write(self, report: Report) -> None:
        """Write what there is of an epoch, under names that are allowed and unique."""

    def __call__(self, result: labeltrack.EpochResult) -> None:
        """Write the result of an epoch, as a tracker hands it over."""
        if not len(result.stats):
            return
        report = self.report(result)
        n = self._epochs[report.key] = self._epochs.get(report.key, 0) + 1
        failure = None
        if self.figure_every and (n == 1 or n % self.figure_every == 0):
            try:
                report = replace(report, figure=result.history.plot(modes=result.mode))
            except Exception as error:  # noqa: BLE001 (numbers are written all the same)
                failure = error
        self.write(report)
        if failure is not None:
            raise failure

    def report(self, result: labeltrack.EpochResult) -> Report:
        """Return what is written of the result of an epoch, without the figure."""
        key = self._key(result)
        stats = result.stats
        order = stats.order("mean", descending=self.higher_is_worse)
        mean, labels = stats.mean, stats.labels
        some = order if len(stats) <= self.max_scalars else order[: self.worst]
        shown = self._shown.setdefault(key, {})
        for label, name in zip(labels[some].tolist(), stats.names[some].tolist(), strict=True):
            if len(shown) < self.max_scalars:
                shown[label if label == label else name] = name  # noqa: PLR0124 (NaN is the missing label)
        most = self.longest - len(f"{key}/_1234".encode())
        scalars = {
            f"{key}/{self._safe(key, label, name, most)}": float(mean[stats.index(label)])
            for label, name in sorted(shown.items(), key=lambda item: self._allowed(item[1], most) != item[1])
            if label in stats
        }
        if self.summary or len(scalars) < len(stats):
            scalars |= {f"{key}/{name}": value for name, value in _across(mean).items()}
        columns = {name: column[order[: self.max_rows]].tolist() for name, column in stats.columns().items()}
        table = {_plain(name): list(map(_plain, column)) for name, column in columns.items()}
        return Report(result.step, key, scalars, table)

    def _key(self, result: labeltrack.EpochResult) -> str:
        """Return ``{mode}/{outputs}``."""
        mode = self._safe("", result.mode, result.mode, self.longest // 4)
        return f"{mode}/{self._safe(f'{mode}/', result.outputs, result.outputs, 2 * self.longest // 5)}"

    def _safe(self, group: str, of: Any, name: str, most: int) -> str:
        """Return a name that the logger takes, the same one in every epoch, and of nothing else in its group."""
        names = self._names.setdefault(group, dict(_RESERVED))
        if of not in names:
            unique = allowed = self._allowed(name, most)
            taken = {other.casefold() for other in names.values()}  # file systems may not tell cases apart
            digest = hashlib.sha256(f"{name!r} {of!r}".encode("utf-8", "backslashreplace")).hexdigest()
            length = 4
            while unique.casefold() in taken:
                unique = f"{allowed}_{digest[:length]}"
                length += 1
            names[of] = unique
        return names[of]

    def _allowed(self, name: str, most: int) -> str:
        """Return a name that the logger takes, of at most so many bytes."""
        text = unicodedata.normalize("NFC", _plain(name))
        text = self._forbidden.sub("_", "".join(char if char.isprintable() else "_" for char in text)).strip()
        text = text.encode()[:most].decode(errors="ignore")
        return text if text.strip(".") else "_" * max(len(text), 1)  # not the name of a folder


def _across(mean: np.ndarray[Any, Any]) -> dict[str, float]:
    """Return the macro mean, and quantiles of the means of the labels; those that are no numbers are left out."""
    found = mean[~np.isnan(mean)]
    if not found.size:
        return {}
    stats = labeltrack.label_stats(np.zeros(found.size, np.int64), found, quantiles=_QUARTILES)
    columns = [stats.mean, stats.min, *map(stats.quantile, _QUARTILES), stats.max]
    return {name: float(column[0]) for name, column in zip(_ACROSS, columns, strict=True)}


def _plain(value: Any) -> Any:
    """Return a value of a table that every logger takes; text is valid UTF-8."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return value if isinstance(value, (int, float)) else str(value)


def _image(figure: Figure) -> Any:
    """Return a figure as an image of PIL."""
    from PIL import Image  # noqa: PLC0415 (matplotlib needs it)

    file = BytesIO()
    figure.savefig(file, format="png", dpi=100)
    return Image.open(file)


def _cell(value: Any) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return re.sub(r"([\\|`*_<>\[\]])", r"\\\1", " ".join(text.split())) if isinstance(value, str) else text


# -- one sink for each logger ---------------------------------------------------------------------------------


class TensorBoardSink(LoggerSink):
    """Write to a ``torch.utils.tensorboard.SummaryWriter`` or a ``tensorboardX.SummaryWriter``."""

    forbidden = r"[^\w.\-]"

    def __init__(self, writer: Any, **options: Any) -> None:
        super().__init__(**options)
        self.writer = writer

    def write(self, report: Report) -> None:
        """Write scalars, the table as text, and the figure as an image."""
        for name, value in report.scalars.items():
            self.writer.add_scalar(name, value, report.step)
        self.writer.add_text(f"{report.key}/table", report.markdown, report.step)
        if report.figure is not None:
            self.writer.add_figure(f"{report.key}/figure", report.figure, report.step)


class WandbSink(LoggerSink):
    """Write to a ``wandb.Run``, in the row that is being logged; the step of the tracker is ``{key}_step``.

    The run's own step is left as it is, so it does not matter whether other code counts batches or epochs.
    """

    forbidden = r"[/\\.*]"  # wandb takes a full stop for a level of a nested dict

    def __init__(self, run: Any, **options: Any) -> None:
        super().__init__(**options)
        self.run = run
        self._rows: dict[str, int] = {}

    def write(self, report: Report) -> None:
        """Log everything at once."""
        import wandb  # noqa: PLC0415 (the run comes from it)

        key, axis = report.key, f"{report.key}_step"
        if key not in self._rows:
            self.run.define_metric(axis, hidden=True)
            self.run.define_metric(f"{key}/*", step_metric=axis)
        table = wandb.Table(columns=list(report.table), data=report.rows)
        data = {**report.scalars, axis: report.step, f"{key}/table": table}
        if report.figure is not None:
            data[f"{key}/figure"] = wandb.Image(_image(report.figure))
        row = max(self.run.step, self._rows.get(key, -1) + 1)  # two epochs do not go into one row
        self.run.log(data, step=row)
        self._rows[key] = row


class MLflowSink(LoggerSink):
    """Write to a run of MLflow by its id; None for the active one."""

    forbidden = r"[^\w.\- :]"

    def __init__(self, run_id: str | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.run_id = run_id

    def write(self, report: Report) -> None:
        """Log metrics in one call, and table and figure as artifacts."""
        import mlflow  # noqa: PLC0415 (whoever uses this has it)

        mlflow.log_metrics(report.scalars, step=report.step, run_id=self.run_id)
        mlflow.log_text(report.csv, f"{report.key}/step_{report.step:06}.csv", run_id=self.run_id)
        if report.figure is not None:
            client = mlflow.MlflowClient()
            run_id = self.run_id or mlflow.active_run().info.run_id
            client.log_figure(run_id, report.figure, f"{report.key}/step_{report.step:06}.png")


class TrackioSink(LoggerSink):
    """Write to a run of Trackio; None for the current one."""

    def __init__(self, run: Any = None, **options: Any) -> None:
        super().__init__(**options)
        self.run = run

    def write(self, report: Report) -> None:
        """Log everything at once."""
        import trackio  # noqa: PLC0415 (whoever uses this has it)

        table = trackio.Table(columns=list(report.table), data=report.rows)
        data = {**report.scalars, f"{report.key}/table": table}
        if report.figure is not None:
            data[f"{report.key}/figure"] = trackio.Image(_image(report.figure))
        (trackio if self.run is None else self.run).log(data, step=report.step)


class AimSink(LoggerSink):
    """Write to an ``aim.Run``."""

    def __init__(self, run: Any, **options: Any) -> None:
        super().__init__(**options)
        self.run = run

    def write(self, report: Report) -> None:
        """Track scalars, the table as text, and the figure as an image."""
        import aim  # noqa: PLC0415 (the run comes from it)

        for name, value in report.scalars.items():
            self.run.track(value, name=name, step=report.step)
        self.run.track(aim.Text(report.markdown), name=f"{report.key}/table", step=report.step)
        if report.figure is not None:
            image = aim.Image(_image(report.figure))
            self.run.track(image, name=f"{report.key}/figure", step=report.step)


class CometSink(LoggerSink):
    """Write to a ``comet_ml`` experiment."""

    longest = 100  # Comet cuts keys after 100 characters

    def __init__(self, experiment: Any, **options: Any) -> None:
        super().__init__(**options)
        self.experiment = experiment

    def write(self, report: Report) -> None:
        """Log metrics, the table as a CSV file, and the figure."""
        self.experiment.log_metrics(report.scalars, step=report.step)
        name = f"{report.key}/step_{report.step:06}.csv"
        self.experiment.log_table(name, tabular_data=report.rows, headers=list(report.table))
        if report.figure is not None:
            self.experiment.log_image(_image(report.figure), name=f"{report.key}/figure", step=report.step)


class DVCLiveSink(LoggerSink):
    """Write to a ``dvclive.Live``, at its own step: call its ``next_step()`` once per epoch, after ``end_epoch``."""

    forbidden = r'[/\\:*?"<>|]'  # names become files

    def __init__(self, live: Any, **options: Any) -> None:
        super().__init__(**options)
        self.live = live

    def write(self, report: Report) -> None:
        """Log metrics and the figure; the table is a CSV file beside them."""
        for name, value in report.scalars.items():
            self.live.log_metric(name, value)
        path = Path(self.live.dir, "tables", f"{report.key}.csv")
        path.parent.mkdir(parents=True, exist_ok=True)
        half = path.with_name(".half")
        try:  # on failure, as of a disk that is full, an existing one stays
            half.write_text(report.csv, encoding="utf-8")
            half.replace(path)
        finally:
            half.unlink(missing_ok=True)
        if report.figure is not None:
            self.live.log_image(f"{report.key}.png", report.figure)


class JsonlSink(LoggerSink):
    """Append a line of JSON per epoch to a file, whose folder is made: step, key, scalars and table; no figure.

    Numbers that JSON cannot hold (NaN, infinities) are null.

    Example:
        >>> import labeltrack, pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp(), "epochs.jsonl")
        >>> tracker = labeltrack.LabelTracker("y", "ce", sinks=[JsonlSink(path)])
        >>> tracker.update(["cat", "dog"], [0.5, 2.0])
        >>> _ = tracker.end_epoch(1)
        >>> json.loads(path.read_text())["scalars"]
        {'train/ce_by_y/dog': 2.0, 'train/ce_by_y/cat': 0.5}
    """

    forbidden = r"(?!)"  # none

    def __init__(self, path: str | os.PathLike[str], **options: Any) -> None:
        super().__init__(**options | {"figure_every": 0})
        self.path = Path(path)

    def write(self, report: Report) -> None:
        """Append a line: all of it, or, where a disk is full, nothing."""
        line = {"step": report.step, "key": report.key, "scalars": report.scalars, "table": report.table}
        finite = json.loads(json.dumps(line), parse_constant=lambda _: None)
        left = f"{json.dumps(finite, ensure_ascii=False, allow_nan=False)}\n".encode()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab", buffering=0) as file:
            end = file.tell()
            try:
                while left:
                    left = left[file.write(left) :]
            except OSError:
                file.truncate(end)
                raise


class ScalarsSink(LoggerSink):
    """Call ``log(scalars, step)`` at each epoch: for any logger, such as ``fabric.log_dict``. No figure is drawn."""

    def __init__(self, log: Callable[[dict[str, float], int], Any], **options: Any) -> None:
        super().__init__(**options | {"figure_every": 0})
        self.log = log

    def write(self, report: Report) -> None:
        """Call the function."""
        self.log(report.scalars, report.step)
