"""The command line: ``labeltrack demo``, and the commands for recorded runs, in modules of their own.

Commands import what they need when they run, so that ``--version`` and ``--help`` respond at once.
"""

from __future__ import annotations

import os
from pathlib import Path  # noqa: TC003 (typer reads the annotations when it runs)
from typing import Annotated

import typer

import labeltrack
from labeltrack.cli import check, runs, watch
from labeltrack.cli.application import add_command, app, fail, told
from labeltrack.cli.options import option

for _command in (
    *(runs.info, runs.recompute, runs.plot, runs.export, runs.verify, runs.worst),
    *(check.check, runs.report, runs.dynamics, runs.hardest, watch.watch),
):
    add_command(_command)


def main() -> None:
    """Run the command line with the arguments of the process, and exit."""
    # Unless told otherwise, scipy's linear algebra starts threads that take a tenth of a second each to fall asleep.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    app()


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"labeltrack {labeltrack.__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Which class gets worse? Exact, fast per-label statistics of a per-sample metric while a model trains."""
    del version  # its callback has dealt with it
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command(
    "demo",
    help="Train a small classifier of handwritten digits, and show which digit and which slice has the worst loss.",
)
def _demo(
    out: Annotated[Path, option("DIR", "Directory for the figures, the history and the run.")],
    epochs: Annotated[int, option("N", "Number of epochs.")] = 20,
) -> None:
    """Train, print the last epoch, worst class first, and list the files written."""
    from labeltrack.cli import demo  # noqa: PLC0415 (for this command only)
    from labeltrack.recording.reader import progress_bar  # noqa: PLC0415
    from labeltrack.report import history_table, show  # noqa: PLC0415

    if epochs < 1:
        fail(f"epochs must be at least 1, got {epochs}")
    with told(ImportError):
        data = demo.load_data()
    with told(OSError, ValueError, RuntimeError):
        path = demo.prepare_directory(out)
        tracker, slices, recorded = demo.recording_trackers(path)
    with progress_bar("Training", epochs, "epochs") as advance, tracker, slices:
        history = demo.train(data, epochs, tracker=tracker, slices=slices, advance=advance)
    show(history_table(history, title=f"Cross-entropy by digit, eval, epoch {epochs}: worst first"))
    typer.echo(f"\n{demo.finding(history)}\n\n{demo.worst_slice(slices)}\n")
    with told(OSError):
        written = demo.write_results(history, slices, path)
    for note in (*written.notes, *recorded.notes):
        typer.echo(f"Note: {note}")
    typer.echo("Written:")
    files = {typer.format_filename(file): what for file, what in (written.files | recorded.files).items()}
    width = max(map(len, files))
    for file, what in files.items():
        typer.echo(f"  {file:<{width}}  {what}")
