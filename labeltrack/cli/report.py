"""``labeltrack report``: one HTML file about a recorded run, or about several side by side."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 (typer reads the annotations when it runs)
from typing import Annotated

import typer

from labeltrack.cli.application import MISTAKES, app, open_recorded, told, warned
from labeltrack.cli.query import HigherIsWorse  # noqa: TC001 (typer reads it)


def register() -> None:
    """Add the command to the app."""
    app.command(help="Write a report: one HTML file with the verdict, tables, curves and distributions of samples.")(
        report
    )


def report(
    runs: Annotated[
        list[str],
        typer.Argument(metavar="RUN...", help="A recorded run, or several side by side, the one to judge last."),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="The report: .html.")],
    *,
    mode: Annotated[
        str | None, typer.Option(metavar="NAME", help="Mode to judge; by default eval, or the only one there is.")
    ] = None,
    metric: Annotated[str | None, typer.Option(metavar="NAME", help="Metric to judge; by default the first.")] = None,
    against: Annotated[
        str,
        typer.Option(
            metavar="STEP",
            help="Compare the last step with: previous, first, or a step. Of several runs, a step of the first one; by "
            "default its last.",
        ),
    ] = "previous",
    q: Annotated[
        float,
        typer.Option("--q", metavar="LEVEL", help="Accepted share of false alarms among the labels with a verdict."),
    ] = 0.05,
    higher_is_worse: HigherIsWorse = True,
    title: Annotated[str | None, typer.Option(metavar="TEXT", help="Title of the page.")] = None,
) -> None:
    """Write the report."""
    from labeltrack.report.recorded import write_report  # noqa: PLC0415 (for this command only)

    opened = [open_recorded(run) for run in runs]
    with told(*MISTAKES), warned():
        step = int(against) if against.removeprefix("-").isdigit() else against
        write_report(
            opened,
            output,
            mode=mode,
            metric=metric,
            against=step,
            higher_is_worse=higher_is_worse,
            alpha=q,
            title=title,
        )
    typer.echo(f"Written: {output}")
