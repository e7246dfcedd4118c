"""One meaning for the keys of a column of labels or ids over all parts of a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from labeltrack._labels.codes import INTEGER, UNSIGNED, LabelDecoder
from labeltrack._labels.tuples import WHOLE

if TYPE_CHECKING:
    from labeltrack.recording.reader import Column
    from labeltrack.recording.words import Words

Array = npt.NDArray[Any]
Integers = npt.NDArray[np.int64]


@dataclass
class Keys:
    """What keys of labels or ids of all parts that were read stand for.

    Codes of words differ between processes: those of the first vocabulary are kept, others are translated.
    """

    what: str  # for messages
    kind: str = ""
    words: Array | None = None
    _codes: dict[Any, int] = field(default_factory=dict)  # of words, once there are several vocabularies
    _known: dict[int, tuple[Words, Integers | None]] = field(default_factory=dict)  # which are kept, so ids are unique

    def of(self, column: Column, keys: Array) -> Array:
        """Return ``(N,)`` labels or ids of a part as keys.

        Raises:
            TypeError: Their type and that of earlier ones do not fit one column.
        """
        self._accept(column.kind)
        if column.words is None:
            return column.keys(keys)
        if id(column.words) not in self._known:
            self._known[id(column.words)] = column.words, self._translation(column.words.array)
        _, names = self._known[id(column.words)]
        return keys if names is None else names[keys]

    def adopt(self, other: Keys) -> Integers | None:
        """Return what the keys of another are called here, by key; None if they are the same."""
        if other.kind:
            self._accept(other.kind)
        return None if other.words is None else self._translation(other.words)

    def _accept(self, kind: str) -> None:
        kinds = {self.kind or kind, kind}
        if len(kinds) > 1 and not kinds <= WHOLE:
            msg = f"{self.what} are of several types, {' and '.join(sorted(kinds))}; select steps with one, with step="
            raise TypeError(msg)
        self.kind = kind if len(kinds) == 1 else UNSIGNED if UNSIGNED in kinds else INTEGER

    def _translation(self, words: Array) -> Integers | None:
        if self.words is None:
            self.words = words
            return None
        if not self._codes:
            self._codes = {word: code for code, word in enumerate(self.words.tolist())}
        names = [self._codes.setdefault(word, len(self._codes)) for word in words.tolist()]
        if len(self._codes) > self.words.shape[0]:
            self.words = np.array([*self._codes, None], dtype=object)[:-1]  # a list of one string would be no object
        return np.array(names, dtype=np.int64)

    def decode(self, keys: Integers) -> Array:
        """Return the labels or ids of keys."""
        return LabelDecoder(self.kind or INTEGER, self.words).decode(keys)

    def __getstate__(self) -> dict[str, Any]:
        """Return the state for pickle, without what belongs to this process."""
        return {**self.__dict__, "_known": {}}
