"""The command line: ``labeltrack demo``, and the commands for recorded runs (see `labeltrack.cli.runs`).

A command is a function that is registered with ``@app.command``. It imports what it needs when it runs, so that
``--version`` and ``--help`` are there at once.
"""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path  # noqa: TC003 (typer reads the annotations when it runs)
from typing import TYPE_CHECKING, Annotated

import typer

import labeltrack
from labeltrack.cli import runs
from labeltrack.cli.application import app, told

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import Console

    from labeltrack.history import History

runs.register()


def main() -> None:
    """Run the command line with the arguments of the process; ends the process."""
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


@app.command("demo", help="Train a small classifier of handwritten digits, and show which digit it does worst on.")
def _demo(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Directory for the figures and the history.")],
    epochs: Annotated[int, typer.Option(metavar="N", help="Number of epochs.")] = 20,
    batch_size: Annotated[int, typer.Option(metavar="N", help="Samples per batch.")] = 32,
    seed: Annotated[
        int, typer.Option(metavar="N", help="Seed of the split, the initial weights and the order of samples.")
    ] = 1,
) -> None:
    """Train, with a bar on a terminal; print the last epoch, worst class first; list the files written."""
    from labeltrack.cli import demo as parts  # noqa: PLC0415 (for this command only, like all that follows)
    from labeltrack.report import history_table, show  # noqa: PLC0415

    with told(ValueError):
        settings = parts.Settings(epochs=epochs, batch_size=batch_size, seed=seed)
    with told(ImportError):
        data = parts.load_data(seed)
    with told(OSError):
        path = parts.prepare_directory(out)
    with told(OSError, ValueError, RuntimeError):
        tracker, recorded = parts.recording_tracker(path)
    with _progress(epochs) as on_epoch, tracker:
        history = parts.train(data, settings, tracker=tracker, on_epoch=on_epoch)
    title = f"Cross-entropy by digit, eval, epoch {epochs}: worst first"
    show(history_table(history, mode="eval", title=title, step_name="epoch"))
    typer.echo(f"\n{_finding(history)}\n")
    with told(OSError):
        written = parts.write_results(history, path)
    for note in (*written.notes, *recorded.notes):
        typer.echo(f"Note: {note}")
    typer.echo("Written:")
    files = {typer.format_filename(file): what for file, what in (written.files | recorded.files).items()}
    width = max(map(len, files))
    for file, what in files.items():
        typer.echo(f"  {file:<{width}}  {what}")


def _finding(history: History) -> str:
    """Return in words how the mean over all classes did, and which class did not do as well."""
    from labeltrack.report import setbacks  # noqa: PLC0415

    means = {step: history.at(step, "eval").total().mean for step in history.steps("eval")}
    last, best = max(means), min(means, key=means.__getitem__)
    if best == last:
        text = f"The mean over all digits is at its best: {means[last]:.3f}."
    else:
        text = f"The mean over all digits is {means[last]:.3f}; it was {means[best]:.3f} at epoch {best}."
    worse = setbacks(history, mode="eval")
    if not worse:
        return f"{text} So is every single digit." if best == last else text
    most = worse[0]
    return f"{text}\nBut '{most.name}' got worse: {most.best:.3f} at epoch {most.best_step}, {most.last:.3f} now."


@contextmanager
def _progress(epochs: int) -> Iterator[Callable[[int, History], None] | None]:
    """Give the callback that moves a progress bar on stderr, or None if stderr is no terminal."""
    from rich.console import Console  # noqa: PLC0415

    console: Console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    from rich import progress  # noqa: PLC0415

    bar = progress.Progress(
        progress.TextColumn("Training"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TextColumn("epochs  {task.fields[losses]}"),
        console=console,
    )
    with bar:
        # The bar pulses until it is started: the first epoch of the very first run waits for the compiler.
        task = bar.add_task("", total=epochs, losses="", start=False)

        def on_epoch(epoch: int, history: History) -> None:
            bar.start_task(task)
            losses = (f"{mode} loss {history.at(epoch, mode).total().mean:.3f}" for mode in history.modes)
            bar.update(task, completed=epoch, losses=", ".join(losses))

        yield on_epoch
