"""Regrouping: statistics by old label become statistics by new label, exactly."""

from __future__ import annotations

import ast
import contextlib
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from labeltrack._convert.objects import is_missing
from labeltrack._core.arrays import Array, Integers, sorted_unique
from labeltrack._labels.codes import BOOL, BYTES, FLOAT, MISSING_NAME, MISSING_NUMBER, STRING, label_kind, table_labels
from labeltrack._labels.combined import by_label, columns_of, combinations, grouped
from labeltrack._labels.lookup import alias, plain_label
from labeltrack.errors import counted, listing

if TYPE_CHECKING:
    from labeltrack.recording.description import Description
    from labeltrack.stats import LabelStats


_Keys = dict[Any, list[Any]]  # that mean each label
_NO_KEY: Any = object()
_MISSING = {STRING: MISSING_NAME, BYTES: MISSING_NAME.encode()}  # labels of samples without one; MISSING_NUMBER else


class TextKeys(dict[Any, Any]):
    """New labels by old ones written as text, as in JSON; each text stands for a label of the recorded type."""


class Grouping:
    """New labels by old label; see `Run.recompute`."""

    def __init__(self, group: Any, rest: Any = None) -> None:
        if not isinstance(group, Mapping) and not callable(group):
            msg = f"group must be a mapping from labels to new labels, or a function, got {type(group).__name__}"
            raise TypeError(msg)
        self._group, self._rest = group, rest
        self._keys: dict[str, tuple[_Keys, _Keys]] = {}  # by kind of labels
        self._used: set[Any] = set()
        self._seen: set[Any] = set()
        self._left: dict[Any, int] = {}
        self._samples = self._grouped = 0

    def apply(self, stats: LabelStats, mapping: Mapping[Any, str] | None = None) -> LabelStats:
        """Return the statistics by new label, of those in a mapping if there is one; errors as of `recompute`."""
        rows, new = self.new_labels(stats.labels, mapping, stats.count)
        labels, slots = np.unique(new, return_inverse=True)
        return stats._regrouped(labels, rows, slots.reshape(-1).astype(np.int64), names=mapping)

    def new_labels(
        self, labels: Array, mapping: Mapping[Any, str] | None = None, counts: Integers | None = None
    ) -> tuple[Integers, Array]:
        """Return ``(R,)`` indices of labels to keep, and their new labels; `left_out` then knows of counts."""
        found = self._look_up(labels)
        if counts is not None:
            for label, one, count in zip(labels.tolist(), found, counts.tolist(), strict=True):
                self._seen.add(label)
                self._samples += count
                self._grouped += one is not _NO_KEY and not is_missing(one)
                if one is _NO_KEY:
                    self._left[label] = self._left.get(label, 0) + count
        new = [self._rest if one is _NO_KEY or is_missing(one) else one for one in found]
        kept = [i for i, label in enumerate(new) if label is not None and (mapping is None or label in mapping)]
        chosen = [plain_label(new[i]) for i in kept]
        odd = {type(label).__name__ for label in chosen if not isinstance(label, (bool, int, float, str, bytes))}
        kinds = {str if isinstance(label, str) else bytes if isinstance(label, bytes) else float for label in chosen}
        if odd or len(kinds) > 1:
            got = ", ".join(sorted(odd or {kind.__name__ for kind in kinds}))
            what = "group" if self._rest is None else f"group and rest={self._rest!r}"
            msg = f"{what} must give only numbers or only strings, got {got}"
            raise TypeError(msg)
        return np.array(kept, np.int64), table_labels(chosen)

    def left_out(self) -> str:
        """Return a warning about labels that `apply` left out unintentionally; empty if there are none."""
        if self._rest is not None or not self._seen or (self._grouped and not self._left):
            return ""
        if not self._left:
            return f"group returned None for all {counted(len(self._seen), 'label')}, so nothing is left"
        text = (
            f"group has no key for {len(self._left)} of {len(self._seen)} labels, so {sum(self._left.values())} of "
            f"{self._samples} samples are left out: {listing(self._left, 5)}; rest=NAME (--rest NAME) puts them into "
            "one group"
        )
        unused = [key for key in self._group if key not in self._used]
        return f"{text}. These keys match no label: {listing(unused, 5)}" if unused else text

    def _look_up(self, labels: Array) -> list[Any]:
        """Return the new label of each label; `_NO_KEY` where the group has no key."""
        if not isinstance(self._group, Mapping):
            return [self._group(label) for label in labels.tolist()]
        kind = label_kind(labels)
        if kind not in self._keys:
            self._keys[kind] = _keys_by_label(self._group, kind)
            for several in (one for one in self._keys[kind][0].values() if len(one) > 1):
                self._new_label(several)  # raises if they contradict each other
        exact, near = self._keys[kind]
        keys = [exact.get(label) or near.get(label, []) for label in labels.tolist()]
        self._used.update(*keys)
        # Most labels have one key.
        return [self._group[one[0]] if len(one) == 1 else self._new_label(one) for one in keys]

    def _new_label(self, keys: list[Any]) -> Any:
        """Return the new label that all keys of a label have, `_NO_KEY` without a key; ValueError if they differ."""
        new = [None if is_missing(self._group[key]) else self._group[key] for key in keys]
        for key, label in zip(keys, new, strict=True):
            if label != new[0]:
                msg = f"group has one label twice, as {keys[0]!r} and {key!r}, for {new[0]!r} and {label!r}"
                raise ValueError(msg)
        return new[0] if new else _NO_KEY


