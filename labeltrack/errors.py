"""Exceptions and warnings that callers may want to catch, and the wording that several of them share."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np

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
    """Import an optional module, which something requires that an extra installs; an ImportError says how."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        said = f'cannot import {module}, required for {what}: pip install "labeltrack[{extra}]"'
        if module.startswith("pyarrow") and "numpy" in str(error).lower():
            said = (
                f"this pyarrow does not import with numpy {np.__version__}: pip install 'pyarrow<26', or a newer numpy"
            )
        msg = f"{said} ({error})"
        raise ImportError(msg, name=module) from error


def warn(message: str) -> None:
    """Give a `LabelTrackWarning` that points to the first caller outside the package."""
    level, frame = 1, sys._getframe()  # noqa: SLF001 (warnings of Python 3.12 have this built in)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(_INSIDE):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, LabelTrackWarning, stacklevel=level)


def listing(items: Iterable[object], limit: int = 10) -> str:
    """Write items as ``'a', 'b', 'c'``, and how many there are if they are more than `limit`."""
    pool = list(items)
    shown = ", ".join(map(_shown, pool[:limit]))
    if len(pool) <= limit:
        return shown or "none"
    return f"{shown}, … ({len(pool)} in all)"


def counted(n: int, what: str, verb: str = "") -> str:
    """Write a number of things, such as ``"2,000 entries"``, with a verb if there is one: ``"have"`` or ``"are"``."""
    if n != 1:
        what = f"{what[:-1]}ies" if what.endswith("y") else f"{what}s"
    verb = {"have": "has", "are": "is"}.get(verb, verb) if n == 1 else verb
    return f"{n:,} {what} {verb}".rstrip()


def _shown(item: object) -> str:
    text = repr(item)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def check_option(what: str, given: Any, allowed: Iterable[Any]) -> None:
    """Raise a ValueError unless an option is one of those allowed."""
    known = list(allowed)
    if not (given is None or isinstance(given, str)) or given not in known:
        msg = f"{what}: unknown option {given!r}; allowed are {listing(one for one in known if one is not None)}"
        raise ValueError(msg)


def nearest(wanted: object, known: Iterable[object]) -> list[object]:
    """Return up to three of the known things closest to the wanted one: numbers by distance, others by spelling."""
    pool = list(known)
    numbers = (int, float)
    if isinstance(wanted, numbers) and all(isinstance(item, numbers) for item in pool):
        return sorted(pool, key=lambda item: abs(item - wanted))[:3]  # type: ignore[operator]
    import difflib  # noqa: PLC0415 (5 ms of every import of the package)

    by_name = {str(item): item for item in pool[:_SEARCHED]}
    return [by_name[name] for name in difflib.get_close_matches(str(wanted), by_name, cutoff=0.5)]


def missing_key(wanted: object, known: Iterable[object], what: str) -> KeyError:
    """Build the KeyError for a lookup that failed: what was wanted, what is near, what is there."""
    pool = list(known)
    close = nearest(wanted, pool)
    hint = f" Did you mean {listing(close)}?" if close else ""
    return KeyError(f"no {what} {_shown(wanted)}.{hint} There are: {listing(pool)}")


# -- what is probably a mistake ---------------------------------------------------------------------------


def warn_nothing_mapped(mapped: Iterable[Any], occurred: Iterable[Any]) -> None:
    """Warn that no sample has one of the labels of a mapping."""
    known = list(occurred)  # of samples that were folded before a state was saved, none is
    others = f"the labels that occurred are {listing(known)}" if known else "only other labels occurred"
    msg = f"no sample has a label of label_mapping: it maps {listing(mapped)}, but {others}"
    warn(msg)


def warn_no_combination(mapped: Mapping[str, Iterable[Any]], unmatched: Collection[str]) -> None:
    """Warn that no sample has mapped labels; `unmatched` are the names of those of which no sample has one."""
    wanted = ", ".join(f"{name!r}: {listing(labels)}" for name, labels in mapped.items())
    which = f"; none has one of {listing(unmatched)}" if unmatched else ""
    warn(f"no sample has labels that label_mapping maps, which are {wanted}{which}")


def warn_never(names: Mapping[Any, str], whole: Iterable[Collection[Any]]) -> None:
    """Warn about labels of a mapping, by label, that occur in none of the statistics of a run, if others do."""
    every = list(whole)
    never = {label: name for label, name in names.items() if not any(label in stats for stats in every)}
    if never and any(len(stats) for stats in every):
        msg = (
            f"label_mapping has labels that never occurred: {listing(never)}, called {listing(never.values())}. "
            "Do they have the type of the labels?"
        )
        warn(msg)


def warn_elsewhere(mode: str, pending: Mapping[tuple[str, str], int]) -> None:
    """Warn if nothing was recorded in the mode that ends, and something in others."""
    counts: dict[str, int] = {}
    for (of, _), count in pending.items():
        counts[of] = counts.get(of, 0) + count
    if counts:
        there = ", ".join(f"mode {of!r} has {count:,}" for of, count in counts.items())
        msg = f"no samples were recorded in mode {mode!r} since its last epoch, but {there}: end_epoch(…, mode=…)?"
        warn(msg)


def warn_multi_hot(*, several: bool = False) -> None:
    """Warn that labels are grouped by 0 and 1 where columns were probably meant."""
    way = "label_stats(np.broadcast_to(np.arange(labels.shape[1]), labels.shape), values)"
    msg = (
        "two-dimensional labels contain only 0 and 1, and samples are grouped by these two values. If the labels are "
        "multi-hot, with a column for each class, group by column instead: "
        f"{'pass np.arange(values.shape[1])[np.newaxis] as one of the labels' if several else way}. "
        "If grouping by 0 and 1 is intended, pass labels.ravel() and values.ravel(), or a label_mapping"
    )
    warn(msg)
