"""The arguments of a tracker, checked; those about labels apply to one label or to each of several."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from labeltrack._convert.objects import value_of
from labeltrack._labels.codes import INTEGER, LabelDecoder, LabelMapping
from labeltrack._labels.combination_codes import Combinations, TupleDecoder, kind_of
from labeltrack._labels.combined import by_label, separate_labels
from labeltrack._labels.lookup import plain_label
from labeltrack._labels.missing import check_missing, names_of, wanted_by
from labeltrack._labels.samples import LabelOptions
from labeltrack.errors import missing_key, warn_never, warn_no_combination, warn_nothing_mapped

if TYPE_CHECKING:
    import numpy.typing as npt

    from labeltrack.stats import LabelStats

ONLY = ""
"""Stands for the name of the label where there is one."""
_ON_HOST = frozenset((np.ndarray, list, type(None)))


def check_name(what: str, name: Any) -> str:
    """Return a name as a plain string, or raise TypeError if it is none."""
    if not isinstance(name, str):
        several = isinstance(name, (tuple, list)) and what == "metric"
        hint = "; for several metrics, see TrackerCollection" if several else ""
        msg = f"{what} must be a string, got {type(name).__name__} {name!r}{hint}"
        raise TypeError(msg)
    return str(value_of(name))


def check_bytes(number: Any) -> int:
    """Return a positive integer, or raise ValueError."""
    if isinstance(number, bool) or not isinstance(number, (int, np.integer)) or number < 1:
        msg = f"max_buffer_bytes must be a positive integer, got {number!r}"
        raise ValueError(msg)
    return int(number)


def check_label(label: Any) -> str | tuple[str, ...]:
    """Return the name of the label, or the names of several.

    Raises:
        TypeError: It is neither a string nor strings.
        ValueError: There are none, one is there twice, or one is that of another column of tables.
    """
    if not isinstance(label, (tuple, list)):
        return check_name("label", label)
    names = tuple(check_name("label", name) for name in label)
    if len(set(names)) < len(names) or not all(names or [""]):
        msg = f"label must be a name, or several different ones, none of them empty, got {label!r}"
        raise ValueError(msg)
    separate_labels(dict.fromkeys(names))
    return names


class Labels:
    """What is to be done with the label of a tracker, or with each of several.

    Args:
        label: From `check_label`.
        label_mapping: As given to the tracker.
        missing: Likewise.
        ignore_label: Likewise.

    Attributes:
        names: Names of several labels; None for one.
        options: Those of each label, by name; of one label under `ONLY`.
        given: The arguments as attributes of the tracker: mapping, missing and ignored labels.
    """

    def __init__(self, label: str | tuple[str, ...], label_mapping: Any, missing: Any, ignore_label: Any) -> None:
        self.names = None if isinstance(label, str) else label
        names = self.names or (ONLY,)
        mappings = self._each(label_mapping, "label_mapping", split=label_mapping is not None)
        either = self._each(missing, "missing", split=not isinstance(missing, str))
        ignored = self._each(ignore_label, "ignore_label", split=isinstance(ignore_label, Mapping))
        if self.names is not None:
            either = {name: option or "error" for name, option in either.items()}
        self.options: dict[str, LabelOptions] = {}
        for name in names:
            mapping = None if mappings[name] is None else LabelMapping(mappings[name])
            self.options[name] = _options(mapping, check_missing(either[name], mapping), ignored[name])
        shown = {
            name: None if option.mapping is None else {n: x for x, n in option.mapping.names.items()}
            for name, option in self.options.items()
        }
        skipped = {name: _ignored(ignored[name]) for name in names}
        self.given: tuple[Any, Any, Any]
        if self.names is None:
            self.given = shown[ONLY], missing, skipped[ONLY]
        else:
            self.given = (
                shown if any(shown.values()) else None,
                missing if isinstance(missing, str) else either,
                skipped if any(skipped.values()) else (),
            )

    def _each(self, option: Any, what: str, *, split: bool) -> dict[str, Any]:
        """Return an option by name of the label."""
        if self.names is None:
            return {ONLY: option}
        return by_label(option, self.names, what) if split else dict.fromkeys(self.names, option)

    @property
    def mapped(self) -> bool:
        """Whether there is a mapping."""
        return any(option.mapping is not None for option in self.options.values())

    @property
    def ignored(self) -> bool:
        """Whether samples with some labels are ignored as they come."""
        return any(option.ignored for option in self.options.values())

    @property
    def shown(self) -> dict[Any, str] | None:
        """Display names, as statistics take them."""
        if self.names is None:
            return names_of(*self.options[ONLY][:2])
        named = {name: names_of(*option[:2]) or {} for name, option in self.options.items()}
        return {(name, label): shown for name, of in named.items() for label, shown in of.items()}

    @property
    def nothing(self) -> LabelDecoder:
        """A decoder of no keys."""
        if self.names is None:
            return LabelDecoder(INTEGER)
        return Combinations(self.names).decoder(kind_of(INTEGER for _ in self.names))

    def wanted(self, decoder: LabelDecoder) -> npt.NDArray[np.int64] | None:
        """Return the keys of the labels to keep; None for all."""
        if not self.mapped:
            return None
        kept = {n: wanted_by(o.mapping, o.missing) for n, o in self.options.items() if o.mapping is not None}
        return decoder.wanted(kept) if isinstance(decoder, TupleDecoder) else decoder.encode(kept[ONLY])

    def columns(self, labels: Any) -> dict[str, Any]:
        """Return the labels of a batch by name.

        Raises:
            KeyError: One is missing.
            TypeError: They are neither a mapping nor a tuple.
            ValueError: There are more or fewer.
        """
        names = self.names or ()
        if not isinstance(labels, Mapping) or hasattr(labels, "shape"):
            return by_label(labels, names, "labels")
        for name in names:
            if name not in labels:
                raise missing_key(name, labels, "label in the labels:")
        return {name: labels[name] for name in names}

    def on_device(self, labels: Any, others: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """Return the columns of a batch, labels first, if one is a torch tensor on a device."""
        tensor = getattr(sys.modules["torch"], "Tensor", ())
        columns = (*((labels,) if self.names is None else self.columns(labels).values()), *others)
        for column in columns:
            # First what takes less time, as every batch with a mask comes here.
            if type(column) not in _ON_HOST and isinstance(column, tensor) and not column.is_cpu:
                return columns
        return None

    def warn_nothing(self, occurred: Iterable[Any]) -> None:
        """Warn that no sample has labels that are mapped."""
        mapped = {name: option.mapping.labels for name, option in self.options.items() if option.mapping is not None}
        if self.names is None:
            warn_nothing_mapped(mapped[ONLY], occurred)
            return
        found = [set(column) for column in zip(*occurred, strict=True)] or [set[Any]()] * len(self.names)
        unmatched = [n for n, some in zip(self.names, found, strict=True) if n in mapped and not some & {*mapped[n]}]
        warn_no_combination(mapped, unmatched)

    def warn_never(self, whole: Iterable[LabelStats]) -> None:
        """Warn about labels of mappings that never occurred."""
        every = list(whole)
        for name, option in self.options.items():
            if option.mapping is not None:
                warn_never(option.mapping.names, every if self.names is None else [stats.by(name) for stats in every])


def _options(mapping: LabelMapping | None, missing: Any, ignore_label: Any) -> LabelOptions:
    ignored = _ignored(ignore_label)
    if None in ignored and missing == "label":
        msg = "ignore_label has None, which ignores samples without a label, and missing='label' counts them"
        raise ValueError(msg)
    both = [label for label in ignored if mapping is not None and label in mapping.names]
    if both:
        msg = f"label {both[0]!r} is both in label_mapping and in ignore_label"
        raise ValueError(msg)
    kept = tuple(label for label in ignored if label is not None)
    return LabelOptions(mapping, "skip" if None in ignored else missing, kept)


def _ignored(ignore_label: Any) -> tuple[Any, ...]:
    """Return labels to ignore as a tuple of plain values, with None for missing ones."""
    if ignore_label is None:
        return ()
    one = isinstance(ignore_label, (str, bytes, Mapping)) or not isinstance(ignore_label, Iterable)
    labels = [plain_label(label) for label in ([ignore_label] if one else ignore_label)]
    strange = [label for label in labels if not isinstance(label, (bool, int, float, str, bytes, type(None)))]
    if strange:
        msg = f"ignore_label must be a label or several, numbers or strings, got {strange[0]!r}"
        raise TypeError(msg)
    plain = (None if isinstance(label, float) and math.isnan(label) else label for label in labels)
    return tuple(dict.fromkeys(plain))
