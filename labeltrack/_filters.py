"""Which modes, dataset ids, steps and labels are meant: all but some (``"!eval"``), the mode that None stands for."""

from __future__ import annotations

import operator
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from labeltrack.errors import listing, missing_key


class Selection:
    """A checked choice of names, `what` in messages: None for all; one or several; all but those with ``"!"``."""

    def __init__(self, chosen: Any, what: str) -> None:
        self._everything = chosen is None
        self._but = False
        self._names: frozenset[str] = frozenset()
        if chosen is None:
            return
        expected = f"{what} must be None, a string or an iterable of strings"
        if not isinstance(chosen, (str, Iterable)):
            msg = f"{expected}, got {type(chosen).__name__}"
            raise TypeError(msg)
        names = [chosen] if isinstance(chosen, str) else list(chosen)
        for name in names:
            if not isinstance(name, str):
                msg = f"{expected}, got {type(name).__name__} {name!r} in it"
                raise TypeError(msg)
        if not names:
            msg = f"{what} is an empty iterable, so nothing would be tracked; pass None for every {what}"
            raise ValueError(msg)
        negated = [name.startswith("!") for name in names]
        if any(negated) and not all(negated):
            msg = f"{what} mixes names to keep with names to leave out ('!'): {names!r}; use one form"
            raise ValueError(msg)
        self._but = negated[0]
        self._names = frozenset(name.removeprefix("!") for name in names)

    def __contains__(self, name: str) -> bool:
        return self._everything or ((name in self._names) != self._but)


def single_mode(modes: Iterable[str], mode: str | None = None, what: str = "") -> str:
    """Return the mode to read, None is ``"eval"``, else the only one; KeyError if there is none, or no such `what`."""
    there = list(dict.fromkeys(modes))
    if mode is not None:
        if what and mode not in there:
            raise missing_key(mode, there, what)
        return mode
    if not there:
        msg = "there is no mode to read: no epoch has ended yet"
        raise KeyError(msg)
    if "eval" not in there and len(there) > 1:
        msg = f"which mode? There is no 'eval', which would be the default, but {listing(there)}; pass mode (--mode)"
        raise ValueError(msg)
    return "eval" if "eval" in there else there[0]


def labels_named(by: str | Iterable[str], names: Collection[str]) -> tuple[str, ...] | None:
    """Return which of several labels per sample `by` names, one or an iterable; None if it names a statistic."""
    if isinstance(by, str):
        return (by,) if by in names else None
    return tuple(by)


def check_step(step: Any) -> int:
    """Return a step as int; TypeError if it is none, ValueError if it takes more than 64 bits, which no table holds."""
    try:
        number = operator.index(step)
    except TypeError:
        msg = f"step must be an integer, such as the number of an epoch, got {type(step).__name__} {step!r}"
        raise TypeError(msg) from None
    if not -(2**63) <= number < 2**63:
        msg = f"step must be from -2**63 to 2**63 - 1, got {number}"
        raise ValueError(msg)
    return number


def compared_step(earlier: Sequence[int], against: int | str = "previous") -> int | None:
    """Return the step to compare with, of ascending ones; None if there are none, an error if not that one."""
    if isinstance(against, str) and against not in ("previous", "first"):
        msg = f"against: must be 'previous', 'first' or a step, got {against!r}"
        raise ValueError(msg)
    if not isinstance(against, str):
        if against not in earlier:
            raise missing_key(against, list(earlier), "earlier step")
        return int(against)
    return earlier[0 if against == "first" else -1] if earlier else None


def step_origin(ends: list[int]) -> int:
    """Return what axes count steps from; those draw doubles, which cannot tell long numbers apart."""
    digits = max(len(str(abs(step))) for step in ends)
    is_narrow = len(str(max(ends) - min(ends))) <= digits - 4
    return min(ends) if digits > 9 and is_narrow else 0


def chosen_steps(there: list[int], steps: Any) -> list[int]:
    """Return the steps that are meant: all of those there for None, some of them for a slice, or those listed."""
    if steps is None or isinstance(steps, slice):
        return there if steps is None else there[steps]
    if not isinstance(steps, Iterable):
        msg = f"steps must be None, a slice or an iterable of steps, got {type(steps).__name__} {steps!r}"
        raise TypeError(msg)
    return list(dict.fromkeys(map(check_step, steps)))
