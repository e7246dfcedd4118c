"""The commands for recorded runs: info, recompute, plot, report, export, verify, worst, dynamics, hardest."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path  # noqa: TC003 (typer reads the annotations when it runs)
from typing import TYPE_CHECKING, Annotated, Any

import typer

from labeltrack._filters import labels_named, single_mode
from labeltrack.cli.application import MISTAKES, fail, told, warned
from labeltrack.cli.application import open_recorded as _open
from labeltrack.cli.options import (
    DsIds,
    Engine,
    HigherIsWorse,
    Incomplete,
    Json,
    Mode,
    Modes,
    NanPolicy,
    Query,
    RunPath,
    Shown,
    Steps,
    file_option,
    like,
    option,
)
from labeltrack.errors import counted

if TYPE_CHECKING:
    from labeltrack.history import History
    from labeltrack.recording.dynamics import Dynamics


_RANKED_BY = "count, sum, mean, std, min, max or median; or one of several labels per sample, ranked by its mean."


def info(run: RunPath, *, as_json: Json = False) -> None:
    """Show what was recorded, and which epochs there are."""
    from labeltrack.history import joined  # noqa: PLC0415

    opened = _open(run)
    with told(*MISTAKES):
        found = opened.info()
    if as_json:
        typer.echo(json.dumps(found, default=lambda label: {"bytes": label.hex()}))  # as in ``run.json``
        return
    mapping, bounds, types = found["label_mapping"], found["bounds"], ", ".join(map("/".join, found["dtypes"]))
    if mapping is None or isinstance(opened.label, str):
        labels = _mapping_text(mapping)
    else:
        labels = "; ".join(f"{name}: {_mapping_text(one)}" for name, one in mapping.items())
    lines = {
        "run": found["path"],
        "metric": f"{found['metric']} by {joined(opened.label)}",
        "labels": labels,
        "bounds": ", ".join(":".join(map(str, name)) if isinstance(name, list) else name or "none" for name in bounds),
        "samples": f"{found['rows']:,}{types and f' of type {types}'}, {found['bytes'] / 1e6:,.1f} MB",
        "ids": "yes" if found["ids"] else "",
        "recorded": f"{found['created']}, labeltrack {found['labeltrack']}, {counted(found['sessions'], 'session')}",
    }
    for name, text in ((name, text) for name, text in lines.items() if text):
        typer.echo(f"{name:<9} {_short(text)}")
    for text in found["damage"]:
        typer.echo(f"{'damaged':<9} {text}")
    _show_epochs(opened.epochs)


def _mapping_text(mapping: dict[str, Any] | None) -> str:
    return "all" if mapping is None else ", ".join(f"{name} = {label!r}" for name, label in mapping.items())


def _show_epochs(epochs: list[Any]) -> None:
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    from labeltrack.report import show  # noqa: PLC0415

    table = Table("mode", "dataset", box=None, pad_edge=False, header_style="bold")
    for name in ("epochs", "first", "last", "samples", "incomplete"):
        table.add_column(name, justify="right")
    for mode in dict.fromkeys(epoch.mode for epoch in epochs):
        of_mode = [epoch for epoch in epochs if epoch.mode == mode]
        steps = [epoch.step for epoch in of_mode]
        ds_ids = dict.fromkeys(ds_id for epoch in of_mode for ds_id in epoch.ds_ids)
        unfinished = [str(epoch.step) for epoch in of_mode if not epoch.complete]
        numbers = (len(steps), min(steps), max(steps), f"{sum(epoch.rows for epoch in of_mode):,}")
        names = ", ".join(ds_id or "-" for ds_id in ds_ids)
        table.add_row(Text(mode), Text(names), *map(str, numbers), _short(", ".join(unfinished) or "-", 30))
    typer.echo("")
    show(table)


def recompute(
    run: RunPath,
    *,
    shown: Shown,
    query: Query,
    engine: Engine,
    output: Annotated[Path | None, file_option("Write to", ".parquet", ".csv", ".json")] = None,
    as_json: Json = False,
) -> None:
    """Compute the statistics of every epoch from the samples; show them or write them to a file."""
    from labeltrack._tables import rows_of, write_columns  # noqa: PLC0415

    with engine.started() as name:
        history = query.history(_open(run), shown, name)
    columns = history.columns()
    if shown.bounds:
        columns |= _band_columns(history)
    if output is not None:
        with told(*MISTAKES):
            write_columns(columns, output)
    if as_json:
        typer.echo(json.dumps(rows_of(columns)))
    elif output is not None:
        typer.echo(f"{len(columns['step']):,} rows written to {output}")
    else:
        _show_history(history)


def _band_columns(history: History) -> dict[str, Any]:
    """Return the low and high end of every bound, in the order of the rows of the history."""
    import numpy as np  # noqa: PLC0415

    from labeltrack.bounds import resolve  # noqa: PLC0415

    entries = history._sorted().values()  # noqa: SLF001 (it is nothing for users)
    columns: dict[str, Any] = {}
    for bound in (bound for bound in history.bounds if bound is not None):
        low, _, high = np.concatenate([np.empty((3, 0)), *(stats.bounds(bound) for stats in entries)], axis=1)
        columns |= {f"{resolve(bound).text}_low": low, f"{resolve(bound).text}_high": high}
    return columns


def _show_history(history: History) -> None:
    from labeltrack.report import history_table, show  # noqa: PLC0415

    if not history.modes:
        typer.echo("No epoch to show.")
    for mode in history.modes:
        show(history_table(history, mode=mode, limit=20))
        typer.echo("")


@dataclass(frozen=True)
class Labels:
    """The options that say which labels are drawn, and how."""

    kind: Annotated[str, option("NAME", "lines, multiples, heatmap, grid, or auto: by the number of labels.")] = "auto"
    label: Annotated[list[str] | None, option("NAME", "Only this label. Repeatable.")] = None
    highlight: Annotated[list[str] | None, option("NAME", "This label in colour, the others in grey. Repeatable.")] = (
        None
    )
    top: Annotated[int | None, option("N", "Only the worst labels of the last step.")] = None

    def chosen(self, history: History) -> dict[str, Any]:
        """Return the arguments of `labeltrack.plot.plot_history`."""
        names = {str(value): value for value in history.names()}
        labels, highlight = (
            [names.get(name, name) for name in given] if given else None for given in (self.label, self.highlight)
        )
        return {"kind": self.kind, "top": self.top, "labels": labels, "highlight": highlight}


def plot(
    run: RunPath,
    output: Annotated[Path, file_option("Figure:", ".png", ".svg", ".pdf")],
    *,
    shown: Shown,
    labels: Labels,
    query: Query,
    higher_is_worse: HigherIsWorse = True,
    title: Annotated[str | None, option("TEXT", "Title.")] = None,
    units: Annotated[str | None, option("TEXT", "Unit of the metric.")] = None,
) -> None:
    """Plot the metric of every label over the steps."""
    from labeltrack.plot import plot_history  # noqa: PLC0415

    history = query.history(_open(run), shown)
    with told(*MISTAKES):
        options = {**labels.chosen(history), "title": title, "units": units, "higher_is_worse": higher_is_worse}
        plot_history(history, **options).savefig(output, dpi=150)
    typer.echo(f"Written: {output}")


def report(
    runs: Annotated[
        list[str],
        typer.Argument(metavar="RUN...", help="A recorded run, or several side by side, the one to judge last."),
    ],
    output: Annotated[Path, option("FILE", "The report: .html.", "-o", "--output")],
    *,
    mode: Annotated[str | None, option("NAME", "Mode to judge; by default eval, or the only one there is.")] = None,
    metric: Annotated[str | None, option("NAME", "Metric to judge; by default the first.")] = None,
    against: Annotated[
        str,
        option(
            "STEP",
            "Compare the last step with: previous, first, or a step. Of several runs, a step of the first one; by "
            "default its last.",
        ),
    ] = "previous",
    q: Annotated[
        float, option("LEVEL", "Accepted share of false alarms among the labels with a verdict.", "--q")
    ] = 0.05,
    higher_is_worse: HigherIsWorse = True,
    title: Annotated[str | None, option("TEXT", "Title of the page.")] = None,
) -> None:
    """Write a report: one HTML file with the verdict, tables, curves and distributions of samples."""
    from labeltrack.report.recorded import write_report  # noqa: PLC0415

    opened = [_open(run) for run in runs]
    with told(*MISTAKES), warned():
        options: dict[str, Any] = {"mode": mode, "metric": metric, "alpha": q, "title": title}
        step = int(against) if against.removeprefix("-").isdigit() else against
        write_report(opened, output, against=step, higher_is_worse=higher_is_worse, **options)
    typer.echo(f"Written: {output}")


def export(
    run: RunPath,
    output: Annotated[Path, option("FILE", "Samples: .parquet or .csv.", "-o", "--output")],
    *,
    modes: Modes = None,
    step: Steps = None,
    ds_id: DsIds = None,
    incomplete: Incomplete = False,
    all_attempts: Annotated[bool, option(None, "Include interrupted and repeated epochs.", "--all-attempts")] = False,
) -> None:
    """Write samples to one file."""
    opened, selection = _open(run), (modes or None, step or None, ds_id or None)
    with told(*MISTAKES), warned():
        rows = opened.export(output, *selection, incomplete=incomplete, all_attempts=all_attempts)
    typer.echo(f"{rows:,} samples written to {output}")


def verify(
    run: RunPath,
    *,
    as_json: Json = False,
    repair: Annotated[
        bool,
        option(
            None,
            "First close what a crash left open and rebuild missing journals; damaged files are left alone.",
            "--repair",
        ),
    ] = False,
) -> None:
    """Check every file. The exit code is 1 if anything is damaged, missing, lost or unfinished."""
    opened = _open(run)
    with told(*MISTAKES):
        repaired = opened.repair() if repair else []
        found = opened.verify()
    if as_json:
        typer.echo(json.dumps(found.to_dict() | {"repaired": repaired}))
    else:
        for name in repaired:
            typer.echo(f"repaired: {name}")
        typer.echo(str(found))
    if not found.ok:
        raise typer.Exit(1)


def worst(
    run: RunPath,
    *,
    by: Annotated[str, option("NAME", _RANKED_BY)] = "mean",
    k: Annotated[int, option("N", "Number of labels.", "-k")] = 10,
    mode: Mode = None,
    step: Annotated[int | None, option("N", "Step; by default the last one.")] = None,
    query: Query,
    higher_is_worse: HigherIsWorse = True,
    as_json: Json = False,
) -> None:
    """Rank the labels of an epoch, worst first."""
    from labeltrack._tables import plain  # noqa: PLC0415
    from labeltrack.report import history_table, show  # noqa: PLC0415

    opened = _open(run)
    with told(*MISTAKES):
        chosen = single_mode((epoch.mode for epoch in opened.epochs), mode)
    history = query.history(opened, Shown(bounds=["median"] if by == "median" else None, modes=[chosen]))
    with told(*MISTAKES):
        names = labels_named(by, history.label_names)
        if names is not None:
            history, by = history.by(*names), "mean"
        labels = history.worst(k, by, chosen, step=step, higher_is_worse=higher_is_worse)
        if not as_json:
            show(history_table(history, mode=chosen, step=step, by=by, limit=k, higher_is_worse=higher_is_worse))
            return
        stats = history.at(max(history.steps(chosen)) if step is None else step, chosen)
        column = stats.column(by)
        rows = [stats[label]._asdict() | {by: column[stats.index(label)].item()} for label in labels]
        typer.echo(json.dumps([{name: plain(value) for name, value in row.items()} for row in rows]))


def _short(text: str, most: int = 300) -> str:
    return text if len(text) <= most else f"{text[:most]}…"


# -- runs whose samples have ids ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Selection:
    """The options that say which samples are read."""

    mode: Mode = None
    metric: Annotated[str | None, option("NAME", "Metric; by default the first.")] = None
    step: Steps = None
    ds_id: DsIds = None
    correct: Annotated[
        str | None, option("NAME", "Metric that is 1 where a sample is right; by default the first of 0 and 1.")
    ] = None
    on_duplicate: Annotated[str | None, option("NAME", "Ids that occur twice in a step: first, count or error.")] = None
    nan_policy: NanPolicy = None
    incomplete: Incomplete = False

    def read(self, path: str, engine: Engine) -> Dynamics:
        """Return the table of a run."""
        given: dict[str, Any] = vars(self) | {"step": self.step or None, "ds_id": self.ds_id or None}
        with engine.started() as name, told(*MISTAKES), warned():
            return _open(path).dynamics(**given, engine=name)


def dynamics(
    run: RunPath,
    *,
    output: Annotated[Path | None, file_option("Table:", ".parquet", ".csv", ".json")] = None,
    picture: Annotated[Path | None, file_option("Data map:", ".png", ".svg", ".pdf", names=("--plot",))] = None,
    color: Annotated[str, option("NAME", "Colour of the data map: count or forgetting.")] = "count",
    selection: Selection,
    engine: Engine,
) -> None:
    """Show how the metric of each sample went over the steps, or write it to a file."""
    from labeltrack._tables import write_columns  # noqa: PLC0415

    table = selection.read(run, engine)
    with told(*MISTAKES):
        if output is not None:
            write_columns(table.columns(), output)
            typer.echo(f"{len(table):,} rows written to {output}")
        if picture is not None:
            table.plot(color).savefig(picture, dpi=150)
            typer.echo(f"Written: {picture}")
    if output is None and picture is None:
        typer.echo(repr(table))


def hardest(
    run: RunPath,
    *,
    k: Annotated[int, option("N", "Number of samples.", "-k")] = 10,
    label: Annotated[
        list[str] | None,
        option(
            "LABEL", "Only those of this label, by value or display name; of several labels, NAME=LABEL. Repeatable."
        ),
    ] = None,
    by: Annotated[str, option("NAME", "mean over the steps, last, forgetting, or another column.")] = "mean",
    selection: Selection,
    engine: Engine,
    higher_is_worse: HigherIsWorse = True,
    as_json: Json = False,
) -> None:
    """Rank samples by their metric, worst first."""
    from labeltrack._tables import rows_of  # noqa: PLC0415

    table = selection.read(run, engine)
    with told(*MISTAKES):
        worst = table.hardest(k, _label(table, label), by=by, higher_is_worse=higher_is_worse)
    typer.echo(json.dumps(rows_of(worst.columns())) if as_json else worst.text(len(worst)))


def _label(table: Dynamics, given: list[str] | None) -> Any:
    """Return the labels that are meant: numbers among numbers, unless it is a display name."""
    if not given:
        return None
    columns = {name: table.labels[name] for name in table.label_names} or {"label": table.labels}
    pairs = [text.partition("=")[::2] for text in given] if table.label_names else [("label", text) for text in given]
    if len(dict(pairs)) < len(pairs):
        fail(f"--label can be given once for each of {', '.join(columns)}")
    found = {}
    for name, text in pairs:
        if name not in columns:
            fail(f"--label {name}: there is no label called that; write NAME=LABEL with one of {', '.join(columns)}")
        named = text in table.names.get(name, {}).values()
        found[name] = text if named else like(text, columns[name][:1].tolist())
    return found if table.label_names else found["label"]
