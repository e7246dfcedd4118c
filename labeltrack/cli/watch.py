"""``labeltrack watch``: a table that follows a run while another process records it.

It only opens files for reading and takes no lock, so a process that records cannot tell that it is watched.
"""

from __future__ import annotations

import contextlib
import os
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from labeltrack._filters import single_mode
from labeltrack.cli.application import MISTAKES, fail, open_recorded, told
from labeltrack.cli.options import HigherIsWorse, Metric, Mode, RunPath, file_option, option
from labeltrack.errors import DamagedRunError, LabelTrackWarning

if TYPE_CHECKING:
    from rich.console import RenderableType

    from labeltrack.history import History
    from labeltrack.recording.epochs import RecordedEpoch
    from labeltrack.recording.run import Run

_NAMED = 5  # changed labels


def watch(
    run: RunPath,
    *,
    mode: Mode = None,
    metric: Metric = None,
    by: Annotated[str, option("NAME", "count, sum, mean, std, min or max.")] = "mean",
    k: Annotated[int, option("N", "Number of labels.", "-k")] = 10,
    higher_is_worse: HigherIsWorse = True,
    interval: Annotated[float, option("SECONDS", "How often to look.")] = 2.0,
    html: Annotated[
        Path | None, file_option("Write a report, too, and renew it at each new epoch:", ".html", names=("--html",))
    ] = None,
    idle: Annotated[float | None, option("SECONDS", "Stop when nothing was written for so long.")] = None,
) -> None:
    """Follow a run while another process records it: the worst labels of each new epoch."""
    if interval <= 0 or k < 1:
        fail("--interval and -k must be positive")
    open_recorded(run)
    watched = Watched(run, mode, metric, by=by, limit=k, higher_is_worse=higher_is_worse)
    with contextlib.suppress(KeyboardInterrupt), _screen() as draw:
        while True:
            with told(*MISTAKES), warnings.catch_warnings():
                warnings.simplefilter("ignore", LabelTrackWarning)  # of epochs that have not ended, mostly
                is_new = watched.look()
                if is_new and html is not None:
                    watched.report(html)
                draw(watched.shown(), is_new)
            if idle is not None and watched.silence() > idle:
                return
            time.sleep(interval)


@contextlib.contextmanager
def _screen() -> Iterator[Any]:
    """Yield what draws: in a terminal in place, elsewhere each new epoch below the last."""
    from rich.console import Console  # noqa: PLC0415
    from rich.live import Live  # noqa: PLC0415

    console = Console()
    if console.is_terminal:
        with Live(console=console, auto_refresh=False) as live:
            yield lambda shown, _is_new: live.update(shown, refresh=True)
    else:
        console.width = 200  # there is no line to wrap at
        yield lambda shown, is_new: console.print(shown, "") if is_new else None


