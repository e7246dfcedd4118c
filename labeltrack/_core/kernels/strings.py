"""Compiled: fixed-width strings to codes, looked up in a dictionary, whose rows vectors compare, or hashed."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types

from labeltrack._core.kernels.intrinsics import _U0, _U1, _emitting, _inline, _jit, _part, _prefetch_read

HASHED = 4  # words of a row that its place depends on
_WIDEST = 64  # bytes of the longest vector
_LINE = 64  # bytes of a cache line
_AHEAD = 1 << 13  # bytes between prefetching and reading

_INDEX = ir.IntType(64)


def _comparing(size: int) -> Any:
    """Return what compares two rows, `size` bytes at a time; the last vector may overlap the one before."""

    def emit(builder: Any, ours: Any, here: Any, theirs: Any, there: Any, width: Any) -> Any:  # pragma: no cover
        word = ours.type.pointee
        lanes = max(1, 8 * size // word.width)
        vector = ir.VectorType(word, lanes)

        def part(memory: Any, start: Any, at: Any) -> Any:
            place = builder.gep(memory, [builder.add(start, at)])
            return builder.load(builder.bitcast(place, vector.as_pointer()), align=word.width // 8)

        def difference(at: Any) -> Any:
            return builder.xor(part(ours, here, at), part(theirs, there, at))

        last = builder.sub(width, _INDEX(lanes))
        found = builder.or_(difference(_INDEX(0)), difference(last))
        if size == _WIDEST:  # a row may have more than two of them
            entry = builder.block
            loop, body, done = (builder.append_basic_block() for _ in range(3))
            builder.branch(loop)
            builder.position_at_end(loop)
            at, sofar = builder.phi(_INDEX), builder.phi(vector)
            builder.cbranch(builder.icmp_unsigned("<", at, last), body, done)
            builder.position_at_end(body)
            more = builder.or_(sofar, difference(at))
            following = builder.add(at, _INDEX(lanes))
            builder.branch(loop)
            for phi, start, then in ((at, _INDEX(lanes), following), (sofar, found, more)):
                phi.add_incoming(start, entry)
                phi.add_incoming(then, body)
            builder.position_at_end(done)
            found = sofar
        bits = ir.IntType(word.width * lanes)
        return builder.zext(builder.icmp_unsigned("!=", builder.bitcast(found, bits), bits(0)), _INDEX)

    @_emitting(emit, types.uint64, None, types.uint64, None, types.uint64, types.uint64)
    def differ(words, here, known, there, width):
        """Return whether two rows of `width` words, at least a vector, differ."""
        one, other = (array[int(at) : int(at + width)] for array, at in ((words, here), (known, there)))
        return np.uint64((one != other).any())

    return differ


def _coding(size: int) -> Any:
    differ = _comparing(size)

    @_part
    def code_rows(words, width, start, stop, table, known, hashed, origin, codes):
        mask = np.uint64(table.shape[0] - 1)
        # Always four words, unrolled.
        v0, v1, v2, v3 = hashed[0], hashed[1], hashed[2], hashed[3]
        m0, m1, m2, m3 = hashed[4], hashed[5], hashed[6], hashed[7]
        shift = hashed[8]
        line = np.uint64(_LINE // words.itemsize)
        far = np.uint64(_AHEAD // words.itemsize)
        missing = 0
        here = start * width
        for i in range(start - origin, stop - origin):
            _prefetch_read(words, here + far)
            if width > line:
                _prefetch_read(words, here + far + line)
            h = np.uint64(words[here + v0]) * m0 + np.uint64(words[here + v1]) * m1
            h += np.uint64(words[here + v2]) * m2 + np.uint64(words[here + v3]) * m3
            place = h >> shift
            code = table[place]
            while code >= 0 and differ(words, here, known, np.uint64(code) * width, width) != _U0:
                place = (place + _U1) & mask
                code = table[place]
            missing += code < 0
            codes[i] = code
            here += width
        return missing

    return code_rows


_code_4, _code_8, _code_16, _code_32, _code_64 = (_coding(size) for size in (4, 8, 16, 32, _WIDEST))


@_jit
def look_rows_up(words, width, start, stop, table, known, hashed, origin, codes):
    """Write the codes of rows of `width` words (uint64, uint32), that of `origin` first, -1 if unknown; count those.

    `table` has ``2**b`` codes, -1 in empty places; `known` the row of each code; `hashed` the `HASHED` words that the
    place of a row depends on, their odd multipliers, and by how much the sum is shifted to leave b bits.
    """
    row, first, end, before = np.uint64(width), np.uint64(start), np.uint64(stop), np.uint64(origin)
    size = width * words.itemsize
    if size >= _WIDEST:
        return np.int64(_code_64(words, row, first, end, table, known, hashed, before, codes))
    if size >= 32:
        return np.int64(_code_32(words, row, first, end, table, known, hashed, before, codes))
    if size >= 16:
        return np.int64(_code_16(words, row, first, end, table, known, hashed, before, codes))
    if size >= 8:
        return np.int64(_code_8(words, row, first, end, table, known, hashed, before, codes))
    return np.int64(_code_4(words, row, first, end, table, known, hashed, before, codes))


@_jit
def enter_rows(places, start, table):
    """Enter the codes from `start` on; return how many occupied places were tried (quadratic in rows of one)."""
    mask, elsewhere = np.uint64(table.shape[0] - 1), 0
    for i in range(places.shape[0]):
        place = places[i]
        while table[place] >= 0:
            place = (place + _U1) & mask
            elsewhere += 1
        table[place] = start + i
    return elsewhere


# -- hashing ----------------------------------------------------------------------------------------------------------


@_inline
def _hash_row(words, start, varying):
    """Return a hash of the words of a row that vary between rows: of names, the last few."""
    h = _U0
    for j in range(1, varying[0] + 1):
        h = (h ^ words[start + np.uint64(varying[j])]) * np.uint64(0x9E3779B97F4A7C15)
        h ^= h >> np.uint64(29)
    return h ^ (h >> np.uint64(32))


@_jit
def encode_rows(words, width, start, stop, table, known, varying, first, n, codes):
    """Give rows of `width` words (uint64) codes by open addressing; return the row reached, and the number of codes.

    The pass stops where `first`, where each code first appeared, is full. `known` has the row of each code: looking
    where it appeared took three times as long. `varying`: how many words differ between known rows, and which.
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
def _learn_row(words, here, width, code, place, table, known, varying):
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