class Groupings:
    """New labels of some of several labels, by name; see `Run.recompute`."""

    def __init__(self, group: Mapping[str, Any], rest: Any, names: Sequence[str]) -> None:
        self._names = tuple(names)
        groups = by_label(group, names, "group")
        rests = by_label(rest, names, "rest") if isinstance(rest, Mapping) else dict.fromkeys(names, rest)
        self._each = {name: Grouping(one, rests[name]) for name, one in groups.items() if one is not None}

    def apply(self, stats: LabelStats, mappings: Sequence[Mapping[Any, str] | None]) -> LabelStats:
        """Return the statistics by new combinations, of those in the mapping of each label; see `Grouping.apply`."""
        rows, new = self.new_labels(stats.labels, mappings, stats.count)
        labels, slots = grouped(columns_of(new))
        named = zip(self._names, mappings, strict=True)
        names = {(name, label): text for name, of in named if of is not None for label, text in of.items()}
        return stats._regrouped(labels, rows, slots, names=names)

    def new_labels(
        self, labels: Array, mappings: Sequence[Mapping[Any, str] | None], counts: Integers | None = None
    ) -> tuple[Integers, Array]:
        """Return the ``(R,)`` indices of the ``(K,)`` combinations to keep, and their ``(R,)`` new combinations."""
        kept, columns = np.ones(labels.shape[0], dtype=np.bool_), {}
        for name, mapping in zip(self._names, mappings, strict=True):
            known = sorted_unique(labels[name])
            places = np.searchsorted(known, labels[name])
            of_label = None if counts is None else np.bincount(places, counts, known.shape[0]).astype(np.int64)
            rows, new = self._each.get(name, _UNCHANGED).new_labels(known, mapping, of_label)
            slots = np.full(known.shape[0], -1, dtype=np.int64)
            slots[rows] = np.arange(rows.shape[0])
            columns[name] = new, slots[places]
            kept &= slots[places] >= 0
        return np.flatnonzero(kept), combinations({name: new[slots[kept]] for name, (new, slots) in columns.items()})

    def left_out(self) -> str:
        """Return a warning about labels that `apply` left out unintentionally; empty if there are none."""
        texts = {name: one.left_out() for name, one in self._each.items()}
        return ". ".join(f"label {name!r}: {text}" for name, text in texts.items() if text)


def grouping_of(description: Description, group: Any, rest: Any) -> Grouping | Groupings | None:
    """Return what gives the labels of a run new ones; None keeps them; ValueError if arguments contradict."""
    if rest is not None and group is None:
        msg = f"rest={rest!r} is the new label of everything that group leaves out; pass group, too"
        raise ValueError(msg)
    if group is None:
        return None
    names = description.names
    several = bool(names) and isinstance(group, Mapping)
    grouping = Groupings(group, rest, names) if several else Grouping(group, rest)
    each = [group.get(name) for name in names] if several else [group]
    for one, missing in zip(each, description.missing_of_each, strict=False):
        if isinstance(one, Mapping) and None in one and missing != "label":
            msg = f"group has the key None, but with missing={missing!r} the run has no samples without a label"
            raise ValueError(msg)
    return grouping


_UNCHANGED = Grouping(lambda label: label)


def _keys_by_label(group: Mapping[Any, Any], kind: str) -> tuple[_Keys, _Keys]:
    """Return the keys that mean each label of a kind, and those that mean it where none is equal to it."""
    exact, near = defaultdict[Any, list[Any]](list), defaultdict[Any, list[Any]](list)
    for key in group:
        try:
            label = _MISSING.get(kind, MISSING_NUMBER) if key is None else plain_label(key)
            if isinstance(key, str) and isinstance(group, TextKeys):
                label = _parse(key, kind)
        except (ValueError, OverflowError):
            continue  # not a label of this kind
        exact[label].append(key)
    for label, keys in exact.items() if kind == FLOAT else ():  # narrow floats, recorded as doubles or decimals
        if isinstance(label, float):
            with np.errstate(over="ignore", under="ignore"):
                single = float(np.float32(label))
            for other in {alias(label, widened=True), single if math.isfinite(single) else None} - {None, 0.0}:
                near[other] += keys
    return exact, near


def _parse(text: str, kind: str) -> Any:
    """Return the label of a kind that a text stands for; ValueError or OverflowError if there is none."""
    if kind == STRING:
        return text
    if kind == BYTES:
        with contextlib.suppress(ValueError, SyntaxError):
            if text[:1] == "b" and isinstance(label := ast.literal_eval(text), bytes):
                return label
        return text.encode("utf-8", "surrogateescape")
    if kind == BOOL and text.strip().lower() in ("true", "false"):
        return text.strip().lower() == "true"
    if kind == FLOAT:
        return float(text)
    try:
        return int(text)
    except ValueError:
        return float(text)