class Watched:
    """A run that is being recorded, as far as it was read."""

    def __init__(
        self, path: str, mode: str | None, metric: str | None = None, *, by: str, limit: int, higher_is_worse: bool
    ) -> None:
        self._path, self._wanted, self._metric = path, mode, metric
        self._by, self._limit, self._higher_is_worse = by, limit, higher_is_worse
        self._judging: dict[str, Any] = {"metric": metric, "higher_is_worse": higher_is_worse}
        self._begun = time.time()
        self._run: Run | None = None
        self._read: dict[str, tuple[History, dict[int, RecordedEpoch]]] = {}  # by mode: steps as they were read
        self._mode: str | None = None
        self._trouble = self._changes = ""

    def look(self) -> bool:
        """Read what is new; return whether there was anything."""
        from labeltrack.recording.run import open_run  # noqa: PLC0415

        try:
            run = self._run = open_run(self._path)
            self._trouble = ""
            complete = [epoch for epoch in run.epochs if epoch.complete]
            modes = {epoch.mode for epoch in complete}
            if not modes or self._wanted not in {None, *modes}:
                return False
            if self._mode is None or "eval" in modes:  # which may come later
                self._mode = single_mode(modes, self._wanted)
            return self._follow(run, self._mode, {epoch.step: epoch for epoch in complete if epoch.mode == self._mode})
        except (OSError, DamagedRunError) as error:  # such as a disk that is away for a moment
            self._trouble = str(error)
            return False

    def _follow(self, run: Run, mode: str, there: dict[int, RecordedEpoch]) -> bool:
        from labeltrack.compare import recorded  # noqa: PLC0415

        if mode not in self._read:
            self._read[mode] = run.recompute(modes=mode, metric=self._metric, progress=False), dict(there)
            fresh = list(there)
        else:
            history, read = self._read[mode]
            fresh = [step for step, epoch in there.items() if read.get(step) != epoch]  # new, or repeated
            for step in fresh:
                history.add_all(step, {"": recorded(run, mode, step, metric=self._metric)[1]}, mode=mode, replace=True)
                read[step] = there[step]
        if fresh:
            self._changes = self._compared(run, mode, sorted(there)[-2:])
        return bool(fresh)

    def report(self, path: Path) -> None:
        """Write the report of what is there."""
        from labeltrack.report.recorded import write_report  # noqa: PLC0415

        if self._run is not None:
            write_report(self._run, path, mode=self._mode, **self._judging)

    def shown(self) -> RenderableType:
        """Return what there is to show."""
        from rich.console import Group  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415

        from labeltrack.report import history_table, printable  # noqa: PLC0415

        lines = [f"{printable(self._path)}: {self._state()}"]
        if self._trouble:
            lines.append(f"cannot be read now: {printable(self._trouble)}")
        if self._mode is None or not self._read[self._mode][0].steps(self._mode):
            of = "" if self._wanted is None else f" of mode {printable(repr(self._wanted))}"
            return Text("\n".join([*lines, f"no epoch{of} has ended yet"]))
        history, mode = self._read[self._mode][0], self._mode
        table = history_table(history, mode=mode, by=self._by, limit=self._limit, higher_is_worse=self._higher_is_worse)
        return Group(Text("\n".join(lines)), table, Text(self._changes))

    def _state(self) -> str:
        """Return which epoch is being recorded, and when something was last written."""
        going = [] if self._run is None else [epoch for epoch in self._run.epochs if not epoch.complete]
        begun = ", ".join(f"{epoch.mode} {epoch.step}" for epoch in going[-2:])
        written = f"last written {self.silence():,.0f} s ago" if self._written() is not None else ""
        return "; ".join(part for part in (f"{begun} not ended" if begun else "", written) if part) or "recorded"

    def _compared(self, run: Run, mode: str, steps: list[int]) -> str:
        """Return the labels that changed between two steps, if there are two."""
        from labeltrack._significance.comparison import percent  # noqa: PLC0415
        from labeltrack.compare import compare  # noqa: PLC0415
        from labeltrack.report import printable  # noqa: PLC0415

        if len(steps) < 2:
            return ""
        try:
            found = compare(run, mode=mode, steps=steps, **self._judging)
        except ImportError as error:
            return f"changes since step {steps[0]}: {error}"
        named = []
        for what, labels in (("worse", found.worse()), ("better", found.better())):
            places = [found.index(label) for label in labels[:_NAMED]]
            changes = [(printable(str(found.names[k])), percent(found.relative[k])) for k in places]
            texts = [f"{name} ({change})" if change else name for name, change in changes]
            texts += [f"{len(labels) - _NAMED} more"] if len(labels) > _NAMED else []
            named += [f"{what}: {', '.join(texts)}"] if labels else []
        return f"since step {steps[0]}: {'; '.join(named) or 'no label changed by more than noise'}"

    def silence(self) -> float:
        """Return the seconds since anything was written, or since watching began if that is unknown."""
        written = self._written()
        return max(0.0, time.time() - (self._begun if written is None else max(written, 0.0)))

    def _written(self) -> float | None:
        """Return when a file of the run was last written; None if it is not in a local folder."""
        times = []
        for folder, _, names in os.walk(self._path):
            for name in names:
                with contextlib.suppress(OSError):  # it was renamed meanwhile
                    times.append(Path(folder, name).stat().st_mtime)
        return max(times, default=None)
