"""A progress bar for slow operations, shown on a terminal only and after a second."""

from __future__ import annotations

import sys
import time
from threading import Lock
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing import Self

PATIENCE = 1.0  # seconds


class Progress:
    """Counts, and shows a bar on stderr if that is a terminal and more than a second has passed.

    Args:
        task: What is being done.
        total: How much there is to do.
        unit: Of what.
        wanted: Whether to show anything at all.

    Example:
        >>> with Progress("Reading", 10, "rows", wanted=False) as bar:
        ...     bar.advance(10)
    """

    def __init__(self, task: str, total: int, unit: str, *, wanted: bool = True) -> None:
        self._task, self._total, self._unit = task, total, unit
        self._wanted = wanted and sys.stderr.isatty()
        self._start = time.monotonic()
        self._done = 0
        self._lock = Lock()
        self._bar: Any = None

    def __enter__(self) -> Self:
        """Start counting."""
        return self

    def __exit__(self, *_exception: object) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.stop()

    def advance(self, n: int) -> None:
        """Count `n` more; may be called in any thread."""
        if not self._wanted:
            return
        with self._lock:
            self._done += n
            if self._bar is None and time.monotonic() - self._start > PATIENCE:
                self._bar = self._shown()
            if self._bar is not None:
                self._bar.update(self._bar.task_ids[0], completed=self._done)

    def _shown(self) -> Any:
        from rich import progress  # noqa: PLC0415 (takes 0.1 s, which most calls need not spend)
        from rich.console import Console  # noqa: PLC0415

        columns = [
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.TaskProgressColumn(),
            progress.TextColumn(f"of {self._total:,} {self._unit}"),
            progress.TimeRemainingColumn(),
        ]
        bar = progress.Progress(*columns, console=Console(stderr=True), transient=True)
        bar.add_task(self._task, total=self._total or None)
        bar.start()
        return bar
