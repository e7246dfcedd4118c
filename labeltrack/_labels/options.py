"""What is to be done with labels: mapping, missing and ignored ones, of one label or of each of several per sample."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from labeltrack._core.arrays import Integers
from labeltrack._labels.codes import INTEGER, LabelDecoder, read_mapping
from labeltrack._labels.combination_codes import Combinations, TupleDecoder, kind_of
from labeltrack._labels.combined import by_label
from labeltrack._labels.lookup import plain_label
from labeltrack._labels.missing import LabelOptions, check_missing
from labeltrack.errors import missing_key, warn_never, warn_no_combination, warn_nothing_mapped

ONLY = ""  # stands for the name of the label where there is one
_ON_HOST = frozenset((np.ndarray, list, type(None)))


class Labels:
    """What is to be done with the label of samples, or each of several, as users say; see `labeltrack.LabelTracker`."""

    def __init__(
        self, label: str | tuple[str, ...], label_mapping: Any = None, missing: Any = "error", ignore_label: Any = None
    ) -> None:
        self.names = None if isinstance(label, str) else label  # of several labels
        names = self.names or (ONLY,)
        mappings = self._each(label_mapping, "label_mapping", split=label_mapping is not None)
        either = self._each(missing, "missing", split=not isinstance(missing, str))
        ignored = self._each(ignore_label, "ignore_label", split=isinstance(ignore_label, Mapping))
        if self.names is not None:
            either = {name: option or "error" for name, option in either.items()}
        self.options: dict[str, LabelOptions] = {}  # by name of the label; that of one under `ONLY`
        for name in names:
            mapping = None if mappings[name] is None else read_mapping(mappings[name])
            self.options[name] = _options(mapping, check_missing(either[name], mapping), ignored[name])
        self._missing, self._ignored = missing if isinstance(missing, str) else either, ignored

    @property
    def given(self) -> tuple[Any, Any, Any]:
        """The arguments as attributes of a tracker: mapping, missing and ignored labels."""
        shown = {
            name: option.mapping and {text: label for label, text in option.mapping.items()}
            for name, option in self.options.items()
        }
        skipped = {name: _ignored(labels) for name, labels in self._ignored.items()}
        if self.names is None:
            return shown[ONLY], self._missing, skipped[ONLY]
        return shown if self.mapped else None, self._missing, skipped if any(skipped.values()) else ()

    def _each(self, option: Any, what: str, *, split: bool) -> dict[str, Any]:
        if self.names is None:
            return {ONLY: option}
        return by_label(option, self.names, what) if split else dict.fromkeys(self.names, option)

    @property
    def mapped(self) -> bool:
        return bool(self.mappings)

    @property
    def ignored(self) -> bool:
        return any(option.ignored for option in self.options.values())

    @property
    def shown(self) -> dict[Any, str] | None:
        """Display names, as statistics take them."""
        if self.names is None:
            return self.options[ONLY].shown
        named = {name: option.shown or {} for name, option in self.options.items()}
        return {(name, label): shown for name, of in named.items() for label, shown in of.items()}

    @property
    def mappings(self) -> dict[str, dict[Any, str]]:
        """The display names by label, of each label that has a mapping."""
        return {name: option.mapping for name, option in self.options.items() if option.mapping is not None}

    @property
    def nothing(self) -> LabelDecoder:
        if self.names is None:
            return LabelDecoder(INTEGER)
        return Combinations(self.names).decoder(kind_of(INTEGER for _ in self.names))

    def wanted(self, decoder: LabelDecoder) -> Integers | None:
        """Return the keys of the labels to keep; None for all."""
        if not self.mapped:
            return None
        kept = {name: wanted for name, option in self.options.items() if (wanted := option.wanted) is not None}
        return decoder.wanted(kept) if isinstance(decoder, TupleDecoder) else decoder.encode(kept[ONLY])

    def wanted_of_each(self, spaces: Iterable[LabelDecoder]) -> list[Integers | None]:
        """Return the keys to keep of each label; None keeps all."""
        pairs = zip(spaces, (option.wanted for option in self.options.values()), strict=True)
        return [None if wanted is None else space.encode(wanted) for space, wanted in pairs]

    def columns(self, labels: Any) -> dict[str, Any]:
        """Return the labels of a batch by name; KeyError if one is missing, other errors as of `by_label`."""
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
        mapped = self.mappings
        if self.names is None:
            warn_nothing_mapped(mapped[ONLY], occurred)
            return
        found = dict(zip(self.names, map(set, zip(*occurred, strict=True)), strict=False))
        warn_no_combination(mapped, [name for name in found if name in mapped and not found[name] & {*mapped[name]}])

    def warn_never(self, whole: Iterable[Any]) -> None:
        every = list(whole)
        for name, mapping in self.mappings.items():
            warn_never(mapping, every if self.names is None else [stats.by(name) for stats in every])


def _options(mapping: dict[Any, str] | None, missing: Any, ignore_label: Any) -> LabelOptions:
    ignored = _ignored(ignore_label)
    if None in ignored and missing == "label":
        msg = "ignore_label has None, which ignores samples without a label, and missing='label' counts them"
        raise ValueError(msg)
    both = [label for label in ignored if mapping is not None and label in mapping]
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
