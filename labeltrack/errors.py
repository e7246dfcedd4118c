"""Exceptions and warnings that callers may want to catch, and the wording that several errors share."""

from __future__ import annotations

import difflib
import importlib
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

_LONGEST = 200  # characters of an item in a list
_SEARCHED = 5000  # names compared with a misspelt one; a hundred thousand would take over a second
_INSIDE = "labeltrack.", "numba.", "importlib.", "contextlib"


class LabelTrackWarning(UserWarning):
    """Something was recorded or requested that is probably not what was meant."""


class NaNError(ValueError):
    """There are NaN samples under ``nan_policy="raise"``."""


class RunInUseError(RuntimeError):
    """Another process is recording to the same folder."""


class DamagedRunError(ValueError):
    """A file of a recorded run does not contain what labeltrack wrote."""


class TruncatedRunError(DamagedRunError):
    """A file of a recorded run was cut short, or became unreadable, after it was opened."""


def need(module: str, what: str = "recorded runs", extra: str = "record") -> Any:
    """Import an optional module, which something requires that an extra installs.

    Raises:
        ImportError: It is not installed, or pyarrow does not work with this numpy.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        if module.startswith("pyarrow") and "numpy" in str(error).lower():
            msg = (
                f"this pyarrow does not import with numpy {np.__version__}: pip install 'pyarrow<26', or a newer numpy "
                f"({error})"
            )
        else:
            msg = f'cannot import {module}, required for {what}: pip install "labeltrack[{extra}]" ({error})'
        raise ImportError(msg, name=module) from error


def outside() -> int:
    """Return the stack level, for a warning of the caller, of the first frame outside the package."""
    level, frame = 1, sys._getframe(1)  # noqa: SLF001 (warnings of Python 3.12 have this built in)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(_INSIDE):
        level, frame = level + 1, frame.f_back
    return level


def listing(items: Iterable[object], limit: int = 10) -> str:
    """Write items as ``'a', 'b', 'c'``, and how many more there are beyond `limit`.

    Example:
        >>> listing(range(5), limit=3)
        '0, 1, 2, … (5 in all)'
    """
    pool = list(items)
    shown = ", ".join(map(_shown, pool[:limit]))
    if len(pool) <= limit:
        return shown or "none"
    return f"{shown}, … ({len(pool)} in all)"


def _shown(item: object) -> str:
    text = repr(item)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def nearest(wanted: object, known: Iterable[object], limit: int = 3) -> list[object]:
    """Return up to `limit` of the known things closest to the wanted one.

    Numbers are compared by distance, everything else by spelling.

    Example:
        >>> nearest(7, [1, 5, 8, 100])
        [8, 5, 1]
        >>> nearest("catt", ["dog", "cat"])
        ['cat']
    """
    pool = list(known)
    numbers = (int, float)
    if isinstance(wanted, numbers) and all(isinstance(item, numbers) for item in pool):
        return sorted(pool, key=lambda item: abs(item - wanted))[:limit]  # type: ignore[operator]
    by_name = {str(item): item for item in pool[:_SEARCHED]}
    return [by_name[name] for name in difflib.get_close_matches(str(wanted), by_name, n=limit, cutoff=0.5)]


def missing_key(wanted: object, known: Iterable[object], what: str) -> KeyError:
    """Build the KeyError for a lookup that failed: what was wanted, what is near, what is there."""
    pool = list(known)
    close = nearest(wanted, pool)
    hint = f" Did you mean {listing(close)}?" if close else ""
    return KeyError(f"no {what} {_shown(wanted)}.{hint} There are: {listing(pool)}")
