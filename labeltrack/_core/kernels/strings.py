"""Compiled: fixed-width strings to codes, by open addressing; vectors compare rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types

from labeltrack._core.kernels.intrinsics import (
    _U0,
    _U1,
    _U2,
    _U3,
    _U4,
    _U5,
    _apart,
    _emitting,
    _inline,
    _jit,
    _part,
    _prefetch_read,
)

UNROLLED = 4  # words of a row that its place may depend on at no cost
_ALIKE = 8  # other rows that may agree with a row in all of these; then it depends on more
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


@_inline
def _first_words(hashed):
    """Return the first words that places depend on, unrolled, and their factors, which are zero for those not used."""
    count = hashed[0, 0]
    v0, v1, v2, v3 = hashed[0, 1], hashed[0, 2], hashed[0, 3], hashed[0, 4]
    m0, m1 = hashed[1, 1] * np.uint64(count > _U0), hashed[1, 2] * np.uint64(count > _U1)
    m2, m3 = hashed[1, 3] * np.uint64(count > _U2), hashed[1, 4] * np.uint64(count > _U3)
    return v0, v1, v2, v3, m0, m1, m2, m3


def _coding(size: int) -> Any:
    differ = _comparing(size)

    @_part
    def code_rows(words, width, start, stop, table, known, hashed, n, learn, codes):
        mask, shift, room = np.uint64(table.shape[0] - 1), hashed[1, 0], np.int64(known.shape[0]) // np.int64(width)
        line = np.uint64(_LINE // words.itemsize)
        far = np.uint64(_AHEAD // words.itemsize)
        least = np.int32(0 if learn else -1)
        every, i, rows, here = np.int32(0), _U0, stop - start, start * width
        while True:
            v0, v1, v2, v3, m0, m1, m2, m3 = _first_words(hashed)
            more = hashed[0, 0] > _U4
            while i < rows:
                _prefetch_read(words, here + far)
                if width > line:
                    _prefetch_read(words, here + far + line)
                h = np.uint64(words[here + v0]) * m0 + np.uint64(words[here + v1]) * m1
                h += np.uint64(words[here + v2]) * m2 + np.uint64(words[here + v3]) * m3
                if more:
                    h += _products(words, here, hashed, _U5)
                place = h >> shift
                code = table[place]
                while code >= 0 and differ(words, here, known, np.uint64(code) * width, width) != _U0:
                    place = (place + _U1) & mask
                    code = table[place]
                if code < least:
                    break
                every |= code
                codes[i] = code
                here += width
                i += _U1
            if i == rows or n == room:
                return np.int64(start) + np.int64(i), n, every < 0
            for j in range(width):
                known[np.uint64(n) * width + np.uint64(j)] = words[here + np.uint64(j)]
            codes[i] = n
            home = _products(words, here, hashed, _U1) >> shift
            if table[home] < 0:
                table[home] = n
            else:
                _tell_apart(n, width, table, known, hashed)
            n += 1
            here += width
            i += _U1

    return code_rows


@_part
def _products(words, here, hashed, first):
    """Return the sum of products of the words that the place of a row depends on, from the first or a later one on."""
    _apart()
    h = _U0
    for k in range(first, hashed[0, 0] + _U1):
        h += np.uint64(words[here + hashed[0, k]]) * hashed[1, k]
    return h


@_part
def _tell_apart(code, width, table, known, hashed):
    """Enter a known row whose place is taken; if it agrees with others in all words that places depend on, add one."""
    _apart()
    word = _enter(code, width, table, known, hashed)
    while word < width:
        hashed[0, 0] += _U1
        hashed[0, hashed[0, 0]] = word
        hashed[2, 0] = _U0
        for p in range(table.shape[0]):
            table[p] = -1
        for c in range(code + 1):
            word = _enter(c, width, table, known, hashed)


@_part
def _enter(code, width, table, known, hashed):
    """Enter a known row and return `width`; or return one more word that places are to depend on."""
    mask, mine, more = np.uint64(table.shape[0] - 1), np.uint64(code) * width, hashed[0, 0] + _U1
    place = home = _products(known, mine, hashed, _U1) >> hashed[1, 0]
    bear = _U0 if hashed[0, 0] < np.uint64(UNROLLED) else np.uint64(_ALIKE)
    while table[place] >= 0:
        other = np.uint64(table[place]) * width
        alike = True
        for k in range(_U1, more):
            alike &= known[mine + hashed[0, k]] == known[other + hashed[0, k]]
        if alike and bear == _U0:
            word = width  # if another thread has changed the row, it may be known
            for j in range(width):
                if known[mine + np.uint64(j)] != known[other + np.uint64(j)]:
                    word = np.uint64(j)
            return word
        bear -= np.uint64(alike)
        place = (place + _U1) & mask
    hashed[2, 0] += np.uint64(place != home)
    table[place] = code
    return width


_code_4, _code_8, _code_16, _code_32, _code_64 = (_coding(size) for size in (4, 8, 16, 32, _WIDEST))


@_jit
def encode_rows(words, width, start, stop, table, known, hashed, n, learn, codes):
    """Write the codes of rows of `width` words (uint64, uint32), that of `start` first, -1 for unknown ones.

    With `learn`, an unknown row gets the next code, `n`, until `known`, with the row of each code, is full. `table` has
    ``2**b`` codes, -1 in empty places. The place of a row is a sum of products, shifted to leave b bits: ``hashed[0]``
    says of how many of its words, and of which; ``hashed[1]`` by how much it is shifted, and their odd factors;
    ``hashed[2]`` how many known rows have other places, as theirs were taken.

    Returns:
        The row reached, the number of codes, and whether a row is unknown.
    """
    row, first, end, size = np.uint64(width), np.uint64(start), np.uint64(stop), width * words.itemsize
    if size >= _WIDEST:
        return _code_64(words, row, first, end, table, known, hashed, n, learn, codes)
    if size >= 32:
        return _code_32(words, row, first, end, table, known, hashed, n, learn, codes)
    if size >= 16:
        return _code_16(words, row, first, end, table, known, hashed, n, learn, codes)
    if size >= 8:
        return _code_8(words, row, first, end, table, known, hashed, n, learn, codes)
    return _code_4(words, row, first, end, table, known, hashed, n, learn, codes)
