"""What an integration says if its framework is not installed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def needed(what: str, *frameworks: str) -> Iterator[None]:
    """Raise ImportError, with what to install, if an import within finds that one of the frameworks is not there."""
    try:
        yield
    except ModuleNotFoundError as error:  # pragma: no cover (a test runs this in a process of its own)
        if (error.name or "").partition(".")[0] not in frameworks:
            raise
        msg = f"labeltrack.integrations.{what}"
        raise ImportError(msg, name=error.name) from error
