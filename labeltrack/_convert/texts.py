"""Text in arrays: of fixed width, or as objects where that would be large or lossy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Sequence

Array = npt.NDArray[Any]

WIDEST = 128
"""Most characters of text in arrays of fixed width, where each entry takes as much memory as the longest."""


def text_array(words: Sequence[Any], kind: type[str | bytes] = str) -> Array:
    r"""Return ``(N,)`` strings, or bytes, as an array.

    It is of fixed width (dtype ``U`` or ``S``), or of dtype object if a word is longer than 128 characters, as each
    entry would take as much memory, or ends with NUL, which numpy strips.

    Args:
        words: All str or all bytes.
        kind: Their type, if there are none.

    Example:
        >>> text_array(["cat", "tiger"])
        array(['cat', 'tiger'], dtype='<U5')
        >>> text_array(["a", "a\0"]).tolist()
        ['a', 'a\x00']
    """
    kind = (bytes if isinstance(words[0], bytes) else str) if len(words) else kind
    longest = max(map(len, words), default=0)
    nul: Any = b"\0" if kind is bytes else "\0"
    # One search in the joined text, as testing each word takes twice as long.
    if longest <= WIDEST and not (nul in kind().join(words) and any(word[-1:] == nul for word in words)):
        return np.array(words, dtype=f"{'S' if kind is bytes else 'U'}{max(longest, 1)}")
    array = np.empty(len(words), dtype=object)
    array[:] = [kind.__getitem__(word, slice(None)) for word in words]  # as plain str or bytes, not a subclass
    return array


def tight(texts: Array) -> Array:
    """Return ``(N,)`` texts, of any width or objects, as `text_array` stores them; other arrays unchanged."""
    if texts.dtype.kind == "O":
        return text_array(texts.tolist())
    if not is_wide(texts):
        return texts
    longest = int(np.char.str_len(texts).max(initial=1))
    return texts.astype(f"{texts.dtype.kind}{longest}" if longest <= WIDEST else object)


def is_wide(texts: Array) -> bool:
    """Return whether texts are objects, or of a large fixed width."""
    return texts.dtype.kind == "O" or (
        texts.dtype.kind in "US" and texts.dtype.itemsize > WIDEST * (4 if texts.dtype.kind == "U" else 1)
    )


def written(labels: Array) -> Array:
    """Return ``(K,)`` labels of any kind as text."""
    if labels.dtype.kind in "OS":
        words = labels.tolist()
        return text_array([w.decode("utf-8", "backslashreplace") if isinstance(w, bytes) else w for w in words])
    return labels.astype(np.str_)
