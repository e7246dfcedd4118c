"""``labeltrack check``: fails where a label of a recorded run got worse, for continuous integration."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path  # noqa: TC003 (typer reads the annotations when it runs)
from typing import TYPE_CHECKING, Annotated, Any

import typer

from labeltrack._filters import compared_step
from labeltrack.cli.application import MISTAKES, fail, open_recorded, told, warned
from labeltrack.cli.options import HigherIsWorse, Json, Metric, Mode, RunPath, option

if TYPE_CHECKING:
    from labeltrack.compare import Comparison
    from labeltrack.recording.run import Run

_NAMED = 10  # labels that were not tested


@dataclass(frozen=True)
class Sides:
    """The options that say what is compared."""

    against: Annotated[
        str | None, option("STEP", "Compare with: previous, the default; first, the default of --anytime; or N.")
    ] = None
    baseline: Annotated[
        str | None, option("RUN", "Compare with this run: its last step, unless --against says which.")
    ] = None
    mode: Mode = None
    metric: Metric = None
    step: Annotated[int | None, option("N", "Step to check; by default the last one.")] = None
    anytime: Annotated[
        bool,
        option(
            None, "Judge all steps since, so that a check after every epoch gives no more false alarms.", "--anytime"
        ),
    ] = False

    def compare(self, path: str, **options: Any) -> tuple[Comparison, dict[str, Any]]:
        """Return the comparison, and what was compared as plain values."""
        from labeltrack.compare import compare, mode_of  # noqa: PLC0415 (for this command only)

        if self.anytime and (self.baseline is not None or self.against == "previous"):
            fail(
                "--anytime judges all steps of one run since a step: it goes neither with --baseline nor with previous"
            )
        run = open_recorded(path)
        before = run if self.baseline is None else open_recorded(self.baseline)
        with told(*MISTAKES), warned():
            mode = mode_of(run, self.mode)
            steps = self._steps(run, before, mode)
            if self.anytime:
                found = _looks(run, mode, self.metric, steps, **options)
            else:
                found = compare(before, run, mode=mode, steps=steps, metric=self.metric, **options)
        places = {"before": {"run": before.path, "step": steps[0]}, "after": {"run": run.path, "step": steps[1]}}
        return found, {"mode": mode, **places}

    def _steps(self, run: Run, before: Run, mode: str) -> tuple[int, int]:
        """Return the step to compare with, and the one to check."""
        from labeltrack.compare import steps_of  # noqa: PLC0415 (for this command only)

        own = steps_of(run, mode)
        if not own:
            msg = f"{run.path} has no complete epoch in mode {mode!r}"
            raise ValueError(msg)
        after = own[-1] if self.step is None else self.step
        earlier = [one for one in own if one < after] if before is run else steps_of(before, mode)
        against = self.against or ("first" if self.anytime else "previous")
        if against.removeprefix("-").isdecimal():
            chosen = int(against)
            if before is run and chosen == after:
                msg = f"step {after} is the one to check; --against must be another"
                raise ValueError(msg)
            return chosen, after
        found = compared_step(earlier, against)
        if found is None:
            where = f"before step {after}" if before is run else f"in {before.path}"
            msg = f"there is no complete epoch of mode {mode!r} {where} to compare with; use --baseline RUN"
            raise ValueError(msg)
        return found, after


def check(
    run: RunPath,
    *,
    max_regression: Annotated[
        str, option("SHARE", "What a label may get worse by, such as 5% or 0.05 of its mean before.")
    ] = "0%",
    q: Annotated[float, option("LEVEL", "Accepted share of false alarms among the labels that fail.", "--q")] = 0.05,
    sides: Sides,
    higher_is_worse: HigherIsWorse = True,
    as_json: Json = False,
    junit: Annotated[Path | None, option("FILE", "Write a JUnit report: a test per label.")] = None,
) -> None:
    """Exit with code 1 if a label got worse: significantly, and by more than a margin."""
    from labeltrack._tables import rows_of  # noqa: PLC0415

    margin = _share(max_regression)
    found, about = sides.compare(run, higher_is_worse=higher_is_worse, alpha=q)
    failed = _failed(found, margin)
    if junit is not None:
        with told(OSError):
            _write_junit(found, failed, margin, junit)
    if as_json:
        rows, limits = rows_of(found.columns()), {"q": found.alpha, "max_regression": margin}
        lists = {"failed": [rows[k] for k in failed], "labels": rows}
        typer.echo(json.dumps({"passed": not failed, "metric": found.metric, **about, **limits, **lists}))
    else:
        _show(found, failed, margin)
    if failed:
        raise typer.Exit(1)


def _looks(run: Run, mode: str, metric: str | None, steps: tuple[int, int], **options: Any) -> Comparison:
    """Compare two steps by all that are after the first one, up to the other."""
    from labeltrack._significance.alarms import compare_looks  # noqa: PLC0415

    history = run.recompute(modes=mode, metric=metric)
    first, last = steps
    looks = [(step, history.at(step, mode)) for step in history.steps(mode) if first < step <= last]
    if not looks:
        msg = f"there is no step after {first} up to {last} in mode {mode!r}"
        raise ValueError(msg)
    title = f"{mode}, step {first} → step {last}"
    return compare_looks(history.at(first, mode), looks, title=title, metric=history.metric, **options)


def _share(text: str) -> float:
    """Return the number that a share such as ``5%`` stands for."""
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = math.nan
    if not 0 <= share < math.inf:
        fail(f"--max-regression must be a share such as 5% or 0.05, got {text!r}")
    if share > 1 and not text.endswith("%"):
        fail(f"--max-regression {text} is {100 * share:g}%; write {text}% or {100 * share:g}%, as it is meant")
    return share


def _failed(found: Comparison, margin: float) -> list[int]:
    """Return the positions of the labels that got worse by more than the margin, the largest change first."""
    sign = 1 if found.higher_is_worse else -1
    worse = [k for k in found.order().tolist() if found.verdict[k] == "worse"]
    return [k for k in worse if not sign * float(found.relative[k]) <= margin]  # NaN fails


def _untested(found: Comparison) -> dict[str, list[str]]:
    """Return the names of the labels that have no p-value, by reason."""
    reasons: dict[str, list[str]] = {}
    columns = (column.tolist() for column in (found.names, found.p, found.method, found.verdict))
    for name, p, method, verdict in zip(*columns, strict=True):
        if math.isnan(p) and verdict in ("too few", "no evidence"):
            reasons.setdefault(method, []).append(name)
    return reasons


def _by(margin: float) -> str:
    return f" by more than {100 * margin:.4g} %" if margin else ""


def _headline(found: Comparison, failed: list[int], margin: float) -> str:
    count = f"{len(failed) or 'none'} of {len(found)} {'label' if len(found) == 1 else 'labels'}"
    less = len(found.worse()) - len(failed)
    also = f"; {less} got worse by less" if less else ""
    return f"{'FAILED' if failed else 'PASSED'}: {count} got worse{_by(margin)} (q < {found.alpha:g}){also}"


def _show(found: Comparison, failed: list[int], margin: float) -> None:
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    from labeltrack.report import printable, show  # noqa: PLC0415

    typer.echo(f"{printable(found.metric)}, {printable(found.title)}")
    typer.echo(_headline(found, failed, margin))
    if failed:
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("label", overflow="fold")
        for name in ("before", "after", "change", "q", "samples"):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("test", no_wrap=True)
        for k in failed:
            table.add_row(*(Text(cell) for cell in (printable(str(found.names[k])), *found._row(k)[1:7])))
        show(table)
    for reason, names in _untested(found).items():
        shown = ", ".join(map(printable, names[:_NAMED])) + (", …" if len(names) > _NAMED else "")
        typer.echo(f"Not tested, {reason}: {len(names)} ({shown})")


def _write_junit(found: Comparison, failed: list[int], margin: float, path: Path) -> None:
    """Write a JUnit report: a test for each label, skipped where nothing was tested."""
    from xml.etree import ElementTree as ET  # noqa: PLC0415

    from labeltrack._tables import whole_file  # noqa: PLC0415
    from labeltrack.report import printable  # noqa: PLC0415

    skipped = {name: reason for reason, names in _untested(found).items() for name in names}
    counts = {"tests": len(found), "failures": len(failed), "errors": 0, "skipped": len(skipped)}
    name = printable(f"{found.metric}, {found.title}")
    suite = ET.Element("testsuite", {"name": name, **{key: str(count) for key, count in counts.items()}})
    for k, label in enumerate(found.names.tolist()):
        case = ET.SubElement(suite, "testcase", {"classname": printable(found.metric), "name": printable(label)})
        _, before, after, change, q, samples, method, _ = found._row(k)
        said = f"{before} → {after} ({change}), q = {q}, {samples} samples, {method}"
        if k in failed:
            ET.SubElement(case, "failure", {"message": f"got worse{_by(margin)}: {said}", "type": "regression"})
        elif label in skipped:
            ET.SubElement(case, "skipped", {"message": skipped[label]})
        else:
            ET.SubElement(case, "system-out").text = said
    with whole_file(path) as half:
        ET.ElementTree(suite).write(half, encoding="utf-8", xml_declaration=True)
