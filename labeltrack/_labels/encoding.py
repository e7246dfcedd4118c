"""Labels of any kind become keys for the kernels, with the decoder that turns keys back into labels."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from labeltrack._core.dictionary import Dictionary
from labeltrack._core.reduce_strings import encode_words
from labeltrack._core.strings import encode_strings
from labeltrack._labels.codes import BYTES, FLOAT, STRING, LabelDecoder, Vocabulary, integer_keys

Array = npt.NDArray[Any]


def dictionary_of(labels: Array) -> Dictionary | None:
    """Return a dictionary of ``(N,)`` fixed-width strings, None for other labels."""
    return Dictionary(labels) if labels.dtype.kind in "US" else None


def to_keys(
    labels: Array, kind: str, dictionary: Dictionary | None, *, threads: int | None = None
) -> tuple[Array, LabelDecoder]:
    """Return ``(N,)`` labels of a kind as keys, contiguous, and their decoder.

    Args:
        labels: ``(N,)``.
        kind: Their kind.
        dictionary: From `dictionary_of`.
        threads: How many threads share the work; None chooses by the number of labels.
    """
    if kind in (STRING, BYTES) and labels.dtype.kind == "O":
        words = Vocabulary(kind)
        return words.encode(labels), words.decoder(kind)
    if kind == FLOAT and labels.dtype.itemsize < 8:
        return integer_keys(labels.astype(np.float64), kind), LabelDecoder(kind, narrow=labels.dtype)
    if dictionary is None:
        return np.ascontiguousarray(integer_keys(labels, kind)), LabelDecoder(kind)
    codes = encode_words(dictionary, threads=threads) if dictionary.possible else None
    if codes is not None:
        return codes, LabelDecoder(kind, dictionary.words)
    codes, first = encode_strings(labels, threads=threads)
    return codes, LabelDecoder(kind, labels[first])
