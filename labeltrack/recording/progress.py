"""A progress bar for what may take long: on a terminal only, and only once it has taken a second."""

from __future__ import annotations

import sys
import time
from threading import Lock
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing import Self

PATIENCE = 1.0  # seconds


class Progress:
    """Counts, and shows a bar on stderr if that is a terminal and it has taken longer than a second.

    Args:
        what: What is being done.
        total: How much there is to do.
        unit: Of what.
        wanted: Whether to show anything at all.

    Example:
        >>> with Progress("Reading", 10, "rows", wanted=False) as bar:
        ...     bar.advance(10)
    """

    def __init__(self, what: str, total: int, unit: str, *, wanted: bool = True) -> None:
        self._what, self._total, self._unit = what, total, unit
        self._wanted = wanted and sys.stderr.isatty()
        self._start = time.monotonic()
        self._done = 0
        self._lock = Lock()
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Self:
        """Begin to count."""
        return self

    def __exit__(self, *_exception: object) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()

    def advance(self, n: int) -> None:
        """Count on; may be called in any thread."""
        if not self._wanted:
            return
        with self._lock:
            self._done += n
            if self._bar is None and time.monotonic() - self._start > PATIENCE:
                self._show()
            if self._bar is not None:
                self._bar.update(self._task, completed=self._done)

    def _show(self) -> None:
        from rich import progress  # noqa: PLC0415 (takes 0.1 s, which most calls need not spend)
        from rich.console import Console  # noqa: PLC0415

        self._bar = progress.Progress(
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.TaskProgressColumn(),
            progress.TextColumn(f"of {self._total:,} {self._unit}"),
            progress.TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._bar.add_task(self._what, total=self._total or None)
        self._bar.start()
