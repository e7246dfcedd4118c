"""The commands for recorded runs: info, recompute, plot, export, verify, worst."""

from __future__ import annotations

import json
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

from labeltrack.cli.application import app, fail, told, warned

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from labeltrack.history import History
    from labeltrack.recording.run import Run

RunPath = Annotated[str, typer.Argument(metavar="RUN", help="Folder of a recorded run, or any path fsspec knows.")]
Bounds = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME", help="std, range, sem, ci95, iqr, median, quantile:0.05:0.95 or none; may be repeated."
    ),
]
Mode = Annotated[
    list[str] | None, typer.Option(metavar="NAME", help="Only this mode, or '!NAME': all but it. Repeats.")
]
Mapping = Annotated[
    Path | None, typer.Option(metavar="FILE", help='JSON: {"display name": label, ...}; other labels are left out.')
]
Group = Annotated[Path | None, typer.Option(metavar="FILE", help='JSON: {"label": "new label", ...}, coarse classes.')]
Rest = Annotated[str | None, typer.Option(metavar="NAME", help="One group of all labels that --group leaves out.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Threads = Annotated[int | None, typer.Option(metavar="N", help="Threads that share the work; by default, as it pays.")]
Absent = Annotated[bool, typer.Option("--absent", help="Show labels, too, that have no samples in an epoch.")]
Incomplete = Annotated[bool, typer.Option("--incomplete", help="Take epochs, too, that did not end.")]

_MISTAKES = (ValueError, OSError, KeyError, TypeError, ImportError)


def register() -> None:
    """Add the commands to the app."""
    app.command(help="Say what a recorded run is, and which epochs it has.")(info)
    app.command(help="Compute the statistics of every epoch from the samples, and show or write them.")(recompute)
    app.command(help="Draw the course of every label.")(plot)
    app.command(help="Write samples to one file.")(export)
    app.command(help="Compare every checksum. Exit code 1 if anything is damaged, missing, lost or unfinished.")(verify)
    app.command(help="Rank the labels of the last epoch, worst first.")(worst)


def info(run: RunPath, *, as_json: Json = False) -> None:
    """Print what the run is, and a line for each epoch."""
    opened = _open(run)
    with told(*_MISTAKES):
        said = opened.info()
    epochs = opened.epochs
    if as_json:
        said["epochs"] = [
            {
                "mode": epoch.mode,
                "step": epoch.step,
                "ds_ids": list(epoch.ds_ids),
                "rows": epoch.rows,
                "complete": epoch.complete,
                "lost": epoch.lost,
                "other_attempts": epoch.other_attempts,
            }
            for epoch in epochs
        ]
        typer.echo(json.dumps(said, default=str))
        return
    mapping = said["label_mapping"]
    lines = {
        "run": said["path"],
        "metric": f"{said['metric']} by {said['label']}",
        "labels": "all" if mapping is None else ", ".join(f"{name} = {label!r}" for name, label in mapping.items()),
        "bounds": ", ".join(map(str, said["bounds"])),
        "samples": f"{said['rows']:,} of type {', '.join('/'.join(pair) for pair in said['dtypes'])}, "
        f"{said['bytes'] / 1e6:,.1f} MB",
        "recorded": f"{said['created']}, labeltrack {said['labeltrack']}, {_count(said['sessions'], 'session')}",
    }
    for name, text in lines.items():
        typer.echo(f"{name:<9} {_short(text)}")
    for text in said["damage"]:
        typer.echo(f"{'damaged':<9} {text}")
    _show_epochs(epochs)


def _show_epochs(epochs: list[Any]) -> None:
    from rich.table import Table  # noqa: PLC0415

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
        table.add_row(_literal(mode), _literal(names), *map(str, numbers), _short(", ".join(unfinished) or "-", 30))
    typer.echo("")
    show(table)


def recompute(
    run: RunPath,
    *,
    bounds: Bounds = None,
    label_mapping: Mapping = None,
    group: Group = None,
    rest: Rest = None,
    absent: Absent = False,
    mode: Mode = None,
    incomplete: Incomplete = False,
    engine: Annotated[str, typer.Option(metavar="NAME", help="local, or dask: a cluster.")] = "local",
    scheduler: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Of a running Dask scheduler, such as tcp://host:8786.")
    ] = None,
    threads: Threads = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="Write to .parquet, .csv or .json.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Compute the history; write it, print it, or show its last epochs."""
    from labeltrack._tables.files import check_ending, rows_of, write_columns  # noqa: PLC0415

    with told(*_MISTAKES):
        if output is not None:
            check_ending(output, (".parquet", ".csv", ".json"))
    if scheduler is not None and engine != "dask":
        fail("--scheduler is for --engine dask")
    with _cluster(scheduler):
        history = _recomputed(
            _open(run),
            bounds=bounds,
            label_mapping=label_mapping,
            group=group,
            rest=rest,
            absent=absent,
            mode=mode,
            incomplete=incomplete,
            engine=engine,
            threads=threads,
        )
    columns = history.columns()
    if bounds:
        columns |= _band_columns(history)
    if output is not None:
        with told(*_MISTAKES):
            write_columns(columns, output)
    if as_json:
        typer.echo(json.dumps(rows_of(columns)))
    elif output is None:
        _show_history(history)
    else:
        typer.echo(f"{len(columns['step']):,} rows written to {output}")


@contextmanager
def _cluster(address: str | None) -> Iterator[None]:
    """Within the block, the scheduler at an address is the current one."""
    if address is None:
        yield
        return
    try:
        import distributed  # noqa: PLC0415 (an extra)
    except ImportError as error:
        fail(f'--scheduler needs dask.distributed: pip install "labeltrack[dask]" ({error})')
    with told(OSError, ValueError):
        client = distributed.Client(address, timeout=10)
    with client:
        yield


def _band_columns(history: History) -> dict[str, Any]:
    """Return low and high of every bound, in the order of the rows of the history."""
    import numpy as np  # noqa: PLC0415

    from labeltrack.bounds import resolve  # noqa: PLC0415

    place = {mode: i for i, mode in enumerate(history.modes)}
    entries = sorted(history.items(), key=lambda item: (place[item[0][0]], item[0][2], item[0][1]))
    columns = {}
    for bound in history.bounds:
        if bound is not None:
            bands = [stats.bounds(bound) for _, stats in entries]
            name = resolve(bound).text
            columns[f"{name}_low"] = np.concatenate([low for low, _, _ in bands] or [np.empty(0)])
            columns[f"{name}_high"] = np.concatenate([high for _, _, high in bands] or [np.empty(0)])
    return columns


def _show_history(history: History) -> None:
    from labeltrack.report import history_table, show  # noqa: PLC0415

    if not history.modes:
        typer.echo("No epoch to show.")
    for mode in history.modes:
        show(history_table(history, mode=mode, limit=20, step_name="epoch"))
        typer.echo("")


def plot(
    run: RunPath,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="Figure: .png, .svg or .pdf.")],
    *,
    bounds: Bounds = None,
    label_mapping: Mapping = None,
    group: Group = None,
    rest: Rest = None,
    absent: Absent = False,
    mode: Mode = None,
    label: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Only this label. Repeats.")] = None,
    incomplete: Incomplete = False,
    threads: Threads = None,
    title: Annotated[str | None, typer.Option(metavar="TEXT", help="Title.")] = None,
    units: Annotated[str | None, typer.Option(metavar="TEXT", help="Unit of the metric.")] = None,
    lower_is_worse: Annotated[bool, typer.Option("--lower-is-worse", help="For an accuracy.")] = False,
) -> None:
    """Compute the history and draw it."""
    from labeltrack._tables.files import check_ending  # noqa: PLC0415
    from labeltrack.plot import plot_history  # noqa: PLC0415

    with told(*_MISTAKES):
        check_ending(output, (".png", ".svg", ".pdf"))
    history = _recomputed(
        _open(run),
        bounds=bounds,
        label_mapping=label_mapping,
        group=group,
        rest=rest,
        absent=absent,
        mode=mode,
        incomplete=incomplete,
        threads=threads,
    )
    with told(*_MISTAKES):
        names = {str(value): value for value in history.names()}
        figure = plot_history(
            history,
            bounds=history.bounds,
            labels=None if not label else [names.get(name, name) for name in label],
            title=title,
            units=units,
            higher_is_worse=not lower_is_worse,
        )
        figure.savefig(output, dpi=150)
    typer.echo(f"Written: {output}")


