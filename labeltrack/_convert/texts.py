"""Text in arrays: of fixed width, as numpy has it by default, or as objects where that would be large or wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Sequence

Array = npt.NDArray[Any]

WIDEST = 128
"""Characters of the longest text that arrays of fixed width have; each entry takes as much as the longest."""


def text_array(words: Sequence[Any], kind: type[str | bytes] = str) -> Array:
    r"""Return ``(N,)`` strings, or bytes, as an array.

    It is of fixed width (dtype ``U`` or ``S``), or of dtype object where a word is longer than 128 characters, as each
    entry would take as much memory as that one, or ends with NUL, which numpy would leave away.

    Args:
        words: All str or all bytes.
        kind: What they are if there are none.

    Example:
        >>> text_array(["cat", "tiger"])
        array(['cat', 'tiger'], dtype='<U5')
        >>> text_array(["a", "a\0"]).tolist()
        ['a', 'a\x00']
    """
    kind = (bytes if isinstance(words[0], bytes) else str) if len(words) else kind
    longest = max(map(len, words), default=0)
    nul: Any = b"\0" if kind is bytes else "\0"
    # The search is in one long text: asking each word takes twice as long.
    if longest <= WIDEST and not (nul in kind().join(words) and any(word[-1:] == nul for word in words)):
        return np.array(words, dtype=f"{'S' if kind is bytes else 'U'}{max(longest, 1)}")
    array = np.empty(len(words), dtype=object)
    array[:] = [kind.__getitem__(word, slice(None)) for word in words]  # not numpy's or other subclasses
    return array


def tight(texts: Array) -> Array:
    """Return ``(N,)`` texts in an array such as `text_array` makes; other arrays as they are.

    Args:
        texts: Of any dtype; objects must be all str or all bytes.
    """
    if texts.dtype.kind == "O":
        return text_array(texts.tolist())
    if not is_wide(texts):
        return texts
    longest = int(np.char.str_len(texts).max(initial=1))
    return texts.astype(f"{texts.dtype.kind}{longest}" if longest <= WIDEST else object)


def is_wide(texts: Array) -> bool:
    """Return whether texts are objects, or of a fixed width that is large."""
    return texts.dtype.kind == "O" or (
        texts.dtype.kind in "US" and texts.dtype.itemsize > WIDEST * (4 if texts.dtype.kind == "U" else 1)
    )


def written(labels: Array) -> Array:
    """Return ``(K,)`` labels of any kind as they are written out."""
    if labels.dtype.kind in "OS":
        words = labels.tolist()
        return text_array([w.decode("utf-8", "backslashreplace") if isinstance(w, bytes) else w for w in words])
    return labels.astype(np.str_)
