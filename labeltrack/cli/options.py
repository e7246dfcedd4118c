"""The options that several commands for recorded runs share, and the history that they ask for."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path  # noqa: TC003 (typer reads the annotations when it runs)
from typing import TYPE_CHECKING, Annotated, Any

import typer

from labeltrack._tables import check_ending
from labeltrack.bounds import BOUNDS, resolve
from labeltrack.cli.application import MISTAKES, fail, told, warned
from labeltrack.errors import need

if TYPE_CHECKING:
    from labeltrack.history import History
    from labeltrack.recording.run import Run


def option(metavar: str | None, text: str, *names: str) -> Any:
    """Return an option, with a name for its value, None for a flag, and its help."""
    return typer.Option(*names, metavar=metavar, help=text)


RunPath = Annotated[
    str, typer.Argument(metavar="RUN", help="Folder of a recorded run, or any path that fsspec supports.")
]
Mode = Annotated[str | None, option("NAME", "Mode; by default eval, or the only one there is.")]
Metric = Annotated[str | None, option("NAME", "Metric, if the run has several.")]
Steps = Annotated[list[int] | None, option("N", "Only this step. Repeatable.")]
DsIds = Annotated[list[str] | None, option("NAME", "Only this dataset. Repeatable.")]
NanPolicy = Annotated[str | None, option("NAME", "propagate, omit or raise; by default that of the run.")]
Modes = Annotated[list[str] | None, option("NAME", "Only this mode, or '!NAME': all others. Repeatable.", "--mode")]
Incomplete = Annotated[bool, option(None, "Include epochs that did not end.", "--incomplete")]
HigherIsWorse = Annotated[
    bool, option(None, "Whether high values are bad, as for a loss.", "--higher-is-worse/--lower-is-worse")
]
Json = Annotated[bool, option(None, "Print JSON, for programs.", "--json")]
_EACH = "With several labels per sample, {label name: such an object, ...}."


def file_option(what: str, *endings: str, names: tuple[str, ...] = ("-o", "--output")) -> Any:
    """Return an option that names a file to write, whose ending is checked at once."""

    def check(path: Path | None) -> Path | None:
        if path is not None:
            with told(ValueError):
                check_ending(path, endings)
        return path

    text = f"{what} {' or '.join(filter(None, [', '.join(endings[:-1]), endings[-1]]))}."
    return typer.Option(*names, metavar="FILE", help=text, callback=check)


@dataclass(frozen=True)
class Engine:
    """The options that say where a run is read."""

    engine: Annotated[str, option("NAME", "local, or dask: a cluster.")] = "local"
    scheduler: Annotated[str | None, option("ADDRESS", "Of a running Dask scheduler, such as tcp://host:8786.")] = None

    @contextmanager
    def started(self) -> Iterator[Any]:
        """Within the block, the scheduler is the current one; yield the engine."""
        if self.scheduler is None:
            yield self.engine
            return
        if self.engine != "dask":
            fail("--scheduler requires --engine dask")
        with told(OSError, ValueError, ImportError):
            client = need("distributed", "--scheduler", "dask").Client(self.scheduler, timeout=10)
        with client:
            yield self.engine


@dataclass(frozen=True)
class Shown:
    """The options that say what of the statistics is shown."""

    bounds: Annotated[
        list[str] | None,
        option(
            "NAME",
            "std, range, sem, ci95, iqr, median, quantile:0.05:0.95 or none; by default those of the run. Repeatable.",
        ),
    ] = None
    modes: Modes = None
    by: Annotated[
        list[str] | None, option("NAME", "One of several labels per sample, over all others. Repeatable.")
    ] = None


@dataclass(frozen=True)
class Query:
    """The options of all commands that compute statistics."""

    metric: Metric = None
    label_mapping: Annotated[
        Path | None, option("FILE", f'JSON: {{"display name": label, ...}}; other labels are ignored. {_EACH}')
    ] = None
    group: Annotated[
        Path | None, option("FILE", f'JSON: {{"label": "new label", ...}}, such as coarse classes. {_EACH}')
    ] = None
    rest: Annotated[str | None, option("NAME", "New label of everything that --group leaves out.")] = None
    missing: Annotated[str | None, option("NAME", "New label of samples without a label, with --group.")] = None
    nan_policy: NanPolicy = None
    absent: Annotated[bool, option(None, "Show labels that have no samples in an epoch, too.", "--absent")] = False
    incomplete: Incomplete = False
    threads: Annotated[int | None, option("N", "Number of threads; chosen by the number of samples by default.")] = None

    def history(self, run: Run, shown: Shown, engine: str = "local") -> History:
        """Recompute a run, by some of its labels."""
        options: dict[str, Any] = {}
        if shown.bounds:
            options["bounds"] = [_bound(name) for name in shown.bounds]
        if self.label_mapping is not None:
            options["label_mapping"] = _json_object(self.label_mapping, "--label-mapping")
        if self.group is not None:
            options |= self._grouping(run)
        elif self.missing is not None or self.rest is not None:
            fail(f"{'--rest' if self.missing is None else '--missing'} requires --group")
        with told(*MISTAKES), warned():
            checked: dict[str, Any] = {"nan_policy": self.nan_policy, "engine": engine}  # by recompute()
            options |= {"metric": self.metric, "modes": shown.modes or None, **checked}
            history = run.recompute(**options, incomplete=self.incomplete, threads=self.threads)
        if not history.modes and options.keys() & {"group", "label_mapping"}:
            fail(f"nothing of {run.path} is left to show")
        with told(*MISTAKES):
            history = history.by(*shown.by) if shown.by else history
            return history.with_absent() if self.absent else history

    def _grouping(self, run: Run) -> dict[str, Any]:
        """Return the options of `recompute` that give labels new ones."""
        from labeltrack.recording.regroup import TextKeys  # noqa: PLC0415

        assert self.group is not None  # noqa: S101 (the caller asks)
        given = _json_object(self.group, "--group")
        several = not isinstance(run.label, str)
        for name, one in given.items() if several else ():
            if not isinstance(one, dict):
                fail(f"--group: {self.group} must have an object {{...}} for each label, and has {one!r} for {name!r}")
        groups = {name: TextKeys(one) for name, one in (given if several else {"": given}).items()}
        rests = {}
        for name, group in groups.items():
            others = list(group.values())
            if self.missing is not None:
                group[None] = like(self.missing, others)
            if self.rest is not None:
                rests[name] = like(self.rest, others)
        found: dict[str, Any] = {"group": groups if several else groups[""]}
        return found | ({"rest": rests if several else rests[""]} if rests else {})


def _bound(name: str) -> Any:
    """Return the bound that a name means on the command line."""
    parts = name.split(":")
    bound: Any = None if name == "none" else name if len(parts) == 1 else tuple(parts)
    try:
        resolve(bound)
    except ValueError:
        names = ", ".join(str(known) for known in BOUNDS if known is not None)
        fail(
            f"--bounds: expected {names}, none, or quantile:LOW:HIGH with two numbers from 0 to 1, the lower one "
            f"first; got {name!r}"
        )
    return bound


def like(text: str, others: Iterable[Any]) -> Any:
    """Return the label that a text means beside others: a number among numbers."""
    if any(isinstance(other, str) for other in others):
        return text
    try:
        number = json.loads(text)
    except ValueError:
        return text
    return number if isinstance(number, (bool, int, float)) else text


def _json_object(path: Path, option: str) -> dict[str, Any]:
    """Return the object in a JSON file."""
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        fail(f"{option}: cannot read {path}: {error.strerror}")
    except (ValueError, RecursionError) as error:
        fail(f"{option}: {path} is not JSON: {error}")
    if not isinstance(plain, dict):
        fail(f"{option}: {path} must be a JSON object, {{...}}, and is a {type(plain).__name__}")
    return plain