def export(
    run: RunPath,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="Samples: .parquet or .csv.")],
    *,
    mode: Mode = None,
    ds_id: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Only this dataset. Repeats.")] = None,
    epoch: Annotated[list[int] | None, typer.Option(metavar="N", help="Only this epoch. Repeats.")] = None,
    incomplete: Incomplete = False,
    all_attempts: Annotated[bool, typer.Option("--all-attempts", help="Interrupted and repeated epochs, too.")] = False,
) -> None:
    """Write samples to a file, batch by batch."""
    opened = _open(run)
    with told(*_MISTAKES), warned():
        choice = (output, mode or None, epoch or None, ds_id or None)
        rows = opened.export(*choice, incomplete=incomplete, all_attempts=all_attempts)
    typer.echo(f"{rows:,} samples written to {output}")


def verify(
    run: RunPath,
    *,
    as_json: Json = False,
    repair: Annotated[
        bool,
        typer.Option(
            "--repair",
            help="First close what a crash left open, and write missing journals anew; damaged files are left alone.",
        ),
    ] = False,
) -> None:
    """Print what is not intact, and how many rows are."""
    opened = _open(run)
    with told(*_MISTAKES):
        closed = opened.repair() if repair else []
        found = opened.verify()
    if as_json:
        typer.echo(json.dumps(found.to_dict() | {"repaired": closed}))
    else:
        for name in closed:
            typer.echo(f"repaired: {name}")
        typer.echo(str(found))
    if not found.ok:
        raise typer.Exit(1)


