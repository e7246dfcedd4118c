"""Compiled: fixed-width strings to codes by hashing."""

from __future__ import annotations

from typing import Any

import numpy as np

from labeltrack._core.kernels.intrinsics import _U0, _U1, _inline, _jit, _part, _wrapping


@_inline
def _hash_row(words: Any, start: Any, varying: Any) -> Any:
    """Return a hash of the words of a row that vary between rows: of names, the last few."""
    h = _U0
    for j in range(1, varying[0] + 1):
        h = (h ^ words[start + np.uint64(varying[j])]) * np.uint64(0x9E3779B97F4A7C15)
        h ^= h >> np.uint64(29)
    return h ^ (h >> np.uint64(32))


@_wrapping
@_jit
def encode_rows(
    words: Any, width: int, start: int, stop: int, table: Any, known: Any, varying: Any, first: Any, n: int, codes: Any
) -> tuple[int, int]:
    """Give each fixed-width row of words its code by open addressing; equal rows get equal codes.

    Args:
        words: ``(N * width,)`` uint64, such as a view of a fixed-width string array.
        width: Words per row.
        start: First row to read.
        stop: One past the last.
        table: ``(2**b,)`` int32: a code, or -1 for an empty place.
        known: ``(C * width,)`` uint64: the row of each code, C at most half the table. Copies, as those in `words` may
            lie anywhere: with 100 000 labels, looking there took three times as long.
        varying: ``(1 + width,)`` int64: how many words are not the same in all known rows, and which.
        first: ``(C,)`` int64: the row where each code first appeared.
        n: Number of codes in use.
        codes: ``(N,)`` int32, written at the row's own index.

    Returns:
        The position reached, short of `stop` if there is no room for another code, and the number of codes.
    """
    mask = np.uint64(table.shape[0] - 1)
    row = np.uint64(width)
    for i in range(start, stop):
        here = np.uint64(i) * row
        place = _hash_row(words, here, varying) & mask
        code = table[place]
        while code >= 0:
            other = np.uint64(code) * row
            different = _U0
            for j in range(width):
                different |= words[here + np.uint64(j)] ^ known[other + np.uint64(j)]
            if different == _U0:
                break
            place = (place + _U1) & mask
            code = table[place]
        if code < 0:
            if n >= first.shape[0]:
                return i, n
            code = n
            first[code] = i
            n += 1
            _learn_row(words, here, width, code, place, table, known, varying)
        codes[i] = code
    return stop, n


@_part
def _learn_row(words: Any, here: Any, width: int, code: int, place: Any, table: Any, known: Any, varying: Any) -> None:
    """Add a row to the known ones; if a word varies for the first time, rehash them all."""
    row = np.uint64(width)
    mask = np.uint64(table.shape[0] - 1)
    mine = np.uint64(code) * row
    before = varying[0]
    for j in range(width):
        word = words[here + np.uint64(j)]
        known[mine + np.uint64(j)] = word
        if word != known[j]:
            seen = False
            for v in range(1, varying[0] + 1):
                seen |= varying[v] == j
            if not seen:
                varying[0] += 1
                varying[varying[0]] = j
    if varying[0] == before:
        table[place] = code
        return
    for p in range(table.shape[0]):
        table[p] = -1
    for c in range(code + 1):
        place = _hash_row(known, np.uint64(c) * row, varying) & mask
        while table[place] >= 0:
            place = (place + _U1) & mask
        table[place] = c
