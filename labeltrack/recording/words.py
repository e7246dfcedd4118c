"""The words that codes stand for, kept as bytes until they are needed: there may be as many as ids of samples."""

from __future__ import annotations

from bisect import bisect_right
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from labeltrack._labels.codes import BYTES, STRING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Array = npt.NDArray[Any]


class Words:
    """The words of a vocabulary, by code.

    Args:
        kind: ``"string"`` or ``"bytes"``.

    Raises:
        ValueError: It is another kind.

    Example:
        >>> words = Words("string")
        >>> words.add(["cat", "dog"])
        >>> len(words), words.at([1, 0])
        (2, ['dog', 'cat'])
    """

    def __init__(self, kind: str) -> None:
        if kind not in (STRING, BYTES):
            msg = f"words of kind {kind!r}"
            raise ValueError(msg)
        self.kind = kind
        self._blocks: list[tuple[bytes, Array]] = []  # words one after the other, and where each ends
        self._firsts = [0]  # code of the first word of each block, and of the one after
        self._array: Array | None = None

    def __len__(self) -> int:
        """Return how many there are."""
        return self._firsts[-1]

    def add(self, words: Sequence[Any]) -> None:
        """Add words; TypeError if they are not all strings, or bytes in hexadecimal."""
        if self.kind == STRING and not all(isinstance(word, str) for word in words):
            msg = "words must be strings"
            raise TypeError(msg)
        plain = [
            word.encode("utf-8", "surrogatepass") if self.kind == STRING else bytes.fromhex(word) for word in words
        ]
        self._blocks.append((b"".join(plain), np.cumsum([len(word) for word in plain], dtype=np.int64)))
        self._firsts.append(len(self) + len(plain))
        self._array = None

    def at(self, codes: Iterable[int]) -> list[Any]:
        """Return the words of some codes."""
        found = []
        for code in codes:
            block = bisect_right(self._firsts, code) - 1
            text, ends = self._blocks[block]
            place = code - self._firsts[block]
            found.append(self._decoded(text[ends[place - 1] if place else 0 : ends[place]]))
        return found

    @property
    def array(self) -> Array:
        """All of them, ``(V,)`` objects."""
        if self._array is None:
            words = np.empty(len(self), dtype=object)
            for first, (text, ends) in zip(self._firsts, self._blocks, strict=False):
                edges = pairwise([0, *ends.tolist()])
                words[first : first + ends.shape[0]] = [self._decoded(text[start:end]) for start, end in edges]
            self._array = words
        return self._array

    def _decoded(self, raw: bytes) -> Any:
        return raw.decode("utf-8", "surrogatepass") if self.kind == STRING else raw