def worst(
    run: RunPath,
    *,
    by: Annotated[str, typer.Option(metavar="NAME", help="count, sum, mean, std, min, max or median.")] = "mean",
    k: Annotated[int, typer.Option("-k", metavar="N", help="How many labels.")] = 10,
    mode: Annotated[str | None, typer.Option(metavar="NAME", help="Which mode; eval if there is one.")] = None,
    epoch: Annotated[int | None, typer.Option(metavar="N", help="Which epoch; the last by default.")] = None,
    label_mapping: Mapping = None,
    group: Group = None,
    rest: Rest = None,
    absent: Absent = False,
    incomplete: Incomplete = False,
    lower_is_worse: Annotated[bool, typer.Option("--lower-is-worse", help="For an accuracy.")] = False,
    as_json: Json = False,
) -> None:
    """Print a table of the worst labels."""
    from labeltrack.report import history_table, show  # noqa: PLC0415

    opened = _open(run)
    known = {one.mode for one in opened.epochs}
    chosen = mode or ("eval" if "eval" in known else None)
    history = _recomputed(
        opened,
        bounds=["median"] if by == "median" else None,
        label_mapping=label_mapping,
        group=group,
        rest=rest,
        absent=absent,
        incomplete=incomplete,
        mode=[chosen] if chosen else None,
    )
    with told(*_MISTAKES):
        chosen = chosen or (history.modes[-1] if history.modes else "train")
        labels = history.worst(k, by, chosen, step=epoch, higher_is_worse=not lower_is_worse)
        if as_json:
            from labeltrack._tables.files import plain  # noqa: PLC0415

            step = max(history.steps(chosen)) if epoch is None else epoch
            stats = history.at(step, chosen)
            column = stats.column(by)
            rows = [stats[label]._asdict() | {by: column[stats.index(label)].item()} for label in labels]
            typer.echo(json.dumps([{name: plain(value) for name, value in row.items()} for row in rows]))
            return
        show(
            history_table(
                history,
                mode=chosen,
                step=epoch,
                by=by,
                limit=k,
                higher_is_worse=not lower_is_worse,
                step_name="epoch",
            )
        )


# -- what the commands share ------------------------------------------------------------------------------


def _open(path: str) -> Run:
    from labeltrack.recording.run import open_run  # noqa: PLC0415

    with told(*_MISTAKES):
        return open_run(path)


def _bound(name: str) -> Any:
    """Return a bound by what it is called on the command line."""
    parts = name.split(":")
    return None if name == "none" else name if len(parts) == 1 else tuple(parts)


def _recomputed(
    opened: Run,
    *,
    bounds: list[str] | None = None,
    label_mapping: Path | None = None,
    group: Path | None = None,
    rest: str | None = None,
    absent: bool = False,
    mode: list[str] | None = None,
    incomplete: bool = False,
    engine: str = "local",
    threads: int | None = None,
) -> History:
    """Recompute a run by what options say."""
    from labeltrack.recording.regroup import TextKeys  # noqa: PLC0415

    options: dict[str, Any] = {}
    if bounds:
        options["bounds"] = [_bound(name) for name in bounds]
    if label_mapping is not None:
        options["label_mapping"] = _json_object(label_mapping, "--label-mapping")
    if group is not None:
        options["group"] = TextKeys(_json_object(group, "--group"))
    if rest is not None:
        options["rest"] = _like(rest, options.get("group", {}).values())
    with told(*_MISTAKES), warned():
        history = opened.recompute(
            **options,
            modes=mode or None,
            incomplete=incomplete,
            engine=cast("Literal['local', 'dask']", engine),  # recompute says which there are
            threads=threads,
        )
    if not history.modes and options.keys() & {"group", "label_mapping"}:
        fail(f"nothing of {opened.path} is left to show")
    return history.with_absent() if absent else history


def _like(text: str, others: Iterable[Any]) -> Any:
    """Return what a text means as a label among others: a number among numbers."""
    if any(isinstance(other, str) for other in others):
        return text
    try:
        number = json.loads(text)
    except ValueError:
        return text
    return number if isinstance(number, (bool, int, float)) else text


def _json_object(path: Path, option: str) -> dict[str, Any]:
    """Return the object in a JSON file; anything else is a mistake of the user."""
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        fail(f"{option}: cannot read {path}: {error.strerror}")
    except (ValueError, RecursionError) as error:
        fail(f"{option}: {path} is not JSON: {error}")
    if not isinstance(plain, dict):
        fail(f"{option}: {path} must be a JSON object, {{...}}, and is a {type(plain).__name__}")
    return plain


def _count(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def _short(text: str, most: int = 300) -> str:
    return text if len(text) <= most else f"{text[:most]}…"


def _literal(text: str) -> Any:
    from rich.text import Text  # noqa: PLC0415

    return Text(text)
