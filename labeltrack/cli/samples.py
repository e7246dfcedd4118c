"""The commands for recorded runs whose samples have ids: dynamics, hardest."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path  # noqa: TC003 (typer reads the annotations when it runs)
from typing import TYPE_CHECKING, Annotated, Any

import typer

from labeltrack.cli.application import MISTAKES, fail, open_recorded, told, warned
from labeltrack.cli.query import (
    DsIds,
    Engine,
    HigherIsWorse,
    Incomplete,
    Json,
    Mode,
    NanPolicy,
    RunPath,
    Steps,
    file_option,
    like,
    option,
)

if TYPE_CHECKING:
    from labeltrack.recording.dynamics import Dynamics


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
            return open_recorded(path).dynamics(**given, engine=name)


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
